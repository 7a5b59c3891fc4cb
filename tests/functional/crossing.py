"""
Fifty strangers with the same ids on one shared server, who cancel and leave as they like.

``crossing.py PORT SERVER KEYS CALLS SEED``: every second one speaks HTTP+SSE, the others
Streamable HTTP.  Each call has a marker that begins with its client's name.  Prints how many calls
were made, how many were answered, cancelled and left, and how many messages (answers, progress,
log lines) held the marker of the call in work, or of an earlier call of the same client and session
that was cancelled or left (late: it was on its way then).  Every other marker is wrong.  All
clients count their ids from 0.
"""

# ruff: noqa: T201, TID251 - a program of its own: it prints, and chance is no secret here.

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

CLIENTS = 50
ANSWER_S = 60.0
MARKER = re.compile(rb"(client\d+)-(\d+)-")
INITIALIZE = {"capabilities": {}, "clientInfo": {"name": "crossing", "version": "1"}}


class Exchange:
    """One HTTP connection; requests one after the other."""

    def __init__(self, port: int, key: str) -> None:
        self.port = port
        self.key = key
        self.writer: asyncio.StreamWriter | None = None
        self.fields: dict[str, str] = {}

    async def send(self, method: str, path: str, body: bytes = b"", more: str = "") -> int:
        """Send a request; give the status."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.key}\r\n"
            "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
            f"{more}Content-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.fields = {n.lower(): v.strip() for n, _, v in (x.partition(":") for x in lines[1:])}
        return int(lines[0].split()[1])

    async def pieces(self) -> AsyncIterator[bytes]:
        """Read the answer's body as it comes."""
        if "content-length" in self.fields:
            yield await self.reader.readexactly(int(self.fields["content-length"]))
        elif self.fields.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        if self.fields.get("connection") == "close":
            self.close()

    async def rest(self) -> bytes:
        """Read the answer's body."""
        return b"".join([piece async for piece in self.pieces()])

    def close(self) -> None:
        """Cut the connection."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class Stranger:
    """
    One client.

    :ivar told: what came of its calls.
    """

    def __init__(self, name: str, port: int, server: str, key: str, chance: random.Random) -> None:
        self.name = name
        self.server = server
        self.chance = chance
        self.told: Counter[str] = Counter()
        self.number = 0
        self.marker = b""
        # Sessions opened so far; that of the call in work; and by number: in which a call was
        # given up.
        self.sessions = 0
        self.at = 0
        self.given_up: dict[int, int] = {}
        self.exchange = Exchange(port, key)
        self.other = Exchange(port, key)

    async def run(self, calls: int) -> None:
        """Make the calls."""
        await self.open()
        for self.number in range(calls):
            self.marker = f"{self.name}-{self.number}-".encode()
            fate = self.chance.random()
            what = "cancelled" if fate < 0.04 else "left" if fate < 0.08 else "answered"
            arguments: dict[str, object] = {"marker": self.marker.decode()}
            params: dict[str, object] = {"name": "mark", "arguments": arguments}
            if self.chance.random() < 0.3:
                arguments["steps"] = 2
                params["_meta"] = {"progressToken": 1}
            if what != "answered" or self.chance.random() < 0.1:
                arguments["wait"] = self.chance.uniform(0.001, 0.02)
            self.at = self.sessions
            if what != "answered":
                self.given_up[self.number] = self.at
            body = {"jsonrpc": "2.0", "id": self.number, "method": "tools/call", "params": params}
            await asyncio.wait_for(getattr(self, what)(body), ANSWER_S)
            self.told[what] += 1
        await self.leave()

    def look(self, text: bytes) -> None:
        """Look whose markers a message holds."""
        for name, number in MARKER.findall(text):
            if name != self.name.encode():
                self.told["wrong"] += 1
            elif (int(number), self.sessions) == (self.number, self.at):
                self.told["messages"] += 1
            elif self.given_up.get(int(number)) == self.sessions:
                self.told["late"] += 1
            else:
                self.told["wrong"] += 1

    def cancel(self) -> dict[str, object]:
        """Make what cancels the call."""
        params = {"requestId": self.number}
        return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}

    # What differs between the transports.

    async def open(self) -> None:
        """Open a session."""
        raise NotImplementedError

    async def leave(self) -> None:
        """Leave."""
        raise NotImplementedError


class StreamableStranger(Stranger):
    """Over Streamable HTTP; an answer is that of its POST."""

    session = ""

    async def post(self, exchange: Exchange, message: object) -> int:
        """POST a message."""
        more = f"Mcp-Session-Id: {self.session}\r\n" if self.session else ""
        return await exchange.send(
            "POST", f"/{self.server}/mcp", json.dumps(message).encode(), more
        )

    async def open(self) -> None:
        """Shake hands."""
        self.sessions += 1
        params = {**INITIALIZE, "protocolVersion": "2025-11-25"}
        body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
        assert await self.post(self.exchange, body) == 200
        self.session = self.exchange.fields["mcp-session-id"]
        await self.exchange.rest()

    async def answered(self, body: dict[str, Any]) -> None:
        """Wait for the answer."""
        assert await self.post(self.exchange, body) == 200
        text = await self.exchange.rest()
        self.look(text)
        if self.marker not in text or b'"result"' not in text:
            raise AssertionError(text)

    async def cancelled(self, body: dict[str, Any]) -> None:
        """Cancel the call."""
        calling = asyncio.ensure_future(self.post(self.exchange, body))
        await asyncio.sleep(0.002)
        assert await self.post(self.other, self.cancel()) == 202
        await self.other.rest()
        await calling
        self.look(await self.exchange.rest())

    async def left(self, body: dict[str, Any]) -> None:
        """Cut the connection within the call; the session goes on."""
        calling = asyncio.ensure_future(self.post(self.exchange, body))
        await asyncio.sleep(self.chance.uniform(0, 0.01))
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        self.exchange.close()

    async def leave(self) -> None:
        """End the session."""
        more = f"Mcp-Session-Id: {self.session}\r\n"
        assert await self.exchange.send("DELETE", f"/{self.server}/mcp", more=more) == 200
        self.exchange.close()
        self.other.close()


class SSEStranger(Stranger):
    """Over HTTP+SSE; all that is said comes on one stream."""

    path = ""
    answer: asyncio.Future[bytes] | None = None
    reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the stream and shake hands."""
        self.sessions += 1
        assert await self.other.send("GET", f"/{self.server}/sse") == 200
        self.named = asyncio.Event()
        self.answer = asyncio.get_running_loop().create_future()
        self.reading = asyncio.ensure_future(self.read())
        await asyncio.wait_for(self.named.wait(), ANSWER_S)
        params = {**INITIALIZE, "protocolVersion": "2024-11-05"}
        await self.post(
            {"jsonrpc": "2.0", "id": self.number, "method": "initialize", "params": params}
        )
        await asyncio.wait_for(self.answer, ANSWER_S)

    async def read(self) -> None:
        """Take what the stream says."""
        buffer = b""
        async for piece in self.other.pieces():
            buffer += piece
            *events, buffer = buffer.split(b"\n\n")
            for event in events:
                if event.startswith(b"event: endpoint"):
                    self.path = event.partition(b"data: ")[2].decode()
                    self.named.set()
                    continue
                self.look(event)
                mine = b'"id":%d,' % self.number in event
                if mine and self.answer is not None and not self.answer.done():
                    self.answer.set_result(event)

    async def post(self, message: object) -> None:
        """POST a message."""
        body = json.dumps(message).encode()
        status = await self.exchange.send("POST", self.path, body)
        text = await self.exchange.rest()
        assert status == 202, (status, text)

    async def answered(self, body: dict[str, Any]) -> None:
        """Wait for the answer."""
        self.answer = asyncio.get_running_loop().create_future()
        await self.post(body)
        text = await self.answer
        if self.marker not in text or b'"result"' not in text:
            raise AssertionError(text)

    async def cancelled(self, body: dict[str, Any]) -> None:
        """Cancel the call."""
        self.answer = None
        await self.post(body)
        await self.post(self.cancel())

    async def left(self, body: dict[str, Any]) -> None:
        """Close the stream within the call, and open another."""
        self.answer = None
        await self.post(body)
        await self.leave()
        await self.open()

    async def leave(self) -> None:
        """Close the stream."""
        self.other.close()
        if self.reading is not None:
            self.reading.cancel()
            await asyncio.gather(self.reading, return_exceptions=True)


async def main(port: int, server: str, keys: list[str], calls: int, seed: int) -> None:
    """Run the clients at once."""
    strangers = [
        (SSEStranger if number % 2 else StreamableStranger)(
            f"client{number}", port, server, keys[number], random.Random(seed + number)
        )
        for number in range(CLIENTS)
    ]
    await asyncio.gather(*(stranger.run(calls // CLIENTS) for stranger in strangers))
    told: Counter[str] = Counter()
    for stranger in strangers:
        told.update(stranger.told)
    told["calls"] = told["answered"] + told["cancelled"] + told["left"]
    print(json.dumps({**dict.fromkeys(("wrong", "late"), 0), **told}))


if __name__ == "__main__":
    port, server, keys, calls, seed = sys.argv[1:]
    asyncio.run(main(int(port), server, Path(keys).read_text().split(), int(calls), int(seed)))
