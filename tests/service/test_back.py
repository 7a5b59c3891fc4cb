"""Tests of mcpgate.service.back: how the side of the servers is put together."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.model import Config, DockerSection, GateSection
from mcpgate.model import Container, InstanceKey, Isolation, Launch, Owner, ServerSpec, Transport
from mcpgate.runtime.docker.runtime import DockerRuntime
from mcpgate.service.back import Back, BackError, kept_gate_id, make_back
from mcpgate.telemetry.meters import Meters
from mcpgate.testing.memory_runtime import MemoryRuntime
from mcpgate.timing.wheel import DeadlineWheel

BOX = ServerSpec(
    name="box",
    transport=Transport.HTTP,
    runtime="docker",
    command=("x",),
    container=Container(image="x:1"),
)


class Reactor(MemoryReactorClock):
    """A reactor whose other threads are this one."""

    def callFromThread(self, function: Any, *args: Any) -> None:  # noqa: N802  # Twisted's
        """Call at once."""
        function(*args)


class FakeContainers:
    """Stands for the Docker runtime, where it is asked for more than any runtime."""

    def __init__(self, runtime: MemoryRuntime) -> None:
        self.images = self
        self.runtime = runtime
        self.asked: list[str] = []

    def adopt(self) -> Any:
        """See `DockerRuntime.adopt`."""
        return succeed(list(self.runtime.instances))

    def pull_at_start(self, _: object) -> None:
        """See `Images`."""
        self.asked.append("pull")

    def look(self) -> Any:
        """See `Images`."""
        self.asked.append("look")
        return succeed(None)

    def reconcile(self) -> Any:
        """See `DockerRuntime.reconcile`."""
        self.asked.append("reconcile")
        return succeed(None)

    def shutdown(self) -> Any:
        """See `DockerRuntime.shutdown`."""
        self.asked.append("shutdown")
        return succeed(None)


class BackTests(SynchronousTestCase):
    """`make_back`."""

    def make(self, *servers: ServerSpec, **docker: Any) -> Back:
        """Put one together."""
        self.clock = Reactor()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        return make_back(
            self.clock,
            Config(
                gate=GateSection(state_dir=self.folder),
                docker=DockerSection(**docker),
                servers=servers,
            ),
            sockets=self.clock,
            wheel=DeadlineWheel(self.clock),
            meters=Meters(),
            wall=time.monotonic,
            secret=b"s" * 32,
        )

    def test_without_containers(self) -> None:
        """A gate without images asks no engine, and needs no SDK."""
        back = self.make()
        self.assertIsNone(back.containers)
        self.successResultOf(back.start())
        self.successResultOf(back.look_after())
        self.successResultOf(back.stop())
        self.assertEqual(list(self.folder.glob("docker-id")), [])

    def test_with_containers(self) -> None:
        """Making asks nothing of the engine yet; the gate's id is kept."""
        back = self.make(BOX)
        self.assertIsInstance(back.containers, DockerRuntime)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        kept = kept_gate_id(self.folder)
        self.assertRegex(kept, "^[0-9a-f]{12}$")
        self.assertEqual(kept_gate_id(self.folder), kept)

    def test_empty_id(self) -> None:
        """A file of the id that a crash left empty is written anew."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "docker-id").write_text("\n")
        kept = kept_gate_id(folder)
        self.assertRegex(kept, "^[0-9a-f]{12}$")
        self.assertEqual(kept_gate_id(folder), kept)

    def test_named(self) -> None:
        """An id of the configuration is not kept elsewhere."""
        self.make(BOX, gate_id="one", files_dir=Path("/run/x"))
        self.assertFalse(os.path.exists(self.folder / "docker-id"))

    def test_no_sdk(self) -> None:
        """Without the SDK it is said what to install."""
        self.patch(importlib.util, "find_spec", lambda _: None)
        with self.assertRaisesRegex(BackError, r"mcpgate\[docker\]"):
            self.make(BOX)

    def test_life(self) -> None:
        """What runs is adopted, looked after, and left running at the end."""
        back = self.make(BOX)
        runtime = MemoryRuntime(self.clock)
        for name in ("box", "dropped"):
            key = InstanceKey(name, Owner(Isolation.PER_KEY, "a" * 32))
            runtime.start(BOX, Launch(instance_id=f"of-{name}", key=key, values={}))
        fake = FakeContainers(runtime)
        object.__setattr__(back, "containers", fake)
        self.successResultOf(back.start())
        self.assertEqual([one.instance_id for one in back.pool.instances()], ["of-box"])
        self.successResultOf(back.look_after())
        self.clock.advance(1.0)
        self.successResultOf(back.stop())
        self.assertEqual(fake.asked, ["look", "pull", "look", "reconcile", "shutdown"])
        self.assertEqual(len(runtime.alive), 2)
