"""What the launcher is told: the command, its whole environment, its limits."""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass
from typing import Final

from mcpgate.errors import BackendUnavailable
from mcpgate.model import MIB, Restraint, ServerSpec, fill
from mcpgate.runtime.procfs import MARK

NICE: Final = 5
"""
How much politer than the gate a server restrained below one core is.

It is all that a plain process can be given: it keeps the gate responsive on a busy machine, and
lets a server alone on an idle one.  A share of a core is enforced for containers only.
"""

OOM_SCORE_ADJ: Final = 500

STACK_BYTES: Final = 4 * MIB
"""
Size of a new thread's stack, unless the server asks for another.

Stacks count towards RLIMIT_DATA in full: with the usual 8 MiB a server of 30 threads would be
over 256 MiB before it did anything.
"""

NODE_RESERVE_BYTES: Final = 640 * MIB
_NODE_PROGRAMS: Final = frozenset("node nodejs npx npm pnpm pnpx yarn tsx ts-node".split())

_HIDDEN_FROM: Final = 8
"""Environment values of at least this many characters are hidden in logs shown to people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """
    One start, ready to be sent.  Holds secrets.

    :ivar message: for the launcher's instruction descriptor.
    :ivar hidden: texts to hide in what the server prints.
    """

    message: bytes
    hidden: tuple[str, ...]


def is_node(program: str, path: str) -> bool:
    """
    Tell whether a program runs on Node.js: by its name, or the first line of its script.

    :param path: where a bare name is looked for.
    """
    if os.path.basename(program) in _NODE_PROGRAMS:
        return True
    found = program if "/" in program else shutil.which(program, path=path)
    if found is None:
        return False
    try:
        with open(found, "rb") as script:
            first = script.read(128).split(b"\n")[0]
    except OSError:
        return False
    return first.startswith(b"#!") and b"node" in os.path.basename(first.split()[-1])


def rlimits(restraint: Restraint, *, node: bool = False) -> dict[int, int]:
    """
    Give the limits a process can be held to.

    Memory is RLIMIT_DATA, per process: private writable memory.  RLIMIT_AS does not work: node
    reserves 700 MiB of addresses at start (and spins for ever under 128 MiB of them), Go and Java
    more, and use little.  Measured to start: node 20 uses 48 MiB of 256, Python 24 MiB.  From
    version 22 on node ends at once where it can not reserve 600 MiB, of which it touches a tenth:
    that much is allowed beyond the limit, and the pool's sweep holds what is used to it.

    :param node: the program runs on Node.js.

    ``pids`` is not here: RLIMIT_NPROC counts all processes and threads of the *user*, so that of
    one server would forbid another to start a thread.  The pool's sweep holds it instead.
    """
    limits = {
        resource.RLIMIT_CORE: 0,  # A core dump holds keys.
        resource.RLIMIT_STACK: STACK_BYTES,
    }
    if restraint.memory_bytes:
        limits[resource.RLIMIT_DATA] = restraint.memory_bytes + (NODE_RESERVE_BYTES if node else 0)
    if restraint.open_files:
        limits[resource.RLIMIT_NOFILE] = restraint.open_files
    if restraint.file_bytes:
        limits[resource.RLIMIT_FSIZE] = restraint.file_bytes
    return limits


def prepare(
    spec: ServerSpec,
    *,
    instance_id: str,
    values: dict[str, str],
    path: str,
    tmp_dir: str,
) -> Preparation:
    """
    Write down one start.

    The environment is PATH, HOME (the owner's data folder), LANG, TMPDIR, the mark by which
    strays are found, and what the spec says; nothing of the gate's own.

    :param values: what `fill` puts in place; ``data_dir`` among them.
    :raises BackendUnavailable: when a text can not be handed to a program (NUL).
    """
    environment = {
        "PATH": path,
        "HOME": values["data_dir"],
        "LANG": "C.UTF-8",
        "TMPDIR": tmp_dir,
    }
    filled = {name: fill(value, values) for name, value in spec.env}
    environment.update(filled)
    environment[MARK] = instance_id
    pairs = [("arg", fill(arg, values)) for arg in spec.command]
    pairs += [("env", f"{name}={value}") for name, value in environment.items()]
    limits = rlimits(spec.restraint, node=is_node(fill(spec.command[0], values), path))
    pairs += [("limit", f"{number}:{most}") for number, most in limits.items()]
    pairs += [
        ("cwd", fill(spec.cwd, values) or values["data_dir"]),
        ("nice", str(NICE if 0 < spec.restraint.cpus < 1 else 0)),
        ("oom_score_adj", str(OOM_SCORE_ADJ)),
        ("parent", str(os.getpid())),
        ("end", ""),
    ]
    if any("\0" in value for _, value in pairs):
        raise BackendUnavailable(f"The command or environment of '{spec.name}' holds a NUL.")
    hidden = {value for value in filled.values() if len(value) >= _HIDDEN_FROM}
    if values.get("key"):
        hidden.add(values["key"])
    message = "".join(f"{name}={value}\0" for name, value in pairs)
    # Longest first: one hidden text may be part of another.
    by_length = sorted(hidden, key=len, reverse=True)
    return Preparation(message=message.encode("utf-8", "surrogateescape"), hidden=tuple(by_length))
