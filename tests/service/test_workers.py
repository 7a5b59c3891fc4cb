"""Tests of mcpgate.service.workers: processes that end, hang and come back."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.service.workers import Handed, Workers, WorkersError
from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.listening.listeners import Kind
from mcpgate.web.wire.bounds import Bounds
from mcpgate.web.workers.assignment import Assignment, GrantRules, read_assignment
from mcpgate.web.workers.entries import write_entry
from mcpgate.web.workers.link import LinkFactory
from mcpgate.web.workers.tables import Tables
from mcpgate.web.workers.uses import Uses


class Child:
    """A process that does nothing by itself."""

    def __init__(self, protocol: Any, descriptors: dict[int, Any]) -> None:
        self.protocol = protocol
        self.descriptors = descriptors
        self.pid: int | None = 100 + protocol.number
        self.told: list[bytes] = []
        self.signals: list[str] = []
        protocol.makeConnection(self)

    def writeToChild(self, descriptor: int, data: bytes) -> None:  # noqa: N802  # Twisted's
        """Take what the owner says."""
        self.told.append(data)

    def signalProcess(self, name: str) -> None:  # noqa: N802  # Twisted's
        """Take a signal."""
        if self.pid is None:
            raise ProcessExitedAlready
        self.signals.append(name)

    def says(self, **message: Any) -> None:
        """Say something."""
        self.protocol.childDataReceived(1, json.dumps(message).encode() + b"\n")

    def ends(self, reason: Exception | None = None) -> None:
        """End."""
        self.pid = None
        self.protocol.processEnded(Failure(reason or ProcessTerminated(1)))


class Reactor(MemoryReactorClock):
    """A reactor that starts `Child` processes."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[Child] = []

    def spawnProcess(self, protocol: Any, *command: Any, **how: Any) -> Child:  # Twisted's
        """Start one."""
        self.children.append(Child(protocol, how["childFDs"]))
        return self.children[-1]


def counts(connections: int, **events: int) -> dict[str, Any]:
    """Give a report."""
    return {
        "connections": connections,
        "connections_total": connections,
        "longest_turn_s": 0.02,
        "streams": 1,
        "calls_in_work": 2,
        "events": events,
    }


