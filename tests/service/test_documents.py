"""Tests of mcpgate.service.documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.problems import BadValueError
from mcpgate.errors import BadRequest
from mcpgate.gate.access.outbound import PrivateAddressError
from mcpgate.model import RESTSource, ServerSpec, Transport
from mcpgate.service.documents import CHECK_S, PREPARE_S, RETRY_S, Documents
from mcpgate.stores.document_files import DocumentFiles
from mcpgate.telemetry.meters import Meters
from tests.service.test_document_fetch import Response
from tests.stores.blocking import ImmediateThread

SOURCE = RESTSource(url="https://h/openapi.json")
SPEC = ServerSpec(
    name="pets", transport=Transport.REST, runtime="remote", url="https://h/", rest_source=SOURCE
)
FILE = replace(SPEC, name="file", rest_source=None)


def document(*tools: str, base: str = "/v1") -> bytes:
    """Make a document."""
    paths = {f"/{tool}": {"get": {"operationId": tool}} for tool in tools}
    info = {"title": "Pets", "version": "1"}
    servers = [{"url": base}]
    made = {"openapi": "3.1.0", "info": info, "servers": servers, "paths": paths}
    return json.dumps(made).encode()


def examine(content: bytes) -> dict[str, Any]:
    """See `mcpgate.config.document_check.check`."""
    if content == b"broken":
        raise BadValueError("it is broken", "Mend it")
    found: dict[str, Any] = json.loads(content)
    return found


class FakeOutbound:
    """See `Outbound`: answers what is said; an exception or Deferred as well."""

    def __init__(self) -> None:
        self.answer: Any = ConnectionError()
        self.asked: list[dict[str, str]] = []
        self.closed = False

    def ask(self, source: RESTSource, fields: list[tuple[str, str]]) -> Deferred[Any]:
        """See `Outbound.ask`."""
        self.asked.append(dict(fields))
        if isinstance(self.answer, Deferred):
            return self.answer
        if isinstance(self.answer, Exception):
            return fail(self.answer)
        return succeed(self.answer)

    def close(self) -> Deferred[None]:
        """See `Outbound.close`."""
        self.closed = True
        return succeed(None)


class Life:
    """One life of a gate that has one REST service."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.thread = ImmediateThread()
        self.outbound = cast("Any", FakeOutbound())
        self.meters = Meters()
        self.changes: list[Sequence[str]] = []
        self.documents = Documents(
            self.clock,
            self.thread,
            DocumentFiles(folder),
            self.outbound,
            wall=lambda: 1000.0 + self.clock.seconds(),
            meters=self.meters,
            changed=self.changes.append,
            examine=examine,
        )

    def start(self, answer: Any, *specs: ServerSpec) -> None:
        """Start, with a service that answers so."""
        self.outbound.answer = answer
        self.documents.start(specs or (SPEC, FILE))
        self.clock.advance(0)

    @property
    def spec(self) -> ServerSpec:
        """The server as it is served now."""
        return self.documents.filled([SPEC])[0]

    @property
    def tools(self) -> list[str] | None:
        """Its tools."""
        rest = self.spec.rest
        return None if rest is None else [one.name for one in rest.operations]

    @property
    def state(self) -> tuple[str, str]:
        """What is told of its document."""
        view = self.documents.view("pets")
        assert view is not None
        return view.state, view.error


