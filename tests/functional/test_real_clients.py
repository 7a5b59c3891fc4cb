"""
The clients people use, against servers people run, through the gate over TLS.

One gate serves the whole suite.  Every client is a user of its own, and every answer it brings
home must name that user: its key is a key of a wiki, which the gate asks whose it is.
"""

from __future__ import annotations

import atexit
import contextlib
import unittest
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase
from typing_extensions import override

from tests.functional import real
from tests.functional.gate_process import GateProcess
from tests.functional.real_clients import BY_NAME, CLIENT_LIST, Said, Task
from tests.functional.servers.fake_model import FakeModel
from tests.functional.servers.fake_outline import FakeOutline

# More clients at once than processors: they wait for each other a lot.
AT_ONCE = 3
QUEUE_S = 1800.0

GATE = """
[gate]
listen = tls:tcp:<port>:interface=127.0.0.1
state_dir = <dir>/state
memory_budget = 64GiB
start_parallel = 2
[auth]
header = X-Outline-API-Key
[auth:wiki]
type = remote
url = {wiki}/auth.info
method = POST
header.Authorization = Bearer {{key}}
header.Content-Type = application/json
body = {{}}
user_field = data.user.id
allow_private = on
[limits]
per_key = 200/s
burst = 400
per_address = 500/s
address_burst = 1000
"""

STDIO = """
[server:stdio]
command = {python} <servers>/sdk1_server.py
env.WHO = {{user}}
memory = 512MiB
"""

TIME = """
[server:time]
command = {python} -m mcp_server_time
memory = 512MiB
"""

OUTLINE = """
[server:outline]
command = {command}
transport = http
env.MCP_TRANSPORT = streamable-http
env.MCP_HOST = 127.0.0.1
env.MCP_PORT = {{port}}
env.OUTLINE_API_URL = {wiki}
env.OUTLINE_API_KEY = {{key}}
memory = 512MiB
"""

EVERYTHING = """
[server:everything]
command = {node} {script} streamableHttp
transport = http
env.PORT = {{port}}
memory = 2GiB
"""


def _stdio(wiki: str) -> str:
    return STDIO.format(python=real.python("mcp1"))


def _time(wiki: str) -> str:
    return TIME.format(python=real.python("servers"))


def _outline(wiki: str) -> str:
    return OUTLINE.format(command=real.script("outline", "mcp-outline"), wiki=wiki)


def _everything(wiki: str) -> str:
    main = "@modelcontextprotocol/server-everything/dist/index.js"
    return EVERYTHING.format(node=real.node(), script=real.package("everything") / main)


@dataclass(frozen=True)
class Server:
    """
    One kind of server.

    :ivar parts: what it needs installed.
    :ivar section: makes its part of the configuration.
    :ivar call: one call's arguments, given the user and a marker of the call.
    :ivar expect: what its answer must hold.
    """

    parts: tuple[str, ...]
    section: Callable[[str], str]
    tool: str
    call: Callable[[str, str], dict[str, str]]
    expect: Callable[[str, str], str]
    clients: tuple[str, ...]


SERVERS: Mapping[str, Server] = {
    "stdio": Server(
        ("mcp1",),
        _stdio,
        "echo",
        lambda user, marker: {"message": marker},
        lambda user, marker: f"{user}: {marker}",
        tuple(client.name for client in CLIENT_LIST),
    ),
    "time": Server(
        ("servers",),
        _time,
        "convert_time",
        lambda user, marker: {
            "source_timezone": "UTC",
            "time": "12:34",
            "target_timezone": "Asia/Tokyo",
        },
        lambda user, marker: "T21:34:00+09:00",
        ("python_sdk_2",),
    ),
    "outline": Server(
        ("outline",),
        _outline,
        "search_documents",
        lambda user, marker: {"query": marker},
        lambda user, marker: f"Notes of {user}",
        tuple(client.name for client in CLIENT_LIST),
    ),
    "everything": Server(
        ("node", "everything"),
        _everything,
        "echo",
        lambda user, marker: {"message": f"{user} {marker}"},
        lambda user, marker: f"{user} {marker}",
        ("typescript_sdk_1", "typescript_sdk_2", "typescript_sdk_1_sse"),
    ),
}


