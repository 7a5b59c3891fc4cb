"""
Where revoked keys are announced, and where open streams say that they still depend on one.

Authenticators announce; the gate subscribes and closes what the principal has open.  A stream
makes no requests, so without `Revocations.watch` nobody would ask about its key again (R58).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.logger import Logger

from mcpgate.model import Caller, Principal

log = Logger()


@dataclass(slots=True)
class _Watch:
    """What depends on one principal's key: how many, and the credential to ask with."""

    caller: Caller
    count: int = 0
    endings: dict[object, Callable[[], None]] = field(default_factory=dict)


class Revocations:
    """The meeting point; one per gate, given to every authenticator that remembers."""

    __slots__ = ("_callbacks", "_of_key", "_watched")

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Principal], None]] = []
        self._watched: dict[Principal, _Watch] = {}
        # Of one key there is mostly one principal: its user may have been renamed meanwhile.
        self._of_key: dict[tuple[str, str], set[Principal]] = {}

    def on_revoked(self, callback: Callable[[Principal], None]) -> None:
        """Have ``callback`` called with each principal whose key stopped to be good."""
        self._callbacks.append(callback)

    def announce(self, principal: Principal) -> None:
        """Tell that the principal's key is good no more.  Nothing watches it afterwards."""
        log.info(
            "Key {fingerprint} of {issuer} is good no more",
            fingerprint=principal.fingerprint,
            issuer=principal.issuer,
        )
        watch = self._forget(principal)
        endings = tuple(watch.endings.values()) if watch is not None else ()
        for ending in endings:
            _try(ending)
        for callback in tuple(self._callbacks):
            _try(callback, principal)

    def watch(self, caller: Caller, ending: Callable[[], None] | None = None) -> Callable[[], None]:
        """
        Keep the caller's key checked while something long-lived depends on it.

        :param ending: called when the key stops to be good, unless released before.
        :return: to be called when that is over; calls after the first do nothing.
        """
        principal = caller.principal
        watch = self._watched.get(principal)
        if watch is None:
            watch = self._watched[principal] = _Watch(caller)
            self._of_key.setdefault((principal.issuer, principal.key_digest), set()).add(principal)
        watch.count += 1
        mine: _Watch | None = watch
        token = object()
        if ending is not None:
            watch.endings[token] = ending

        def release() -> None:
            nonlocal mine
            if mine is None:
                return
            mine.count -= 1
            mine.endings.pop(token, None)
            # After an announcement the same principal may be watched anew, by others.
            if mine.count == 0 and self._watched.get(principal) is mine:
                self._forget(principal)
            mine = None

        return release

    def watched(self, issuer: str) -> list[Caller]:
        """Give the callers of one issuer that are being watched."""
        return [watch.caller for who, watch in self._watched.items() if who.issuer == issuer]

    def watched_with(self, issuer: str, key_digest: str) -> list[Principal]:
        """Give those that are being watched with this key."""
        return list(self._of_key.get((issuer, key_digest), ()))

    def _forget(self, principal: Principal) -> _Watch | None:
        key = principal.issuer, principal.key_digest
        others = self._of_key.get(key)
        if others is not None:
            others.discard(principal)
            if not others:
                del self._of_key[key]
        return self._watched.pop(principal, None)

    def watches(self, principal: Principal) -> bool:
        """Tell whether something long-lived depends on this principal's key."""
        return principal in self._watched


def _try(call: Callable[..., None], *args: object) -> None:
    """One that fails must not keep the others open."""
    try:
        call(*args)
    except Exception:
        log.failure("Closing what a revoked key had open failed")
