"""
Which arguments of its tools a stdio server wants repeated in headers.

Such a server never sees a header, so whoever stands before it with HTTP has to hold the
``Mcp-Param-*`` fields of a call against its arguments.  The schemas are those the server last told
this caller.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from twisted.logger import Logger

from mcpgate.errors import BackendTimeout, GateError
from mcpgate.interfaces import IInbound
from mcpgate.mcp.headers import annotated, annotation_fault, check_params
from mcpgate.mcp.modern import Context
from mcpgate.model import Caller, Principal, ServerSpec
from mcpgate.timing.deferreds import deferred
from mcpgate.web.mcp.modern.ask import Asker
from mcpgate.web.mcp.modern.post import ModernPost

log = Logger()

# Callers of servers remembered; tools with headers of each.
MAX_CALLERS = 1024
MAX_TOOLS = 256

_Key = tuple[str, Principal]


class ToolHeaders:
    """The schemas that name headers, by server and whom it told."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._known: OrderedDict[_Key, dict[str, object]] = OrderedDict()

    def knows(self, spec: ServerSpec, principal: Principal) -> bool:
        """Tell whether the server has told this caller of its tools."""
        return (spec.name, principal) in self._known

    @deferred
    async def learn(
        self, spec: ServerSpec, caller: Caller, context: Context, source: IInbound
    ) -> None:
        """Ask the server for its tools; one that can not tell them is not checked for."""
        try:
            tools = await self._asker.tools(spec, caller, context, source)
        except GateError as error:
            log.debug("Tools of {server} not told: {why}", server=spec.name, why=error)
            if isinstance(error, BackendTimeout):
                # Once is enough: not every call is to wait for that first.
                self.told(spec, caller.principal, ())
            return
        self.told(spec, caller.principal, tools)

    def told(self, spec: ServerSpec, principal: Principal, tools: object) -> None:
        """Take note of a list of tools, or a page of it."""
        key = (spec.name, principal)
        known = self._known.setdefault(key, {})
        self._known.move_to_end(key)
        for tool in tools if isinstance(tools, list) else []:
            if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
                continue
            name, schema = tool["name"], tool.get("inputSchema")
            known.pop(name, None)
            if len(known) < MAX_TOOLS and annotated(schema) and not annotation_fault(schema):
                known[name] = schema
        if len(self._known) > MAX_CALLERS:
            self._known.popitem(last=False)

    def check(self, post: ModernPost) -> None:
        """
        Hold the headers of a ``tools/call`` against its arguments.

        :raises HeaderMismatch: they say different things.
        """
        params: Mapping[str, object] = post.request.params or {}
        known = self._known.get((post.spec.name, post.caller.principal), {})
        schema = known.get(str(params.get("name")))
        if schema is not None:
            check_params(post.inbound.head.fields.lines, schema, params.get("arguments"))
