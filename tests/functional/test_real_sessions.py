"""Sessions of real SDK clients that outlive what serves them, and all a server may ask of them."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.functional import real
from tests.functional.gate_process import (
    GATE,
    NO_LIMITS,
    GateProcess,
    children_of,
    processes_below,
    wait_for,
)
from tests.functional.mcp_client import Client

CLIENTS = Path(__file__).parent / "clients"
ANSWER_S = 90.0

SERVERS = """
[server:stdio]
command = {python} <servers>/sdk1_server.py
env.WHO = {{user}}
memory = 512MiB
stop_grace = 1s
{extra}

[server:http]
command = {python} <servers>/sdk1_server.py {{port}}
transport = http
env.WHO = {{user}}
memory = 512MiB
stop_grace = 1s
{extra}
"""
KINDS = ("stdio", "http")
QUICK = "idle_stop = 1s"


class Talk:
    """A client in a process of its own, with one session, that is told what to call."""

    def __init__(self, case: TestCase, gate: GateProcess, server: str, key: str, sdk: str) -> None:
        home = tempfile.mkdtemp(prefix="mcpgate-client-")
        case.addCleanup(shutil.rmtree, home, ignore_errors=True)
        url = f"https://127.0.0.1:{gate.port}/{server}/mcp"
        task = {"url": url, "headers": {"Authorization": f"Bearer {key}"}}
        self.errors = Path(home) / "errors"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [real.python(f"mcp{sdk}"), str(CLIENTS / f"talk{sdk}.py"), json.dumps(task)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=home,
                env={
                    "PATH": "/usr/bin:/bin",
                    "HOME": home,
                    "LANG": "C.UTF-8",
                    "SSL_CERT_FILE": str(gate.certificate),
                },
            )
        case.addCleanup(self.end)

    def ready(self) -> Talk:
        """Wait until it has shaken hands."""
        self.version = self.answer()["text"]
        return self

    def answer(self) -> dict[str, Any]:
        """Give its next answer."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_S)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            raise AssertionError(f"the client says nothing:\n{self.errors.read_text()[-3000:]}")
        return dict(json.loads(line))

    def call(self, tool: str, **arguments: object) -> dict[str, Any]:
        """Call a tool and give all it tells of it."""
        assert self.process.stdin is not None
        order = json.dumps({"tool": tool, "arguments": arguments})
        self.process.stdin.write(order.encode() + b"\n")
        self.process.stdin.flush()
        return self.answer()

    def text(self, tool: str, **arguments: object) -> str:
        """Call a tool that works."""
        answer = self.call(tool, **arguments)
        if "text" not in answer:
            raise AssertionError(f"{answer}\n{self.errors.read_text()[-3000:]}")
        return str(answer["text"])

    def end(self) -> int:
        """Let it close its session, and give its exit status."""
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        status = self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


