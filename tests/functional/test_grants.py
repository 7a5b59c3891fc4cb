"""Workers that relay by themselves, on the owner's word: what holds of it, and when it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from unittest import TestCase

from tests.functional.gate_process import (
    GATE,
    HTTP,
    NO_LIMITS,
    GateProcess,
    children_of,
    rest,
    wait_for,
)

WORKERS = GATE.replace("[gate]\n", "[gate]\nworkers = 2\n")


class Relayed:
    """A connection of a client that asks for other paths of a server."""

    def __init__(self, gate: GateProcess, key: str, *, plain: bool = True) -> None:
        self.key = key
        self.line = gate.connection(10, plain=plain)

    def ask(self, path: str = "/web/get", method: str = "GET", body: bytes | None = None) -> Any:
        """Ask; give status and what was said."""
        self.line.request(method, path, body, headers={"X-API-Key": self.key})
        answer = self.line.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text[:1] == b"{" else text


class GrantTests(TestCase):
    """A gate with two workers and a server of each key's own."""

    def begin(self, text: str = HTTP + NO_LIMITS) -> GateProcess:
        """Start it with two keys."""
        self.gate = GateProcess(self, WORKERS + text)
        self.keys = [self.gate.add_key(name) for name in ("ann", "ben")]
        self.addCleanup(self.gate.stop)
        return self.gate.start()

    def stats(self) -> dict[str, Any]:
        """Give ``/stats``."""
        return dict(json.loads(self.gate.get("/stats").body))

    def grants(self) -> int:
        """Tell how many grants there are."""
        text = self.gate.get("/metrics").body.decode()
        lines = [line for line in text.splitlines() if line.startswith("mcpgate_grants ")]
        return int(float(lines[0].split()[1]))

    def granted(self, key: str, count: int = 1, **how: Any) -> Relayed:
        """Ask until workers serve this key's requests by themselves."""
        line = Relayed(self.gate, key, **how)
        wait_for(lambda: line.ask()[0] == 200, "an answer", 20)
        line.ask()
        wait_for(lambda: line.ask()[0] == 200 and self.grants() >= count, "a grant")
        rest(0.2)  # The workers have heard of it.
        return line

    @contextlib.contextmanager
    def owner_asleep(self) -> Iterator[None]:
        """Have the owner do nothing."""
        os.kill(self.gate.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.gate.pid, signal.SIGCONT)

    def test_served_without_the_owner(self) -> None:
        """Both kinds of listeners; it is in the log and the figures as if the owner had done it."""
        self.begin()
        for plain in (True, False):
            line = self.granted(self.keys[0], plain=plain, count=1 if plain else 2)
            with self.owner_asleep():
                for number in range(3):
                    self.assertEqual(line.ask(f"/web/get?n={number}&p={plain}")[0], 200)
                status, told = line.ask(f"/web/up/{plain}", "POST", b"x" * 70_000)
                self.assertEqual(
                    (status, told["bytes"], told["path"]), (200, 70_000, f"/up/{plain}")
                )
                self.assertNotIn("x-api-key", told["fields"])
                self.assertEqual(told["fields"]["x-forwarded-prefix"], "/web")
            shown = f'"POST /web/up/{plain} '
            wait_for(partial(self.logged, shown), "the access log")
        entry = next(one for one in self.gate.log_text().splitlines() if "/web/up/True" in one)
        self.assertIn("server=web", entry)
        self.assertNotIn(" - - [", entry)
        line = self.granted(self.keys[0])
        before = wait_for(self.settled, "figures")
        line.ask()
        wait_for(lambda: self.served() == before + 1, "it is counted")

    def logged(self, text: str) -> bool:
        """Tell whether the log holds this."""
        return text in self.gate.log_text()

    def settled(self) -> int:
        """Tell how many there are once that changes no more; 0 before."""
        before = self.served()
        rest(0.4)
        return before if self.served() == before else 0

    def served(self) -> int:
        """Tell how many requests to the server were answered."""
        text = self.gate.get("/metrics").body.decode()
        return sum(
            int(float(line.split()[1]))
            for line in text.splitlines()
            if line.startswith("mcpgate_requests_total{") and 'server="web"' in line
        )

    def test_nobody_elses(self) -> None:
        """A grant of one key serves no other, and no request without a key or to another path."""
        self.begin()
        self.granted(self.keys[0])
        mine = {Relayed(self.gate, key).ask("/web/pid", "POST", b"")[0] for key in self.keys}
        self.assertEqual(mine, {200})
        for key in ("", "mcpg_wrong", self.keys[0] + "x"):
            self.assertEqual(Relayed(self.gate, key).ask()[0], 401)
        self.assertEqual(Relayed(self.gate, self.keys[0]).ask("/web/../x")[0], 404)
        self.assertEqual(Relayed(self.gate, self.keys[0]).ask("/other/get")[0], 404)
        # Each key has a copy of its own.
        self.assertEqual(len(wait_for(lambda: children_of(self.gate.pid), "servers")), 2)

    def test_revoked(self) -> None:
        """A key that was removed is refused within moments, and its streams end (R58)."""
        self.begin()
        line = self.granted(self.keys[0])
        other = self.granted(self.keys[1], 2)
        stream = self.gate.connection(10, plain=True)
        stream.request("GET", "/web/flood", headers={"X-API-Key": self.keys[0]})
        flood = stream.getresponse()
        self.assertEqual(flood.status, 200)
        self.assertEqual(self.gate.command("keys", "revoke", "ann").returncode, 0)
        wait_for(lambda: line.ask()[0] == 401, "it is refused", 4)
        with contextlib.suppress(OSError, http.client.HTTPException):
            until = time.monotonic() + 5
            while flood.read(65536) and time.monotonic() < until:
                pass
            self.assertLess(time.monotonic(), until, "the stream goes on")
        self.assertEqual(other.ask()[0], 200)

    def test_rate_over_workers(self) -> None:
        """Of many requests at once over both workers exactly as many pass as the bucket holds."""
        self.begin(HTTP + "\n[limits]\nper_key = 1/s\nburst = 30\nper_address = off\n")
        self.granted(self.keys[0])
        rest(31)
        self.granted(self.keys[0])
        lines = [Relayed(self.gate, self.keys[0]) for _ in range(12)]
        for line in lines:
            line.line.connect()
        with self.owner_asleep(), ThreadPoolExecutor(12) as pool:
            began = time.monotonic()
            told = pool.map(lambda line: [line.ask()[0] for _ in range(6)], lines)
            statuses = [status for one in told for status in one]
            took_s = time.monotonic() - began
        passed = statuses.count(200)
        self.assertEqual({*statuses}, {200, 429})
        # Some were taken by what was asked to have the grant.
        self.assertGreaterEqual(passed, 20)
        self.assertLessEqual(passed, 31 + took_s)

    def test_concurrency_over_workers(self) -> None:
        """Streams that both workers serve by themselves count against one key's places together."""
        self.begin(HTTP + NO_LIMITS.replace("200", "4"))
        self.granted(self.keys[0])
        streams = [self.gate.connection(10, plain=True) for _ in range(8)]
        with self.owner_asleep():
            for stream in streams:
                stream.request("GET", "/web/flood", headers={"X-API-Key": self.keys[0]})
            statuses = sorted(stream.getresponse().status for stream in streams)
        self.assertEqual(statuses, [200] * 4 + [503] * 4)
        for stream in streams:
            stream.close()
        line = Relayed(self.gate, self.keys[0])
        wait_for(lambda: line.ask()[0] == 200, "places are given back")

    def test_crash(self) -> None:
        """A server that dies is started again; no request is lost but those it had."""
        self.begin()
        line = self.granted(self.keys[0])
        for pid in children_of(self.gate.pid):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: line.ask()[0] == 200, "it answers again", 20)
        self.granted(self.keys[0])

    def test_stopped_by_hand(self) -> None:
        """``mcpgate stop`` ends what workers have in work, and the next request starts it again."""
        self.begin()
        line = self.granted(self.keys[0])
        stream = self.gate.connection(10, plain=True)
        stream.request("GET", "/web/flood", headers={"X-API-Key": self.keys[0]})
        flood = stream.getresponse()
        flood.read(100)
        ran = self.gate.command("stop", "web", "--all")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        with contextlib.suppress(OSError, http.client.HTTPException):
            while flood.read(65536):
                pass
        wait_for(lambda: not children_of(self.gate.pid), "it is stopped")
        self.assertEqual(line.ask()[0], 200)

    def test_in_use(self) -> None:
        """An instance is not stopped for idleness while a worker uses it, and is afterwards."""
        self.begin(HTTP + "idle_stop = 2s\n" + NO_LIMITS)
        self.granted(self.keys[0])
        stream = self.gate.connection(30, plain=True)
        stream.request("GET", "/web/flood", headers={"X-API-Key": self.keys[0]})
        flood = stream.getresponse()
        until = time.monotonic() + 5
        while time.monotonic() < until:
            self.assertTrue(flood.read(65536))
        shown = self.gate.told("ps")
        self.assertIn('"calls": 1', json.dumps(shown))
        # The worker that has it dies, and with it the use.
        flood.close()
        stream.close()
        wait_for(lambda: not children_of(self.gate.pid), "it is stopped", 20)

    def test_killed_worker(self) -> None:
        """What a killed worker had in work is in use no more."""
        self.begin(HTTP + "idle_stop = 2s\n" + NO_LIMITS)
        self.granted(self.keys[0])
        stream = self.gate.connection(30, plain=True)
        stream.request("GET", "/web/flood", headers={"X-API-Key": self.keys[0]})
        flood = stream.getresponse()
        flood.read(100)
        for worker in self.stats()["workers"]:
            os.kill(int(worker["pid"]), signal.SIGKILL)
        with self.assertRaises((OSError, http.client.HTTPException)):
            while True:
                if not flood.read(65536):
                    raise http.client.IncompleteRead(b"")
        wait_for(lambda: not children_of(self.gate.pid), "it is stopped", 20)
        wait_for(self.answers, "it serves again", 20)

    def answers(self) -> bool:
        """Tell whether a new connection is served."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return bool(Relayed(self.gate, self.keys[0]).ask()[0] == 200)
        return False

    def test_reload(self) -> None:
        """After a reload every request goes by what the configuration says now."""
        gate = self.begin()
        line = self.granted(self.keys[0])
        text = gate.ini.read_text()
        gate.write(text.replace("transport = http\n", "transport = http\nrelay = off\n"))
        wait_for(lambda: line.ask()[0] == 404, "it is off", 15)
        gate.write(text)
        wait_for(lambda: line.ask()[0] == 200, "it is on again", 15)

    def test_orderly_end(self) -> None:
        """A request that a worker serves by itself ends before the gate does."""
        gate = self.begin()
        self.granted(self.keys[0])
        stream = gate.connection(10, plain=True)
        stream.request("GET", "/web/events/20", headers={"X-API-Key": self.keys[0]})
        events = stream.getresponse()
        events.read(10)
        assert gate.process is not None
        gate.process.send_signal(signal.SIGTERM)
        self.assertIn(b"data:", events.read())
        gate.process.wait(20)
