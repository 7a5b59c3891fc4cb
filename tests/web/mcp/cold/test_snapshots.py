"""Tests of mcpgate.web.mcp.cold.snapshots: whom a snapshot may be shown, and how long it counts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.mcp.snapshot import Snapshot
from mcpgate.model import Container, Isolation, Lifetime, Principal, ServerSpec, Transport
from mcpgate.telemetry.meters import Meters
from mcpgate.web.mcp.cold.snapshots import MAX_BYTES, SnapshotBook, scope
from tests.web.endpoint_kit import INIT, FakeKept

ANN, BOB = Principal("file", "ann", "a" * 32), Principal("file", "bob", "b" * 32)
PARAMS = json.dumps(INIT["params"]).encode()
BOX = ServerSpec(
    name="box",
    transport=Transport.STDIO,
    runtime="docker",
    command=("serve",),
    container=Container(image="x:1"),
)
SAID = Snapshot(greeting={"capabilities": {}})


class ScopeTests(SynchronousTestCase):
    """Who may be shown what a server said to somebody else."""

    def assert_scope(self, wanted: str, spec: ServerSpec = BOX, **fields: Any) -> None:
        """Check the scope of an entry with these fields."""
        self.assertEqual(scope(replace(spec, **fields)), wanted, fields)

    def test_nothing_of_the_caller(self) -> None:
        """A server that never learns who calls lists the same for everybody."""
        self.assert_scope("shared")
        self.assert_scope("shared", runtime="process", isolation=Isolation.SHARED)

    def test_something_of_the_caller(self) -> None:
        """Key, name, data or fields of a request may change what it lists."""
        for fields in (
            {"command": ("serve", "--as", "{user}")},
            {"env": (("TOKEN", "{key}"),)},
            {"files": (("token", "{key}"),)},
            {"cwd": "/home/{user}"},
            {"container": Container(image="x:1", data="per-key")},
            {"runtime": "process"},
            {"transport": Transport.HTTP},
        ):
            self.assert_scope("per-key", **fields)

    def test_none(self) -> None:
        """Fields a client chooses itself, and servers that run elsewhere: nothing is kept."""
        self.assert_scope("off", transport=Transport.HTTP, forward_headers=("x-tenant",))
        self.assert_scope("off", runtime="remote", url="https://a.example/mcp")
        self.assert_scope("off", runtime="remote", snapshot="shared")

    def test_as_configured(self) -> None:
        """The administrator knows better."""
        for said in ("per-key", "shared", "off"):
            self.assert_scope(said, snapshot=said, transport=Transport.HTTP)


class SnapshotBookTests(SynchronousTestCase):
    """What is found again, and what is not."""

    def setUp(self) -> None:
        """Make an empty book."""
        self.kept: dict[str, bytes] = {}
        self.build = "sha256:1"
        self.meters = Meters()
        self.book = self.make()

    def make(self, **options: Any) -> SnapshotBook:
        """Make a book over what is kept."""
        book = SnapshotBook(
            FakeKept(self.kept),
            hash_key=b"of the test",
            build_of=lambda _: self.build,
            meters=self.meters,
            **options,
        )
        book.load(list(self.kept.items()))
        return book

    def name(self, spec: ServerSpec = BOX, who: Principal = ANN, **params: object) -> str:
        """Name a snapshot."""
        return self.book.name(spec, who, json.dumps({**INIT["params"], **params}).encode())

    def test_names(self) -> None:
        """Each server, each kind of client, and where it matters each key has its own."""
        mine = replace(BOX, name="mine", snapshot="per-key")
        names = {
            self.name(),
            self.name(mine),
            self.name(mine, BOB),
            self.name(mine, Principal("other", "ann", "a" * 32)),
            self.name(capabilities={"sampling": {}}),
            self.name(protocolVersion="2025-03-26"),
            self.name(clientInfo={"name": "other"}),
            self.name(clientInfo=None),
        }
        self.assertEqual(len(names), 8)
        self.assertEqual(self.name(), self.name(who=BOB))
        self.assertEqual(self.name(), self.name(clientInfo={"name": "test", "version": "2"}))
        for name in names:
            self.assertRegex(name, "^[0-9a-f]{32}$")

    def test_over_a_restart(self) -> None:
        """What was kept is found by the next gate; damaged files are dropped."""
        name = self.name()
        self.book.keep(BOX, name, SAID, ANN)
        self.book.keep(BOX, name, SAID, ANN)
        self.assertEqual(self.meters.events["snapshot_taken"], 1)
        self.kept["c" * 32] = b"no line end"
        again = self.make()
        self.assertEqual((again.find(BOX, name), len(again)), (SAID, 1))
        self.assertEqual(list(self.kept), [name])
        self.kept[name] = self.kept[name][:-1]
        again = self.make()
        self.assertIsNone(again.find(BOX, name))
        self.assertEqual(self.kept, {})

    def test_changed_entry(self) -> None:
        """An entry that starts something else ends its snapshots; one with other times does not."""
        name = self.name()
        self.book.keep(BOX, name, SAID, ANN)
        slow = replace(BOX, lifetime=Lifetime(idle_stop_s=5.0))
        self.assertEqual(self.book.find(slow, name), SAID)
        self.assertIsNone(self.book.find(replace(BOX, command=("serve", "-v")), name))
        self.assertEqual(self.kept, {})

    def test_changed_image(self) -> None:
        """Another image of the same name ends them; one that is not known for now does not."""
        name = self.name()
        self.book.keep(BOX, name, SAID, ANN)
        self.build = ""
        self.assertEqual(self.book.find(BOX, name), SAID)
        self.build = "sha256:2"
        self.assertIsNone(self.book.find(BOX, name))
        self.assertEqual(len(self.book), 0)

    def test_bounds(self) -> None:
        """What is too large is not kept; the longest unused goes when there are too many."""
        name = self.name()
        large = Snapshot(greeting={"instructions": "x" * MAX_BYTES})
        self.book.keep(BOX, name, SAID, ANN)
        self.book.keep(BOX, name, large, ANN)
        self.assertEqual((len(self.book), self.kept), (0, {}))
        for options in ({"total": 2}, {"total_bytes": 2 * len(SAID.encoded())}):
            self.kept.clear()
            self.book = self.make(**options)
            names = [self.name(capabilities={"n": n}) for n in range(3)]
            for one in names[:2]:
                self.book.keep(BOX, one, SAID, ANN)
            self.book.find(BOX, names[0])
            self.book.keep(BOX, names[2], SAID, ANN)
            self.assertEqual(set(self.kept), {names[0], names[2]})
        self.book.forget("d" * 32)
