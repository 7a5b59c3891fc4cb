"""Tests of reading requests from raw bytes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BadRequest, GateError, HeadTooLarge, TargetTooLong
from mcpgate.http.heads import RequestHead
from mcpgate.http.parsing import NotHTTPError, RequestParser
from mcpgate.http.strictness import WireBounds
from tests.http.raw_requests import BY_NAME, CHUNKED, CORPUS, END, POST, H, Raw, cl, head

LIMIT = 4 * 1024 * 1024
Event = tuple[object, ...]


class Reader:
    """Reads requests as a connection would, and writes down what came."""

    def __init__(self, bounds: WireBounds | None = None) -> None:
        self.parser = RequestParser(bounds or WireBounds())
        self.events: list[Event] = []
        self.head: RequestHead | None = None
        self.body = b""

    def feed(self, data: bytes) -> None:
        """Take bytes, and everything that follows from them."""
        self.parser.receive(data)
        try:
            while self._step():
                pass
        except GateError as error:
            self.events.append(("error", error.status, error.detail))
        except NotHTTPError:
            self.events.append(("error", None, "not HTTP"))

    def _step(self) -> bool:
        if self.head is None:
            self.head = self.parser.head()
            self.body = b""
            if self.head is None:
                return False
        piece = self.parser.body()
        self.body += piece
        if self.parser.complete:
            head = self.head
            about = (head.method, head.path, head.query, tuple(head.fields))
            self.events.append((*about, self.body, *self.parser.trailers))
            self.head = None
            return True
        return bool(piece)


def read(*pieces: bytes, bounds: WireBounds | None = None) -> list[Event]:
    """Give what comes of these pieces."""
    reader = Reader(bounds)
    for piece in pieces:
        reader.feed(piece)
    return reader.events


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut data at these places."""
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


FRAMING = (b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"3\r\n", b"0\r\n")

SHORT = [raw for raw in CORPUS if len(raw.data) < 2000]


class CorpusTests(SynchronousTestCase):
    """Every input of the corpus gets the verdict the table says."""

    def verdict(self, raw: Raw, events: list[Event]) -> None:
        """Check one input's events against the table."""
        errors = [event for event in events if event[0] == "error"]
        bodies = [event[4] for event in events if event[0] != "error"]
        if raw.status == 200:
            self.assertEqual(bodies, list(raw.bodies), raw.name)
            self.assertEqual(errors == [], raw.name != "then-garbage", raw.name)
        elif raw.status != 413:
            self.assertEqual(bodies, [], raw.name)
            self.assertEqual([error[1] for error in errors], [raw.status], raw.name)

    def test_whole(self) -> None:
        """It does when it arrives in one piece."""
        for raw in CORPUS:
            self.verdict(raw, read(raw.data))

    def test_reason_of_llhttp(self) -> None:
        """What only llhttp refuses is refused in its words."""
        (event,) = read(BY_NAME["te-tab-behind"].data)
        self.assertEqual(
            event,
            ("error", 400, "The request is malformed: Request has invalid `Transfer-Encoding`."),
        )

    def test_byte_by_byte(self) -> None:
        """It does when it arrives byte by byte, in the same words."""
        for raw in SHORT:
            pieces = [raw.data[i : i + 1] for i in range(len(raw.data))]
            events = read(*pieces)
            self.verdict(raw, events)
            self.assertEqual(events, read(raw.data), raw.name)

    def test_in_segments(self) -> None:
        """Long inputs get the same verdict in segments as the network cuts them."""
        for raw in CORPUS:
            if len(raw.data) >= 2000:
                pieces = [raw.data[i : i + 1460] for i in range(0, len(raw.data), 1460)]
                self.assertEqual(read(*pieces), read(raw.data), raw.name)

    def test_too_large_declared(self) -> None:
        """A length nobody could mean is refused with the head."""
        self.assertEqual(read(BY_NAME["cl-huge"].data)[0][1], 413)

    @settings(max_examples=100, deadline=None)
    @given(st.sampled_from(SHORT), st.lists(st.integers(0, 2000), max_size=6))
    def test_any_split(self, raw: Raw, places: list[int]) -> None:
        """No split of the bytes changes what is read."""
        self.assertEqual(read(*cut(raw.data, places)), read(raw.data))

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"GET ",
                    b"/ ",
                    b"HTTP/1.1",
                    b"\r\n",
                    b"\r",
                    b"\n",
                    H,
                    b"a",
                    b":",
                    b" ",
                    b"\0",
                    *FRAMING,
                ]
            ),
            max_size=25,
        ),
        st.lists(st.integers(0, 400), max_size=4),
    )
    def test_any_soup(self, pieces: list[bytes], places: list[int]) -> None:
        """Nor does it for soups of the right ingredients; nothing but a verdict comes out."""
        data = b"".join(pieces)
        self.assertEqual(read(*cut(data, places)) if data else [], read(data))

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=300), st.sampled_from([b"", POST, CHUNKED, b"GET / HTTP/1.1\r\n"]))
    def test_any_bytes(self, data: bytes, before: bytes) -> None:
        """Arbitrary bytes never raise anything but a refusal."""
        read(before + data)


