"""
What a value may be: each kind knows its name for the reader and how to read one item.

A parser never repeats the value in its complaint: it may hold a secret.  Long because there are
many kinds, each a few lines beside its constant.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, ip_address, ip_network
from os.path import normpath
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from mcpgate.config import units
from mcpgate.config.listeners import parse_listener
from mcpgate.config.model import CertificatePair, Network
from mcpgate.config.problems import BadValueError, suggestion
from mcpgate.model import Destination, Rate, Secret

NAME: Final = re.compile(r"[a-z0-9-]{1,40}", re.ASCII)
TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)  # RFC 9110 5.6.2
_HOST: Final = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_])?", re.ASCII)
_SERVER_HOST: Final = re.compile(
    r"[a-z0-9-]{0,40}\*[a-z0-9-]{0,40}(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?){1,20}", re.ASCII
)
_DOTTED: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", re.ASCII)
_IMAGE: Final = re.compile(
    r"(?=.{1,255}\Z)(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
_PATTERN: Final = re.compile(r"[A-Za-z0-9_.*?/-]{1,200}", re.ASCII)
_ALIAS: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_USER: Final = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?", re.ASCII
)
_NEVER_MOUNTED: Final = frozenset(
    "/ /boot /dev /etc /proc /root /run /sys /var /var/lib /var/lib/docker /var/run".split()
)
_NEVER_REACHED: Final = tuple(
    map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"))
)
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}", re.ASCII)
_YES: Final = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
_FRAMING: Final = frozenset(
    "connection content-length host keep-alive te trailer transfer-encoding upgrade "
    "proxy-authorization proxy-connection expect".split()
)
MOST_WORKERS: Final = 64
_MOST_INTEGER_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    What relative paths and ``~`` mean.

    :ivar base: the directory of the configuration file, absolute.
    :ivar home: the home directory; None when it is unknown.
    """

    base: Path
    home: Path | None

    def beside(self, text: str) -> Path:
        """Give a path as seen from the file; ``..`` at its front is taken off, for readers."""
        base = self.base
        while text.startswith("../"):
            base, text = base.parent, text[3:].lstrip("/")
        return base / text


class Layout(Enum):
    """How the lines of a value make items."""

    ONE = "one item on one line"
    LINES = "one item on each line"
    WORDS = "items between white space or commas, on one line or more"
    SHELL = "words as a shell splits them, on one line or more"
    BLOCK = "one text of one line or more"


Parse = Callable[[str, Surroundings], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """
    :ivar label: what the reference calls it, with the unit.
    :ivar parse: reads one item; a tuple of them is made for LINES, WORDS and SHELL.
    :ivar secret: the value is never shown, not even when it is refused.
    """

    label: str
    parse: Parse
    layout: Layout = Layout.ONE
    secret: bool = False


def duration(*, low_s: float = 0.0, high_s: float = 365 * 86400.0, zero: str = "") -> Kind:
    """Make the kind of a time span; ``zero`` tells what 0 means where it is allowed beside."""

    def parse(text: str, _: Surroundings) -> float:
        seconds = units.parse_duration(text)
        if seconds == 0 and zero:
            return seconds
        _within(seconds, low_s, high_s, units.format_duration)
        return seconds

    return Kind(label=_with_zero("duration", zero), parse=parse)


def size(*, low: int = 0, high: int = 1 << 50, zero: str = "") -> Kind:
    """Make the kind of a number of bytes."""

    def parse(text: str, _: Surroundings) -> int:
        found = units.parse_size(text)
        if found == 0 and zero:
            return found
        _within(found, low, high, lambda bound: units.format_size(int(bound)))
        return found

    return Kind(label=_with_zero("size", zero), parse=parse)


def integer(*, low: int = 0, high: int = 10_000_000, zero: str = "") -> Kind:
    """Make the kind of a count."""

    def parse(text: str, _: Surroundings) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= _MOST_INTEGER_DIGITS):
            raise BadValueError("this is not a whole number", "Write digits only")
        found = int(text)
        if found == 0 and zero:
            return found
        _within(found, low, high, str)
        return found

    return Kind(label=_with_zero("whole number", zero), parse=parse)


