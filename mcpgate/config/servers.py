"""``[server:NAME]`` to `mcpgate.model.ServerSpec`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

from mcpgate.config.kinds import Surroundings, split_url
from mcpgate.config.model import GateSection, LimitsSection
from mcpgate.config.networks import is_private_host
from mcpgate.config.reading import Values
from mcpgate.config.rest import rest_service, rest_source
from mcpgate.config.schema import RESERVED_SERVERS
from mcpgate.config.sections import bucket, header_templates, ordered, written
from mcpgate.config.units import format_size
from mcpgate.model import (
    Container,
    Eras,
    Isolation,
    Lifetime,
    Pinning,
    Restraint,
    RESTSource,
    ServerSpec,
    Transport,
)

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_RUNTIMES: Final = {"command": "process", "image": "docker", "url": "remote"}
_A: Final = {"command": "a command", "image": "an image"}
_MOST_DESTINATIONS: Final = 32
_FILE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def check_server_name(values: Values) -> None:
    """Complain about names that would clash with paths or prefixes of our own (R81)."""
    if values.name in RESERVED_SERVERS:
        values.problem("", "the gate uses this name in its own paths", "Choose another name")


def server_spec(
    values: Values, gate: GateSection, limits: LimitsSection, around: Surroundings
) -> ServerSpec | None:
    """
    Make the spec; None when the section is too faulty to be looked at further.

    Servers with ``enabled = off`` are made as well.
    """
    check_server_name(values)
    how = _how(values)
    if how is None:
        return None
    for key in values.schema.keys:
        for name in written(values, key.name):
            if key.only and how not in key.only.split():
                values.problem(name, f"this key means nothing to a server with {how}", "Remove it")
    service = source = None
    if "openapi" in values:
        if isinstance(values.found.get("openapi"), str):
            source = rest_source(values)
        elif "openapi" in values.found:
            service = rest_service(values)
        if service is None and source is None:
            return None
        _check_rest(values)
    is_rest = "openapi" in values
    transport = Transport.REST if is_rest else _transport(values, how)
    # What is said over one event stream belongs to whoever opened it.
    one_for_all = how == "url" and transport is not Transport.SSE
    isolation = values.get("isolation", "shared" if one_for_all else "per-key")
    fields: dict[str, Any] = dict(values.fields())
    fields.setdefault("max_body_bytes", gate.max_body_bytes)
    pinning = Pinning(values.get("tools_pinned", gate.tools_pinned))
    if service is not None:
        fields.setdefault("url", service.base)
    if source is not None:
        # What the document says comes later, and can be no other host.
        fields.setdefault("url", urljoin(source.url, "/"))
    fields.setdefault("mcp_path", "/sse" if transport is Transport.SSE else "/mcp")
    if how == "command":
        program, *arguments = fields["command"]
        fields["command"] = (_program(program, around), *arguments)
    cwd = values.get("cwd", Path())
    spec = ServerSpec(
        name=values.name,
        transport=transport,
        runtime=_RUNTIMES[how],
        cwd=str(cwd) if "cwd" in values.found else "",
        env=tuple(values.opened.get("env", {}).items()),
        files=tuple(values.opened.get("file", {}).items()),
        headers=header_templates(values),
        isolation=Isolation(isolation),
        era=_era(values, transport),
        restraint=Restraint(**_any(values, "restraint")),
        lifetime=Lifetime(**_any(values, "lifetime")),
        container=Container(**_any(values, "container")),
        rate=_rate(values, limits),
        tools_pinned=pinning,
        relay=not is_rest
        and values.get("relay", transport.listens and pinning is not Pinning.BLOCK),
        rest=service.service if service is not None else None,
        rest_source=source,
        **fields,
    )
    for name in ("allow", "deny"):
        if name in values and not is_rest:
            values.problem(name, "this key means nothing without openapi", "Remove it")
    for name in ("openapi_refresh", "allow_private"):
        if name in values and source is None:
            values.problem(name, "this key means nothing without openapi = URL", "Remove it")
    _check_names(values)
    _check_templates(values, spec)
    _check_ahead(values, spec)
    _check_bounds(values, spec, gate)
    if how == "image":
        _check_egress(values, spec)
    if how == "url":
        _check_url(values, spec)
    if source is not None:
        _check_source(values, source)
    if transport is Transport.STDIO:
        _check_stdio(values, spec)
    elif spec.relay and pinning is Pinning.BLOCK:
        values.problem(
            "relay",
            "with tools_pinned = block nobody may reach the server past the gate, unread",
            "Remove it, or set tools_pinned = warn",
        )
    return spec


def _check_rest(values: Values) -> None:
    for key in ("transport", "era", "relay", "relay_max_body"):
        if key in values:
            values.problem(key, "this key means nothing to a REST service", "Remove it")


def _program(text: str, around: Surroundings) -> str:
    """Make a path of what is written like one; a bare name is left for ``PATH``."""
    if text.startswith("~/") and around.home is not None:
        return str(around.home / text[2:])
    return str(around.beside(text)) if "/" in text else text


def _how(values: Values) -> str | None:
    """Tell whether the gate starts the server (``command``, ``image``) or calls it (``url``)."""
    if "openapi" in values:
        for key in ("command", "image"):
            if key in values:
                values.problem(key, "a REST service is called, not started", "Remove it")
                return None
        return "url"
    for key in ("command", "image"):
        if key in values and "url" in values:
            values.problem(
                "url", f"a server has {_A[key]} or a url, not both", "Remove one of them"
            )
            return None
    for key in ("image", "command", "url"):
        if key in values:
            if key not in values.found:
                return None
            if not values.found[key]:
                values.problem(key, "the command is empty", "Name a program, or remove the key")
                return None
            return key
    values.problem(
        "command",
        "nothing tells what to run or whom to call",
        "Add command = PROGRAM ARGUMENTS, image = NAME:TAG, or url = https://...",
    )
    return None


def _transport(values: Values, how: str) -> Transport:
    if how == "url":
        if values.get("transport", "http") == "stdio":
            values.problem("transport", "a server with url speaks http or sse", "Remove the key")
            return Transport.HTTP
        return Transport(values.get("transport", "http"))
    return Transport(values.get("transport", "stdio"))


def _era(values: Values, transport: Transport) -> Eras:
    era = values.get("era", "auto")
    if transport is Transport.REST:
        return Eras.MODERN
    if transport is not Transport.SSE:
        return Eras(era)
    if era in ("modern", "dual"):
        values.problem("era", "HTTP+SSE is of the legacy era", "Remove the key")
    return Eras.LEGACY


def _rate(values: Values, limits: LimitsSection) -> Any:
    if values.found.get("rate", "unset") is None or "rate" not in values:
        if "burst" in values:
            return bucket(values, "rate", "burst", limits.per_server)
        return None if "rate" in values else limits.per_server
    return bucket(values, "rate", "burst", None)


def _any(values: Values, stem: str) -> dict[str, Any]:
    return dict(values.fields(stem))


def _check_names(values: Values) -> None:
    for name in values.opened.get("env", {}):
        if not _VARIABLE.fullmatch(name):
            values.problem(
                f"env.{name}", "this is not the name of a variable", "Use letters, digits and _"
            )
    for name in values.opened.get("file", {}):
        if not _FILE.fullmatch(name) or name in (".", ".."):
            values.problem(
                f"file.{name}", "this is not the name of a file", "Use letters, digits, ., _ and -"
            )


def _check_templates(values: Values, spec: ServerSpec) -> None:
    for word in spec.command:
        if "{key}" in word:
            values.problem(
                "command",
                "the caller's key would show in process lists",
                "Pass it with env.NAME = {key} or file.NAME = {key}",
            )
            break
    if spec.runtime == "docker" and not spec.container.key_in_env:
        for name, template in spec.env:
            if "{key}" in template:
                values.problem(
                    f"env.{name}",
                    "the engine would show the caller's key to everybody who may ask it",
                    "Use file.NAME or header.NAME, or set key_in_env = on",
                )
    templates = {"command": " ".join(spec.command)}
    templates.update((f"env.{name}", value) for name, value in spec.env)
    templates.update((f"file.{name}", value) for name, value in spec.files)
    alike = dict(templates)
    if spec.transport is Transport.SSE:
        alike.update((f"header.{name}", value) for name, value in spec.headers)
    if spec.isolation is Isolation.SHARED:
        for key, template in alike.items():
            for blank in ("{key}", "{user}"):
                if blank in template and not (key == "command" and blank == "{key}"):
                    values.problem(
                        key,
                        f"a shared server has no one {blank}",
                        "Set isolation = per-key, or remove it",
                    )
    wants_port = spec.transport.listens and spec.runtime == "process"
    tells_port = [key for key, template in templates.items() if "{port}" in template]
    if wants_port and not tells_port and values.sound("transport", *written(values, "env.NAME")):
        values.problem(
            "command",
            "the server is not told which port to listen on",
            "Put {port} into command, or add env.PORT = {port}",
        )
    if not spec.transport.listens or spec.runtime == "remote":
        for key in tells_port:
            values.problem(key, "there is no {port} for this server", "Set transport = http")


def _check_ahead(values: Values, spec: ServerSpec) -> None:
    """Refuse what can not be started before somebody asks for it."""
    if spec.prestart and spec.isolation is Isolation.PER_SESSION:
        values.problem(
            "prestart",
            "a session's own copy can not be started before there is a session",
            "Remove it, or set isolation = per-key; warm keeps copies ready for sessions",
        )
    if not spec.warm or not values.sound("warm"):
        return
    if spec.isolation is Isolation.SHARED:
        values.problem(
            "warm", "a shared server has one copy for everybody, never a spare one", "Remove it"
        )
    if spec.max_instances and spec.warm > spec.max_instances:
        values.problem("warm", "these are more copies than max_instances allows", "Lower it")
    if spec.container.data != "none":
        values.problem(
            "warm",
            "a spare copy is nobody's, and data mounts the folder of an owner",
            "Remove it, or set data = none",
        )
    texts = [("command", " ".join(spec.command)), ("cwd", spec.cwd)]
    texts += [(f"env.{name}", text) for name, text in spec.env]
    texts += [(f"file.{name}", text) for name, text in spec.files]
    for key, text in texts:
        for blank in ("{key}", "{user}", "{data_dir}"):
            if blank in text:
                values.problem(
                    "warm",
                    f"a spare copy is nobody's, and {blank} of {key} is put in when it starts",
                    f"Remove it, or {blank} from {key}",
                )


def _check_bounds(values: Values, spec: ServerSpec, gate: GateSection) -> None:
    life = spec.lifetime
    ordered(values, "start_wait", life.start_wait_s, "start_timeout", life.start_s)
    ordered(
        values, "call_timeout", spec.call_timeout_s, "call_timeout_max", spec.call_timeout_max_s
    )
    if life.health_interval_s:
        ordered(
            values,
            "health_timeout",
            life.health_timeout_s,
            "health_interval",
            life.health_interval_s,
        )
    if life.remove_s and life.idle_stop_s:
        ordered(values, "idle_stop", life.idle_stop_s, "remove_after", life.remove_s)
    if spec.max_body_bytes > gate.max_body_bytes and values.sound("max_body"):
        values.problem(
            "max_body",
            f"it is more than max_body of [gate], {format_size(gate.max_body_bytes)}",
            "Raise that one, or lower this",
        )
    budget, memory = gate.memory_budget_bytes, spec.restraint.memory_bytes
    if not budget or spec.runtime == "remote" or not values.sound("memory"):
        return
    if memory > budget:
        values.problem(
            "memory",
            f"one instance of {format_size(memory)} is more than the memory_budget of [gate], "
            f"{format_size(budget)}",
            "Raise memory_budget, or lower memory",
        )
    elif not memory:
        values.problem(
            "memory", "memory_budget of [gate] can not count a server without a limit", "Set memory"
        )


def _check_egress(values: Values, spec: ServerSpec) -> None:
    listed, count = spec.container.egress == "allow-list", len(spec.container.egress_to)
    if listed and not count and values.sound("egress_to"):
        values.problem(
            "egress", "nothing tells what may be reached", "Add egress_to = NAME:PORT ..."
        )
    elif not listed and count and values.sound("egress"):
        values.problem(
            "egress_to", "this key means nothing without a list", "Set egress = allow-list"
        )
    elif count > _MOST_DESTINATIONS:
        values.problem(
            "egress_to",
            f"these are more than {_MOST_DESTINATIONS} names and addresses",
            "Name networks, or set egress = internet",
        )


def _check_url(values: Values, spec: ServerSpec) -> None:
    scheme, host = split_url(spec.url)
    if scheme != "https" and not is_private_host(host) and not values.get("insecure", False):
        values.problem(
            "url",
            "keys and contents would travel over the network in clear",
            "Use https, or set insecure = yes",
        )


def _check_source(values: Values, source: RESTSource) -> None:
    scheme, host = split_url(source.url)
    private = is_private_host(host)
    if private and not source.allow_private:
        values.problem(
            "openapi",
            "the address is of this machine or a private network",
            "Set allow_private = on if it is meant",
        )
    elif scheme != "https" and not private and not values.get("insecure", False):
        values.problem(
            "openapi",
            "the tools could be changed on their way over the network",
            "Use https, or set insecure = yes",
        )


def _check_stdio(values: Values, spec: ServerSpec) -> None:
    meaningless = ["mcp_path", "ready_path", "forward_headers", "relay_max_body"]
    meaningless += written(values, "header.NAME")
    if spec.relay:
        meaningless.append("relay")
    for key in meaningless:
        if key in values:
            values.problem(
                key,
                "this key means nothing to a stdio server",
                "Remove it, or set transport = http",
            )
