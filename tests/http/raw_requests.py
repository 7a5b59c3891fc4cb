"""
Raw requests that two readers might judge differently, and what the front door must say to each.

The status is that of the first answer; None means the connection is closed without one.  Names
begin with the family of the requirements R01-R13.
"""

from __future__ import annotations

from dataclasses import dataclass

H = b"Host: gate.test\r\n"
GET = b"GET / HTTP/1.1\r\n"
POST = b"POST /x HTTP/1.1\r\n" + H
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


@dataclass(frozen=True)
class Raw:
    """
    One input.

    :ivar bodies: of the requests that must reach the dispatcher, in order.
    """

    name: str
    data: bytes
    status: int | None
    bodies: tuple[bytes, ...] = ()


def bad(name: str, data: bytes, status: int | None = 400) -> Raw:
    """Give an input that must never reach the dispatcher whole."""
    return Raw(name, data, status)


def good(name: str, data: bytes, *bodies: bytes) -> Raw:
    """Give an input that is answered 200."""
    return Raw(name, data, 200, bodies or (b"",))


def head(*lines: bytes, start: bytes = GET) -> bytes:
    """Give a GET with a host and these lines."""
    return start + H + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def cl(value: bytes) -> bytes:
    """Give a POST with this Content-Length."""
    return POST + b"Content-Length:" + value + b"\r\n\r\nabcde"


def te(value: bytes, version: bytes = b"1.1") -> bytes:
    """Give a POST with this Transfer-Encoding."""
    start = b"POST /x HTTP/" + version + b"\r\n" + H
    return start + b"Transfer-Encoding:" + value + b"\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"


_BOTH = b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"
_SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: gate.test\r\n\r\n"

