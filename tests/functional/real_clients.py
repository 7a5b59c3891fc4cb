"""
How each real client is told to list tools and to call some, and what it says.

Every client runs with an empty home directory and nothing of our environment, has a deadline, and
trusts the certificate of the gate it is sent to.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.functional import real

CLIENTS = Path(__file__).parent / "clients"
KEY_FIELD = "X-Outline-API-Key"
DEADLINE_S = 180.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """
    What a client shall do.

    :ivar certificate: PEM file of what it shall trust.
    :ivar calls: a tool and its arguments each.
    :ivar sse: over HTTP+SSE.
    :ivar era: ``legacy``, or ``auto``: the newest that both know; empty: as the client likes.
    :ivar model: address of the model of agents.
    """

    url: str
    certificate: Path
    key: str
    calls: Sequence[tuple[str, Mapping[str, Any]]]
    model: str
    sse: bool = False
    era: str = ""

    @property
    def over_sse(self) -> Task:
        """Give the same over HTTP+SSE."""
        return replace(self, url=self.url.removesuffix("/mcp") + "/sse", sse=True)

    @property
    def headers(self) -> dict[str, str]:
        """The fields that carry the key."""
        return {KEY_FIELD: self.key}

    def text(self, **more: Any) -> str:
        """Write it for the drivers in ``clients/``."""
        plain = {"url": self.url, "headers": self.headers, "sse": self.sse, "era": self.era}
        return json.dumps({**plain, "calls": list(self.calls), **more})

    def prompt(self, prefix: str = "") -> str:
        """Write it for the model of an agent, which may have names of its own for tools."""
        return "\n".join(f"use {prefix}{tool} {json.dumps(call)}" for tool, call in self.calls)


@dataclass(frozen=True, kw_only=True)
class Said:
    """
    What a client brought home.

    :ivar tools: names of the tools, or None where it does not show them.
    :ivar results: the text of each call.
    :ivar output: all it wrote, for the test's message.
    """

    tools: Sequence[str] | None
    results: Sequence[str]
    output: str = ""


class Room:
    """An empty home, and commands that run in it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.home = Path(tempfile.mkdtemp(prefix="mcpgate-client-"))

    def run(self, *command: str, **extra: str) -> str:
        """
        Run one command to its end and give what it wrote.

        :param extra: more of its environment.
        :raises AssertionError: it failed, or did not end in time.
        """
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "SSL_CERT_FILE": str(self.task.certificate),
            "NODE_EXTRA_CA_CERTS": str(self.task.certificate),
            **extra,
        }
        # In a session of its own, so that what it starts ends with it.
        process = subprocess.Popen(
            command,
            cwd=self.home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=DEADLINE_S)
            how = f"ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            _end_group(process.pid)
            out, err = process.communicate()
            how = "did not end in time"
        finally:
            _end_group(process.pid)
        text, errors = out.decode(errors="replace"), err.decode(errors="replace")
        if process.returncode:
            raise AssertionError(f"{command[:3]} {how}:\n{text[-2000:]}\n{errors[-4000:]}")
        return text

    def close(self) -> None:
        """Remove the home."""
        shutil.rmtree(self.home, ignore_errors=True)


def _end_group(pid: int) -> None:
    """End what a client left running in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _driver(room: Room, *command: str) -> Said:
    output = room.run(*command)
    said = json.loads(output.strip().splitlines()[-1])
    return Said(tools=said["tools"], results=said["results"], output=output)


def _python(part: str, driver: str) -> Callable[[Room], Said]:
    def run(room: Room) -> Said:
        return _driver(room, real.python(part), str(CLIENTS / driver), room.task.text())

    return run


def _typescript(version: str) -> Callable[[Room], Said]:
    def run(room: Room) -> Said:
        modules = str(real.package(f"sdk{version}"))
        driver = str(CLIENTS / "typescript.mjs")
        return _driver(room, real.node(), driver, version, modules, room.task.text())

    return run


def _mcp_remote(room: Room) -> Said:
    """Run the bridge below the stdio client of the Python SDK."""
    task = room.task
    bridge = str(real.package("mcp-remote") / "mcp-remote" / "dist" / "proxy.js")
    header = f"{KEY_FIELD}:{task.key}"
    only = "sse-only" if task.sse else "http-only"
    command = [real.node(), bridge, task.url, "--header", header, "--transport", only]
    text = task.text(command=command)
    return _driver(room, real.python("mcp1"), str(CLIENTS / "sdk1.py"), text)


def _inspector(room: Room) -> Said:
    """Every call of its command line is a client of its own."""
    task = room.task
    modules = real.package("inspector")
    start = [real.node(), str(modules / ".bin" / "mcp-inspector"), "--cli", task.url]
    start += ["--transport", "sse" if task.sse else "http"]
    if task.era:
        start += ["--protocol-era", task.era]
    start += ["--header", f"{KEY_FIELD}: {task.key}", "--method"]
    path = os.pathsep.join([str(Path(real.node()).parent), "/usr/bin", "/bin"])
    listed = room.run(*start, "tools/list", PATH=path)
    tools = [tool["name"] for tool in json.loads(listed)["tools"]]
    results = []
    for tool, arguments in task.calls:
        given = ("--tool-name", tool, "--tool-args-json", json.dumps(arguments))
        called = room.run(*start, "tools/call", *given, PATH=path)
        results.append(json.loads(called)["content"][0]["text"])
    return Said(tools=tools, results=results, output=listed)


def _claude(room: Room) -> Said:
    """Its own check of the server's health, then calls by the model on loopback."""
    task = room.task
    kind = "sse" if task.sse else "http"
    claude = str(real.package("claude") / ".bin" / "claude")
    key = f"{KEY_FIELD}: {task.key}"
    quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    add = ("mcp", "add", "--scope", "user", "--transport", kind, "gate", task.url, "-H", key)
    room.run(claude, *add, **quiet)
    health = room.run(claude, "mcp", "list", **quiet)
    if not re.search(r"^gate: .*Connected", health, re.MULTILINE):
        raise AssertionError(f"claude mcp list says: {health}")
    model = {"ANTHROPIC_BASE_URL": task.model, "ANTHROPIC_API_KEY": "none"}
    # It keeps tools from its model until asked for them, but takes calls by their full names.
    prompt = task.prompt("mcp__gate__")
    server = {"type": kind, "url": task.url, "headers": task.headers}
    configuration = room.home / "mcp.json"
    configuration.write_text(json.dumps({"mcpServers": {"gate": server}}))
    only = ("--mcp-config", str(configuration), "--strict-mcp-config")
    asked = room.run(claude, "-p", prompt, *only, "--allowedTools", "mcp__gate", **quiet, **model)
    return Said(tools=None, results=asked.split(" | "), output=health + asked)


