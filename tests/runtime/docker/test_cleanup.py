"""Tests of removing what a gate has left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from mcpgate.errors import RuntimeUnavailable
from mcpgate.runtime.docker.cleanup import Cleanup, DirectCalls, Wish
from mcpgate.runtime.docker.engine import NotThere
from mcpgate.telemetry.views import Leftover
from tests.runtime.docker.fake_engine import REFUSED
from tests.runtime.docker.test_runtime import PIPE, WEB, RuntimeTestCase


class CleanupTests(RuntimeTestCase):
    """`Cleanup`, as a running gate does it."""

    def clean(self, **wish: bool) -> list[Leftover]:
        """Clean up."""
        return self.successResultOf(self.runtime.clean_up(Wish(**wish)))

    def stopped(self, spec: Any = PIPE) -> str:
        """Start something and let it end."""
        instance = self.start(spec)
        ending = self.runtime.stop(instance, 0)
        self.reactor.pump([0.1] * 30)
        self.successResultOf(ending)
        return str(list(self.engine.containers_)[-1])

    def test_nothing(self) -> None:
        """What runs is kept, with its network and files."""
        self.start(WEB)
        self.assertEqual(self.clean(stopped=True, orphans=True), [])
        self.assertEqual(len(self.engine.containers_), 1)

    def test_started_meanwhile(self) -> None:
        """Files of a container that was started since the list was made are kept."""
        self.start(WEB)
        self.engine.containers = lambda **_: []  # type: ignore[method-assign]  # as of before
        self.assertNotIn("files", [one.kind for one in self.clean(orphans=True)])
        self.assertEqual(len(list(Path(self.folder, "files").glob("*/token"))), 1)

    def test_stopped(self) -> None:
        """Stopped ones go when asked for; a dry run only tells."""
        self.stopped()
        self.assertEqual(self.clean(orphans=True), [])
        (told,) = self.clean(stopped=True, dry_run=True)
        self.assertEqual((told.kind, told.server, told.why), ("container", "pipe", "stopped"))
        self.assertEqual(len(self.engine.containers_), 1)
        found = self.clean(stopped=True, orphans=True)
        self.assertEqual([one.kind for one in found], ["container", "files"])
        self.assertEqual(self.engine.containers_, {})
        self.assertEqual(list(Path(self.folder, "files").iterdir()), [])

    def test_orphans(self) -> None:
        """Whose server is gone or changed, whose labels are odd, who never ran: they go."""
        self.stopped(PIPE)
        self.stopped(WEB)
        del self.specs["web"]
        self.specs["pipe"] = replace(PIPE, command=("other",))
        body = {"Labels": {"mcpgate.gate": "g"}, "HostConfig": {"NetworkMode": "x"}, "Image": "i"}
        self.engine.create_container_from_config(body, "odd")
        foreign = {**body, "Labels": {"mcpgate.gate": "another"}}
        self.engine.create_container_from_config(foreign, "foreign")
        self.assertEqual(self.clean(stopped=True), [])
        reasons = {one.why for one in self.clean(orphans=True) if one.kind == "container"}
        self.assertEqual(
            reasons,
            {
                "there is no such server any more",
                "its server's entry has changed",
                "its labels can not be read",
            },
        )
        (left,) = self.engine.containers_.values()
        self.assertEqual(left["Name"], "foreign")
        self.assertEqual(self.engine.networks_, [])

    def test_never_ran(self) -> None:
        """One that was made and never started goes."""
        container_id = self.stopped()
        self.engine.containers_[container_id]["State"]["Status"] = "created"
        (told,) = self.clean(orphans=True, dry_run=True)[:1]
        self.assertEqual(told.why, "it never ran")

    def test_being_started(self) -> None:
        """What a start counts on by now stays, and it is said."""
        self.stopped()
        label = next(iter(self.engine.containers_.values()))["Config"]["Labels"]["mcpgate.key"]
        self.runtime._busy[label] += 1
        self.assertEqual(self.clean(stopped=True), [])
        self.runtime._busy.clear()
        busy: Iterator[set[str]] = iter([set(), {label}])
        runtime = self.runtime
        work = Cleanup(
            runtime.calls,
            gate_id="g",
            find=self.specs.get,
            hash_key=b"k",
            networks=runtime._networks,
            files=runtime._files,
            busy=lambda: next(busy),
        )
        (told,) = self.successResultOf(Deferred.fromCoroutine(work.run(Wish(stopped=True))))
        self.assertEqual(told.error, "it is being started")

    def test_engine_says_no(self) -> None:
        """What the engine will not remove is told with its words, and its things are kept."""
        self.stopped(WEB)
        self.engine.refusals["remove"] = REFUSED
        (told,) = self.clean(stopped=True, orphans=True)
        self.assertEqual(told.error, "no")
        self.assertEqual(len(self.engine.networks_), 1)
        self.engine.refusals["remove"] = NotThere("x")
        (told, *_) = self.clean(stopped=True)
        self.assertEqual(told.error, "")

    def test_silent(self) -> None:
        """A silent engine is told of."""
        self.engine.silent = True
        self.failureResultOf(self.runtime.clean_up(Wish(orphans=True)), RuntimeUnavailable)

    def test_without_secret(self) -> None:
        """Where the secret of the labels is lost, only the server counts."""
        calls = DirectCalls(self.engine)
        self.stopped()
        work = Cleanup(
            calls,
            gate_id="g",
            find=self.specs.get,
            hash_key=None,
            networks=self.runtime._networks,
            files=self.runtime._files,
        )
        found = self.successResultOf(Deferred.fromCoroutine(work.run(Wish(orphans=True))))
        self.assertEqual(found, [])

    def test_direct(self) -> None:
        """Calls that block fail as others do."""
        calls = DirectCalls(self.engine)
        self.failureResultOf(calls.call(lambda _: int("x")), ValueError)
        self.assertEqual(self.successResultOf(calls.call(lambda client: client)), self.engine)
