"""
One session of the Python SDK 2.x that does what it is told for as long as it is told.

``talk2.py TASK``; each line of stdin is ``{"tool": NAME, "arguments": {..}}``, each line of stdout
the answer: its text or its error.
"""

import asyncio
import json
import sys
from typing import Any

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

TASK = json.loads(sys.argv[1])


async def call(client: Any, order: dict[str, Any]) -> dict[str, Any]:
    """Call one tool."""
    try:
        result = await client.call_tool(order["tool"], order.get("arguments", {}))
    except Exception as error:
        return {"error": repr(error)}
    return {"error" if result.is_error else "text": result.content[0].text}


async def main() -> None:
    """Obey until stdin ends."""
    http = create_mcp_http_client(headers=TASK["headers"])
    async with http, Client(streamable_http_client(TASK["url"], http_client=http)) as client:
        print(json.dumps({"text": client.protocol_version}), flush=True)  # noqa: T201
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer = await call(client, json.loads(line))
            print(json.dumps(answer), flush=True)  # noqa: T201 - read by the test


asyncio.run(main())
