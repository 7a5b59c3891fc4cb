"""
The steps every request passes, in the one order: authenticate, rate, slots.

Session, route and what the message means come after, in the front door.  A warm request costs
look-ups; only an unknown key makes anybody wait.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from mcpgate.errors import GateError, Overloaded, RateLimited, Unauthenticated
from mcpgate.gate.access.challenge import unauthenticated_fields
from mcpgate.gate.access.credentials import extract
from mcpgate.gate.access.lockout import Lockout
from mcpgate.gate.access.revocation import Revocations
from mcpgate.gate.admission import Admission
from mcpgate.http.fields import Fields
from mcpgate.interfaces import IAuthenticator, ISlots
from mcpgate.model import Caller, Secret, ServerSpec
from mcpgate.telemetry.meters import Meters

_NOBODY = Secret("")


class Gate:
    """
    Decides whether a request goes on.

    :param anonymous: requests without a key are shown to the authenticator too.
    :param headers: lower-case names of fields that may carry a key, beside the usual ones.
    """

    def __init__(
        self,
        *,
        authenticator: IAuthenticator,
        lockout: Lockout,
        admission: Admission,
        slots: ISlots,
        revocations: Revocations,
        meters: Meters,
        realm: str,
        headers: tuple[bytes, ...],
        anonymous: bool,
    ) -> None:
        self._authenticator = authenticator
        self._lockout = lockout
        self._admission = admission
        self._slots = slots
        self._revocations = revocations
        self._meters = meters
        self._realm = realm
        self._headers = headers
        self._anonymous = anonymous

    def identify(
        self, fields: Fields, query: bytes | None, address: str
    ) -> Caller | Deferred[Caller]:
        """
        Tell who calls: at once for a key that is remembered.

        Limits by address hold only for keys that are not: neighbours behind one address do not
        shut out whoever has a good key.

        :raises GateError: or the Deferred fails with one: no key, a bad one, too many tries.
        """
        try:
            credential = extract(fields, query, self._headers)
        except GateError as error:
            self._knock(address)
            if isinstance(error, Unauthenticated):
                self._challenge(error)
            raise
        if credential is None:
            if not self._anonymous:
                self._knock(address)
                unknown = Unauthenticated()
                self._challenge(unknown)
                raise unknown
            credential = _NOBODY
        caller = self._authenticator.remembered(credential)
        if caller is not None:
            return caller
        self._knock(address)
        asking = self._lockout.authenticate(self._authenticator, credential, address)
        return asking.addErrback(self._refused)

    def _refused(self, failure: Failure) -> Failure:
        if isinstance(failure.value, Unauthenticated):
            self._meters.events["auth_refused"] += 1
            self._challenge(failure.value)
        return failure

    def _challenge(self, error: Unauthenticated) -> None:
        error.fields = unauthenticated_fields(self._realm, error)

    def _knock(self, address: str) -> None:
        try:
            self._admission.knock(address)
        except RateLimited:
            self._meters.events["rate_limited"] += 1
            raise

    def vouch(self, credential: Secret) -> Deferred[Caller]:
        """
        Tell whose a key is that the operator of this gate showed: no address, no lockout.

        Fails as `IAuthenticator.authenticate` does.
        """
        caller = self._authenticator.remembered(credential)
        if caller is not None:
            return succeed(caller)
        return self._authenticator.authenticate(credential)

    def charge(self, caller: Caller, spec: ServerSpec, *, count: int = 1) -> None:
        """
        Take what the calls cost from the key's and the server's buckets.

        :raises RateLimited: one of them is empty.
        """
        try:
            for _ in range(count):
                self._admission.call(caller, spec.name, spec.rate)
        except RateLimited:
            self._meters.events["rate_limited"] += 1
            raise

    def hears(self, caller: Caller, *, count: int) -> bool:
        """
        Take what messages cost that want no answer; False when there are too many of them.

        They are to be dropped then, not refused: there is no id to refuse them under, and real
        clients drop their whole session on 429 (lab 2.1.4).
        """
        try:
            for _ in range(count):
                self._admission.told(caller)
        except RateLimited:
            self._meters.events["messages_dropped"] += 1
            return False
        return True

    def charge_start(self, caller: Caller) -> None:
        """
        Take what a cold start costs beyond its call.

        :raises RateLimited: the key starts too much.
        """
        try:
            self._admission.start(caller)
        except RateLimited:
            self._meters.events["rate_limited"] += 1
            raise

    def enter(self, caller: Caller, *, count: int = 1) -> Callable[[], None]:
        """
        Take places for requests in work.

        :return: to be called once for each of them when it is answered; further calls do nothing.
        :raises Overloaded: the key has too many in work.
        """
        taken = 0
        try:
            for _ in range(count):
                self._admission.enter(caller)
                taken += 1
        except Overloaded:
            for _ in range(taken):
                self._admission.leave(caller)
            self._meters.events["overloaded"] += 1
            raise
        self._meters.calls_in_work += count

        def leave() -> None:
            nonlocal taken
            if not taken:
                return
            taken -= 1
            self._meters.calls_in_work -= 1
            self._admission.leave(caller)

        return leave

    def open_stream(self, caller: Caller, limit: int) -> Callable[[], None]:
        """
        Take a place for a long stream, and keep its key checked while it is open (R58).

        :return: to be called when the stream has ended; further calls do nothing.
        :raises Overloaded: the key has too many open.
        """
        key = ("stream", caller.principal)
        if not self._slots.acquire(key, limit):
            self._meters.events["overloaded"] += 1
            raise Overloaded(
                f"This key has {limit} streams open; close one first.", retry_after_s=5.0
            )
        unwatch = self._revocations.watch(caller)
        self._meters.streams += 1
        open_ = True

        def over() -> None:
            nonlocal open_
            if not open_:
                return
            open_ = False
            self._meters.streams -= 1
            unwatch()
            self._slots.release(key)

        return over
