"""Tests of mcpgate.runtime.docker.engine: deadlines, bounds, and what follows silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import docker.errors
import requests.exceptions
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import RuntimeUnavailable
from mcpgate.runtime.docker.engine import DockerCalls, NotThere, Refused, translated
from mcpgate.telemetry.meters import Meters


class FakeReactor(Clock):
    """A clock whose other threads are this one."""

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:  # noqa: N802  # Twisted's
        """Call at once."""
        function(*args)


class FakeClient:
    """Notes that it was closed; ``ping`` does what it is told."""

    def __init__(self, pong: Callable[[], Any]) -> None:
        self.closed = False
        self.ping = pong

    def close(self) -> None:
        """Close."""
        self.closed = True


class CallsTests(SynchronousTestCase):
    """`DockerCalls` with threads run by hand."""

    def setUp(self) -> None:
        """Make the way to the engine."""
        self.reactor = FakeReactor()
        self.threads: list[Callable[[], None]] = []
        self.clients: list[FakeClient] = []
        self.refusal: Exception | None = None
        self.backs = 0
        self.calls = DockerCalls(
            self.reactor,
            self.connect,
            meters=Meters(),
            back=self.back,
            threads=2,
            queue=4,
            deadline_s=5.0,
            probe_s=1.0,
            idle_s=0.0,
            spawn=self.threads.append,
        )

    def connect(self) -> FakeClient:
        """Make a client, unless the engine is gone."""
        if self.refusal is not None:
            raise self.refusal
        self.clients.append(FakeClient(lambda: True))
        return self.clients[-1]

    def back(self) -> None:
        """Note that the engine is back."""
        self.backs += 1

    def run_threads(self) -> None:
        """Let every thread do what waits."""
        threads, self.threads[:] = list(self.threads), []
        for thread in threads:
            thread()

    def test_result(self) -> None:
        """The work is done with a client, its result given; idle threads end."""
        called = self.calls.call(lambda client: client is self.clients[0])
        self.assertNoResult(called)
        self.run_threads()
        self.assertIs(self.successResultOf(called), True)
        self.assertTrue(self.clients[0].closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_bounded_threads(self) -> None:
        """However much waits, threads are few; beyond the bound, calls are refused."""
        waiting = [self.calls.call(lambda _: 1) for _ in range(4)]
        self.assertEqual(len(self.threads), 2)
        self.failureResultOf(self.calls.call(lambda _: 1), RuntimeUnavailable)
        self.run_threads()
        self.assertEqual([self.successResultOf(one) for one in waiting], [1] * 4)
        self.assertEqual(len(self.clients), 1)

    def test_refused(self) -> None:
        """What the engine says is told; it is no silence."""

        def refuse(_: object) -> None:
            raise docker.errors.APIError("no", response=None, explanation="name in use")

        called = self.calls.call(refuse)
        self.run_threads()
        self.assertEqual(self.failureResultOf(called, Refused).value.text, "name in use")
        self.assertTrue(self.calls.answering)

    def test_silence(self) -> None:
        """After a deadline everybody is refused at once, until a ping is answered."""
        slow = self.calls.call(lambda _: "late")
        held, self.threads[:] = list(self.threads), []
        self.reactor.advance(5.0)
        self.failureResultOf(slow, RuntimeUnavailable)
        self.assertFalse(self.calls.answering)
        self.failureResultOf(self.calls.call(lambda _: 1), RuntimeUnavailable)
        self.reactor.advance(1.0)
        self.run_threads()
        for thread in held:
            thread()
        self.assertTrue(self.calls.answering)
        self.assertEqual(self.backs, 1)
        again = self.calls.call(lambda _: 1)
        self.run_threads()
        self.assertEqual(self.successResultOf(again), 1)

    def test_ping_after_ping(self) -> None:
        """As long as nobody answers, it is asked every second."""
        self.refusal = FileNotFoundError("no socket")
        called = self.calls.call(lambda _: 1)
        self.run_threads()
        self.failureResultOf(called, RuntimeUnavailable)
        for _ in range(3):
            self.reactor.advance(1.0)
            self.run_threads()
            self.assertFalse(self.calls.answering)
        self.refusal = None
        self.reactor.advance(1.0)
        self.run_threads()
        self.assertTrue(self.calls.answering)

    def test_late_result_is_discarded(self) -> None:
        """What came of a call nobody waits for any more is put away."""
        discarded: list[str] = []
        began: list[Deferred[str]] = []

        def work(_: object) -> str:
            began[0].cancel()
            return "socket"

        began.append(self.calls.call(work, discard=discarded.append))
        self.run_threads()
        self.failureResultOf(began[0], CancelledError)
        self.assertEqual(discarded, ["socket"])

    def test_cancelled_before_it_began(self) -> None:
        """What was cancelled in the queue is not begun."""
        done: list[int] = []
        called = self.calls.call(lambda _: done.append(1))
        called.cancel()
        self.failureResultOf(called, CancelledError)
        self.run_threads()
        self.assertEqual(done, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_dead_connection(self) -> None:
        """A connection from before the engine's restart is not held against it."""
        broken = [True]

        def work(client: FakeClient) -> str:
            if client is self.clients[0] and len(done) == 1 and broken:
                broken.clear()
                raise requests.exceptions.ConnectionError("Connection aborted.")
            done.append(1)
            return "done"

        done: list[int] = []
        one, two = self.calls.call(work), self.calls.call(work)
        self.run_threads()
        self.assertEqual((self.successResultOf(one), self.successResultOf(two)), ("done", "done"))
        self.assertEqual([client.closed for client in self.clients], [True, True])
        self.assertTrue(self.calls.answering)

    def test_read_timeout_is_not_tried_again(self) -> None:
        """What may have been done is not done twice."""
        done: list[int] = []

        def work(_: object) -> None:
            done.append(1)
            if len(done) == 2:
                raise requests.exceptions.ConnectionError("Read timed out.")

        self.calls.call(work)
        called = self.calls.call(work)
        self.run_threads()
        self.failureResultOf(called, RuntimeUnavailable)
        self.assertEqual(len(done), 2)
        self.calls.close()

    def test_close(self) -> None:
        """Closing fails what waits, and nothing is asked any more."""
        called = self.calls.call(lambda _: 1)
        self.calls.close()
        self.failureResultOf(called, RuntimeUnavailable)
        self.failureResultOf(self.calls.call(lambda _: 1), RuntimeUnavailable)
        self.run_threads()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_close_while_silent(self) -> None:
        """Closing ends the pings."""
        self.calls.call(lambda _: 1).addErrback(lambda _: None)
        self.reactor.advance(5.0)
        self.calls.close()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_failure_after_return_is_logged(self) -> None:
        """What fails when the engine is back is a bug, and logged as one."""
        self.backs = 0
        self.calls._back = lambda: 1 / 0
        self.refusal = OSError("gone")
        self.calls.call(lambda _: 1).addErrback(lambda _: None)
        self.run_threads()
        self.refusal = None
        self.reactor.advance(1.0)
        self.run_threads()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class TranslationTests(SynchronousTestCase):
    """Errors of the SDK become ours."""

    def test_kinds(self) -> None:
        """Not found, refused, unreachable, and bugs stay apart."""
        for error, kind in (
            (docker.errors.ImageNotFound("x"), NotThere),
            (docker.errors.NotFound("x"), NotThere),
            (docker.errors.APIError("x"), Refused),
            (docker.errors.DockerException("x"), RuntimeUnavailable),
            (requests.exceptions.ReadTimeout("x"), RuntimeUnavailable),
            (OSError("x"), RuntimeUnavailable),
            (KeyError("x"), KeyError),
        ):
            self.assertIsInstance(translated(error), kind)
