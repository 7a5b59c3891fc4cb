"""The life of containers on a real engine, with seconds for minutes: room, spares, cold starts."""

from __future__ import annotations

import json
import urllib.request
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Any
from unittest import TestCase

from twisted.internet import reactor  # noqa: TID251  # a functional test
from twisted.trial.unittest import TestCase as TrialCase

from mcpgate.model import Caller, Isolation, Lifetime, Owner, Principal, Secret, ServerSpec
from mcpgate.runtime.pool import InstancePool
from mcpgate.runtime.readiness import ReadinessProbe
from mcpgate.service.back import make_connect
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred
from mcpgate.timing.wheel import DeadlineWheel
from tests.functional.docker_bed import DockerBed
from tests.functional.gate_process import rest, wait_for
from tests.functional.mcp_client import Client, Waiting
from tests.functional.test_cold_starts import tools
from tests.functional.test_docker_gate import DockerGate, tool

# Nothing of the caller is in its launch.
NOBODYS = """
[server:free]
image = <image>
command = /app/boxed_mcp.py {port}
transport = http
stop_grace = 1s
"""


class LifeCase(TestCase):
    """A gate over a real engine."""

    def begin(self, *gate: str, web: str = "", pipe: str = "", start: bool = True) -> DockerGate:
        """Start it with further keys of ``[gate]`` and of its servers."""
        bed = DockerGate(self, web=web, pipe=pipe)
        text = bed.gate.ini.read_text()
        text = text.replace("sweep = 1s", "\n".join(("sweep = 1s", *gate)))
        self.image = next(
            line.partition("= ")[2] for line in text.splitlines() if line.startswith("image = ")
        )
        bed.gate.write(text.replace("<image>", self.image))
        if start:
            bed.gate.start()
        return bed

    def running(self, bed: DockerGate) -> dict[str, str]:
        """Give the owners of what runs, by container."""
        return {box["Id"]: box["Config"]["Labels"]["mcpgate.owner"] for box in bed.containers()}

    def states(self, bed: DockerGate) -> list[tuple[str, str]]:
        """Tell what the gate says of its instances."""
        return sorted((one["owner"], one["state"]) for one in bed.gate.told("ps"))


class RoomTests(LifeCase):
    """Who has to go, and who has to wait."""

    def test_longest_unused(self) -> None:
        """When all places are taken the longest unused container makes room, and comes back."""
        bed = self.begin("max_running = 2", start=False)
        ann, ben, cal = bed.users(3)
        bed.gate.start()
        owners = []
        for one in (ann, ben, cal):
            one.initialize()
            tool(one, "count")
            owners.append(set(self.running(bed).values()))
            rest(0.2)
        self.assertEqual([len(each) for each in owners], [1, 2, 2])
        self.assertFalse(owners[0] <= owners[2])
        self.assertEqual(tool(ben, "count"), 2)
        self.assertEqual(tool(ann, "count"), 1)  # It is a new life, cal's is over.
        self.assertEqual(tool(ben, "count"), 3)
        self.assertEqual(len(self.running(bed)), 2)
        self.assertEqual(len(bed.containers(all=True)), 3)

    def test_memory(self) -> None:
        """Beyond the memory budget nobody starts while all are at work; then somebody does."""
        bed = self.begin("memory_budget = 520MiB", start=False)
        users = bed.users(3)
        bed.gate.start()
        for one in users[:2]:
            one.initialize()
            tool(one, "count")
        naps = [one.begin("nap", seconds=10) for one in users[:2]]
        rest(0.5)
        answer = users[2].initialize()
        self.assertEqual((answer.status, answer.error["code"]), (503, -31005))
        self.assertIn("memory", answer.error["message"])
        self.assertGreaterEqual(int(answer.fields["Retry-After"]), 5)
        self.assertEqual(len(bed.containers()), 2)
        for nap in naps:
            self.assertIn("awake", nap.answer().text)
        users[2].initialize()
        self.assertEqual(tool(users[2], "count"), 1)
        self.assertEqual(len(bed.containers()), 2)
        limits = [box["HostConfig"]["Memory"] for box in bed.containers()]
        self.assertLessEqual(sum(limits), 520 << 20)

    def test_queue(self) -> None:
        """Starts wait for their turn, up to a number; who comes then is told when to return."""
        bed = self.begin("start_parallel = 1", "start_queue = 2", start=False)
        text = bed.gate.ini.read_text().replace("start_parallel = 8\n", "")
        bed.gate.write(text)
        users = bed.users(6)
        bed.gate.start()
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda one: one.initialize(), users))
        refused = [answer for answer in answers if answer.status != 200]
        # One is started and two wait; who comes late may find a place again.
        self.assertIn(len(refused), (1, 2, 3), [answer.status for answer in answers])
        for answer in refused:
            self.assertEqual((answer.status, answer.error["code"]), (429, -31006))
            self.assertTrue(5 <= int(answer.fields["Retry-After"]) <= 15)
        for one, answer in zip(users, answers, strict=True):
            if answer.status != 200:
                one.initialize()
            self.assertEqual(tool(one, "count"), 1)
        self.assertEqual(len(bed.containers()), 6)

    def test_fair_queue(self) -> None:
        """One who wants much does not make others wait until it has got everything."""
        bed = self.begin("start_parallel = 1", pipe=NOBODYS, start=False)
        bed.gate.write(bed.gate.ini.read_text().replace("start_parallel = 8\n", ""))
        greedy, other = bed.gate.add_keys(2)
        bed.gate.start()
        waiting = []
        for server in ("web", "pipe", "free"):
            waiting.append(Waiting(Client(bed.gate, server, greedy).initialize))
            rest(0.1)
        waiting.append(Waiting(Client(bed.gate, "web", other).initialize))
        for each in waiting:
            self.assertEqual(each.answer(60).status, 200)
        boxes = sorted(bed.containers(), key=lambda box: str(box["State"]["StartedAt"]))
        labels = [box["Config"]["Labels"] for box in boxes]
        order = [(one["mcpgate.server"], one["mcpgate.owner"]) for one in labels]
        self.assertEqual([server for server, _ in order], ["web", "pipe", "web", "free"])
        self.assertNotEqual(order[2][1], order[0][1])