class RealCase(TestCase):
    """A gate with a stdio and an HTTP server on the Python SDK 1.30."""

    def begin(self, extra: str = "") -> GateProcess:
        """Start the gate, with a key."""
        python = real.python("mcp1")
        text = SERVERS.format(python=python, extra=extra)
        gate = GateProcess(self, GATE + NO_LIMITS + text)
        self.key = gate.add_key("joe")
        return gate.start()

    def talks(self, gate: GateProcess) -> list[Talk]:
        """Make a client of each SDK for each server."""
        real.require("mcp1", "mcp2")
        begun = [Talk(self, gate, kind, self.key, sdk) for sdk in ("1", "2") for kind in KINDS]
        return [talk.ready() for talk in begun]

    def end(self, gate: GateProcess, pids: set[int]) -> None:
        """``kill -9`` servers of the gate."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not pids & set(children_of(gate.pid)), "ended")

    def check(self, gate: GateProcess, hurt: Callable[[set[int]], None]) -> None:
        """Call, hurt what serves, and call again in the same sessions."""
        talks = self.talks(gate)
        for talk in talks:
            self.assertEqual(talk.text("echo", message="before"), "joe: before")
        before = [int(talk.text("pid")) for talk in talks]
        # One copy for one key: both SDKs share it.
        self.assertEqual(len(set(before)), len(KINDS))
        hurt(set(before))
        for talk in talks:
            self.assertEqual(talk.text("echo", message="after"), "joe: after")
        after = [int(talk.text("pid")) for talk in talks]
        self.assertEqual(set(after) & set(before), set())
        for talk in talks:
            self.assertEqual(talk.end(), 0, talk.errors.read_text())


class KeptSessionTests(RealCase):
    """A client that never shakes hands twice works on."""

    def test_killed_child(self) -> None:
        """``kill -9`` of the servers goes unnoticed between two calls."""
        gate = self.begin()

        self.check(gate, lambda pids: self.end(gate, pids))

    def test_killed_gate(self) -> None:
        """``kill -9`` of the gate and its start again go unnoticed between two calls."""
        gate = self.begin()

        def hurt(pids: set[int]) -> None:
            gate.kill()
            wait_for(lambda: not pids & set(processes_below(gate.directory)), "ended")
            gate.start()

        self.check(gate, hurt)

    def test_idle_stop(self) -> None:
        """A stop for want of work goes unnoticed; open GET streams are no work."""
        gate = self.begin(QUICK)
        talks = self.talks(gate)
        for talk in talks:
            self.assertEqual(talk.text("echo", message="before"), "joe: before")
        wait_for(lambda: not children_of(gate.pid), "all servers stop")
        for talk in talks:
            self.assertEqual(talk.text("echo", message="after"), "joe: after")

    def test_like_gemini(self) -> None:
        """A client that never says MCP-Protocol-Version is served all the same."""
        gate = self.begin()
        for kind in KINDS:
            client = Client(gate, kind, self.key)
            self.assertEqual(client.initialize().status, 200)
            self.assertNotIn("Mcp-Protocol-Version", client.fields())
            with client.listen() as stream:
                self.assertEqual(stream.status, 200)
                self.assertEqual(client.call("echo", message="one").text, "joe: one")
                self.end(gate, {int(client.call("pid").text)})
                self.assertEqual(client.call("echo", message="two").text, "joe: two")


class ConversationTests(RealCase):
    """What a server may say to a client, and ask of it, with the Python SDK 1.30 on both ends."""

    def test_questions(self) -> None:
        """Elicitation, roots and sampling make the round trip."""
        gate = self.begin()
        for kind in KINDS:
            talk = Talk(self, gate, kind, self.key, "1").ready()
            self.assertEqual(talk.text("choose"), "joe: chose green")
            self.assertEqual(talk.text("roots"), "joe: roots file:///my/root")
            self.assertEqual(talk.text("sample"), "joe: model said heliotrope")

    def test_progress(self) -> None:
        """Progress arrives, complete and in order."""
        gate = self.begin()
        for kind in KINDS:
            talk = Talk(self, gate, kind, self.key, "1").ready()
            answer = talk.call("count", to=4)
            self.assertEqual(answer["text"], "joe: counted to 4")
            self.assertEqual(answer["progress"], [1, 2, 3, 4])

    def test_list_changed(self) -> None:
        """The news of a changed list reaches the client, on its GET stream."""
        gate = self.begin()
        for kind in KINDS:
            talk = Talk(self, gate, kind, self.key, "1").ready()
            # Its GET stream is opened beside the first calls.
            self.assertEqual(talk.text("echo", message="hello"), "joe: hello")
            raw = Client(gate, kind, self.key)
            raw.initialize()
            with raw.listen() as stream:
                self.assertEqual(raw.call("grow").text, "joe: grew")
                self.assertIn(b"tools/list_changed", read_until(stream, b"list_changed"))
            talk.text("grow")

            def told(talk: Talk = talk) -> bool:
                answer = talk.call("echo", message="told?")
                return "notifications/tools/list_changed" in answer["notified"]

            wait_for(told, f"{kind}: the client was told")


def read_until(stream: Any, wanted: bytes) -> bytes:
    """Read lines of a stream until one holds this; the connection's timeout bounds each line."""
    deadline = time.monotonic() + ANSWER_S
    seen = b""
    while wanted not in seen and time.monotonic() < deadline:
        line = stream.readline()
        if not line:
            break
        seen += line
    return seen
