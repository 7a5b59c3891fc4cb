"""
A stdio MCP server on the standard library that does whatever real ones were seen doing.

Tools: ``echo`` (answers its arguments), ``progress`` (tells of it three times first), ``ask``
(asks the client for its roots), ``noise`` (prints rubbish first), ``wait`` (answers when
cancelled, never otherwise), ``cancelled`` (lists what was cancelled), ``die`` (exits 3),
``broken`` (answers with NaN).
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

lock = threading.Lock()
cancelled: list[Any] = []
answers: dict[Any, Any] = {}
answered = threading.Condition()
counts = {"initialized": 0}


def say(**message: Any) -> None:
    """Write one message."""
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def text(value: Any) -> dict[str, Any]:
    """Make a tool's result."""
    return {"content": [{"type": "text", "text": json.dumps(value)}]}


def call(id: Any, params: dict[str, Any]) -> None:
    """Run one tool."""
    name, arguments = params["name"], params.get("arguments", {})
    if name == "progress":
        token = params["_meta"]["progressToken"]
        for done in (1, 2, 3):
            say(method="notifications/progress", params={"progressToken": token, "progress": done})
    elif name == "ask":
        say(id=0, method="roots/list")
        with answered:
            answered.wait_for(lambda: 0 in answers, 10)
            arguments = answers.pop(0, None)
    elif name == "noise":
        with lock:
            sys.stdout.buffer.write(b"Listening...\n\n{\xff\xfe\n" + b"x" * 100_000 + b"\n\r\n")
            sys.stdout.flush()
    elif name == "wait":
        return
    elif name == "cancelled":
        arguments = {"cancelled": len(cancelled), **counts}
    elif name == "die":
        sys.stderr.write("last words\n")
        sys.stderr.flush()
        sys.exit(3)
    elif name == "broken":
        arguments = {"n": float("nan")}
        say(id=id, result={"structuredContent": arguments})
        return
    say(id=id, result=text(arguments))


def main() -> None:
    """Serve until stdin ends."""
    sys.stdout.write("Chatty MCP server ready on stdio\n")
    for line in sys.stdin:
        message = json.loads(line)
        method, id = message.get("method"), message.get("id")
        params = message.get("params") or {}
        if method == "initialize":
            counts["initialized"] += 1
            say(
                id=id,
                result={
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "chatty", "version": "1"},
                },
            )
        elif method == "notifications/initialized":
            say(id="p", method="ping")
        elif method == "notifications/cancelled":
            cancelled.append(params["requestId"])
            say(id=params["requestId"], result=text("too late"))
        elif method == "tools/list":
            say(id=id, result={"tools": []})
        elif method == "tools/call":
            if params["name"] == "ask":
                threading.Thread(target=call, args=(id, params), daemon=True).start()
            else:
                call(id, params)
        elif method is None:
            with answered:
                answers[id] = message.get("result", message.get("error"))
                answered.notify_all()
        elif id is not None:
            say(id=id, error={"code": -32601, "message": "Method not found"})


if __name__ == "__main__":
    main()
