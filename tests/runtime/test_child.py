"""One child process, without the process."""

from __future__ import annotations

import signal

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import BackendUnavailable
from mcpgate.interfaces import IInstance
from mcpgate.model import Exit, InstanceKey, Isolation, Owner, Transport, Usage
from mcpgate.runtime.child import Child
from mcpgate.runtime.procfs import ProcFS
from mcpgate.telemetry.meters import Meters
from tests.runtime.pipes import FakeTransport


class FakeProcesses(ProcFS):
    """A process table of strays only."""

    def __init__(self) -> None:
        super().__init__(Clock(), root="/nowhere")
        self.strays: list[int] = []
        self.kills = 0

    def belonging(self, session: int, mark: str, since: int) -> list[int]:
        """See `ProcFS.belonging`."""
        return self.strays

    def oom_kills(self) -> int:
        """See `ProcFS.oom_kills`."""
        return self.kills

    def usage(self, session: int) -> Usage:
        """See `ProcFS.usage`."""
        return Usage(processes=session)


class ChildTestCase(SynchronousTestCase):
    """A child with a fake transport."""

    def setUp(self) -> None:
        """Make a stdio child."""
        self.clock = Clock()
        self.processes = FakeProcesses()
        self.meters = Meters()
        self.signals: list[tuple[int, int]] = []
        self.killed: list[int] = []
        self.child = self.make()

    def make(self, port: int | None = None) -> Child:
        """Make a child."""
        child = Child(
            clock=self.clock,
            processes=self.processes,
            meters=self.meters,
            instance_id="i1",
            key=InstanceKey("toy", Owner(Isolation.SHARED)),
            transport=Transport.STDIO if port is None else Transport.HTTP,
            port=port,
            message=b"arg=x\0end=\0",
            hidden=("sesame",),
            send_signal=lambda pid, number: self.signals.append((pid, number)),
            kill=self.kill,
        )
        self.transport = FakeTransport()
        child.makeConnection(self.transport)
        return child

    def kill(self, pid: int, number: int) -> None:
        """Kill a stray; the one numbered 13 is already gone."""
        if pid == 13:
            raise ProcessLookupError
        self.killed.append(pid)

    def launch(self, report: bytes = b".") -> None:
        """Let exec succeed, or not."""
        self.child.childDataReceived(4, report)
        self.transport.pipes.pop(4)
        self.child.childConnectionLost(4)

    def exit(self, code: int | None = 0, number: int | None = None) -> Exit:
        """Let the process end, its pipes too."""
        reason = Failure(ProcessTerminated(code, number) if code or number else ProcessDone(0))
        self.child.processExited(reason)
        self.child.processEnded(reason)
        return self.successResultOf(self.child.when_ended())


class LaunchTests(ChildTestCase):
    """From the launcher to the server."""

    def test_provides(self) -> None:
        """It is an `IInstance`."""
        verifyObject(IInstance, self.child)

    def test_instructions(self) -> None:
        """The launcher is told by a pipe, which is then closed."""
        self.assertEqual(self.transport.told, [("close", 3)])
        self.assertNotIn(3, self.transport.pipes)

    def test_launched(self) -> None:
        """It is there when the launcher became the server."""
        self.assertNoResult(self.child.launched)
        self.launch()
        self.assertIs(self.successResultOf(self.child.launched), self.child)

    def why(self, report: bytes) -> str:
        """Give the text of a failed launch."""
        self.child = self.make()
        self.launch(report)
        error = self.failureResultOf(self.child.launched, BackendUnavailable).value
        return str(error.detail)

    def test_reports(self) -> None:
        """Each way to fail has words of its own."""
        self.assertIn("'npx' of server 'toy' was not found in PATH", self.why(b"command\x002\0npx"))
        self.assertIn("can not be run: No such file", self.why(b"command\x002\0/no/such"))
        self.assertIn("can not be run: Permission", self.why(b".command\x0013\0/x"))
        self.assertIn("folder '/y'", self.why(b"cwd\x002\0/y"))
        self.assertIn("(prepare: Operation not permitted)", self.why(b"prepare\x001\0"))
        self.assertIn("(prepare: unknown reason)", self.why(b"prepare\x000\0ValueError()"))
        self.assertIn("(no report: unknown reason)", self.why(b""))

    def test_gone_before_any_report(self) -> None:
        """A launcher that is killed is a failed start, not a wait for ever."""
        self.exit(None, 9)
        self.failureResultOf(self.child.launched, BackendUnavailable)


