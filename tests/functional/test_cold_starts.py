"""Clients of servers that take their time to start: snapshots, spare copies, starts ahead."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest import TestCase

from tests.functional.gate_process import (
    GATE,
    HTTP,
    NO_LIMITS,
    SERVERS,
    STDIO,
    Answer,
    GateProcess,
    children_of,
    rest,
    wait_for,
)
from tests.functional.mcp_client import Client, events

T = TypeVar("T")

SLOW_S = 2.0
AT_ONCE_S = 1.2  # Of what takes a few milliseconds, on a machine that does much else.
SLOW = f"env.SLOW_START = {SLOW_S:g}\n"
NOBODYS = """
[server:io]
command = <python> <servers>/stdio_mcp.py
stop_grace = 1s
env.SLOW_START = 2
warm = 1
"""


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Do something; tell how long it took, too."""
    begun = time.monotonic()
    result = work()
    return result, time.monotonic() - begun


def tools(client: Client) -> list[str]:
    """List the tools, by name."""
    message = client.request("tools/list").message
    assert "result" in message, message
    return [tool["name"] for tool in message["result"]["tools"]]


def modern(client: Client, method: str, **params: Any) -> Answer:
    """Ask as a client of the era without sessions."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    fields = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
    if "name" in params:
        fields["Mcp-Name"] = params["name"]
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return client.post(message, **fields)


class ColdCase(TestCase):
    """A gate whose servers start slowly."""

    def begin(self, servers: str, before: Callable[[GateProcess], None] | None = None) -> None:
        """Start it."""
        self.gate = GateProcess(self, GATE + NO_LIMITS + servers)
        self.keys = self.gate.add_keys(3)
        if before is not None:
            before(self.gate)
        self.gate.start()

    def states(self) -> list[tuple[str, str]]:
        """Tell whose instances are in which state."""
        return sorted((one["owner"], one["state"]) for one in self.gate.told("ps"))

    def stop(self, server: str) -> None:
        """Stop every copy of a server."""
        self.gate.command("stop", server, "--all")

    def events(self) -> dict[str, Any]:
        """Give what was counted."""
        text = self.gate.get("/metrics").body.decode()
        found = {}
        for line in text.splitlines():
            if line.startswith("mcpgate_events_total{"):
                name, _, value = line.partition("} ")
                found[name.partition('event="')[2].rstrip('"')] = float(value)
        return found


class SnapshotTests(ColdCase):
    """Answers while a server starts."""

    def test_answered_at_once(self) -> None:
        """A second client need not wait, only its first call does; after a crash as well."""
        for server, name in ((STDIO, "io"), (HTTP, "web")):
            self.begin(server + SLOW)
            first = Client(self.gate, name, self.keys[0])
            _, took = timed(first.initialize)
            self.assertGreater(took, SLOW_S - 0.5)
            known = tools(first)
            rest(0.5)  # What was seen is written behind.
            for life in ("stopped", "killed"):
                if life == "stopped":
                    self.stop(name)
                else:
                    self.gate.kill()
                    self.gate.start()
                client = Client(self.gate, name, self.keys[0])
                answer, took = timed(client.initialize)
                self.assertLess(took, AT_ONCE_S, life)
                self.assertEqual(answer.status, 200)
                listed, took = timed(lambda client=client: tools(client))  # type: ignore[misc]
                self.assertEqual(listed, known)
                self.assertLess(took, AT_ONCE_S, life)
                params = {"name": "echo", "arguments": {"message": "x"}}
                told, took = timed(
                    lambda client=client, params=params: client.request(  # type: ignore[misc]
                        "tools/call", {**params, "_meta": {"progressToken": "p"}}
                    )
                )
                self.assertGreater(took, 0.5)
                self.assertEqual(told.text, "echo: x")
                heard = told.messages[0]["params"]
                self.assertEqual(heard["message"], f"starting server {name}")
                self.assertEqual((heard["progressToken"], heard["progress"]), ("p", 0))
            self.assertGreaterEqual(self.events()["snapshot_answer"], 2)
            other = Client(self.gate, name, self.keys[1])
            _, took = timed(other.initialize)
            self.assertGreater(took, SLOW_S - 0.5)  # Nobody else's lists are shown.
            self.gate.stop()

    def test_other_lists(self) -> None:
        """Tools that a server has no more, or has new, are announced once it runs."""

        def write(names: str) -> None:
            Path(self.gate.directory, "more").write_text(names)

        self.begin(STDIO + SLOW + "env.MORE_TOOLS = <dir>/more\n")
        write("old")
        first = Client(self.gate, "io", self.keys[0])
        first.initialize()
        self.assertIn("old", tools(first))
        self.stop("io")
        write("new")
        client = Client(self.gate, "io", self.keys[0])
        client.initialize()
        with client.listen() as stream:
            self.assertIn("old", tools(client))
            self.assertEqual(next(events(stream))["method"], "notifications/tools/list_changed")
        self.assertIn("new", tools(client))
        self.assertEqual(self.events()["snapshot_outdated"], 1)
        self.assertEqual(self.events()["tools_changed"], 1)
        self.assertIn("The tools of io have changed: added new, removed old", self.gate.log_text())
        self.stop("io")
        again = Client(self.gate, "io", self.keys[0])
        _, took = timed(again.initialize)
        self.assertLess(took, AT_ONCE_S)
        self.assertIn("new", tools(again))

    def test_start_that_fails(self) -> None:
        """A start that fails behind a client is told by its first call."""
        program = "<dir>/server.py"
        self.begin(STDIO.replace("<servers>/stdio_mcp.py", program), self.write_program)
        first = Client(self.gate, "io", self.keys[0])
        first.initialize()
        known = tools(first)
        rest(0.5)
        self.stop("io")
        Path(self.gate.directory, "server.py").write_text("raise SystemExit('no license')")
        client = Client(self.gate, "io", self.keys[0])
        self.assertEqual(client.initialize().status, 200)
        self.assertEqual(tools(client), known)
        answer = client.call("echo", message="x")
        self.assertEqual(answer.status, 200)
        self.assertIn(answer.error["code"], (-31001, -31003))
        self.assertIn("no license", str(answer.error["data"]))

    def write_program(self, gate: GateProcess) -> None:
        """Put a server where it can be replaced."""
        text = (SERVERS / "stdio_mcp.py").read_text()
        Path(gate.directory, "server.py").write_text(text)

    def test_changed_entry(self) -> None:
        """What another entry said of itself is not shown."""
        self.begin(STDIO + SLOW)
        first = Client(self.gate, "io", self.keys[0])
        first.initialize()
        tools(first)
        rest(0.5)
        self.gate.stop()
        self.gate.write(self.gate.ini.read_text() + "env.MORE = 1\n")
        self.gate.start()
        _, took = timed(Client(self.gate, "io", self.keys[0]).initialize)
        self.assertGreater(took, SLOW_S - 0.5)

    def test_modern_clients(self) -> None:
        """A client of 2026-07-28 is told the lists at once, too, and waits for its call."""
        self.begin(STDIO + SLOW)
        client = Client(self.gate, "io", self.keys[0])
        known = [modern(client, "tools/list").message["result"]["tools"] for _ in range(2)]
        self.assertIn("echo", str(known))
        rest(0.5)
        self.stop("io")
        listed, took = timed(lambda: modern(client, "tools/list"))
        self.assertEqual(listed.message["result"]["tools"], known[1])
        self.assertLess(took, AT_ONCE_S)
        call = modern(client, "tools/call", name="echo", arguments={"message": "x"})
        self.assertEqual(call.text, "echo: x")

    def test_off(self) -> None:
        """Turned off, everybody waits, and nothing is kept."""
        self.begin(STDIO + SLOW + "snapshot = off\n")
        for _ in range(2):
            client = Client(self.gate, "io", self.keys[0])
            _, took = timed(client.initialize)
            self.assertGreater(took, SLOW_S - 0.5)
            tools(client)
            self.stop("io")
        folder = Path(self.gate.directory, "state", "snapshots")
        self.assertFalse(folder.exists() and list(folder.iterdir()))


class WarmTests(ColdCase):
    """Copies that are ready before anybody comes."""

    def test_given(self) -> None:
        """A new key gets the spare copy at once, and another one takes its place."""
        self.begin(NOBODYS)
        wait_for(lambda: self.states() == [("warm", "running")], "one is ready", 15)
        rest(SLOW_S)  # On stdio, running is not yet answering.
        ann, ben = (Client(self.gate, "io", key) for key in self.keys[:2])
        _, took = timed(ann.initialize)
        self.assertLess(took, AT_ONCE_S)
        pid = int(ann.call("pid").text)
        wait_for(lambda: len(self.states()) == 2, "another one is started", 15)
        rest(SLOW_S)
        ben.initialize()
        self.assertNotEqual(int(ben.call("pid").text), pid)
        home = Path(ann.call("where").text)
        self.assertTrue(home.is_dir())
        self.assertEqual(int(ann.call("pid").text), pid)
        self.assertEqual(self.events()["spare_taken"], 2)
        self.stop("io")
        wait_for(lambda: not home.exists(), "what a spare copy left is gone", 10)
        self.gate.kill()
        self.gate.start()
        wait_for(lambda: self.states() == [("warm", "running")], "one is ready", 15)
        self.assertEqual(len(children_of(self.gate.pid)), 1)
        homes = Path(self.gate.directory, "state", "data", "io")
        self.assertEqual(len([path for path in homes.iterdir() if "warm" in path.name]), 1)

    def test_room(self) -> None:
        """Spare copies count, and go when somebody needs the room."""
        self.begin(NOBODYS.replace("warm = 1", "warm = 2") + STDIO.replace(":io", ":own"), self.cap)
        wait_for(lambda: len(self.states()) == 2, "two are ready", 15)
        own = Client(self.gate, "own", self.keys[0])
        own.initialize()
        self.assertEqual(own.call("echo", message="x").text, "echo: x")
        self.assertEqual([owner for owner, _ in self.states()].count("warm"), 1)

    def cap(self, gate: GateProcess) -> None:
        """Let two instances run at most."""
        gate.write(gate.ini.read_text().replace("sweep = 1s", "sweep = 1s\nmax_running = 2"))


class PrestartTests(ColdCase):
    """Servers that start when their key is seen."""

    def test_by_another_server(self) -> None:
        """A request to one server starts the others that say so, for that key alone."""
        ahead = STDIO.replace(":io", ":ahead") + SLOW + "prestart = on\n"
        self.begin(STDIO + ahead)
        Client(self.gate, "io", self.keys[0]).initialize()
        begun = {(one["server"], one["user"]) for one in self.gate.told("ps")}
        self.assertEqual({server for server, _ in begun}, {"io", "ahead"})
        self.assertEqual(len({user for _, user in begun}), 1)
        rest(SLOW_S + 0.5)
        client = Client(self.gate, "ahead", self.keys[0])
        _, took = timed(client.initialize)
        self.assertLess(took, AT_ONCE_S)
        self.assertEqual(client.call("env", of="X_KEY").text, self.keys[0])
        self.assertEqual(self.events()["instance_prestarted"], 1)

    def test_by_a_reload(self) -> None:
        """One that a reload brings starts at the reload, for the key that is at work."""
        self.begin(STDIO)
        Client(self.gate, "io", self.keys[0]).initialize()
        ahead = STDIO.replace(":io", ":ahead") + "prestart = on\n"
        self.gate.write(self.gate.ini.read_text() + ahead)
        self.assertEqual(self.gate.command("config", "apply").returncode, 0)

        def begun() -> set[tuple[str, str]]:
            return {(one["server"], one["state"]) for one in self.gate.told("ps")}

        wait_for(lambda: ("ahead", "running") in begun(), "it runs")
        self.assertEqual(len(self.gate.told("ps")), 2)
