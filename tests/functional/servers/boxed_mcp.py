"""
An MCP server on the standard library that looks around in its container, over stdio or HTTP.

boxed_mcp.py stdio | PORT

Tools: ``reach`` (connects to ``host``, ``port``: "open" or why not), ``read`` and ``write`` (a
``path``), ``eat`` (``megabytes`` of memory), ``count`` (up by one, kept in memory), ``look`` (who
and where it is), ``exit`` (with ``code``), ``resolve`` (a ``name``), ``nap`` (``seconds``).
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SESSIONS: set[str] = set()
STATE: dict[str, Any] = {"count": 0, "eaten": []}
NAMES = ("reach", "read", "write", "eat", "count", "look", "exit", "resolve", "nap")


def run(name: str, arguments: dict[str, Any]) -> object:
    """Run a tool."""
    try:
        return TOOLS[name](arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def reach(arguments: dict[str, Any]) -> str:
    """Try to connect."""
    with socket.create_connection((arguments["host"], int(arguments["port"])), 0.7):
        return "open"


def eat(arguments: dict[str, Any]) -> str:
    """Take memory and keep it."""
    STATE["eaten"].append(os.urandom(1 << 20) * int(arguments["megabytes"]))
    return "eaten"


def count(_: dict[str, Any]) -> int:
    """Count the calls of this life."""
    STATE["count"] += 1
    return int(STATE["count"])


def look(_: dict[str, Any]) -> dict[str, Any]:
    """Tell who and where this is."""
    status = Path("/proc/self/status").read_text()
    wanted = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Uid")
    found = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {
        "status": {name: found[name].split()[0] for name in wanted},
        "environ": dict(os.environ),
        "host": socket.gethostname(),
        "addresses": Path("/proc/net/fib_trie").read_text() if len(sys.argv) > 1 else "",
        "argv": sys.argv,
    }


def write(arguments: dict[str, Any]) -> str:
    """Write to a file."""
    Path(arguments["path"]).write_text(arguments.get("text", "x"))
    return "written"


def nap(arguments: dict[str, Any]) -> str:
    """Be at work for a while."""
    time.sleep(float(arguments["seconds"]))  # noqa: TID251  # a program of its own
    return "awake"


TOOLS = {
    "nap": nap,
    "reach": reach,
    "read": lambda arguments: Path(arguments["path"]).read_text(),
    "write": write,
    "eat": eat,
    "count": count,
    "look": look,
    "exit": lambda arguments: os._exit(int(arguments["code"])),
    "resolve": lambda arguments: socket.gethostbyname(arguments["name"]),
}


def answer(message: dict[str, Any]) -> dict[str, Any] | None:
    """Answer a message."""
    if "id" not in message or "method" not in message:
        return None
    reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
    params = message.get("params") or {}
    match message["method"]:
        case "initialize":
            reply["result"] = {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "boxed", "version": "1"},
            }
        case "tools/list":
            reply["result"] = {
                "tools": [{"name": name, "inputSchema": {"type": "object"}} for name in NAMES]
            }
        case "tools/call":
            told = run(params["name"], params.get("arguments") or {})
            reply["result"] = {"content": [{"type": "text", "text": json.dumps(told)}]}
        case _:
            reply["error"] = {"code": -32601, "message": "Method not found"}
    return reply


class Exchange(BaseHTTPRequestHandler):
    """Streamable HTTP, as little of it as will do."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # Head and body in one: else the kernel may hold the body back for 40 ms.

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def tell(self, status: int, value: object = None, session: str = "") -> None:
        """Answer."""
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        if session:
            self.send_header("Mcp-Session-Id", session)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Take a message."""
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if message.get("method") == "initialize":
            session = secrets.token_hex(8)
            SESSIONS.add(session)
            self.tell(200, answer(message), session)
        elif self.headers.get("Mcp-Session-Id") not in SESSIONS:
            self.tell(404, {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": ""}})
        else:
            found = answer(message)
            self.tell(202 if found is None else 200, found)

    def do_GET(self) -> None:
        """Offer no stream."""
        self.tell(405)

    def do_DELETE(self) -> None:
        """End a session."""
        SESSIONS.discard(self.headers.get("Mcp-Session-Id") or "")
        self.tell(200)


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        for line in sys.stdin:
            replied = answer(json.loads(line))
            if replied is not None:
                sys.stdout.write(json.dumps(replied) + "\n")
                sys.stdout.flush()
    else:
        server = ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Exchange)
        server.serve_forever()
