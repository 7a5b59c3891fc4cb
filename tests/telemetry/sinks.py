"""A sink for tests."""

from __future__ import annotations

from mcpgate.telemetry.spool import Line, Spool


class RecordingSink:
    """Keeps what it is given; fails while ``broken``."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.severities: list[int] = []
        self.broken: OSError | None = None
        self.reopened = 0
        self.closed = 0

    def write(self, lines: list[Line]) -> None:
        """See `mcpgate.telemetry.spool.Sink.write`."""
        if self.broken is not None:
            raise self.broken
        for severity, line in lines:
            self.lines.append(line)
            self.severities.append(severity)

    def reopen(self) -> None:
        """Count."""
        self.reopened += 1

    def close(self) -> None:
        """Count."""
        self.closed += 1


def drained(spool: Spool, sink: RecordingSink) -> list[bytes]:
    """Write what waits and give it."""
    spool.drain()
    lines, sink.lines = sink.lines, []
    return lines
