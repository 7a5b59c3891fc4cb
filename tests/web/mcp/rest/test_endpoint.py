"""Tests of mcpgate.web.mcp.rest.endpoint."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.errors import BackendUnavailable
from mcpgate.gate.routing import Routes
from mcpgate.gate.server_hosts import ServerHosts
from mcpgate.mcp.jsonrpc import ErrorResponse
from mcpgate.model import Rate
from mcpgate.web.guard import Guard
from mcpgate.web.mcp.rest.endpoint import LIST_WAIT_S, RESTEndpoint
from mcpgate.web.mcp.together.member import Members
from tests.web.endpoint_kit import World
from tests.web.fake_inbound import FakeInbound
from tests.web.mcp.together.group_kit import FakeServers
from tests.web.modern_kit import ModernWorld

LIST = ("notes", "tools/list")
CALL = ("notes", "tools/call")


class Case(SynchronousTestCase):
    """A gate whose servers answer at once, or wait."""

    @override
    def setUp(self) -> None:
        self.make()

    def make(self, **options: Any) -> None:
        """Make the gate."""
        self.world = World(**options)
        self.servers = FakeServers()
        self.servers.results[LIST] = {"tools": [{"name": "add"}]}
        self.world.dispatcher._rest = RESTEndpoint(
            gate=self.world.gate, members=Members(self.servers), clock=self.world.clock
        )

    def get(self, path: bytes = b"/notes/openapi.json", **options: Any) -> FakeInbound:
        """GET a path."""
        return self.world.ask("GET", path=path, **options)

    def call(
        self, body: object = b"{}", path: bytes = b"/notes/tools/add", **options: Any
    ) -> FakeInbound:
        """Call a tool."""
        return self.world.ask("POST", body, path=path, **options)


class DocumentTests(Case):
    """The document and the page."""

    def test_document(self) -> None:
        """It is made from the tools this caller sees, for the address it was asked at."""
        answer = self.get(b"/servers/notes/openapi.json")
        self.assertEqual(answer.status, 200)
        self.assertEqual(list(answer.json["paths"]), ["/tools/add"])
        self.assertEqual(answer.json["servers"], [{"url": "https://gate.example/servers/notes"}])
        (request,) = self.servers.asked("notes")
        self.assertEqual(request.method, "tools/list")
        self.assertEqual(self.world.meters.calls_in_work, 0)

    def test_public_url(self) -> None:
        """A gate that knows its own address says that one."""
        self.world.dispatcher._rest._public_url = "https://mcp.example.org"
        answer = self.get()
        self.assertEqual(answer.json["servers"], [{"url": "https://mcp.example.org/notes"}])

    def test_behind_a_path(self) -> None:
        """Below a path of a trusted proxy everything begins there, as the client sees it."""
        dispatcher = self.world.dispatcher
        dispatcher._guard = Guard(allowed_hosts=["*"], trusted_proxies=["192.0.2.7"])

        def ask(path: bytes) -> FakeInbound:
            told = {
                b"host": b"10.0.0.1:8080",
                b"authorization": b"Bearer k1",
                b"x-forwarded-proto": b"http",
                b"x-forwarded-host": b"lan.example:81",
                b"x-forwarded-prefix": b"/tools/",
            }
            inbound = FakeInbound("GET", path, fields=list(told.items()))
            dispatcher(inbound)
            return inbound

        url = "http://lan.example:81/tools/notes"
        self.assertEqual(ask(b"/notes/openapi.json").json["servers"], [{"url": url}])
        page = ask(b"/notes/docs").body
        for text in (f"{url}/openapi.json", f"POST {url}/tools/add"):
            self.assertIn(text.encode(), page)
        dispatcher._rest._public_url = "https://mcp.example.org"
        url = "https://mcp.example.org/tools/notes"
        self.assertEqual(ask(b"/notes/openapi.json").json["servers"], [{"url": url}])
        dispatcher._guard = Guard(allowed_hosts=["*"])
        url = "https://mcp.example.org/notes"
        self.assertEqual(ask(b"/notes/openapi.json").json["servers"], [{"url": url}])

    def test_own_host(self) -> None:
        """On a host of the server's own its paths begin there."""
        world = self.world
        world.dispatcher._routes = Routes([world.spec], ServerHosts(("*.gate.example",), ""))
        world.dispatcher._rest._public_url = "http://mcp.example.org"
        inbound = FakeInbound(
            "GET",
            b"/openapi.json",
            fields=[(b"host", b"notes.gate.example"), (b"authorization", b"Bearer k1")],
        )
        world.dispatcher(inbound)
        self.assertEqual(inbound.json["servers"], [{"url": "http://notes.gate.example"}])
        world.dispatcher._rest._public_url = ""
        old = FakeInbound("GET", b"/notes/openapi.json", fields=[(b"authorization", b"Bearer k1")])
        world.dispatcher(old)
        self.assertEqual(old.json["servers"], [{"url": "/notes"}])

    def test_pages(self) -> None:
        """Every page of a long list is asked for, up to a bound."""
        self.servers.results[LIST] = lambda post: (
            {"tools": [{"name": "b"}, 7]}
            if "cursor" in post.request.params
            else {"tools": [{"name": "a"}], "nextCursor": "x"}
        )
        self.assertEqual(list(self.get().json["paths"]), ["/tools/a", "/tools/b"])
        self.servers.results[LIST] = {"tools": 7, "nextCursor": "again"}
        self.servers.posts.clear()
        self.assertEqual(self.get().json["paths"], {})
        self.assertEqual(len(self.servers.posts), 50)

    def test_page(self) -> None:
        """The page says the same, and lets a browser do nothing."""
        answer = self.get(b"/notes/docs")
        self.assertEqual(answer.status, 200)
        self.assertIn(b"POST https://gate.example/notes/tools/add", answer.body)
        self.assertIn(b"default-src 'none'", answer.fields[b"content-security-policy"])

    def test_too_slow(self) -> None:
        """Who asks for the document does not wait for ever."""
        del self.servers.results[LIST]
        answer = self.get()
        self.assertEqual(answer.status, 0)
        self.world.clock.advance(LIST_WAIT_S + 1)
        self.assertEqual((answer.status, answer.json["error"]["reason"]), (504, "backend_timeout"))
        self.assertTrue(self.servers.posts[0].inbound.finished)

    def test_failures(self) -> None:
        """A server that is not there, or has no tools, is told as an error."""
        self.servers.results[LIST] = BackendUnavailable("Gone.")
        self.assertEqual(self.get().status, 503)
        self.servers.results[LIST] = ErrorResponse(1, -32601, "no tools")
        self.assertEqual(self.get().status, 404)


