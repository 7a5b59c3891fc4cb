"""What statistics show of instances, images and certificates: values, made when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

UNRESPONSIVE: Final = "unresponsive"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """
    One instance.

    :ivar owner: `mcpgate.model.Owner.label`: 8 hex digits of the key's digest, ``shared``
        or ``warm``.
    :ivar state: value of an `mcpgate.model.InstanceState`; `UNRESPONSIVE` of one that runs, and
        does not answer.
    :ivar uptime_s: seconds since it was started; None when it does not run.
    :ivar idle_s: seconds since it was last used; None when that is not known.
    :ivar heard_s: seconds since anything was heard of it; None when it does not run.
    :ivar calls: calls in work.
    :ivar image: of a container; empty for any other.
    :ivar memory_limit_bytes: 0 for none.
    :ivar oom_kills: processes killed in it for want of memory, since its start.
    :ivar exit_reason: how the one before ended, as `mcpgate.model.Exit` says it, and why the last
        start failed (``error``); both empty while all is well.
    """

    server: str
    owner: str
    state: str
    instance_id: str = ""
    user: str = ""
    uptime_s: float | None = None
    idle_s: float | None = None
    heard_s: float | None = None
    calls: int = 0
    starts: int = 0
    memory_bytes: int | None = None
    cpu_s: float | None = None
    processes: int | None = None
    image: str = ""
    memory_limit_bytes: int = 0
    oom_kills: int | None = None
    exit_reason: str = ""
    exit_code: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentView:
    """
    An OpenAPI document that is fetched.

    :ivar state: ``fetched``, ``copy`` (of an earlier life of the gate, not confirmed since) or
        ``missing``.
    :ivar fetched_at: wall clock, seconds; 0 when it is missing.
    :ivar error: why the last try failed, with the remedy; empty while all is well.
    """

    state: str
    fetched_at: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """
    One worker process.

    :ivar accepts: it is up and takes connections.
    :ivar connections: of clients, as it told last.
    :ivar longest_turn_s: for so long at most it answered nobody.
    """

    name: str
    pid: int
    accepts: bool
    connections: int
    age_s: float
    longest_turn_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """
    One entry of the configuration.

    :ivar kind: ``server`` or ``group``.
    :ivar era: what is known of the eras it speaks, in words.
    :ivar members: of a group.
    :ivar document: of a REST service whose OpenAPI document is fetched; None for any other.
    :ivar tools: whether they are as they were trusted, in words; empty where nobody looks.
    """

    name: str
    kind: str
    transport: str
    runtime: str
    isolation: str
    era: str = ""
    tools: str = ""
    members: tuple[str, ...] = ()
    document: DocumentView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogView:
    """
    What an instance wrote since somebody looked.

    :ivar cursor: to be shown at the next look; empty when none runs.
    :ivar ended: how the last one ended, when none runs.
    """

    lines: tuple[str, ...] = ()
    cursor: str = ""
    ended: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EraView:
    """
    Which eras of MCP a server speaks, as far as that is known.

    :ivar era: ``legacy``, ``modern``, ``dual`` or ``unknown``.
    :ivar pinned: the configuration says so.
    :ivar seen_at: wall clock of when it was seen last, seconds; 0 when it was not.
    """

    server: str
    era: str = "unknown"
    pinned: bool = False
    seen_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PinView:
    """
    How the tools of a server are to those that were trusted.

    :ivar mode: ``warn``, ``block`` or ``off``.
    :ivar tools: how many were trusted; 0 where no list was seen yet.
    :ivar pinned_at: wall clock of when they were, seconds; 0 when they were not.
    :ivar fingerprint: of the trusted list.
    :ivar added: names of tools that were not there then, some of them; ``changed``: of those that
        show themselves differently; ``removed``: of those that are missing.
    :ivar differing: how many these are in all.
    """

    server: str
    mode: str
    tools: int = 0
    pinned_at: float = 0.0
    fingerprint: str = ""
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    differing: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageView:
    """
    One image of the configuration.

    :ivar servers: who uses it.
    :ivar state: ``present``, ``missing``, ``pulling``, or ``unknown`` before the engine answered.
    :ivar digest: of the registry, or the image's own id where it came from no registry.
    :ivar pull: ``never``, ``at-start`` or ``on-demand``.
    :ivar progress: what a pull under way said last; ``percent`` of what is known to be fetched.
    :ivar error: why the last pull failed.
    """

    name: str
    servers: tuple[str, ...] = ()
    state: str = "unknown"
    digest: str = ""
    size_bytes: int | None = None
    pull: str = "never"
    progress: str = ""
    percent: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """
    A thing a clean-up removed, or would remove.

    :ivar kind: ``container``, ``network``, ``files`` (of servers, in memory) or ``data``.
    :ivar error: why it could not be removed.
    """

    kind: str
    name: str
    why: str
    server: str = ""
    owner: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """
    The container engine.

    :ivar answering: it did when it was last asked.
    :ivar waiting: calls that wait for an answer.
    :ivar calls: so far, by outcome.
    """

    answering: bool
    waiting: int
    calls: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateView:
    """
    One certificate presented to clients.

    :ivar expires_at: wall clock, seconds.
    """

    name: str
    expires_at: float
