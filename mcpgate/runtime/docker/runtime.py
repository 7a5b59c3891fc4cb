"""
Servers as containers: the Docker runtime.

The engine is the record of what exists: every container carries labels (gate, server, owner,
digest of its entry) and a name that ends with the id of its last start.  Stopping leaves the
container; the next start of the same owner takes it up again, removing is a step of its own.

Long because starting, ending, adopting and reconciling keep one set of books; what does not need
these is in the modules beside.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from zope.interface import implementer

from mcpgate.errors import BackendUnavailable, RuntimeUnavailable
from mcpgate.interfaces import IInstance, IRuntime
from mcpgate.model import Exit, InstanceKey, Launch, ServerSpec, Transport
from mcpgate.runtime.docker import container
from mcpgate.runtime.docker.cgroups import Cgroups
from mcpgate.runtime.docker.cleanup import Cleanup, Wish
from mcpgate.runtime.docker.container import LABEL_GATE, LABEL_KEY, LABEL_SPEC, Known, Place
from mcpgate.runtime.docker.egress import AllowLists
from mcpgate.runtime.docker.engine import DockerCalls, NotThere, Refused
from mcpgate.runtime.docker.events import EventStream
from mcpgate.runtime.docker.firewall import Firewall
from mcpgate.runtime.docker.images import Images
from mcpgate.runtime.docker.instance import ContainerInstance
from mcpgate.runtime.docker.networks import ALLOW_LIST, INTERNET, Networks, bridge_name
from mcpgate.runtime.docker.secrets import SecretFiles
from mcpgate.runtime.docker.stdio import Attached, Streams, adopt, attach
from mcpgate.runtime.places import Places
from mcpgate.runtime.trees import TreeRemover
from mcpgate.telemetry.meters import ENGINE_OUTCOMES, Meters
from mcpgate.telemetry.views import EngineView, Leftover
from mcpgate.timing.deferreds import deferred

log = Logger()

STRAY_S: Final = 60.0
"""What was created and never started is removed after this long (R48)."""

_LOG_LINES: Final = 100
# The engine tries several ports by itself before it says so.
_NO_PORT: Final = ("address already in use", "port is already allocated", "ports are allocated")


@implementer(IRuntime)
class DockerRuntime:
    """
    See `IRuntime`.

    :param calls: the way to the engine.
    :param events: makes the stream of events, given what to call with each and when opened.
    :param gate_id: tells this gate's containers from those of others on the same engine.
    :param hash_key: for the digest of a server's entry in a label.
    :param find: gives the entry of a server, None when there is none any more.
    :param firewall: None when the rules are somebody else's business.
    :param published: reach servers on HTTP by published ports, not by their own addresses.
    :param keep: `shutdown` leaves servers on HTTP running for the next gate to adopt.
    :param wall: wall clock, seconds.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        calls: DockerCalls,
        events: Callable[[Callable[[Mapping[str, Any]], None], Callable[[], None]], EventStream],
        gate_id: str,
        hash_key: bytes,
        find: Callable[[str], ServerSpec | None],
        networks: Networks,
        firewall: Firewall | None,
        files: SecretFiles,
        lists: AllowLists,
        places: Places,
        images: Images,
        meters: Meters,
        wall: Callable[[], float],
        published: bool = False,
        keep: bool = True,
        cgroups: Cgroups | None = None,
    ) -> None:
        self.calls = calls
        self.images = images
        self._reactor = reactor
        self._gate_id = gate_id
        self._hash_key = hash_key
        self._find = find
        self._networks = networks
        self._firewall = firewall
        self._files = files
        self._lists = lists
        self._places = places
        self._trees = TreeRemover(reactor)
        self._meters = meters
        self._wall = wall
        self._published = published
        self._keep = keep
        self._cgroups = cgroups or Cgroups()
        self._events = events(self._happened, self._opened)
        self._instances: dict[str, ContainerInstance] = {}
        self._by_container: dict[str, ContainerInstance] = {}
        # Labels of keys and names of networks that a start under way counts on.
        self._busy: Counter[str] = Counter()
        self._clearing: set[Deferred[None]] = set()
        self._reconciling = False
        self._adopting = False
        self._walled = False
        self._closed = False

    # --- Starting -----------------------------------------------------------------------------

    @deferred
    async def start(self, spec: ServerSpec, launch: Launch) -> IInstance:
        """See `IRuntime.start`; fails with `ImageMissing`, or `RuntimeUnavailable` as well."""
        instance = self._instances.get(launch.instance_id)
        if instance is not None:
            return instance
        self._events.start()
        begun: list[str] = []
        label = container.key_label(launch.key)
        self._busy[label] += 1
        try:
            return await self._start(spec, launch, label, begun)
        except CancelledError:
            self._abandon(begun, launch.instance_id)
            raise
        except NotThere as no:
            self._abandon(begun, launch.instance_id)
            raise BackendUnavailable(
                f"The container of server '{spec.name}' is gone: {no}."
            ) from None
        except Refused as no:
            self._abandon(begun, launch.instance_id)
            raise self._refusal(spec, no) from None
        except (OSError, ValueError) as error:
            self._abandon(begun, launch.instance_id)
            log.error("Server {server} can not be started: {error}", server=spec.name, error=error)
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise BackendUnavailable(
                f"Server '{spec.name}' can not be started.",
                retry_after_s=10.0,
                data={"cause": "disk_full" if full else "start_failed"},
            ) from error
        except Exception:
            self._abandon(begun, launch.instance_id)
            raise
        finally:
            self._busy -= Counter([label])
            if label not in self._in_use():
                self._lists.close(label)

    async def _start(
        self, spec: ServerSpec, launch: Launch, label: str, begun: list[str]
    ) -> ContainerInstance:
        image = await self.images.require(spec)
        network, hosts_file = await self._network(spec, launch.key)
        self._busy[network] += 1
        try:
            values = {name: secret.reveal() for name, secret in launch.values.items()}
            inside = container.template_values(spec, values)
            files_dir = self._files.write(label, spec, inside)
            container_id = await self._take_up(spec, launch, image.image_id, files_dir, begun)
            if container_id is None:
                place = self._place(spec, launch.key, network, files_dir, hosts_file)
                body = container.create_parameters(
                    spec,
                    launch.key,
                    gate_id=self._gate_id,
                    image_id=image.image_id,
                    image_user=image.user,
                    values=inside,
                    place=place,
                    hash_key=self._hash_key,
                )
                container_id = await self._create(spec, launch, body, begun)
            instance = self._make(spec, launch, container_id, values)
            await self._connect(instance)
            await self._run(instance, network)
            await self._settle(instance, spec)
        finally:
            self._busy -= Counter([network])
        self._meters.events["container_started"] += 1
        return instance

    async def _network(self, spec: ServerSpec, key: InstanceKey) -> tuple[str, str]:
        """Give its network, with walls around it, and its hosts file if it needs one of ours."""
        network = await self._networks.ensure(spec, key)
        if network != container.NO_NETWORK and not self._walled and self._firewall is not None:
            why = await self._firewall.ensure()
            if why:
                log.error("Containers with a network can not be kept from the host: {why}", why=why)
                raise RuntimeUnavailable(
                    "Containers can not be kept from the host's services: see the log.",
                    data={"cause": "firewall"},
                )
            self._walled = True
        box = spec.container
        if box.egress != ALLOW_LIST:
            return network, ""
        bridge = bridge_name(network, box.egress)
        label = container.key_label(key)
        return network, await self._lists.open(label, bridge, box.egress_to)

    def _place(
        self, spec: ServerSpec, key: InstanceKey, network: str, files_dir: str, hosts_file: str
    ) -> Place:
        data_dir = ""
        if spec.container.data != "none":
            data_dir = self._places.make_data(key)
        return Place(
            network=network,
            closed=spec.container.egress != INTERNET,
            published=self._published,
            files_dir=files_dir,
            data_dir=data_dir,
            hosts_file=hosts_file,
        )

    async def _take_up(
        self, spec: ServerSpec, launch: Launch, image_id: str, files_dir: str, begun: list[str]
    ) -> str | None:
        """Take the stopped container of an earlier start, if it is as a new one would be."""
        wanted = container.spec_hash(spec, self._hash_key)
        found = None
        # What was nobody's may have been somebody's since.
        fresh = launch.key.owner.is_nobody
        for known in await self._list(f"{LABEL_KEY}={container.key_label(launch.key)}"):
            if known.container_id in self._by_container:
                continue  # Another start of the same key: it is being stopped.
            fits = known.labels.get(LABEL_SPEC) == wanted and known.image_id == image_id
            if fits and known.state == "exited" and found is None and not fresh:
                found = known.container_id
            else:
                await self._remove(known.container_id)
        if found is None:
            return None
        begun.append(found)
        name = container.container_name(self._gate_id, launch.key, launch.instance_id)
        await self.calls.call(lambda client: client.rename(found, name))
        return found

    async def _create(
        self, spec: ServerSpec, launch: Launch, body: dict[str, Any], begun: list[str]
    ) -> str:
        name = container.container_name(self._gate_id, launch.key, launch.instance_id)

        def late(made: str) -> None:
            self._abandon([made], "")

        def create(client: Any) -> str:
            return str(client.create_container_from_config(body, name)["Id"])

        container_id: str = await self.calls.call(create, discard=late)
        begun.append(container_id)
        return container_id

    def _make(
        self,
        spec: ServerSpec,
        launch: Launch,
        container_id: str,
        values: Mapping[str, str],
    ) -> ContainerInstance:
        instance = ContainerInstance(
            self._reactor,
            instance_id=launch.instance_id,
            key=launch.key,
            container_id=container_id,
            stdio=spec.transport is Transport.STDIO,
            kill=self._kill,
            look=self._look,
            cgroups=self._cgroups,
            hidden=container.hidden_texts(spec, values),
        )
        self._instances[instance.instance_id] = instance
        self._by_container[container_id] = instance
        instance.when_ended().addCallback(self._ended, instance).addErrback(
            lambda failure: log.failure("Clearing up after a container failed", failure)
        )
        return instance

    async def _connect(self, instance: ContainerInstance) -> None:
        """Attach to its streams, before it starts: nothing it says is lost."""
        work = partial(attach, container_id=instance.container_id, stdin=instance.stdio)
        attached: Attached = await self.calls.call(work, discard=Attached.close)
        streams = Streams(
            self._reactor,
            name=instance.instance_id,
            stdio=instance.stdio,
            ring=instance.ring,
            meters=self._meters,
            lost=instance.connection_lost,
        )
        adopt(self._reactor, attached, streams)
        instance.streams = streams
        instance.channel = streams.channel

    async def _run(self, instance: ContainerInstance, network: str) -> None:
        try:
            await self.calls.call(lambda client: client.start(instance.container_id))
        except NotThere:
            self._networks.forget(network)
            raise

    async def _settle(self, instance: ContainerInstance, spec: ServerSpec) -> None:
        """Learn where it listens and what it uses; it may have ended already."""
        told = await self._inspect(instance.container_id)
        state = told.get("State") or {}
        if not state.get("Running"):
            instance.over(state)
        instance.running_as(int(state.get("Pid") or 0))
        if spec.transport.listens:
            # Who ended before it had an address gets one nobody answers at: its end is told.
            instance.address = self._address(told, spec) or ("127.0.0.1", 1)

    def _address(self, told: Mapping[str, Any], spec: ServerSpec) -> tuple[str, int] | None:
        settings = told.get("NetworkSettings") or {}
        if self._published:
            bound = (settings.get("Ports") or {}).get(f"{spec.container.port}/tcp") or []
            return ("127.0.0.1", int(bound[0]["HostPort"])) if bound else None
        for network in (settings.get("Networks") or {}).values():
            if network.get("IPAddress"):
                return str(network["IPAddress"]), spec.container.port
        return None

    def _refusal(self, spec: ServerSpec, no: Refused) -> BackendUnavailable:
        log.error("Server {server} can not be started: {error}", server=spec.name, error=no.text)
        if "no space left" in no.text.lower():
            return BackendUnavailable(
                f"Server '{spec.name}' can not be started: the disk of the engine is full.",
                retry_after_s=30.0,
                data={"cause": "disk_full"},
            )
        if any(text in no.text.lower() for text in _NO_PORT):
            return BackendUnavailable(
                f"Server '{spec.name}' can not be started: no port is free for it.",
                retry_after_s=5.0,
                data={"cause": "port_unavailable"},
            )
        return BackendUnavailable(
            f"The container of server '{spec.name}' can not be started.",
            data={"cause": "start_failed"},
        )

    def _abandon(self, begun: list[str], instance_id: str) -> None:
        """Remove what a start that failed has begun, in the background."""
        instance = self._instances.get(instance_id)
        if instance is not None and instance.container_id in begun:
            instance.lose()
        for container_id in begun:
            Deferred.fromCoroutine(self._remove(container_id)).addErrback(
                lambda failure: log.debug(
                    "A container is left for later: {why}", why=failure.getErrorMessage()
                )
            )

    # --- For people ---------------------------------------------------------------------------

    def engine(self) -> EngineView:
        """Tell how it goes with the engine."""
        calls = self._meters.engine_calls
        return EngineView(
            answering=self.calls.answering,
            waiting=self.calls.waiting,
            calls={name: calls[name] for name in ENGINE_OUTCOMES},
        )

    @deferred
    async def left(self) -> list[Known]:
        """Give this gate's containers that do not run; fails when the engine is silent."""
        return [
            known
            for known in await self._list()
            if not known.running and known.container_id not in self._by_container
        ]

    @deferred
    async def clean_up(self, wish: Wish) -> list[Leftover]:
        """Remove what an operator wishes removed; see `Cleanup.run`."""
        return await Cleanup(
            self.calls,
            gate_id=self._gate_id,
            find=self._find,
            hash_key=self._hash_key,
            networks=self._networks,
            files=self._files,
            alive=self._by_container.__contains__,
            busy=lambda: set(self._busy),
            used=self._in_use,
            tidied=self._walls_changed,
        ).run(wish)

    # --- Asking the engine --------------------------------------------------------------------

    async def _list(self, *labels: str) -> list[Known]:
        wanted = {"label": [f"{LABEL_GATE}={self._gate_id}", *labels]}
        listed = await self.calls.call(lambda client: client.containers(all=True, filters=wanted))
        return [container.known(one) for one in listed]

    def _inspect(self, container_id: str) -> Deferred[dict[str, Any]]:
        return self.calls.call(lambda client: client.inspect_container(container_id))

    async def _remove(self, container_id: str) -> None:
        try:
            await self.calls.call(
                lambda client: client.remove_container(container_id, force=True, v=True)
            )
        except NotThere:
            return
        except Refused as no:
            if no.status != 409:  # Somebody else is removing it.
                raise

    def _kill(self, instance: ContainerInstance, name: str) -> Deferred[Any]:
        return self.calls.call(lambda client: client.kill(instance.container_id, name))

    def _look(self, instance: ContainerInstance) -> None:
        """Ask how it is, and say so to it."""

        def gone(failure: Any) -> None:
            failure.trap(NotThere)
            instance.over({"ExitCode": 137})

        def silent(failure: Any) -> None:
            # When the engine is back, everything is looked at.
            failure.trap(RuntimeUnavailable, Refused, CancelledError)
            if instance.stdio and instance.streams is None:
                instance.lose()  # Nobody will have its stdin again; its callers are told now.

        def told(found: dict[str, Any]) -> None:
            state = found.get("State") or {}
            if not state.get("Running"):
                instance.over(state)
            elif instance.streams is None and instance.alive:
                self._reconnect(instance)

        looking = self._inspect(instance.container_id).addCallbacks(told, gone)
        looking.addErrback(silent).addErrback(
            lambda failure: log.failure("Looking at a container failed", failure)
        )

    def _reconnect(self, instance: ContainerInstance) -> None:
        """
        See to a container that lost its connection and runs on: the engine was restarted.

        A server on stdio lost its stdin with it, and perhaps half a message.
        """
        if instance.stdio:
            self._kill(instance, "SIGKILL").addErrback(
                lambda failure: log.debug("{why}", why=failure.getErrorMessage())
            )
            return
        Deferred.fromCoroutine(self._connect(instance)).addErrback(
            lambda failure: log.warn(
                "What {instance} prints is not seen any more: {why}",
                instance=instance.instance_id,
                why=failure.getErrorMessage(),
            )
        )

    # --- What happens -------------------------------------------------------------------------

    def _happened(self, event: Mapping[str, Any]) -> None:
        """Take an event of the engine."""
        instance = self._by_container.get(str(event.get("id", "")))
        if instance is None or self._closed:
            return
        match event.get("Action"):
            case "oom":
                instance.oom = True
                self._meters.events["container_oom"] += 1
                self._meters.oom_kills[instance.key.server] += 1
                log.warn(
                    "Server {server} of {owner} used up its memory",
                    server=instance.key.server,
                    owner=instance.key.owner.label,
                )
            case "die":
                self._look(instance)
            case "destroy":
                instance.over({"ExitCode": 137})

    def _opened(self) -> None:
        """Events are coming from now on: see what was missed."""
        self._in_background(self.reconcile())

    def engine_is_back(self) -> None:
        """Look at everything: see `DockerCalls`."""
        if not self._closed:
            self._in_background(self.reconcile())

    def _in_background(self, work: Deferred[None]) -> None:
        work.addErrback(
            lambda failure: log.warn(
                "Containers could not be looked through: {why}", why=failure.getErrorMessage()
            )
        )

    def _ended(self, how: Exit, instance: ContainerInstance) -> None:
        self._instances.pop(instance.instance_id, None)
        self._by_container.pop(instance.container_id, None)
        label = container.key_label(instance.made_for)
        if label not in self._in_use():
            self._files.empty(label)
            self._lists.close(label)
        if instance.made_for.owner.is_nobody or instance.key != instance.made_for:
            clearing = Deferred.fromCoroutine(self._clear(instance.container_id))
            self._clearing.add(clearing)
            clearing.addErrback(
                lambda failure: log.debug(
                    "A container is left for later: {why}", why=failure.getErrorMessage()
                )
            ).addBoth(lambda _: self._clearing.discard(clearing))
        if how.reason == "oom_killed":
            log.error(
                "Server {server} of {owner} was killed: it needs more memory",
                server=instance.key.server,
                owner=instance.key.owner.label,
            )

    def _in_use(self) -> set[str]:
        """Give what starts count on, and the labels of what runs; two copies may share one."""
        running = {container.key_label(one.made_for) for one in self._instances.values()}
        return running | set(self._busy)

    async def _clear(self, container_id: str) -> None:
        """Remove a container that is taken up by nobody again, and its network."""
        await self._remove(container_id)
        await self._tidy()

    # --- Ending -------------------------------------------------------------------------------

    def stop(self, instance: IInstance, grace_s: float) -> Deferred[Exit]:
        """See `IRuntime.stop`."""
        ours = self._instances.get(instance.instance_id)
        return instance.when_ended() if ours is None else ours.stop(grace_s)

    def assign(self, instance: IInstance, key: InstanceKey) -> None:
        """
        See `IRuntime.assign`.

        A spare container gets a name that tells its owner, for a gate that adopts it.  When the
        engine does not take it, the next gate removes the container instead.
        """
        ours = self._instances.get(instance.instance_id)
        if ours is None:
            return
        was_spare, ours.key = ours.key.owner.is_nobody, key
        if not was_spare:
            return  # It is only put aside: the next gate knows by its entry that it is old.
        name = container.given_name(self._gate_id, ours.made_for, key, ours.instance_id)
        self.calls.call(lambda client: client.rename(ours.container_id, name)).addErrback(
            lambda failure: log.warn(
                "Container of {server} keeps the name of a spare one: {why}",
                server=key.server,
                why=failure.getErrorMessage(),
            )
        )

    @deferred
    async def remove(self, key: InstanceKey) -> None:
        """See `IRuntime.remove`; a session's data goes with its session, a user's stays."""
        label = container.key_label(key)
        for known in await self._list(f"{LABEL_KEY}={label}"):
            if known.container_id not in self._by_container:
                await self._remove(known.container_id)
        if not self._busy[label]:
            self._files.remove(label)
        for folder in self._places.leftovers(key):
            await self._trees.remove(folder)
        await self._tidy()

    async def _tidy(self) -> None:
        """Remove networks and files nobody needs any more."""
        left = await self._list()
        networks = {known.network for known in left}
        labels = {known.labels.get(LABEL_KEY, "") for known in left}
        gone = await self._networks.tidy(networks | set(self._busy))
        self._files.tidy(labels | self._in_use())
        if gone:
            await self._walls_changed()

    @deferred
    async def _walls_changed(self) -> None:
        if self._firewall is not None:
            await self._firewall.lists()

    @deferred
    async def adopt(self) -> list[IInstance]:
        """
        See `IRuntime.adopt`.

        Adopts servers on HTTP whose entry has not changed.  One on stdio ended with its stdin
        when the gate did; its container is taken up at the next start.  An engine that does not
        answer now is no reason not to start: what it has is then found by `reconcile`.
        """
        self._adopting = True
        self._events.start()
        adopted: list[IInstance] = []
        try:
            for known in await self._list():
                if known.container_id in self._by_container:
                    continue
                instance = await self._adopt(known)
                if instance is not None:
                    adopted.append(instance)
            await self._tidy()
        except RuntimeUnavailable:
            log.error("The container engine does not answer; containers are looked for later")
        except Refused as no:
            log.error("Containers could not all be adopted: {why}", why=no.text)
        finally:
            self._adopting = False
        return adopted

    async def _adopt(self, known: Known) -> ContainerInstance | None:
        key, made_for = known.key, known.made_for
        spec = None if key is None else self._find(key.server)
        fits = (
            key is not None
            and spec is not None
            and known.labels.get(LABEL_SPEC) == container.spec_hash(spec, self._hash_key)
            and known.state not in ("created", "dead", "removing", "paused")
        )
        if not fits or known.is_used_up:
            await self._remove(known.container_id)
            return None
        assert key is not None
        assert made_for is not None
        assert spec is not None
        if not known.running:
            return None
        if spec.transport is Transport.STDIO:
            # Its stdin ended; it may be slow to notice.
            await self._remove(known.container_id)
            return None
        launch = Launch(instance_id=known.instance_id, key=made_for, values={})
        instance = self._make(spec, launch, known.container_id, {})
        instance.key = key
        try:
            await self._connect(instance)
            await self._settle(instance, spec)
            await self._network(spec, made_for)
            instance.before = await self._last_lines(known.container_id)
        except (NotThere, Refused, RuntimeUnavailable, OSError):
            instance.lose()
            # When the engine is silent this fails as well, and adopting is over.
            await self._remove(known.container_id)
            return None
        if not instance.alive:
            return None
        self._meters.events["container_adopted"] += 1
        return instance

    async def _last_lines(self, container_id: str) -> list[str]:
        text: bytes = await self.calls.call(
            lambda client: client.logs(container_id, tail=_LOG_LINES)
        )
        return text.decode("utf-8", "replace").splitlines()[-_LOG_LINES:]

    @deferred
    async def reconcile(self) -> None:
        """
        Hold what the engine has against what the gate knows; call it every minute.

        Ends what does not run any more, removes what was created and never ran, what runs without
        the gate knowing of it, and what is stopped for longer than its entry says.
        """
        if self._reconciling or self._adopting or self._closed:
            return
        self._reconciling = True
        try:
            await self._reconcile()
        except RuntimeUnavailable:
            return  # It is looked at again when the engine is back.
        finally:
            self._reconciling = False

    async def _reconcile(self) -> None:
        # Taken before the list: what is made while it is under way is not a stray.
        before = dict(self._by_container)
        found = {known.container_id: known for known in await self._list()}
        for container_id, instance in before.items():
            known = found.pop(container_id, None)
            if known is None or not known.running:
                self._look(instance)
            elif instance.streams is None and instance.alive:
                self._look(instance)
        removed = False
        for known in found.values():
            busy = self._busy[known.labels.get(LABEL_KEY, "")]
            if not busy and known.container_id not in self._by_container:
                removed |= await self._remove_stray(known)
        if removed:
            await self._tidy()
        if self._firewall is not None and self._walled:
            self._walled = False
            if await self._firewall.ensure():
                log.error("The rules that keep containers from the host are gone")
            else:
                self._walled = True
        await self._lists.renew()

    async def _remove_stray(self, known: Known) -> bool:
        """Remove it, unless a start may take it up again; tell whether it was."""
        if known.state == "exited" and known.key is not None and not known.is_used_up:
            spec = self._find(known.key.server)
            remove_s = 0.0 if spec is None else spec.lifetime.remove_s
            if spec is not None and not remove_s:
                return False
            told = await self._inspect(known.container_id)
            ended_at = container.wall_time(str((told.get("State") or {}).get("FinishedAt", "")))
            if spec is not None and self._wall() - ended_at < remove_s:
                return False
        elif known.state == "created" and self._wall() - known.created_at < STRAY_S:
            return False
        log.info("Removing stray container {name}", name=known.name)
        self._meters.events["stray_removed"] += 1
        await self._remove(known.container_id)
        return True

    @deferred
    async def shutdown(self) -> None:
        """See `IRuntime.shutdown`; servers on HTTP go on running for the next gate, if so asked."""
        stops = [
            instance.stop(0)
            for instance in tuple(self._instances.values())
            if instance.stdio or not self._keep
        ]
        await DeferredList(stops)
        await DeferredList(tuple(self._clearing))
        self._closed = True
        self._events.stop()
        for instance in tuple(self._instances.values()):
            instance.lose()
        await self._trees.idle()
        self._trees.stop()
        self.images.close()
        self.calls.close()
