"""
What the byte relay costs, as ratios within one run.

    python bench/relay.py [--seconds 4] [--connections 32] [--profile]

Measures with ``wrk``: a server of ours directly, the same through the relay, and through nginx
where it is installed.  One process each; proxies are pinned to one core where there are two.
"""
# ruff: noqa: PLC0415, TID251
# Each process imports what it runs, after it chose its reactor; waiting for ports blocks nobody.

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOST = "127.0.0.1"
BODY = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello"}]}}'
REQUEST = (
    'wrk.method = "POST"\n'
    'wrk.body = \'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}\'\n'
    'wrk.headers["Content-Type"] = "application/json"\n'
    'wrk.headers["Accept"] = "application/json, text/event-stream"\n'
    'wrk.headers["Authorization"] = "Bearer key-of-ann"\n'
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def serve_upstream(port: int) -> None:
    """Answer each request as fast as Twisted can: no parsing but of the length."""
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory, Protocol

    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(BODY), BODY)
    )
    length_of = re.compile(rb"content-length: (\d+)", re.IGNORECASE)

    class Upstream(Protocol):
        held = b""

        def dataReceived(self, data: bytes) -> None:
            data = self.held + data
            while True:
                end = data.find(b"\r\n\r\n")
                if end < 0:
                    break
                found = length_of.search(data, 0, end)
                end += 4 + (int(found[1]) if found else 0)
                if len(data) < end:
                    break
                data = data[end:]
                self.transport.getHandle().send(answer)
            self.held = data

    reactor.listenTCP(port, Factory.forProtocol(Upstream), interface=HOST, backlog=512)
    reactor.run()


def serve_relay(port: int, upstream: int, profile: bool) -> None:
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor

    from mcpgate.http.forwarding import Forwarding
    from mcpgate.http.responses import ResponseHeads
    from mcpgate.interfaces import IInbound
    from mcpgate.model import Caller, Principal, Secret, ServerSpec, Transport
    from mcpgate.telemetry.meters import Meters
    from mcpgate.timing.wheel import DeadlineWheel
    from mcpgate.upstream.http import HTTPUpstream, plain_endpoint
    from mcpgate.web.relay.relay import Relay
    from mcpgate.web.wire.bounds import Bounds
    from mcpgate.web.wire.front import FrontFactory

    meters = Meters()
    wheel = DeadlineWheel(reactor)
    relay = Relay(reactor, wheel, Forwarding(), meters)
    spec = ServerSpec(name="srv", transport=Transport.HTTP)
    callers = {
        b"Bearer key-of-ann": Caller(Principal("bench", "ann", "0" * 32), Secret("key-of-ann"))
    }
    server = HTTPUpstream(
        reactor,
        lambda: plain_endpoint(reactor, HOST, upstream),
        authority=b"%b:%d" % (HOST.encode(), upstream),
        wheel=wheel,
        meters=meters,
        heads=ResponseHeads(),
    )

    class Lease:
        instance = None
        upstream = server

        def touch(self) -> None:
            pass

        def release(self) -> None:
            pass

    def dispatch(inbound: IInbound) -> None:
        caller = callers[inbound.head.fields.get(b"authorization") or b""]
        path = inbound.head.path.removeprefix(b"/srv")
        relay.relay(inbound, Lease(), spec, caller, target=path, prefix=b"/srv")

    front = FrontFactory(
        clock=reactor,
        wheel=wheel,
        bounds=Bounds(requests=0, connections_per_address=0),
        dispatch=dispatch,
        make_request_id=lambda: "0123456789abcdef",
        record=lambda entry: None,
        meters=meters,
        secure=False,
    )
    reactor.listenTCP(port, front, interface=HOST, backlog=512)
    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(reactor.stop))
    if profile:
        import cProfile
        import pstats

        measured = cProfile.Profile()
        measured.runcall(reactor.run)
        pstats.Stats(measured, stream=sys.stderr).sort_stats("tottime").print_stats(32)
    else:
        reactor.run()


def nginx(port: int, upstream: int, directory: Path) -> subprocess.Popen[bytes] | None:
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        return None
    config = directory / "nginx.conf"
    config.write_text(
        f"""daemon off; worker_processes 1; pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  keepalive_requests 100000000;
  map $http_authorization $known {{ default 0; "Bearer key-of-ann" 1; }}
  upstream up {{ server {HOST}:{upstream}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen {HOST}:{port};
    location /srv/ {{
      if ($known = 0) {{ return 401; }}
      proxy_pass http://up/; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""
    )
    return subprocess.Popen(
        [*pinned(0), binary, "-c", str(config), "-e", str(directory / "error.log")]
    )


def pinned(core: int) -> list[str]:
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 else []


def wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}")


def cpu_s(pid: int) -> float:
    """Give the processor time of a process and the children it forked (nginx)."""
    total = 0
    children = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    for one in [str(pid), *children.split()]:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def measure(
    port: int, path: str, args: argparse.Namespace, script: Path, pid: int
) -> tuple[float, str]:
    before_s = cpu_s(pid)
    command = ["wrk", "-t1", f"-c{args.connections}", f"-d{args.seconds}s", "--latency"]
    url = f"http://{HOST}:{port}{path}"
    out = subprocess.run(
        [*pinned(1), *command, "-s", str(script), url], capture_output=True, text=True, check=True
    ).stdout
    used_s = cpu_s(pid) - before_s
    count = re.search(r"(\d+) requests in", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    median = re.search(r"50%\s+(\d\S+)", out)
    p99 = re.search(r"99%\s+(\d\S+)", out)
    bad = re.search(r"Non-2xx.*|Socket errors.*", out)
    assert rate and median and p99 and count
    each_us = used_s / int(count[1]) * 1e6
    said = f"{each_us:5.1f} us CPU each, p50 {median[1]} p99 {p99[1]} {bad[0] if bad else ''}"
    return float(rate[1]), said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--serve", nargs=2, type=int, metavar=("PORT", "UPSTREAM"))
    args = parser.parse_args()
    if args.serve:
        port, upstream = args.serve
        if upstream:
            serve_relay(port, upstream, args.profile)
        else:
            serve_upstream(port)
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed")
    upstream, gate, other = free_port(), free_port(), free_port()
    me = [sys.executable, __file__]
    flags = ["--profile"] if args.profile else []
    running = [subprocess.Popen([*pinned(1), *me, "--serve", str(upstream), "0"])]
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "request.lua"
        script.write_text(REQUEST)
        try:
            running.append(
                subprocess.Popen([*pinned(0), *me, *flags, "--serve", str(gate), str(upstream)])
            )
            web = nginx(other, upstream, Path(directory))
            rows = [("direct", upstream, "/x", running[0].pid)]
            if web is not None:
                running.append(web)
                subprocess.run(
                    ["taskset", "-acp", "0", str(web.pid)], stdout=subprocess.DEVNULL, check=False
                )
                rows.append(("nginx", other, "/srv/x", web.pid))
            rows.append(("relay", gate, "/srv/x", running[1].pid))
            rates: dict[str, float] = {}
            warm = argparse.Namespace(connections=args.connections, seconds=1)
            for name, port, path, pid in rows:
                wait_for(port)
                measure(port, path, warm, script, pid)
                rates[name], text = measure(port, path, args, script, pid)
                print(f"{name:8} {rates[name]:9.0f} req/s  {text}", flush=True)
            print(f"relay / direct = {rates['relay'] / rates['direct']:.2f}")
            if "nginx" in rates:
                print(f"relay / nginx  = {rates['relay'] / rates['nginx']:.2f}")
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


if __name__ == "__main__":
    main()
