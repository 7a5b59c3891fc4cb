"""Tests of what the control socket asks servers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.errors import BackendTimeout, BackendUnavailable, BadRequest
from mcpgate.gate.catalog import Catalog
from mcpgate.gate.tool_pins import PinBook
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from mcpgate.model import (
    Caller,
    Group,
    Isolation,
    Pinning,
    Principal,
    Secret,
    ServerSpec,
    Transport,
)
from mcpgate.service.control_ask import ControlAsk
from mcpgate.service.control_work import ControlWork
from mcpgate.telemetry.meters import Meters
from mcpgate.web.mcp.modern.listen import Listens
from mcpgate.web.mcp.together.member import RefusedError
from mcpgate.web.pages.control import Asked, Chosen, PinsAsked
from tests.web.endpoint_kit import FakeKept

PLAIN = ServerSpec(name="plain", transport=Transport.STDIO)
KEYED = replace(PLAIN, name="keyed", env=(("TOKEN", "{key}"),))
FAR = replace(PLAIN, name="far", runtime="remote", headers=(("X-Key", "{key}"),))
SHARED = replace(PLAIN, name="shared", isolation=Isolation.SHARED)
GROUP = replace(
    SHARED,
    name="some",
    transport=Transport.GROUP,
    group=Group(servers=("plain", "keyed")),
    tools_pinned=Pinning.OFF,
)
OFF = replace(PLAIN, name="off", tools_pinned=Pinning.OFF)
FREE = replace(GROUP, name="free", group=Group(servers=("plain", "shared", "gone")))
ANN = Caller(Principal("keys", "ann", "a" * 32), Secret("k"))


class ControlAskTests(SynchronousTestCase):
    """A gate of five servers and groups, and one user."""

    def setUp(self) -> None:
        """Make it."""
        self.clock = Clock()
        self.vouched = ANN
        self.asked: list[tuple[str, str, Request]] = []
        self.answering: Deferred[Response] = Deferred()
        self.book = PinBook(
            FakeKept({}), wall=lambda: 1.0, build_of=lambda spec: "", meters=Meters()
        )
        self.listens = Listens()
        self.said: list[object] = []
        self.session = SimpleNamespace(
            record=SimpleNamespace(server="plain"), extras=SimpleNamespace(say=self.said.append)
        )
        gateway = SimpleNamespace(
            catalog=Catalog((PLAIN, KEYED, FAR, SHARED, OFF), (GROUP, FREE)),
            clock=self.clock,
            eras=SimpleNamespace(known=lambda spec: SimpleNamespace(words="modern")),
            modern=SimpleNamespace(members=self, bare=self, listens=self.listens),
            pins=SimpleNamespace(book=self.book),
            sessions=[self.session],
            on_legacy=SimpleNamespace(sessions=[]),
            documents=SimpleNamespace(view=lambda name: name if name == "far" else None),
            pool=SimpleNamespace(callers=lambda: [ANN]),
            access=SimpleNamespace(gate=SimpleNamespace(vouch=lambda key: succeed(self.vouched))),
        )
        made = cast("Any", gateway)
        self.ask_all = ControlAsk(made, ControlWork(made, lambda: 0.0))

    def answer(
        self, spec: ServerSpec, caller: Caller, request: Request, source: None
    ) -> Deferred[Response]:
        """See `Members.answer`."""
        self.asked.append((spec.name, caller.principal.subject, request))
        return self.answering

    def ask(self, server: str, **whose: Any) -> Deferred[dict[str, Any]]:
        """Put a question."""
        chosen = Chosen(server=server, **whose)
        asking = self.ask_all.ask(
            Asked(chosen=chosen, method="tools/list", params={"cursor": "c"}, timeout_s=5)
        )
        assert asking is not None
        return asking

    def test_servers(self) -> None:
        """Servers and groups are listed with what they are."""
        found = {one.name: one for one in self.ask_all.servers()}
        self.assertEqual((found["plain"].kind, found["plain"].era), ("server", "modern"))
        self.assertEqual((found["far"].document, found["plain"].document), ("far", None))
        self.assertEqual((found["some"].kind, found["some"].members), ("group", ("plain", "keyed")))
        self.assertEqual((found["plain"].tools, found["some"].tools), ("not seen", ""))
        self.book.accept(PLAIN, [{"name": "a"}, {"name": "b"}])
        self.assertEqual(self.ask_all.servers()[0].tools, "2 trusted")
        self.book.told(PLAIN, ANN.principal, [{"name": "a", "title": "x"}, {"name": "c"}])
        self.assertEqual(self.ask_all.servers()[0].tools, "1 added, 1 changed, 1 removed")

    def test_in_whose_name(self) -> None:
        """The operator asks what needs nobody's key; else whoever is named does."""
        for server, whose, subject in (
            ("plain", {}, "operator"),
            ("shared", {}, "operator"),
            ("free", {}, "operator"),
            ("keyed", {"user": "ann"}, "ann"),
            ("plain", {"key": Secret("k")}, "ann"),
            ("some", {"user": "ann"}, "ann"),
            ("far", {"owner": "a" * 8}, "ann"),
        ):
            self.ask(server, **whose)
            self.assertEqual(self.asked[-1][:2], (server, subject), server)
        for server in ("keyed", "far", "some"):
            self.failureResultOf(self.ask(server), BadRequest)
        self.vouched = replace(ANN, servers=frozenset({"other"}))
        self.failureResultOf(self.ask("some", key=Secret("k")), BadRequest)

    def test_answers(self) -> None:
        """The server's result, its error, and its silence are told; there may be no such server."""
        told = self.ask("plain")
        request = self.asked[-1][2]
        assert request.params is not None
        self.assertEqual((request.method, request.params["cursor"]), ("tools/list", "c"))
        self.answering.callback(Response("control", {"tools": []}))
        self.assertEqual(self.successResultOf(told), {"result": {"tools": []}})
        self.answering = Deferred()
        told = self.ask("plain")
        self.answering.errback(RefusedError(ErrorResponse("control", -32601, "no")))
        self.assertEqual(self.successResultOf(told), {"error": {"code": -32601, "message": "no"}})
        self.answering = Deferred()
        told = self.ask("plain")
        self.clock.advance(5)
        self.failureResultOf(told, BackendTimeout)
        asked = Asked(chosen=Chosen(server="x"), method="tools/list", params={}, timeout_s=1)
        self.assertIsNone(self.ask_all.ask(asked))

    def pins(self, server: str = "plain", *, accept: bool = False) -> Deferred[dict[str, Any]]:
        """Compare tools, or accept them."""
        self.answering = Deferred()
        asked = PinsAsked(chosen=Chosen(server=server), accept=accept, timeout_s=5)
        asking = self.ask_all.pins(asked)
        assert asking is not None
        return asking

    def test_pins(self) -> None:
        """Every page is read; accepting is told to whoever is connected."""
        self.book.accept(PLAIN, [{"name": "a"}])
        for accept in (False, True):
            told = self.pins(accept=accept)
            first, self.answering = self.answering, Deferred()
            first.callback(Response("control", {"tools": [{"name": "a"}], "nextCursor": "2"}))
            request = self.asked[-1][2]
            assert request.params is not None
            self.assertEqual(request.params["cursor"], "2")
            self.assertEqual(self.said, [])
            self.answering.callback(Response("control", {"tools": [{"name": "b"}]}))
            found = self.successResultOf(told)
            self.assertEqual([one["name"] for one in found["changes"]], ["b"])
            self.assertEqual((found["accepted"], found["trusted"]), (accept, 1 + accept))
        self.assertEqual(self.said, [Notification("notifications/tools/list_changed")])

    def test_pins_not_told(self) -> None:
        """Nothing is accepted of a list that is not whole."""
        told = self.pins(accept=True)
        self.answering.errback(RefusedError(ErrorResponse("control", -1, "no")))
        self.failureResultOf(told, BackendUnavailable)
        told = self.pins(accept=True)
        self.clock.advance(5)
        self.failureResultOf(told, BackendTimeout)
        told = self.pins(accept=True)
        while not told.called:
            first, self.answering = self.answering, Deferred()
            first.callback(Response("control", {"tools": [{"name": "a"}] * 99, "nextCursor": "x"}))
        self.failureResultOf(told, BackendUnavailable)
        self.assertEqual(self.book.view(PLAIN).tools, 0)
        asked = PinsAsked(chosen=Chosen(server="some"), accept=True, timeout_s=5)
        self.assertIsNone(self.ask_all.pins(asked))
        self.failureResultOf(self.pins("off"), BadRequest)
