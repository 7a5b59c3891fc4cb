"""
LangChain's adapters as a client: a session for every call, their default.

``chain.py TASK`` with the task of `tests.functional.real_clients` as JSON.
"""

import asyncio
import json
import sys

from langchain_mcp_adapters.client import MultiServerMCPClient

TASK = json.loads(sys.argv[1])


async def main() -> None:
    """List the tools and call one."""
    server = {"transport": "streamable_http", "url": TASK["url"], "headers": TASK["headers"]}
    tools = await MultiServerMCPClient({"gate": server}).get_tools()
    chosen = next(tool for tool in tools if tool.name == TASK["tool"])
    results = [str(await chosen.ainvoke(arguments)) for arguments in TASK["calls"]]
    names = [tool.name for tool in tools]
    print(json.dumps({"tools": names, "results": results}))  # noqa: T201 - read by the test


asyncio.run(main())
