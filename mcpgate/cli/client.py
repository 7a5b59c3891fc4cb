"""
``mcpgate client CLIENT``: what to paste into a client, in the client's own form.

Or, for clients with a JSON file, what is already there with the servers added (``--into``).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mcpgate.cli.addresses import endpoint
from mcpgate.cli.edit import DONE, NOT_DONE, REFUSED, replace
from mcpgate.config.load import read_config
from mcpgate.config.model import Config
from mcpgate.config.problems import ConfigError, suggestion

_VARIABLE: Final = "MCPGATE_KEY"
_FILE_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What is to be written.

    :ivar urls: of the MCP endpoints, by server.
    :ivar key: the user's key; empty when it shall come from the environment.
    :ivar field: name of the HTTP field that carries it.
    """

    urls: Mapping[str, str]
    key: str
    field: str

    def header(self, reference: str) -> str:
        """Give the value of the field, with the key or a client's reference to the variable."""
        value = self.key or reference
        return f"Bearer {value}" if self.field.lower() == "authorization" else value


def _entries(wanted: Wanted, reference: str, **more: object) -> dict[str, Any]:
    return {
        name: {**more, "url": url, "headers": {wanted.field: wanted.header(reference)}}
        for name, url in wanted.urls.items()
    }


def _quoted(wanted: Wanted) -> str:
    """Give the field for a shell: a key as it is, else the variable, which the shell fills in."""
    header = f"{wanted.field}: {wanted.header(f'${_VARIABLE}')}"
    return shlex.quote(header) if wanted.key else f'"{header}"'


def _claude(wanted: Wanted) -> str:
    quoted = _quoted(wanted)
    return "".join(
        f"claude mcp add --transport http {name} {url} --header {quoted}\n"
        for name, url in wanted.urls.items()
    )


def _gemini(wanted: Wanted) -> str:
    return _claude(wanted).replace("claude mcp add", "gemini mcp add --scope user")


def _claude_project(wanted: Wanted) -> dict[str, Any]:
    return {"mcpServers": _entries(wanted, f"${{{_VARIABLE}}}", type="http")}


def _desktop(wanted: Wanted) -> dict[str, Any]:
    key = wanted.key or f"<your key: {_VARIABLE}>"
    field = "X-API-Key" if wanted.field.lower() == "authorization" else wanted.field
    # Without a blank after the colon: some platforms split arguments at blanks.
    return {
        "mcpServers": {
            name: {
                "command": "npx",
                "args": [
                    *("-y", "mcp-remote@0.15.1", url, "--transport", "http-only"),
                    *("--header", f"{field}:${{{_VARIABLE}}}"),
                ],
                "env": {_VARIABLE: key},
            }
            for name, url in wanted.urls.items()
        }
    }


def _vscode(wanted: Wanted) -> dict[str, Any]:
    told: dict[str, Any] = {"servers": _entries(wanted, "${input:mcpgate-key}", type="http")}
    if not wanted.key:
        prompt = {"id": "mcpgate-key", "type": "promptString", "description": "Your key"}
        told["inputs"] = [{**prompt, "password": True}]
    return told


def _cursor(wanted: Wanted) -> dict[str, Any]:
    return {"mcpServers": _entries(wanted, f"${{env:{_VARIABLE}}}")}


def _codex(wanted: Wanted) -> str:
    bearer = wanted.field.lower() == "authorization"
    which = (
        f'bearer_token_env_var = "{_VARIABLE}"'
        if bearer
        else f'env_http_headers = {{ "{wanted.field}" = "{_VARIABLE}" }}'
    )
    return "\n".join(
        f"[mcp_servers.{name}]\nurl = {json.dumps(url)}\n{which}\n"
        for name, url in wanted.urls.items()
    )


def _openwebui(wanted: Wanted) -> str:
    lines = ["Admin Settings, External Tools, Add Server, for each:\n"]
    for url in wanted.urls.values():
        lines.append(f"  Type: MCP (Streamable HTTP)   URL: {url}   Auth: Bearer, and the key\n")
    return "".join(lines)


