"""
A stdio MCP server on the standard library, with the tools of ``http_mcp.py``.

Tools: ``echo`` (message), ``slow`` (seconds; tells of progress five times), ``die`` (last words,
exit 3), ``env`` (of: a variable), ``count`` (calls so far), ``log`` (text; to stderr and as a
notification), ``list_changed``, ``roots`` (asks the client), ``pid``, ``where`` (its directory),
``big`` (size), ``junk`` (prints what is no message).  In its environment: MORE_TOOLS: a file with
names of tools it lists beside these; START_WHEN: a file without which it does not come up.
"""

# ruff: noqa: T201, TID251 - a program of its own: it prints and sleeps.

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

LOCK = threading.Lock()
ANSWERED = threading.Condition()
ANSWERS: dict[str, Any] = {}
STATE: dict[str, Any] = {"calls": 0, "asked": 0, "level": "unset"}
NAMES = ("echo", "slow", "die", "env", "count", "log", "list_changed", "roots", "pid", "where")


def say(**message: Any) -> None:
    """Write one message."""
    line = json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
    with LOCK:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def more_tools() -> list[str]:
    """Give the names in the file MORE_TOOLS, if there is one."""
    path = Path(os.environ.get("MORE_TOOLS", "/"))
    return path.read_text().split() if path.is_file() else []


def ask_roots() -> Any:
    """Ask the client for its roots and wait for the answer."""
    with ANSWERED:
        STATE["asked"] = STATE["asked"] + 1
        number = f"ask-{STATE['asked']}"
        say(id=number, method="roots/list")
        ANSWERED.wait_for(lambda: number in ANSWERS, 10)
        return ANSWERS.pop(number, None)


def run(id: Any, params: dict[str, Any]) -> None:
    """Run one tool."""
    name, arguments = params["name"], params.get("arguments") or {}
    token = (params.get("_meta") or {}).get("progressToken")
    told: object = ""
    if name == "echo":
        told = f"echo: {arguments['message']}"
    elif name == "slow":
        for step in range(5):
            time.sleep(arguments["seconds"] / 5)
            if token is not None:
                progress = {"progressToken": token, "progress": step + 1, "total": 5}
                say(method="notifications/progress", params=progress)
        told = "slow done"
    elif name == "die":
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    elif name == "env":
        told = os.environ.get(arguments["of"], "unset")
    elif name == "count":
        told = STATE["calls"]
    elif name == "log":
        print(arguments["text"], file=sys.stderr, flush=True)
        log = {"level": "warning", "data": arguments["text"]}
        say(method="notifications/message", params=log)
    elif name == "list_changed":
        say(method="notifications/tools/list_changed")
    elif name == "roots":
        told = json.dumps(ask_roots())
    elif name == "level":
        told = STATE["level"]
    elif name == "pid":
        told = os.getpid()
    elif name == "where":
        told = os.getcwd()
    elif name == "big":
        told = "x" * int(arguments["size"])
    elif name == "junk":
        with LOCK:
            sys.stdout.buffer.write(b"Listening on stdio...\n{\xff\n" + b"x" * 100_000 + b"\n\n")
            sys.stdout.buffer.flush()
    say(id=id, result={"content": [{"type": "text", "text": str(told)}]})


def take(message: dict[str, Any]) -> None:
    """Take one message."""
    method, id = message.get("method"), message.get("id")
    params = message.get("params") or {}
    if method == "initialize":
        result = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}, "logging": {}},
            "serverInfo": {"name": "fake-stdio", "version": "1"},
        }
        say(id=id, result=result)
    elif method == "tools/list":
        names = [*NAMES, *more_tools()]
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
        say(id=id, result={"tools": tools})
    elif method == "logging/setLevel":
        STATE["level"] = params["level"]
        say(id=id, result={})
    elif method == "tools/call":
        STATE["calls"] = STATE["calls"] + 1
        if params["name"] in ("slow", "roots"):
            threading.Thread(target=run, args=(id, params), daemon=True).start()
        else:
            run(id, params)
    elif method is None:
        with ANSWERED:
            ANSWERS[str(id)] = message.get("result", message.get("error"))
            ANSWERED.notify_all()
    elif id is not None:
        say(id=id, error={"code": -32601, "message": "Method not found"})


def main() -> None:
    """Serve until stdin ends."""
    while not Path(os.environ.get("START_WHEN", "/")).exists():
        time.sleep(0.02)
    if "CRASH" in os.environ:
        print("can not start: no license", file=sys.stderr, flush=True)
        sys.exit(4)
    for line in sys.stdin.buffer:
        take(json.loads(line))


if __name__ == "__main__":
    main()
