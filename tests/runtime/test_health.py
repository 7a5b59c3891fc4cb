"""When silence is long enough."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.model import Usage
from mcpgate.runtime.health import Health, Patience

PATIENCE = Patience(failures=3, call_s=120.0, busy_s=600.0)
IDLE = Usage(cpu_s=1.0)


class HealthTests(SynchronousTestCase):
    """One copy, asked every 60 s with 10 s for the answer, from 60 s on."""

    @override
    def setUp(self) -> None:
        self.health = Health()
        self.now = 0.0

    def miss(self, usage: Usage = IDLE, lines: int = 0) -> None:
        """Ask once more in vain."""
        asked_s = self.now + 60.0 if not self.now else self.now + 50.0
        self.now = asked_s + 10.0
        self.health.note_silence(self.now, asked_s, usage, lines)

    def gone(self, *, in_work: bool) -> bool:
        """Give the verdict."""
        return self.health.given_up(self.now, PATIENCE, in_work=in_work)

    def test_idle(self) -> None:
        """Who has nothing to do and keeps silent is given up after so many questions."""
        for expected in (False, False, True):
            self.miss()
            self.assertIs(self.gone(in_work=False), expected)

    def test_one_answer(self) -> None:
        """One sign of life, and counting begins anew."""
        self.miss()
        self.miss()
        self.assertTrue(self.health.answered())
        self.assertFalse(self.health.answered())
        self.miss()
        self.assertFalse(self.gone(in_work=False))
        self.assertEqual(self.health.silent_since, self.now - 10.0)

    def test_at_work(self) -> None:
        """A call begun before the silence has all the time a call may take."""
        for expected in (False, False, True):
            self.miss()
            self.assertIs(self.gone(in_work=True), expected)
        long = Patience(failures=3, call_s=131.0, busy_s=600.0)
        self.assertFalse(self.health.given_up(self.now, long, in_work=True))
        self.assertTrue(self.health.given_up(self.now + 1.0, long, in_work=True))

    def test_busy(self) -> None:
        """What uses the processor has as long as the longest call, in work or not."""
        cpu_s = 1.0
        for _ in range(10):
            self.miss(Usage(cpu_s=cpu_s))
            self.assertFalse(self.gone(in_work=True))
            self.assertFalse(self.gone(in_work=False))
            cpu_s += 30.0
        self.miss(Usage(cpu_s=cpu_s))
        self.assertEqual(self.now - self.health.silent_since, 610.0)
        self.assertTrue(self.gone(in_work=True))

    def test_breathing(self) -> None:
        """A little processor time is no work: programs that hang have timers, too."""
        for cpu_s in (1.0, 1.1, 1.2):
            self.miss(Usage(cpu_s=cpu_s))
        self.assertTrue(self.gone(in_work=False))

    def test_talking(self) -> None:
        """What writes to its log is at work."""
        for lines in (5, 5, 6):
            self.miss(lines=lines)
        self.assertFalse(self.gone(in_work=False))

    def test_unknown_usage(self) -> None:
        """Where processor time can not be told, silence decides."""
        for _ in range(3):
            self.miss(Usage())
        self.assertTrue(self.gone(in_work=False))
