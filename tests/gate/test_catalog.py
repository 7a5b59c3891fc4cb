"""Tests of mcpgate.gate.catalog."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.gate.catalog import Catalog
from mcpgate.model import ServerSpec, Transport

NOTES = ServerSpec(name="notes", transport=Transport.STDIO, command=("notes",))
TIME = ServerSpec(name="time", transport=Transport.STDIO, command=("time",))
TEAM = ServerSpec(name="team", transport=Transport.GROUP, runtime="group")


class CatalogTests(SynchronousTestCase):
    """The servers as they are now."""

    def test_found(self) -> None:
        """Servers are found by name; groups are no servers."""
        catalog = Catalog((NOTES, TIME), (TEAM,))
        self.assertIs(catalog.find("notes"), NOTES)
        self.assertIsNone(catalog.find("team"))
        self.assertIsNone(catalog.find("nope"))

    def test_replaced(self) -> None:
        """Entries that did not change stay the objects they were; watchers hear of a change."""
        catalog = Catalog((NOTES, TIME), (TEAM,))
        heard: list[tuple[str, ...]] = []
        catalog.watch(lambda: heard.append(tuple(spec.name for spec in catalog.servers)))
        changed = replace(TIME, command=("new",))
        catalog.replace((replace(NOTES), changed), (replace(TEAM),))
        self.assertIs(catalog.find("notes"), NOTES)
        self.assertIs(catalog.find("time"), changed)
        self.assertIs(catalog.groups[0], TEAM)
        self.assertEqual(heard, [("notes", "time")])
        catalog.replace((), ())
        self.assertIsNone(catalog.find("notes"))
