"""Tests of asking a gate that is not there, and of what is printed."""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.cli import control_client, make_parser
from mcpgate.cli.control_client import (
    NO_GATE,
    CommandError,
    ControlClient,
    mebibytes,
    print_table,
    span,
)
from mcpgate.cli.logs import unknown

INSTANCES = [
    {
        "server": "files",
        "owner": "aabbccdd",
        "user": "ada\x1b[2J",
        "state": "running",
        "uptime_s": 3700.0,
        "idle_s": 5.0,
        "heard_s": 2.0,
        "calls": 1,
        "memory_bytes": 64 * 1024**2,
        "cpu_s": None,
        "image": "x:1",
        "starts": 3,
        "exit_reason": "exited",
        "exit_code": 1,
        "error": "",
    },
    {
        "server": "clock",
        "owner": "shared",
        "user": "",
        "state": "stopped",
        "uptime_s": None,
        "idle_s": 90000.0,
        "calls": 0,
        "memory_bytes": None,
        "cpu_s": 61.0,
        "image": "",
        "starts": 0,
        "exit_reason": "",
        "exit_code": None,
        "error": "no place",
    },
]
SESSIONS = [
    {
        "label": "12345678",
        "server": "files",
        "owner": "aabbccdd",
        "user": "ada",
        "revision": "2025-06-18",
        "age_s": 100.0,
        "idle_s": 1.0,
        "in_use": 2,
        "instance": "",
    }
]


class FakeConnection:
    """A connection to a gate that answers what the test says."""

    asked: list[tuple[str, str, object]] = []
    answer: tuple[int, bytes] | Exception = (200, b"{}")

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.status = 0

    def request(self, method: str, target: str, body: bytes | None) -> None:
        """Note it."""
        FakeConnection.asked.append((method, target, json.loads(body) if body else None))
        if isinstance(self.answer, Exception):
            raise self.answer

    def getresponse(self) -> FakeConnection:
        """Be the response, too."""
        assert not isinstance(self.answer, Exception)
        self.status = self.answer[0]
        return self

    def read(self, limit: int) -> bytes:
        """Give the body."""
        assert not isinstance(self.answer, Exception)
        return self.answer[1]

    def close(self) -> None:
        """Nothing to close."""


class CommandCase(SynchronousTestCase):
    """Commands against a fake gate."""

    def setUp(self) -> None:
        """Take the connection's place."""
        FakeConnection.asked = []
        FakeConnection.answer = (200, b"{}")
        self.patch(control_client, "_UnixConnection", FakeConnection)
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def run_command(self, *argv: str, answer: object = None, status: int = 200) -> int:
        """Run a command line, give its exit code."""
        if isinstance(answer, Exception):
            FakeConnection.answer = answer
        elif answer is not None:
            FakeConnection.answer = (status, json.dumps(answer).encode())
        arguments = make_parser().parse_args([*argv, "--state-dir", "/state"])
        return int(arguments.run(arguments))


