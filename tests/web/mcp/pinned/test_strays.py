"""Tests of mcpgate.web.mcp.pinned.strays: lists of tools where they do not belong."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.framing import sse_event
from mcpgate.model import Pinning, ServerSpec, Transport
from mcpgate.web.mcp.pinned.strays import harmless, is_stray, looks, without_strays
from tests.web.endpoint_kit import World, notification, request
from tests.web.modern_kit import ModernWorld


def answer(id: object, **result: object) -> bytes:
    """Make an answer."""
    return json.dumps({"jsonrpc": "2.0", "id": id, "result": result}).encode()


STRAY = answer(7, tools=[])
HIDDEN = STRAY.replace(b"tools", b"\\u0074ools")


class StrayTests(SynchronousTestCase):
    """Bytes."""

    def test_looks(self) -> None:
        """Only where tools are blocked, and not at the answer to a list."""
        spec = ServerSpec(name="notes", transport=Transport.HTTP, tools_pinned=Pinning.BLOCK)
        self.assertTrue(looks(spec, "tools/call"))
        self.assertFalse(looks(spec, "tools/list"))
        self.assertFalse(looks(ServerSpec(name="notes", transport=Transport.HTTP), "tools/call"))

    def test_json(self) -> None:
        """An answer to something else with tools is one, in whatever spelling."""
        for data in (STRAY, HIDDEN, b"[" + STRAY + b"]"):
            self.assertTrue(is_stray(data, 1))
            self.assertTrue(is_stray(data, "7"))
            self.assertFalse(is_stray(data, 7))
        for data in (
            answer(1, content=[]),
            answer(7, text='"tools"'),
            answer(7, tools={}),
            json.dumps(notification("x", tools=[])).encode(),
        ):
            self.assertFalse(is_stray(data, 1), data)
        self.assertTrue(is_stray(b'{"tools"', 1))
        self.assertTrue(harmless(b'{"a": "tools of"}'))

    def test_events(self) -> None:
        """Others go on as they came."""
        good = b": x\n\n" + sse_event(answer(1, content=["ä\\u"]), id="5", retry_ms=9)
        self.assertIs(without_strays(good, 1), good)
        both = good + sse_event(STRAY, id="6")
        kept = without_strays(both, 1)
        self.assertIn(b'"content"', kept)
        self.assertIn(b"id: 5", kept)
        self.assertNotIn(b"tools", kept)
        self.assertEqual(without_strays(sse_event(HIDDEN), 1), b"")


class LegacyTests(SynchronousTestCase):
    """A server on HTTP whose tools are blocked."""

    def setUp(self) -> None:
        """Open a session."""
        self.world = World(Transport.HTTP, tools_pinned=Pinning.BLOCK)
        self.session = self.world.open()

    def test_in_the_stream_of_a_call(self) -> None:
        """The list is dropped, the answer comes."""
        told = self.world.post(request("tools/call", 1, name="x"), self.session)
        sent = self.world.server.take()
        sent.head()
        sent.event(json.loads(STRAY))
        sent.event(json.loads(answer(1, content=[])))
        sent.done()
        self.assertEqual([one["id"] for one in told.events], [1])
        self.assertEqual(self.world.leaks(), {})

    def test_instead_of_an_answer(self) -> None:
        """A body that is one is refused, however large."""
        for body in (STRAY, answer(7, tools=["x" * 300_000])):
            told = self.world.post(request("tools/call", 1, name="x"), self.session)
            sent = self.world.server.take()
            sent.head(200, b"application/json", length=len(body))
            sent.data(body)
            sent.done()
            self.assertEqual(told.json["error"]["code"], -31003)
        self.assertEqual(self.world.leaks(), {})

    def test_on_the_sessions_stream(self) -> None:
        """The list is dropped, other messages come."""
        stream = self.world.get(self.session)
        sent = self.world.server.take()
        sent.head()
        sent.event(json.loads(STRAY))
        sent.event(notification("notifications/x"))
        self.assertEqual([one["method"] for one in stream.events], ["notifications/x"])


class ModernTests(SynchronousTestCase):
    """The same in the modern era."""

    def setUp(self) -> None:
        """Make a gate."""
        self.world = ModernWorld(tools_pinned=Pinning.BLOCK)

    def test_in_the_stream_of_a_call(self) -> None:
        """The list is dropped, the answer comes."""
        told = self.world.call()
        sent = self.world.server.take()
        sent.head()
        sent.event(json.loads(HIDDEN))
        sent.event(json.loads(answer(1, content=[])))
        sent.done()
        self.assertEqual(told.told["id"], 1)
        self.assertNotIn(b"ools", told.body)
        self.assertEqual(self.world.leaks(), {})

    def test_instead_of_an_answer(self) -> None:
        """A body that is one is refused."""
        told = self.world.call()
        sent = self.world.server.take()
        sent.head(200, b"application/json", length=len(STRAY))
        sent.data(STRAY)
        sent.done()
        self.assertEqual(told.json["error"]["code"], -31003)
        self.assertEqual(self.world.leaks(), {})
