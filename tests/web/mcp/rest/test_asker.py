"""Tests of mcpgate.web.mcp.rest.asker."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.errors import BackendTimeout, BackendUnavailable, GateError
from mcpgate.http.fields import Fields
from mcpgate.http.forwarding import Forwarding
from mcpgate.http.heads import ResponseHead
from mcpgate.interfaces import IResponseReceiver
from mcpgate.mcp.jsonrpc import Request
from mcpgate.model import RESTOperation, RESTParameter, RESTService, ServerSpec, Transport
from mcpgate.web.mcp.rest.asker import RESTAsker
from tests.web.fake_exchange import Sent
from tests.web.fake_inbound import FakeInbound
from tests.web.mcp.together.group_kit import ANN, CONTEXT, Heard

GET = RESTOperation(
    name="get",
    method="GET",
    path="/pets/{id}",
    parameters=(
        RESTParameter(
            argument="id", name="id", place="path", style="simple", explode=False, required=True
        ),
        RESTParameter(
            argument="X-Owner", name="X-Owner", place="header", style="simple", explode=False
        ),
    ),
    tool=json.dumps({"name": "get"}),
)
SPEC = ServerSpec(
    name="pets",
    transport=Transport.REST,
    runtime="remote",
    url="https://h/v1/",
    headers=(("X-Owner", "{key}"), ("Accept-Encoding", "br")),
    forward_headers=("x-language",),
    rest=RESTService(title="Pets", version="1", instructions="Hi.", operations=(GET,)),
)


class FakeCarrier:
    """Leases the one instance there is; see `Carrier`."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.forwarding = Forwarding()
        self.sent: list[tuple[bytes, Sent]] = []
        self.upstream = self
        self.held = 0
        self.error: GateError | None = None

    async def lease(self, *_: object) -> FakeCarrier:
        """Give itself."""
        if self.error is not None:
            raise self.error
        self.held += 1
        return self

    def release(self) -> None:
        """Count."""
        self.held -= 1

    def send(
        self,
        method: str,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        body: bytes,
        receiver: IResponseReceiver,
        **_: object,
    ) -> Sent:
        """See `IHTTPUpstream.send`."""
        sent = Sent(method, fields, body, receiver, self.clock)
        self.sent.append((target, sent))
        return sent


