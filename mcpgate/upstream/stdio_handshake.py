"""
One ``initialize`` per child, however many sessions wait for it.

A second one on a live process is an error in several SDKs, so the answer is remembered.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed

from mcpgate.errors import BackendTimeout, BackendUnavailable, BadBackendAnswer, GateError
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Notification, Request, Response
from mcpgate.mcp.methods import INITIALIZE, INITIALIZED
from mcpgate.timing.wheel import Deadline, DeadlineWheel
from mcpgate.upstream.stdio_calls import slow_child


class InitializeRefused(BackendUnavailable):
    """
    The server answered ``initialize`` with an error.

    :ivar response: that error; its id is the gate's, put the client's in place.
    """

    reason = "initialize_refused"

    def __init__(self, response: ErrorResponse) -> None:
        super().__init__(f"The server refused to initialize: {response.message}")
        self.response = response


class NegotiatedModern(BackendUnavailable):
    """
    The server answered ``initialize`` with a revision that has no sessions.

    :ivar result: its InitializeResult.
    """

    reason = "negotiated_modern"

    def __init__(self, result: dict[str, object]) -> None:
        super().__init__("The server answered initialize with a revision without sessions.")
        self.result = result


class Handshake:
    """
    The handshake with one child.

    :ivar result: the child's InitializeResult once it is there, else None.
    """

    def __init__(
        self, send: Callable[[Message], bool], mint: Callable[[], int], wheel: DeadlineWheel
    ) -> None:
        self.result: dict[str, object] | None = None
        self._send = send
        self._mint = mint
        self._wheel = wheel
        self._waiters: list[Deferred[dict[str, object]]] = []
        # More than one after a timeout: a late answer to the first is as good.
        self._ids: set[int] = set()
        self._newest = 0
        # Armed while one is under way, waited for or not.
        self._deadline: Deadline | None = None

    @property
    def overdue(self) -> bool:
        """Tell whether the child owes an answer to ``initialize`` that was given up."""
        return self.result is None and self._deadline is None and bool(self._ids)

    def begin(self, params: dict[str, object], timeout_s: float) -> Deferred[dict[str, object]]:
        """See `StdioUpstream.handshake`."""
        if self.result is not None:
            return succeed(self.result)
        if self._deadline is None:
            identity = self._newest = self._mint()
            if not self._send(Request(identity, INITIALIZE, params)):
                return fail(slow_child())
            self._ids.add(identity)
            self._deadline = self._wheel.arm(timeout_s, self._due)
        waiter: Deferred[dict[str, object]] = Deferred(self._given_up)
        self._waiters.append(waiter)
        return waiter

    def answered(self, message: Response | ErrorResponse) -> bool:
        """Take an answer of the child; False when it is none to ``initialize``."""
        identity = message.id
        if type(identity) is not int or identity not in self._ids:
            return False
        self._ids.discard(identity)
        if self.result is not None:
            return True
        if isinstance(message, ErrorResponse):
            if identity == self._newest:
                self.fail(InitializeRefused(message))
            return True
        if not isinstance(message.result.get("protocolVersion"), str):
            self.fail(BadBackendAnswer("The server's answer to initialize has no version."))
            return True
        self.result = message.result
        self._send(Notification(INITIALIZED))
        for waiter in self._end():
            if not waiter.called:
                waiter.callback(self.result)
        return True

    def broken(self, identity: int) -> None:
        """Note that the answer to ``identity`` could not be read."""
        if identity in self._ids:
            self._ids.discard(identity)
            self.fail(BadBackendAnswer())

    def fail(self, error: GateError) -> None:
        """Fail everyone who waits."""
        for waiter in self._end():
            if not waiter.called:
                waiter.errback(error)

    def _given_up(self, waiter: Deferred[dict[str, object]]) -> None:
        # Others may wait still; and what was begun is worth having.
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _end(self) -> list[Deferred[dict[str, object]]]:
        waiters, self._waiters = self._waiters, []
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        return waiters

    def _due(self) -> None:
        self._deadline = None
        # The specification forbids to cancel initialize.
        self.fail(BackendTimeout("The server did not answer initialize in time."))
