"""Modern requests of whoever asks within the gate."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.errors import BackendDied, BackendTimeout, BackendUnavailable, BadBackendAnswer
from mcpgate.mcp.jsonrpc import ErrorResponse, Notification, Request, Response
from mcpgate.mcp.modern import META_CAPABILITIES, META_VERSION, MODERN, Context
from mcpgate.model import Transport
from mcpgate.web.mcp.modern.ask import MAX_PAGES, NotModern
from tests.upstream.stdio_fakes import FakeSink
from tests.web.endpoint_kit import caller_of, request
from tests.web.fake_exchange import Sent
from tests.web.fake_inbound import FakeInbound
from tests.web.modern_kit import ModernWorld

ANN = caller_of("k1")
META: dict[str, object] = {META_VERSION: MODERN, META_CAPABILITIES: {}}
PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}
MISMATCH = {"code": -32020, "message": "Header mismatch"}
TOOL = {
    "name": "search",
    "inputSchema": {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
    },
}


class AskTests(SynchronousTestCase):
    """Over HTTP."""

    @override
    def setUp(self) -> None:
        self.world = ModernWorld()
        self.sink = FakeSink()

    def ask(self, method: str = "prompts/get", **params: Any) -> Sent:
        """Ask, and give what the server got."""
        options = {name: params.pop(name) for name in ("source", "params_fields") if name in params}
        asked = Request("q", method, {**params, "_meta": META})
        self.take_back = self.world.modern.asker.ask(
            self.world.spec, ANN, asked, self.sink, **options
        )
        self.world.settle()
        return self.world.server.take()

    def test_a_stream(self) -> None:
        """Its messages are told as they come, the answer last."""
        sent = self.ask(name="p")
        self.assertEqual(sent.fields[b"mcp-name"], b"p")
        self.assertEqual(sent.fields[b"mcp-protocol-version"], b"2026-07-28")
        sent.head()
        sent.event(None)
        sent.event(PROGRESS)
        sent.event(request("roots/list"))
        sent.event({"jsonrpc": "2.0", "id": "other", "result": {}})
        self.assertEqual(
            self.sink.delivered, [Notification("notifications/progress", {"progress": 1})]
        )
        sent.event({"jsonrpc": "2.0", "id": "q", "result": {"a": 1}})
        self.assertEqual(self.sink.answer, Response("q", {"a": 1}))
        sent.event(PROGRESS)
        self.assertEqual(self.world.leaks(), {})

    def test_json(self) -> None:
        """Errors belong to the exchange, whatever their id."""
        self.ask().json({"jsonrpc": "2.0", "id": "server-error", "error": MISMATCH}, 400)
        self.assertEqual(self.sink.answer, ErrorResponse("q", -32020, "Header mismatch"))

    def test_fields_of_the_client(self) -> None:
        """Those that are the client's business go along, those of its own message do not."""
        source = FakeInbound(
            fields=[
                (b"traceparent", b"00-a-b-01"),
                (b"mcp-name", b"other"),
                (b"mcp-param-region", b"eu"),
                (b"mcp-protocol-version", b"2025-11-25"),
                (b"authorization", b"Bearer k1"),
            ]
        )
        sent = self.ask(
            "tools/call",
            name="search",
            source=source,
            params_fields=[(b"mcp-param-region", b"us")],
        )
        self.assertEqual(sent.fields[b"traceparent"], b"00-a-b-01")
        self.assertEqual(sent.fields[b"mcp-name"], b"search")
        self.assertEqual(sent.fields[b"mcp-param-region"], b"us")
        self.assertEqual(sent.fields[b"mcp-protocol-version"], b"2026-07-28")
        self.assertNotIn(b"authorization", sent.fields)

    def test_no_answer(self) -> None:
        """What is none is a failure; some show the other era."""
        for status, kind in ((404, NotModern), (503, BadBackendAnswer), (202, BadBackendAnswer)):
            self.sink = FakeSink()
            self.ask().empty(status)
            self.assertIsInstance(self.sink.error, kind)
        self.sink = FakeSink()
        sent = self.ask()
        sent.head()
        sent.done()
        self.assertIsInstance(self.sink.error, BadBackendAnswer)
        self.sink = FakeSink()
        sent = self.ask()
        sent.head(200, b"application/json")
        for _ in range(17):
            sent.data(b"x" * 2**20)
        self.assertIsInstance(self.sink.error, BadBackendAnswer)
        self.assertEqual(self.world.leaks(), {})

    def test_taking_back(self) -> None:
        """The server's connection is cut, and nothing is heard any more."""
        for method in ("prompts/get", "tools/call"):
            sent = self.ask(method, name="search")
            self.take_back()
            self.assertTrue(sent.aborted)
            self.assertFalse(self.sink.over)
            self.assertEqual(self.world.leaks(), {})

    def test_a_tool_with_headers(self) -> None:
        """Refused for them, the call is sent once more with those of the tool as it is now."""
        arguments = {"region": "us"}
        sent = self.ask("tools/call", name="search", arguments=arguments)
        self.assertNotIn(b"mcp-param-region", sent.fields)
        sent.json({"jsonrpc": "2.0", "id": "q", "error": MISMATCH}, 400)
        self.world.server.take().result(tools=[{"name": "other"}], nextCursor="")
        page = self.world.server.take()
        self.assertEqual(page.message["params"]["cursor"], "")
        page.result(tools=[TOOL])
        again = self.world.server.take()
        self.assertEqual(again.fields[b"mcp-param-region"], b"us")
        again.head()
        again.event(PROGRESS)
        again.event({"jsonrpc": "2.0", "id": "q", "error": MISMATCH})
        self.assertEqual(len(self.sink.delivered), 1)
        self.assertEqual(self.sink.answer, ErrorResponse("q", -32020, "Header mismatch"))
        self.assertEqual(self.world.leaks(), {})

    def test_a_tool_that_explains_nothing(self) -> None:
        """The refusal stands when the list does not help."""
        lists: list[Any] = [{"tools": []}, {"tools": [{"name": "search"}]}, {"tools": 7}, None]
        for listed in lists:
            self.sink = FakeSink()
            sent = self.ask("tools/call", name="search")
            sent.json({"jsonrpc": "2.0", "id": "q", "error": MISMATCH}, 400)
            page = self.world.server.take()
            if listed is None:
                page.empty(503)
            else:
                page.result(**listed)
            self.assertEqual(self.sink.answer, ErrorResponse("q", -32020, "Header mismatch"))
        self.sink = FakeSink()
        sent = self.ask("tools/call", name="search")
        sent.json({"jsonrpc": "2.0", "id": "q", "error": MISMATCH}, 400)
        for _ in range(MAX_PAGES):
            self.world.server.take().result(tools=[], nextCursor="more")
        self.assertTrue(self.sink.over)
        sent = self.ask("tools/call", name="search")
        sent.json({"jsonrpc": "2.0", "id": "q", "error": MISMATCH}, 400)
        self.take_back()
        self.assertTrue(self.world.server.take().aborted)
        self.assertEqual(self.world.leaks(), {})

    def test_a_list_without_end(self) -> None:
        """All pages together have the time one call may take, and no more."""
        world = self.world
        context = Context(version=MODERN, capabilities={})
        reading = world.modern.asker.tools(world.spec, ANN, context)
        pages = 0
        while not reading.called:
            world.server.take().result(tools=[], nextCursor="more")
            world.pass_time(50)
            pages += 1
        self.failureResultOf(reading, BackendTimeout)
        self.assertEqual(pages, world.spec.call_timeout_max_s // 50)
        self.assertEqual(world.leaks(), {})

    def test_one_answer(self) -> None:
        """For those who want no more than that."""
        asker, spec = self.world.modern.asker, self.world.spec
        asked = Request("q", "tools/list", {"_meta": META})
        answers: list[Deferred[Any]] = []
        for _ in range(3):
            answers.append(asker.answer(spec, ANN, asked))
        self.world.settle()
        first, second, third = self.world.server.waiting
        first.head()
        first.event(PROGRESS)
        first.event({"jsonrpc": "2.0", "id": "q", "result": {}})
        second.empty(404)
        answers[2].cancel()
        self.assertTrue(third.aborted)
        self.assertEqual(self.successResultOf(answers[0]), Response("q", {}))
        self.failureResultOf(answers[1], NotModern)
        self.failureResultOf(answers[2], CancelledError)

    def test_a_call_that_fails(self) -> None:
        """Its failure is told, before it is sent once more or after."""
        for answers in (1, 2):
            self.sink = FakeSink()
            sent = self.ask("tools/call", name="search", arguments={"region": "us"})
            if answers == 2:
                sent.json({"jsonrpc": "2.0", "id": "q", "error": MISMATCH}, 400)
                self.world.server.take().result(tools=[TOOL])
                sent = self.world.server.take()
            sent.fail()
            self.assertIsInstance(self.sink.error, BackendDied)
            self.take_back()

    def test_over_stdio(self) -> None:
        """The same, through the child's books."""
        world = ModernWorld(Transport.STDIO)
        asked = Request("q", "tools/call", {"name": "a", "_meta": META})
        take_back = world.modern.asker.ask(world.spec, ANN, asked, self.sink)
        world.settle()
        (sent,) = world.child.take()
        world.child.say(id=sent["id"], result={"a": 1})
        self.assertEqual(self.sink.answer, Response("q", {"a": 1}))
        take_back()
        world.pool.error = BackendUnavailable()
        world.pool.die()
        self.sink = FakeSink()
        world.modern.asker.ask(world.spec, ANN, asked, self.sink)
        self.assertIsInstance(self.sink.error, BackendUnavailable)
        self.assertEqual(world.leaks(), {})
