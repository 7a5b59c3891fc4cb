"""A real child process behind a `StdioUpstream`, through the plainest pipes there are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from mcpgate.errors import GateError
from mcpgate.interfaces import IMessageSink, ISessionPeer, IStdioChannel
from mcpgate.mcp.jsonrpc import Message, Request
from mcpgate.model import Exit
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.stdio import StdioUpstream
from mcpgate.upstream.stdio_calls import StdioCall

SERVERS = Path(__file__).parent / "servers"


@implementer(IStdioChannel)
class PipeChannel(ProcessProtocol):
    """Lines to and from one child; unbounded, for tests only."""

    def __init__(self) -> None:
        self.ended: Deferred[Exit] = Deferred()
        self.stderr = b""
        self._received: Callable[[bytes], None] | None = None
        self._rest = b""
        self._early: list[bytes] = []

    def send(self, line: bytes) -> bool:
        """See `IStdioChannel.send`."""
        assert IProcessTransport.providedBy(self.transport)
        try:
            self.transport.writeToChild(0, line + b"\n")
        except KeyError:  # the pipe is closed
            return False
        return True

    def attach(self, received: Callable[[bytes], None]) -> None:
        """See `IStdioChannel.attach`."""
        self._received = received
        early, self._early = self._early, []
        for line in early:
            received(line)

    def pause(self) -> None:
        """See `IStdioChannel.pause`."""

    def resume(self) -> None:
        """See `IStdioChannel.resume`."""

    @override
    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._received is None:
                self._early.append(line)
            else:
                self._received(line)

    @override
    def errReceived(self, data: bytes) -> None:
        self.stderr = (self.stderr + data)[-4096:]

    @override
    def processEnded(self, reason: Failure) -> None:
        error = reason.value
        assert isinstance(error, ProcessDone | ProcessTerminated)
        tail = tuple(self.stderr.decode("utf-8", "replace").splitlines())
        self.ended.callback(Exit(code=error.exitCode, signal=error.signal, stderr_tail=tail))


@implementer(ISessionPeer)
class Peer:
    """A client session that writes down what it hears."""

    def __init__(self, *capabilities: str) -> None:
        self.capabilities: dict[str, object] = {name: {} for name in capabilities}
        self.heard: list[Message] = []

    def unsolicited(self, message: Message) -> None:
        """See `ISessionPeer.unsolicited`."""
        self.heard.append(message)


@implementer(IMessageSink)
class Exchange:
    """
    One exchange.

    :ivar over: fires with the answer, or fails with the error.
    """

    def __init__(self, delivered: Callable[[Message], None]) -> None:
        self.over: Deferred[Message] = Deferred()
        self._delivered = delivered

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        self.over.callback(response)

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        self.over.errback(error)

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        self._delivered(message)


class Bed:
    """One child and the upstream that speaks to it."""

    def __init__(self, reactor: object, arguments: Sequence[str], **options: int) -> None:
        self.meters = Meters()
        self.channel = PipeChannel()
        self.wheel = DeadlineWheel(reactor, 0.05)  # type: ignore[arg-type]  # the global one
        self.gone: Deferred[Exit] = Deferred()
        watch: Deferred[Exit] = Deferred()

        def ended(exit: Exit) -> None:
            watch.callback(exit)
            self.gone.callback(exit)

        self.channel.ended.addCallback(ended)
        self.upstream = StdioUpstream(
            self.channel,
            clock=reactor,  # type: ignore[arg-type]  # as above
            wheel=self.wheel,
            ended=watch,
            meters=self.meters,
            name="bed",
            max_calls=options.get("max_calls", 64),
        )
        self.process = reactor.spawnProcess(  # type: ignore[attr-defined]  # as above
            self.channel, arguments[0], list(arguments), env=None
        )

    @classmethod
    def of_script(cls, reactor: object, name: str) -> Bed:
        """Run one of ``servers/`` with this Python."""
        return cls(reactor, [sys.executable, "-u", str(SERVERS / name)])

    def call(
        self,
        peer: Peer,
        method: str,
        params: dict[str, object] | None = None,
        *,
        id: int | str = 1,
        timeout_s: float = 20.0,
        delivered: Callable[[Message], None] = lambda message: None,
    ) -> tuple[Deferred[Message], StdioCall]:
        """Call; gives what fires with the answer, and the handle."""
        exchange = Exchange(delivered)
        call = self.upstream.call(
            peer, Request(id, method, params), exchange, timeout_s=timeout_s, max_s=60.0
        )
        return exchange.over, call

    async def close(self) -> None:
        """Close the child's stdin and wait for its end; kill it when it does not end."""
        if not self.gone.called:
            self.process.closeStdin()
            try:
                await self.gone.addTimeout(5.0, self.wheel._clock)
            except Exception:
                self.process.signalProcess("KILL")
                raise
        self.wheel.stop()
