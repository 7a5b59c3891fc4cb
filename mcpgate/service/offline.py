"""
Cleaning up where no gate runs: directly on the engine and the files.

The lock of the state directory is held meanwhile, so that no gate starts in between.  Blocks; for
a program that does nothing else.
"""

from __future__ import annotations

import fcntl
import hmac
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mcpgate.config.model import Config
from mcpgate.errors import GateError
from mcpgate.gate.access.digest import SECRET_NAME, SecretFileError, load_secret
from mcpgate.runtime.docker.cleanup import Cleanup, DirectCalls, Wish
from mcpgate.runtime.docker.container import LABEL_GATE, known
from mcpgate.runtime.docker.engine import NotThere, Refused, connect
from mcpgate.runtime.docker.networks import Networks
from mcpgate.runtime.docker.secrets import SecretFiles, default_root
from mcpgate.runtime.places import Places, remove_tree
from mcpgate.service.back import CONTAINER_ENTRIES, DOCKER_ID
from mcpgate.service.control_work import data_leftover
from mcpgate.telemetry.views import Leftover
from mcpgate.web.pages.control import Tidying

DEADLINE_S: Final = 20.0


class OfflineError(Exception):
    """It can not be done; the text says why."""


@contextmanager
def holding(state_dir: Path) -> Iterator[bool]:
    """
    Keep gates from starting; give False where none has ever run.

    Makes no file: one of root's would keep the gate's user out.

    :raises OfflineError: a gate holds the lock, or it can not be opened.
    """
    try:
        lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    except OSError as error:
        raise OfflineError(f"{state_dir / 'lock'}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OfflineError(
                f"a gate holds {state_dir} and does not answer at its control socket"
            ) from None
        yield True
    finally:
        os.close(lock)


def gate_id_of(config: Config) -> str:
    """Give the id of the gate's containers; empty when it never had one."""
    if config.docker.gate_id:
        return config.docker.gate_id
    try:
        return (config.gate.state_dir / DOCKER_ID).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def clean_up(config: Config, tidying: Tidying, environ: Mapping[str, str]) -> list[Leftover]:
    """
    Remove what is asked for, or only tell.

    :raises OfflineError: a gate runs, or the engine does not answer.
    """
    with holding(config.gate.state_dir) as ran:
        if not ran:
            return []
        gate_id = gate_id_of(config)
        found: list[Leftover] = []
        owners: set[tuple[str, str]] = set()
        if gate_id and (tidying.stopped or tidying.orphans or tidying.data):
            found, owners = _containers(config, tidying, environ, gate_id)
        for label in tidying.data:
            for server, folder in Places(str(config.gate.state_dir)).data_of(label):
                used = (server, os.path.basename(folder)) in owners
                told = data_leftover(server, folder, used=used)
                if not tidying.dry_run and not told.error:
                    remove_tree(folder)
                found.append(told)
        return found


def _containers(
    config: Config, tidying: Tidying, environ: Mapping[str, str], gate_id: str
) -> tuple[list[Leftover], set[tuple[str, str]]]:
    """Clean up on the engine; give also server and folder name of what runs on."""
    files_dir = config.docker.files_dir or default_root(environ, gate_id)
    calls: Any = DirectCalls(_client(config))
    work = Cleanup(
        calls,
        gate_id=gate_id,
        find=config.server,
        hash_key=_hash_key(config.gate.state_dir),
        networks=Networks(calls, gate_id=gate_id, pool=config.docker.subnets),
        files=SecretFiles(str(files_dir)),
    )
    wish = Wish(dry_run=tidying.dry_run, stopped=tidying.stopped, orphans=tidying.orphans)

    async def work_through() -> tuple[list[Leftover], list[Any]]:
        found = await work.run(wish)
        label = f"{LABEL_GATE}={gate_id}"
        return found, await calls.call(lambda client: client.containers(filters={"label": [label]}))

    found, listed = _result(Deferred.fromCoroutine(work_through()))
    running = {one.key for one in map(known, listed) if one.key is not None}
    return found, {(key.server, key.owner.digest.replace("/", "-") or "shared") for key in running}


def _result(work: Deferred[Any]) -> Any:
    """Give what calls that block have come to: it is there already."""
    results: list[Any] = []
    work.addBoth(results.append)
    (result,) = results
    if not isinstance(result, Failure):
        return result
    error = result.value
    if isinstance(error, GateError):
        raise OfflineError(error.detail)
    if not isinstance(error, NotThere | Refused):
        result.raiseException()
    raise OfflineError(str(error))


def _client(config: Config) -> Any:
    try:
        return connect(config.docker.url, DEADLINE_S)
    except ImportError:
        raise OfflineError(
            "the docker SDK is not installed: pip install 'mcpgate[docker]'"
        ) from None
    except Exception as error:
        # A border: the SDK raises many kinds when nobody answers.
        raise OfflineError(f"the container engine does not answer: {error}") from None


def _hash_key(state_dir: Path) -> bytes | None:
    if not (state_dir / SECRET_NAME).exists():
        return None
    try:
        secret = load_secret(state_dir, os.urandom)
    except SecretFileError as error:
        raise OfflineError(str(error)) from None
    return hmac.digest(secret, CONTAINER_ENTRIES, "sha256")
