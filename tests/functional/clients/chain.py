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
    """List the tools and call some."""
    kind = "sse" if TASK["sse"] else "streamable_http"
    server = {"transport": kind, "url": TASK["url"], "headers": TASK["headers"]}
    listed = await MultiServerMCPClient({"gate": server}).get_tools()
    tools = {tool.name: tool for tool in listed}
    results = [str(await tools[tool].ainvoke(arguments)) for tool, arguments in TASK["calls"]]
    print(json.dumps({"tools": list(tools), "results": results}))  # noqa: T201 - read by the test


asyncio.run(main())
