"""Tests of mcpgate.runtime.docker.runtime over an engine in memory."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendUnavailable, ImageMissing, RuntimeUnavailable
from mcpgate.interfaces import IInstance
from mcpgate.model import (
    Container,
    Destination,
    Exit,
    InstanceKey,
    Isolation,
    Launch,
    Lifetime,
    Owner,
    Secret,
    ServerSpec,
    Transport,
)
from mcpgate.runtime.docker.egress import AllowLists
from mcpgate.runtime.docker.engine import DockerCalls, NotThere, Refused
from mcpgate.runtime.docker.events import EventStream
from mcpgate.runtime.docker.firewall import Firewall
from mcpgate.runtime.docker.images import Images
from mcpgate.runtime.docker.names import Names
from mcpgate.runtime.docker.networks import Networks
from mcpgate.runtime.docker.runtime import STRAY_S, DockerRuntime
from mcpgate.runtime.docker.secrets import SecretFiles
from mcpgate.runtime.places import Places
from mcpgate.telemetry.meters import Meters
from tests.runtime.docker.fake_engine import REFUSED, FakeEngine, FakeReactor

PIPE = ServerSpec(
    name="pipe",
    transport=Transport.STDIO,
    runtime="docker",
    container=Container(image="x:1", data="per-key"),
    files=(("token", "{key}"),),
)
WEB = replace(PIPE, name="web", transport=Transport.HTTP)


class FakeEvents:
    """Events a test makes."""

    def __init__(self, received: Callable[[Mapping[str, Any]], None], opened: Any) -> None:
        self.received, self.opened = received, opened
        self.running = False

    def start(self) -> None:
        """See `EventStream.start`."""
        self.running = True

    def stop(self) -> None:
        """See `EventStream.stop`."""
        self.running = False


class FakeFirewall:
    """Rules that are put up, or not."""

    def __init__(self) -> None:
        self.why = self.list_why = ""
        self.listed: dict[str, object] = {}
        self.looked = 0

    def ensure(self) -> Deferred[str]:
        """See `Firewall.ensure`."""
        return succeed(self.why)

    def open_list(self, bridge: str, openings: object) -> Deferred[str]:
        """See `Firewall.open_list`."""
        self.listed[bridge] = openings
        return succeed(self.list_why)

    def lists(self) -> Deferred[set[str]]:
        """See `Firewall.lists`."""
        self.looked += 1
        return succeed(set(self.listed))


class RuntimeTestCase(SynchronousTestCase):
    """A runtime over an engine in memory."""

    def setUp(self) -> None:
        """Make both."""
        self.reactor = FakeReactor()
        self.engine = FakeEngine()
        self.firewall = FakeFirewall()
        self.specs = {spec.name: spec for spec in (PIPE, WEB)}
        self.meters = Meters()
        self.folder = Path(self.mktemp()).absolute()
        self.now = 1e6
        self.events: list[FakeEvents] = []
        self.starts = 0
        self.runtime = self.make()

    def make(self, **more: Any) -> DockerRuntime:
        """Make a runtime: the next life of the gate."""
        calls = cast("DockerCalls", self.engine)
        published = more.get("published", False)

        def events(received: Any, opened: Any) -> EventStream:
            self.events.append(FakeEvents(received, opened))
            return cast("EventStream", self.events[-1])

        firewall = cast("Firewall", self.firewall)
        files = SecretFiles(str(self.folder / "files"))
        return DockerRuntime(
            self.reactor,
            calls=calls,
            events=events,
            gate_id="g",
            hash_key=b"k",
            find=self.specs.get,
            networks=Networks(
                calls, gate_id="g", pool=IPv4Network("10.213.0.0/24"), published=published
            ),
            firewall=firewall,
            files=files,
            lists=AllowLists(Names(self.reactor), firewall, files),
            places=Places(str(self.folder)),
            images=Images(self.reactor, calls, lambda: calls),
            meters=self.meters,
            wall=lambda: self.now,
            **more,
        )

    def launch(self, spec: ServerSpec, who: str = "a") -> Launch:
        """Make a launch."""
        self.starts += 1
        return Launch(
            instance_id=f"i{self.starts}",
            key=InstanceKey(spec.name, Owner(Isolation.PER_KEY, who * 32)),
            values={"key": Secret("k" * 20)},
        )

    def start(self, spec: ServerSpec = PIPE, who: str = "a") -> IInstance:
        """Start a copy."""
        return self.successResultOf(self.runtime.start(spec, self.launch(spec, who)))

    def refused(self, kind: type[Exception], spec: ServerSpec = PIPE) -> Any:
        """Fail to start a copy; nothing is left of it."""
        before = list(self.engine.containers_)
        error = self.failureResultOf(self.runtime.start(spec, self.launch(spec)), kind).value
        self.assertEqual(list(self.engine.containers_), before)
        self.reactor.advance(1.0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        return error

    def ended(self, instance: IInstance) -> Exit:
        """Tell how a copy ended."""
        self.reactor.advance(1.0)
        return self.successResultOf(instance.when_ended())

    def tell(self, action: str, container_id: str = "c1") -> None:
        """Have an event come."""
        self.events[-1].received({"id": container_id, "Action": action})


class StartTests(RuntimeTestCase):
    """Starting."""

    def test_order(self) -> None:
        """A copy is attached to before it starts."""
        self.start()
        self.assertEqual(self.engine.asked, ["list", "create", "attach", "start", "inspect"])
        self.assertTrue(self.events[0].running)

    def test_http(self) -> None:
        """An HTTP server has its own address, or a published port."""
        self.assertEqual(self.start(WEB).address, ("10.213.0.2", 8000))
        self.runtime = self.make(published=True)
        self.assertEqual(self.start(WEB, "b").address, ("127.0.0.1", 4321))

    def test_ended_at_once(self) -> None:
        """Who ends before it has an address is told as ended."""
        self.engine.start = lambda container_id: self.engine.end(container_id, 3)  # type: ignore[method-assign]  # ends
        for published in (False, True):
            self.runtime = self.make(published=published)
            instance = self.start(WEB, str(published)[0])
            self.assertEqual(self.ended(instance).code, 3)

    def test_refusals(self) -> None:
        """What the engine refuses is told in our words, and leaves nothing."""
        for step in ("list", "create", "attach", "start", "inspect"):
            self.engine.refusals[step] = REFUSED
            error = self.refused(BackendUnavailable)
            self.assertEqual(error.data, {"cause": "start_failed"}, step)
            self.assertNotIn("no", error.detail.split())
        self.engine.refusals["create"] = Refused(500, "write: No space left on device")
        self.assertEqual(self.refused(BackendUnavailable).data, {"cause": "disk_full"})
        self.engine.refusals["create"] = Refused(409, "The container name is already in use")
        self.assertEqual(self.refused(BackendUnavailable).data, {"cause": "start_failed"})
        self.engine.refusals["start"] = Refused(500, "bind: address already in use")
        self.assertEqual(self.refused(BackendUnavailable).data, {"cause": "port_unavailable"})
        self.engine.refusals["start"] = RuntimeUnavailable()
        self.refused(RuntimeUnavailable)
        self.engine.refusals["start"] = NotThere("network gone")
        self.assertIn("gone", self.refused(BackendUnavailable).detail)
        self.start()

    def test_disk(self) -> None:
        """A full disk of the gate is told as that; another fault of it is not shown."""
        for number, cause in ((errno.ENOSPC, "disk_full"), (errno.EIO, "start_failed")):
            self.engine.refusals["attach"] = OSError(number, "of the host")
            error = self.refused(BackendUnavailable)
            self.assertEqual(error.data, {"cause": cause})
            self.assertNotIn("of the host", error.detail)

    def test_image_missing(self) -> None:
        """Without its image nothing is begun."""
        self.engine.images.clear()
        self.refused(ImageMissing)
        self.assertEqual(self.engine.asked, [])

    def test_list(self) -> None:
        """With a list a container has a hosts file of its own, and rules that go with it."""
        box = Container(
            image="x:1", egress="allow-list", egress_to=(Destination("203.0.113.7", 443),)
        )
        spec = self.specs["web"] = replace(WEB, container=box)
        instance = self.start(spec)
        (bridge,) = self.firewall.listed
        self.assertTrue(bridge.startswith("mcpg2"))
        (made,) = self.engine.containers_.values()
        (mount,) = [
            one for one in made["Config"]["HostConfig"]["Mounts"] if one["Target"] == "/etc/hosts"
        ]
        self.assertEqual(Path(mount["Source"]).read_text(), "127.0.0.1 localhost\n")
        self.assertEqual(made["Config"]["HostConfig"]["Dns"], ["127.0.0.1"])
        self.firewall.listed.clear()
        self.successResultOf(self.runtime.reconcile())
        self.assertEqual(list(self.firewall.listed), [bridge])
        self.runtime.stop(instance, 0)
        self.tell("die")
        self.ended(instance)
        self.firewall.listed.clear()
        self.successResultOf(self.runtime.reconcile())
        self.assertEqual(self.firewall.listed, {})
        looked = self.firewall.looked
        self.successResultOf(self.runtime.remove(instance.key))
        self.assertEqual(self.firewall.looked, looked + 1)
        self.assertFalse(Path(mount["Source"]).exists())

    def test_list_not_put_up(self) -> None:
        """Where the rules of a list can not be put up the container is not started."""
        self.firewall.list_why = "no"
        box = Container(image="x:1", egress="allow-list", egress_to=(Destination("203.0.113.7"),))
        self.refused(RuntimeUnavailable, replace(WEB, container=box))
        self.firewall.listed.clear()
        self.successResultOf(self.runtime.reconcile())
        self.assertEqual(self.firewall.listed, {})

    def test_no_firewall(self) -> None:
        """Who can not be kept from the host is not started; who has no network is."""
        self.firewall.why = "not permitted"
        error = self.refused(RuntimeUnavailable, WEB)
        self.assertEqual(error.data, {"cause": "firewall"})
        self.start(PIPE)

    def test_remains_of_others(self) -> None:
        """What is left of another entry, or never ran, goes; one that fits is taken up."""
        one = self.start()
        self.runtime.stop(one, 0)
        self.tell("die")
        self.ended(one)
        two = self.start()
        self.assertEqual(list(self.engine.containers_), ["c1"])
        self.assertTrue(self.engine.containers_["c1"]["Name"].endswith("." + two.instance_id))
        self.runtime.stop(two, 0)
        self.tell("die")
        self.ended(two)
        self.engine.images["x:1"]["Id"] = "sha256:2"
        self.start()
        self.assertEqual(list(self.engine.containers_), ["c2"])

    def test_left_for_later(self) -> None:
        """What can not be removed now is removed when the gate looks again."""
        self.engine.refusals.update(start=REFUSED, remove=REFUSED)
        starting = self.runtime.start(PIPE, self.launch(PIPE))
        self.failureResultOf(starting, BackendUnavailable)
        self.reactor.advance(1.0)
        self.assertEqual(self.engine.states(), ["created"])
        self.successResultOf(self.runtime.reconcile())
        self.assertEqual(self.engine.states(), [])


class EndTests(RuntimeTestCase):
    """Ends, and what the engine says of them."""

    def test_event(self) -> None:
        """An event ends the copy it is about, and is nothing to others."""
        one, other = self.start(), self.start(PIPE, "b")
        self.engine.end("c1", 1)
        self.tell("die")
        self.tell("die", "of-nobody")
        self.tell("exec_die", "c2")
        self.assertEqual(self.ended(one).code, 1)
        self.assertNoResult(other.when_ended())
        self.assertEqual(len(list((self.folder / "files").glob("*/token"))), 1)

    def test_memory(self) -> None:
        """Want of memory is told, even where only the event tells of it."""
        instance = self.start()
        self.tell("oom")
        self.engine.end("c1", 137)
        self.tell("die")
        self.assertEqual(self.ended(instance).reason, "oom_killed")
        self.assertEqual(self.meters.events["container_oom"], 1)

    def test_removed_beside(self) -> None:
        """A container that somebody removed has been killed."""
        for action in ("destroy", "die"):
            instance = self.start()
            container_id = list(self.engine.containers_)[-1]
            del self.engine.containers_[container_id]
            self.tell(action, container_id)
            self.assertEqual(self.ended(instance).reason, "killed")

    def test_connection_lost(self) -> None:
        """An HTTP server that lost its connection gets another; a stdio one can not go on."""
        web, pipe = self.start(WEB), self.start(PIPE)
        for protocol in tuple(self.reactor.protocols):
            protocol.connectionLost()
        self.assertEqual(len(self.reactor.protocols), 3)
        self.assertNoResult(web.when_ended())
        self.assertIn("SIGKILL", self.engine.asked)
        self.tell("die", "c2")
        self.assertEqual(self.ended(pipe).reason, "killed")

    def test_connection_not_had_again(self) -> None:
        """An HTTP server goes on though what it prints is not seen."""
        web = self.start(WEB)
        self.engine.refusals["attach"] = REFUSED
        self.reactor.protocols[0].connectionLost()
        self.assertNoResult(web.when_ended())

    def test_stdio_not_killed(self) -> None:
        """When a stdio server can not even be killed, the next look sees to it."""
        pipe = self.start()
        self.engine.refusals["SIGKILL"] = REFUSED
        self.reactor.protocols[0].connectionLost()
        self.assertNoResult(pipe.when_ended())
        self.successResultOf(self.runtime.reconcile())
        self.tell("die")
        self.assertEqual(self.ended(pipe).reason, "killed")

    def test_silence(self) -> None:
        """A silent engine ends nothing; when it is back, everything is looked at."""
        instance = self.start()
        self.engine.silent = True
        self.tell("die")
        self.events[0].opened()
        self.assertNoResult(instance.when_ended())
        self.engine.silent = False
        self.engine.end("c1", 0)
        self.runtime.engine_is_back()
        self.assertEqual(self.ended(instance).code, 0)

    def test_stdin_lost_in_silence(self) -> None:
        """A stdio server whose connection broke while the engine is silent is told as lost."""
        instance = self.start()
        self.engine.silent = True
        self.reactor.protocols[0].connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.ended(instance).reason, "lost")

    def test_bug_is_logged(self) -> None:
        """What goes wrong while looking is a bug, and logged as one."""
        self.start()
        self.engine.refusals["inspect"] = ZeroDivisionError()
        self.tell("die")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_shutdown(self) -> None:
        """Stdio servers end with the gate, HTTP servers run on unless told otherwise."""
        for keep in (True, False):
            self.engine.containers_.clear()
            self.runtime = self.make(keep=keep)
            self.start(WEB), self.start(PIPE)
            done = self.runtime.shutdown()
            for container_id in self.engine.containers_:
                if self.engine.states()[0] != "running" or container_id != "c1":
                    self.tell("die", container_id)
            self.reactor.advance(10.0)
            self.successResultOf(done)
            self.assertEqual(self.engine.states(), ["running" if keep else "exited", "exited"])
            self.assertFalse(self.events[-1].running)
            self.tell("die")
            self.runtime.engine_is_back()
            self.successResultOf(self.runtime.reconcile())


class NextLifeTests(RuntimeTestCase):
    """The gate's next life."""

    def adopt(self, **more: Any) -> list[IInstance]:
        """Begin it."""
        self.runtime = self.make(**more)
        return self.successResultOf(self.runtime.adopt())

    def test_adopts(self) -> None:
        """An HTTP server goes on with its id; a running stdio one is removed."""
        web = self.start(WEB)
        self.start(PIPE)
        (adopted,) = self.adopt()
        self.assertEqual((adopted.instance_id, adopted.key), (web.instance_id, web.key))
        self.assertEqual((adopted.address, adopted.logs()), (web.address, ["said before"]))
        self.assertEqual(list(self.engine.containers_), ["c1"])
        again = self.successResultOf(self.runtime.adopt())
        self.assertEqual(again, [])

    def test_leaves_the_stopped(self) -> None:
        """A stopped container of an entry that fits is left for the next start."""
        self.start(PIPE)
        self.engine.end("c1", 0)
        self.assertEqual(self.adopt(), [])
        self.assertEqual(self.engine.states(), ["exited"])

    def test_removes_what_does_not_fit(self) -> None:
        """Changed entries, dropped ones and half-made containers go."""
        self.start(WEB)
        self.start(PIPE)
        self.start(PIPE, "b")
        self.engine.containers_["c3"]["State"]["Status"] = "created"
        self.specs["web"] = replace(WEB, command=("--new",))
        del self.specs["pipe"]
        self.assertEqual(self.adopt(), [])
        self.assertEqual(self.engine.states(), [])

    def test_strange_labels(self) -> None:
        """A container with our label and nothing else of ours goes."""
        self.start(PIPE)
        self.engine.containers_["c1"]["Config"]["Labels"] = {"mcpgate.gate": "g"}
        self.assertEqual(self.adopt(), [])
        self.assertEqual(self.engine.states(), [])

    def test_trouble(self) -> None:
        """What can not be adopted is removed; a silent engine keeps nobody from starting."""
        for step in ("attach", "inspect", "logs"):
            self.runtime = self.make()
            self.start(WEB)
            self.engine.refusals[step] = REFUSED
            self.assertEqual(self.adopt(), [])
            self.assertEqual(self.engine.states(), [], step)
        self.engine.refusals["list"] = REFUSED
        self.assertEqual(self.adopt(), [])
        self.engine.silent = True
        self.assertEqual(self.adopt(), [])

    def test_ended_meanwhile(self) -> None:
        """One that ends while it is adopted is not."""
        self.start(WEB)
        attach = self.engine.attach_socket

        def ends(container_id: str, params: object) -> Any:
            self.engine.end(container_id, 0)
            return attach(container_id, params)

        self.engine.attach_socket = ends  # type: ignore[method-assign]  # in between
        self.assertEqual(self.adopt(), [])
        self.reactor.advance(1.0)

    def test_spare_ones(self) -> None:
        """A container that was given goes on with its owner; one that is still spare is removed."""
        box = replace(WEB, container=Container(image="x:1"))
        self.specs["web"] = box
        given, spare = (self.successResultOf(self.runtime.start(box, self.spare(n))) for n in "12")
        key = InstanceKey("web", Owner(Isolation.PER_KEY, "a" * 32))
        self.runtime.assign(given, key)
        self.assertEqual(given.key, key)
        (adopted,) = self.adopt()
        self.assertEqual((adopted.instance_id, adopted.key), (given.instance_id, key))
        self.assertEqual(list(self.engine.containers_), ["c1"])
        self.assertNotEqual(given.instance_id, spare.instance_id)
        done = self.runtime.stop(adopted, 1.0)
        self.tell("die")
        self.ended(adopted)
        self.successResultOf(done)
        self.assertEqual(self.engine.containers_, {})
        self.assertEqual(self.engine.networks_, [])

    def spare(self, number: str, spec: ServerSpec = WEB) -> Launch:
        """Make a launch of a copy that is nobody's."""
        launch = self.launch(spec)
        return replace(
            launch, key=InstanceKey(spec.name, Owner.nobody(Isolation.PER_KEY, number)), values={}
        )

    def test_spare_one_is_never_taken_up(self) -> None:
        """What is left of a spare container is removed, not started again."""
        launch = self.spare("1", PIPE)
        first = self.successResultOf(self.runtime.start(PIPE, launch))
        self.engine.refusals["remove"] = REFUSED
        self.engine.end("c1", 1)
        self.tell("die")
        self.ended(first)
        self.assertEqual(self.engine.states(), ["exited"])
        again = replace(launch, instance_id="again")
        self.successResultOf(self.runtime.start(PIPE, again))
        self.assertEqual(list(self.engine.containers_), ["c2"])
        self.engine.refusals["remove"] = REFUSED
        self.engine.end("c2", 1)
        self.tell("die", "c2")
        self.reactor.advance(1.0)
        self.successResultOf(self.runtime.reconcile())
        self.assertEqual(self.engine.containers_, {})

    def test_engine_keeps_the_name(self) -> None:
        """When the engine can not be told of the owner the owner has its copy all the same."""
        given = self.successResultOf(self.runtime.start(WEB, self.spare("1")))
        key = InstanceKey("web", Owner(Isolation.PER_KEY, "a" * 32))
        self.engine.refusals["rename"] = REFUSED
        self.runtime.assign(given, key)
        self.assertEqual(given.key, key)
        self.assertEqual(self.adopt(), [])
        self.assertEqual(self.engine.containers_, {})
        self.runtime.assign(given, key)

    def test_put_aside(self) -> None:
        """A copy of an older entry ends beside the new one, and takes nothing of it along."""
        box = Container(image="x:1", egress="allow-list", egress_to=(Destination("192.0.2.1"),))
        old = replace(WEB, container=box)
        first = self.successResultOf(self.runtime.start(old, self.launch(old)))
        name = self.engine.containers_["c1"]["Name"]
        aside = InstanceKey("web", Owner(Isolation.PER_KEY, "a" * 32 + "~i1"))
        self.runtime.assign(first, aside)
        self.assertEqual(self.engine.containers_["c1"]["Name"], name)
        changed = replace(old, env=(("MORE", "1"),))
        self.successResultOf(self.runtime.start(changed, self.launch(changed)))
        self.assertEqual(self.engine.states(), ["running", "running"])
        self.engine.end("c1", 0)
        self.tell("die")
        self.ended(first)
        self.assertEqual(list(self.engine.containers_), ["c2"])
        (file,) = (self.folder / "files").glob("*/token")
        self.assertEqual(file.read_text("utf-8"), "k" * 20)
        self.assertEqual(len(self.runtime._lists._open), 1)

    def test_started_while_tidying(self) -> None:
        """Files of a container that was started while the rest is tidied stay."""
        self.start(WEB)
        listed = self.engine.containers
        self.engine.containers = lambda **_: []  # type: ignore[method-assign]  # as of before
        self.successResultOf(Deferred.fromCoroutine(self.runtime._tidy()))
        self.engine.containers = listed  # type: ignore[method-assign]  # as it was
        self.assertEqual(len(list((self.folder / "files").glob("*/token"))), 1)

    def test_not_while_adopting(self) -> None:
        """What is being adopted is not taken for a stray."""
        self.start(WEB)
        self.runtime = self.make()
        held: list[Deferred[Any]] = []
        call = self.engine.call

        def slow(work: Any, **more: Any) -> Deferred[Any]:
            held.append(Deferred())
            return held[-1].addCallback(lambda _: call(work, **more))

        self.engine.call = slow  # type: ignore[method-assign]  # slow
        adopting = self.runtime.adopt()
        self.successResultOf(self.runtime.reconcile())
        while self.noResult(adopting):
            held.pop(0).callback(None)
        self.assertEqual(len(self.successResultOf(adopting)), 1)

    def noResult(self, waited: Deferred[Any]) -> bool:  # noqa: N802  # as its cousins
        """Tell whether it has not fired."""
        return not waited.called

    def test_reconcile(self) -> None:
        """Runs without being known: removed.  Stopped: kept for as long as its entry says."""
        self.start(WEB)
        self.start(PIPE)
        self.engine.end("c2", 0)
        self.engine.ended_at = "1970-01-12T13:46:40Z"  # 1e6 seconds
        self.engine.end("c2", 0)
        self.runtime = self.make()
        self.successResultOf(self.runtime.reconcile())
        self.assertEqual(list(self.engine.containers_), ["c2"])
        self.assertEqual(self.meters.events["stray_removed"], 1)
        self.now += PIPE.lifetime.remove_s
        self.specs["pipe"] = replace(PIPE, lifetime=Lifetime(remove_s=0))
        self.successResultOf(self.runtime.reconcile())
        self.assertEqual(list(self.engine.containers_), ["c2"])
        self.specs["pipe"] = PIPE
        self.successResultOf(self.runtime.reconcile())
        self.assertEqual(list(self.engine.containers_), [])

    def test_reconcile_dropped_entry(self) -> None:
        """What is stopped and has no entry any more goes at once, with its network and files."""
        self.start(WEB)
        self.engine.end("c1", 0)
        del self.specs["web"]
        self.runtime = self.make()
        self.assertEqual(len(self.engine.networks_), 1)
        self.successResultOf(self.runtime.reconcile())
        self.assertEqual(list(self.engine.containers_), [])
        self.assertEqual(self.engine.networks_, [])
        self.assertEqual(list((self.folder / "files").glob("*/token")), [])

    def test_reconcile_created(self) -> None:
        """What was made and never ran goes when it is not just being made (R48)."""
        self.start(PIPE)
        self.engine.containers_["c1"]["State"]["Status"] = "created"
        self.runtime = self.make()
        self.now = STRAY_S - 1
        self.successResultOf(self.runtime.reconcile())
        self.assertEqual(len(self.engine.containers_), 1)
        self.now = STRAY_S
        self.successResultOf(self.runtime.reconcile())
        self.assertEqual(len(self.engine.containers_), 0)

    def test_reconcile_the_known(self) -> None:
        """Whose end was missed is told so; rules that are gone are said to be."""
        web, pipe = self.start(WEB), self.start(PIPE)
        self.engine.end("c2", 5)
        self.firewall.why = "gone"
        self.successResultOf(self.runtime.reconcile())
        self.assertEqual(self.ended(pipe).code, 5)
        self.assertNoResult(web.when_ended())
        self.refused(RuntimeUnavailable, replace(WEB, name="other"))
        self.firewall.why = ""
        self.start(WEB, "b")
        self.successResultOf(self.runtime.reconcile())

    def test_remove(self) -> None:
        """Removing takes container, files and network, a session's data, and no user's."""
        key = InstanceKey("web", Owner(Isolation.PER_KEY, "a" * 32))
        instance = self.start(WEB)
        self.runtime.stop(instance, 0)
        self.tell("die")
        self.reactor.advance(1.0)
        self.engine.refusals["remove"] = Refused(409, "removal is in progress")
        self.successResultOf(self.runtime.remove(key))
        self.engine.refusals["remove"] = NotThere("c1")
        self.successResultOf(self.runtime.remove(key))
        self.successResultOf(self.runtime.remove(key))
        self.assertEqual(self.engine.containers_, {})
        self.assertEqual(self.engine.networks_, [])
        self.assertEqual(list((self.folder / "files").iterdir()), [])
        self.assertTrue((self.folder / "data" / "web" / ("a" * 32)).exists())

    def test_remove_spares_the_living(self) -> None:
        """What runs is not removed."""
        self.start(PIPE)
        self.successResultOf(
            self.runtime.remove(InstanceKey("pipe", Owner(Isolation.PER_KEY, "a" * 32)))
        )
        self.assertEqual(self.engine.states(), ["running"])
