"""JSON-RPC ids of one POST: the client's, and those the server sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mcpgate.mcp.jsonrpc import Message, Request, encode
from mcpgate.web.mcp.post import Post


class UpstreamIds:
    """
    Gives ids of the gate's to requests whose id is in work already, or whose session is pooled.

    Some clients send id 1 for everything; servers would mix the answers up (protocol.md 6.1).

    :param in_work: the ids the session has in work at the server; those of this POST are added.
    :param pooled: other clients may use the same ids.
    :ivar minted: whether any id is the gate's, so that answers have to be written anew.
    :ivar body: what to send.
    """

    __slots__ = ("_in_work", "_own", "_post", "body", "minted")

    def __init__(
        self, post: Post, in_work: set[int | str], mint: Callable[[], int], *, pooled: bool
    ) -> None:
        self._post = post
        self._in_work = in_work
        # The server's id -> the client's.
        self._own: dict[int | str, int | str] = {}
        self.minted = False
        messages: list[Message] = []
        for request in post.requests:
            upstream_id: int | str = request.id
            if pooled or request.id in in_work:
                upstream_id = mint()
                self.minted = True
            in_work.add(upstream_id)
            self._own[upstream_id] = request.id
            messages.append(Request(upstream_id, request.method, request.params))
        self.body = post.body
        if self.minted:
            encoded = [encode(message) for message in (*messages, *post.others)]
            self.body = b"[" + b",".join(encoded) + b"]" if post.batch else encoded[0]

    def __iter__(self) -> Iterator[int | str]:
        """Go through the server's ids, in the order of the requests."""
        return iter(self._own)

    def own(self, upstream_id: int | str | None) -> int | str | None:
        """Give the client's id for a server's; None when it is of no request here."""
        return None if upstream_id is None else self._own.get(upstream_id)

    def upstream(self, request_id: object) -> int | str | None:
        """Give the server's id for a client's; None when it is of no request here."""
        for upstream_id, own in self._own.items():
            if own == request_id and type(own) is type(request_id):
                return upstream_id
        return None

    def done(self) -> None:
        """Let others use the ids."""
        self._in_work.difference_update(self._own)