class Suite(unittest.TestCase):
    """Stands for all tests together: what its cleanups find fails the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.over = contextlib.ExitStack()

    @override
    def addCleanup(self, function: Any, /, *args: Any, **kwargs: Any) -> None:
        """Remember what to do in the end."""
        self.over.callback(function, *args, **kwargs)


class Bed:
    """
    The gate, the wiki, the model, and the clients at work; made by the first test that asks.

    :param text: of the configuration, but for the servers.
    """

    def __init__(self, servers: Mapping[str, Server], text: str = GATE) -> None:
        self.servers, self.text = servers, text
        self.waiting = {(c, s) for s, server in servers.items() for c in server.clients}
        self.suite = Suite()
        self.pool = ThreadPoolExecutor(AT_ONCE)
        self.said: dict[tuple[str, str], Future[Said]] = {}
        self.failure: Exception | None = None
        # Also where only some of the tests are run.
        atexit.register(self.close)

    def open(self) -> None:
        """Start everything, and every client that is installed."""
        self.model = FakeModel()
        self.suite.addCleanup(self.model.stop)
        self.wiki = FakeOutline()
        self.suite.addCleanup(self.wiki.stop)
        text = self.text.format(wiki=self.wiki.url)
        for tried in self.servers.values():
            if _installed(*tried.parts):
                text += tried.section(self.wiki.url)
        self.gate = GateProcess(self.suite, text)
        self.gate.start()
        # The slowest come last in the list; begun first they do not end last.
        for client, server in sorted(self.waiting, key=_order):
            if _installed(*self.servers[server].parts, *BY_NAME[client].parts):
                self.said[client, server] = self.pool.submit(self._run, client, server)

    def _run(self, client: str, server: str) -> Said:
        tried = self.servers[server]
        user = user_of(client)
        task = Task(
            url=f"https://127.0.0.1:{self.gate.port}/{server}/mcp",
            certificate=self.gate.certificate,
            key=f"ol_api_{user}",
            calls=[(tried.tool, tried.call(user, marker)) for marker in MARKERS],
            model=self.model.url,
        )
        return BY_NAME[client].run(task)

    def take(self, client: str, server: str) -> Said:
        """Give what one client brought home, once it is back."""
        if self.failure is None and not self.said:
            try:
                self.open()
            except Exception as error:
                self.failure = error
        try:
            if self.failure is not None:
                raise AssertionError(f"the gate is not up: {self.failure}") from self.failure
            # Each has its own deadline, and most wait for others first.
            return self.said[client, server].result(QUEUE_S)
        finally:
            self.waiting.discard((client, server))
            if not self.waiting:
                self.close()

    def close(self) -> None:
        """Stop everything.  Idempotent."""
        self.pool.shutdown(cancel_futures=True)
        self.suite.over.close()


MARKERS = ("first-marker", "second-marker")


def user_of(client: str) -> str:
    """Name the user a client is; no name is part of another."""
    return f"user{client.replace('_', '')}z"


def _order(pair: tuple[str, str]) -> tuple[int, str]:
    names = [client.name for client in CLIENT_LIST]
    return -names.index(pair[0]), pair[1]


def _installed(*parts: str) -> bool:
    try:
        real.require(*parts)
    except (SkipTest, AssertionError):
        return False
    return True


class ClientTestCase(SynchronousTestCase):
    """One test for each client and each server it is tried with."""

    bed: Bed

    def check(self, client: str, server: str) -> None:
        """Compare what the client brought home with what it was sent for."""
        bed = self.bed
        tried = bed.servers[server]
        try:
            real.require(*tried.parts, *BY_NAME[client].parts)
        except BaseException:
            bed.waiting.discard((client, server))
            raise
        said = bed.take(client, server)
        if said.tools is not None:
            self.assertIn(tried.tool, said.tools)
        self.assertEqual(len(said.results), len(MARKERS), said.output)
        user = user_of(client)
        for marker, result in zip(MARKERS, said.results, strict=True):
            self.assertIn(tried.expect(user, marker), result)
        others = {user_of(other.name) for other in CLIENT_LIST} - {user}
        seen = " ".join(said.results)
        self.assertEqual([other for other in others if other in seen], [])


def _make(client: str, server: str) -> Callable[[ClientTestCase], None]:
    def test(self: ClientTestCase) -> None:
        self.check(client, server)

    test.__doc__ = f"{client} lists the tools of {server} and calls one twice as its own user."
    return test


def fill(case: type[ClientTestCase], bed: Bed) -> None:
    """Give a case its tests."""
    case.bed = bed
    for server, tried in bed.servers.items():
        for client in tried.clients:
            setattr(case, f"test_{server}_{client}", _make(client, server))


class RealClientTests(ClientTestCase):
    """Servers that are local processes."""


fill(RealClientTests, Bed(SERVERS))
