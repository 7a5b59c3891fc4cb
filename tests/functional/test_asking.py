"""``mcpgate tools``, ``call``, ``test``, ``status`` and ``add --test`` against a running gate."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import TestCase

from tests.functional import real
from tests.functional.gate_process import (
    GATE,
    HTTP,
    MCPGATE,
    NO_LIMITS,
    ROOT,
    SERVERS,
    STDIO,
    TWISTD,
    GateProcess,
    free_port,
    processes_below,
    wait_for,
)
from tests.functional.mcp_client import Client

SESSION = ROOT / "docs" / "guide" / "operator-session.sh"

MORE = """
[server:free]
command = <python> <servers>/stdio_mcp.py
stop_grace = 1s
isolation = shared
[server:broken]
command = <python> -c raise(SystemExit(3))
isolation = shared
start_timeout = 5s
start_wait = 5s
[group:some]
servers = free io
"""


class AskingTests(TestCase):
    """A running gate with a server for each key, one for all, and one that does not run."""

    def setUp(self) -> None:
        """Start it."""
        self.gate = GateProcess(self, GATE + NO_LIMITS + STDIO + HTTP + MORE)
        self.key = self.gate.add_key("joe")
        self.gate.start()

    def test_tools(self) -> None:
        """Tools are listed with what they cost, of one server or all, in the name of a key."""
        told = self.gate.told("tools", "free")
        self.assertIn("echo", [tool["name"] for tool in told["free"]["tools"]])
        self.assertGreater(told["free"]["tokens"], 10)
        self.assertIn("tools", self.gate.command("tools", "free").stdout)
        named = self.gate.command("tools", "free", "--format", "names").stdout.split()
        self.assertIn("echo", named)
        refused = self.gate.command("tools", "io")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("say for whose", refused.stderr)
        ran = self.gate.command("tools", "io", "--key-stdin", input=self.key + "\n")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertNotIn(self.key, ran.stdout + ran.stderr)
        grouped = self.gate.command(
            "tools", "some", "--format", "names", "--key-stdin", input=self.key + "\n"
        )
        self.assertIn("io__echo", grouped.stdout)
        every = self.gate.command("tools", "--format", "names", "--user", "joe")
        self.assertEqual(every.returncode, 1)  # broken did not tell
        self.assertIn("broken:", every.stderr)
        self.assertIn("free/echo", every.stdout)
        self.assertIn("io/echo", every.stdout)

    def test_call(self) -> None:
        """A tool is called with JSON or with words; what fails gives exit code 1."""
        ran = self.gate.command("call", "free", "echo", "message=hello world")
        self.assertEqual((ran.returncode, ran.stdout), (0, "echo: hello world\n"), ran.stderr)
        told = self.gate.told("call", "free", "echo", '{"message": "x"}')
        self.assertEqual(told["content"][0]["text"], "echo: x")
        ran = self.gate.command("call", "io", "env", "of=X_KEY", "--key-stdin", input=self.key)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        ran = self.gate.command("call", "web", "echo", "message=x", "--key-stdin", input=self.key)
        self.assertEqual((ran.returncode, ran.stdout), (0, "echo: x\n"), ran.stderr)
        for words in (("free", "die"), ("broken", "x"), ("none", "x")):
            ran = self.gate.command("call", *words)
            self.assertEqual(ran.returncode, 1, (words, ran.stdout))
            self.assertNotEqual(ran.stdout + ran.stderr, "")
        self.assertEqual(self.gate.command("call", "free", "echo", "word").returncode, 2)

    def test_test(self) -> None:
        """Each step is told with its time, and what failed with where to look."""
        ran = self.gate.command("test", "free", "--call", "echo", "message=x")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        for word in ("handshake", "tools", "call echo", "echo: x"):
            self.assertIn(word, ran.stdout)
        ran = self.gate.command("test", "broken")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("FAIL", ran.stdout)
        self.assertIn("mcpgate logs broken", ran.stderr)

    def test_status(self) -> None:
        """No server is running that is not, and the last error is told."""
        self.gate.command("call", "broken", "x")
        client = Client(self.gate, "io", self.key)
        client.initialize()
        found = {one["server"]: one for one in self.gate.told("status")}
        self.assertEqual(found["free"]["state"], "unused")
        self.assertEqual(found["broken"]["state"], "failed")
        self.assertNotEqual(found["broken"]["error"], "")
        self.assertEqual((found["io"]["state"], found["io"]["sessions"]), ("running", 1))
        self.assertIn("failed", self.gate.command("status", "broken").stdout)

    def test_add(self) -> None:
        """A server is added, tried and served; one that fails is taken out again."""
        before = self.gate.ini.read_text()
        words = (sys.executable, str(SERVERS / "stdio_mcp.py"))
        ran = self.gate.command("add", "fresh", "--test", config=False)
        self.assertEqual(ran.returncode, 2)
        self.assertEqual(self.added("bad", "/bin/false"), 1)
        self.assertEqual(self.gate.ini.read_text(), before)
        self.assertEqual(self.added("fresh", *words), 0)
        said = self.gate.command("call", "fresh", "echo", "message=new")
        self.assertEqual(said.stdout, "echo: new\n", said.stderr)
        removed = self.gate.command("remove", "fresh")
        self.assertEqual(removed.returncode, 0, removed.stderr)
        wait_for(
            lambda: "fresh" not in json.dumps(self.gate.told("status")), "the gate takes it over"
        )

    def added(self, name: str, *words: str) -> int:
        """Run ``add --test``; give its exit code."""
        ran = subprocess.run(
            [*MCPGATE, "add", name, "--test", "--config", str(self.gate.ini), "--", *words],
            capture_output=True,
            check=False,
            cwd=self.gate.directory,
            env=self.gate.environment(),
            timeout=60,
        )
        return ran.returncode


class SessionTests(TestCase):
    """The operator's session of the guide."""

    def test_session(self) -> None:
        """From an empty directory to a served call, with a mistake and the way back."""
        place = Path(tempfile.mkdtemp(prefix="mcpgate-test-"))
        self.addCleanup(shutil.rmtree, place)
        programs = {
            "mcpgate": MCPGATE,
            "twistd": TWISTD,
            "uvx": [real.python("servers"), "-m", "mcp_server_time"],
        }
        (place / "bin").mkdir()
        for name, words in programs.items():
            program = place / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            program.chmod(0o755)
        # The package is named to uvx, and need not be told to what it runs.
        uvx = place / "bin" / "uvx"
        uvx.write_text(uvx.read_text().replace(' "$@"', ""))
        text = SESSION.read_text().replace(":8443:", f":{free_port()}:")
        path = os.pathsep.join((str(place / "bin"), os.environ["PATH"]))
        ran = subprocess.run(
            ["sh", "-c", text],
            cwd=place,
            env={
                "PATH": path,
                "HOME": str(place),
                "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertIn("Europe/Prague", ran.stdout)
        self.assertTrue(ran.stdout.endswith("convert_time\n"), ran.stdout)
        self.assertNotIn("Traceback", ran.stdout + ran.stderr)
        wait_for(lambda: not processes_below(place), "the gate's end")
