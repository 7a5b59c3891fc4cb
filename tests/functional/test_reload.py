"""A gate whose gate.ini is changed while it works."""

from __future__ import annotations

import threading
from unittest import TestCase

from tests.functional.gate_process import (
    GATE,
    NO_LIMITS,
    PATIENT_S,
    STDIO,
    GateProcess,
    rest,
    wait_for,
)
from tests.functional.mcp_client import Client

OTHER = """
[server:other]
command = <python> <servers>/stdio_mcp.py
isolation = shared
stop_grace = 1s
env.X_TURN = {turn}
"""

BASE = GATE + NO_LIMITS + STDIO

# Each breaks the file in another way; what must be told.
BROKEN = (
    ("nonsense\n", "neither a section"),
    ("[server:x]\n", "nothing tells what to run"),
    ("[server:x]\ncommand = x\nmemory = 5\n", "a size needs a unit"),
    ("[server:x]\ncommand = x\nnope = 1\n", "no such key"),
    ("[server:x]\ncommand = x\nenv.A = ${NOT_SET}\n", "NOT_SET is not set"),
    ("[server:io]\ncommand = x\n", "stands twice"),
    ("[nope]\n", "no such section"),
    ("[group:g]\nservers = nobody\n", "there is no [server:nobody]"),
    ("[server:x]\ncommand = /bin/false\n", "[server:x] does not start"),
    ("[server:x]\ncommand = /no/such/program\n", "[server:x] does not start"),
)


class ReloadTests(TestCase):
    """Changes under load."""

    def setUp(self) -> None:
        """Start a gate and a client that keeps calling."""
        self.gate = GateProcess(self, BASE)
        self.key = self.gate.add_key("ann")
        self.gate.start()
        self.client = Client(self.gate, "io", self.key)
        self.client.initialize()
        self.stop = threading.Event()
        self.calls, self.failed = 0, [""] * 0
        self.worker = threading.Thread(target=self._work)
        self.worker.start()
        self.addCleanup(self._over)

    def _over(self) -> None:
        self.stop.set()
        self.worker.join(PATIENT_S)

    def _work(self) -> None:
        client = Client(self.gate, "io", self.key)
        client.initialize()
        while not self.stop.is_set():
            said = client.call("echo", message="on").message
            self.calls += 1
            if "result" not in said:
                self.failed.append(str(said))
            rest(0.01)

    def text(self, said: dict[str, object]) -> str:
        """Give the text of a result."""
        result: object = said["result"]
        assert isinstance(result, dict)
        return str(result["content"][0]["text"])

    def apply(self) -> tuple[int, str]:
        """Have the gate take the file over; give the exit code and what was printed."""
        ran = self.gate.command("config", "apply")
        return ran.returncode, ran.stdout + ran.stderr

    def test_under_load(self) -> None:
        """Ten good and ten bad changes: no call fails, no stream ends, no process is replaced."""
        pid = self.text(self.client.call("pid").message)
        with self.client.listen() as stream:
            for turn, (broken, told) in enumerate(BROKEN):
                good = BASE + (OTHER.format(turn=turn) if turn % 3 != 2 else "")
                self.gate.write(good)
                code, said = self.apply()
                self.assertEqual(code, 0, said)
                if turn % 3 != 2:
                    other = Client(self.gate, "other", self.key)
                    other.initialize()
                    found = self.text(other.call("env", of="X_TURN").message)
                    self.assertEqual(found, str(turn))
                self.gate.write(good + broken)
                code, said = self.apply()
                self.assertIn(code, (1, 2), said)
                self.assertIn(told, said)
                answer = Client(self.gate, "x", self.key).initialize()
                self.assertEqual(answer.status, 404)
            self.assertEqual(self.text(self.client.call("pid").message), pid)
            self.client.call("log", text="still heard")
            self.assertTrue(stream.read(1))
        self._over()
        self.assertGreater(self.calls, 5)
        self.assertEqual(self.failed, [])
        self.assertIn("The configuration was not taken over", self.gate.log_text())

    def test_calls_end_where_they_began(self) -> None:
        """A call in work ends at the server it began at, while the next ones go to the new one."""
        self.gate.write(BASE + OTHER.format(turn="old"))
        self.assertEqual(self.apply()[0], 0)
        other = Client(self.gate, "other", self.key)
        other.initialize()
        self.text(other.call("pid").message)
        slow = other.begin("slow", seconds=4)
        other.call("echo", message="after it")
        self.gate.write(BASE + OTHER.format(turn="new"))
        self.assertEqual(self.apply()[0], 0)
        self.assertEqual(self.text(other.call("env", of="X_TURN").message), "new")
        self.assertEqual(self.text(slow.answer().message), "slow done")
        ran = self.gate.command("ps", "--format", "json")
        self.assertEqual(ran.returncode, 0, ran.stderr)

    def test_by_itself(self) -> None:
        """A file that is written is taken over without a command; so is SIGHUP."""
        self.gate.write(BASE + OTHER.format(turn=1))
        wait_for(
            lambda: Client(self.gate, "other", self.key).initialize().status == 200,
            "the new server is served",
        )
        self.gate.write(BASE)
        wait_for(
            lambda: Client(self.gate, "other", self.key).initialize().status == 404,
            "the server is gone",
        )

    def test_operator(self) -> None:
        """An operator's session: add, call, disable, roll back; each is served within seconds."""
        ran = self.gate.command("add", "more", "--set", "stop_grace=1s", config=False, input=None)
        self.assertEqual(ran.returncode, 2)
        from tests.functional.gate_process import SERVERS

        ini = str(self.gate.ini)
        words = ["--", "python3", f"{SERVERS}/stdio_mcp.py"]
        ran = self.gate.command("add", "more", "--config", ini, *words, config=False)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        more = Client(self.gate, "more", self.key)
        wait_for(lambda: more.initialize().status == 200, "it is served")
        self.assertIn("echo: hi", self.text(more.call("echo", message="hi").message))
        names = self.gate.command("list", "--format", "names").stdout.split()
        self.assertEqual(names, ["io", "more"])
        self.assertEqual(
            self.gate.command("config", "diff").stdout.splitlines()[1], "  added: more"
        )
        self.assertEqual(self.gate.command("config", "rollback").returncode, 0)
        wait_for(
            lambda: Client(self.gate, "more", self.key).initialize().status == 404,
            "it is gone",
        )
        self.assertEqual(len(self.gate.command("config", "history").stdout.splitlines()), 2)
