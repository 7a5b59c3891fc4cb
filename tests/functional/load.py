"""
Fifty clients that all use JSON-RPC id 1, each with a session of its own.

``load.py PORT SERVER KEYS CALLS``: calls ``echo`` with a marker and prints how many answers came
and how many carried another's marker.
"""

# ruff: noqa: T201 - a program of its own: it prints its result.

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

CLIENTS = 50
INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "load", "version": "1"},
}


class Connection:
    """One keep-alive connection; opened again when the gate closes it."""

    def __init__(self, port: int, server: str, key: str) -> None:
        self.port = port
        self.head = (
            f"POST /{server}/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
        )
        self.session = ""
        self.writer: asyncio.StreamWriter | None = None

    async def post(self, message: object) -> dict[str, object]:
        """Send one message and read the answer."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps(message).encode()
        session = f"Mcp-Session-Id: {self.session}\r\n" if self.session else ""
        head = f"{self.head}{session}Content-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
        answer = await self.reader.readexactly(int(fields["content-length"]))
        self.session = fields.get("mcp-session-id", self.session)
        if fields.get("connection") == "close":
            self.writer.close()
            self.writer = None
        if not lines[0].startswith(("HTTP/1.1 200", "HTTP/1.1 202")):
            raise RuntimeError(lines[0] + answer.decode())
        return dict(json.loads(answer)) if answer else {}


async def client(connection: Connection, name: str, calls: int) -> list[int]:
    """Call one after the other; give how many answers came and how many were wrong."""
    request = {"jsonrpc": "2.0", "id": 1}
    await connection.post({**request, "method": "initialize", "params": INITIALIZE})
    told = [0, 0]
    for number in range(calls):
        marker = f"{name}-{number}"
        params = {"name": "echo", "arguments": {"message": marker}}
        answer = await connection.post({**request, "method": "tools/call", "params": params})
        told[0] += 1
        expected = {"content": [{"type": "text", "text": f"echo: {marker}"}]}
        told[1] += answer != {**request, "result": expected}
    return told


async def main(port: int, server: str, keys: list[str], calls: int) -> None:
    """Run the clients at once."""
    told = await asyncio.gather(
        *(
            client(Connection(port, server, keys[i % len(keys)]), f"client{i}", calls // CLIENTS)
            for i in range(CLIENTS)
        )
    )
    print(json.dumps({"answers": sum(t[0] for t in told), "wrong": sum(t[1] for t in told)}))


if __name__ == "__main__":
    port, server, keys, calls = sys.argv[1:]
    asyncio.run(main(int(port), server, Path(keys).read_text().split(), int(calls)))
