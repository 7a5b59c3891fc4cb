"""Stages are services made of functions."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.service.stage import Stage


class StageTests(SynchronousTestCase):
    """Starting and stopping by functions."""

    def test_both(self) -> None:
        """Each function is called at its time, and waited for."""
        ready: Deferred[None] = Deferred()
        calls: list[str] = []
        stage = Stage("x", start=lambda: ready, stop=lambda: calls.append("stop"))
        starting = stage.startService()
        self.assertNoResult(starting)
        ready.callback(None)
        self.successResultOf(starting)
        self.successResultOf(stage.stopService())
        self.assertEqual(calls, ["stop"])

    def test_neither(self) -> None:
        """A stage without functions starts and stops at once."""
        stage = Stage("x")
        self.successResultOf(stage.startService())
        self.successResultOf(stage.stopService())

    def test_failure(self) -> None:
        """What a function raises is the failure of the stage."""

        def broken() -> None:
            raise ValueError("no")

        self.failureResultOf(Stage("x", start=broken).startService(), ValueError)
