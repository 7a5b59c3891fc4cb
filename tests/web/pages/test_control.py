"""Tests of the control socket's tree and its door, without a socket."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IProtocolFactory
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import readBody
from twisted.web.iweb import IBodyProducer, IResponse
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from mcpgate.errors import Overloaded, RuntimeUnavailable
from mcpgate.gate.sessions import SessionView
from mcpgate.model import Secret
from mcpgate.telemetry.views import ImageView, InstanceView, Leftover, LogView, ServerView
from mcpgate.web.pages.control import (
    BODY_BYTES,
    FOLLOWED,
    PATH_BYTES,
    Asked,
    Chosen,
    ControlService,
    ControlView,
    PinsAsked,
    Tidying,
    peer_uid,
)
from mcpgate.web.pages.control_tree import ControlTree

SESSION = SessionView(
    label="12345678",
    server="files",
    owner="aabbccdd",
    user="ada",
    revision="r",
    age_s=1.0,
    idle_s=1.0,
    in_use=0,
    instance="",
)


@implementer(IBodyProducer)
class _Body:
    """A request body that is there at once."""

    def __init__(self, content: bytes) -> None:
        self.length = len(content)
        self._content = content

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:  # noqa: N802 - Twisted calls it
        """Write it."""
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left."""

    def resumeProducing(self) -> None:
        """Nothing is left."""

    def stopProducing(self) -> None:
        """Nothing is left."""


