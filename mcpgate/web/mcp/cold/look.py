"""
Looking at a running server: its lists, asked for through a client's session.

The server sees the requests of that client: same session, same fields; so what it says is what it
would say to that client.  The client hears nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, TimeoutError

from mcpgate.gate.sessions import Session
from mcpgate.http.heads import Peer, RequestHead
from mcpgate.mcp.jsonrpc import ErrorResponse, Request, Response, encode
from mcpgate.mcp.snapshot import Snapshot, is_whole, lists_of
from mcpgate.model import Caller, ServerSpec
from mcpgate.web.mcp.errand import Errand
from mcpgate.web.mcp.over_http.fetch import messages_in
from mcpgate.web.mcp.post import Post

if TYPE_CHECKING:
    from mcpgate.web.mcp.speaking import SpeakerBase

_METHOD_NOT_FOUND: Final = -32601
_JSON_ONLY: Final = (True, False)
_numbers = count(1)


class NotNowError(Exception):
    """The server could not be looked at."""


class Look(Errand):
    """One request of a look: what is asked here is never answered from a snapshot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Through whose session a server is looked at."""

    speaker: SpeakerBase
    caller: Caller
    spec: ServerSpec
    session: Session
    head: RequestHead
    peer: Peer

    async def look(self, timeout_s: float) -> Snapshot | None:
        """
        Ask for every list the server has.

        :return: None when the server's greeting is not known: an earlier life of the gate got it.
        :raises NotNowError: an answer did not come, or was a failure.
        """
        first = None
        greeting = self.speaker.greeting(self.session)
        if greeting is None:
            # A session that is not bound to the server yet is, once it asked for something.
            first = await self._ask("tools/list", timeout_s)
            greeting = self.speaker.greeting(self.session)
            if greeting is None:
                return None
        lists: dict[str, dict[str, object]] = {}
        for method in lists_of(greeting):
            known = first if method == "tools/list" else None
            result = known if known is not None else await self._ask(method, timeout_s)
            if is_whole(method, result):
                lists[method] = result
        return Snapshot(greeting=greeting, lists=lists)

    async def _ask(self, method: str, timeout_s: float) -> dict[str, object]:
        request = Request(f"mcpgate-look-{next(_numbers)}", method)
        heard: list[Response | ErrorResponse] = []
        over: Deferred[None] = Deferred()

        def told(data: bytes) -> None:
            heard.extend(
                one for one in messages_in(data) if isinstance(one, Response | ErrorResponse)
            )

        look = Look(
            self.head,
            self.peer,
            str(request.id),
            told=told,
            ended=lambda _: over.callback(None),
        )
        post = Post(
            inbound=look,
            caller=self.caller,
            spec=self.spec,
            body=encode(request),
            requests=(request,),
            others=(),
            batch=False,
            accepts=_JSON_ONLY,
            release=lambda: None,
        )
        self.speaker.call(post, self.session)
        try:
            await over.addTimeout(timeout_s, self.speaker.clock)
        except TimeoutError:
            look.give_up()
            raise NotNowError(f"{method} was not answered") from None
        for message in heard:
            if isinstance(message, Response):
                return message.result
            if message.code == _METHOD_NOT_FOUND:
                return {}
            raise NotNowError(f"{method} was answered with an error: {message.message}")
        raise NotNowError(f"{method} got no answer")
