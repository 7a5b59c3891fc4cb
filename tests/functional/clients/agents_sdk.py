"""
The OpenAI Agents SDK as a client, without an agent.

``agents_sdk.py TASK`` with the task of `tests.functional.real_clients` as JSON.
"""

import asyncio
import json
import sys
from typing import Any

from agents.mcp import MCPServerSse, MCPServerStreamableHttp

TASK = json.loads(sys.argv[1])
# Its own 5 s are short for a server that is started for the call.
PATIENCE_S = 60


async def main() -> None:
    """List the tools and call some."""
    kind: Any = MCPServerSse if TASK["sse"] else MCPServerStreamableHttp
    where = {"url": TASK["url"], "headers": TASK["headers"], "timeout": PATIENCE_S}
    async with kind(params=where, client_session_timeout_seconds=PATIENCE_S) as server:
        tools = [tool.name for tool in await server.list_tools()]
        results = [
            (await server.call_tool(tool, arguments)).content[0].text
            for tool, arguments in TASK["calls"]
        ]
    print(json.dumps({"tools": tools, "results": results}))  # noqa: T201 - read by the test


asyncio.run(main())