class ControlTreeTests(SynchronousTestCase):
    """What the commands get."""

    def setUp(self) -> None:
        """Make a tree."""
        self.stopping: Deferred[list[tuple[str, str]]] = Deferred()
        self.left: Deferred[list[InstanceView]] = succeed(
            [
                InstanceView(server="files", owner="aabbccdd", state="stopped"),
                InstanceView(server="clock", owner="shared", state="stopped"),
            ]
        )
        self.followed: dict[str, LogView] = {}
        self.reloading: Deferred[list[str]] = Deferred()
        self.asked: list[Chosen] = []
        self.questions: list[Asked] = []
        self.compared: list[PinsAsked] = []
        self.answering: Deferred[dict[str, Any]] = Deferred()
        view = ControlView(
            version="1.2",
            started_at=10.0,
            wall=lambda: 15.0,
            instances=lambda: [InstanceView(server="files", owner="aabbccdd", state="running")],
            sessions=lambda limit: [SESSION],
            left=lambda: self.left,
            images=lambda: succeed([ImageView(name="x:1")]),
            logs=self.logs,
            follow=self.follow,
            start=self.stop,
            stop=self.stop,
            servers=lambda: [
                ServerView(
                    name="files",
                    kind="server",
                    transport="stdio",
                    runtime="process",
                    isolation="per-key",
                )
            ],
            ask=self.put,
            pins=self.compare,
            clean_up=self.clean_up,
            reload=lambda: self.reloading,
        )
        self.agent = RequestTraversalAgent(ControlTree(view, make_id=lambda: "r-1").resource())

    def logs(self, chosen: Chosen) -> Mapping[str, Sequence[str]] | None:
        """Know one server."""
        self.asked.append(chosen)
        return {"aabbccdd": ("one", "two")} if chosen.server == "files" else None

    def follow(self, chosen: Chosen, cursors: Mapping[str, str]) -> Mapping[str, LogView] | None:
        """Know one server."""
        self.cursors = cursors
        return self.followed if chosen.server == "files" else None

    def stop(self, chosen: Chosen) -> Deferred[list[tuple[str, str]]] | None:
        """Know one server."""
        self.asked.append(chosen)
        return self.stopping if chosen.server in ("", "files") else None

    def put(self, asked: Asked) -> Deferred[dict[str, Any]] | None:
        """Know one server."""
        self.questions.append(asked)
        return self.answering if asked.chosen.server == "files" else None

    def compare(self, asked: PinsAsked) -> Deferred[dict[str, Any]] | None:
        """Know one server."""
        self.compared.append(asked)
        return self.answering if asked.chosen.server == "files" else None

    def clean_up(self, tidying: Tidying) -> Deferred[list[Leftover]]:
        """Note it and find one thing."""
        self.tidied = tidying
        return succeed([Leftover(kind="network", name="n", why="no container is in it")])

    def begin(self, path: str, method: str = "GET", body: bytes = b"") -> Deferred[IResponse]:
        """Send a request."""
        sent: Deferred[IResponse] = self.agent.request(
            method.encode(), b"http://gate" + path.encode(), None, _Body(body) if body else None
        )
        self.agent.flush()
        return sent

    def ask(self, path: str, method: str = "GET", body: bytes = b"") -> tuple[int, Any]:
        """Send a request, read its JSON answer."""
        return self.read(self.begin(path, method, body))

    def read(self, sent: Deferred[IResponse]) -> tuple[int, Any]:
        """Read an answer."""
        self.agent.flush()
        response = self.successResultOf(sent)
        waiting: Deferred[bytes] = readBody(response)
        self.agent.flush()
        return response.code, json.loads(self.successResultOf(waiting))

    def test_version(self) -> None:
        """The gate tells its version, process and age."""
        told = {"version": "1.2", "pid": os.getpid(), "uptime_s": 5.0}
        self.assertEqual(self.ask("/version"), (200, told))

    def test_lists(self) -> None:
        """Instances and sessions are listed."""
        _, told = self.ask("/instances")
        self.assertEqual(told["instances"][0]["state"], "running")
        _, told = self.ask("/sessions")
        self.assertEqual(told["sessions"][0]["label"], "12345678")
        self.assertNotIn("session_id", told["sessions"][0])

    def test_logs(self) -> None:
        """The last lines of a server are given, of all owners or of one."""
        self.assertEqual(self.ask("/logs/files"), (200, {"logs": {"aabbccdd": ["one", "two"]}}))
        self.ask("/logs/files?owner=aabbccdd")
        self.assertEqual(
            self.asked, [Chosen(server="files"), Chosen(server="files", owner="aabbccdd")]
        )
        self.assertEqual(self.ask("/logs/nothing")[0], 404)

    def test_stop(self) -> None:
        """Stopping is answered when it is done."""
        sent = self.begin("/instances/stop", "POST", b'{"server":"files","owner":"aabbccdd"}')
        self.assertNoResult(sent)
        self.stopping.callback([("files", "aabbccdd")])
        named = [{"server": "files", "owner": "aabbccdd"}]
        self.assertEqual(self.read(sent), (200, {"stopped": named}))
        self.assertEqual(self.asked, [Chosen(server="files", owner="aabbccdd")])

    def test_stop_idle(self) -> None:
        """Those of every server may be meant, and only the idle ones."""
        self.begin("/instances/stop", "POST", b'{"idle_s":60}')
        self.assertEqual(self.asked, [Chosen(idle_s=60)])

    def test_start(self) -> None:
        """Starting is answered when it is ready; a key is not shown."""
        sent = self.begin("/instances/start", "POST", b'{"server":"files","key":"canary"}')
        self.assertNoResult(sent)
        self.stopping.callback([("files", "aabbccdd")])
        named = [{"server": "files", "owner": "aabbccdd"}]
        self.assertEqual(self.read(sent), (200, {"started": named}))
        self.assertEqual(self.asked, [Chosen(server="files", key=Secret("canary"))])
        self.assertNotIn("canary", repr(self.asked))
        self.assertEqual(self.ask("/instances/start", "POST", b'{"server":"x"}')[0], 404)

    def test_servers(self) -> None:
        """Servers and groups are listed."""
        _, told = self.ask("/servers")
        self.assertEqual((told["servers"][0]["name"], told["servers"][0]["members"]), ("files", []))

    def test_ask(self) -> None:
        """A question is put to a server, with its arguments; the key in it is not shown."""
        body = b'{"method":"tools/call","params":{"name":"x"},"timeout_s":5,"key":"canary"}'
        sent = self.begin("/servers/files/ask", "POST", body)
        self.answering.callback({"result": {"content": []}})
        self.assertEqual(self.read(sent), (200, {"result": {"content": []}}))
        (asked,) = self.questions
        self.assertEqual((asked.method, asked.params), ("tools/call", {"name": "x"}))
        self.assertEqual((asked.timeout_s, asked.chosen.server), (5, "files"))
        self.assertNotIn("canary", repr(asked))
        self.assertEqual(
            self.ask("/servers/nothing/ask", "POST", b'{"method":"tools/list"}')[0], 404
        )

    def test_ask_wrongly(self) -> None:
        """Other methods, and what is no such question, are refused."""
        for body in (
            b"{}",
            b'{"method":"initialize"}',
            b'{"method":["tools/list"]}',
            b'{"method":"tools/list","params":[]}',
            b'{"method":"tools/list","timeout_s":0}',
            b'{"method":"tools/list","timeout_s":true}',
            b'{"method":"tools/list","timeout_s":"5"}',
            b'{"method":"tools/list","timeout_s":1e9}',
        ):
            self.assertEqual(self.ask("/servers/files/ask", "POST", body)[0], 400, body)
        self.assertEqual(self.questions, [])

    def test_pins(self) -> None:
        """Tools are compared with those trusted, or accepted; what is no such question is not."""
        sent = self.begin("/servers/files/pins", "POST", b'{"accept":true,"user":"ann"}')
        self.answering.callback({"changes": []})
        self.assertEqual(self.read(sent), (200, {"changes": []}))
        (asked,) = self.compared
        self.assertEqual((asked.accept, asked.timeout_s, asked.chosen.user), (True, 60, "ann"))
        self.assertEqual(self.ask("/servers/nothing/pins", "POST", b"{}")[0], 404)
        self.assertFalse(self.compared[-1].accept)
        for body in (b'{"accept":1}', b'{"timeout_s":0}', b'{"user":1}'):
            self.assertEqual(self.ask("/servers/files/pins", "POST", body)[0], 400, body)

    def test_all_instances(self) -> None:
        """Stopped containers of earlier lives are listed behind what the gate knows."""
        _, told = self.ask("/instances/all")
        found = [(one["server"], one["state"]) for one in told["instances"]]
        self.assertEqual(found, [("clock", "stopped"), ("files", "running")])
        self.assertEqual(told["missing"], "")
        self.left = fail(RuntimeUnavailable())
        _, told = self.ask("/instances/all")
        self.assertEqual(len(told["instances"]), 1)
        self.assertIn("not answer", told["missing"])

    def test_images(self) -> None:
        """Images are listed."""
        _, told = self.ask("/images")
        self.assertEqual(told["images"][0]["name"], "x:1")

    def test_clean_up(self) -> None:
        """What was removed is told."""
        body = b'{"dry_run":true,"orphans":true,"data":["aabbccdd"]}'
        code, told = self.ask("/cleanup", "POST", body)
        self.assertEqual((code, told["found"][0]["name"]), (200, "n"))
        self.assertEqual(self.tidied, Tidying(dry_run=True, orphans=True, data=("aabbccdd",)))
        self.ask("/cleanup", "POST", b'{"stopped":true}')
        self.assertEqual(self.tidied, Tidying(stopped=True))
        for odd in (b'{"stopped":1}', b'{"data":"aabbccdd"}', b'{"data":[1]}'):
            self.assertEqual(self.ask("/cleanup", "POST", odd)[0], 400)

    def test_follow(self) -> None:
        """What was written since the last answer is given, with where to go on."""
        self.followed["aa"] = LogView(lines=("new",), cursor="i:5")
        code, told = self.ask("/logs/files/follow", "POST", b'{"cursors":{"aa":"i:4"}}')
        self.assertEqual(code, 200)
        self.assertEqual(told["logs"]["aa"], {"lines": ["new"], "cursor": "i:5", "ended": ""})
        self.assertEqual(self.cursors, {"aa": "i:4"})
        for cursors in (b"3", b'{"aa":1}'):
            code, _ = self.ask("/logs/files/follow", "POST", b'{"cursors":' + cursors + b"}")
            self.assertEqual(code, 400)
        self.assertEqual(self.ask("/logs/nothing/follow", "POST", b"{}")[0], 404)
        self.followed.update({f"o{number}": LogView() for number in range(FOLLOWED)})
        code, told = self.ask("/logs/files/follow", "POST", b"{}")
        self.assertEqual(code, 400)
        self.assertIn("choose an owner", told["error"]["message"])

    def test_stop_goes_on(self) -> None:
        """Who goes away before it is done does not undo it; a failure is in the log."""
        sent = self.begin("/instances/stop", "POST", b'{"server":"files"}')
        sent.cancel()
        self.agent.flush()
        self.failureResultOf(sent)
        self.assertFalse(self.stopping.called)
        self.stopping.errback(RuntimeError("late"))
        self.assertGreaterEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_stop_wrongly(self) -> None:
        """What is no such request is refused with its reason."""
        for body, status in (
            (b"[]", 400),
            (b"{", 400),
            (b"[" * BODY_BYTES, 400),
            (b'{"server":3}', 400),
            (b'{"server":"files","owner":[]}', 400),
            (b'{"idle_s":"long"}', 400),
            (b'{"idle_s":true}', 400),
            (b'{"server":"nothing"}', 404),
            (b" " * (BODY_BYTES + 1), 413),
        ):
            code, told = self.ask("/instances/stop", "POST", body)
            self.assertEqual(code, status, body[:40])
            self.assertEqual(told["error"]["requestId"], "r-1")

    def test_reload(self) -> None:
        """Reloading answers with what changed."""
        sent = self.begin("/reload", "POST")
        self.reloading.callback(["server files: changed"])
        self.assertEqual(self.read(sent), (200, {"changes": ["server files: changed"]}))

    def test_reload_refused(self) -> None:
        """Why nothing was changed is told; a bug is only in the log."""
        sent = self.begin("/reload", "POST")
        self.reloading.errback(Overloaded("gate.ini, line 3: no"))
        code, told = self.read(sent)
        self.assertEqual((code, told["error"]["message"]), (503, "gate.ini, line 3: no"))
        self.reloading = Deferred()
        sent = self.begin("/reload", "POST")
        self.reloading.errback(RuntimeError("canary"))
        code, told = self.read(sent)
        self.assertEqual(code, 500)
        self.assertNotIn("canary", repr(told))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_unknown(self) -> None:
        """Anything else is 404, a wrong method 405."""
        self.assertEqual(self.ask("/nothing")[0], 404)
        self.assertEqual(self.ask("//instances")[0], 404)
        self.assertEqual(self.ask("/reload")[0], 405)


