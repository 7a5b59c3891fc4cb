"""Tests of mcpgate.runtime.docker.names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.runtime.docker.names import AGAIN_S, DEADLINE_S, FRESH_S, THREADS, Names, resolve


class FakeReactor(Clock):
    """A clock whose other threads are this one."""

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:  # noqa: N802  # Twisted's
        """Call at once."""
        function(*args)


class NamesTests(SynchronousTestCase):
    """`Names` with threads run by hand."""

    def setUp(self) -> None:
        """Make names."""
        self.clock = FakeReactor()
        self.threads: list[Callable[[], None]] = []
        self.table: dict[str, Sequence[str]] = {"a.example": ["192.0.2.2", "192.0.2.1"]}
        self.asked: list[str] = []
        self.names = Names(self.clock, resolve=self.resolve, spawn=self.threads.append)

    def resolve(self, name: str) -> Sequence[str]:
        """Look into the table."""
        self.asked.append(name)
        if name not in self.table:
            raise OSError("no such name")
        return self.table[name]

    def run_threads(self) -> None:
        """Run what was started."""
        while self.threads:
            self.threads.pop(0)()

    def test_known(self) -> None:
        """A name is asked for once a minute, by everybody together."""
        first, second = (self.names.look_up(["a.example", "a.example"]) for _ in range(2))
        self.assertEqual(len(self.threads), 1)
        self.run_threads()
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.names.now("a.example"), ("192.0.2.1", "192.0.2.2"))
        self.successResultOf(self.names.look_up(["a.example"]))
        self.clock.advance(FRESH_S)
        self.assertNoResult(self.names.look_up(["a.example"]))
        self.run_threads()
        self.assertEqual(self.asked, ["a.example"] * 2)
        self.assertEqual(self.names.now("unasked"), ())
        self.assertEqual(self.names.lately("unasked"), ())

    def test_moved(self) -> None:
        """What a name stood for before stays good for one answer more."""
        self.names.recall("a.example", ["192.0.2.9"])
        self.names.recall("a.example", ["192.0.2.8"])
        self.assertEqual(self.names.now("a.example"), ("192.0.2.9",))
        self.names.look_up(["a.example"])
        self.run_threads()
        self.assertEqual(self.names.lately("a.example"), ("192.0.2.1", "192.0.2.2", "192.0.2.9"))
        self.clock.advance(FRESH_S)
        self.names.look_up(["a.example"])
        self.run_threads()
        self.assertEqual(self.names.lately("a.example"), ("192.0.2.1", "192.0.2.2"))

    def test_nobody_knows(self) -> None:
        """A name nobody knows is asked for again after a while; what was known is kept."""
        self.names.recall("b.example", ["192.0.2.9"])
        looking = self.names.look_up(["b.example"])
        self.run_threads()
        self.successResultOf(looking)
        self.assertEqual(self.names.now("b.example"), ("192.0.2.9",))
        self.successResultOf(self.names.look_up(["b.example"]))
        self.clock.advance(AGAIN_S)
        self.assertNoResult(self.names.look_up(["b.example"]))

    def test_no_answer(self) -> None:
        """Who asks waits no longer than the deadline, and more threads are not made than a few."""
        looking = self.names.look_up([f"{number}.example" for number in range(THREADS + 3)])
        self.assertEqual(len(self.threads), THREADS)
        self.clock.advance(DEADLINE_S)
        self.successResultOf(looking)
        self.successResultOf(self.names.look_up(["0.example"]))
        self.clock.advance(AGAIN_S)
        self.assertNoResult(self.names.look_up(["0.example"]))
        self.assertEqual(len(self.threads), THREADS)
        self.run_threads()
        self.assertEqual(len(self.asked), THREADS + 3)

    def test_resolver(self) -> None:
        """The host's resolver is asked for IPv4 addresses."""
        answer = [(2, 1, 6, "", ("192.0.2.7", 0))]
        with mock.patch("socket.getaddrinfo", return_value=answer):
            self.assertEqual(resolve("a.example"), ["192.0.2.7"])
