"""A gate in memory before a server of the modern era that the test plays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from typing_extensions import override

from mcpgate.errors import GateError
from mcpgate.gate.eras import EraBook
from mcpgate.interfaces import IInbound, IMessageSink
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from mcpgate.model import Caller, ServerSpec, Transport
from mcpgate.web.mcp.on_modern.era_switch import EraSwitch
from mcpgate.web.mcp.on_modern.era_watch import EraWatch
from mcpgate.web.mcp.on_modern.sessions import BridgedSpeaker
from mcpgate.web.mcp.post import Speaker
from tests.web.endpoint_kit import World
from tests.web.fake_inbound import FakeInbound

ABLE: dict[str, Any] = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
    "logging": {},
    "extensions": {},
}


class Asked:
    """
    One request as the server got it, and the way to answer it.

    :ivar taken_back: it is not wanted any more.
    """

    def __init__(
        self,
        caller: Caller,
        request: Request,
        sink: IMessageSink,
        source: IInbound | None,
        fields: Sequence[tuple[bytes, bytes]],
    ) -> None:
        self.caller = caller
        self.request = request
        self.sink = sink
        self.source = source
        self.fields = list(fields)
        self.taken_back = False

    @property
    def params(self) -> dict[str, Any]:
        """Its params without ``_meta``."""
        return {key: value for key, value in (self.request.params or {}).items() if key != "_meta"}

    @property
    def meta(self) -> dict[str, Any]:
        """Its ``_meta``, by the last part of each key."""
        meta = (self.request.params or {})["_meta"]
        assert isinstance(meta, dict)
        return {key.rpartition("/")[2]: value for key, value in meta.items()}

    def take_back(self) -> None:
        """See `ModernAsker.ask`."""
        self.taken_back = True

    def result(self, **result: object) -> None:
        """Answer."""
        plain = {"resultType": "complete", **result}
        self.sink.finish(Response(self.request.id, plain))

    def require(self, questions: dict[str, object], state: object = None) -> None:
        """Answer that input is required."""
        more = {} if state is None else {"requestState": state}
        self.result(resultType="input_required", inputRequests=questions, **more)

    def error(self, code: int, message: str = "no", data: object = None) -> None:
        """Answer with an error."""
        self.sink.finish(ErrorResponse(self.request.id, code, message, data))

    def fail(self, error: GateError) -> None:
        """Have it fail."""
        self.sink.fail(error)

    def tell(self, method: str, **params: object) -> None:
        """Tell something within it."""
        self.sink.deliver(Notification(method, params))

    def acknowledge(self, served: dict[str, Any] | None = None) -> None:
        """Say what of a listen is served; all of it if nothing else is said."""
        filter = self.params["notifications"] if served is None else served
        self.tell("notifications/subscriptions/acknowledged", notifications=filter)


class FakeAsker:
    """
    See `ModernAsker`; discover is answered by itself.

    :ivar waiting: what the test has to answer, oldest first.
    :ivar capabilities: of the server.
    :ivar error: what asking fails with.
    """

    def __init__(self) -> None:
        self.waiting: list[Asked] = []
        self.all: list[Asked] = []
        self.discovered = 0
        self.plays = True
        self.ttl_ms = 0
        self.capabilities = ABLE
        self.error: GateError | None = None

    def ask(
        self,
        spec: ServerSpec,
        caller: Caller,
        request: Request,
        sink: IMessageSink,
        *,
        source: IInbound | None = None,
        params_fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> Callable[[], None]:
        """See `ModernAsker.ask`."""
        if self.error is not None:
            raise self.error
        asked = Asked(caller, request, sink, source, params_fields)
        self.all.append(asked)
        if request.method == "server/discover" and self.plays:
            self.discovered += 1
            asked.result(
                supportedVersions=["2026-07-28"],
                capabilities=self.capabilities,
                ttlMs=self.ttl_ms,
                cacheScope="private",
                _meta={"io.modelcontextprotocol/serverInfo": {"name": "new", "version": "9"}},
            )
        else:
            self.waiting.append(asked)
        return asked.take_back

    def take(self) -> Asked:
        """Give the oldest request that waits for its answer."""
        return self.waiting.pop(0)


class BridgeWorld(World):
    """
    Everything behind the front door, and the bridge where the server is modern.

    :param known: what is known of the server's era at the beginning: legacy, modern.
    :ivar modern: what a probe finds; an exception: it can not be told.
    """

    def __init__(
        self,
        transport: Transport = Transport.HTTP,
        *,
        known: tuple[bool | None, bool | None] = (False, True),
        **options: Any,
    ) -> None:
        self.probed = 0
        self.found: bool | GateError = True
        self.asker = FakeAsker()
        super().__init__(transport, **options)
        legacy, modern = known
        if known != (None, None):
            self.era_book.note(self.spec, legacy=legacy, modern=modern)

    def probe(self, spec: ServerSpec, caller: Caller) -> Deferred[bool]:
        """See `mcpgate.web.mcp.on_modern.era_watch.Probe`."""
        self.probed += 1
        return fail(self.found) if isinstance(self.found, GateError) else succeed(self.found)

    @override
    def make_speakers(self, common: dict[str, Any]) -> dict[Transport, Speaker]:
        self.era_book = EraBook(self.clock.seconds, key=b"k")
        self.watch = EraWatch(self.clock, self.era_book, self.probe, self.pool.stop)
        self.bridge = BridgedSpeaker(
            asker=self.asker,
            eras=self.era_book,
            watch=self.watch,
            make_tag=lambda: "t",
            stop=self.pool.stop,
            **{**common, "cold": None},
        )
        switch = EraSwitch(self.era_book, self.pool, lambda: self.bridge, self.watch, self.probe)
        return super().make_speakers({**common, "switch": switch})

    @override
    def speaker(self, spec: ServerSpec) -> Speaker:
        if self.era_book.known(spec).modern_only:
            return self.bridge
        return super().speaker(spec)

    @override
    def answer_initialize(self, version: str = "2025-11-25") -> None:
        if self.pool.instances:
            super().answer_initialize(version)
        self.settle()

    def reply(self, session: str, message_id: object, result: object) -> FakeInbound:
        """Answer something the client was asked."""
        return self.post({"jsonrpc": "2.0", "id": message_id, "result": result}, session)
