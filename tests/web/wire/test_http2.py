"""Tests for `mcpgate.web.wire.http2`, its connections and its requests."""

from __future__ import annotations

import sys
from typing import cast

from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, TrailersReceived
from h2.exceptions import ProtocolError
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override
from zope.interface.verify import verifyObject

from mcpgate.errors import GateError
from mcpgate.http.heads import Peer
from mcpgate.http.strictness import WireBounds
from mcpgate.interfaces import IInbound
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.wire.front import BodyBudget
from mcpgate.web.wire.http2 import HTTP2Factory, HTTP2Missing
from mcpgate.web.wire.http2_head import read_head
from mcpgate.web.wire.http2_inbound import HTTP2Inbound
from tests.web.http2_client import HEADERS, Client, Stage
from tests.web.memory_tls import CLIENT, Wire

Lines = list[tuple[bytes, bytes]]

PSEUDO: Lines = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"gate.example.org"),
    (b":path", b"/a/mcp?x=y"),
]


class HeadTests(SynchronousTestCase):
    """From header lists to heads (R15)."""

    def refused(self, *lines: tuple[bytes, bytes], without: bytes = b"") -> int:
        """Give the status a header list is refused with; later lines replace pseudo fields."""
        given = {name for name, _ in lines if name.startswith(b":")} | {without}
        pseudo = [line for line in PSEUDO if line[0] not in given]
        error = self.assertRaises(
            GateError, read_head, [*pseudo, *lines], WireBounds(), ended=False
        )
        return cast(GateError, error).status

    def test_good(self) -> None:
        """Path, query, Host and fields are those of HTTP/1."""
        lines = [*PSEUDO, (b"accept", b" */* "), (b"cookie", b"a=b"), (b"cookie", b"c=d")]
        head = read_head(lines, WireBounds(), ended=True)
        self.assertEqual((head.method, head.path, head.query), ("GET", b"/a/mcp", b"x=y"))
        self.assertEqual((head.version, head.chunked, head.has_body), ((2, 0), False, False))
        self.assertEqual(head.fields.get(b"host"), b"gate.example.org")
        self.assertEqual(head.fields.get(b"accept"), b"*/*")
        self.assertEqual(head.fields.get_all(b"cookie"), [b"a=b; c=d"])

    def test_body(self) -> None:
        """A body of unknown length counts as chunked."""
        self.assertTrue(read_head(PSEUDO, WireBounds(), ended=False).chunked)
        head = read_head([*PSEUDO, (b"content-length", b"5")], WireBounds(), ended=False)
        self.assertEqual((head.chunked, head.content_length), (False, 5))

    def test_host_beside_authority(self) -> None:
        """Host may repeat the authority, or stand for it."""
        for authority in (PSEUDO[2:3], []):
            lines = [*PSEUDO[:2], *authority, PSEUDO[3], (b"host", b"gate.example.org")]
            head = read_head(lines, WireBounds(), ended=True)
            self.assertEqual(head.fields.get_all(b"host"), [b"gate.example.org"])

    def test_refused(self) -> None:
        """What HTTP/1 would read otherwise is refused."""
        for line, status in (
            ((b":path", b"/a HTTP/1.1"), 400),
            ((b":path", b"/a\r\nx: y"), 400),
            ((b":path", b"https://gate.example.org/a"), 400),
            ((b":path", b"*"), 400),
            ((b":path", b""), 400),
            ((b":path", b"/a#b"), 400),
            ((b":path", b"/" + b"a" * 20000), 431),
            ((b":method", b"GE T"), 400),
            ((b":method", b"get"), 400),
            ((b":method", b"CONNECT"), 405),
            ((b":method", b"TRACE"), 405),
            ((b":authority", b"evil.example@x"), 400),
            ((b"host", b"evil.example"), 400),
            ((b"x-a", b"b\x00"), 400),
            ((b"content-length", b"+5"), 400),
            ((b"mcp_session_id", b"x"), 400),
            ((b"expect", b"magic"), 417),
        ):
            self.assertEqual(self.refused(line), status, line)
        self.assertEqual(self.refused(without=b":authority"), 400)
        self.assertEqual(self.refused(*[(b"a", b"b")] * 101), 431)


class StageCase(SynchronousTestCase):
    """A factory and one client."""

    @override
    def setUp(self) -> None:
        self.stage = Stage()
        self.client = Client(self.stage)

    def last(self) -> HTTP2Inbound:
        """Give the latest request."""
        return cast(HTTP2Inbound, self.stage.asked[-1])


