r"""
A first look at endpoint strings, so that ``mcpgate check`` can refuse what can not work.

The form is Twisted's (``tcp:8443:interface=127.0.0.1``, a colon inside a value written ``\:``)
with our prefixes ``tls:`` and ``redirect:`` in front.  Making the endpoint, with whatever plugins
there are, is the front door's business; an endpoint type unknown here is let through.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from mcpgate.config.problems import BadValueError

PREFIXES: Final = ("tls", "redirect")
_LOOPBACK_NAMES: Final = ("localhost", "ip6-localhost")
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
    positional, named = _arguments(rest)
    kind, values = positional[0], positional[1:]
    if kind in PREFIXES:
        raise BadValueError("there is more than one prefix", "Keep tls: or redirect:")
    if kind in ("ssl", "tls"):
        raise BadValueError(
            "certificates are named in [tls], not here", "Write tls:tcp:PORT instead of ssl:PORT"
        )
    if kind in ("tcp", "tcp6"):
        return _tcp(prefix, kind, values, named)
    if kind == "unix":
        if not (values[:1] or named.get("address")) or values[:1] == [""]:
            raise BadValueError(
                "the path of the socket is missing", "Write unix:/run/mcpgate/http.sock"
            )
        return Listener(prefix, kind, None, "", public=False)
    if kind in ("", "http", "https") or len(positional) + len(named) < 2:
        raise BadValueError("this is not an endpoint", _EXAMPLE)
    # A socket handed to us (systemd, fd ..) may be bound to any address.
    return Listener(prefix, kind, None, "", public=True)


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
    if "backlog" in named:
        _number(named["backlog"], 1 << 20, "the backlog")
    interface = named.get("interface", "")
    return Listener(prefix, kind, port, interface, public=not _is_loopback(interface))


def _is_loopback(interface: str) -> bool:
    if interface in _LOOPBACK_NAMES:
        return True
    if not interface:
        return False
    try:
        return ip_address(interface.partition("%")[0]).is_loopback
    except ValueError:
        raise BadValueError(
            "the interface is not an IP address", "Name the address to listen on"
        ) from None


def _number(text: str, most: int, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= most):
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
