"""
Asks running copies for a sign of life when nothing was heard of them for a while.

One deadline of the shared wheel for each copy, and no work in between: whoever speaks to the copy
only notes when something came (`IUpstream.heard_s`).  Checks start nothing and are no use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mcpgate.model import ServerSpec
from mcpgate.runtime.attempt import REMOTE
from mcpgate.runtime.crashes import BREAKER_OPEN_S
from mcpgate.runtime.health import Health, Patience
from mcpgate.runtime.instance import Running
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import Deadline, DeadlineWheel

if TYPE_CHECKING:
    from mcpgate.runtime.record import Record

log = Logger()

SPREAD: Final = 0.2
"""Questions come later than they might by up to this part of the interval, each by another."""

LATE_S: Final = 5.0
"""Who looks so much later than meant to had no turn: what was not heard meanwhile is no silence."""

OFF_S: Final = 60.0
"""Where checks are off, a reload may turn them on: seen after this long."""


class HealthChecks:
    """
    The checks of one pool.

    :param luck: random numbers of [0, 1).
    :param current: gives the entry a server has now.
    :param dead: called, once for a copy, when it is to be replaced.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wheel: DeadlineWheel,
        *,
        meters: Meters,
        luck: Callable[[], float],
        current: Callable[[ServerSpec], ServerSpec],
        dead: Callable[[Record], None],
    ) -> None:
        self.clock = clock
        self.wheel = wheel
        self.meters = meters
        self.luck = luck
        self.current = current
        self.dead = dead

    def attend(self, record: Record) -> None:
        """Look after what a record has running now, and after nothing else of it."""
        running, check = record.core.running, record.check
        if check is not None and check.running is running:
            return
        if check is not None:
            check.cancel()
        record.check = None if running is None else Check(self, record, running)


class Check:
    """
    The check of one running copy.

    :ivar running: the copy.
    :ivar shut: it is elsewhere and does not answer: callers are refused, but for one now and then.
    """

    def __init__(self, checks: HealthChecks, record: Record, running: Running) -> None:
        self.running = running
        self.shut = False
        self._checks = checks
        self._record = record
        self._health = Health()
        self._asked_s = 0.0
        self._due_s = 0.0
        self._next_try_s = 0.0
        self._judging: IDelayedCall | None = None
        interval_s = self._spec.lifetime.health_interval_s or OFF_S
        # Many that started together are not asked together.
        self._deadline: Deadline | None = None
        self._arm(interval_s * (1 + checks.luck()), self._due)

    @property
    def _spec(self) -> ServerSpec:
        return self._checks.current(self._record.spec)

    @property
    def heard_s(self) -> float:
        """Clock reading of when anything was heard of it last."""
        heard_s: float = self.running.upstream.heard_s
        return max(heard_s, self._record.heard_outside_s)

    @property
    def unresponsive(self) -> bool:
        """Tell whether it did not answer, or could not be reached, and nothing came since."""
        silent = self._health.missed > 0 and self.heard_s < self._asked_s
        return silent or bool(self.running.upstream.unreachable)

    def cancel(self) -> None:
        """Look after it no more."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._judging is not None:
            self._judging.cancel()
            self._judging = None

    def refuses(self) -> bool:
        """Tell whether a caller is to be refused; one now and then tries whether it is back."""
        now = self._checks.clock.seconds()
        if self.shut and self.heard_s >= self._asked_s:
            self._well()
        elif self.shut and now >= self._next_try_s:
            self._next_try_s = now + BREAKER_OPEN_S
            return False
        return self.shut

    @property
    def retry_after_s(self) -> float:
        """Tell when the next caller is let through."""
        return max(1.0, self._next_try_s - self._checks.clock.seconds())

    # --- Asking -------------------------------------------------------------------------------

    def _arm(self, delay_s: float, call: Callable[[], None]) -> None:
        self._due_s = self._checks.clock.seconds() + delay_s
        self._deadline = self._checks.wheel.arm(delay_s, call)

    def _arm_next(self, delay_s: float) -> None:
        interval_s = self._spec.lifetime.health_interval_s or OFF_S
        self._arm(max(0.0, delay_s) + SPREAD * interval_s * self._checks.luck(), self._due)

    def _due(self) -> None:
        life = self._spec.lifetime
        now = self._checks.clock.seconds()
        if self._health.missed and self.heard_s >= self._asked_s:
            self._well()
        quiet_s = now - self.heard_s
        if not life.health_interval_s:
            self._health, self.shut = Health(), False
            self._arm_next(OFF_S)
        elif self._had_no_turn():
            # Nor had any other check: they are not to ask all at once now.
            self._arm(life.health_interval_s * self._checks.luck(), self._due)
        elif quiet_s < life.health_interval_s:
            self._arm_next(life.health_interval_s - quiet_s)
        else:
            self._asked_s = now
            if self._ask(life.health_timeout_s):
                self._arm(life.health_timeout_s, self._late)
            else:
                self._arm_next(life.health_interval_s)

    def _ask(self, timeout_s: float) -> bool:
        try:
            asked: bool = self.running.upstream.ask_alive(timeout_s)
        except Exception:
            # A border: the upstream is another room's.
            log.failure("{server} could not be asked", server=self._record.key.server)
            return False
        return asked

    def _had_no_turn(self) -> bool:
        return self._checks.clock.seconds() - self._due_s > LATE_S

    def _late(self) -> None:
        """Read first what came while the gate itself had no turn."""
        self._deadline = None
        self._judging = self._checks.clock.callLater(0, self._judge)

    def _judge(self) -> None:
        self._judging = None
        life = self._spec.lifetime
        answered = self.heard_s >= self._asked_s
        if answered:
            self._well()
        if answered or self._had_no_turn():
            self._arm_next(life.health_interval_s - life.health_timeout_s)
            return
        self._miss()
        patience = Patience(
            failures=life.health_failures,
            call_s=self._spec.call_timeout_s,
            busy_s=self._spec.call_timeout_max_s,
        )
        now, in_work = self._checks.clock.seconds(), self._record.active > 0
        if self._health.given_up(now, patience, in_work=in_work):
            if self._record.spec.runtime != REMOTE:
                self._checks.dead(self._record)
                return
            self._shut()
        self._arm_next(life.health_interval_s - life.health_timeout_s)

    # --- What came of it ----------------------------------------------------------------------

    def _miss(self) -> None:
        record = self._record
        first = not self._health.missed
        _, lines = self.running.instance.log_after(0)
        self._health.note_silence(
            self._checks.clock.seconds(), self._asked_s, record.measure(self.running), lines
        )
        self._checks.meters.events["health_missed"] += 1
        if first:
            log.warn(
                "Server {server} of {owner} does not answer",
                server=record.key.server,
                owner=record.key.owner.label,
                ev="unresponsive",
            )

    def _shut(self) -> None:
        if not self.shut:
            self.shut = True
            self._record.recall()
            self._next_try_s = self._checks.clock.seconds() + BREAKER_OPEN_S
            self._checks.meters.events["health_shut"] += 1
            log.error(
                "Server {server} of {owner} does not answer and is left alone until it does",
                server=self._record.key.server,
                owner=self._record.key.owner.label,
            )

    def _well(self) -> None:
        self.shut = False
        if self._health.answered():
            log.info(
                "Server {server} of {owner} answers again",
                server=self._record.key.server,
                owner=self._record.key.owner.label,
            )