class AnswerTests(StageCase):
    """Requests and answers."""

    def test_respond(self) -> None:
        """A request is dispatched, answered whole and recorded."""
        self.stage.answer = lambda inbound: inbound.respond(
            200, [(b"X-A", b"b"), (b"Connection", b"close")], b"hello"
        )
        stream = self.client.ask()
        self.assertEqual(self.client.status(stream), 200)
        fields = dict(self.client.fields(stream))
        self.assertEqual((fields[b"x-a"], fields[b"content-length"]), (b"b", b"5"))
        self.assertEqual(fields[b"x-request-id"], b"id-0")
        self.assertIn(b"date", fields)
        self.assertNotIn(b"connection", fields)
        self.assertEqual(self.client.body(stream), b"hello")
        self.assertTrue(self.client.ended(stream))
        (entry,) = self.stage.entries
        self.assertEqual((entry.status, entry.complete, entry.bytes_out), (200, True, 5))
        self.assertEqual((entry.protocol, entry.path), ("HTTP/2", "/a/mcp"))

    def test_interface(self) -> None:
        """The inbound is what every dispatcher gets."""
        self.client.ask()
        verifyObject(IInbound, self.last())
        self.assertEqual(self.last().peer, Peer("192.0.2.7", secure=True, port=50000))

    def test_extra_fields(self) -> None:
        """Fields set by the guard come with whatever answer is given."""

        def answer(inbound: IInbound) -> None:
            inbound.extra_fields = [(b"vary", b"Origin")]
            inbound.start(200, [], None)
            inbound.finish()

        self.stage.answer = answer
        stream = self.client.ask()
        self.assertIn((b"vary", b"Origin"), self.client.fields(stream))
        self.assertTrue(self.client.ended(stream))

    def test_no_body(self) -> None:
        """HEAD, 204 and empty bodies are ended with the head."""
        self.stage.answer = lambda inbound: inbound.respond(200, [], b"hello")
        stream = self.client.ask(method="HEAD")
        self.assertEqual(dict(self.client.fields(stream))[b"content-length"], b"5")
        self.assertEqual((self.client.body(stream), self.client.ended(stream)), (b"", True))
        self.stage.answer = lambda inbound: inbound.respond(204, [], b"")
        stream = self.client.ask()
        self.assertNotIn(b"content-length", dict(self.client.fields(stream)))
        self.assertTrue(self.client.ended(stream))

    def test_streamed_head(self) -> None:
        """What is written to the answer of a HEAD is dropped."""

        def answer(inbound: IInbound) -> None:
            inbound.start(200, [], 3)
            inbound.write(b"abc")
            inbound.finish()

        self.stage.answer = answer
        stream = self.client.ask(method="HEAD")
        self.assertTrue(self.client.ended(stream))
        self.assertTrue(self.stage.entries[0].complete)

    def test_stream_with_trailers(self) -> None:
        """A streamed answer arrives piece by piece, trailers last."""
        stream = self.client.ask()
        inbound = self.last()
        inbound.start(200, [(b"content-type", b"text/event-stream")], None)
        inbound.write(b"")
        inbound.write(b"one")
        self.client.pump()
        self.assertEqual(self.client.body(stream), b"one")
        inbound.write(b"two")
        inbound.finish([(b"X-Sum", b"2")])
        self.client.pump()
        self.assertEqual(self.client.body(stream), b"onetwo")
        self.assertTrue(self.client.ended(stream))
        (trailers,) = [e for e in self.client.events if isinstance(e, TrailersReceived)]
        self.assertEqual(trailers.headers, [(b"x-sum", b"2")])
        inbound.write(b"late")
        inbound.respond(500, [], b"late")
        inbound.start(500, [], None)
        inbound.finish()
        inbound.abort()

    def test_wrong_order(self) -> None:
        """An answer begins once, and before its body."""
        self.client.ask()
        inbound = self.last()
        self.assertRaises(RuntimeError, inbound.write, b"x")
        self.assertRaises(RuntimeError, inbound.finish)
        inbound.start(200, [], None)
        self.assertRaises(RuntimeError, inbound.respond, 200, [], b"")

    def test_length_is_kept(self) -> None:
        """More or less than announced cuts the answer off."""
        for wrong in (b"abcd", b"ab"):
            stream = self.client.ask()
            inbound = self.last()
            inbound.start(200, [], 3)
            inbound.write(wrong)
            inbound.finish()
            self.client.pump()
            self.assertEqual(self.client.reset(stream), ErrorCodes.INTERNAL_ERROR)
            self.assertFalse(self.stage.entries[-1].complete)

    def test_abort(self) -> None:
        """A cut answer is seen as incomplete, and who waits is told."""
        stream = self.client.ask()
        gone: list[int] = []
        self.last().on_gone(lambda: gone.append(1))
        self.last().on_gone(lambda: 1 // 0)  # type: ignore[arg-type]  # fails on purpose
        self.last().abort()
        self.last().on_gone(lambda: gone.append(2))
        self.client.pump()
        self.assertEqual(self.client.reset(stream), ErrorCodes.INTERNAL_ERROR)
        self.assertEqual(gone, [1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_refused_head(self) -> None:
        """A head that is refused gets its answer, not the dispatcher."""
        stream = self.client.ask(path="https://gate.example.org/a")
        self.assertEqual(self.client.status(stream), 400)
        self.assertEqual(self.stage.asked, [])
        self.assertEqual(self.stage.entries[0].path, "-")

    def test_failing_dispatch(self) -> None:
        """A bug of ours is answered 500 without a word of it."""

        def answer(inbound: IInbound) -> None:
            raise ZeroDivisionError("secret")

        self.stage.answer = answer
        stream = self.client.ask()
        self.assertEqual(self.client.status(stream), 500)
        self.assertNotIn(b"secret", self.client.body(stream))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_no_upgrade(self) -> None:
        """There are no upgrades in HTTP/2."""
        stream = self.client.ask()
        self.last().take_over(101, [], Protocol())
        self.client.pump()
        self.assertEqual(self.client.status(stream), 426)

    def test_line_end_in_a_field(self) -> None:
        """A field that would be two elsewhere is not sent."""
        self.client.ask()
        self.assertRaises(ValueError, self.last().respond, 200, [(b"a", b"b\r\nc: d")], b"")


class BodyTests(StageCase):
    """Bodies of requests."""

    def test_collected(self) -> None:
        """A body is given whole, with a length or without, early or late."""
        for early in (True, False):
            for length in ((("content-length", "6"),), ()):
                done: list[bytes] = []
                stream = self.client.ask(*length, end=False, method="POST")
                if early:
                    self.last().read_body(10, done.append)
                self.client.send(stream, b"abc")
                self.client.send(stream, b"def", end=True)
                if not early:
                    self.last().read_body(10, done.append)
                self.assertEqual(done, [b"abcdef"])
                self.last().respond(200, [], b"")
                self.client.pump()
                self.assertEqual(self.client.status(stream), 200)
        self.assertEqual(self.stage.factory.hold.__self__.held, 0)  # type: ignore[attr-defined]  # a bound method
        self.assertEqual(self.stage.entries[0].bytes_in, 6)

    def test_none(self) -> None:
        """No body is an empty one."""
        done: list[object] = []
        self.client.ask()
        self.last().read_body(10, done.append)
        self.client.ask()
        self.last().stream_body(done.append, done.append, 0)
        self.assertEqual(done, [b"", []])

    def test_too_large(self) -> None:
        """413, at once by the length announced, else when the bound is crossed."""
        stream = self.client.ask(("content-length", "11"), end=False, method="POST")
        self.last().read_body(10, lambda body: self.fail("given"))
        self.client.pump()
        self.assertEqual(self.client.status(stream), 413)
        # The answer is complete; the rest of the body is not wanted.
        self.assertEqual(self.client.reset(stream), ErrorCodes.NO_ERROR)
        for stream_it in (True, False):
            stream = self.client.ask(end=False, method="POST")
            if stream_it:
                self.last().stream_body(lambda data: None, lambda t: self.fail("given"), 10)
            else:
                self.last().read_body(10, lambda body: self.fail("given"))
            self.client.send(stream, b"x" * 11)
            self.assertEqual(self.client.status(stream), 413)
        stream = self.client.ask(("content-length", "11"), end=False, method="POST")
        self.last().stream_body(lambda data: None, lambda trailers: None, 10)
        self.client.pump()
        self.assertEqual(self.client.status(stream), 413)

    def test_budget(self) -> None:
        """When all bodies together hold too much the next is told to wait."""
        self.stage.factory.hold = BodyBudget(5).hold
        for length in ((("content-length", "6"),), ()):
            stream = self.client.ask(*length, end=False, method="POST")
            self.last().read_body(10, lambda body: self.fail("given"))
            if not length:
                self.client.send(stream, b"abcdef")
            self.client.pump()
            self.assertEqual(self.client.status(stream), 503)

    def test_streamed(self) -> None:
        """A body is passed on as it comes, its trailers last."""
        told: list[object] = []
        stream = self.client.ask(end=False, method="POST")
        self.last().stream_body(told.append, told.append, 0)
        self.client.send(stream, b"abc")
        self.client.h2.send_headers(stream, [("x-sum", "1")], end_stream=True)
        self.client.pump()
        self.assertEqual(told, [b"abc", [(b"x-sum", b"1")]])

    def test_bad_trailers(self) -> None:
        """Trailers that belong into the head are refused."""
        stream = self.client.ask(end=False, method="POST")
        self.client.h2.send_headers(stream, [("host", "evil.example")], end_stream=True)
        self.client.pump()
        self.assertEqual(self.client.status(stream), 400)

    def test_paused(self) -> None:
        """A pause keeps the client's window closed; going on opens it."""
        got: list[bytes] = []
        stream = self.client.ask(end=False, method="POST")
        inbound = self.last()
        inbound.stream_body(got.append, lambda trailers: None, 0)
        inbound.pause_body()
        for _ in range(3):
            self.client.send(stream, b"x" * 16000)
        self.assertEqual(got, [])
        window = self.client.h2.local_flow_control_window(stream)
        self.assertLess(window, 20000)
        inbound.resume_body()
        inbound.resume_body()
        self.client.pump()
        self.assertEqual(len(b"".join(got)), 48000)
        self.assertGreater(self.client.h2.local_flow_control_window(stream), 40000)

    def test_unwanted_data_frees_the_connection(self) -> None:
        """What is dropped with its stream does not keep the connection's window closed."""
        for _ in range(30):
            stream = self.client.ask(end=False, method="POST")
            for _ in range(4):
                self.client.send(stream, b"x" * 16000)
            self.last().respond(403, [], b"no")
            self.client.pump()
        self.assertGreater(self.client.h2.outbound_flow_control_window, 300000)

    def test_length_that_lies(self) -> None:
        """A body of another length than announced ends the connection (R15)."""
        stream = self.client.ask(("content-length", "3"), end=False, method="POST")
        gone: list[int] = []
        self.last().on_gone(lambda: gone.append(1))
        self.client.send(stream, b"abcd")
        self.assertTrue(self.client.wire.disconnecting)
        self.assertEqual(gone, [1])

    def test_failing_consumer(self) -> None:
        """A bug behind a body costs its request, not the connection."""
        for end in (False, True):
            stream = self.client.ask(end=False, method="POST")
            self.last().stream_body(lambda data: 1 // 0, lambda trailers: None, 0)  # type: ignore[arg-type]  # fails on purpose
            self.client.send(stream, b"x", end=end)
            self.assertEqual(self.client.status(stream), 500)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertFalse(self.client.wire.disconnecting)

    def test_cancelled_while_refused(self) -> None:
        """A client that cancels in the moment it is refused keeps its connection."""
        for action in (
            lambda inbound: inbound.abort(),
            lambda inbound: inbound.respond(403, [], b"no"),
            lambda inbound: inbound.start(200, [], None),
        ):
            stream = self.client.ask(end=False, method="POST")
            inbound = self.last()
            inbound.stream_body(lambda data, i=inbound, act=action: act(i), lambda t: None, 0)  # type: ignore[misc]  # bound now
            self.client.h2.send_data(stream, b"x")
            self.client.h2.reset_stream(stream)
            self.client.pump()
            self.assertTrue(inbound.finished)
            self.assertFalse(self.client.wire.disconnecting)
        self.assertEqual(self.client.status(self.client.ask()), 0)

    def test_slow(self) -> None:
        """A body that trickles is answered 408 (R25)."""
        stream = self.client.ask(end=False, method="POST")
        self.last().read_body(100000, lambda body: self.fail("given"))
        for _ in range(4):
            self.client.send(stream, b"x" * 10)
            self.stage.advance(1)
        self.client.pump()
        self.assertEqual(self.client.status(stream), 0)
        self.stage.advance(2)
        self.client.pump()
        self.assertEqual(self.client.status(stream), 408)

    def test_never_ending(self) -> None:
        """A collected body has an end to its time, however fast it comes."""
        stream = self.client.ask(end=False, method="POST")
        self.last().read_body(1 << 20, lambda body: self.fail("given"))
        for _ in range(62):
            self.client.send(stream, b"x" * 2000)
            self.stage.advance(1)
            if self.client.status(stream):
                break
        self.client.pump()
        self.assertEqual(self.client.status(stream), 408)

    def test_waiting_for_us(self) -> None:
        """While we do not read, the client is not late."""
        stream = self.client.ask(end=False, method="POST")
        self.last().stream_body(lambda data: None, lambda trailers: None, 0)
        self.last().pause_body()
        self.stage.advance(120)
        self.last().resume_body()
        self.stage.advance(4)
        self.client.pump()
        self.assertEqual(self.client.status(stream), 0)


class FlowTests(StageCase):
    """Answers to clients that read slowly."""

    def test_source_is_paused(self) -> None:
        """A closed window pauses the source, an open one lets it go on."""
        told: list[str] = []
        stream = self.client.ask()
        inbound = self.last()
        inbound.start(200, [], None)
        inbound.register_flow(lambda: told.append("pause"), lambda: told.append("resume"))
        inbound.write(b"x" * 60000)
        self.assertEqual(told, [])
        inbound.write(b"x" * 50000)
        self.assertEqual(told, ["pause"])
        self.client.pump()
        self.assertEqual(len(self.client.body(stream)), 65535)
        self.client.take(stream)
        self.assertEqual(told, ["pause", "resume"])
        self.assertEqual(len(self.client.body(stream)), 110000)
        inbound.finish()
        self.client.pump()
        self.assertTrue(self.client.ended(stream))

    def test_registered_late(self) -> None:
        """A source that registers behind a full queue is paused at once."""
        told: list[str] = []
        self.client.ask()
        inbound = self.last()
        inbound.start(200, [], None)
        inbound.write(b"x" * 110000)
        inbound.register_flow(lambda: told.append("pause"), lambda: None)
        self.assertEqual(told, ["pause"])
        inbound.abort()
        inbound.register_flow(lambda: told.append("never"), lambda: None)
        self.assertEqual(told, ["pause"])

    def test_stalled(self) -> None:
        """A client that takes nothing for 30 s is cut off, the others are not (R26)."""
        stream = self.client.ask()
        self.last().respond(200, [], b"x" * 110000)
        self.client.pump()
        quiet = self.client.ask()
        self.last().start(200, [], None)
        self.stage.advance(28)
        self.assertIsNone(self.client.reset(stream))
        self.stage.advance(4)
        self.client.pump()
        self.assertEqual(self.client.reset(stream), ErrorCodes.CANCEL)
        self.assertIsNone(self.client.reset(quiet))
        self.assertEqual(self.stage.meters.events["slow_reader"], 1)

    def test_source_that_does_not_listen(self) -> None:
        """A source that goes on writing is cut off at the bound."""
        stream = self.client.ask()
        inbound = self.last()
        inbound.start(200, [], None)
        for _ in range(20):
            inbound.write(b"x" * 30000)
        self.client.pump()
        self.assertEqual(self.client.reset(stream), ErrorCodes.CANCEL)

    def test_turns(self) -> None:
        """A big answer does not keep a small one waiting."""
        self.client.h2.increment_flow_control_window(1 << 20)
        self.client.h2.update_settings({4: 1 << 20})
        self.client.pump()
        big = self.client.ask()
        first = self.last()
        small = self.client.ask()
        self.client.server.pauseProducing()  # type: ignore[attr-defined]  # it is a producer
        first.respond(200, [], b"x" * 200000)
        self.last().respond(200, [], b"small")
        self.client.server.resumeProducing()  # type: ignore[attr-defined]  # it is a producer
        self.client.pump()
        order = [getattr(event, "stream_id", 0) for event in self.client.events]
        first_end = order.index(small) + order[order.index(small) :].count(small)
        self.assertLess(first_end, len(order))
        self.assertEqual(len(self.client.body(big)), 200000)
        self.assertEqual(self.client.body(small), b"small")

    def test_window_by_settings(self) -> None:
        """A larger initial window lets waiting answers go on."""
        client = Client(self.stage, window=10)
        stream = client.ask()
        self.last().respond(200, [], b"x" * 100)
        client.pump()
        self.assertEqual(len(client.body(stream)), 10)
        client.h2.update_settings({4: 1000})
        client.pump()
        self.assertEqual(len(client.body(stream)), 100)

    def test_blocked_transport(self) -> None:
        """While the transport is full nothing is sent or heard; for too long, it is cut."""
        server = self.client.server
        stream = self.client.ask()
        server.pauseProducing()  # type: ignore[attr-defined]  # it is a producer
        server.pauseProducing()  # type: ignore[attr-defined]  # it is a producer
        self.assertEqual(self.client.wire.producerState, "paused")
        inbound = self.last()
        told: list[str] = []
        inbound.start(200, [], None)
        inbound.register_flow(lambda: told.append("pause"), lambda: told.append("resume"))
        inbound.write(b"abc")
        self.assertEqual(told, ["pause"])
        self.client.pump()
        self.assertEqual(self.client.body(stream), b"")
        server.resumeProducing()  # type: ignore[attr-defined]  # it is a producer
        self.client.pump()
        self.assertEqual((self.client.body(stream), told[-1]), (b"abc", "resume"))
        server.pauseProducing()  # type: ignore[attr-defined]  # it is a producer
        server.stopProducing()  # type: ignore[attr-defined]  # it is a producer
        self.stage.advance(31)
        self.assertTrue(self.client.wire.aborted)

    @given(st.lists(st.integers(1, 30000), max_size=5), st.integers(2000, 70000))
    @settings(max_examples=30, deadline=None)
    def test_whole_whatever_the_window(self, sizes: list[int], window: int) -> None:
        """Every byte arrives, in order, whatever the pieces and the window."""
        stage = Stage(queue_bytes=1 << 20)
        client = Client(stage, window=window)
        stream = client.ask()
        inbound = stage.asked[0]
        inbound.start(200, [], None)
        wanted = b""
        for number, size in enumerate(sizes):
            piece = bytes([65 + number]) * size
            wanted += piece
            inbound.write(piece)
        inbound.finish()
        seen = 0
        for _ in range(len(wanted) // min(window, 16384) + 20):
            client.pump()
            got = len(client.body(stream)) - seen
            if not got:
                break
            seen += got
            if not client.ended(stream):
                client.h2.acknowledge_received_data(got, stream)
        # h2 opens windows again only when a good part of them is used up.
        self.assertTrue(wanted.startswith(client.body(stream)))
        if window >= len(wanted):
            self.assertEqual(client.body(stream), wanted)
            self.assertTrue(client.ended(stream))


class LimitTests(StageCase):
    """What one peer may cost (R14)."""

    def terminated(self) -> int | None:
        """Give the code of the GOAWAY the client got last."""
        codes = [e.error_code for e in self.client.events if isinstance(e, ConnectionTerminated)]
        return None if not codes or codes[-1] is None else int(codes[-1])

    def test_streams(self) -> None:
        """No more than a hundred requests at once."""
        for _ in range(100):
            self.client.ask()
        self.assertEqual(len(self.stage.asked), 100)
        self.assertRaises(ProtocolError, self.client.ask)

    def test_rapid_reset(self) -> None:
        """More than a hundred resets in ten seconds end the connection within one."""
        for _ in range(101):
            stream = self.client.ask()
            self.client.h2.reset_stream(stream)
            self.client.pump()
            if self.client.wire.disconnecting:
                break
        self.assertEqual(self.terminated(), ErrorCodes.ENHANCE_YOUR_CALM)
        self.assertEqual(self.stage.meters.events["http2_flood"], 1)
        self.stage.advance(1)
        self.assertTrue(self.client.wire.aborted)

    def test_patient_resets(self) -> None:
        """A client that cancels now and then is left alone."""
        for _ in range(150):
            self.client.h2.reset_stream(self.client.ask())
            self.client.pump()
            self.stage.advance(0.25)
        self.assertFalse(self.client.wire.disconnecting)

    def test_withdrawn_at_once(self) -> None:
        """A request taken back in the same segment is not begun."""
        h2 = self.client.h2
        h2.send_headers(1, HEADERS)
        h2.reset_stream(1)
        self.client.pump()
        self.assertEqual(self.stage.asked, [])

    def test_reset_tells(self) -> None:
        """A client that cancels is gone for whoever works on its request."""
        stream = self.client.ask()
        gone: list[int] = []
        self.last().on_gone(lambda: gone.append(1))
        self.client.h2.reset_stream(stream)
        self.client.pump()
        self.assertEqual(gone, [1])
        self.assertEqual(self.stage.entries[0].status, 0)
        self.last().respond(200, [], b"late")

    def test_flood_of_pings(self) -> None:
        """Frames that carry nothing are bounded."""
        for _ in range(1200):
            self.client.h2.ping(b"12345678")
            self.client.pump()
            if self.client.wire.disconnecting:
                break
        self.assertEqual(self.terminated(), ErrorCodes.ENHANCE_YOUR_CALM)

    def test_empty_data(self) -> None:
        """Empty DATA frames are such frames."""
        stream = self.client.ask(end=False, method="POST")
        for _ in range(1200):
            self.client.send(stream, b"")
            if self.client.wire.disconnecting:
                break
        self.assertTrue(self.client.wire.disconnecting)

    def test_protocol_error(self) -> None:
        """After a protocol error nothing is read, and the connection is gone within a second."""
        self.client.ask()
        gone: list[int] = []
        self.last().on_gone(lambda: gone.append(1))
        self.client.server.dataReceived(b"\x00\x00\x00\x05\x00\x00\x00\x00\x00")
        self.assertTrue(self.client.wire.disconnecting)
        self.assertEqual(gone, [1])
        self.client.pump()
        self.assertEqual(self.terminated(), ErrorCodes.PROTOCOL_ERROR)
        self.client.server.dataReceived(b"junk")
        self.last().respond(200, [], b"late")
        self.stage.advance(1)
        self.assertTrue(self.client.wire.aborted)

    def test_client_says_goodbye(self) -> None:
        """A client's GOAWAY closes the connection."""
        self.client.ask()
        self.client.h2.close_connection()
        self.client.server.dataReceived(self.client.h2.data_to_send())
        self.assertTrue(self.client.wire.disconnecting)
        self.assertFalse(self.stage.entries[0].complete)

    def test_not_http2(self) -> None:
        """Other bytes than HTTP/2's are refused."""
        protocol = self.stage.factory.buildProtocol(CLIENT)
        assert protocol is not None
        wire = Wire()
        protocol.makeConnection(wire)
        protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(wire.disconnecting)

    def test_huge_frame(self) -> None:
        """A frame larger than allowed is not collected."""
        self.client.server.dataReceived(b"\x80\x00\x00\x00\x00\x00\x00\x00\x01")
        for _ in range(5):
            self.client.server.dataReceived(b"x" * 16384)
        self.assertTrue(self.client.wire.disconnecting)

    def test_header_bomb(self) -> None:
        """A head far beyond the bound ends the connection."""
        headers = [("x" + str(number), "y" * 1000) for number in range(60)]
        self.client.ask(*headers)
        self.assertTrue(self.client.wire.disconnecting)

    def test_table_of_the_client(self) -> None:
        """A client can not make us remember much to compress its answers."""
        self.client.h2.update_settings({1: 1 << 30})
        self.client.pump()
        h2 = self.client.server._h2  # type: ignore[attr-defined]  # looked into
        self.assertEqual(h2.encoder.header_table_size, 4096)


class DeadlineTests(StageCase):
    """Connections that do nothing, or too little."""

    def test_no_request(self) -> None:
        """A connection without a request is closed after ten seconds."""
        self.stage.advance(9.5)
        self.assertFalse(self.client.wire.disconnecting)
        self.stage.advance(1)
        self.assertTrue(self.client.wire.disconnecting)

    def test_idle(self) -> None:
        """Between requests it may rest for 75 seconds."""
        self.client.ask()
        self.last().respond(200, [], b"")
        self.client.pump()
        self.stage.advance(74)
        self.assertFalse(self.client.wire.disconnecting)
        self.stage.advance(2)
        self.assertTrue(self.client.wire.disconnecting)

    def test_quiet_stream(self) -> None:
        """A quiet event stream is left alone, and costs no timer."""
        self.client.ask()
        self.last().start(200, [], None)
        self.stage.advance(11)
        self.assertEqual(self.stage.clock.getDelayedCalls(), [])
        self.stage.advance(600)
        self.assertFalse(self.client.wire.disconnecting)

    def test_trickled_head(self) -> None:
        """A header block that does not end is cut after ten seconds (R24)."""
        self.client.ask()
        self.last().start(200, [], None)
        self.client.h2.send_headers(3, HEADERS)
        data = self.client.h2.data_to_send()
        for byte in data[:12]:
            self.client.server.dataReceived(bytes([byte]))
            self.stage.advance(1)
        self.assertTrue(self.client.wire.disconnecting)

    def test_large_frame_in_pieces(self) -> None:
        """A large DATA frame at an honest rate is not taken for a trickle."""
        stream = self.client.ask(end=False, method="POST")
        got: list[bytes] = []
        self.last().stream_body(got.append, lambda trailers: None, 0)
        self.client.h2.send_data(stream, b"x" * 16000)
        data = self.client.h2.data_to_send()
        for begin in range(0, len(data), 1400):
            self.client.server.dataReceived(data[begin : begin + 1400])
            self.stage.advance(1)
        self.assertEqual(len(b"".join(got)), 16000)

    def test_requests_are_counted(self) -> None:
        """After its last request a connection is closed, that request answered (R27)."""
        stage = Stage(requests=2)
        client = Client(stage)
        client.ask()
        stage.asked[-1].respond(200, [], b"")
        stream = client.ask()
        self.assertFalse(client.wire.disconnecting)
        self.assertTrue(any(isinstance(e, ConnectionTerminated) for e in client.events))
        stage.asked[-1].respond(200, [], b"")
        self.assertTrue(client.wire.disconnecting)
        self.assertIn(stream, (3,))

    def test_lifetime(self) -> None:
        """An old connection is closed after the request it is asked."""
        stage = Stage(lifetime_s=5.0)
        client = Client(stage)
        stage.advance(6)
        client.ask()
        stage.asked[-1].respond(200, [], b"")
        self.assertTrue(client.wire.disconnecting)


class FactoryTests(SynchronousTestCase):
    """Counting and draining."""

    def test_caps(self) -> None:
        """Over a cap connections are closed at once, and places come back (R28)."""
        stage = Stage(connections=2, connections_per_address=1)
        client = Client(stage)
        self.assertEqual(stage.meters.connections, 1)
        self.assertRaises(AssertionError, Client, stage)
        client.close()
        self.assertEqual(stage.meters.connections, 0)
        Client(stage)
        stage = Stage(connections=1)
        Client(stage)
        self.assertRaises(AssertionError, Client, stage)
        self.assertEqual(stage.meters.events["connections_refused"], 1)

    def test_drain(self) -> None:
        """Draining ends idle connections at once, busy ones with their last answer."""
        stage = Stage()
        idle, busy = Client(stage), Client(stage)
        busy.ask()
        waiting = stage.factory.drain()
        self.assertTrue(idle.wire.disconnecting)
        self.assertFalse(busy.wire.disconnecting)
        self.assertRaises(AssertionError, Client, stage)
        self.assertNoResult(waiting)
        stage.asked[0].respond(200, [], b"")
        self.assertTrue(busy.wire.disconnecting)
        idle.close()
        busy.close()
        self.successResultOf(waiting)
        self.successResultOf(stage.factory.drain())

    def test_request_while_draining(self) -> None:
        """A request that crossed the goodbye may safely be sent elsewhere."""
        stage = Stage()
        client = Client(stage)
        client.ask()
        data_before = len(stage.asked)
        client.h2.send_headers(3, HEADERS)
        crossing = client.h2.data_to_send()
        stage.factory.drain()
        client.wire.clear()
        client.server.dataReceived(crossing)
        self.assertEqual(len(stage.asked), data_before)
        client.events += client.h2.receive_data(client.wire.value())
        self.assertEqual(client.reset(3), ErrorCodes.REFUSED_STREAM)

    def test_cut(self) -> None:
        """After the deadline of draining everything is cut."""
        stage = Stage()
        client = Client(stage)
        client.ask()
        stage.factory.abort_all()
        self.assertTrue(client.wire.aborted)
        client.close()
        self.assertFalse(stage.entries[0].complete)

    def test_date(self) -> None:
        """The date is made once a second."""
        factory = Stage().factory
        self.assertIs(factory.date(), factory.date())
        factory.doStart()
        factory.doStop()

    def test_library_missing(self) -> None:
        """Without the library there is a sentence that says what to install."""
        name = "mcpgate.web.wire.http2_connection"
        self.addCleanup(sys.modules.__setitem__, name, sys.modules[name])
        sys.modules[name] = None  # type: ignore[assignment]  # forbids the import
        error = self.assertRaises(HTTP2Missing, Stage)
        self.assertIn("mcpgate[http2]", str(error))

    def test_defaults(self) -> None:
        """Bounds are those of HTTP/1."""
        self.assertIsInstance(Stage().factory.bounds, Bounds)
        self.assertTrue(issubclass(HTTP2Factory, object))
