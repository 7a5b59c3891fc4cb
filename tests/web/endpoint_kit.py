"""A gate in memory: the real endpoint, sessions and limits, with servers that a test plays."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mcpgate.errors import GateError, InvalidCredential
from mcpgate.gate.access.lockout import Lockout
from mcpgate.gate.access.revocation import Revocations
from mcpgate.gate.admission import Admission, RateLimiter, Slots
from mcpgate.gate.eras import EraBook
from mcpgate.gate.pipeline import Gate
from mcpgate.gate.routing import Route, Routes
from mcpgate.gate.sessions import Session, SessionTable
from mcpgate.gate.tool_pins import PinBook
from mcpgate.http.forwarding import Forwarding
from mcpgate.interfaces import (
    IAuthenticator,
    IHTTPUpstream,
    IInbound,
    IInstancePool,
    ILease,
    IResponseReceiver,
    IStdioChannel,
)
from mcpgate.mcp.snapshot import Snapshot
from mcpgate.model import (
    Caller,
    Eras,
    Exit,
    InstanceKey,
    Isolation,
    Owner,
    Principal,
    Rate,
    Secret,
    ServerSpec,
    Transport,
)
from mcpgate.service.modern import make_asker, make_modern
from mcpgate.stores.memory import MemoryStore
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.modern_stdio import ModernStdioUpstream
from mcpgate.upstream.sse import SSEUpstream
from mcpgate.upstream.sse_channel import SSEPlace
from mcpgate.upstream.stdio import StdioUpstream
from mcpgate.web.dispatch import Dispatcher
from mcpgate.web.mcp.cold.answers import ColdAnswers
from mcpgate.web.mcp.cold.snapshots import SnapshotBook
from mcpgate.web.mcp.endpoint import MCPEndpoint
from mcpgate.web.mcp.event_log import EventBudget
from mcpgate.web.mcp.modern.choice import EraProbe
from mcpgate.web.mcp.over_http.sessions import HTTPSpeaker
from mcpgate.web.mcp.over_sse.endpoint import SSEEndpoint
from mcpgate.web.mcp.over_sse.sessions import SSESpeaker
from mcpgate.web.mcp.over_stdio.sessions import StdioSpeaker
from mcpgate.web.mcp.pinned.speakers import Desk, pinned
from mcpgate.web.mcp.post import Speaker
from mcpgate.web.mcp.rest.endpoint import RESTEndpoint
from tests.upstream.sse_fakes import FakeSSEServer
from tests.upstream.stdio_fakes import FakeChannel
from tests.web.fake_exchange import Sent
from tests.web.fake_inbound import FakeInbound

BOTH = b"application/json, text/event-stream"
KEEPALIVE_S = 15.0

INIT: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"roots": {}},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def request(method: str, id: int | str = 1, **params: object) -> dict[str, Any]:
    """Make a request."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": id, "method": method}
    return {**message, "params": params} if params else message