def _curl(wanted: Wanted) -> str:
    initialize = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
        '"capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}'
    )
    header = _quoted(wanted)
    return "".join(
        f"curl -H {header} -H 'Content-Type: application/json' {url} -d '{initialize}'\n"
        for url in wanted.urls.values()
    )


FORMS: Final[Mapping[str, Callable[[Wanted], str | dict[str, Any]]]] = {
    "claude": _claude,
    "claude-project": _claude_project,
    "claude-desktop": _desktop,
    "vscode": _vscode,
    "cursor": _cursor,
    "gemini": _gemini,
    "codex": _codex,
    "openwebui": _openwebui,
    "curl": _curl,
}


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "client",
        help="show what to paste into a client",
        description="Show what to paste into a client, in its own form. Without --key the key "
        f"comes from the environment variable {_VARIABLE}, or the client asks for it.",
    )
    parser.add_argument("client", choices=tuple(FORMS), metavar="CLIENT", help=", ".join(FORMS))
    parser.add_argument("servers", nargs="*", metavar="SERVER", help="default: every server")
    parser.add_argument("--config", type=Path, default=Path("gate.ini"), metavar="FILE")
    parser.add_argument("--url", metavar="BASE", help="instead of the one of the configuration")
    parser.add_argument("--key", help="write this key out; others on this machine may see it")
    parser.add_argument(
        "--key-file", type=Path, metavar="FILE", help="the same, the key read from a file"
    )
    parser.add_argument(
        "--header", default="Authorization", metavar="NAME", help="the field that carries the key"
    )
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help="add to this file of the client's (JSON only)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print or add; give the exit code."""
    try:
        config = read_config(arguments.config, os.environ)
        key = arguments.key or ""
        if arguments.key_file is not None:
            key = arguments.key_file.read_text(encoding="utf-8").strip()
        wanted = _wanted(config, arguments, key)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return REFUSED
    except (OSError, UnicodeDecodeError) as error:
        print(f"{arguments.key_file}: the file can not be read: {error}", file=sys.stderr)
        return REFUSED
    except LookupError as error:
        print(f"mcpgate client: {error.args[0]}", file=sys.stderr)
        return NOT_DONE
    told = FORMS[arguments.client](wanted)
    if arguments.into is not None:
        return _merge(arguments.into, told)
    print(told if isinstance(told, str) else json.dumps(told, indent=2) + "\n", end="")
    return DONE


def _wanted(config: Config, arguments: argparse.Namespace, key: str) -> Wanted:
    base = (arguments.url or "").rstrip("/")
    known = [spec.name for spec in config.servers]
    for name in arguments.servers:
        if name not in known:
            remedy = suggestion(name, known)
            raise LookupError(f"there is no server {name}. {remedy}".rstrip())
    names = arguments.servers or known
    if not names:
        raise LookupError("there is no server yet. Add one: mcpgate add NAME")
    urls = {name: endpoint(config, name, base) for name in names}
    return Wanted(urls, key, arguments.header)


def _merge(path: Path, told: str | dict[str, Any]) -> int:
    """Add to a client's JSON file, everything else left as it is."""
    if isinstance(told, str):
        print("mcpgate client: this client has no JSON file; paste the lines", file=sys.stderr)
        return REFUSED
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if len(before) > _FILE_BYTES:
            raise ValueError("it is too large")
        document = json.loads(before) if before.strip() else {}
        if not isinstance(document, dict):
            raise ValueError("it holds no object")
        for name, value in told.items():
            _add(document, name, value)
        after = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        if path.exists():
            kept = replace(path, before, after)
            print(f"{path}: changed; what was there before is {kept.name}.")
        else:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(after)
            print(f"{path}: written.")
    except (OSError, ValueError, RecursionError) as error:
        print(f"{path}: nothing was changed: {error}", file=sys.stderr)
        return NOT_DONE
    return DONE


def _add(document: dict[str, Any], name: str, value: Any) -> None:
    there = document.get(name)
    if isinstance(value, list):
        listed = there if isinstance(there, list) else []
        document[name] = listed + [one for one in value if one not in listed]
    elif there is None:
        document[name] = value
    elif isinstance(there, dict):
        there.update(value)
    else:
        raise ValueError(f"{name} is no object in it")
