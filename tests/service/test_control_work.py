"""Tests of what the control socket has done."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed

from mcpgate.config.model import Config
from mcpgate.errors import BackendUnavailable, BadRequest, NotFound, Unauthenticated
from mcpgate.gate.catalog import Catalog
from mcpgate.model import Caller, Container, Exit, Isolation, Secret
from mcpgate.runtime.docker.cleanup import Wish
from mcpgate.runtime.docker.container import (
    LABEL_ISOLATION,
    LABEL_OWNER,
    LABEL_SERVER,
    Known,
)
from mcpgate.service.control_work import LOOK_S, ControlWork
from mcpgate.telemetry.views import ImageView, Leftover
from mcpgate.testing.memory_runtime import Behaviour
from mcpgate.web.pages.control import Chosen, Tidying
from tests.runtime.test_pool import SPEC, PoolTestCase, caller

BOX = replace(SPEC, name="box", container=Container(image="x:1"))
SHARED = replace(SPEC, name="clock", isolation=Isolation.SHARED)
SESSION = replace(SPEC, name="pad", isolation=Isolation.PER_SESSION)
REMOTE = replace(SPEC, name="far", runtime="remote", url="https://far.example")


def known(server: str, owner: str = "ab" * 16, status: str = "Exited (3) 2 hours ago") -> Known:
    """Make a container that is left."""
    labels = {LABEL_SERVER: server, LABEL_ISOLATION: "per-key", LABEL_OWNER: owner}
    return Known(
        container_id="c",
        name="mcpgate-x.id",
        image_id="sha256:1",
        state="exited",
        labels=labels if server else {},
        created_at=0.0,
        network="none",
        status=status,
    )


class FakeContainers:
    """Stands for the Docker runtime."""

    def __init__(self) -> None:
        self.images = self
        self.kept: list[Leftover] = []
        self.looking: Deferred[None] = succeed(None)
        self.found = [known("box"), known("gone", status="Created"), known("")]

    def left(self) -> Deferred[list[Known]]:
        """See `DockerRuntime.left`."""
        return succeed(self.found)

    def clean_up(self, wish: Wish) -> Deferred[list[Leftover]]:
        """See `DockerRuntime.clean_up`."""
        return succeed(self.kept)

    def look(self) -> Deferred[None]:
        """See `Images.look`."""
        return self.looking

    def views(self) -> list[ImageView]:
        """See `Images.views`."""
        return [ImageView(name="x:1")]


class FakeProcesses:
    """Stands for the process runtime: each owner has one folder of data."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def data_of(self, label: str) -> list[tuple[str, str]]:
        """See `ProcessRuntime.data_of`."""
        return [("toy", f"/data/toy/{label * 4}")]

    def forget_data(self, folder: str) -> Deferred[None]:
        """See `ProcessRuntime.forget_data`."""
        self.forgotten.append(folder)
        return succeed(None)


