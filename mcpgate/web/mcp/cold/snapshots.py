"""
The snapshots of every server, and whom each may be shown.

One is found by server, by whom it may be shown to, and by what the client said of itself (its
revision, name and capabilities: servers list other tools for other clients).  It counts while the
server's entry and its image are what they were.
"""

from __future__ import annotations

import hmac
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from twisted.logger import Logger

from mcpgate.mcp.snapshot import Snapshot, decoded
from mcpgate.model import MIB, Isolation, Principal, ServerSpec, Transport
from mcpgate.runtime.attempt import REMOTE
from mcpgate.runtime.plan import essence
from mcpgate.telemetry.meters import Meters

log = Logger()

MAX_BYTES: Final = MIB
"""Of one snapshot; more is not kept."""

_TOTAL_BYTES: Final = 32 * MIB
_TOTAL: Final = 2000
_HEAD_BYTES: Final = 64
_OFF: Final = "off"
_SHARED: Final = "shared"
_PER_KEY: Final = "per-key"
_CALLERS: Final = ("{key}", "{user}")


def uses_caller(spec: ServerSpec) -> bool:
    """Tell whether anything of the caller is put into a server's launch or its data."""
    texts = [*spec.command, spec.cwd]
    for pairs in (spec.env, spec.files):
        texts += [text for _, text in pairs]
    named = any(blank in text for text in texts for blank in _CALLERS)
    # A process always has a folder of its owner; a container when its entry says so.
    own_data = spec.runtime == "process" or spec.container.data != "none"
    return named or (own_data and spec.isolation is not Isolation.SHARED)


def scope(spec: ServerSpec) -> str:
    """Tell to whom a snapshot of this server may be shown: ``per-key``, ``shared`` or ``off``."""
    if spec.runtime == REMOTE:
        return _OFF  # There is no start to wait for.
    if spec.snapshot != "auto":
        return spec.snapshot
    if spec.forward_headers:
        return _OFF  # What one client says beside its key would be shown to another.
    # Over HTTP fields of the client reach the server with every request.
    alike = spec.transport is Transport.STDIO and not uses_caller(spec)
    return _SHARED if alike else _PER_KEY


class Kept(Protocol):
    """Where snapshots outlive the gate: `mcpgate.stores.snapshot_files.SnapshotFiles`."""

    def put(self, name: str, data: bytes) -> None:
        """Keep this, soon."""

    def delete(self, name: str) -> None:
        """Forget this, soon."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What it holds for, and what was said, as JSON."""

    made_for: str
    data: bytes


class SnapshotBook:
    """
    The snapshots of one gate; the longest unused go when there are too many.

    :param hash_key: names and digests are keyed: entries hold secrets.
    :param build_of: gives what a server was built as (the id of its image), as far as it is
        known; empty when it is not.
    :param seen: called with what a server said of itself whenever it was looked at.
    """

    def __init__(
        self,
        kept: Kept,
        *,
        hash_key: bytes,
        build_of: Callable[[ServerSpec], str],
        meters: Meters,
        seen: Callable[[ServerSpec, Principal, Snapshot], None] = lambda spec, who, snapshot: None,
        total_bytes: int = _TOTAL_BYTES,
        total: int = _TOTAL,
    ) -> None:
        self._kept = kept
        self._hash_key = hash_key
        self._build_of = build_of
        self._meters = meters
        self._total_bytes = total_bytes
        self._total = total
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._seen = seen
        # By server: its entry when this was worked out, the scope, the digest.
        self._known: dict[str, tuple[ServerSpec, str, str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Take what an earlier life kept, the longest unused first."""
        for name, data in files:
            made_for, newline, rest = data.partition(b"\n")
            if newline and len(made_for) <= _HEAD_BYTES * 2:
                self._put(name, _Entry(made_for.decode("ascii", "replace"), rest))
            else:
                self._kept.delete(name)

    def covers(self, spec: ServerSpec) -> bool:
        """Tell whether there may be snapshots of this server at all."""
        return self._of(spec)[1] != _OFF

    def name(self, spec: ServerSpec, principal: Principal, initialize_params: bytes) -> str:
        """
        Name the snapshot of a server for one caller and one kind of client.

        :param initialize_params: of its session, as JSON.
        """
        whose = [spec.name]
        if self._of(spec)[1] == _PER_KEY:
            whose += [principal.issuer, principal.subject, principal.key_digest]
        told = json.loads(initialize_params)
        client = told.get("clientInfo")
        kind = [
            told.get("protocolVersion"),
            told.get("capabilities"),
            client.get("name") if isinstance(client, dict) else None,
        ]
        return self._digest(json.dumps([whose, kind], sort_keys=True))

    def find(self, spec: ServerSpec, name: str) -> Snapshot | None:
        """Give a snapshot that holds for the server as it is now."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        made_for, _, build = entry.made_for.partition(" ")
        now = self._build_of(spec)
        snapshot = None
        if made_for == self._of(spec)[2] and (not now or now == build):
            snapshot = decoded(entry.data)
        if snapshot is None:
            self.forget(name)
        else:
            self._entries.move_to_end(name)
        return snapshot

    def keep(self, spec: ServerSpec, name: str, snapshot: Snapshot, principal: Principal) -> None:
        """
        Keep a snapshot, if it is not too large.

        :param principal: whom the server was looked at for.
        """
        data = snapshot.encoded()
        self._seen(spec, principal, snapshot)
        if len(data) > MAX_BYTES:
            log.info(
                "What {server} says of itself is too large to be kept: {size} bytes",
                server=spec.name,
                size=len(data),
            )
            self.forget(name)
            return
        made_for = f"{self._of(spec)[2]} {self._build_of(spec)[: _HEAD_BYTES + 16]}"
        entry = _Entry(made_for, data)
        old = self._entries.get(name)
        self._put(name, entry)
        if old != entry:
            self._meters.events["snapshot_taken"] += 1
            self._kept.put(name, made_for.encode("ascii", "replace") + b"\n" + data)

    def forget(self, name: str) -> None:
        """Drop a snapshot."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._bytes -= len(entry.data)
            self._kept.delete(name)

    def _put(self, name: str, entry: _Entry) -> None:
        old = self._entries.pop(name, None)
        if old is not None:
            self._bytes -= len(old.data)
        self._entries[name] = entry
        self._bytes += len(entry.data)
        while len(self._entries) > self._total or self._bytes > self._total_bytes:
            self.forget(next(iter(self._entries)))

    def _of(self, spec: ServerSpec) -> tuple[ServerSpec, str, str]:
        known = self._known.get(spec.name)
        if known is None or known[0] is not spec:
            known = self._known[spec.name] = (spec, scope(spec), self._digest(essence(spec)))
        return known

    def _digest(self, text: str) -> str:
        said = text.encode("utf-8", "surrogateescape")
        return hmac.new(self._hash_key, said, "sha256").hexdigest()[:32]
