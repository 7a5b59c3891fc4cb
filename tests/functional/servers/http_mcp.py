"""
An MCP server over Streamable HTTP on the standard library, with tools that misbehave on demand.

http_mcp.py PORT [400]      with 400, lost sessions answer as the TypeScript SDK v1 does
"""

import base64
import hashlib
import json
import os
import secrets
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SESSIONS: dict[str, dict] = {}
STREAMS: dict[str, "Handler"] = {}
LOST_STATUS = 400 if "400" in sys.argv[2:] else 404
CALLS = {"count": 0}
LOCK = threading.Lock()


def tool(name: str, **properties: str) -> dict:
    schema = {k: {"type": v} for k, v in properties.items()}
    return {"name": name, "inputSchema": {"type": "object", "properties": schema}}


TOOLS = [
    tool("echo", message="string"),
    tool("slow", seconds="number"),
    tool("die"),
    tool("forget"),
    tool("count"),
    tool("key"),
    tool("env", name="string"),
    tool("big", size="integer"),
    tool("silent", seconds="number"),
]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "fake"

    def log_message(self, *_: object) -> None:
        pass

    def send_json(self, status: int, value: object, **fields: str) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in fields.items():
            self.send_header(name.replace("_", "-"), text)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def start_events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def event(self, message: object) -> None:
        self.wfile.write(b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n")
        self.wfile.flush()

    def session(self) -> dict | None:
        given = self.headers.get("Mcp-Session-Id")
        found = SESSIONS.get(given or "")
        if found is None:
            said = (
                "Bad Request: No valid session ID provided"
                if LOST_STATUS == 400
                else "Session not found"
            )
            error = {"code": -32000, "message": said}
            self.send_json(LOST_STATUS, {"jsonrpc": "2.0", "id": None, "error": error})
        return found

    def read_body(self) -> bytes:
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self) -> None:
        body = self.read_body()
        if self.path != "/mcp":
            digest = hashlib.sha256(body).hexdigest()
            self.send_json(
                200,
                {
                    "path": self.path,
                    "bytes": len(body),
                    "sha256": digest,
                    "fields": {k.lower(): v for k, v in self.headers.items()},
                },
            )
            return
        message = json.loads(body)
        if isinstance(message, dict) and message.get("method") == "initialize":
            sid = secrets.token_hex(16)
            SESSIONS[sid] = {"id": sid, "initialized": False, "params": message["params"]}
            result = {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {"listChanged": True}, "logging": {}},
                "serverInfo": {"name": "fake-http", "version": "1"},
            }
            self.send_json(
                200, {"jsonrpc": "2.0", "id": message["id"], "result": result}, Mcp_Session_Id=sid
            )
            return
        session = self.session()
        if session is None:
            return
        if "id" not in message or "method" not in message:
            if message.get("method") == "notifications/initialized":
                session["initialized"] = True
            self.send_json(202, None)
            return
        self.answer(session, message)

    def answer(self, session: dict, message: dict) -> None:
        mid, method, params = message["id"], message["method"], message.get("params") or {}

        def reply(result: object) -> dict:
            return {"jsonrpc": "2.0", "id": mid, "result": result}

        def text(value: object) -> dict:
            return reply({"content": [{"type": "text", "text": str(value)}]})

        if method == "tools/list":
            self.send_json(200, reply({"tools": TOOLS}))
        elif method == "logging/setLevel":
            session["level"] = params.get("level")
            self.send_json(200, reply({}))
        elif method == "tools/call":
            name, arguments = params["name"], params.get("arguments") or {}
            with LOCK:
                CALLS["count"] += 1
            if name == "echo":
                self.send_json(200, text(f"echo: {arguments['message']}"))
            elif name == "slow":
                self.start_events()
                token = (params.get("_meta") or {}).get("progressToken")
                for step in range(5):
                    time.sleep(arguments["seconds"] / 5)
                    if token is not None:
                        self.event(
                            {
                                "jsonrpc": "2.0",
                                "method": "notifications/progress",
                                "params": {
                                    "progressToken": token,
                                    "progress": step + 1,
                                    "total": 5,
                                },
                            }
                        )
                self.event(text("slow done"))
            elif name == "die":
                self.start_events()
                self.event(
                    {
                        "jsonrpc": "2.0",
                        "method": "notifications/message",
                        "params": {"level": "error", "data": "going down"},
                    }
                )
                self.wfile.write(b"data: {half")
                self.wfile.flush()
                os._exit(3)
            elif name == "forget":
                SESSIONS.clear()
                self.send_json(200, text("forgotten"))
            elif name == "count":
                self.send_json(200, text(CALLS["count"]))
            elif name == "key":
                self.send_json(200, text(self.headers.get("X-Key", "none")))
            elif name == "env":
                self.send_json(200, text(os.environ.get(arguments["name"], "unset")))
            elif name == "big":
                self.send_json(200, text("x" * int(arguments["size"])))
            elif name == "silent":
                self.start_events()
                time.sleep(arguments["seconds"])
                self.event(text("spoken"))
        else:
            error = {"code": -32601, "message": "Method not found"}
            self.send_json(200, {"jsonrpc": "2.0", "id": mid, "error": error})

    def do_GET(self) -> None:
        if self.path == "/mcp":
            if self.session() is not None:
                self.start_events()
                self.event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
                while True:
                    time.sleep(0.2)
                    self.wfile.write(b": ping\n\n")
                    self.wfile.flush()
        elif self.path.startswith("/download/"):
            size = int(self.path.rsplit("/", 1)[1])
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size))
            self.end_headers()
            block = b"d" * 65536
            while size:
                self.wfile.write(block[:size])
                size -= min(size, len(block))
        elif self.path.startswith("/events/"):
            self.start_events()
            for number in range(int(self.path.rsplit("/", 1)[1])):
                self.event({"number": number})
                time.sleep(0.05)
        elif (self.headers.get("Upgrade") or "").lower() == "websocket":
            self.websocket()
        else:
            self.send_json(
                200, {"path": self.path, "fields": {k.lower(): v for k, v in self.headers.items()}}
            )

    def do_DELETE(self) -> None:
        session = self.session()
        if session is not None:
            del SESSIONS[session["id"]]
            self.send_json(200, None)

    def websocket(self) -> None:
        """Echo every frame; masked in, unmasked out."""
        accept = hashlib.sha1(
            (self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()
        )
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
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(size)))
            prefix = bytes([head[0]]) + (
                bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
            )
            self.wfile.write(prefix + data)
            self.wfile.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
