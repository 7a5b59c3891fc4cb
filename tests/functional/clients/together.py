"""
A client of the official Python SDK, of either major version, at an address of many servers.

Reads ``{"url", "key", "mode"}`` from stdin, prints what it saw as JSON.
"""

# ruff: noqa: T201 - a program of its own: it prints.

from __future__ import annotations

import asyncio
import json
import sys
from importlib.metadata import version
from typing import Any

ASKED = json.load(sys.stdin)
HEADERS = {"Authorization": f"Bearer {ASKED['key']}"}
TWO = version("mcp").startswith("2.")


def text(result: Any) -> str:
    """Give the text of a result."""
    return "".join(getattr(part, "text", "") for part in result.content)


async def seen(session: Any) -> dict[str, Any]:
    """Use what there is."""
    tools = (await session.list_tools()).tools
    resources = (await session.list_resources()).resources
    read = await session.read_resource(resources[0].uri)
    told = {
        "tools": [tool.name for tool in tools],
        "io": text(await session.call_tool("io__echo", {"message": "one"})),
        "time": text(
            await session.call_tool("time__get_current_time", {"timezone": "Europe/Prague"})
        ),
        "everything": text(await session.call_tool("everything__echo", {"message": "two"})),
        "resource": str(read.contents[0].uri),
        "prompts": [prompt.name for prompt in (await session.list_prompts()).prompts],
    }
    try:
        unknown = text(await session.call_tool("nope__x", {}))
    except Exception as error:
        unknown = str(error)
    return {**told, "unknown": unknown}


async def one() -> dict[str, Any]:
    """Speak with version 1."""
    from mcp import ClientSession
    from mcp.client.sse import sse_client
    from mcp.client.streamable_http import streamablehttp_client

    sse = ASKED["url"].endswith("/sse")
    client: Any = sse_client if sse else streamablehttp_client
    async with client(ASKED["url"], headers=HEADERS) as streams:
        async with ClientSession(streams[0], streams[1]) as session:
            await session.initialize()
            return await seen(session)


async def two() -> dict[str, Any]:
    """Speak with version 2, in the era that was asked for."""
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    async with create_mcp_http_client(headers=HEADERS) as http:
        transport = streamable_http_client(ASKED["url"], http_client=http)
        async with Client(transport, mode=ASKED["mode"]) as client:
            return await seen(client)


print(json.dumps(asyncio.run(two() if TWO else one())))