class PeerTests(SynchronousTestCase):
    """Who may talk to the socket."""

    def setUp(self) -> None:
        """Start the service on a reactor in memory."""
        self.reactor = MemoryReactorClock()
        self.directory = Path(self.mktemp())
        self.sites: list[Deferred[IProtocolFactory]] = []
        self.service = ControlService(self.reactor, self.directory, self.site)
        self.service.startService()
        ((address, self.factory, _, mode, lock),) = self.reactor.unixServers
        self.assertEqual(address, str(self.directory / "control.sock"))
        self.assertEqual((mode, lock), (0o600, True))

    def site(self) -> Deferred[IProtocolFactory]:
        """Be asked for what serves."""
        self.sites.append(Deferred())
        return self.sites[-1]

    def connect(self, uid: int | None, *, loaded: bool = True) -> StringTransport:
        """Connect as a user, send a request."""

        class Handle:
            def getsockopt(self, *_: int) -> bytes:
                if uid is None:
                    raise OSError
                return struct.pack("3i", 1, uid, 1)

        transport = StringTransport()
        transport.getHandle = Handle  # type: ignore[attr-defined]  # as a Unix server has it
        protocol = self.factory.buildProtocol(None)
        protocol.makeConnection(transport)
        if self.sites and loaded:
            self.assertEqual(transport.producerState, "paused")
            self.sites.pop().callback(Site(Resource(), reactor=self.reactor))
            self.assertEqual(transport.producerState, "producing")
        protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n")
        self.protocol = protocol
        return transport

    def test_same_user_and_root(self) -> None:
        """The gate's own user and root are answered."""
        for uid in (os.geteuid(), 0):
            self.assertIn(b"HTTP/1.1 404", self.connect(uid).value())
            self.protocol.connectionLost()

    def test_gone_before_the_tree_is_there(self) -> None:
        """Who does not wait for the tree to be loaded does no harm."""
        transport = self.connect(0, loaded=False)
        self.protocol.connectionLost()
        self.sites.pop().callback(Site(Resource(), reactor=self.reactor))
        self.assertEqual(transport.value(), b"")

    def test_no_tree(self) -> None:
        """A tree that can not be loaded is told in the log, and the connection is cut."""
        transport = self.connect(0, loaded=False)
        self.sites.pop().errback(ImportError("no klein"))
        self.assertTrue(transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(ImportError)), 1)

    def test_others(self) -> None:
        """Others, and those the kernel does not know, are cut off without a word."""
        said: list[str] = []
        self.patch(Logger, "warn", lambda _, text, **fields: said.append(fields["ev"]))
        self.patch(os, "geteuid", lambda: 1000)
        for uid in (1001, None):
            transport = self.connect(uid)
            self.assertEqual(transport.value(), b"")
            self.assertTrue(transport.disconnected or transport.disconnecting)
            self.protocol.connectionLost()
        self.assertEqual(said, ["control_refused"] * 2)
        self.assertIsNone(peer_uid(None))

    def test_stop(self) -> None:
        """The socket goes with the service; stopping twice does nothing."""
        self.successResultOf(self.service.stopService())
        self.successResultOf(self.service.stopService())

    def test_long_path(self) -> None:
        """A state directory too deep for a socket is refused with the remedy."""
        service = ControlService(self.reactor, Path("/x" * PATH_BYTES), self.site)
        with self.assertRaises(OSError) as caught:
            service.startService()
        self.assertIn("shorter state_dir", str(caught.exception))
