"""
Every section and key of ``gate.ini``: kind, default and effect, once.

Reading, nearest names, the reference page and the test of the example file all follow this table.
Over 500 lines, because it is a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mcpgate.config import kinds
from mcpgate.config.kinds import Kind, choice, duration, integer, number, output, size
from mcpgate.model import KIB, MIB

GIB: Final = 1024 * MIB

RESERVED_SERVERS: Final = frozenset(
    "health ready stats metrics dashboard servers mcp sse messages admin .well-known register "
    "authorize token".split()
)
FIRST_VERSION: Final = "0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """
    :ivar name: as typed; ``env.NAME`` stands for any name after the dot.
    :ivar into: the field of the section's value (dotted for a value in a value); empty where
        more than one key makes the field.
    :ivar default: as one would type it; empty for none or for what ``default_note`` tells.
    :ivar only: the variants it is for, such as ``command image``; empty for all.
    :ivar shown: the value will be seen by other users of the machine (arguments of a process).
    :ivar plain: a variable put in here is no secret (paths, addresses).
    """

    name: str
    kind: Kind
    into: str = ""
    default: str = ""
    default_note: str = ""
    effect: str
    only: str = ""
    shown: bool = False
    plain: bool = False
    since: str = FIRST_VERSION

    @property
    def open(self) -> bool:
        """Tell whether the user chooses what stands after the dot."""
        return self.name.endswith(".NAME")


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionSchema:
    """One kind of section; ``server:NAME`` may come any number of times."""

    name: str
    intro: str
    keys: tuple[Key, ...]

    @property
    def open(self) -> bool:
        """Tell whether the user names the section."""
        return self.name.endswith(":NAME")

    def find(self, name: str) -> Key | None:
        """Give the key of that name; ``env.TOKEN`` finds ``env.NAME``."""
        stem, dot, rest = name.partition(".")
        wanted = f"{stem}.NAME" if dot and rest else name
        for key in self.keys:
            if key.name == wanted and (key.open or key.name == name):
                return key
        return None

    def names(self) -> list[str]:
        """Give the names of all keys."""
        return [key.name for key in self.keys]


_YEAR: Final = 365 * 86400.0

GATE: Final = SectionSchema(
    name="gate",
    intro="Where the gate listens, and what the whole of it may use.",
    keys=(
        Key(
            name="listen",
            kind=kinds.LISTENERS,
            into="listen",
            default="tls:tcp:8443:interface=127.0.0.1",
            effect=(
                "Where to listen: Twisted endpoint strings, for TLS with ``tls:`` in front "
                "(certificates of ``[tls]``), for an answer that only redirects to HTTPS with "
                "``redirect:`` in front, for the PROXY protocol with "
                "``haproxy:`` after these. Without ``interface=`` every address is listened on."
            ),
            plain=True,
        ),
        Key(
            name="include",
            kind=kinds.PATHS,
            into="include",
            effect=(
                "Files of MCP servers in the form of other programs, such as ``mcpServers``; "
                "their servers are served as if they stood here. Keys of the gate may stand in "
                "an object ``mcpgate`` of each. ``mcpgate import`` shows what is made of them."
            ),
            plain=True,
        ),
        Key(
            name="aggregate",
            kind=kinds.FLAG,
            into="aggregate",
            default="on",
            effect=(
                "Show every server a key may use together at ``/mcp`` and ``/sse``, as a "
                "``[group:NAME]`` does."
            ),
        ),
        Key(
            name="tools_pinned",
            kind=choice("warn", "block", "off"),
            into="tools_pinned",
            default="warn",
            effect="What ``tools_pinned`` of a server is where it does not say.",
        ),
        Key(
            name="public_url",
            kind=kinds.ORIGIN,
            into="public_url",
            default_note="none: made from the Host of each request",
            effect="Scheme, host and port clients use; stands in redirects and metadata.",
            plain=True,
        ),
        Key(
            name="state_dir",
            kind=kinds.PATH,
            into="state_dir",
            default_note="``$STATE_DIRECTORY``, else ``~/.local/state/mcpgate``",
            effect="Directory for sessions, a self-signed certificate and the control socket.",
            plain=True,
        ),
        Key(
            name="drain_timeout",
            kind=duration(high_s=86400),
            into="drain_s",
            default="60s",
            effect="How long calls in work may go on after the gate was told to stop.",
        ),
        Key(
            name="trusted_proxies",
            kind=kinds.NETWORKS,
            into="trusted_proxies",
            effect=(
                "Peers whose ``X-Forwarded-For``, ``-Proto``, ``-Host``, ``-Prefix`` and "
                "``Forwarded`` are believed; from others these are ignored."
            ),
            plain=True,
        ),
        Key(
            name="allowed_hosts",
            kind=kinds.HOSTS,
            into="allowed_hosts",
            default_note="the host of ``public_url`` and the addresses listened on",
            effect=(
                "Host names served, beside the defaults; ``*.example.org`` covers one label, "
                "``*`` every name. Others get status 421."
            ),
            plain=True,
        ),
        Key(
            name="server_hosts",
            kind=kinds.SERVER_HOSTS,
            into="server_hosts",
            effect=(
                "Names of hosts that stand for a server or group each, ``*`` for its name: with "
                "``mcp-*.example.org``, ``notes`` is at ``https://mcp-notes.example.org/mcp``, too."
            ),
            plain=True,
        ),
        Key(
            name="allowed_origins",
            kind=kinds.ORIGINS,
            into="allowed_origins",
            effect="Origins whose pages may call from a browser. Others get status 403.",
            plain=True,
        ),
        Key(
            name="http2",
            kind=kinds.FLAG,
            into="http2",
            default="off",
            effect="Offer HTTP/2 on TLS listeners (needs the package ``h2``).",
        ),
        Key(
            name="workers",
            kind=kinds.WORKERS,
            into="workers",
            default="1",
            effect=(
                "Processes that take clients' connections (TLS, HTTP, slow readers) and hand "
                "requests to the one that owns servers and sessions. With 1 it does all itself."
            ),
        ),
        Key(
            name="max_connections",
            kind=integer(zero="half of the limit of open files"),
            into="max_connections",
            default="0",
            effect="Client connections in all; more are closed at once.",
        ),
        Key(
            name="max_connections_per_address",
            kind=integer(zero="no limit"),
            into="max_connections_per_address",
            default="64",
            effect="Client connections of one address; more are closed at once.",
        ),
        Key(
            name="requests_per_connection",
            kind=integer(zero="no limit"),
            into="requests_per_connection",
            default="1000",
            effect="After this many requests a connection is closed, between two requests.",
        ),
        Key(
            name="connection_lifetime",
            kind=duration(low_s=1, zero="no limit"),
            into="connection_lifetime_s",
            default="1h",
            effect="After this long a connection is closed, between two requests.",
        ),
        Key(
            name="max_body",
            kind=size(low=KIB, high=GIB),
            into="max_body_bytes",
            default="4MiB",
            effect="Largest JSON body of a request; more gets status 413.",
        ),
        Key(
            name="body_budget",
            kind=size(low=KIB, high=64 * GIB),
            into="body_budget_bytes",
            default="64MiB",
            effect="Bodies of all requests held in memory at once; beyond, status 503.",
        ),
        Key(
            name="max_header",
            kind=size(low=KIB, high=MIB),
            into="max_header_bytes",
            default="16KiB",
            effect="Largest request head; more gets status 431.",
        ),
        Key(
            name="header_timeout",
            kind=duration(low_s=0.1, high_s=600),
            into="header_s",
            default="10s",
            effect="A request head must be complete this long after its first byte (408).",
        ),
        Key(
            name="body_timeout",
            kind=duration(low_s=0.1, high_s=86400),
            into="body_s",
            default="60s",
            effect="A JSON body must be complete after this long (408).",
        ),
        Key(
            name="body_min_rate",
            kind=kinds.THROUGHPUT,
            into="body_min_rate",
            default="1KiB/s",
            effect="A JSON body slower than this after 5 s is given up (408).",
        ),
        Key(
            name="idle_timeout",
            kind=duration(low_s=1, high_s=86400),
            into="idle_s",
            default="75s",
            effect="A connection without a request is closed after this long.",
        ),
        Key(
            name="slow_reader_timeout",
            kind=duration(low_s=1, high_s=3600),
            into="slow_reader_s",
            default="30s",
            effect="A client that takes no byte of a waiting answer for this long is cut off.",
        ),
        Key(
            name="session_idle",
            kind=duration(low_s=1, high_s=_YEAR),
            into="session_idle_s",
            default="1h",
            effect="A session not used for this long is forgotten.",
        ),
        Key(
            name="sessions_per_key",
            kind=integer(low=1),
            into="sessions_per_key",
            default="32",
            effect="Sessions of one key; one more pushes out the longest unused.",
        ),
        Key(
            name="sessions_total",
            kind=integer(low=1),
            into="sessions_total",
            default="10000",
            effect="Sessions of all keys together.",
        ),
        Key(
            name="sse_keepalive",
            kind=duration(low_s=1, high_s=3600),
            into="sse_keepalive_s",
            default="25s",
            effect="A quiet event stream gets a comment line this often; below ``idle_timeout``.",
        ),
        Key(
            name="streams_per_key",
            kind=integer(zero="no limit"),
            into="streams_per_key",
            default="16",
            effect="Open event streams of one key; more get status 429.",
        ),
        Key(
            name="memory_budget",
            kind=size(low=MIB, zero="no budget"),
            into="memory_budget_bytes",
            default="0",
            effect=(
                "Sum of the memory limits of running instances. When it is reached, the longest "
                "idle instance is stopped to make room."
            ),
        ),
        Key(
            name="max_running",
            kind=integer(zero="no cap"),
            into="max_running",
            default="0",
            effect="Running instances of all servers together.",
        ),
        Key(
            name="start_parallel",
            kind=integer(low=1, high=1000),
            into="start_parallel",
            default="4",
            effect="Instances that may be starting at once.",
        ),
        Key(
            name="start_queue",
            kind=integer(high=100_000),
            into="start_queue",
            default="100",
            effect="Starts that may wait for their turn; beyond, callers are told to come later.",
        ),
        Key(
            name="sweep",
            kind=duration(low_s=1, high_s=3600),
            into="sweep_s",
            default="60s",
            effect="How often idle instances and old sessions are looked for.",
        ),
    ),
)

TLS: Final = SectionSchema(
    name="tls",
    intro="What the ``tls:`` listeners present.",
    keys=(
        Key(
            name="certificates",
            kind=kinds.CERTIFICATES,
            into="certificates",
            effect=(
                "PEM files, certificate chain and private key, one pair on each line "
                "(``CERT KEY`` or ``cert=CERT key=KEY``). The name a client asks for chooses; the "
                "first is for the others. Replaced files are taken up without a restart."
            ),
            plain=True,
        ),
        Key(
            name="self_signed",
            kind=choice("auto", "off"),
            default="auto",
            effect="``auto`` makes a certificate in ``state_dir`` when none is named.",
        ),
        Key(
            name="names",
            kind=kinds.HOSTS,
            into="names",
            default="localhost 127.0.0.1 ::1",
            effect="Names and addresses in the self-signed certificate.",
            plain=True,
        ),
        Key(
            name="min_version",
            kind=choice("1.2", "1.3"),
            into="min_version",
            default="1.2",
            effect="Oldest version of TLS that is spoken.",
        ),
        Key(
            name="handshake_timeout",
            kind=duration(low_s=0.1, high_s=600),
            into="handshake_s",
            default="10s",
            effect="A handshake not complete after this long is cut off.",
        ),
    ),
)

AUTH: Final = SectionSchema(
    name="auth",
    intro="How keys are checked. Each ``[auth:NAME]`` is a source that can vouch for a key.",
    keys=(
        Key(
            name="use",
            kind=kinds.NAMES,
            default_note="every ``[auth:NAME]``, in the order of the file",
            effect="Names of the sources, in the order they are asked.",
        ),
        Key(
            name="header",
            kind=kinds.KEY_HEADERS,
            into="headers",
            effect=(
                "HTTP fields that may carry the key beside ``Authorization: Bearer`` and "
                "``X-API-Key``, such as ``X-Outline-API-Key``."
            ),
        ),
        Key(
            name="realm",
            kind=kinds.REALM,
            into="realm",
            default="mcpgate",
            effect="What ``WWW-Authenticate`` names.",
        ),
        Key(
            name="cache_ttl",
            kind=duration(high_s=86400),
            into="cache_s",
            default="60s",
            effect="For this long a good key is not asked about again (a revoked one lives on).",
        ),
        Key(
            name="negative_ttl",
            kind=duration(high_s=86400),
            into="negative_s",
            default="30s",
            effect="A bad key is refused without asking again for this long.",
        ),
        Key(
            name="stale_ok",
            kind=duration(high_s=7 * 86400),
            into="stale_s",
            default="300s",
            effect="A key that was good passes for this long while its source can not answer.",
        ),
        Key(
            name="failures_per_address",
            kind=kinds.BUDGET,
            into="failures_per_address",
            default="20/min",
            effect="Bad keys from one address before it is locked out; good keys still pass.",
        ),
        Key(
            name="lockout",
            kind=duration(low_s=1, high_s=7 * 86400),
            into="lockout_s",
            default="15min",
            effect="How long unknown keys of a locked out address are refused unasked.",
        ),
        Key(
            name="global_failures",
            kind=kinds.BUDGET,
            into="global_failures",
            default="200/min",
            effect="Bad keys from all addresses before sources are asked no more for a while.",
        ),
    ),
)

AUTH_SOURCE: Final = SectionSchema(
    name="auth:NAME",
    intro=(
        "One source. ``NAME`` holds a-z, 0-9 and ``-``, and stands in the statistics as the "
        "issuer of the keys it vouches for."
    ),
    keys=(
        Key(
            name="type",
            kind=choice("static", "remote", "none"),
            default_note="must be given",
            effect=(
                "``static``: keys from a file. ``remote``: another service is asked. ``none``: "
                "no key is needed, everybody is the same anonymous user."
            ),
        ),
        Key(
            name="servers",
            kind=kinds.NAMES,
            default_note="every server",
            effect="Servers the keys of this source may use.",
        ),
        Key(
            name="keys_file",
            kind=kinds.PATH,
            into="keys_file",
            only="static",
            default_note="must be given",
            effect="The file of keys, written by ``mcpgate keys``.",
            plain=True,
        ),
        Key(
            name="url",
            kind=kinds.URL,
            into="url",
            only="remote",
            default_note="must be given",
            effect="What to ask; https, or http to this machine.",
        ),
        Key(
            name="method",
            kind=kinds.METHOD,
            into="method",
            only="remote",
            default="GET",
            effect="HTTP method of the question.",
        ),
        Key(
            name="header.NAME",
            kind=kinds.HEADER_VALUE,
            only="remote",
            effect="HTTP field of the question; ``{key}`` is the key: ``Bearer {key}``.",
        ),
        Key(
            name="body",
            kind=kinds.SECRET_BLOCK,
            into="body",
            only="remote",
            effect="Body of the question; ``{key}`` is the key.",
        ),
        Key(
            name="expect_status",
            kind=kinds.STATUSES,
            into="expect_status",
            only="remote",
            default="200",
            effect="Answers that mean the key is good. 401 and 403 mean it is bad; others tell "
            "nothing, and are taken as a failure of the source.",
        ),
        Key(
            name="user_field",
            kind=kinds.DOTTED,
            into="user_field",
            only="remote",
            default_note="none: the user is named by a digest of the key",
            effect="Where the JSON answer names the user, such as ``data.user.id``.",
        ),
        Key(
            name="timeout",
            kind=duration(low_s=0.1, high_s=60),
            into="timeout_s",
            only="remote",
            default="5s",
            effect="An answer later than this is a failure of the source.",
        ),
        Key(
            name="max_answer",
            kind=size(low=KIB, high=16 * MIB),
            into="max_answer_bytes",
            only="remote",
            default="256KiB",
            effect="A larger answer is a failure of the source.",
        ),
        Key(
            name="breaker_failures",
            kind=integer(low=1, high=1000),
            into="breaker_failures",
            only="remote",
            default="5",
            effect="After this many failures in a row the source is left alone for a while.",
        ),
        Key(
            name="breaker_open",
            kind=duration(low_s=0.1, high_s=3600),
            into="breaker_open_s",
            only="remote",
            default="30s",
            effect="How long it is left alone.",
        ),
        Key(
            name="ca_file",
            kind=kinds.FILE,
            into="ca_file",
            only="remote",
            default_note="the authorities the system trusts",
            effect="PEM file of the authorities that may have signed the source's certificate.",
            plain=True,
        ),
        Key(
            name="allow_private",
            kind=kinds.FLAG,
            into="allow_private",
            only="remote",
            default="off",
            effect="Let ``url`` lead to a loopback or private address.",
        ),
        Key(
            name="allow_public",
            kind=kinds.FLAG,
            into="allow_public",
            only="none",
            default="off",
            effect="Let everybody in although other machines can reach a listener.",
        ),
    ),
)

LIMITS: Final = SectionSchema(
    name="limits",
    intro="How often, and how much at once. Who asks for more is told when to come again.",
    keys=(
        Key(
            name="per_key",
            kind=kinds.PER_S,
            default="20/s",
            effect="Requests of one key.",
        ),
        Key(
            name="burst",
            kind=number(low=1),
            default="40",
            effect="Requests of one key at once, after a pause; at least ``start_cost``.",
        ),
        Key(
            name="per_address",
            kind=kinds.PER_S,
            default="50/s",
            effect="Requests of one address, counted before the key is looked at.",
        ),
        Key(
            name="address_burst",
            kind=number(low=1),
            default="100",
            effect="Requests of one address at once, after a pause.",
        ),
        Key(
            name="per_server",
            kind=kinds.PER_S,
            default="off",
            effect="Requests of all keys to one server, where it has no ``rate`` of its own.",
        ),
        Key(
            name="server_burst",
            kind=number(low=1),
            default_note="two seconds' worth",
            effect="Requests of all keys to one server at once, after a pause.",
        ),
        Key(
            name="concurrent_per_key",
            kind=integer(zero="no limit"),
            into="concurrent_per_key",
            default="64",
            effect="Requests of one key in work at once.",
        ),
        Key(
            name="start_cost",
            kind=number(high=1000),
            into="start_cost",
            default="10",
            effect="What a request that starts an instance takes of ``per_key``.",
        ),
        Key(
            name="call_cost",
            kind=number(high=1000),
            into="call_cost",
            default="1",
            effect="What any other request takes.",
        ),
        Key(
            name="max_buckets",
            kind=integer(low=100),
            into="max_buckets",
            default="100000",
            effect="Keys and addresses remembered; the longest unused are forgotten.",
        ),
    ),
)

DOCKER: Final = SectionSchema(
    name="docker",
    intro="The container engine, for servers with ``image``.",
    keys=(
        Key(
            name="url",
            kind=kinds.ENGINE,
            into="url",
            default_note="as the ``docker`` command finds it: ``DOCKER_HOST``, the context, "
            "``/var/run/docker.sock``",
            effect="Address of the engine: Docker, or Podman's socket.",
            plain=True,
        ),
        Key(
            name="gate_id",
            kind=kinds.GATE_ID,
            into="gate_id",
            default_note="random, kept in ``state_dir``",
            effect="Tells this gate's containers from those of other gates on the same engine.",
            plain=True,
        ),
        Key(
            name="subnets",
            kind=kinds.SUBNETS,
            into="subnets",
            default="10.213.0.0/16",
            effect="Addresses for the networks of containers, 16 to each.",
            plain=True,
        ),
        Key(
            name="reach",
            kind=choice("address", "published"),
            into="reach",
            default="address",
            effect=(
                "How the gate reaches HTTP servers: at the container's own address, or by a port "
                "published on 127.0.0.1 (rootless engines)."
            ),
        ),
        Key(
            name="firewall",
            kind=choice("gate", "admin"),
            into="firewall",
            default="gate",
            effect=(
                "Who keeps containers with a network from the host and private networks: the "
                "gate, with ``iptables`` (needs CAP_NET_ADMIN; without it they are not started), "
                "or you, by the rules in the guide."
            ),
        ),
        Key(
            name="on_stop",
            kind=choice("keep", "stop"),
            into="on_stop",
            default="keep",
            effect=(
                "What becomes of HTTP servers in containers when the gate stops: they run on for "
                "its next start, or are stopped."
            ),
        ),
        Key(
            name="files_dir",
            kind=kinds.PATH,
            into="files_dir",
            default_note="``$RUNTIME_DIRECTORY/files``, else a folder in ``/dev/shm``",
            effect="Where ``file.NAME`` of containers lie on the host; a tmpfs, so on no disk.",
            plain=True,
        ),
    ),
)

SERVER: Final = SectionSchema(
    name="server:NAME",
    intro=(
        "One MCP server, at ``/NAME/mcp``. ``command`` (the gate starts it), ``image`` (it starts "
        "it in a container) or ``url`` (it runs elsewhere). ``NAME`` holds a-z, 0-9 and ``-``, 40 "
        "at most. Templates: ``{key}`` is "
        "the caller's key, ``{user}`` its name, ``{port}`` the port an HTTP server shall listen "
        "on, ``{data_dir}`` and ``{files_dir}`` directories of the instance."
    ),
    keys=(
        Key(
            name="command",
            kind=kinds.COMMAND,
            into="command",
            effect=(
                "Program and arguments, split as a shell does, run without one. No ``{key}``: "
                "arguments show in process lists. A program named by a relative path is looked "
                "for from the directory of this file, one without a slash on ``PATH``. With "
                "``image`` these are the arguments of the image's own program."
            ),
            shown=True,
            plain=True,
        ),
        Key(
            name="url",
            kind=kinds.URL,
            into="url",
            effect="MCP endpoint of a server elsewhere; https, or http to a private address.",
        ),
        Key(
            name="image",
            kind=kinds.IMAGE,
            into="container.image",
            effect=(
                "Container image of the server, by name and tag or digest, as the engine of "
                "``[docker]`` knows it."
            ),
            plain=True,
        ),
        Key(
            name="pull",
            kind=choice("never", "at-start", "on-demand"),
            into="container.pull",
            only="image",
            default="never",
            effect=(
                "Whether a missing image is fetched: by nobody, when the gate starts, or when "
                "the server is first called, whose caller waits."
            ),
        ),
        Key(
            name="entrypoint",
            kind=kinds.COMMAND,
            into="container.entrypoint",
            only="image",
            default_note="the image's",
            effect="Program inside the image, instead of its own.",
            shown=True,
            plain=True,
        ),
        Key(
            name="port",
            kind=integer(low=1, high=65535),
            into="container.port",
            only="image",
            default="8000",
            effect="Where an HTTP server listens inside its container; also ``{port}``.",
        ),
        Key(
            name="user",
            kind=kinds.USER,
            into="container.user",
            only="image",
            default_note="the image's; nobody (65534) where that is root",
            effect="Who the server runs as inside its container; never root.",
        ),
        Key(
            name="egress",
            kind=choice("none", "allow-list", "internet"),
            into="container.egress",
            only="image",
            default="none",
            effect=(
                "What a container may reach: nothing, what ``egress_to`` lists, or public "
                "addresses. Never other users' containers, the host or 169.254.169.254."
            ),
        ),
        Key(
            name="egress_to",
            kind=kinds.DESTINATIONS,
            into="container.egress_to",
            only="image",
            effect=(
                "With ``egress = allow-list``: names and addresses reached over TCP, 32 at most; "
                "without a port every one. A private address is reached only if it stands here."
            ),
            plain=True,
        ),
        Key(
            name="data",
            kind=choice("none", "per-key"),
            into="container.data",
            only="image",
            default="none",
            effect=(
                "``per-key``: a folder of the state directory, one for each owner, is mounted at "
                "``{data_dir}`` (``/data``) and outlives the container."
            ),
        ),
        Key(
            name="volumes",
            kind=kinds.VOLUMES,
            into="container.volumes",
            only="image",
            effect=(
                "Folders of the host seen by every copy: ``/HOST:/INSIDE``, read-only unless "
                "``:rw`` stands behind."
            ),
            plain=True,
        ),
        Key(
            name="tmp_size",
            kind=size(low=KIB, high=64 * GIB),
            into="container.tmp_bytes",
            only="image",
            default="64MiB",
            effect="Size of ``/tmp`` in the container, in memory; nothing else can be written.",
        ),
        Key(
            name="key_in_env",
            kind=kinds.FLAG,
            into="container.key_in_env",
            only="image",
            default="off",
            effect=(
                "Let ``{key}`` stand in ``env.NAME``, for images that take their key no other "
                "way: everybody who may ask the engine (``docker inspect``) can read it then."
            ),
        ),
        Key(
            name="enabled",
            kind=kinds.FLAG,
            default="on",
            effect="``off`` leaves the server out; the section is checked all the same.",
        ),
        Key(
            name="transport",
            kind=choice("stdio", "http", "sse"),
            default_note="``stdio`` with ``command`` or ``image``, ``http`` with ``url``",
            effect=(
                "How the gate speaks to it: over pipes, by Streamable HTTP, or by HTTP+SSE of "
                "2024-11-05."
            ),
        ),
        Key(
            name="cwd",
            kind=kinds.PATH,
            only="command image",
            default_note="a private directory",
            effect="Working directory.",
            plain=True,
        ),
        Key(
            name="mcp_path",
            kind=kinds.URL_PATH,
            into="mcp_path",
            only="command image",
            default_note="``/mcp``, with ``transport = sse`` ``/sse``",
            effect=(
                "Path of the MCP endpoint of an HTTP server the gate starts, or of its event "
                "stream."
            ),
        ),
        Key(
            name="ready_path",
            kind=kinds.URL_PATH,
            into="ready_path",
            only="command image",
            default_note="``mcp_path``",
            effect="Path asked until the server answers below 500, when it was started.",
        ),
        Key(
            name="isolation",
            kind=choice("shared", "per-key", "per-session"),
            default_note=(
                "``per-key`` with ``command``, ``image`` or ``transport = sse``, ``shared`` with "
                "any other ``url``"
            ),
            effect="Who shares one running copy: everybody, one key's sessions, or nobody.",
        ),
        Key(
            name="era",
            kind=choice("auto", "legacy", "modern", "dual"),
            default="auto",
            effect=(
                "Which eras of MCP the server speaks: ``legacy`` (``initialize``, sessions; up to "
                "2025-11-25), ``modern`` (2026-07-28), or both; ``auto`` finds out and remembers. "
                "Clients of either era reach it in any case."
            ),
        ),
        Key(
            name="env.NAME",
            kind=kinds.SECRET_BLOCK,
            only="command image",
            effect=(
                "Variable of its environment; a template. Nothing of the gate's own is passed "
                "but ``PATH``."
            ),
        ),
        Key(
            name="file.NAME",
            kind=kinds.SECRET_BLOCK,
            only="command image",
            effect=(
                "File with this content (a template), readable by the server alone, in "
                "``{files_dir}``."
            ),
        ),
        Key(
            name="header.NAME",
            kind=kinds.HEADER_VALUE,
            effect="HTTP field sent to an HTTP server with each request; a template.",
        ),
        Key(
            name="openapi",
            kind=kinds.DOCUMENT,
            effect=(
                "The OpenAPI document (3.0 or 3.1, JSON or YAML) of a REST service that is served "
                "as an MCP server, each operation a tool: a file, or a URL it is fetched from. "
                "``url`` is where its paths begin; default: the first of its ``servers``, at a "
                "document's own host when it was fetched. Needs the extra ``openapi``."
            ),
            plain=True,
        ),
        Key(
            name="openapi_refresh",
            kind=duration(low_s=10, zero="never"),
            default="1h",
            effect="With ``openapi = URL``: the document is asked for again this often.",
        ),
        Key(
            name="allow_private",
            kind=kinds.FLAG,
            default="off",
            effect="With ``openapi = URL``: let it lead to a loopback or private address.",
        ),
        Key(
            name="allow",
            kind=kinds.PATTERNS,
            default_note="every one",
            effect="With ``openapi``: the tools that are made, with ``*`` and ``?``.",
        ),
        Key(
            name="deny",
            kind=kinds.PATTERNS,
            default_note="none",
            effect="With ``openapi``: tools that are not made; stronger than ``allow``.",
        ),
        Key(
            name="forward_headers",
            kind=kinds.HEADER_NAMES,
            into="forward_headers",
            effect="Fields of the client that are passed on to an HTTP server.",
        ),
        Key(
            name="insecure",
            kind=kinds.FLAG,
            only="url",
            default="off",
            effect="Let ``url`` be http to any host: keys and contents travel in clear.",
        ),
        Key(
            name="memory",
            kind=size(low=MIB, zero="no limit"),
            into="restraint.memory_bytes",
            only="command image",
            default="256MiB",
            effect="Memory of one instance.",
        ),
        Key(
            name="cpus",
            kind=number(low=0.01, high=1024, zero="no limit"),
            into="restraint.cpus",
            only="command image",
            default="0.3",
            effect="Processor cores of one instance.",
        ),
        Key(
            name="pids",
            kind=integer(low=1, zero="no limit"),
            into="restraint.pids",
            only="command image",
            default="128",
            effect="Processes and threads of one instance.",
        ),
        Key(
            name="open_files",
            kind=integer(low=16, zero="no limit"),
            into="restraint.open_files",
            only="command image",
            default="1024",
            effect="Open files of each process.",
        ),
        Key(
            name="file_size",
            kind=size(low=KIB, zero="no limit"),
            into="restraint.file_bytes",
            only="command image",
            default="0",
            effect="Largest file it may write.",
        ),
        Key(
            name="start_timeout",
            kind=duration(low_s=0.1, high_s=3600),
            into="lifetime.start_s",
            default="90s",
            effect="A start not ready after this long has failed.",
        ),
        Key(
            name="start_wait",
            kind=duration(low_s=0.1, high_s=3600),
            into="lifetime.start_wait_s",
            default="60s",
            effect="A caller waits this long for a start, then is told to come again.",
        ),
        Key(
            name="idle_stop",
            kind=duration(low_s=1, zero="never"),
            into="lifetime.idle_stop_s",
            default="15min",
            effect="An instance not used for this long is stopped; the next call starts it.",
        ),
        Key(
            name="remove_after",
            kind=duration(low_s=1, zero="never"),
            into="lifetime.remove_s",
            only="command image",
            default="7d",
            effect="What a stopped instance left is removed after this long.",
        ),
        Key(
            name="stop_grace",
            kind=duration(low_s=0.1, high_s=600),
            into="lifetime.stop_grace_s",
            only="command image",
            default="5s",
            effect="Stopping closes stdin, then sends TERM, then KILL: the wait between two steps.",
        ),
        Key(
            name="health_interval",
            kind=duration(low_s=0.1, high_s=86400, zero="never"),
            into="lifetime.health_interval_s",
            default="60s",
            effect=(
                "A running instance nothing was heard of for this long is asked whether it is "
                "well, in its own era."
            ),
        ),
        Key(
            name="health_timeout",
            kind=duration(low_s=0.1, high_s=3600),
            into="lifetime.health_timeout_s",
            default="10s",
            effect="It has so long for an answer; any will do, an error too.",
        ),
        Key(
            name="health_failures",
            kind=integer(low=2, high=1000),
            into="lifetime.health_failures",
            default="3",
            effect=(
                "After this many questions in a row without a sign of life it is replaced; what "
                "has a call in work has ``call_timeout`` for that, what is seen at work "
                "``call_timeout_max``. A server with ``url`` is left alone instead."
            ),
        ),
        Key(
            name="call_timeout",
            kind=duration(low_s=0.1, high_s=86400),
            into="call_timeout_s",
            default="60s",
            effect="A call without answer or progress for this long fails.",
        ),
        Key(
            name="call_timeout_max",
            kind=duration(low_s=0.1, high_s=86400),
            into="call_timeout_max_s",
            default="10min",
            effect="A call fails after this long, whatever progress it reported.",
        ),
        Key(
            name="max_instances",
            kind=integer(zero="no cap"),
            into="max_instances",
            default="0",
            effect="Running copies of this server.",
        ),
        Key(
            name="max_calls",
            kind=integer(low=1, high=100_000),
            into="max_calls",
            default="64",
            effect="Calls in work at once per copy.",
        ),
        Key(
            name="rate",
            kind=kinds.PER_S,
            default_note="``per_server`` of ``[limits]``",
            effect="Requests of all keys to this server.",
        ),
        Key(
            name="burst",
            kind=number(low=1),
            default_note="two seconds' worth",
            effect="Requests of all keys to this server at once, after a pause.",
        ),
        Key(
            name="pool_lost_sessions",
            kind=kinds.FLAG,
            into="pool_lost_sessions",
            default="on",
            effect="Serve a client that drops its session id from the session it had before.",
        ),
        Key(
            name="warm",
            kind=integer(high=1000),
            into="warm",
            only="command image",
            default="0",
            effect=(
                "Copies kept ready without an owner: the next new key or session gets one at "
                "once. For servers whose launch holds nothing of the caller. They count towards "
                "``max_running``, ``memory_budget`` and ``max_instances``, and are the first to "
                "make room."
            ),
        ),
        Key(
            name="prestart",
            kind=kinds.FLAG,
            into="prestart",
            only="command image",
            default="off",
            effect=(
                "Start a key's copy when the key is first seen after a pause of ``idle_stop``, "
                "whatever server it asks for; only where no other copy has to make room."
            ),
        ),
        Key(
            name="snapshot",
            kind=choice("auto", "per-key", "shared", "off"),
            into="snapshot",
            only="command image",
            default="auto",
            effect=(
                "Answer ``initialize`` and the lists (tools, prompts, resources) at once while "
                "the server starts, from what it last said: kept for each key, or ``shared`` by "
                "all. ``auto`` shares where nothing of the caller reaches the server, and keeps "
                "nothing where ``forward_headers`` do."
            ),
        ),
        Key(
            name="tools_pinned",
            kind=choice("warn", "block", "off"),
            default_note="``tools_pinned`` of ``[gate]``",
            effect=(
                "What is done about tools that are not as they were when the server first listed "
                "them: ``warn`` tells it in the log and the statistics, ``block`` also leaves "
                "added and changed tools out of lists and refuses their calls until "
                "``mcpgate tools NAME --accept``, ``off`` does not look."
            ),
        ),
        Key(
            name="max_body",
            kind=size(low=KIB, high=GIB),
            into="max_body_bytes",
            default_note="``max_body`` of ``[gate]``",
            effect="Largest JSON body of a request to this server.",
        ),
        Key(
            name="sse",
            kind=kinds.FLAG,
            into="sse",
            default="on",
            effect=(
                "Serve clients of the HTTP+SSE transport of 2024-11-05 at ``/NAME/sse`` and "
                "``/NAME/messages``. ``off`` leaves these paths to ``relay``."
            ),
        ),
        Key(
            name="openapi_face",
            kind=kinds.FLAG,
            into="openapi_face",
            default="on",
            effect=(
                "Serve the tools as REST at ``/NAME/tools/TOOL``, described by "
                "``/NAME/openapi.json`` and ``/NAME/docs``. ``off`` leaves these paths to "
                "``relay``."
            ),
        ),
        Key(
            name="relay",
            kind=kinds.FLAG,
            default_note="``on`` for HTTP servers, ``off`` with ``tools_pinned = block``",
            effect="Pass any other request below ``/NAME/`` on to an HTTP server, unread.",
        ),
        Key(
            name="relay_max_body",
            kind=size(zero="no limit"),
            into="relay_body_bytes",
            default="0",
            effect="Largest body of such a request.",
        ),
    ),
)

ADMIN: Final = SectionSchema(
    name="admin",
    intro="Who may see statistics.",
    keys=(
        Key(
            name="listen",
            kind=kinds.LISTENERS,
            into="listen",
            default_note="none: the admin paths are on the main listeners",
            effect="Listeners of its own, written as in ``[gate]``.",
            plain=True,
        ),
        Key(
            name="users_file",
            kind=kinds.FILE,
            into="users_file",
            effect="File of lines ``name:hash``.",
            plain=True,
        ),
        Key(
            name="user",
            kind=kinds.TEXT,
            into="user",
            effect="One user, named here.",
        ),
        Key(
            name="password",
            kind=kinds.SECRET,
            into="password",
            effect="Password of ``user``: ``${credential:admin}`` rather than in clear.",
        ),
        Key(
            name="password_hash",
            kind=kinds.PASSWORD_HASH,
            into="password_hash",
            effect="Hash of the password of ``user`` (``scrypt:...``), instead of ``password``.",
        ),
        Key(
            name="allow",
            kind=kinds.NETWORKS,
            into="allow",
            default_note="every address",
            effect="Addresses and networks that are answered at all.",
            plain=True,
        ),
        Key(
            name="stats",
            kind=kinds.FLAG,
            into="stats",
            default="on",
            effect="Offer ``/stats`` and ``/metrics``.",
        ),
    ),
)

LOG: Final = SectionSchema(
    name="log",
    intro="What is written where. Keys, session ids and bodies are never logged.",
    keys=(
        Key(
            name="format",
            kind=choice("text", "json"),
            into="format",
            default="text",
            effect="Lines for people or one JSON object on each line.",
        ),
        Key(
            name="to",
            kind=output("stdout", "syslog"),
            into="to",
            default="stdout",
            effect="Where the log goes. A file is opened again on reload.",
            plain=True,
        ),
        Key(
            name="level",
            kind=choice("debug", "info", "warn", "error"),
            into="level",
            default="info",
            effect="What is less than this is left out.",
        ),
        Key(
            name="access",
            kind=output("on", "off"),
            into="access",
            default="on",
            effect="One line for each request: beside the rest, not at all, or in a file.",
            plain=True,
        ),
    ),
)

GROUP: Final = SectionSchema(
    name="group:NAME",
    intro=(
        "Several servers at one address, ``/NAME/mcp``. Their tools and prompts are shown as "
        "``SERVER__TOOL``, their resources as ``SERVER+URI``. ``NAME`` must be none of a server."
    ),
    keys=(
        Key(
            name="servers",
            kind=kinds.NAMES,
            into="servers",
            default_note="every server, in the order of the file",
            effect="Servers shown together; each caller sees those its key may use.",
        ),
        Key(
            name="alias",
            kind=kinds.ALIAS,
            into="alias",
            default="mcpgate",
            effect=(
                "What users call this address in their clients. Many clients put ``mcp__ALIAS__`` "
                "before each tool and refuse names of over 64 characters; longer ones are cut."
            ),
        ),
        Key(
            name="allow",
            kind=kinds.PATTERNS,
            into="allow",
            default_note="every one",
            effect="Tools and prompts that are shown, as ``SERVER__TOOL`` with ``*`` and ``?``.",
        ),
        Key(
            name="deny",
            kind=kinds.PATTERNS,
            into="deny",
            default_note="none",
            effect="Tools and prompts that are neither shown nor called; stronger than ``allow``.",
        ),
        Key(
            name="rename.NAME",
            kind=kinds.ALIAS,
            effect="What the tool ``NAME`` (``SERVER__TOOL``) is called instead.",
        ),
        Key(
            name="page_size",
            kind=integer(high=10_000, zero="all"),
            into="page_size",
            default="0",
            effect="Items of a list in one answer.",
        ),
        Key(
            name="openapi_face",
            kind=kinds.FLAG,
            default="on",
            effect=(
                "Serve the tools as REST at ``/NAME/tools/TOOL``, described by "
                "``/NAME/openapi.json`` and ``/NAME/docs``."
            ),
        ),
    ),
)

SECTIONS: Final = (GATE, TLS, AUTH, AUTH_SOURCE, LIMITS, DOCKER, SERVER, GROUP, ADMIN, LOG)

# Keys kept for later: refused with a reason instead of as unknown.
RESERVED_KEYS: Final = {
    ("gate", "reactor"): (
        "the reactor is chosen before this file is read",
        "Remove the key and start with twistd --reactor=NAME",
    ),
}


def find_section(name: str) -> SectionSchema | None:
    """Give the schema of ``[name]``; that of ``server:NAME`` for every ``server:``."""
    stem, colon, _ = name.partition(":")
    wanted = f"{stem}:NAME" if colon else name
    return next((section for section in SECTIONS if section.name == wanted), None)


def every_key() -> Iterator[tuple[SectionSchema, Key]]:
    """Go through the whole table."""
    for section in SECTIONS:
        for key in section.keys:
            yield section, key
