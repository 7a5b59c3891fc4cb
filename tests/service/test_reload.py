"""Tests of taking over a changed configuration."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.model import Config
from mcpgate.errors import BackendUnavailable, BadRequest, GateError, Overloaded
from mcpgate.gate.catalog import Catalog
from mcpgate.gate.results import ResultCache
from mcpgate.mcp.jsonrpc import Request
from mcpgate.model import Group, Lifetime, Principal, ServerSpec, Transport
from mcpgate.service.reload import TRIALS_S, Reload
from mcpgate.telemetry.meters import Meters

SAME = ServerSpec(name="same", transport=Transport.HTTP, runtime="remote", url="http://a.test/")
OTHER = replace(SAME, name="other")
GONE = replace(SAME, name="gone")
TOLD = replace(OTHER, url="http://a.test/v1")
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
            documents=self,
        )
        self.refusal = ""

    def prepare(self, servers: tuple[ServerSpec, ...]) -> Deferred[None]:
        """See `Documents.prepare`."""
        return fail(BadRequest(self.refusal)) if self.refusal else succeed(None)

    def take(self, servers: tuple[ServerSpec, ...]) -> tuple[ServerSpec, ...]:
        """See `Documents.take`: the other server gets its tools."""
        return tuple(TOLD if spec == OTHER else spec for spec in servers)

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

    def test_documents(self) -> None:
        """Servers are served as their documents have them; one that can not be had stops it all."""
        self.reload(self.old)
        self.assertEqual(self.gateway.catalog.find("other"), TOLD)
        self.refusal = "no document"
        reloading = Reload(
            self.gateway, lambda path: succeed(replace(self.old, servers=()))
        ).apply()
        self.failureResultOf(reloading, BadRequest)
        self.assertEqual(self.gateway.catalog.find("other"), TOLD)


class TrialTests(ReloadTests):
    """Servers that are new are tried out first."""

    def setUp(self) -> None:
        """Have trials end when the test says so."""
        super().setUp()
        self.trials: dict[str, Deferred[None]] = {}
        self.cancelled: list[str] = []
        self.tried: list[str] = []
        self.gateway.pool.try_out = self.try_out

    def try_out(self, spec: ServerSpec, look: object) -> Deferred[None]:
        """See `InstancePool.try_out`."""
        self.tried.append(spec.name)
        trial = self.trials[spec.name] = Deferred(lambda _: self.cancelled.append(spec.name))
        return trial

    def begin(self, count: int) -> Deferred[list[str]]:
        """Add so many servers."""
        added = [
            ServerSpec(name=f"new{n}", transport=Transport.STDIO, command=("x",))
            for n in range(count)
        ]
        new = replace(self.old, servers=(*self.old.servers, *added))
        self.reloading = Reload(self.gateway, lambda path: succeed(new))
        return self.reloading.apply()

    def end(self, name: str, error: GateError | None = None) -> None:
        """End a trial."""
        trial = self.trials.pop(name)
        if error is None:
            trial.callback(None)
        else:
            trial.errback(error)

    def test_some_at_once(self) -> None:
        """As many are tried at once as there are places for starts, but for one."""
        done = self.begin(5)
        self.assertEqual(self.tried, ["new0", "new1", "new2"])
        self.end("new1")
        self.assertEqual(self.tried[3:], ["new3"])
        for name in ("new0", "new2", "new3", "new4"):
            self.assertNoResult(done)
            self.end(name)
        self.successResultOf(done)
        self.assertEqual(len(self.gateway.catalog.servers), 8)

    def test_every_fault_is_told(self) -> None:
        """All that do not start are named, and nothing is changed."""
        done = self.begin(3)
        self.end("new0", BackendUnavailable("no", data={"stderr": ["last words"]}))
        self.end("new1")
        self.end("new2", BackendUnavailable("neither"))
        told = self.failureResultOf(done, BadRequest).value.detail
        self.assertEqual(
            told,
            "[server:new0] does not start: no\nlast words\n[server:new2] does not start: neither",
        )
        self.assertEqual(self.gateway.catalog.servers, self.old.servers)

    def test_deadline(self) -> None:
        """All together have a deadline; what is not over by then is given up and named."""
        done = self.begin(4)
        self.end("new1")
        self.gateway.clock.advance(TRIALS_S - 1)
        self.assertNoResult(done)
        self.gateway.clock.advance(1)
        told = self.failureResultOf(done, BadRequest).value.detail
        self.assertIn("new0, new2, new3. Nothing was changed", told)
        self.assertEqual(sorted(self.cancelled), ["new0", "new2", "new3"])
        self.assertEqual(self.gateway.clock.getDelayedCalls(), [])

    def test_slow_starter(self) -> None:
        """One that may take long to start has its time."""
        slow = ServerSpec(
            name="slow",
            transport=Transport.STDIO,
            command=("x",),
            lifetime=Lifetime(start_s=900.0, start_wait_s=60.0),
        )
        new = replace(self.old, servers=(*self.old.servers, slow))
        done = Reload(self.gateway, lambda path: succeed(new)).apply()
        self.gateway.clock.advance(930.0)
        self.end("slow")
        self.successResultOf(done)

    def test_no_room_for_all(self) -> None:
        """One for which there is no room beside the others is tried again after them."""
        done = self.begin(2)
        self.end("new0", Overloaded("full"))
        self.gateway.clock.advance(1)
        self.assertEqual(self.tried, ["new0", "new1", "new0"])
        self.end("new1")
        self.end("new0", Overloaded("full"))
        self.assertIn("new0] does not start: full", str(self.failureResultOf(done).value.detail))

    def test_no_room_for_any(self) -> None:
        """Where others are not what takes the room, nobody waits for it."""
        done = self.begin(2)
        self.end("new0", Overloaded("full"))
        self.end("new1", Overloaded("full"))
        self.gateway.clock.advance(1)
        self.end("new0", Overloaded("full"))
        self.failureResultOf(done, BadRequest)

    def test_a_bug(self) -> None:
        """What goes wrong in the gate itself is no fault of a server."""
        done = self.begin(2)
        self.trials["new0"].errback(ZeroDivisionError())
        self.failureResultOf(done, ZeroDivisionError)
        self.assertEqual(self.cancelled, ["new1"])
        self.flushLoggedErrors(ZeroDivisionError)
