"""What is allowed but probably not meant: warnings of ``mcpgate check``; none stops a start."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from mcpgate.config.interpolation import read_bounded
from mcpgate.config.listeners import parse_listener
from mcpgate.config.model import AnonymousSource, CertificatePair, Config, StaticSource
from mcpgate.config.problems import BadValueError, nearest
from mcpgate.config.sections import first_public
from mcpgate.config.units import format_size
from mcpgate.model import MIB, Pinning, ServerSpec

_BLANKS: Final = ("key", "user", "port", "data_dir", "files_dir")
_BLANK: Final = re.compile(r"\{([a-z_]{2,12})\}")
_NEAR_EXPIRY: Final = timedelta(days=30)

Which = Callable[[str, str | None], str | None]
"""Like ``shutil.which``: takes command and PATH, gives the program or None."""


def advise(config: Config, environ: Mapping[str, str], now: datetime, which: Which) -> list[str]:
    """
    Give every warning, a sentence each.  Looks at files and PATH.

    :param now: aware.
    """
    return [
        *config.notes,
        *_listeners(config),
        *_files(config, now),
        *_access(config),
        *_room(config),
        *(
            warning
            for spec in config.servers
            for warning in _server(spec, environ.get("PATH"), which)
        ),
    ]


def _listeners(config: Config) -> Iterator[str]:
    listeners = [(text, parse_listener(text)) for text in config.gate.listen + config.admin.listen]
    for text, listener in listeners:
        if listener.public and not listener.prefix:
            yield f"{text} is open to other machines without TLS: keys travel in clear"
    if config.tls.certificates and not any(one.prefix == "tls" for _, one in listeners):
        yield "there are certificates but no tls: listener"
    if first_public(config.gate.listen):
        if not config.gate.public_url and not config.gate.allowed_hosts:
            yield (
                "a listener is open to other machines, but neither public_url nor allowed_hosts "
                "names a host: only requests to bare addresses are served"
            )
        if config.tls.self_signed and not config.tls.certificates:
            yield "clients will be shown a self-signed certificate, which they do not trust"


def _files(config: Config, now: datetime) -> Iterator[str]:
    for pair in config.tls.certificates:
        yield from _certificate(pair, now)
    for source in config.auth.sources:
        if isinstance(source, StaticSource) and not _exists(source.keys_file):
            yield f"[auth:{source.name}] the keys_file {source.keys_file} does not exist yet"


def _certificate(pair: CertificatePair, now: datetime) -> Iterator[str]:
    try:
        content, _ = read_bounded(pair.certificate, MIB)
        certificate = x509.load_pem_x509_certificate(content)
    except (OSError, ValueError, BadValueError):
        # BadValueError is a ValueError; named for the reader.
        yield f"the certificate {pair.certificate} can not be read"
        return
    left = certificate.not_valid_after_utc - now
    if left < timedelta():
        yield f"the certificate {pair.certificate} has expired"
    elif left < _NEAR_EXPIRY:
        yield f"the certificate {pair.certificate} expires in {left.days} days"
    elif certificate.not_valid_before_utc > now:
        yield f"the certificate {pair.certificate} is not valid yet"


def _access(config: Config) -> Iterator[str]:
    if not config.servers:
        yield "there is no [server:NAME]: the gate serves nothing"
    for source in config.auth.sources:
        if isinstance(source, AnonymousSource):
            yield f"[auth:{source.name}] everybody who reaches the gate may use it without a key"
    if config.admin.stats and not (config.admin.user or config.admin.users_file):
        yield "[admin] has no user: statistics are for nobody, or for this machine alone"


def _room(config: Config) -> Iterator[str]:
    gate = config.gate
    copies = sum(spec.warm for spec in config.servers)
    weight = sum(spec.warm * spec.restraint.memory_bytes for spec in config.servers)
    if gate.max_running and copies >= gate.max_running:
        yield (
            f"warm of all servers is {copies} copies, and max_running is {gate.max_running}: "
            "callers take their places"
        )
    if gate.memory_budget_bytes and weight >= gate.memory_budget_bytes:
        yield (
            f"warm of all servers takes {format_size(weight)}, and memory_budget is "
            f"{format_size(gate.memory_budget_bytes)}: callers take their places"
        )


def _server(spec: ServerSpec, path: str | None, which: Which) -> Iterator[str]:
    if spec.rest is not None and spec.rest.left_out:
        left_out = spec.rest.left_out
        yield f"[server:{spec.name}] {len(left_out)} operations are no tools: {left_out[0][:200]}"
    title = f"[server:{spec.name}]"
    if (
        spec.runtime == "process"
        and "{" not in spec.command[0]
        and which(spec.command[0], path) is None
    ):
        yield f"{title} the program {spec.command[0]} is not found or can not be run"
    if (
        spec.runtime == "process"
        and spec.cwd
        and "{" not in spec.cwd
        and not os.path.isdir(spec.cwd)
    ):
        yield f"{title} the directory {spec.cwd} does not exist"
    if spec.tools_pinned is Pinning.BLOCK and spec.told_caller:
        yield (
            f"{title} tools_pinned is block, and the server is told who calls: a tool it lists "
            "to one key only is withheld until 'mcpgate tools --accept' in the name of that key"
        )
    if spec.lifetime.idle_stop_s == 0 and spec.runtime != "remote":
        yield f"{title} idle_stop is 0: instances run until the gate ends"
    templates = [*spec.command]
    for pairs in (spec.env, spec.files, spec.headers):
        templates.extend(value for _, value in pairs)
    for name in dict.fromkeys(_BLANK.findall("\n".join(templates))):
        meant = nearest(name, _BLANKS)
        if name not in _BLANKS and meant is not None:
            yield f"{title} {{{name}}} is left as it is; is {{{meant}}} meant?"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True