class CommandTests(CommandCase):
    """`ps`, `sessions`, `logs` and `stop`."""

    def test_ps(self) -> None:
        """Instances are a table of one line each, without control characters."""
        self.assertEqual(self.run_command("ps", answer={"instances": INSTANCES}), 0)
        self.assertNotIn("clock", self.out.getvalue())
        self.out.truncate(0)
        self.out.seek(0)
        told = {"instances": INSTANCES, "missing": "The engine is silent."}
        self.assertEqual(self.run_command("ps", "--all", answer=told), 0)
        self.assertIn("The engine is silent.", self.err.getvalue())
        self.assertEqual(FakeConnection.asked[-1][1], "/instances/all")
        lines = self.out.getvalue().splitlines()
        self.assertEqual(
            [line.split() for line in lines],
            [
                [
                    *"SERVER OWNER USER STATE UP IDLE HEARD CALLS".split(),
                    *"MEMORY CPU IMAGE RESTARTS LAST END".split(),
                ],
                "files aabbccdd ada\\x1b[2J running 1h01m 5s 2s 1 64M - x:1 2 exited 1".split(),
                "clock shared - stopped - 1d01h - 0 - 1m - 0 no place".split(),
            ],
        )

    def test_images(self) -> None:
        """Images are shown with how far their pull is, or why it failed."""
        base: dict[str, Any] = {
            "digest": "sha256:" + "a" * 64,
            "pull": "never",
            "percent": None,
            "error": "",
        }
        images = [
            {
                **base,
                "name": "a:1",
                "servers": ["x", "y"],
                "state": "present",
                "size_bytes": 1 << 20,
            },
            {**base, "name": "b:1", "servers": ["x"], "state": "pulling", "size_bytes": None},
            {**base, "name": "c:1", "servers": ["y"], "state": "missing", "size_bytes": None},
        ]
        images[1]["percent"] = 41.4
        images[2]["error"] = "no such repository"
        self.assertEqual(self.run_command("ps", "--images", answer={"images": images}), 0)
        text = self.out.getvalue()
        self.assertIn("a:1    present                      1M    sha256:aaaaaaaaaaaa  never", text)
        self.assertIn("pulling 41%", text)
        self.assertIn("missing: no such repository", text)
        images[1]["percent"] = None
        self.run_command("ps", "x", "--images", "--format", "names")
        self.assertTrue(self.out.getvalue().endswith("\na:1\nb:1\n"))
        self.run_command("ps", "x", "--images", "--format", "json")
        self.run_command("ps", "x", "--images", answer={"images": images})
        self.assertRegex(self.out.getvalue(), r"pulling +-")

    def test_ps_of_one_server(self) -> None:
        """One server's instances, as names for scripts and as JSON for programs."""
        answer = {"instances": INSTANCES}
        self.run_command("ps", "clock", "--all", "--format", "names", answer=answer)
        self.assertEqual(self.out.getvalue(), "clock/shared\n")
        self.out.truncate(0)
        self.out.seek(0)
        self.run_command("ps", "--all", "--format", "json")
        self.assertEqual(json.loads(self.out.getvalue()), INSTANCES)

    def test_sessions(self) -> None:
        """Sessions are shown in all three forms."""
        answer = {"sessions": SESSIONS}
        self.assertEqual(self.run_command("sessions", answer=answer), 0)
        self.assertIn("12345678  files   aabbccdd  ada", self.out.getvalue())
        self.run_command("sessions", "files", "--format", "names")
        self.assertTrue(self.out.getvalue().endswith("\n12345678\n"))
        self.run_command("sessions", "other", "--format", "json")
        self.assertTrue(self.out.getvalue().endswith("\n[]\n"))

    def test_logs(self) -> None:
        """Lines of one instance stand alone, those of several behind their owner."""
        self.assertEqual(
            self.run_command("logs", "a/b", answer={"logs": {"aa": ["one", "\x1b[2Jtwo"]}}), 0
        )
        self.assertEqual(self.out.getvalue(), "one\n\\x1b[2Jtwo\n")
        self.assertEqual(FakeConnection.asked[0][:2], ("GET", "/logs/a%2Fb"))
        both = {"logs": {"bb": ["two"], "aa": ["one"]}}
        self.run_command("logs", "files", "--owner", "a&b", answer=both)
        self.assertTrue(self.out.getvalue().endswith("aa  one\nbb  two\n"))
        self.assertEqual(FakeConnection.asked[1][1], "/logs/files?owner=a%26b")
        self.run_command("logs", "files", "--format", "json")
        self.assertIn('"bb": [', self.out.getvalue())
        self.assertEqual(self.run_command("logs", "files", answer={"logs": {}}), 0)
        self.assertIn("no instance of files is known", self.err.getvalue())

    def test_stop(self) -> None:
        """What was stopped is named; nothing to stop is exit code 1."""
        stopped = {"stopped": [{"server": "files", "owner": "aa"}]}
        self.assertEqual(self.run_command("stop", "files", "--all", answer=stopped), 0)
        self.assertEqual(self.out.getvalue(), "files/aa\n")
        self.assertEqual(
            FakeConnection.asked,
            [("POST", "/instances/stop", {"server": "files", "owner": "", "user": ""})],
        )
        code = self.run_command(
            "stop", "files", "--owner", "bb", "--format", "json", answer={"stopped": []}
        )
        self.assertEqual(code, 1)
        self.assertIn("no such instance is running", self.err.getvalue())
        asked = {"server": "files", "owner": "bb", "user": ""}
        self.assertEqual(FakeConnection.asked[1][2], asked)
        self.run_command("stop", "--server", "files", "--idle", "5min", answer=stopped)
        self.assertEqual(FakeConnection.asked[2][2], {**asked, "owner": "", "idle_s": 300.0})
        self.run_command("stop", "--idle")
        self.assertEqual(
            FakeConnection.asked[3][2], {"server": "", "owner": "", "user": "", "idle_s": 0.0}
        )
        self.assertEqual(self.run_command("stop", "a", "--server", "b", "--all"), 2)

    def test_start(self) -> None:
        """What was started is named; the key of an owner comes on stdin."""
        answer = {"started": [{"server": "files", "owner": "aa"}]}
        self.assertEqual(self.run_command("start", "files", "--user", "ada", answer=answer), 0)
        self.run_command("start", "files", "--owner", "aa", "--format", "json")
        self.patch(sys, "stdin", io.StringIO("sesame\n"))
        self.run_command("start", "files", "--stdin")
        self.assertEqual(
            [asked for _, _, asked in FakeConnection.asked],
            [
                {"server": "files", "user": "ada"},
                {"server": "files", "owner": "aa"},
                {"server": "files", "key": "sesame"},
            ],
        )
        self.assertTrue(self.out.getvalue().startswith("files/aa\n["))
        self.assertEqual(self.run_command("start", "files", "--stdin"), 2)

    def test_stop_needs_to_know_what(self) -> None:
        """Stopping everything has to be said."""
        self.assertEqual(self.run_command("stop", "files"), 2)
        self.assertEqual(self.run_command("stop"), 2)
        with self.assertRaises(SystemExit):
            self.run_command("stop", "--idle", "soon")

    def follow(self, *argv: str, answers: list[object]) -> int:
        """Follow a log through some answers, then press Ctrl-C."""
        left = list(answers)

        def rest(_: float) -> None:
            if not left:
                raise KeyboardInterrupt
            FakeConnection.answer = (200, json.dumps({"logs": left.pop(0)}).encode())

        self.patch(time, "sleep", rest)
        rest(0)
        with self.assertRaises(KeyboardInterrupt):
            self.run_command("logs", "files", "-f", *argv)
        return len(FakeConnection.asked)

    def test_follow(self) -> None:
        """New lines are printed as they come, also the last words, once, and a restart's."""
        running = {"lines": ["one", "two"], "cursor": "i:2", "ended": ""}
        self.follow(
            "--tail",
            "1",
            answers=[
                {"aa": running},
                {"aa": {"lines": ["three"], "cursor": "i:3", "ended": ""}},
                {"aa": {"lines": ["two", "three", "oh"], "cursor": "", "ended": "exited"}},
                {"aa": {"lines": ["two", "three", "oh"], "cursor": "", "ended": "exited"}},
                {"aa": {"lines": ["one"], "cursor": "j:1", "ended": ""}},
            ],
        )
        self.assertEqual(self.out.getvalue(), "two\nthree\noh\none\n")
        self.assertEqual(self.err.getvalue(), "aa: ended: exited\n")
        cursors = [asked["cursors"] for _, _, asked in FakeConnection.asked]  # type: ignore[index]  # JSON
        self.assertEqual(cursors, [{}, {"aa": "i:2"}, {"aa": "i:3"}, {}, {}])

    def test_follow_several(self) -> None:
        """Lines of several instances stand behind their owner."""
        ended = {"lines": ["x"], "cursor": "", "ended": "stopped"}
        other = {"lines": ["new"], "cursor": "", "ended": "killed"}
        self.follow(answers=[{"aa": ended, "bb": {**ended, "lines": []}}, {"bb": other}])
        self.assertEqual(self.out.getvalue(), "aa  x\n")
        self.assertEqual(self.err.getvalue(), "")
        self.assertEqual(unknown(["a"], ["b"]), ["b"])
        self.assertEqual(self.run_command("logs", "files", "-f", "--format", "json"), 2)
        with self.assertRaises(SystemExit):
            self.run_command("logs", "files", "--tail", "-3")

    def test_tail(self) -> None:
        """No more lines are shown than asked for."""
        logs = {"logs": {"aa": ["one", "two"]}}
        self.run_command("logs", "files", "--tail", "1", "--user", "ada", answer=logs)
        self.run_command("logs", "files", "--tail", "0")
        self.assertEqual(self.out.getvalue(), "two\n")
        self.assertEqual(FakeConnection.asked[0][1], "/logs/files?user=ada")

    def test_refused(self) -> None:
        """The gate's reason is printed, in one line."""
        answer = {"error": {"reason": "not_found", "message": "There is no such server.\x1b"}}
        self.assertEqual(self.run_command("logs", "x", answer=answer, status=404), 1)
        self.assertEqual(self.err.getvalue(), "mcpgate: There is no such server.\\x1b\n")
        self.assertEqual(self.run_command("ps", answer={"error": 3}, status=500), 1)
        self.assertIn("HTTP status 500", self.err.getvalue())

    def test_failures(self) -> None:
        """Each way of not reaching a gate has its sentence and exit code."""
        for error, code, text in (
            (FileNotFoundError(), NO_GATE, "no gate is running here"),
            (ConnectionRefusedError(), NO_GATE, "/state/control.sock"),
            (PermissionError(), 1, "another user"),
            (TimeoutError(), 1, "did not answer within 10 s"),
            (ConnectionResetError(104, "reset"), 1, "broke off"),
            (OSError(), 1, "OSError"),
        ):
            self.err.truncate(0)
            self.assertEqual(self.run_command("ps", answer=error), code)
            self.assertIn(text, self.err.getvalue())
        for body in (b"<html>", b"[]"):
            FakeConnection.answer = (200, body)
            self.assertEqual(self.run_command("ps"), 1)
            self.assertIn("does not speak", self.err.getvalue())


