"""Tests of mcpgate.web.mcp.on_modern.asking."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendDied
from mcpgate.mcp.jsonrpc import ErrorResponse, Request, Response
from mcpgate.model import ServerSpec, Transport
from mcpgate.web.mcp.on_modern.asking import ask_once
from tests.web.bridge_kit import FakeAsker
from tests.web.endpoint_kit import caller_of

SPEC = ServerSpec(name="notes", transport=Transport.HTTP)


class AskOnceTests(SynchronousTestCase):
    """One answer, and nothing beside it."""

    def setUp(self) -> None:
        """Ask."""
        self.asker = FakeAsker()
        self.answer = ask_once(self.asker, SPEC, caller_of("k1"), Request(1, "tools/list"))
        self.asked = self.asker.take()

    def test_answered(self) -> None:
        """The answer is what counts; what is told beside it is not heard."""
        self.asked.tell("notifications/message", level="info")
        self.asked.result(tools=[])
        self.assertEqual(
            self.successResultOf(self.answer),
            Response(1, {"resultType": "complete", "tools": []}),
        )
        self.asked.error(1)
        self.asked.fail(BackendDied())

    def test_error(self) -> None:
        """An error is an answer."""
        self.asked.error(-32601, "what?")
        self.assertEqual(self.successResultOf(self.answer), ErrorResponse(1, -32601, "what?"))

    def test_failed(self) -> None:
        """That there is none is a failure."""
        self.asked.fail(BackendDied())
        self.failureResultOf(self.answer, BackendDied)

    def test_cancelled(self) -> None:
        """Whoever does not want it any more takes the request back."""
        self.answer.cancel()
        self.failureResultOf(self.answer, CancelledError)
        self.assertTrue(self.asked.taken_back)
        self.asked.result(tools=[])
