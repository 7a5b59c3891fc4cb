"""What conversations with HTTP servers share."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.model import Transport
from tests.web.endpoint_kit import World, notification, request
from tests.web.fake_exchange import Sent
from tests.web.fake_inbound import FakeInbound

PROGRESS = notification("notifications/progress", progressToken=1, progress=1)


def reply(sent: Sent, **result: object) -> dict[str, Any]:
    """Make the answer to a request."""
    return {"jsonrpc": "2.0", "id": sent.message["id"], "result": result}


class HTTPCase(SynchronousTestCase):
    """A session of an HTTP server, ready for calls."""

    @override
    def setUp(self) -> None:
        self.world = World(Transport.HTTP)
        self.session = self.world.open()

    def call(self, method: str = "tools/call", id: int | str = 1, **options: Any) -> FakeInbound:
        """Call, as the client."""
        return self.world.post(request(method, id), self.session, **options)

    def take(self) -> Sent:
        """Give what the server has to answer."""
        return self.world.server.take()

    def assert_error(self, answer: FakeInbound, code: int) -> None:
        """Check that the last thing said is this error, and that nothing leaks."""
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.told["error"]["code"], code)
        self.assertTrue(answer.finished)
        self.assertEqual(self.world.leaks(), {})
