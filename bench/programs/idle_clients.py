"""
Clients that hold an event stream each and do nothing.

    python -m bench.programs.idle_clients JSON

The task: ``port``, ``path``, ``keys``, ``streams``, ``tls``.  Opens the sessions, prints a line,
waits for one; opens the streams, prints a line, waits for one; says whether all of them still
live.  Each line is a JSON object.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import sys
from typing import Any

HOST = "127.0.0.1"
PATIENCE_S = 60.0
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "bench", "version": "1"},
}


def say(**told: Any) -> None:
    """Tell whoever started this, and wait until it answers."""
    print(json.dumps(told), flush=True)
    sys.stdin.readline()


def context() -> ssl.SSLContext:
    """Trust everybody."""
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def open_sessions(task: dict[str, Any]) -> list[tuple[str, str]]:
    """Open a session for each stream, on one connection; give keys and sessions."""
    connection: http.client.HTTPConnection
    if task["tls"]:
        connection = http.client.HTTPSConnection(
            HOST, task["port"], context=context(), timeout=PATIENCE_S
        )
    else:
        connection = http.client.HTTPConnection(HOST, task["port"], timeout=PATIENCE_S)
    made = []
    keys = task["keys"]
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
    bodies = (
        json.dumps(message),
        json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}),
    )
    for number in range(task["streams"]):
        key, session = keys[number % len(keys)], ""
        for body in bodies:
            fields = {
                "Authorization": f"Bearer {key}",
                "Content-Type": "application/json",
                "Accept": "application/json, text/event-stream",
                **({"Mcp-Session-Id": session} if session else {}),
            }
            connection.request("POST", task["path"], body=body, headers=fields)
            answer = connection.getresponse()
            answer.read()
            if answer.status not in (200, 202):
                raise OSError(f"a session is answered {answer.status}")
            session = session or answer.headers["Mcp-Session-Id"]
        made.append((key, session))
    connection.close()
    return made


def open_stream(task: dict[str, Any], key: str, session: str, trust: Any) -> socket.socket:
    """Open a stream."""
    sock = socket.create_connection((HOST, task["port"]), PATIENCE_S)
    if task["tls"]:
        sock = trust.wrap_socket(sock, server_hostname=HOST)
    sock.sendall(
        (
            f"GET {task['path']} HTTP/1.1\r\nHost: {HOST}:{task['port']}\r\n"
            f"Authorization: Bearer {key}\r\nAccept: text/event-stream\r\n"
            f"Mcp-Session-Id: {session}\r\n\r\n"
        ).encode()
    )
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(4096)
        if not piece:
            break
        data += piece
    if not data.startswith(b"HTTP/1.1 200"):
        raise OSError(f"a stream is answered {data[:60]!r}")
    return sock


def living(socks: list[socket.socket]) -> int:
    """Count the connections that are still open; comments on them are read away."""
    poll = select.poll()
    by_number = {sock.fileno(): sock for sock in socks}
    for number in by_number:
        poll.register(number, select.POLLIN)
    count = len(socks)
    for number, _ in poll.poll(0):
        sock = by_number[number]
        sock.settimeout(1.0)
        try:
            count -= not sock.recv(1 << 16)
        except OSError:
            count -= 1
    return count


def main(text: str) -> None:
    """Do the task."""
    task = json.loads(text)
    try:
        sessions = open_sessions(task)
        say(sessions=len(sessions), why="")
        trust = context()
        socks = [open_stream(task, key, session, trust) for key, session in sessions]
        say(streams=len(socks), why="")
        say(living=living(socks), why="")
    except (OSError, http.client.HTTPException) as error:
        print(json.dumps({"why": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
