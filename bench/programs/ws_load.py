"""
Clients that send one WebSocket message each and wait for it to come back, again and again.

    python -m bench.programs.ws_load JSON

The task: ``port``, ``path``, ``key``, ``clients``, ``seconds``, ``pid`` (whose use of the machine
is told).  Prints one JSON object.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import Any

from bench.lab.usage import usage

HOST = "127.0.0.1"
PATIENCE_S = 20.0
TEXT = b"a message of some length, as programs send them to each other; " * 2
MASK = b"mask"
SENT = (
    bytes([0x81, 0xFE])
    + len(TEXT).to_bytes(2)
    + MASK
    + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(TEXT))
)
BACK = bytes([0x81, 126]) + len(TEXT).to_bytes(2) + TEXT


class Client:
    """One client."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.sock = socket.create_connection((HOST, task["port"]), PATIENCE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(
            (
                f"GET {task['path']} HTTP/1.1\r\nHost: {HOST}:{task['port']}\r\n"
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                f"Authorization: Bearer {task['key']}\r\n\r\n"
            ).encode()
        )
        data = b""
        while b"\r\n\r\n" not in data:
            piece = self.sock.recv(4096)
            if not piece:
                break
            data += piece
        if not data.startswith(b"HTTP/1.1 101"):
            raise OSError(f"the answer was {data[:40]!r}")
        self.held = b""
        self.sent_s = 0.0

    def send(self) -> None:
        """Send the message."""
        self.held = b""
        self.sent_s = time.perf_counter()
        self.sock.sendall(SENT)

    def back(self) -> bool:
        """Take what came; tell whether it is the message."""
        data = self.sock.recv(1 << 16)
        if not data:
            raise OSError("the connection was closed")
        self.held += data
        if len(self.held) < len(BACK):
            return False
        if self.held != BACK:
            raise OSError("another message came back")
        return True


def echo(task: dict[str, Any]) -> dict[str, Any]:
    """Send until the time is over."""
    clients = {}
    poll = select.epoll()
    for _ in range(task["clients"]):
        client = Client(task)
        clients[client.sock.fileno()] = client
        poll.register(client.sock, select.EPOLLIN)
    before, begun = usage(task["pid"]), time.perf_counter()
    end = begun + task["seconds"]
    times: list[float] = []
    for client in clients.values():
        client.send()
    while clients:
        ready = poll.poll(PATIENCE_S)
        if not ready:
            raise OSError(f"nothing for {PATIENCE_S:.0f} s")
        for number, _ in ready:
            client = clients[number]
            if not client.back():
                continue
            now = time.perf_counter()
            times.append(now - client.sent_s)
            if now < end:
                client.send()
            else:
                del clients[number]
                client.sock.close()
    seconds = time.perf_counter() - begun
    after = usage(task["pid"])
    times.sort()
    return {
        "rate": len(times) / seconds,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[min(len(times) - 1, len(times) * 99 // 100)] * 1000,
        **after.since(before, seconds, len(times)),
    }


def main(text: str) -> None:
    """Do the task."""
    try:
        told: dict[str, Any] = {"why": "", **echo(json.loads(text))}
    except OSError as error:
        told = {"why": f"{type(error).__name__}: {error}"}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
