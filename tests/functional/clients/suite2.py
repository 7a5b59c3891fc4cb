"""
The client that the conformance suite tries, on the Python SDK 2: it uses all that it is offered.

``suite2.py legacy|modern URL``.  What to call the suite may say in the environment; without that
every tool is called once, with arguments that fit its schema.
"""

import asyncio
import contextlib
import json
import os
import sys
from typing import Any

import mcp_types as types
from mcp import Client, MCPError

ERA, URL = sys.argv[1:]
CONTEXT = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
SAMPLES = {"string": "x", "integer": 5, "number": 5, "boolean": False, "object": {}, "array": []}


async def elicited(context: Any, params: Any) -> Any:
    """Answer for the user."""
    return types.ElicitResult(action="accept", content={})


async def sampled(context: Any, params: Any) -> Any:
    """Answer for the model."""
    content = types.TextContent(type="text", text="A word")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def rooted(context: Any) -> Any:
    """Give no roots."""
    return types.ListRootsResult(roots=[])


def arguments(schema: dict[str, Any]) -> dict[str, Any]:
    """Make arguments that a tool may want."""
    properties = schema.get("properties", {})
    kinds = {name: properties.get(name, {}).get("type") for name in schema.get("required", ())}
    return {name: SAMPLES.get(str(kind)) for name, kind in kinds.items()}


async def use(client: Any) -> None:
    """Call, read and get; a refusal is no end."""
    listed = (await client.list_tools()).tools
    calls = [(tool.name, arguments(tool.input_schema)) for tool in listed]
    if "toolCalls" in CONTEXT:
        names = {tool.name for tool in listed}
        wanted = [(call["name"], call.get("arguments", {})) for call in CONTEXT["toolCalls"]]
        calls = [(name, values) for name, values in wanted if name in names]
    for name, values in calls:
        with contextlib.suppress(MCPError, RuntimeError):
            await client.call_tool(name, values)
    with contextlib.suppress(MCPError):
        for resource in (await client.list_resources()).resources:
            await client.read_resource(resource.uri)
    with contextlib.suppress(MCPError):
        for prompt in (await client.list_prompts()).prompts:
            await client.get_prompt(prompt.name, {})


async def main() -> None:
    """Connect and use all."""
    async with Client(
        URL,
        mode="auto" if ERA == "modern" else "legacy",
        sampling_callback=sampled,
        list_roots_callback=rooted,
        elicitation_callback=elicited,
    ) as client:
        await use(client)


asyncio.run(main())
