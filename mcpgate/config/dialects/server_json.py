"""``server.json`` of the MCP registry: packages to run and remotes to call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mcpgate.config.dialects.entries import Server, set_all, set_command

# What runs a package of each registry; npm's and PyPI's are fetched when they are first run.
_RUNNERS: Final[Mapping[str, tuple[str, ...]]] = {"npm": ("npx", "-y"), "pypi": ("uvx",)}
_JOINS: Final[Mapping[str, str]] = {"npm": "@", "pypi": "=="}


def is_server_json(document: Mapping[str, object]) -> bool:
    """Tell whether a document describes one server for a registry."""
    return isinstance(document.get("name"), str) and (
        isinstance(document.get("packages"), list) or isinstance(document.get("remotes"), list)
    )


def take_server_json(
    server: Server, document: Mapping[str, object], environ: Mapping[str, str]
) -> bool:
    """Set the keys from the first package that can be run, else from the first remote."""
    for package in _objects(document.get("packages")):
        if _package(server, package, environ):
            return True
    for remote in _objects(document.get("remotes")):
        url = remote.get("url")
        if isinstance(url, str) and "{" not in url:
            server.set("url", url.replace("$", "$$"))
            if remote.get("type") == "sse":
                server.set("transport", "sse")
            _inputs(server, "header", remote.get("headers"))
            return True
    server.notes.append("it has no package or remote that the gate can use")
    return False


def _objects(value: object) -> list[dict[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _package(server: Server, package: Mapping[str, object], environ: Mapping[str, str]) -> bool:
    kind = str(package.get("registryType", package.get("registry_name", "")))
    identifier, version = package.get("identifier", package.get("name")), package.get("version")
    if not isinstance(identifier, str):
        return False
    words: list[str] = []
    for argument in _objects(package.get("packageArguments")):
        value = argument.get("value", argument.get("default"))
        name = argument.get("name") if argument.get("type") == "named" else None
        if isinstance(value, str):
            words += [str(name), value] if name else [value]
        elif argument.get("isRequired"):
            server.notes.append(f"argument {argument.get('name', '')}: needs a value of yours")
    if kind == "oci":
        server.set("image", identifier)
        if words:
            set_command(server, words, environ)
        server.set("egress", "internet")
    elif kind in _RUNNERS:
        pinned = f"{identifier}{_JOINS[kind]}{version}" if isinstance(version, str) else identifier
        set_command(server, [*_RUNNERS[kind], pinned, *words], environ)
    else:
        return False
    transport = package.get("transport")
    if isinstance(transport, dict) and transport.get("type") not in (None, "stdio"):
        server.set("transport", "http")
        server.notes.append("tell it with {port} in command or env where to listen")
    _inputs(server, "env", package.get("environmentVariables"))
    return True


def _inputs(server: Server, stem: str, inputs: object) -> None:
    """Set variables or fields: their value, else one of the same name in the environment."""
    for one in _objects(inputs):
        name, value = one.get("name"), one.get("value", one.get("default"))
        if not isinstance(name, str):
            continue
        if isinstance(value, str) and "{" not in value:
            set_all(server, stem, {name: value}, {})
        elif one.get("isRequired"):
            variable = name.upper().replace("-", "_")
            server.set(f"{stem}.{name}", f"${{{variable}}}")
            server.notes.append(f"{stem}.{name}: set {variable}, or write {{key}} for users' own")
