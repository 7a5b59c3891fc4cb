"""Is the server there?"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.model import InstanceKey, Isolation, Launch, Owner, ServerSpec, Transport
from mcpgate.runtime.readiness import ReadinessProbe
from mcpgate.testing.memory_runtime import Behaviour, MemoryInstance


class ReadinessTests(SynchronousTestCase):
    """Probing a server on HTTP."""

    def setUp(self) -> None:
        """Make a probe over memory."""
        self.reactor: Any = MemoryReactorClock()
        self.probe = ReadinessProbe(self.reactor)
        self.spec = ServerSpec(name="web", transport=Transport.HTTP, ready_path="/up")
        self.instance = self.make(self.spec)
        self.transports: list[StringTransport] = []

    def make(self, spec: ServerSpec) -> MemoryInstance:
        """Make an instance."""
        key = InstanceKey("web", Owner(Isolation.SHARED))
        launch = Launch(instance_id="i", key=key, values={})
        return MemoryInstance(self.reactor, spec, launch, Behaviour(), 4000)

    def connect(self) -> Any:
        """Accept the newest connection; answer its protocol."""
        host, port, factory, _, _ = self.reactor.tcpClients[-1]
        self.assertEqual((host, port), ("127.0.0.1", 4000))
        protocol = factory.buildProtocol(None)
        self.transports.append(StringTransport())
        protocol.makeConnection(self.transports[-1])
        return protocol

    def refuse(self) -> None:
        """Refuse the newest connection."""
        factory = self.reactor.tcpClients[-1][2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))

    def test_stdio(self) -> None:
        """A stdio server is ready when it was started."""
        spec = ServerSpec(name="s", transport=Transport.STDIO)
        self.successResultOf(self.probe.wait(spec, self.make(spec)))

    def test_refused_until_it_listens(self) -> None:
        """It tries again, less and less often, until somebody listens."""
        waiting = self.probe.wait(self.spec, self.instance)
        pauses = []
        for _ in range(36):
            self.refuse()
            (call,) = self.reactor.getDelayedCalls()
            pause = call.getTime() - self.reactor.seconds()
            pauses.append(round(pause, 3))
            self.reactor.pump([pause, 1e-9])
        self.assertEqual((pauses[0], pauses[-1]), (0.01, 0.25))
        self.assertEqual(pauses, sorted(pauses))
        self.assertNoResult(waiting)
        protocol = self.connect()
        self.assertTrue(self.transports[-1].value().startswith(b"GET /up HTTP/1.1\r\nHost: 127.0"))
        protocol.dataReceived(b"HTTP/1.1 404 Not")
        self.assertNoResult(waiting)
        protocol.dataReceived(b" Found\r\nA: b\r\n")
        self.successResultOf(waiting)
        protocol.dataReceived(b"more")
        self.assertTrue(self.transports[-1].disconnecting or self.transports[-1].disconnected)

    def test_not_yet(self) -> None:
        """A status of 500 and above, and what is not HTTP, is not ready."""
        waiting = self.probe.wait(self.spec, self.instance)
        for answer in (b"HTTP/1.1 503 Starting\r\n", b"SSH-2.0\r\n", b"x" * 5000, b"HTTP/1.1\r\n"):
            self.connect().dataReceived(answer)
            self.assertNoResult(waiting)
            self.reactor.advance(0.3)

    def test_closed_without_an_answer(self) -> None:
        """A connection that ends without an answer is not ready."""
        waiting = self.probe.wait(self.spec, self.instance)
        self.connect().connectionLost(Failure(ConnectionDone()))
        self.assertNoResult(waiting)
        self.reactor.advance(0.05)
        self.assertEqual(len(self.reactor.tcpClients), 2)

    def test_silence(self) -> None:
        """A try that is not answered is given up and repeated."""
        waiting = self.probe.wait(self.spec, self.instance)
        self.connect()
        self.reactor.advance(2.0)
        self.reactor.advance(0.05)
        self.assertEqual(len(self.reactor.tcpClients), 2)
        self.assertNoResult(waiting)

    def test_cancelled(self) -> None:
        """Given up it leaves nothing behind."""
        waiting = self.probe.wait(self.spec, self.instance)
        self.refuse()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled_while_connecting(self) -> None:
        """Given up before its connection stands it is given up like any other wait."""
        waiting = self.probe.wait(self.spec, self.instance)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
