"""Tests of mcpgate.web.mcp.on_modern.era_watch."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendTimeout
from mcpgate.gate.eras import HORIZON_S, EraBook
from mcpgate.model import Caller, Eras, InstanceKey, ServerSpec, Transport
from mcpgate.web.mcp.on_modern.era_watch import QUIET_S, EraWatch
from tests.web.endpoint_kit import caller_of

WEB = ServerSpec(name="web", transport=Transport.HTTP, url="http://x.example/mcp")
PIPED = ServerSpec(name="piped", transport=Transport.STDIO, command=("x",))
CALLER = caller_of("k1")


class EraWatchTests(SynchronousTestCase):
    """Verdicts, held against how servers behave."""

    def setUp(self) -> None:
        """Make a book and its watch."""
        self.clock = Clock()
        self.clock.advance(1000)
        self.book = EraBook(self.clock.seconds)
        self.probes: list[Deferred[bool]] = []
        self.stopped: list[InstanceKey] = []
        self.answer: Deferred[bool] = Deferred()
        self.watch = EraWatch(self.clock, self.book, self.probe, self.stop)

    def probe(self, spec: ServerSpec, caller: Caller) -> Deferred[bool]:
        """Ask the test."""
        self.probes.append(self.answer)
        return self.answer

    def stop(self, key: InstanceKey) -> Deferred[None]:
        """Take note."""
        self.stopped.append(key)
        return succeed(None)

    def test_old(self) -> None:
        """What is fresh is left alone; what is old is looked at while it still counts."""
        self.book.note(WEB, legacy=True, modern=False)
        self.watch.used(WEB, CALLER)
        self.assertEqual(self.probes, [])
        self.clock.advance(HORIZON_S)
        self.watch.used(WEB, CALLER)
        self.assertIs(self.book.known(WEB).modern, False)
        self.answer.callback(True)
        self.assertEqual(self.book.known(WEB).words, "dual")

    def test_not_too_often(self) -> None:
        """A server in doubt is looked at once a minute."""
        self.answer = fail(BackendTimeout())
        for _ in range(3):
            self.watch.doubted(WEB, CALLER)
        self.assertEqual(len(self.probes), 1)
        self.clock.advance(QUIET_S)
        self.answer = fail(BackendTimeout())
        self.watch.doubted(WEB, CALLER)
        self.assertEqual(len(self.probes), 2)

    def test_can_not_be_told(self) -> None:
        """A probe that fails leaves the last verdict."""
        self.book.note(WEB, legacy=False, modern=True)
        self.watch.doubted(WEB, CALLER)
        self.answer.errback(BackendTimeout())
        self.assertTrue(self.book.known(WEB).modern_only)

    def test_bug(self) -> None:
        """A bug in probing is logged, and no more."""
        self.answer = fail(ZeroDivisionError())
        self.watch.doubted(WEB, CALLER)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_refuted(self) -> None:
        """A server that is not modern any more has to be found out anew."""
        self.book.note(WEB, legacy=False, modern=True)
        self.watch.doubted(WEB, CALLER)
        self.answer.callback(False)
        known = self.book.known(WEB)
        self.assertEqual((known.legacy, known.modern), (None, False))
        self.book.note(WEB, legacy=True, modern=True)
        self.watch.refuted(WEB, CALLER)
        self.assertEqual(self.book.known(WEB).words, "legacy")

    def test_stdio(self) -> None:
        """A process that turns out not to be modern is stopped; doubt alone asks nothing."""
        self.book.note(PIPED, legacy=False, modern=True)
        self.watch.doubted(PIPED, CALLER)
        self.assertEqual(self.probes, [])
        self.watch.refuted(PIPED, CALLER)
        self.assertEqual([key.server for key in self.stopped], ["piped"])
        self.assertEqual(self.book.known(PIPED).words, "unknown")

    def test_pinned(self) -> None:
        """What the configuration says is never doubted."""
        pinned = replace(WEB, era=Eras.MODERN)
        self.watch.doubted(pinned, CALLER)
        self.watch.refuted(pinned, CALLER)
        self.assertEqual(self.probes, [])
        self.assertTrue(self.book.known(pinned).modern_only)
