"""A small blocking MCP client that keeps its session, or not, as the test likes."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

from tests.functional.gate_process import PATIENT_S, Answer, GateProcess

INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"roots": {}},
    "clientInfo": {"name": "test", "version": "1"},
}


class Client:
    """
    Speaks to ``/{server}/mcp`` with one key, on a connection of its own for each request.

    :ivar session: the session id it sends; None sends none.
    """

    def __init__(self, gate: GateProcess, server: str, key: str, *, plain: bool = False) -> None:
        self.gate = gate
        self.path = f"/{server}/mcp"
        self.key = key
        self.plain = plain
        self.session: str | None = None
        self.next_id = 0
        self._lock = threading.Lock()

    def fields(self, **fields: str) -> dict[str, str]:
        """Give the fields of each request."""
        given = {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        if self.session is not None:
            given["Mcp-Session-Id"] = self.session
        return {**given, **fields}

    def ask(self, method: str, body: bytes | None = None, **fields: str) -> Answer:
        """Send one request of any method."""
        connection = self.gate.connection(plain=self.plain)
        try:
            connection.request(method, self.path, body=body, headers=self.fields(**fields))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def post(self, message: object, **fields: str) -> Answer:
        """POST one message."""
        return self.ask("POST", json.dumps(message).encode(), **fields)

    def initialize(self, **params: object) -> Answer:
        """Shake hands and keep the session."""
        answer = self.request("initialize", {**INITIALIZE, **params})
        if answer.status == 200:
            self.session = answer.fields["Mcp-Session-Id"]
            self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def request(
        self, method: str, params: dict[str, Any] | None = None, id: object = None
    ) -> Answer:
        """Send one request."""
        with self._lock:
            self.next_id += 1
            number = self.next_id if id is None else id
        message: dict[str, object] = {"jsonrpc": "2.0", "id": number, "method": method}
        if params is not None:
            message["params"] = params
        return self.post(message)

    def call(self, tool: str, **arguments: object) -> Answer:
        """Call a tool."""
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def begin(self, tool: str, **arguments: object) -> Waiting:
        """Call a tool in a thread: the answer comes later."""
        return Waiting(lambda: self.call(tool, **arguments))

    @contextlib.contextmanager
    def streamed(self, method: str, params: dict[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
        """Send one request whose answer is an event stream: give its messages as they come."""
        message = {"jsonrpc": "2.0", "id": "streamed", "method": method, "params": params}
        connection = self.gate.connection(plain=self.plain)
        connection.request("POST", self.path, json.dumps(message).encode(), self.fields())
        response = connection.getresponse()
        try:
            yield events(response)
        finally:
            response.close()
            connection.close()

    @contextlib.contextmanager
    def listen(self, **fields: str) -> Iterator[http.client.HTTPResponse]:
        """Open the GET stream."""
        connection = self.gate.connection(plain=self.plain)
        connection.request("GET", self.path, headers=self.fields(**fields))
        response = connection.getresponse()
        try:
            yield response
        finally:
            response.close()
            connection.close()


class Waiting:
    """A call that is in work."""

    def __init__(self, ask: Any) -> None:
        self._answer: Answer | None = None
        self._error: Exception | None = None

        def run() -> None:
            try:
                self._answer = ask()
            except Exception as error:
                self._error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether it is answered, or has failed."""
        return not self._thread.is_alive()

    def answer(self, timeout_s: float = PATIENT_S) -> Answer:
        """
        Wait for the answer.

        :raises Exception: what sending it raised: the connection was lost.
        """
        self._thread.join(timeout_s)
        if self._error is not None:
            raise self._error
        assert self._answer is not None, f"no answer within {timeout_s} s"
        return self._answer


def events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Read the messages of a stream as they come."""
    while line := response.readline():
        if line.startswith(b"data:") and line[5:].strip():
            yield json.loads(line[5:])
