"""Tests of mcpgate.worker.reporting."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.telemetry.access_log import AccessEntry
from mcpgate.web.workers.entries import read_entry
from mcpgate.web.workers.passing import PASSED
from mcpgate.worker.reporting import ENTRIES, MOST_ENTRIES, OwnerLine


def entry(number: int = 0, **notes: object) -> AccessEntry:
    """Make an entry of the access log."""
    return AccessEntry(
        peer="192.0.2.1",
        method="GET",
        path="/web/x",
        status=200,
        bytes_in=0,
        bytes_out=number,
        duration_s=0.1,
        request_id="x",
        protocol="HTTP/1.1",
        complete=True,
        notes=notes,
    )


class OwnerLineTests(SynchronousTestCase):
    """What the owner is told."""

    def setUp(self) -> None:
        """Connect to it."""
        self.heard: list[dict[str, Any]] = []
        self.gone: list[bool] = []
        self.line = OwnerLine(self.heard.append, lambda: self.gone.append(True), lambda: 12.5)
        self.transport = StringTransport()
        self.line.makeConnection(self.transport)

    def told(self) -> list[AccessEntry]:
        """Give the entries the owner has read."""
        lines = self.transport.value().splitlines()
        self.transport.clear()
        return [read_entry(one) for line in lines for one in json.loads(line)["entries"]]

    def test_entries(self) -> None:
        """They go together, with the time they were made at; what was passed on is not there."""
        self.line.record(entry(1, server="web"))
        self.line.record(entry(2, **{PASSED: True}))
        self.line.record(entry(3))
        self.assertEqual(self.transport.value(), b"")
        self.line.flush()
        self.assertEqual(self.transport.value().count(b"\n"), 1)
        told = self.told()
        self.assertEqual([one.bytes_out for one in told], [1, 3])
        self.assertEqual((told[0].at, told[0].notes), (12.5, {"server": "web"}))
        self.line.flush()
        self.assertEqual(self.told(), [])

    def test_many(self) -> None:
        """A full line goes at once."""
        for number in range(ENTRIES):
            self.line.record(entry(number))
        self.assertEqual(len(self.told()), ENTRIES)

    def test_busy_owner(self) -> None:
        """While it does not read, entries wait, and no more is to be served than it may hear of."""
        self.line.pauseProducing()
        for number in range(MOST_ENTRIES + 5):
            self.assertEqual(self.line.has_room, number < MOST_ENTRIES)
            self.line.record(entry(number))
        self.line.tell({"streams": 1})
        self.assertEqual(self.told(), [])
        self.line.resumeProducing()
        self.assertEqual(len(self.told()), MOST_ENTRIES)
        self.assertTrue(self.line.has_room)

    def test_heard(self) -> None:
        """Long lines are read too; the end of the owner is told."""
        long = {"grant": "x" * 100_000}
        self.line.dataReceived(json.dumps(long).encode() + b"\n")
        self.assertEqual(self.heard, [long])
        self.line.connectionLost()
        self.assertEqual(self.gone, [True])
