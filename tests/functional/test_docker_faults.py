"""
A whole gate while the engine and single containers fail: rows of the fault matrix.

Each test has an engine of its own where the engine itself is the fault.  Servers beside the one
that fails, and servers that are local processes, must not notice; and whatever failed, in the end
the gate has no more threads and descriptors than before.
"""

from __future__ import annotations

import contextlib
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.functional.docker_engine import PrivateEngine, asked_for
from tests.functional.gate_process import AT_ONCE_S, PATIENT_S, STDIO, Answer, rest, wait_for
from tests.functional.mcp_client import Client
from tests.functional.test_docker_gate import DockerGate, tool

# Rules belong to the machine, and the engine of these tests makes none.
OWN = "subnets = 10.215.0.0/16\nfirewall = admin"


class Held:
    """What a gate holds: threads, descriptors, containers."""

    def __init__(self, bed: DockerGate) -> None:
        self.bed = bed
        self.before = self.now()

    def now(self) -> tuple[int, int]:
        """Count threads and descriptors."""
        where = Path(f"/proc/{self.bed.gate.pid}")
        return len(list((where / "task").iterdir())), len(list((where / "fd").iterdir()))

    def check(self, containers: int) -> None:
        """Wait until there are no more than before, and this many containers."""

        def settled() -> bool:
            threads, descriptors = self.now()
            # A thread for calls to the engine more or less, with its connection, ends by itself.
            fewer = threads <= self.before[0] + 8 and descriptors <= self.before[1] + 8
            return fewer and len(self.bed.containers(all=True)) == containers

        wait_for(settled, f"all is given back: {self.before}, now {self.now()}")


