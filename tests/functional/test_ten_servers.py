"""
Ten real servers at one address: each client, over each transport it speaks, sees every tool and
calls one of each server; and one server that dies again and again disturbs nobody.

One gate serves all tests.  Every client has a key of its own, and the gate's access log tells
which transport and era it really spoke.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.functional import real
from tests.functional.gate_process import PATIENT_S, rest, wait_for
from tests.functional.mcp_client import Client
from tests.functional.real_clients import BY_NAME, Said, Task
from tests.functional.servers.fake_model import FakeModel
from tests.functional.ten_bed import NAME_CHARS, TenServers
from tests.functional.test_real_clients import Suite

STEADY = Path(__file__).parent / "clients" / "steady.py"
MODERN = "era=2026-07-28"
# What is told of a call to a server that was killed.
CLEAR = (
    "The server ended while it was working on this call"
    "|Server '.+' keeps failing and is left alone for a while"
)
GEMINI = "mcp_gate_"
# More clients at once than processors: they wait for each other a lot.
AT_ONCE = 3

WAYS: Mapping[str, Callable[[Task], Task]] = {
    "legacy": lambda task: replace(task, era="legacy"),
    "modern": lambda task: replace(task, era="auto"),
    "sse": lambda task: task.over_sse,
}
# The slowest first, so that they do not end last.  A client is left out of a way it does not know:
# those of the legacy era alone, and those that take the newest era there is, whatever one says.
CLIENTS: Mapping[str, tuple[str, ...]] = {
    "inspector": ("legacy", "modern", "sse"),
    "claude_code": ("modern", "sse"),
    "gemini_cli": ("legacy", "sse"),
    "langchain": ("legacy", "sse"),
    "fastmcp": ("legacy", "modern", "sse"),
    "openai_agents": ("modern", "sse"),
    "mcp_remote": ("legacy", "sse"),
    "python_sdk_1": ("legacy", "sse"),
    "python_sdk_2": ("legacy", "modern", "sse"),
    "typescript_sdk_1": ("legacy", "sse"),
    "typescript_sdk_2": ("legacy", "modern", "sse"),
}
ROUNDS = [(client, way) for client, ways in CLIENTS.items() for way in ways]
# Each call of the Inspector is a process of its own, so here it calls few.
FEW = {("inspector", "legacy"): 2, ("inspector", "sse"): 2}
# Who stays while servers are killed: the Python SDK that speaks this.
STAYING = {"sse": "mcp1", "legacy": "mcp1", "modern": "mcp2"}


class Bed:
    """
    What all tests share, made by the first that asks.

    :ivar waiting: tests still to come; the last one closes everything.
    """

    def __init__(self) -> None:
        self.waiting: set[str] = set()
        self.suite = Suite()
        self.pool = ThreadPoolExecutor(AT_ONCE)
        self.said: dict[tuple[str, str], Future[Said]] = {}
        self.failure: Exception | None = None
        self.ten: TenServers | None = None
        self.expected: set[str] = set()
        # Also where only some of the tests are run.
        atexit.register(self.close)

    def open(self) -> TenServers:
        """Give the gate, running, with every server started."""
        if self.failure is not None:
            raise AssertionError(f"the gate is not up: {self.failure}") from self.failure
        if self.ten is None:
            try:
                self.ten = TenServers(self.suite, len(ROUNDS) + 2 * len(STAYING) + 1)
                self.expected = self.ten.listed()
                together = self.client()
                together.initialize()
                told = together.request("tools/list").message["result"]
                seen = {tool["name"] for tool in told["tools"]}
                shown = {self.ten.shown(tool, seen) for tool in self.expected}
                assert seen == shown, (seen ^ shown, told.get("_meta"))
            except Exception as error:
                self.failure = error
                raise
        return self.ten

    def client(self, server: str = "") -> Client:
        """Give a small client of all servers, or of one."""
        assert self.ten is not None
        client = Client(self.ten.gate, server, self.ten.keys[-1])
        client.path = client.path.replace("//", "/")
        return client

    def begin_rounds(self) -> None:
        """Have every client do its round."""
        ten = self.open()
        if not self.said:
            for (client, way), key in zip(ROUNDS, ten.keys, strict=False):
                self.said[client, way] = self.pool.submit(self._round, ten, client, way, key)

    def task(self, way: str, key: str) -> Task:
        """Give what a client shall do: list, and call a tool of each server."""
        ten = self.open()
        task = Task(
            url=f"https://127.0.0.1:{ten.gate.port}/mcp",
            certificate=ten.gate.certificate,
            key=key,
            calls=[(f"{server}__{call[0]}", call[1]) for server, call in ten.calls.items()],
            model="",
        )
        return WAYS[way](task)

    def _round(self, ten: TenServers, client: str, way: str, key: str) -> Said:
        model = FakeModel()
        try:
            task = self.task(way, key)
            calls = task.calls[: FEW.get((client, way))]
            said = BY_NAME[client].run(replace(task, calls=calls, model=model.url))
        finally:
            model.stop()
        # Gemini CLI shows no list, but all it has is offered to its model.
        shown = [name for name in sorted(model.offered) if name.startswith(GEMINI)]
        return replace(said, tools=[name.removeprefix(GEMINI) for name in shown] or said.tools)

    def quiet(self) -> TenServers:
        """Give the gate when no client is at work any more."""
        ten = self.open()
        for said in self.said.values():
            said.exception(400)
        return ten

    def over(self, test: str) -> None:
        """Note that a test is over."""
        self.waiting.discard(test)
        if not self.waiting:
            self.close()

    def close(self) -> None:
        """Stop everything.  Idempotent."""
        self.pool.shutdown(cancel_futures=True)
        self.suite.over.close()


BED = Bed()


class RoundTests(TestCase):
    """One test for each client and each way it can go."""

    def check(self, client: str, way: str) -> None:
        """See that it saw every tool, called one of each server, and went that way."""
        real.require(*BY_NAME[client].parts)
        BED.begin_rounds()
        ten = BED.open()
        said = BED.said[client, way].result(1800)
        if said.tools is not None:
            seen = set(said.tools)
            self.assertEqual(len(said.tools), len(seen))
            self.assertEqual(seen, {ten.shown(tool, seen) for tool in BED.expected})
            self.assertLessEqual(max(map(len, seen)), NAME_CHARS)
        called = list(ten.calls.items())[: FEW.get((client, way))]
        self.assertEqual(len(said.results), len(called), said.output)
        for (server, call), result in zip(called, said.results, strict=True):
            self.assertIn(call[2], result, (server, said.output))
        self.check_way(way, ten.keys[ROUNDS.index((client, way))])

    def check_way(self, way: str, key: str) -> None:
        """See in the access log which way a client went."""
        ten = BED.open()

        def lines(start: str) -> list[str]:
            return [line for line in ten.accesses(key) if f'"{start} ' in line]

        # A stream is logged when it has ended.
        wait_for(lambda: lines("GET /sse" if way == "sse" else "POST /mcp"), "the access log")
        if way == "sse":
            self.assertEqual(lines("POST /mcp"), [])
            return
        self.assertEqual(lines("GET /sse"), [])
        posts = lines("POST /mcp")
        modern = [line for line in posts if MODERN in line]
        self.assertEqual(modern, posts if way == "modern" else [])


def _make(client: str, way: str, name: str) -> Callable[[RoundTests], None]:
    def test(self: RoundTests) -> None:
        self.addCleanup(BED.over, name)
        self.check(client, way)

    test.__doc__ = f"{client} sees all tools and calls one of each server: {way}."
    return test


for _client, _way in ROUNDS:
    _name = f"test_{_client}_{_way}"
    BED.waiting.add(_name)
    setattr(RoundTests, _name, _make(_client, _way, _name))


class Stayer:
    """A client that stays in one session and calls all the time, in a process of its own."""

    def __init__(self, case: TestCase, way: str, key: str, victim: str) -> None:
        task = BED.task(way, key)
        calls = [call for call in task.calls if not call[0].startswith(f"{victim}__")]
        ((tool, arguments),) = [call for call in task.calls if call not in calls]
        text = replace(task, calls=calls).text(victim=[tool, arguments])
        self.way = way
        self.key = key
        self.process = subprocess.Popen(
            [real.python(STAYING[way]), str(STEADY), text],
            env={
                "PATH": "/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "SSL_CERT_FILE": str(task.certificate),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        case.addCleanup(self._end)

    def _end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        """Give the next line it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def changes(self) -> int:
        """Ask how often it heard that the tools changed."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.line())

    def heard_more(self, before: int) -> bool:
        """Tell whether it heard more of that than before."""
        return self.changes() > before

    def report(self) -> dict[str, Any]:
        """Have it end; give what it saw."""
        out, _ = self.process.communicate(timeout=PATIENT_S)
        return dict(json.loads(out))


class KillTests(TestCase):
    """Clients stay over each transport, while one server is killed."""

    def begin(self, victim: str, keys: list[str]) -> dict[str, Stayer]:
        """Have the clients connect, and call everything once."""
        stayers = {
            way: Stayer(self, way, key, victim) for way, key in zip(STAYING, keys, strict=True)
        }
        for way, stayer in stayers.items():
            self.assertEqual(stayer.line(), "ready", way)
        return stayers

    def kill(self, victim: str, times: int, keys: list[str]) -> None:
        """Kill a server as often as it comes back; nobody else may notice."""
        ten = BED.quiet()
        tool, arguments, text = ten.calls[victim]
        alone = BED.client()
        alone.initialize()

        def back() -> bool:
            return text in json.dumps(alone.call(f"{victim}__{tool}", **arguments).message)

        stayers = self.begin(victim, keys)
        pids = set()
        for _ in range(times):
            wait_for(back, f"{victim} is back")
            pid = ten.pid_of(victim)
            os.kill(pid, signal.SIGKILL)
            pids.add(pid)
            rest(0.3)
        self.assertEqual(len(pids), times)
        wait_for(back, f"{victim} is back")
        self.hear(stayers, alone)
        for stayer in stayers.values():
            self.check(victim, stayer)

    def hear(self, stayers: Mapping[str, Stayer], alone: Client) -> None:
        """See that the streams of before are still heard on."""
        before = {way: stayer.changes() for way, stayer in stayers.items()}
        self.assertIn("result", alone.call("io__list_changed").message)
        for way, stayer in stayers.items():
            wait_for(partial(stayer.heard_more, before[way]), f"{way} hears")

    def check(self, victim: str, stayer: Stayer) -> None:
        """Look at what a client saw, and at what the gate says of it."""
        ten = BED.open()
        seen = stayer.report()
        way = stayer.way
        self.assertEqual(seen["failures"], [], way)
        self.assertGreater(seen["calls"], 2 * len(ten.calls), way)
        self.assertLess(seen["slowest"], 60, way)
        self.assertTrue(seen["listening"], way)
        for tools in (seen["tools"], seen["tools_after"]):
            self.assertEqual(len(tools), len(BED.expected), way)
        self.assertGreater(seen["victim_calls"], len(seen["victim_failures"]), way)
        for told in seen["victim_failures"]:
            self.assertRegex(told, CLEAR, way)
        if way == "modern":
            return
        # One stream, from the beginning to the end.
        streams = wait_for(
            lambda: [line for line in ten.accesses(stayer.key) if '"GET /' in line], "its stream"
        )
        self.assertEqual(len(streams), 1, streams)
        self.assertIn('" 200 ', streams[0])

    def test_one_of_ours(self) -> None:
        """A small server that comes back at once, then ever later."""
        self.addCleanup(BED.over, "test_one_of_ours")
        ten = BED.open()
        self.kill("io", 4, ten.keys[len(ROUNDS) : len(ROUNDS) + 3])

    def test_one_of_others(self) -> None:
        """A server on Node.js that asks things of its clients."""
        self.addCleanup(BED.over, "test_one_of_others")
        ten = BED.open()
        self.kill("everything", 2, ten.keys[len(ROUNDS) + 3 : len(ROUNDS) + 6])


BED.waiting |= {name for name in dir(KillTests) if name.startswith("test_")}
