"""
FastMCP as a client.

``fast.py TASK`` with the task of `tests.functional.real_clients` as JSON.
"""

import asyncio
import json
import sys

from fastmcp import Client
from fastmcp.client.transports import SSETransport, StreamableHttpTransport

TASK = json.loads(sys.argv[1])


async def main() -> None:
    """List the tools and call some."""
    kind = SSETransport if TASK["sse"] else StreamableHttpTransport
    transport = kind(TASK["url"], headers=TASK["headers"])
    async with Client(transport, mode=TASK["era"] or "auto") as client:
        tools = [tool.name for tool in await client.list_tools()]
        results = [
            (await client.call_tool(tool, arguments)).content[0].text
            for tool, arguments in TASK["calls"]
        ]
    print(json.dumps({"tools": tools, "results": results}))  # noqa: T201 - read by the test


asyncio.run(main())
