"""Clients of revision 2026-07-28 on servers of it, through a real gate over TLS."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.functional import real
from tests.functional.gate_process import GATE, NO_LIMITS, GateProcess, rest, wait_for
from tests.functional.mcp_client import Client
from tests.functional.real_clients import BY_NAME, KEY_FIELD, Task
from tests.functional.servers.fake_model import FakeModel
from tests.functional.yardsticks import YARDSTICKS

CLIENTS = Path(__file__).parent / "clients"
VERSION = "2026-07-28"
META = "io.modelcontextprotocol/"
SERVERS = {"web": "py2", "io": "py2-modern-stdio"}


def message(method: str, id: int | str = 1, **params: object) -> dict[str, Any]:
    """Make a request."""
    about = {META + "protocolVersion": VERSION, META + "clientCapabilities": {}}
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": {**params, "_meta": about}}


class ModernCase(TestCase):
    """A gate with a server that speaks both eras over HTTP, and a modern one over stdio."""

    def setUp(self) -> None:
        """Start it."""
        real.require("mcp2")
        sections = [YARDSTICKS[kind].entry(name) for name, kind in SERVERS.items()]
        sections[1] += "era = modern\n"
        text = GATE + f"[auth]\nheader = {KEY_FIELD}\n" + NO_LIMITS + "".join(sections)
        self.gate = GateProcess(self, text.replace("[gate]", "[gate]\nsse_keepalive = 1s"))
        self.key = self.gate.add_key("joe")
        self.gate.start()
        self.clients = {name: Client(self.gate, name, self.key) for name in SERVERS}

    def ask(self, server: str, asked: dict[str, Any], **fields: str) -> Any:
        """POST a request with the fields that go with it."""
        more = {"MCP-Protocol-Version": VERSION, "Mcp-Method": asked["method"]}
        name = asked["params"].get("name", asked["params"].get("uri"))
        if name is not None:
            more["Mcp-Name"] = name
        return self.clients[server].post(asked, **more, **fields)

    def assert_idle(self) -> None:
        """Check that nothing is in work any more."""

        def idle() -> bool:
            text = self.gate.get("/metrics").body.decode()
            return "\nmcpgate_calls_in_work 0.0" in text and "\nmcpgate_streams 0.0" in text

        wait_for(idle, "everything is given back")


class PythonClientTests(ModernCase):
    """The Python SDK 2.x chooses the modern era by itself."""

    def drive(self, server: str) -> dict[str, Any]:
        """Run the driver against a server."""
        home = tempfile.mkdtemp(prefix="mcpgate-client-")
        self.addCleanup(shutil.rmtree, home, ignore_errors=True)
        task = {
            "url": f"https://127.0.0.1:{self.gate.port}/{server}/mcp",
            "headers": {"Authorization": f"Bearer {self.key}"},
            "mark": server,
        }
        ran = subprocess.run(
            [real.python("mcp2"), str(CLIENTS / "modern2.py"), json.dumps(task)],
            capture_output=True,
            check=False,
            text=True,
            cwd=home,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": home,
                "LANG": "C.UTF-8",
                "SSL_CERT_FILE": str(self.gate.certificate),
            },
            timeout=90,
        )
        self.assertEqual(ran.returncode, 0, ran.stderr[-3000:])
        return dict(json.loads(ran.stdout.splitlines()[-1]))

    def check(self, server: str) -> None:
        """Check all that it saw."""
        seen = self.drive(server)
        self.assertIn("test_simple_text", seen.pop("tools"))
        self.assertIn("Ada", seen.pop("asked"))
        self.assertEqual(
            seen,
            {
                "version": VERSION,
                "text": "This is a simple text response for testing.",
                "progress": [0, 50, 100],
                "header": "here",
                "prompt": "This is a simple prompt for testing.",
                "resource": "This is the content of the static text resource.",
                "changes": ["ToolsListChanged", "ResourceUpdated"],
                "cancelled": "cancelled",
            },
        )
        self.assert_idle()

    def test_over_http(self) -> None:
        """Everything works on a server that speaks both eras over HTTP."""
        self.check("web")

    def test_over_stdio(self) -> None:
        """Everything works on a modern server over stdio."""
        self.check("io")


class AttackTests(ModernCase):
    """What nobody means well by; the gate goes on serving others."""

    def test_contradictions_and_monsters(self) -> None:
        """Each is refused with the code that the protocol or the gate has for it."""
        good = json.dumps(message("tools/list")).encode()
        start, end = good[:-1].rsplit(b"}", 1)
        fields = {"MCP-Protocol-Version": VERSION, "Mcp-Method": "tools/list"}
        for body, more, status, code in (
            (good, {"MCP-Protocol-Version": "2025-11-25"}, 400, -32020),
            (good, {"Mcp-Method": "tools/call"}, 400, -32020),
            (start + b',"a":"\\ud800"}' + end + b"}", {}, 400, -32700),
            (start + b',"a":' + b"[" * 5000 + b"]" * 5000 + b"}}", {}, 400, -32700),
            (start + b',"a":NaN}}', {}, 400, -32700),
            (start + b',"a":1,"a":2}}', {}, 400, -32600),
            (b"[" + good + b"]", {}, 400, -32600),
            (b'{"jsonrpc":"2.0","id":1,"result":{}}', {}, 400, -32600),
            (json.dumps(message("initialize")).encode(), {"Mcp-Method": "initialize"}, 404, -32601),
        ):
            for server in SERVERS:
                answer = self.clients[server].ask("POST", body, **{**fields, **more})
                self.assertEqual((answer.status, answer.error["code"]), (status, code), body[:90])
        large = start + b',"a":"' + b"x" * 10 * 2**20 + b'"}}'
        for server in SERVERS:
            answer = self.clients[server].ask("POST", large, **fields)
            self.assertEqual(answer.status, 413)
            self.assertEqual(self.ask(server, message("tools/list")).status, 200)

    def test_a_header_twice(self) -> None:
        """Nobody is served whose headers two readers could read differently."""
        body = json.dumps(message("tools/list")).encode()
        for name in ("MCP-Protocol-Version: " + VERSION, "mcp-method: tools/list"):
            with self.gate.socket() as line:
                line.sendall(self._head(len(body), name) + body)
                answer = line.recv(65536)
            self.assertIn(b" 400 ", answer[:20])
            self.assertIn(b"-32020", answer)

    def test_clients_that_go(self) -> None:
        """Whatever they leave behind, nothing stays taken."""
        body = json.dumps(message("tools/call", name="test_slow", arguments={"mark": "g"})).encode()
        for server in SERVERS:
            self.assertEqual(self.ask(server, message("tools/list")).status, 200)
            for _ in range(10):
                head = self._head(len(body), "Mcp-Name: test_slow", server, "tools/call")
                with self.gate.socket() as line:
                    line.sendall(head + body)
                    line.settimeout(0.05)
                    with self.subTest("nothing is said yet"), self.assertRaises(TimeoutError):
                        line.recv(1)
            self.assert_idle()

    def _head(
        self, length: int, extra: str, server: str = "web", method: str = "tools/list"
    ) -> bytes:
        return "\r\n".join(
            [
                f"POST /{server}/mcp HTTP/1.1",
                "Host: 127.0.0.1",
                f"Authorization: Bearer {self.key}",
                "Content-Type: application/json",
                "Accept: application/json, text/event-stream",
                f"MCP-Protocol-Version: {VERSION}",
                f"Mcp-Method: {method}",
                f"Content-Length: {length}",
                extra,
                "",
                "",
            ]
        ).encode()


class LifeTests(ModernCase):
    """Streams and restarts."""

    @contextmanager
    def listening(self, server: str) -> Iterator[Any]:
        """Open a subscription; gives what reads its lines."""
        asked = message("subscriptions/listen", "L", notifications={"toolsListChanged": True})
        connection = self.gate.connection()
        fields = self.clients[server].fields(
            **{"MCP-Protocol-Version": VERSION, "Mcp-Method": "subscriptions/listen"}
        )
        connection.request("POST", f"/{server}/mcp", json.dumps(asked).encode(), fields)
        try:
            yield connection.getresponse()
        finally:
            connection.close()

    def read(self, stream: Any) -> dict[str, Any]:
        """Give the next frame."""
        while True:
            line = stream.readline()
            self.assertNotEqual(line, b"", "the stream has ended")
            if line.startswith(b"data:"):
                return dict(json.loads(line[5:]))

    def test_a_subscription_outlives_its_server(self) -> None:
        """The server dies, the next call starts it, and the listener hears of a gap."""
        for server in SERVERS:
            with self.listening(server) as stream:
                first = self.read(stream)
                self.assertEqual(first["method"], "notifications/subscriptions/acknowledged")
                self.assertEqual(first["params"]["_meta"][META + "subscriptionId"], "L")
                self.assertEqual(self.gate.command("stop", server, "--all").returncode, 0)
                rest(1.5)
                self.assertEqual(self.ask(server, message("tools/list")).status, 200)
                told = self.read(stream)
                self.assertEqual(told["method"], "notifications/tools/list_changed")
                call = message("tools/call", name="test_trigger_tool_change", arguments={})
                self.assertEqual(self.ask(server, call).status, 200)
                self.assertEqual(self.read(stream)["method"], told["method"])

    def test_the_gate_stops(self) -> None:
        """Subscriptions end with their result."""
        with self.listening("io") as stream:
            self.read(stream)
            assert self.gate.process is not None
            self.gate.process.terminate()
            self.assertEqual(self.read(stream)["result"]["resultType"], "complete")
            self.assertEqual(stream.read().strip(), b"")
        self.gate.stop()


# Have the list of tools grow, let some time pass, call what is new.
GROWING = ("test_trigger_tool_change", *["test_tool_with_progress"] * 5, "test_grown")


class ClaudeCodeTests(ModernCase):
    """Claude Code speaks the modern era wherever the server does."""

    def test_list_and_call(self) -> None:
        """It lists and calls, and all it asked for on the way was modern."""
        real.require("claude")
        model = FakeModel()
        self.addCleanup(model.stop)
        for server in SERVERS:
            task = Task(
                url=f"https://127.0.0.1:{self.gate.port}/{server}/mcp",
                certificate=self.gate.certificate,
                key=self.key,
                calls=[("test_simple_text", {})] * 2,
                model=model.url,
            )
            said = BY_NAME["claude_code"].run(task)
            self.assertEqual(len(said.results), 2)
            for result in said.results:
                self.assertIn("This is a simple text response for testing.", result, said.output)
            asked = wait_for(partial(self.accesses, server), "the access log")
            self.assertNotEqual(asked, [])
            self.assertEqual([line for line in asked if f"era={VERSION}" not in line], [])

    def test_list_changes(self) -> None:
        """A tool that the server has only now is one that its model can call."""
        real.require("claude")
        model = FakeModel()
        self.addCleanup(model.stop)
        said = BY_NAME["claude_code"].run(
            Task(
                url=f"https://127.0.0.1:{self.gate.port}/web/mcp",
                certificate=self.gate.certificate,
                key=self.key,
                calls=[(tool, {}) for tool in GROWING],
                model=model.url,
            )
        )
        self.assertEqual(said.results[0], "results: changed", said.output)
        # The server's own words: Claude Code passes calls on for tools of the list alone.
        self.assertIn("Unknown: test_grown", said.results[-1])

    def accesses(self, server: str) -> list[str]:
        """Give the lines of the access log for a server."""
        start = f"POST /{server}/mcp"
        return [line for line in self.gate.log_text().splitlines() if start in line]
