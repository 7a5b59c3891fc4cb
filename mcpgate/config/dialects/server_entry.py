"""
One entry of an ``mcpServers`` file, in the words of any client or proxy that has such files.

All of them name a program (``command``, ``args``, ``env``) or an address (``url``, ``headers``);
they differ in what they call the rest.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from mcpgate.config.dialects.docker_run import is_docker_run, take_docker_run
from mcpgate.config.dialects.entries import Server, our_text, set_all, set_command
from mcpgate.config.units import format_duration

_ADDRESS: Final = ("url", "httpUrl", "serverUrl", "uri")
_KINDS: Final = ("type", "transport", "transportType")
# Said by others for themselves, or of no use to a gate.
_SILENT: Final = frozenset(
    {"name", "description", "gallery", "version", "$schema", "id", "title", "icon", "trust", "dev"}
)
_LISTS: Final = frozenset(
    "disabledTools disabled_tools enabled_tools includeTools excludeTools autoApprove alwaysAllow "
    "tools toolFilter".split()
)
_KNOWN: Final = frozenset(
    {
        "command",
        "args",
        "env",
        "environment",
        "cwd",
        "headers",
        "http_headers",
        "env_http_headers",
        "bearer_token_env_var",
        "timeout",
        "tool_timeout_sec",
        "startup_timeout_sec",
        "disabled",
        "enabled",
        "envFile",
        "options",
        "restartOnExit",
        "maxRestarts",
        "restartDelay",
        "mcpgate",
        "openapi",
        *_ADDRESS,
        *_KINDS,
    }
)
# A timeout without a unit that is longer than this is meant in milliseconds.
_MOST_SECONDS: Final = 1000.0


def take_entry(server: Server, entry: Mapping[str, object], environ: Mapping[str, str]) -> bool:
    """Set the keys of a server; False where the entry tells neither a program nor an address."""
    kind = _kind(entry)
    if "command" in entry:
        words = _words(server, entry)
        if words is None:
            return False
        if address := _fetched(words):
            # "curl -X POST URL" speaks no MCP on stdio; what it calls does.
            server.notes.append(f"{words[0]} is no MCP server: its address was taken")
            taken = _remote(server, kind, {"url": address, **entry}, environ)
        else:
            taken = _program(server, words, entry, environ)
    else:
        taken = _remote(server, kind, entry, environ)
    if not taken:
        return False
    _life(server, entry)
    _own(server, entry)
    _leave_out(server, entry)
    return True


def _kind(entry: Mapping[str, object]) -> str:
    for name in _KINDS:
        value = entry.get(name)
        if isinstance(value, dict):
            value = value.get("type")
        if isinstance(value, str):
            return value.lower().replace("_", "-")
    return ""


def _words(server: Server, entry: Mapping[str, object]) -> list[str] | None:
    command, arguments = entry["command"], entry.get("args", [])
    if isinstance(command, list):
        command, arguments = (command[0] if command else ""), [*command[1:], *_listed(arguments)]
    if not isinstance(command, str) or not command.strip():
        server.notes.append("command: it is no text")
        return None
    words = _listed(arguments)
    if any(not isinstance(word, str | int | float) for word in words):
        server.notes.append("args: not every one is a text")
        return None
    try:
        # Some write the whole line into "command".
        first = [command] if words or "/" in command[:1] else shlex.split(command)
    except ValueError:
        first = [command]
    return [*first, *map(str, words)]


def _fetched(words: list[str]) -> str:
    """Give the address that a command line only fetches or bridges to, else nothing."""
    if words[0].rsplit("/", 1)[-1] not in ("curl", "wget"):
        return ""
    return next((word for word in words if word.startswith(("http://", "https://"))), "")


def _listed(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _program(
    server: Server, words: list[str], entry: Mapping[str, object], environ: Mapping[str, str]
) -> bool:
    variables = entry.get("env", entry.get("environment"))
    if is_docker_run(words):
        # docker run -e NAME takes the value from its own environment, which is the entry's.
        given = variables if isinstance(variables, dict) else {}
        passed = {
            f"env.{name}": str(value) for name, value in given.items() if isinstance(value, str)
        }
        if not take_docker_run(server, words, environ):
            server.notes.append("command: this docker run names no image")
            return False
        for number, (key, value) in enumerate(server.keys):
            if value == f"${{{key.removeprefix('env.')}}}" and key in passed:
                server.keys[number] = (key, our_text(server, key, passed[key], environ))
        return True
    set_command(server, words, environ)
    if isinstance(cwd := entry.get("cwd"), str) and cwd:
        server.set("cwd", our_text(server, "cwd", cwd, environ))
    set_all(server, "env", variables, environ)
    if "envFile" in entry:
        server.notes.append("envFile: left out; write its variables as env.NAME")
    return True


def _remote(
    server: Server, kind: str, entry: Mapping[str, object], environ: Mapping[str, str]
) -> bool:
    key = next((name for name in _ADDRESS if isinstance(entry.get(name), str)), "")
    document = _document(entry)
    if not key and not document:
        server.notes.append("it has neither a command nor a url")
        return False
    address = str(entry.get(key, ""))
    if key:
        server.set("url", our_text(server, "url", address, environ))
    path = urlsplit(address).path.rstrip("/")
    if document:
        server.set("openapi", our_text(server, "openapi", document, environ))
    elif kind == "sse" or (not kind and path.endswith("/sse")):
        server.set("transport", "sse")
    elif kind not in ("", "http", "streamable-http", "streamablehttp", "remote"):
        server.notes.append(f"{kind}: not a transport the gate knows; http is assumed")
    set_all(server, "header", entry.get("headers", entry.get("http_headers")), environ)
    from_variables = entry.get("env_http_headers")
    if isinstance(from_variables, dict):
        for name, variable in from_variables.items():
            server.set(f"header.{name}", f"${{{variable}}}")
    if isinstance(variable := entry.get("bearer_token_env_var"), str):
        server.set("header.Authorization", f"Bearer ${{{variable}}}")
    return True


def _document(entry: Mapping[str, object]) -> str:
    """Give the OpenAPI document of a REST service, a path or a URL; empty when there is none."""
    own = entry.get("mcpgate")
    for holder in (own if isinstance(own, dict) else {}, entry):
        document = holder.get("openapi")
        if isinstance(document, str) and document:
            return document
    return ""


def _life(server: Server, entry: Mapping[str, object]) -> None:
    if entry.get("disabled") is True or entry.get("enabled") is False:
        server.set("enabled", "off")
    for name, key in (
        ("timeout", "call_timeout"),
        ("tool_timeout_sec", "call_timeout"),
        ("startup_timeout_sec", "start_timeout"),
    ):
        value = entry.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            seconds = value / 1000 if value > _MOST_SECONDS else float(value)
            server.set(key, format_duration(seconds))
            if key == "call_timeout" and seconds > 600:
                server.set("call_timeout_max", format_duration(seconds))
            if key == "start_timeout" and seconds < 60:
                server.set("start_wait", format_duration(seconds))


def _own(server: Server, entry: Mapping[str, object]) -> None:
    """Take over keys of the gate's own, as they are: they come last and win."""
    own = entry.get("mcpgate")
    if not isinstance(own, dict):
        return
    for key, value in own.items():
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        server.keys = [pair for pair in server.keys if pair[0] != key]
        server.set(key, text)


def _leave_out(server: Server, entry: Mapping[str, object]) -> None:
    options = entry.get("options")
    inner = options if isinstance(options, dict) else {}
    if any(name in _LISTS for name in (*entry, *inner)):
        server.notes.append("lists of allowed or hidden tools are not taken over")
    if "authTokens" in inner:
        server.notes.append("authTokens: make keys with mcpgate keys add")
    for name in sorted(set(entry) - _KNOWN - _LISTS - _SILENT):
        server.notes.append(f"{name}: left out, the gate has no key for it")
