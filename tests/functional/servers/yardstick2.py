"""
The yardstick server on the Python SDK 2: both eras, or the modern one only.

``yardstick2.py dual|modern stdio`` or ``yardstick2.py dual|modern http PORT``.
"""

import sys
import warnings
from typing import Any

import anyio
import mcp_types as types
from mcp.server import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventMessage
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from typing_extensions import override
from yardstick import (
    CapabilityError,
    Events,
    StateError,
    ToolError,
    Wire,
    Yardstick,
    told,
)

ERA, HOW, *REST = sys.argv[1:]
CHANGED = {
    "tools": (ToolsListChanged, "send_tool_list_changed"),
    "prompts": (PromptsListChanged, "send_prompt_list_changed"),
    "resources": (ResourcesListChanged, "send_resource_list_changed"),
}
QUESTIONS = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}
yardstick = Yardstick()
bus = InMemorySubscriptionBus()


def is_modern(ctx: Any) -> bool:
    """Tell the era of a request."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


class Wire2(Wire):
    """The client of one request."""

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx
        self.session = ctx.session

    @override
    async def log(self, text: str) -> None:
        await self.session.send_log_message("info", text, "yardstick", self.ctx.request_id)

    @override
    async def progress(self, done: float, total: float) -> None:
        await self.session.report_progress(done, total, f"{done} of {total}")

    @override
    async def changed(self, kind: str) -> None:
        event, send = CHANGED[kind]
        await bus.publish(event())
        if not is_modern(self.ctx):
            await getattr(self.session, send)()

    @override
    async def updated(self, uri: str) -> None:
        await bus.publish(ResourceUpdated(uri=uri))
        if not is_modern(self.ctx):
            await self.session.send_resource_updated(uri)

    @override
    async def close(self) -> None:
        if self.ctx.close_sse_stream is not None:
            await self.ctx.close_sse_stream()


async def asked(ctx: Any, entry: Any, arguments: Any) -> dict[str, Any]:
    """Ask a legacy client all questions of a tool; give its answers."""
    answers: dict[str, Any] = {}

    async def ask(key: str, question: Any) -> None:
        request, result = QUESTIONS[question["method"]]
        related = ServerMessageMetadata(related_request_id=ctx.request_id)
        answer = await ctx.session.send_request(
            request.model_validate(question), result, metadata=related
        )
        answers[key] = plain(answer)

    for questions in yardstick.rounds(entry, arguments, declared_by(ctx)):
        async with anyio.create_task_group() as group:
            for key, question in questions.items():
                group.start_soon(ask, key, question)
    return answers


def declared_by(ctx: Any) -> Any:
    """Give the capabilities of the client."""
    declared = ctx.session.client_capabilities
    return plain(declared) if declared else {}


def plain(model: Any) -> Any:
    """Give a model as it stands on the wire."""
    return model.model_dump(by_alias=True, mode="json", exclude_none=True)


async def put(ctx: Any, params: Any, entry: Any) -> Any:
    """Put the questions of a tool or a prompt: give the answers, or the input required."""
    arguments = params.arguments or {}
    if not is_modern(ctx):
        return await asked(ctx, entry, arguments)
    answers = {key: plain(value) for key, value in (params.input_responses or {}).items()}
    try:
        required = yardstick.required(
            entry,
            arguments,
            answers=answers,
            state=params.request_state,
            declared=declared_by(ctx),
        )
    except StateError:
        raise MCPError(types.INVALID_PARAMS, "Invalid requestState") from None
    except CapabilityError as missing:
        data = {"requiredCapabilities": missing.required}
        code = types.MISSING_REQUIRED_CLIENT_CAPABILITY
        raise MCPError(code, "Missing required client capability", data) from None
    return answers if required is None else types.InputRequiredResult.model_validate(required)


def known(kind: str, name: str) -> Any:
    """Find an entry; :raises MCPError: there is none."""
    entry = yardstick.found(kind, name)
    if entry is None:
        raise MCPError(types.INVALID_PARAMS, f"Unknown: {name}")
    return entry


async def call_tool(ctx: Any, params: Any) -> Any:
    """Call a tool."""
    entry = known("tools", params.name)
    answers = await put(ctx, params, entry)
    if isinstance(answers, types.InputRequiredResult):
        return answers
    try:
        said = await yardstick.run(entry, params.arguments or {}, Wire2(ctx))
    except ToolError as failed:
        content = [{"type": "text", "text": str(failed)}]
        return types.CallToolResult.model_validate({"content": content, "isError": True})
    content = yardstick.content(entry, told(said, answers))
    return types.CallToolResult.model_validate({"content": content})


async def get_prompt(ctx: Any, params: Any) -> Any:
    """Get a prompt."""
    entry = known("prompts", params.name)
    answers = await put(ctx, params, entry)
    if isinstance(answers, types.InputRequiredResult):
        return answers
    messages = yardstick.messages(entry, params.arguments or {})
    return types.GetPromptResult.model_validate({"messages": messages})


async def list_tools(ctx: Any, params: Any) -> Any:
    """List tools."""
    return types.ListToolsResult.model_validate({"tools": yardstick.tools()})


async def list_prompts(ctx: Any, params: Any) -> Any:
    """List prompts."""
    return types.ListPromptsResult.model_validate({"prompts": yardstick.prompts()})


async def list_resources(ctx: Any, params: Any) -> Any:
    """List resources."""
    return types.ListResourcesResult.model_validate({"resources": yardstick.resources()})


async def list_templates(ctx: Any, params: Any) -> Any:
    """List templates."""
    listed = {"resourceTemplates": yardstick.templates()}
    return types.ListResourceTemplatesResult.model_validate(listed)


async def read_resource(ctx: Any, params: Any) -> Any:
    """Read a resource."""
    found = yardstick.read(str(params.uri))
    if found is None:
        raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": str(params.uri)})
    return types.ReadResourceResult.model_validate({"contents": [found]})


async def complete(ctx: Any, params: Any) -> Any:
    """Complete an argument."""
    completion = yardstick.complete(params.argument.value)
    return types.CompleteResult.model_validate({"completion": completion})


async def agree(ctx: Any, params: Any) -> Any:
    """Take note."""
    return types.EmptyResult()


async def refuse_legacy(ctx: Any, call_next: Any) -> Any:
    """Refuse the handshake, as a server of one era does."""
    if ctx.method == "initialize" and not is_modern(ctx):
        asked_for = (ctx.params or {}).get("protocolVersion", "")
        data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": asked_for}
        raise MCPError(types.UNSUPPORTED_PROTOCOL_VERSION, "Unsupported protocol version", data)
    return await call_next(ctx)


class YardstickServer(Server[Any]):
    """A server that says it tells changes of its lists."""

    @override
    def create_initialization_options(self, *args: Any, **more: Any) -> Any:
        options = NotificationOptions(True, True, True)
        return super().create_initialization_options(options)


def make_server() -> Any:
    """Make the server."""
    made = YardstickServer(
        "yardstick2",
        version="1",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=agree,
        on_unsubscribe_resource=agree,
        on_subscriptions_listen=ListenHandler(bus),
        on_completion=complete,
        on_set_logging_level=agree,
    )
    if ERA == "modern":
        made.middleware.append(refuse_legacy)
    return made


async def speak_stdio(server: Any) -> None:
    """Serve the one client at our standard streams."""
    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())


def main() -> None:
    """Serve."""
    server = make_server()
    if HOW == "stdio":
        anyio.run(speak_stdio, server)
        return
    import uvicorn

    app = server.streamable_http_app(event_store=Events(EventMessage), retry_interval=500)
    port = int(REST[0])
    uvicorn.run(app, port=port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    # Logging, sampling and roots are deprecated in the modern era, and what we are here to try.
    warnings.simplefilter("ignore")
    main()
