"""Tests of mcpgate.runtime.docker.egress."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import RuntimeUnavailable
from mcpgate.model import Destination
from mcpgate.runtime.docker.egress import AllowLists, hosts_read, hosts_text, openings
from mcpgate.runtime.docker.firewall import Firewall, Opening
from mcpgate.runtime.docker.names import FRESH_S, Names
from mcpgate.runtime.docker.secrets import SecretFiles
from tests.runtime.docker.test_names import FakeReactor

API = Destination("api.example", 443)
INNER = Destination("inner.example")
TABLE = {"api.example": ("198.51.100.7",), "inner.example": ("10.1.2.3", "127.0.0.1")}


def opening(network: str, port: int = 0) -> Opening:
    """Make one."""
    return Opening(IPv4Network(network), port)


class ListTests(SynchronousTestCase):
    """What a list opens."""

    def test_openings(self) -> None:
        """Names open their addresses; networks themselves."""
        found = openings((API, Destination("203.0.113.0/24", 80)), TABLE.__getitem__)
        self.assertEqual(found, [opening("198.51.100.7", 443), opening("203.0.113.0/24", 80)])

    def test_private(self) -> None:
        """A name can not open a private address or the host, unless the address is listed."""
        self.assertEqual(openings((INNER,), TABLE.__getitem__), [])
        self.assertEqual(hosts_text((INNER,), TABLE.__getitem__), "127.0.0.1 localhost\n")
        listed = (INNER, Destination("10.1.2.3", 80))
        self.assertEqual(
            openings(listed, TABLE.__getitem__), [opening("10.1.2.3"), opening("10.1.2.3", 80)]
        )
        self.assertIn("10.1.2.3 inner.example\n", hosts_text(listed, TABLE.__getitem__))

    def test_hosts(self) -> None:
        """The hosts file tells the names, and can be read again."""
        text = hosts_text((API, Destination("api.example", 80)), TABLE.__getitem__)
        self.assertEqual(text, "127.0.0.1 localhost\n198.51.100.7 api.example\n")
        self.assertEqual(hosts_read(text), {"api.example": ["198.51.100.7"]})
        self.assertEqual(hosts_read(""), {})


class FakeFirewall:
    """Rules in memory."""

    def __init__(self) -> None:
        self.standing: dict[str, Sequence[Opening]] = {}
        self.why = ""
        self.times = 0

    def open_list(self, bridge: str, openings: Sequence[Opening]) -> Deferred[str]:
        """See `Firewall.open_list`."""
        self.times += 1
        if not self.why:
            self.standing[bridge] = openings
        return succeed(self.why)

    def lists(self) -> Deferred[set[str]]:
        """See `Firewall.lists`."""
        return succeed(set(self.standing))


class AllowListTests(SynchronousTestCase):
    """`AllowLists`."""

    def setUp(self) -> None:
        """Make lists whose names are answered at once."""
        self.clock = FakeReactor()
        self.table: dict[str, Sequence[str]] = dict(TABLE)
        self.firewall = FakeFirewall()
        self.root = Path(self.mktemp()).absolute()
        self.lists = self.make()

    def make(self, firewall: Any = ...) -> AllowLists:
        """Make lists: the next life of the gate."""
        names = Names(self.clock, resolve=self.resolve, spawn=lambda work: work())
        given = self.firewall if firewall is ... else firewall
        return AllowLists(names, cast("Firewall", given), SecretFiles(str(self.root)))

    def resolve(self, name: str) -> Sequence[str]:
        """Look into the table."""
        if name not in self.table:
            raise OSError("no such name")
        return self.table[name]

    def open(self) -> Path:
        """Open a list."""
        return Path(self.successResultOf(self.lists.open("label", "mcpg2a", (API,))))

    def test_open(self) -> None:
        """The rules stand and the file tells the names."""
        path = self.open()
        self.assertEqual(self.firewall.standing, {"mcpg2a": [opening("198.51.100.7", 443)]})
        self.assertIn("198.51.100.7 api.example", path.read_text())
        self.assertEqual(path.stat().st_mode & 0o777, 0o644)

    def test_follows(self) -> None:
        """When a name moves, file and rules follow; nothing is done when nothing changes."""
        path = self.open()
        before = path.stat().st_ino
        self.successResultOf(self.lists.renew())
        self.assertEqual(self.firewall.times, 1)
        self.table["api.example"] = ("198.51.100.8",)
        self.clock.advance(FRESH_S)
        self.successResultOf(self.lists.renew())
        self.assertEqual(
            self.firewall.standing["mcpg2a"],
            [opening("198.51.100.7", 443), opening("198.51.100.8", 443)],
        )
        self.assertEqual(path.read_text(), "127.0.0.1 localhost\n198.51.100.8 api.example\n")
        self.assertEqual(path.stat().st_ino, before)

    def test_put_up_again(self) -> None:
        """What somebody took out of the firewall is put up again, but not for who has ended."""
        self.open()
        self.firewall.standing.clear()
        self.successResultOf(self.lists.renew())
        self.assertIn("mcpg2a", self.firewall.standing)
        self.lists.close("label")
        self.firewall.standing.clear()
        self.successResultOf(self.lists.renew())
        self.assertEqual(self.firewall.standing, {})

    def test_next_life(self) -> None:
        """A gate that starts while names are not answered knows what its last life knew."""
        self.open()
        self.table.clear()
        self.firewall.standing.clear()
        self.lists = self.make()
        path = self.open()
        self.assertEqual(self.firewall.standing, {"mcpg2a": [opening("198.51.100.7", 443)]})
        self.assertIn("198.51.100.7 api.example", path.read_text())

    def test_no_rules(self) -> None:
        """Where the rules can not be put up nothing starts; later trouble is in the log."""
        self.firewall.why = "no"
        self.failureResultOf(self.lists.open("label", "mcpg2a", (API,)), RuntimeUnavailable)
        self.firewall.why = ""
        path = self.open()
        self.table["api.example"] = ("198.51.100.8",)
        self.clock.advance(FRESH_S)
        self.firewall.why = "no"
        self.successResultOf(self.lists.renew())
        self.firewall.why = ""
        path.unlink()
        path.mkdir()
        self.successResultOf(self.lists.renew())

    def test_not_ours(self) -> None:
        """Where the firewall is somebody else's nothing starts."""
        self.lists = self.make(None)
        self.failureResultOf(self.lists.open("label", "mcpg2a", (API,)), RuntimeUnavailable)
        self.successResultOf(self.lists.renew())
