"""
Calls to the container engine, which block, kept away from everything that must not wait.

A few threads of their own, made when needed; a deadline for every call; a bound on what waits.
When the engine does not answer, callers are told at once until a ping succeeds again: a hung
engine costs each caller one deadline at most, and no thread beyond the few (R46).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import RuntimeUnavailable
from mcpgate.telemetry.meters import Meters

log = Logger()

T = TypeVar("T")

DEADLINE_S: Final = 8.0
PROBE_S: Final = 1.0
THREADS: Final = 8
QUEUE: Final = 500

_IDLE_S: Final = 30.0


def spawn_thread(work: Callable[[], None]) -> None:
    """Start a thread that does not keep the program alive: the engine may never answer it."""
    Thread(target=work, name="mcpgate-docker", daemon=True).start()


class NotThere(Exception):  # noqa: N818  # an answer, not a fault
    """The engine knows no such container, image or network (404)."""


class Refused(Exception):  # noqa: N818  # an answer, not a fault
    """
    The engine said no.

    :ivar status: of its HTTP answer; 409 for a conflict.
    :ivar text: its own words.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def connect(url: str, timeout_s: float) -> Any:
    """
    Make a client of the SDK; blocks.

    :param url: of the engine; empty: as the ``docker`` command finds it (``DOCKER_HOST``, the
        context in use, else the usual socket).
    :param timeout_s: longest silence of the engine.
    """
    import docker  # noqa: PLC0415  # an optional requirement
    from docker.context import ContextAPI  # noqa: PLC0415

    if url:
        return docker.APIClient(base_url=url, version="auto", timeout=timeout_s)
    found = docker.utils.kwargs_from_env()
    if "base_url" not in found:
        context = ContextAPI.get_current_context()
        if context is not None and context.Host:
            found["base_url"] = context.Host
            if context.TLSConfig is not None:
                found["tls"] = context.TLSConfig
    return docker.APIClient(version="auto", timeout=timeout_s, **found)


def translated(error: Exception) -> Exception:
    """Put an error of the SDK into ours; what is none of its is given back."""
    import docker.errors  # noqa: PLC0415  # an optional requirement
    import requests.exceptions  # noqa: PLC0415

    match error:
        case docker.errors.NotFound():
            return NotThere(str(error.explanation or error))
        case docker.errors.APIError():
            return Refused(error.status_code or 500, str(error.explanation or error))
        case docker.errors.DockerException() | requests.exceptions.RequestException() | OSError():
            return RuntimeUnavailable()
        case _:
            return error


def _outcome_name(outcome: object) -> str:
    """Name what became of a call, for the meters."""
    if not isinstance(outcome, Failure):
        return "ok"
    return "refused" if outcome.check(NotThere, Refused) else "failed"


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    work: Callable[[Any], T]
    discard: Callable[[T], object] | None
    result: Deferred[T] = field(default_factory=Deferred)
    timer: IDelayedCall | None = None