CORPUS: list[Raw] = [
    # R01: two framings
    bad("clte", POST + _BOTH[0] + _BOTH[1] + b"\r\n0\r\n\r\n" + _SMUGGLED),
    bad("tecl", POST + _BOTH[1] + _BOTH[0] + b"\r\n0\r\n\r\n" + _SMUGGLED),
    bad("clte-zero", POST + b"Content-Length: 0\r\n" + _BOTH[1] + b"\r\n0\r\n\r\n"),
    bad("clte-case", POST + b"content-LENGTH: 5\r\nTRANSFER-encoding: Chunked\r\n\r\n" + END),
    bad("clte-get", head(b"Content-Length: 0", b"Transfer-Encoding: chunked") + END),
    # R02: Content-Length
    bad("dup-cl", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"),
    bad("dup-cl-same", POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde"),
    bad("cl-list", cl(b" 5, 5")),
    bad("cl-plus", cl(b" +5")),
    bad("cl-minus", cl(b" -5")),
    bad("cl-hex", cl(b" 0x5")),
    bad("cl-underscore", cl(b" 1_0")),
    bad("cl-inner-space", cl(b" 1 0")),
    bad("cl-empty", cl(b"")),
    bad("cl-blank", cl(b"   ")),
    bad("cl-unicode", cl(b" \xd9\xa5")),
    bad("cl-float", cl(b" 5.0")),
    bad("cl-exponent", cl(b" 5e0")),
    bad("cl-quoted", cl(b' "5"')),
    bad("cl-letter", cl(b" 5a")),
    bad("cl-huge", cl(b" 100000000000000000000000"), 413),
    bad("cl-huge-64", cl(b" 18446744073709551621"), 413),
    bad("cl-over-limit", cl(b" 4194305"), 413),
    good("cl-zeros", cl(b" 0005"), b"abcde"),
    good("cl-tab", cl(b"\t5\t"), b"abcde"),
    # R03: Transfer-Encoding
    bad("te-identity", te(b" identity")),
    bad("te-gzip", te(b" gzip"), 501),
    bad("te-gzip-chunked", te(b" gzip, chunked")),
    bad("te-chunked-twice", te(b" chunked, chunked")),
    bad("te-chunked-gzip", te(b" chunked, gzip")),
    bad("te-xchunked", te(b" xchunked"), 501),
    bad("te-quoted", te(b' "chunked"')),
    bad("te-empty", te(b"")),
    bad("te-comma", te(b" chunked,")),
    bad("te-semicolon", te(b" chunked;q=1")),
    bad("te-vtab", te(b" \x0bchunked")),
    bad("te-space-colon", POST + b"Transfer-Encoding : chunked\r\n\r\n" + END),
    bad("te-twice", POST + _BOTH[1] + _BOTH[1] + b"\r\n" + END),
    bad("te-folded", POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + END),
    bad("te-tab-behind", te(b" chunked\t")),
    bad("te-10", te(b" chunked", b"1.0")),
    bad("te-nameulscore", POST + b"Transfer_Encoding: chunked\r\n\r\n" + END),
    good("te-case", te(b" CHUNKED"), b"abcde"),
    # R04: lines and fields
    bad("obsfold", head(b"X-A: 1", b" 2")),
    bad("obsfold-tab", head(b"X-A: 1", b"\t2")),
    bad("obsfold-first", GET + b" X: 1\r\n" + H + b"\r\n"),
    bad("bare-lf-all", b"GET / HTTP/1.1\nHost: gate.test\n\n"),
    bad("bare-lf-request-line", b"GET / HTTP/1.1\nHost: gate.test\r\n\r\n"),
    bad("bare-lf-field", GET + b"X: 1\n" + H + b"\r\n"),
    bad("bare-lf-end", GET + H + b"\n"),
    bad("bare-cr-all", b"GET / HTTP/1.1\rHost: gate.test\r\r"),
    bad("bare-cr-value", head(b"X: a\rb")),
    bad("bare-cr-end", GET + H + b"\rX"),
    bad("ctl-nul-value", head(b"X: a\0b")),
    bad("ctl-nul-name", head(b"X\0Y: ab")),
    bad("ctl-bel", head(b"X: a\x07b")),
    bad("ctl-del", head(b"X: a\x7fb")),
    bad("ctl-vtab", head(b"X: a\x0bb")),
    bad("no-colon", head(b"nonsense")),
    bad("space-before-colon", head(b"X : 1")),
    bad("tab-before-colon", head(b"X\t: 1")),
    bad("empty-name", head(b": 1")),
    bad("name-8bit", head(b"X\xe9: 1")),
    bad("name-paren", head(b"X(a): 1")),
    bad("name-space", head(b"X Y: 1")),
    good("value-empty", head(b"X:")),
    good("value-8bit", head(b"X: caf\xc3\xa9")),
    good("value-colon", head(b"X: a: b")),
    # R05: chunks and trailers
    bad("chunk-lf-only", CHUNKED + b"5\nabcde\n0\n\n"),
    bad("chunk-lf-after-data", CHUNKED + b"5\r\nabcde\n0\r\n\r\n"),
    bad("chunk-cr-only", CHUNKED + b"5\rabcde\r0\r\r"),
    bad("chunk-minus", CHUNKED + b"-5\r\nabcde\r\n" + END),
    bad("chunk-plus", CHUNKED + b"+5\r\nabcde\r\n" + END),
    bad("chunk-0x", CHUNKED + b"0x5\r\nabcde\r\n" + END),
    bad("chunk-space-before", CHUNKED + b" 5\r\nabcde\r\n" + END),
    bad("chunk-space-after", CHUNKED + b"5 \r\nabcde\r\n" + END),
    bad("chunk-space-ext", CHUNKED + b"5 ;a=b\r\nabcde\r\n" + END),
    bad("chunk-empty-size", CHUNKED + b"\r\nabcde\r\n" + END),
    bad("chunk-ext-only", CHUNKED + b";a\r\nabcde\r\n" + END),
    bad("chunk-letter", CHUNKED + b"g\r\nabcde\r\n" + END),
    bad("chunk-underscore", CHUNKED + b"1_0\r\nabcde\r\n" + END),
    bad("chunk-overflow", CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nabcde\r\n" + END),
    bad("chunk-overflow-wrap", CHUNKED + b"10000000000000005\r\nabcde\r\n" + END),
    bad("chunk-too-large", CHUNKED + b"400001\r\n" + b"a" * 4194305 + b"\r\n" + END, 413),
    bad("chunk-short", CHUNKED + b"3\r\nabcde\r\n" + END),
    bad("chunk-long", CHUNKED + b"6\r\nabcde\r\n" + END),
    bad("chunk-ext-nul", CHUNKED + b"5;a=\0\r\nabcde\r\n" + END),
    bad("chunk-ext-long", CHUNKED + b"5;" + b"e" * 5000 + b"\r\nabcde\r\n" + END),
    bad("chunk-ext-endless", CHUNKED + b"5;" + b"e" * 70000),
    bad("chunk-ext-many", CHUNKED + (b"1;" + b"e" * 1000 + b"\r\na\r\n") * 5 + END),
    good("chunk-ext", CHUNKED + b'5;a="b c"\r\nabcde\r\n' + END, b"abcde"),
    good("chunk-upper", CHUNKED + b"A\r\nabcdefghij\r\n000\r\n\r\n", b"abcdefghij"),
    good("chunk-none", CHUNKED + END, b""),
    bad("trailer-large", CHUNKED + b"0\r\n" + (b"X: " + b"t" * 1000 + b"\r\n") * 9 + b"\r\n"),
    bad("trailer-endless", CHUNKED + b"0\r\nX: " + b"t" * 70000),
    bad("trailer-no-colon", CHUNKED + b"0\r\nnonsense\r\n\r\n"),
    bad("trailer-lf", CHUNKED + b"0\r\nX: 1\n\n"),
    bad("trailer-fold", CHUNKED + b"0\r\nX: 1\r\n 2\r\n\r\n"),
    bad("trailer-length", CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n"),
    bad("trailer-authorization", CHUNKED + b"0\r\nAuthorization: Bearer x\r\n\r\n"),
    good("trailer", CHUNKED + b"5\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n", b"abcde"),
    # R06: Host
    bad("no-host", GET + b"\r\n"),
    bad("dup-host", head(b"Host: other.test")),
    bad("dup-host-same", head(b"Host: gate.test")),
    bad("empty-host", GET + b"Host:\r\n\r\n"),
    bad("at-host", GET + b"Host: a@gate.test\r\n\r\n"),
    bad("path-host", GET + b"Host: gate.test/x\r\n\r\n"),
    bad("space-host", GET + b"Host: gate .test\r\n\r\n"),
    bad("comma-host", GET + b"Host: gate.test,other.test\r\n\r\n"),
    bad("port-host", GET + b"Host: gate.test:x\r\n\r\n"),
    bad("port-range-host", GET + b"Host: gate.test:65536\r\n\r\n"),
    bad("8bit-host", GET + b"Host: g\xe4te.test\r\n\r\n"),
    good("port-ok-host", GET + b"Host: gate.test:8443\r\n\r\n"),
    good("v6-host", GET + b"Host: [::1]:8443\r\n\r\n"),
    good("no-host-10", b"GET / HTTP/1.0\r\n\r\n"),
    bad("absuri-other", head(start=b"GET http://other.test/ HTTP/1.1\r\n")),
    bad("absuri-userinfo", head(start=b"GET http://a@gate.test/ HTTP/1.1\r\n")),
    bad("absuri-ftp", head(start=b"GET ftp://gate.test/ HTTP/1.1\r\n")),
    bad("absuri-no-host", b"GET http://gate.test/ HTTP/1.0\r\n\r\n"),
    good("absuri", head(start=b"GET http://GATE.test/a?b HTTP/1.1\r\n")),
    good("absuri-bare", head(start=b"GET https://gate.test?b HTTP/1.1\r\n")),
    # R07: version, method, target
    bad("ver-12", head(start=b"GET / HTTP/1.2\r\n"), 505),
    bad("ver-20", head(start=b"GET / HTTP/2.0\r\n"), 505),
    bad("ver-09", b"GET /\r\n\r\n"),
    bad("ver-09-explicit", head(start=b"GET / HTTP/0.9\r\n"), 505),
    bad("ver-lower", head(start=b"GET / http/1.1\r\n")),
    bad("ver-digits", head(start=b"GET / HTTP/1.11\r\n")),
    bad("ver-short", head(start=b"GET / HTTP/1\r\n")),
    bad("ver-junk", head(start=b"GET / HTTP/1.1 x\r\n")),
    bad("ver-trailing-space", head(start=b"GET / HTTP/1.1 \r\n")),
    bad("h2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    bad("method-connect", b"CONNECT gate.test:443 HTTP/1.1\r\n" + H + b"\r\n", 405),
    bad("method-trace", head(start=b"TRACE / HTTP/1.1\r\n"), 405),
    bad("method-lower", head(start=b"get / HTTP/1.1\r\n")),
    bad("method-symbol", head(start=b"G@T / HTTP/1.1\r\n")),
    bad("method-unknown", head(start=b"FROBNICATE / HTTP/1.1\r\n"), 501),
    bad("method-leading-space", head(start=b" GET / HTTP/1.1\r\n")),
    bad("target-fragment", head(start=b"GET /a#b HTTP/1.1\r\n")),
    bad("target-8bit", head(start=b"GET /\xe9 HTTP/1.1\r\n")),
    bad("target-double-space", head(start=b"GET  / HTTP/1.1\r\n")),
    bad("target-space", head(start=b"GET /a b HTTP/1.1\r\n")),
    bad("target-tab", head(start=b"GET\t/\tHTTP/1.1\r\n")),
    bad("target-ctl", head(start=b"GET /\x01 HTTP/1.1\r\n")),
    bad("target-nul", head(start=b"GET /\0 HTTP/1.1\r\n")),
    bad("target-backslash", head(start=b"GET /a\\..\\b HTTP/1.1\r\n")),
    bad("target-relative", head(start=b"GET a HTTP/1.1\r\n")),
    bad("target-star", head(start=b"GET * HTTP/1.1\r\n")),
    bad("target-empty", head(start=b"GET  HTTP/1.1\r\n")),
    good("target-query", head(start=b"GET /a?b=c&d=%20 HTTP/1.1\r\n")),
    # R08: underscores
    bad("ul-content-length", POST + b"Content_Length: 5\r\n\r\n"),
    bad("ul-authorization", head(b"Proxy_Authorization: x")),
    bad("ul-session", head(b"Mcp_Session_Id: x")),
    bad("ul-api-key", head(b"X_API-Key: x")),
    bad("ul-forwarded", head(b"X_Forwarded_For: 127.0.0.1")),
    good("ul-harmless", head(b"X_Custom: 1")),
    # R09: Expect
    bad("expect-junk", POST + b"Expect: the-unexpected\r\nContent-Length: 5\r\n\r\nabcde", 417),
    bad("expect-two", head(b"Expect: 100-continue", b"Expect: 100-continue"), 417),
    bad("expect-list", head(b"Expect: 100-continue, x"), 417),
    good("expect-sent-anyway", head(b"Expect: 100-continue", b"Content-Length: 1") + b"a", b"a"),
    # R10: sizes
    bad("uri-64k", b"GET /" + b"a" * 65536 + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
    bad("uri-8k", b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n" + H + b"\r\n", 414),
    bad("uri-endless", b"GET /" + b"a" * 20000, 414),
    bad("hdr-17k", head(b"X: " + b"a" * 17000), 431),
    bad("hdr-64k", head(b"X: " + b"a" * 65536), 431),
    bad("hdr-101", head(*[b"X: 1"] * 100), 431),
    bad("hdr-many", head(*[b"X-Abcdef: 123456789012345"] * 3000), 431),
    bad("hdr-name-long", head(b"X" * 17000 + b": 1"), 431),
    good("hdr-100", head(*[b"X: 1"] * 99)),
    good("uri-8k-fits", b"GET /" + b"a" * 8170 + b" HTTP/1.1\r\n" + H + b"\r\n"),
    good("hdr-15k", head(b"X: " + b"a" * 15000)),
    # R11, R12: one after the other
    good("pipelined", _SMUGGLED * 3, b"", b"", b""),
    good("pipelined-bodies", cl(b" 5") + CHUNKED + b"2\r\nxy\r\n" + END, b"abcde", b"xy"),
    good("crlf-before", b"\r\n" + _SMUGGLED + b"\r\n" + _SMUGGLED, b"", b""),
    bad("crlf-twice-before", b"\r\n\r\n" + _SMUGGLED),
    good("then-garbage", _SMUGGLED + b"\x16\x03garbage\r\n\r\n" + _SMUGGLED, b""),
    # R13: not HTTP at all
    bad("tls-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", None),
    bad("binary", b"\x80\x80\x01\x03\x01", None),
    bad("nul", b"\0", None),
]

BY_NAME = {raw.name: raw for raw in CORPUS}
assert len(BY_NAME) == len(CORPUS)