class CallTests(Case):
    """Calling tools."""

    def test_call(self) -> None:
        """The body is the arguments, the answer what the tool said; the log knows the tool."""
        self.servers.results[CALL] = {"content": [{"type": "text", "text": '{"a": 1}'}]}
        answer = self.call({"text": "x"}, b"/notes/tools/a%2Fb")
        self.assertEqual((answer.status, answer.json), (200, {"a": 1}))
        (request,) = self.servers.asked("notes")
        params = request.params or {}
        self.assertEqual((params["name"], params["arguments"]), ("a/b", {"text": "x"}))
        self.assertEqual(answer.notes["tool"], "a/b")
        self.assertEqual(self.world.meters.calls_in_work, 0)

    def test_no_body(self) -> None:
        """A tool without arguments needs no body."""
        self.servers.results[CALL] = {"content": []}
        answer = self.call(b"")
        self.assertEqual((answer.status, answer.json), (200, None))

    def test_half_a_pair(self) -> None:
        """Text that is no UTF-8 does not break the answer."""
        self.servers.results[CALL] = lambda post: {
            "content": [{"type": "text", "text": "\U0001f600"}]
        }
        self.assertEqual(self.call().json, "\U0001f600")

    def test_bad_bodies(self) -> None:
        """What is no JSON object is refused before anything is asked."""
        for body in (b"[]", b"7", b"{", b'{"a":1,"a":2}', b"\xff"):
            self.assertEqual(self.call(body).status, 400)
        self.assertEqual(self.call(b"{}", kind=b"text/plain").status, 415)
        coded = self.call(b"{}", more=((b"content-encoding", b"gzip"),))
        self.assertEqual(coded.status, 415)
        self.assertEqual(self.servers.posts, [])

    def test_no_type(self) -> None:
        """A body needs its type."""
        inbound = FakeInbound(
            path=b"/notes/tools/add",
            body=b"{}",
            fields=[(b"host", b"h"), (b"authorization", b"Bearer k1")],
        )
        self.world.dispatcher(inbound)
        self.assertEqual(inbound.status, 415)

    def test_bad_names(self) -> None:
        """A name that is none is not asked for."""
        for name in (b"%ff", b"a" * 1001):
            self.assertEqual(self.call(b"{}", b"/notes/tools/" + name).status, 404)
        self.assertEqual(self.servers.posts, [])

    def test_failures(self) -> None:
        """A tool that fails or asks is told with a status and a reason."""
        for result, status, reason in (
            ({"content": [{"type": "text", "text": "no"}], "isError": True}, 422, "tool_failed"),
            ({"resultType": "input_required"}, 422, "tool_asks"),
            (ErrorResponse(1, -32602, "Unknown tool"), 400, "invalid_params"),
            (BackendUnavailable(), 503, "backend_unavailable"),
        ):
            self.servers.results[CALL] = result
            answer = self.call()
            self.assertEqual((answer.status, answer.json["error"]["reason"]), (status, reason))
            self.assertEqual(answer.notes["reason"], reason)
        self.assertEqual(self.world.meters.calls_in_work, 0)

    def test_bugs(self) -> None:
        """A bug is told without a traceback."""
        self.servers.results[CALL] = {"structuredContent": object()}
        self.servers.call = lambda post: 1 / 0  # type: ignore[method-assign,assignment]  # to break it
        self.assertEqual(self.call().status, 500)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_gone(self) -> None:
        """A client that goes has cancelled its call."""
        answer = self.call()
        self.assertEqual(self.world.meters.calls_in_work, 1)
        answer.go()
        self.assertTrue(self.servers.posts[0].inbound.finished)
        self.assertEqual((self.world.meters.calls_in_work, answer.status), (0, 0))

    def test_limits(self) -> None:
        """Calls cost what calls over MCP cost."""
        self.make(rate=Rate(0.1, 1))
        self.servers.results[CALL] = {"content": []}
        self.assertEqual(self.call().status, 200)
        limited = self.call()
        self.assertEqual((limited.status, limited.fields[b"retry-after"]), (429, b"10"))
        self.assertEqual(self.get().status, 429)
        self.make(concurrent=1)
        self.call()
        self.assertEqual(self.call().status, 503)


