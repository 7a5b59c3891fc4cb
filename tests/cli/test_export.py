"""Tests of mcpgate.cli.export and mcpgate.cli.completion."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import yaml
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

    def listen(self, lines: str) -> None:
        """Write another configuration."""
        self.gate.write_text(BASE.replace("listen = tcp:8080:interface=127.0.0.1\n", lines))

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
        # What Podman of today knows is what that of 4.6 knew: it refuses any other key.
        known = {"Image", "Exec", "Volume", "PublishPort", "ReadOnly", "Tmpfs"}
        known |= {"NoNewPrivileges", "DropCapability", "PodmanArgs"}
        known |= {
            f"Health{one}" for one in ("Cmd", "Interval", "Timeout", "StartPeriod", "Retries")
        }
        inside = quadlet.partition("[Container]\n")[2].partition("\n[")[0].splitlines()
        keys = {line.partition("=")[0] for line in inside if line and line[0] != "#"}
        self.assertEqual(keys, known)

    def test_compose(self) -> None:
        """It is YAML, with fields and kinds of values that Compose knows."""
        told = yaml.safe_load(self.exported("compose"))
        self.assertEqual(list(told), ["services"])
        self.assertEqual(list(told["services"]), ["mcpgate"])
        service = told["services"]["mcpgate"]
        kinds = {
            "image": str,
            "command": str,
            "restart": str,
            "healthcheck": dict,
            "stop_grace_period": str,
            "init": bool,
            "read_only": bool,
            "tmpfs": list,
            "cap_drop": list,
            "security_opt": list,
            "ports": list,
            "volumes": list,
            "logging": dict,
        }
        self.assertEqual({name: type(value) for name, value in service.items()}, kinds)
        self.assertEqual(service["image"], "localhost/mcpgate:latest")
        asked = ["python", "-P", "-m", "mcpgate.cli.health", "--config", str(self.gate)]
        self.assertEqual(service["healthcheck"]["test"], ["CMD", *asked])
        told = f"\nHealthCmd={' '.join(asked)}\n"
        self.assertIn(told, self.exported("quadlet"))
        usual = json.dumps([*asked[:-1], "/etc/mcpgate/gate.ini"])
        self.assertIn(f"CMD {usual}", (ETC / "Dockerfile").read_text())
        self.assertEqual(service["ports"], ["8443:8443"])
        for name in ("tmpfs", "cap_drop", "security_opt", "ports", "volumes"):
            self.assertEqual({type(one) for one in service[name]}, {str}, name)
        self.assertIn(f"{self.gate.parent}:{self.gate.parent}:ro", service["volumes"])
        self.assertEqual({type(one) for one in service["logging"]["options"].values()}, {str})

    def test_only_what_is_reached_is_published(self) -> None:
        """A port of loopback is not; with no other, nothing is said of ports."""
        both = "listen =\n    tls:tcp:8443\n    tcp:8080:interface=127.0.0.1\n"
        self.listen(both)
        self.assertNotIn("8080", self.exported("quadlet") + self.exported("compose"))
        for alone in ("tcp:8080:interface=127.0.0.1", r"tcp6:8080:interface=\:\:1"):
            self.listen(f"listen = {alone}\n")
            self.assertNotIn("PublishPort", self.exported("quadlet"))
            self.assertNotIn(
                "ports", yaml.safe_load(self.exported("compose"))["services"]["mcpgate"]
            )

    def test_nginx(self) -> None:
        """The variables of nginx stay its own."""
        site = self.exported("nginx")
        self.assertIn("server_name mcp.example.org;", site)
        self.assertIn("listen 8443 ssl;", site)
        self.assertIn("proxy_set_header Host $host;", site)
        self.assertIn("proxy_pass http://127.0.0.1:8080;", site)

    def test_nginx_finds_the_gate(self) -> None:
        """Its port is that of the public URL, and behind it the gate's own without TLS."""
        for listen, upstream in (
            ("tcp:8090:interface=127.0.0.1", "127.0.0.1:8090"),
            ("tcp:8090", "127.0.0.1:8090"),
            (r"tcp6:8090:interface=\:\:1", "[::1]:8090"),
            ("haproxy:tcp:8090", "127.0.0.1:8080"),
        ):
            self.listen(f"listen =\n    tls:tcp:8443\n    {listen}\n")
            site = self.exported("nginx")
            self.assertIn(f"proxy_pass http://{upstream};", site)
            self.assertIn("listen 443 ssl;", site)

    def test_nginx_and_names_of_servers(self) -> None:
        """Names that stand for servers are served: a star may be a part of a label."""
        self.listen(
            "listen = tcp:8080\npublic_url = https://mcp.example.org\n"
            "server_hosts = *.mcp.example.org mcp-*.example.net\n"
        )
        names = r"mcp.example.org *.mcp.example.org ~^mcp\-[^.]+\.example\.net$"
        self.assertIn(f"server_name {names};", self.exported("nginx"))

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
