"""A child that is a list, sessions and sinks that write down what they hear."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from mcpgate.errors import GateError
from mcpgate.interfaces import IMessageSink, ISessionPeer, IStdioChannel
from mcpgate.mcp.jsonrpc import Message, Request
from mcpgate.model import Exit
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.stdio import StdioUpstream


@implementer(IStdioChannel)
class FakeChannel:
    """
    The pipes of a child.

    :ivar sent: what the child got, parsed.
    :ivar full: refuse everything.
    """

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.full = False
        self._received: Callable[[bytes], None] = lambda line: None

    def send(self, line: bytes) -> bool:
        """See `IStdioChannel.send`."""
        assert b"\n" not in line
        if self.full:
            return False
        self.sent.append(json.loads(line))
        return True

    def attach(self, received: Callable[[bytes], None]) -> None:
        """See `IStdioChannel.attach`."""
        self._received = received

    def pause(self) -> None:
        """See `IStdioChannel.pause`."""
        raise AssertionError("not used")

    def resume(self) -> None:
        """See `IStdioChannel.resume`."""
        raise AssertionError("not used")

    def say(self, **message: object) -> None:
        """Have the child write a message."""
        self.print(json.dumps({"jsonrpc": "2.0", **message}).encode())

    def print(self, line: bytes) -> None:
        """Have the child write a line."""
        self._received(line)

    def take(self) -> list[dict[str, Any]]:
        """Give what the child got since the last time."""
        sent, self.sent = self.sent, []
        return sent


@implementer(ISessionPeer)
class FakePeer:
    """A client session."""

    def __init__(self, *capabilities: str) -> None:
        self.capabilities: dict[str, object] = {name: {} for name in capabilities}
        self.heard: list[Message] = []

    def unsolicited(self, message: Message) -> None:
        """See `ISessionPeer.unsolicited`."""
        self.heard.append(message)


@implementer(IMessageSink)
class FakeSink:
    """One exchange."""

    def __init__(self) -> None:
        self.delivered: list[Message] = []
        self.answer: Message | None = None
        self.error: GateError | None = None

    @property
    def over(self) -> bool:
        """Tell whether the last word was heard."""
        return self.answer is not None or self.error is not None

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        assert not self.over
        self.delivered.append(message)

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        assert not self.over
        self.answer = response

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        assert not self.over
        self.error = error


class Stage:
    """A stdio upstream with everything around it faked."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.channel = FakeChannel()
        self.ended: Deferred[Exit] = Deferred()
        self.meters = Meters()
        self.upstream = StdioUpstream(
            self.channel,
            clock=self.clock,
            wheel=DeadlineWheel(self.clock, 0.5),
            ended=self.ended,
            meters=self.meters,
            name="i1",
            **options,
        )

    def call(
        self,
        peer: FakePeer,
        method: str = "tools/call",
        params: dict[str, object] | None = None,
        id: int | str = 1,
        timeout_s: float = 60.0,
        max_s: float = 600.0,
    ) -> tuple[FakeSink, int]:
        """Call, and give the sink and the id the child sees (0 when it saw nothing)."""
        sink = FakeSink()
        before = len(self.channel.sent)
        self.upstream.call(
            peer, Request(id, method, params), sink, timeout_s=timeout_s, max_s=max_s
        )
        sent = self.channel.sent[before:]
        return sink, sent[-1]["id"] if sent else 0
