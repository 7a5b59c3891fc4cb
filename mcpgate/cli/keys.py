"""
``mcpgate keys add|list|revoke``: the file of static keys.

A running gate looks at the file every few seconds, so nothing has to be told to it.  Exit codes:
0 done; 1 not done (no such key, the file can not be used); 2 wrong usage or a refused
configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from mcpgate.config.load import read_config
from mcpgate.config.model import Config, StaticSource
from mcpgate.config.problems import ConfigError
from mcpgate.gate.access.keyfile import (
    IMPORTED_MAX,
    KeyEntry,
    KeyFile,
    KeyFileError,
    changing,
    make_entry,
    make_key,
    read_keys,
)
from mcpgate.model import Secret

DONE: Final = 0
NOT_DONE: Final = 1
REFUSED: Final = 2

_TRIES: Final = 20


class UsageError(Exception):
    """What was asked for can not be meant; exit code 2."""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "keys",
        help="make, list and revoke the keys of users",
        description="Make, list and revoke the keys of a [auth:NAME] section with type = static. "
        "A running gate takes a change over within seconds.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    add = commands.add_parser(
        "add",
        help="make a key and print it, once",
        description="Make a key and print it to stdout. It is not stored: only its hash is.",
    )
    add.add_argument("name", metavar="NAME", help="the user; may have several keys")
    add.add_argument("--servers", metavar="A,B", help="servers it may use (default: every one)")
    add.add_argument(
        "--stdin", action="store_true", help="take the key from the first line of stdin"
    )
    add.set_defaults(run=run_add)

    listing = commands.add_parser("list", help="list the keys: ids and names, no secrets")
    listing.set_defaults(run=run_list)

    revoke = commands.add_parser(
        "revoke",
        help="take keys away",
        description="Take away the key of an id, or every key of a user.",
    )
    revoke.add_argument("name", metavar="NAME|ID")
    revoke.set_defaults(run=run_revoke)

    for command in (add, listing, revoke):
        where = command.add_mutually_exclusive_group()
        where.add_argument(
            "--config", type=Path, default=Path("gate.ini"), metavar="FILE", help="(gate.ini)"
        )
        where.add_argument("--keys-file", type=Path, metavar="FILE", help="instead of --config")
        command.add_argument(
            "--source", metavar="NAME", help="the [auth:NAME] section, where there are several"
        )
        command.add_argument("--format", choices=("text", "json"), default="text")


def run_add(arguments: argparse.Namespace) -> int:
    """Make a key or take one from stdin; print a made one."""
    return _run(lambda: _add(arguments, os.environ, sys.stdin, os.urandom, datetime.now(UTC)))


def run_list(arguments: argparse.Namespace) -> int:
    """Print the keys of the file."""
    return _run(lambda: _list(arguments, os.environ))


def run_revoke(arguments: argparse.Namespace) -> int:
    """Take keys out of the file."""
    return _run(lambda: _revoke(arguments, os.environ))


def _run(work: Callable[[], int]) -> int:
    try:
        return work()
    except (ConfigError, UsageError) as error:
        print(error, file=sys.stderr)
        return REFUSED
    except KeyFileError as error:
        print(f"mcpgate keys: {error}", file=sys.stderr)
        return NOT_DONE


def _add(
    arguments: argparse.Namespace,
    environ: Mapping[str, str],
    stdin: TextIO,
    random_bytes: Callable[[int], bytes],
    now: datetime,
) -> int:
    path, config = _keys_file(arguments, environ)
    servers = _servers(arguments.servers, config)
    given = _read_key(stdin) if arguments.stdin else None
    with changing(path) as (keys, write):
        if given is not None and any(entry.matches(given) for entry in keys.entries):
            raise KeyFileError("this key is in the file already")
        key = given or make_key(random_bytes, _free_id(keys, random_bytes))
        entry = make_entry(arguments.name, key, random_bytes=random_bytes, now=now, servers=servers)
        write(keys.with_key(entry))
    told = f"Key {entry.key_id} of {entry.name} added to {path}."
    if arguments.format == "json":
        shown = {} if given else {"key": key.reveal()}
        print(json.dumps({**_as_dict(entry), "keysFile": str(path), **shown}, indent=2))
    elif given:
        print(told)
    else:
        # Only the key goes to stdout, so that it can be piped on.
        print(key.reveal())
        print(f"{told} It is shown only now.", file=sys.stderr)
    return DONE


def _list(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    path, _ = _keys_file(arguments, environ)
    try:
        entries = read_keys(path).entries
    except FileNotFoundError:
        entries = ()
    if arguments.format == "json":
        print(json.dumps([_as_dict(entry) for entry in entries], indent=2))
        return DONE
    rows = [("ID", "NAME", "CREATED", "SERVERS")]
    rows += [
        (e.key_id, e.name, _readable(e.created), "*" if e.servers is None else _joined(e.servers))
        for e in entries
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join((*(row[c].ljust(widths[c]) for c in range(3)), row[3])))
    return DONE


def _revoke(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    path, _ = _keys_file(arguments, environ)
    if not path.exists():
        raise KeyFileError(f"{path}: there is no such file")
    with changing(path) as (keys, write):
        gone = keys.find(arguments.name)
        if not gone:
            raise KeyFileError(f"{path}: no key has the name or id {arguments.name!r}")
        if len({entry.name for entry in gone}) > 1:
            raise KeyFileError(
                f"{path}: {arguments.name!r} is the name of one key and the id of another; "
                f"change the file by hand"
            )
        write(keys.without(gone))
    if arguments.format == "json":
        print(json.dumps({"revoked": [_as_dict(entry) for entry in gone]}, indent=2))
    else:
        for entry in gone:
            print(f"Key {entry.key_id} of {entry.name} revoked.")
    return DONE


def _keys_file(
    arguments: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[Path, Config | None]:
    """Tell which file is meant, and the configuration it was found in."""
    if arguments.keys_file is not None:
        if arguments.source is not None:
            raise UsageError("--source goes with --config, not with --keys-file")
        return arguments.keys_file, None
    config = read_config(arguments.config, environ)
    static = [source for source in config.auth.sources if isinstance(source, StaticSource)]
    names = _joined(frozenset(source.name for source in static))
    if arguments.source is not None:
        static = [source for source in static if source.name == arguments.source]
    if len(static) == 1:
        return static[0].keys_file, config
    if not names:
        raise UsageError(f"{arguments.config}: no [auth:NAME] section has type = static")
    if static:
        raise UsageError(f"{arguments.config}: has several key files: give --source, of {names}")
    raise UsageError(f"{arguments.config}: {arguments.source!r} is none of its sources: {names}")


def _servers(value: str | None, config: Config | None) -> frozenset[str] | None:
    if value is None or value == "*":
        return None
    names = frozenset(name.strip() for name in value.split(","))
    if config is not None:
        known = {spec.name for spec in config.servers}
        unknown = names - known
        if unknown:
            raise UsageError(
                f"--servers: {_listed(unknown)} is not in {config.path}, which has {_listed(known)}"
            )
    return names


def _listed(names: set[str] | frozenset[str]) -> str:
    """Write names for a message."""
    return ", ".join(sorted(names)) or "none"


def _free_id(keys: KeyFile, random_bytes: Callable[[int], bytes]) -> str:
    taken = {entry.key_id for entry in keys.entries}
    for _ in range(_TRIES):
        key_id = random_bytes(4).hex()
        if key_id not in taken:
            return key_id
    raise KeyFileError("no free id was found; is the source of randomness broken?")


def _read_key(stdin: TextIO) -> Secret:
    return Secret(stdin.readline(IMPORTED_MAX + 2).rstrip("\r\n"))


def _as_dict(entry: KeyEntry) -> dict[str, object]:
    return {
        "id": entry.key_id,
        "name": entry.name,
        "created": _readable(entry.created),
        "servers": None if entry.servers is None else sorted(entry.servers),
    }


def _readable(created: str) -> str:
    return datetime.strptime(created, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).isoformat()


def _joined(names: frozenset[str]) -> str:
    return ",".join(sorted(names))
