"""
An MCP server on the Python SDK 1.30: what users write, run by the SDK's own interpreter.

``sdk1_server.py`` speaks stdio, ``sdk1_server.py PORT`` Streamable HTTP.
``WHO`` in the environment says whose process it is; every text it answers names it.
"""

import asyncio
import os
import sys

from mcp.server.fastmcp import Context, FastMCP
from mcp.types import SamplingMessage, TextContent
from pydantic import BaseModel

WHO = os.environ.get("WHO", "nobody")
PORT = int(sys.argv[1]) if sys.argv[1:] else 0
server = FastMCP("sdk1", port=PORT)


class Colour(BaseModel):
    """What `choose` asks the user for."""

    colour: str


def echo(message: str) -> str:
    """Give a message back."""
    return f"{WHO}: {message}"


def pid() -> str:
    """Tell the number of this process."""
    return str(os.getpid())


async def count(to: int, ctx: Context) -> str:
    """Count, with progress."""
    for done in range(1, to + 1):
        await ctx.report_progress(done, to, f"step {done}")
        await asyncio.sleep(0.05)
    return f"{WHO}: counted to {to}"


async def choose(ctx: Context) -> str:
    """Ask the user for a colour."""
    answer = await ctx.elicit("Which colour?", Colour)
    chosen = answer.data.colour if answer.action == "accept" else answer.action
    return f"{WHO}: chose {chosen}"


async def roots(ctx: Context) -> str:
    """Ask the client for its roots."""
    found = await ctx.session.list_roots()
    return f"{WHO}: roots " + " ".join(str(root.uri) for root in found.roots)


async def sample(ctx: Context) -> str:
    """Ask the client's model."""
    asked = SamplingMessage(role="user", content=TextContent(type="text", text="Say a word"))
    answer = await ctx.session.create_message([asked], max_tokens=10)
    return f"{WHO}: model said {answer.content.text}"


async def grow(ctx: Context) -> str:
    """Add a tool, and say that the list has changed."""
    server.add_tool(pid, name="grown")
    await ctx.session.send_tool_list_changed()
    return f"{WHO}: grew"


for tool in (echo, pid, count, choose, roots, sample, grow):
    server.add_tool(tool)

if __name__ == "__main__":
    server.run("streamable-http" if PORT else "stdio")
