"""What workers may do by themselves, put together from ``[gate]``, ``[auth]`` and ``[limits]``."""

from __future__ import annotations

from mcpgate.config.model import AnonymousSource, Config
from mcpgate.model import Rate
from mcpgate.web.workers.assignment import GrantRules


def grant_rules(config: Config, digest_key: bytes) -> GrantRules:
    """
    Give what holds for all requests that workers serve by themselves.

    Nothing of it changes before the gate is started again.
    """
    gate, auth, limits = config.gate, config.auth, config.limits
    return GrantRules(
        digest_key=digest_key.hex(),
        headers=tuple(auth.headers),
        anonymous=any(isinstance(source, AnonymousSource) for source in auth.sources),
        per_key=_pair(limits.per_key),
        per_server=_pair(limits.per_server),
        concurrent_per_key=limits.concurrent_per_key,
        call_cost=limits.call_cost,
        keepalive_s=gate.sse_keepalive_s,
        allowed_origins=tuple(gate.allowed_origins),
        trusted_proxies=tuple(str(network) for network in gate.trusted_proxies),
        public_url=gate.public_url,
        server_hosts=tuple(gate.server_hosts),
    )


def _pair(rate: Rate | None) -> tuple[float, float] | None:
    return None if rate is None else (rate.per_s, rate.burst)
