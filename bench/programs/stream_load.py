"""
Clients that read event streams to their end, one after the other, and count the events.

    python -m bench.programs.stream_load JSON

The task: ``port``, ``path``, ``key``, ``clients``, ``seconds``, ``events`` (that each stream has to
have), ``pid`` (whose use of the machine is told).  Prints one JSON object.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import Any

import httptools

from bench.lab.usage import usage

HOST = "127.0.0.1"
PATIENCE_S = 30.0
MARK = b"\ndata:"


class Reader:
    """One client."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.sock = socket.create_connection((HOST, task["port"]), PATIENCE_S)
        self.request = (
            f"GET {task['path']} HTTP/1.1\r\nHost: {HOST}:{task['port']}\r\n"
            f"Accept: text/event-stream\r\nAuthorization: Bearer {task['key']}\r\n\r\n"
        ).encode()
        self.begin()

    def begin(self) -> None:
        """Ask for the stream."""
        self.parser = httptools.HttpResponseParser(self)
        self.count = 0
        self.tail = b""
        self.over = False
        self.sock.sendall(self.request)

    def on_body(self, data: bytes) -> None:
        """Count; a mark may lie across two pieces."""
        data = self.tail + data
        self.count += data.count(MARK)
        self.tail = data[1 - len(MARK) :]

    def on_message_complete(self) -> None:
        """The stream has ended."""
        self.over = True


def main(text: str) -> None:
    """Do the task."""
    task = json.loads(text)
    told: dict[str, Any] = {"streams": 0, "events": 0, "failed": 0, "why": ""}
    try:
        read(task, told)
    except (OSError, httptools.HttpParserError, ValueError) as error:
        told |= {"failed": told["failed"] + 1, "why": f"{type(error).__name__}: {error}"}
    print(json.dumps(told))


def read(task: dict[str, Any], told: dict[str, Any]) -> None:
    """Read streams until the time is over; :raises ValueError: one is not what it has to be."""
    poll = select.epoll()
    readers = {}
    before, begun = usage(task["pid"]), time.perf_counter()
    end = begun + task["seconds"]
    for _ in range(task["clients"]):
        reader = Reader(task)
        readers[reader.sock.fileno()] = reader
        poll.register(reader.sock, select.EPOLLIN)
    while readers:
        ready = poll.poll(PATIENCE_S)
        if not ready:
            raise ValueError(f"nothing for {PATIENCE_S:.0f} s")
        for number, _ in ready:
            reader = readers[number]
            data = reader.sock.recv(1 << 17)
            if not data:
                raise ValueError("the connection was closed in a stream")
            reader.parser.feed_data(data)
            if not reader.over:
                continue
            status = reader.parser.get_status_code()
            if status != 200 or reader.count != task["events"]:
                raise ValueError(f"status {status}, {reader.count} events")
            told["streams"] += 1
            told["events"] += reader.count
            if time.perf_counter() < end:
                reader.begin()
            else:
                del readers[number]
                reader.sock.close()
    told["seconds"] = time.perf_counter() - begun
    after = usage(task["pid"])
    told |= after.since(before, told["seconds"], told["events"])


if __name__ == "__main__":
    main(sys.argv[1])
