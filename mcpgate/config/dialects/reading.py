"""Which dialect a text is in, and what servers it names."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from mcpgate.config.dialects.docker_run import is_docker_run, take_docker_run
from mcpgate.config.dialects.entries import (
    LIMIT_BYTES,
    LIMIT_SERVERS,
    Names,
    NotTakenError,
    Server,
    Taken,
)
from mcpgate.config.dialects.server_entry import take_entry
from mcpgate.config.dialects.server_json import is_server_json, take_server_json

_KEYS: Final = (
    "mcpServers",
    "servers",
    "mcp.servers",  # VS Code's settings.json, flat
    "mcp_servers",
    "context_servers",
    "mcp",
    "extensions",
)
_ENV_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_FORMS: Final = (
    "Known are mcpServers files (Claude, Cursor, Gemini, mcpo ..), VS Code's servers, mcpProxy "
    "files, server.json, Codex' config.toml, PORT/CMD/ARGS files and docker run lines"
)


def read_servers(text: str, name: str, environ: Mapping[str, str]) -> Taken:
    """
    Make servers of a text.

    :param name: what the file is called, without its ending: names a server that has no name.
    :param environ: decides ``${NAME:-default}``.
    :raises NotTakenError: it is none of the dialects, or not well-formed.
    """
    if len(text.encode("utf-8", "replace")) > LIMIT_BYTES:
        raise NotTakenError(f"The file is larger than {LIMIT_BYTES // 1024} KiB.")
    bare = text.removeprefix("\ufeff").strip()
    if not bare:
        raise NotTakenError(f"The file is empty. {_FORMS}.")
    if bare.startswith(("{", "[", "//", "/*")) and not bare.startswith("[mcp_servers"):
        return _document(_json(bare), name, environ)
    if re.search(r"^\s*\[mcp_servers[.\]]", bare, re.MULTILINE):
        import tomllib  # noqa: PLC0415 - few files need it

        try:
            return _document(tomllib.loads(bare), name, environ)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise NotTakenError(f"The file is not TOML: {error}.") from None
    return _lines(bare, name, environ)


def _json(text: str) -> object:
    """Read JSON, and JSON with comments and trailing commas."""
    try:
        return json.loads(text)
    except RecursionError:
        raise NotTakenError("The file is nested too deeply.") from None
    except ValueError as strict:
        import json5  # noqa: PLC0415 - few files need it, and it is large

        try:
            return json5.loads(text, allow_duplicate_keys=False)
        except RecursionError:
            raise NotTakenError("The file is nested too deeply.") from None
        except ValueError:
            raise NotTakenError(
                f"The file is not JSON, not even with comments: {strict}."
            ) from None


def _document(document: object, name: str, environ: Mapping[str, str]) -> Taken:
    if isinstance(document, list):
        document = {"servers": document}
    if not isinstance(document, dict):
        raise NotTakenError(f"The file holds no object. {_FORMS}.")
    taken, names = Taken("mcpServers"), Names()
    if is_server_json(document):
        taken.dialect = "server.json"
        server = names.server(str(document["name"]).rsplit("/", 1)[-1])
        if take_server_json(server, document, environ):
            taken.servers.append(server)
        taken.notes += _prefixed(server, [] if taken.servers else server.notes)
        return taken
    key, entries = _entries(document)
    if key == "servers":
        taken.dialect = "servers"
    if isinstance(proxy := document.get("mcpProxy"), dict):
        taken.dialect = "mcpProxy"
        _proxy(taken, proxy)
    if "inputs" in document:
        taken.notes.append("inputs: the gate asks nobody; put values or ${NAME} in their place")
    for wanted, entry in entries:
        if len(taken.servers) >= LIMIT_SERVERS:
            taken.notes.append(f"only the first {LIMIT_SERVERS} servers were taken")
            break
        server = names.server(wanted)
        if take_entry(server, entry, environ):
            taken.servers.append(server)
        else:
            taken.notes += _prefixed(server, server.notes)
    if not taken.servers and not taken.notes:
        raise NotTakenError(f"The file names no server. {_FORMS}.")
    return taken


def _prefixed(server: Server, notes: Iterable[str]) -> list[str]:
    return [f"{server.name} was left out: {note}" for note in notes]


def _entries(document: Mapping[str, object]) -> tuple[str, list[tuple[str, dict[str, object]]]]:
    for key in _KEYS:
        found = document.get(key)
        if isinstance(found, dict) and key == "mcp" and isinstance(found.get("servers"), dict):
            found = found["servers"]  # VS Code's settings.json
        if isinstance(found, dict):
            named = [(str(name), entry) for name, entry in found.items()]
        elif isinstance(found, list):
            named = [
                (str(entry.get("name", "")), entry) for entry in found if isinstance(entry, dict)
            ]
        else:
            continue
        return key, [(name, entry) for name, entry in named if isinstance(entry, dict)]
    if any(key in document for key in ("command", "url")):
        return "", [(str(document.get("name", "")), dict(document))]
    raise NotTakenError(f"The file names no server. {_FORMS}.")


def _proxy(taken: Taken, proxy: Mapping[str, object]) -> None:
    """Suggest what of another proxy's own settings belongs into ``[gate]``."""
    address, base = proxy.get("addr"), proxy.get("baseURL")
    if isinstance(address, str) and ":" in address:
        host, _, port = address.rpartition(":")
        if port.isdigit():
            inside = f":interface={host}" if host else ""
            taken.gate.append(("listen", f"tls:tcp:{port}{inside}"))
    if isinstance(base, str) and urlsplit(base).hostname:
        parts = urlsplit(base)
        taken.gate.append(("public_url", f"https://{parts.netloc}"))
        if parts.scheme == "http":
            taken.notes.append("baseURL: the gate speaks TLS; clients need the https address")
    options = proxy.get("options")
    if isinstance(options, dict) and options.get("authTokens"):
        taken.notes.append("authTokens: make a key for each user with mcpgate keys add")


def _lines(text: str, name: str, environ: Mapping[str, str]) -> Taken:
    """Read a ``docker run`` line, or the PORT/CMD/ARGS file of a unit."""
    names = Names()
    joined = text.replace("\\\n", " ")
    values: dict[str, str] = {}
    for line in joined.splitlines():
        found = _ENV_LINE.fullmatch(line.strip())
        if found:
            values[found[1]] = found[2].strip().strip('"')
    if "CMD" in values:
        server = names.server(name)
        words = [values.pop("CMD"), *_split(values.pop("ARGS", ""))]
        values.pop("PORT", None)
        entry: dict[str, object] = {"command": words[0], "args": words[1:], "env": values}
        taken = Taken("PORT/CMD/ARGS")
        if take_entry(server, entry, environ):
            taken.servers.append(server)
        taken.notes += _prefixed(server, [] if taken.servers else server.notes)
        return taken
    lines = [line.strip() for line in joined.splitlines()]
    words = _split(next((line for line in lines if line and line[0] != "#"), ""))
    if is_docker_run(words):
        server = names.server(_named(words) or name)
        if take_docker_run(server, words, environ):
            return Taken("docker run", [server])
        raise NotTakenError("This docker run names no image.")
    raise NotTakenError(f"The file names no server. {_FORMS}.")


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise NotTakenError(f"A command line can not be split: {error}.") from None


def _named(words: list[str]) -> str:
    for number, word in enumerate(words):
        if word == "--name":
            return "".join(words[number + 1 : number + 2])
        if word.startswith("--name="):
            return word.removeprefix("--name=")
    return ""
