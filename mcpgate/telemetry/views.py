"""What statistics show of instances and certificates: values, made when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """
    One instance.

    :ivar owner: `mcpgate.model.Owner.label`: 8 hex digits of the key's digest, or ``shared``.
    :ivar state: value of an `mcpgate.model.InstanceState`.
    :ivar uptime_s: seconds since it was started; None when it does not run.
    :ivar idle_s: seconds since it was last used.
    :ivar calls: calls in work.
    """

    server: str
    owner: str
    state: str
    instance_id: str = ""
    user: str = ""
    uptime_s: float | None = None
    idle_s: float | None = None
    calls: int = 0
    starts: int = 0
    memory_bytes: int | None = None
    cpu_s: float | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateView:
    """
    One certificate presented to clients.

    :ivar expires_at: wall clock, seconds.
    """

    name: str
    expires_at: float