def notification(method: str, **params: object) -> dict[str, Any]:
    """Make a notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    return {**message, "params": params} if params else message


def caller_of(name: str) -> Caller:
    """Make the caller that a key of this name proves."""
    digest = name.encode().hex().ljust(32, "0")
    return Caller(Principal("file", name, digest), Secret(name))


# --- Instances --------------------------------------------------------------------------------


class FakeInstance:
    """One running copy: a child behind pipes, or an HTTP server, played by the test."""

    def __init__(self, world: World, key: InstanceKey, number: int) -> None:
        self.instance_id = f"i{number}"
        self.key = key
        self.ended: Deferred[Exit] = Deferred()
        self.channel = FakeChannel()
        self.http = FakeHTTPServer(world.clock)
        self.old = FakeSSEServer(world.clock)
        self.upstream: Any = self.http
        if world.spec.transport is Transport.SSE:
            self.upstream = SSEUpstream(
                self.old,  # type: ignore[arg-type]  # a stand-in with all that is used
                SSEPlace(origin="http://h", target=b"/sse"),
                make=self.converse(world),
                name=self.instance_id,
                clock=world.clock,
                wheel=world.wheel,
                ended=self.when_ended(),
                is_process=not world.spec.url,
                message_s=60.0,
            )
        elif world.spec.transport is Transport.STDIO and world.spec.era is Eras.MODERN:
            self.upstream = ModernStdioUpstream(
                self.channel,
                clock=world.clock,
                wheel=world.wheel,
                ended=self.when_ended(),
                meters=world.meters,
                name=self.instance_id,
                max_calls=world.spec.max_calls,
                strangers=world.spec.isolation is Isolation.SHARED,
            )
        elif world.spec.transport is Transport.STDIO:
            self.upstream = self.converse(world)(self.channel, self.when_ended(), self.instance_id)

    def converse(
        self, world: World
    ) -> Callable[[IStdioChannel, Deferred[Exit], str], StdioUpstream]:
        """Give what makes a conversation over a channel."""
        return lambda channel, ended, name: StdioUpstream(
            channel,
            clock=world.clock,
            wheel=world.wheel,
            ended=ended,
            meters=world.meters,
            name=name,
            max_calls=world.spec.max_calls,
        )

    def when_ended(self) -> Deferred[Exit]:
        """See `IInstance.when_ended`."""
        watching: Deferred[Exit] = Deferred()
        self.ended.chainDeferred(watching)
        return watching


@implementer(ILease)
class FakeLease:
    """See `ILease`; the pool counts."""

    def __init__(self, pool: FakePool, instance: FakeInstance) -> None:
        self._pool = pool
        self.instance: Any = instance
        self.upstream = instance.upstream
        self._held = True
        pool.held += 1

    def touch(self) -> None:
        """See `ILease.touch`."""
        self._pool.touched += 1

    def make_passive(self, stopped: Callable[[], None]) -> None:
        """See `ILease.make_passive`."""
        self._pool.passive.append(stopped)

    def release(self) -> None:
        """See `ILease.release`."""
        if self._held:
            self._held = False
            self._pool.held -= 1


@implementer(IInstancePool)
class FakePool:
    """
    See `IInstancePool`.

    :ivar at_once: a start is over at once; else the test says `started`.
    :ivar error: what starting fails with.
    :ivar held: leases that were not released.
    :ivar passive: what is called when an instance stops that somebody listens to.
    :ivar stopped: ids of instances that were stopped.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.at_once = True
        self.error: GateError | None = None
        self.held = 0
        self.touched = 0
        self.passive: list[Callable[[], None]] = []
        self.instances: list[FakeInstance] = []
        self.forgotten: list[Owner] = []
        self.stopped: list[str] = []
        self._running: dict[InstanceKey, FakeInstance] = {}
        self._waiting: list[tuple[InstanceKey, Deferred[ILease]]] = []
        verifyObject(IInstancePool, self)

    @property
    def newest(self) -> FakeInstance:
        """The instance started last."""
        return self.instances[-1]

    def ready(self, spec: ServerSpec, owner: Owner) -> ILease | None:
        """See `IInstancePool.ready`."""
        instance = self._running.get(InstanceKey(spec.name, owner))
        return FakeLease(self, instance) if instance is not None else None

    def lease(self, spec: ServerSpec, owner: Owner, caller: Caller) -> Deferred[ILease]:
        """See `IInstancePool.lease`."""
        if self.error is not None:
            return fail(self.error)
        key = InstanceKey(spec.name, owner)
        if self.at_once:
            if key not in self._running:
                self._start(key)
            return succeed(FakeLease(self, self._running[key]))
        waiting: Deferred[ILease] = Deferred()
        self._waiting.append((key, waiting))
        return waiting

    def _start(self, key: InstanceKey) -> None:
        instance = FakeInstance(self._world, key, len(self.instances) + 1)
        self.instances.append(instance)
        self._running[key] = instance

    def started(self, error: GateError | None = None) -> None:
        """Have every start that is waited for come to its end."""
        waiting, self._waiting = self._waiting, []
        for key, waiter in waiting:
            if error is not None:
                waiter.errback(error)
                continue
            if key not in self._running:
                self._start(key)
            waiter.callback(FakeLease(self, self._running[key]))

    def die(self) -> FakeInstance:
        """Have the newest instance crash."""
        instance = self.newest
        del self._running[instance.key]
        instance.ended.callback(Exit(code=1))
        return instance

    def start_ahead(self, spec: ServerSpec, owner: Owner, caller: Caller) -> bool:
        """See `IInstancePool.start_ahead`."""
        raise AssertionError("not used")

    def stop(self, key: InstanceKey) -> Deferred[None]:
        """See `IInstancePool.stop`."""
        instance = self._running.pop(key, None)
        if instance is None:
            return succeed(None)
        self.stopped.append(instance.instance_id)
        instance.ended.callback(Exit(reason="stopped"))
        return succeed(None)

    def forget(self, owner: Owner) -> None:
        """Take note that an owner is gone."""
        self.forgotten.append(owner)


