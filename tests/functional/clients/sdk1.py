"""
The Python SDK 1.x as a client: over HTTP, or of a stdio server.

``sdk1.py TASK`` with the task of `tests.functional.real_clients` as JSON; ``command`` in it runs a
stdio server instead of connecting to ``url``.
"""

import asyncio
import json
import os
import sys
from typing import Any

from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamablehttp_client

TASK = json.loads(sys.argv[1])


def connect() -> Any:
    """Open the connection the task asks for."""
    if "command" in TASK:
        command, *arguments = TASK["command"]
        return stdio_client(
            StdioServerParameters(command=command, args=arguments, env=dict(os.environ))
        )
    if TASK["sse"]:
        return sse_client(TASK["url"], headers=TASK["headers"])
    return streamablehttp_client(TASK["url"], headers=TASK["headers"])


async def main() -> None:
    """List the tools and call some."""
    async with connect() as streams, ClientSession(streams[0], streams[1]) as session:
        await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        results = [
            (await session.call_tool(tool, arguments)).content[0].text
            for tool, arguments in TASK["calls"]
        ]
    print(json.dumps({"tools": tools, "results": results}))  # noqa: T201 - read by the test


asyncio.run(main())
