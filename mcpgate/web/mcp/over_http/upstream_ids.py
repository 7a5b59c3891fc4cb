"""The JSON-RPC id of one request to an HTTP server: the client's, and that the server sees."""

from __future__ import annotations

from collections.abc import Callable

from mcpgate.mcp.jsonrpc import Request, encode


class UpstreamId:
    """
    Gives an id of the gate's to a request whose id is in work already, or whose session is pooled.

    Some clients send id 1 for everything; servers would mix the answers up (protocol.md 6.1).

    :param body: the request as received.
    :param in_work: the ids the session has in work at the server; this one is added.
    :param pooled: other clients may use the same ids.
    :ivar upstream: the id the server sees.
    :ivar minted: whether that is the gate's, so that the answer has to be written anew.
    :ivar body: what to send.
    """

    __slots__ = ("_in_work", "body", "minted", "upstream")

    def __init__(
        self,
        request: Request,
        body: bytes,
        in_work: set[int | str],
        mint: Callable[[], int],
        *,
        pooled: bool,
    ) -> None:
        self._in_work = in_work
        self.upstream = request.id
        self.body = body
        self.minted = pooled or request.id in in_work
        if self.minted:
            self.upstream = mint()
            self.body = encode(Request(self.upstream, request.method, request.params))
        in_work.add(self.upstream)

    def done(self) -> None:
        """Let others use the id."""
        self._in_work.discard(self.upstream)