def number(*, low: float = 0.0, high: float = 1e6, zero: str = "") -> Kind:
    """Make the kind of a decimal number."""

    def parse(text: str, _: Surroundings) -> float:
        if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text, re.ASCII):
            raise BadValueError("this is not a number", "Write digits, such as 0.3")
        found = float(text)
        if found == 0 and zero:
            return found
        _within(found, low, high, lambda bound: f"{bound:g}")
        return found

    return Kind(label=_with_zero("number", zero), parse=parse)


def choice(*words: str) -> Kind:
    """Make the kind of one word out of several."""

    def parse(text: str, _: Surroundings) -> str:
        if text in words:
            return text
        raise BadValueError("this is not one of the choices", suggestion(text, words))

    return Kind(label=" | ".join(words), parse=parse)


def output(*words: str) -> Kind:
    """Make the kind of one word out of several, or a path."""

    def parse(text: str, around: Surroundings) -> str:
        if text in words:
            return text
        if "/" not in text:
            raise BadValueError(
                "this is neither a path nor one of the choices",
                f"Write {', '.join(words)} or a path with a slash",
            )
        return str(_path(text, around))

    return Kind(label=" | ".join((*words, "path")), parse=parse)


def _with_zero(label: str, zero: str) -> str:
    return f"{label}; 0: {zero}" if zero else label


def _within(found: float, low: float, high: float, show: Callable[[float], str]) -> None:
    if found < low:
        raise BadValueError("this is too small", f"Write {show(low)} or more")
    if found > high:
        raise BadValueError("this is too large", f"Write {show(high)} or less")


def _flag(text: str, _: Surroundings) -> bool:
    try:
        return _YES[text.lower()]
    except KeyError:
        raise BadValueError("this is neither on nor off", "Write on or off (yes, no)") from None


def _text(text: str, _: Surroundings) -> str:
    return text


def _secret(text: str, _: Surroundings) -> Secret:
    return Secret(text)


def _password_hash(text: str, _: Surroundings) -> str:
    # What the digits mean is the admin pages' business; a password in clear must not pass for one.
    if not re.fullmatch(r"scrypt:[0-9]{1,2}:[0-9a-f]{2,128}:[0-9a-f]{32,256}", text, re.ASCII):
        raise BadValueError(
            "this is not a hashed password", "Write scrypt:BITS:SALT:HASH, or use password"
        )
    return text


def _path(text: str, around: Surroundings) -> Path:
    if text == "~" or text.startswith("~/"):
        if around.home is None:
            raise BadValueError("the home directory is unknown", "Write an absolute path")
        return around.home / text[2:]
    if "\0" in text or text.startswith("~"):
        raise BadValueError("this is not a path", "Write an absolute path")
    return around.beside(text)


def _existing(text: str, around: Surroundings) -> Path:
    path = _path(text, around)
    try:
        fits = path.is_file()
    except OSError:
        # What we may not look at now, the service may: it says so itself if not.
        return path
    if not fits:
        raise BadValueError("there is no such file", "Create it or mend the path")
    return path


def _listener(text: str, _: Surroundings) -> str:
    parse_listener(text)
    return text


def _network(text: str, _: Surroundings) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise BadValueError(
            "this is not an address or network", "Write for example 10.0.0.0/8 or ::1"
        ) from None
    raise BadValueError("bits are set behind the prefix of the network", f"Write {loose}")


def _header_name(text: str, _: Surroundings) -> str:
    check_header_name(text)
    return text.lower()


def _key_header(text: str, around: Surroundings) -> str:
    name = _header_name(text, around)
    if name in ("authorization", "x-api-key", "cookie"):
        raise BadValueError(
            "this field can not be a further one for keys",
            "Authorization and X-API-Key are read anyway, Cookie never is",
        )
    return name


def check_header_name(name: str) -> None:
    """
    Tell whether a field of this name may be set by a configuration.

    :raises BadValueError: it is no name, or it belongs to the connection.
    """
    if not TOKEN.fullmatch(name):
        raise BadValueError("this is not the name of an HTTP field", "Write it like X-API-Key")
    if name.lower() in _FRAMING:
        raise BadValueError("this HTTP field belongs to the connection", "Remove it")


