"""The REST service of ``petstore.yaml``, on a thread of the test's own process."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PICTURE = b"\x89PNG\r\n"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Petstore

    def log_message(self, *args: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        """List pets, or give one, or its picture."""
        parts = urlsplit(self.path)
        self.server.seen.append((self.path, {n.lower(): v for n, v in self.headers.items()}))
        if parts.path == "/openapi.yaml":
            self.tell_document()
            return
        steps = [unquote(step) for step in parts.path.split("/")[2:]]
        if steps == ["slow"]:
            self.server.late.wait(20)
            self.reply(200, {})
        elif steps == ["pets"]:
            query = parse_qs(parts.query)
            tags = query.get("tag", [])
            found = [pet for pet in self.server.pets.values() if not tags or pet["tag"] in tags]
            self.reply(200, found[: int(query.get("limit", ["100"])[0])])
        elif len(steps) == 2 and steps[1] in self.server.pets:
            self.reply(200, self.server.pets[steps[1]])
        elif len(steps) == 3:
            self.reply(200, PICTURE, "image/png")
        else:
            self.reply(404, {"why": "no such pet"})

    def tell_document(self) -> None:
        """Give the document, unless it is the one the other has."""
        etag = f'"{hash(self.server.document)}"'
        same = self.headers["If-None-Match"] == etag
        self.server.documents.append(304 if same else 200)
        self.send_response(self.server.documents[-1])
        self.send_header("ETag", etag)
        self.send_header("Content-Length", "0" if same else str(len(self.server.document)))
        self.end_headers()
        if not same:
            self.wfile.write(self.server.document)

    def do_POST(self) -> None:
        """Take a new pet in."""
        pet = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pet = {"tag": None, **pet, "owner": self.headers["X-Owner"]}
        self.server.pets[pet["name"]] = pet
        self.reply(201, pet)

    def do_DELETE(self) -> None:
        """Let a pet go."""
        self.server.pets.pop(unquote(self.path.rpartition("/")[2]), None)
        self.send_response(204)
        self.end_headers()

    def reply(self, status: int, value: Any, kind: str = "application/json") -> None:
        """Answer."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        with contextlib.suppress(OSError):  # who waited too long has gone
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


class Petstore(ThreadingHTTPServer):
    """
    The service; `close` ends it.

    :ivar seen: path and fields of what was read.
    :ivar late: lets slow answers go.
    :ivar document: what ``/openapi.yaml`` answers; ``documents``: how it did so far.
    :param port: to come back at one.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.document = (Path(__file__).parent / "petstore.yaml").read_bytes()
        self.documents: list[int] = []
        self.pets: dict[str, dict[str, Any]] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.late = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where its paths begin."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def close(self) -> None:
        """End it."""
        self.late.set()
        self.shutdown()
        self.server_close()
        self._thread.join(5)
