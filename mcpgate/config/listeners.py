r"""
A first look at endpoint strings, so that ``mcpgate check`` can refuse what can not work.

The form is Twisted's (``tcp:8443:interface=127.0.0.1``, a colon inside a value written ``\:``)
with our prefixes ``tls:`` or ``redirect:``, then ``haproxy:``, in front.
Making the endpoint, with whatever plugins there are, is the front door's business; an endpoint
type unknown here is let through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from mcpgate.config.problems import BadValueError

PREFIXES: Final = ("tls", "redirect")
_LONGEST_SOCKET_PATH: Final = 107  # sun_path of unix(7), less its end
_EXAMPLE: Final = "Write for example tls:tcp:8443:interface=127.0.0.1"


@dataclass(frozen=True, slots=True)
class Listener:
    """
    What can be told of an endpoint string.

    :ivar prefix: ``tls``, ``redirect`` or empty for plain HTTP.
    :ivar kind: Twisted's name: ``tcp``, ``tcp6``, ``unix``, ``systemd`` ..
    :ivar port: of TCP; 0 lets the system choose; None when there is none.
    :ivar public: other machines may reach it, as far as the text tells.
    """

    prefix: str
    kind: str
    port: int | None
    interface: str
    public: bool


def parse_listener(text: str) -> Listener:
    """
    Take an endpoint string apart.

    :raises BadValueError: it can not be one.
    """
    prefix, _, rest = text.partition(":")
    if prefix not in PREFIXES:
        prefix, rest = "", text
    rest = rest.removeprefix("haproxy:")
    positional, named = _arguments(rest)
    kind, values = positional[0], positional[1:]
    if kind in (*PREFIXES, "haproxy"):
        raise BadValueError(
            "a prefix stands twice or in the wrong place",
            "Write tls: or redirect:, then haproxy:, then the endpoint",
        )
    if kind == "ssl":
        raise BadValueError(
            "certificates are named in [tls], not here", "Write tls:tcp:PORT instead of ssl:PORT"
        )
    if kind in ("tcp", "tcp6"):
        return _tcp(prefix, kind, values, named)
    if kind == "unix":
        return _unix(prefix, values, named)
    if kind == "systemd":
        return _systemd(prefix, values, named)
    if kind in ("", "http", "https", "stdio") or len(positional) + len(named) < 2:
        raise BadValueError("this is not an endpoint", _EXAMPLE)
    # A socket handed to us may be bound to any address.
    return Listener(prefix, kind, None, "", public=True)


def _unix(prefix: str, values: list[str], named: dict[str, str]) -> Listener:
    path = values[0] if values else named.get("address", "")
    if len(values) > 1 or not path.startswith("/") or len(path.encode()) > _LONGEST_SOCKET_PATH:
        raise BadValueError(
            "the path of the socket is missing, relative or longer than 107 bytes",
            "Write unix:/run/mcpgate/http.sock",
        )
    if set(named) - {"address", "mode", "backlog", "lockfile"}:
        raise BadValueError(
            "unix takes a path, mode=, backlog= and lockfile=", "Write unix:/run/x.sock:mode=660"
        )
    if not re.fullmatch("[0-7]{1,4}", named.get("mode", "660"), re.ASCII):
        raise BadValueError("the mode is not octal", "Write for example mode=660")
    if named.get("lockfile", "1") not in ("0", "1"):
        raise BadValueError("lockfile is 0 or 1", "Remove it")
    _backlog(named)
    return Listener(prefix, "unix", None, "", public=False)


def _systemd(prefix: str, values: list[str], named: dict[str, str]) -> Listener:
    fits = ("index" in named) != ("name" in named) and not set(named) - {"domain", "index", "name"}
    if values or not fits or named.get("domain", "INET") not in ("INET", "INET6", "UNIX"):
        raise BadValueError(
            "a socket of systemd is named by its name or its index",
            "Write systemd:name=NAME (FileDescriptorName= of the socket unit) or systemd:index=0",
        )
    if "index" in named:
        _number(named["index"], 1024, "the index")
    return Listener(prefix, "systemd", None, "", public=True)


def _tcp(prefix: str, kind: str, values: list[str], named: dict[str, str]) -> Listener:
    if len(values) > 1 and "interface" in named:
        raise BadValueError(
            "a colon in an address needs a backslash", r"Write interface=\:\:1 for IPv6"
        )
    if len(values) > 1:
        raise BadValueError("only the port stands without a name", _EXAMPLE)
    unknown = set(named) - {"port", "interface", "backlog"}
    if unknown or (values and "port" in named):
        raise BadValueError("TCP takes a port, interface=ADDRESS and backlog=NUMBER", _EXAMPLE)
    port = _number(values[0] if values else named.get("port", ""), 65535, "the port")
    _backlog(named)
    interface = named.get("interface", "")
    return Listener(prefix, kind, port, interface, public=not _is_loopback(kind, interface))


def _backlog(named: dict[str, str]) -> None:
    _number(named.get("backlog", "0"), 1 << 16, "the backlog")


def _is_loopback(kind: str, interface: str) -> bool:
    if not interface:
        return False
    try:
        address = ip_address(interface.partition("%")[0])
    except ValueError:
        raise BadValueError(
            "the interface is not an IP address", "Name the address to listen on"
        ) from None
    if kind == "tcp6" and address.version == 4:
        raise BadValueError("tcp6 listens on an IPv6 address", "Write tcp: instead of tcp6:")
    return address.is_loopback


def _number(text: str, most: int, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= most):
        raise BadValueError(f"{what} is not a number from 0 to {most}", _EXAMPLE)
    return int(text)


def _arguments(text: str) -> tuple[list[str], dict[str, str]]:
    """Split at colons; a backslash takes the next character as it is."""
    positional: list[str] = []
    named: dict[str, str] = {}
    name: str | None = None
    current: list[str] = []
    rest = iter(text + ":")
    for char in rest:
        if char == "\\":
            # The colon added above ends the text: an escaped one means a backslash stood last.
            following = next(rest)
            current.append(following)
        elif char == "=" and name is None and (positional or named):
            name, current = "".join(current), []
        elif char == ":":
            if name is None:
                positional.append("".join(current))
            elif name in named:
                raise BadValueError("an argument stands twice", "Keep one of them")
            else:
                named[name] = "".join(current)
            name, current = None, []
        else:
            current.append(char)
    if current or not positional:
        raise BadValueError("a backslash stands at the end", "Remove it")
    return positional, named
