"""Real children on real pipes: what a stdio server does to many sessions."""

from __future__ import annotations

import json

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mcpgate.errors import BackendDied, BackendTimeout, BadBackendAnswer, CallCancelled
from mcpgate.mcp.jsonrpc import Message, Notification, Request, Response
from mcpgate.timing.deferreds import deferred
from tests.functional import real
from tests.functional.stdio_bed import Bed, Peer

PARAMS: dict[str, object] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"roots": {}},
    "clientInfo": {"name": "test", "version": "1"},
}


def tool(name: str, **arguments: object) -> dict[str, object]:
    """Make the params of a tool call."""
    return {"name": name, "arguments": arguments}


def told(message: Message) -> object:
    """Read what a tool answered."""
    assert isinstance(message, Response)
    content = message.result["content"]
    assert isinstance(content, list)
    return json.loads(content[0]["text"])


class ChattyTests(TestCase):
    """A server that prints banners, asks back, breaks and dies."""

    timeout = 300

    async def begin(self) -> None:
        """Start the server and shake hands."""
        from twisted.internet import reactor  # noqa: TID251 - the one trial runs

        self.bed = Bed.of_script(reactor, "chatty_stdio.py")
        self.addCleanup(lambda: Deferred.fromCoroutine(self.bed.close()))
        self.upstream = self.bed.upstream
        self.ann, self.bob = Peer("roots"), Peer("roots")
        self.upstream.join(self.ann)
        self.upstream.join(self.bob)
        first = self.upstream.handshake(PARAMS, 20)
        second = self.upstream.handshake(PARAMS, 20)
        self.assertEqual(await first, await second)

    @deferred
    async def test_one_handshake_no_harm_by_noise(self) -> None:
        """Two sessions cause one handshake; banners and rubbish cost nothing but the line."""
        await self.begin()
        answer, _ = self.bed.call(self.ann, "tools/call", tool("noise", a=1))
        self.assertEqual(told(await answer), {"a": 1})
        answer, _ = self.bed.call(self.ann, "tools/call", tool("cancelled"))
        self.assertEqual(told(await answer), {"cancelled": 0, "initialized": 1})
        self.assertEqual(self.bed.meters.events["stdio_noise"], 4)

    @deferred
    async def test_many_calls_under_one_id(self) -> None:
        """Hundreds of calls of two users, all under id 1, each get their own answer."""
        await self.begin()
        for _ in range(5):
            calls = []
            for n in range(60):
                peer = (self.ann, self.bob)[n % 2]
                calls.append(self.bed.call(peer, "tools/call", tool("echo", n=n))[0])
            for n, answer in enumerate(await defer.gatherResults(calls)):
                self.assertEqual(told(answer), {"n": n})
                assert isinstance(answer, Response)
                self.assertEqual(answer.id, 1)

    @deferred
    async def test_progress(self) -> None:
        """Progress arrives in order, under the client's own token, before the answer."""
        await self.begin()
        delivered: list[Message] = []
        params: dict[str, object] = {**tool("progress"), "_meta": {"progressToken": "mine"}}
        answer, _ = self.bed.call(self.ann, "tools/call", params, delivered=delivered.append)
        await answer
        self.assertEqual(
            delivered,
            [
                Notification("notifications/progress", {"progressToken": "mine", "progress": n})
                for n in (1, 2, 3)
            ],
        )

    @deferred
    async def test_asked_back(self) -> None:
        """The server asks in the middle of a call, the client answers, the call goes on."""
        await self.begin()

        def asked(message: Message) -> None:
            assert isinstance(message, Request)
            self.assertFalse(self.upstream.answer(self.bob, Response(message.id, {"evil": 1})))
            self.assertTrue(self.upstream.answer(self.ann, Response(message.id, {"roots": []})))

        answer, _ = self.bed.call(self.ann, "tools/call", tool("ask"), delivered=asked)
        self.assertEqual(told(await answer), {"roots": []})

    @deferred
    async def test_cancel_and_timeout(self) -> None:
        """Cancelled and overdue calls are told to the server; its late answers go nowhere."""
        await self.begin()
        waiting, call = self.bed.call(self.ann, "tools/call", tool("wait"))
        call.cancel("enough")
        await self.assertFailure(waiting, CallCancelled)
        waiting, _ = self.bed.call(self.ann, "tools/call", tool("wait"), timeout_s=0.1)
        await self.assertFailure(waiting, BackendTimeout)
        answer, _ = self.bed.call(self.ann, "tools/call", tool("cancelled"))
        self.assertEqual(told(await answer), {"cancelled": 2, "initialized": 1})
        self.assertEqual(self.bed.meters.events["stray_reply"], 2)

    @deferred
    async def test_unreadable_answer(self) -> None:
        """An answer that is not JSON fails its own call at once; the server lives."""
        await self.begin()
        broken, _ = self.bed.call(self.ann, "tools/call", tool("broken"))
        await self.assertFailure(broken, BadBackendAnswer)
        answer, _ = self.bed.call(self.bob, "tools/list")
        self.assertEqual(await answer, Response(1, {"tools": []}))

    @deferred
    async def test_death(self) -> None:
        """A server that dies fails every call in work, and tells how it died."""
        await self.begin()
        waiting = [self.bed.call(self.bob, "tools/call", tool("wait"))[0]]
        waiting.append(self.bed.call(self.ann, "tools/call", tool("die"))[0])
        for one in waiting:
            with self.assertRaises(BackendDied) as caught:
                await one
            error = caught.exception
            self.assertEqual(error.data["exitCode"], 3)
            self.assertEqual(error.data["stderr"], ["last words"])


class SDKTests(TestCase):
    """A server made with the Python SDK."""

    timeout = 300

    @deferred
    async def test_conversation(self) -> None:
        """An SDK server shakes hands, lists and calls its tools for two sessions."""
        from twisted.internet import reactor  # noqa: TID251 - the one trial runs

        script = (
            "from mcp.server.fastmcp import FastMCP\n"
            "server = FastMCP('sdk')\n"
            "@server.tool()\n"
            "def add(a: int, b: int) -> int:\n"
            "    return a + b\n"
            "server.run()\n"
        )
        bed = Bed(reactor, [real.python("mcp1"), "-c", script])
        self.addCleanup(lambda: Deferred.fromCoroutine(bed.close()))
        result = await bed.upstream.handshake(PARAMS, 30)
        self.assertEqual(result["protocolVersion"], "2025-11-25")
        listed = await bed.call(Peer(), "tools/list", {})[0]
        assert isinstance(listed, Response)
        self.assertEqual(len(listed.result["tools"]), 1)  # type: ignore[arg-type]  # a list
        calls = [
            bed.call(Peer(), "tools/call", tool("add", a=n, b=1), id="same")[0] for n in range(5)
        ]
        for n, answer in enumerate(await defer.gatherResults(calls)):
            self.assertEqual(told(answer), n + 1)