class EngineTests(TestCase):
    """The engine fails."""

    def make(self, *options: str, web: str = "") -> tuple[PrivateEngine, DockerGate]:
        """Start an engine, and a gate that also has a server of its own."""
        engine = PrivateEngine(*options)
        self.addCleanup(engine.stop)
        engine.start()
        bed = DockerGate(self, docker=OWN, engine=engine.url, web=web)
        bed.gate.write(bed.gate.ini.read_text() + STDIO)
        self.ada = bed.user(1)
        self.pipe = Client(bed.gate, "pipe", self.ada.key)
        self.local = Client(bed.gate, "io", self.ada.key)
        self.cold = bed.user(2)
        bed.gate.start()
        for one in (self.ada, self.pipe, self.local):
            self.assertEqual(one.initialize().status, 200, bed.gate.log_text())
        for one in (self.ada, self.pipe):
            self.assertEqual(tool(one, "count"), 1)
        return engine, bed

    def refused(self, most_s: float = AT_ONCE_S) -> None:
        """A new user is refused in time, and told when to ask again."""
        begun = time.monotonic()
        answer = self.cold.initialize()
        self.assertLess(time.monotonic() - begun, most_s)
        self.assertEqual((answer.status, answer.error["code"]), (503, -31001))
        self.assertGreaterEqual(int(answer.fields["Retry-After"]), 1)

    def echoed(self) -> None:
        """The server that is a process goes on."""
        self.assertEqual(self.local.call("echo", message="x").text, "echo: x")

    def again(self, ask: Callable[[], Answer], most_s: float = PATIENT_S) -> Answer:
        """Ask until it is answered with a result."""
        deadline = time.monotonic() + most_s
        while True:
            answer = ask()
            if answer.status == 200 and "result" in answer.message:
                return answer
            self.assertLess(time.monotonic(), deadline, answer.body)
            rest(0.2)

    def test_hangs(self) -> None:
        """
        Row 8: HTTP servers go on; new users are refused within 10 s, and served soon after.

        What is said to a stdio server passes through the engine: its answer comes when that does.
        """
        engine, bed = self.make()
        held = Held(bed)
        engine.signal(signal.SIGSTOP)
        piped = self.pipe.begin("count")
        try:
            self.refused(AT_ONCE_S + 10.0)
            for count in range(2, 22):
                self.assertEqual(tool(self.ada, "count"), count)
                self.refused()
                self.echoed()
        finally:
            engine.signal(signal.SIGCONT)
        self.assertIn("result", piped.answer().message)
        self.again(self.cold.initialize)
        held.check(3)

    def test_killed(self) -> None:
        """Row 9: calls in work are told, sessions go on when the engine is back."""
        engine, bed = self.make()
        held = Held(bed)
        slow = self.ada.begin("nap", seconds=60)
        piped = self.pipe.begin("nap", seconds=60)
        rest(0.5)
        engine.signal(signal.SIGKILL)
        self.assertEqual(piped.answer().error["code"], -31003)
        self.refused(AT_ONCE_S + 10.0)
        self.echoed()
        engine.start()  # Which ends what ran.
        self.assertEqual(slow.answer().error["code"], -31003)
        for one in (self.ada, self.pipe):
            self.again(lambda one=one: one.call("count"))  # type: ignore[misc]  # mypy's limit
        self.again(self.cold.initialize)
        self.echoed()
        held.check(3)

    def test_killed_with_live_restore(self) -> None:
        """Row 10: with live-restore HTTP servers do not notice; stdio servers are started again."""
        engine, bed = self.make("--live-restore")
        held = Held(bed)
        engine.signal(signal.SIGKILL)
        for count in range(2, 12):
            self.assertEqual(tool(self.ada, "count"), count)
            self.echoed()
        self.refused(AT_ONCE_S + 10.0)
        slow = self.ada.begin("nap", seconds=3)
        engine.start()
        self.assertIn("result", slow.answer().message)
        self.assertEqual(tool(self.ada, "count"), 12)
        self.again(lambda: self.pipe.call("count"))
        self.again(self.cold.initialize)
        held.check(3)

    def test_ports_are_taken(self) -> None:
        """Row 12: who needs a port and gets none is told; the next try after works."""
        asked_for()
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        proxy = folder / "proxy"
        engine = PrivateEngine(f"--userland-proxy-path={proxy}")
        self.addCleanup(engine.stop)
        engine.start()
        bed = DockerGate(self, docker=OWN + "\nreach = published", engine=engine.url)
        ada, bob = bed.user(1), bed.user(2)

        def ports(script: str) -> None:
            part = folder / "part"
            part.write_text(f"#!/bin/sh\n{script}\n")
            part.chmod(part.stat().st_mode | stat.S_IXUSR)
            part.replace(proxy)

        ports('exec docker-proxy "$@"')
        bed.gate.start()
        self.assertEqual(ada.initialize().status, 200)
        held = Held(bed)
        ports("printf '1\\nlisten tcp4 127.0.0.1:0: bind: address already in use' >&3; exit 1")
        answer = bob.initialize()
        self.assertEqual(answer.status, 503, answer.body)
        self.assertEqual(answer.error["data"]["cause"], "port_unavailable")
        self.assertGreaterEqual(int(answer.fields["Retry-After"]), 1)
        self.assertEqual(tool(ada, "count"), 1)
        ports('exec docker-proxy "$@"')
        self.again(bob.initialize)
        self.assertEqual(tool(bob, "count"), 1)
        held.check(2)

    def test_disk_is_full(self) -> None:
        """R56: a full disk of the engine is told as that; what runs goes on."""
        engine = PrivateEngine()
        self.addCleanup(engine.stop)
        small = engine.directory / "data"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "none", small], check=True)
        engine.start()
        bed = DockerGate(self, docker=OWN, engine=engine.url)
        ada, bob = bed.user(1), bed.user(2)
        bed.gate.start()
        self.assertEqual(ada.initialize().status, 200, bed.gate.log_text())
        with (small / "filler").open("wb") as filler, contextlib.suppress(OSError):
            while filler.write(bytes(1 << 20)):
                filler.flush()
        answer = bob.initialize()
        self.assertEqual(answer.status, 503, answer.body)
        self.assertEqual(answer.error["data"]["cause"], "disk_full", bed.gate.log_text())
        self.assertEqual(tool(ada, "count"), 1)
        (small / "filler").unlink()
        self.again(bob.initialize)


