"""Tests of the commands that ask servers through a gate."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from mcpgate.cli import make_parser
from mcpgate.cli.asking import MAX_PAGES, tokens_of
from mcpgate.cli.control_client import NO_GATE
from mcpgate.config.listeners import Listener
from mcpgate.service.doctor import network
from tests.cli.test_control_client import CommandCase, FakeConnection

TOOL = {"name": "echo", "description": "Says it again.\nAnd again.", "inputSchema": {}}
SERVERS = [
    {"name": name, "kind": kind, "runtime": runtime, "era": "modern", "tools": "1 changed"}
    for name, kind, runtime in (
        ("notes", "server", "process"),
        ("git", "server", "process"),
        ("far", "server", "remote"),
        ("all", "group", "group"),
    )
]


class AskingCase(CommandCase):
    """A gate that answers by what is asked."""

    def setUp(self) -> None:
        """Nothing is known yet."""
        super().setUp()
        self.answers: dict[str, Any] = {"/servers": {"servers": SERVERS}}
        case = self

        def read(connection: FakeConnection, limit: int) -> bytes:
            _, target, body = FakeConnection.asked[-1]
            key = f"{target} {body['method']}" if isinstance(body, dict) and body else target
            answer = case.answers.get(key, {"result": {}})
            if isinstance(answer, list):
                answer = answer.pop(0)
            if "refused" in answer:
                connection.status = 400
                answer = {"error": {"message": answer["refused"]}}
            return json.dumps(answer).encode()

        self.patch(FakeConnection, "read", read)

    def told(self, method: str, *answers: Any, server: str = "notes") -> None:
        """Have a question answered."""
        self.answers[f"/servers/{server}/ask {method}"] = list(answers)


class ToolsTests(AskingCase):
    """``mcpgate tools``."""

    def test_table(self) -> None:
        """Every page of tools is listed, with tokens and their sum."""
        self.told(
            "tools/list",
            {"result": {"tools": [TOOL], "nextCursor": "2"}},
            {"result": {"tools": [{**TOOL, "name": "more", "title": "More"}, 3]}},
        )
        self.assertEqual(self.run_command("tools", "notes"), 0)
        lines = self.out.getvalue().splitlines()
        self.assertIn("Says it again.", lines[1])
        self.assertNotIn("And again", self.out.getvalue())
        self.assertIn("More", lines[2])
        self.assertIn("2 tools", lines[3])
        body: Any = FakeConnection.asked[-1][2]
        self.assertEqual(body["params"], {"cursor": "2"})

    def test_endless(self) -> None:
        """A server whose list never ends is given up after so many pages."""
        self.answers["/servers/notes/ask tools/list"] = {"result": {"nextCursor": "x"}}
        self.assertEqual(self.run_command("tools", "notes", "--format", "names"), 0)
        self.assertEqual(len(FakeConnection.asked), MAX_PAGES)

    def test_every_server(self) -> None:
        """Without a name every server is asked, groups are not; one that is silent is named."""
        self.told("tools/list", {"result": {"tools": [TOOL]}})
        self.told("tools/list", {"refused": "It is broken."}, server="git")
        self.told("tools/list", {"error": {"code": -32601, "message": "?"}}, server="far")
        self.assertEqual(self.run_command("tools", "--format", "names"), 1)
        self.assertEqual(self.out.getvalue(), "notes/echo\n")
        self.assertIn("git: It is broken.", self.err.getvalue())

    def test_json(self) -> None:
        """Programs get the definitions, too."""
        self.told("tools/list", {"result": {"tools": [TOOL]}})
        self.assertEqual(self.run_command("tools", "notes", "--format", "json"), 0)
        told = json.loads(self.out.getvalue())["notes"]
        self.assertEqual(told["tokens"], tokens_of(TOOL))
        self.assertEqual(told["tools"][0]["inputSchema"], {})

    def test_refused(self) -> None:
        """What the gate or the server says no to is told."""
        self.told(
            "tools/list", {"refused": "say for whose"}, {"error": {"code": 1, "message": "x"}}
        )
        self.assertEqual(self.run_command("tools", "notes"), 1)
        self.assertEqual(self.run_command("tools", "notes"), 1)
        self.assertIn("say for whose", self.err.getvalue())
        self.assertIn("refuses tools/list: x", self.err.getvalue())

    def test_key(self) -> None:
        """A key comes from stdin and goes nowhere else."""
        self.patch(sys, "stdin", io.StringIO("canary-key\n"))
        self.assertEqual(self.run_command("tools", "notes", "--key-stdin"), 0)
        body: Any = FakeConnection.asked[-1][2]
        self.assertEqual(body["key"], "canary-key")
        self.assertNotIn("canary", self.out.getvalue() + self.err.getvalue())
        self.patch(sys, "stdin", io.StringIO("\n"))
        self.assertEqual(self.run_command("tools", "notes", "--key-stdin"), 2)
        self.run_command("tools", "notes", "--user", "ann")
        body = FakeConnection.asked[-1][2]
        self.assertEqual(body["user"], "ann")

    def test_timeout(self) -> None:
        """A timeout is a number of seconds, within an hour."""
        for text in ("0", "3601", "x"):
            with self.assertRaises(SystemExit):
                make_parser().parse_args(["tools", "--timeout", text])


class CallTests(AskingCase):
    """``mcpgate call``."""

    def test_text(self) -> None:
        """Texts are printed as lines, anything else by its kind."""
        content = [{"type": "text", "text": "one\ntwo\x1b[2J"}, {"type": "image", "data": ""}, 3]
        self.told("tools/call", {"result": {"content": content}})
        self.assertEqual(self.run_command("call", "notes", "echo", "n=3", "t=a b"), 0)
        lines = self.out.getvalue().splitlines()
        self.assertEqual((lines[0], lines[-1]), ("one", "[image]"))
        self.assertNotIn("\x1b", self.out.getvalue())
        body: Any = FakeConnection.asked[-1][2]
        self.assertEqual(body["params"], {"name": "echo", "arguments": {"n": 3, "t": "a b"}})

    def test_failures(self) -> None:
        """A tool that fails, or asks, gives exit code 1."""
        self.told(
            "tools/call",
            {"result": {"isError": True, "content": [{"type": "text", "text": ""}]}},
            {"result": {"resultType": "input_required"}},
        )
        self.assertEqual(self.run_command("call", "notes", "echo", '{"a": 1}'), 1)
        self.assertEqual(self.run_command("call", "notes", "echo"), 1)
        self.assertIn("asks for input", self.out.getvalue())

    def test_json(self) -> None:
        """Programs get the result as it is."""
        self.told("tools/call", {"result": {"content": []}})
        self.assertEqual(self.run_command("call", "notes", "echo", "--format", "json"), 0)
        self.assertEqual(json.loads(self.out.getvalue()), {"content": []})

    def test_wrong_words(self) -> None:
        """Arguments that are none are refused before anything is asked."""
        for words in (("{",), ("x",), ("=3",)):
            self.assertEqual(self.run_command("call", "notes", "echo", *words), 2)
        self.assertEqual(FakeConnection.asked, [])


class TestTests(AskingCase):
    """``mcpgate test``."""

    def greet(self, *names: str) -> None:
        """Have the server offer these."""
        who = {"io.modelcontextprotocol/serverInfo": {"name": "Notes", "version": "1"}}
        greeting = {"capabilities": {name: {} for name in names}, "_meta": who}
        self.told("server/discover", {"result": greeting})

    def test_good(self) -> None:
        """Handshake, the lists there are, and a call."""
        self.greet("tools", "prompts")
        self.told("tools/list", {"result": {"tools": [TOOL]}})
        self.told("tools/call", {"result": {"content": [{"type": "text", "text": "said"}]}})
        self.assertEqual(self.run_command("test", "notes", "--call", "echo", "a=b"), 0)
        shown = self.out.getvalue()
        for word in ("Notes 1", "1 tools, about", "0 prompts", "call echo", "said"):
            self.assertIn(word, shown)
        self.assertNotIn("resources", shown)

    def test_bad(self) -> None:
        """The first step that fails is the last, and where to look is told."""
        self.told("server/discover", {"refused": "It ended."})
        self.assertEqual(self.run_command("test", "notes"), 1)
        self.assertIn("handshake: It ended.", self.err.getvalue())
        self.assertIn("mcpgate logs notes", self.err.getvalue())
        self.greet("tools")
        self.told("tools/list", {"refused": "Too slow."})
        self.assertEqual(self.run_command("test", "notes", "--format", "json"), 1)
        self.greet()
        self.told("tools/call", {"result": {"isError": True, "content": ["odd"]}})
        self.assertEqual(self.run_command("test", "notes", "--call", "echo"), 1)
        self.assertIn("the tool failed", self.err.getvalue())

    def test_no_gate(self) -> None:
        """Without a gate nothing was tested."""
        self.assertEqual(self.run_command("test", "notes", answer=FileNotFoundError()), NO_GATE)


class StatusTests(AskingCase):
    """``mcpgate status``."""

    def test_states(self) -> None:
        """One line for each server, that says what is so."""

        def instance(server: str, state: str, **more: object) -> dict[str, object]:
            plain = {"calls": 1, "error": "", "exit_reason": ""}
            return {"server": server, "state": state, **plain, **more}

        self.answers["/sessions"] = {"sessions": [{"server": "notes"}]}
        self.answers["/instances"] = {
            "instances": [
                instance("notes", "running"),
                instance("notes", "stopped", exit_reason="stopped"),
                instance("git", "stopped", exit_reason="exited"),
            ]
        }
        self.assertEqual(self.run_command("status", "--format", "json"), 0)
        notes, git, far = json.loads(self.out.getvalue())
        self.assertEqual((notes["state"], notes["running"], notes["sessions"]), ("running", 1, 1))
        self.assertEqual((git["state"], git["error"]), ("failed", "exited"))
        self.assertEqual((far["state"], far["calls"]), ("remote", 0))
        self.run_command("status", "git")
        self.assertIn("LAST ERROR", self.out.getvalue())
        self.run_command("status", "far", "--format", "names")
        self.assertEqual(self.out.getvalue().splitlines()[-1], "far")

    def test_unresponsive(self) -> None:
        """A copy that does not answer is told before those that do, elsewhere too."""
        base = {"calls": 0, "error": "", "exit_reason": ""}
        self.answers["/sessions"] = {"sessions": []}
        self.answers["/instances"] = {
            "instances": [
                {**base, "server": "notes", "state": "running", "heard_s": 3.0},
                {**base, "server": "notes", "state": "unresponsive", "heard_s": 90.0},
                {**base, "server": "far", "state": "unresponsive", "heard_s": 70.0},
            ]
        }
        self.assertEqual(self.run_command("status", "--format", "json"), 0)
        notes, _, far = json.loads(self.out.getvalue())
        self.assertEqual((notes["state"], notes["running"]), ("unresponsive", 1))
        self.assertEqual(notes["heard_s"], 3.0)
        self.assertEqual(far["state"], "unresponsive")

    def test_documents(self) -> None:
        """A server whose document is missing has failed; one with an old document says so."""
        self.answers["/sessions"], self.answers["/instances"] = {"sessions": []}, {"instances": []}

        def state(state: str, error: str, at: float = 0.0) -> tuple[str, str]:
            document = {"state": state, "fetched_at": at, "error": error}
            self.answers["/servers"] = {"servers": [{**SERVERS[2], "document": document}]}
            self.out.truncate(0)
            self.out.seek(0)
            self.run_command("status", "--format", "json")
            (told,) = json.loads(self.out.getvalue())
            return told["state"], told["error"]

        self.assertEqual(state("fetched", ""), ("remote", ""))
        missing = ("failed", "it has no OpenAPI document: it is being fetched")
        self.assertEqual(state("missing", ""), missing)
        old = "its OpenAPI document of 1970-01-02 00:00 UTC serves on: HTTP 404"
        self.assertEqual(state("copy", "HTTP 404", 86400.0), ("remote", old))


class AddTests(AskingCase):
    """``mcpgate add --test``."""

    def setUp(self) -> None:
        """Write a configuration."""
        super().setUp()
        base = Path(self.mktemp())
        base.mkdir()
        self.path = base / "gate.ini"
        self.text = "[gate]\nlisten = tcp:80:interface=127.0.0.1\nstate_dir = /state\n"
        self.text += "[auth:keys]\ntype = static\nkeys_file = keys\n"
        self.path.write_text(self.text)
        self.answers["/reload"] = {"changes": []}

    def add(self, *words: str) -> int:
        """Run it."""
        given = ["add", "notes", "--test", "--url", "https://a.example.org/mcp", *words]
        arguments = make_parser().parse_args([*given, "--config", str(self.path)])
        return int(arguments.run(arguments))

    def test_good(self) -> None:
        """What is good stays."""
        self.assertEqual(self.add(), 0)
        self.assertIn("[server:notes]", self.path.read_text())
        self.assertIn("handshake", self.out.getvalue())

    def test_bad(self) -> None:
        """What is not is taken out again, whether the server or the gate refuses it."""
        self.told("server/discover", {"refused": "It ended."})
        self.assertEqual(self.add(), 1)
        self.assertEqual(self.path.read_text(), self.text)
        self.answers["/reload"] = [{"refused": "line 3"}, {"changes": []}]
        self.assertEqual(self.add(), 1)
        self.assertEqual(self.path.read_text(), self.text)
        self.assertIn("line 3", self.err.getvalue())

    def test_not_begun(self) -> None:
        """Without a gate, or with a wrong key, nothing is written."""
        FakeConnection.answer = FileNotFoundError()
        self.assertEqual(self.add(), NO_GATE)
        FakeConnection.answer = (200, b"{}")
        self.assertEqual(self.add("--set", "nothing=x"), 2)
        self.assertEqual(self.path.read_text(), self.text)


class RemoveTests(AskingCase):
    """``mcpgate remove --test``."""

    def setUp(self) -> None:
        """Write a configuration with a server."""
        super().setUp()
        base = Path(self.mktemp())
        base.mkdir()
        self.path = base / "gate.ini"
        self.text = "[gate]\nlisten = tcp:80:interface=127.0.0.1\nstate_dir = /state\n"
        self.text += "[auth:keys]\ntype = static\nkeys_file = keys\n"
        self.text += "[server:old]\nurl = https://a.example.org/mcp\n"
        self.path.write_text(self.text)
        self.answers["/reload"] = {"changes": []}
        self.status: int | Exception = 404
        self.patch(network, "get", self.get)

    def get(self, listener: Listener, target: str) -> tuple[int, str]:
        """See `mcpgate.service.doctor.network.get`."""
        self.assertEqual((listener.port, target), (80, "/old/mcp"))
        if isinstance(self.status, Exception):
            raise self.status
        return self.status, ""

    def remove(self, *words: str) -> int:
        """Run it."""
        given = ["remove", "old", "--test", *words, "--config", str(self.path)]
        arguments = make_parser().parse_args(given)
        return int(arguments.run(arguments))

    def test_gone(self) -> None:
        """A server that is gone is said to be."""
        self.assertEqual(self.remove("--dry-run"), 0)
        self.assertEqual(self.path.read_text(), self.text)
        self.assertEqual(self.remove(), 0)
        self.assertNotIn("[server:old]", self.path.read_text())
        self.assertIn("old is gone.", self.out.getvalue())

    def test_remains(self) -> None:
        """One that is served still, or whose path answers, comes back into the file."""
        for status, why in ((401, "/old/mcp at port 80 answers 401"), (OSError("no"), "no")):
            self.status = status
            self.assertEqual(self.remove(), 1)
            self.assertIn(why, self.err.getvalue())
            self.assertEqual(self.path.read_text(), self.text)
        self.answers["/servers"] = {"servers": [{"name": "old"}]}
        self.assertEqual(self.remove(), 1)
        self.assertIn("serves it still", self.err.getvalue())
        self.answers["/reload"] = [{"refused": "line 3"}, {"changes": []}]
        self.assertEqual(self.remove(), 1)
        self.assertIn("line 3", self.err.getvalue())
        self.assertEqual(self.path.read_text(), self.text)

    def test_not_begun(self) -> None:
        """Without a gate, or without such a server, nothing is written."""
        FakeConnection.answer = FileNotFoundError()
        self.assertEqual(self.remove(), NO_GATE)
        FakeConnection.answer = (200, b"{}")
        self.path.write_text(self.text.replace(":old", ":new"))
        self.assertEqual(self.remove(), 1)
        self.assertIn("there is no [server:old]", self.err.getvalue())