class DocumentsTests(SynchronousTestCase):
    """Documents of a gate."""

    def setUp(self) -> None:
        """Begin its first life."""
        self.folder = Path(self.mktemp()) / "openapi"
        self.folder.parent.mkdir()
        self.life = Life(self.folder)

    def again(self, answer: Any, *specs: ServerSpec) -> Life:
        """Begin another life."""
        self.life = Life(self.folder)
        self.life.start(answer, *specs)
        return self.life

    def test_fetched(self) -> None:
        """The document is fetched at the start, and again after the time that was set."""
        life = self.life
        life.start(Response(body=document("list"), ETag='"1"'))
        self.assertEqual((life.tools, life.spec.url), (["list"], "https://h/v1"))
        self.assertEqual(life.state, ("fetched", ""))
        self.assertEqual(life.changes[-1], ("pets",))
        self.assertIsNone(life.documents.view("file"))
        changes = len(life.changes)
        life.outbound.answer = Response(304)
        life.clock.advance(3600)
        self.assertEqual(life.outbound.asked[-1]["If-None-Match"], '"1"')
        self.assertEqual(len(life.changes), changes)
        life.outbound.answer = Response(body=document("list", "add"))
        life.clock.advance(3600)
        self.assertEqual((life.tools, len(life.changes)), (["list", "add"], changes + 1))
        life.outbound.answer = Response(body=document("list", "add"))
        life.clock.advance(3600)
        self.assertNotIn("If-None-Match", life.outbound.asked[-1])
        self.assertEqual(len(life.changes), changes + 1)

    def test_copy(self) -> None:
        """A start while the service is down has the tools of last time, until it is back."""
        self.life.start(Response(body=document("list"), ETag='"1"'))
        life = self.again(ConnectionError())
        self.assertEqual(life.tools, ["list"])
        state, error = life.state
        self.assertEqual(state, "copy")
        self.assertIn("can not be reached", error)
        view = life.documents.view("pets")
        assert view is not None
        self.assertEqual(view.fetched_at, 1000.0)
        life.outbound.answer = Response(304)
        life.clock.advance(RETRY_S)
        self.assertEqual(life.outbound.asked[-1]["If-None-Match"], '"1"')
        self.assertEqual((life.state, life.tools), (("fetched", ""), ["list"]))
        life = self.again(ConnectionError(), replace(SPEC, rest_source=replace(SOURCE, url="x")))
        self.assertEqual(life.state[0], "missing")

    def test_damaged_copy(self) -> None:
        """A copy of which no tools can be made is passed over."""
        self.life.start(Response(body=document("list")))
        life = self.again(
            ConnectionError(), replace(SPEC, rest_source=replace(SOURCE, deny=("*",)))
        )
        self.assertEqual(life.state[0], "missing")

    def test_broken(self) -> None:
        """A broken document leaves the old one, is looked at once, and mended at the next one."""
        life = self.life
        life.start(Response(body=document("list")))
        looks: list[bytes] = []

        def look(content: bytes) -> dict[str, Any]:
            looks.append(content)
            return examine(content)

        self.patch(life.documents, "_examine", look)
        life.outbound.answer = Response(body=b"broken")
        life.clock.advance(3600)
        self.assertEqual(life.state, ("fetched", "it is broken. Mend it"))
        self.assertEqual(life.tools, ["list"])
        life.outbound.answer = Response(body=b"broken")
        life.clock.advance(RETRY_S)
        self.assertEqual((life.state[1], looks), ("it is broken. Mend it", [b"broken"]))
        life.outbound.answer = Response(body=document("other"))
        life.clock.advance(2 * RETRY_S)
        self.assertEqual((life.state, life.tools), (("fetched", ""), ["other"]))
        self.assertEqual(life.meters.events["document_failed"], 2)

    def test_another_host(self) -> None:
        """A document can not send callers' keys to a host that the operator did not name."""
        life = self.life
        life.start(Response(body=document("list", base="https://evil.example/")))
        self.assertIn("Add url = https://evil.example/", life.state[1])
        self.assertIsNone(life.tools)
        named = replace(SPEC, url="https://api/v2", rest_source=replace(SOURCE, names_base=False))
        life = self.again(Response(body=document("list", base="https://evil.example/")), named)
        (spec,) = life.documents.filled([named])
        self.assertEqual(spec.url, "https://api/v2")

    def test_missing(self) -> None:
        """Without document or copy it is asked for again, ever more rarely."""
        life = self.life
        life.start(PrivateAddressError())
        self.assertEqual(life.state[0], "missing")
        self.assertIn("allow_private", life.state[1])
        self.assertEqual(life.spec, SPEC)
        life.clock.pump([1.0] * 155)
        self.assertEqual(len(life.outbound.asked), 6)  # after 0, 5, 15, 35, 75, 155 s
        life.clock.pump([100.0] * 10)
        self.assertEqual(len(life.outbound.asked), 9)
        life.documents.renew()
        life.clock.advance(0)
        self.assertEqual(len(life.outbound.asked), 10)

    def test_never_refreshed(self) -> None:
        """With ``openapi_refresh = 0`` it is fetched once."""
        once = replace(SPEC, rest_source=replace(SOURCE, refresh_s=0.0))
        self.life.start(ConnectionError(), once)
        self.life.outbound.answer = Response(body=document("list"))
        self.life.clock.advance(RETRY_S)
        self.assertEqual(self.life.clock.getDelayedCalls(), [])
        (spec,) = self.life.documents.filled([once])
        self.assertIsNotNone(spec.rest)

    def test_slow_check(self) -> None:
        """A check that hangs is given up; what it says at last is nobody's."""
        life = self.life
        life.start(Response(body=document("list")), FILE)
        life.documents.take([SPEC])
        life.thread.held = True
        life.clock.advance(0)
        life.clock.advance(CHECK_S)
        self.assertIn("too long", life.state[1])

    def test_bug(self) -> None:
        """A bug is in the log, and the asking goes on."""
        life = self.life
        life.outbound.ask = lambda *_: 3
        life.start(None)
        self.assertEqual(life.state[0], "missing")
        self.patch(life.documents, "_examine", lambda content: 1 // 0)
        del life.outbound.ask
        life.outbound.answer = Response(body=document("list"))
        life.clock.advance(RETRY_S)
        self.assertEqual(life.state[1], "see the log of the gate")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_disk(self) -> None:
        """A disk that refuses costs the copy, not the tools."""
        self.folder.write_bytes(b"a file in the folder's place")
        self.life.start(Response(body=document("list")))
        self.assertEqual(self.life.tools, ["list"])

    def test_stopped(self) -> None:
        """Nothing goes on when the gate has stopped."""
        life = self.life
        life.start(Deferred())
        self.successResultOf(life.documents.stop())
        self.assertEqual((life.clock.getDelayedCalls(), life.outbound.closed), ([], True))
        self.assertEqual(life.thread.stopped, 1)
        early = self.life = Life(self.folder)
        early.thread.held = True
        early.start(Response(body=document("list")))
        self.successResultOf(early.documents.stop())
        early.thread.let_go()
        early.clock.advance(0)
        self.assertEqual((early.outbound.asked, early.changes), ([], []))

    # --- Reloads ----------------------------------------------------------------------------------

    def test_reload(self) -> None:
        """What a reload brings is fetched before it counts, and not twice."""
        life = self.life
        life.start(ConnectionError(), FILE)
        life.outbound.answer = Response(body=document("list"))
        self.successResultOf(life.documents.prepare([SPEC, FILE]))
        self.assertIsNone(life.tools)
        (spec, _) = life.documents.take([SPEC, FILE])
        self.assertEqual(spec.url, "https://h/v1")
        self.successResultOf(life.documents.prepare([SPEC]))
        life.documents.take([replace(SPEC, call_timeout_s=3.0)])
        life.clock.advance(0)
        self.assertEqual((len(life.outbound.asked), life.tools), (1, ["list"]))
        life.documents.take([FILE])
        self.assertEqual(life.clock.getDelayedCalls(), [])

    def test_reload_refused(self) -> None:
        """A reload with a document that can not be had is refused, if there is no copy of it."""
        life = self.life
        life.start(ConnectionError(), FILE)
        preparing = life.documents.prepare([SPEC])
        why = self.failureResultOf(preparing, BadRequest).value
        self.assertIn("[server:pets] openapi: h can not be reached", why.detail)
        life.documents.take([SPEC])
        life.outbound.answer = Response(body=document("list"))
        life.clock.advance(0)
        life.documents.take([FILE])
        life.outbound.answer = ConnectionError()
        self.successResultOf(life.documents.prepare([SPEC]))
        self.successResultOf(life.documents.prepare([SPEC]))
        life.documents.take([SPEC])
        self.assertEqual((life.tools, life.state[0]), (["list"], "copy"))
        life.clock.advance(0)
        self.assertEqual(life.state[0], "copy")

    def test_reload_faults(self) -> None:
        """Every document that can not be had is named; those that come late end it as well."""
        life = self.life
        life.start(ConnectionError(), FILE)
        more = replace(SPEC, name="more")
        why = self.failureResultOf(life.documents.prepare([SPEC, more]), BadRequest).value.detail
        self.assertEqual(
            [line.split()[0] for line in why.split("\n")], ["[server:pets]", "[server:more]"]
        )
        life.outbound.answer = Response(body=document("list"))
        life.thread.held = True
        preparing = life.documents.prepare([SPEC])
        life.clock.advance(PREPARE_S)
        why = self.failureResultOf(preparing, BadRequest).value.detail
        self.assertIn("within 90 s. Nothing was changed", why)

    def test_reload_at_the_start(self) -> None:
        """A reload may come before the copies are read; then both are served."""
        self.life.start(Response(body=document("list")))
        life = self.life = Life(self.folder)
        life.thread.held = True
        life.outbound.answer = ConnectionError()
        life.documents.start([SPEC])
        more = replace(SPEC, name="more")
        life.documents.take([more, SPEC])
        while life.thread.waiting:
            life.thread.let_go()
        life.clock.advance(0)
        self.assertEqual((life.tools, len(life.outbound.asked)), (["list"], 2))

    def test_reload_meanwhile(self) -> None:
        """What is fetched while a reload takes the server out, or changes it, is nobody's."""
        life = self.life
        waiting: Deferred[Any] = Deferred()
        life.start(waiting)
        life.documents.take([FILE])
        self.assertTrue(waiting.called)
        other = replace(SPEC, rest_source=replace(SOURCE, url="https://h/other.json"))
        life.outbound.answer = Response(body=document("list"))
        life.documents.take([SPEC])
        life.clock.advance(0)
        life.outbound.answer = Response(body=document("other"))
        self.successResultOf(life.documents.prepare([other]))
        (spec,) = life.documents.take([other])
        assert spec.rest is not None
        self.assertEqual([one.name for one in spec.rest.operations], ["other"])
