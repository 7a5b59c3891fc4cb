"""
Clients that call one tool again and again, each on a connection of its own, and check each answer.

    python -m bench.programs.mcp_load JSON

The task: ``port``, ``path``, ``tool`` (or ``tools``, one for each client in turn), ``method`` (if
not tools/call), ``era`` (legacy, modern; none: a POST that is no MCP, to
whatever answers 200), ``clients``, ``seconds``,
``warm_seconds``, ``fields`` (HTTP fields), ``keys`` (one for each client in turn), ``handshakes``
(sessions opened in all, the clients' own among them; the rest stay idle), ``pid`` (whose use of the
machine is told, but for processes whose command line holds ``without``).  Or ``command``: a stdio
server that one client speaks to directly.  Prints what it saw as one JSON object.

One thread on epoll: what this program costs is not what is measured, but it shares a core.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
import time
from typing import Any

import httptools

from bench.lab.usage import usage

HOST = "127.0.0.1"
MODERN = "2026-07-28"
LEGACY = "2025-06-18"
PREFIX = "io.modelcontextprotocol/"
CLIENT = {"name": "bench", "version": "1"}
PATIENCE_S = 30.0


class LoadError(Exception):
    """An answer was not what it had to be."""


class Client:
    """One client: at most one request is under way."""

    def __init__(self, task: dict[str, Any], number: int) -> None:
        self.task = task
        self.modern = task["era"] == "modern"
        self.number = number
        self.method = task.get("method", "tools/call")
        self.id = 0
        self.session = ""
        self.sent_s = 0.0
        self.sock: socket.socket | None = None
        keys = task.get("keys") or []
        self.key = keys[number % len(keys)] if keys else ""
        self.begin_answer()

    # --- What httptools calls -------------------------------------------------------------------

    def begin_answer(self) -> None:
        """Forget the last answer."""
        self.body: list[bytes] = []
        self.over = False
        self.found: dict[bytes, bytes] = {}
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep what matters."""
        self.found[name.lower()] = value

    def on_body(self, data: bytes) -> None:
        """Keep a piece."""
        self.body.append(data)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self.over = True

    # --- Requests -------------------------------------------------------------------------------

    def head(self, method: str, name: str = "", verb: str = "POST") -> str:
        """Make the fields of a request, all but its length."""
        lines = [
            f"{verb} {self.task['path']} HTTP/1.1",
            f"Host: {HOST}:{self.task['port']}",
            "Content-Type: application/json",
            "Accept: application/json, text/event-stream",
        ]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        if self.modern:
            lines += [f"MCP-Protocol-Version: {MODERN}", f"Mcp-Method: {method}"]
            lines += [f"Mcp-Name: {name}"] if name else []
        elif self.session:
            lines += [f"MCP-Protocol-Version: {LEGACY}", f"Mcp-Session-Id: {self.session}"]
        return "\r\n".join(lines) + "\r\n"

    def request(self, method: str, params: dict[str, Any], *, notify: bool = False) -> bytes:
        """Make a request, head and body."""
        if self.modern:
            about = {PREFIX + "protocolVersion": MODERN, PREFIX + "clientCapabilities": {}}
            params = {**params, "_meta": {**about, PREFIX + "clientInfo": CLIENT}}
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if not notify:
            self.id += 1
            message["id"] = self.id
        body = json.dumps(message).encode()
        head = self.head(method, str(params.get("name", "")))
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def connect(self) -> socket.socket:
        """Open the connection, when it is not."""
        if self.sock is None:
            self.sock = socket.create_connection((HOST, self.task["port"]), PATIENCE_S)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.sock

    def ask(self, request: bytes) -> dict[str, Any] | None:
        """Send one request and wait for its answer."""
        sock = self.connect()
        self.begin_answer()
        sock.sendall(request)
        while not self.over:
            data = sock.recv(1 << 16)
            if not data:
                raise LoadError("the connection was closed in an answer")
            self.parser.feed_data(data)
        return self.answer(notification=b'"id"' not in request)

    def shake_hands(self) -> None:
        """Become a session; a modern client only looks whether it is served."""
        if self.task["era"] == "none":
            return
        if self.modern:
            self.ask(self.request("tools/list", {}))
            return
        hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
        self.ask(self.request("initialize", hello))
        self.session = self.found.get(b"mcp-session-id", b"").decode()
        self.ask(self.request("notifications/initialized", {}, notify=True))

    def look(self) -> None:
        """Forget a connection that the server closed while others shook hands."""
        if self.sock is not None:
            self.sock.setblocking(False)
            try:
                self.sock.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return
            except OSError:
                pass
            self.sock.close()
            self.sock = None

    def leave(self) -> None:
        """End the session, as good clients do; who can not end one has lost nothing."""
        if self.session:
            with contextlib.suppress(LoadError, OSError, ValueError, httptools.HttpParserError):
                self.ask(f"{self.head('', verb='DELETE')}\r\n".encode())

    def prepare(self, tool: str) -> None:
        """Make the call that is sent again and again, but for its id."""
        params: dict[str, Any] = {"name": tool, "arguments": {"message": f"of {self.number}"}}
        self.id = 100_000_000  # As many digits for every id: one length fits all.
        whole = self.request(self.method, params if self.method == "tools/call" else {})
        self.before, self.after = whole.split(b"%d" % self.id)
        self.wanted = params["arguments"]["message"]

    def call(self, poll: select.epoll) -> None:
        """Send the call."""
        if self.sock is None:
            poll.register(self.connect(), select.EPOLLIN)
            assert self.sock is not None
            self.sock.setblocking(False)
        self.id += 1
        self.begin_answer()
        self.sent_s = time.perf_counter()
        self.sock.send(b"%b%d%b" % (self.before, self.id, self.after))

    def readable(self) -> bool:
        """Take what came; tell whether the answer is whole."""
        assert self.sock is not None
        data = self.sock.recv(1 << 16)
        if not data:
            raise LoadError("the connection was closed in an answer")
        self.parser.feed_data(data)
        return self.over

    # --- Answers --------------------------------------------------------------------------------

    def answer(self, *, notification: bool = False) -> dict[str, Any] | None:
        """Read the answer; :raises LoadError: it is not one to what was asked."""
        status = self.parser.get_status_code()
        text = b"".join(self.body)
        if notification and status in (200, 202, 204):
            return None
        if status != 200:
            raise LoadError(f"status {status}: {text[:200].decode('utf-8', 'replace')}")
        if self.found.get(b"content-type", b"").startswith(b"text/event-stream"):
            lines = text.replace(b"\r\n", b"\n").split(b"\n")
            told = [line[5:] for line in lines if line.startswith(b"data:") and line[5:].strip()]
            if not told:
                raise LoadError("a stream without an event")
            text = told[-1]
        message: dict[str, Any] = json.loads(text)
        if self.task["era"] == "none":
            return message
        if message.get("id") != self.id or "result" not in message:
            raise LoadError(f"not the answer to {self.id}: {text[:200].decode('utf-8', 'replace')}")
        return message

    def check(self) -> None:
        """Check the answer to the call."""
        message = self.answer()
        assert message is not None
        if self.task["era"] == "none" or self.method != "tools/call":
            return
        if message["result"]["content"][0]["text"] != self.wanted:
            raise LoadError(f"another's answer: {message['result']}")

    def let_go(self, poll: select.epoll) -> None:
        """Close the connection when the server wants that."""
        if self.found.get(b"connection", b"").lower() == b"close" and self.sock is not None:
            poll.unregister(self.sock)
            self.sock.close()
            self.sock = None


