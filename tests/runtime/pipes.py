"""Pipes and a process transport without a process."""

from __future__ import annotations

from typing import Any


class FakePipe:
    """A reader or writer of a process transport."""

    def __init__(self) -> None:
        self.reading = True
        self.written: list[bytes] = []
        self.producer: Any = None
        self.closed = False

    def startReading(self) -> None:  # noqa: N802  # Twisted's name
        """Go on."""
        self.reading = True

    def stopReading(self) -> None:  # noqa: N802  # Twisted's name
        """Hold."""
        self.reading = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Remember who writes."""
        self.producer = producer

    def write(self, data: bytes) -> None:
        """Remember what is written."""
        self.written.append(data)


class FakeTransport:
    """A process transport."""

    def __init__(self, pid: int = 4242) -> None:
        self.pid: int | None = pid
        self.pipes = {number: FakePipe() for number in range(5)}
        self.told: list[object] = []

    def writeToChild(self, number: int, data: bytes) -> None:  # noqa: N802
        """Write."""
        self.pipes[number].write(data)

    def closeChildFD(self, number: int) -> None:  # noqa: N802
        """Close one pipe."""
        self.told.append(("close", number))
        self.pipes.pop(number, None)

    def loseConnection(self) -> None:
        """Close all pipes."""
        self.told.append("lose")
        self.pipes.clear()
