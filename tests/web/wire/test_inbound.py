"""Tests of one request: its body on the way in, its answer on the way out."""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.http.heads import Peer
from mcpgate.interfaces import IInbound
from mcpgate.web.wire.bounds import Bounds
from tests.http.raw_requests import CHUNKED, END, POST, H, head
from tests.web.front_kit import JSON, ClientEnd, Door, answers, echo, half_close, ok

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def post(body: bytes, *lines: bytes, length: int | None = None) -> bytes:
    """Give a POST with this body, perhaps only the beginning of it."""
    size = len(body) if length is None else length
    fields = b"".join(line + b"\r\n" for line in lines)
    return POST + fields + b"Content-Length: %d\r\n\r\n" % size + body


class Streaming:
    """A dispatcher that streams bodies and writes down what happens."""

    def __init__(self, limit: int = 0) -> None:
        self.events: list[object] = []
        self.limit = limit

    def __call__(self, inbound: IInbound) -> None:
        """Stream this one."""
        inbound.on_gone(lambda: self.events.append("gone"))
        inbound.stream_body(self.events.append, self.ended, self.limit)

    def ended(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """Note the end."""
        self.events.append(("end", trailers))


class BodyTests(SynchronousTestCase):
    """Bodies are read when asked for, bounded, and no slower than allowed."""

    def test_echo(self) -> None:
        """A whole body is handed over in one piece, counted or chunked."""
        for data in (post(b"hello"), CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n" + END):
            for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
                door = Door(dispatch=echo)
                end = door.visit()
                for piece in pieces:
                    door.send(piece, end)
                self.assertEqual(answers(end.value())[0][2], b"hello")
                self.assertEqual((door.entries[0].bytes_in, door.entries[0].bytes_out), (5, 5))
                self.assertEqual(door.meters.bytes_in, 5)

    def test_no_body(self) -> None:
        """A request without a body has an empty one at once."""
        streaming = Streaming()
        door = Door(dispatch=streaming)
        door.send(head())
        self.assertEqual(streaming.events, [("end", [])])
        self.assertEqual(answers(Door(dispatch=echo).send(post(b"")).value())[0][2], b"")

    def test_declared_too_large(self) -> None:
        """A body declared too large is refused before a byte of it is read."""
        for dispatch in (
            lambda inbound: inbound.read_body(10, self.fail),
            lambda inbound: inbound.stream_body(self.fail, self.fail, 10),
        ):
            door = Door(dispatch=dispatch)
            end = door.send(post(b"", b"Expect: 100-continue", length=11))
            status, fields, body = answers(end.value())[0]
            self.assertEqual((status, fields[b"connection"]), (413, b"close"))
            self.assertEqual(json.loads(body)["error"]["reason"], "too_large")
            self.assertEqual(end.ended, "half")

    def test_crossed_limit(self) -> None:
        """A body that turns out too large is refused when it does, and the dispatcher is told."""
        gone: list[int] = []

        def collect(inbound: IInbound) -> None:
            inbound.on_gone(lambda: gone.append(1))
            inbound.read_body(10, self.fail)

        door = Door(dispatch=collect)
        end = door.send(CHUNKED + b"6\r\naaaaaa\r\n")
        self.assertEqual(end.value(), b"")
        door.send(b"6\r\naaaaaa\r\n", end)
        self.assertEqual(answers(end.value())[0][0], 413)
        self.assertEqual(gone, [1])

    def test_crossed_limit_streamed(self) -> None:
        """The same while streaming; once an answer has begun the connection is cut."""
        streaming = Streaming(limit=5)
        door = Door(dispatch=streaming)
        end = door.send(CHUNKED + b"3\r\naaa\r\n")
        door.inbounds[0].start(200, [], None)
        door.send(b"3\r\naaa\r\n", end)
        self.assertEqual(end.ended, "aborted")
        self.assertEqual(streaming.events, [b"aaa", "gone"])
        self.assertFalse(door.entries[0].complete)

    def test_stream(self) -> None:
        """A streamed body is passed on as it comes, its trailers at the end."""
        streaming = Streaming()
        door = Door(dispatch=streaming)
        end = door.send(CHUNKED + b"3\r\nab")
        door.send(b"c\r\n0\r\nX-Sum: 1\r\n", end)
        door.send(b"\r\n", end)
        self.assertEqual(streaming.events, [b"ab", b"c", ("end", [(b"x-sum", b"1")])])

    def test_broken_body(self) -> None:
        """Broken framing is answered 400; after the answer began the connection is cut."""
        door = Door(dispatch=Streaming())
        end = door.send(CHUNKED + b"x\r\n")
        self.assertEqual(answers(end.value())[0][0], 400)

    def test_continue(self) -> None:
        """100 Continue is said when the body is asked for, not before, and only once."""
        door = Door()
        end = door.send(post(b"", b"Expect: 100-continue", length=5))
        self.assertEqual(end.value(), b"")
        echo(door.inbounds[0])
        self.assertEqual(end.value(), CONTINUE)
        door.send(b"hello", end)
        self.assertTrue(end.value().endswith(b"hello"))
        self.assertEqual(end.value().count(CONTINUE), 1)
        self.assertNotIn(b"connection: close", end.value())

    def test_continue_not_needed(self) -> None:
        """Nobody is told to continue who has sent already, or speaks HTTP/1.0."""
        door = Door(dispatch=echo)
        self.assertNotIn(CONTINUE, door.send(post(b"he", b"Expect: 100-continue")).value())
        old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        self.assertEqual(door.send(old).value(), b"")

    def test_continue_refused(self) -> None:
        """An answer without asking for the body ends the connection: the body may never come."""
        door = Door(dispatch=ok)
        end = door.send(post(b"", b"Expect: 100-continue", length=5))
        self.assertIn(b"connection: close", end.value())
        self.assertEqual(end.ended, "half")

    def test_pause(self) -> None:
        """A paused body stops the reading, and nothing is passed on until it is resumed."""
        streaming = Streaming()
        door = Door(dispatch=streaming)
        end = door.send(CHUNKED + b"3\r\nabc\r\n")
        inbound = door.inbounds[0]
        inbound.pause_body()
        inbound.pause_body()
        self.assertEqual(end.producerState, "paused")
        door.send(b"3\r\ndef\r\n", end)
        door.pass_time(100)
        self.assertEqual(streaming.events, [b"abc"])
        inbound.resume_body()
        inbound.resume_body()
        self.assertEqual(streaming.events, [b"abc", b"def"])
        self.assertEqual(end.producerState, "producing")
        door.pass_time(7)
        self.assertEqual(answers(end.value())[0][0], 408)

    def test_pause_inside(self) -> None:
        """A consumer may pause from inside its own callback."""
        taken: list[bytes] = []

        def take(inbound: IInbound) -> None:
            def data(piece: bytes) -> None:
                taken.append(piece)
                inbound.pause_body()

            inbound.stream_body(data, lambda _: ok(inbound), 0)

        door = Door(dispatch=take)
        end = door.send(post(b"abc"))
        self.assertEqual((taken, end.value()), ([b"abc"], b""))
        door.inbounds[0].resume_body()
        self.assertEqual(answers(end.value())[0][0], 200)

    def test_pause_before_reading(self) -> None:
        """Pausing before the body is asked for does no harm."""
        door = Door()
        end = door.send(post(b"ab", length=5))
        inbound = door.inbounds[0]
        inbound.pause_body()
        inbound.resume_body()
        echo(inbound)
        door.send(b"cde", end)
        self.assertEqual(answers(end.value())[0][2], b"abcde")

    def test_answer_inside(self) -> None:
        """A consumer may answer from inside its own callback; the rest of the body is dropped."""

        def take(inbound: IInbound) -> None:
            inbound.stream_body(lambda _: ok(inbound), self.fail, 0)

        door = Door(dispatch=take)
        end = door.send(post(b"abc", length=100))
        status, fields, _ = answers(end.value())[0]
        self.assertEqual((status, fields[b"connection"]), (200, b"close"))
        door.send(b"more", end)
        door.pass_time(1)
        self.assertEqual(end.ended, "closed")

    def test_unasked_body(self) -> None:
        """A body nobody asked for is dropped when it is here, and the connection lives on."""
        door = Door(dispatch=ok)
        end = door.send(post(b"hello") + CHUNKED + b"1\r\na\r\n" + END + head())
        self.assertEqual([status for status, _, _ in answers(end.value())], [200, 200, 200])
        self.assertEqual(end.ended, "")

    def test_unasked_broken_body(self) -> None:
        """A broken body nobody asked for ends the connection after the answer."""
        door = Door(dispatch=ok)
        end = door.send(CHUNKED + b"zz\r\n" + head())
        ((status, fields, _),) = answers(end.value())
        self.assertEqual((status, fields[b"connection"]), (200, b"close"))

    def test_unasked_body_waits(self) -> None:
        """While nobody asks for a body, no more than one segment of it is read."""
        door = Door()
        end = door.send(post(b"", length=500))
        self.assertEqual(end.producerState, "producing")
        door.send(b"a" * 100, end)
        self.assertEqual(end.producerState, "paused")
        echo(door.inbounds[0])
        self.assertEqual(end.producerState, "producing")
        door.send(b"a" * 400, end)
        self.assertEqual(answers(end.value())[0][2], b"a" * 500)

    def test_slow_body(self) -> None:
        """A body slower than the least rate is answered 408 after the grace."""
        door = Door(dispatch=echo)
        end = door.send(post(b"", length=100_000))
        for _ in range(5):
            door.send(b"a" * 100, end)
            door.pass_time(1)
        self.assertEqual(end.value(), b"")
        door.pass_time(2)
        self.assertEqual(answers(end.value())[0][0], 408)
        self.assertEqual(door.entries[0].notes["reason"], "request_timeout")

    def test_late_body(self) -> None:
        """A body that is collected must be complete in time, however steady it flows."""
        door = Door(dispatch=echo)
        end = door.send(post(b"", length=4_000_000))
        for _ in range(59):
            door.send(b"a" * 2000, end)
            door.pass_time(1)
        self.assertEqual(end.value(), b"")
        door.pass_time(3)
        self.assertEqual(answers(end.value())[0][0], 408)

    def test_steady_stream(self) -> None:
        """A streamed body may take as long as it flows."""
        streaming = Streaming()
        door = Door(dispatch=streaming)
        end = door.send(post(b"", length=4_000_000))
        for _ in range(100):
            door.send(b"a" * 2000, end)
            door.pass_time(1)
        self.assertEqual(len(streaming.events), 100)

    def test_budget(self) -> None:
        """Bodies that are collected share a budget; over it the answer is 503."""
        door = Door(Bounds(connections=0, bodies_bytes=100), dispatch=echo)
        first = door.send(post(b"a", length=80))
        second = door.send(post(b"a", length=80))
        status, fields, _ = answers(second.value())[0]
        self.assertEqual((status, b"retry-after" in fields), (503, True))
        door.send(b"a" * 79, first)
        third = door.send(CHUNKED + b"50\r\n" + b"a" * 80)
        self.assertEqual(third.value(), b"")
        third.abortConnection()
        fourth = door.send(CHUNKED + b"65\r\n" + b"a" * 101)
        self.assertEqual(answers(fourth.value())[0][0], 503)
        self.assertEqual(answers(door.send(post(b"a" * 101)).value())[0][0], 200)

    def test_failing_consumer(self) -> None:
        """A bug in a consumer is a 500 with the request's id, its traceback in the log only."""

        def boom(_: object) -> None:
            raise ZeroDivisionError

        for dispatch, data in [
            (lambda inbound: boom(0), [head()]),
            (lambda inbound: inbound.read_body(9, boom), [post(b"a")]),
            (lambda inbound: inbound.read_body(9, boom), [post(b"", length=1), b"a"]),
        ]:
            door = Door(dispatch=dispatch)
            end = door.visit()
            for piece in data:
                door.send(piece, end)
            status, _, body = answers(end.value())[0]
            self.assertEqual((status, json.loads(body)["error"]["requestId"]), (500, "id1"))
            self.assertNotIn(b"ZeroDivision", body)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class AnswerTests(SynchronousTestCase):
    """Answers are framed for the client at hand."""

    def answer(self, request: bytes, dispatch: Callable[[IInbound], None]) -> bytes:
        """Give everything written in answer to one request."""
        self.door = Door(dispatch=dispatch)
        self.end = self.door.send(request)
        raw: bytes = self.end.value()
        return raw

    def test_respond(self) -> None:
        """A complete answer has length, date and request id, and says nothing of the server."""
        raw = self.answer(head(), ok)
        self.assertEqual(
            raw,
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
            b"date: Mon, 12 Jan 1970 13:46:40 GMT\r\nx-request-id: id1\r\n\r\n{}",
        )
        (entry,) = self.door.entries
        self.assertEqual((entry.status, entry.complete, entry.protocol), (200, True, "HTTP/1.1"))

    def test_framing_is_ours(self) -> None:
        """Framing fields of the dispatcher are dropped."""
        theirs = [(b"Content-Length", b"9"), (b"Transfer-Encoding", b"x"), (b"Connection", b"x")]
        raw = self.answer(head(), lambda inbound: inbound.respond(200, theirs, b"ab"))
        self.assertEqual(raw.lower().count(b"content-length"), 1)
        self.assertNotIn(b"ransfer", raw)

    def test_extra_fields(self) -> None:
        """Extra fields go out with whatever answer is given."""

        def dispatch(inbound: IInbound) -> None:
            inbound.extra_fields.append((b"vary", b"origin"))
            inbound.read_body(1, self.fail)

        self.assertIn(b"vary: origin\r\n", self.answer(post(b"ab"), dispatch))

    def test_no_splitting(self) -> None:
        """A field that would split the answer becomes a 500."""
        evil = [(b"x", b"a\r\nSet-Cookie: b")]
        raw = self.answer(head(), lambda inbound: inbound.respond(200, evil, b""))
        self.assertEqual(answers(raw)[0][0], 500)
        self.assertNotIn(b"Set-Cookie", raw)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_head(self) -> None:
        """HEAD gets the head of a GET, streamed or not."""
        request = head(start=b"HEAD / HTTP/1.1\r\n")
        raw = self.answer(request, ok)
        self.assertTrue(raw.endswith(b"\r\n\r\n"))
        self.assertIn(b"content-length: 2\r\n", raw)

        def stream(inbound: IInbound) -> None:
            inbound.start(200, [], None)
            inbound.write(b"abc")
            inbound.finish()

        raw = self.answer(request, stream)
        self.assertTrue(raw.endswith(b"\r\n\r\n"))
        self.assertIn(b"transfer-encoding: chunked\r\n", raw)

    def test_bodiless(self) -> None:
        """204 and 304 have neither body nor length."""
        for status in (204, 304):
            raw = self.answer(head(), lambda inbound, s=status: inbound.respond(s, [], b""))  # type: ignore[misc]  # default binds the loop's value
            self.assertNotIn(b"content-length", raw)

            def stream(inbound: IInbound, status: int = status) -> None:
                inbound.start(status, [], None)
                inbound.finish()

            raw = self.answer(head(), stream)
            self.assertNotIn(b"chunked", raw)
            self.assertTrue(raw.endswith(b"\r\n\r\n"))

    def test_chunked(self) -> None:
        """A stream of unknown length goes out in chunks, trailers at its end."""

        def stream(inbound: IInbound) -> None:
            inbound.start(200, JSON, None)
            inbound.write(b"abc")
            inbound.write(b"")
            inbound.write(b"d" * 16)
            inbound.finish([(b"x-sum", b"1")])

        raw = self.answer(head(), stream)
        _, _, body = raw.partition(b"\r\n\r\n")
        self.assertEqual(body, b"3\r\nabc\r\n10\r\ndddddddddddddddd\r\n0\r\nx-sum: 1\r\n\r\n")
        self.assertEqual(self.door.entries[0].bytes_out, 19)

    def test_counted_stream(self) -> None:
        """A stream of known length has a length, and must keep it."""

        def stream(inbound: IInbound) -> None:
            inbound.start(200, [], 5)
            inbound.write(b"abc")
            inbound.write(b"de")
            inbound.finish()

        raw = self.answer(head(), stream)
        self.assertTrue(raw.endswith(b"\r\n\r\nabcde"))
        for size in (4, 6):

            def wrong(inbound: IInbound, size: int = size) -> None:
                inbound.start(200, [], 5)
                inbound.write(b"a" * size)
                inbound.finish()

            self.answer(head(), wrong)
            self.assertEqual(self.end.ended, "aborted")
            self.assertFalse(self.door.entries[0].complete)

    def test_head_waits_for_small_body(self) -> None:
        """The head of a small stream goes out with its first bytes; of a large one at once."""
        door = Door()
        end = door.send(head())
        inbound = door.inbounds[0]
        inbound.start(200, [], 4)
        self.assertEqual(end.value(), b"")
        inbound.write(b"ab")
        self.assertTrue(end.value().endswith(b"\r\n\r\nab"))
        inbound.write(b"cd")
        inbound.finish()
        self.assertEqual(answers(end.value())[0][2], b"abcd")
        door.send(head(), end)
        end.clear()
        door.inbounds[1].start(200, [], 100_000)
        self.assertTrue(end.value().endswith(b"\r\n\r\n"))

    def test_old_client(self) -> None:
        """HTTP/1.0 gets no chunks; the end of the connection ends a stream."""

        def stream(inbound: IInbound) -> None:
            inbound.start(200, [], None)
            inbound.write(b"abc")
            inbound.finish()

        old = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n" + H + b"\r\n"
        raw = self.answer(old, stream)
        self.assertTrue(raw.endswith(b"connection: close\r\n\r\nabc"))
        self.assertEqual(self.end.ended, "half")
        self.assertEqual(self.door.entries[0].protocol, "HTTP/1.0")
        raw = self.answer(old, ok)
        self.assertIn(b"connection: keep-alive\r\n", raw)
        self.assertEqual(self.end.ended, "")
        raw = self.answer(b"GET / HTTP/1.0\r\n\r\n", ok)
        self.assertIn(b"connection: close\r\n", raw)

    def test_close_asked(self) -> None:
        """A client that says close gets it."""
        self.assertIn(b"connection: close", self.answer(head(b"Connection: Close"), ok))
        self.assertNotIn(b"connection: close", self.answer(head(b"Connection: te"), ok))

    def test_misuse(self) -> None:
        """Writing before the start, and answering twice, are bugs."""
        door = Door()
        door.send(head())
        inbound = door.inbounds[0]
        self.assertRaises(RuntimeError, inbound.write, b"a")
        self.assertRaises(RuntimeError, inbound.finish)
        inbound.start(200, [], None)
        self.assertRaises(RuntimeError, inbound.respond, 200, [], b"")

    def test_after_the_end(self) -> None:
        """After the end every method does nothing."""
        door = Door()
        end = door.send(post(b"", length=4))
        inbound = door.inbounds[0]
        end.abortConnection()
        self.assertTrue(inbound.finished)
        inbound.respond(200, [], b"")
        inbound.start(200, [], None)
        inbound.write(b"a")
        inbound.finish()
        inbound.abort()
        inbound.read_body(9, self.fail)
        inbound.stream_body(self.fail, self.fail, 0)
        inbound.register_flow(self.fail, self.fail)
        inbound.take_over(101, [], Protocol())
        inbound.pause_body()
        inbound.resume_body()
        self.assertEqual(end.value(), b"")
        self.assertEqual([(e.status, e.complete) for e in door.entries], [(0, False)])

    def test_gone(self) -> None:
        """Who asked is told once that the client has gone; who asks later, at once."""
        door = Door()
        end = door.send(head())
        inbound = door.inbounds[0]
        told: list[str] = []

        def boom() -> None:
            raise ZeroDivisionError

        inbound.on_gone(boom)
        inbound.on_gone(lambda: told.append("first"))
        end.abortConnection()
        self.assertEqual(told, ["first"])
        inbound.on_gone(lambda: told.append("late"))
        self.assertEqual(told, ["first", "late"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_not_gone(self) -> None:
        """A client that leaves after its answer is not gone."""
        door = Door()
        end = door.send(head())
        inbound = door.inbounds[0]
        inbound.on_gone(self.fail)
        ok(inbound)
        inbound.on_gone(self.fail)
        end.abortConnection()

    def test_peer(self) -> None:
        """The peer is told, and a trusted proxy's word may replace it."""
        door = Door(secure=True)
        door.send(head())
        inbound = door.inbounds[0]
        self.assertEqual(inbound.peer, Peer("192.0.2.1", True, 40000))
        inbound.peer = Peer("198.51.100.1", True)
        ok(inbound)
        self.assertEqual(door.entries[0].peer, "198.51.100.1")

    def test_access_entry(self) -> None:
        """The access log tells path without query, cut, with time and notes."""
        door = Door()
        door.send(head(start=b"GET /" + b"a" * 300 + b"?secret HTTP/1.1\r\n"))
        door.inbounds[0].notes["server"] = "fs"
        door.pass_time(2)
        ok(door.inbounds[0])
        (entry,) = door.entries
        self.assertEqual(entry.path, "/" + "a" * 255)
        self.assertEqual((entry.duration_s, entry.notes), (2.0, {"server": "fs"}))


class Taken(Protocol):
    """A protocol that takes a connection over."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def connectionMade(self) -> None:
        """Note it."""
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        """Note it."""
        self.events.append(data)

    def connectionLost(self, reason: object = None) -> None:
        """Note it."""
        self.events.append("lost")


WEBSOCKET = (b"Connection: Upgrade", b"Upgrade: websocket")


class TakeOverTests(SynchronousTestCase):
    """After an upgrade the connection belongs to the other protocol."""

    def setUp(self) -> None:
        """Upgrade a connection."""
        self.door = Door()
        self.end: ClientEnd = self.door.send(head(*WEBSOCKET) + b"early")
        self.taken = Taken()
        self.door.inbounds[0].take_over(101, [(b"sec-websocket-accept", b"x")], self.taken)

    def test_head(self) -> None:
        """The head says what it is upgraded to."""
        raw = self.end.value()
        self.assertTrue(raw.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"))
        for line in (b"connection: Upgrade", b"upgrade: websocket", b"sec-websocket-accept: x"):
            self.assertIn(line + b"\r\n", raw)

    def test_data(self) -> None:
        """Bytes that came early are its first data; the rest follow, whatever they are."""
        self.door.send(b"\x81\x00\r\n", self.end)
        self.assertEqual(self.taken.events, ["made", b"early", b"\x81\x00\r\n"])
        assert self.taken.transport is not None
        self.end.clear()
        self.taken.transport.write(b"out")
        self.assertEqual(self.end.value(), b"out")
        self.assertIsNone(self.end.producer)

    def test_no_deadline(self) -> None:
        """No deadline of HTTP ends it."""
        self.door.pass_time(200, step=1)
        self.assertEqual(self.end.ended, "")

    def test_end(self) -> None:
        """Its end is the end of the connection, and then it is in the access log."""
        self.assertEqual(self.door.entries, [])
        self.end.loseConnection()
        self.assertEqual(self.taken.events[-1], "lost")
        (entry,) = self.door.entries
        self.assertEqual((entry.status, entry.complete, entry.bytes_in), (101, True, 5))

    def test_half_close(self) -> None:
        """A half close ends it, unless the protocol knows half closes."""
        half_close(self.end)
        self.assertEqual(self.end.ended, "closed")

    def test_abort_all(self) -> None:
        """It is cut off with the others."""
        self.door.factory.abort_all()
        self.assertEqual(self.end.ended, "aborted")
        self.assertEqual(self.taken.events[-1], "lost")

    def test_upgrade_given(self) -> None:
        """The dispatcher may say itself what it is upgraded to."""
        door = Door()
        end = door.send(head(*WEBSOCKET))
        door.inbounds[0].take_over(101, [(b"Upgrade", b"other")], Taken())
        self.assertEqual(end.value().lower().count(b"\r\nupgrade:"), 1)

    def test_failing_end(self) -> None:
        """A failing protocol does not spoil the count of connections."""

        class Failing(Taken):
            def connectionLost(self, reason: object = None) -> None:
                raise ZeroDivisionError

        door = Door()
        end = door.send(head(*WEBSOCKET))
        door.inbounds[0].take_over(101, [], Failing())
        protocol = end.protocol
        assert protocol is not None
        self.assertRaises(ZeroDivisionError, protocol.connectionLost, Failure(ConnectionError()))
        self.assertEqual(door.meters.connections, 0)
        self.assertEqual(len(door.entries), 1)