def check_header_value(value: str) -> None:
    """
    Tell whether this can stand in one HTTP field (RFC 9110 5.5).

    :raises BadValueError: it holds control characters or what is not Latin-1.
    """
    if any(
        ord(char) > 255 or (ord(char) < 32 and char != "\t") or char == "\x7f" for char in value
    ):
        raise BadValueError(
            "an HTTP field holds one line of Latin-1 text", "Remove line ends and other characters"
        )


def _header_value(text: str, _: Surroundings) -> str:
    check_header_value(text)
    return text


def _host(text: str, _: Surroundings) -> str:
    if text == "*":
        return text
    name = text.lower()
    try:
        return ip_address(name.strip("[]")).compressed
    except ValueError:
        pass
    if not _HOST.fullmatch(name) or ".." in name:
        raise BadValueError(
            "this is not the name of a host", "Write it without scheme, port and path"
        )
    return name


def _server_host(text: str, _: Surroundings) -> str:
    name = text.lower()
    if not _SERVER_HOST.fullmatch(name):
        raise BadValueError(
            "this is no host name with one * in its first label",
            "Write *.example.org or mcp-*.example.org",
        )
    return name


def split_url(text: str) -> tuple[str, str]:
    """
    Give scheme and host of an absolute http or https URL without user, query and fragment.

    :raises BadValueError: it is no such URL.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise BadValueError(
            "this is not an http or https URL", "Write it like https://mcp.example.org/mcp"
        )
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise BadValueError("the URL holds characters that belong percent-encoded", "Encode them")
    if parts.username is not None or parts.password is not None:
        raise BadValueError(
            "a URL holds no user and password here", "Send them with header.Authorization"
        )
    if "{" in text or "}" in text:
        raise BadValueError(
            "a URL is no template: URLs show in logs", "Send the key with header.NAME"
        )
    if parts.fragment or "#" in text:
        raise BadValueError("the URL holds a fragment", "Remove # and what follows")
    return parts.scheme, parts.hostname


def _url(text: str, _: Surroundings) -> str:
    split_url(text)
    return text


def _document(text: str, around: Surroundings) -> Path | str:
    if not text.lower().startswith(("http:", "https:")):
        return _path(text, around)
    split_url(text)
    return text


def _origin(text: str, _: Surroundings) -> str:
    split_url(text)
    parts = urlsplit(text)
    if parts.path not in ("", "/") or parts.query:
        raise BadValueError(
            "this is a URL with a path", "Write scheme, host and port only: https://host:8443"
        )
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _url_path(text: str, _: Surroundings) -> str:
    if not text.startswith("/") or text.startswith("//") or re.search(r"[\s#{}\\]", text):
        raise BadValueError("this is not the path of a URL", "Write it like /mcp")
    return text


def _per_s(text: str, _: Surroundings) -> float | None:
    return None if text == "off" else units.parse_per_s(text)


def _budget(text: str, _: Surroundings) -> Rate:
    return units.parse_budget(text)


def _throughput(text: str, _: Surroundings) -> int:
    return units.parse_throughput(text)


def _workers(text: str, _: Surroundings) -> int:
    if text == "auto":
        return len(os.sched_getaffinity(0))
    if not re.fullmatch("[0-9]{1,2}", text, re.ASCII) or not 1 <= int(text) <= MOST_WORKERS:
        raise BadValueError(
            "this is no number of processes", f"Write auto or a number from 1 to {MOST_WORKERS}"
        )
    return int(text)


def _status(text: str, _: Surroundings) -> int:
    if not re.fullmatch("[1-5][0-9][0-9]", text, re.ASCII) or text < "200":
        raise BadValueError("this is not an HTTP status", "Write for example 200 204")
    return int(text)


def _method(text: str, _: Surroundings) -> str:
    if text not in ("GET", "POST", "HEAD", "PUT"):
        raise BadValueError("this method is not offered", "Write GET, POST, HEAD or PUT")
    return text


def _dotted(text: str, _: Surroundings) -> str:
    if not _DOTTED.fullmatch(text):
        raise BadValueError("this is not a path into JSON", "Write it like data.user.id")
    return text


def _name(text: str, _: Surroundings) -> str:
    if not NAME.fullmatch(text):
        raise BadValueError("this is not a name", "Names hold a-z, 0-9 and -, 40 at most")
    return text


def _pattern(text: str, _: Surroundings) -> str:
    if not _PATTERN.fullmatch(text):
        raise BadValueError(
            "this is not a pattern for tools", "Write SERVER__TOOL, with * and ? for what may vary"
        )
    return text


def _alias(text: str, _: Surroundings) -> str:
    if not _ALIAS.fullmatch(text):
        raise BadValueError(
            "this is not a name for tools", "Names hold letters, digits, _, - and ., 64 at most"
        )
    return text


def _certificate(text: str, around: Surroundings) -> CertificatePair:
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    named = dict(word.partition("=")[::2] for word in words if "=" in word)
    if len(words) == 2 and set(named) == {"cert", "key"}:
        words = [named["cert"], named["key"]]
    elif len(words) != 2 or named.keys() & {"cert", "key"}:
        raise BadValueError(
            "a certificate and its key belong on one line", "Write CERT.pem KEY.pem on each line"
        )
    found = []
    for word, what in zip(words, ("certificate", "key"), strict=True):
        try:
            found.append(_existing(word, around))
        except BadValueError as problem:
            raise BadValueError(f"the {what}: {problem.text}", problem.remedy) from None
    return CertificatePair(*found)


def _realm(text: str, _: Surroundings) -> str:
    if not text.isascii() or not text.isprintable() or '"' in text or "\\" in text:
        raise BadValueError("a realm is plain text without quotes", "Write a short ASCII text")
    return text


def _image(text: str, _: Surroundings) -> str:
    if not _IMAGE.fullmatch(text):
        raise BadValueError(
            "this is not the name of an image", "Write NAME:TAG or NAME@sha256:DIGEST"
        )
    return text


def _user(text: str, _: Surroundings) -> str:
    if not _USER.fullmatch(text):
        raise BadValueError("this is not a user", "Write UID, UID:GID or a name the image knows")
    if text.partition(":")[0].lstrip("0") in ("", "root"):
        raise BadValueError("containers do not run as root", "Write another user, such as 10001")
    return text


def _volume(text: str, _: Surroundings) -> str:
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(part.startswith("/") for part in parts[:2]):
        raise BadValueError(
            "this is not a volume", "Write /FOLDER/OF/HOST:/FOLDER/INSIDE, perhaps with :rw behind"
        )
    if len(parts) == 3 and parts[2] not in ("ro", "rw"):
        raise BadValueError("a volume is ro or rw", "Write :rw behind it, or nothing")
    source, target = (normpath(part) for part in parts[:2])
    whole = source in _NEVER_MOUNTED or source.startswith(("/proc/", "/sys/", "/dev/"))
    if whole or source.endswith(".sock") or target == "/":
        raise BadValueError(
            "this would give the container a way to the whole machine", "Name a folder of its own"
        )
    return ":".join((source, target, *parts[2:]))


def _destination(text: str, _: Surroundings) -> Destination:
    host, colon, number = text.partition(":")
    if colon and not (number.isascii() and number.isdigit() and 0 < int(number[:6]) < 65536):
        raise BadValueError(
            "behind the colon stands no port", "Write NAME:443, ADDRESS:443 or NETWORK:443"
        )
    port = int(number or 0)
    if re.fullmatch(r"[0-9./]*", host):
        try:
            network = IPv4Network(host)
        except ValueError:
            raise BadValueError(
                "this is no IPv4 address or network", "Write 203.0.113.7 or 203.0.113.0/24"
            ) from None
        if any(network.overlaps(one) for one in _NEVER_REACHED):
            raise BadValueError(
                "these are addresses of a machine itself, or of a cloud's metadata",
                "Take them out: no container reaches them",
            )
        return Destination(str(network).removesuffix("/32"), port)
    name = host.lower().rstrip(".")
    if not _NAME.fullmatch(name) or len(name) > 253:
        raise BadValueError(
            "this is neither a name nor an IPv4 address",
            "Write api.example.org:443 or 203.0.113.0/24",
        )
    return Destination(name, port)


def _subnets(text: str, around: Surroundings) -> IPv4Network:
    network = _network(text, around)
    if not isinstance(network, IPv4Network) or not network.is_private or network.prefixlen > 26:
        raise BadValueError(
            "this is not a private IPv4 network of 64 addresses or more", "Write 10.213.0.0/16"
        )
    return network


def _gate_id(text: str, _: Surroundings) -> str:
    if not NAME.fullmatch(text):
        raise BadValueError("this is not an id", "Write a-z, 0-9 and -, 40 at most")
    return text


def _engine(text: str, _: Surroundings) -> str:
    if not text.startswith(("unix:///", "tcp://", "http://", "https://", "ssh://")):
        raise BadValueError(
            "this is not the address of an engine", "Write it like unix:///var/run/docker.sock"
        )
    return text


FLAG: Final = Kind(label="on | off", parse=_flag)
IMAGE: Final = Kind(label="image", parse=_image)
USER: Final = Kind(label="user", parse=_user)
DESTINATIONS: Final = Kind(
    label="names, addresses or networks, perhaps with :PORT",
    parse=_destination,
    layout=Layout.WORDS,
)
VOLUMES: Final = Kind(label="volumes, one on each line", parse=_volume, layout=Layout.LINES)
SUBNETS: Final = Kind(label="IPv4 network", parse=_subnets)
GATE_ID: Final = Kind(label="name", parse=_gate_id)
ENGINE: Final = Kind(label="address of an engine", parse=_engine)
TEXT: Final = Kind(label="text", parse=_text)
BLOCK: Final = Kind(label="text, on more lines if need be", parse=_text, layout=Layout.BLOCK)
SECRET_BLOCK: Final = Kind(
    label="template, on more lines if need be", parse=_text, layout=Layout.BLOCK, secret=True
)
SECRET: Final = Kind(label="text, never shown", parse=_secret, secret=True)
PASSWORD_HASH: Final = Kind(label="scrypt:BITS:SALT:HASH", parse=_password_hash, secret=True)
HEADER_VALUE: Final = Kind(label="template", parse=_header_value, secret=True)
PATH: Final = Kind(label="path", parse=_path)
PATHS: Final = Kind(label="paths, one on each line", parse=_path, layout=Layout.LINES)
FILE: Final = Kind(label="path of a file that exists", parse=_existing)
LISTENERS: Final = Kind(label="endpoints, one on each line", parse=_listener, layout=Layout.LINES)
NETWORKS: Final = Kind(label="addresses and networks", parse=_network, layout=Layout.WORDS)
HOSTS: Final = Kind(label="host names", parse=_host, layout=Layout.WORDS)
SERVER_HOSTS: Final = Kind(label="host names with one *", parse=_server_host, layout=Layout.WORDS)
ORIGINS: Final = Kind(label="origins", parse=_origin, layout=Layout.WORDS)
KEY_HEADERS: Final = Kind(label="field names", parse=_key_header, layout=Layout.WORDS)
HEADER_NAMES: Final = Kind(label="field names", parse=_header_name, layout=Layout.WORDS)
ALIAS: Final = Kind(label="name", parse=_alias)
PATTERNS: Final = Kind(label="patterns", parse=_pattern, layout=Layout.WORDS)
NAMES: Final = Kind(label="names", parse=_name, layout=Layout.WORDS)
URL: Final = Kind(label="URL", parse=_url)
DOCUMENT: Final = Kind(label="path or URL", parse=_document)
ORIGIN: Final = Kind(label="scheme, host and port", parse=_origin)
URL_PATH: Final = Kind(label="path of a URL", parse=_url_path)
PER_S: Final = Kind(label="rate | off", parse=_per_s)
BUDGET: Final = Kind(label="rate", parse=_budget)
THROUGHPUT: Final = Kind(label="size per second; 0: no limit", parse=_throughput)
WORKERS: Final = Kind(label="number | auto: one per processor", parse=_workers)
STATUSES: Final = Kind(label="HTTP statuses", parse=_status, layout=Layout.WORDS)
METHOD: Final = Kind(label="HTTP method", parse=_method)
DOTTED: Final = Kind(label="dotted path into JSON", parse=_dotted)
CERTIFICATES: Final = Kind(
    label="pairs of paths, one on each line", parse=_certificate, layout=Layout.LINES
)
COMMAND: Final = Kind(label="words as a shell splits them", parse=_text, layout=Layout.SHELL)
REALM: Final = Kind(label="text", parse=_realm)