class EndTests(ChildTestCase):
    """How it ends."""

    def setUp(self) -> None:
        """Launch it."""
        super().setUp()
        self.launch()

    def test_exit(self) -> None:
        """Code, reason and last lines are told; credentials are not."""
        self.child.childDataReceived(2, b"key sesame\nbye\n")
        how = self.exit(3)
        self.assertEqual(how, Exit(code=3, reason="exited", stderr_tail=("key ***", "bye")))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.child.usage(), Usage())

    def test_clean_exit(self) -> None:
        """An exit with 0 is one."""
        self.assertEqual(self.exit(0), Exit(code=0, reason="exited"))

    def test_killed(self) -> None:
        """A signal nobody of us sent."""
        self.assertEqual(self.exit(None, 15), Exit(code=None, signal=15, reason="killed"))

    def test_oom(self) -> None:
        """The kernel's kill for memory, and a server's own words about it."""
        self.processes.kills += 1
        self.assertEqual(self.exit(None, 9).reason, "oom_killed")
        self.child = self.make()
        self.launch()
        self.child.childDataReceived(2, b"FATAL ERROR: JavaScript heap out of memory\n")
        self.assertEqual(self.exit(None, 6).reason, "oom_killed")

    def test_port_taken(self) -> None:
        """A port somebody else has, for servers that listen only."""
        self.child = self.make(port=4000)
        self.launch()
        self.assertEqual(self.child.address, ("127.0.0.1", 4000))
        self.child.childDataReceived(1, b"Error: listen EADDRINUSE\n")
        self.assertEqual(self.exit(1).reason, "port_taken")
        self.child = self.make()
        self.launch()
        self.child.childDataReceived(2, b"Address already in use\n")
        self.assertEqual(self.exit(1).reason, "exited")

    def test_descendants(self) -> None:
        """Whoever is left in its session, or fled from it, is killed."""
        self.processes.strays = [12, 13, 14]
        self.exit(0)
        self.assertEqual(self.signals, [(4242, signal.SIGKILL)])
        self.assertEqual(self.killed, [12, 14])

    def test_held_pipes(self) -> None:
        """Who holds its pipes against our will holds up the end half a second, no more."""
        self.child.processExited(Failure(ProcessDone(0)))
        self.assertNoResult(self.child.when_ended())
        self.clock.advance(0.5)
        self.assertIn("lose", self.transport.told)
        self.assertEqual(self.successResultOf(self.child.when_ended()).code, 0)
        self.child.processEnded(Failure(ProcessDone(0)))

    def test_usage(self) -> None:
        """While it lives it can be asked what it uses."""
        self.assertEqual(self.child.usage(), Usage(processes=4242))


