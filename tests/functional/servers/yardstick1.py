"""
The yardstick server on the Python SDK 1.30: the legacy era, over each transport it has.

``yardstick1.py stdio``, ``yardstick1.py http PORT`` or ``yardstick1.py sse PORT``.
"""

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
from mcp import McpError, types
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventMessage
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.message import ServerMessageMetadata
from pydantic import AnyUrl
from typing_extensions import override
from yardstick import Events, ToolError, Wire, Yardstick, told

HOW, *REST = sys.argv[1:]
NEAR = TransportSecuritySettings(
    enable_dns_rebinding_protection=True,
    allowed_hosts=["127.0.0.1:*", "localhost:*"],
    allowed_origins=["http://127.0.0.1:*", "http://localhost:*"],
)
QUESTIONS = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}
yardstick = Yardstick()


class YardstickServer(Server[Any, Any]):
    """A server that says it tells changes of its lists."""

    @override
    def create_initialization_options(self, *args: Any, **more: Any) -> Any:
        return super().create_initialization_options(NotificationOptions(True, True, True))


server: Any = YardstickServer("yardstick1", "1")


class Wire1(Wire):
    """The client of the request in work."""

    def __init__(self) -> None:
        self.context = server.request_context
        self.session = self.context.session

    @override
    async def log(self, text: str) -> None:
        await self.session.send_log_message("info", text, "yardstick", self.context.request_id)

    @override
    async def progress(self, done: float, total: float) -> None:
        token = self.context.meta.progressToken if self.context.meta else None
        if token is not None:
            await self.session.send_progress_notification(
                token, done, total, f"{done} of {total}", str(self.context.request_id)
            )

    @override
    async def changed(self, kind: str) -> None:
        await getattr(self.session, f"send_{kind.removesuffix('s')}_list_changed")()

    @override
    async def updated(self, uri: str) -> None:
        await self.session.send_resource_updated(AnyUrl(uri))

    @override
    async def close(self) -> None:
        if self.context.close_sse_stream is not None:
            await self.context.close_sse_stream()


async def put(entry: Any, arguments: Any) -> dict[str, Any]:
    """Put the questions of a tool or a prompt to the client; give its answers."""
    context = server.request_context
    answers: dict[str, Any] = {}

    async def ask(key: str, question: Any) -> None:
        request, result = QUESTIONS[question["method"]]
        related = ServerMessageMetadata(related_request_id=context.request_id)
        answer = await context.session.send_request(
            types.ServerRequest(request.model_validate(question)), result, metadata=related
        )
        answers[key] = answer.model_dump(by_alias=True, mode="json", exclude_none=True)

    client = context.session.client_params
    declared = client.capabilities.model_dump(exclude_none=True) if client else {}
    for questions in yardstick.rounds(entry, arguments, declared):
        async with anyio.create_task_group() as group:
            for key, question in questions.items():
                group.start_soon(ask, key, question)
    return answers


def known(kind: str, name: str) -> Any:
    """Find an entry; :raises McpError: there is none."""
    entry = yardstick.found(kind, name)
    if entry is None:
        raise McpError(types.ErrorData(code=types.INVALID_PARAMS, message=f"Unknown: {name}"))
    return entry


async def call_tool(request: Any) -> Any:
    """Call a tool."""
    entry = known("tools", request.params.name)
    arguments = request.params.arguments or {}
    failed = False
    try:
        answers = await put(entry, arguments)
        said = await yardstick.run(entry, arguments, Wire1())
        content = yardstick.content(entry, told(said, answers))
    except* (ToolError, McpError) as errors:
        failed = True
        content = [{"type": "text", "text": str(error)} for error in errors.exceptions]
    return types.CallToolResult.model_validate({"content": content, "isError": failed})


async def get_prompt(request: Any) -> Any:
    """Get a prompt."""
    entry = known("prompts", request.params.name)
    arguments = request.params.arguments or {}
    await put(entry, arguments)
    messages = yardstick.messages(entry, arguments)
    return types.GetPromptResult.model_validate({"messages": messages})


async def list_tools(request: Any) -> Any:
    """List tools."""
    return types.ListToolsResult.model_validate({"tools": yardstick.tools()})


async def list_prompts(request: Any) -> Any:
    """List prompts."""
    return types.ListPromptsResult.model_validate({"prompts": yardstick.prompts()})


async def list_resources(request: Any) -> Any:
    """List resources."""
    return types.ListResourcesResult.model_validate({"resources": yardstick.resources()})


async def list_templates(request: Any) -> Any:
    """List templates."""
    listed = {"resourceTemplates": yardstick.templates()}
    return types.ListResourceTemplatesResult.model_validate(listed)


async def read_resource(request: Any) -> Any:
    """Read a resource."""
    found = yardstick.read(str(request.params.uri))
    if found is None:
        data = {"uri": str(request.params.uri)}
        error = types.ErrorData(code=-32002, message="Resource not found", data=data)
        raise McpError(error)
    return types.ReadResourceResult.model_validate({"contents": [found]})


async def complete(request: Any) -> Any:
    """Complete an argument."""
    completion = yardstick.complete(request.params.argument.value)
    return types.CompleteResult.model_validate({"completion": completion})


async def agree(request: Any) -> Any:
    """Take note."""
    return types.EmptyResult()


ANSWERERS = {
    types.CallToolRequest: call_tool,
    types.GetPromptRequest: get_prompt,
    types.ListToolsRequest: list_tools,
    types.ListPromptsRequest: list_prompts,
    types.ListResourcesRequest: list_resources,
    types.ListResourceTemplatesRequest: list_templates,
    types.ReadResourceRequest: read_resource,
    types.CompleteRequest: complete,
    types.SubscribeRequest: agree,
    types.UnsubscribeRequest: agree,
    types.SetLevelRequest: agree,
}


def answerer(answer: Any) -> Any:
    """Wrap an answer as the SDK wants it."""

    async def answered(request: Any) -> Any:
        return types.ServerResult(await answer(request))

    return answered


async def speak_stdio() -> None:
    """Serve the one client at our standard streams."""
    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())


def http_app() -> Any:
    """Serve Streamable HTTP at ``/mcp``."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    manager = StreamableHTTPSessionManager(
        server,
        event_store=Events(EventMessage),
        security_settings=NEAR,
        retry_interval=500,
    )

    class Endpoint:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await manager.handle_request(scope, receive, send)

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with manager.run():
            yield

    return Starlette(routes=[Route("/mcp", endpoint=Endpoint())], lifespan=lifespan)


def sse_app() -> Any:
    """Serve HTTP+SSE at ``/sse`` and ``/messages/``."""
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Mount, Route

    transport = SseServerTransport("/messages/", security_settings=NEAR)

    async def connect(request: Any) -> Any:
        streams = transport.connect_sse(request.scope, request.receive, request._send)
        async with streams as (reader, writer):
            await server.run(reader, writer, server.create_initialization_options())
        return Response()

    routes: list[Any] = [
        Route("/sse", endpoint=connect),
        Mount("/messages/", app=transport.handle_post_message),
    ]
    return Starlette(routes=routes)


def main() -> None:
    """Serve."""
    for kind, answer in ANSWERERS.items():
        server.request_handlers[kind] = answerer(answer)
    if HOW == "stdio":
        anyio.run(speak_stdio)
        return
    import uvicorn

    app = http_app() if HOW == "http" else sse_app()
    uvicorn.run(app, port=int(REST[0]), log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
