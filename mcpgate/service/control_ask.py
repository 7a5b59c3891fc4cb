"""What the control socket asks servers: in an operator's name, or that of whoever shows a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import Deferred, TimeoutError

from mcpgate._version import __version__
from mcpgate.errors import BackendTimeout, BackendUnavailable, BadRequest
from mcpgate.gate.access.operator import operator
from mcpgate.gate.tool_pins import SHOWN
from mcpgate.mcp.jsonrpc import Notification, Request
from mcpgate.mcp.methods import TOOLS_CHANGED, TOOLS_LIST
from mcpgate.mcp.modern import META_CAPABILITIES, META_CLIENT, META_VERSION, MODERN
from mcpgate.mcp.tool_pins import MOST_TOOLS
from mcpgate.model import Caller, Isolation, Pinning, ServerSpec
from mcpgate.service.control_work import ControlWork
from mcpgate.service.reload import needs_caller
from mcpgate.telemetry.escaping import clean
from mcpgate.telemetry.views import PinView, ServerView
from mcpgate.timing.deferreds import deferred
from mcpgate.web.mcp.speaking import Link
from mcpgate.web.mcp.together.member import RefusedError
from mcpgate.web.pages.control import Asked, Chosen, PinsAsked

if TYPE_CHECKING:
    from mcpgate.service.gateway import Gateway

MAX_PAGES: Final = 100

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
                tools=_words(self._gateway.pins.book.view(spec)),
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

    def pins(self, asked: PinsAsked) -> Deferred[dict[str, Any]] | None:
        """See `ControlView.pins`."""
        for spec in self._gateway.catalog.servers:
            if spec.name == asked.chosen.server:
                return self._pins(spec, asked)
        return None

    @deferred
    async def _pins(self, spec: ServerSpec, asked: PinsAsked) -> dict[str, Any]:
        if spec.tools_pinned is Pinning.OFF:
            raise BadRequest(f"tools_pinned of server '{spec.name}' is off: nothing is trusted.")
        caller = await self._caller(spec, asked.chosen)
        try:
            tools = await self._tools(spec, caller).addTimeout(asked.timeout_s, self._gateway.clock)
        except RefusedError as refused:
            raise BackendUnavailable(
                f"The server refuses tools/list: {clean(refused.response.message, 500)}"
            ) from None
        except TimeoutError:
            raise BackendTimeout(
                f"The server did not tell its tools within {asked.timeout_s:g} s."
            ) from None
        book = self._gateway.pins.book
        changes = book.accept(spec, tools) if asked.accept else book.compare(spec, tools)
        if asked.accept and (changes or spec.tools_pinned is Pinning.BLOCK):
            self._say_changed(spec)
        view = book.view(spec)
        return {
            "changes": [asdict(change) for change in changes],
            "accepted": asked.accept,
            "listed": len(tools),
            "trusted": view.tools,
            "pinned_at": view.pinned_at,
            "fingerprint": view.fingerprint,
            "mode": view.mode,
        }

    @deferred
    async def _tools(self, spec: ServerSpec, caller: Caller) -> list[object]:
        """Ask for every tool, the withheld ones among them; all or nothing."""
        found: list[object] = []
        params: dict[str, object] = {"_meta": _WHO}
        for _ in range(MAX_PAGES):
            request = Request("control", TOOLS_LIST, params)
            answer = await self._gateway.modern.bare.answer(spec, caller, request, None)
            page, cursor = answer.result.get("tools"), answer.result.get("nextCursor")
            found += page if isinstance(page, list) else []
            if not isinstance(cursor, str):
                return found
            if len(found) > MOST_TOOLS:
                break
            params = {"_meta": _WHO, "cursor": cursor}
        raise BackendUnavailable(f"The list of tools has no end, or more than {MOST_TOOLS} tools.")

    def _say_changed(self, spec: ServerSpec) -> None:
        """Tell every client of a server that its tools are to be listed again."""
        gateway, changed = self._gateway, Notification(TOOLS_CHANGED)
        for table in (gateway.sessions, gateway.on_legacy.sessions):
            for session in table:
                if session.record.server == spec.name and session.extras is not None:
                    cast(Link, session.extras).say(changed)
        gateway.modern.listens.tell(spec.name, changed)

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


def _words(view: PinView) -> str:
    """Say in short how a server's tools are."""
    if view.mode == Pinning.OFF.value:
        return ""
    if not view.pinned_at:
        return "not seen"
    if not view.differing:
        return f"{view.tools} trusted"
    counts = [
        f"{len(names)}{'+' if len(names) >= SHOWN else ''} {kind}"
        for kind, names in (
            ("added", view.added),
            ("changed", view.changed),
            ("removed", view.removed),
        )
        if names
    ]
    return ", ".join(counts)
