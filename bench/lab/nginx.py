"""nginx and HAProxy as contenders: the same check of a key; nginx logs accesses as well."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.lab import cores
from bench.lab.lab import Lab
from bench.lab.parts import need
from bench.lab.running import HOST, Program, free_port

NGINX: Final = "nginx"
HAPROXY: Final = "HAProxy"

_NGINX: Final = """
daemon off; worker_processes 1; pid {directory}/pid; error_log stderr;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
  access_log {directory}/access.log combined buffer=64k flush=1s;
  client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;
  fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  keepalive_requests 100000000; client_max_body_size 0;
  map_hash_bucket_size 256;
  map $http_authorization $known {{ default 0; "Bearer {key}" 1; }}
  map $http_upgrade $upgraded {{ default upgrade; "" ""; }}
  upstream up {{ server {host}:{upstream}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen {host}:{port} backlog=1024;
    {tls}
    location /srv/ {{
      if ($known = 0) {{ return 401; }}
      proxy_pass http://up/; proxy_http_version 1.1; proxy_read_timeout 1h;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgraded;
      {streams}
    }}
  }}
}}
"""
_TLS: Final = """listen {host}:{port} ssl backlog=1024;
    ssl_certificate {certificate}; ssl_certificate_key {key_file};
    ssl_session_cache shared:s:10m; ssl_session_tickets on;"""
# What passes a body on as it comes, as the gate does.
STREAMING: Final = "proxy_buffering off; proxy_request_buffering off;"

_HAPROXY: Final = """
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
  http-reuse always
frontend front
  bind {host}:{port} backlog 1024
  http-request deny deny_status 401 unless {{ req.hdr(authorization) -m str "Bearer {key}" }}
  http-request replace-path /srv(/.*) \\1
  default_backend back
backend back
  server one {host}:{upstream} pool-max-conn 64
"""


class WebServer:
    """
    A running nginx or HAProxy.

    :ivar port: in clear; `tls_port` with TLS, where it was asked for.
    """

    def __init__(self, program: Program, port: int, tls_port: int) -> None:
        self.program, self.port, self.tls_port = program, port, tls_port
        self.pid = program.pid
        program.wait_for_port(port)
        if tls_port:
            program.wait_for_port(tls_port)


def nginx(
    lab: Lab,
    upstream: int,
    key: str,
    *,
    certificate: Path | None = None,
    streaming: bool = False,
    files: int = 4096,
) -> WebServer:
    """Start nginx before a server; :raises BenchError: it is not installed, or does not start."""
    binary = need("nginx")
    directory = lab.place(NGINX)
    port, tls_port, tls = free_port(), 0, ""
    if certificate is not None:
        tls_port = free_port()
        tls = _TLS.format(
            host=HOST,
            port=tls_port,
            certificate=certificate,
            key_file=certificate.with_suffix(".key"),
        )
    config = directory / "nginx.conf"
    config.write_text(
        _NGINX.format(
            directory=directory,
            host=HOST,
            port=port,
            upstream=upstream,
            key=key,
            tls=tls,
            files=files,
            streams=STREAMING if streaming else "",
        )
    )
    # Without a user of its own it would serve as nobody, who may not write here.
    command = [*cores.for_proxy(), binary, "-c", str(config), "-e", "stderr"]
    return WebServer(lab.start(NGINX, [*command, "-g", "user root;"]), port, tls_port)


def haproxy(lab: Lab, upstream: int, key: str) -> WebServer:
    """Start HAProxy before a server; :raises BenchError: it is not installed, or does not start."""
    binary = need("haproxy")
    port = free_port()
    config = lab.place(HAPROXY) / "haproxy.cfg"
    config.write_text(_HAPROXY.format(host=HOST, port=port, upstream=upstream, key=key))
    command = [*cores.for_proxy(), binary, "-db", "-f", str(config)]
    return WebServer(lab.start(HAPROXY, command), port, 0)
