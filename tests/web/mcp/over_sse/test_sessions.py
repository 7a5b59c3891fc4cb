"""Sessions of HTTP+SSE servers."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BadRequest
from mcpgate.model import Transport
from tests.web.endpoint_kit import INIT, World, notification, request
from tests.web.fake_inbound import FakeInbound
from tests.web.sse_client import SSEClient


class SSESessionTests(SynchronousTestCase):
    """Streamable and SSE clients of a server that only speaks HTTP+SSE."""

    def setUp(self) -> None:
        """Make a gate in front of one."""
        self.world = World(Transport.SSE, headers=(("X-Key", "{key}"),))

    @property
    def server(self) -> Any:
        """The server."""
        return self.world.pool.newest.old

    def say(self, **message: object) -> None:
        """Have the server say something."""
        text = json.dumps({"jsonrpc": "2.0", **message})
        self.server.streams[-1].data(f"event: message\r\ndata: {text}\r\n\r\n".encode())
        self.world.settle()

    def take(self) -> dict[str, Any]:
        """Take a message."""
        return dict(json.loads(self.server.take()))

    def shake(self) -> None:
        """Answer the handshake."""
        self.server.begin()
        asked = self.take()
        assert asked["method"] == "initialize", asked
        self.say(id=asked["id"], result={"protocolVersion": "2024-11-05", "capabilities": {}})
        assert self.take()["method"] == "notifications/initialized"

    def open(self) -> str:
        """Open a session."""
        answer = self.world.post(INIT)
        self.shake()
        self.assertEqual(answer.json["result"]["protocolVersion"], "2024-11-05")
        session = answer.fields[b"mcp-session-id"].decode()
        self.world.post(notification("notifications/initialized"), session)
        return session

    def call(self, session: str, id: int) -> FakeInbound:
        """Call a tool."""
        return self.world.post(request("tools/call", id, name="x"), session)

    def test_a_call(self) -> None:
        """Goes over the stream's session, with the caller's key."""
        session = self.open()
        answer = self.call(session, 5)
        asked = self.take()
        self.say(id=asked["id"], result={"ok": True})
        self.assertEqual(answer.json, {"jsonrpc": "2.0", "id": 5, "result": {"ok": True}})
        self.assertEqual(self.server.streams[0].fields[b"x-key"], b"k1")
        self.assertEqual(self.world.leaks(), {})

    def test_a_client_of_the_same_transport(self) -> None:
        """Both sides over HTTP+SSE: the gate's endpoint is its own."""
        client = SSEClient(self.world)
        client.post(INIT)
        self.shake()
        self.assertTrue(client.endpoint.startswith("/notes/messages?session_id=stream-"))
        client.call("x", 1)
        self.say(id=self.take()["id"], result={"ok": True})
        self.assertEqual(client.heard[-1], {"jsonrpc": "2.0", "id": 1, "result": {"ok": True}})
        client.leave()
        self.assertEqual(self.world.leaks(), {})

    def test_a_stream_that_breaks(self) -> None:
        """The call in work fails; the next one opens another, the handshake replayed."""
        session = self.open()
        answer = self.call(session, 1)
        self.take()
        self.server.streams[-1].done()
        self.world.settle()
        self.assertEqual(answer.json["error"]["code"], -31003)
        answer = self.call(session, 2)
        self.shake()
        self.say(id=self.take()["id"], result={"again": True})
        self.assertEqual(answer.json["result"], {"again": True})
        self.assertEqual(self.world.leaks(), {})

    def test_a_list_is_asked_for_again(self) -> None:
        """What can do no harm twice is sent again by itself."""
        session = self.open()
        answer = self.world.post(request("tools/list", 1), session)
        self.take()
        self.server.streams[-1].done()
        self.world.settle()
        self.shake()
        self.say(id=self.take()["id"], result={"tools": []})
        self.assertEqual(answer.json["result"], {"tools": []})

    def test_a_server_that_can_not_be_asked(self) -> None:
        """The client hears why, and nothing is held."""
        session = self.open()
        self.server.streams[-1].done()
        self.server.error = BadRequest()
        answer = self.call(session, 1)
        self.assertEqual(answer.json["error"]["code"], -32600)
        self.assertEqual(self.world.leaks(), {})

    def test_a_stream_of_a_client_hears_the_server(self) -> None:
        """What is said unasked reaches the GET stream; a passive session keeps nothing awake."""
        session = self.open()
        stream = self.world.get(session)
        self.say(method="notifications/tools/list_changed")
        self.assertEqual(stream.events[-1]["method"], "notifications/tools/list_changed")
        self.assertEqual(self.world.pool.held, 0)
