"""
The owner's end of grants: what workers may relay by themselves, until when, and who is told so.

A key that asks for a server's other paths twice within `GRANT_S` gets a grant, which every worker
is told of, and which goes on as long as one of them uses it.  While it stands the copy it names is
lent (busy while requests are in work; the workers are told when it ends), and the key is kept
checked as if a stream were open.  A grant ends when its time is up, or at once: with its key, its
copy, the configuration, the gate.  It is forgotten when the last request under it has ended.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mcpgate.errors import GateError
from mcpgate.gate.access.digest import KeyDigest
from mcpgate.gate.routing import Route
from mcpgate.interfaces import IInbound, ILease, ILoan
from mcpgate.model import Caller, Owner, ServerSpec, Transport
from mcpgate.upstream.http import HTTPUpstream
from mcpgate.web.mcp.post import owner_of
from mcpgate.web.workers.grant import GRANT_S, Grant, write_error
from mcpgate.web.workers.uses import GRANTS, Uses

Lend = Callable[
    [ServerSpec, Owner, ILoan, Callable[[GateError | None], None]],
    ILease | None,
]
_Place = tuple[int, bytes | None, bytes, str, str, str, str]

#: Who has asked once, and may ask again.
_ASKED: Final = 10_000


@implementer(ILoan)
class _Loan:
    """
    What workers do with a copy under one grant.

    :param ahead_s: tells how far the owner's clock is ahead of theirs.
    """

    def __init__(self, uses: Uses, number: int, ahead_s: Callable[[], float]) -> None:
        self._uses = uses
        self._number = number
        self._ahead_s = ahead_s

    @property
    def in_work(self) -> int:
        """See `ILoan.in_work`."""
        return self._uses.in_work(self._number)

    @property
    def used_s(self) -> float:
        """See `ILoan.used_s`."""
        at_s = self._uses.used_s(self._number)
        return at_s and at_s + self._ahead_s()

    @property
    def heard_s(self) -> float:
        """See `ILoan.heard_s`."""
        at_s = self._uses.heard_s(self._number)
        return at_s and at_s + self._ahead_s()


class _Given:
    """One grant, with what it holds."""

    def __init__(self, grant: Grant, until_s: float) -> None:
        self.grant = grant
        self.until_s = until_s
        self.lease: ILease | None = None
        self.unwatch: Callable[[], None] | None = None


class Grants:
    """
    See the module.

    :param digest: of credentials, as workers make it.
    :param lend: lends a running copy; see `InstancePool.lend`.
    :param watch: keeps a key checked; see `Revocations.watch`.
    :param tell: says something to every worker that is up.
    :param ahead_s: tells how far this process's clock is ahead of the workers'.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        uses: Uses,
        digest: KeyDigest,
        lend: Lend,
        watch: Callable[[Caller, Callable[[], None]], Callable[[], None]],
        tell: Callable[[dict[str, Any]], None],
        ahead_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._clock = clock
        self._uses = uses
        self._digest = digest
        self._lend = lend
        self._watch = watch
        self._tell = tell
        self._ahead_s = ahead_s
        self._free = deque(range(GRANTS))
        self._serial = 0
        self._asked: OrderedDict[_Place, float] = OrderedDict()
        self._given: dict[_Place, _Given] = {}
        self._by_serial: dict[int, _Given] = {}
        # Withdrawn, with requests still in work perhaps.
        self._ending: list[_Given] = []
        self.closed = False

    def __len__(self) -> int:
        """Tell how many stand."""
        return len(self._given)

    @property
    def in_work(self) -> int:
        """Tell how many requests workers have in work by themselves."""
        every = (*self._given.values(), *self._ending)
        return sum(self._uses.in_work(given.grant.number) for given in every)

    # --- Given --------------------------------------------------------------------------------

    def passing(self, inbound: IInbound, caller: Caller, route: Route, lease: ILease) -> None:
        """Take note of a request that the byte relay is about to pass on."""
        # Only what a worker has taken has one.
        channel: int = getattr(inbound, "channel", -1)
        if channel < 0 or self.closed:
            return
        if route.spec.transport is not Transport.HTTP or not isinstance(
            lease.upstream, HTTPUpstream
        ):
            return
        head, who = inbound.head, caller.principal
        prefix = head.path[: len(head.path) - len(route.rest)]
        host = head.fields.get(b"host")
        place = (
            *(channel, host, prefix),
            *(route.spec.name, who.issuer, who.subject, who.key_digest),
        )
        now = self._clock.seconds()
        if place not in self._given and self._asks_again(place, now) and self._free:
            self._give(place, channel, host, prefix, caller, route.spec, lease)

    def _asks_again(self, place: _Place, now: float) -> bool:
        before = self._asked.pop(place, None)
        if before is not None and now - before < GRANT_S:
            return True
        self._asked[place] = now
        if len(self._asked) > _ASKED:
            self._asked.popitem(last=False)
        return False

    def _give(
        self,
        place: _Place,
        channel: int,
        host: bytes | None,
        prefix: bytes,
        caller: Caller,
        spec: ServerSpec,
        lease: ILease,
    ) -> None:
        self._serial += 1
        grant = Grant(
            number=self._free.popleft(),
            serial=self._serial,
            channel=channel,
            host=host,
            prefix=prefix,
            digest=self._digest(caller.credential),
            principal=caller.principal,
            spec=spec,
            instance=lease.instance.instance_id,
            address=lease.instance.address,
        )
        given = _Given(grant, self._clock.seconds() + GRANT_S)
        given.lease = self._lend(
            spec,
            owner_of(spec, caller.principal, ""),
            _Loan(self._uses, grant.number, self._ahead_s),
            lambda error: self._withdraw(place, given, error),
        )
        if given.lease is None or given.lease.instance is not lease.instance:
            self._release(given)
            return
        self._given[place] = self._by_serial[grant.serial] = given
        given.unwatch = self._watch(caller, lambda: self._revoked(place, given))
        self._uses.grant(grant.number, grant.serial)
        self._tell({"grant": grant.write(), "for_s": GRANT_S})

    def renew(self, serial: int) -> None:
        """Let a grant go on, if it stands: a worker uses it."""
        now = self._clock.seconds()
        given = self._by_serial.get(serial)
        if given is not None and given.until_s - now < GRANT_S / 2:
            given.until_s = now + GRANT_S
            self._tell({"renewed": serial, "for_s": GRANT_S})

    def told(self) -> list[dict[str, Any]]:
        """Give what a worker has to be told that has just come up."""
        now = self._clock.seconds()
        return [
            {"grant": given.grant.write(), "for_s": given.until_s - now}
            for given in self._given.values()
        ]

    # --- Withdrawn ----------------------------------------------------------------------------

    def withdraw_all(self) -> None:
        """Have every further request come to the owner; what is in work goes on."""
        for place, given in tuple(self._given.items()):
            self._withdraw(place, given, None)

    def close(self) -> None:
        """Withdraw all, and give no more."""
        self.closed = True
        self.withdraw_all()

    def look(self) -> None:
        """Let go of what nobody asked for again, and of what has ended; call it every second."""
        now = self._clock.seconds()
        for place, given in tuple(self._given.items()):
            if now >= given.until_s:
                self._withdraw(place, given, None)
            elif given.lease is not None:
                # There are servers that serve one connection at a time.
                given.lease.upstream.let_go(given.grant.principal)
        ending, self._ending = self._ending, []
        for given in ending:
            if self._uses.in_work(given.grant.number):
                self._ending.append(given)
            else:
                self._release(given)

    def _withdraw(self, place: _Place, given: _Given, error: GateError | None) -> None:
        # First of all: from now on no worker begins anything under it.
        self._uses.withdraw(given.grant.number)
        if self._given.get(place) is given:
            del self._given[place], self._by_serial[given.grant.serial]
            self._ending.append(given)
        told: dict[str, Any] = {"withdrawn": given.grant.serial}
        if error is not None:
            told["error"] = write_error(error)
        self._tell(told)

    def _revoked(self, place: _Place, given: _Given) -> None:
        self._withdraw(place, given, None)
        who = given.grant.principal
        self._tell({"revoked": [who.issuer, who.subject, who.key_digest]})

    def _release(self, given: _Given) -> None:
        if given.lease is not None:
            given.lease.release()
        if given.unwatch is not None:
            given.unwatch()
        self._free.append(given.grant.number)
