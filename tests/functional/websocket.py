"""A WebSocket with the server of ``servers/http_mcp.py``, which echoes."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
from unittest import TestCase

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MASK = b"\1\2\3\4"


def check_echo(case: TestCase, line: socket.socket, key: str) -> None:
    """See that frames of every size come back as they went, and that it closes when we do."""
    nonce = base64.b64encode(os.urandom(16))
    line.sendall(
        b"GET /web/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        + nonce
        + b"\r\nX-API-Key: "
        + key.encode()
        + b"\r\n\r\n"
    )
    read = line.makefile("rb")
    case.assertIn(b" 101 ", read.readline())
    fields = http.client.parse_headers(read)
    accept = base64.b64encode(hashlib.sha1(nonce + GUID).digest()).decode()
    case.assertEqual(fields["Sec-WebSocket-Accept"], accept)
    for size in (5, 125, 5000):
        payload = os.urandom(size)
        short = size < 126
        length = bytes([size | 128]) if short else b"\xfe" + size.to_bytes(2, "big")
        masked = bytes(b ^ MASK[i % 4] for i, b in enumerate(payload))
        line.sendall(b"\x82" + length + MASK + masked)
        head = read.read(2 if short else 4)
        case.assertEqual(head[0], 0x82)
        case.assertEqual(read.read(size), payload)
    line.sendall(b"\x88\x80" + MASK)
    case.assertEqual(read.read(), b"")