# --- An HTTP server ---------------------------------------------------------------------------


@implementer(IHTTPUpstream)
class FakeHTTPServer:
    """
    An HTTP server.  What a test does not want to hear of it answers by itself: ``initialize``,
    notifications and DELETE.

    :ivar waiting: what the test has to answer, oldest first.
    :ivar all: everything it got.
    :ivar plays: answers by itself.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.all: list[Sent] = []
        self.waiting: list[Sent] = []
        self.plays = True
        self.version = "2025-11-25"
        self.capabilities: dict[str, Any] = {}
        self.error: Exception | None = None
        self._sessions = count(1)
        verifyObject(IHTTPUpstream, self)

    def send(
        self,
        method: str,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        body: bytes | None,
        receiver: IResponseReceiver,
        *,
        pool: object,
        length: int | None,
        timeout_s: float,
        stream: bool,
    ) -> Sent:
        """See `IHTTPUpstream.send`."""
        if self.error is not None:
            raise self.error
        assert target == b"/mcp"
        assert isinstance(pool, Principal)
        sent = Sent(method, fields, body, receiver, self._clock)
        self.all.append(sent)
        self.waiting.append(sent)
        return sent

    def play(self) -> bool:
        """Answer what the test does not want to hear of; tell whether there was any."""
        for sent in list(self.waiting):
            message = sent.message
            if sent.aborted:
                self.waiting.remove(sent)
            elif sent.method == "DELETE":
                self.waiting.remove(sent)
                sent.empty(200)
            elif isinstance(message, dict) and message.get("method") == "initialize":
                self.waiting.remove(sent)
                result = {
                    "protocolVersion": self.version,
                    "capabilities": self.capabilities,
                    "serverInfo": {},
                }
                sent.json(
                    {"jsonrpc": "2.0", "id": message["id"], "result": result},
                    session=f"up-{next(self._sessions)}".encode(),
                )
            elif isinstance(message, dict) and "id" not in message:
                self.waiting.remove(sent)
                sent.empty()
            else:
                continue
            return True
        return False

    def take(self) -> Sent:
        """Give the oldest request that waits for its answer."""
        return self.waiting.pop(0)

    def heard(self) -> list[str]:
        """Give the methods of every message and request so far."""
        return [s.message["method"] if isinstance(s.message, dict) else s.method for s in self.all]

    def close(self, error: GateError) -> None:
        """See `IUpstream.close`."""


# --- The gate ---------------------------------------------------------------------------------


@implementer(IAuthenticator)
class FakeAuthenticator:
    """
    Knows every key that begins with ``k``; remembers all but those that begin with ``kslow``.

    :ivar asked: what an unknown key waits for.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[Secret, Deferred[Caller]]] = []
        verifyObject(IAuthenticator, self)

    def remembered(self, credential: Secret) -> Caller | None:
        """See `IAuthenticator.remembered`."""
        name = credential.reveal()
        if name.startswith("konly"):
            caller = caller_of(name)
            return Caller(caller.principal, credential, frozenset({"other"}))
        if name.startswith("k") and not name.startswith("kslow"):
            return caller_of(name)
        return None

    def authenticate(self, credential: Secret) -> Deferred[Caller]:
        """See `IAuthenticator.authenticate`."""
        if not credential.reveal().startswith("kslow"):
            return fail(InvalidCredential())
        answer: Deferred[Caller] = Deferred()
        self.asked.append((credential, answer))
        return answer


class FakeKept:
    """See `Kept`; what is kept is a dictionary of the test's."""

    def __init__(self, kept: dict[str, bytes]) -> None:
        self._kept = kept

    def put(self, name: str, data: bytes) -> None:
        """See `Kept.put`."""
        self._kept[name] = data

    def delete(self, name: str) -> None:
        """See `Kept.delete`."""
        self._kept.pop(name, None)


class _OpenDoor:
    """A guard that lets everybody pass."""

    def check(self, inbound: IInbound) -> bool:
        """Answer nothing."""
        return False


