"""Results of groups that are kept: whom they are shown to."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.jsonrpc import Request
from mcpgate.model import Caller, Isolation, Principal
from mcpgate.web.mcp.modern.post import ModernPost
from mcpgate.web.mcp.modern.relay import ModernRelay
from tests.web.fake_inbound import FakeInbound
from tests.web.mcp.together.group_kit import ANN, CONTEXT, GroupWorld
from tests.web.modern_kit import ModernWorld

# Of the group, one server alone.
BEN = replace(ANN, principal=Principal("keys", "ben", "b" * 32), servers=frozenset({"git"}))


class KeptTests(SynchronousTestCase):
    """A group of servers that say ``public`` of their lists."""

    def setUp(self) -> None:
        """Make it as a configuration does."""
        self.groups = GroupWorld()
        self.spec = replace(self.groups.group, isolation=Isolation.SHARED)
        self.groups.lists("tools/list", "tools", notes=[{"name": "add"}], git=[{"name": "log"}])
        modern = ModernWorld().modern
        modern.asker.together = self.groups.aggregate
        self.relay = ModernRelay(modern.asker, modern.results, modern.listens)

    def tools(self, caller: Caller) -> list[str]:
        """List the tools of the group as a client does."""
        inbound = FakeInbound()
        post = ModernPost(
            inbound=inbound,
            caller=caller,
            spec=self.spec,
            body=b"",
            request=Request(1, "tools/list", {"_meta": CONTEXT.meta()}),
            context=CONTEXT,
            accepts=(True, True),
            release=lambda: None,
        )
        self.relay.call(post)
        return [tool["name"] for tool in inbound.json["result"]["tools"]]

    def test_of_another_key(self) -> None:
        """A key is never shown what was kept for one that may use other servers."""
        self.assertEqual(self.tools(ANN), ["notes__add", "git__log"])
        self.assertEqual(self.tools(BEN), ["git__log"])

    def test_of_the_same_key(self) -> None:
        """The same key is shown it again, and no server is asked."""
        self.tools(ANN)
        asked = len(self.groups.servers.posts)
        self.assertEqual(self.tools(ANN), ["notes__add", "git__log"])
        self.assertEqual(len(self.groups.servers.posts), asked)
