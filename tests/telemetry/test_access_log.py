"""Tests of the log of requests."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.telemetry.access_log import ENTRY_BYTES, MEMO_ENTRIES, AccessEntry, AccessLog
from mcpgate.telemetry.redaction import Redactor
from mcpgate.telemetry.spool import Spool
from tests.telemetry.sinks import RecordingSink, drained

ENTRY = AccessEntry(
    peer="192.0.2.7",
    method="POST",
    path="/files/mcp",
    status=200,
    bytes_in=10,
    bytes_out=345,
    duration_s=0.01234,
    request_id="r-1",
    protocol="HTTP/1.1",
    complete=True,
    notes={"principal": "aabbccdd", "server": "files"},
)


class AccessLogTests(SynchronousTestCase):
    """`AccessLog` in both forms."""

    def setUp(self) -> None:
        """Make one that can be read."""
        self.sink = RecordingSink()
        self.spool = Spool(self.sink)
        self.redactor = Redactor(["canary-secret"])
        self.now = 1_000_000.0

    def make(self, kind: str = "text", **options: int) -> AccessLog:
        """Make an access log."""
        return AccessLog(self.spool, self.redactor, wall=lambda: self.now, kind=kind, **options)

    def one(self, entry: AccessEntry, kind: str = "text") -> str:
        """Log one entry, give its line."""
        access = self.make(kind)
        access(entry)
        access.flush()
        (line,) = drained(self.spool, self.sink)
        return line.decode()

    def told(self, entry: AccessEntry) -> Any:
        """Log one entry as JSON."""
        return json.loads(self.one(entry, "json"))

    def test_text(self) -> None:
        """A text line reads like the combined format, with time, id and notes behind."""
        self.assertEqual(
            self.one(ENTRY),
            '192.0.2.7 - aabbccdd [1970-01-12T13:46:40.000Z] "POST /files/mcp HTTP/1.1" 200 345 '
            "0.0123 r-1 server=files",
        )

    def test_json(self) -> None:
        """A JSON line has one field for each thing told."""
        told = self.told(ENTRY)
        self.assertEqual(told["time"], "1970-01-12T13:46:40.000Z")
        self.assertEqual((told["status"], told["bytes_in"], told["complete"]), (200, 10, True))
        self.assertEqual((told["server"], told["principal"]), ("files", "aabbccdd"))

    def test_client_gone(self) -> None:
        """A request without an answer is 499; one cut off is marked."""
        entry = replace(ENTRY, status=0, complete=False, peer="", notes={"reason": "two words"})
        line = self.one(entry)
        self.assertTrue(line.startswith("- - - ["))
        self.assertIn(" 499 ", line)
        self.assertTrue(line.endswith(' incomplete reason="two words"'))

    def test_notes(self) -> None:
        """Notes keep their types; one can not replace what the gate tells itself."""
        entry = replace(ENTRY, notes={"status": "forged", "retries": 2, "cold": True, "what": None})
        told = self.told(entry)
        self.assertEqual((told["status"], told["retries"], told["cold"]), (200, 2, True))
        self.assertIn("retries=2 cold=true what=null", self.one(entry))

    def test_notes_that_compare_equal(self) -> None:
        """What is the same to a dictionary may be written otherwise, one line after the other."""
        access = self.make()
        for value in (1, True, 1.0, ["a"], "1"):
            access(replace(ENTRY, notes={"n": value}))
        access.flush()
        lines = [line.decode().rpartition(" ")[2] for line in drained(self.spool, self.sink)]
        self.assertEqual(lines[:3], ["n=1", "n=true", "n=1.0"])
        self.assertEqual(lines[4], "n=1")

    def test_quotes(self) -> None:
        """A quote in the path does not end the request line."""
        self.assertIn(r'"POST /a\"b\\c HTTP/1.1"', self.one(replace(ENTRY, path='/a"b\\c')))

    def test_secrets(self) -> None:
        """A key in a path or a note is not written; one learned later neither."""
        entry = replace(
            ENTRY, path="/canary-secret/x", notes={"token": "abc", "x": "canary-secret"}
        )
        entry.notes["x"] = "canary-secret"
        for kind in ("text", "json"):
            line = self.one(entry, kind)
            self.assertNotIn("canary", line)
            self.assertNotIn("abc", line)
        access = self.make()
        access(replace(ENTRY, path="/late-secret"))
        access.flush()
        self.redactor.add("late-secret")
        access(replace(ENTRY, path="/late-secret"))
        access.flush()
        first, second = drained(self.spool, self.sink)
        self.assertIn(b"late-secret", first)
        self.assertNotIn(b"late-secret", second)

    def test_buffered(self) -> None:
        """Lines are made when the buffer is full or flushed, with the time of the request."""
        access = self.make(flush_bytes=3 * ENTRY_BYTES)
        access(ENTRY)
        access(ENTRY)
        self.assertEqual(drained(self.spool, self.sink), [])
        self.now += 5
        access(ENTRY)
        lines = drained(self.spool, self.sink)
        self.assertEqual([b":40.000Z]" in line for line in lines], [True, True, False])

    def test_memory_of_paths_is_bounded(self) -> None:
        """Random paths do not fill the memory."""
        access = self.make()
        for number in range(3 * MEMO_ENTRIES):
            access(replace(ENTRY, path=f"/{number}"))
        access.flush()
        self.assertLess(len(access._memo), 2 * MEMO_ENTRIES)

    @settings(max_examples=100, deadline=None)
    @given(
        st.text(st.characters(codec=None), max_size=400),
        st.text(st.characters(codec=None), max_size=300),
        st.text(st.characters(codec=None), min_size=1, max_size=300),
    )
    def test_any_text(self, path: str, value: str, name: str) -> None:
        """Whatever a client sends, there is one bounded printable line."""
        entry = replace(ENTRY, path=path, method=value[:20], request_id=value, notes={name: value})
        line = self.one(entry)
        self.assertTrue(line.isprintable())
        self.assertLess(len(line), 3000)
        parsed = self.one(entry, "json")
        self.assertTrue(parsed.isascii())
        json.loads(parsed)
