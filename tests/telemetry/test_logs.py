"""Tests of log events as lines."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override
from zope.interface.verify import verifyObject

from mcpgate.model import Secret
from mcpgate.telemetry.logs import EventLimit, LineFormat, LineObserver, LogService, timestamp
from mcpgate.telemetry.redaction import Redactor
from mcpgate.telemetry.spool import Spool
from tests.telemetry.sinks import RecordingSink, drained

CANARY = "canary/7f3a-secret"


class LogCase(SynchronousTestCase):
    """A logger whose lines can be read."""

    kind = "json"
    level = "debug"

    def setUp(self) -> None:
        """Wire a logger to a sink."""
        self.sink = RecordingSink()
        self.spool = Spool(self.sink)
        self.redactor = Redactor([CANARY])
        self.clock = Clock()
        self.observer = LineObserver(
            self.spool,
            LineFormat(self.redactor, self.kind),
            EventLimit(self.clock),
            self.level,
        )
        self.log = Logger(namespace="mcpgate.test", observer=self.observer)

    def lines(self) -> list[bytes]:
        """Give what was written since."""
        return drained(self.spool, self.sink)

    def line(self) -> Any:
        """Give the one JSON line written since."""
        (line,) = self.lines()
        return json.loads(line)


class JSONTests(LogCase):
    """One JSON object per line."""

    def test_event(self) -> None:
        """A line holds time, level, logger, message and the fields with their types."""
        self.log.warn(
            "Instance {instance} idle {idle_s:.1f} s", instance="i-1", idle_s=2.25, n=None
        )
        told = self.line()
        self.assertRegex(told.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(
            told,
            {
                "level": "warn",
                "logger": "mcpgate.test",
                "message": "Instance i-1 idle 2.2 s",
                "instance": "i-1",
                "idle_s": 2.25,
                "n": None,
            },
        )
        self.assertEqual(self.sink.severities, [4])

    def test_reserved_names(self) -> None:
        """A field can not pretend to be the time or the level of its line."""
        self.log.info("x", logger="fatal", suppressed=1)
        told = self.line()
        self.assertEqual((told["logger"], told["logger_"]), ("mcpgate.test", "fatal"))

    def test_values(self) -> None:
        """Bytes, objects and numbers JSON has no form for become texts."""
        self.log.info("x", b=b"a\xff", inf=float("inf"), big=1 << 100, path=["a"], ok=True)
        told = self.line()
        self.assertEqual(told["b"], "a\\xff")
        self.assertEqual((told["inf"], told["path"], told["ok"]), ("inf", "['a']", True))
        self.assertEqual(told["big"], str(1 << 100))

    def test_lengths(self) -> None:
        """A megabyte in a field makes a short line (R83)."""
        self.log.info("Path {path}", path="x" * 1_000_000, **{"n" * 1000: 1})
        (line,) = self.lines()
        self.assertLess(len(line), 1000)

    def test_huge_object_in_message(self) -> None:
        """So does an object whose text is a megabyte."""
        self.log.info("Object {it}", it=["x" * 1_000_000])
        (line,) = self.lines()
        self.assertLess(len(line), 2000)

    def test_failure(self) -> None:
        """A traceback is one field of one line, without local variables."""
        self.failed("oops\nline two")
        (line,) = self.lines()
        told = json.loads(line)
        self.assertEqual(told["level"], "critical")
        self.assertIn("ValueError", told["traceback"])
        self.assertIn("test_logs.py", told["traceback"])
        self.assertNotIn("local-value", line.decode())
        self.assertNotIn(b"\n", line)

    def failed(self, text: str) -> None:
        """Log an exception."""
        local = "-".join(("local", "value"))
        try:
            raise ValueError(text)
        except ValueError:
            self.log.failure("Work failed {n}", n=len(local))

    def test_long_failure(self) -> None:
        """A traceback with a megabyte in it keeps its beginning and its end."""
        self.failed("x" * 1_000_000 + " the end")
        told = self.line()
        self.assertLess(len(told["traceback"]), 9000)
        self.assertIn("Traceback", told["traceback"])
        self.assertIn("the end", told["traceback"])

    def test_failure_that_can_not_be_shown(self) -> None:
        """A failure whose traceback fails still makes a line."""

        class Bad(Failure):
            @override
            def getTraceback(self, *_: object, **__: object) -> str:
                raise RuntimeError

        self.log.failure("Bad", failure=Bad(ValueError("x")))
        self.assertIn("ValueError", self.line()["traceback"])

    def test_format_that_does_not_fit(self) -> None:
        """A wrong format string is shown instead of lost."""
        self.log.info("Number {n:d} {missing}", n="text")
        self.assertIn("format", self.line()["message"])

    def test_unformattable_event(self) -> None:
        """Whatever an event holds, there is a line."""
        self.observer({"log_level": LogLevel.info, "log_time": "soon", "log_format": "x"})
        self.assertEqual(self.lines(), [b"a log event could not be formatted"])

    def test_without_format(self) -> None:
        """An event without a format, a level or a namespace makes a line."""
        self.observer({"log_time": 0.0})
        self.assertEqual(self.line()["time"], "1970-01-01T00:00:00.000Z")

    def test_formatter_fails(self) -> None:
        """An error inside formatting falls back to the format itself."""
        from mcpgate.telemetry import logs

        def fail(_: object) -> str:
            raise RuntimeError

        self.patch(logs, "formatEvent", fail)
        self.log.info("The format {x}", x=1)
        self.assertEqual(self.line()["message"], "The format {x}")

    @settings(max_examples=100, deadline=None)
    @given(
        st.dictionaries(
            st.text(st.characters(codec=None), min_size=1, max_size=20),
            st.one_of(
                st.text(st.characters(codec=None), max_size=600),
                st.binary(max_size=300),
                st.integers(),
                st.floats(),
                st.none(),
                st.lists(st.text(max_size=5), max_size=3),
            ),
            max_size=5,
        ),
        st.text(st.characters(codec=None), max_size=50),
    )
    def test_any_field(self, fields: dict[str, object], text: str) -> None:
        """Whatever the fields hold, the line is one line of ASCII, parses, and is bounded."""
        fields = {name: value for name, value in fields.items() if not name.startswith("log_")}
        event = {**fields, "log_format": "{x} " + text.replace("{", "").replace("}", ""), "x": text}
        event |= {"log_level": LogLevel.info, "log_time": 0.0}
        (line,) = self.format_and_take(event)
        told = json.loads(line)
        self.assertTrue(line.isascii())
        self.assertFalse(set(line) & {10, 13, 27, 127})
        for value in told.values():
            if isinstance(value, str):
                self.assertTrue(value.isprintable())
                self.assertLessEqual(len(value), 1024)

    def format_and_take(self, event: dict[str, Any]) -> list[bytes]:
        """Send one event."""
        self.lines()
        self.observer(event)
        return self.lines()


class TextTests(LogCase):
    """Lines for people."""

    kind = "text"

    def test_event(self) -> None:
        """A line begins with time, level and logger."""
        self.log.info("Hello {who}", who="w\u00f6rld")
        (line,) = self.lines()
        self.assertRegex(line.decode(), r"Z info  mcpgate\.test Hello w\u00f6rld$")

    def test_forged_line(self) -> None:
        """A value with a line end and an escape sequence stays on its line."""
        self.log.info("Path {path}", path="/x\n2026 error forged\x1b[2J\u2028")
        (line,) = self.lines()
        self.assertEqual(line.count(b"\n"), 0)
        self.assertIn(rb"/x\n2026 error forged\x1b[2J\u2028", line)

    def test_failure(self) -> None:
        """A traceback follows indented, so that it can not pass for a line of its own."""
        try:
            raise ValueError("oops\r2026-01-01 info forged")
        except ValueError:
            self.log.failure("Work failed")
        (block,) = self.lines()
        first, *rest = block.decode().split("\n")
        self.assertIn("critical", first)
        self.assertTrue(rest)
        for line in rest:
            self.assertTrue(line.startswith("    | "), line)
            self.assertTrue(line.isprintable())

    def test_wrong_kind(self) -> None:
        """There are two formats."""
        with self.assertRaises(ValueError):
            LineFormat(self.redactor, "xml")


class LevelTests(LogCase):
    """What is written at all."""

    level = "warn"

    def test_level(self) -> None:
        """Only events at or above the level are written; it can be changed."""
        self.log.info("no")
        self.log.warn("yes")
        self.observer.set_level("critical")
        self.log.error("no")
        self.observer.set_level("debug")
        self.log.debug("yes")
        self.assertEqual([json.loads(line)["message"] for line in self.lines()], ["yes", "yes"])

    def test_unknown_level(self) -> None:
        """A level nobody knows is refused by name."""
        with self.assertRaises(ValueError) as caught:
            self.observer.set_level("loud")
        self.assertIn("loud", str(caught.exception))


class LimitTests(LogCase):
    """Events that come in floods."""

    def test_ten_a_second(self) -> None:
        """Of a flood ten lines a second are written; the next one tells how many were not."""
        for _ in range(1000):
            self.log.warn("Refused {path}", ev="http_reject", path="x")
        self.assertEqual(len(self.lines()), 10)
        self.log.warn("Other", ev="other")
        self.log.warn("No name")
        self.assertEqual(len(self.lines()), 2)
        self.clock.advance(1)
        self.log.warn("Refused", ev="http_reject")
        self.assertEqual(self.line()["suppressed"], 990)
        self.log.warn("Refused", ev="http_reject")
        self.assertNotIn("suppressed", self.line())

    def test_text_tells_it_too(self) -> None:
        """In text form the count is in brackets."""
        line = LineFormat(self.redactor).line({"log_format": "x", "log_time": 0.0}, 7)
        self.assertTrue(line.endswith(b"x (and 7 like it)"))

    def test_clock_put_back(self) -> None:
        """A clock that goes back does not silence an event for long."""
        limit = EventLimit(self.clock, per_s=1)
        self.clock.rightNow = 1000.0
        self.assertEqual([limit.admit("a"), limit.admit("a")], [0, -1])
        self.clock.rightNow = 10.0
        self.assertEqual(limit.admit("a"), 1)

    def test_names_are_bounded(self) -> None:
        """However many names there are, memory is bounded."""
        limit = EventLimit(self.clock)
        for number in range(1000):
            limit.admit(str(number))
        self.assertLessEqual(len(limit._windows), 256)


class CanaryTests(LogCase):
    """A secret never appears, wherever it was put (R84)."""

    def test_everywhere(self) -> None:
        """In fields, nested values, messages, exceptions and objects: not a trace of it."""
        for kind in ("json", "text"):
            self.observer._format = LineFormat(self.redactor, kind)
            other = "not-known-to-the-redactor"
            self.log.info("By name {token}", token=other, api_key=other, authorization=other)
            self.log.info("Secret {it} {it!r}", it=Secret(other))
            self.log.info("Path {path}", path=f"/{CANARY}/x?{CANARY}")
            self.log.info("Bytes {path}", path=CANARY.encode())
            self.log.info("Dict {it}", it={"deep": [CANARY]})
            self.log.emit(LogLevel.info, f"Literal {CANARY}")
            self.log.info("Edge {path}", path="x" * 250 + CANARY)
            self.log.info("Message edge", path="x" * 4090 + CANARY)
            self.log.info("Quoted {it}", it="canary%2F7f3a-secret")
            try:
                try:
                    raise KeyError(CANARY)
                except KeyError as error:
                    raise RuntimeError(f"{'y' * 4080}{CANARY}") from error
            except RuntimeError:
                self.log.failure("Failed with {it}", it=CANARY)
            long_secret = "L" + "0123456789" * 100
            self.redactor.add(long_secret)
            self.log.info("Many {path}", path=long_secret * 10)
            for size in range(0, 1100, 100):
                try:
                    raise ValueError(long_secret * 5 + "-" * (size + 4000) + long_secret * 4)
                except ValueError:
                    self.log.failure("Long")
            whole = b"\n".join(self.lines()).decode()
            self.assertEqual(whole.count("Failed with ***"), 1)
            self.assertNotIn(other, whole)
            for piece in (CANARY, "7f3a", "canary/", "canary%2F", "012345"):
                self.assertNotIn(piece, whole)

    def test_numbers_stay(self) -> None:
        """A number is no credential: how many tokens are left may be told."""
        self.log.info("{tokens} left", tokens=3)
        self.assertEqual(self.line()["tokens"], 3)


class LogServiceTests(SynchronousTestCase):
    """The log as a service."""

    def test_start_stop(self) -> None:
        """Events are written while the service runs; what waits at the end is, too."""
        sink, publisher, clock = RecordingSink(), LogPublisher(), Clock()
        spool = Spool(sink)
        observer = LineObserver(spool, LineFormat(Redactor()), EventLimit(clock))
        verifyObject(ILogObserver, observer)
        service = LogService(observer, (spool,), publisher)
        log = Logger(namespace="x", observer=publisher)
        log.info("before")
        service.startService()
        log.info("during")
        service.reopen()
        service.stopService()
        log.info("after")
        self.assertEqual(len(sink.lines), 1)
        self.assertTrue(sink.lines[0].endswith(b"x during"))
        self.assertEqual((sink.closed, sink.reopened), (1, 1))


class TimestampTests(SynchronousTestCase):
    """Times in logs."""

    def test_utc(self) -> None:
        """Times are UTC with milliseconds."""
        self.assertEqual(timestamp(1.25), "1970-01-01T00:00:01.250Z")
