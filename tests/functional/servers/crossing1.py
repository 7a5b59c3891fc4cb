"""
A legacy server on the Python SDK 1.30 that says every word it is told in every way it has.

``crossing1.py`` speaks stdio, ``crossing1.py PORT`` Streamable HTTP.
"""

import asyncio
import sys

from mcp.server.fastmcp import Context, FastMCP
from pydantic import BaseModel

PORT = int(sys.argv[1]) if sys.argv[1:] else 0
server = FastMCP("crossing1", port=PORT)


class Word(BaseModel):
    """What `ask` asks for."""

    word: str


async def tell(word: str, times: int, ctx: Context) -> str:
    """Say a word as progress, as a log line and as the result."""
    for done in range(times):
        await ctx.report_progress(done, times, word)
        await ctx.info(word)
        await asyncio.sleep(0.01)
    return word


async def ask(word: str, ctx: Context) -> str:
    """Ask for the word back."""
    answer = await ctx.elicit(word, Word)
    return str(answer.data.word) if answer.action == "accept" else "declined"


server.add_tool(tell)
server.add_tool(ask)
server.run(transport="streamable-http" if PORT else "stdio")
