r"""
Where the gate listens: Twisted endpoint strings with our prefixes, bound and let go together.

Forms: ``tcp:8080:interface=127.0.0.1``, ``tcp6:8080``, ``unix:/run/mcpgate.sock:mode=660``,
``systemd:name=web`` or ``systemd:index=0``, any other server endpoint a Twisted plugin offers;
``haproxy:`` in front of one reads the PROXY protocol; ``tls:`` in front of that serves TLS,
``redirect:`` answers with the way to HTTPS only.  A colon inside a value is written ``\:``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from twisted.application.service import Service
from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    quoteStringArgument,
    serverFromString,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from typing_extensions import override

from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.listening.ports import port_holder
from mcpgate.web.listening.proxied import ProxiedFactory
from mcpgate.web.unix_sockets import clear_forsaken

log = Logger()

# Clients that come while the reactor is busy wait here (R28); the kernel cuts it to somaxconn.
BACKLOG = 1024

_EXAMPLE = "Write for example tls:tcp:8443:interface=127.0.0.1."


class BadListen(ValueError):  # noqa: N818 - named as the reader sees it
    """An entry of ``[gate] listen`` that can not work; the text says why and what to write."""


class CannotBind(Exception):  # noqa: N818 - named as the reader sees it
    """A listener could not be bound; the text names the address, and who holds it if known."""


class Kind(Enum):
    """What a listener serves."""

    PLAIN = "plain"
    TLS = "tls"
    REDIRECT = "redirect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """
    One entry of ``[gate] listen``, checked.

    :ivar text: as written.
    :ivar proxied: the PROXY protocol is spoken in front.
    :ivar endpoint: the Twisted endpoint string without our prefixes, with our defaults.
    :ivar scheme: Twisted's name of the endpoint: ``tcp``, ``unix``, ``systemd`` ..
    :ivar host: address to bind, or path; ``port``: 0 lets the system choose.
    """

    text: str
    kind: Kind
    proxied: bool
    endpoint: str
    scheme: str
    host: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Bound:
    """A listener that is up and the address it got."""

    listen: Listen
    address: IAddress

    @property
    def host(self) -> str:
        """The numeric address; empty for unix sockets."""
        return str(getattr(self.address, "host", ""))

    @property
    def port(self) -> int:
        """The port; 0 for unix sockets."""
        return int(getattr(self.address, "port", 0))

    @property
    def url(self) -> str:
        """How to reach it, for people: ``https://127.0.0.1:8443``."""
        if not isinstance(self.address, IPv4Address | IPv6Address):
            return f"unix:{_socket_path(self.address)}"
        scheme = "https" if self.listen.kind is Kind.TLS else "http"
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - shown, not bound
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


def _socket_path(address: IAddress) -> str:
    name = address.name if isinstance(address, UNIXAddress) else b""
    return os.fsdecode(name or b"")


def parse_listen(text: str) -> Listen:
    """
    Read one entry, as far as that goes without binding anything.

    :raises BadListen: it can not work.
    """
    text = text.strip()
    kind, proxied, rest = Kind.PLAIN, False, text
    if rest.startswith(("tls:", "redirect:")):
        prefix, _, rest = rest.partition(":")
        kind = Kind(prefix)
    if rest.startswith("haproxy:"):
        proxied, rest = True, rest.removeprefix("haproxy:")
    scheme, values, named = _arguments(text, rest)
    if scheme in ("tls", "redirect", "haproxy"):
        raise BadListen(
            f"listen {text!r}: {scheme}: stands twice or in the wrong place. "
            "The order is tls: or redirect:, then haproxy:, then the endpoint."
        )
    if scheme == "ssl":
        raise BadListen(
            f"listen {text!r}: certificates are named in [tls]. Write tls:tcp:PORT instead."
        )
    if scheme == "stdio":
        raise BadListen(f"listen {text!r}: the gate can not serve on stdin. {_EXAMPLE}")
    host, port = "", 0
    if scheme in ("tcp", "tcp6"):
        host, port = _check_tcp(text, scheme, values, named)
    elif scheme == "unix":
        host = _check_unix(text, values, named)
    elif scheme == "systemd":
        _check_systemd(text, values, named)
    elif not scheme or not (values or named):
        raise BadListen(f"listen {text!r} is not an endpoint. {_EXAMPLE}")
    parts = [scheme, *(quoteStringArgument(value) for value in values)]
    parts += [f"{name}={quoteStringArgument(value)}" for name, value in named.items()]
    return Listen(
        text=text,
        kind=kind,
        proxied=proxied,
        endpoint=":".join(parts),
        scheme=scheme,
        host=host,
        port=port,
    )


