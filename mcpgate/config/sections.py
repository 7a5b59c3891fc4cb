"""The sections but ``[server:NAME]``: values put together and held against each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mcpgate.config.kinds import check_header_name, split_url
from mcpgate.config.listeners import parse_listener
from mcpgate.config.model import (
    AdminSection,
    AnonymousSource,
    AuthSection,
    AuthSource,
    DockerSection,
    GateSection,
    LimitsSection,
    LogSection,
    RemoteSource,
    StaticSource,
    TLSSection,
)
from mcpgate.config.networks import is_loopback_host
from mcpgate.config.problems import BadValueError, suggestion
from mcpgate.config.reading import Values
from mcpgate.model import Rate

_SECONDS_OF_BURST: Final = 2


def gate_section(values: Values, state_dir: Path | None) -> GateSection:
    """
    Make ``[gate]``.

    :param state_dir: where state goes when nothing is said; None when that is not known.
    """
    fields: dict[str, Any] = {"state_dir": state_dir or Path(), **values.fields()}
    section = GateSection(**fields)
    if state_dir is None and "state_dir" not in values:
        values.problem(
            "state_dir",
            "neither STATE_DIRECTORY nor HOME is set, so there is no place for state",
            "Set state_dir = /var/lib/mcpgate",
        )
    if not section.listen and values.sound("listen"):
        values.problem("listen", "the gate would listen nowhere", "Name an endpoint")
    _no_twins(values, section.listen)
    ordered(
        values,
        "sse_keepalive",
        section.sse_keepalive_s,
        "idle_timeout",
        section.idle_s,
        strict=True,
    )
    ordered(values, "max_body", section.max_body_bytes, "body_budget", section.body_budget_bytes)
    ordered(
        values,
        "sessions_per_key",
        section.sessions_per_key,
        "sessions_total",
        section.sessions_total,
    )
    if section.max_connections:
        ordered(
            values,
            "max_connections_per_address",
            section.max_connections_per_address,
            "max_connections",
            section.max_connections,
        )
    return section


def tls_section(values: Values, listeners: tuple[str, ...]) -> TLSSection:
    """Make ``[tls]``, for these listeners of every kind."""
    section = TLSSection(
        self_signed=values.get("self_signed", "auto") == "auto",
        **_any(values.fields()),
    )
    wanted = any(parse_listener(text).prefix == "tls" for text in listeners)
    if wanted and not section.certificates and not section.self_signed:
        if values.sound("certificates", "self_signed"):
            values.problem(
                "self_signed",
                "there is a tls: listener and no certificate for it",
                "Name certificates, or set self_signed = auto",
            )
    if not section.names and values.sound("names"):
        values.problem("names", "a certificate needs a name", "Name a host or remove the key")
    return section


def auth_section(
    values: Values, sources: list[Values], servers: frozenset[str], public: str
) -> AuthSection:
    """
    Make ``[auth]`` and its sources.

    :param servers: names of every ``[server:NAME]``.
    :param public: a listener other machines can reach; empty when there is none.
    """
    made = {source.name: _source(source, servers) for source in sources}
    order = values.get("use", tuple(made))
    seen: set[str] = set()
    for name in order:
        if name not in made:
            values.problem("use", f"there is no [auth:{name}]", suggestion(name, sorted(made)))
        elif name in seen:
            values.problem("use", f"{name} stands twice", "Name each source once")
        seen.add(name)
    if not order and values.sound("use"):
        values.problem(
            "use",
            "there is no source of keys, so nobody could use the gate",
            "Add a section [auth:NAME] with type = static, remote or none",
        )
    for source in sources:
        one = made[source.name]
        open_to_all = isinstance(one, AnonymousSource) and not one.allow_public
        if open_to_all and public and source.name in order:
            source.problem(
                "type",
                f"everybody on the network could use the gate without a key: {public} is open to "
                "other machines",
                "Listen on interface=127.0.0.1, use keys, or set allow_public = yes",
            )
    section = AuthSection(
        sources=tuple(one for name in dict.fromkeys(order) if (one := made.get(name)) is not None),
        **_any(values.fields()),
    )
    ordered(values, "cache_ttl", section.cache_s, "stale_ok", section.stale_s)
    return section


def _source(values: Values, servers: frozenset[str]) -> AuthSource | None:
    """Make one ``[auth:NAME]``; None when it is too faulty."""
    kind = values.get("type", "")
    if not kind:
        if "type" not in values:
            values.problem("type", "the type is missing", "Write type = static, remote or none")
        return None
    for key in values.schema.keys:
        for name in written(values, key.name):
            if key.only not in ("", kind):
                values.problem(name, f"this key means nothing to type = {kind}", "Remove the key")
    wanted = values.get("servers", ())
    for name in wanted:
        if name not in servers:
            values.problem(
                "servers", f"there is no [server:{name}]", suggestion(name, sorted(servers))
            )
    fields = _any(values.fields())
    fields["name"] = values.name
    fields["servers"] = frozenset(wanted) if "servers" in values else None
    if kind == "none":
        return AnonymousSource(
            name=values.name,
            servers=fields["servers"],
            allow_public=values.get("allow_public", False),
        )
    needed = "keys_file" if kind == "static" else "url"
    if needed not in values.found:
        if needed not in values:
            values.problem(needed, f"type = {kind} needs {needed}", f"Add {needed} = ...")
        return None
    if kind == "static":
        return StaticSource(
            name=values.name, servers=fields["servers"], keys_file=fields["keys_file"]
        )
    for unfit in ("keys_file", "allow_public"):
        fields.pop(unfit, None)
    return _remote(values, fields)


def _remote(values: Values, fields: dict[str, Any]) -> RemoteSource:
    source = RemoteSource(headers=header_templates(values), **fields)
    scheme, host = split_url(source.url)
    if scheme != "https" and not is_loopback_host(host):
        values.problem(
            "url", "keys would travel over the network in clear", "Use https, or http to 127.0.0.1"
        )
    elif is_loopback_host(host) and not source.allow_private:
        values.problem(
            "url", "the address is of this machine itself", "Set allow_private = on if it is meant"
        )
    told = source.body + "".join(value for _, value in source.headers)
    if "{key}" not in told and values.sound("body", *written(values, "header.NAME")):
        values.problem(
            "url",
            "the service is asked without being told the key",
            "Add header.Authorization = Bearer {key}",
        )
    if source.body and source.method in ("GET", "HEAD"):
        values.problem("body", f"{source.method} sends no body", "Set method = POST")
    if source.user_field and source.method == "HEAD":
        values.problem("user_field", "an answer to HEAD has no body", "Set method = GET")
    return source


def header_templates(values: Values) -> tuple[tuple[str, str], ...]:
    """Give ``header.NAME`` keys as pairs, complaining about names that can not be."""
    headers = values.opened.get("header", {})
    seen: dict[str, str] = {}
    for name in headers:
        try:
            check_header_name(name)
        except BadValueError as bad:
            values.problem(f"header.{name}", bad.text, bad.remedy)
        if name.lower() in seen:
            values.problem(
                f"header.{name}",
                f"it is the same HTTP field as header.{seen[name.lower()]}",
                "Keep one of them",
            )
        seen[name.lower()] = name
    return tuple(headers.items())


def limits_section(values: Values) -> LimitsSection:
    """Make ``[limits]``."""
    section = LimitsSection(
        per_key=bucket(values, "per_key", "burst", Rate(20.0, 40.0)),
        per_address=bucket(values, "per_address", "address_burst", Rate(50.0, 100.0)),
        per_server=bucket(values, "per_server", "server_burst", None),
        **_any(values.fields()),
    )
    if section.per_key is not None:
        for key, cost in (("start_cost", section.start_cost), ("call_cost", section.call_cost)):
            if cost > section.per_key.burst and values.sound(key, "burst", "per_key"):
                values.problem(
                    key if key in values else "burst",
                    f"a request that costs {cost:g} never passes a burst of "
                    f"{section.per_key.burst:g}",
                    f"Set burst to {cost:g} or more, or {key} to less",
                )
    return section


def bucket(values: Values, rate_key: str, burst_key: str, usual: Rate | None) -> Rate | None:
    """
    Make a rate of a key for the speed and one for the burst.

    :param usual: what holds where nothing is said; None for no limit.
    """
    per_s = values.get(rate_key, usual.per_s if usual is not None else None)
    if per_s is None:
        if burst_key in values and values.sound(rate_key):
            values.problem(
                burst_key, f"a burst without a limit: {rate_key} is off", f"Set {rate_key} as well"
            )
        return None
    if usual is not None:
        return Rate(per_s, values.get(burst_key, usual.burst))
    return Rate(per_s, values.get(burst_key, max(1.0, per_s * _SECONDS_OF_BURST)))


def admin_section(values: Values) -> AdminSection:
    """Make ``[admin]``."""
    section = AdminSection(**_any(values.fields()))
    passwords = [key for key in ("password", "password_hash") if key in values]
    if "user" in values and not passwords:
        values.problem(
            "user", "the user has no password", "Add password = ${credential:NAME} or password_hash"
        )
    if len(passwords) == 2:
        values.problem("password_hash", "there are two passwords", "Keep password or its hash")
    if passwords and "user" not in values:
        values.problem(passwords[0], "a password without its user", "Add user = NAME")
    if ":" in section.user:
        values.problem("user", "a user's name holds no colon (RFC 7617)", "Choose another name")
    _no_twins(values, section.listen)
    public = first_public(section.listen)
    if public and not ("users_file" in values or "user" in values):
        values.problem(
            "listen",
            f"everybody could read statistics: {public} is open to other machines",
            "Listen on interface=127.0.0.1, or add a user or users_file",
        )
    return section


def docker_section(values: Values) -> DockerSection:
    """Make ``[docker]``."""
    return DockerSection(**_any(values.fields()))


def log_section(values: Values) -> LogSection:
    """Make ``[log]``."""
    return LogSection(**_any(values.fields()))


def first_public(listeners: tuple[str, ...]) -> str:
    """Give the first listener other machines can reach; empty when there is none."""
    for text in listeners:
        listener = parse_listener(text)
        if listener.public and listener.prefix != "redirect":
            return text
    return ""


def default_state_dir(environ: Mapping[str, str]) -> Path | None:
    """Give ``$STATE_DIRECTORY`` (its first, systemd may name more), else one in the home."""
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    home = environ.get("HOME", "")
    return Path(home) / ".local/state/mcpgate" if home else None


def _any(fields: dict[str, object]) -> dict[str, Any]:
    """Take the schema's word for the types: a test holds schema and model side by side."""
    return dict(fields)


def written(values: Values, name: str) -> list[str]:
    """Give the keys that stand in the file for one of the schema."""
    if not name.endswith(".NAME"):
        return [name] if name in values else []
    stem = name.removesuffix("NAME")
    return [key for key in values.places if key.startswith(stem)]


def _no_twins(values: Values, listeners: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for text in listeners:
        if text in seen:
            values.problem("listen", f"{text} stands twice", "Keep one of them")
        seen.add(text)


def ordered(
    values: Values,
    small: str,
    small_value: float,
    large: str,
    large_value: float,
    *,
    strict: bool = False,
) -> None:
    """Complain unless the first is less than the second (or, if not strict, the same)."""
    if small_value < large_value or (not strict and small_value == large_value):
        return
    if values.sound(small, large):
        relation = "less than" if strict else "at most"
        at = small if small in values else large
        values.problem(at, f"{small} must be {relation} {large}", f"Lower {small} or raise {large}")
