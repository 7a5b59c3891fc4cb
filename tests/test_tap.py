"""What twistd sees of mcpgate."""

import sys
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.tap import Options


class OptionsTests(SynchronousTestCase):
    """Reading the configuration from the command line."""

    def test_bad_file(self) -> None:
        """A configuration that can not be used ends the program with 2 and says why."""
        path = Path(self.mktemp())
        path.write_text("[gate]\nlissten = tcp:80\n")
        path.chmod(0o600)
        told = StringIO()
        self.patch(sys, "stderr", told)
        ended = self.assertRaises(SystemExit, Options().parseOptions, ["--config", str(path)])
        self.assertEqual(ended.code, 2)
        self.assertIn("lissten", told.getvalue())
        self.assertIn("listen", told.getvalue())
        self.assertNotIn("Traceback", told.getvalue())

    def test_good_file(self) -> None:
        """A good configuration is kept for the service."""
        path = Path(self.mktemp())
        path.write_text(
            "[gate]\nlisten = tcp:8080:interface=127.0.0.1\nstate_dir = state\n"
            "[auth:keys]\ntype = static\nkeys_file = keys\n"
            "[server:time]\ncommand = /bin/true\ntransport = stdio\n"
        )
        path.chmod(0o600)
        options = Options()
        options.parseOptions(["--config", str(path)])
        self.assertEqual([spec.name for spec in options.gate_config.servers], ["time"])