def _arguments(text: str, description: str) -> tuple[str, list[str], dict[str, str]]:
    """Split an endpoint string at its colons; a backslash takes the next character as it is."""
    values: list[str] = []
    named: dict[str, str] = {}
    name: str | None = None
    current = ""
    characters = iter(description + ":")
    for character in characters:
        if character == "\\":
            current += next(characters)
        elif character == "=" and name is None and values:
            name, current = current, ""
        elif character != ":":
            current += character
        elif name is None:
            values.append(current)
            current = ""
        elif name in named:
            raise BadListen(f"listen {text!r}: {name}= stands twice. Keep one of them.")
        else:
            named[name] = current
            name, current = None, ""
    if current or not values:
        raise BadListen(f"listen {text!r} ends with a backslash. Remove it.")
    return values[0], values[1:], named


def _known(text: str, named: dict[str, str], allowed: tuple[str, ...]) -> None:
    for name in named:
        if name not in allowed:
            raise BadListen(
                f"listen {text!r}: {name}= is not known here. Known are {', '.join(allowed)}."
            )
    backlog = named.setdefault("backlog", str(BACKLOG))
    _number(text, "backlog", backlog, 1 << 16)


def _number(text: str, what: str, value: str, most: int) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 6 and int(value) <= most):
        raise BadListen(f"listen {text!r}: {what} must be a number from 0 to {most}.")
    return int(value)


def _check_tcp(text: str, scheme: str, values: list[str], named: dict[str, str]) -> tuple[str, int]:
    if len(values) > 1:
        raise BadListen(
            f"listen {text!r}: only the port stands without a name. "
            r"Write interface=ADDRESS, and \: for each colon in an IPv6 address."
        )
    _known(text, named, ("port", "interface", "backlog"))
    port = values[0] if values else named.get("port", "")
    interface = named.get("interface", "")
    family = socket.AF_INET6 if scheme == "tcp6" or ":" in interface else socket.AF_INET
    if interface:
        try:
            socket.inet_pton(family, interface.partition("%")[0])
        except OSError as error:
            raise BadListen(
                f"listen {text!r}: {interface!r} is no address of this kind. "
                "Write a numeric IPv4 address for tcp:, IPv6 for tcp6:."
            ) from error
    elif scheme == "tcp6":
        interface = "::"
    else:
        interface = "0.0.0.0"  # noqa: S104 - what Twisted binds when nothing is said
    return interface, _number(text, "the port", port, 65535)


def _check_unix(text: str, values: list[str], named: dict[str, str]) -> str:
    _known(text, named, ("address", "mode", "backlog", "lockfile"))
    path = values[0] if values else named.get("address", "")
    if len(values) > 1 or not path.startswith("/"):
        raise BadListen(f"listen {text!r}: the path of the socket must begin with /.")
    if len(os.fsencode(path)) > 107:
        raise BadListen(f"listen {text!r}: the path is longer than 107 bytes. Choose another.")
    # Twisted's default lets everybody on the machine in.
    mode = named.setdefault("mode", "660")
    if not (mode.isascii() and mode.isdigit() and len(mode) <= 4 and not set(mode) & set("89")):
        raise BadListen(f"listen {text!r}: mode must be octal, for example mode=660.")
    if named.setdefault("lockfile", "1") not in ("0", "1"):
        raise BadListen(f"listen {text!r}: lockfile must be 0 or 1.")
    return path


def _check_systemd(text: str, values: list[str], named: dict[str, str]) -> None:
    unknown = set(named) - {"domain", "index", "name"}
    if values or unknown or ("index" in named) == ("name" in named):
        raise BadListen(
            f"listen {text!r}: write systemd:name=NAME (FileDescriptorName= of the socket unit) "
            "or systemd:index=0."
        )
    if "index" in named:
        _number(text, "index", named["index"], 1024)
    # The family is read from the socket; Twisted wants a word all the same.
    if named.setdefault("domain", "INET") not in ("INET", "INET6", "UNIX"):
        raise BadListen(f"listen {text!r}: domain must be INET, INET6 or UNIX.")


