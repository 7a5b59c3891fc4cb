"""Tests of mcpgate.cli.export and mcpgate.cli.completion."""

from __future__ import annotations

import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.cli.export import FORMS
from tests.cli.commands import run
from tests.config.writing import BASE

ETC = Path(__file__).parents[2] / "etc"


class ExportTests(SynchronousTestCase):
    """``mcpgate export``."""

    def setUp(self) -> None:
        """Write a configuration."""
        directory = Path(self.mktemp())
        directory.mkdir()
        self.gate = (directory / "gate.ini").absolute()
        self.gate.write_text(
            BASE.replace(
                "listen = tcp:8080:interface=127.0.0.1",
                "listen = tls:tcp:8443\npublic_url = https://mcp.example.org:8443\n"
                "state_dir = /var/lib/mcpgate",
            )
        )
        self.gate.chmod(0o644)

    def exported(self, form: str) -> str:
        """Give what is printed."""
        code, out, err = run("export", form, "--config", str(self.gate))
        self.assertEqual((code, err), (0, ""))
        return out

    def test_systemd(self) -> None:
        """The unit is the one of etc/, with the paths of this configuration."""
        unit = self.exported("systemd")
        told = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
        self.assertTrue(told.endswith(f"twistd -n --pidfile= mcpgate --config {self.gate}"))
        program = told.removeprefix("ExecStart=").partition(" ")[0]
        usual = unit.replace(program, "/opt/mcpgate/bin/twistd")
        usual = usual.replace(str(self.gate), "/etc/mcpgate/gate.ini")
        self.assertEqual(usual, (ETC / "mcpgate.service").read_text())

    def test_containers(self) -> None:
        """Quadlet and compose publish the port and mount what the gate needs."""
        quadlet = self.exported("quadlet")
        self.assertIn("\nPublishPort=8443:8443\n", quadlet)
        self.assertIn(f"\nVolume={self.gate.parent}:{self.gate.parent}:ro,Z\n", quadlet)
        self.assertIn("\nVolume=/var/lib/mcpgate:/var/lib/mcpgate:Z\n", quadlet)
        compose = self.exported("compose")
        self.assertIn('\n      - "8443:8443"\n', compose)
        self.assertIn("image: localhost/mcpgate:latest\n", compose)

    def test_nginx(self) -> None:
        """The variables of nginx stay its own."""
        site = self.exported("nginx")
        self.assertIn("server_name mcp.example.org;", site)
        self.assertIn("proxy_set_header Host $host;", site)

    def test_nothing_is_left(self) -> None:
        """Every blank is filled in; a bad configuration gives 2."""
        for form in FORMS:
            self.assertNotIn("${", self.exported(form))
        self.gate.write_text("nope")
        self.assertEqual(run("export", "systemd", "--config", str(self.gate))[0], 2)


class CompletionTests(SynchronousTestCase):
    """``mcpgate completion``."""

    def test_scripts(self) -> None:
        """Each shell gets a script that knows the commands; bash takes its own."""
        for shell in ("bash", "zsh", "fish", "tcsh"):
            code, out, _ = run("completion", shell)
            self.assertEqual(code, 0)
            self.assertIn("sessions", out)
        script = run("completion", "bash")[1]
        subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=20)
