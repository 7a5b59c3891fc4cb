"""
A "model" on loopback, so that agents make real tool calls without a login.

It does what the last user's text says: every line ``use TOOL {json}`` is one tool call, one in each
turn; when all are done it answers with the results.  It speaks as much of two APIs as the agents
need: Anthropic's messages and Google's generateContent, whole or as events.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ORDER = re.compile(r"^\W*use ([A-Za-z0-9_.-]+) (\{.*\})", re.MULTILINE)
Json = dict[str, Any]


class Turn:
    """
    What the model says next.

    :ivar tool: name of the tool to call, or none.
    """

    def __init__(self, prompt: str, results: Sequence[str], offered: Sequence[str]) -> None:
        orders = ORDER.findall(prompt)
        self.tool = ""
        self.text = "results: " + " | ".join(results)
        self.arguments: Json = {}
        if len(results) < len(orders):
            wanted, given = orders[len(results)]
            # Agents put the server's name before the tool's, each in its own way.
            self.tool = next((name for name in offered if name.endswith(wanted)), wanted)
            self.arguments = json.loads(given)


def texts(value: Any) -> Iterator[str]:
    """Yield every text below a key ``text``, ``output`` or ``content``, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from texts(one)
    elif isinstance(value, dict):
        for name in ("text", "output", "content", "error"):
            if name in value:
                yield from texts(value[name])


def flat(value: Any) -> str:
    """Give all texts in one."""
    return " ".join(texts(value))


# --- Anthropic ------------------------------------------------------------------------------------


def read_messages(asked: Json) -> Turn:
    """Read a request for ``/v1/messages``."""
    prompt = ""
    results: list[str] = []
    for message in asked["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        said = "\n".join(block["text"] for block in blocks if block["type"] == "text")
        if message["role"] == "user" and ORDER.search(said):
            prompt, results = said, []
        results += [flat(block) for block in blocks if block["type"] == "tool_result"]
    return Turn(prompt, results, tool_names(asked))


def tool_names(asked: Json) -> list[str]:
    """Give the names of the tools that a request offers."""
    return [tool.get("name", "") for tool in asked.get("tools") or []]


def write_message(turn: Turn, number: int, model: str) -> tuple[Json, list[Json]]:
    """Give the answer whole, and as events."""
    block: Json = {"type": "text", "text": turn.text}
    empty: Json = {"type": "text", "text": ""}
    delta: Json = {"type": "text_delta", "text": turn.text}
    reason = "end_turn"
    if turn.tool:
        empty = {"type": "tool_use", "id": f"toolu_{number}", "name": turn.tool, "input": {}}
        block = {**empty, "input": turn.arguments}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(turn.arguments)}
        reason = "tool_use"
    start: Json = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    ended = {"stop_reason": reason, "stop_sequence": None}
    events: list[Json] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return {**start, "content": [block], "stop_reason": reason}, events


# --- Google ---------------------------------------------------------------------------------------


def read_contents(asked: Json) -> Turn:
    """Read a request for ``:generateContent``."""
    prompt = ""
    results: list[str] = []
    for content in asked["contents"]:
        for part in content.get("parts", []):
            if "functionResponse" in part:
                results.append(flat(part["functionResponse"].get("response")))
            elif content.get("role") == "user" and ORDER.search(part.get("text", "")):
                prompt, results = part["text"], []
    return Turn(prompt, results, declared_names(asked))


def declared_names(asked: Json) -> list[str]:
    """Give the names of the functions that a request declares."""
    tools = asked.get("tools") or []
    return [one["name"] for tool in tools for one in tool.get("functionDeclarations", [])]


def write_candidate(turn: Turn) -> Json:
    """Give the answer, which is the same whole and as the one event."""
    part: Json = {"text": turn.text}
    if turn.tool:
        part = {"functionCall": {"name": turn.tool, "args": turn.arguments}}
    said = {"role": "model", "parts": [part]}
    return {
        "candidates": [{"index": 0, "content": said, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
    }


class Handler(BaseHTTPRequestHandler):
    """One connection of an agent."""

    protocol_version = "HTTP/1.1"
    server: FakeModel

    def log_message(self, *args: object) -> None:
        """Stay silent."""

    def do_HEAD(self) -> None:
        """Be there."""
        self.reply({})

    def do_GET(self) -> None:
        """Know nothing else."""
        self.reply({}, 404)

    def do_POST(self) -> None:
        """Answer one turn."""
        asked = json.loads(self.read_body() or b"{}")
        path = self.path.partition("?")[0]
        if path.endswith("/messages"):
            model = str(asked.get("model"))
            whole, events = write_message(read_messages(asked), next(self.server.numbers), model)
            self.server.offered.update(tool_names(asked))
            if asked.get("stream"):
                self.reply_events(events)
            else:
                self.reply(whole)
        elif path.endswith(":streamGenerateContent"):
            self.server.offered.update(declared_names(asked))
            self.reply_events([write_candidate(read_contents(asked))])
        elif path.endswith(":generateContent"):
            self.reply(write_candidate(read_contents(asked)))
        elif path.endswith(("/count_tokens", ":countTokens")):
            self.reply({"input_tokens": 1, "totalTokens": 1})
        else:
            self.reply({"error": {"message": "no such call"}}, 404)

    def read_body(self) -> bytes:
        """Read a body of known length, or in chunks."""
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def reply(self, body: Json, status: int = 200) -> None:
        """Answer with JSON."""
        self.send(status, "application/json", json.dumps(body).encode())

    def reply_events(self, events: Iterable[Json]) -> None:
        """Answer with server-sent events; their names are in them."""
        lines = []
        for event in events:
            if "type" in event:
                lines.append(f"event: {event['type']}\n")
            lines.append(f"data: {json.dumps(event)}\n\n")
        self.send(200, "text/event-stream", "".join(lines).encode())

    def send(self, status: int, kind: str, content: bytes) -> None:
        """Send one answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class FakeModel(ThreadingHTTPServer):
    """
    The model, on a port of its own and in threads of its own.

    :ivar offered: names of the tools that agents let it call.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.numbers = itertools.count(1)
        self.offered: set[str] = set()
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where agents find it."""
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        """Stop serving."""
        self.shutdown()
        self.server_close()
        self._thread.join(10)
