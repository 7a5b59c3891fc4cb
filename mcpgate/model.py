"""
Frozen values that cross rooms: who calls, what is served, what runs, what is remembered.

Values only; no I/O, no clock, no Twisted.  Over 500 lines, because every room imports these, so
they stand together below all of them; most lines say what a field means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network
from typing import Final, NamedTuple, final

KIB: Final = 1024
_SPARE: Final = "warm-"
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB


@final
class Secret:
    """
    A text that must never be shown: ``repr``, ``str`` and ``format`` hide it.

    :ivar digest: what makes digests keeps the last one of this text here, beside itself.
    """

    __slots__ = ("_value", "digest")

    def __init__(self, value: str) -> None:
        self._value = value
        self.digest: tuple[object, str] | None = None

    def reveal(self) -> str:
        """Give the text itself; call this only where it is handed to its purpose."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)


class Principal(NamedTuple):
    """
    Who calls.  Made only by ``gate.access``; part of the key of every map that holds something
    of a caller (session, pool, stream, cache): a tuple, which is hashed quickly.

    :ivar issuer: the ``[auth:NAME]`` section that vouched for the key.
    :ivar subject: the user's name as the issuer knows it.
    :ivar key_digest: 32 hex digits, keyed hash of the credential: two keys of one user differ.
    """

    issuer: str
    subject: str
    key_digest: str

    @property
    def fingerprint(self) -> str:
        """The form for logs and statistics: 8 hex digits."""
        return self.key_digest[:8]


@dataclass(frozen=True, slots=True)
class Caller:
    """
    One request's identity: the principal and the credential that proved it.

    :ivar servers: names of the servers this caller may use; None means every server.
    """

    principal: Principal
    credential: Secret
    servers: frozenset[str] | None = None

    def may_use(self, server: str) -> bool:
        """Tell whether the named server is open to this caller."""
        return self.servers is None or server in self.servers


@dataclass(frozen=True, slots=True)
class Rate:
    """
    A token bucket's shape.

    :ivar per_s: tokens that come back per second.
    :ivar burst: tokens the full bucket holds.
    """

    per_s: float
    burst: float


@dataclass(frozen=True, slots=True)
class Decision:
    """
    A limiter's answer.

    :ivar retry_after_s: seconds until the same cost would be granted; 0 when allowed.
    :ivar remaining: whole tokens left.
    """

    allowed: bool
    retry_after_s: float = 0.0
    remaining: int = 0


class Isolation(Enum):
    """Who shares one running copy of a server."""

    SHARED = "shared"
    PER_KEY = "per-key"
    PER_SESSION = "per-session"


class Pinning(Enum):
    """What is done about tools that are not as they were when they were trusted (R66)."""

    OFF = "off"
    WARN = "warn"
    BLOCK = "block"


class Transport(Enum):
    """How the gate speaks to a server: ``sse`` is that of 2024-11-05, ``rest`` no MCP at all."""

    GROUP = "group"
    STDIO = "stdio"
    HTTP = "http"
    SSE = "sse"
    REST = "rest"

    @property
    def listens(self) -> bool:
        """Tell whether the server is a listener, and not a child behind pipes."""
        return self is not Transport.STDIO


class Eras(Enum):
    """Which eras of MCP a server speaks, as the configuration says."""

    AUTO = "auto"
    LEGACY = "legacy"
    MODERN = "modern"
    DUAL = "dual"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restraint:
    """
    What one running instance may use.  0 means no limit.

    :ivar memory_bytes: data segment limit of a process, memory limit of a container.
    :ivar cpus: cores, as a fraction.
    :ivar pids: processes and threads.
    :ivar open_files: file descriptors.
    :ivar file_bytes: largest file it may write.
    """

    memory_bytes: int = 256 * MIB
    cpus: float = 0.3
    pids: int = 128
    open_files: int = 1024
    file_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """
    When an instance starts, stops and is forgotten; seconds.

    :ivar start_s: deadline from start to readiness.
    :ivar start_wait_s: how long one caller waits for a start before it is told ``starting``.
    :ivar idle_stop_s: without a call or a byte for this long, the instance is stopped; 0 = never.
    :ivar remove_s: stopped for this long, what is left of it is removed.
    :ivar stop_grace_s: each step of stopping (stdin closed, TERM, KILL) waits this long.
    :ivar health_interval_s: one that was not heard of for this long is asked whether it is well;
        0 = never.
    :ivar health_timeout_s: how long it has for the answer.
    :ivar health_failures: questions in a row without one, before it may be replaced.
    """

    start_s: float = 90.0
    start_wait_s: float = 60.0
    idle_stop_s: float = 900.0
    remove_s: float = 7 * 86400.0
    stop_grace_s: float = 5.0
    health_interval_s: float = 60.0
    health_timeout_s: float = 10.0
    health_failures: int = 3