class ContainerFaultTests(TestCase):
    """One container fails, or many come at once."""

    def test_paused(self) -> None:
        """Row 3: who hangs is told of at the timeout; others go on, and so does it afterwards."""
        bed = DockerGate(self, web="call_timeout = 5s", pipe="call_timeout = 5s")
        bob = bed.user(9)
        ones = [bed.user(1), bed.user(2, "pipe")]
        bed.gate.start()
        for one in (bob, *ones):
            one.initialize()
            self.assertEqual(tool(one, "count"), 1)
        held = Held(bed)
        for number, one in enumerate(ones):
            server = one.path.split("/")[1]
            (box,) = [
                each
                for each in bed.containers()
                if each["Config"]["Labels"]["mcpgate.server"] == server
                and one.key in self.secret_of(bed, each)
            ]
            with contextlib.ExitStack() as streams:
                # The HTTP server offers none.
                stream = streams.enter_context(one.listen()) if server == "pipe" else None
                bed.beside.pause(box["Id"])
                begun = time.monotonic()
                answer = one.call("count")
                self.assertTrue(4.9 < time.monotonic() - begun < AT_ONCE_S)
                self.assertEqual(answer.error["code"], -31002)
                self.assertEqual(tool(bob, "count"), 2 + number)
                bed.beside.unpause(box["Id"])
                self.assertGreaterEqual(int(tool(one, "count")), 2)
                if stream is not None:
                    self.assertEqual(stream.status, 200)
                    self.assertFalse(stream.isclosed())
        held.check(3)

    def test_never_ready(self) -> None:
        """R49: who is not ready in time is stopped, and that is said; nothing runs on."""
        bed = DockerGate(self, web="start_timeout = 3s\nstart_wait = 3s")
        text = bed.gate.ini.read_text()
        bed.gate.write(text.replace("boxed_mcp.py {port}", "boxed_mcp.py 1"))
        ada = bed.user(1)
        bed.gate.start()
        begun = time.monotonic()
        answer = ada.initialize()
        self.assertLess(time.monotonic() - begun, AT_ONCE_S)
        self.assertIn(answer.status, (503, 504))
        self.assertIn(answer.error["code"], (-31001, -31002, -31004))
        wait_for(lambda: not bed.containers(), "it is stopped")

    def secret_of(self, bed: DockerGate, box: dict[str, Any]) -> str:
        """Give the token of a container's user."""
        files = Path(bed.gate.directory, "files", box["Config"]["Labels"]["mcpgate.key"])
        return (files / "token").read_text()

    def test_many_at_once(self) -> None:
        """Row 13: of fifty cold users four start at once, each gets one container, all are up."""
        bed = DockerGate(self, web="memory = 64MiB")
        text = bed.gate.ini.read_text()
        bed.gate.write(text.replace("start_parallel = 8", "start_parallel = 4"))
        users = bed.users(50)
        twins = [Client(bed.gate, "web", one.key) for one in users[:5]]
        warm = bed.user(99, "pipe")
        bed.gate.start()
        warm.initialize()
        held = Held(bed)
        begun = time.monotonic()
        waits: list[float] = []
        with ThreadPoolExecutor(60) as pool:
            asked = [pool.submit(one.initialize) for one in (*users, *twins)]
            while not all(one.done() for one in asked):
                asked_s = time.monotonic()
                tool(warm, "look")
                waits.append(time.monotonic() - asked_s)
                rest(0.1)
        took = time.monotonic() - begun
        answers = [one.result() for one in asked]
        for answer in answers:
            if answer.status != 200:  # Too busy a machine: then it is said when to come again.
                self.assertGreaterEqual(int(answer.fields["Retry-After"]), 1, answer.body)
        worst = max(waits)
        up = sum(answer.status == 200 for answer in answers)
        print(f"{up} of 55 up after {took:.1f} s, a warm call {worst:.2f} s at most")  # noqa: T201  # told
        if up == len(answers):
            self.assertEqual(len([box for box in bed.containers() if is_web(box)]), 50)
        # Not as long as the start of another.
        self.assertLess(worst, AT_ONCE_S)
        spans = [(box["Created"], box["State"]["StartedAt"]) for box in bed.containers()]
        most = max(sum(begin <= one <= end for begin, end in spans) for one, _ in spans)
        self.assertLessEqual(most, 4)
        self.assertEqual({int(tool(one, "count")) for one in users}, {1})
        self.assertLessEqual(held.now()[0], held.before[0] + 10)


def is_web(box: dict[str, Any]) -> bool:
    """Tell whether a container is one of the server ``web``."""
    return bool(box["Config"]["Labels"]["mcpgate.server"] == "web")