def _gemini(room: Room) -> Said:
    """Its own check of the server's health, then calls by the model on loopback."""
    task = room.task
    start = [real.node(), str(real.package("gemini") / ".bin" / "gemini")]
    where = {"url": task.url, "type": "sse"} if task.sse else {"httpUrl": task.url}
    settings = {
        "mcpServers": {"gate": {**where, "headers": task.headers}},
        "security": {
            "folderTrust": {"enabled": False},
            "auth": {"selectedType": "gemini-api-key"},
        },
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"disableAutoUpdate": True, "disableUpdateNag": True},
    }
    (room.home / ".gemini").mkdir()
    (room.home / ".gemini" / "settings.json").write_text(json.dumps(settings))
    model = {"GEMINI_API_KEY": "none", "GOOGLE_GEMINI_BASE_URL": task.model}
    asked = room.run(*start, "--yolo", "-m", "gemini-2.5-flash", "-p", task.prompt(), **model)
    return Said(tools=None, results=asked.split(" | "), output=asked)


def _over_sse(drive: Callable[[Room], Said]) -> Callable[[Room], Said]:
    def run(room: Room) -> Said:
        room.task = room.task.over_sse
        return drive(room)

    return run


@dataclass(frozen=True)
class RealClient:
    """
    One client.

    :ivar parts: what it needs installed.
    """

    name: str
    parts: tuple[str, ...]
    drive: Callable[[Room], Said]

    def run(self, task: Task) -> Said:
        """Do the task; :raises AssertionError: with what the client wrote."""
        real.require(*self.parts)
        room = Room(task)
        try:
            return self.drive(room)
        finally:
            room.close()


CLIENT_LIST = (
    RealClient("python_sdk_1", ("mcp1",), _python("mcp1", "sdk1.py")),
    RealClient("python_sdk_2", ("mcp2",), _python("mcp2", "sdk2.py")),
    RealClient("typescript_sdk_1", ("node", "sdk1"), _typescript("1")),
    RealClient("typescript_sdk_2", ("node", "sdk2"), _typescript("2")),
    RealClient("fastmcp", ("fastmcp",), _python("fastmcp", "fast.py")),
    RealClient("langchain", ("langchain",), _python("langchain", "chain.py")),
    RealClient("openai_agents", ("agents",), _python("agents", "agents_sdk.py")),
    RealClient("mcp_remote", ("node", "mcp-remote", "mcp1"), _mcp_remote),
    RealClient("inspector", ("node", "inspector"), _inspector),
    RealClient("claude_code", ("claude",), _claude),
    RealClient("gemini_cli", ("node", "gemini"), _gemini),
    RealClient("python_sdk_1_sse", ("mcp1",), _over_sse(_python("mcp1", "sdk1.py"))),
    RealClient("typescript_sdk_1_sse", ("node", "sdk1"), _over_sse(_typescript("1"))),
    RealClient("typescript_sdk_2_sse", ("node", "sdk2"), _over_sse(_typescript("2"))),
    RealClient("mcp_remote_sse", ("node", "mcp-remote", "mcp1"), _over_sse(_mcp_remote)),
    RealClient("gemini_cli_sse", ("node", "gemini"), _over_sse(_gemini)),
)
BY_NAME = {client.name: client for client in CLIENT_LIST}