class AskerTests(SynchronousTestCase):
    """A REST service as a server."""

    @override
    def setUp(self) -> None:
        self.carrier = FakeCarrier()
        self.spec = SPEC
        self.now: ServerSpec | None = SPEC
        self.asker = RESTAsker(self.carrier, lambda name: self.now)  # type: ignore[arg-type]  # a stand-in with all that is used

    def ask(
        self, method: str, source: FakeInbound | None = None, **params: object
    ) -> tuple[Heard, Callable[[], None]]:
        """Ask; give what heard the answer, and what takes the request back."""
        heard = Heard()
        request = Request(7, method, {**params, "_meta": CONTEXT.meta()})
        return heard, self.asker.ask(self.spec, ANN, request, heard, source=source)

    def get(self, **arguments: object) -> tuple[Heard, Callable[[], None]]:
        """Call the tool."""
        return self.ask("tools/call", name="get", arguments=arguments)

    def error(self, method: str, **params: Any) -> GateError:
        """Give the error of a request."""
        error = self.ask(method, **params)[0].error
        assert error is not None
        return error

    def test_document(self) -> None:
        """Greeting and list come from the document; nobody is asked."""
        told = self.ask("server/discover")[0].result
        self.assertEqual(told["instructions"], "Hi.")
        self.assertEqual(told["capabilities"], {"tools": {"listChanged": True}})
        self.assertEqual(self.ask("tools/list")[0].result["tools"], [{"name": "get"}])
        self.assertEqual(self.carrier.sent, [])

    def test_listen(self) -> None:
        """Who listens is told when the tools are others, once and by the id of the request."""
        silent, _ = self.ask("subscriptions/listen", notifications={})
        wanted = {"toolsListChanged": True, "promptsListChanged": True}
        heard, take_back = self.ask("subscriptions/listen", notifications=wanted)
        acknowledged: Any = heard.told[0]
        self.assertEqual(acknowledged.params["notifications"], {"toolsListChanged": True})
        assert SPEC.rest is not None
        put = replace(GET, name="put", tool=json.dumps({"name": "put"}))
        told = replace(SPEC, rest=replace(SPEC.rest, instructions="Ho."))
        other = replace(SPEC, rest=replace(SPEC.rest, operations=(GET, put)))
        for now in (SPEC, told, other, other, None):
            self.now = now
            self.asker.look()
        changed: Any = heard.told[-1]
        self.assertEqual(changed.method, "notifications/tools/list_changed")
        self.assertEqual(changed.params["_meta"], acknowledged.params["_meta"])
        take_back()
        self.now = SPEC
        self.asker.look()
        self.assertEqual((len(heard.methods), len(silent.methods)), (2, 1))
        refused, _ = self.ask("subscriptions/listen")
        assert refused.error is not None
        self.assertEqual(refused.error.code, -32602)

    def test_no_document(self) -> None:
        """Without its document a service can be greeted, and has no tools to list or call yet."""
        self.spec = replace(SPEC, rest=None)
        told = self.ask("server/discover")[0].result
        self.assertNotIn("instructions", told)
        for method in ("tools/list", "tools/call"):
            error = self.error(method, name="get")
            self.assertEqual((error.reason, error.retry_after_s), ("backend_unavailable", 5.0))

    def test_call(self) -> None:
        """A call is one request, with the fields of the configuration before the call's own."""
        source = FakeInbound(fields=[(b"x-language", b"cs"), (b"cookie", b"no")])
        heard, _ = self.ask(
            "tools/call", source, name="get", arguments={"id": "a b", "X-Owner": "me"}
        )
        ((target, sent),) = self.carrier.sent
        self.assertEqual((sent.method, target), ("GET", b"/v1/pets/a%20b"))
        self.assertEqual(
            sent.fields,
            {
                b"x-language": b"cs",
                b"accept": b"application/json, */*;q=0.5",
                b"accept-encoding": b"identity",
                b"x-owner": b"k",
            },
        )
        sent.json({"a": 1})
        self.assertEqual(heard.result["structuredContent"], {"a": 1})
        self.assertEqual(self.carrier.held, 0)

    def test_refused(self) -> None:
        """What is none of it is refused."""
        self.assertEqual(self.error("prompts/list").code, -32601)
        self.assertEqual(self.error("tools/call", name="put").code, -32602)
        self.assertEqual(self.error("tools/call", name=["x"]).code, -32602)
        self.assertEqual(self.error("tools/call", name="get", arguments=[1]).code, -32602)
        self.assertEqual(self.error("tools/call", name="get").code, -32602)
        self.carrier.error = BackendUnavailable()
        self.assertIsInstance(
            self.error("tools/call", name="get", arguments={"id": 1}), BackendUnavailable
        )

    def test_too_slow(self) -> None:
        """A call has a deadline, whatever trickles in."""
        heard, _ = self.get(id="x")
        self.carrier.clock.advance(SPEC.call_timeout_max_s + 1)
        self.assertIsInstance(heard.error, BackendTimeout)
        self.assertTrue(self.carrier.sent[0][1].aborted)
        self.assertEqual(self.carrier.held, 0)

    def test_taken_back(self) -> None:
        """A call that is taken back is cut, and nothing is heard of it."""
        heard, take_back = self.get(id="x")
        take_back()
        self.assertTrue(self.carrier.sent[0][1].aborted)
        self.assertEqual((heard.answer, heard.error, self.carrier.held), (None, None, 0))

    def test_compressed(self) -> None:
        """An answer in a coding nobody asked for is none."""
        heard, _ = self.get(id="x")
        receiver = self.carrier.sent[0][1].receiver
        receiver.response_head(
            ResponseHead(
                status=200,
                reason=b"",
                version=(1, 1),
                fields=Fields([(b"content-encoding", b"gzip")]),
            )
        )
        receiver.response_end([])
        self.assertEqual(heard.error and heard.error.reason, "bad_backend_answer")