def make_endpoint(reactor: object, listen: Listen) -> IStreamServerEndpoint:
    """
    Make the endpoint, ready to listen.

    :raises BadListen: no such endpoint type, arguments it refuses, no such inherited socket.
    """
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, listen.endpoint)
    except (IndexError, KeyError) as error:
        raise BadListen(
            f"listen {listen.text!r}: systemd handed over no such socket. "
            "Start the gate by its .socket unit, with FileDescriptorName= set to that name."
        ) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise BadListen(
            f"listen {listen.text!r} is not an endpoint: {error}. {_EXAMPLE}"
        ) from error
    if listen.scheme == "systemd" and isinstance(endpoint, AdoptedStreamServerEndpoint):
        with socket.socket(fileno=os.dup(endpoint.fileno)) as inherited:
            endpoint.addressFamily = inherited.family
    return endpoint


class Listeners(Service):
    """
    Every listening socket of the gate.

    Starting binds all or, failing one, none.  Stopping closes the listening sockets; connections
    that are open stay with their factories, which drain them.

    :param factories: what serves each kind; every kind in ``listens`` must be there.
    :ivar bound: what is up, with the addresses the system chose.
    """

    name = "listeners"

    def __init__(
        self,
        reactor: object,
        listens: Sequence[Listen],
        factories: Mapping[Kind, IProtocolFactory],
        *,
        wheel: DeadlineWheel,
        meters: Meters,
    ) -> None:
        self._reactor = reactor
        self._listens = tuple(listens)
        self._factories = dict(factories)
        self._wheel = wheel
        self._meters = meters
        self._ports: list[IListeningPort] = []
        self.bound: tuple[Bound, ...] = ()

    @override
    def startService(self) -> Deferred[None]:
        """
        Bind everything.

        Fails with `CannotBind` or `BadListen`, after letting go of what was bound.
        """
        super().startService()
        return self._start()

    @deferred
    async def _start(self) -> None:
        bound: list[Bound] = []
        try:
            # All of them are made before one is bound: a mistake shows before the first client.
            endpoints = [make_endpoint(self._reactor, listen) for listen in self._listens]
            for listen, endpoint in zip(self._listens, endpoints, strict=True):
                try:
                    if listen.scheme == "unix":
                        clear_forsaken(listen.host)
                    port = await endpoint.listen(self._factory(listen))
                except (CannotListenError, OSError) as error:
                    raise CannotBind(_why(listen, error)) from error
                self._ports.append(port)
                bound.append(Bound(listen, port.getHost()))
        except BaseException:
            await self._close()
            raise
        self.bound = tuple(bound)
        for each in bound:
            log.info("Listening on {url} ({listen})", url=each.url, listen=each.listen.text)

    def _factory(self, listen: Listen) -> IProtocolFactory:
        factory = self._factories[listen.kind]
        if listen.proxied:
            return ProxiedFactory(factory, wheel=self._wheel, meters=self._meters)
        return factory

    def shareable(self) -> list[tuple[Listen, int]]:
        """
        Give the descriptors that other processes may accept from.

        Ports of a Twisted plugin that are no sockets of ours are not among them.
        """
        return [
            (bound.listen, port.fileno())
            for bound, port in zip(self.bound, self._ports, strict=True)
            if isinstance(port, tcp.Port)
        ]

    def accept(self, wanted: bool) -> None:
        """Take new connections, or leave them to wait in the kernel's queue."""
        for port in self._ports:
            change = getattr(port, "startReading" if wanted else "stopReading", None)
            if change is not None:
                change()

    def share(self, here: bool) -> None:
        """Accept on what is shareable, or leave that to other processes; nothing is closed."""
        for port in self._ports:
            if isinstance(port, tcp.Port):
                (port.startReading if here else port.stopReading)()

    @override
    def stopService(self) -> Deferred[None]:
        """Close the listening sockets.  Idempotent."""
        super().stopService()
        return self._close()

    @deferred
    async def _close(self) -> None:
        ports, self._ports, self.bound = self._ports, [], ()
        for port in ports:
            try:
                await maybeDeferred(port.stopListening)
            except Exception:
                log.failure("A listening socket did not close")


def _why(listen: Listen, error: Exception) -> str:
    reason = getattr(error, "socketError", None) or error
    told = getattr(reason, "strerror", None) or str(reason)
    where = f"{listen.host} port {listen.port}" if listen.port else (listen.host or listen.endpoint)
    holder = port_holder(listen.port) if listen.port else ""
    text = f"Can not listen on {where} (listen = {listen.text}): {told}."
    if holder:
        return f"{text} {holder} listens there. Stop it, or choose another port."
    if isinstance(reason, PermissionError) and 0 < listen.port < 1024:
        return f"{text} Ports below 1024 need CAP_NET_BIND_SERVICE or systemd socket activation."
    return text