class ControlWorkTests(PoolTestCase):
    """`ControlWork` over a pool in memory."""

    def setUp(self) -> None:
        """Make it."""
        super().setUp()
        self.containers = FakeContainers()
        self.processes = FakeProcesses()
        self.vouched: dict[str, Caller] = {"key-of-a": caller("a")}
        self.gateway = SimpleNamespace(
            config=Config(servers=(SPEC, BOX, SHARED, SESSION, REMOTE)),
            catalog=Catalog((SPEC, BOX, SHARED, SESSION, REMOTE)),
            pool=self.pool,
            clock=self.clock,
            back=SimpleNamespace(containers=self.containers, processes=self.processes),
            access=SimpleNamespace(gate=SimpleNamespace(vouch=self.vouch)),
        )
        self.work = ControlWork(cast("Any", self.gateway), lambda: 1e9 + self.clock.seconds())

    def vouch(self, credential: Secret) -> Deferred[Caller]:
        """See `Gate.vouch`."""
        found = self.vouched.get(credential.reveal())
        return fail(Unauthenticated()) if found is None else succeed(found)

    def test_clean_up(self) -> None:
        """Containers are the runtime's to remove; data goes unless an instance uses it."""
        self.containers.kept = [Leftover(kind="network", name="n", why="w")]
        self.assertEqual(len(self.successResultOf(self.work.clean_up(Tidying(orphans=True)))), 1)
        self.successResultOf(self.ask("a")).release()
        wish = Tidying(data=("a" * 8, "b" * 8))
        used, free = self.successResultOf(self.work.clean_up(wish))
        self.assertEqual((used.server, used.owner), ("toy", "a" * 8))
        self.assertIn("uses it", used.error)
        self.assertEqual((free.owner, free.error), ("b" * 8, ""))
        self.assertEqual(self.processes.forgotten, [free.name])
        self.successResultOf(self.work.clean_up(replace(wish, dry_run=True)))
        self.assertEqual(self.processes.forgotten, [free.name])

    def start(self, server: str, **whose: Any) -> Deferred[list[tuple[str, str]]]:
        """Have something started."""
        starting = self.work.start(Chosen(server=server, **whose))
        assert starting is not None
        self.clock.advance(0)
        return starting

    def told_why(self, server: str, kind: type[Exception], **whose: Any) -> str:
        """Have something not started; give the reason."""
        error: Any = self.failureResultOf(self.start(server, **whose), kind).value
        return str(error.detail)

    def test_left(self) -> None:
        """Containers of earlier lives are shown as stopped, with how they ended."""
        first, second = self.successResultOf(self.work.left())
        self.assertEqual((first.server, first.owner, first.state), ("box", "abababab", "stopped"))
        self.assertEqual((first.image, first.exit_code, first.exit_reason), ("x:1", 3, "exited"))
        self.assertEqual((second.image, second.exit_code), ("sha256:1", None))
        self.gateway.back.containers = None
        self.assertEqual(self.successResultOf(self.work.left()), [])
        self.assertEqual(self.successResultOf(self.work.images()), ())

    def test_images(self) -> None:
        """A slow engine does not keep what was seen before from being told."""
        self.assertEqual(len(self.successResultOf(self.work.images())), 1)
        self.containers.looking = Deferred()
        asked = self.work.images()
        self.assertNoResult(asked)
        self.clock.advance(LOOK_S)
        self.assertEqual(len(self.successResultOf(asked)), 1)

    def test_start_known(self) -> None:
        """For somebody who has called another server before, by name or label."""
        self.successResultOf(self.ask("a", BOX)).release()
        self.assertEqual(self.successResultOf(self.start("toy", user="a")), [("toy", "a" * 8)])
        self.assertEqual(self.successResultOf(self.start("toy", owner="a" * 8)), [("toy", "a" * 8)])
        self.assertEqual(len(self.runtime.alive), 2)

    def test_start_after_crashes(self) -> None:
        """The operator need not wait for the end of a pause."""
        for _ in range(4):
            asked = self.ask("a")
            self.clock.advance(4.0)
            self.clock.advance(0)
            self.successResultOf(asked)
            self.runtime.instances[-1].end(Exit(code=1, reason="exited", stderr_tail=()))
            self.clock.advance(0)
        self.failureResultOf(self.ask("a"), BackendUnavailable)
        self.assertEqual(self.successResultOf(self.start("toy", user="a")), [("toy", "a" * 8)])

    def test_start_with_key(self) -> None:
        """For the owner of a key the gate's own sources know."""
        key = Secret("key-of-a")
        self.assertEqual(self.successResultOf(self.start("toy", key=key)), [("toy", "a" * 8)])
        self.failureResultOf(self.start("toy", key=Secret("wrong")), Unauthenticated)
        self.vouched["narrow"] = replace(caller("b"), servers=frozenset({"box"}))
        self.assertIn("may not use", self.told_why("toy", BadRequest, key=Secret("narrow")))

    def test_start_shared(self) -> None:
        """What everybody shares is started for nobody in particular."""
        self.assertEqual(self.successResultOf(self.start("clock")), [("clock", "shared")])
        self.assertEqual(self.runtime.instances[0].launch.values, {})

    def test_start_refused(self) -> None:
        """Why something can not be started is told."""
        self.assertIsNone(self.work.start(Chosen(server="nothing")))
        self.assertIn("remote", self.told_why("far", BadRequest))
        self.assertIn("session", self.told_why("pad", BadRequest))
        self.assertIn("say for whose", self.told_why("toy", BadRequest))
        self.assertIn("keys are not kept", self.told_why("toy", NotFound, user="x"))
        self.successResultOf(self.ask("a")).release()
        self.runtime.behaviours["box"] = Behaviour(refusal=BackendUnavailable("No."))
        self.assertIn("No.", self.told_why("box", BackendUnavailable, user="a"))

    def test_stop(self) -> None:
        """Only those meant are stopped: by server, by user, the idle ones."""
        for who in ("a", "b"):
            self.successResultOf(self.ask(who)).release()
        busy = self.successResultOf(self.ask("c"))
        self.clock.advance(60)
        self.successResultOf(self.ask("b")).release()
        self.assertIsNone(self.work.stop(Chosen(server="nothing")))

        def stopped(**whose: Any) -> list[tuple[str, str]]:
            stopping = self.work.stop(Chosen(**whose))
            assert stopping is not None
            self.clock.advance(5)
            return self.successResultOf(stopping)

        self.assertEqual(stopped(server="box"), [])
        self.assertEqual(stopped(idle_s=30.0), [("toy", "a" * 8)])
        self.assertEqual(stopped(user="b"), [("toy", "b" * 8)])
        self.assertEqual(stopped(idle_s=0.0), [])
        busy.release()
        self.assertEqual(stopped(server="toy", owner="c" * 8), [("toy", "c" * 8)])

    def test_logs(self) -> None:
        """Logs are given by owner, of a server there is."""
        self.runtime.behaviours["toy"] = Behaviour(stderr=("one",))
        for who in ("a", "b"):
            self.successResultOf(self.ask(who)).release()
        self.assertIsNone(self.work.logs(Chosen(server="nothing")))
        self.assertIsNone(self.work.follow(Chosen(server="nothing"), {}))
        self.assertEqual(self.work.logs(Chosen(server="toy")), {"a" * 8: ["one"], "b" * 8: ["one"]})
        told = self.work.follow(Chosen(server="toy", user="b"), {"b" * 8: "id2:1"})
        assert told is not None
        self.assertEqual([(label, view.lines) for label, view in told.items()], [("b" * 8, ())])
