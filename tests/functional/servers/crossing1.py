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


@server.tool()
async def tell(word: str, ctx: Context) -> str:
    """Say a word as progress, as a log line and as the result."""
    for done in range(3):
        await ctx.report_progress(done, 3, word)
        await ctx.info(word)
        await asyncio.sleep(0.01)
    return word


@server.tool()
async def ask(word: str, ctx: Context) -> str:
    """Ask for the word back."""
    answer = await ctx.elicit(word, Word)
    return answer.data.word if answer.action == "accept" else answer.action


server.run(transport="streamable-http" if PORT else "stdio")
