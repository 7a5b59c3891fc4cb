"""What the control socket asks servers: in an operator's name, or that of whoever shows a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, TimeoutError

from mcpgate._version import __version__
from mcpgate.errors import BackendTimeout
from mcpgate.gate.access.operator import operator
from mcpgate.mcp.jsonrpc import Request
from mcpgate.mcp.modern import META_CAPABILITIES, META_CLIENT, META_VERSION, MODERN
from mcpgate.model import Caller, Isolation, ServerSpec
from mcpgate.service.control_work import ControlWork
from mcpgate.service.reload import needs_caller
from mcpgate.telemetry.views import ServerView
from mcpgate.timing.deferreds import deferred
from mcpgate.web.mcp.together.member import RefusedError
from mcpgate.web.pages.control import Asked, Chosen

if TYPE_CHECKING:
    from mcpgate.service.gateway import Gateway

_WHO: Final[Mapping[str, object]] = {
    META_VERSION: MODERN,
    META_CAPABILITIES: {},
    META_CLIENT: {"name": "mcpgate-control", "version": __version__},
}


class ControlAsk:
    """
    See `mcpgate.web.pages.control.ControlView`.

    :param work: finds in whose name to ask.
    """

    def __init__(self, gateway: Gateway, work: ControlWork) -> None:
        self._gateway = gateway
        self._work = work

    def servers(self) -> list[ServerView]:
        """See `ControlView.servers`."""
        catalog = self._gateway.catalog
        return [
            ServerView(
                name=spec.name,
                kind="group" if spec.group is not None else "server",
                transport=spec.transport.value,
                runtime=spec.runtime,
                isolation=spec.isolation.value,
                era="" if spec.group is not None else self._gateway.eras.known(spec).words,
                members=() if spec.group is None else spec.group.servers,
                document=self._gateway.documents.view(spec.name),
            )
            for spec in (*catalog.servers, *catalog.groups)
        ]

    def ask(self, asked: Asked) -> Deferred[dict[str, Any]] | None:
        """See `ControlView.ask`."""
        catalog = self._gateway.catalog
        for spec in (*catalog.servers, *catalog.groups):
            if spec.name == asked.chosen.server:
                return self._ask(spec, asked)
        return None

    @deferred
    async def _ask(self, spec: ServerSpec, asked: Asked) -> dict[str, Any]:
        caller = await self._caller(spec, asked.chosen)
        request = Request("control", asked.method, {**asked.params, "_meta": _WHO})
        waiting = self._gateway.modern.members.answer(spec, caller, request, None)
        try:
            answer = await waiting.addTimeout(asked.timeout_s, self._gateway.clock)
        except RefusedError as refused:
            error = refused.response
            return {"error": {"code": error.code, "message": error.message}}
        except TimeoutError:
            raise BackendTimeout(
                f"The server did not answer within {asked.timeout_s:g} s."
            ) from None
        return {"result": answer.result}

    async def _caller(self, spec: ServerSpec, chosen: Chosen) -> Caller:
        named = chosen.key is not None or chosen.owner or chosen.user
        if not named and not any(map(self._needs_caller, self._members(spec))):
            # Such a copy is the operator's own, if it is not everybody's.
            return operator()
        return (await self._work.callers(spec, chosen))[0]

    def _members(self, spec: ServerSpec) -> list[ServerSpec]:
        if spec.group is None:
            return [spec]
        found = map(self._gateway.catalog.find, spec.group.servers)
        return [member for member in found if member is not None]

    @staticmethod
    def _needs_caller(spec: ServerSpec) -> bool:
        texts = [text for _, text in spec.headers]
        of_caller = any(blank in text for text in texts for blank in ("{key}", "{user}"))
        return spec.isolation is not Isolation.SHARED and (of_caller or needs_caller(spec))
