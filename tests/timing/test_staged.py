"""Services start in order, stop in reverse, and are waited for."""

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.timing.staged import StagedService


class Step(Service):
    """A service whose start and stop end when the test says so."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.setName(name)
        self.events = events
        self.started: Deferred[None] = Deferred()
        self.stopped: Deferred[None] = Deferred()

    @override
    def startService(self) -> Deferred[None]:
        super().startService()
        self.events.append(f"start {self.name}")
        return self.started

    @override
    def stopService(self) -> Deferred[None]:
        super().stopService()
        self.events.append(f"stop {self.name}")
        return self.stopped


class StagedServiceTests(SynchronousTestCase):
    """The order of life."""

    @override
    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[str] = []
        self.staged = StagedService(self.clock, stop_timeout_s=5.0)
        self.steps = [Step(name, self.events) for name in "abc"]
        for step in self.steps:
            step.setServiceParent(self.staged)

    def test_order(self) -> None:
        """Each child starts when the one before is up, and stops when the one after is down."""
        starting = self.staged.startService()
        self.assertEqual(self.events, ["start a"])
        for step in self.steps:
            step.started.callback(None)
        self.successResultOf(starting)
        self.assertEqual(self.events, ["start a", "start b", "start c"])
        self.events.clear()
        stopping = self.staged.stopService()
        self.assertEqual(self.events, ["stop c"])
        for step in reversed(self.steps):
            step.stopped.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(self.events, ["stop c", "stop b", "stop a"])

    def test_failed_start(self) -> None:
        """A child that can not start stops those before it and fails the whole."""
        starting = self.staged.startService()
        self.steps[0].started.callback(None)
        self.steps[1].started.errback(ValueError("port taken"))
        self.assertEqual(self.events[-1], "stop a")
        self.steps[0].stopped.callback(None)
        self.failureResultOf(starting, ValueError)
        self.assertNotIn("start c", self.events)

    def test_slow_stop(self) -> None:
        """A child that does not stop in time is left behind."""
        starting = self.staged.startService()
        for step in self.steps:
            step.started.callback(None)
        self.successResultOf(starting)
        stopping = self.staged.stopService()
        self.clock.advance(5.0)
        self.assertEqual(self.events[-1], "stop b")
        self.steps[1].stopped.errback(ValueError("broken"))
        self.steps[0].stopped.callback(None)
        self.successResultOf(stopping)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_no_privileges(self) -> None:
        """Nothing happens before privileges are dropped."""
        self.staged.privilegedStartService()
        self.assertEqual(self.events, [])
