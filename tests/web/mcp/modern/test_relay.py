"""Modern clients on modern servers: what goes up, what comes back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.errors import (
    BackendDied,
    BackendTimeout,
    BackendUnavailable,
    BadBackendAnswer,
    Overloaded,
)
from mcpgate.mcp.jsonrpc import Request
from mcpgate.mcp.modern import Context
from mcpgate.model import Eras, Isolation, Transport
from mcpgate.web.mcp.modern.post import ModernPost
from mcpgate.web.mcp.modern.relay import HOLD_BYTES, ModernRelay
from mcpgate.web.mcp.modern.tool_headers import MAX_CALLERS, ToolHeaders
from tests.web.endpoint_kit import BOTH, caller_of
from tests.web.fake_exchange import Sent
from tests.web.fake_inbound import FakeInbound
from tests.web.modern_kit import EVERYTHING, ModernWorld, message

PROGRESS = {
    "jsonrpc": "2.0",
    "method": "notifications/progress",
    "params": {"progressToken": "p", "progress": 1},
}
ASKS: dict[str, Any] = {
    "resultType": "input_required",
    "inputRequests": {
        "name": {"method": "elicitation/create", "params": {"mode": "form", "message": "Who?"}}
    },
}


def code_of(answer: FakeInbound) -> tuple[int, int]:
    """Give status and JSON-RPC code."""
    return answer.status, answer.json["error"]["code"]


def result(id: int | str = 1, **result: Any) -> dict[str, Any]:
    """Make an answer."""
    return {"jsonrpc": "2.0", "id": id, "result": result}


class RelayTests(SynchronousTestCase):
    """Over HTTP."""

    @override
    def setUp(self) -> None:
        self.world = ModernWorld()

    def take(self) -> Sent:
        """Give what the server has to answer."""
        return self.world.server.take()

    def test_the_body_goes_as_it_came(self) -> None:
        """With fields made from it, the tool's own among them, and no key of the client."""
        body = message("tools/call", name="größe", arguments={"a": 1})
        answer = self.world.send(body, more=((b"mcp-param-region", b"us"), (b"mcp-name-x", b"y")))
        sent = self.take()
        self.assertEqual(sent.raw, json.dumps(body).encode())
        self.assertEqual(sent.fields[b"mcp-name"], b"=?base64?Z3LDtsOfZQ==?=")
        self.assertEqual(sent.fields[b"mcp-method"], b"tools/call")
        self.assertEqual(sent.fields[b"mcp-protocol-version"], b"2026-07-28")
        self.assertEqual(sent.fields[b"mcp-param-region"], b"us")
        self.assertEqual(sent.fields[b"accept"], BOTH)
        self.assertNotIn(b"authorization", sent.fields)
        sent.result(content=[])
        self.assertEqual(answer.json, result(content=[]))
        self.assertEqual(self.world.leaks(), {})

    def test_a_stream_comes_as_it_came(self) -> None:
        """Events pass at once; the answer ends the stream."""
        answer = self.world.call(capabilities=EVERYTHING)
        sent = self.take()
        sent.head()
        sent.event(PROGRESS)
        self.assertEqual(answer.events, [PROGRESS])
        sent.data(b": ping\n\ndata: {")
        sent.data(b'"jsonrpc":"2.0","id":1,"result":{}}\n\n')
        self.assertEqual(answer.events[-1], result())
        sent.done()
        self.assertTrue(answer.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_a_client_that_takes_no_stream_gets_the_answer(self) -> None:
        """Progress has no place in JSON."""
        answer = self.world.call(accept=b"application/json")
        sent = self.take()
        sent.head()
        sent.event(PROGRESS)
        sent.event(result(a=1))
        self.assertEqual(answer.json, result(a=1))
        self.assertEqual(self.world.leaks(), {})

    def test_large_answers_are_not_held(self) -> None:
        """They pass piece by piece, if nothing in them has to be looked at."""
        answer = self.world.call(capabilities=EVERYTHING)
        sent = self.take()
        text = json.dumps(result(text="x" * HOLD_BYTES)).encode()
        sent.head(200, b"application/json", length=len(text))
        sent.data(text[:1000])
        self.assertEqual(answer.body, text[:1000])
        sent.data(text[1000:])
        sent.done()
        self.assertEqual(answer.body, text)
        self.assertEqual(self.world.leaks(), {})

    def test_a_large_answer_that_breaks_is_cut(self) -> None:
        """Only a cut tells that a body is not whole."""
        answer = self.world.call(capabilities=EVERYTHING)
        sent = self.take()
        sent.head(200, b"application/json", length=HOLD_BYTES + 10)
        sent.data(b"{")
        sent.fail()
        self.assertTrue(answer.aborted)
        self.assertEqual(self.world.leaks(), {})

    def test_a_stream_that_breaks_is_told(self) -> None:
        """The client hears an error after what it heard already."""
        for end in ("fail", "done"):
            answer = self.world.call()
            sent = self.take()
            sent.head()
            sent.event(PROGRESS)
            getattr(sent, end)()
            self.assertEqual(answer.events[-1]["error"]["code"], -31003)
            self.assertTrue(answer.finished)
        self.assertEqual(self.world.leaks(), {})

    def test_who_goes_has_cancelled(self) -> None:
        """The connection to the server is cut."""
        answer = self.world.call()
        sent = self.take()
        answer.go()
        self.assertTrue(sent.aborted)
        self.assertEqual(answer.notes["reason"], "cancelled")
        self.assertEqual(self.world.leaks(), {})
        sent.data(b"x")

    def test_who_goes_while_the_server_starts_is_not_called_for(self) -> None:
        """Nothing reaches the server any more."""
        self.world.pool.at_once = False
        answer = self.world.call()
        answer.go()
        self.world.pool.started()
        self.world.settle()
        self.assertEqual(self.world.server.all, [])
        self.assertEqual(self.world.leaks(), {})

    def test_slow_clients_slow_the_server(self) -> None:
        """Back pressure goes through."""
        answer = self.world.call()
        sent = self.take()
        sent.head()
        answer.read_slowly()
        self.assertTrue(sent.paused)
        answer.catch_up()
        self.assertFalse(sent.paused)

    def test_silence_is_filled(self) -> None:
        """After a while the client hears that somebody is there."""
        answer = self.world.call()
        self.world.pass_time(16)
        self.assertTrue(answer.is_stream)
        self.assertIn(b": keepalive", answer.body)
        self.take().result(a=1)
        self.assertEqual(answer.events, [result(a=1)])

    def test_silence_has_an_end(self) -> None:
        """A server that says nothing fails the call, progress or not."""
        world = ModernWorld(call_timeout_s=5.0, call_timeout_max_s=8.0)
        answer = world.call(accept=b"application/json")
        sent = world.server.take()
        world.pass_time(6)
        self.assertEqual(code_of(answer), (200, -31002))
        self.assertTrue(sent.aborted)
        answer = world.call()
        sent = world.server.take()
        sent.head()
        for _ in range(9):
            sent.event(PROGRESS)
            world.pass_time(1)
        self.assertEqual(answer.events[-1]["error"]["code"], -31002)
        self.assertEqual(world.leaks(), {})

    def test_a_slow_reader_is_not_the_servers_fault(self) -> None:
        """While the client does not read, only the longest time counts."""
        world = ModernWorld(call_timeout_s=5.0, call_timeout_max_s=20.0)
        answer = world.call()
        world.server.take().head()
        answer.read_slowly()
        world.pass_time(12)
        self.assertFalse(answer.finished)
        world.pass_time(12)
        self.assertTrue(answer.finished)

    def test_a_call_is_never_sent_twice(self) -> None:
        """Unless surely nothing of it reached the server (R35)."""
        answer = self.world.call()
        self.take().fail(sent=True)
        self.assertEqual(code_of(answer), (200, -31003))
        answer = self.world.call()
        self.take().fail(BackendUnavailable(), sent=False)
        self.world.pass_time(1)
        self.take().result(a=1)
        self.assertEqual(answer.json, result(a=1))
        self.assertEqual(len(self.world.server.all), 3)

    def test_a_list_is_sent_once_more(self) -> None:
        """It changes nothing; but not when it goes on with what was begun."""
        answer = self.world.call("tools/list")
        self.take().fail()
        self.world.pass_time(1)
        self.take().result(tools=[])
        self.assertEqual(answer.json["result"]["tools"], [])
        answer = self.world.call("prompts/get", name="p", requestState="s")
        self.take().fail()
        self.world.pass_time(1)
        self.assertEqual(code_of(answer), (200, -31003))
        answer = self.world.call("tools/list")
        for _ in range(2):
            self.take().fail()
            self.world.pass_time(1)
        self.assertEqual(code_of(answer), (200, -31003))
        self.assertEqual(self.world.leaks(), {})

    def test_a_death_is_told_with_how(self) -> None:
        """The process's own end is known a moment after that of its connections."""
        answer = self.world.call()
        sent = self.take()
        self.world.pool.die()
        sent.fail()
        self.assertEqual(answer.json["error"]["data"]["exitCode"], 1)

    def test_statuses_of_the_server(self) -> None:
        """Those of the protocol pass with its error; the id is the client's."""
        for status, code, told in (
            (200, -32602, 200),
            (400, -32602, 400),
            (400, -32020, 400),
            (404, -32601, 404),
            (500, -32603, 200),
            (500, -32601, 404),
        ):
            answer = self.world.call(id="c")
            error = {"code": code, "message": "no", "data": {"x": 1}}
            self.take().json({"jsonrpc": "2.0", "id": None, "error": error}, status)
            self.assertEqual((answer.status, answer.json["error"]), (told, error))
            self.assertEqual(answer.json["id"], "c")

    def test_answers_that_are_none(self) -> None:
        """They become errors of the call; one shows that the server is of the other era."""
        world = ModernWorld(era=Eras.AUTO)
        world.eras.note(world.spec, modern=True)
        for status, code in ((200, -31003), (401, -31003), (503, -31003), (405, -31001)):
            answer = world.call()
            sent = world.server.take()
            sent.head(status, b"text/plain")
            sent.data(b"no")
            sent.done()
            self.assertEqual(code_of(answer), (200, code))
            self.assertEqual(world.eras.known(world.spec).modern, code == -31003)
        world.eras.note(world.spec, modern=True)
        answer = world.call()
        error = {"code": -32022, "message": "no", "data": {"supported": ["2025-11-25"]}}
        world.server.take().json({"jsonrpc": "2.0", "id": 1, "error": error}, 400)
        self.assertEqual(code_of(answer), (400, -32022))
        self.assertFalse(world.eras.known(world.spec).modern)

    def test_monsters(self) -> None:
        """What is too large is refused, in whatever form."""
        answer = self.world.call()
        sent = self.take()
        sent.head(200, b"application/json")
        for _ in range(17):
            sent.data(b"x" * 2**20)
        self.assertEqual(code_of(answer), (200, -31003))
        self.assertTrue(sent.aborted)
        answer = self.world.call()
        sent = self.take()
        sent.head()
        sent.data(b"data: ")
        for _ in range(17):
            sent.data(b"x" * 2**20)
        self.assertEqual(code_of(answer), (200, -31003))
        self.assertEqual(self.world.leaks(), {})


class TroubleTests(SynchronousTestCase):
    """What else may go wrong on the way."""

    def test_a_server_that_can_not_be_called(self) -> None:
        """A bug is told as one, under the id; what was taken is given back."""
        world = ModernWorld()
        world.call("tools/list").go()
        world.server.error = ZeroDivisionError()
        answer = world.call(id="c")
        self.assertEqual((code_of(answer), answer.json["id"]), ((200, -32603), "c"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        world.server.error = BackendDied()
        answer = world.call()
        world.server.error = None
        world.pass_time(1)
        world.server.take().result(a=1)
        self.assertEqual(answer.json, result(a=1))
        self.assertEqual(world.leaks(), {})

    def test_a_start_that_fails(self) -> None:
        """The caller hears of it once it is known; a bug there is told as one."""
        for error, code in ((BackendUnavailable(), -31001), (ZeroDivisionError(), -32603)):
            world = ModernWorld()
            world.pool.at_once = False
            answer = world.call()
            world.pool.started(error)  # type: ignore[arg-type]  # a bug is no GateError
            self.assertEqual(code_of(answer), (200, code))
            self.assertEqual(world.leaks(), {})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_slow_reader_before_the_server_runs(self) -> None:
        """What it asked for is paused from the start."""
        world = ModernWorld()
        world.pool.at_once = False
        answer = world.call()
        answer.read_slowly()
        world.pool.started()
        world.settle()
        self.assertTrue(world.server.take().paused)

    def test_a_remote_server(self) -> None:
        """There is no process whose end could be told."""
        world = ModernWorld(url="http://127.0.0.1:9/mcp", runtime="remote")
        answer = world.call()
        world.server.take().fail()
        self.assertEqual(code_of(answer), (200, -31003))
        self.assertNotIn("exitCode", answer.json["error"]["data"])

    def test_other_failures(self) -> None:
        """They are told as they are, whether or not anything was heard."""
        world = ModernWorld()
        answer = world.call("tools/list")
        world.server.take().fail(Overloaded())
        self.assertEqual(code_of(answer), (200, -31005))
        answer = world.call()
        sent = world.server.take()
        sent.head()
        sent.event(PROGRESS)
        sent.fail(Overloaded())
        self.assertEqual(answer.events[-1]["error"]["code"], -31005)
        self.assertRaises(BadBackendAnswer, sent.receiver.response_upgraded, None, None)
        self.assertEqual(world.leaks(), {})

    def test_a_client_that_is_gone_already(self) -> None:
        """Nothing is asked for it."""
        for transport in (Transport.HTTP, Transport.STDIO):
            world = ModernWorld(transport)
            asked = message("tools/call", name="search")
            inbound = Gone(body=json.dumps(asked).encode())
            request = Request(1, "tools/call", asked["params"])
            released = Counter[str]()
            post = ModernPost(
                inbound=inbound,
                caller=caller_of("k1"),
                spec=world.spec,
                body=b"",
                request=request,
                context=Context.of(request),
                accepts=(True, True),
                release=partial(released.update, ["once"]),
            )
            relay = ModernRelay(world.modern.asker, world.modern.results, world.modern.listens)
            relay.call(post)
            self.assertEqual((world.pool.instances, released["once"]), ([], 1))


class Gone(FakeInbound):
    """A request whose client has gone, but nobody has noticed."""

    @override
    def on_gone(self, callback: Callable[[], None]) -> None:
        callback()


class QuestionTests(SynchronousTestCase):
    """What a server asks of clients."""

    def test_only_who_can_answer_is_asked(self) -> None:
        """Anybody else hears what is missing, in either form of answer."""
        world = ModernWorld()
        for stream in (False, True):
            answer = world.call(id="c")
            sent = world.server.take()
            if stream:
                sent.head()
                sent.event(result("c", **ASKS))
            else:
                sent.result(**ASKS)
            self.assertEqual(code_of(answer), (400, -32021))
            lacking = answer.json["error"]["data"]["requiredCapabilities"]
            self.assertEqual(lacking, {"elicitation": {"form": {}}})
            able = world.call(id="c", capabilities={"elicitation": {}})
            sent = world.server.take()
            sent.result(**ASKS)
            self.assertEqual(able.json["result"], ASKS)
        self.assertEqual(world.leaks(), {})

    def test_within_a_stream(self) -> None:
        """The refusal is the stream's last event."""
        world = ModernWorld()
        answer = world.call()
        sent = world.server.take()
        sent.head()
        sent.event(PROGRESS)
        sent.event(result(**ASKS))
        self.assertEqual(answer.events[-1]["error"]["code"], -32021)
        sent.done()
        good = world.call(capabilities={"elicitation": {}})
        sent = world.server.take()
        sent.head()
        sent.event(PROGRESS)
        sent.event(result(**ASKS))
        self.assertEqual(good.events, [PROGRESS, result(**ASKS)])
        self.assertTrue(good.finished)
        self.assertEqual(world.leaks(), {})


class CacheTests(SynchronousTestCase):
    """Results that are kept."""

    def ask(self, world: ModernWorld, scope: str, key: str = "k1", **more: Any) -> FakeInbound:
        """Ask for the list, and have the server answer if it is asked."""
        answer = world.call("tools/list", key=key)
        for sent in [sent for sent in world.server.waiting if not sent.aborted]:
            world.server.waiting.remove(sent)
            sent.result(tools=[], ttlMs=60000, cacheScope=scope, **more)
        return answer

    def test_lists(self) -> None:
        """R74: private for one key, public for all of a shared server."""
        for scope, isolation, asked in (
            ("private", Isolation.SHARED, 2),
            ("public", Isolation.SHARED, 1),
            ("public", Isolation.PER_KEY, 2),
        ):
            world = ModernWorld(isolation=isolation)
            for key in ("k1", "k1", "k2", "k2"):
                self.assertEqual(self.ask(world, scope, key).json["result"]["tools"], [])
            self.assertEqual(sum(len(i.http.all) for i in world.pool.instances), asked)
            self.assertEqual(world.leaks(), {})

    def test_discovery(self) -> None:
        """It names modern revisions alone, and is told even while the server can not be asked."""
        world = ModernWorld()
        answer = world.call("server/discover")
        versions = ["2026-07-28", "2025-11-25"]
        world.server.take().result(supportedVersions=versions, capabilities={}, ttlMs=0)
        self.assertEqual(answer.json["result"]["supportedVersions"], ["2026-07-28"])
        again = world.call("server/discover", "x")
        for _ in range(3):
            for sent in list(world.server.waiting):
                world.server.waiting.remove(sent)
                sent.fail(BackendDied())
            world.pass_time(1)
        self.assertEqual((again.status, again.json["id"]), (200, "x"))
        self.assertEqual(again.json["result"]["capabilities"], {})
        other = world.call("server/discover", key="k2")
        world.pool.instances[-1].http.take().fail(BackendTimeout())
        self.assertEqual(code_of(other), (504, -31002))


class StdioTests(SynchronousTestCase):
    """Over stdio."""

    def test_a_call(self) -> None:
        """Ids and tokens on the way are the gate's."""
        world = ModernWorld(Transport.STDIO)
        answer = world.call(id="c", more_meta={"progressToken": "p"})
        (sent,) = world.child.take()
        token = sent["params"]["_meta"]["progressToken"]
        self.assertNotEqual(token, "p")
        world.child.say(
            method="notifications/progress", params={"progressToken": token, "progress": 1}
        )
        world.child.say(id=sent["id"], result={"a": 1})
        self.assertEqual(answer.events, [PROGRESS, result("c", a=1)])
        self.assertEqual(world.leaks(), {})

    def test_tools_never_told(self) -> None:
        """A child that is silent to ``tools/list`` is waited for once, not before every call."""
        world = ModernWorld(Transport.STDIO)
        world.lists_tools = False
        world.call()
        self.assertEqual([sent["method"] for sent in world.child.take()], ["tools/list"])
        world.pass_time(world.spec.call_timeout_s + 1)
        self.assertEqual(world.child.take()[-1]["method"], "tools/call")
        world.call(id=2)
        self.assertEqual([sent["method"] for sent in world.child.take()], ["tools/call"])

    def test_who_goes_has_cancelled(self) -> None:
        """The child is told, under the id it knows."""
        world = ModernWorld(Transport.STDIO)
        answer = world.call()
        (sent,) = world.child.take()
        answer.go()
        (told,) = world.child.take()
        self.assertEqual(told["method"], "notifications/cancelled")
        self.assertEqual(told["params"]["requestId"], sent["id"])
        self.assertEqual(world.leaks(), {})

    def test_who_goes_while_the_server_starts(self) -> None:
        """Nothing reaches the child."""
        world = ModernWorld(Transport.STDIO)
        world.pool.at_once = False
        world.call().go()
        world.pool.started()
        self.assertEqual(world.child.sent, [])
        self.assertEqual(world.leaks(), {})

    def test_errors_have_their_status(self) -> None:
        """As the protocol gives them."""
        world = ModernWorld(Transport.STDIO)
        for code, status in ((-32601, 404), (-32602, 200), (-32021, 400)):
            answer = world.call()
            (sent,) = world.child.take()
            world.child.say(id=sent["id"], error={"code": code, "message": "no"})
            self.assertEqual(code_of(answer), (status, code))

    def test_restarts(self) -> None:
        """A list survives the child, a call does not (R35)."""
        world = ModernWorld(Transport.STDIO)
        listing, call = world.call("tools/list"), world.call()
        world.pool.die()
        world.settle()
        (sent,) = world.child.take()
        self.assertEqual(sent["method"], "tools/list")
        world.child.say(id=sent["id"], result={"tools": []})
        self.assertEqual(listing.json["result"]["tools"], [])
        self.assertEqual(call.json["error"]["data"]["exitCode"], 1)
        world.call("tools/list")
        for _ in range(2):
            world.pool.die()
            world.settle()
        self.assertEqual(world.leaks(), {})

    def test_what_can_not_be_started(self) -> None:
        """It is told within 200."""
        world = ModernWorld(Transport.STDIO)
        world.pool.error = BackendUnavailable()
        self.assertEqual(code_of(world.call()), (200, -31001))
        self.assertEqual(world.leaks(), {})

    def test_a_process_of_the_other_era(self) -> None:
        """It was started before that was known."""
        world = ModernWorld(Transport.STDIO, era=Eras.AUTO)
        world.eras.note(world.spec, legacy=False)
        self.assertEqual(code_of(world.call()), (200, -31001))
        self.assertEqual(world.leaks(), {})


class ToolHeaderTests(SynchronousTestCase):
    """Arguments in headers, for children who never see one."""

    TOOL: ClassVar[dict[str, Any]] = {
        "name": "search",
        "inputSchema": {
            "type": "object",
            "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        },
    }
    US = (b"mcp-param-region", b"us")

    @override
    def setUp(self) -> None:
        self.world = ModernWorld(Transport.STDIO)
        self.world.lists_tools = False

    def ask(self, *more: tuple[bytes, bytes]) -> FakeInbound:
        """Call the tool."""
        return self.world.call(arguments={"region": "us"}, more=more)

    def test_checked_here(self) -> None:
        """The tools are asked for before the first call; then each call is looked at."""
        answer = self.ask()
        self.world.list_tools(self.TOOL, 7, {"name": "other", "inputSchema": {}})
        self.assertEqual(code_of(answer), (400, -32020))
        self.assertEqual(code_of(self.ask((b"mcp-param-region", b"eu"))), (400, -32020))
        self.assertEqual(self.world.child.sent, [])
        good = self.ask(self.US)
        (sent,) = self.world.child.take()
        self.assertEqual(sent["method"], "tools/call")
        self.world.child.say(id=sent["id"], result={"a": 1})
        self.assertEqual(good.json["result"], {"a": 1})
        self.assertEqual(self.world.leaks(), {})

    def test_a_list_that_changed(self) -> None:
        """What the client was told last counts."""
        listing = self.world.call("tools/list")
        self.world.list_tools(self.TOOL)
        self.assertEqual(listing.status, 200)
        self.assertEqual(code_of(self.ask()), (400, -32020))
        self.world.call("tools/list")
        self.world.list_tools({**self.TOOL, "inputSchema": {}})
        self.ask()
        self.assertEqual(self.world.child.take()[0]["method"], "tools/call")

    def test_a_server_that_does_not_tell(self) -> None:
        """Its calls are not held up; a client that goes meanwhile is not called for."""
        self.ask().go()
        self.assertEqual(self.world.child.take()[1]["method"], "notifications/cancelled")
        self.ask()
        for _ in range(2):
            (sent,) = self.world.child.take()
            self.assertEqual(sent["method"], "tools/list")
            line = b'{"jsonrpc":"2.0","id":%d,"result":{"a":NaN}}' % sent["id"]
            self.world.child.print(line)
            self.world.settle()
        self.assertEqual(self.world.child.take()[0]["method"], "tools/call")

    def test_bounds(self) -> None:
        """The callers known longest are forgotten."""
        headers = ToolHeaders(self.world.modern.asker)
        principal = caller_of("k1").principal
        headers.told(self.world.spec, principal, "nothing")
        self.assertTrue(headers.knows(self.world.spec, principal))
        for number in range(MAX_CALLERS):
            headers.told(self.world.spec, caller_of(f"k{number}x").principal, [])
        self.assertFalse(headers.knows(self.world.spec, principal))
