"""``mcpgate status``: how each server of a running gate is, one line each."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from mcpgate.cli.control_client import (
    ControlClient,
    add_arguments,
    asking,
    print_json,
    print_table,
    span,
)
from mcpgate.telemetry.escaping import clean

# The first of these that an instance is in is told of the server.
_ORDER: Final = ("failed", "unresponsive", "running", "starting", "stopping", "stopped")


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "status",
        help="tell how each server is",
        description="Tell of each server what its instances do: failed (the last start failed, "
        "it is left alone for dying too often, or its document is missing), unresponsive (it did "
        "not answer when it was asked last; some copies may), running, starting, stopping, stopped "
        "(the next call starts it), unused (nobody has called), remote (it runs elsewhere); and "
        "how its tools are to those that are trusted. Exit code 3: no gate is running.",
    )
    parser.add_argument("server", nargs="?", metavar="SERVER", help="only this one")
    add_arguments(parser, ("table", "json", "names"))
    parser.set_defaults(run=asking(_status))


def _status(arguments: argparse.Namespace, gate: ControlClient) -> None:
    servers = [one for one in gate.get("/servers")["servers"] if one["kind"] == "server"]
    instances, sessions = gate.get("/instances")["instances"], gate.get("/sessions")["sessions"]
    found = [
        _of(one, instances, sessions) for one in servers if arguments.server in (None, one["name"])
    ]
    if arguments.format == "json":
        print_json(found)
    elif arguments.format == "names":
        for one in found:
            print(clean(one["server"]))
    else:
        print_table(
            (
                *("SERVER", "STATE", "RUNNING", "HEARD", "SESSIONS", "CALLS", "ERA", "TOOLS"),
                "LAST ERROR",
            ),
            [
                (
                    *(one["server"], one["state"], one["running"], span(one["heard_s"])),
                    *(one["sessions"], one["calls"], one["era"], one["tools"], one["error"]),
                )
                for one in found
            ],
        )


def _of(
    server: Mapping[str, Any],
    instances: Sequence[Mapping[str, Any]],
    sessions: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    name = server["name"]
    own = [one for one in instances if one["server"] == name]
    states = [_state(one) for one in own]
    state = next((state for state in _ORDER if state in states), "unused")
    if server["runtime"] == "remote" and state not in ("failed", "unresponsive"):
        state = "remote"
    errors = [one["error"] or (one["exit_reason"] if _died(one) else "") for one in own]
    document = server.get("document")
    if document is not None:
        errors.append(told_of(document))
        if document["state"] == "missing":
            state = "failed"
    return {
        "server": name,
        "state": state,
        "running": states.count("running"),
        "heard_s": min(
            (one["heard_s"] for one in own if one.get("heard_s") is not None), default=None
        ),
        "sessions": sum(one["server"] == name for one in sessions),
        "calls": sum(one["calls"] for one in own),
        "era": server["era"],
        "tools": server["tools"],
        "error": next(filter(None, errors), ""),
        "document": document,
    }


def told_of(document: Mapping[str, Any]) -> str:
    """Say what is the matter with an OpenAPI document that is fetched; empty when nothing is."""
    state, error = document["state"], document["error"]
    if state == "missing":
        return f"it has no OpenAPI document: {error or 'it is being fetched'}"
    if not error:
        return ""
    at = datetime.fromtimestamp(document["fetched_at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"its OpenAPI document of {at} serves on: {error}"


def _state(instance: Mapping[str, Any]) -> str:
    """Give the state; what does not run because it failed is no stopped one."""
    state: str = instance["state"]
    quiet = state in ("stopped", "absent")
    return "failed" if quiet and (instance["error"] or _died(instance)) else state


def _died(instance: Mapping[str, Any]) -> bool:
    return instance["exit_reason"] not in ("", "stopped")
