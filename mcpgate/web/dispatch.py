"""
Where a request goes: the one place that states the order of the steps.

Guard (Host, Origin, CORS) - the gate's own pages - route - who calls - the MCP endpoint, that of
HTTP+SSE, the OpenAPI face, or the byte relay.  A warm request passes through without a Deferred.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mcpgate.errors import Draining, Forbidden, NotFound
from mcpgate.gate.pipeline import Gate
from mcpgate.gate.routing import Route, Routes
from mcpgate.interfaces import IInbound
from mcpgate.model import Caller, ServerSpec
from mcpgate.web.guard import Guard
from mcpgate.web.mcp.endpoint import MCPEndpoint
from mcpgate.web.mcp.over_sse.endpoint import SSEEndpoint
from mcpgate.web.mcp.rest.endpoint import RESTEndpoint
from mcpgate.web.mcp.rest.paths import is_face
from mcpgate.web.mcp.session_state import public
from mcpgate.web.refusal import refuse, refuse_message


class Dispatcher:
    """
    Called with every `IInbound` of the public listeners.

    :param show_page: hands an inbound to the Klein tree.
    :param relay: hands an inbound for a server's other paths to the byte relay.
    :param greet: called with who calls, whatever is asked for.
    """

    def __init__(
        self,
        *,
        guard: Guard,
        show_page: Callable[[IInbound], None],
        routes: Routes,
        gate: Gate,
        endpoint: MCPEndpoint,
        sse: SSEEndpoint,
        rest: RESTEndpoint,
        relay: Callable[[IInbound, Caller, Route], None],
        greet: Callable[[Caller], None] | None = None,
    ) -> None:
        self._guard = guard
        self._show_page = show_page
        self._routes = routes
        self._gate = gate
        self._endpoint = endpoint
        self._sse = sse
        self._rest = rest
        self._relay = relay
        self._greet = greet
        self.draining = False

    def __call__(self, inbound: IInbound) -> None:
        """Answer one request, or see that it will be answered."""
        try:
            self._dispatch(inbound)
        except Exception:
            refuse(inbound, public(Failure(), inbound))

    def _dispatch(self, inbound: IInbound) -> None:
        if self._guard.check(inbound):
            return
        route = self._routes.of(inbound.head)
        if route is None:
            # Everything that belongs to no server is the tree's to answer, 404 among it.
            self._show_page(inbound)
            return
        inbound.notes["server"] = route.spec.name
        try:
            if self.draining:
                raise Draining(retry_after_s=5.0)
            head = inbound.head
            caller = self._gate.identify(head.fields, head.query, inbound.peer.address, head.memo)
            if isinstance(caller, Deferred):
                caller.addCallback(lambda known: self._serve(inbound, known, route))
                caller.addErrback(lambda failure: self._refuse(inbound, failure, route))
            else:
                self._serve(inbound, caller, route)
        except Exception:
            self._refuse(inbound, Failure(), route)

    def _refuse(self, inbound: IInbound, failure: Failure, route: Route) -> None:
        error = public(failure, inbound)
        if route.is_endpoint or route.is_sse:
            refuse_message(inbound, error, None, live=False)
        else:
            refuse(inbound, error)

    def _serve(self, inbound: IInbound, caller: Caller, route: Route) -> None:
        inbound.notes["principal"] = caller.principal.fingerprint
        if inbound.finished:
            return  # The client did not wait for its key to be checked.
        if self._greet is not None:
            self._greet(caller)
        if not _may_enter(caller, route.spec):
            raise Forbidden
        if route.is_endpoint:
            self._endpoint.serve(inbound, caller, route.spec)
        elif route.is_sse:
            self._sse.serve(inbound, caller, route)
        elif is_face(route):
            self._rest.serve(inbound, caller, route)
        elif not route.rest:
            raise NotFound(f"The MCP endpoint is /{route.spec.name}/mcp.")
        else:
            self._relay(inbound, caller, route)


def _may_enter(caller: Caller, spec: ServerSpec) -> bool:
    """Tell whether a server is open to a caller; of a group one server is enough."""
    return caller.may_use(spec.name) or (
        spec.group is not None and any(map(caller.may_use, spec.group.servers))
    )
