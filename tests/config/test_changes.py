"""Tests of mcpgate.config.changes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.changes import Changes, compare
from tests.config.writing import BASE, read


class ChangesTests(SynchronousTestCase):
    """What a new ``gate.ini`` means for a gate that runs."""

    def changes(self, new: str, old: str = BASE) -> Changes:
        """Compare two files."""
        return compare(read(old), read(new))

    def test_none(self) -> None:
        """Comments and order of keys change nothing."""
        changes = self.changes("# hello\n" + BASE)
        self.assertFalse(changes)
        self.assertEqual(changes.words(), ["nothing changed"])

    def test_servers(self) -> None:
        """Servers and groups that were added, removed and changed are named."""
        new = BASE.replace("--stdio", "--new") + "[server:time]\ncommand = time\n[group:all]\n"
        changes = self.changes(new)
        self.assertEqual(changes.words(), ["added: time, all", "changed: notes"])
        self.assertEqual(self.changes(BASE, new).words(), ["removed: time, all", "changed: notes"])

    def test_restart(self) -> None:
        """What is built into the running gate counts after a restart only."""
        new = BASE.replace("[gate]", "[gate]\ndrain_timeout = 5s\n[limits]\nper_key = 9/s\n[gate")
        new = new.replace("[gate\n", "")
        text = (
            BASE.replace("listen =", "drain_timeout = 5s\nlisten =") + "[limits]\nper_key = 9/s\n"
        )
        self.assertEqual(
            self.changes(text).words(),
            ["after a restart only: [gate] drain, [limits] per_key"],
        )

    def test_aggregate(self) -> None:
        """The address of all servers comes and goes without a restart."""
        changes = self.changes(BASE.replace("[gate]", "[gate]\naggregate = off"))
        self.assertEqual(changes.fixed, ())

    def test_first_image(self) -> None:
        """The first server with an image needs the engine, which is looked for at the start."""
        changes = self.changes(BASE + "[server:box]\nimage = box:1\n")
        self.assertEqual(changes.added, ("box",))
        self.assertEqual(changes.fixed, ("the first server with an image",))
