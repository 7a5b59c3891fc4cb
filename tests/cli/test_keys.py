"""Tests of `mcpgate.cli.keys`."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.cli import keys as keys_command
from mcpgate.cli import main
from mcpgate.gate.access.keyfile import KeyFileError, read_keys
from mcpgate.model import Secret

CANARY = "canary-0123456789abcdef"

CONFIG = """
[auth:team]
type = static
keys_file = team.keys
{more}
[server:wiki]
transport = stdio
command = wiki-server
"""


class KeysTests(SynchronousTestCase):
    """An administrator makes, lists and revokes keys."""

    def setUp(self) -> None:
        """Make a directory."""
        self.dir = Path(self.mktemp()).absolute()
        self.dir.mkdir()
        self.path = self.dir / "keys"

    def run_(self, *arguments: str, stdin: str = "", file: bool = True) -> tuple[int, str, str]:
        """Run ``mcpgate keys``; give exit code, stdout and stderr."""
        out, err = io.StringIO(), io.StringIO()
        where = ("--keys-file", str(self.path)) if file else ()
        with redirect_stdout(out), redirect_stderr(err), patch("sys.stdin", io.StringIO(stdin)):
            try:
                code = main(["keys", *arguments, *where])
            except SystemExit as error:
                code = int(error.code or 0)
        return code, out.getvalue(), err.getvalue()

    def config(self, more: str = "") -> str:
        """Write a configuration; give its path."""
        path = self.dir / "gate.ini"
        path.write_text(CONFIG.format(more=more))
        path.chmod(0o600)
        return str(path)

    def test_add(self) -> None:
        """A made key is printed alone on stdout, works, and is not in the file."""
        code, out, err = self.run_("add", "ann", "--servers", "a,b")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"\Amg_[0-9a-f]{8}_[0-9a-f]{64}\n\Z")
        (entry,) = read_keys(self.path).entries
        self.assertTrue(entry.matches(Secret(out.strip())))
        self.assertEqual((entry.name, entry.servers), ("ann", frozenset({"a", "b"})))
        self.assertNotIn(out.strip().rpartition("_")[2], self.path.read_text() + err)

    def test_add_json(self) -> None:
        """As JSON the key comes with what is known about it."""
        _, out, _ = self.run_("add", "ann", "--format", "json")
        told = json.loads(out)
        (entry,) = read_keys(self.path).entries
        self.assertTrue(entry.matches(Secret(told["key"])))
        self.assertEqual((told["id"], told["servers"]), (entry.key_id, None))

    def test_import(self) -> None:
        """A key from stdin is taken, never shown, and only once."""
        code, out, err = self.run_("add", "ann", "--stdin", stdin=CANARY + "\n")
        self.assertEqual(code, 0)
        (entry,) = read_keys(self.path).entries
        self.assertTrue(entry.matches(Secret(CANARY)))
        self.assertNotIn(CANARY, out + err + self.path.read_text())
        code, out, err = self.run_("add", "bob", "--stdin", stdin=CANARY)
        self.assertEqual(code, 1)
        self.assertIn("already", err)
        self.assertNotIn(CANARY, out + err)
        code, out, _ = self.run_("add", "eve", "--stdin", "--format", "json", stdin="e" * 20)
        self.assertNotIn("key", json.loads(out))

    def test_import_refused(self) -> None:
        """A weak key is refused with the rule, and not repeated."""
        code, out, err = self.run_("add", "ann", "--stdin", stdin="s3cret")
        self.assertEqual(code, 1)
        self.assertIn("16", err)
        self.assertNotIn("s3cret", out + err)
        self.assertFalse(self.path.exists())

    def test_list(self) -> None:
        """The list shows ids, names and servers in columns; an absent file has no keys."""
        self.assertEqual(self.run_("list")[1].split(), ["ID", "NAME", "CREATED", "SERVERS"])
        self.run_("add", "ann", "--servers", "b,a")
        self.run_("add", "bob")
        _, out, _ = self.run_("list")
        lines = [line.split() for line in out.splitlines()[1:]]
        self.assertEqual([(line[1], line[3]) for line in lines], [("ann", "a,b"), ("bob", "*")])
        _, out, _ = self.run_("list", "--format", "json")
        self.assertEqual([key["name"] for key in json.loads(out)], ["ann", "bob"])

    def test_revoke(self) -> None:
        """An id takes away one key, a name all of a user's; comments stay."""
        self.path.write_text("# ours\n")
        self.path.chmod(0o600)
        for name in ("ann", "ann", "ann", "bob"):
            self.run_("add", name)
        first = read_keys(self.path).entries[0].key_id
        code, out, _ = self.run_("revoke", first)
        self.assertEqual((code, out), (0, f"Key {first} of ann revoked.\n"))
        code, out, _ = self.run_("revoke", "ann", "--format", "json")
        self.assertEqual(len(json.loads(out)["revoked"]), 2)
        self.assertEqual([e.name for e in read_keys(self.path).entries], ["bob"])
        self.assertTrue(self.path.read_text().startswith("# ours\n"))

    def test_revoke_nothing(self) -> None:
        """A key or file that is not there is told, with exit code 1."""
        code, _, err = self.run_("revoke", "ann")
        self.assertEqual(code, 1)
        self.assertIn("no such file", err)
        self.run_("add", "bob")
        code, _, err = self.run_("revoke", "ann")
        self.assertEqual(code, 1)
        self.assertIn("'ann'", err)

    def test_revoke_ambiguous(self) -> None:
        """A name that is also the id of somebody else's key takes nothing away."""
        self.run_("add", "ann")
        key_id = read_keys(self.path).entries[0].key_id
        self.run_("add", key_id)
        code, _, err = self.run_("revoke", key_id)
        self.assertEqual(code, 1)
        self.assertIn("by hand", err)
        self.assertEqual(len(read_keys(self.path).entries), 2)

    def test_bad_file(self) -> None:
        """A file that can not be read is told with its line, and not overwritten."""
        self.path.write_text("nonsense\n")
        self.path.chmod(0o600)
        for command in (("add", "ann"), ("list",), ("revoke", "ann")):
            code, _, err = self.run_(*command)
            self.assertEqual(code, 1)
            self.assertIn("keys:1:", err)
        self.assertEqual(self.path.read_text(), "nonsense\n")

    def test_config(self) -> None:
        """The file is found through the configuration, and servers are checked against it."""
        config = self.config()
        code, _, err = self.run_("add", "ann", "--config", config, "--servers", "wiki", file=False)
        self.assertEqual((code, "team.keys" in err), (0, True), err)
        self.assertEqual(len(read_keys(self.dir / "team.keys").entries), 1)
        code, _, err = self.run_("add", "ann", "--config", config, "--servers", "wikki", file=False)
        self.assertEqual(code, 2)
        self.assertIn("wikki", err)
        code, _, _ = self.run_("add", "ann", "--config", config, "--servers", "*", file=False)
        self.assertEqual(code, 0)

    def test_several_sources(self) -> None:
        """With several key files --source chooses; a wrong one is told with the right ones."""
        config = self.config("[auth:ops]\ntype = static\nkeys_file = ops.keys\n")
        code, _, err = self.run_("list", "--config", config, file=False)
        self.assertEqual((code, "ops,team" in err), (2, True), err)
        code, _, err = self.run_("list", "--config", config, "--source", "opps", file=False)
        self.assertEqual((code, "ops,team" in err), (2, True), err)
        code, _, _ = self.run_("add", "a", "--config", config, "--source", "ops", file=False)
        self.assertEqual(code, 0)
        self.assertTrue((self.dir / "ops.keys").exists())

    def test_no_static_source(self) -> None:
        """A configuration without a key file is told as such."""
        path = self.dir / "gate.ini"
        path.write_text("[auth:all]\ntype = none\n")
        path.chmod(0o600)
        code, _, err = self.run_("list", "--config", str(path), file=False)
        self.assertEqual((code, "type = static" in err), (2, True), err)

    def test_wrong_usage(self) -> None:
        """A refused configuration and options that do not fit give exit code 2."""
        code, _, _ = self.run_("list", "--config", str(self.dir / "no.ini"), file=False)
        self.assertEqual(code, 2)
        code, _, _ = self.run_("list", "--source", "team")
        self.assertEqual(code, 2)
        code, _, _ = self.run_("list", "--config", "a.ini")
        self.assertEqual(code, 2)

    def test_broken_randomness(self) -> None:
        """A source of randomness that repeats itself is noticed."""
        self.run_("add", "ann")
        keys = read_keys(self.path)
        (taken,) = keys.entries
        with self.assertRaisesRegex(KeyFileError, "randomness"):
            keys_command._free_id(keys, lambda _: bytes.fromhex(taken.key_id))
