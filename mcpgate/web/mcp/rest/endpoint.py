"""
``/{server}/openapi.json``, ``/{server}/docs`` and ``POST /{server}/tools/{tool}``.

For clients that know REST and not MCP.  They pass the same limits as a request to the MCP endpoint,
and the server is asked as a modern client without any capability would ask it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import unquote

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mcpgate._version import __version__
from mcpgate.errors import (
    BackendTimeout,
    BadRequest,
    GateError,
    MethodNotAllowed,
    NotFound,
    UnsupportedMediaType,
)
from mcpgate.gate.pipeline import Gate
from mcpgate.gate.routing import Route
from mcpgate.interfaces import IInbound
from mcpgate.mcp.jsonrpc import Request, decode_value
from mcpgate.mcp.modern import MODERN, Context
from mcpgate.mcp.openapi import Tool, document, error_of, plain
from mcpgate.model import Caller
from mcpgate.web.mcp.rest.page import POLICY, render
from mcpgate.web.mcp.rest.paths import PAGE, TOOLS
from mcpgate.web.mcp.session_state import public
from mcpgate.web.mcp.together.member import Members, RefusedError
from mcpgate.web.refusal import JSON, NO_STORE, refuse

LIST_WAIT_S: Final = 60.0
MAX_PAGES: Final = 50
MAX_TOOLS: Final = 10_000
_NAME_CHARS: Final = 1000

_READ: Final = ((b"allow", b"GET, HEAD, OPTIONS"),)
_CALL: Final = ((b"allow", b"POST, OPTIONS"),)
_HTML: Final = [
    (b"content-type", b"text/html; charset=utf-8"),
    NO_STORE,
    (b"content-security-policy", POLICY.encode("ascii")),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")

_WHO = Context(
    version=MODERN, capabilities={}, client={"name": "mcpgate-openapi", "version": __version__}
)

Answer = tuple[list[tuple[bytes, bytes]], bytes]


class RESTEndpoint:
    """
    Serves the three paths of every server and group.

    :param members: asks servers.
    :param public_url: the gate's own, for the document; empty: that of each request.
    """

    def __init__(
        self, *, gate: Gate, members: Members, clock: IReactorTime, public_url: str = ""
    ) -> None:
        self._gate = gate
        self._members = members
        self._clock = clock
        self._public_url = public_url

    def serve(self, inbound: IInbound, caller: Caller, route: Route) -> None:
        """Answer one request of a known caller; it may use the server."""
        method = inbound.head.method
        calls = route.rest.startswith(TOOLS)
        fields = _CALL if calls else _READ
        if method == "OPTIONS":
            inbound.respond(204, list(fields), b"")
        elif calls and method == "POST":
            _check_content(inbound)
            inbound.read_body(
                route.spec.max_body_bytes, lambda body: self._posted(inbound, caller, route, body)
            )
        elif not calls and method in ("GET", "HEAD"):
            self._work(inbound, caller, route, lambda: self._told(inbound, caller, route))
        else:
            raise MethodNotAllowed(fields=fields)

    def _posted(self, inbound: IInbound, caller: Caller, route: Route, body: bytes) -> None:
        try:
            name = _tool_name(route.rest[len(TOOLS) :])
            arguments = decode_value(body) if body.strip() else {}
            if not isinstance(arguments, dict):
                raise BadRequest("The body must be a JSON object: the arguments of the tool.")
            inbound.notes["tool"] = name
            self._work(
                inbound,
                caller,
                route,
                lambda: self._called(inbound, caller, route, name, arguments),
            )
        except Exception:
            refuse(inbound, public(Failure(), inbound))

    def _work(
        self,
        inbound: IInbound,
        caller: Caller,
        route: Route,
        begin: Callable[[], Coroutine[Deferred[Any], Any, Answer]],
    ) -> None:
        """Charge for a request and answer it when its work is done; a client that goes ends it."""
        self._gate.charge(caller, route.spec)
        release = self._gate.enter(caller)
        inbound.notes["era"] = "rest"
        working = Deferred.fromCoroutine(begin())
        inbound.on_gone(working.cancel)

        def done(answer: Answer) -> None:
            inbound.respond(200, *answer)

        def failed(failure: Failure) -> None:
            if not failure.check(CancelledError):
                refuse(inbound, _error(failure, inbound))

        working.addBoth(_after(release)).addCallback(done).addErrback(failed)

    # --- What is asked --------------------------------------------------------------------------

    async def _told(self, inbound: IInbound, caller: Caller, route: Route) -> Answer:
        listing = Deferred.fromCoroutine(self._list(inbound, caller, route))
        tools = await listing.addTimeout(LIST_WAIT_S, self._clock)
        url = self._url(inbound, route)
        if route.rest == PAGE:
            return list(_HTML), render(route.spec.name, url, tools)
        told = document(tools, title=route.spec.name, version=__version__, url=url)
        return _json(told)

    async def _list(self, inbound: IInbound, caller: Caller, route: Route) -> list[Tool]:
        tools: list[Tool] = []
        cursor: object = None
        for _ in range(MAX_PAGES):
            more = {} if cursor is None else {"cursor": cursor}
            page = await self._ask(inbound, caller, route, "tools/list", more)
            found = page.get("tools")
            if isinstance(found, list):
                tools += [tool for tool in found if isinstance(tool, dict)]
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or len(tools) > MAX_TOOLS:
                break
        return tools[:MAX_TOOLS]

    async def _called(
        self,
        inbound: IInbound,
        caller: Caller,
        route: Route,
        name: str,
        arguments: dict[str, object],
    ) -> Answer:
        params: dict[str, object] = {"name": name, "arguments": arguments}
        return _json(plain(await self._ask(inbound, caller, route, "tools/call", params)))

    async def _ask(
        self,
        inbound: IInbound,
        caller: Caller,
        route: Route,
        method: str,
        params: dict[str, object],
    ) -> dict[str, object]:
        request = Request(inbound.request_id, method, {**params, "_meta": _WHO.meta()})
        try:
            answer = await self._members.answer(route.spec, caller, request, inbound)
        except RefusedError as refused:
            raise error_of(refused.response) from None
        return answer.result

    def _url(self, inbound: IInbound, route: Route) -> str:
        """
        Tell where the paths of a server begin, as this client sees it.

        Where the host names the server the path does not: then ``public_url`` is another's.
        """
        head = inbound.head
        path = head.path[: len(head.path) - len(route.rest)]
        prefix = (inbound.peer.prefix + path).decode("ascii", "replace")
        if self._public_url and path:
            return self._public_url + prefix
        host = (head.fields.get(b"host") or b"").decode("latin-1")
        scheme = "https" if inbound.peer.secure else "http"
        if self._public_url:
            scheme = self._public_url.partition(":")[0]
        return f"{scheme}://{host}{prefix}" if host else prefix


def _check_content(inbound: IInbound) -> None:
    fields = inbound.head.fields
    kind = fields.get(b"content-type")
    # A tool without arguments may be called without a body, and so without a type.
    if kind is not None and kind.split(b";")[0].strip().lower() != b"application/json":
        raise UnsupportedMediaType
    if kind is None and (inbound.head.content_length or b"transfer-encoding" in fields):
        raise UnsupportedMediaType
    if (fields.get(b"content-encoding") or b"identity").lower() != b"identity":
        raise UnsupportedMediaType


def _tool_name(raw: bytes) -> str:
    try:
        name = unquote(raw.decode("ascii"), errors="strict")
    except UnicodeDecodeError:
        raise NotFound("There is no such tool.") from None
    if len(name) > _NAME_CHARS:
        raise NotFound("There is no such tool.")
    return name


def _json(value: object) -> Answer:
    # In ASCII: what a server said may hold half of a surrogate pair.
    body = json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    return [JSON, NO_STORE, _NOSNIFF], body


def _after(release: Callable[[], None]) -> Callable[[Any], Any]:
    def over(outcome: Any) -> Any:
        release()
        return outcome

    return over


def _error(failure: Failure, inbound: IInbound) -> GateError:
    if failure.check(TimeoutError):
        return BackendTimeout()
    return public(failure, inbound)
