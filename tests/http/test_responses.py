"""Tests for `mcpgate.http.responses`."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendDied, BadBackendAnswer
from mcpgate.http.heads import ResponseHead
from mcpgate.http.responses import ResponseHeads, ResponseLimits, ResponseParser


class Sink:
    """Keeps what a parser reads, one answer after another."""

    def __init__(self) -> None:
        self.heads: list[ResponseHead] = []
        self.body = b""
        self.trailers: list[tuple[bytes, bytes]] | None = None
        self.rest: bytes | None = None
        self.on_head_hook: Callable[[], object] = lambda: None
        self.on_data_hook: Callable[[], object] = lambda: None

    def on_head(self, head: ResponseHead) -> None:
        """See `ResponseSink.on_head`."""
        self.heads.append(head)
        self.on_head_hook()

    def on_data(self, data: bytes) -> None:
        """See `ResponseSink.on_data`."""
        self.body += data
        self.on_data_hook()

    def on_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """See `ResponseSink.on_end`."""
        assert self.trailers is None
        self.trailers = trailers

    def on_upgrade(self, head: ResponseHead, rest: bytes) -> None:
        """See `ResponseSink.on_upgrade`."""
        self.heads.append(head)
        self.rest = rest


def parser(
    *, head_only: bool = False, upgrade: bool = False, limits: ResponseLimits | None = None
) -> tuple[ResponseParser, Sink]:
    """Make a parser that awaits an answer, and what hears it."""
    sink = Sink()
    made = ResponseParser(sink, ResponseHeads(limits))
    made.begin(sink.on_data, head_only=head_only, upgrade=upgrade)
    return made, sink


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class WholeAnswerTests(SynchronousTestCase):
    """Answers that are as they should be."""

    def test_length(self) -> None:
        """A body of declared length ends with its last byte; the connection stays usable."""
        made, sink = parser()
        made.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A:  b \r\n\r\nhel")
        self.assertIsNone(sink.trailers)
        made.feed(b"lo")
        self.assertEqual((sink.body, sink.trailers), (b"hello", []))
        self.assertEqual(sink.heads[0].status, 200)
        self.assertEqual(sink.heads[0].reason, b"OK")
        self.assertEqual(sink.heads[0].fields.get(b"x-a"), b"b")
        self.assertTrue(made.keep_alive and made.idle)

    def test_empty(self) -> None:
        """A body of no bytes is complete with its head."""
        made, sink = parser()
        made.feed(b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n")
        self.assertEqual((sink.heads[0].status, sink.trailers), (404, []))

    def test_chunks_and_trailers(self) -> None:
        """Chunks are joined, extensions ignored, trailers told apart from fields."""
        made, sink = parser()
        made.feed(CHUNKED + b"3;a=b\r\nabc\r\n2 \r\nde\r\n0\r\nX-Sum: 1\r\nY:2\r\n\r\n")
        self.assertEqual(sink.body, b"abcde")
        self.assertEqual(sink.trailers, [(b"x-sum", b"1"), (b"y", b"2")])
        self.assertNotIn(b"x-sum", sink.heads[0].fields)
        self.assertTrue(made.keep_alive)

    def test_until_close(self) -> None:
        """A body without framing ends with the connection, which is of no more use."""
        made, sink = parser()
        made.feed(b"HTTP/1.0 200 OK\r\n\r\nab")
        made.feed(b"c")
        self.assertIsNone(sink.trailers)
        made.eof()
        self.assertEqual((sink.body, sink.trailers), (b"abc", []))
        self.assertFalse(made.keep_alive)

    def test_bodiless(self) -> None:
        """HEAD, 204 and 304 have no body whatever their fields say."""
        for head_only, status in ((True, 200), (False, 204), (False, 304)):
            made, sink = parser(head_only=head_only)
            made.feed(b"HTTP/1.1 %d X\r\nContent-Length: 9\r\n\r\n" % status)
            self.assertEqual(sink.trailers, [])
            self.assertEqual(sink.heads[0].content_length, 9)
            self.assertTrue(made.keep_alive)
        made, sink = parser(head_only=True)
        made.feed(CHUNKED)
        self.assertEqual(sink.trailers, [])

    def test_interim(self) -> None:
        """Answers before the answer are skipped."""
        made, sink = parser()
        made.feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
        made.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        self.assertEqual([head.status for head in sink.heads], [200])
        self.assertEqual(sink.body, b"x")

    def test_upgrade(self) -> None:
        """After 101 every byte belongs to the other protocol."""
        made, sink = parser(upgrade=True)
        made.feed(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00")
        self.assertEqual((sink.heads[0].status, sink.rest), (101, b"\x81\x00"))

    def test_upgrade_offered(self) -> None:
        """A server that only mentions an upgrade gave an ordinary answer."""
        made, sink = parser()
        made.feed(
            b"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2\r\nContent-Length: 2\r\n\r\nok"
        )
        self.assertEqual((sink.body, sink.trailers), (b"ok", []))

    def test_next_answer(self) -> None:
        """One parser reads the answers of one connection in turn, the same head at no cost."""
        made, sink = parser()
        raw = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
        made.feed(raw + b"a")
        sink.trailers = None
        made.begin(sink.on_data, head_only=False, upgrade=False)
        self.assertFalse(made.touched)
        made.feed(raw + b"b")
        self.assertEqual(sink.body, b"ab")
        self.assertIs(sink.heads[0], sink.heads[1])

    def test_close(self) -> None:
        """A server that says close is believed, wherever in the list it says so."""
        for value in (b"close", b"Keep-Alive, Close"):
            made, _ = parser()
            made.feed(b"HTTP/1.1 200 OK\r\nConnection: %b\r\nContent-Length: 0\r\n\r\n" % value)
            self.assertFalse(made.keep_alive)
        made, _ = parser()
        made.feed(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n")
        self.assertTrue(made.keep_alive)

    def test_forgetful(self) -> None:
        """The memory of heads is bounded, and can be emptied."""
        heads = ResponseHeads(remember=2)
        raws = [b"HTTP/1.1 200 OK\r\nX: %d\r\n\r\n" % number for number in range(3)]
        first = heads.parse(raws[0])
        self.assertIs(heads.parse(raws[0]), first)
        for raw in raws:
            heads.parse(raw)
        self.assertIsNot(heads.parse(raws[0]), first)
        again = heads.parse(raws[0])
        heads.clear()
        self.assertIsNot(heads.parse(raws[0]), again)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(1, 30), max_size=12))
    def test_any_split(self, cuts: list[int]) -> None:
        """However the bytes are cut, the same answer is read."""
        for raw in (
            CHUNKED + b"3\r\nabc\r\nA;x\r\n0123456789\r\n0\r\nT: v\r\n\r\n",
            b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nabc0123456789",
        ):
            made, sink = parser()
            at = 0
            for cut in cuts:
                made.feed(raw[at : at + cut]) if raw[at : at + cut] else None
                at += cut
            if raw[at:]:
                made.feed(raw[at:])
            self.assertEqual(sink.body, b"abc0123456789")
            self.assertIsNotNone(sink.trailers)


class BadAnswerTests(SynchronousTestCase):
    """Answers whose end or meaning is doubtful."""

    def refused(self, raw: bytes, *, head_only: bool = False) -> Sink:
        """Feed whole and byte by byte; both must be refused."""
        made, whole = parser(head_only=head_only)
        self.assertRaises(BadBackendAnswer, made.feed, raw)
        made, _ = parser(head_only=head_only)

        def slowly() -> None:
            for number in range(len(raw)):
                made.feed(raw[number : number + 1])

        self.assertRaises(BadBackendAnswer, slowly)
        return whole

    def test_second_answer(self) -> None:
        """A second answer that nobody asked for spoils the first, before it is passed on."""
        one = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
        sink = self.refused(one + b"a" + one + b"b")
        self.assertEqual((sink.heads, sink.trailers), ([], None))
        sink = self.refused(CHUNKED + b"0\r\n\r\n" + one)
        self.assertIsNone(sink.trailers)

    def test_unasked(self) -> None:
        """Bytes while nothing is awaited are nobody's."""
        made, _ = parser()
        made.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertRaises(BadBackendAnswer, made.feed, b"x")

    def test_body_where_none_is(self) -> None:
        """A body after HEAD or 204 is a smuggled answer's beginning."""
        self.refused(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", head_only=True)
        self.refused(b"HTTP/1.1 204 OK\r\n\r\nab")

    def test_ambiguous_framing(self) -> None:
        """Framing that two readers could read in two ways is refused."""
        for lines in (
            b"Content-Length: 1\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 1",
            b"Content-Length: 1\r\nContent-Length: 2",
            b"Content-Length: 1\r\nContent-Length: 1",
            b"Content-Length: 1, 1",
            b"Content-Length: +1",
            b"Content-Length: ",
            b"Content-Length: 9999999999999999999999",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding : chunked",
        ):
            self.refused(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\n")
        self.refused(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    def test_not_http(self) -> None:
        """What does not begin like HTTP/1 is refused at once, not waited for."""
        for raw in (
            b"SSH-2.0-x\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"\r\n\r\n",
            b"HTTP/1.1 x y\r\n\r\n",
        ):
            self.refused(raw)

    def test_bad_fields(self) -> None:
        """Control characters, bare line ends, folded and nameless fields are refused."""
        for line in (
            b"A: b\x00c",
            b"A: b\rc",
            b"A: b\nC: d",
            b"A: b\r\n c",
            b": b",
            b"A b: c",
            b"x",
        ):
            self.refused(b"HTTP/1.1 200 OK\r\n" + line + b"\r\nContent-Length: 0\r\n\r\n")

    def test_head_bounds(self) -> None:
        """A head may be so long and have so many fields."""
        limits = ResponseLimits(head_bytes=100, fields=2)
        for lines in (b"A: " + b"b" * 100, b"A: b\r\nB: c\r\nC: d"):
            made, _ = parser(limits=limits)
            with self.assertRaises(BadBackendAnswer):
                made.feed(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\n")
        made, _ = parser(limits=limits)
        made.feed(b"HTTP/1.1 200 OK\r\nA: ")
        self.assertRaises(BadBackendAnswer, made.feed, b"b" * 100)

    def test_chunks(self) -> None:
        """Chunks that are not what RFC 9112 says are refused."""
        for body in (
            b"g\r\n",
            b"-1\r\n",
            b"0x1\r\na\r\n",
            b" 1\r\na\r\n",
            b"1\na\r\n",
            b"\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n0\r\n\r\n",
            b"1" * 16 + b"\r\n",
            b"1;a\x00\r\n",
            b"1;" + b"a" * 2000 + b"\r\n",
            b"0\r\nA b: c\r\n\r\n",
            b"0\r\nnothing\r\n\r\n",
            b"0\r\nA: b\x01\r\n\r\n",
            b"0\r\nA: " + b"b" * 9000 + b"\r\n\r\n",
            b"0\r\n" + b"A: b\r\n" * 300 + b"\r\n",
            b"0\r\n\r\nX",
        ):
            self.refused(CHUNKED + body)

    def test_interim_bounds(self) -> None:
        """Interim answers without end, or with a body, are refused."""
        self.refused(b"HTTP/1.1 100 C\r\n\r\n" * 20)
        self.refused(b"HTTP/1.1 103 C\r\nContent-Length: 3\r\n\r\n")

    def test_upgrade_unasked(self) -> None:
        """101 for a request that did not ask is refused."""
        self.refused(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")

    def test_death(self) -> None:
        """A connection that ends inside an answer leaves it incomplete."""
        for raw in (
            b"",
            b"HTTP/1.1 200",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            CHUNKED + b"3\r\nabc\r\n",
            CHUNKED + b"3\r\nabc\r\n0\r\nA: b\r\n",
        ):
            made, sink = parser()
            if raw:
                made.feed(raw)
            self.assertRaises(BackendDied, made.eof)
            self.assertIsNone(sink.trailers)

    def test_idle_death(self) -> None:
        """A connection that ends between answers has lost none."""
        made, _ = parser()
        made.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        made.eof()


class GivenUpTests(SynchronousTestCase):
    """An exchange may be given up from inside a call out."""

    ANSWERS = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
        CHUNKED + b"2\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nab",
    )

    def test_at_head(self) -> None:
        """Given up at the head, no body follows."""
        for raw in self.ANSWERS:
            made, sink = parser()
            sink.on_head_hook = made.drop
            made.feed(raw)
            self.assertEqual((sink.body, sink.trailers), (b"", None))

    def test_at_data(self) -> None:
        """Given up in the body, no end follows."""
        for raw in self.ANSWERS:
            made, sink = parser()
            sink.on_data_hook = made.drop
            made.feed(raw)
            self.assertEqual((sink.body, sink.trailers), (b"ab", None))
