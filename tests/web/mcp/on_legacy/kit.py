"""Modern clients in memory, on legacy servers that a test plays."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from mcpgate.gate.sessions import SessionTable
from mcpgate.http.forwarding import Forwarding
from mcpgate.mcp.jsonrpc import Request, encode
from mcpgate.mcp.modern import MODERN, Context, stamped
from mcpgate.model import ServerSpec, Transport
from mcpgate.stores.memory import MemoryStore
from mcpgate.web.mcp.event_log import EventBudget
from mcpgate.web.mcp.modern.post import ModernPost
from mcpgate.web.mcp.on_legacy.bridge import LegacyBridge
from mcpgate.web.mcp.on_legacy.request_state import Seal
from mcpgate.web.mcp.on_legacy.session import Desk
from mcpgate.web.mcp.over_http.sessions import HTTPSpeaker
from mcpgate.web.mcp.over_stdio.sessions import StdioSpeaker
from mcpgate.web.mcp.post import Speaker
from tests.web.endpoint_kit import KEEPALIVE_S, World, caller_of
from tests.web.fake_inbound import FakeInbound

ALL: dict[str, object] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}},
    "roots": {},
}
SERVER: dict[str, object] = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
    "logging": {},
}


class Bridged:
    """
    A gate whose clients are modern.

    :ivar table: the sessions the gate holds.
    :ivar released: how many requests gave their slot back.
    """

    def __init__(self, transport: Transport = Transport.STDIO, **spec: Any) -> None:
        self.world = world = World(transport, **spec)
        self.server: dict[str, object] = dict(SERVER)
        ids = count(1)
        self.table = SessionTable(
            MemoryStore(),
            clock=world.clock,
            wall=world.clock.seconds,
            make_id=lambda: f"held-{next(ids)}",
            meters=world.meters,
            idle_s=600.0,
            per_principal=4,
        )
        common: dict[str, Any] = {
            "clock": world.clock,
            "pool": world.pool,
            "sessions": self.table,
            "wheel": world.wheel,
            "keepalive_s": KEEPALIVE_S,
            "forget": world.pool.forget,
            "budget": EventBudget(),
        }
        speakers: dict[Transport, Speaker] = {
            Transport.STDIO: StdioSpeaker(**common),
            Transport.HTTP: HTTPSpeaker(forwarding=Forwarding(), **common),
        }
        numbers, handles, nonces = count(1), count(1), count(1)
        self.bridge = LegacyBridge(
            Desk(
                clock=world.clock,
                wheel=world.wheel,
                keepalive_s=KEEPALIVE_S,
                sessions=self.table,
                speaker=lambda spec: speakers[spec.transport],
                mint=lambda: next(numbers),
            ),
            seal=Seal(
                b"s" * 32,
                wall=world.clock.seconds,
                random_bytes=lambda size: next(nonces).to_bytes(size, "big"),
            ),
            make_handle=lambda: f"handle-{next(handles)}",
        )
        self.released = 0

    # --- The client ---------------------------------------------------------------------------

    def post(
        self,
        method: str,
        id: int | str = 1,
        *,
        key: str = "k1",
        can: dict[str, object] | None = None,
        log: str = "",
        accepts: tuple[bool, bool] = (True, True),
        spec: ServerSpec | None = None,
        meta: dict[str, object] | None = None,
        **params: object,
    ) -> tuple[ModernPost, FakeInbound]:
        """Make a request."""
        context = Context(version=MODERN, capabilities=can or {}, log_level=log)
        plain = {**params, "_meta": meta} if meta else params
        request = Request(id, method, stamped(plain, context))
        inbound = FakeInbound(
            fields=[
                (b"host", b"gate.example"),
                (b"mcp-method", method.encode()),
                (b"mcp-protocol-version", MODERN.encode()),
                (b"x-own", b"1"),
            ]
        )
        return (
            ModernPost(
                inbound=inbound,
                caller=caller_of(key),
                spec=spec or self.world.spec,
                body=encode(request),
                request=request,
                context=context,
                accepts=accepts,
                release=self._release,
            ),
            inbound,
        )

    def _release(self) -> None:
        self.released += 1

    def call(self, method: str, id: int | str = 1, **options: Any) -> FakeInbound:
        """Send a request."""
        post, inbound = self.post(method, id, **options)
        self.bridge.call(post)
        self.settle()
        return inbound

    def listen(self, id: int | str = "L", **options: Any) -> FakeInbound:
        """Send a listen; its wants are ``notifications``."""
        post, inbound = self.post("subscriptions/listen", id, **options)
        self.bridge.listen(post)
        self.settle()
        return inbound

    def tool(self, id: int | str = 1, **options: Any) -> FakeInbound:
        """Call a tool, at a server that is ready."""
        return self.call("tools/call", id, name="t", arguments={"a": 1}, **options)

    def again(self, asked: FakeInbound, answers: object, id: int | str = 2, **more: Any) -> Any:
        """Come back with answers to what a call of `tool` was ended with."""
        state = asked.told["result"]["requestState"]
        return self.tool(id, inputResponses=answers, **{"requestState": state, **more})

    # --- The server ---------------------------------------------------------------------------

    def settle(self) -> None:
        """Let everything happen that needs no time; children shake hands."""
        for _ in range(3):
            self.world.settle()
            for instance in self.world.pool.instances:
                for message in list(instance.channel.sent):
                    if message.get("method") == "initialize":
                        instance.channel.sent.remove(message)
                        self.initialized = message["params"]
                        instance.channel.say(
                            id=message["id"],
                            result={
                                "protocolVersion": "2025-11-25",
                                "capabilities": self.server,
                                "serverInfo": {"name": "s", "version": "1"},
                            },
                        )
                    elif message.get("method") == "notifications/initialized":
                        instance.channel.sent.remove(message)

    def pass_time(self, seconds: float) -> None:
        """Let time go by."""
        self.world.pass_time(seconds)

    def collect(self) -> None:
        """Let the moment pass in which questions are collected."""
        self.world.clock.advance(0.06)
        self.settle()

    def take(self, method: str = "") -> dict[str, Any]:
        """Give the oldest message the child got; of a method."""
        sent = self.world.child.sent
        for message in sent:
            if not method or message.get("method") == method:
                sent.remove(message)
                return message
        raise AssertionError(f"no {method} in {json.dumps(sent)}")

    def say(self, **message: object) -> None:
        """Have the child write a message."""
        self.world.child.say(**message)
        self.settle()

    def leaks(self) -> dict[str, int]:
        """Tell what is still taken; empty when everything was given back."""
        taken = {
            "leases": self.world.pool.held,
            "parked": self.bridge.parked,
            "in use": sum(session.in_use for session in self.table),
        }
        return {what: number for what, number in taken.items() if number}
