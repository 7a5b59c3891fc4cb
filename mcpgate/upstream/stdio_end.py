"""What the callers of a child are told that has ended, or whose answer can not be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcpgate.errors import BackendDied, BadBackendAnswer, GateError, TooLarge
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


def closed_by(error: GateError) -> Callable[[bool], GateError]:
    """Make the error of a call, of the one the gate let go of the child with.

    What was not ``sent`` says so: it may surely be sent again.
    """
    return lambda sent: error if sent else BackendDied(error.detail, data={"sent": False})


def fault_of(line: bytes) -> GateError | None:
    """Tell what is wrong with a line that is no message; None for an empty one."""
    if not line.strip():
        return None
    if b"\0" in line:  # The two ends of a line that was too long.
        return TooLarge("The server's answer is too large.", data={"sent": True})
    return BadBackendAnswer(data={"sent": True})
