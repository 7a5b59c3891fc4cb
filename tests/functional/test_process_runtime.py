"""The process runtime with real children."""

# ruff: noqa: ASYNC220, ASYNC240  # a test may look at a file

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypeVar

from twisted.internet import reactor  # noqa: TID251  # a functional test
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mcpgate.errors import BackendTimeout, BackendUnavailable, GateError
from mcpgate.interfaces import IInstance, IUpstream
from mcpgate.model import (
    MIB,
    Caller,
    InstanceKey,
    Isolation,
    Launch,
    Owner,
    Principal,
    Restraint,
    Secret,
    ServerSpec,
    Transport,
)
from mcpgate.runtime.pool import InstancePool
from mcpgate.runtime.process import ProcessRuntime
from mcpgate.runtime.procfs import ProcFS
from mcpgate.runtime.readiness import ReadinessProbe
from mcpgate.telemetry.meters import Meters
from mcpgate.testing.runtime_contract import BRIEF, GRACE_S, RuntimeFixture, make_runtime_tests
from mcpgate.timing.deferreds import deferred
from tests.functional import real
from tests.functional.gate_process import PATIENT_S

T = TypeVar("T")

PR_SET_CHILD_SUBREAPER = 36

ECHO = """
import sys
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
"""
HTTP = """
import http.server, sys
class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(405)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Quiet).serve_forever()
"""
CRASH = """
import sys
print("boom", file=sys.stderr)
sys.exit(3)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    time.sleep(60)
"""
FAMILY = """
import os, subprocess, sys, time
same = subprocess.Popen(["sleep", "300"])
fled = subprocess.Popen(["sleep", "300"], start_new_session=True)
print(same.pid, fled.pid, flush=True)
time.sleep(300)
"""


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    process = ProcFS(reactor).process(pid)
    return process is not None and process.state not in "ZX"


class ProcessFixture:
    """A process runtime in a folder of its own."""

    def __init__(self, test: TestCase) -> None:
        if not os.path.isdir("/proc/self"):
            real.missing("needs Linux with /proc")
        self.state_dir = tempfile.mkdtemp(prefix="mcpgate-test-")
        self.meters = Meters()
        self.runtime = ProcessRuntime(
            reactor,
            state_dir=self.state_dir,
            meters=self.meters,
            path=os.environ["PATH"],
            stop_grace_s=0.0,
        )

    def spec(self, kind: str) -> ServerSpec:
        """See `RuntimeFixture.spec`."""
        programs = {"echo": ECHO, "http": HTTP, "crash": CRASH, "stubborn": STUBBORN}
        command: tuple[str, ...] = ("no-such-thing",)
        if kind in programs:
            command = (sys.executable, "-I", "-c", programs[kind], "{port}")
        transport = Transport.HTTP if kind == "http" else Transport.STDIO
        return ServerSpec(name=kind, transport=transport, command=command, lifetime=BRIEF)

    def wait(self, waited: Deferred[T]) -> Deferred[T]:
        """See `RuntimeFixture.wait`."""
        return waited

    def alive(self) -> int:
        """See `RuntimeFixture.alive`."""
        children = self.runtime._children.values()
        return sum(1 for child in children if alive(child.pid))

    @deferred
    async def close(self) -> None:
        """See `RuntimeFixture.close`."""
        for child in list(self.runtime._children.values()):
            child.stop(0)
        await self.runtime.shutdown()
        shutil.rmtree(self.state_dir, ignore_errors=True)


def fixture(test: TestCase) -> RuntimeFixture:
    """Make a `ProcessFixture`."""
    return ProcessFixture(test)


class ProcessRuntimeContractTests(make_runtime_tests(fixture)):  # type: ignore[misc]  # a made class
    """`ProcessRuntime` keeps the contract."""


