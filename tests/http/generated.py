"""
Requests made up by dice: right ones of every legal shape, and wrong ones of every known kind.

The dice are given, so the same seed gives the same requests.  Names of twists tell what was done to
a request; ``""`` is one that was left right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random  # noqa: TID251 - handed in, seeded by the test
from typing import Final

HOST: Final = b"127.0.0.1"

_KNOWN: Final = (b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS")
_RARE: Final = (b"PROPFIND", b"REPORT", b"M-SEARCH", b"MKCOL", b"PURGE", b"LINK", b"QUERY")
_UNRESERVED: Final = b"abcXYZ019-._~"
_PATH_CHARS: Final = _UNRESERVED + b"!$&'()*+,;=:@"
_ODD_CHARS: Final = b"^{}|[]"
_ESCAPES: Final = (b"%20", b"%41", b"%c3%A9", b"%2F", b"%3f", b"%25", b"%23", b"%0d%0a")
_TOKEN_CHARS: Final = b"abcdefXYZ019!#$%&'*+-.^_`|~"
_VALUE_CHARS: Final = bytes(range(0x21, 0x7F)) + b"  \t\t,;=" + bytes(range(0x80, 0x100, 5))
_SMUGGLED: Final = b"GET /srv/smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

#: Fields a client may well send, and the gate has an opinion on.
_COMMON: Final = (
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"gzip, br"),
    (b"Cache-Control", b"no-cache"),
    (b"Content-Type", b"application/json"),
    (b"Content-Language", b"de"),
    (b"Cookie", b"a=b; c=d"),
    (b"Forwarded", b"for=192.0.2.1"),
    (b"If-None-Match", b'"x"'),
    (b"Keep-Alive", b"timeout=5"),
    (b"Max-Forwards", b"3"),
    (b"Mcp-Method", b"tools/list"),
    (b"Proxy-Connection", b"keep-alive"),
    (b"Range", b"bytes=0-1"),
    (b"TE", b"trailers"),
    (b"Trailer", b"X-Sum"),
    (b"User-Agent", b"dice/1"),
    (b"Via", b"1.0 fred"),
    (b"X-Custom", b"1"),
    (b"X_Custom", b"2"),
    (b"X-Forwarded-For", b"192.0.2.9"),
    (b"X-Forwarded-Evil", b"1"),
    (b"X-Mcpgate-User", b"root"),
    (b"X-Real-IP", b"192.0.2.9"),
    (b"X-Request-Id", b"theirs"),
    (b"Proxy-Authorization", b"Basic eDp5"),
)


@dataclass
class Parts:
    """
    One request before it becomes bytes.

    :ivar lines: field lines as they will stand there, without line ends.
    :ivar body: as it will be sent: with its chunks.
    """

    method: bytes
    target: bytes
    version: bytes
    lines: list[bytes]
    body: bytes = b""
    between: bytes = b" "

    def wire(self) -> bytes:
        """Give the bytes."""
        start = self.between.join((self.method, self.target, self.version))
        return b"\r\n".join([start, *self.lines, b"", b""]) + self.body


@dataclass
class Case:
    """
    What one client sends on one connection.

    :ivar pieces: the bytes, as the network splits them.
    :ivar twists: one of each request.
    """

    pieces: list[bytes]
    twists: list[str] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        """Everything sent."""
        return b"".join(self.pieces)


class Generated:
    """
    Makes cases.

    :param prefix: of every right target.
    :param common: field lines every request carries, a key for example.
    """

    def __init__(
        self, seed: int, *, prefix: bytes = b"/srv", common: tuple[bytes, ...] = ()
    ) -> None:
        self.dice = Random(seed)
        self._prefix = prefix
        self._common = common

    def cases(self, requests: int) -> list[Case]:
        """Make cases that hold so many requests together."""
        made: list[Case] = []
        while requests > 0:
            count = min(requests, self.dice.choice((1, 1, 1, 2, 3, 5)))
            made.append(self._case(count))
            requests -= count
        return made

    def _case(self, count: int) -> Case:
        dice = self.dice
        data, twists = b"", []
        for number in range(count):
            last = number == count - 1
            parts = self._right(last=last)
            twist = ""
            # What is refused ends the connection: mostly the last request is odd, but not always.
            if dice.random() < (0.6 if last else 0.05):
                twist, turn = dice.choice(_TWISTS)
                turn(dice, parts)
            wire = parts.wire()
            if dice.random() < (0.2 if last else 0.02):
                twist, wire = twist + "+bytes", self._edited(wire)
            if number and dice.random() < 0.1:
                # One empty line before a request is forgiven.
                wire = b"\r\n" + wire
            data += wire
            twists.append(twist)
        return Case(self._split(data), twists)

    def _split(self, data: bytes) -> list[bytes]:
        dice = self.dice
        if dice.random() < 0.4:
            return [data]
        if dice.random() < 0.1 and len(data) < 600:
            return [data[at : at + 1] for at in range(len(data))]
        cuts = sorted(dice.randrange(1, len(data)) for _ in range(dice.randrange(1, 6)))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]

    def _edited(self, wire: bytes) -> bytes:
        """Change a few bytes anywhere."""
        dice = self.dice
        changed = bytearray(wire)
        for _ in range(dice.choice((1, 1, 2, 3))):
            at = dice.randrange(len(changed))
            byte = dice.choice(b"\0\t\n\r :;,/%0aA\x7f\x80\xff\x0b\x1f")
            what = dice.randrange(3)
            if what == 0:
                changed[at] = byte
            elif what == 1:
                changed.insert(at, byte)
            else:
                del changed[at]
        return bytes(changed)

    # --- Right ones

    def _right(self, *, last: bool) -> Parts:
        dice = self.dice
        method = dice.choice(_KNOWN) if dice.random() < 0.9 else dice.choice(_RARE)
        # After a request of HTTP/1.0 the connection may end, so nothing comes behind one.
        version = b"HTTP/1.0" if last and dice.random() < 0.12 else b"HTTP/1.1"
        target = self._target()
        if dice.random() < 0.05:
            target = dice.choice((b"http://", b"HTTP://", b"https://")) + HOST + target
        lines = [self._line(*dice.choice(_COMMON)) for _ in range(dice.randrange(5))]
        lines += [self._made_up() for _ in range(dice.randrange(4))]
        if lines and dice.random() < 0.2:
            lines.append(dice.choice(lines))
        if dice.random() < 0.1:
            lines.append(b"Connection: " + dice.choice((b"X-Custom", b"keep-alive, x-custom")))
        if last and dice.random() < 0.05:
            lines.append(b"Connection: close")
        lines += self._common
        dice.shuffle(lines)
        host = self._line(b"Host", HOST)
        lines.insert(dice.randrange(len(lines) + 1), host)
        parts = Parts(method, target, version, lines)
        self._add_body(parts)
        if version == b"HTTP/1.1" and dice.random() < 0.06:
            parts.lines += dice.choice(
                (
                    [b"Connection: Upgrade", b"Upgrade: websocket"],
                    [b"Connection: upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: A"],
                    [b"Upgrade: websocket"],
                )
            )
        return parts

    def _target(self) -> bytes:
        dice = self.dice
        path = self._prefix
        for _ in range(dice.randrange(1, 5)):
            segment = b"".join(
                dice.choice(_ESCAPES) if dice.random() < 0.1 else bytes([dice.choice(_PATH_CHARS)])
                for _ in range(dice.randrange(7))
            )
            path += b"/" + (segment if segment.strip(b".") else b"x")
        if dice.random() < 0.4:
            chars = _PATH_CHARS + b"/?" + (_ODD_CHARS if dice.random() < 0.2 else b"")
            path += b"?" + bytes(dice.choice(chars) for _ in range(dice.randrange(15)))
        return path

    def _line(self, name: bytes, value: bytes) -> bytes:
        dice = self.dice
        name = dice.choice((name, name, name.lower(), name.upper()))
        before, after = dice.choice((b"", b" ", b" ", b" ", b"\t", b"  \t")), b""
        if dice.random() < 0.2:
            after = dice.choice((b" ", b"\t", b" \t "))
        return name + b":" + before + value + after

    def _made_up(self) -> bytes:
        dice = self.dice
        name = b"X-" + bytes(dice.choice(_TOKEN_CHARS) for _ in range(dice.randrange(1, 9)))
        value = bytes(dice.choice(_VALUE_CHARS) for _ in range(dice.randrange(20)))
        return self._line(name, value.strip(b" \t"))

    def _add_body(self, parts: Parts) -> None:
        dice = self.dice
        kind = dice.randrange(10)
        if kind < 4:
            return
        body = dice.choice(
            (b"", b"{}", b"\r\n\r\n", b"0\r\n\r\n", _SMUGGLED, dice.randbytes(dice.randrange(300)))
        )
        if kind < 7 or parts.version == b"HTTP/1.0":
            digits = b"%d" % len(body)
            if dice.random() < 0.05:
                digits = b"00" + digits
            parts.lines.append(self._line(b"Content-Length", digits))
            parts.body = body
        else:
            parts.lines.append(
                self._line(b"Transfer-Encoding", dice.choice((b"chunked", b"chunked", b"CHUNKED")))
            )
            parts.body = self._chunks(body)
        if dice.random() < 0.1:
            parts.lines.append(b"Expect: " + dice.choice((b"100-continue", b"100-Continue")))

    def _chunks(self, body: bytes) -> bytes:
        dice = self.dice
        wire = b""
        while body:
            size = dice.randrange(1, len(body) + 1)
            digits = dice.choice((b"%x", b"%X", b"0%x", b"000%X")) % size
            wire += digits + self._extension() + b"\r\n" + body[:size] + b"\r\n"
            body = body[size:]
        wire += dice.choice((b"0", b"0", b"00")) + self._extension() + b"\r\n"
        while dice.random() < 0.15:
            wire += self._line(dice.choice((b"X-Sum", b"Server-Timing", b"X-Late")), b"1") + b"\r\n"
        return wire + b"\r\n"

    def _extension(self) -> bytes:
        if self.dice.random() < 0.85:
            return b""
        return self.dice.choice((b";a", b";a=b", b';a="b c"', b";a=b;c=d", b";"))


# --- Wrong ones --------------------------------------------------------------------------------

Twist = Callable[[Random, Parts], None]


def _add(*lines: bytes) -> Twist:
    """Put one of these lines among the fields."""

    def turn(dice: Random, parts: Parts) -> None:
        parts.lines.insert(dice.randrange(len(parts.lines) + 1), dice.choice(lines))

    return turn


def _without(*names: bytes) -> Callable[[Parts], None]:
    def strip(parts: Parts) -> None:
        parts.lines = [
            line for line in parts.lines if line.partition(b":")[0].strip().lower() not in names
        ]

    return strip


_unframed = _without(b"content-length", b"transfer-encoding")
_unhosted = _without(b"host")


def _framed(*framings: bytes, body: bytes = b"hello") -> Twist:
    """Say the body's length in one of these ways."""

    def turn(dice: Random, parts: Parts) -> None:
        _unframed(parts)
        parts.lines += dice.choice(framings).split(b"\n")
        parts.body = body

    return turn


