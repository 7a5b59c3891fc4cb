"""
The map of what the gate serves itself: a Klein tree.

The front door hands over what belongs to no server and is not answered by `mcpgate.web.pages.first`
before this is loaded: an unknown path is 404 in JSON,
never HTML and never 401, since a 401 sends MCP clients looking for an authorization server
(lab 2.1.6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request
from typing_extensions import override
from werkzeug.exceptions import HTTPException

from mcpgate.errors import GateError, Internal, MethodNotAllowed, NotFound
from mcpgate.telemetry.metrics import CONTENT_TYPE
from mcpgate.web.forwarding import FORWARDING
from mcpgate.web.pages.admin import AdminView, statistics
from mcpgate.web.pages.admin_access import AdminAccess
from mcpgate.web.pages.answers import (
    Answer,
    UnknownUser,
    admit,
    error_answer,
    health_answer,
    json_answer,
    ready_answer,
    root_answer,
    unknown_user_answer,
)
from mcpgate.web.pages.stats_page import POLICY, render_page

log = Logger()

_REQUEST_ID: Final = "x-request-id"


def plain_map(app: Klein) -> Klein:
    """Have an app answer paths as they are: no redirects for slashes (lab 2.1.16)."""
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    return app


def give(request: Request, answer: Answer) -> bytes:
    """Set status and fields of an answer; give the body to be returned to Klein."""
    request.setResponseCode(answer.status)
    request.responseHeaders.removeHeader("Server")
    for name, value in answer.head().items():
        request.setHeader(name, value)
    request.setHeader("Content-Length", str(len(answer.body)))
    return answer.body


def answer_json(request: Request, value: object) -> bytes:
    """Answer with a JSON value."""
    return give(request, json_answer(value))


def answer_error(
    request: Request, error: GateError, request_id: str, fields: Mapping[str, str] | None = None
) -> bytes:
    """Answer with an error in the form every route of the gate uses."""
    return give(request, error_answer(error, request_id, fields))


def answer_failure(request: Request, failure: Failure, request_id: str) -> bytes:
    """Answer whatever an endpoint raised; a traceback goes to the log only."""
    error = failure.value
    if isinstance(error, GateError):
        return answer_error(request, error, request_id)
    if isinstance(error, HTTPException):
        if error.code == MethodNotAllowed.status:
            methods = sorted(set(getattr(error, "valid_methods", None) or ()) - {"OPTIONS"})
            return answer_error(
                request, MethodNotAllowed(), request_id, {"Allow": ", ".join(methods)}
            )
        return answer_error(request, NotFound(), request_id)
    log.failure("Page failed, request {request_id}", failure=failure, request_id=request_id)
    return answer_error(request, Internal(), request_id)


class CheckedResource(Resource):
    """
    A Klein app behind a check of paths and hosts it would answer in plain text or misread.

    :param refuse: answers such a request.
    """

    isLeaf = True  # noqa: N815 - Twisted reads it

    def __init__(self, inner: IResource, refuse: Callable[[Request], bytes]) -> None:
        super().__init__()
        self._inner = inner
        self._refuse = refuse

    @override
    def render(self, request: Request) -> Any:
        try:
            b"/".join(request.postpath or ()).decode("utf-8")
            request.getRequestHostname().decode("ascii")
        except UnicodeDecodeError:
            return self._refuse(request)
        # Klein would take //stats for /stats: what a guard before us saw must be what we see.
        if request.path.startswith(b"//"):
            return self._refuse(request)
        return self._inner.render(request)


class GateTree:
    """
    The pages of one gate.

    :param make_id: gives a request id where the front door gave none in ``X-Request-Id``.
    """

    app = plain_map(Klein())

    def __init__(
        self, view: AdminView, access: AdminAccess, *, make_id: Callable[[], str], realm: str
    ) -> None:
        self._view = view
        self._access = access
        self._make_id = make_id
        self._realm = realm

    def resource(self) -> IResource:
        """Give the tree as a resource, to be put at the root of a site."""
        return CheckedResource(
            self.app.resource(),
            lambda request: answer_error(request, NotFound(), self._request_id(request)),
        )

    def _request_id(self, request: Request) -> str:
        given = request.getHeader(_REQUEST_ID)
        if isinstance(given, str) and 0 < len(given) <= 64 and given.isascii():
            return given if given.isprintable() else self._make_id()
        return self._make_id()

    @app.route("/", methods=["GET"])
    def _root(self, request: Request) -> bytes:
        return give(request, root_answer(request.getHeader("accept") or ""))

    @app.route("/health", methods=["GET"])
    def _health(self, request: Request) -> bytes:
        return give(request, health_answer())

    @app.route("/ready", methods=["GET"])
    def _ready(self, request: Request) -> bytes:
        return give(request, ready_answer(self._view))

    @app.route("/stats", methods=["GET"])
    def _stats(self, request: Request) -> bytes:
        self._admit(request, scrape=False)
        told = statistics(self._view)
        given = request.args.get(b"format", [b""])[0]
        accepts = request.getHeader("accept") or ""
        if given == b"html" or (given != b"json" and "text/html" in accepts):
            fields = {"Content-Security-Policy": POLICY}
            page = Answer(200, render_page(told), "text/html; charset=utf-8", fields)
            return give(request, page)
        return answer_json(request, told)

    @app.route("/metrics", methods=["GET"])
    def _metrics(self, request: Request) -> Deferred[bytes]:
        self._admit(request, scrape=True)
        return self._view.metrics().addCallback(
            lambda text: give(request, Answer(200, text, CONTENT_TYPE))
        )

    @app.route("/.well-known/", defaults={"path": ""})
    @app.route("/.well-known/<path:path>")
    def _well_known(self, request: Request, path: str) -> bytes:
        raise NotFound

    @app.handle_errors(UnknownUser)  # type: ignore[arg-type]  # Klein types the request wider
    def _who_are_you(self, request: Request, failure: Failure) -> bytes:
        error = failure.value
        assert isinstance(error, UnknownUser)
        return give(request, unknown_user_answer(error, self._request_id(request), self._realm))

    @app.handle_errors(Exception)  # type: ignore[arg-type]  # the same
    def _failed(self, request: Request, failure: Failure) -> bytes:
        return answer_failure(request, failure, self._request_id(request))

    def _admit(self, request: Request, *, scrape: bool) -> None:
        admit(
            self._access,
            address=getattr(request.getClientAddress(), "host", "") or "",
            authorization=request.getHeader("authorization"),
            forwarded=any(map(request.requestHeaders.hasHeader, FORWARDING)),
            scrape=scrape,
        )