class LogTests(ChildTestCase):
    """What it writes to stderr."""

    def test_flood(self) -> None:
        """After a second's share nothing is read until the second is over."""
        self.child.childDataReceived(2, b"x" * (1 << 20))
        self.assertTrue(self.transport.pipes[2].reading)
        self.child.childDataReceived(2, b"x")
        self.assertFalse(self.transport.pipes[2].reading)
        self.clock.advance(1.0)
        self.assertTrue(self.transport.pipes[2].reading)
        self.assertEqual(self.meters.events["stdio_noise"], 1)

    def test_quiet(self) -> None:
        """A little log is no noise."""
        self.child.childDataReceived(2, b"hello\n")
        self.clock.advance(1.0)
        self.assertEqual(self.meters.events["stdio_noise"], 0)
        self.assertEqual(self.child.logs(), ["hello"])

    def test_http_logs_both(self) -> None:
        """What an HTTP server writes to stdout is log, too."""
        self.child = self.make(port=4000)
        self.assertIsNone(self.child.channel)
        self.child.childDataReceived(1, b"out\n")
        self.child.childDataReceived(2, b"err\n")
        self.assertEqual(self.child.logs(), ["out", "err"])

    def test_stdio(self) -> None:
        """What a stdio server writes to stdout is for its channel."""
        got: list[bytes] = []
        assert self.child.channel is not None
        self.child.channel.attach(got.append)
        self.child.childDataReceived(1, b"line\n")
        self.assertEqual((got, self.child.logs()), ([b"line"], []))


class StopTests(ChildTestCase):
    """Down the ladder."""

    def setUp(self) -> None:
        """Launch it."""
        super().setUp()
        self.launch()

    def test_ladder(self) -> None:
        """Stdin is closed, then TERM, then KILL, each after the grace."""
        self.child.stop(5.0)
        self.assertEqual(self.transport.told, [("close", 3), ("close", 0)])
        self.clock.advance(4.9)
        self.assertEqual(self.signals, [])
        self.clock.advance(0.1)
        self.assertEqual(self.signals, [(4242, signal.SIGTERM)])
        self.clock.advance(5.0)
        self.assertEqual(self.signals[1:], [(4242, signal.SIGKILL)])
        self.assertEqual(self.exit(None, 9).reason, "stopped")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gentle(self) -> None:
        """A server that ends when its stdin does gets no signal before it is gone."""
        self.child.stop(5.0)
        self.assertEqual(self.exit(0).reason, "stopped")
        self.assertNotIn((4242, signal.SIGTERM), self.signals)

    def test_http_gets_term_at_once(self) -> None:
        """A server that does not look at its stdin is not waited for."""
        self.child = self.make(port=4000)
        self.child.stop(5.0)
        self.assertEqual(self.signals, [(4242, signal.SIGTERM)])

    def test_no_grace(self) -> None:
        """Without grace it is killed at once."""
        self.child.stop(0)
        self.assertEqual([number for _, number in self.signals], [15, 9])

    def test_less_grace(self) -> None:
        """Who is in more of a hurry shortens the wait; who is in less does not lengthen it."""
        self.child.stop(60.0)
        self.child.stop(2.0)
        self.child.stop(30.0)
        self.clock.advance(2.0)
        self.assertEqual(self.signals, [(4242, signal.SIGTERM)])
        self.child.stop(0)
        self.clock.advance(0)
        self.assertEqual(self.signals[1:], [(4242, signal.SIGKILL)])

    def test_unkillable(self) -> None:
        """What not even KILL ends is given up, and its end told as lost."""
        stopped = self.child.stop(1.0)
        for _ in range(3):
            self.clock.advance(1.0)
        self.assertEqual(self.successResultOf(stopped).reason, "lost")

    def test_ended_within_a_step(self) -> None:
        """A step that ends it is the last one."""
        transport = self.transport
        close = transport.closeChildFD

        def close_and_die(number: int) -> None:
            close(number)
            self.child.processExited(Failure(ProcessDone(0)))

        transport.closeChildFD = close_and_die  # type: ignore[method-assign]  # a quick one
        self.child.stop(1.0)
        self.clock.advance(0.4)
        self.assertNotIn((4242, signal.SIGTERM), self.signals)
        self.child.processEnded(Failure(ProcessDone(0)))

    def test_after_the_end(self) -> None:
        """Stopping what has ended is nothing."""
        self.exit(0)
        self.signals.clear()
        self.assertEqual(self.successResultOf(self.child.stop(1.0)).reason, "exited")
        self.assertEqual(self.signals, [])
