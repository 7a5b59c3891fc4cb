"""
The stdio server behind every contender: answers ``echo`` as fast as Python can.

    python echo_stdio.py [legacy|modern]

It reads what there is, and writes the answers to all of it at once.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

MODERN = "2026-07-28"
INFO = {"name": "echo", "version": "1"}
TOOLS = [
    {
        "name": "echo",
        "description": "Answers its message.",
        "inputSchema": {
            "type": "object",
            "properties": {"message": {"type": "string"}},
            "required": ["message"],
        },
    }
]
KEPT = {"ttlMs": 0, "cacheScope": "private"}


def answer(message: dict[str, Any], modern: bool) -> dict[str, Any] | None:
    """Answer one message; None for what wants no answer."""
    if "id" not in message or "method" not in message:
        return None
    params = message.get("params") or {}
    method = message["method"]
    about: dict[str, Any] = {"resultType": "complete"} if modern else {}
    result: dict[str, Any]
    if method == "tools/call":
        text = params.get("arguments", {}).get("message", "")
        result = {"content": [{"type": "text", "text": text}], **about}
    elif method == "tools/list":
        result = {"tools": TOOLS, **(about | KEPT if modern else {})}
    elif method == "ping" and not modern:
        result = {}
    elif method == "initialize" and not modern:
        result = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": INFO,
        }
    elif method == "server/discover" and modern:
        result = {
            "supportedVersions": [MODERN],
            "capabilities": {"tools": {}},
            "_meta": {"io.modelcontextprotocol/serverInfo": INFO},
            **about,
            **KEPT,
        }
    elif modern and method == "initialize":
        data = {"supported": [MODERN], "requested": params.get("protocolVersion")}
        error = {"code": -32022, "message": "Unsupported protocol version", "data": data}
        return {"jsonrpc": "2.0", "id": message["id"], "error": error}
    else:
        error = {"code": -32601, "message": "Method not found"}
        return {"jsonrpc": "2.0", "id": message["id"], "error": error}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def main(era: str = "legacy") -> None:
    """Serve until stdin ends."""
    modern = era == "modern"
    rest = b""
    while data := os.read(0, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        answers = [answer(json.loads(line), modern) for line in lines if line.strip()]
        out = b"".join(json.dumps(one).encode() + b"\n" for one in answers if one is not None)
        while out:
            out = out[os.write(1, out) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
