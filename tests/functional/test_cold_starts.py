"""Clients of servers that take their time to start: snapshots, spare copies, starts ahead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
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
from tests.functional.mcp_client import Client, Waiting, events

HELD = "env.START_WHEN = <dir>/go\n"
NOBODYS = """
[server:io]
command = <python> <servers>/stdio_mcp.py
stop_grace = 1s
warm = 1
"""


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
    """A gate whose servers start when the test lets them: what comes before did not wait."""

    def begin(self, servers: str, before: Callable[[GateProcess], None] | None = None) -> None:
        """Start it; servers that are HELD may start."""
        self.gate = GateProcess(self, GATE + NO_LIMITS + servers)
        self.keys = self.gate.add_keys(3)
        if before is not None:
            before(self.gate)
        self.gate.start()
        self.release()

    def hold(self) -> None:
        """Let no server come up that starts from now on."""
        Path(self.gate.directory, "go").unlink()

    def release(self) -> None:
        """Let them come up."""
        Path(self.gate.directory, "go").touch()

    def wait_for_process(self) -> None:
        """Wait until a server has begun to start: there is a process that does not answer yet."""
        wait_for(lambda: children_of(self.gate.pid), "a process")

    def assert_waits(self, work: Callable[[], Answer]) -> None:
        """Check that something is not answered before a server that is held may come up."""
        before = self.events().get("snapshot_answer", 0)
        waiting = Waiting(work)
        rest(0.5)
        self.assertFalse(waiting.over)
        self.release()
        answer = waiting.answer()
        self.assertEqual(answer.status, 200)
        self.assertIn("result", answer.message)
        self.assertEqual(self.events().get("snapshot_answer", 0), before)

    def wait_for_snapshot(self, text: str = "echo") -> None:
        """Wait until what was seen of a server is on disk, with this in it."""
        folder = Path(self.gate.directory, "state", "snapshots")

        def kept() -> bool:
            found = [path for path in folder.glob("*") if not path.suffix]
            return any(f'"{text}"' in path.read_text() for path in found)

        wait_for(kept, "a snapshot is written")

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
            self.begin(server + HELD)
            self.hold()
            first = Client(self.gate, name, self.keys[0])
            self.assert_waits(first.initialize)
            known = tools(first)
            self.wait_for_snapshot()
            for life in ("stopped", "killed"):
                if life == "stopped":
                    self.stop(name)
                else:
                    self.gate.kill()
                    self.gate.start()
                self.hold()
                client = Client(self.gate, name, self.keys[0])
                self.assertEqual(client.initialize().status, 200)
                self.assertEqual(tools(client), known)
                self.wait_for_process()
                self.assertEqual(tools(client), known)
                params = {
                    "name": "echo",
                    "arguments": {"message": "x"},
                    "_meta": {"progressToken": "p"},
                }
                with client.streamed("tools/call", params) as told:
                    heard = next(told)["params"]
                    self.assertEqual(heard["message"], f"starting server {name}")
                    self.assertEqual((heard["progressToken"], heard["progress"]), ("p", 0))
                    self.release()
                    answer = list(told)[-1]
                self.assertEqual(answer["result"]["content"][0]["text"], "echo: x")
            self.assertGreaterEqual(self.events()["snapshot_answer"], 2)
            self.hold()
            other = Client(self.gate, name, self.keys[1])
            self.assert_waits(other.initialize)  # Nobody else's lists are shown.
            self.gate.stop()

    def test_other_lists(self) -> None:
        """Tools that a server has no more, or has new, are announced once it runs."""

        def write(names: str) -> None:
            Path(self.gate.directory, "more").write_text(names)

        self.begin(STDIO + HELD + "env.MORE_TOOLS = <dir>/more\n")
        write("old")
        first = Client(self.gate, "io", self.keys[0])
        first.initialize()
        self.assertIn("old", tools(first))
        self.wait_for_snapshot("old")
        self.stop("io")
        write("new")
        self.hold()
        client = Client(self.gate, "io", self.keys[0])
        client.initialize()
        self.wait_for_process()
        with client.listen() as stream:
            self.assertIn("old", tools(client))
            self.release()
            self.assertEqual(next(events(stream))["method"], "notifications/tools/list_changed")
        self.assertIn("new", tools(client))
        self.assertEqual(self.events()["snapshot_outdated"], 1)
        self.assertEqual(self.events()["tools_changed"], 1)
        self.assertIn("The tools of io have changed: added new, removed old", self.gate.log_text())
        self.stop("io")
        self.hold()
        again = Client(self.gate, "io", self.keys[0])
        self.assertEqual(again.initialize().status, 200)
        self.assertIn("new", tools(again))
        self.release()

    def test_start_that_fails(self) -> None:
        """A start that fails behind a client is told by its first call."""
        program = "<dir>/server.py"
        self.begin(STDIO.replace("<servers>/stdio_mcp.py", program), self.write_program)
        first = Client(self.gate, "io", self.keys[0])
        first.initialize()
        known = tools(first)
        self.wait_for_snapshot()
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
        self.begin(STDIO + HELD)
        first = Client(self.gate, "io", self.keys[0])
        first.initialize()
        tools(first)
        self.wait_for_snapshot()
        self.gate.stop()
        self.gate.write(self.gate.ini.read_text() + "env.MORE = 1\n")
        self.gate.start()
        self.hold()
        self.assert_waits(Client(self.gate, "io", self.keys[0]).initialize)

    def test_modern_clients(self) -> None:
        """A client of 2026-07-28 is told the lists at once, too, and waits for its call."""
        self.begin(STDIO + HELD)
        client = Client(self.gate, "io", self.keys[0])
        known = [modern(client, "tools/list").message["result"]["tools"] for _ in range(2)]
        self.assertIn("echo", str(known))
        self.wait_for_snapshot()
        self.stop("io")
        self.hold()
        listed = modern(client, "tools/list")
        self.assertEqual(listed.message["result"]["tools"], known[1])
        call = Waiting(
            lambda: modern(client, "tools/call", name="echo", arguments={"message": "x"})
        )
        self.release()
        self.assertEqual(call.answer().text, "echo: x")

    def test_off(self) -> None:
        """Turned off, everybody waits, and nothing is kept."""
        self.begin(STDIO + HELD + "snapshot = off\n")
        for _ in range(2):
            self.hold()
            client = Client(self.gate, "io", self.keys[0])
            self.assert_waits(client.initialize)
            tools(client)
            self.stop("io")
        folder = Path(self.gate.directory, "state", "snapshots")
        self.assertFalse(folder.exists() and list(folder.iterdir()))


class WarmTests(ColdCase):
    """Copies that are ready before anybody comes."""

    def test_given(self) -> None:
        """A new key gets the spare copy, and another one takes its place."""
        self.begin(NOBODYS)
        wait_for(lambda: self.states() == [("warm", "running")], "one is ready")
        (spare,) = children_of(self.gate.pid)
        ann, ben = (Client(self.gate, "io", key) for key in self.keys[:2])
        ann.initialize()
        self.assertEqual(int(ann.call("pid").text), spare)
        wait_for(lambda: ("warm", "running") in self.states(), "another one is started")
        ben.initialize()
        self.assertNotEqual(int(ben.call("pid").text), spare)
        home = Path(ann.call("where").text)
        self.assertTrue(home.is_dir())
        self.assertEqual(int(ann.call("pid").text), spare)
        self.assertEqual(self.events()["spare_taken"], 2)
        self.stop("io")
        wait_for(lambda: not home.exists(), "what a spare copy left is gone")
        self.gate.kill()
        self.gate.start()
        wait_for(lambda: self.states() == [("warm", "running")], "one is ready")
        self.assertEqual(len(children_of(self.gate.pid)), 1)
        homes = Path(self.gate.directory, "state", "data", "io")
        self.assertEqual(len([path for path in homes.iterdir() if "warm" in path.name]), 1)

    def test_room(self) -> None:
        """Spare copies count, and go when somebody needs the room."""
        self.begin(NOBODYS.replace("warm = 1", "warm = 2") + STDIO.replace(":io", ":own"), self.cap)
        wait_for(lambda: self.states() == [("warm", "running")] * 2, "two are ready")
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
        ahead = STDIO.replace(":io", ":ahead") + "prestart = on\n"
        self.begin(STDIO + ahead)
        Client(self.gate, "io", self.keys[0]).initialize()
        running = set(children_of(self.gate.pid))
        begun = {(one["server"], one["user"]) for one in self.gate.told("ps")}
        self.assertEqual({server for server, _ in begun}, {"io", "ahead"})
        self.assertEqual(len({user for _, user in begun}), 1)
        client = Client(self.gate, "ahead", self.keys[0])
        client.initialize()
        self.assertIn(int(client.call("pid").text), running)
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
