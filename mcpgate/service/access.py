"""Who may call, put together from ``[auth]`` and ``[limits]``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from mcpgate.config.model import (
    AnonymousSource,
    AuthSection,
    AuthSource,
    Config,
    RemoteSource,
    StaticSource,
)
from mcpgate.gate.access.anyof import AnonymousAuthenticator, AnyOf
from mcpgate.gate.access.breaker import Breaker
from mcpgate.gate.access.budget import FailureBudget
from mcpgate.gate.access.cached import CachedAuthenticator, Memory
from mcpgate.gate.access.digest import KeyDigest
from mcpgate.gate.access.lockout import Lockout
from mcpgate.gate.access.revocation import Revocations
from mcpgate.gate.access.static import Apart, StaticAuthenticator
from mcpgate.gate.admission import Admission, RateLimiter, Slots
from mcpgate.gate.pipeline import Gate
from mcpgate.interfaces import IAuthenticator, IRateLimiter, ISlots
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred
from mcpgate.web.workers.buckets import SharedBuckets
from mcpgate.web.workers.places import SharedPlaces
from mcpgate.web.workers.tables import Tables

if TYPE_CHECKING:
    from mcpgate.gate.access.outbound import OutboundClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """
    Everything that decides about callers.

    :ivar reload: reads key files again, whatever their date.
    :ivar refresh: reads those that changed; cheap.
    :ivar sweep: asks again about keys that only streams depend on.
    """

    gate: Gate
    revocations: Revocations
    reload: Callable[[], Deferred[None]]
    refresh: Callable[[], Deferred[None]]
    sweep: Callable[[], None]
    close: Callable[[], Any]


def make_access(
    reactor: Any,
    config: Config,
    digest: KeyDigest,
    meters: Meters,
    apart: Apart,
    tables: Tables | None = None,
) -> Access:
    """
    Put the sources of ``[auth]`` together.

    :param apart: see `StaticAuthenticator`.
    :param tables: what workers share with this process, where there are any: their requests count
        too.
    :raises KeyFileError: a key file is there and can not be used.
    """
    auth, limits = config.auth, config.limits
    revocations = Revocations()
    sources: list[IAuthenticator] = []
    statics: list[StaticAuthenticator] = []
    caches: list[CachedAuthenticator] = []
    clients: list[OutboundClient] = []
    for source in auth.sources:
        if isinstance(source, StaticSource):
            static = StaticAuthenticator(
                source.name,
                source.keys_file,
                digest,
                revocations,
                servers=source.servers,
                apart=apart,
            )
            statics.append(static)
            sources.append(static)
        elif isinstance(source, RemoteSource):
            client, cached = _remote(reactor, auth, source, digest, revocations, meters)
            clients.append(client)
            caches.append(cached)
            sources.append(cached)
        else:
            sources.append(_anonymous(source, auth.sources, digest))
    slots: ISlots = Slots()
    limiter: IRateLimiter = RateLimiter(reactor, limits.max_buckets)
    if tables is not None:
        slots = SharedPlaces(tables.places, 0)
        limiter = SharedBuckets(time.monotonic, tables.buckets, limiter)
    gate = Gate(
        authenticator=sources[0] if len(sources) == 1 else AnyOf(sources),
        lockout=Lockout(reactor, meters, rate=auth.failures_per_address, lockout_s=auth.lockout_s),
        admission=Admission(
            limiter,
            slots,
            per_key=limits.per_key,
            per_address=limits.per_address,
            per_server=limits.per_server,
            concurrent_per_key=limits.concurrent_per_key,
            start_cost=limits.start_cost,
            call_cost=limits.call_cost,
        ),
        slots=slots,
        revocations=revocations,
        meters=meters,
        realm=auth.realm,
        headers=tuple(name.encode("ascii") for name in auth.headers),
        anonymous=any(isinstance(source, AnonymousSource) for source in auth.sources),
    )

    @deferred
    async def reload() -> None:
        for static in statics:
            await static.reload()

    @deferred
    async def refresh() -> None:
        for static in statics:
            await static.reload_if_changed()

    def sweep() -> None:
        for cached in caches:
            cached.sweep()

    def close() -> None:
        for client in clients:
            client.close()

    return Access(
        gate=gate,
        revocations=revocations,
        reload=reload,
        refresh=refresh,
        sweep=sweep,
        close=close,
    )


def _anonymous(
    source: AnonymousSource, sources: tuple[AuthSource, ...], digest: KeyDigest
) -> AnonymousAuthenticator:
    return AnonymousAuthenticator(
        source.name, digest, servers=source.servers, only_without_key=len(sources) > 1
    )


def _remote(
    reactor: Any,
    auth: AuthSection,
    source: RemoteSource,
    digest: KeyDigest,
    revocations: Revocations,
    meters: Meters,
) -> tuple[OutboundClient, CachedAuthenticator]:
    # With all that HTTP needs, which is much: only a gate that asks somebody has it.
    from mcpgate.gate.access.remote import RemoteCheck, make_remote  # noqa: PLC0415

    asked, client = make_remote(
        reactor,
        source.name,
        RemoteCheck(
            url=source.url,
            method=source.method,
            headers=source.headers,
            body=source.body,
            expect_status=source.expect_status,
            user_field=source.user_field,
            timeout_s=source.timeout_s,
            max_answer_bytes=source.max_answer_bytes,
            ca_file=source.ca_file,
            allow_private=source.allow_private,
        ),
        digest,
        meters=meters,
        servers=source.servers,
    )
    # Inside out: ask; not while the API is down; not too often for strangers; remember.
    guarded = FailureBudget(
        Breaker(
            asked,
            reactor,
            name=source.name,
            failures=source.breaker_failures,
            open_s=source.breaker_open_s,
        ),
        reactor,
        digest,
        meters=meters,
        rate=auth.global_failures,
    )
    memory = Memory(ttl_s=auth.cache_s, negative_ttl_s=auth.negative_s, stale_ok_s=auth.stale_s)
    return client, CachedAuthenticator(
        guarded, reactor, digest, revocations, issuer=source.name, memory=memory
    )
