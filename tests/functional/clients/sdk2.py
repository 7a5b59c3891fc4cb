"""
The Python SDK 2.x as a client.

``sdk2.py TASK`` with the task of `tests.functional.real_clients` as JSON.
"""

import asyncio
import json
import sys

from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

TASK = json.loads(sys.argv[1])


async def main() -> None:
    """List the tools and call some."""
    http = create_mcp_http_client(headers=TASK["headers"])
    transport = (
        sse_client(TASK["url"], headers=TASK["headers"])
        if TASK["sse"]
        else streamable_http_client(TASK["url"], http_client=http)
    )
    async with http, Client(transport, mode=TASK["era"] or "auto") as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        results = [
            (await client.call_tool(tool, arguments)).content[0].text
            for tool, arguments in TASK["calls"]
        ]
    print(json.dumps({"tools": tools, "results": results}))  # noqa: T201 - read by the test


asyncio.run(main())
