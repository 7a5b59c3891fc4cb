"""Tests of one connection: order, deadlines, slow clients, ends."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.tcp import Server
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.http.writing import KeptFields
from mcpgate.interfaces import IInbound
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.wire.inbound import HTTP1Inbound
from tests.http.raw_requests import CHUNKED, POST, H, head
from tests.web.front_kit import ClientEnd, Door, answers, echo, half_close, ok

SLICE = 64 * 1024


def path(name: bytes) -> bytes:
    """Give a GET of this path."""
    return head(start=b"GET " + name + b" HTTP/1.1\r\n")


class PipeliningTests(SynchronousTestCase):
    """One request at a time, in order (R11)."""

    def test_order(self) -> None:
        """The second is looked at when the first is answered; reading pauses meanwhile."""
        door = Door()
        end = door.send(path(b"/1") + path(b"/2") + path(b"/3"))
        self.assertEqual([inbound.head.path for inbound in door.inbounds], [b"/1"])
        self.assertEqual(end.producerState, "paused")
        door.inbounds[0].respond(200, [], b"1")
        self.assertEqual([inbound.head.path for inbound in door.inbounds], [b"/1", b"/2"])
        self.assertEqual(end.producerState, "paused")
        door.inbounds[1].respond(200, [], b"2")
        door.inbounds[2].respond(200, [], b"3")
        self.assertEqual([body for _, _, body in answers(end.value())], [b"1", b"2", b"3"])
        self.assertEqual(end.producerState, "producing")

    def test_reading_while_in_work(self) -> None:
        """While nothing is pipelined reading goes on, so that a client that leaves is noticed."""
        door = Door()
        end = door.send(path(b"/1"))
        self.assertEqual(end.producerState, "producing")
        door.send(path(b"/2"), end)
        self.assertEqual(end.producerState, "paused")

    def test_many(self) -> None:
        """A long line of requests answered at once needs no deep stack."""
        door = Door(Bounds(connections=0, requests=0), dispatch=ok)
        end = door.send(path(b"/") * 2000)
        self.assertEqual(len(answers(end.value())), 2000)

    def test_not_while_client_is_slow(self) -> None:
        """A client that does not read its answers gets no more of them (R26)."""
        door = Door(dispatch=ok)
        end = door.visit()
        assert end.protocol is not None
        end.protocol.pauseProducing()
        door.send(path(b"/1"), end)
        self.assertEqual(door.inbounds, [])
        end.protocol.resumeProducing()
        self.assertEqual(len(door.inbounds), 1)

    def test_after_bad_request(self) -> None:
        """After a malformed request nothing more is dispatched (R12)."""
        door = Door(dispatch=ok)
        end = door.send(path(b"/1") + b"nonsense\r\n" + path(b"/2"))
        self.assertEqual(len(door.inbounds), 1)
        self.assertEqual([status for status, _, _ in answers(end.value())], [200, 400])
        door.send(path(b"/3"), end)
        self.assertEqual(len(door.inbounds), 1)


class DeadlineTests(SynchronousTestCase):
    """Every wait ends."""

    def test_silent(self) -> None:
        """A connection that says nothing is told so, and closed (R24)."""
        door = Door()
        end = door.visit()
        door.pass_time(9.5)
        self.assertEqual(end.value(), b"")
        door.pass_time(1.5)
        self.assertEqual(answers(end.value())[0][0], 408)
        door.pass_time(1)
        self.assertEqual(end.ended, "closed")

    def test_slow_head(self) -> None:
        """A head that trickles in is refused in time, however steady it trickles (R24)."""
        door = Door()
        end = door.visit()
        for byte in b"GET / HTTP/1.1":
            if not end.value():
                door.send(bytes([byte]), end)
            door.pass_time(1)
        status, fields, body = answers(end.value())[0]
        self.assertEqual((status, fields[b"connection"]), (408, b"close"))
        self.assertEqual(json.loads(body)["error"]["reason"], "request_timeout")
        self.assertEqual(door.inbounds, [])

    def test_slow_second_head(self) -> None:
        """The same for later heads, counted from their first byte."""
        door = Door(dispatch=ok)
        end = door.send(head())
        door.pass_time(60)
        door.send(b"GET / ", end)
        door.pass_time(9)
        self.assertEqual(len(answers(end.value())), 1)
        door.pass_time(2)
        self.assertEqual([status for status, _, _ in answers(end.value())], [200, 408])

    def test_idle(self) -> None:
        """An idle connection is closed without a word (R27)."""
        door = Door(dispatch=ok)
        end = door.send(head())
        door.pass_time(70)
        door.send(head(), end)
        end.clear()
        door.pass_time(74)
        self.assertEqual(end.ended, "")
        door.pass_time(3)
        self.assertEqual((end.ended, end.value()), ("closed", b""))

    def test_in_work(self) -> None:
        """A request in work has no deadline here."""
        door = Door()
        end = door.send(head())
        door.pass_time(600, step=1)
        self.assertEqual(end.ended, "")
        ok(door.inbounds[0])
        self.assertEqual(answers(end.value())[0][0], 200)
        door.pass_time(74)
        self.assertEqual(end.ended, "")
        door.pass_time(3)
        self.assertEqual(end.ended, "closed")

    def test_requests(self) -> None:
        """The last allowed request is told so (R27)."""
        door = Door(Bounds(connections=0, requests=2), dispatch=ok)
        end = door.send(head() * 3)
        said = answers(end.value())
        self.assertEqual([b"connection" in fields for _, fields, _ in said], [False, True])
        self.assertEqual(end.ended, "half")

    def test_lifetime(self) -> None:
        """A connection's life ends with an answer, never in a call (R27)."""
        door = Door(Bounds(connections=0, lifetime_s=100))
        end = door.send(head())
        door.pass_time(200, step=1)
        self.assertEqual(end.ended, "")
        ok(door.inbounds[0])
        self.assertEqual(answers(end.value())[0][1][b"connection"], b"close")

    def test_linger(self) -> None:
        """A client that does not close its side is cut off after a moment."""
        door = Door(dispatch=ok)
        end = door.send(head(b"Connection: close"))
        self.assertEqual(end.ended, "half")
        door.send(b"more", end)
        door.pass_time(1)
        self.assertEqual(end.ended, "closed")

    def test_linger_stuck(self) -> None:
        """What was said is sent out in full first, but not for ever."""
        door = Door(dispatch=ok)
        end = door.visit()
        end.stuck = True
        door.send(head(b"Connection: close"), end)
        door.pass_time(29)
        self.assertEqual(end.ended, "half")
        door.pass_time(2)
        self.assertEqual(end.ended, "aborted")

    def test_close_stuck(self) -> None:
        """A close that does not come to its end is forced in the end."""
        door = Door(dispatch=ok, secure=True)
        end = door.visit()
        end.stuck = True
        door.send(head(b"Connection: close"), end)
        self.assertEqual(end.ended, "closed")
        door.pass_time(29)
        self.assertEqual(end.ended, "closed")
        door.pass_time(3)
        self.assertEqual(end.ended, "aborted")

    def test_linger_ends(self) -> None:
        """A client that closes its side is done."""
        door = Door(dispatch=ok)
        end = door.send(head(b"Connection: close"))
        half_close(end)
        self.assertEqual(end.ended, "closed")

    def test_secure(self) -> None:
        """Over TLS there is no half close."""
        door = Door(dispatch=ok, secure=True)
        end = door.send(head(b"Connection: close"))
        self.assertEqual(end.ended, "closed")


