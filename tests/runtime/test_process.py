"""The process runtime where a real process is no help: faults."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import BackendUnavailable
from mcpgate.interfaces import IRuntime
from mcpgate.model import InstanceKey, Isolation, Launch, Owner, Secret, ServerSpec, Transport
from mcpgate.runtime.places import Places, Record
from mcpgate.runtime.process import ProcessRuntime
from mcpgate.runtime.procfs import Process, ProcFS
from mcpgate.telemetry.meters import Meters
from tests.runtime.pipes import FakeTransport

SPEC = ServerSpec(name="toy", transport=Transport.STDIO, command=("toy",))
WEB = ServerSpec(name="web", transport=Transport.HTTP, command=("web", "{port}"))
SESSION = Owner(Isolation.PER_SESSION, "ab/cd")


class FakeReactor(Clock):
    """A clock that spawns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[Any] = []
        self.failure: Exception | None = None

    def spawnProcess(self, protocol: Any, *args: Any, **kwargs: Any) -> None:
        """Remember the protocol and connect it."""
        if self.failure is not None:
            raise self.failure
        self.spawned.append((protocol, args, kwargs))
        protocol.makeConnection(FakeTransport(pid=2**22 + len(self.spawned)))


class FakeTrees:
    """Remembers what is to be removed."""

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.stopped = False

    def remove(self, folder: str) -> Deferred[None]:
        """See `TreeRemover.remove`."""
        self.removed.append(os.path.basename(folder))
        return succeed(None)

    def idle(self) -> Deferred[None]:
        """See `TreeRemover.idle`."""
        return succeed(None)

    def stop(self) -> None:
        """See `TreeRemover.stop`."""
        self.stopped = True