class ProcessRuntimeTests(TestCase):
    """What only processes have."""

    timeout = 300

    def setUp(self) -> None:
        """Make the runtime."""
        self.fixture = ProcessFixture(self)
        self.addCleanup(self.fixture.close)
        self.runtime = self.fixture.runtime
        self.count = 0

    def start(self, program: str, *args: str, **fields: object) -> Deferred[IInstance]:
        """Start a Python program."""
        spec = ServerSpec(
            name="toy",
            command=(sys.executable, "-I", "-c", program, *args),
            lifetime=BRIEF,
            **{"transport": Transport.STDIO, **fields},  # type: ignore[arg-type]  # for brevity
        )
        return self.start_spec(spec)

    def start_spec(self, spec: ServerSpec) -> Deferred[IInstance]:
        """Start a copy of any server."""
        self.count += 1
        launch = Launch(
            instance_id=f"toy-{self.count}",
            key=InstanceKey(spec.name, Owner(Isolation.PER_KEY, "c0ffee" * 4)),
            values={"key": Secret("sesame-open-123"), "user": Secret("ali")},
        )
        return self.runtime.start(spec, launch)

    async def line_of(self, instance: IInstance) -> bytes:
        """Wait for the next line a child writes."""
        assert instance.channel is not None
        got: Deferred[bytes] = Deferred()

        def received(line: bytes) -> None:
            if not got.called:
                got.callback(line)

        instance.channel.attach(received)
        return await got

    async def until(self, condition: object, timeout_s: float = PATIENT_S) -> None:
        """Wait until a condition holds."""
        assert callable(condition)
        for _ in range(int(timeout_s / 0.02)):
            if condition():
                return
            await deferLater(reactor, 0.02)
        self.fail("it did not come about in time")

    async def test_environment(self) -> None:
        """A child sees PATH, HOME, LANG, TMPDIR, its mark and what its entry says; no more."""
        os.environ["GATE_SECRET"] = "of the gate"
        self.addCleanup(os.environ.pop, "GATE_SECRET")
        instance = await self.start(
            "import json, os\nprint(json.dumps([dict(os.environ), os.getcwd()]), flush=True)\n"
            "input()",
            env=(("TOKEN", "{key}"), ("WHO", "{user}")),
        )
        environment, cwd = json.loads(await self.line_of(instance))
        self.assertEqual(
            sorted(set(environment) - {"LC_CTYPE"}),
            ["HOME", "LANG", "MCPGATE_INSTANCE", "PATH", "TMPDIR", "TOKEN", "WHO"],
        )
        self.assertEqual(environment["TOKEN"], "sesame-open-123")
        self.assertEqual(environment["WHO"], "ali")
        self.assertEqual(cwd, environment["HOME"])
        self.assertTrue(cwd.startswith(self.fixture.state_dir))

    async def test_secrets_are_not_in_process_lists(self) -> None:
        """The key is in no argument, neither of the launcher nor of the server."""
        instance = await self.start(ECHO, env=(("TOKEN", "{key}"),))
        pid = instance.pid  # type: ignore[attr-defined]  # a Child
        self.assertNotIn(b"sesame", Path(f"/proc/{pid}/cmdline").read_bytes())
        self.assertIn(b"sesame", Path(f"/proc/{pid}/environ").read_bytes())

    async def test_secrets_are_hidden_in_logs(self) -> None:
        """A key a server prints is not shown to whoever reads its log."""
        instance = await self.start(
            "import os, sys\nprint('key', os.environ['TOKEN'], file=sys.stderr)",
            env=(("TOKEN", "{key}"),),
        )
        how = await instance.when_ended()
        self.assertEqual(how.stderr_tail, ("key ***",))

    async def test_prepared_process(self) -> None:
        """A child has a session of its own, no privileges to gain, and its limits."""
        instance = await self.start(
            "import json, os, resource as r\n"
            "status = dict(l.split(':\\t', 1) for l in open('/proc/self/status'))\n"
            "print(json.dumps([os.getsid(0) == os.getpid() == os.getpgid(0),"
            " status['NoNewPrivs'].strip(), r.getrlimit(r.RLIMIT_DATA), r.getrlimit(r.RLIMIT_CORE),"
            " r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_FSIZE), os.nice(0),"
            " open('/proc/self/oom_score_adj').read().strip(),"
            " [int(n) for n in os.listdir('/proc/self/fd') if int(n) < 1000]]), flush=True)\n"
            "input()",
            restraint=Restraint(
                memory_bytes=200 * MIB, open_files=64, file_bytes=5 * MIB, cpus=0.5
            ),
        )
        told = json.loads(await self.line_of(instance))
        self.assertEqual(
            told[:6],
            [True, "1", [200 * MIB] * 2, [0, 0], [64, 64], [5 * MIB] * 2],
        )
        self.assertGreaterEqual(told[6], 5)
        self.assertEqual(told[7], "500")
        # 3 is the folder being listed.
        self.assertEqual(told[8], [0, 1, 2, 3])

    async def test_files(self) -> None:
        """Files of the entry are there, filled in, for the owner's eyes only; later they go."""
        instance = await self.start(
            "import os, sys\np = sys.argv[1]\n"
            "print(oct(os.stat(p).st_mode & 0o777), open(p).read(), flush=True)\ninput()",
            "{files_dir}/sub/conf.ini",
            files=(("sub/conf.ini", "key={key}"),),
        )
        self.assertEqual(await self.line_of(instance), b"0o600 key=sesame-open-123")
        await self.runtime.stop(instance, GRACE_S)
        run = Path(self.fixture.state_dir, "run")
        await self.until(lambda: not list(run.iterdir()))

    async def test_data_survives(self) -> None:
        """What a server writes to its data folder is there for the owner's next copy."""
        one = await self.start("open('kept', 'w').write('x')")
        await one.when_ended()
        two = await self.start("import os\nprint(os.listdir('.'), flush=True)\ninput()")
        self.assertEqual(await self.line_of(two), b"['kept']")

    async def test_descendants_die_with_it(self) -> None:
        """Children of a child are killed with it, those that fled its session too."""
        instance = await self.start(FAMILY)
        same, fled = map(int, (await self.line_of(instance)).split())
        self.assertTrue(alive(same) and alive(fled))
        self.assertEqual(instance.usage().processes, 2)
        await self.runtime.stop(instance, 0)
        await self.until(lambda: not alive(same) and not alive(fled))

    async def test_descendants_do_not_hold_up_the_end(self) -> None:
        """A child that dies leaving others with its pipes open has ended all the same."""
        instance = await self.start(
            "import subprocess, sys\nsubprocess.Popen(['sleep', '300'])\nsys.exit(7)"
        )
        how = await instance.when_ended().addTimeout(3.0, reactor)
        self.assertEqual(how.code, 7)

    async def test_no_zombies(self) -> None:
        """Nothing of twenty children is left in the process table."""
        instances = [await self.start(ECHO) for _ in range(5)]
        pids = [instance.pid for instance in instances]  # type: ignore[attr-defined]  # Child
        await DeferredList([self.runtime.stop(instance, 0) for instance in instances])
        processes = ProcFS(reactor)
        self.assertEqual([pid for pid in pids if processes.process(pid) is not None], [])

    async def test_orphans_are_reaped(self) -> None:
        """As process 1 of a container, the gate leaves no zombies of its grandchildren."""
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.addCleanup(libc.prctl, PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        self.runtime._reaps_orphans = True
        instance = await self.start(FAMILY)
        same, fled = map(int, (await self.line_of(instance)).split())
        await self.runtime.stop(instance, 0)
        processes = ProcFS(reactor)
        await self.until(lambda: processes.process(same) is None)
        await self.until(lambda: processes.process(fled) is None)

    async def test_twenty_at_once(self) -> None:
        """Twenty children start together, answer and stop together."""
        starts = [self.start(ECHO) for _ in range(20)]
        instances = [await start for start in starts]
        for number, instance in enumerate(instances):
            assert instance.channel is not None
            instance.channel.send(b"%d" % number)
        for number, instance in enumerate(instances):
            self.assertEqual(await self.line_of(instance), b"%d" % number)
        await DeferredList([self.runtime.stop(instance, GRACE_S) for instance in instances])
        self.assertEqual(self.fixture.alive(), 0)

    async def test_memory_limit(self) -> None:
        """A server that wants more memory than it may have ends, and it is told why."""
        instance = await self.start(
            "x = bytearray(300 * 2**20)", restraint=Restraint(memory_bytes=100 * MIB)
        )
        how = await instance.when_ended()
        self.assertEqual((how.code, how.reason), (1, "oom_killed"))

    async def test_killed_from_outside(self) -> None:
        """A server somebody kills is told from one that exits."""
        instance = await self.start(ECHO)
        os.kill(instance.pid, signal.SIGKILL)  # type: ignore[attr-defined]  # a Child
        how = await instance.when_ended()
        self.assertEqual((how.code, how.signal, how.reason), (None, 9, "killed"))

    async def test_stderr_flood(self) -> None:
        """A server that floods stderr costs bounded memory, and its stdout still works."""
        instance = await self.start(
            "import os, threading\n"
            "flood = b'x' * 99 + b'\\n'\n"
            "def run():\n    while True: os.write(2, flood * 600)\n"
            "threading.Thread(target=run, daemon=True).start()\n"
            "print(input(), flush=True)\ninput()"
        )
        assert instance.channel is not None
        before, begun = os.times(), reactor.seconds()
        await deferLater(reactor, 1.5)
        after, took = os.times(), reactor.seconds() - begun
        instance.channel.send(b"still here")
        self.assertEqual(await self.line_of(instance), b"still here")
        self.assertLess(after.user + after.system - before.user - before.system, took / 2)
        self.assertLessEqual(len(instance.logs()), 201)
        await self.runtime.stop(instance, 0)

    async def test_child_that_does_not_read(self) -> None:
        """A child that reads nothing is not sent more than a bounded amount."""
        instance = await self.start("import time\ntime.sleep(300)")
        assert instance.channel is not None
        sent = 0
        for _ in range(400):
            if not instance.channel.send(b"x" * 10_000):
                break
            sent += 10_000
            await deferLater(reactor, 0)
        self.assertGreater(sent, 1 * MIB)
        self.assertLess(sent, 2 * MIB)
        await self.runtime.stop(instance, 0)

    async def test_overlong_line(self) -> None:
        """Of a line over the bound only the ends arrive; the next line arrives whole."""
        instance = await self.start(
            "import sys\nsys.stdout.write('x' * (5 << 20) + '\\nshort\\n')\nsys.stdout.flush()\n"
            "input()"
        )
        lines: list[bytes] = []
        both: Deferred[None] = Deferred()

        def received(line: bytes) -> None:
            lines.append(line)
            if len(lines) == 2:
                both.callback(None)

        assert instance.channel is not None
        instance.channel.attach(received)
        await both
        self.assertEqual(lines, [b"x" * 512 + b"\0" + b"x" * 512, b"short"])
        self.assertEqual(self.fixture.meters.events["stdio_noise"], 1)

    async def test_port_taken(self) -> None:
        """A port somebody else took in between is told from other failures."""
        with socket.socket() as squatter:
            squatter.bind(("127.0.0.1", 0))
            squatter.listen()
            self.runtime._choose_port = lambda: squatter.getsockname()[1]
            instance = await self.start(HTTP, "{port}", transport=Transport.HTTP)
            how = await instance.when_ended()
        self.assertEqual(how.reason, "port_taken")

    async def refusal(self, spec: ServerSpec) -> str:
        """Give the text with which a start is refused."""
        with self.assertRaises(BackendUnavailable) as caught:
            await self.start_spec(spec)
        return str(caught.exception.detail)

    async def test_clear_refusals(self) -> None:
        """What is wrong with a command is said in words, naming it."""
        stdio = Transport.STDIO
        self.assertIn(
            "'/etc' of server 'a' can not be run: Permission denied",
            await self.refusal(ServerSpec(name="a", transport=stdio, command=("/etc",))),
        )
        self.assertIn(
            "folder '/no/such/folder' of server 'b' can not be entered: No such file",
            await self.refusal(
                ServerSpec(name="b", transport=stdio, command=("true",), cwd="/no/such/folder")
            ),
        )
        self.assertIn(
            "leads out of the folder",
            await self.refusal(
                ServerSpec(name="c", transport=stdio, command=("true",), files=(("../../x", "y"),))
            ),
        )
        self.assertIn(
            "holds a NUL",
            await self.refusal(ServerSpec(name="d", transport=stdio, command=("true", "\0"))),
        )
        run = Path(self.fixture.state_dir, "run")
        await self.until(lambda: not list(run.iterdir()))


SLOW_HTTP = "import time\ntime.sleep(0.4)\n" + HTTP


@implementer(IUpstream)
class FakeUpstream:
    """Notes when it was closed."""

    def __init__(self) -> None:
        self.closed: Deferred[GateError] = Deferred()
        self.heard_s = 0.0
        self.unreachable = False

    def ask_alive(self, timeout_s: float) -> bool:
        """See `IUpstream.ask_alive`."""
        return False

    def close(self, error: GateError) -> None:
        """See `IUpstream.close`."""
        self.closed.callback(error)


def caller(name: str) -> Caller:
    """Make a caller."""
    principal = Principal(issuer="keys", subject=name, key_digest=name * 8)
    return Caller(principal=principal, credential=Secret(f"key-of-{name}"))


def owner(name: str) -> Owner:
    """Make the owner of a caller's instances."""
    return Owner(Isolation.PER_KEY, name * 8)


class ProcessPoolTests(TestCase):
    """The pool over real processes."""

    timeout = 300

    def setUp(self) -> None:
        """Make the pool."""
        self.fixture = ProcessFixture(self)
        self.addCleanup(self.fixture.close)
        ids = count(1)
        self.pool = InstancePool(
            reactor,
            runtimes={"process": self.fixture.runtime},
            connect=lambda spec, instance: FakeUpstream(),
            probe=ReadinessProbe(reactor),
            make_id=lambda: f"id-{next(ids)}",
            meters=self.fixture.meters,
            wall=lambda: 0.0,
            luck=lambda: 0.5,
        )
        self.addCleanup(self.pool.stop_all, 10.0)

    def spec(self, program: str) -> ServerSpec:
        """Make the spec of an HTTP server."""
        return ServerSpec(
            name="web",
            transport=Transport.HTTP,
            command=(sys.executable, "-I", "-c", program, "{port}"),
            lifetime=BRIEF,
        )

    async def test_ready_when_it_answers(self) -> None:
        """A lease is given when the server answers, not when it was started."""
        lease = await self.pool.lease(self.spec(SLOW_HTTP), owner("a"), caller("a"))
        assert lease.instance.address is not None
        with socket.create_connection(lease.instance.address, timeout=1.0):
            pass

    async def test_killed_and_back(self) -> None:
        """After a kill callers are told within a second, and the next call has a new copy."""
        spec = self.spec(HTTP)
        lease = await self.pool.lease(spec, owner("a"), caller("a"))
        os.kill(lease.instance.pid, signal.SIGKILL)  # type: ignore[attr-defined]  # a Child
        error = await lease.upstream.closed.addTimeout(1.0, reactor)
        self.assertEqual(error.data["signal"], 9)
        again = await self.pool.lease(spec, owner("a"), caller("a"))
        self.assertNotEqual(again.instance.address, lease.instance.address)

    async def test_ends_before_it_is_ready(self) -> None:
        """A server that ends at once is told with its exit code and last words."""
        with self.assertRaises(BackendUnavailable) as caught:
            await self.pool.lease(self.spec(CRASH), owner("a"), caller("a"))
        self.assertEqual(caught.exception.data["exitCode"], 3)
        self.assertEqual(caught.exception.data["stderr"], ["boom"])

    async def test_never_ready(self) -> None:
        """A server that does not answer in time is stopped."""
        spec = replace(self.spec(STUBBORN), lifetime=replace(BRIEF, start_s=0.5))
        with self.assertRaises(BackendTimeout):
            await self.pool.lease(spec, owner("a"), caller("a"))
        self.assertEqual(self.fixture.alive(), 0)

    async def test_herd(self) -> None:
        """Ten keys and twenty calls at once are ten servers, each on a port of its own."""
        spec = self.spec(HTTP)
        names = "abcdefghij" * 2
        leases = [
            await asked
            for asked in [self.pool.lease(spec, owner(name), caller(name)) for name in names]
        ]
        self.assertEqual(len({lease.instance.address for lease in leases}), 10)
        self.assertEqual(self.fixture.alive(), 10)
        await self.pool.stop_all(10.0)
        self.assertEqual(self.fixture.alive(), 0)


GATE = """
import os, sys
from twisted.internet import reactor
from mcpgate.model import *
from mcpgate.runtime.process import ProcessRuntime
from mcpgate.telemetry.meters import Meters

def go():
    runtime = ProcessRuntime(
        reactor, state_dir=sys.argv[1], meters=Meters(), path=os.environ["PATH"]
    )
    spec = ServerSpec(name="toy", transport=Transport.STDIO,
                      command=(sys.executable, "-I", "-c", sys.argv[2]))
    key = InstanceKey("toy", Owner(Isolation.SHARED))
    d = runtime.start(spec, Launch(instance_id="first-life", key=key, values={}))
    def up(child):
        child.channel.attach(lambda line: print(child.pid, line.decode(), flush=True))
    d.addCallback(up)
reactor.callWhenRunning(go)
reactor.run()
"""


class GateDeathTests(TestCase):
    """What becomes of the children when the gate is killed."""

    timeout = 300

    def setUp(self) -> None:
        """Make the runtime of the gate's second life."""
        self.fixture = ProcessFixture(self)
        self.addCleanup(self.fixture.close)

    async def test_kill_9(self) -> None:
        """The kernel kills the children; the next gate finds the rest and the folders."""
        gate = subprocess.Popen(
            [sys.executable, "-c", GATE, self.fixture.state_dir, FAMILY],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        self.addCleanup(gate.wait)
        self.addCleanup(gate.kill)
        assert gate.stdout is not None
        self.addCleanup(gate.stdout.close)
        child, same, fled = map(int, gate.stdout.readline().split())
        for pid in (same, fled):
            self.addCleanup(self.slay, pid)
        gate.kill()
        await self.gone(child)
        run = Path(self.fixture.state_dir, "run")
        self.assertEqual([path.name for path in run.iterdir()], ["first-life"])
        self.assertEqual(await self.fixture.runtime.adopt(), [])
        await self.gone(same)
        await self.gone(fled)
        self.assertEqual(list(run.iterdir()), [])
        self.assertEqual(self.fixture.meters.events["stray_killed"], 2)

    async def gone(self, pid: int) -> None:
        """Give the kernel the moment it takes to end a process that was killed."""
        for _ in range(200):
            if not alive(pid):
                break
            await deferLater(reactor, 0.02)
        self.assertFalse(alive(pid))

    def slay(self, pid: int) -> Deferred[None]:
        """Make sure nothing of the test stays."""
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
        return succeed(None)
