"""
Clients that speak TLS, each in a thread of its own: OpenSSL does its work beside the interpreter.

    python -m bench.programs.tls_load JSON

The task: ``port``, ``path``, ``key``, ``clients``, ``seconds``, ``pid`` (whose use of the machine
is told), and ``how``: ``kept`` (one connection for every request), ``new`` (a connection for each),
``resumed`` (the same, each resuming the session of the one before).  Prints one JSON object.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
import threading
import time
from typing import Any

from bench.lab.usage import usage

HOST = "127.0.0.1"
PATIENCE_S = 20.0
BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}'


class Client(threading.Thread):
    """One client."""

    def __init__(self, task: dict[str, Any], start: threading.Event) -> None:
        super().__init__(daemon=True)
        self.task = task
        self.start_now = start
        self.times_s: list[float] = []
        self.resumed = 0
        self.why = ""
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.session: ssl.SSLSession | None = None
        head = (
            f"POST {task['path']} HTTP/1.1\r\nHost: {HOST}:{task['port']}\r\n"
            f"Content-Type: application/json\r\nAuthorization: Bearer {task['key']}\r\n"
            f"Content-Length: {len(BODY)}\r\n"
        )
        close = "" if task["how"] == "kept" else "Connection: close\r\n"
        self.request = f"{head}{close}\r\n".encode() + BODY

    def run(self) -> None:
        """Call until the time is over."""
        line: ssl.SSLSocket | None = None
        try:
            if self.task["how"] == "kept":
                line = self.connect()
            elif self.task["how"] == "resumed":
                self.once()
            self.start_now.wait()
            end = time.perf_counter() + self.task["seconds"]
            while (now := time.perf_counter()) < end:
                if line is not None:
                    self.ask(line)
                else:
                    self.once()
                self.times_s.append(time.perf_counter() - now)
        except (OSError, http.client.HTTPException) as error:
            self.why = f"{type(error).__name__}: {error}"
        finally:
            if line is not None:
                line.close()

    def connect(self) -> ssl.SSLSocket:
        """Open a connection, in the last one's session where that is wanted."""
        raw = socket.create_connection((HOST, self.task["port"]), PATIENCE_S)
        # The end of the handshake and the request leave one after the other, at once.
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(raw, server_hostname=HOST, session=self.session)

    def once(self) -> None:
        """Ask on a connection of its own."""
        line = self.connect()
        try:
            self.ask(line)
            self.resumed += bool(line.session_reused)
            if self.task["how"] == "resumed":
                self.session = line.session
        finally:
            line.close()

    def ask(self, line: ssl.SSLSocket) -> None:
        """Send one request; read its answer."""
        line.sendall(self.request)
        answer = http.client.HTTPResponse(line)
        answer.begin()
        answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(f"status {answer.status}")


def main(text: str) -> None:
    """Do the task."""
    task = json.loads(text)
    start = threading.Event()
    clients = [Client(task, start) for _ in range(task["clients"])]
    for client in clients:
        client.start()
    time.sleep(0.1)  # noqa: TID251 - a program of its own: connections are made meanwhile
    before = usage(task["pid"])
    begun = time.perf_counter()
    start.set()
    for client in clients:
        client.join(task["seconds"] + 2 * PATIENCE_S)
    seconds = time.perf_counter() - begun
    after = usage(task["pid"])
    times = sorted(time_s for client in clients for time_s in client.times_s)
    told: dict[str, Any] = {
        "answers": len(times),
        "seconds": seconds,
        "resumed": sum(client.resumed for client in clients),
        "why": next((client.why for client in clients if client.why), ""),
        "failed": sum(bool(client.why) for client in clients),
    }
    if times:
        told |= {
            "p50_ms": times[len(times) // 2] * 1000,
            "p99_ms": times[min(len(times) - 1, len(times) * 99 // 100)] * 1000,
            **after.since(before, seconds, len(times)),
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