@dataclass(frozen=True, slots=True)
class Destination:
    """
    Something a container may reach over TCP.

    :ivar host: a name, or an IPv4 address or network.
    :ivar port: 0: every one.
    """

    host: str
    port: int = 0

    @property
    def network(self) -> IPv4Network | None:
        """Its addresses, unless it is a name."""
        try:
            return IPv4Network(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        """Write it as in the configuration."""
        return f"{self.host}:{self.port}" if self.port else self.host


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """
    What a server in a container has beyond any other.

    :ivar image: name, tag or digest as the engine knows it.
    :ivar pull: ``never``, ``at-start`` (of the gate) or ``on-demand`` (at the first call).
    :ivar entrypoint: instead of the image's; empty keeps it.
    :ivar port: where an HTTP server listens inside its container.
    :ivar user: ``UID[:GID]`` or a name the image knows; empty: the image's, or nobody for root.
    :ivar egress: what it reaches: ``none``, ``allow-list`` (`egress_to`) or ``internet``.
    :ivar egress_to: what ``allow-list`` lists.
    :ivar data: ``per-key``: a folder of its owner is mounted at ``{data_dir}``; ``none``.
    :ivar volumes: ``HOST:CONTAINER`` or ``HOST:CONTAINER:rw``, absolute paths.
    :ivar tmp_bytes: size of ``/tmp``, in memory.
    :ivar key_in_env: ``{key}`` may stand in ``env``, where the engine shows it to who may ask it.
    """

    image: str = ""
    pull: str = "never"
    entrypoint: tuple[str, ...] = ()
    port: int = 8000
    user: str = ""
    egress: str = "none"
    egress_to: tuple[Destination, ...] = ()
    data: str = "none"
    volumes: tuple[str, ...] = ()
    tmp_bytes: int = 64 * MIB
    key_in_env: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """
    Several servers at one address.

    :ivar servers: their names, in the order of their tools.
    :ivar alias: what clients call the address: hosts put ``mcp__ALIAS__`` before each tool.
    :ivar allow: patterns of ``SERVER__TOOL`` that are shown; empty: every one.
    :ivar deny: patterns of those that are not.
    :ivar rename: what a ``SERVER__TOOL`` is called instead.
    :ivar page_size: items of a list in one answer; 0: all.
    """

    servers: tuple[str, ...] = ()
    alias: str = "mcpgate"
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    page_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RESTParameter:
    """
    One parameter of an operation of a REST service.

    :ivar argument: the tool's argument that holds its value.
    :ivar place: ``path``, ``query`` or ``header``.
    :ivar style: how arrays and objects are written, in the words of OpenAPI; ``json``: as JSON.
    :ivar explode: their values are separate, not one list.
    """

    argument: str
    name: str
    place: str
    style: str
    explode: bool
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RESTOperation:
    """
    One operation of a REST service, and the tool it is.

    :ivar path: with ``{NAME}`` where parameters of the path stand.
    :ivar body: the tool's argument that is the body; empty when there is none.
    :ivar media: the body's media type.
    :ivar tool: the tool as clients see it, in JSON.
    """

    name: str
    method: str
    path: str
    parameters: tuple[RESTParameter, ...] = ()
    body: str = ""
    body_required: bool = False
    media: str = ""
    tool: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RESTService:
    """
    A REST service as its OpenAPI document describes it.

    :ivar instructions: what the document says of the whole.
    :ivar left_out: why operations have become no tools, a line each.
    """

    title: str
    version: str
    instructions: str = field(repr=False)
    operations: tuple[RESTOperation, ...] = field(repr=False)
    left_out: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RESTSource:
    """
    Where the document of a REST service is fetched.

    :ivar refresh_s: it is asked for again this often; 0: never once it was fetched.
    :ivar allow: patterns of the tools that are made, empty: all; ``deny``: of those that are not.
    :ivar names_base: the document says where the service's paths begin.
    :ivar allow_private: ``url`` may lead to a loopback or private address.
    """

    url: str
    refresh_s: float = 3600.0
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    names_base: bool = True
    allow_private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """
    One ``[server:NAME]``: what to run or where to connect, for whom, within which bounds.

    Texts in ``command``, ``env``, ``files`` and ``headers`` may hold ``{key}`` (the caller's
    credential), ``{user}`` (its subject), ``{port}`` (HTTP servers), ``{data_dir}`` and
    ``{files_dir}``, filled in by `fill` at launch or per request.  ``{key}`` is refused in
    ``command`` by the configuration reader: arguments show in process lists.

    :ivar runtime: ``process`` or ``docker`` (started by the gate), ``remote`` (``url`` is
        called), or ``group``: nothing is run, it stands for the servers of ``group``.
    :ivar container: for the runtime ``docker``; ``command`` then holds the image's arguments.
    :ivar url: of a remote server: its MCP endpoint, absolute; of HTTP+SSE its event stream.
    :ivar mcp_path: of an HTTP server started by the gate: the path of the same.
    :ivar ready_path: path probed for readiness; any HTTP answer below 500 counts.
    :ivar era: what it speaks; found out when the configuration does not say.
    :ivar call_timeout_s: a request without an answer for this long fails.
    :ivar call_timeout_max_s: the same, however much progress was reported.
    :ivar max_instances: running copies of this server over all owners; 0 = no cap.
    :ivar max_calls: calls in work at once per instance.
    :ivar pool_lost_sessions: serve clients that drop their session id from their last session.
    :ivar warm: copies without an owner that are kept ready for whoever comes.
    :ivar prestart: a key's copy is started when the key is first seen, whatever it asks for.
    :ivar snapshot: who may be shown what the server said of itself, while it does not run:
        ``auto``, ``per-key``, ``shared`` or ``off``.
    :ivar tools_pinned: what becomes of tools that are not as they were trusted.
    :ivar sse: the gate serves HTTP+SSE at ``/NAME/sse`` and ``/NAME/messages`` itself.
    :ivar openapi_face: its tools are served as REST too, with an OpenAPI document.
    :ivar group: for the runtime ``group``: whom it stands for.
    :ivar rest: with the transport ``rest``: what ``url`` offers; ``url`` is where paths begin.
        None while its document has not been fetched.
    :ivar rest_source: where that document is fetched; None: it is a file, read already.
    :ivar forward_headers: lower-case names of client fields passed to the server on relay.
    """

    name: str
    transport: Transport
    runtime: str = "process"
    command: tuple[str, ...] = ()
    cwd: str = ""
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    files: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    forward_headers: tuple[str, ...] = ()
    url: str = ""
    mcp_path: str = "/mcp"
    ready_path: str = ""
    isolation: Isolation = Isolation.PER_KEY
    restraint: Restraint = field(default_factory=Restraint)
    lifetime: Lifetime = field(default_factory=Lifetime)
    container: Container = field(default_factory=Container)
    era: Eras = Eras.AUTO
    call_timeout_s: float = 60.0
    call_timeout_max_s: float = 600.0
    max_instances: int = 0
    max_calls: int = 64
    rate: Rate | None = None
    pool_lost_sessions: bool = True
    snapshot: str = "auto"
    tools_pinned: Pinning = Pinning.WARN
    warm: int = 0
    prestart: bool = False
    max_body_bytes: int = 4 * MIB
    sse: bool = True
    openapi_face: bool = True
    relay: bool = True
    relay_body_bytes: int = 0
    group: Group | None = None
    rest: RESTService | None = None
    rest_source: RESTSource | None = None

    @property
    def told_caller(self) -> bool:
        """Tell whether the server is told who calls, so that it may answer each differently."""
        texts = [*self.command, self.cwd]
        for pairs in (self.env, self.files, self.headers):
            texts += [text for _, text in pairs]
        named = any(blank in text for text in texts for blank in ("{key}", "{user}"))
        return named or bool(self.forward_headers)


def fill(template: str, values: dict[str, str]) -> str:
    """
    Put values in place of ``{name}``; unknown names stay as they are.

    One pass: a value that itself holds braces is never read again.
    """
    if "{" not in template:
        return template
    out: list[str] = []
    rest = template
    while True:
        before, brace, after = rest.partition("{")
        out.append(before)
        if not brace:
            return "".join(out)
        name, closing, tail = after.partition("}")
        if closing and name in values:
            out.append(values[name])
            rest = tail
        else:
            out.append("{")
            rest = after


@dataclass(frozen=True, slots=True)
class Owner:
    """
    Whose instance it is: everybody's, one key's, or one session's.

    :ivar digest: empty for shared; the principal's key digest; or that and the session's id
        digest joined by a slash.  Of a copy that is nobody's yet: ``warm-`` and an id.
    """

    isolation: Isolation
    digest: str = ""

    @classmethod
    def nobody(cls, isolation: Isolation, spare_id: str) -> Owner:
        """Make the owner of one spare copy, until it is given to somebody."""
        return cls(isolation, _SPARE + spare_id)

    @property
    def is_nobody(self) -> bool:
        """Tell whether what it owns is spare: nobody's yet."""
        return self.digest.startswith(_SPARE)

    @property
    def label(self) -> str:
        """The form for logs and statistics."""
        return "warm" if self.is_nobody else self.digest[:8] or "shared"


@dataclass(frozen=True, slots=True)
class InstanceKey:
    """What the pool keys its records by."""

    server: str
    owner: Owner


class InstanceState(Enum):
    """Where an instance is in its life."""

    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """
    What a start needs beyond the spec.  Holds secrets: never logged.

    :ivar instance_id: unique per start, safe in file and container names.
    :ivar values: what `fill` puts in place (``key``, ``user``, ``data_dir``, ``files_dir``);
        the runtime adds ``port``.
    """

    instance_id: str
    key: InstanceKey
    values: dict[str, Secret]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """
    How an instance ended.

    :ivar code: exit status, or None when ended by a signal or unknown.
    :ivar reason: ``exited``, ``killed``, ``oom_killed``, ``stopped`` (by us), ``lost``,
        ``port_taken`` (by another program between choosing and listening: start again).
    :ivar stderr_tail: last lines it wrote, newest last.
    """

    code: int | None = None
    signal: int | None = None
    reason: str = "exited"
    stderr_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """
    What an instance uses now; None where it can not be told.

    :ivar oom_kills: processes the kernel killed in it for want of memory, since its start.
    """

    memory_bytes: int | None = None
    cpu_s: float | None = None
    processes: int | None = None
    oom_kills: int | None = None


@dataclass(frozen=True, slots=True)
class SessionKey:
    """A session is found only together with the principal it belongs to."""

    principal: Principal
    session_id: str


@dataclass(slots=True, kw_only=True)
class SessionRecord:
    """
    One client session as the stores keep it.  The only mutable value here: `SessionTable` owns
    it and writes it behind.

    :ivar key: principal and the gate's own session id.
    :ivar initialize_params: the client's ``initialize`` params as JSON bytes, replayed when the
        server forgot.
    :ivar revision: the negotiated protocol version.
    :ivar upstream_session: the server's own id; never shown to a client.
    :ivar upstream_instance: instance id that ``upstream_session`` belongs to.
    :ivar initialized: the client (or the gate for it) sent ``notifications/initialized``.
    :ivar id_returned: the client sent the id back at least once.
    :ivar log_level: last ``logging/setLevel``.
    :ivar subscriptions: resource URIs subscribed to.
    :ivar created_at: wall clock, seconds.
    :ivar last_used_at: wall clock, seconds.
    """

    key: SessionKey
    server: str
    initialize_params: bytes
    revision: str
    created_at: float
    last_used_at: float
    upstream_session: str = ""
    upstream_instance: str = ""
    initialized: bool = False
    id_returned: bool = False
    log_level: str = ""
    subscriptions: tuple[str, ...] = ()
