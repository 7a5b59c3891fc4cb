"""One request of a client on its way through a child, with at most one new try (R35)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from mcpgate.errors import BackendDied, CallCancelled, GateError
from mcpgate.gate.sessions import Session
from mcpgate.interfaces import ILease
from mcpgate.mcp.jsonrpc import Message, Request
from mcpgate.mcp.methods import is_repeatable
from mcpgate.upstream.stdio import StdioUpstream, was_sent
from mcpgate.web.mcp.answer import Answer, CallSink
from mcpgate.web.mcp.cold.look import Look
from mcpgate.web.mcp.post import Post
from mcpgate.web.mcp.session_state import public

if TYPE_CHECKING:
    from mcpgate.web.mcp.over_stdio.sessions import StdioSpeaker


class StdioPassage:
    """
    Leases the child, sends, and gives everything back once, however the request ends.

    :ivar request: what the client asked.
    """

    __slots__ = (
        "_answer",
        "_lease",
        "_link",
        "_over",
        "_post",
        "_retried",
        "_session",
        "_sink",
        "_speaker",
        "request",
    )

    def __init__(
        self,
        speaker: StdioSpeaker,
        post: Post,
        session: Session,
        request: Request,
        answer: Answer,
    ) -> None:
        self.request = request
        self._speaker = speaker
        self._post = post
        self._session = session
        self._answer = answer
        self._link = speaker.link(session, post.spec)
        self._lease: ILease | None = None
        self._retried = False
        self._over = False
        self._sink = CallSink(answer, request.id, self._ended, self._link.unsolicited)
        session.in_use += 1

    def begin(self) -> None:
        """Send the request, to the child the session has joined if there is one."""
        if self._over:
            return
        post = self._post
        try:
            lease = self._speaker.joined(post.spec, self._session)
            if lease is not None:
                self._send(lease)
                return
            self._link.connecting[self] = None
            connecting = self._speaker.while_starting(
                self._speaker.connect(post.spec, post.caller, self._session),
                self._answer,
                post.spec,
                (self.request,),
            )
            connecting.addCallback(self._send).addErrback(self._not_sent)
        except Exception:
            self._not_sent(Failure())

    def cancel(self) -> None:
        """Take the request back before it was sent."""
        self._link.connecting.pop(self, None)
        self._sink.fail(CallCancelled())

    def _send(self, lease: ILease) -> None:
        self._link.connecting.pop(self, None)
        if self._over:
            lease.release()
            return
        self._lease = lease
        spec = self._post.spec
        upstream: StdioUpstream = lease.upstream
        upstream.call(
            self._link,
            self.request,
            self._sink,
            timeout_s=spec.call_timeout_s,
            max_s=spec.call_timeout_max_s,
            aside=isinstance(self._post.inbound, Look),
        )

    def _not_sent(self, failure: Failure) -> None:
        self._link.connecting.pop(self, None)
        if self._over:
            return
        if self._speaker.handed_over(
            failure, self._post, self._session, (self.request,), self._answer, self._failed
        ):
            # Whoever takes it gives the slot back; if nobody does, `_failed` follows.
            self._over = True
            self._session.in_use -= 1
        else:
            self._sink.fail(public(failure, self._post.inbound))

    def _failed(self, failure: Failure) -> None:
        """Fail after all, when the server turned out to be of no other era."""
        self._post.release()
        self._answer.fail(public(failure, self._post.inbound), self.request.id)

    def _ended(self, outcome: Message | GateError) -> bool:
        if self._over:
            return True
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        if isinstance(outcome, BackendDied) and self._may_retry(outcome):
            self._retried = True
            self._link.connecting[self] = None
            # In the next turn, when everybody has heard that the child is gone.
            self._speaker.clock.callLater(0, self.begin)
            return True
        self._over = True
        self._session.in_use -= 1
        self._post.release()
        self._speaker.remember(self._session, self.request, outcome)
        return False

    def _may_retry(self, error: BackendDied) -> bool:
        if self._retried or self._answer.over:
            return False
        repeatable = is_repeatable(self.request.method) and not self._sink.delivered
        return repeatable or not was_sent(error)
