"""Tests of mcpgate.web.mcp.on_legacy.request_state."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.mcp.jsonrpc import Request
from mcpgate.model import Principal
from mcpgate.web.mcp.on_legacy.request_state import InvalidState, Seal, original

WHO = Principal("file", "ann", "a" * 32)
ASKED = Request(1, "tools/call", {"name": "t", "arguments": {"b": 1, "a": 2}, "_meta": {"x": 1}})


class SealTests(SynchronousTestCase):
    """States are opaque, and hold for one call of one caller."""

    @override
    def setUp(self) -> None:
        self.now = 100.0
        self.seal = self.make(b"s" * 32)
        self.state = self.seal.close("handle", WHO, "notes", ASKED, 60)

    def make(self, secret: bytes) -> Seal:
        """Make a seal."""
        return Seal(secret, wall=lambda: self.now, random_bytes=lambda size: b"n" * size)

    def refuses(
        self,
        state: object = None,
        who: Principal = WHO,
        server: str = "notes",
        request: Request = ASKED,
        seal: Seal | None = None,
    ) -> None:
        """Expect a state not to hold."""
        with self.assertRaises(InvalidState):
            (seal or self.seal).open(self.state if state is None else state, who, server, request)

    def test_round_trip(self) -> None:
        """The retry of the same call is let in, whatever ids and answers it has."""
        params: dict[str, object] = {
            "arguments": {"a": 2, "b": 1},
            "name": "t",
            "inputResponses": {},
            "requestState": self.state,
        }
        again = Request("2", "tools/call", params)
        self.assertEqual(self.seal.open(self.state, WHO, "notes", again), "handle")
        self.assertEqual(original(again), {"name": "t", "arguments": {"a": 2, "b": 1}})
        self.assertIs(original(ASKED), ASKED.params)
        self.assertIsNone(original(Request(1, "m")))
        self.assertNotIn("handle", self.state)

    def test_bound(self) -> None:
        """Another key, server, method, call, time or gate: always the same words."""
        self.refuses(who=Principal("file", "ann", "b" * 32))
        self.refuses(who=Principal("file", "bob", "a" * 32))
        self.refuses(server="other")
        self.refuses(request=Request(1, "prompts/get", ASKED.params))
        self.refuses(request=Request(1, "tools/call", {"name": "t", "arguments": {}}))
        self.refuses(request=Request(1, "tools/call"))
        self.refuses(seal=self.make(b"t" * 32))
        self.now = 160.0
        self.refuses()

    def test_tampered(self) -> None:
        """Nothing but the text as it was made is let in."""
        self.refuses(self.state[:-2] + ("AA" if self.state[-2:] != "AA" else "BB"))
        bad: list[object] = [3, [], "", "A", "é", "!!!!", "A" * 2000, self.state[:20]]
        for state in bad:
            self.refuses(state)
