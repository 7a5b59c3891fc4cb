"""
An MCP server over Streamable HTTP on the standard library, with tools that misbehave on demand.

``http_mcp.py PORT [400]``: with 400, lost sessions are answered as the TypeScript SDK v1 does.

Tools at ``/mcp``: ``echo`` (message), ``slow`` (seconds; an event stream with progress), ``die``
(in the middle of an event), ``forget`` (drops every session), ``count`` (calls so far), ``key``
(the field X-Key), ``env`` (of: a variable), ``log`` (text; to stderr), ``big`` (size), ``silent``
(seconds), ``pid``.  Elsewhere: POST tells the digest of what came, ``/download/N``, ``/events/N``,
``/flood`` (events without end), ``/get`` (its fields) and a WebSocket that echoes.
"""

# ruff: noqa: T201, TID251 - a program of its own: it prints and sleeps.

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SESSIONS: dict[str, dict[str, Any]] = {}
LOST = 400 if "400" in sys.argv[2:] else 404
LOST_TEXT = "Bad Request: No valid session ID provided" if LOST == 400 else "Session not found"
CALLS = {"count": 0}
LOCK = threading.Lock()
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Exchange(BaseHTTPRequestHandler):
    """One connection of the gate."""

    protocol_version = "HTTP/1.1"
    server_version = "fake"
    # Nagle would hold the second part of each answer back.
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    # --- Writing --------------------------------------------------------------------------------

    def send_json(self, status: int, value: object, session: str = "") -> None:
        """Answer with a JSON body, or none."""
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        if session:
            self.send_header("Mcp-Session-Id", session)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self._headers_buffer.append(b"\r\n" + body)  # type: ignore[attr-defined]  # one write
        self.flush_headers()

    def start_events(self) -> None:
        """Begin an event stream that ends with the connection."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def event(self, message: object) -> None:
        """Send one event."""
        self.wfile.write(b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n")

    def tell(self, method: str, **params: object) -> None:
        """Send one notification."""
        self.event({"jsonrpc": "2.0", "method": method, "params": params})

    # --- Reading --------------------------------------------------------------------------------

    def blocks(self) -> Any:
        """Read the body, block by block."""
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            block = self.rfile.read(min(left, 1 << 16))
            left -= len(block)
            yield block

    def session(self) -> dict[str, Any] | None:
        """Find the session of the request, or answer that there is none."""
        found = SESSIONS.get(self.headers.get("Mcp-Session-Id") or "")
        if found is None:
            error = {"code": -32000, "message": LOST_TEXT}
            self.send_json(LOST, {"jsonrpc": "2.0", "id": None, "error": error})
        return found

    def fields(self) -> dict[str, str]:
        """Give the fields as they came."""
        return {name.lower(): value for name, value in self.headers.items()}

    # --- MCP ------------------------------------------------------------------------------------

    def do_POST(self) -> None:
        """Take a message, or tell the digest of a body."""
        if self.path != "/mcp":
            digest, size = hashlib.sha256(), 0
            for block in self.blocks():
                digest.update(block)
                size += len(block)
            told = {"path": self.path, "bytes": size, "sha256": digest.hexdigest()}
            self.send_json(200, {**told, "fields": self.fields()})
            return
        message = json.loads(b"".join(self.blocks()))
        if self.headers["Content-Type"] != "application/json":
            # As strict as the servers of the TypeScript SDK.
            self.send_json(415, {"error": "Content-Type must be application/json"})
            return
        if message.get("method") == "initialize":
            self.initialize(message)
            return
        session = self.session()
        if session is None:
            return
        if "id" not in message or "method" not in message:
            self.send_json(202, None)
        else:
            self.answer(session, message)

    def initialize(self, message: dict[str, Any]) -> None:
        """Make a session."""
        session = secrets.token_hex(16)
        SESSIONS[session] = {"id": session}
        result = {
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}, "logging": {}},
            "serverInfo": {"name": "fake-http", "version": "1"},
        }
        self.send_json(200, {"jsonrpc": "2.0", "id": message["id"], "result": result}, session)

    def answer(self, session: dict[str, Any], message: dict[str, Any]) -> None:
        """Answer a request."""
        method, params = message["method"], message.get("params") or {}
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        if method == "tools/list":
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
            self.send_json(200, {**reply, "result": {"tools": tools}})
        elif method == "logging/setLevel":
            session["level"] = params.get("level")
            self.send_json(200, {**reply, "result": {}})
        elif method == "tools/call" and params["name"] in TOOLS:
            with LOCK:
                CALLS["count"] += 1
            arguments = params.get("arguments") or {}
            arguments["_token"] = (params.get("_meta") or {}).get("progressToken")
            told = TOOLS[params["name"]](self, arguments)
            result = {"content": [{"type": "text", "text": str(told)}]}
            if self.close_connection:  # an event stream was begun
                self.event({**reply, "result": result})
            else:
                self.send_json(200, {**reply, "result": result})
        else:
            error = {"code": -32601, "message": "Method not found"}
            self.send_json(200, {**reply, "error": error})

    def slow(self, arguments: dict[str, Any]) -> str:
        """Take long, and tell how far it is."""
        self.start_events()
        for step in range(5):
            time.sleep(arguments["seconds"] / 5)
            if arguments["_token"] is not None:
                told = {"progressToken": arguments["_token"], "progress": step + 1, "total": 5}
                self.tell("notifications/progress", **told)
        return "slow done"

    def die(self, _: dict[str, Any]) -> None:
        """End in the middle of an event."""
        self.start_events()
        self.tell("notifications/message", level="error", data="going down")
        self.wfile.write(b"data: {half")
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)

    def silent(self, arguments: dict[str, Any]) -> str:
        """Begin an event stream and say nothing for a while."""
        self.start_events()
        time.sleep(arguments["seconds"])
        return "spoken"

    def do_DELETE(self) -> None:
        """End a session."""
        session = self.session()
        if session is not None:
            del SESSIONS[session["id"]]
            self.send_json(200, None)

    # --- Other paths ----------------------------------------------------------------------------

    def do_GET(self) -> None:
        """Serve the event stream of a session, and everything else."""
        if self.path == "/mcp":
            if self.session() is not None:
                self.start_events()
                self.tell("notifications/tools/list_changed")
                while True:
                    time.sleep(0.2)
                    self.wfile.write(b": ping\n\n")
        elif self.path.startswith("/download/"):
            self.download(int(self.path.rsplit("/", 1)[1]))
        elif self.path.startswith("/events/"):
            self.start_events()
            for number in range(int(self.path.rsplit("/", 1)[1])):
                self.event({"number": number})
                time.sleep(0.05)
        elif self.path == "/flood":
            self.start_events()
            while True:
                self.event({"padding": "x" * 16384})
        elif (self.headers.get("Upgrade") or "").lower() == "websocket":
            self.websocket()
        else:
            self.send_json(200, {"path": self.path, "fields": self.fields()})

    def download(self, size: int) -> None:
        """Send so many bytes."""
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(size))
        self.end_headers()
        block = b"d" * 65536
        while size:
            self.wfile.write(block[:size])
            size -= min(size, len(block))

    def websocket(self) -> None:
        """Echo every frame; masked in, unmasked out."""
        accept = hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + WEBSOCKET_GUID)
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(accept.digest()).decode())
        self.end_headers()
        self.close_connection = True
        while True:
            head = self.rfile.read(2)
            if len(head) < 2 or head[0] & 15 == 8:
                return
            size = head[1] & 127
            if size == 126:
                size = int.from_bytes(self.rfile.read(2), "big")
            mask = self.rfile.read(4)
            payload = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(size)))
            short = size < 126
            length = bytes([size]) if short else b"\x7e" + size.to_bytes(2, "big")
            self.wfile.write(head[:1] + length + payload)


def forget(_: Exchange, __: dict[str, Any]) -> str:
    """Drop every session."""
    SESSIONS.clear()
    return "forgotten"


def log(_: Exchange, arguments: dict[str, Any]) -> str:
    """Write a line to stderr."""
    print(arguments["text"], file=sys.stderr, flush=True)
    return ""


TOOLS: dict[str, Callable[[Exchange, dict[str, Any]], object]] = {
    "echo": lambda _, arguments: f"echo: {arguments['message']}",
    "slow": Exchange.slow,
    "die": Exchange.die,
    "forget": forget,
    "count": lambda _, __: CALLS["count"],
    "key": lambda exchange, _: exchange.headers.get("X-Key", "none"),
    "env": lambda _, arguments: os.environ.get(arguments["of"], "unset"),
    "log": log,
    "big": lambda _, arguments: "x" * int(arguments["size"]),
    "silent": Exchange.silent,
    "pid": lambda _, __: os.getpid(),
}


class Server(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        """Say nothing: the gate may hang up when it likes."""


if __name__ == "__main__":
    while not Path(os.environ.get("START_WHEN", "/")).exists():
        time.sleep(0.02)
    Server(("127.0.0.1", int(sys.argv[1])), Exchange).serve_forever()
