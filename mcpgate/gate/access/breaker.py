"""A source that does not answer is left alone for a while."""

from __future__ import annotations

from enum import Enum

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import AuthUnavailable, Unauthenticated
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import Caller, Secret
from mcpgate.timing.deferreds import deferred

log = Logger()


class _State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


@implementer(IAuthenticator)
class Breaker:
    """
    After ``failures`` outages in a row, fails at once for ``open_s``; then one call probes.

    ====== ============================ ==================================================
    State  Goes to                      When
    ====== ============================ ==================================================
    closed open                         ``failures`` calls in a row failed `AuthUnavailable`
    open   probing                      a call comes after ``open_s``: it goes through
    probing closed                      the probe was answered, be it with a refusal
    probing open                        the probe failed `AuthUnavailable`, for ``open_s``
    probing open                        the probe was cancelled or broke: the next call probes
    ====== ============================ ==================================================

    :param name: the source's name, for the log.
    """

    def __init__(
        self,
        inner: IAuthenticator,
        clock: IReactorTime,
        *,
        name: str,
        failures: int = 5,
        open_s: float = 30.0,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._name = name
        self._limit = failures
        self._open_s = open_s
        self._state = _State.CLOSED
        self._failures = 0
        self._probe_at = 0.0

    def remembered(self, credential: Secret) -> Caller | None:
        """See `IAuthenticator.remembered`."""
        return self._inner.remembered(credential)

    @deferred
    async def authenticate(self, credential: Secret) -> Caller:
        """See `IAuthenticator.authenticate`."""
        probe = self._state is not _State.CLOSED
        if probe:
            left_s = self._probe_at - self._clock.seconds()
            if self._state is _State.PROBING or left_s > 0:
                raise AuthUnavailable(retry_after_s=max(1.0, left_s))
            self._state = _State.PROBING
        answered = False
        try:
            caller = await self._inner.authenticate(credential)
            answered = True
            return caller
        except Unauthenticated:
            answered = True
            raise
        except AuthUnavailable:
            self._unavailable(probe)
            raise
        finally:
            if answered:
                self._answered(probe)
            elif probe and self._state is _State.PROBING:
                self._state = _State.OPEN

    def _answered(self, probe: bool) -> None:
        # A late answer to a call from before the breaker opened proves nothing about now.
        if probe:
            self._state = _State.CLOSED
            log.info("Keys can be checked at {name} again", name=self._name)
        self._failures = 0

    def _unavailable(self, probe: bool) -> None:
        self._failures += 1
        if not probe and (self._state is not _State.CLOSED or self._failures < self._limit):
            return
        if not probe:
            log.error(
                "Keys can not be checked at {name}: left alone for {open_s:.0f} s at a time",
                name=self._name,
                open_s=self._open_s,
            )
        self._state = _State.OPEN
        self._probe_at = self._clock.seconds() + self._open_s