class SlowReaderTests(SynchronousTestCase):
    """A client that does not read costs little and not for long (R26)."""

    def setUp(self) -> None:
        """Have one request in work."""
        self.door = Door()
        self.end = self.door.send(head())
        protocol = self.end.protocol
        assert protocol is not None
        self.protocol = protocol
        self.inbound = self.door.inbounds[0]
        self.flow: list[str] = []

    def register(self) -> None:
        """Register a source that heeds."""
        self.inbound.register_flow(
            lambda: self.flow.append("pause"), lambda: self.flow.append("resume")
        )

    def test_flow(self) -> None:
        """The source is paused and resumed."""
        self.register()
        self.inbound.start(200, [], None)
        self.protocol.pauseProducing()
        self.protocol.pauseProducing()
        self.inbound.write(b"a")
        self.assertFalse(self.end.value().endswith(b"1\r\na\r\n"))
        self.protocol.resumeProducing()
        self.assertTrue(self.end.value().endswith(b"1\r\na\r\n"))
        self.assertEqual(self.flow, ["pause", "resume"])

    def test_flow_late(self) -> None:
        """A source that registers while the client is slow is paused at once."""
        self.protocol.pauseProducing()
        self.register()
        self.assertEqual(self.flow, ["pause"])

    def test_no_progress(self) -> None:
        """A client that takes nothing for long is cut off."""
        self.inbound.start(200, [], None)
        self.protocol.pauseProducing()
        self.door.pass_time(29.5)
        self.assertEqual(self.end.ended, "")
        self.door.pass_time(2)
        self.assertEqual(self.end.ended, "aborted")
        self.assertEqual(self.door.meters.events["slow_reader"], 1)
        self.assertEqual(self.door.entries[0].notes["reason"], "slow_reader")

    def test_progress(self) -> None:
        """A client that takes a little at a time may take long; memory goes down with it."""
        self.inbound.respond(200, [], b"a" * (10 * SLICE))
        self.protocol.resumeProducing()
        self.assertGreater(len(self.end.value()), 10 * SLICE)

    def test_large_answer_in_slices(self) -> None:
        """A large answer is given to the transport slice by slice, each one a sign of progress."""
        self.protocol.pauseProducing()
        self.inbound.respond(200, [], b"a" * (4 * SLICE))
        real = self.end.write

        def write_and_pause(data: bytes) -> None:
            real(data)
            self.protocol.pauseProducing()

        self.end.write = write_and_pause  # type: ignore[method-assign]  # a transport that fills up
        for part in range(1, 5):
            self.door.pass_time(25)
            self.protocol.resumeProducing()
            self.assertEqual(len(self.end.value()), part * SLICE)
        self.door.pass_time(25)
        self.protocol.resumeProducing()
        self.assertEqual(self.end.ended, "")
        ((status, _, body),) = answers(self.end.value())
        self.assertEqual((status, len(body)), (200, 4 * SLICE))

    def test_careless_source(self) -> None:
        """A source that does not heed is stopped when too much is queued."""
        self.inbound.start(200, [], None)
        self.protocol.pauseProducing()
        for _ in range(6):
            self.inbound.write(b"a" * SLICE)
        self.assertEqual(self.end.ended, "aborted")
        self.assertEqual(self.door.meters.events["slow_reader"], 1)

    def test_answers_of_all(self) -> None:
        """When answers nobody reads come to too much, the longest stalled clients are cut off."""
        door = Door(Bounds(connections=10, answers_bytes=30 * SLICE))
        ends = [door.send(head()) for _ in range(4)]
        for end, inbound, size in zip(ends, door.inbounds, (12, 1, 12, 12), strict=True):
            assert end.protocol is not None
            end.protocol.pauseProducing()
            inbound.respond(200, [], b"a" * (size * SLICE))
            door.pass_time(1)
        self.assertEqual([end.ended for end in ends], ["aborted", "", "", ""])
        self.assertEqual(door.meters.events["slow_reader"], 1)
        for end in ends[1:]:
            assert end.protocol is not None
            end.protocol.resumeProducing()
        self.assertEqual(door.factory.answers.held, 0)

    def test_who_reads_is_spared(self) -> None:
        """A client that took what waited, or a part, is not cut off in its old turn."""
        door = Door(Bounds(connections=10, answers_bytes=40 * SLICE))
        ends = [door.send(head()) for _ in range(4)]
        protocols = []
        for end, inbound in zip(ends[:3], door.inbounds, strict=False):
            assert end.protocol is not None
            protocols.append(end.protocol)
            end.protocol.pauseProducing()
            inbound.respond(200, [], b"a" * (12 * SLICE))
            door.pass_time(1)
        # The first takes everything, the second a slice and stalls again: the third is the next.
        protocols[0].resumeProducing()
        write = ends[1].write

        def stall(data: bytes) -> None:
            write(data)
            protocols[1].pauseProducing()

        ends[1].write = stall  # type: ignore[method-assign]  # a client that takes one slice
        protocols[1].resumeProducing()
        assert ends[3].protocol is not None
        ends[3].protocol.pauseProducing()
        door.inbounds[3].respond(200, [], b"a" * (20 * SLICE))
        self.assertEqual([end.ended for end in ends], ["", "", "aborted", ""])
        for end in (ends[1], ends[3]):
            assert end.protocol is not None
            end.protocol.cut()
        self.assertEqual(door.factory.answers.held, 0)
        self.assertEqual(door.factory.answers._hoards, [])

    def test_many_small_answers(self) -> None:
        """Clients for whom little waits are never cut off for the sake of the sum."""
        door = Door(Bounds(connections=100, answers_bytes=2 * SLICE))
        ends = [door.send(head()) for _ in range(8)]
        for end, inbound in zip(ends, door.inbounds, strict=True):
            assert end.protocol is not None
            end.protocol.pauseProducing()
            inbound.respond(200, [], b"a" * SLICE)
        self.assertEqual({end.ended for end in ends}, {""})

    def test_close_waits(self) -> None:
        """The connection is closed when the queue is empty, or given up with it."""
        door = Door()
        end = door.send(head(b"Connection: close"))
        protocol = end.protocol
        assert protocol is not None
        protocol.pauseProducing()
        ok(door.inbounds[0])
        self.assertEqual((end.value(), end.ended), (b"", ""))
        self.assertTrue(protocol.busy)
        protocol.resumeProducing()
        self.assertEqual(answers(end.value())[0][0], 200)
        self.assertEqual(end.ended, "half")

    def test_close_given_up(self) -> None:
        """An answer nobody takes is given up."""
        door = Door()
        end = door.send(head(b"Connection: close"))
        protocol = end.protocol
        assert protocol is not None
        protocol.pauseProducing()
        ok(door.inbounds[0])
        door.pass_time(32)
        self.assertEqual(end.ended, "aborted")
        protocol.stopProducing()

    def test_half_close_waits(self) -> None:
        """A half close does not cut off an answer that is still queued."""
        self.protocol.pauseProducing()
        ok(self.inbound)
        half_close(self.end)
        self.assertEqual(self.end.ended, "")
        self.protocol.resumeProducing()
        self.assertEqual(answers(self.end.value())[0][0], 200)
        self.door.pass_time(1)
        self.assertNotEqual(self.end.ended, "")


