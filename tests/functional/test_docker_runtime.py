"""The Docker runtime on a real engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor  # noqa: TID251  # a functional test
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mcpgate.errors import BackendUnavailable, ImageMissing
from mcpgate.interfaces import IInstance
from mcpgate.model import MIB, Destination, InstanceKey, Isolation, Owner, Restraint, ServerSpec
from mcpgate.testing.runtime_contract import RuntimeFixture, make_runtime_tests
from tests.functional.docker_bed import DockerBed, Outside
from tests.functional.gate_process import PATIENT_S

REACH = """
import socket, sys
for line in sys.stdin:
    host, port = line.split()
    try:
        with socket.create_connection((host, int(port)), 0.7) as connection:
            connection.sendall(b"HEAD / HTTP/1.0\\r\\n\\r\\n")
            print("open" if connection.recv(99) else "closed", flush=True)
    except OSError as error:
        print(error, flush=True)
"""


def chains() -> set[str]:
    """Name the chains of lists in the firewall."""
    said = subprocess.run(["iptables", "-S"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^-N (MCPGATE-mcpg2\S+)", said, re.MULTILINE))


def fixture(test: TestCase) -> RuntimeFixture:
    """Make a `DockerBed`."""
    return DockerBed(test)


class DockerRuntimeContractTests(make_runtime_tests(fixture)):  # type: ignore[misc]  # a made class
    """`DockerRuntime` keeps the contract."""


class DockerRuntimeTests(TestCase):
    """What only containers have."""

    timeout = 300

    def setUp(self) -> None:
        """Make a runtime."""
        self.bed = DockerBed(self)
        self.runtime = self.bed.runtime

    def start(self, spec: ServerSpec, who: str = "a", **values: str) -> Deferred[IInstance]:
        """Start a copy."""
        return self.runtime.start(spec, self.bed.launch(spec, who, **values))

    def toy(self, program: str, **fields: Any) -> ServerSpec:
        """Make an entry that runs a program on stdio."""
        return self.bed.spec("toy", program, **fields)

    async def line_of(self, instance: IInstance) -> bytes:
        """Wait for the next line a copy writes."""
        assert instance.channel is not None
        got: Deferred[bytes] = Deferred()

        def received(line: bytes) -> None:
            if not got.called:
                got.callback(line)

        instance.channel.attach(received)
        return await got.addTimeout(PATIENT_S, reactor)

    async def test_environment(self) -> None:
        """A server sees its own environment, files and data, and nothing of the gate's."""
        os.environ["GATE_SECRET"] = "of the gate"
        self.addCleanup(os.environ.pop, "GATE_SECRET")
        spec = self.toy(
            "import json, os\n"
            "print(json.dumps([dict(os.environ), open('/run/mcpgate/token').read(), "
            "os.listdir('/data'), os.getuid()]), flush=True)\ninput()",
            env=(("WHO", "{user}"), ("KEY", "{key}")),
            files=(("token", "<{key}>"),),
            container={"data": "per-key", "key_in_env": True},
        )
        instance = await self.start(spec, key="sesame-open", user="ali")
        environ, token, data, uid = json.loads(await self.line_of(instance))
        self.assertEqual((environ["WHO"], environ["KEY"]), ("ali", "sesame-open"))
        self.assertNotIn("GATE_SECRET", environ)
        self.assertEqual((token, data, uid), ("<sesame-open>", [], 10001))

    async def test_noise(self) -> None:
        """Lines over the bound are dropped, broken bytes are passed on, stderr is kept (R39)."""
        instance = await self.start(
            self.toy(
                "import sys\n"
                "sys.stdout.buffer.write(b'x' * (5 << 20) + b'\\n\\xff\\xfe\\n')\n"
                "sys.stdout.flush()\nprint('oops', file=sys.stderr, flush=True)\ninput()"
            )
        )
        assert instance.channel is not None
        lines: list[bytes] = []
        instance.channel.attach(lines.append)
        await self.bed.until(lambda: b"\xff\xfe" in lines)
        self.assertLess(sum(map(len, lines)), 2048)  # Of the long one no more than its ends.
        await self.bed.until(lambda: instance.logs() == ["oops"])
        self.assertEqual(self.bed.meters.events["stdio_noise"], 1)

    async def test_flood(self) -> None:
        """A server that floods stderr costs the gate little memory and little time."""
        instance = await self.start(
            self.toy(
                "import sys\nwhile True:\n    sys.stderr.write('x' * 999 + '\\n')",
                restraint=Restraint(cpus=1.0),
            )
        )
        assert instance.channel is not None
        instance.channel.attach(lambda _: None)
        before, begun = os.times(), reactor.seconds()
        await deferLater(reactor, 2.0)
        after = os.times()
        used = after.user + after.system - before.user - before.system
        self.assertLess(used, (reactor.seconds() - begun) / 2)
        self.assertLessEqual(len(instance.logs()), 201)

    async def test_child_that_does_not_read(self) -> None:
        """A server that reads nothing is not sent more than a bounded amount (R40)."""
        instance = await self.start(self.toy("import time\ntime.sleep(300)"))
        assert instance.channel is not None
        sent = 0
        for _ in range(2000):
            if not instance.channel.send(b"x" * 10_000):
                break
            sent += 10_000
            await deferLater(reactor, 0)
        self.assertGreater(sent, MIB)
        self.assertLess(sent, 4 * MIB)

    async def test_big_lines(self) -> None:
        """Megabytes go both ways unharmed."""
        instance = await self.start(self.bed.spec("echo"))
        line = b"0123456789abcdef" * 65536
        assert instance.channel is not None
        self.assertTrue(instance.channel.send(line))
        self.assertEqual(await self.line_of(instance), line)

    async def test_usage_and_memory(self) -> None:
        """Usage is read from the kernel; who uses too much is killed, and that is told."""
        instance = await self.start(
            self.toy(
                "import sys\nprint(1, flush=True)\ninput()\n"
                "kept = []\nwhile True: kept.append(bytearray(1 << 20))",
                restraint=Restraint(memory_bytes=48 * MIB, cpus=1.0),
            )
        )
        await self.line_of(instance)
        usage = instance.usage()
        assert usage.memory_bytes is not None
        assert usage.cpu_s is not None
        assert usage.processes is not None
        self.assertTrue(MIB < usage.memory_bytes < 48 * MIB)
        self.assertTrue(0 < usage.cpu_s < 10)
        self.assertTrue(1 <= usage.processes < 5)
        assert instance.channel is not None
        instance.channel.send(b"go")
        how = await instance.when_ended().addTimeout(PATIENT_S, reactor)
        self.assertEqual(how.reason, "oom_killed")

    async def test_http_logs(self) -> None:
        """What an HTTP server prints is seen, and by the next gate, too."""
        spec = self.bed.spec(
            "http",
            "import sys\nprint('hello', flush=True)\nsys.stderr.write('world\\n')\n"
            "import time\ntime.sleep(300)",
        )
        instance = await self.start(spec)
        await self.bed.until(lambda: sorted(instance.logs()) == ["hello", "world"])
        second = self.bed.make(keep=True)
        (adopted,) = await second.adopt()
        self.assertEqual(adopted.instance_id, instance.instance_id)
        self.assertEqual(adopted.key, instance.key)
        self.assertEqual(adopted.address, instance.address)
        self.assertEqual(sorted(adopted.logs()), ["hello", "world"])
        self.assertIsNotNone(adopted.usage().memory_bytes)
        await second.stop(adopted, 0)
        self.assertEqual((await instance.when_ended()).reason, "killed")

    async def test_start_cancelled_anywhere(self) -> None:
        """Wherever a start is given up, nothing is left."""
        spec = self.bed.spec("echo")
        for step in range(12):
            starting = self.start(spec, who=hex(step)[2:])
            await deferLater(reactor, step * 0.03)
            starting.cancel()
            try:
                instance = await starting
            except CancelledError:
                continue
            await self.runtime.stop(instance, 0)
            await self.runtime.remove(instance.key)
        await self.bed.until(lambda: not self.bed.containers(all=True))

    async def test_again(self) -> None:
        """A stopped container is taken up by the next start; by a changed entry it is replaced."""
        spec = self.bed.spec("echo")
        one = await self.start(spec)
        (before,) = self.bed.containers()
        await self.runtime.stop(one, 1.0)
        two = await self.start(spec)
        (after,) = self.bed.containers(all=True)
        self.assertEqual(after["Id"], before["Id"])
        self.assertTrue(after["Names"][0].endswith(two.instance_id))
        assert two.channel is not None
        two.channel.send(b"again")
        self.assertEqual(await self.line_of(two), b"again")
        await self.runtime.stop(two, 1.0)
        await self.start(self.bed.spec("echo", env=(("NEW", "1"),)))
        (replaced,) = self.bed.containers(all=True)
        self.assertNotEqual(replaced["Id"], before["Id"])

    async def test_reconcile(self) -> None:
        """Strays go, what was killed unseen is told, the young and the foreign are left."""
        instance = await self.start(self.bed.spec("echo"))
        stray = self.bed.spec("stray")
        await self.start(stray, who="b")
        del self.bed.specs["stray"]
        label = {"mcpgate.gate": self.bed.gate_id}
        young = self.bed.beside.create_container(self.bed.image, labels=label)["Id"]
        second = self.bed.make()
        adopted = await second.adopt()
        self.assertEqual(adopted, [])
        await self.bed.until(lambda: not self.bed.containers(all=True))
        how = await instance.when_ended().addTimeout(10, reactor)
        self.assertIn(how.reason, ("killed", "exited"))
        young = self.bed.beside.create_container(self.bed.image, labels=label)["Id"]
        await second.reconcile()
        self.assertEqual([one["Id"] for one in self.bed.containers(all=True)], [young])
        second._wall = lambda: 1e12
        await second.reconcile()
        self.assertEqual(self.bed.containers(all=True), [])

    async def test_networks(self) -> None:
        """Forty users get a network each: more than the engine has addresses for by itself."""
        spec = self.bed.spec("http", "import time\ntime.sleep(300)")
        runtime = self.runtime
        made = [
            runtime._networks.ensure(
                spec, InstanceKey("http", Owner(Isolation.PER_KEY, f"{number:032x}"))
            )
            for number in range(40)
        ]
        names = {name for _, name in await DeferredList(made)}
        self.assertEqual(len(names), 40)
        await runtime._networks.tidy(set())
        label = f"mcpgate.gate={self.bed.gate_id}"
        self.assertEqual(self.bed.beside.networks(filters={"label": label}), [])

    async def test_allow_list(self) -> None:
        """Names of a list are reached where they are now, and nothing else is (egress)."""
        outside = Outside(self, self.bed.beside, self.bed.image, "198.51.100.0/24")
        first, second = outside.machine(), outside.machine()
        self.bed.table["api.example"] = [first]
        spec = self.toy(
            REACH,
            container={"egress": "allow-list", "egress_to": (Destination("api.example", 8000),)},
        )
        instance = await self.start(spec)
        for host, port, told in (
            ("api.example", 8000, b"open"),
            ("api.example", 8001, b"timed out"),
            (first, 8000, b"open"),
            (second, 8000, b"timed out"),
            ("other.example", 8000, b"resolution"),
        ):
            said = await self.asked(instance, f"{host} {port}")
            self.assertIn(told, said, (host, port, said))
        self.bed.table["api.example"] = [second]
        self.runtime._lists._names._names["api.example"].ask_at_s = 0
        await self.runtime.reconcile()
        self.assertEqual(await self.asked(instance, "api.example 8000"), b"open")
        self.assertEqual(await self.asked(instance, f"{second} 8000"), b"open")
        before = chains()
        await self.runtime.stop(instance, 0)
        await self.runtime.remove(instance.key)
        self.assertEqual(len(before - chains()), 1)

    async def asked(self, instance: IInstance, line: str) -> bytes:
        """Send a line and give the next one."""
        assert instance.channel is not None
        instance.channel.send(line.encode())
        return await self.line_of(instance)

    async def test_published(self) -> None:
        """With published ports servers are reached on the loopback address, each at its own."""
        bed = DockerBed(self, published=True)
        one, two = [
            await bed.runtime.start(spec, bed.launch(spec, who))
            for spec, who in ((bed.spec("http"), "a"), (bed.spec("http"), "b"))
        ]
        assert one.address is not None
        assert two.address is not None
        self.assertEqual({one.address[0], two.address[0]}, {"127.0.0.1"})
        self.assertNotEqual(one.address, two.address)
        from mcpgate.runtime.readiness import ReadinessProbe

        probe = ReadinessProbe(reactor)
        await probe.wait(bed.specs["http"], one).addTimeout(PATIENT_S, reactor)

    async def test_pull(self) -> None:
        """A pull that fails is a missing image, told with the image's name."""
        spec = self.bed.spec("missing", container={"pull": "on-demand"})
        with self.assertRaises(ImageMissing) as caught:
            await self.start(spec)
        self.assertIn("no-such-thing", caught.exception.detail)

    async def test_bad_program(self) -> None:
        """A program the image does not have is told; what the engine refuses leaves nothing."""
        spec = self.bed.spec("echo", container={"entrypoint": ("/no/such/program",)})
        how = await (await self.start(spec)).when_ended().addTimeout(PATIENT_S, reactor)
        self.assertEqual(how.code, 127)
        self.assertIn("/no/such/program", how.stderr_tail[0])
        spec = self.bed.spec("echo", container={"user": "no-such-user"})
        with self.assertRaises(BackendUnavailable):
            await self.start(spec, who="b")
        await self.bed.until(lambda: len(self.bed.containers(all=True)) == 1)

    async def test_nothing_is_left(self) -> None:
        """After a runtime's life no thread, descriptor, container, network or file is left."""
        bed = DockerBed(self)
        spec = bed.spec("http", files=(("x", "y"),))
        self.runtime.calls.close()
        await self.runtime.shutdown()
        await deferLater(reactor, 0.5)
        threads = threading.active_count()
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            runtime = bed.make()
            await runtime.adopt()
            launches = [bed.launch(spec, who) for who in "abcdef"]
            await DeferredList([runtime.start(spec, launch) for launch in launches])
            self.assertEqual(bed.alive(), 6)
            await runtime.shutdown()
            await deferLater(reactor, 0.5)
        self.assertEqual(bed.alive(), 0)
        self.assertLessEqual(threading.active_count(), threads + 1)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), descriptors + 2)
        await bed.make().adopt()
        last = bed.runtimes[-1]
        for who in "abcdef":
            await last.remove(bed.launch(spec, who).key)
        self.assertEqual(bed.containers(all=True), [])
        label = f"mcpgate.gate={bed.gate_id}"
        self.assertEqual(bed.beside.networks(filters={"label": label}), [])
        self.assertEqual(os.listdir(Path(bed.state_dir, "files")), [])