def _chunked(*bodies: bytes) -> Twist:
    def turn(dice: Random, parts: Parts) -> None:
        _unframed(parts)
        parts.lines.append(b"Transfer-Encoding: chunked")
        parts.body = dice.choice(bodies)

    return turn


def _host(*values: bytes) -> Twist:
    def turn(dice: Random, parts: Parts) -> None:
        _unhosted(parts)
        value = dice.choice(values)
        parts.lines += value.split(b"\n") if value else []

    return turn


def _target(*targets: bytes) -> Twist:
    def turn(dice: Random, parts: Parts) -> None:
        parts.target = dice.choice(targets)

    return turn


def _within_target(*bits: bytes) -> Twist:
    def turn(dice: Random, parts: Parts) -> None:
        at = dice.randrange(5, len(parts.target) + 1)
        parts.target = parts.target[:at] + dice.choice(bits) + parts.target[at:]

    return turn


def _method(*methods: bytes) -> Twist:
    def turn(dice: Random, parts: Parts) -> None:
        parts.method = dice.choice(methods)

    return turn


def _version(*versions: bytes) -> Twist:
    def turn(dice: Random, parts: Parts) -> None:
        parts.version = dice.choice(versions)

    return turn


def _spacing(*spaces: bytes) -> Twist:
    def turn(dice: Random, parts: Parts) -> None:
        parts.between = dice.choice(spaces)

    return turn


