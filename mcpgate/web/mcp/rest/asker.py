"""
A REST service as a server of the modern era; see `ModernAsker`.

Greeting and list are made from its document and need nobody; a call is one HTTP request over the
connections of the service's instance.  Who listens is told when a document has become another.
Clients of the legacy era reach it over the bridge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.python.failure import Failure

from mcpgate.errors import (
    BackendTimeout,
    BackendUnavailable,
    BadBackendAnswer,
    GateError,
    InvalidParams,
    MethodNotFound,
)
from mcpgate.interfaces import IInbound, IMessageSink
from mcpgate.mcp.jsonrpc import Notification, Request, Response
from mcpgate.mcp.listening import LISTS, Filter, acknowledgement, tagged
from mcpgate.mcp.methods import DISCOVER, LISTEN
from mcpgate.mcp.modern import COMPLETE, META_SERVER, MODERN
from mcpgate.mcp.rest_call import call_of, result_of
from mcpgate.model import Caller, RESTService, ServerSpec
from mcpgate.web.mcp.modern.exchange import Carrier, public_error
from mcpgate.web.mcp.over_http.fetch import fetch

# A changed document is a changed server; its list must not be kept for long.
TTL_MS = 5000
RETRY_S = 5.0

_TOOLS = "toolsListChanged"
_CHANGED = Notification(LISTS[_TOOLS])


class RESTAsker:
    """
    The REST services of a gate.

    :param find: gives the entry of a server as it is now.
    """

    def __init__(
        self, carrier: Carrier, find: Callable[[str], ServerSpec | None] = lambda name: None
    ) -> None:
        self._carrier = carrier
        self._find = find
        # By server; with the tools a listener knows of.
        self._listens: dict[str, dict[_Listen, tuple[str, ...]]] = {}

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
        if request.method == LISTEN:
            return self._listen(spec, request, sink)
        working = Deferred.fromCoroutine(self._answer(spec, caller, request, source))
        working.addTimeout(spec.call_timeout_max_s, self._carrier.clock)

        def done(result: dict[str, object]) -> None:
            sink.finish(Response(request.id, result))

        def failed(failure: Failure) -> None:
            if failure.check(TimeoutError):
                sink.fail(BackendTimeout())
            elif not failure.check(CancelledError):
                sink.fail(public_error(failure, spec.name))

        working.addCallback(done).addErrback(failed)
        return working.cancel

    def look(self) -> None:
        """Tell who listens of documents that have become others."""
        for server, listens in tuple(self._listens.items()):
            spec = self._find(server)
            if spec is None:
                continue
            tools = _tools(spec)
            for listen, known in tuple(listens.items()):
                if known != tools and listen in listens:
                    listens[listen] = tools
                    listen.sink.deliver(tagged(_CHANGED, listen.request_id))

    def _listen(self, spec: ServerSpec, request: Request, sink: IMessageSink) -> Callable[[], None]:
        try:
            wanted = Filter.of(request).told.get(_TOOLS) is True
        except GateError as error:
            sink.fail(error)
            return lambda: None
        listen = _Listen(sink, request.id)
        if wanted:
            # Of now: whoever asks may hold an entry from before a reload.
            now = self._find(spec.name) or spec
            self._listens.setdefault(spec.name, {})[listen] = _tools(now)
        honoured = {_TOOLS: True} if wanted else {}
        sink.deliver(tagged(acknowledgement(Filter(honoured)), request.id))

        def take_back() -> None:
            found = self._listens.get(spec.name, {})
            found.pop(listen, None)
            if not found:
                self._listens.pop(spec.name, None)

        return take_back

    async def _answer(
        self, spec: ServerSpec, caller: Caller, request: Request, source: IInbound | None
    ) -> dict[str, object]:
        if request.method == DISCOVER:
            return _greeting(spec)
        if request.method == "tools/list":
            operations = _service(spec).operations
            return {**_hints(), "tools": [json.loads(one.tool) for one in operations]}
        if request.method == "tools/call":
            return await self._call(spec, caller, request, source)
        raise MethodNotFound(f"A REST service has no {request.method}.")

    async def _call(
        self, spec: ServerSpec, caller: Caller, request: Request, source: IInbound | None
    ) -> dict[str, object]:
        params = request.params or {}
        name = params.get("name")
        operation = next((one for one in _service(spec).operations if one.name == name), None)
        if operation is None:
            raise InvalidParams(f"Unknown tool: {str(name)[:100]}")
        arguments = params.get("arguments") or {}
        if not isinstance(arguments, dict):
            raise InvalidParams("arguments must be an object.")
        call = call_of(operation, arguments)
        fields = self._carrier.forwarding.rest_request(
            source.head if source is not None else None, spec, caller, call.fields
        )
        lease = await self._carrier.lease(spec, caller, request)
        try:
            answer = await fetch(
                lease.upstream,
                call.method,
                (urlsplit(spec.url).path.rstrip("/") + call.target).encode("ascii"),
                fields,
                call.body,
                pool=caller.principal,
                timeout_s=spec.call_timeout_s,
            )
        finally:
            lease.release()
        if (answer.fields.get(b"content-encoding") or b"identity").lower() != b"identity":
            raise BadBackendAnswer("The service compressed an answer that was asked for plain.")
        kind = (answer.fields.get(b"content-type") or b"").decode("latin-1")
        return result_of(answer.status, kind, answer.body)


def _hints() -> dict[str, object]:
    return {"resultType": COMPLETE, "ttlMs": TTL_MS, "cacheScope": "public"}


@dataclass(frozen=True, slots=True, eq=False)
class _Listen:
    """One subscription: who hears it, and its id."""

    sink: IMessageSink
    request_id: int | str


def _tools(spec: ServerSpec) -> tuple[str, ...]:
    return () if spec.rest is None else tuple(one.tool for one in spec.rest.operations)


def _service(spec: ServerSpec) -> RESTService:
    if spec.rest is None:
        raise BackendUnavailable(
            "The service's OpenAPI document could not be fetched yet.", retry_after_s=RETRY_S
        )
    return spec.rest


def _greeting(spec: ServerSpec) -> dict[str, object]:
    service = spec.rest
    name, version = (spec.name, "") if service is None else (service.title, service.version)
    greeting: dict[str, object] = {
        **_hints(),
        "supportedVersions": [MODERN],
        "capabilities": {"tools": {"listChanged": True}},
        "_meta": {META_SERVER: {"name": name, "version": version}},
    }
    if service is not None and service.instructions:
        greeting["instructions"] = service.instructions
    return greeting