class FakeProcesses(ProcFS):
    """A process table that is empty but for one founder."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, root="/nowhere")
        self.founder: Process | None = None
        self.asked: list[tuple[int, str, int]] = []
        self.found: list[int] = []

    def boot_id(self) -> str:
        """See `ProcFS.boot_id`."""
        return "this-boot"

    def process(self, pid: int) -> Process | None:
        """See `ProcFS.process`."""
        return self.founder

    def belonging(self, session: int, mark: str, since: int) -> list[int]:
        """See `ProcFS.belonging`."""
        self.asked.append((session, mark, since))
        return self.found


class ProcessRuntimeTests(SynchronousTestCase):
    """Starts that can not be, strays that are not ours."""

    def setUp(self) -> None:
        """Make the runtime."""
        self.reactor = FakeReactor()
        self.trees = FakeTrees()
        self.processes = FakeProcesses(self.reactor)
        self.state_dir = self.mktemp()
        self.ports = iter([4000, 4000, 4001, *[4000] * 100])
        self.meters = Meters()
        self.runtime = ProcessRuntime(
            self.reactor,
            state_dir=self.state_dir,
            meters=self.meters,
            choose_port=lambda: next(self.ports),
            processes=self.processes,
            trees=self.trees,  # type: ignore[arg-type]  # a fake
        )

    def start(self, spec: ServerSpec = SPEC, name: str = "i1") -> Deferred[Any]:
        """Start a copy."""
        key = InstanceKey(spec.name, SESSION)
        return self.runtime.start(
            spec, Launch(instance_id=name, key=key, values={"key": Secret("sesame-open")})
        )

    def launched(self) -> Any:
        """Let the newest launch succeed."""
        child = self.reactor.spawned[-1][0]
        child.childDataReceived(4, b".")
        child.childConnectionLost(4)
        return child

    def test_provides(self) -> None:
        """It is an `IRuntime`."""
        verifyObject(IRuntime, self.runtime)

    def test_spawned(self) -> None:
        """Nothing of the gate's environment, nor any secret, is given to the launcher."""
        self.start()
        _, args, kwargs = self.reactor.spawned[0]
        self.assertEqual(kwargs["env"], {})
        self.assertTrue(args[1][-1].endswith("launcher.py"))
        self.assertEqual(args[1][1:3], ["-I", "-S"])
        self.launched()

    def test_no_command(self) -> None:
        """An entry without a command is refused."""
        spec = ServerSpec(name="toy", transport=Transport.STDIO)
        self.failureResultOf(self.start(spec), BackendUnavailable)

    def test_disk_full(self) -> None:
        """A full disk is said to be one, and what was begun is removed."""
        self.reactor.failure = OSError(errno.ENOSPC, "No space left on device")
        error = self.failureResultOf(self.start(), BackendUnavailable).value
        self.assertEqual(error.data, {"cause": "disk_full"})
        self.assertIn("No space left", error.detail)
        self.assertEqual(self.trees.removed, ["i1"])

    def test_no_processes_left(self) -> None:
        """A machine that can not fork says so."""
        self.reactor.failure = OSError(errno.EAGAIN, "Resource temporarily unavailable")
        error = self.failureResultOf(self.start(), BackendUnavailable).value
        self.assertEqual((error.data, error.retry_after_s), ({"cause": "spawn_failed"}, 10.0))

    def test_record_not_written(self) -> None:
        """Without a record it runs all the same; it can be found by its mark."""
        places = self.runtime._places

        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        places.write_record = fail  # type: ignore[method-assign, assignment]  # a full disk
        started = self.start()
        self.launched()
        self.successResultOf(started)
        # A full disk is no bug: it is told in a line, not by a traceback.
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_ports_are_given_once(self) -> None:
        """A port one of our own has, or is about to have, is not given to another."""
        self.start(WEB, "i1")
        one = self.launched()
        self.start(WEB, "i2")
        two = self.launched()
        self.assertEqual((one.address[1], two.address[1]), (4000, 4001))
        self.failureResultOf(self.start(WEB, "i3"), BackendUnavailable)

    def test_end(self) -> None:
        """What was made for a start goes with its end; stopping what has ended is nothing."""
        self.start()
        child = self.launched()
        child.processExited(Failure(ProcessDone(0)))
        child.processEnded(Failure(ProcessDone(0)))
        self.assertEqual(self.trees.removed, ["i1"])
        how = self.successResultOf(self.runtime.stop(child, 1.0))
        self.assertEqual(how.reason, "exited")

    def test_session_data_goes_with_it(self) -> None:
        """Removing a session's instance removes its data."""
        self.successResultOf(self.runtime.remove(InstanceKey("toy", SESSION)))
        self.assertEqual(self.trees.removed, ["ab-cd"])

    def leave(self, boot_id: str = "this-boot") -> None:
        """Leave what an earlier gate leaves when it is killed."""
        places = Places(self.state_dir)
        places.make("old", InstanceKey("toy", SESSION))
        places.write_record("old", Record(session=77, started=500, boot_id=boot_id))

    def founder(self, started: int) -> None:
        """Have a process 77."""
        self.processes.founder = Process(
            pid=77, parent=1, state="S", session=77, started=started, cpu_ticks=0
        )

    def test_adopt_own_session(self) -> None:
        """The session of a child that lives on is ours, and so is all in it."""
        self.leave()
        self.founder(500)
        self.processes.found = [2**22 + 7]
        self.assertEqual(self.successResultOf(self.runtime.adopt()), [])
        self.assertEqual(self.processes.asked, [(77, "old", 500)])
        self.assertEqual(self.trees.removed, ["old"])
        self.assertEqual(self.meters.events["stray_killed"], 1)

    def test_adopt_reused_number(self) -> None:
        """A process that only has the number of ours is left alone: the mark counts."""
        self.leave()
        self.founder(900)
        self.successResultOf(self.runtime.adopt())
        self.assertEqual(self.processes.asked, [(-1, "old", 500)])

    def test_adopt_after_a_boot(self) -> None:
        """After a boot of the machine no process is ours; folders are."""
        self.leave("other-boot")
        self.successResultOf(self.runtime.adopt())
        self.assertEqual(self.processes.asked, [])
        self.assertEqual(self.trees.removed, ["old"])

    def test_adopt_homes_of_nobody(self) -> None:
        """The home of a spare copy of an earlier gate goes; that of a user stays."""
        places = Places(self.state_dir)
        spare = InstanceKey("toy", Owner.nobody(Isolation.PER_KEY, "7f"))
        places.make("old", spare)
        places.make("older", InstanceKey("toy", SESSION))
        self.successResultOf(self.runtime.adopt())
        self.assertEqual(sorted(self.trees.removed), ["old", "older", "warm-7f"])

    def test_adopt_spares_the_living(self) -> None:
        """What runs now is no stray."""
        self.start()
        self.launched()
        self.successResultOf(self.runtime.adopt())
        self.assertEqual(self.trees.removed, [])
        self.assertTrue(Path(self.state_dir, "run", "i1").exists())