class WorkersTests(SynchronousTestCase):
    """Two workers."""

    def setUp(self) -> None:
        """Make them, not started yet."""
        self.reactor: Any = Reactor()
        self.meters = Meters()
        # The path of a socket must be short.
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.accepting: list[bool] = []
        self.entries: list[AccessEntry] = []
        link = LinkFactory(
            clock=self.reactor,
            wheel=DeadlineWheel(self.reactor),
            bounds=Bounds(),
            make_request_id=str,
            record=self.entries.append,
            meters=self.meters,
        )
        self.workers = Workers(
            self.reactor,
            2,
            state_dir=self.folder,
            link=link,
            assignment=lambda: Assignment(
                name="",
                link="",
                places=0,
                buckets=0,
                uses=0,
                part=0,
                sockets=(),
                bounds=Bounds(),
                rules=GrantRules(digest_key=""),
            ),
            tables=Tables.make(2),
            meters=self.meters,
            record=self.entries.append,
            share=self.accepting.append,
        )
        self.starting = self.workers.start(
            [Handed(descriptor=17, kind=Kind.PLAIN, proxied=False, channel=0)]
        )

    def up(self) -> list[Child]:
        """Have both come up."""
        children: list[Child] = self.reactor.children[:]
        for child in children:
            child.says(ready=True)
        self.successResultOf(self.starting)
        return children

    def test_start(self) -> None:
        """Each gets its orders and the sockets; this process accepts until the first is up."""
        one, two = self.reactor.children
        self.workers.grants = lambda: [{"grant": 1}]
        orders = read_assignment(one.told[0])
        self.assertEqual((orders.name, orders.part), ("worker 1", 1))
        self.assertEqual(one.descriptors[orders.sockets[0].descriptor], 17)
        self.assertEqual(self.accepting, [])
        one.says(ready=True)
        self.assertEqual(self.accepting, [False])
        self.assertEqual(json.loads(one.told[1]), {"grant": 1})
        self.assertNoResult(self.starting)
        two.says(ready=True)
        self.successResultOf(self.starting)
        self.assertEqual([view.pid for view in self.workers.views()], [101, 102])

    def test_never_up(self) -> None:
        """A worker that does not come up fails the start, with what it said."""
        one, two = self.reactor.children
        one.protocol.childDataReceived(2, b"ImportError: no such thing\n")
        self.reactor.advance(30)
        for child in (one, two):
            self.assertEqual(set(child.signals), {"KILL"})
            child.ends()
        failure = self.failureResultOf(self.starting, WorkersError)
        self.assertIn("ImportError: no such thing", failure.getErrorMessage())

    def test_dead_at_once(self) -> None:
        """Workers that end as soon as they begin fail the start without a long wait."""
        self.reactor.children[0].protocol.childDataReceived(2, b"PermissionError: key.pem\n")
        for child in self.reactor.children[:2]:
            child.ends()
        self.assertNoResult(self.starting)
        self.reactor.advance(1)
        for child in self.reactor.children[2:]:
            child.ends()
        failure = self.failureResultOf(self.starting, WorkersError)
        self.assertIn("PermissionError: key.pem", failure.getErrorMessage())
        self.reactor.advance(60)
        self.assertEqual(len(self.reactor.children), 4)

    def test_owner_stood_still(self) -> None:
        """After a long turn of this process nobody is taken for silent."""
        one, two = self.up()
        self.reactor.advance(5)
        self.reactor.advance(40)
        self.assertEqual(one.signals + two.signals, [])

    def test_long_path(self) -> None:
        """A state directory with too long a path is refused."""
        self.workers._path = self.folder / ("x" * 120)
        self.failureResultOf(self.workers.start([]), OSError)

    def test_counts(self) -> None:
        """Reports are added up, and a dead worker's connections are gone."""
        one, two = self.up()
        one.says(**counts(3, http_reject=1))
        two.says(**counts(4))
        one.says(**counts(2, http_reject=3))
        self.assertEqual(self.meters.connections, 6)
        self.assertEqual((self.meters.streams, self.meters.calls_in_work), (2, 4))
        self.assertEqual(self.meters.events["http_reject"], 3)
        # Of the owner's own turns this says nothing.
        self.assertEqual(self.meters.longest_turn_s, 0.0)
        self.assertEqual(self.workers.views()[0].longest_turn_s, 0.02)
        Uses(one.descriptors[5], 2).begin(3, 0, 1.0)
        self.assertEqual(self.workers.uses.in_work(3), 1)
        two.ends()
        self.assertEqual(self.meters.connections, 2)
        self.assertEqual((self.meters.streams, self.meters.calls_in_work), (1, 2))
        self.assertEqual(self.workers.uses.in_work(3), 0)
        self.assertEqual(self.meters.events["worker_replaced"], 1)

    def test_entry_and_log(self) -> None:
        """Requests only a worker saw are recorded here; its log lines are written here."""
        one, _ = self.up()
        entry = AccessEntry(
            peer="192.0.2.1",
            method="-",
            path="-",
            status=400,
            bytes_in=0,
            bytes_out=9,
            duration_s=0.1,
            request_id="x",
            protocol="HTTP/1.1",
            complete=True,
            notes={"reason": "bad_request"},
            at=7.5,
        )
        one.says(entries=[write_entry(entry, 7.5)] * 2)
        self.assertEqual(self.entries, [entry] * 2)
        self.assertEqual((self.meters.bytes_in, self.meters.bytes_out), (0, 18))
        one.says(log="warn", text="hello")

    def test_nonsense(self) -> None:
        """What is not understood is logged; too long a line ends the worker."""
        one, _ = self.up()
        one.protocol.childDataReceived(1, b"what?\n")
        one.says(connections=1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        one.protocol.childDataReceived(1, b"x" * 300_000)
        self.assertEqual(one.signals, ["KILL"])

    def test_replaced(self) -> None:
        """One that dies young is replaced after 1, 2, 4 .. seconds; one that was old, at once."""
        self.up()
        for pause_s in (1, 2, 4):
            before = len(self.reactor.children)
            self.workers._processes[1].transport.ends()
            self.reactor.advance(pause_s - 0.01)
            self.assertEqual(len(self.reactor.children), before)
            self.reactor.advance(0.02)
            self.assertEqual(len(self.reactor.children), before + 1)
        child = self.reactor.children[-1]
        child.says(ready=True)
        self.reactor.advance(11)
        child.ends(ProcessDone(0))
        self.reactor.advance(0)
        self.assertEqual(len(self.reactor.children), 6)

    def test_none_left(self) -> None:
        """This process accepts while no worker does."""
        for child in self.up():
            child.ends()
        self.assertEqual(self.accepting, [False, True])
        self.reactor.advance(1)
        self.reactor.children[-1].says(ready=True)
        self.assertEqual(self.accepting, [False, True, False])

    def test_held(self) -> None:
        """When the gate is short of memory, workers leave new clients waiting; new ones too."""
        one, two = self.up()
        self.workers.accept([0], False)
        orders = {"accept": False, "channels": [0]}
        self.assertEqual([json.loads(child.told[-1]) for child in (one, two)], [orders] * 2)
        one.ends()
        self.reactor.advance(1)
        new = self.reactor.children[-1]
        new.says(ready=True)
        self.assertEqual(json.loads(new.told[-1]), orders)
        self.workers.accept([0], True)
        self.assertEqual(json.loads(new.told[-1]), {"accept": True, "channels": [0]})

    def test_silent(self) -> None:
        """One that says nothing any more is ended; one that does is left alone."""
        one, two = self.up()
        for _ in range(8):
            self.reactor.advance(5)
            two.says(**counts(0))
        self.assertIn("KILL", one.signals)
        self.assertEqual(two.signals, [])

    def test_drain(self) -> None:
        """Asked to end, workers end by themselves; none is started in their place."""
        one, two = self.up()
        draining = self.workers.drain()
        self.assertEqual(json.loads(one.told[-1]), {"drain": True})
        one.ends(ProcessDone(0))
        self.assertNoResult(draining)
        two.ends(ProcessDone(0))
        self.successResultOf(draining)
        self.successResultOf(self.workers.end())
        self.reactor.advance(60)
        self.assertEqual(len(self.reactor.children), 2)

    def test_end(self) -> None:
        """What does not end in time is killed, and not waited for without end."""
        one, two = self.up()
        one.ends()
        self.workers.close()
        ending = self.workers.end()
        self.assertEqual(two.signals, ["KILL"])
        self.assertNoResult(ending)
        self.reactor.advance(5)
        self.successResultOf(ending)
