"""One ``subscriptions/listen`` of a modern client, fed from a legacy session's event stream."""

from __future__ import annotations

from collections.abc import Callable

from mcpgate.errors import BackendUnavailable, NotAcceptable
from mcpgate.mcp.framing import sse_event
from mcpgate.mcp.jsonrpc import Notification, encode
from mcpgate.mcp.listening import farewell, tagged
from mcpgate.mcp.methods import LIST_CHANGED
from mcpgate.mcp.subscribing import Wanted, acknowledged, subject
from mcpgate.web.mcp.modern.post import ModernPost
from mcpgate.web.mcp.on_legacy.session import GateSession
from mcpgate.web.mcp.standing import StandingStream
from mcpgate.web.refusal import refuse_message


class BridgedListen:
    """
    See `mcpgate.web.mcp.on_legacy.session.Listener`.

    The stream is the gate's own: it outlives the server.  What changes while the client reads too
    slowly is told once, however often it changed.

    :param over: called once when the client's stream has ended, or never began.
    """

    def __init__(self, post: ModernPost, over: Callable[[BridgedListen], None]) -> None:
        self._post = post
        self._over: Callable[[BridgedListen], None] | None = over
        self._wanted = Wanted.of(post.request.params)
        self._session: GateSession | None = None
        self._stream: StandingStream | None = None
        self._waiting: dict[tuple[str, str], Notification] = {}
        if not post.accepts[1]:
            raise NotAcceptable("Accept must list text/event-stream to listen.")
        post.inbound.on_gone(self.end)

    @property
    def over(self) -> bool:
        """Tell whether it has ended; with a client that was gone already, before it began."""
        return self._over is None

    async def begin(self, session: GateSession) -> None:
        """Subscribe at the server, acknowledge what is honoured, and tell from there on."""
        if self._over is None:
            return
        self._session = session
        session.join(self)
        await session.hearing()
        honoured = self._wanted.within({} if session.deaf else session.capabilities)
        accepted = []
        # One after the other, all within what a start and a handshake may take.
        clock, life = session.desk.clock, session.spec.lifetime
        until_s = clock.seconds() + life.start_wait_s + life.start_s
        for uri in honoured.uris:
            if self._over is None:
                return
            left_s = until_s - clock.seconds()
            if left_s <= 0:
                break
            if await session.subscribe(self, uri, left_s):
                accepted.append(uri)
        if self._over is None:
            # What was subscribed to meanwhile is of use to nobody.
            session.leave(self)
            return
        self._wanted = honoured.only(tuple(accepted))
        inbound, desk = self._post.inbound, session.desk
        self._stream = StandingStream(
            inbound,
            wheel=desk.wheel,
            keepalive_s=desk.keepalive_s,
            ended=lambda _: self.end(),
            drained=self._flush,
        )
        acknowledgement = acknowledged(self._post.request.id, self._wanted)
        self._stream.send(sse_event(encode(acknowledgement)))
        self._flush()

    def hear(self, notification: Notification) -> None:
        """See `Listener.hear`."""
        if notification.method in LIST_CHANGED and not self._wanted.wants(notification.method):
            return
        self._waiting[subject(notification)] = notification
        self._flush()

    def close(self) -> None:
        """See `Listener.close`."""
        stream, inbound = self._stream, self._post.inbound
        if stream is not None:
            stream.send(sse_event(encode(farewell(self._post.request.id))))
            stream.close()
        elif not inbound.finished:
            early = BackendUnavailable("The stream ended before it began. Listen again.")
            refuse_message(inbound, early, self._post.request.id, live=True)
        self.end()

    def end(self) -> None:
        """Be over; give everything back."""
        over, self._over = self._over, None
        if over is None:
            return
        self._waiting.clear()
        if self._session is not None:
            self._session.leave(self)
        self._post.release()
        over(self)

    def _flush(self) -> None:
        while self._waiting and self._stream is not None:
            about = next(iter(self._waiting))
            told = tagged(self._waiting[about], self._post.request.id)
            if not self._stream.send(sse_event(encode(told))):
                return
            self._waiting.pop(about, None)
