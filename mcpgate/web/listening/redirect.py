"""
What the plain HTTP port answers: the way to HTTPS.

MCP clients follow no redirect of a POST, and a key sent here went over the wire in the clear: the
body tells both, so that it shows in the client's error.
"""

from __future__ import annotations

from collections.abc import Callable

from mcpgate.errors import BadRequest, GateError, MisdirectedRequest, NotFound
from mcpgate.gate.server_hosts import host_name
from mcpgate.interfaces import IInbound
from mcpgate.web.guard import Guard
from mcpgate.web.refusal import refuse

CHALLENGE_PATH = b"/.well-known/acme-challenge/"

_CREDENTIALS = (b"authorization", b"x-api-key", b"cookie")


class Redirect:
    """
    The dispatch of a ``redirect:`` listener.

    :param guard: tells which names are ours; redirecting to any Host would serve phishers.
    :param https_port: the port clients reach HTTPS on; called for each request, for it may be
        chosen by the system at start.
    :param challenge: answers below ``/.well-known/acme-challenge/``.
    """

    def __init__(
        self,
        *,
        guard: Guard,
        https_port: Callable[[], int],
        challenge: Callable[[IInbound], None] | None = None,
    ) -> None:
        self._guard = guard
        self._https_port = https_port
        self._challenge = challenge

    def __call__(self, inbound: IInbound) -> None:
        """Answer one request."""
        try:
            self._answer(inbound)
        except GateError as error:
            refuse(inbound, error)

    def _answer(self, inbound: IInbound) -> None:
        head = inbound.head
        if head.path.startswith(CHALLENGE_PATH):
            # Never redirected: authorities ask by plain HTTP, of any name they are to vouch for.
            if self._challenge is None:
                raise NotFound
            self._challenge(inbound)
            return
        host = head.fields.get(b"host")
        if not host:
            raise BadRequest("The request names no Host.")
        if not self._guard.allows_host(host):
            raise MisdirectedRequest
        name = host_name(host.decode("latin-1"))
        port = self._https_port()
        authority = (f"[{name}]" if ":" in name else name) + ("" if port == 443 else f":{port}")
        url = b"https://%b%b" % (authority.encode("latin-1"), head.path)
        told = b"This port only points to HTTPS. Use this URL: %b\n" % url
        if any(field in head.fields for field in _CREDENTIALS):
            told += b"Your key was sent here unencrypted: have it replaced.\n"
        location = url if head.query is None else b"%b?%b" % (url, head.query)
        inbound.notes["reason"] = "https_only"
        inbound.respond(
            301 if head.method in ("GET", "HEAD") else 308,
            [
                (b"location", location),
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"cache-control", b"no-store"),
            ],
            told,
        )