class FindGateTests(SynchronousTestCase):
    """Where the gate is looked for."""

    def find(self, **given: Any) -> ControlClient:
        """Look."""
        arguments = {"state_dir": None, "config": None, **given}
        return control_client.find_gate(argparse.Namespace(**arguments))

    def test_state_dir(self) -> None:
        """The directory given, or that of the environment."""
        self.assertEqual(self.find(state_dir=Path("/s"))._path, Path("/s/control.sock"))
        self.patch(os, "environ", {"STATE_DIRECTORY": "/var/lib/mcpgate"})
        self.assertEqual(self.find()._path, Path("/var/lib/mcpgate/control.sock"))

    def test_config(self) -> None:
        """The directory the configuration names."""
        path = Path(self.mktemp())
        path.write_text("[gate]\nstate_dir = /var/lib/other\n[auth:a]\ntype = none\n")
        path.chmod(0o600)
        self.assertEqual(self.find(config=path)._path, Path("/var/lib/other/control.sock"))

    def test_here(self) -> None:
        """That of the gate.ini of the working directory."""
        self.patch(os, "environ", {"STATE_DIRECTORY": "/var/lib/mcpgate"})
        path = Path(self.mktemp())
        self.patch(control_client, "_HERE", path)
        self.assertEqual(self.find()._path, Path("/var/lib/mcpgate/control.sock"))
        path.write_text("[gate]\nstate_dir = /var/lib/here\n[auth:a]\ntype = none\n")
        path.chmod(0o600)
        self.assertEqual(self.find()._path, Path("/var/lib/here/control.sock"))

    def test_bad_config(self) -> None:
        """A file that can not be read is told, with a way out."""
        with self.assertRaises(CommandError) as caught:
            self.find(config=Path("/nothing/here.ini"))
        self.assertEqual(caught.exception.code, 2)
        self.assertIn("--state-dir", str(caught.exception))

    def test_nowhere(self) -> None:
        """Without any hint one is asked for."""
        self.patch(os, "environ", {})
        with self.assertRaises(CommandError) as caught:
            self.find()
        self.assertEqual(caught.exception.code, 2)

    def test_connection_is_a_unix_socket(self) -> None:
        """The client connects to the socket's path, with its time limit."""
        calls: list[object] = []

        class Fake:
            def __init__(self, family: int, kind: int) -> None:
                calls.append(family)

            def settimeout(self, timeout_s: float) -> None:
                calls.append(timeout_s)

            def connect(self, path: str) -> None:
                calls.append(path)

        self.patch(socket, "socket", Fake)
        control_client._UnixConnection(Path("/s/x"), 3.0).connect()
        self.assertEqual(calls, [socket.AF_UNIX, 3.0, "/s/x"])


class FormTests(SynchronousTestCase):
    """Figures and tables."""

    def test_figures(self) -> None:
        """Times and sizes are short."""
        self.assertEqual(
            [span(s) for s in (None, 0.4, 61, 3700, 180000)], ["-", "0s", "1m", "1h01m", "2d02h"]
        )
        self.assertEqual((mebibytes(None), mebibytes(5 * 1024**2)), ("-", "5M"))

    def test_empty_table(self) -> None:
        """A table without rows still has its titles."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        print_table(("A", "B"), [])
        self.assertEqual(out.getvalue(), "A  B\n")
