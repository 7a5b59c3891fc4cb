"""
The longest turn of the reactor in everything that looks at many things at once.

    python -m bench.scale [--sessions 100000] [--servers 1000] [--only WORD]

Builds the gate's own objects, fills them, has them do their periodic and rare work on a real
reactor, and measures how long nobody else would have been answered.  Then the work of each call is
timed with few and with many things around: it must cost the same.  No turn may take more than
50 ms of the processor; by the clock it takes longer where other programs want it too.
"""
# ruff: noqa: PLC0415, TID251
# Clocks and the reactor are read here: this is a program.

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater

from mcpgate.config.changes import compare
from mcpgate.config.load import read_config
from mcpgate.errors import GateError
from mcpgate.gate.access.cached import CachedAuthenticator
from mcpgate.gate.access.digest import KeyDigest
from mcpgate.gate.access.revocation import Revocations
from mcpgate.gate.access.static import StaticAuthenticator
from mcpgate.gate.admission import RateLimiter
from mcpgate.gate.routing import Routes
from mcpgate.gate.sessions import SessionTable
from mcpgate.mcp.jsonrpc import decode
from mcpgate.model import (
    Caller,
    Principal,
    Rate,
    Secret,
    ServerSpec,
    SessionKey,
    SessionRecord,
    Transport,
)
from mcpgate.service.garbage import Garbage
from mcpgate.stores.memory import MemoryStore
from mcpgate.stores.sqlite import OneThread, SQLiteStore
from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.metrics import GateCollector, Metrics
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.pages.admin import AdminView, statistics
from mcpgate.web.wire.front import AnswerBudget

reactor: Any = _reactor
LIMIT_S: Final = 0.050
SETTLE_S: Final = 2.0
PARAMS: Final = b'{"capabilities":{},"protocolVersion":"2025-11-25"}'


@dataclass
class Turns:
    """The gaps between turns of the reactor, while something goes on."""

    longest_s: float = 0.0
    longest_cpu_s: float = 0.0
    running: bool = True

    def begin(self) -> None:
        self._last_s, self._last_cpu_s = time.perf_counter(), time.thread_time()
        reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        now_s, cpu_s = time.perf_counter(), time.thread_time()
        self.longest_s = max(self.longest_s, now_s - self._last_s)
        self.longest_cpu_s = max(self.longest_cpu_s, cpu_s - self._last_cpu_s)
        self._last_s, self._last_cpu_s = now_s, cpu_s
        if self.running:
            reactor.callLater(0, self._turn)


async def measured(work: Callable[[], Any], settle_s: float) -> tuple[float, float, float]:
    """Do the work; give the longest turn, by the clock and by the processor, and the whole time."""
    # The store writes what was just made within this time, as in a gate.
    await deferLater(reactor, settle_s)
    turns = Turns()
    turns.begin()
    await deferLater(reactor, 0.02)
    turns.longest_s = turns.longest_cpu_s = 0.0
    began_s = time.perf_counter()
    await maybeDeferred(work)
    took_s = time.perf_counter() - began_s
    await deferLater(reactor, 0.02)
    turns.running = False
    return turns.longest_s, turns.longest_cpu_s, took_s


