"""
Answers the pages that are asked all the time, and what is no page, before there is a tree.

The Klein tree (`mcpgate.web.pages.tree`) is the map of all pages.  It comes with some 9 MiB of
libraries and is loaded when somebody asks for something that only it has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import GateError, Internal, NotFound
from mcpgate.http.strictness import connection_tokens
from mcpgate.interfaces import IInbound
from mcpgate.telemetry.metrics import CONTENT_TYPE
from mcpgate.web.forwarding import FORWARDING
from mcpgate.web.pages.admin import AdminView
from mcpgate.web.pages.admin_access import AdminAccess
from mcpgate.web.pages.answers import (
    Answer,
    UnknownUser,
    admit,
    error_answer,
    health_answer,
    ready_answer,
    root_answer,
    unknown_user_answer,
)

log = Logger()

#: First segments of what the tree answers with anything but 404; a test holds them against it.
PAGES: Final = frozenset({b"", b"health", b"ready", b"stats", b"metrics"})
_PLAIN_TOKENS: Final = frozenset({b"close", b"keep-alive"})


class FirstPages:
    """
    See the module.

    :param rest: hands an inbound to the tree.
    """

    def __init__(
        self, view: AdminView, access: AdminAccess, *, realm: str, rest: Callable[[IInbound], None]
    ) -> None:
        self._view = view
        self._access = access
        self._realm = realm
        self._rest = rest
        self._pages: dict[bytes, Callable[[IInbound], None]] = {
            b"/": self._root,
            b"/health": lambda inbound: _give(inbound, health_answer()),
            b"/ready": lambda inbound: _give(inbound, ready_answer(self._view)),
            b"/metrics": self._metrics,
        }

    def serve(self, inbound: IInbound) -> None:
        """Answer, or have the tree answer."""
        head = inbound.head
        page = self._pages.get(head.path)
        if page is not None and _is_plain(inbound):
            page(inbound)
        elif b"%" not in head.path and head.path.split(b"/", 2)[1] not in PAGES:
            _give(inbound, error_answer(NotFound(), inbound.request_id))
        else:
            self._rest(inbound)

    def _root(self, inbound: IInbound) -> None:
        accept = inbound.head.fields.get(b"accept") or b""
        _give(inbound, root_answer(accept.decode("latin-1")))

    def _metrics(self, inbound: IInbound) -> None:
        fields = inbound.head.fields
        given = fields.get(b"authorization")
        try:
            admit(
                self._access,
                address=inbound.peer.address,
                authorization=None if given is None else given.decode("utf-8", "replace"),
                forwarded=any(name in fields for name in FORWARDING),
                scrape=True,
            )
        except UnknownUser as error:
            _give(inbound, unknown_user_answer(error, inbound.request_id, self._realm))
        except GateError as error:
            _give(inbound, error_answer(error, inbound.request_id))
        else:
            asked: Deferred[bytes] = self._view.metrics()
            asked.addCallback(lambda text: _give(inbound, Answer(200, text, CONTENT_TYPE)))
            asked.addErrback(partial(_failed, inbound))


def _is_plain(inbound: IInbound) -> bool:
    """Tell whether a request is as everybody sends it; what is not is the tree's to judge."""
    head = inbound.head
    if head.method not in ("GET", "HEAD") or head.has_body:
        return False
    if head.fields.count(b"authorization") > 1:
        return False
    # What a connection's own fields name does not count for a page.
    return b"connection" not in head.fields or _PLAIN_TOKENS.issuperset(
        connection_tokens(head.fields)
    )


def _give(inbound: IInbound, answer: Answer) -> None:
    fields = [
        (name.lower().encode("ascii"), value.encode("latin-1"))
        for name, value in answer.head().items()
    ]
    inbound.respond(answer.status, fields, answer.body)


def _failed(inbound: IInbound, failure: Failure) -> None:
    request_id = inbound.request_id
    log.failure("Page failed, request {request_id}", failure=failure, request_id=request_id)
    _give(inbound, error_answer(Internal(), request_id))
