"""The forms an answer takes, and the streams that stay."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import BackendDied, CallCancelled, GateError, RateLimited
from mcpgate.interfaces import IMessageSink
from mcpgate.mcp.jsonrpc import Message, Notification, Response
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.mcp.answer import Answer, CallSink
from mcpgate.web.mcp.standing import StandingStream
from tests.web.fake_inbound import FakeInbound


class AnswerTests(SynchronousTestCase):
    """One POST's answer."""

    def make(
        self, inbound: FakeInbound | None = None, **options: Any
    ) -> tuple[FakeInbound, Answer]:
        """Make an answer to one request."""
        self.clock = Clock()
        inbound = inbound or FakeInbound()
        given = {"accepts": (True, True), "ids": [1], "keepalive_s": 15.0, **options}
        return inbound, Answer(inbound, wheel=DeadlineWheel(self.clock, 0.5), **given)

    def test_every_id_is_answered_once(self) -> None:
        """A second answer to a request, or one to none, is dropped."""
        inbound, answer = self.make(ids=[1, 2])
        for id in (1, 1, 3):
            answer.complete(Response(id, {}))
        answer.fail(BackendDied(), 1)
        answer.answered(9)
        self.assertFalse(inbound.started)
        self.assertEqual(answer.waiting, (2,))

    def test_a_refusal_in_a_stream_carries_retry_after(self) -> None:
        """Also for clients that take only event streams."""
        inbound, answer = self.make(accepts=(False, True))
        answer.fail(RateLimited(retry_after_s=2.2), 1)
        self.assertEqual(inbound.fields[b"retry-after"], b"3")
        self.assertTrue(inbound.is_stream)
        self.assertEqual(inbound.notes["reason"], "rate_limited")

    def test_initialize_is_refused_in_the_form_the_client_takes(self) -> None:
        """With a status where there can be one; the session's id is not told."""
        session = [(b"mcp-session-id", b"x")]
        inbound, answer = self.make(accepts=(False, True), fields=session)
        answer.refuse(BackendDied(), 1)
        self.assertEqual((inbound.status, inbound.is_stream), (200, True))
        self.assertNotIn(b"mcp-session-id", inbound.fields)
        inbound, answer = self.make(fields=session)
        answer.refuse(BackendDied(), 1)
        answer.refuse(BackendDied(), 1)
        self.assertEqual(inbound.status, 502)
        self.assertNotIn(b"mcp-session-id", inbound.fields)

    def test_nothing_is_said_to_who_has_gone(self) -> None:
        """No method fails, none writes, and no clock runs on."""
        inbound = FakeInbound()
        inbound.go()
        _, answer = self.make(inbound)
        self.assertTrue(answer.over)
        self.assertFalse(answer.stream(Notification("n/x")))
        self.assertTrue(answer.begin_body(10))
        answer.body(b"x" * 10)
        answer.events(b"data: x\n\n")
        answer.whole(b"{}")
        answer.open_stream()
        answer.complete(Response(1, {}))
        answer.fail_rest(BackendDied())
        answer.refuse(BackendDied(), 1)
        answer.end()
        self.assertEqual((inbound.status, inbound.body), (0, b""))
        self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_request_answered_elsewhere_needs_no_comments(self) -> None:
        """When the front door answered in our place nothing is added."""
        inbound, answer = self.make()
        inbound.respond(408, [], b"")
        for _ in range(40):
            self.clock.advance(0.5)
        self.assertTrue(answer.over)
        self.assertEqual(inbound.body, b"")

    def test_a_json_only_client_waits_in_silence(self) -> None:
        """It gets no comment, and JSON in the end."""
        inbound, answer = self.make(accepts=(True, False))
        for _ in range(80):
            self.clock.advance(0.5)
        self.assertFalse(inbound.started)
        answer.whole(b"{}")
        self.assertEqual(inbound.json, {})

    def test_a_large_body_needs_a_client_that_takes_json(self) -> None:
        """Else it has to be made an event, whole."""
        _, answer = self.make(accepts=(False, True))
        self.assertFalse(answer.begin_body(10))
        _, answer = self.make()
        answer.open_stream()
        self.assertFalse(answer.begin_body(10))

    def test_a_cancelled_call_of_several(self) -> None:
        """The stream goes on for the others."""
        inbound, answer = self.make(ids=[1, 2], batch=True)
        answer.open_stream()
        answer.fail(CallCancelled(), 1)
        self.assertFalse(inbound.finished)
        answer.fail(CallCancelled(), 2)
        self.assertEqual((inbound.finished, inbound.body), (True, b""))

    def test_a_sink_says_elsewhere_what_it_can_not_say_here(self) -> None:
        """A server's request to a JSON-only client goes to its standing stream."""
        inbound, answer = self.make(accepts=(True, False))
        elsewhere: list[Message] = []
        ends: list[Message | GateError] = []

        def ended(outcome: Message | GateError) -> bool:
            ends.append(outcome)
            return isinstance(outcome, GateError)

        sink = CallSink(answer, 1, ended, elsewhere.append)
        verifyObject(IMessageSink, sink)
        sink.deliver(Notification("n/x"))
        self.assertEqual((elsewhere, sink.delivered), ([Notification("n/x")], True))
        sink.fail(BackendDied())
        self.assertFalse(inbound.started)
        sink.finish(Response(1, {}))
        self.assertEqual(inbound.json["id"], 1)
        self.assertEqual(len(ends), 2)


class StandingTests(SynchronousTestCase):
    """One GET's stream."""

    def make(self, inbound: FakeInbound) -> StandingStream:
        """Open a stream."""
        self.clock = Clock()
        self.ends: list[StandingStream] = []
        return StandingStream(
            inbound,
            wheel=DeadlineWheel(self.clock, 0.5),
            keepalive_s=15.0,
            ended=self.ends.append,
        )

    def test_it_ends_once(self) -> None:
        """Closing again, or the client's going afterwards, changes nothing."""
        inbound = FakeInbound("GET")
        stream = self.make(inbound)
        self.assertTrue(stream.send(b"data: x\n\n"))
        stream.close()
        stream.close()
        inbound.go()
        self.assertEqual(self.ends, [stream])
        self.assertFalse(stream.send(b"data: x\n\n"))
        self.assertEqual(inbound.body, b": open\n\ndata: x\n\n")

    def test_who_has_gone_already(self) -> None:
        """The stream is over before it begins."""
        inbound = FakeInbound("GET")
        inbound.go()
        self.assertTrue(self.make(inbound).over)
        self.assertEqual(len(self.ends), 1)

    def test_a_request_answered_elsewhere(self) -> None:
        """A stream that was cut by the front door is over with the next comment."""
        inbound = FakeInbound("GET")
        stream = self.make(inbound)
        inbound.finish()
        for _ in range(40):
            self.clock.advance(0.5)
        self.assertTrue(stream.over)
        self.assertEqual(len(self.ends), 1)