class Socketlike(Server):
    """
    A TCP transport of Twisted whose kernel takes only so much.

    :ivar takes: what the kernel says to each attempt: bytes taken, or an error.
    """

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802 - Twisted's name
        """See `ITCPTransport`."""

    def __init__(self, *takes: int | OSError) -> None:
        # Only what the connection looks at.
        self.socket: Any = self
        self.dataBuffer = b""
        self._tempDataBuffer: list[bytes] = []
        self.takes = list(takes)
        self.sent = b""

    def send(self, data: bytes) -> int:
        """See `socket.socket`."""
        take = self.takes.pop(0)
        if isinstance(take, OSError):
            raise take
        take = min(take, len(data))
        self.sent += data[:take]
        return take

    @override
    def write(self, data: bytes) -> None:
        self._tempDataBuffer.append(data)

    @override
    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Nothing is produced."""

    @override
    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 40000)


class DirectTests(SynchronousTestCase):
    """Whole answers go straight to the kernel, if nothing is before them."""

    def answer(self, *takes: int | OSError, requests: int = 1) -> Socketlike:
        """Answer requests on such a transport."""
        door = Door(dispatch=ok)
        transport = Socketlike(*takes)
        protocol = door.factory.buildProtocol(transport.getPeer())
        assert protocol is not None
        protocol.makeConnection(transport)
        protocol.dataReceived(head() * requests)
        return transport

    def test_all(self) -> None:
        """When the kernel takes all, nothing is left for the reactor."""
        transport = self.answer(1000)
        self.assertEqual(answers(transport.sent)[0][0], 200)
        self.assertEqual(transport._tempDataBuffer, [])

    def test_part(self) -> None:
        """When it takes a part, the rest waits in the transport, and what follows behind it."""
        transport = self.answer(10, requests=2)
        self.assertEqual(len(transport.sent), 10)
        said = answers(transport.sent + b"".join(transport._tempDataBuffer))
        self.assertEqual([status for status, _, _ in said], [200, 200])

    def test_nothing(self) -> None:
        """When it takes nothing, or the connection is lost, the transport gets it all."""
        for take in (BlockingIOError(), ConnectionResetError()):
            transport = self.answer(take)
            self.assertEqual(transport.sent, b"")
            self.assertEqual(answers(b"".join(transport._tempDataBuffer))[0][0], 200)


class KeptFieldsTests(SynchronousTestCase):
    """Fields of answers that are given again and again."""

    def test_as_written(self) -> None:
        """They are written as any other; what a page of the web needs comes beside them."""
        plain = [(b"content-type", b"text/plain"), (b"Date", b"theirs"), (b"x-a", b"b")]
        kept = KeptFields(plain)

        def said(fields: list[tuple[bytes, bytes]], more: bool = False) -> list[Any]:
            def answer(inbound: Any) -> None:
                if more:
                    inbound.extra_fields = [(b"vary", b"Origin")]
                inbound.respond(200, fields, b"x")

            return answers(Door(dispatch=answer).send(head()).value())

        for more in (False, True, False):
            self.assertEqual(said(kept, more), said(plain, more))
            self.assertEqual(b"vary" in said(kept, more)[0][1], more)


class HalfCloseTests(SynchronousTestCase):
    """A client may close its sending side and still get its answer (R37)."""

    def test_answer(self) -> None:
        """A complete request is answered, then the connection closed."""
        door = Door()
        end = door.send(head())
        half_close(end)
        self.assertEqual(end.ended, "")
        ok(door.inbounds[0])
        said = answers(end.value())
        self.assertEqual((said[0][0], said[0][1][b"connection"]), (200, b"close"))
        self.assertEqual(end.ended, "closed")
        door.pass_time(1)
        self.assertEqual(door.clock.getDelayedCalls(), [])

    def test_pipelined(self) -> None:
        """What was pipelined before a half close is not lost on the way."""
        door = Door()
        end = door.send(path(b"/1"))
        half_close(end)
        ok(door.inbounds[0])
        self.assertEqual(len(answers(end.value())), 1)

    def test_probe(self) -> None:
        """While the answer takes time, interim answers find out whether the client is there."""
        door = Door()
        end = door.send(head())
        half_close(end)
        self.assertEqual(end.value(), b"")
        door.pass_time(1, step=0.05)
        self.assertEqual(end.value(), b"HTTP/1.1 102 Processing\r\n\r\n" * 2)
        ok(door.inbounds[0])
        self.assertTrue(end.value().endswith(b"{}"))

    def test_probe_finds_nobody(self) -> None:
        """A client that has gone altogether is noticed, and the dispatcher told."""
        door = Door()
        end = door.send(head())
        gone: list[int] = []
        door.inbounds[0].on_gone(lambda: gone.append(1))
        half_close(end)
        door.pass_time(0.05, step=0.05)
        end.abortConnection()
        self.assertEqual(gone, [1])
        self.assertEqual(len([c for c in door.clock.getDelayedCalls() if c.active()]), 1)

    def test_probe_stops(self) -> None:
        """No interim answer is put into an answer that has begun."""
        door = Door()
        end = door.send(head())
        half_close(end)
        door.inbounds[0].start(200, [], 5)
        door.pass_time(1, step=0.05)
        self.assertNotIn(b"102", end.value())

    def test_old_client(self) -> None:
        """An HTTP/1.0 client gets no interim answers."""
        door = Door()
        end = door.send(b"GET / HTTP/1.0\r\n\r\n")
        half_close(end)
        door.pass_time(1)
        self.assertEqual(end.value(), b"")
        ok(door.inbounds[0])
        self.assertEqual(answers(end.value())[0][0], 200)

    def test_idle(self) -> None:
        """An idle connection just ends."""
        door = Door(dispatch=ok)
        end = door.send(head())
        half_close(end)
        self.assertEqual(end.ended, "closed")

    def test_in_head(self) -> None:
        """A client that leaves in the middle of a head is gone."""
        door = Door()
        end = door.send(b"GET / HT")
        half_close(end)
        self.assertEqual(end.ended, "closed")
        self.assertEqual(door.entries, [])

    def test_in_body(self) -> None:
        """A client that leaves in the middle of a body is gone."""
        door = Door(dispatch=echo)
        end = door.send(POST + b"Content-Length: 5\r\n\r\nab")
        half_close(end)
        self.assertEqual(end.ended, "aborted")
        self.assertEqual([(e.status, e.complete) for e in door.entries], [(0, False)])

    def test_event_stream(self) -> None:
        """Nobody half-closes an event stream: its client has left."""
        door = Door()
        end = door.send(head())
        gone: list[int] = []
        door.inbounds[0].on_gone(lambda: gone.append(1))
        door.inbounds[0].start(200, [(b"Content-Type", b"text/event-stream")], None)
        half_close(end)
        self.assertEqual((end.ended, gone), ("aborted", [1]))

    def test_download(self) -> None:
        """Another answer that has begun goes on."""
        door = Door()
        end = door.send(head())
        inbound = door.inbounds[0]
        inbound.start(200, [], None)
        half_close(end)
        inbound.write(b"abc")
        inbound.finish()
        self.assertTrue(end.value().endswith(b"3\r\nabc\r\n0\r\n\r\n"))


class EdgeTests(SynchronousTestCase):
    """Meetings of two things."""

    def test_data_after_end(self) -> None:
        """Bytes and ends that come after the end do nothing."""
        door = Door(dispatch=ok)
        end = door.send(head())
        protocol = end.protocol
        assert protocol is not None
        end.abortConnection()
        protocol.dataReceived(head())
        protocol.cut()
        protocol.close()
        protocol.resumeProducing()
        self.assertEqual(len(door.inbounds), 1)

    def test_drain_twice(self) -> None:
        """Draining a closing connection changes nothing."""
        door = Door(dispatch=ok)
        end = door.send(head(b"Connection: close"))
        protocol = end.protocol
        assert protocol is not None
        protocol.drain()
        self.assertEqual(end.ended, "half")

    def test_drain_in_head(self) -> None:
        """A head that is on its way when draining begins is waited for."""
        door = Door(dispatch=ok)
        end = door.send(b"GET / HTTP/1.1\r\n")
        door.factory.drain()
        door.pass_time(5)
        door.send(H + b"\r\n", end)
        self.assertEqual(answers(end.value())[0][1][b"connection"], b"close")

    def test_early_answer(self) -> None:
        """An answer before the body is here ends the connection; the rest is not read."""
        door = Door(dispatch=ok)
        end = door.send(CHUNKED + b"5\r\nab")
        said = answers(end.value())
        self.assertEqual((said[0][0], said[0][1][b"connection"]), (200, b"close"))
        door.send(b"cde\r\n0\r\n\r\n" + head(), end)
        self.assertEqual(len(door.inbounds), 1)

    def test_answer_during_reading(self) -> None:
        """The same while the body is being collected."""
        door = Door(dispatch=lambda inbound: inbound.read_body(10, self.fail))
        end = door.send(POST + b"Content-Length: 5\r\n\r\nab")
        ok(door.inbounds[0])
        self.assertEqual(answers(end.value())[0][1][b"connection"], b"close")
        door.pass_time(10)
        self.assertEqual(len(door.entries), 1)

    def test_abort(self) -> None:
        """An aborted answer ends the connection at once."""
        door = Door()
        end = door.send(head())
        gone: list[int] = []
        inbound = door.inbounds[0]
        inbound.on_gone(lambda: gone.append(1))
        inbound.start(200, [], None)
        inbound.abort()
        self.assertEqual((end.ended, gone), ("aborted", [1]))
        self.assertEqual([(e.status, e.complete) for e in door.entries], [(200, False)])

    def test_refused_in_started_stream(self) -> None:
        """A failure after the answer began can only cut it off."""

        def dispatch(inbound: IInbound) -> None:
            inbound.start(200, [], None)
            raise ZeroDivisionError

        door = Door(dispatch=dispatch)
        end = door.send(head())
        self.assertEqual(end.ended, "aborted")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failure_after_answer(self) -> None:
        """A failure after the whole answer is logged, and the client never knows."""

        def dispatch(inbound: IInbound) -> None:
            ok(inbound)
            raise ZeroDivisionError

        door = Door(dispatch=dispatch)
        end = door.send(head())
        self.assertEqual([status for status, _, _ in answers(end.value())], [200])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_take_over_with_queue(self) -> None:
        """What was queued goes out before the other protocol speaks, also after a half close."""
        from twisted.internet.protocol import Protocol

        door = Door()
        end: ClientEnd = door.send(head(b"Connection: upgrade", b"Upgrade: x"))
        protocol = end.protocol
        assert protocol is not None
        protocol.pauseProducing()
        inbound = door.inbounds[0]
        assert isinstance(inbound, HTTP1Inbound)
        half_close(end)
        inbound.take_over(101, [], Protocol())
        self.assertTrue(end.value().startswith(b"HTTP/1.1 101"))
        self.assertEqual(end.ended, "closed")
