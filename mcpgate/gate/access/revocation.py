"""
Where revoked keys are announced, and where open streams say that they still depend on one.

Authenticators announce; the gate subscribes and closes what the principal has open.  A stream
makes no requests, so without `Revocations.watch` nobody would ask about its key again (R58).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from mcpgate.model import Caller, Principal

log = Logger()


class Revocations:
    """The meeting point; one per gate, given to every authenticator that remembers."""

    __slots__ = ("_callbacks", "_watched")

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Principal], None]] = []
        self._watched: dict[Principal, tuple[Caller, int]] = {}

    def on_revoked(self, callback: Callable[[Principal], None]) -> None:
        """Have ``callback`` called with each principal whose key stopped to be good."""
        self._callbacks.append(callback)

    def announce(self, principal: Principal) -> None:
        """Tell that the principal's key is good no more."""
        log.info(
            "Key {fingerprint} of {issuer} is good no more",
            fingerprint=principal.fingerprint,
            issuer=principal.issuer,
        )
        for callback in tuple(self._callbacks):
            try:
                callback(principal)
            except Exception:
                log.failure("Closing what a revoked key had open failed")

    def watch(self, caller: Caller) -> Callable[[], None]:
        """
        Keep the caller's key checked while something long-lived depends on it.

        :return: to be called when that is over; calls after the first do nothing.
        """
        principal = caller.principal
        _, count = self._watched.get(principal, (caller, 0))
        self._watched[principal] = (caller, count + 1)
        over = False

        def release() -> None:
            nonlocal over
            if over:
                return
            over = True
            kept, left = self._watched[principal]
            if left == 1:
                del self._watched[principal]
            else:
                self._watched[principal] = (kept, left - 1)

        return release

    def watched(self, issuer: str) -> list[Caller]:
        """Give the callers of one issuer that are being watched."""
        return [caller for who, (caller, _) in self._watched.items() if who.issuer == issuer]

    def watches(self, principal: Principal) -> bool:
        """Tell whether something long-lived depends on this principal's key."""
        return principal in self._watched