class ColdTests(LifeCase):
    """Clients whose container is not there yet."""

    def test_snapshot(self) -> None:
        """A stopped container makes no client wait for its greeting; its first call does."""
        bed = self.begin(web="idle_stop = 2s", pipe="idle_stop = 2s", start=False)
        key = bed.gate.add_key("ann")
        bed.gate.start()
        for server in ("web", "pipe"):
            first = Client(bed.gate, server, key)
            first.initialize()
            known = tools(first)
            wait_for(lambda: not bed.containers(), "it idles")
            before = self.answered(bed)
            client = Client(bed.gate, server, key)
            self.assertEqual(client.initialize().status, 200)
            self.assertEqual(self.answered(bed), before + 1)
            self.assertEqual(tools(client), known)
            self.assertEqual(tool(client, "count"), 1)
            bed.gate.command("stop", server, "--all")

    def test_another_image(self) -> None:
        """What another image of the same name said is not shown."""
        bed = self.begin(start=False)
        name, _, tag = "mcpgate-test/snapshot:1".partition(":")
        bed.beside.tag(self.image, name, tag)
        self.addCleanup(bed.beside.remove_image, f"{name}:{tag}", force=True)
        bed.gate.write(bed.gate.ini.read_text().replace(self.image, f"{name}:{tag}"))
        key = bed.gate.add_key("ann")
        bed.gate.start()
        first = Client(bed.gate, "web", key)
        first.initialize()
        tools(first)
        wait_for(lambda: self.event(bed, "snapshot_taken"), "it was looked at")
        bed.gate.command("stop", "web", "--all")
        again = Client(bed.gate, "web", key)
        again.initialize()
        self.assertEqual(self.answered(bed), 1)
        tool(again, "count")
        bed.gate.stop()
        (box,) = bed.containers(all=True)
        bed.beside.commit(box["Id"], name, tag, changes=["LABEL new=yes"])
        bed.gate.start()
        last = Client(bed.gate, "web", key)
        self.assertEqual(last.initialize().status, 200)
        tools(last)
        self.assertEqual(self.answered(bed), 0)
        wait_for(lambda: self.event(bed, "snapshot_taken"), "it was looked at")
        bed.gate.command("stop", "web", "--all")
        Client(bed.gate, "web", key).initialize()
        self.assertEqual(self.answered(bed), 1)

    def answered(self, bed: DockerGate) -> int:
        """Tell how often a snapshot was shown since the gate was started."""
        return self.event(bed, "snapshot_answer")

    def event(self, bed: DockerGate, name: str) -> int:
        """Tell how often something happened since the gate was started."""
        asked = urllib.request.Request(f"http://127.0.0.1:{bed.admin_port}/stats")
        asked.add_header("Accept", "application/json")
        asked.add_header("Authorization", "Basic " + b64encode(b"admin:not-for-anybody").decode())
        with urllib.request.urlopen(asked, timeout=30) as answer:
            told = json.load(answer)
        return int(told["events"].get(name, 0))

    def test_spares(self) -> None:
        """A spare container is given at once, is its owner's after kill -9, and never another's."""
        bed = self.begin(pipe=NOBODYS + "warm = 1\n", start=False)
        ann, ben = (Client(bed.gate, "free", key) for key in bed.gate.add_keys(2))
        bed.gate.start()
        wait_for(lambda: self.states(bed) == [("warm", "running")], "one is ready")
        (spare,) = bed.containers()
        self.assertTrue(spare["Config"]["Labels"]["mcpgate.owner"].startswith("warm-"))
        ann.initialize()
        self.assertEqual(tool(ann, "count"), 1)
        self.assertIn(spare["Id"], self.running(bed))
        wait_for(lambda: len(self.running(bed)) == 2, "another one is started")
        wait_for(lambda: ("warm", "running") in self.states(bed), "it is ready")
        networks = [set(box["NetworkSettings"]["Networks"]) for box in bed.containers()]
        self.assertFalse(networks[0] & networks[1])
        (unused,) = set(self.running(bed)) - {spare["Id"]}
        rest(0.5)
        bed.gate.kill()
        bed.gate.start()
        self.assertEqual(tool(ann, "count"), 2)
        self.assertNotIn(unused, self.running(bed))
        wait_for(lambda: ("warm", "running") in self.states(bed), "another one is ready")
        ben.initialize()
        self.assertEqual(tool(ben, "count"), 1)
        self.assertEqual(tool(ann, "count"), 3)
        # What was given away is not started again for anybody.
        bed.gate.command("stop", "free", "--all")
        wait_for(
            lambda: spare["Id"] not in {box["Id"] for box in bed.containers(all=True)},
            "it is removed",
        )
        self.assertEqual(tool(ann, "count"), 1)
        wait_for(lambda: ("warm", "running") in self.states(bed), "another one is ready")
        bed.gate.stop()
        left = [box["Config"]["Labels"]["mcpgate.owner"] for box in bed.containers(all=True)]
        names = [box["Name"] for box in bed.containers(all=True)]
        self.assertEqual(len(left), 1, names)
        self.assertNotIn("Traceback", bed.gate.log_text())

    def test_spares_on_stdio(self) -> None:
        """A spare container on stdio is given like one on HTTP."""
        pipe = NOBODYS.replace("{port}", "stdio").replace("transport = http\n", "") + "warm = 1\n"
        bed = self.begin(pipe=pipe, start=False)
        ann = Client(bed.gate, "free", bed.gate.add_key("ann"))
        bed.gate.start()
        wait_for(lambda: self.states(bed) == [("warm", "running")], "one is ready")
        (spare,) = self.running(bed)
        ann.initialize()
        self.assertEqual(tool(ann, "count"), 1)
        self.assertIn(spare, self.running(bed))
        wait_for(lambda: len(self.running(bed)) == 2, "another one is started")