class Bed:
    """What the cases are made of."""

    def __init__(self, stack: ExitStack, sessions: int, servers: int) -> None:
        self.sessions = sessions
        self.servers = servers
        self.meters = Meters()
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.lead_s = 0.0
        self._numbers = iter(range(1 << 60))

    def seconds(self) -> float:
        """Read the clock, which may be put forward."""
        return float(reactor.seconds()) + self.lead_s

    @property
    def clock(self) -> Any:
        bed = self

        class Ahead:
            def __getattr__(self, name: str) -> Any:
                return getattr(reactor, name)

            def seconds(self) -> float:
                return bed.seconds()

        return Ahead()

    def principal(self, number: int) -> Principal:
        return Principal("keys", f"user{number}", f"{number:032x}")

    def store(self) -> SQLiteStore:
        thread = OneThread(reactor.callFromThread, "sessions")
        name = f"sessions{next(self._numbers)}.sqlite"
        return SQLiteStore(reactor, thread, self.directory / name)

    def table(self, store: Any = None, total: int = 0) -> SessionTable:
        return SessionTable(
            store if store is not None else MemoryStore(),
            clock=self.clock,
            wall=time.time,
            make_id=lambda: f"{next(self._numbers):032x}",
            meters=self.meters,
            total=total,
        )

    def filled(self, count: int, store: Any = None) -> SessionTable:
        table = self.table(store)
        for number in range(count):
            session = table.create(
                self.principal(number // 4), f"s{number % self.servers}", PARAMS, "2025-11-25", {}
            )
            session.record.id_returned = True
        return table


Case = Callable[[Bed], Iterator[tuple[str, Callable[[], Any]]]]


def sweeps(bed: Bed) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Sweep sessions: nothing to do, all in use, all idle for too long."""
    store = bed.store()
    table = bed.filled(bed.sessions, store)
    yield "sessions: written after they were made", store.flush
    yield "sessions: sweep, nothing to do", table.sweep
    for session in table:
        session.in_use += 1
    bed.lead_s += 600
    yield "sessions: sweep, all held open by streams", table.sweep
    for session in table:
        session.in_use -= 1
    yield "sessions: handed to the store at the end", table.persist
    yield (
        "sessions: found to be 4 of one key, revoked",
        lambda: table.end_all(bed.principal(7), "revoked"),
    )
    bed.lead_s += 7200
    yield "sessions: sweep, all idle too long", table.sweep
    yield "sessions: the store closes", store.close


def restarts(bed: Bed) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Read all sessions after a restart."""

    class Kept(MemoryStore):
        def load(self) -> Deferred[list[SessionRecord]]:
            return deferLater(reactor, 0, lambda: records)

    now = time.time()
    records = [
        SessionRecord(
            key=SessionKey(bed.principal(number // 4), f"{number:032x}"),
            server="s0",
            initialize_params=PARAMS,
            revision="2025-11-25",
            created_at=now,
            last_used_at=now,
        )
        for number in range(bed.sessions)
    ]
    table = bed.table(Kept())
    yield "sessions: restored after a restart", table.load


def pages(bed: Bed) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Describe everything."""
    table = bed.filled(bed.sessions)
    meters = Meters()
    names = [f"s{number}" for number in range(bed.servers)]
    for name in names:
        for status in (200, 404, 503):
            meters.answered(name, status, 0.004)
        meters.starts[name] += 1
        meters.exits[name, "stopped"] += 1
    collector = GateCollector(
        meters,
        version="1",
        servers=lambda: names,
        instances=tuple,
        sessions=table.count_by_server,
    )
    thread = OneThread(reactor.callFromThread, "scrapes")
    yield "/metrics", Metrics(collector, thread.run).render
    view = AdminView(
        version="1",
        started_at=0.0,
        wall=time.time,
        meters=meters,
        sessions=table.views,
        session_counts=table.count_by_server,
    )
    yield "/stats", lambda: json.dumps(statistics(view))


def keys(bed: Bed) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Read the largest key file, and age what is remembered of keys."""
    from mcpgate.gate.access.keyfile import KEYS_LIMIT, KeyEntry, KeyFile

    path = bed.directory / "keys"
    thread = OneThread(reactor.callFromThread, "reading")

    def write(letter: str) -> None:
        entries = tuple(
            KeyEntry(
                name=f"user{number}",
                key_id=f"{number:08x}",
                salt=letter * 32,
                hashed="b" * 64,
                created="20261120T123000Z",
            )
            for number in range(min(KEYS_LIMIT, bed.sessions))
        )
        path.write_text(KeyFile(entries).text())
        path.chmod(0o600)

    write("a")
    static = StaticAuthenticator(
        "keys", path, KeyDigest(b"s" * 32), Revocations(), apart=thread.run
    )
    write("c")
    yield f"key file: {len(static)} keys read again", static.reload

    revocations = Revocations()

    class Says:
        def authenticate(self, credential: Secret) -> Deferred[Caller]:
            from twisted.internet.defer import succeed

            number = int(credential.reveal())
            return succeed(Caller(bed.principal(number), credential, None))

    digest = KeyDigest(b"s" * 32)
    cached = CachedAuthenticator(
        Says(),  # type: ignore[arg-type]  # what of it is called
        bed.clock,
        digest,
        revocations,
        issuer="keys",
    )
    for number in range(bed.sessions):
        cached.authenticate(Secret(str(number)))
    bed.lead_s += 3600
    yield "remembered keys: all forgotten at once", cached.sweep


def deadlines(bed: Bed) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Have all deadlines come at the same time."""
    wheel = DeadlineWheel(reactor, 0.05)
    over: Deferred[None] = Deferred()
    left = bed.sessions

    def due() -> None:
        nonlocal left
        left -= 1
        if not left:
            over.callback(None)

    for _ in range(bed.sessions):
        wheel.arm(0.2, due)
    yield "deadlines: all at the same time", lambda: over


def configuration(bed: Bed) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Read and compare a configuration with many servers, as a reload does."""
    path = bed.directory / "gate.ini"
    sections = "".join(
        f"[server:s{number}]\ncommand = /bin/true --number {number}\ntransport = stdio\n"
        f"env.TOKEN = x{number}\nmemory = 64MiB\n"
        for number in range(bed.servers)
    )
    path.write_text(
        f"[gate]\nlisten = tcp:8080:interface=127.0.0.1\nstate_dir = {bed.directory}/state\n"
        f"[auth:keys]\ntype = static\nkeys_file = keys\n{sections}"
    )
    path.chmod(0o600)
    thread = OneThread(reactor.callFromThread, "reading")
    config, again = read_config(path, {}), read_config(path, {})
    yield "configuration: compared", lambda: compare(config, again)
    yield "configuration: read", lambda: thread.run(lambda: read_config(path, {}))
    routes = Routes(config.servers)
    yield "configuration: routes replaced", lambda: routes.replace(config.servers)


def documents(bed: Bed) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Parse the largest messages that are allowed."""
    small = b'{"a":1},' * 49_000
    objects = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":[%b{}]}}' % small
    pad = b'"%b",' % (b"x" * 75)
    texts = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":[%b1]}}' % (pad * 49_000)
    numbers = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":[%b1]}}' % (b"1.5," * 99_000)
    long = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"%b"}}' % (b"x" * (4 << 20))
    for what, data in (
        ("49 000 small objects", objects),
        ("49 000 texts", texts),
        ("99 000 numbers", numbers),
        ("one text", long),
    ):
        yield f"JSON: {what}, {len(data) / 2**20:.1f} MiB", partial(read, data)


def read(data: bytes) -> None:
    try:
        decode(data)
    except GateError as error:
        raise SystemExit(str(error)) from None


CASES: Final[tuple[Case, ...]] = (
    sweeps,
    restarts,
    pages,
    keys,
    deadlines,
    configuration,
    documents,
)


# --- The work of one call -----------------------------------------------------------------------


def per_call(bed: Bed, count: int, servers: int) -> dict[str, float]:
    """Give nanoseconds of each step of a warm call, with so many things around."""
    table = bed.filled(count)
    some = [session.record.key for session in list(table)[:: max(1, count // 100)][:100]]
    limiter = RateLimiter(bed.clock, max_keys=2 * count)
    rate = Rate(1e9, 1e9)
    for number in range(count):
        limiter.take(bed.principal(number), rate, 1.0)
    whose = [bed.principal(number) for number in range(0, count, max(1, count // 100))][:100]
    routes = Routes(
        [ServerSpec(name=f"s{number}", transport=Transport.HTTP) for number in range(servers)]
    )
    paths = [b"/s%d/mcp" % (number * servers // 100) for number in range(100)]
    full = bed.table(total=count)
    for number in range(count):
        held = full.create(bed.principal(number // 4), "s0", PARAMS, "x", {})
        held.in_use += 1 if number else 0
    answers = AnswerBudget(count)

    class Client:
        """Reads nothing; once it is cut off, there is room."""

        def give_up(self) -> None:
            answers.held = 0

    clients = [Client() for _ in range(100)]
    for number in range(count):
        answers.hoard(cast("Any", clients[0]), float(number))
    wheel = DeadlineWheel(bed.clock)
    for _ in range(count):
        wheel.arm(1000.0, lambda: None)

    def sessions() -> None:
        for key in some:
            session = table.find(key.principal, "", key.session_id)
            assert session is None

    def arm() -> None:
        for _ in range(100):
            wheel.arm(5.0, lambda: None).cancel()

    def created() -> None:
        for number in range(100):
            table.end(table.create(whose[number % len(whose)], "s0", PARAMS, "x", {}), "over")

    def capped() -> None:
        for number in range(100):
            full.create(bed.principal(count + number), "s0", PARAMS, "x", {})

    def relieved() -> None:
        for client in clients:
            answers.hoard(cast("Any", client), inf)
            answers.held = count + 1
            answers.relieve()
            answers.held = 0

    steps: dict[str, Callable[[], object]] = {
        "find a session": sessions,
        "take from a bucket": lambda: [limiter.take(who, rate, 1.0) for who in whose],
        "find a route": lambda: [routes.find(path) for path in paths],
        "arm and cancel a deadline": arm,
        "make and end a session": created,
        "make a session where all but one are in use": capped,
        "cut off the client that reads slowest": relieved,
    }
    took = {}
    for name, step in steps.items():
        best_s = min(_timed(step) for _ in range(15))
        took[name] = best_s / 100 * 1e9
    wheel.stop()
    return took


def _timed(step: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    step()
    return time.perf_counter() - began_s


async def run(options: argparse.Namespace) -> int:
    missed = 0
    settle_s = SETTLE_S if options.sessions >= 10_000 else 0.0
    print(f"{options.sessions} sessions or keys, {options.servers} servers; milliseconds:")
    print("   longest   its CPU      whole")
    for case in CASES:
        with ExitStack() as stack:
            bed = Bed(stack, options.sessions, options.servers)
            if options.only not in (case.__doc__ or "") + case.__name__:
                continue
            for name, work in case(bed):
                longest_s, cpu_s, took_s = await measured(work, settle_s)
                mark = "" if cpu_s <= LIMIT_S else "  over 50 ms"
                missed += bool(mark)
                told = f"{longest_s * 1000:10.1f} {cpu_s * 1000:8.1f} {took_s * 1000:10.1f}"
                print(f"{told}  {name}{mark}")
                sys.stdout.flush()
    if not options.only:
        with ExitStack() as stack:
            bed = Bed(stack, options.sessions, options.servers)
            few = per_call(bed, 1000, 10)
            many = per_call(bed, options.sessions, options.servers)
        print(f"one call, nanoseconds: 1000 things around, and {options.sessions}")
        for name, few_ns in few.items():
            print(f"  {few_ns:8.0f}  {many[name]:8.0f}  x{many[name] / few_ns:.2f}  {name}")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--only", default="", help="cases whose name or title holds this")
    options = parser.parse_args()
    result = 1

    def start() -> None:
        Garbage(reactor, Meters()).startService()
        running = Deferred.fromCoroutine(run(options))

        def over(outcome: Any) -> None:
            nonlocal result
            if isinstance(outcome, int):
                result = 1 if outcome else 0
            else:
                print(outcome.getTraceback())
            reactor.stop()

        running.addBoth(over)

    reactor.callWhenRunning(start)
    reactor.run()
    return result


if __name__ == "__main__":
    sys.exit(main())
