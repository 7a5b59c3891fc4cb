"""Ids of requests to HTTP servers."""

from __future__ import annotations

from itertools import count

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.jsonrpc import Request, decode
from mcpgate.web.mcp.over_http.upstream_ids import UpstreamId

BODY = b'{ "jsonrpc":"2.0", "id":1, "method":"x", "extra":[1] }'
REQUEST = Request(1, "x", None)


class UpstreamIdTests(SynchronousTestCase):
    """Which id the server sees."""

    def setUp(self) -> None:
        """Make a session without anything in work."""
        self.in_work: set[int | str] = set()
        self.mint = count(1000).__next__

    def make(self, *, pooled: bool = False) -> UpstreamId:
        """Begin a request."""
        return UpstreamId(REQUEST, BODY, self.in_work, self.mint, pooled=pooled)

    def test_the_clients_own(self) -> None:
        """Goes up as it is, and so do the bytes."""
        made = self.make()
        self.assertEqual((made.upstream, made.minted, made.body), (1, False, BODY))
        self.assertEqual(self.in_work, {1})

    def test_in_work_already(self) -> None:
        """A second one of the same id gets one of the gate's; the first keeps its own."""
        first, second = self.make(), self.make()
        self.assertEqual((second.upstream, second.minted), (1000, True))
        self.assertEqual(decode(second.body), Request(1000, "x", None))
        self.assertEqual(self.in_work, {1, 1000})
        second.done()
        self.assertEqual(self.in_work, {1})
        first.done()
        self.assertFalse(self.make().minted)

    def test_a_pooled_session(self) -> None:
        """Every request gets one of the gate's."""
        self.assertEqual([self.make(pooled=True).upstream for _ in range(2)], [1000, 1001])
