"""What the callers of a child that has ended are told of its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcpgate.errors import BackendDied, GateError
from mcpgate.model import Exit

_TAIL_LINES: Final = 10
_TAIL_CHARS: Final = 400


def died_of(exit: Exit, *, strangers: bool) -> Callable[[bool], GateError]:
    """Make the `BackendDied` of a call, from whether the call was ``sent`` to the child.

    Its data has the exit's code, signal and reason, and the last lines of the child's stderr
    unless ``strangers`` share the child: the lines may tell of others' calls.
    """
    data: dict[str, object] = {
        "exitCode": exit.code,
        "signal": exit.signal,
        "exitReason": exit.reason,
    }
    if not strangers:
        data["stderr"] = [line[:_TAIL_CHARS] for line in exit.stderr_tail[-_TAIL_LINES:]]
    return lambda sent: BackendDied(data={**data, "sent": sent})
