"""What a `Config` amounts to, for people and for programs.  Holds no secret."""

from __future__ import annotations

from mcpgate.config.model import AnonymousSource, AuthSource, Config, RemoteSource
from mcpgate.config.units import format_duration, format_rate, format_size
from mcpgate.model import Eras, Pinning, ServerSpec


def as_dict(config: Config) -> dict[str, object]:
    """Give the summary as JSON values."""
    return {
        "file": str(config.path),
        "listen": list(config.gate.listen),
        "admin_listen": list(config.admin.listen),
        "public_url": config.gate.public_url,
        "state_dir": str(config.gate.state_dir),
        "certificates": [str(pair.certificate) for pair in config.tls.certificates],
        "auth": [
            {
                "name": source.name,
                "type": _type(source),
                "at": _at(source),
                "servers": None if source.servers is None else sorted(source.servers),
            }
            for source in config.auth.sources
        ],
        "limits": {
            "per_key": format_rate(config.limits.per_key),
            "per_address": format_rate(config.limits.per_address),
            "concurrent_per_key": config.limits.concurrent_per_key,
        },
        "servers": [
            {
                "name": spec.name,
                "transport": spec.transport.value,
                "runtime": spec.runtime,
                # Arguments and the query of a URL may hold what was put in from elsewhere.
                "at": spec.url.partition("?")[0] or spec.container.image or spec.command[0],
                "isolation": spec.isolation.value,
                "era": spec.era.value,
                "memory": format_size(spec.restraint.memory_bytes),
                "cpus": spec.restraint.cpus,
                "idle_stop": format_duration(spec.lifetime.idle_stop_s),
                "rate": format_rate(spec.rate),
                "tools_pinned": spec.tools_pinned.value,
            }
            for spec in config.servers
        ],
    }


def as_text(config: Config) -> str:
    """Give the summary as lines."""
    lines = [f"{config.path} is good.", "", "Listening:"]
    lines += [f"  {text}" for text in config.gate.listen]
    lines += [f"  {text} (admin)" for text in config.admin.listen]
    if config.gate.public_url:
        lines.append(f"  as {config.gate.public_url}")
    lines += ["", "Keys:"]
    for source in config.auth.sources:
        scope = "all servers" if source.servers is None else ", ".join(sorted(source.servers))
        lines.append(f"  {source.name}: {_type(source)}{_spaced(_at(source))}, for {scope}")
    lines += [
        "",
        f"Limits: {format_rate(config.limits.per_key)} per key, "
        f"{format_rate(config.limits.per_address)} per address, "
        f"{config.limits.concurrent_per_key or 'any number'} at once per key",
        "",
        "Servers:",
    ]
    lines += [f"  {_server_line(spec)}" for spec in config.servers] or ["  none"]
    return "\n".join(lines)


def _server_line(spec: ServerSpec) -> str:
    parts = [
        f"{spec.name}: {spec.transport.value}",
        _what(spec),
        spec.isolation.value,
    ]
    if spec.runtime != "remote":
        memory = spec.restraint.memory_bytes
        parts.append(f"memory {format_size(memory) if memory else 'without limit'}")
        idle = spec.lifetime.idle_stop_s
        parts.append(f"stops after {format_duration(idle)} idle" if idle else "never stops")
    if spec.era is not Eras.AUTO:
        parts.append(f"{spec.era.value} era" if spec.era is not Eras.DUAL else "both eras")
    if spec.rest_source is not None:
        parts.append(f"document from {spec.rest_source.url.partition('?')[0]}")
    if spec.rate is not None:
        parts.append(format_rate(spec.rate))
    if spec.tools_pinned is Pinning.BLOCK:
        parts.append("changed tools are blocked")
    elif spec.tools_pinned is Pinning.OFF:
        parts.append("nobody looks for changed tools")
    return ", ".join(parts)


def _what(spec: ServerSpec) -> str:
    if spec.url:
        return f"at {spec.url.partition('?')[0]}"
    return f"runs {spec.container.image or spec.command[0]}"


def _type(source: AuthSource) -> str:
    if isinstance(source, AnonymousSource):
        return "none"
    return "remote" if isinstance(source, RemoteSource) else "static"


def _at(source: AuthSource) -> str:
    if isinstance(source, AnonymousSource):
        return ""
    if isinstance(source, RemoteSource):
        return source.url.partition("?")[0]
    return str(source.keys_file)


def _spaced(text: str) -> str:
    return f" {text}" if text else ""
