"""Tests of taking over a changed configuration."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.model import Config
from mcpgate.gate.catalog import Catalog
from mcpgate.gate.results import ResultCache
from mcpgate.mcp.jsonrpc import Request
from mcpgate.model import Group, Principal, ServerSpec, Transport
from mcpgate.service.reload import Reload
from mcpgate.telemetry.meters import Meters

SAME = ServerSpec(name="same", transport=Transport.HTTP, runtime="remote", url="http://a.test/")
OTHER = replace(SAME, name="other")
GONE = replace(SAME, name="gone")
ALL = replace(SAME, name="mcp", transport=Transport.GROUP, group=Group(servers=("same", "other")))
ANN = Principal("keys", "ann", "a" * 32)
LIST = Request(1, "tools/list", {})


class ReloadTests(SynchronousTestCase):
    """A gate of three servers and the group of them, whose lists are kept."""

    def setUp(self) -> None:
        """Make it."""
        self.ended: list[set[str]] = []
        self.old = Config(servers=(SAME, OTHER, GONE), groups=(ALL,))
        self.results = ResultCache(Clock(), Meters())
        for spec in (*self.old.servers, *self.old.groups):
            self.results.keep(
                spec.name,
                ANN,
                LIST,
                {"tools": [], "ttlMs": 60_000},
                size=10,
                mark=self.results.mark(spec.name),
                sharable=False,
            )
        self.gateway: Any = SimpleNamespace(
            config=self.old,
            clock=Clock(),
            meters=Meters(),
            catalog=Catalog(self.old.servers, self.old.groups),
            back=SimpleNamespace(containers=None),
            pool=SimpleNamespace(
                keep_warm=lambda specs: None, retire=lambda names, wait_s, is_back: succeed(None)
            ),
            sessions=SimpleNamespace(end_those_of=self.end_those_of),
            on_legacy=SimpleNamespace(sessions=SimpleNamespace(end_those_of=self.end_those_of)),
            modern=SimpleNamespace(results=self.results),
            hide=lambda secret: None,
        )

    def end_those_of(self, servers: set[str], reason: str) -> Deferred[None]:
        """See `SessionTable.end_those_of`."""
        self.ended.append(set(servers))
        return succeed(None)

    def reload(self, new: Config) -> set[str]:
        """Take a configuration over; give of whom results are kept afterwards."""
        self.successResultOf(Reload(self.gateway, lambda path: succeed(new)).apply())
        return {name for name in ("same", "other", "gone", "mcp") if self.kept(name)}

    def kept(self, name: str) -> bool:
        """Tell whether a client would still be shown what was kept."""
        return self.results.find(name, ANN, LIST) is not None

    def test_results_of_what_changed(self) -> None:
        """Nobody is shown what a server, or a group, said before its entry was another."""
        changed = replace(OTHER, url="http://b.test/")
        new = replace(self.old, servers=(SAME, changed))
        self.assertEqual(self.reload(new), {"same"})
        self.assertEqual(self.ended, [{"gone"}, {"gone"}])

    def test_results_without_a_change(self) -> None:
        """A reload that changes nothing lets results be kept on."""
        self.assertEqual(self.reload(self.old), {"same", "other", "gone", "mcp"})
