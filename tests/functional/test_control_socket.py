"""The control socket and its commands, over a real socket, from a real process."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from mcpgate.gate.sessions import SessionTable
from mcpgate.model import Principal
from mcpgate.stores.memory import MemoryStore
from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.views import ImageView, InstanceView, Leftover
from mcpgate.web.pages.control import (
    SOCKET_NAME,
    Chosen,
    ControlService,
    ControlView,
    Tidying,
)
from mcpgate.web.pages.control_tree import make_site

SESSION_ID = "canary-session-id-0123"
MAIN = "import sys; from mcpgate.cli import main; sys.exit(main())"


class ControlSocketTests(TestCase):
    """`ControlService` and the commands."""

    timeout = 300

    def setUp(self) -> None:
        """Run a control socket over a session table."""
        from twisted.internet import reactor  # noqa: TID251 - the real one is what is tested

        # Not under trial's own directory: a socket's path must be short.
        self.directory = Path(tempfile.mkdtemp(prefix="mg-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.stopped: list[Chosen] = []
        table = SessionTable(
            MemoryStore(),
            clock=reactor,
            wall=lambda: 0.0,
            make_id=lambda: SESSION_ID,
            meters=Meters(),
        )
        table.create(Principal("keys", "ada", "ab" * 16), "files", b"{}", "2025-06-18", {})
        view = ControlView(
            version="1.2",
            started_at=0.0,
            wall=lambda: 0.0,
            instances=lambda: [InstanceView(server="files", owner="abababab", state="running")],
            sessions=table.views,
            left=lambda: succeed([InstanceView(server="files", owner="cd", state="stopped")]),
            images=lambda: succeed([ImageView(name="x:1", servers=("files",))]),
            logs=self.logs,
            follow=lambda chosen, cursors: {},
            start=self.stop,
            stop=self.stop,
            servers=lambda: [],
            ask=lambda asked: None,
            pins=lambda asked: None,
            clean_up=self.clean_up,
            reload=lambda: succeed([]),
        )
        self.reactor = reactor
        clock: Any = reactor
        self.site = make_site(view, make_id=lambda: "r-1", clock=clock)
        self.service = self.make()
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def make(self) -> ControlService:
        """Make a service for the same directory."""
        running: Any = self.reactor
        return ControlService(running, self.directory, lambda: succeed(self.site))

    def logs(self, chosen: Chosen) -> Mapping[str, Sequence[str]] | None:
        """Know one server."""
        return {"abababab": ["starting", "failed \x1b[31m"]} if chosen.server == "files" else None

    def stop(self, chosen: Chosen) -> Deferred[list[tuple[str, str]]]:
        """Note it."""
        self.stopped.append(chosen)
        return succeed([("files", "abababab")])

    def clean_up(self, tidying: Tidying) -> Deferred[list[Leftover]]:
        """Find one thing."""
        return succeed([Leftover(kind="network", name="n", why=repr(tidying))])

    async def command(self, *argv: str) -> tuple[str, str, int]:
        """Run ``mcpgate`` in a process of its own."""
        out, err, code = await getProcessOutputAndValue(
            sys.executable,
            ["-c", MAIN, *argv, "--state-dir", str(self.directory)],
            env={**os.environ, "PYTHONWARNINGS": ""},
        )
        return out.decode(), err.decode(), code

    async def test_commands(self) -> None:
        """Every command gets its answer, and no session id."""
        out, err, code = await self.command("ps", "--format", "names")
        self.assertEqual((out, err, code), ("files/abababab\n", "", 0))
        out, _, code = await self.command("sessions", "--format", "json")
        self.assertEqual((json.loads(out)[0]["user"], code), ("ada", 0))
        self.assertNotIn("canary", out)
        out, _, code = await self.command("logs", "files")
        self.assertEqual((out, code), ("starting\nfailed \\x1b[31m\n", 0))
        _, err, code = await self.command("logs", "nothing")
        self.assertEqual((err, code), ("mcpgate: There is no such server.\n", 1))
        out, _, code = await self.command("stop", "files", "--owner", "abababab")
        self.assertEqual((out, code), ("files/abababab\n", 0))
        out, _, code = await self.command("start", "files", "--user", "ada")
        self.assertEqual((out, code), ("files/abababab\n", 0))
        self.assertEqual(
            self.stopped,
            [Chosen(server="files", owner="abababab"), Chosen(server="files", user="ada")],
        )
        out, _, code = await self.command("ps", "--all", "--format", "names")
        self.assertEqual((out, code), ("files/abababab\nfiles/cd\n", 0))
        out, _, code = await self.command("ps", "--images", "--format", "names")
        self.assertEqual((out, code), ("x:1\n", 0))

    async def test_no_gate(self) -> None:
        """Without a gate the commands say so, with exit code 3."""
        await self.service.stopService()
        self.assertEqual(list(self.directory.iterdir()), [])
        _, err, code = await self.command("ps")
        self.assertEqual(code, 3)
        self.assertIn("no gate is running here", err)

    async def test_what_a_dead_gate_left(self) -> None:
        """A socket without a gate behind it is said to be none, and replaced at the next start."""
        await self.service.stopService()
        path = self.directory / SOCKET_NAME
        import socket

        left = socket.socket(socket.AF_UNIX)
        left.bind(str(path))
        left.close()
        _, _, code = await self.command("ps")
        self.assertEqual(code, 3)
        os.symlink("999999999", f"{path}.lock")
        self.service.startService()
        _, _, code = await self.command("ps")
        self.assertEqual(code, 0)

    def test_private(self) -> None:
        """Nobody else may even connect."""
        mode = (self.directory / SOCKET_NAME).stat().st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o600)

    def test_two_gates(self) -> None:
        """A second gate in the same state directory does not take the socket."""
        with self.assertRaises(CannotListenError):
            self.make().startService()
