"""The tools of an administrator, over a gate with containers on a real engine."""

from __future__ import annotations

import base64
import contextlib
import json
import urllib.request
from pathlib import Path
from typing import Any
from unittest import TestCase

from tests.functional.docker_engine import require_python
from tests.functional.gate_process import wait_for
from tests.functional.mcp_client import Client
from tests.functional.small_registry import SmallRegistry
from tests.functional.test_docker_gate import DockerGate, tool

MISSING = "127.0.0.1:1/no-such-thing:1"


def page(bed: DockerGate, path: str) -> str:
    """Read one of the pages for administrators."""
    request = urllib.request.Request(f"http://127.0.0.1:{bed.admin_port}{path}")  # ours
    login = base64.b64encode(b"admin:not-for-anybody").decode()
    request.add_header("Authorization", f"Basic {login}")
    with urllib.request.urlopen(request, timeout=10) as answer:  # ours
        return str(answer.read().decode())


class ToolTests(TestCase):
    """``ps``, ``start``, ``stop``, ``cleanup`` and statistics."""

    def test_ps_and_start(self) -> None:
        """Containers are listed with image and use, stopped ones of earlier lives, too."""
        bed = DockerGate(self)
        ada = bed.user(1)
        bed.gate.start()
        ada.initialize()
        (one,) = bed.gate.told("ps")
        self.assertEqual((one["server"], one["state"], one["starts"]), ("web", "running", 1))
        self.assertIn("python", one["image"])
        self.assertGreater(one["memory_bytes"], 1 << 20)
        self.assertGreater(one["cpu_s"], 0)
        self.assertGreaterEqual(one["processes"], 1)
        self.assertEqual(one["oom_kills"], 0)
        bed.gate.command("stop", "web", "--all")
        self.assertEqual(bed.gate.told("ps"), [])
        ran = bed.gate.command("start", "web", "--user", "user1")
        self.assertEqual((ran.returncode, len(bed.containers())), (0, 1), ran.stderr)
        bed.gate.command("stop", "--idle")
        bed.gate.stop()
        bed.gate.start()
        (one,) = bed.gate.told("ps", "--all")
        self.assertEqual((one["server"], one["state"]), ("web", "stopped"))
        self.assertIn(one["exit_code"], (0, 137, 143))
        ran = bed.gate.command("start", "web", "--stdin")
        self.assertEqual(ran.returncode, 2)
        with_key = bed.gate.command("start", "web", "--stdin", input=ada.key + "\n")
        self.assertEqual(with_key.returncode, 0, with_key.stderr)
        self.assertEqual(len(bed.containers()), 1)
        self.assertNotIn(ada.key, bed.gate.log_text())

    def test_images(self) -> None:
        """Images are told of in ``ps --images``, in ``/stats`` and ``/metrics``."""
        bed = DockerGate(self)
        bed.gate.start()
        images = {one["name"]: one for one in bed.gate.told("ps", "--images")}
        there = images[require_python(bed.url)]
        self.assertEqual((there["state"], there["servers"]), ("present", ["web", "pipe"]))
        self.assertTrue(there["digest"].startswith("sha256:"))
        self.assertGreater(there["size_bytes"], 1 << 20)
        self.assertEqual(images[MISSING]["state"], "missing")
        self.assertIn("missing", bed.gate.command("ps", "--images").stdout)
        stats = json.loads(page(bed, "/stats?format=json"))
        states = {one["name"]: one["state"] for one in stats["images"]}
        self.assertIn("missing", states.values())
        self.assertTrue(stats["engine"]["answering"])
        metrics = page(bed, "/metrics")
        self.assertIn('mcpgate_image_present{server="web"} 1.0', metrics)
        self.assertIn('mcpgate_image_present{server="missing"} 0.0', metrics)
        self.assertIn("mcpgate_engine_up 1.0", metrics)

    def test_pull_at_start(self) -> None:
        """A pull at the start is told of while it goes on: by ``ps``, ``/stats`` and the log."""
        bed = DockerGate(self)
        registry = SmallRegistry(self, "slow", size=8 << 20, took_s=14)
        text = bed.gate.ini.read_text().replace(MISSING, registry.image)
        bed.gate.write(text + "pull = at-start\n")

        def forget() -> None:
            from docker.errors import NotFound

            with contextlib.suppress(NotFound):
                bed.beside.remove_image(registry.image, force=True)

        self.addCleanup(forget)
        bed.gate.start()

        def image() -> dict[str, Any]:
            found = bed.gate.told("ps", "--images")
            return next(one for one in found if one["name"] == registry.image)

        def pulling() -> dict[str, Any] | None:
            one = image()
            return one if one["state"] == "pulling" and (one["percent"] or 0) > 0 else None

        seen = wait_for(pulling, "the pull is told of") or {}
        self.assertRegex(seen["progress"], r"^0 of 1 layers, \d+\.\d of 8\.0 MiB$")
        self.assertLess(seen["percent"], 100.0)
        stats = json.loads(page(bed, "/stats?format=json"))
        self.assertIn("pulling", {one["state"] for one in stats["images"]})
        self.assertIn("pulling", bed.gate.command("ps", "--images").stdout)
        wait_for(lambda: image()["state"] == "present", "the pull is over")
        self.assertEqual(image()["digest"], registry.digest)
        log = bed.gate.log_text()
        self.assertRegex(log, rf"Pulling image {registry.image}: 0 of 1 layers, \d")
        self.assertIn(f"Image {registry.image} is there", log)
        ran = bed.gate.command("doctor")
        self.assertIn(f"there, not pinned: {registry.digest[:19]}", ran.stdout)

    def test_out_of_memory_is_counted(self) -> None:
        """Who runs out of memory is seen by server, in metrics and in ``ps``."""
        bed = DockerGate(self, web="memory = 48MiB")
        ada = bed.user(1)
        bed.gate.start()
        ada.initialize()
        ada.call("eat", megabytes=200)
        self.assertEqual(tool(ada, "count"), 1)
        metrics = page(bed, "/metrics")
        self.assertIn('mcpgate_instance_exits_total{reason="oom_killed",server="web"} 1.0', metrics)
        self.assertIn('mcpgate_instance_starts_total{server="web"} 2.0', metrics)
        (one,) = bed.gate.told("ps", "--all")
        self.assertEqual((one["starts"], one["exit_reason"]), (2, "oom_killed"))

    def test_doctor(self) -> None:
        """What is missing is named with its remedy; with a gate and without one."""
        bed = DockerGate(self)
        found: dict[str, dict[str, str]] = {}
        for running in (False, True):
            if running:
                bed.gate.start()
            ran = bed.gate.command("doctor", "--format", "json")
            found = {one["check"]: one for one in json.loads(ran.stdout)}
            self.assertEqual(ran.returncode, 1, ran.stdout)
            failing = [one for one in found.values() if one["level"] == "fail"]
            self.assertEqual([one["check"] for one in failing], [f"image {MISSING}"], failing)
            self.assertEqual(failing[0]["remedy"], f"docker pull {MISSING}")
            self.assertIn("missing", failing[0]["text"])
            self.assertIn("cgroup", json.dumps(json.loads(ran.stdout)))
            for check in ("subnets", "firewall", "state directory", "gate"):
                self.assertEqual(found[check]["level"], "ok", found[check])
            port = found[f"port {bed.gate.port}"]["text"]
            self.assertEqual(port, "the gate listens" if running else "free")
        self.assertEqual(found[f"answer at {bed.gate.port}"]["text"], "the gate is ready")
        checked = bed.gate.command("check", str(bed.gate.ini), config=False)
        self.assertIn(f"docker pull {MISSING}", checked.stdout)
        offline = bed.gate.command("check", str(bed.gate.ini), "--offline", config=False)
        self.assertNotIn("docker pull", offline.stdout)

    def test_capacity(self) -> None:
        """What fits is told, by limit and by what the containers that run really use."""
        bed = DockerGate(self)
        users = bed.users(2)
        bed.gate.start()
        for one in users:
            one.initialize()
            self.assertEqual(tool(one, "count"), 1)
        told = bed.gate.told("capacity")
        web = next(row for row in told["rows"] if row["name"] == "web")
        self.assertTrue(told["measured"])
        self.assertEqual((web["limit"]["memory_bytes"], web["use"]["seen"]), (256 << 20, 2))
        self.assertLess(web["use"]["memory_bytes"], 100 << 20)
        self.assertGreaterEqual(web["measured"][-1]["most"], web["at_limit"][0]["most"])
        self.assertIn("networks", {bound["what"] for bound in web["at_limit"]})
        self.assertIn("FIT MEASURED", bed.gate.command("capacity").stdout)

    def foreign(self, bed: DockerGate) -> str:
        """Make a container of somebody else's, with labels like ours."""
        labels = {"mcpgate.gate": "somebody-else", "mcpgate.server": "web"}
        made = bed.beside.create_container(require_python(bed.url), ["-c", "0"], labels=labels)
        self.addCleanup(bed.beside.remove_container, made["Id"])
        return str(made["Id"])

    def test_cleanup_with_a_gate(self) -> None:
        """Stopped containers go, with network, files and, when asked for, data; others stay."""
        bed = DockerGate(self)
        ada, bob = bed.user(1), bed.user(2)
        bed.gate.start()
        foreign = self.foreign(bed)
        for one in (ada, bob):
            one.initialize()
        self.assertEqual(tool(bob, "write", path="/data/x", text="mine"), "written")
        bed.gate.command("stop", "web", "--user", "user1")
        found = bed.gate.told("cleanup", "--dry-run")
        self.assertEqual([one["kind"] for one in found], ["container", "network", "files"], found)
        self.assertEqual(len(bed.containers(all=True)), 2)
        found = bed.gate.told("cleanup")
        self.assertIn("container", {one["kind"] for one in found})
        (left,) = bed.containers(all=True)
        self.assertTrue(left["State"]["Running"])
        owner = left["Config"]["Labels"]["mcpgate.owner"]
        ran = bed.gate.command("cleanup", "--data", owner[:8])
        self.assertEqual(ran.returncode, 1, ran.stdout)
        self.assertIn("an instance uses it", ran.stdout)
        data = Path(bed.gate.directory, "state", "data", "web", owner)
        self.assertTrue((data / "x").exists())
        bed.gate.command("stop", "web", "--all")
        self.assertEqual(bed.gate.command("cleanup", "--data", owner[:8]).returncode, 0)
        self.assertFalse(data.exists())
        bed.beside.inspect_container(foreign)
        ada.initialize()
        self.assertEqual(tool(ada, "count"), 1)

    def test_cleanup_without_a_gate(self) -> None:
        """Without a gate it is done directly; what the next gate adopts stays."""
        bed = DockerGate(self)
        ada = bed.user(1)
        pipe = Client(bed.gate, "pipe", ada.key)
        bed.gate.start()
        foreign = self.foreign(bed)
        for one in (ada, pipe):
            one.initialize()
        bed.gate.kill()
        wait_for(lambda: len(bed.containers()) == 1, "the one on stdio has ended")
        (told,) = [one for one in bed.gate.told("cleanup") if one["kind"] == "container"]
        self.assertEqual((told["server"], told["why"]), ("pipe", "stopped"))
        (left,) = bed.containers(all=True)
        self.assertEqual(left["Config"]["Labels"]["mcpgate.server"], "web")
        text = bed.gate.ini.read_text()
        bed.gate.write(text.replace("data = per-key", "data = none"))
        (told, *more) = bed.gate.told("cleanup", "--orphans")
        self.assertEqual(told["why"], "its server's entry has changed")
        self.assertEqual({one["kind"] for one in more}, {"network", "files"})
        self.assertEqual(bed.containers(all=True), [])
        label = f"mcpgate.gate={bed.gate_id}"
        self.assertEqual(bed.beside.networks(filters={"label": label}), [])
        self.assertEqual(bed.gate.told("cleanup"), [])
        bed.beside.inspect_container(foreign)