class ModernTests(SynchronousTestCase):
    """A server of the modern era, really asked."""

    def test_fields_of_parameters(self) -> None:
        """Arguments that stand in HTTP fields too are put there, for who knows nothing of it."""
        world = ModernWorld()
        path = b"/notes/tools/add"
        more = ((b"mcp-param-region", b"wrong"),)
        answer = world.ask("POST", {"region": "eu"}, path=path, more=more)
        server = world.pool.newest.http
        first = server.take()
        self.assertNotIn(b"mcp-param-region", first.fields)
        error = {"code": -32020, "message": "Mcp-Param-Region is missing"}
        first.json({"jsonrpc": "2.0", "id": first.message["id"], "error": error}, 400)
        listing = server.take()
        region = {"type": "string", "x-mcp-header": "Region"}
        schema = {"type": "object", "properties": {"region": region}}
        tools = {"tools": [{"name": "add", "inputSchema": schema}]}
        listing.json({"jsonrpc": "2.0", "id": listing.message["id"], "result": tools})
        second = server.take()
        self.assertEqual(second.fields[b"mcp-param-region"], b"eu")
        said = {"resultType": "complete", "content": [{"type": "text", "text": "ok"}]}
        second.json({"jsonrpc": "2.0", "id": second.message["id"], "result": said})
        self.assertEqual((answer.status, answer.json), (200, "ok"))
        self.assertEqual((world.pool.held, world.meters.calls_in_work), (0, 0))


class DoorTests(Case):
    """Who may, and how."""

    def test_keys(self) -> None:
        """The rules are those of the MCP endpoint."""
        for ask in (self.get, self.call):
            self.assertEqual(ask(key="").status, 401)
            self.assertEqual(ask(key="konly").status, 403)
        self.assertEqual(self.servers.posts, [])

    def test_methods(self) -> None:
        """Other methods are refused, with those that are not."""
        answer = self.world.ask("GET", path=b"/notes/tools/add")
        self.assertEqual((answer.status, answer.fields[b"allow"]), (405, b"POST, OPTIONS"))
        answer = self.world.ask("POST", b"{}", path=b"/notes/docs")
        self.assertEqual((answer.status, answer.fields[b"allow"]), (405, b"GET, HEAD, OPTIONS"))
        self.assertEqual(self.world.ask("OPTIONS", path=b"/notes/docs").status, 204)
        self.assertEqual(self.world.ask("OPTIONS", path=b"/notes/tools/add").status, 204)

    def test_others(self) -> None:
        """Paths beside these are the relay's; all are where the face is off."""
        for path in (b"/notes/tools/", b"/notes/tools/a/b", b"/notes/docs/", b"/notes/tools"):
            self.world.ask("GET", path=path)
        self.assertEqual(len(self.world.relayed), 4)
        self.make(openapi_face=False)
        self.get()
        self.call()
        self.assertEqual(len(self.world.relayed), 2)
