"""
The Python SDK 2.x in the modern era: everything it can ask for, once.

``modern2.py TASK``; writes one JSON object of what it saw.
"""

import asyncio
import json
import sys
from typing import Any

import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

TASK = json.loads(sys.argv[1])
URI = "test://watched-resource"


async def elicited(*_: Any) -> types.ElicitResult:
    """Fill in the form."""
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def changes(client: Client) -> list[str]:
    """Listen, have things changed, and tell what was heard."""
    heard = []
    async with client.listen(tools_list_changed=True, resource_subscriptions=[URI]) as stream:
        for trigger in ("test_trigger_tool_change", "test_trigger_prompt_change", "test_touch"):
            await client.call_tool(trigger, {})
        events = aiter(stream)
        for _ in range(2):
            heard.append(type(await asyncio.wait_for(anext(events), 10)).__name__)
    return heard


async def cancelled(client: Client) -> str:
    """Give a slow call up, and ask how that went for the server."""
    slow = asyncio.create_task(client.call_tool("test_slow", {"mark": TASK["mark"]}))
    state = ""
    for wanted in ("running", "cancelled"):
        for _ in range(100):
            told = await client.call_tool("test_slow_state", {"mark": TASK["mark"]})
            state = told.content[0].text
            if state == wanted:
                break
            await asyncio.sleep(0.05)
        slow.cancel()
    return state


async def main() -> None:
    """Ask for everything."""
    progress: list[float] = []

    async def progressed(done: float, *_: Any) -> None:
        progress.append(done)

    http = create_mcp_http_client(headers=TASK["headers"])
    transport = streamable_http_client(TASK["url"], http_client=http)
    async with http, Client(transport, elicitation_callback=elicited, log_level="info") as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        text = await client.call_tool("test_simple_text", {})
        await client.call_tool("test_tool_with_progress", {}, progress_callback=progressed)
        header = await client.call_tool(
            "test_x_mcp_header", {"region": "Zürich", "limit": 3, "urgent": True}
        )
        asked = await client.call_tool("test_input_required_result_elicitation", {})
        prompt = await client.get_prompt("test_simple_prompt")
        resource = await client.read_resource("test://static-text")
        seen = {
            "version": client.protocol_version,
            "tools": tools,
            "text": text.content[0].text,
            "progress": progress,
            "header": header.content[0].text,
            "asked": asked.content[0].text,
            "prompt": prompt.messages[0].content.text,
            "resource": resource.contents[0].text,
            "changes": await changes(client),
            "cancelled": await cancelled(client),
        }
    print(json.dumps(seen), flush=True)  # noqa: T201 - read by the test


asyncio.run(main())
