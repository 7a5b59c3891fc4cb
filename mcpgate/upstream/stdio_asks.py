"""
Requests a stdio server sends to clients (roots, sampling, elicitation), until they are answered.

The id a client sees is the gate's; only the peer it was shown to can answer under it, and the
child hears its own id again.  Who is asked is decided in `mcpgate.upstream.stdio`.
"""

from __future__ import annotations

from collections.abc import Callable

from mcpgate.interfaces import ISessionPeer
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Notification, Request, Response
from mcpgate.mcp.methods import CANCELLED
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.upstream.stdio_calls import StdioCall

# JSON-RPC codes towards the child.
METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603


class _Ask:
    """One request under way to a client."""

    __slots__ = ("call", "child_id", "child_token", "client_id", "deadline", "peer")

    def __init__(
        self, client_id: str, child_id: int | str, peer: ISessionPeer, call: StdioCall | None
    ) -> None:
        self.client_id = client_id
        self.child_id = child_id
        self.peer = peer
        self.call = call
        self.child_token: object = None
        self.deadline: Deadline | None = None

    def show(self, message: Message) -> None:
        """Give the client a message: within its call while that lasts, else unsolicited."""
        if self.call is not None and self.call.sink is not None:
            self.call.sink.deliver(message)
        else:
            self.peer.unsolicited(message)


class AskTable:
    """
    The requests under way to clients.

    :param send: writes a message to the child; False when its queue is full.
    :param tag: begins the ids clients see; unique per upstream, so that they never clash.
    :param timeout_s: a client that does not answer for so long is given up.
    :param max_asks: under way at once; more are refused to the child.
    """

    def __init__(
        self,
        send: Callable[[Message], bool],
        *,
        wheel: DeadlineWheel,
        tag: str,
        timeout_s: float,
        max_asks: int = 64,
    ) -> None:
        self._send = send
        self._wheel = wheel
        self._tag = tag
        self._timeout_s = timeout_s
        self._max_asks = max_asks
        self._minted = 0
        self._asks: dict[str, _Ask] = {}

    def __len__(self) -> int:
        return len(self._asks)

    def show(self, request: Request, peer: ISessionPeer, call: StdioCall | None) -> None:
        """Show a request of the child to a client, within ``call`` if given."""
        if len(self._asks) >= self._max_asks:
            self.refuse(request, INTERNAL_ERROR, "Too many requests wait for clients.")
            return
        self._minted += 1
        ask = _Ask(f"{self._tag}-{self._minted}", request.id, peer, call)
        params = request.params
        meta = params.get("_meta") if params is not None else None
        if params is not None and isinstance(meta, dict) and "progressToken" in meta:
            ask.child_token = meta["progressToken"]
            params = {**params, "_meta": {**meta, "progressToken": ask.client_id}}
        ask.deadline = self._wheel.arm(self._timeout_s, lambda: self._due(ask))
        self._asks[ask.client_id] = ask
        if call is not None:
            call.asks += 1
        ask.show(Request(ask.client_id, request.method, params))

    def refuse(self, request: Request, code: int, text: str) -> None:
        """Answer the child that nobody can be asked."""
        self._send(ErrorResponse(request.id, code, text))

    def answered(self, peer: ISessionPeer, response: Response | ErrorResponse) -> bool | None:
        """
        Pass a client's answer on to the child.

        :return: False when the peer was asked nothing under this id; None when the child's
            queue is full: the request then still waits.
        """
        ask = self._of(peer, response.id)
        if ask is None:
            return False
        answer: Message
        if isinstance(response, Response):
            answer = Response(ask.child_id, response.result)
        else:
            answer = ErrorResponse(ask.child_id, response.code, response.message, response.data)
        if not self._send(answer):
            return None
        self._close(ask)
        return True

    def progressed(self, peer: ISessionPeer, notification: Notification) -> bool:
        """Pass a client's progress on; False when the token is none of this peer's."""
        params = notification.params or {}
        ask = self._of(peer, params.get("progressToken"))
        if ask is None or ask.child_token is None:
            return False
        self._send(Notification(notification.method, {**params, "progressToken": ask.child_token}))
        return True

    def cancelled(self, notification: Notification) -> bool:
        """Pass on that the child took a request back; False when it is not under way."""
        params = notification.params or {}
        child_id = params.get("requestId")
        for ask in self._asks.values():
            if ask.child_id == child_id and type(ask.child_id) is type(child_id):
                self._close(ask)
                ask.show(Notification(notification.method, {**params, "requestId": ask.client_id}))
                return True
        return False

    def forget(self, peer: ISessionPeer) -> None:
        """Give up what a peer that left was asked; the child is told."""
        for ask in [ask for ask in self._asks.values() if ask.peer is peer]:
            self._close(ask)
            self._send(ErrorResponse(ask.child_id, INTERNAL_ERROR, "The client has gone."))

    def clear(self) -> None:
        """Forget everything: the child has ended."""
        for ask in tuple(self._asks.values()):
            self._close(ask)

    def _of(self, peer: ISessionPeer, client_id: object) -> _Ask | None:
        ask = self._asks.get(client_id) if isinstance(client_id, str) else None
        return ask if ask is not None and ask.peer is peer else None

    def _close(self, ask: _Ask) -> None:
        del self._asks[ask.client_id]
        if ask.deadline is not None:
            ask.deadline.cancel()
        if ask.call is not None:
            ask.call.asks -= 1

    def _due(self, ask: _Ask) -> None:
        self._close(ask)
        self._send(
            ErrorResponse(ask.child_id, INTERNAL_ERROR, "The client did not answer in time.")
        )
        ask.show(Notification(CANCELLED, {"requestId": ask.client_id, "reason": "timeout"}))
