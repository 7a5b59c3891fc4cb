"""
As much of the Outline wiki's API as mcp-outline needs to search, with users in the keys.

A key is ``ol_api_<user>``: it is valid, and belongs to that user, and every document found with it
names the user, so that an answer that went to the wrong one shows.
"""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = re.compile(r"Bearer ol_api_([a-z0-9]+)")
DATE = "2026-01-01T00:00:00.000Z"


def document_of(user: str) -> dict[str, Any]:
    """Make the one document a user has."""
    return {
        "id": f"{user}-document",
        "title": f"Notes of {user}",
        "text": f"Only {user} may read this.",
        "url": f"/doc/{user}",
        "collectionId": f"{user}-collection",
        "createdAt": DATE,
        "updatedAt": DATE,
        "publishedAt": DATE,
    }


def answer(endpoint: str, user: str, asked: dict[str, Any]) -> Any:
    """Answer one call of a valid key; None where there is no such call."""
    if endpoint == "auth.info":
        person = {"id": user, "name": user, "email": f"{user}@example.test", "role": "member"}
        return {"user": person, "team": {"id": "team", "name": "Team"}}
    if endpoint == "documents.search":
        found = {"ranking": 1.0, "context": f"{asked.get('query')} of {user}"}
        return [{**found, "document": document_of(user)}]
    if endpoint == "collections.list":
        return [{"id": f"{user}-collection", "name": f"Collection of {user}", "description": ""}]
    return None


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: FakeOutline

    def log_message(self, *args: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        """Be there: what mcp-outline's own readiness asks."""
        self.reply(200, {})

    def do_POST(self) -> None:
        """Every call of the API is a POST."""
        length = int(self.headers.get("Content-Length") or 0)
        asked = json.loads(self.rfile.read(length) or b"{}")
        endpoint = self.path.rpartition("/")[2]
        key = KEY.fullmatch(self.headers.get("Authorization") or "")
        self.server.note(endpoint, key[1] if key else "")
        if key is None:
            self.reply(401, {"ok": False, "error": "authentication_required", "status": 401})
            return
        found = answer(endpoint, key[1], asked)
        if found is None:
            self.reply(404, {"ok": False, "error": "not_found", "status": 404})
            return
        pages = {"limit": 25, "offset": 0}
        self.reply(200, {"ok": True, "status": 200, "data": found, "pagination": pages})

    def reply(self, status: int, body: object) -> None:
        """Answer with JSON."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class FakeOutline(ThreadingHTTPServer):
    """
    The service, on a port of its own and in threads of its own.

    :ivar calls: endpoint and user of every call, in order; no user where the key was bad.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), Handler)
        self.calls: list[tuple[str, str]] = []
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.server_port}/api"

    def note(self, endpoint: str, user: str) -> None:
        """Remember one call."""
        self.calls.append((endpoint, user))

    def stop(self) -> None:
        """Stop serving."""
        self.shutdown()
        self.server_close()
        self._thread.join(10)
