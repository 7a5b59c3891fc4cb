"""The Docker runtime over an engine that hangs, dies, comes back: each test's own engine."""

from __future__ import annotations

import signal
import threading

from twisted.internet import reactor  # noqa: TID251  # a functional test
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mcpgate.errors import BackendUnavailable, ImageMissing, RuntimeUnavailable
from mcpgate.interfaces import IInstance
from mcpgate.model import ServerSpec
from tests.functional.docker_bed import DockerBed
from tests.functional.docker_engine import PrivateEngine
from tests.functional.gate_process import AT_ONCE_S, PATIENT_S


class EngineFaultTests(TestCase):
    """What the engine does must not cost more than it has to."""

    timeout = 300

    def make(self, *options: str) -> tuple[PrivateEngine, DockerBed]:
        """Start an engine and a runtime over it."""
        engine = PrivateEngine(*options)
        self.addCleanup(engine.stop)
        engine.start()
        return engine, DockerBed(self, engine.url, deadline_s=2.0)

    async def start(self, bed: DockerBed, spec: ServerSpec, who: str = "a") -> IInstance:
        """Start a copy."""
        return await bed.runtime.start(spec, bed.launch(spec, who))

    async def echoed(self, bed: DockerBed, instance: IInstance, text: bytes) -> None:
        """Make sure that a copy answers."""
        assert instance.channel is not None
        got: list[bytes] = []
        instance.channel.attach(got.append)
        self.assertTrue(instance.channel.send(text))
        await bed.until(lambda: got == [text])

    async def test_hung(self) -> None:
        """Running servers do not notice; starts are refused in time, without more threads."""
        engine, bed = self.make()
        instance = await self.start(bed, bed.spec("echo"))
        await self.echoed(bed, instance, b"before")
        engine.signal(signal.SIGSTOP)
        try:
            begun = reactor.seconds()
            with self.assertRaises(RuntimeUnavailable):
                await self.start(bed, bed.spec("echo"), "b")
            self.assertLess(reactor.seconds() - begun, AT_ONCE_S)
            threads = threading.active_count()
            begun = reactor.seconds()
            for _ in range(50):
                with self.assertRaises(RuntimeUnavailable):
                    await self.start(bed, bed.spec("echo"), "b")
            # Not the deadline of 2 s for each.
            self.assertLess(reactor.seconds() - begun, 80.0)
            self.assertLessEqual(threading.active_count(), threads + 1)
            self.assertFalse(bed.runtime.calls.answering)
        finally:
            engine.signal(signal.SIGCONT)
        await bed.until(lambda: bed.runtime.calls.answering)
        again = await self.start(bed, bed.spec("echo"), "b")
        await self.echoed(bed, again, b"after")
        await self.echoed(bed, instance, b"still here")

    async def test_killed_and_started(self) -> None:
        """Containers that ended with the engine are told; the next start works soon after."""
        engine, bed = self.make()
        instance = await self.start(bed, bed.spec("echo"))
        engine.signal(signal.SIGKILL)
        with self.assertRaises(RuntimeUnavailable):
            await self.start(bed, bed.spec("echo"), "b")
        engine.start()
        began = reactor.seconds()
        how = await instance.when_ended().addTimeout(PATIENT_S, reactor)
        self.assertIn(how.reason, ("killed", "lost"))
        await bed.until(lambda: bed.runtime.calls.answering)
        again = await self.start(bed, bed.spec("echo"))
        self.assertLess(reactor.seconds() - began, AT_ONCE_S)
        await self.echoed(bed, again, b"after")

    async def test_restarted_in_order(self) -> None:
        """The same when the engine is stopped in order: its word on the end is taken."""
        engine, bed = self.make()
        instance = await self.start(bed, bed.spec("echo"))
        assert engine.process is not None
        engine.signal(signal.SIGTERM)
        ended = instance.when_ended()
        while engine.process.poll() is None:
            await deferLater(reactor, 0.05)
        engine.start()
        await ended.addTimeout(PATIENT_S, reactor)
        await bed.until(lambda: bed.runtime.calls.answering)
        again = await self.start(bed, bed.spec("echo"))
        await self.echoed(bed, again, b"after")

    async def test_image_removed(self) -> None:
        """Without its image a running copy goes on, and a new one is refused at once."""
        _, bed = self.make()
        instance = await self.start(bed, bed.spec("echo"))
        bed.beside.remove_image(bed.image, force=True)
        begun = reactor.seconds()
        with self.assertRaises(ImageMissing):
            await self.start(bed, bed.spec("echo"), "b")
        self.assertLess(reactor.seconds() - begun, AT_ONCE_S)
        await self.echoed(bed, instance, b"still here")

    async def test_nobody_there(self) -> None:
        """Where no engine is, servers are refused and the gate goes on."""
        engine, bed = self.make()
        spec = bed.spec("echo")
        engine.signal(signal.SIGTERM)
        assert engine.process is not None
        engine.process.wait(30)
        self.assertEqual(await bed.runtime.adopt(), [])
        with self.assertRaises(BackendUnavailable) as caught:
            await self.start(bed, spec)
        self.assertIn("does not answer", caught.exception.detail)
        await bed.runtime.shutdown()
        engine.start()
