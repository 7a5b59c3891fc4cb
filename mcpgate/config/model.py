"""
What ``gate.ini`` says, as one frozen value.

Values only, validated where they are made (`mcpgate.config.schema`); nothing here reads a file.
Durations are seconds, sizes bytes, rates `mcpgate.model.Rate`.  Rooms never get a `Config`: the
composition root hands each the plain values it needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from mcpgate.model import KIB, MIB, Rate, Secret, ServerSpec

Network = IPv4Network | IPv6Network

_TWENTY_A_MINUTE: Final = Rate(20 / 60, 20.0)
_TWO_HUNDRED_A_MINUTE: Final = Rate(200 / 60, 200.0)
_SUBNETS: Final = IPv4Network("10.213.0.0/16")
_PER_KEY: Final = Rate(20.0, 40.0)
_PER_ADDRESS: Final = Rate(50.0, 100.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSection:
    """
    ``[gate]``: where the gate listens and what the whole of it may use.

    :ivar listen: Twisted endpoint strings, perhaps with our prefix ``tls:`` (TLS by ``[tls]`` on
        top of the endpoint that follows) or ``redirect:`` (answers only redirects to HTTPS).
    :ivar public_url: scheme and authority clients use, without a slash at the end; may be empty.
    :ivar allowed_hosts: lower-case names accepted in Host, beside that of ``public_url`` and the
        listeners' own; ``*.example.org`` covers one label; ``*`` accepts every name.
    :ivar server_hosts: names with one ``*`` in the first label: where it stands, a server's name.
    :ivar allowed_origins: origins (``https://app.example.org``) browsers may call from.
    :ivar workers: processes that take clients' connections; 1: this one does it itself.
    :ivar max_connections: 0 means: as many as the limit of open files leaves room for.
    :ivar body_min_rate: bytes per second a request body must reach after a grace of 5 s.
    :ivar memory_budget_bytes: sum of the memory limits of running instances; 0 = no budget.
    :ivar max_running: running instances over all servers; 0 = no cap.
    """

    listen: tuple[str, ...] = ("tls:tcp:8443:interface=127.0.0.1",)
    public_url: str = ""
    state_dir: Path = Path()
    drain_s: float = 60.0
    trusted_proxies: tuple[Network, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    server_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    aggregate: bool = True
    include: tuple[Path, ...] = ()
    tools_pinned: str = "warn"
    http2: bool = False
    workers: int = 1
    max_connections: int = 0
    max_connections_per_address: int = 64
    requests_per_connection: int = 1000
    connection_lifetime_s: float = 3600.0
    max_body_bytes: int = 4 * MIB
    body_budget_bytes: int = 64 * MIB
    max_header_bytes: int = 16 * KIB
    header_s: float = 10.0
    body_s: float = 60.0
    body_min_rate: int = KIB
    idle_s: float = 75.0
    slow_reader_s: float = 30.0
    session_idle_s: float = 3600.0
    sessions_per_key: int = 32
    sessions_total: int = 10_000
    sse_keepalive_s: float = 25.0
    streams_per_key: int = 16
    memory_budget_bytes: int = 0
    max_running: int = 0
    start_parallel: int = 4
    start_queue: int = 100
    sweep_s: float = 60.0


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """A PEM certificate chain and the PEM private key that belongs to it."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSection:
    """
    ``[tls]``: what the ``tls:`` listeners present.

    :ivar certificates: the first is the one for clients that name no host.
    :ivar self_signed: make one in the state directory when ``certificates`` is empty.
    :ivar names: DNS names and addresses of the self-signed certificate.
    :ivar min_version: ``1.2`` or ``1.3``.
    """

    certificates: tuple[CertificatePair, ...] = ()
    self_signed: bool = True
    names: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")
    min_version: str = "1.2"
    handshake_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticSource:
    """
    ``[auth:NAME]`` with ``type = static``: keys listed in a file.

    :ivar servers: names of the servers it lets people use; None means every server.
    """

    name: str
    servers: frozenset[str] | None = None
    keys_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSource:
    """
    ``[auth:NAME]`` with ``type = remote``: another service is asked about each new key.

    :ivar headers: names and templates; ``{key}`` is the caller's credential.
    :ivar body: template of the request body; empty for none.  ``{key}`` is put in JSON-escaped.
    :ivar expect_status: answers that mean the key is good.
    :ivar user_field: dotted path into the JSON answer (``data.user.id``); empty: the subject is
        the key's fingerprint.
    :ivar breaker_failures: this many failures in a row stop asking for ``breaker_open_s``.
    :ivar ca_file: PEM file of the authorities to trust instead of the system's.
    :ivar allow_private: ``url`` may lead to a loopback or private address.
    """

    name: str
    servers: frozenset[str] | None = None
    url: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: str = field(default="", repr=False)
    expect_status: tuple[int, ...] = (200,)
    user_field: str = ""
    timeout_s: float = 5.0
    max_answer_bytes: int = 256 * KIB
    breaker_failures: int = 5
    breaker_open_s: float = 30.0
    ca_file: Path | None = None
    allow_private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AnonymousSource:
    """
    ``[auth:NAME]`` with ``type = none``: everybody is one anonymous principal.

    :ivar allow_public: allowed although a listener is reachable from other machines.
    """

    name: str
    servers: frozenset[str] | None = None
    allow_public: bool = False


AuthSource = StaticSource | RemoteSource | AnonymousSource


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSection:
    """
    ``[auth]`` and its sources.

    :ivar sources: in the order they are asked.
    :ivar headers: lower-case names of fields that may carry the key, beside ``authorization`` and
        ``x-api-key``.
    :ivar cache_s: a good key is not asked about again for this long.
    :ivar negative_s: a bad key is refused without asking for this long.
    :ivar stale_s: a good key passes for this long while its source can not answer.
    :ivar failures_per_address: bad keys one address may try; then ``lockout_s`` without asking.
    :ivar global_failures: bad keys all addresses together may try.
    """

    sources: tuple[AuthSource, ...] = ()
    headers: tuple[str, ...] = ()
    realm: str = "mcpgate"
    cache_s: float = 60.0
    negative_s: float = 30.0
    stale_s: float = 300.0
    failures_per_address: Rate = _TWENTY_A_MINUTE
    lockout_s: float = 900.0
    global_failures: Rate = _TWO_HUNDRED_A_MINUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSection:
    """
    ``[limits]``: how often and how much at once.

    :ivar per_key: calls of one key; None = no limit.
    :ivar per_address: requests of one address, before authentication; None = no limit.
    :ivar per_server: calls of all keys together, for servers without ``rate``; None = no limit.
    :ivar concurrent_per_key: requests of one key in work at once; 0 = no limit.
    :ivar start_cost: tokens of ``per_key`` that a cold start takes.
    :ivar call_cost: tokens of ``per_key`` that any other request takes.
    :ivar max_buckets: keys and addresses remembered; the longest unused are forgotten.
    """

    per_key: Rate | None = _PER_KEY
    per_address: Rate | None = _PER_ADDRESS
    per_server: Rate | None = None
    concurrent_per_key: int = 64
    start_cost: float = 10.0
    call_cost: float = 1.0
    max_buckets: int = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerSection:
    """
    ``[docker]``: the container engine.

    :ivar url: empty: as the ``docker`` command finds it.
    :ivar gate_id: empty: a random one, kept in the state directory.
    :ivar reach: ``address`` or ``published``.
    :ivar firewall: who puts up the rules: ``gate`` or ``admin``.
    :ivar on_stop: ``keep`` or ``stop``.
    :ivar files_dir: None: where the system keeps such things in memory.
    """

    url: str = ""
    gate_id: str = ""
    subnets: IPv4Network = _SUBNETS
    reach: str = "address"
    firewall: str = "gate"
    on_stop: str = "keep"
    files_dir: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSection:
    """
    ``[admin]``: who may see statistics.

    :ivar listen: own listeners; empty: the admin paths are on the main ones.
    :ivar users_file: lines ``name:hash``.
    :ivar user: one user named here instead of in a file; empty for none.
    :ivar password: its password, in clear; or None.
    :ivar password_hash: its hashed password; or empty.
    :ivar allow: networks the admin paths answer to.
    """

    listen: tuple[str, ...] = ()
    users_file: Path | None = None
    user: str = ""
    password: Secret | None = None
    password_hash: str = field(default="", repr=False)
    allow: tuple[Network, ...] = ()
    stats: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSection:
    """
    ``[log]``.

    :ivar format: ``text`` or ``json``.
    :ivar to: ``stdout``, ``syslog`` or an absolute path.
    :ivar level: ``debug``, ``info``, ``warn`` or ``error``.
    :ivar access: ``on`` (beside the rest), ``off`` or an absolute path.
    """

    format: str = "text"
    to: str = "stdout"
    level: str = "info"
    access: str = "on"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSource:
    """
    A ``${...}`` that was put in place: its value must never be shown.

    :ivar kind: ``env``, ``file`` or ``credential``.
    :ivar name: the variable, path or credential.
    """

    kind: str
    name: str
    value: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """
    The whole of one ``gate.ini``.

    :ivar path: the file it came from, absolute.
    :ivar groups: addresses of several servers; ``aggregate`` of ``[gate]`` is one named ``mcp``.
    :ivar sources: every ``${...}`` used, once each; see `secrets`.
    :ivar notes: what of included files could not be taken over.
    """

    path: Path = Path("gate.ini")
    gate: GateSection = field(default_factory=GateSection)
    tls: TLSSection = field(default_factory=TLSSection)
    auth: AuthSection = field(default_factory=AuthSection)
    limits: LimitsSection = field(default_factory=LimitsSection)
    docker: DockerSection = field(default_factory=DockerSection)
    admin: AdminSection = field(default_factory=AdminSection)
    log: LogSection = field(default_factory=LogSection)
    servers: tuple[ServerSpec, ...] = ()
    groups: tuple[ServerSpec, ...] = ()
    sources: tuple[SecretSource, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Give every value a redactor must know."""
        return tuple(source.value for source in self.sources)

    def server(self, name: str) -> ServerSpec | None:
        """Give the ``[server:NAME]`` of that name, if there is one."""
        return next((spec for spec in self.servers if spec.name == name), None)
