"""
Fetched OpenAPI documents, parsed and validated in a process of their own.

A document comes from elsewhere and may hold anything: regular expressions that never end, aliases
that unfold, more than the validator can take in a minute.  So the gate's own process does none of
it: ``python -m mcpgate.config.document_check`` reads the document on stdin, within bounds on time
and memory, and writes it as plain JSON, or what is wrong with it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from typing import IO, Any, Final

from mcpgate.config.problems import BadValueError
from mcpgate.config.rest import DOCUMENT_BYTES, document_of

CPU_S: Final = 30
WAIT_S: Final = 60.0
MEMORY_BYTES: Final = 1 << 30
#: A document as JSON: every character may become an escape of six.
WRITTEN_CHARS: Final = 6 * DOCUMENT_BYTES

_REFUSED: Final = 3
# What an interpreter needs to find us; nothing of the gate's secrets.
_PASSED: Final = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG")


def check(content: bytes) -> dict[str, Any]:
    """
    Have a document parsed and validated; blocks, for a thread.

    :raises BadValueError: it can not be used; with what to do.
    """
    if len(content) > DOCUMENT_BYTES:
        raise too_long()
    told: Any = None
    try:
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "mcpgate.config.document_check"],
            input=content,
            capture_output=True,
            timeout=WAIT_S,
            check=False,
            env={name: os.environ[name] for name in _PASSED if name in os.environ},
        )
        if ran.returncode in (0, _REFUSED):
            told = json.loads(ran.stdout)
    except subprocess.TimeoutExpired:
        pass
    except (OSError, ValueError) as error:
        raise BadValueError(f"it could not be checked: {error}", "Mend that") from None
    if not isinstance(told, dict):
        raise BadValueError("checking it takes too long or too much memory", "Simplify it")
    if set(told) == {"text", "remedy"}:
        raise BadValueError(str(told["text"]), str(told["remedy"]))
    return told


def too_long() -> BadValueError:
    """Say that a document is too large."""
    mib = DOCUMENT_BYTES >> 20
    return BadValueError(f"it is larger than {mib} MiB", "Leave out what is no tool")


def main(source: IO[bytes], out: IO[str]) -> int:
    """Do it; give the exit code."""
    content = source.read(DOCUMENT_BYTES + 1)
    try:
        if len(content) > DOCUMENT_BYTES:
            raise too_long()
        text = written(document_of(content, is_yaml=content.lstrip()[:1] != b"{"))
    except BadValueError as bad:
        json.dump({"text": bad.text, "remedy": bad.remedy}, out)
        return _REFUSED
    out.write(text)
    return 0


def written(document: object) -> str:
    """
    Write a document as JSON.

    :raises BadValueError: aliases of YAML make more of it than anybody would write.
    """
    parts, size = [], 0
    for part in json.JSONEncoder().iterencode(document):
        size += len(part)
        if size > WRITTEN_CHARS:
            raise BadValueError("it is too large with its aliases unfolded", "Leave aliases out")
        parts.append(part)
    return "".join(parts)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    sys.exit(main(sys.stdin.buffer, sys.stdout))