class DockerCalls:
    """
    The way to the engine.

    :param reactor: clock and ``callFromThread``.
    :param make_client: makes a client of the SDK; called on each thread, for itself.
    :param idle_s: a thread with nothing to do ends after this long.
    :param spawn: starts a thread.
    :param back: called when the engine answers again after it did not.
    :ivar answering: the engine answered when it was last asked.

    What becomes of calls is counted in ``meters.engine_calls``.
    """

    def __init__(
        self,
        reactor: Any,
        make_client: Callable[[], Any],
        *,
        meters: Meters,
        back: Callable[[], object] = lambda: None,
        threads: int = THREADS,
        queue: int = QUEUE,
        deadline_s: float = DEADLINE_S,
        probe_s: float = PROBE_S,
        idle_s: float = _IDLE_S,
        spawn: Callable[[Callable[[], None]], None] = spawn_thread,
    ) -> None:
        self.answering = True
        self._reactor = reactor
        self._make_client = make_client
        self._meters = meters
        self._back = back
        self._most_threads = threads
        self._limit = queue
        self._deadline_s = deadline_s
        self._probe_s = probe_s
        self._idle_s = idle_s
        self._spawn = spawn
        self._queue: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._threads = 0
        self._pending: set[_Job[Any]] = set()
        self._probing: IDelayedCall | None = None
        self._closed = False

    def call(
        self,
        work: Callable[[Any], T],
        *,
        deadline_s: float = 0.0,
        discard: Callable[[T], object] | None = None,
    ) -> Deferred[T]:
        """
        Have ``work`` done with a client, on a thread.

        Fails with `NotThere`, `Refused`, or `RuntimeUnavailable` when the engine does not answer
        within the deadline, or did not a moment ago.

        :param deadline_s: another one than the usual.
        :param discard: called with a result nobody waits for any more.
        """
        if self._closed or not self.answering or len(self._pending) >= self._limit:
            return fail(RuntimeUnavailable(retry_after_s=max(1.0, self._probe_s)))
        return self._submit(work, deadline_s or self._deadline_s, discard)

    @property
    def waiting(self) -> int:
        """How many calls have no answer yet."""
        return len(self._pending)

    def _submit(
        self, work: Callable[[Any], T], deadline_s: float, discard: Callable[[T], object] | None
    ) -> Deferred[T]:
        job: _Job[T] = _Job(work, discard)
        job.result = Deferred(lambda _: self._let_go(job))
        job.timer = self._reactor.callLater(deadline_s, self._late, job)
        self._pending.add(job)
        self._queue.put(job)
        if self._threads < min(self._most_threads, len(self._pending)):
            self._add_thread()
        return job.result

    def _add_thread(self) -> None:
        self._threads += 1
        self._spawn(self._serve)

    def _let_go(self, job: _Job[Any]) -> None:
        if job.timer is not None and job.timer.active():
            job.timer.cancel()

    def _late(self, job: _Job[Any]) -> None:
        self._meters.events["engine_timeout"] += 1
        self._meters.engine_calls["timeout"] += 1
        self._silent("it gave no answer in time")
        job.result.errback(Failure(RuntimeUnavailable(retry_after_s=5.0)))

    # --- On a thread --------------------------------------------------------------------------

    def _serve(self) -> None:
        client: Any = None
        while True:
            try:
                job = self._queue.get(timeout=self._idle_s)
            except Empty:
                job = None
            if job is None:
                break
            outcome, client = self._do(job, client)
            self._reactor.callFromThread(self._done, job, outcome)
        if client is not None:
            client.close()
        self._reactor.callFromThread(self._thread_ended)

    def _do(self, job: _Job[Any], client: Any) -> tuple[Any, Any]:
        """Do a job; answer its outcome and the client to use next time."""
        if job.result.called:
            return Failure(CancelledError()), client
        while True:
            kept = client is not None
            try:
                client = client or self._make_client()
                return job.work(client), client
            except Exception as error:
                outcome = Failure(translated(error))
                outcome.cleanFailure()
                silent = "timed out" in str(error)
            if not outcome.check(RuntimeUnavailable):
                return outcome, client
            if client is not None:
                client.close()
                client = None
            # Once more if the connection was kept from before: after a restart of the engine it
            # is dead, and nothing was read from it.
            if silent or not kept:
                return outcome, None

    # --- On the reactor's ---------------------------------------------------------------------

    def _done(self, job: _Job[Any], outcome: Any) -> None:
        self._pending.discard(job)
        self._let_go(job)
        if isinstance(outcome, Failure) and outcome.check(RuntimeUnavailable):
            self._silent("it can not be reached")
        if not job.result.called:
            self._meters.engine_calls[_outcome_name(outcome)] += 1
            job.result.callback(outcome)
        elif job.discard is not None and not isinstance(outcome, Failure):
            job.discard(outcome)

    def _thread_ended(self) -> None:
        self._threads -= 1
        if not self._queue.empty() and not self._closed:
            self._add_thread()  # Somebody asked while it was ending.

    def _silent(self, why: str) -> None:
        if self.answering:
            self.answering = False
            log.error("The container engine does not answer: {why}", why=why)
        if self._probing is None and not self._closed:
            self._probing = self._reactor.callLater(self._probe_s, self._probe)

    def _probe(self) -> None:
        self._probing = None

        def answered(_: object) -> None:
            if not self.answering:
                self.answering = True
                log.info("The container engine answers again")
                self._back()

        def silent(failure: Failure) -> None:
            self._silent(failure.getErrorMessage())

        probing = self._submit(lambda client: client.ping(), self._deadline_s, None)
        probing.addCallbacks(answered, silent).addErrback(
            lambda failure: log.failure("What follows the engine's return failed", failure)
        )

    def close(self) -> None:
        """Let go of the threads; calls in work fail."""
        self._closed = True
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None
        for _ in range(self._threads):
            self._queue.put(None)
        for job in tuple(self._pending):
            self._let_go(job)
            if not job.result.called:
                job.result.errback(Failure(RuntimeUnavailable()))
