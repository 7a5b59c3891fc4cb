"""
What every `IRuntime` must do: one suite for the fake and for the real ones.

    class MyRuntimeTests(make_runtime_tests(MyFixture)): ...
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mcpgate.errors import BackendUnavailable
from mcpgate.interfaces import IInstance, IRuntime, IStdioChannel
from mcpgate.model import (
    Exit,
    InstanceKey,
    Isolation,
    Launch,
    Lifetime,
    Owner,
    Secret,
    ServerSpec,
)

T = TypeVar("T")

GRACE_S = 0.3


class RuntimeFixture(Protocol):
    """
    What the suite needs of a runtime.

    The specs it gives name servers that: ``echo`` (stdio, answers each line with itself),
    ``http`` (listens), ``crash`` (writes ``boom`` to stderr, exits with 3), ``stubborn`` (stdio,
    hears neither the end of stdin nor TERM), ``missing`` (no such command or image: its name
    stands in the error).
    """

    @property
    def runtime(self) -> IRuntime:
        """The runtime."""

    def spec(self, kind: str) -> ServerSpec:
        """Give the spec of one of the kinds."""

    def wait(self, deferred: Deferred[T]) -> Deferred[T]:
        """Let time pass until it fires."""

    def alive(self) -> int:
        """Count the copies that really exist."""

    def close(self) -> Deferred[None]:
        """Leave nothing behind."""


class _Fixtures(Protocol):
    def __call__(self, test: TestCase) -> RuntimeFixture:
        """Make one."""


def make_runtime_tests(fixtures: _Fixtures) -> type[TestCase]:  # a suite
    """Make the suite for one kind of runtime."""

    class RuntimeContract(TestCase):
        """The promises of `IRuntime`."""

        timeout = 30

        def setUp(self) -> None:  # trial calls it; no @override on what may be a coroutine
            """Make the runtime."""
            self.fixture = fixtures(self)
            self.runtime = self.fixture.runtime
            self.count = 0
            self.addCleanup(self.fixture.close)

        def launch(self, spec: ServerSpec, who: str = "a") -> Launch:
            """Make a launch nobody had before."""
            self.count += 1
            key = InstanceKey(spec.name, Owner(Isolation.PER_KEY, who * 32))
            return Launch(
                instance_id=f"contract-{self.count}", key=key, values={"key": Secret("k" * 20)}
            )

        async def started(self, kind: str) -> IInstance:
            """Start one copy."""
            spec = self.fixture.spec(kind)
            return await self.fixture.wait(self.runtime.start(spec, self.launch(spec)))

        async def test_provides(self) -> None:
            """Runtime, instance and channel have everything their interfaces name."""
            verifyObject(IRuntime, self.runtime)
            instance = await self.started("echo")
            verifyObject(IInstance, instance)
            verifyObject(IStdioChannel, instance.channel)

        async def test_stdio_has_a_channel_only(self) -> None:
            """A stdio server is reached by its pipes."""
            instance = await self.started("echo")
            self.assertIsNotNone(instance.channel)
            self.assertIsNone(instance.address)

        async def test_http_has_an_address_only(self) -> None:
            """HTTP servers get an address each, that only this machine can reach."""
            one = await self.started("http")
            two = await self.started("http")
            assert one.address is not None
            assert two.address is not None
            self.assertIsNone(one.channel)
            self.assertTrue(ip_address(one.address[0]).is_private)
            self.assertNotEqual(one.address, two.address)

        async def test_knows_its_key(self) -> None:
            """An instance says what it is a copy of, and which."""
            spec = self.fixture.spec("echo")
            launch = self.launch(spec)
            instance = await self.fixture.wait(self.runtime.start(spec, launch))
            self.assertEqual((instance.key, instance.instance_id), (launch.key, launch.instance_id))

        async def test_given_away(self) -> None:
            """A copy that was nobody's says whose it is, works on, and stops like any other."""
            spec = self.fixture.spec("echo")
            nobody = Owner.nobody(Isolation.PER_KEY, "contract")
            launch = Launch(
                instance_id="contract-spare", key=InstanceKey(spec.name, nobody), values={}
            )
            instance = await self.fixture.wait(self.runtime.start(spec, launch))
            key = InstanceKey(spec.name, Owner(Isolation.PER_KEY, "a" * 32))
            self.runtime.assign(instance, key)
            self.assertEqual(instance.key, key)
            assert instance.channel is not None
            heard: Deferred[bytes] = Deferred()
            instance.channel.attach(heard.callback)
            self.assertTrue(instance.channel.send(b"still here"))
            self.assertEqual(await self.fixture.wait(heard), b"still here")
            await self.fixture.wait(self.runtime.stop(instance, GRACE_S))
            await self.fixture.wait(self.runtime.remove(key))
            self.assertEqual(self.fixture.alive(), 0)

        async def test_lines_both_ways(self) -> None:
            """What is sent comes back line by line, in order."""
            instance = await self.started("echo")
            assert instance.channel is not None
            got: list[bytes] = []
            enough: Deferred[None] = Deferred()

            def received(line: bytes) -> None:
                got.append(line)
                if len(got) == 3:
                    enough.callback(None)

            instance.channel.attach(received)
            for line in (b"one", b'{"two": "\xc3\xbc"}', b"three"):
                self.assertTrue(instance.channel.send(line))
            await self.fixture.wait(enough)
            self.assertEqual(got, [b"one", b'{"two": "\xc3\xbc"}', b"three"])

        async def test_crash(self) -> None:
            """A copy that dies by itself tells how, and its last words."""
            instance = await self.started("crash")
            how = await self.fixture.wait(instance.when_ended())
            self.assertEqual((how.code, how.signal, how.reason), (3, None, "exited"))
            self.assertEqual(how.stderr_tail, ("boom",))
            self.assertEqual(instance.logs(), ["boom"])
            self.assertEqual(instance.log_after(0), (["boom"], 1))
            self.assertEqual(instance.log_after(1), ([], 1))

        async def test_every_watcher_hears_of_the_end(self) -> None:
            """Each watcher has its own Deferred; cancelling one disturbs nobody."""
            instance = await self.started("echo")
            first, second = instance.when_ended(), instance.when_ended()
            first.cancel()
            first.addErrback(lambda failure: failure.trap(CancelledError))
            await self.fixture.wait(self.runtime.stop(instance, GRACE_S))
            self.assertEqual(self.successResultOf(second).reason, "stopped")
            self.assertEqual(self.successResultOf(instance.when_ended()).reason, "stopped")

        async def test_stop(self) -> None:
            """Stopping ends it, says so, and may be asked for again."""
            instance = await self.started("echo")
            once = self.runtime.stop(instance, GRACE_S)
            again = self.runtime.stop(instance, GRACE_S)
            how = await self.fixture.wait(once)
            self.assertEqual(how.reason, "stopped")
            self.assertEqual(await self.fixture.wait(again), how)
            late: Exit = await self.fixture.wait(self.runtime.stop(instance, GRACE_S))
            self.assertEqual(late, how)
            self.assertEqual(self.fixture.alive(), 0)

        async def test_stop_the_stubborn(self) -> None:
            """What does not want to end is killed."""
            instance = await self.started("stubborn")
            how = await self.fixture.wait(self.runtime.stop(instance, GRACE_S))
            self.assertEqual((how.reason, how.signal), ("stopped", 9))
            self.assertEqual(self.fixture.alive(), 0)

        async def test_no_sending_after_the_end(self) -> None:
            """Lines for a copy that has ended are lost: its end tells whoever waits."""
            instance = await self.started("echo")
            assert instance.channel is not None
            await self.fixture.wait(self.runtime.stop(instance, GRACE_S))
            self.assertTrue(instance.channel.send(b"hello?"))

        async def test_start_refused(self) -> None:
            """What can not be started fails with a clear text, and leaves nothing."""
            with self.assertRaises(BackendUnavailable) as caught:
                await self.started("missing")
            self.assertIn("no-such-thing", caught.exception.detail)
            self.assertEqual(self.fixture.alive(), 0)

        async def test_start_again(self) -> None:
            """The same launch gives the same copy, not a second one."""
            spec = self.fixture.spec("echo")
            launch = self.launch(spec)
            one = await self.fixture.wait(self.runtime.start(spec, launch))
            two = await self.fixture.wait(self.runtime.start(spec, launch))
            self.assertIs(one, two)
            self.assertEqual(self.fixture.alive(), 1)

        async def test_start_cancelled(self) -> None:
            """A start that is given up leaves nothing running."""
            spec = self.fixture.spec("echo")
            starting = self.runtime.start(spec, self.launch(spec))
            starting.cancel()
            with self.assertRaises(CancelledError):
                await self.fixture.wait(starting)
            await self.fixture.wait(self.runtime.shutdown())
            self.assertEqual(self.fixture.alive(), 0)

        async def test_remove_is_idempotent(self) -> None:
            """Removing what is stopped, removed or was never there succeeds."""
            instance = await self.started("echo")
            await self.fixture.wait(self.runtime.stop(instance, GRACE_S))
            await self.fixture.wait(self.runtime.remove(instance.key))
            await self.fixture.wait(self.runtime.remove(instance.key))
            nobody = InstanceKey("nothing", Owner(Isolation.SHARED))
            await self.fixture.wait(self.runtime.remove(nobody))

        async def test_adopt_spares_the_living(self) -> None:
            """Looking for strays of an earlier life does not touch this one."""
            await self.started("echo")
            await self.fixture.wait(self.runtime.adopt())
            self.assertEqual(self.fixture.alive(), 1)

        async def test_shutdown(self) -> None:
            """Shutting down stops everything, and may be asked for again."""
            await self.started("echo")
            await self.started("http")
            await self.fixture.wait(self.runtime.shutdown())
            self.assertEqual(self.fixture.alive(), 0)
            await self.fixture.wait(self.runtime.shutdown())

        async def test_usage(self) -> None:
            """What can not be told is None, never an exception; after the end, too."""
            instance = await self.started("echo")
            instance.usage()
            await self.fixture.wait(self.runtime.stop(instance, GRACE_S))
            instance.usage()

    return RuntimeContract


BRIEF = Lifetime(start_s=20.0, start_wait_s=20.0, stop_grace_s=GRACE_S)
"""A lifetime for tests with real servers."""