class Tally:
    """What was seen: times of answers, and what went wrong."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.failed = 0
        self.why = ""

    def fail(self, why: object) -> None:
        """Count what went wrong; keep the first."""
        self.failed += 1
        self.why = self.why or f"{type(why).__name__}: {why}"

    def told(self, seconds: float, **more: object) -> dict[str, object]:
        """Give what is printed."""
        times = sorted(self.times_s)
        found: dict[str, object] = {"answers": len(times), "seconds": seconds, **more}
        if times:
            found["p50_ms"] = times[len(times) // 2] * 1000
            found["max_ms"] = times[-1] * 1000
            found["p99_ms"] = times[min(len(times) - 1, len(times) * 99 // 100)] * 1000
        return {**found, "failed": self.failed, "why": self.why}


def work(clients: list[Client], seconds: float, tally: Tally) -> float:
    """Let every client call until the time is over; give how long it was."""
    poll = select.epoll()
    by_number: dict[int, Client] = {}
    for client in clients:
        client.look()
        if client.sock is not None:
            client.sock.setblocking(False)
            poll.register(client.sock, select.EPOLLIN)
    begun = time.perf_counter()
    end = begun + seconds

    def send(client: Client) -> None:
        try:
            client.call(poll)
        except OSError as error:
            tally.fail(error)
            return
        assert client.sock is not None
        by_number[client.sock.fileno()] = client

    for client in clients:
        send(client)
    last = time.perf_counter()
    while by_number:
        ready = poll.poll(PATIENCE_S)
        if not ready:
            for _ in by_number:
                tally.fail(LoadError(f"no answer within {PATIENCE_S:.0f} s"))
            break
        for number, _ in ready:
            if number not in by_number:  # closed by the other side between two calls
                poll.unregister(number)
                continue
            client = by_number[number]
            try:
                if not client.readable():
                    continue
                client.check()
            except (LoadError, OSError, ValueError, KeyError, httptools.HttpParserError) as error:
                tally.fail(error)
                del by_number[number]
                continue
            last = time.perf_counter()
            tally.times_s.append(last - client.sent_s)
            del by_number[number]
            client.let_go(poll)
            if last < end:
                send(client)
    poll.close()
    for client in clients:
        if client.sock is not None:
            client.sock.settimeout(PATIENCE_S)
    return max(last, end) - begun


def over_http(task: dict[str, Any]) -> dict[str, object]:
    """Call over HTTP."""
    count = max(task["clients"], task.get("handshakes", 0))
    clients = [Client(task, number) for number in range(count)]
    begun = time.perf_counter()
    for client in clients:
        client.shake_hands()
        tools = task.get("tools") or [task["tool"]]
        client.prepare(tools[client.number % len(tools)])
        if client.number >= task["clients"] and client.sock is not None:
            client.sock.close()
            client.sock = None
    hands_s = time.perf_counter() - begun
    clients = clients[: task["clients"]]
    warm, tally = Tally(), Tally()
    work(clients, task["warm_seconds"], warm)
    if warm.failed and not warm.times_s:
        return warm.told(0.0)
    pid, without = task.get("pid", 0), task.get("without", "")
    before = usage(pid, without=without) if pid else None
    seconds = work(clients, task["seconds"], tally)
    more: dict[str, object] = {"hands_ms": hands_s / count * 1000}
    if before is not None:
        after, whole = usage(pid, without=without), usage(pid)
        more |= after.since(before, seconds, max(1, len(tally.times_s)))
        more |= {"rss_mib": whole.rss_mib, "processes": whole.processes}
    if not task.get("handshakes"):
        for client in clients:
            client.leave()
    return tally.told(seconds, **more)


def over_a_pipe(task: dict[str, Any]) -> dict[str, object]:
    """Call a stdio server directly, one call after the other."""
    tally = Tally()
    process = subprocess.Popen(task["command"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": 0, "method": "initialize"}
        process.stdin.write(json.dumps({**message, "params": hello}).encode() + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        begun = time.perf_counter()
        number = 0
        while (now := time.perf_counter()) < begun + task["seconds"]:
            number += 1
            params = {"name": task["tool"], "arguments": {"message": "straight"}}
            message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            told = json.loads(process.stdout.readline())
            if told["id"] != number or "result" not in told:
                raise LoadError(f"not the answer to {number}: {told}")
            tally.times_s.append(time.perf_counter() - now)
    finally:
        process.stdin.close()
        process.wait(10)
    return tally.told(time.perf_counter() - begun)


def main(text: str) -> None:
    """Do the task."""
    task = json.loads(text)
    try:
        told = over_a_pipe(task) if "command" in task else over_http(task)
    except (LoadError, OSError, ValueError, httptools.HttpParserError) as error:
        told = {"answers": 0, "failed": 1, "why": f"{type(error).__name__}: {error}"}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
