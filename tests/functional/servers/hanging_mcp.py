"""
A stdio MCP server on the standard library that does one thing at a time: it hangs while it works.

Tools: ``pid``, ``nap`` (seconds; it sleeps), ``burn`` (seconds; it uses the processor).  In its
environment: MODERN: it speaks 2026-07-28 alone; NO_PING: it does not know ``ping``, and says so to
nobody.
"""

# ruff: noqa: TID251 - a program of its own: it sleeps.

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

MODERN = "MODERN" in os.environ
ABOUT = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if MODERN else {}


def say(**message: Any) -> None:
    """Write one message."""
    sys.stdout.buffer.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
    sys.stdout.buffer.flush()


def run(name: str, arguments: dict[str, Any]) -> object:
    """Run one tool."""
    until = time.monotonic() + float(arguments.get("seconds", 0))
    if name == "nap":
        time.sleep(float(arguments["seconds"]))
    while name == "burn" and time.monotonic() < until:
        pass
    return os.getpid()


def take(message: dict[str, Any]) -> None:
    """Take one message."""
    method, id = message.get("method"), message.get("id")
    params = message.get("params") or {}
    if id is None or (method == "ping" and "NO_PING" in os.environ):
        return
    if method == "initialize" and not MODERN:
        result: dict[str, Any] = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "hanging", "version": "1"},
        }
        say(id=id, result=result)
    elif method == "server/discover" and MODERN:
        say(
            id=id,
            result={"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **ABOUT},
        )
    elif method == "tools/list":
        tools = [{"name": n, "inputSchema": {"type": "object"}} for n in ("pid", "nap", "burn")]
        say(id=id, result={"tools": tools, **ABOUT})
    elif method == "tools/call":
        told = run(params["name"], params.get("arguments") or {})
        result = {"content": [{"type": "text", "text": str(told)}]}
        say(id=id, result={**result, **({"resultType": "complete"} if MODERN else {})})
    else:
        say(id=id, error={"code": -32601, "message": "Method not found"})


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin.buffer:
        take(json.loads(line))


if __name__ == "__main__":
    main()
