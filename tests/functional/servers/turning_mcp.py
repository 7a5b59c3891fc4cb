"""
An MCP server whose tools are those that the file TOOLS names, as JSON, when it is asked.

``turning_mcp.py`` speaks stdio, ``turning_mcp.py PORT`` Streamable HTTP at ``/mcp``; of the modern
era alone with ERA=modern in its environment.  Each tool answers its own name.
"""

# ruff: noqa: T201 - a program of its own: it prints.

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODERN = os.environ.get("ERA") == "modern"
TOOLS = json.loads(Path(os.environ["TOOLS"]).read_text())
CAN = {"tools": {"listChanged": True}}


def result_of(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """Answer a request; None: it is not known."""
    found: dict[str, Any] | None = None
    if method == "initialize" and not MODERN:
        found = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": CAN,
            "serverInfo": {"name": "turning", "version": "1"},
        }
    elif method == "server/discover" and MODERN:
        found = {"supportedVersions": ["2026-07-28"], "capabilities": CAN}
    elif method == "tools/list":
        found = {"tools": TOOLS}
    elif method == "tools/call":
        found = {"content": [{"type": "text", "text": params["name"]}]}
    elif method in ("ping", "prompts/list"):
        found = {}
    if found is not None and MODERN:
        found |= {"resultType": "complete"}
        if method != "tools/call":
            found |= {"ttlMs": 0, "cacheScope": "private"}
    return found


def answer_to(message: dict[str, Any]) -> dict[str, Any] | None:
    """Answer a message; None: there is nothing to be said."""
    if "id" not in message or "method" not in message:
        return None
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
    result = result_of(message["method"], message.get("params") or {})
    if result is not None:
        return {**answer, "result": result}
    if MODERN and message["method"] == "initialize":
        data = {"supported": ["2026-07-28"], "requested": "an older one"}
        return {**answer, "error": {"code": -32022, "message": "no", "data": data}}
    return {**answer, "error": {"code": -32601, "message": "Method not found"}}


class Exchange(BaseHTTPRequestHandler):
    """One connection of the gate."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def send(self, status: int, value: object = None) -> None:
        """Answer."""
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Answer a message."""
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = answer_to(message)
        if answer is None:
            self.send(202)
            return
        code = answer.get("error", {}).get("code")
        self.send({-32601: 404, -32022: 400}.get(code, 200) if MODERN else 200, answer)

    def do_GET(self) -> None:
        """Have no stream."""
        self.send(405)

    def do_DELETE(self) -> None:
        """End nothing."""
        self.send(200)


def main() -> None:
    """Serve."""
    if len(sys.argv) > 1:
        ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Exchange).serve_forever()
    for line in sys.stdin:
        answer = answer_to(json.loads(line))
        if answer is not None:
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
