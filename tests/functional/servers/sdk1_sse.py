"""
An HTTP+SSE server on the Python SDK 1.x:  ``sdk1_sse.py PORT``.

Tools: ``echo`` (message; tells the variable WHO), ``steps`` (n; progress and log lines), ``roots``
(asks the client), ``who`` (the field ``X-Key`` of the message), ``pid``, ``die`` (with code 7).
"""

import os
import sys

from mcp.server.fastmcp import Context, FastMCP

server = FastMCP("old", host="127.0.0.1", port=int(sys.argv[1]))


def echo(message: str) -> str:
    """Give the message back."""
    return f"{os.environ.get('WHO', 'nobody')}: {message}"


async def steps(n: int, ctx: Context) -> str:
    """Tell of progress."""
    for step in range(n):
        await ctx.report_progress(step + 1, n)
        await ctx.info(f"step {step}")
    return "done"


async def roots(ctx: Context) -> str:
    """Ask the client for its roots."""
    found = await ctx.session.list_roots()
    return str([str(root.uri) for root in found.roots])


def who(ctx: Context) -> str:
    """Tell the key of the message's request."""
    request = ctx.request_context.request
    return str(request.headers.get("x-key"))


def pid() -> str:
    """Tell the process."""
    return str(os.getpid())


def die() -> None:
    """End the process, with a last word."""
    print("Out of cheese", file=sys.stderr, flush=True)  # noqa: T201 - it is what is tested
    os._exit(7)


for tool in (echo, steps, roots, who, pid, die):
    server.add_tool(tool)
server.run("sse")
