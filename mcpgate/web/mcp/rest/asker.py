"""
A REST service as a server of the modern era; see `ModernAsker`.

Greeting and list are made from its document and need nobody; a call is one HTTP request over the
connections of the service's instance.  Clients of the legacy era reach it over the bridge.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.python.failure import Failure

from mcpgate.errors import BackendTimeout, BadBackendAnswer, InvalidParams, MethodNotFound
from mcpgate.interfaces import IInbound, IMessageSink
from mcpgate.mcp.jsonrpc import Request, Response
from mcpgate.mcp.listening import Filter, acknowledgement, tagged
from mcpgate.mcp.methods import DISCOVER, LISTEN
from mcpgate.mcp.modern import COMPLETE, META_SERVER, MODERN
from mcpgate.mcp.rest_call import call_of, result_of
from mcpgate.model import Caller, RESTService, ServerSpec
from mcpgate.web.mcp.modern.exchange import Carrier, public_error
from mcpgate.web.mcp.over_http.fetch import fetch

# A changed document is a changed server; its list must not be kept for long.
TTL_MS = 5000


class RESTAsker:
    """The REST services of a gate."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

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
            # Nothing here ever changes.
            sink.deliver(tagged(acknowledgement(Filter({})), request.id))
            return lambda: None
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

    async def _answer(
        self, spec: ServerSpec, caller: Caller, request: Request, source: IInbound | None
    ) -> dict[str, object]:
        assert spec.rest is not None
        if request.method == DISCOVER:
            return _greeting(spec.rest)
        if request.method == "tools/list":
            return {**_hints(), "tools": [json.loads(one.tool) for one in spec.rest.operations]}
        if request.method == "tools/call":
            return await self._call(spec, caller, request, source)
        raise MethodNotFound(f"A REST service has no {request.method}.")

    async def _call(
        self, spec: ServerSpec, caller: Caller, request: Request, source: IInbound | None
    ) -> dict[str, object]:
        params = request.params or {}
        assert spec.rest is not None
        name = params.get("name")
        operation = next((one for one in spec.rest.operations if one.name == name), None)
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


def _greeting(service: RESTService) -> dict[str, object]:
    greeting: dict[str, object] = {
        **_hints(),
        "supportedVersions": [MODERN],
        "capabilities": {"tools": {}},
        "_meta": {META_SERVER: {"name": service.title, "version": service.version}},
    }
    if service.instructions:
        greeting["instructions"] = service.instructions
    return greeting