class RequestParserTests(SynchronousTestCase):
    """What is read of good requests."""

    def test_head(self) -> None:
        """Target, fields and framing are told apart."""
        parser = RequestParser(WireBounds())
        parser.receive(
            b"POST /a/b?c?d HTTP/1.1\r\nHOST: gate.test \r\nX-One:  1 \r\n"
            b"Content-Length: 3\r\n\r\nab"
        )
        found = parser.head()
        assert found is not None
        self.assertEqual((found.method, found.path, found.query), ("POST", b"/a/b", b"c?d"))
        self.assertEqual(found.fields.get(b"host"), b"gate.test")
        self.assertEqual(found.fields.get(b"x-one"), b"1")
        self.assertEqual((found.content_length, found.chunked, found.version), (3, False, (1, 1)))
        self.assertEqual(parser.body(), b"ab")
        self.assertFalse(parser.complete)
        self.assertEqual(parser.body(), b"")
        parser.receive(b"cGET")
        self.assertEqual(parser.body(), b"c")
        self.assertTrue(parser.complete)
        self.assertEqual(parser.buffered, 3)

    def test_same_head_again(self) -> None:
        """A head that comes again is the same head, and another one is not."""
        parser = RequestParser(WireBounds())
        one, other = head(b"X: 1"), head(b"X: 2")
        parser.receive(one + one + other)
        first = parser.head()
        assert first is not None
        self.assertIsNone(first.memo)
        second, third = parser.head(), parser.head()
        self.assertIs(first, second)
        assert third is not None
        self.assertEqual((first.memo, third.memo), ({}, None))
        self.assertEqual(third.fields.get(b"x"), b"2")

    def test_upgrade(self) -> None:
        """An upgrade counts when Connection lists it, on HTTP/1.1 only."""
        for lines, start, expected in [
            ((b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket"), b"1.1", b"websocket"),
            ((b"Upgrade: websocket",), b"1.1", b""),
            ((b"Connection: Upgrade", b"Upgrade: websocket"), b"1.0", b""),
            ((b"Connection: Upgrade", b"Upgrade: a", b"Upgrade: b"), b"1.1", b""),
        ]:
            parser = RequestParser(WireBounds())
            parser.receive(head(*lines, start=b"GET / HTTP/" + start + b"\r\n") + b"rest")
            found = parser.head()
            assert found is not None
            self.assertEqual(found.upgrade, expected)
            self.assertEqual(parser.rest(), b"rest")

    def test_trailers(self) -> None:
        """Trailers are kept apart from the head, and forgotten with the next request."""
        parser = RequestParser(WireBounds())
        parser.receive(CHUNKED + b"2\r\nab\r\n0\r\nX-Sum: 7 \r\n\r\n" + head())
        found = parser.head()
        assert found is not None
        self.assertEqual(parser.body(), b"ab")
        self.assertEqual(parser.trailers, [(b"x-sum", b"7")])
        self.assertNotIn(b"x-sum", found.fields)
        parser.head()
        self.assertEqual(parser.trailers, [])

    def test_nothing_after_an_error(self) -> None:
        """After an error nothing more is parsed."""
        parser = RequestParser(WireBounds())
        parser.receive(head(b"nonsense"))
        self.assertRaises(BadRequest, parser.head)
        parser.receive(head())
        self.assertIsNone(parser.head())
        self.assertTrue(parser.failed)
        parser = RequestParser(WireBounds())
        parser.receive(CHUNKED + b"x\r\n")
        parser.head()
        self.assertRaises(BadRequest, parser.body)
        parser.receive(END)
        self.assertEqual(parser.body(), b"")

    def test_many_small_chunks(self) -> None:
        """A body of many chunks is read in one go."""
        self.assertEqual(read(CHUNKED + b"1\r\na\r\n" * 5000 + END)[0][4], b"a" * 5000)

    def test_bounds_at_the_edge(self) -> None:
        """Sizes that just fit pass, one more does not, whole or in pieces."""
        bounds = WireBounds(line_bytes=40, head_bytes=90, fields=3)

        def outcome(data: bytes) -> object:
            whole = read(data, bounds=bounds)
            single = read(*[data[i : i + 1] for i in range(len(data))], bounds=bounds)
            self.assertEqual(whole, single)
            return whole[0][1]

        def line(size: int) -> bytes:
            return b"GET /" + b"a" * (size - 14) + b" HTTP/1.1\r\n" + H + b"\r\n"

        self.assertEqual(outcome(line(40)), b"/" + b"a" * 26)
        self.assertEqual(outcome(line(41)), TargetTooLong.status)
        start = b"GET / HTTP/1.1\r\n" + H
        room = 90 - len(start) - 2 - 4
        self.assertEqual(outcome(start + b"X:" + b"v" * room + b"\r\n\r\n"), b"/")
        self.assertEqual(outcome(start + b"X:" + b"v" * (room + 1) + b"\r\n\r\n"), 431)
        self.assertEqual(outcome(start + b"X:\r\n" * 2 + b"\r\n"), b"/")
        self.assertEqual(outcome(start + b"X:\r\n" * 3 + b"\r\n"), HeadTooLarge.status)

    def test_extension_budget(self) -> None:
        """Chunk extensions are added up over the body."""
        bounds = WireBounds(chunk_extension_bytes=10)
        fits = CHUNKED + b"1;abcd\r\na\r\n" * 2 + END
        self.assertEqual(read(fits, bounds=bounds)[0][4], b"aa")
        self.assertEqual(read(CHUNKED + b"1;abcd\r\na\r\n" * 3 + END, bounds=bounds)[0][1], 400)

    def test_trailer_count(self) -> None:
        """Trailer lines are counted like header lines."""
        bounds = WireBounds(fields=2)
        fits = CHUNKED + b"0\r\n" + b"X: 1\r\n" * 2 + b"\r\n"
        self.assertEqual(len(read(fits, bounds=bounds)[0]), 7)
        over = CHUNKED + b"0\r\n" + b"X: 1\r\n" * 3 + b"\r\n"
        self.assertEqual(read(over, bounds=bounds)[0][1], 400)

    def test_length_and_next(self) -> None:
        """A counted body ends exactly where it says."""
        events = read(cl(b" 5") + head())
        self.assertEqual([event[4] for event in events], [b"abcde", b""])
