"""``mcpgate demo`` prints lines that work and keeps its key."""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.gate.access.keyfile import read_keys
from mcpgate.model import Secret
from tests.cli.commands import run

INI = """
[gate]
listen = tls:tcp:9443:interface=127.0.0.1
state_dir = state

[auth:demo]
type = static
keys_file = state/keys

[server:time]
command = /bin/true
transport = stdio
"""


class DemoTests(SynchronousTestCase):
    """What is printed, and what is kept."""

    @override
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.ini = self.directory / "demo.ini"
        self.write(INI)

    def write(self, text: str) -> None:
        """Write the configuration."""
        self.ini.write_text(text)
        self.ini.chmod(0o600)

    def demo(self) -> tuple[int, str, str]:
        """Run it without becoming the gate."""
        key_file = self.directory / "demo.key"
        return run("demo", "--config", str(self.ini), "--key-file", str(key_file), "--no-run")

    def test_lines(self) -> None:
        """The address, a key that is good, and lines for clients are printed."""
        code, out, err = self.demo()
        self.assertEqual((code, err), (0, ""))
        self.assertIn("mcpgate on https://127.0.0.1:9443", out)
        self.assertIn("claude mcp add --transport http time https://127.0.0.1:9443/time/mcp", out)
        self.assertIn("curl --cacert", out)
        found = re.search(r"mg_[0-9a-f]+_[0-9a-f]+", out)
        assert found is not None
        keys = read_keys(self.directory / "state" / "keys")
        self.assertTrue(keys.entries[0].matches(Secret(found[0])))
        self.assertEqual((self.directory / "demo.key").stat().st_mode & 0o777, 0o600)

    def test_key_is_kept(self) -> None:
        """A second run prints the same key, so that what was pasted still works."""
        self.assertEqual(self.demo()[1], self.demo()[1])

    def test_revoked_key_is_replaced(self) -> None:
        """A key the gate does not know any more is replaced by a new one."""
        _, before, _ = self.demo()
        (self.directory / "state" / "keys").unlink()
        _, after, _ = self.demo()
        self.assertNotEqual(before, after)

    def test_public_url(self) -> None:
        """Clients are shown the public address where there is one."""
        self.write(INI.replace("[gate]", "[gate]\npublic_url = https://mcp.example.org"))
        self.assertIn("mcpgate on https://mcp.example.org", self.demo()[1])

    def test_every_address(self) -> None:
        """A gate on every address is shown on loopback."""
        self.write(INI.replace(":interface=127.0.0.1", ""))
        self.assertIn("mcpgate on https://127.0.0.1:9443", self.demo()[1])

    def test_bad_configuration(self) -> None:
        """A bad file is told as `mcpgate check` tells it."""
        self.write("[gate]\nnonsense = 1\n")
        code, out, err = self.demo()
        self.assertEqual((code, out), (2, ""))
        self.assertIn("nonsense", err)

    def test_no_static_keys(self) -> None:
        """A demo needs keys it can make."""
        self.write(INI.replace("static\nkeys_file = state/keys", "none"))
        self.assertEqual(self.demo()[0], 2)

    def test_unwritable(self) -> None:
        """What can not be written is said without a traceback."""
        (self.directory / "state").write_text("a file in the way")
        code, _, err = self.demo()
        self.assertEqual(code, 1)
        self.assertNotIn("Traceback", err)
