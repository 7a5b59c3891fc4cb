"""The fake runtime keeps the promises of the real ones."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from mcpgate.errors import BackendUnavailable
from mcpgate.model import Exit, ServerSpec, Transport
from mcpgate.testing.memory_runtime import Behaviour, MemoryRuntime
from mcpgate.testing.runtime_contract import BRIEF, RuntimeFixture, make_runtime_tests

T = TypeVar("T")


class MemoryFixture:
    """A memory runtime whose clock runs while somebody waits."""

    def __init__(self, test: TestCase) -> None:
        self.clock = Clock()
        self.runtime = MemoryRuntime(self.clock)
        self.runtime.behaviours = {
            "echo": Behaviour(start_s=0.1, answer=lambda line: [line]),
            "crash": Behaviour(
                stderr=("boom",), exits=Exit(code=3, reason="exited", stderr_tail=("boom",))
            ),
            "stubborn": Behaviour(stop_s=1e6),
            "missing": Behaviour(refusal=BackendUnavailable("no-such-thing is not there")),
        }

    def spec(self, kind: str) -> ServerSpec:
        """See `RuntimeFixture.spec`."""
        transport = Transport.HTTP if kind == "http" else Transport.STDIO
        return ServerSpec(name=kind, transport=transport, command=(kind,), lifetime=BRIEF)

    def wait(self, deferred: Deferred[T]) -> Deferred[T]:
        """See `RuntimeFixture.wait`."""
        for _ in range(100):
            if deferred.called:
                break
            self.clock.advance(0.1)
        return deferred

    def alive(self) -> int:
        """See `RuntimeFixture.alive`."""
        return len(self.runtime.alive)

    def close(self) -> Deferred[None]:
        """See `RuntimeFixture.close`."""
        return self.wait(self.runtime.shutdown())


def fixture(test: TestCase) -> RuntimeFixture:
    """Make a `MemoryFixture`."""
    return MemoryFixture(test)


class MemoryRuntimeTests(make_runtime_tests(fixture)):  # type: ignore[misc]  # a made class
    """`MemoryRuntime` keeps the contract."""
