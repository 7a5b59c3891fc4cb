"""Tests of cleaning up where no gate runs."""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.model import Config, DockerSection, GateSection
from mcpgate.gate.access.digest import SECRET_NAME, load_secret
from mcpgate.service import offline
from mcpgate.service.offline import OfflineError, clean_up, gate_id_of
from mcpgate.telemetry.views import Leftover
from mcpgate.web.pages.control import Tidying
from tests.runtime.docker.fake_engine import REFUSED, FakeEngine

OWNER = "ab" * 16


class OfflineTests(SynchronousTestCase):
    """`clean_up`."""

    def setUp(self) -> None:
        """Make a state directory as a gate leaves it, and an engine."""
        self.state_dir = Path(self.mktemp()).absolute()
        self.state_dir.mkdir(mode=0o700)
        (self.state_dir / "lock").touch(0o600)
        (self.state_dir / "docker-id").write_text("g\n")
        load_secret(self.state_dir, os.urandom)
        self.data = self.state_dir / "data" / "web" / OWNER
        self.data.mkdir(parents=True)
        self.config = Config(
            gate=GateSection(state_dir=self.state_dir),
            docker=DockerSection(files_dir=self.state_dir / "files"),
        )
        self.engine = FakeEngine()
        self.patch(offline, "connect", lambda url, timeout_s: self.engine)

    def container(self, *, running: bool) -> None:
        """Have the engine hold a container of the gate's."""
        labels = {
            "mcpgate.gate": "g",
            "mcpgate.server": "web",
            "mcpgate.isolation": "per-key",
            "mcpgate.owner": OWNER,
            "mcpgate.key": "k",
        }
        body = {"Labels": labels, "HostConfig": {"NetworkMode": "none"}, "Image": "i"}
        made = self.engine.create_container_from_config(body, "mcpgate-web")["Id"]
        if running:
            self.engine.start(made)
        else:
            self.engine.end(made, 0)

    def clean(self, **tidying: Any) -> list[Leftover]:
        """Clean up."""
        return clean_up(self.config, Tidying(**tidying), {})

    def test_containers(self) -> None:
        """Containers go by the same rules as in a gate."""
        self.container(running=False)
        (told,) = self.clean(orphans=True, dry_run=True)
        self.assertEqual(told.why, "there is no such server any more")
        self.assertEqual(len(self.engine.containers_), 1)
        self.clean(orphans=True)
        self.assertEqual(self.engine.containers_, {})

    def test_data(self) -> None:
        """Data goes only by name, and not while a container runs on it."""
        self.assertEqual(self.clean(data=("abababa",)), [])
        (told,) = self.clean(data=("abababab",), dry_run=True)
        self.assertEqual((told.kind, told.server, told.owner), ("data", "web", "abababab"))
        self.container(running=True)
        (told,) = self.clean(data=("abababab",))
        self.assertIn("uses it", told.error)
        self.assertTrue(self.data.exists())
        self.engine.containers_.clear()
        (told,) = self.clean(data=(OWNER,))
        self.assertEqual(told.error, "")
        self.assertFalse(self.data.exists())

    def test_running_gate(self) -> None:
        """What a running gate owns is not touched."""
        with (self.state_dir / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with self.assertRaisesRegex(OfflineError, "a gate holds"):
                self.clean(orphans=True)

    def test_no_gate_ever(self) -> None:
        """Where no gate has ever run there is nothing, and nothing is made."""
        (self.state_dir / "lock").unlink()
        self.assertEqual(self.clean(stopped=True), [])
        self.assertFalse((self.state_dir / "lock").exists())
        (self.state_dir / "lock").mkdir()
        with self.assertRaisesRegex(OfflineError, "lock: "):
            self.clean(stopped=True)

    def test_never_containers(self) -> None:
        """A gate that never had containers asks no engine."""
        (self.state_dir / "docker-id").unlink()
        self.patch(offline, "connect", None)
        self.assertEqual(self.clean(stopped=True, orphans=True), [])
        named = replace(self.config, docker=DockerSection(gate_id="named"))
        self.assertEqual(gate_id_of(named), "named")

    def test_failures(self) -> None:
        """Why it can not be done is told."""
        self.engine.refusals["list"] = REFUSED
        with self.assertRaisesRegex(OfflineError, "^no$"):
            self.clean(orphans=True)
        self.engine.refusals["list"] = OSError("gone")
        with self.assertRaisesRegex(OfflineError, "not answer"):
            self.clean(orphans=True)
        self.engine.refusals["list"] = ZeroDivisionError()
        with self.assertRaises(ZeroDivisionError):
            self.clean(orphans=True)
        (self.state_dir / SECRET_NAME).chmod(0o644)
        with self.assertRaisesRegex(OfflineError, "chmod 600"):
            self.clean(orphans=True)
        (self.state_dir / SECRET_NAME).unlink()
        self.assertEqual(self.clean(orphans=True), [])

        def refuse(error: Exception) -> Any:
            def connect(url: str, timeout_s: float) -> Any:
                raise error

            return connect

        for error, text in ((ImportError(), "pip install"), (OSError("no socket"), "no socket")):
            self.patch(offline, "connect", refuse(error))
            with self.assertRaisesRegex(OfflineError, text):
                self.clean(orphans=True)
