"""
One session of the Python SDK 1.x that does what it is told for as long as it is told.

``talk1.py TASK``; each line of stdin is ``{"tool": NAME, "arguments": {..}}``, each line of stdout
the answer: its text or its error, the progress of this call, and the notifications so far.  The
server's questions are answered: roots, a sampled word, a colour.
"""

import asyncio
import json
import sys
from typing import Any

import mcp.types as t
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

TASK = json.loads(sys.argv[1])
notified: list[str] = []


async def notice(message: Any) -> None:
    """Remember what came unasked."""
    if isinstance(message, t.ServerNotification):
        notified.append(message.root.method)


async def elicit(context: Any, params: Any) -> Any:
    """Choose a colour."""
    return t.ElicitResult(action="accept", content={"colour": "green"})


async def sample(context: Any, params: Any) -> Any:
    """Be the model."""
    said = t.TextContent(type="text", text="heliotrope")
    return t.CreateMessageResult(role="assistant", content=said, model="none")


async def roots(context: Any) -> Any:
    """Name the one root."""
    return t.ListRootsResult(roots=[t.Root(uri="file:///my/root")])


async def call(session: Any, order: dict[str, Any]) -> dict[str, Any]:
    """Call one tool."""
    steps: list[float] = []

    async def progress(done: float, total: Any, message: Any) -> None:
        steps.append(done)

    try:
        result = await session.call_tool(
            order["tool"], order.get("arguments", {}), progress_callback=progress
        )
    except Exception as error:
        return {"error": repr(error)}
    key = "error" if result.isError else "text"
    return {key: result.content[0].text, "progress": steps, "notified": notified}


async def main() -> None:
    """Obey until stdin ends."""
    connection = streamablehttp_client(TASK["url"], headers=TASK["headers"])
    callbacks = {
        "sampling_callback": sample,
        "elicitation_callback": elicit,
        "list_roots_callback": roots,
        "message_handler": notice,
    }
    async with connection as streams, ClientSession(streams[0], streams[1], **callbacks) as session:
        begun = await session.initialize()
        print(json.dumps({"text": begun.protocolVersion}), flush=True)  # noqa: T201
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer = await call(session, json.loads(line))
            print(json.dumps(answer), flush=True)  # noqa: T201 - read by the test


asyncio.run(main())
