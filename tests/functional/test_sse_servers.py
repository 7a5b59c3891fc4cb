"""Real servers of HTTP+SSE behind the gate: the Python SDK 1.30 and server-everything."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any
from unittest import TestCase

from tests.functional import real
from tests.functional.gate_process import (
    AT_ONCE_S,
    GATE,
    NO_LIMITS,
    SERVERS,
    GateProcess,
    children_of,
    free_port,
    wait_for,
)
from tests.functional.mcp_client import Client

SECTIONS = """
[server:old]
command = {python} <servers>/sdk1_sse.py {{port}}
transport = sse
env.WHO = {{user}}
header.X-Key = {{key}}
memory = 1GiB
stop_grace = 1s

[server:everything]
command = {node} {script} sse
env.PORT = {{port}}
transport = sse
memory = 4GiB
stop_grace = 1s

[server:far]
url = http://127.0.0.1:{port}/sse
transport = sse
header.X-Key = {{key}}
"""


class SSEServerTests(TestCase):
    """One gate, servers started by it and one that runs elsewhere."""

    def begin(self) -> GateProcess:
        """Start the gate."""
        self.python = real.python("mcp1")
        main = "@modelcontextprotocol/server-everything/dist/index.js"
        self.port = free_port()
        text = SECTIONS.format(
            python=self.python,
            node=real.node(),
            script=real.package("everything") / main,
            port=self.port,
        )
        self.gate = GateProcess(self, GATE + NO_LIMITS + text)
        self.keys = {name: self.gate.add_key(name) for name in ("ann", "bob")}
        return self.gate.start()

    def open(self, server: str, name: str) -> Client:
        """Open a session."""
        client = Client(self.gate, server, self.keys[name])
        self.assertEqual(client.initialize().status, 200)
        return client

    def elsewhere(self) -> subprocess.Popen[bytes]:
        """Start the server that is not the gate's."""
        process = subprocess.Popen(
            [self.python, str(SERVERS / "sdk1_sse.py"), str(self.port)],
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def end() -> None:
            process.kill()
            process.wait()

        self.addCleanup(end)
        return process

    def test_python(self) -> None:
        """Each user's own process: calls, progress, logs, questions to the client."""
        self.begin()
        ann, bob = self.open("old", "ann"), self.open("old", "bob")
        self.assertEqual(ann.call("echo", message="x").text, "ann: x")
        self.assertEqual(bob.call("echo", message="x").text, "bob: x")
        self.assertEqual(ann.call("who").text, self.keys["ann"])
        told = ann.request(
            "tools/call",
            {"name": "steps", "arguments": {"n": 3}, "_meta": {"progressToken": "t"}},
        ).messages
        methods = [message.get("method") for message in told]
        self.assertEqual(methods.count("notifications/progress"), 3)
        self.assertEqual(methods.count("notifications/message"), 3)
        self.assertEqual(told[-1]["result"]["content"][0]["text"], "done")

    def test_a_process_that_is_killed(self) -> None:
        """The next call starts another, the handshake replayed."""
        gate = self.begin()
        ann = self.open("old", "ann")
        pid = int(ann.call("pid").text)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: pid not in children_of(gate.pid), "the end of the server")
        self.assertNotEqual(int(ann.call("pid").text), pid)

    def test_a_process_that_dies_within_a_call(self) -> None:
        """The caller hears exit code and last words within a second (R34)."""
        self.begin()
        ann = self.open("old", "ann")
        self.assertEqual(ann.call("echo", message="x").text, "ann: x")
        begun = time.monotonic()
        data = ann.call("die").message["error"]["data"]
        self.assertLess(time.monotonic() - begun, AT_ONCE_S)
        self.assertEqual(data["exitCode"], 7)
        self.assertIn("Out of cheese", data["stderr"])

    def test_everything(self) -> None:
        """The TypeScript SDK's: a session, its tools and a call."""
        self.begin()
        ann = self.open("everything", "ann")
        tools = [tool["name"] for tool in ann.request("tools/list").message["result"]["tools"]]
        self.assertIn("echo", tools)
        self.assertEqual(ann.call("echo", message="x").text, "Echo: x")

    def test_elsewhere(self) -> None:
        """By URL, with each caller's key; a server that was restarted is found again."""
        self.begin()
        process = self.elsewhere()

        def up() -> Any:
            client = Client(self.gate, "far", self.keys["ann"])
            return client if client.initialize().status == 200 else None

        ann = wait_for(up, "the server")
        bob = self.open("far", "bob")
        self.assertEqual(ann.call("who").text, self.keys["ann"])
        self.assertEqual(bob.call("who").text, self.keys["bob"])
        process.kill()
        process.wait()
        self.assertIn("error", ann.call("who").message)
        self.elsewhere()
        wait_for(lambda: "result" in ann.call("who").message, "the server")
        self.assertEqual(bob.call("who").text, self.keys["bob"])
