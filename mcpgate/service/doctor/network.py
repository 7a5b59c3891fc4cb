"""Looks at what is connected to: our own listeners, and servers and services elsewhere."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from mcpgate.config.listeners import Listener, parse_listener
from mcpgate.config.model import Config, RemoteSource
from mcpgate.service.doctor.findings import FAIL, WARN, Finding, Look
from mcpgate.service.front import server_hosts
from mcpgate.web.listening.ports import port_holder

WAIT_S: Final = 5.0
MOST_NAMES: Final = 20

_PID: Final = re.compile(r"\(pid (\d+)\)$")
_PRIVILEGED: Final = 1024
_SHOWN: Final = 4


def listeners(
    config: Config,
    pid: int | None,
    uid: int,
    holder: Callable[[int], str] = port_holder,
) -> Iterator[Finding]:
    """
    Look whether ports are free, or held by the gate.

    :param pid: of the gate; None: none runs.
    :param uid: whose gate it is, or will be.
    """
    for listener in map(parse_listener, config.gate.listen + config.admin.listen):
        if listener.port:
            yield _port(listener.port, pid, uid, holder(listener.port))


def _port(port: int, pid: int | None, uid: int, held: str) -> Finding:
    name = f"port {port}"
    match = _PID.search(held)
    if match is not None and int(match[1]) == pid:
        return Finding(check=name, text="the gate listens")
    if held:
        remedy = "stop that program, or choose another port"
        return Finding(check=name, level=FAIL, text=f"held by {held}", remedy=remedy)
    if pid is not None:
        remedy = "start the gate anew: the configuration was changed"
        text = "the gate runs and does not listen here, or this user can not see it"
        return Finding(check=name, level=WARN, text=text, remedy=remedy)
    if port < _PRIVILEGED and uid != 0:
        remedy = "AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit"
        text = "free, but kept for root"
        return Finding(check=name, level=WARN, text=text, remedy=remedy)
    return Finding(check=name, text="free")


def reached(config: Config) -> dict[str, Look]:
    """Give looks at the listeners of a running gate: each must answer ``/ready``."""
    looks: dict[str, Look] = {}
    for listener in askable(config):
        name = f"answer at {listener.port}"
        looks[name] = partial(_asked, name, listener)
    return looks


def askable(config: Config) -> Iterator[Listener]:
    """Give the listeners that anybody on this machine can ask."""
    for text in config.gate.listen:
        listener = parse_listener(text)
        if listener.port and listener.prefix != "redirect" and "haproxy:" not in text:
            yield listener


def _asked(name: str, listener: Listener) -> list[Finding]:
    return [_ask(name, listener)]


def _ask(name: str, listener: Listener) -> Finding:
    try:
        status, body = get(listener, "/ready")
    except (OSError, HTTPException) as error:
        return Finding(check=name, level=FAIL, text=f"no answer: {error}", remedy="see the log")
    if status == 200:
        return Finding(check=name, text="the gate is ready")
    return Finding(check=name, level=WARN, text=f"{status}: {body}", remedy="see the log")


def get(listener: Listener, target: str) -> tuple[int, str]:
    """
    Ask a listener of this machine for something; give the status and how the body begins.

    :raises OSError: it does not answer; `HTTPException`: it answers something else than HTTP.
    """
    host = listener.interface or "127.0.0.1"
    if host in ("0.0.0.0", "::"):  # noqa: S104  # what a listener may say
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104  # the same
    assert listener.port is not None
    connection = HTTPConnection(host, listener.port, timeout=WAIT_S)
    if listener.prefix == "tls":
        # Whether the certificate is the right one is another look's business.
        context = ssl._create_unverified_context()  # noqa: S323  # as said
        connection = HTTPSConnection(host, listener.port, timeout=WAIT_S, context=context)
    try:
        connection.request("GET", target, headers={"Host": f"{host}:{listener.port}"})
        answer = connection.getresponse()
        return answer.status, answer.read(1000).decode("utf-8", "replace").strip()
    finally:
        connection.close()


def names(config: Config) -> dict[str, Look]:
    """Give looks at the names clients use: the public one, and those of servers."""
    hosts = server_hosts(config.gate)
    public = urlsplit(config.gate.public_url).hostname or ""
    servers = (spec.name for spec in (*config.servers, *config.groups) if bool(hosts))
    found = dict.fromkeys([public, *map(hosts.host_of, servers)])
    wanted = [name for name in found if name and not _is_address(name)][:MOST_NAMES]
    return {f"name {name}": partial(_resolved, name) for name in wanted}


def _resolved(host: str) -> list[Finding]:
    """Ask the resolver of this machine; what it says may differ from what clients are told."""
    name = f"name {host}"
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        remedy = "a DNS record for it, or mend public_url and server_hosts"
        text = f"clients may not find it: {error}"
        return [Finding(check=name, level=WARN, text=text, remedy=remedy)]
    return [Finding(check=name, text=f"leads to {', '.join(sorted(found)[:_SHOWN])}")]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def remotes(config: Config) -> dict[str, Look]:
    """Give looks at servers and services of keys that are elsewhere: does TLS come about?"""
    looks: dict[str, Look] = {}
    for spec in config.servers:
        if spec.url and "{" not in spec.url.partition("?")[0]:
            looks[f"server {spec.name}"] = _look(f"server {spec.name}", spec.url, None)
        if spec.rest_source is not None:
            name = f"document {spec.name}"
            looks[name] = _look(name, spec.rest_source.url, None)
    for source in config.auth.sources:
        if isinstance(source, RemoteSource):
            name = f"keys {source.name}"
            ca_file = None if source.ca_file is None else str(source.ca_file)
            looks[name] = _look(name, source.url, ca_file)
    return looks


def _look(name: str, url: str, ca_file: str | None) -> Look:
    return lambda: [connected(name, url, ca_file)]


def connected(name: str, url: str, ca_file: str | None) -> Finding:
    """Connect to where a URL leads, with TLS when it says so, and ask nothing."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    where = f"{host}:{port}"
    try:
        with socket.create_connection((host, port), WAIT_S) as plain:
            if secure:
                context = ssl.create_default_context(cafile=ca_file)
                with context.wrap_socket(plain, server_hostname=host) as wrapped:
                    return Finding(check=name, text=f"{where} answers, {wrapped.version()}")
    except ssl.SSLCertVerificationError as error:
        text = f"{where}: its certificate is not trusted: {error.verify_message}"
        remedy = "ca_file, or the authorities of this system"
        return Finding(check=name, level=FAIL, text=text, remedy=remedy)
    except (OSError, UnicodeError) as error:
        remedy = "look at name, route and firewall"
        return Finding(check=name, level=FAIL, text=f"{where}: {error}", remedy=remedy)
    return Finding(check=name, text=f"{where} answers, without TLS")