class ReplacementTests(TrialCase):
    """A pool over a real engine, in this process: its entries can change while it runs."""

    timeout = 300

    def setUp(self) -> None:
        """Make it."""
        self.bed = DockerBed(self)
        numbers = count(1)
        wheel = DeadlineWheel(reactor)
        meters = Meters()
        self.pool = InstancePool(
            reactor,
            runtimes={"docker": self.bed.runtime},
            connect=make_connect(reactor, reactor, wheel, meters),
            probe=ReadinessProbe(reactor),
            make_id=lambda: f"{self.bed.gate_id}p{next(numbers)}",
            meters=meters,
            wall=reactor.seconds,
            luck=lambda: 0.5,
        )
        self.addCleanup(wheel.stop)
        self.addCleanup(self.pool.stop_all, 20.0)

    @deferred
    async def box(self, spec: ServerSpec) -> dict[str, Any]:
        """Lease a copy of ann's, give it back, and inspect its container."""
        caller = Caller(Principal("file", "ann", "a" * 32), Secret("k" * 20))
        lease = await self.pool.lease(spec, Owner(Isolation.PER_KEY, "a" * 32), caller)
        lease.release()
        (listed,) = self.bed.containers()
        found: dict[str, Any] = self.bed.beside.inspect_container(listed["Id"])
        return found

    async def test_changed_entry(self) -> None:
        """An entry that starts something else replaces the container; other times do not."""
        spec = self.bed.spec("http")
        first = await self.box(spec)
        slow = replace(spec, lifetime=Lifetime(idle_stop_s=50.0, stop_grace_s=1.0), warm=0)
        second = await self.box(slow)
        self.assertEqual(second["Id"], first["Id"])
        changed = replace(slow, env=(("NEW", "1"),))
        self.bed.specs["http"] = changed
        third = await self.box(changed)
        self.assertNotEqual(third["Id"], first["Id"])
        labels = [box["Config"]["Labels"]["mcpgate.spec"] for box in (first, second, third)]
        self.assertEqual(labels[0], labels[1])
        self.assertNotEqual(labels[1], labels[2])
        self.assertIn("NEW=1", third["Config"]["Env"])
        self.assertEqual(len(self.bed.containers(all=True)), 1)
