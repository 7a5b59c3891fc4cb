"""What a worker is to do, as the owner writes it and the worker reads it: one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mcpgate.http.strictness import WireBounds
from mcpgate.web.listening.listeners import Kind
from mcpgate.web.wire.bounds import Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSocket:
    """
    A listening socket that workers inherit.

    :ivar descriptor: its number in the worker.
    :ivar kind: TLS or not.
    :ivar proxied: the PROXY protocol comes first.
    :ivar channel: number of what serves it, at the owner.
    """

    descriptor: int
    kind: Kind
    proxied: bool
    channel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRules:
    """
    What holds for all requests that a worker serves by itself; see `mcpgate.web.workers.granted`.

    :ivar digest_key: hexadecimal; credentials in grants are told by digests with it.
    :ivar per_key: tokens per second and burst, or None; ``per_server`` likewise.
    :ivar server_hosts: patterns of hosts that stand for a server each.
    """

    digest_key: str
    headers: tuple[str, ...] = ()
    anonymous: bool = False
    per_key: tuple[float, float] | None = None
    per_server: tuple[float, float] | None = None
    concurrent_per_key: int = 0
    call_cost: float = 1.0
    keepalive_s: float = 15.0
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    public_url: str = ""
    server_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """
    All a worker needs to know.

    :ivar name: of the worker, in its log lines.
    :ivar link: path of the owner's socket.
    :ivar places: descriptor of the table of `SharedPlaces`; ``buckets`` and ``uses`` of those of
        `SharedBuckets` and `Uses`; ``part``: the worker's own in them.
    :ivar rules: for what it serves by itself.
    :ivar certificates: paths of chain and key; empty when nothing is served over TLS.
    :ivar min_version: the oldest version of TLS spoken.
    """

    name: str
    link: str
    places: int
    buckets: int
    uses: int
    part: int
    sockets: tuple[SharedSocket, ...]
    bounds: Bounds
    rules: GrantRules
    certificates: tuple[tuple[str, str], ...] = ()
    http2: bool = False
    min_version: str = "1.2"
    handshake_s: float = 10.0

    def write(self) -> bytes:
        """Give the line, with its end."""
        told = asdict(self)
        for socket in told["sockets"]:
            socket["kind"] = socket["kind"].value
        return json.dumps(told).encode("ascii") + b"\n"


def read_assignment(line: bytes) -> Assignment:
    """Read what `Assignment.write` has written."""
    told: dict[str, Any] = json.loads(line)
    bounds = told.pop("bounds")
    wire = WireBounds(**bounds.pop("wire"))
    sockets = tuple(SharedSocket(kind=Kind(one.pop("kind")), **one) for one in told.pop("sockets"))
    certificates = tuple((chain, key) for chain, key in told.pop("certificates"))
    rules: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in told.pop("rules").items()
    }
    return Assignment(
        rules=GrantRules(**rules),
        sockets=sockets,
        bounds=Bounds(wire=wire, **bounds),
        certificates=certificates,
        **told,
    )
