"""
The HTTP server behind every proxy: one thread on epoll, as little Python for a request as can be.

    python -m bench.programs.upstream PORT

``/json``: a small JSON answer.  ``/mcp``: MCP, echoing.  ``/events/N``: a stream of N events.
``/idle``: a stream that says one thing and stays open.  ``/down/N``: N bytes.  ``/up``: counts
the bytes of the body.  ``/ws``: WebSocket, echoing.  A path may have anything in front of it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import resource
import select
import signal
import socket
import sys
from collections.abc import Iterator

from bench.programs.echo_stdio import answer

BODY = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello"}]}}'
EVENT = b'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/progress","params":{}}\n\n'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_JSON = _HEAD % len(BODY) + BODY
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_BYTES = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
_BLOCK = b"d" * (1 << 16)
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"transfer-encoding: *chunked", re.IGNORECASE)
_WS_KEY = re.compile(rb"sec-websocket-key: *(\S+)", re.IGNORECASE)
_WS_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KNOWN = re.compile(rb"/(json|mcp|events|idle|down|up|ws)(?:/(\d+))?(?:[? ]|$)")


def chunk(data: bytes) -> bytes:
    """Frame a piece of a body whose length is not known."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def events(count: int) -> Iterator[bytes]:
    """Give a stream of events, each in a chunk of its own, some chunks at once."""
    yield _STREAM
    one, at_once = chunk(EVENT), 16
    for _ in range(count // at_once):
        yield one * at_once
    yield one * (count % at_once) + b"0\r\n\r\n"


def blocks(count: int) -> Iterator[bytes]:
    """Give a large body."""
    yield _BYTES % count
    for _ in range(count // len(_BLOCK)):
        yield _BLOCK
    yield _BLOCK[: count % len(_BLOCK)]


class Line:
    """One connection."""

    def __init__(self, sock: socket.socket, poll: select.epoll) -> None:
        self.sock = sock
        self.poll = poll
        self.held = b""
        self.out = b""
        self.more: Iterator[bytes] | None = None
        self.swallow = 0  # Bytes of a body that is only counted.
        self.swallowed = 0
        self.framed = False
        self.web_socket = False
        self.waits = False

    def readable(self) -> bool:
        """Take what came; tell whether the connection lives."""
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        if self.swallow or self.framed:
            data = self.count(data)
        if self.web_socket:
            self.echo(data)
            return True
        data = self.held + data
        while data:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                break
            found = _LENGTH.search(data, 0, end)
            length = int(found[1]) if found else 0
            kind = _KNOWN.search(data, 0, data.find(b"\r\n"))
            if kind is None:
                self.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                data = data[end + 4 + length :]
            elif kind[1] == b"up":
                self.swallow, self.swallowed = length, 0
                self.framed = found is None and _CHUNKED.search(data, 0, end) is not None
                data = self.count(data[end + 4 :])
            elif len(data) < end + 4 + length:
                break
            else:
                body = data[end + 4 : end + 4 + length]
                self.serve(kind[1], int(kind[2] or 0), body, data[:end])
                data = data[end + 4 + length :]
                if self.web_socket:
                    break
        self.held = data
        return True

    def serve(self, kind: bytes, number: int, body: bytes, head: bytes) -> None:
        """Answer one request."""
        if kind == b"json":
            self.send(_JSON)
        elif kind == b"mcp":
            self.speak(head, body)
        elif kind == b"idle":
            self.send(_STREAM + chunk(EVENT))
        elif kind == b"ws":
            found = _WS_KEY.search(head)
            accepted = hashlib.sha1((found[1] if found else b"") + _WS_MAGIC).digest()
            self.web_socket = True
            self.send(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + base64.b64encode(accepted) + b"\r\n\r\n"
            )
        else:
            self.more = events(number) if kind == b"events" else blocks(number)
            self.pump()

    def speak(self, head: bytes, body: bytes) -> None:
        """Answer a message of MCP, of either era."""
        if not head.startswith(b"POST"):
            self.send(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return
        message = json.loads(body)
        modern = b"2026-07-28" in head
        told = answer(message, modern)
        if told is None:
            self.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            return
        text = json.dumps(told).encode()
        whole = _HEAD % len(text) + text
        if message["method"] == "initialize":
            whole = whole.replace(b"\r\n", b"\r\nMcp-Session-Id: of-everybody\r\n", 1)
        self.send(whole)

    def count(self, data: bytes) -> bytes:
        """Count a body; give what comes after it."""
        if self.framed:
            self.swallowed += len(data)
            end = data.endswith(b"0\r\n\r\n")
            if not end:
                return b""
            self.framed = False
            rest = b""
        else:
            rest = data[self.swallow :]
            self.swallowed += len(data) - len(rest)
            self.swallow -= len(data) - len(rest)
            if self.swallow:
                return b""
        told = b'{"bytes":%d}' % self.swallowed
        self.send(_HEAD % len(told) + told)
        return rest

    def echo(self, data: bytes) -> None:
        """Send whole frames back, without the mask clients put on them."""
        data = self.held + data
        while len(data) >= 6:
            length, at = data[1] & 0x7F, 2
            if length == 126:
                length, at = int.from_bytes(data[2:4]), 4
            if len(data) < at + 4 + length:
                break
            mask = data[at : at + 4] * (length // 4 + 1)
            told = int.from_bytes(data[at + 4 : at + 4 + length]) ^ int.from_bytes(mask[:length])
            size = bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2)
            self.send(bytes([data[0]]) + size + told.to_bytes(length))
            data = data[at + 4 + length :]
        self.held = data

    def send(self, data: bytes) -> None:
        """Write; what does not go is kept for when it does."""
        if self.out:
            self.out += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.out = data[sent:]
            self.wait(True)

    def wait(self, on: bool) -> None:
        """Wait for room, or no longer."""
        if on != self.waits:
            self.waits = on
            self.poll.modify(self.sock, select.EPOLLIN | (select.EPOLLOUT if on else 0))

    def pump(self) -> None:
        """Write of what waits as much as there is room for."""
        while True:
            if self.out:
                data, self.out = self.out, b""
                self.send(data)
                if self.out:
                    return
            if self.more is None:
                break
            piece = next(self.more, None)
            if piece is None:
                self.more = None
            else:
                self.out = piece
        self.wait(False)


def main(port: int) -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    server = socket.create_server(("127.0.0.1", port), backlog=1024)
    server.setblocking(False)
    poll = select.epoll()
    poll.register(server, select.EPOLLIN)
    lines: dict[int, Line] = {}
    listener = server.fileno()
    while True:
        for number, event in poll.poll():
            if number == listener:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sock, _ = server.accept()
                        sock.setblocking(False)
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        poll.register(sock, select.EPOLLIN)
                        lines[sock.fileno()] = Line(sock, poll)
                continue
            line = lines[number]
            lives = True
            try:
                if event & select.EPOLLOUT:
                    line.pump()
                if event & ~select.EPOLLOUT:
                    lives = line.readable()
            except OSError:
                lives = False
            if not lives:
                del lines[number]
                line.sock.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
