"""
A stdio server for strangers: each answer, progress and log line holds the marker of its call.

Tool ``mark``: ``marker``, ``wait`` (seconds before the answer), ``steps`` (of progress).  Calls
are answered in whatever order their waits end; a cancelled one is not answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

RUNNING: dict[Any, asyncio.Task[None]] = {}


def say(**message: Any) -> None:
    """Write one message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


async def mark(id: Any, params: dict[str, Any]) -> None:
    """Run the tool."""
    given = params["arguments"]
    marker = given["marker"]
    token = (params.get("_meta") or {}).get("progressToken")
    for step in range(given.get("steps", 0)):
        say(method="notifications/message", params={"level": "info", "data": marker})
        if token is not None:
            told = {"progressToken": token, "progress": step + 1, "message": marker}
            say(method="notifications/progress", params=told)
        await asyncio.sleep(0)
    if given.get("wait"):
        await asyncio.sleep(given["wait"])
    say(id=id, result={"content": [{"type": "text", "text": marker}]})


def take(message: dict[str, Any]) -> None:
    """Take one message."""
    method, id = message.get("method"), message.get("id")
    params = message.get("params") or {}
    if method == "initialize":
        result = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}, "logging": {}},
            "serverInfo": {"name": "marking", "version": "1"},
        }
        say(id=id, result=result)
    elif method == "tools/call":
        task = asyncio.ensure_future(mark(id, params))
        RUNNING[id] = task
        task.add_done_callback(lambda _: RUNNING.pop(id, None))
    elif method == "notifications/cancelled":
        task_of = RUNNING.get(params["requestId"])
        if task_of is not None:
            task_of.cancel()
    elif id is not None and method is not None:
        say(id=id, error={"code": -32601, "message": "Method not found"})


async def main() -> None:
    """Serve until stdin ends."""
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        take(json.loads(line))


asyncio.run(main())