def _line_end(end: bytes) -> Twist:
    """End one line otherwise."""

    def turn(dice: Random, parts: Parts) -> None:
        at = dice.randrange(len(parts.lines))
        following = parts.lines[at + 1] if at + 1 < len(parts.lines) else b"X-Z: 1"
        parts.lines[at : at + 2] = [parts.lines[at] + end + following]

    return turn


def _many(dice: Random, parts: Parts) -> None:
    parts.lines += [b"X-Many: 1"] * dice.choice((90, 101, 200))


def _long(dice: Random, parts: Parts) -> None:
    parts.lines.append(b"X-Long: " + b"a" * dice.choice((9_000, 17_000)))


def _long_target(dice: Random, parts: Parts) -> None:
    parts.target += b"/" + b"a" * dice.choice((7_000, 9_000))


def _cut_short(dice: Random, parts: Parts) -> None:
    """Announce more than comes, or leave the end off."""
    if parts.body:
        parts.body = parts.body[: dice.randrange(len(parts.body))]


_OLD: Final = _framed(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n")


def _chunked_10(dice: Random, parts: Parts) -> None:
    parts.version = b"HTTP/1.0"
    _OLD(dice, parts)


_BOTH: Final = (
    b"Content-Length: 5\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\nContent-Length: 5",
    b"Content-Length: 15\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\nContent-Length: 0",
)
_FIVE: Final = b"5\r\nhello\r\n0\r\n\r\n"

_TWISTS: Final[list[tuple[str, Twist]]] = [
    ("line end LF", _line_end(b"\n")),
    ("line end CR", _line_end(b"\r")),
    ("line end CR CR LF", _line_end(b"\r\r\n")),
    ("folded", _add(b" folded", b"\tfolded", b" X: 1")),
    ("no colon", _add(b"nonsense")),
    ("empty name", _add(b": 1", b":")),
    ("space in name", _add(b"X Y: 1", b"X : 1", b"X\t: 1", b"Content-Length : 5")),
    ("odd name", _add(b"X(a): 1", b"X\xe9: 1", b"X/Y: 1", b'"X": 1', b"X\0: 1", b"X\x7f: 1")),
    ("control in value", _add(b"X: a\0b", b"X: a\x07b", b"X: a\x0bb", b"X: a\x7fb", b"X:\x0cb")),
    ("8 bit value", _add(b"X: \xff\xfe", b"X: caf\xc3\xa9", b"X: \x85b", b"X: a\xa0")),
    ("two framings", _framed(*_BOTH, body=_FIVE)),
    ("two lengths", _framed(b"Content-Length: 5\nContent-Length: 5", b"Content-Length: 5, 5")),
    ("lengths differ", _framed(b"Content-Length: 5\nContent-Length: 3", b"Content-Length: 5, 3")),
    (
        "odd length",
        _framed(
            *(b"Content-Length: " + odd for odd in (b"+5", b"-5", b"0x5", b"5a", b"5 5", b"5.0")),
            *(b"Content-Length:" + odd for odd in (b"", b" ", b" 1_0", b' "5"', b" \xd9\xa5")),
        ),
    ),
    (
        "huge length",
        _framed(b"Content-Length: 99999999999999999999", b"Content-Length: " + b"9" * 40),
    ),
    (
        "odd coding",
        _framed(
            *(
                b"Transfer-Encoding: " + odd
                for odd in (
                    b"gzip",
                    b"identity",
                    b"gzip, chunked",
                    b"chunked, chunked",
                    b"chunked,",
                )
            ),
            *(b"Transfer-Encoding:" + odd for odd in (b"", b"\x0bchunked", b' "chunked"', b" x")),
            b"Transfer-Encoding: chunked\nTransfer-Encoding: chunked",
            b"Transfer-Encoding : chunked",
            b"Transfer_Encoding: chunked",
            b"Transfer-Encoding: identity\nContent-Length: 5",
            body=_FIVE,
        ),
    ),
    ("chunked in HTTP/1.0", _chunked_10),
    (
        "odd chunk size",
        _chunked(
            *(
                odd + b"\r\nhello\r\n0\r\n\r\n"
                for odd in (b"-5", b"+5", b"0x5", b" 5", b"5 ", b"5\t", b"g", b"", b"5_0", b"5 ;a")
            ),
            *(odd + b"\r\nhello\r\n0\r\n\r\n" for odd in (b"f" * 17, b"10000000000000005", b"5\0")),
        ),
    ),
    (
        "odd chunk end",
        _chunked(
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"3\r\nhello\r\n0\r\n\r\n",
            b"6\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\n\n",
            b"5\r\nhello\r\n0\r\n\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"5\rhello\r\n0\r\n\r\n",
        ),
    ),
    (
        "odd chunk extension",
        _chunked(
            b"5;a\0b\r\nhello\r\n0\r\n\r\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5;\x01\r\nhello\r\n0\r\n\r\n",
            b"5;" + b"e" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
            b"5;\xff\r\nhello\r\n0\r\n\r\n",
        ),
    ),
    (
        "odd trailer",
        _chunked(
            b"0\r\nnonsense\r\n\r\n",
            b"0\r\nX: 1\n\n",
            b"0\r\nX: 1\r\n folded\r\n\r\n",
            b"0\r\nContent-Length: 5\r\n\r\n",
            b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"0\r\nAuthorization: Bearer x\r\n\r\n",
            b"0\r\nHost: other\r\n\r\n",
            b"0\r\nX : 1\r\n\r\n",
            b"0\r\nX: a\0b\r\n\r\n",
            b"0\r\nX: " + b"t" * 9000 + b"\r\n\r\n",
            b"0\r\nX: \xff\r\n\r\n",
        ),
    ),
    ("no host", _host(b"")),
    (
        "odd host",
        _host(
            b"Host:",
            b"Host: a b",
            b"Host: a@" + HOST,
            b"Host: " + HOST + b"/x",
            b"Host: " + HOST + b":x",
            b"Host: " + HOST + b":65536",
            b"Host: " + HOST + b"\nHost: " + HOST,
            b"Host: " + HOST + b"\nHost: other",
            b"Host: " + HOST + b", other",
            b"Host: \xe4",
        ),
    ),
    (
        "odd target",
        _target(
            *(b"*", b"srv/x", b"", b"http://other/srv/x", b"http://a@" + HOST + b"/srv/x"),
            *(b"ftp://" + HOST + b"/srv/x", b"http:/srv/x", b"?x", b"/srv/x#y", b"#"),
        ),
    ),
    ("elsewhere", _target(b"//srv/x", b"/other/x", b"/", b"/SRV/x", b"/%73rv/x", b"/srv")),
    (
        "climbing",
        _target(
            *(b"/srv/../x", b"/srv/a/..", b"/srv/%2e%2e/x", b"/srv/a%2f..%2fb", b"/srv/..;x/y"),
            *(b"/srv/%252e%252e/x", b"/srv/./x", b"/srv/x%00y", b"/srv/a/..%5cb"),
        ),
    ),
    (
        "odd in target",
        _within_target(b" ", b"\t", b"#", b"\\", b'"', b"<", b">", b"`", b"\x01", b"\0", b"\xe9"),
    ),
    ("odd method", _method(b"get", b"Get", b"G@T", b"", b"G T", b"\0GET", b"BREW", b"A" * 30)),
    ("refused method", _method(b"CONNECT", b"TRACE")),
    (
        "odd version",
        _version(
            *(b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.11", b"HTTP/1"),
            *(b"HTTP/1.1 ", b"HTTP/1.1 x", b"HTTPS/1.1", b"HTTP/ 1.1", b"HTTP/+1.1"),
        ),
    ),
    ("odd spaces", _spacing(b"  ", b"\t", b" \t", b"\x0b", b"\xa0")),
    ("odd expectation", _add(b"Expect: the-unexpected", b"Expect: 100-continue, x", b"Expect:")),
    (
        "look-alike field",
        _add(b"Content_Length: 5", b"Mcp_Session_Id: x", b"X_Forwarded_For: 1", b"X_API-Key: x"),
    ),
    (
        "connection options",
        _add(
            *(b"Connection: close,x-custom", b"Connection: host, content-length", b"Connection: ,"),
            *(b"Connection: keep-alive;q=1", b"Connection: Accept Cookie", b"Connection:"),
        ),
    ),
    ("many fields", _many),
    ("long field", _long),
    ("long target", _long_target),
    ("cut short", _cut_short),
]

#: What a request may be called, without ``+bytes``.
TWISTS: Final = ("", *(name for name, _ in _TWISTS))
