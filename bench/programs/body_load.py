"""
One client that sends, or receives, large bodies, one after the other.

    python -m bench.programs.body_load JSON

The task: ``port``, ``path``, ``key``, ``bytes``, ``times``, ``up`` (else down), ``tls``.  Prints
how many seconds it took, as JSON.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import sys
import time
from typing import Any

HOST = "127.0.0.1"
PATIENCE_S = 60.0
BLOCK = b"u" * (1 << 18)


def connect(task: dict[str, Any]) -> socket.socket:
    """Connect."""
    sock = socket.create_connection((HOST, task["port"]), PATIENCE_S)
    if not task.get("tls"):
        return sock
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname=HOST)


def head_of(sock: socket.socket) -> tuple[bytes, bytes]:
    """Read an answer's head; give it and what came after it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(1 << 16)
        if not piece:
            raise OSError("the connection was closed before an answer")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    if b" 200 " not in head[:16]:
        raise OSError(f"the answer was {head[:40]!r}")
    return head, rest


def main(text: str) -> None:
    """Do the task."""
    task = json.loads(text)
    size, up = task["bytes"], task["up"]
    length = f"Content-Length: {size}\r\n" if up else ""
    request = (
        f"{'POST' if up else 'GET'} {task['path']} HTTP/1.1\r\nHost: {HOST}:{task['port']}\r\n"
        f"Authorization: Bearer {task['key']}\r\n{length}\r\n"
    ).encode()
    buffer = bytearray(1 << 18)
    try:
        sock = connect(task)
        begun = time.perf_counter()
        for _ in range(task["times"]):
            sock.sendall(request)
            if up:
                left = size
                while left:
                    piece = BLOCK[:left]
                    sock.sendall(piece)
                    left -= len(piece)
            head, rest = head_of(sock)
            found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            left = int(found[1]) - len(rest) if found else 0
            while left:
                count = sock.recv_into(buffer, min(left, len(buffer)))
                if not count:
                    raise OSError("the connection was closed in a body")
                left -= count
            if up and not rest.endswith(b"%d}" % size):
                raise OSError(f"the server counted {rest!r}")
        told: dict[str, Any] = {"seconds": time.perf_counter() - begun, "why": ""}
        sock.close()
    except OSError as error:
        told = {"seconds": 0, "why": f"{type(error).__name__}: {error}"}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