class World:
    """
    Everything behind the front door.

    :ivar relayed: requests for a server's other paths.
    :ivar pages: requests that belong to no server.
    :ivar kept: snapshots that would outlive the gate.
    """

    def __init__(
        self,
        transport: Transport = Transport.STDIO,
        *,
        store: MemoryStore | None = None,
        concurrent: int = 32,
        streams: int = 2,
        rate: Rate | None = None,
        per_address: Rate | None = None,
        anonymous: bool = False,
        cold: bool = False,
        **spec: Any,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.wheel = DeadlineWheel(self.clock, 0.5)
        self.meters = Meters()
        self.spec = ServerSpec(name="notes", transport=transport, **spec)
        self.other = ServerSpec(name="other", transport=transport, **spec)
        self.store = store or MemoryStore()
        self.slots = Slots()
        self.pool = FakePool(self)
        self.authenticator = FakeAuthenticator()
        self.revocations = Revocations()
        ids = count(1)
        self.sessions = SessionTable(
            self.store,
            clock=self.clock,
            wall=self.clock.seconds,
            make_id=lambda: f"gate-{next(ids):032x}",
            meters=self.meters,
            per_principal=4,
        )
        self.gate = Gate(
            authenticator=self.authenticator,
            lockout=Lockout(self.clock, self.meters),
            admission=Admission(
                RateLimiter(self.clock),
                self.slots,
                per_key=rate,
                per_address=per_address,
                concurrent_per_key=concurrent,
            ),
            slots=self.slots,
            revocations=self.revocations,
            meters=self.meters,
            realm="mcpgate",
            headers=(b"x-notes-key",),
            anonymous=anonymous,
        )
        common: dict[str, Any] = {
            "clock": self.clock,
            "pool": self.pool,
            "sessions": self.sessions,
            "wheel": self.wheel,
            "keepalive_s": KEEPALIVE_S,
            "forget": self.pool.forget,
            "budget": EventBudget(),
            "charge_start": self.gate.charge_start,
        }
        self.kept: dict[str, bytes] = {}
        self.build = ""
        self.book = SnapshotBook(
            FakeKept(self.kept),
            hash_key=b"of the test",
            build_of=lambda _: self.build,
            meters=self.meters,
            seen=lambda spec, principal, snapshot: self.seen.append(snapshot),
        )
        self.seen: list[Snapshot] = []
        self.pinned: dict[str, bytes] = {}
        self.pins = PinBook(
            FakeKept(self.pinned),
            wall=self.clock.seconds,
            build_of=lambda _: self.build,
            meters=self.meters,
        )
        desk = Desk(pins=self.pins, wheel=self.wheel, keepalive_s=KEEPALIVE_S)
        self.watched = pinned(desk, self.speaker)
        if cold:
            self.cold = ColdAnswers(self.clock, self.book, self.meters)
            common["cold"] = self.cold
        self.speakers = self.make_speakers(common)
        stream_ids = count(1)

        self.sse = SSEEndpoint(
            gate=self.gate,
            sessions=self.sessions,
            speaker=self.watched,
            wheel=self.wheel,
            meters=self.meters,
            keepalive_s=KEEPALIVE_S,
            streams_per_key=streams,
            make_id=lambda: f"stream-{next(stream_ids):032x}",
        )
        self.used: list[ServerSpec] = []
        self.eras = EraBook(self.clock.seconds)
        asker = make_asker(
            self.clock,
            pool=self.pool,
            wheel=self.wheel,
            forwarding=Forwarding(),
            keepalive_s=KEEPALIVE_S,
            charge_start=self.gate.charge_start,
        )
        self.modern = make_modern(
            self.clock,
            asker=asker,
            probe=EraProbe(asker.carrier, self.eras),
            gate=self.gate,
            meters=self.meters,
            book=self.eras,
            streams_per_key=streams,
            used=lambda spec, caller: self.used.append(spec),
            servers=lambda name: next(
                (one for one in (self.spec, self.other) if one.name == name), None
            ),
            pins=desk,
        )
        self.relayed: list[Route] = []
        self.pages: list[bytes] = []
        self.dispatcher = Dispatcher(
            guard=_OpenDoor(),  # type: ignore[arg-type]  # a stand-in with the one method used
            show_page=lambda inbound: self.pages.append(inbound.head.path),
            routes=Routes([self.spec, self.other]),
            gate=self.gate,
            endpoint=MCPEndpoint(
                gate=self.gate,
                sessions=self.sessions,
                speaker=self.watched,
                streams_per_key=streams,
                modern=self.modern.endpoint,
            ),
            sse=self.sse,
            rest=RESTEndpoint(gate=self.gate, members=self.modern.members, clock=self.clock),
            relay=lambda inbound, caller, route: self.relayed.append(route),
        )

    def make_speakers(self, common: dict[str, Any]) -> dict[Transport, Speaker]:
        """Make what carries sessions to servers."""
        return {
            Transport.STDIO: StdioSpeaker(**common),
            Transport.HTTP: HTTPSpeaker(forwarding=Forwarding(), **common),
            Transport.SSE: SSESpeaker(forwarding=Forwarding(), **common),
        }

    def speaker(self, spec: ServerSpec) -> Speaker:
        """Choose who carries sessions to a server."""
        return self.speakers[spec.transport]

    # --- The client -----------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        body: object = b"",
        *,
        session: str = "",
        key: str = "k1",
        accept: bytes | None = BOTH,
        path: bytes = b"/notes/mcp",
        kind: bytes = b"application/json",
        version: bytes = b"",
        query: bytes | None = None,
        more: tuple[tuple[bytes, bytes], ...] = (),
    ) -> FakeInbound:
        """Send a request."""
        lines = [(b"host", b"gate.example"), *more]
        if key:
            lines.append((b"authorization", b"Bearer " + key.encode()))
        if accept is not None:
            lines.append((b"accept", accept))
        if session:
            lines.append((b"mcp-session-id", session.encode()))
        if version:
            lines.append((b"mcp-protocol-version", version))
        if method == "POST":
            lines.append((b"content-type", kind))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        inbound = FakeInbound(method, path, body=data, fields=lines, query=query)
        self.dispatcher(inbound)
        self.settle()
        return inbound

    def post(self, body: object, session: str = "", **options: Any) -> FakeInbound:
        """POST a message."""
        return self.ask("POST", body, session=session, **options)

    def get(self, session: str = "", **options: Any) -> FakeInbound:
        """GET the stream."""
        return self.ask("GET", session=session, **{"accept": b"text/event-stream", **options})

    def open(self, *, key: str = "k1", version: str = "2025-11-25", told: bool = True) -> str:
        """Initialize; gives the session id."""
        params = {**INIT["params"], "protocolVersion": version}
        answer = self.post({**INIT, "params": params}, key=key)
        self.answer_initialize()
        assert answer.status == 200, (answer.status, answer.body)
        session = answer.fields[b"mcp-session-id"].decode()
        if told:
            self.post(notification("notifications/initialized"), session, key=key)
        return session

    # --- The servers ----------------------------------------------------------------------------

    @property
    def child(self) -> FakeChannel:
        """The pipes of the newest child."""
        return self.pool.newest.channel

    @property
    def server(self) -> FakeHTTPServer:
        """The newest HTTP server."""
        return self.pool.newest.http

    def answer_initialize(self, version: str = "2025-11-25") -> None:
        """Have the child answer ``initialize`` if it was asked."""
        if self.spec.transport is Transport.STDIO:
            for message in self.child.sent:
                if message.get("method") == "initialize":
                    self.child.sent.remove(message)
                    result = {"protocolVersion": version, "capabilities": {}, "serverInfo": {}}
                    self.child.say(id=message["id"], result=result)
                    break
        self.settle()

    def settle(self) -> None:
        """Let everything happen that needs no time, and HTTP servers do what they do."""
        for _ in range(50):
            self.clock.advance(0)
            played = [i.http.play() for i in self.pool.instances if i.http.plays]
            if not any(played):
                break

    def pass_time(self, seconds: float) -> None:
        """Let time go by in steps of half a second."""
        for _ in range(round(seconds * 2)):
            self.clock.advance(0.5)
            self.settle()

    def session(self, session_id: str, key: str = "k1") -> Session:
        """Find a session."""
        session = self.sessions.find(caller_of(key).principal, "notes", session_id)
        assert session is not None
        return session

    def leaks(self) -> dict[str, int]:
        """Tell what is still taken; empty when everything was given back."""
        taken = {
            "leases": self.pool.held,
            "calls": self.meters.calls_in_work,
            "streams": self.meters.streams,
            "slots": sum(self.slots.taken(caller_of(k).principal) for k in ("k1", "k2")),
            "stream slots": sum(
                self.slots.taken(("stream", caller_of(k).principal)) for k in ("k1", "k2")
            ),
            "in use": sum(session.in_use for session in self.sessions),
        }
        return {what: number for what, number in taken.items() if number}


def shared(**options: Any) -> World:
    """Make a gate with one child for everybody."""
    return World(isolation=Isolation.SHARED, **options)
