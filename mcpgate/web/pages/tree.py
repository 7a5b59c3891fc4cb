"""
The map of what the gate serves itself: a Klein tree.

The front door hands over everything that belongs to no server: an unknown path is 404 in JSON,
never HTML and never 401, since a 401 sends MCP clients looking for an authorization server
(lab 2.1.6).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, Final

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request
from typing_extensions import override
from werkzeug.exceptions import HTTPException

from mcpgate.errors import GateError, Internal, MethodNotAllowed, NotFound, RateLimited
from mcpgate.telemetry.metrics import CONTENT_TYPE
from mcpgate.web.pages.admin import AdminView, statistics
from mcpgate.web.pages.admin_access import AdminAccess, Admission, basic_credentials
from mcpgate.web.pages.stats_page import POLICY, render_page
from mcpgate.web.wire.klein_channel import FORWARDING

log = Logger()

_JSON: Final = "application/json"
_FIELDS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_REQUEST_ID: Final = "x-request-id"


class _UnknownUser(GateError):  # noqa: N818 - named as the client reads it
    """Nobody who may see statistics: Basic, as browsers and scrapers know it."""

    status, code, reason = 401, -32600, "unauthenticated"
    text = "User and password are required."


def plain_map(app: Klein) -> Klein:
    """Have an app answer paths as they are: no redirects for slashes (lab 2.1.16)."""
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    return app


def answer(
    request: Request,
    status: int,
    body: bytes,
    content_type: str,
    fields: Mapping[str, str] | None = None,
) -> bytes:
    """Set status and fields of an answer; give the body to be returned to Klein."""
    request.setResponseCode(status)
    request.responseHeaders.removeHeader("Server")
    for name, value in {**_FIELDS, **(fields or {})}.items():
        request.setHeader(name, value)
    request.setHeader("Content-Type", content_type)
    request.setHeader("Content-Length", str(len(body)))
    return body


def answer_json(request: Request, value: object, status: int = 200, **fields: str) -> bytes:
    """Answer with a JSON value."""
    body = json.dumps(value, ensure_ascii=True).encode("ascii") + b"\n"
    return answer(
        request,
        status,
        body,
        _JSON,
        {name.replace("_", "-"): text for name, text in fields.items()},
    )


def answer_error(
    request: Request, error: GateError, request_id: str, fields: Mapping[str, str] | None = None
) -> bytes:
    """Answer with an error in the form every route of the gate uses."""
    told: dict[str, object] = {
        "reason": error.reason,
        "message": error.detail,
        "requestId": request_id,
        **error.data,
    }
    named = dict(fields or {})
    if error.retry_after_s is not None:
        told["retryAfterMs"] = max(1, ceil(error.retry_after_s * 1000))
        named["Retry-After"] = str(max(1, ceil(error.retry_after_s)))
    body = json.dumps({"error": told}).encode("ascii") + b"\n"
    return answer(request, error.status, body, _JSON, named)


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
        self._realm = realm.replace('"', "").replace("\\", "")

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
        hint = "MCP endpoints are at /SERVER/mcp; a key is required."
        if "application/json" in (request.getHeader("accept") or ""):
            return answer_json(request, {"name": "mcpgate", "hint": hint})
        return answer(request, 200, f"mcpgate\n{hint}\n".encode(), "text/plain; charset=utf-8")

    @app.route("/health", methods=["GET"])
    def _health(self, request: Request) -> bytes:
        return answer_json(request, {"status": "ok"})

    @app.route("/ready", methods=["GET"])
    def _ready(self, request: Request) -> bytes:
        reasons = list(self._view.unready())
        if reasons:
            told = {"status": "unready", "reasons": reasons}
            return answer_json(request, told, 503, Retry_After="5")
        return answer_json(request, {"status": "ready"})

    @app.route("/stats", methods=["GET"])
    def _stats(self, request: Request) -> bytes:
        self._admit(request, scrape=False)
        told = statistics(self._view)
        given = request.args.get(b"format", [b""])[0]
        accepts = request.getHeader("accept") or ""
        if given == b"html" or (given != b"json" and "text/html" in accepts):
            fields = {"Content-Security-Policy": POLICY}
            return answer(request, 200, render_page(told), "text/html; charset=utf-8", fields)
        return answer_json(request, told)

    @app.route("/metrics", methods=["GET"])
    def _metrics(self, request: Request) -> Deferred[bytes]:
        self._admit(request, scrape=True)
        return self._view.metrics().addCallback(
            lambda text: answer(request, 200, text, CONTENT_TYPE)
        )

    @app.route("/.well-known/", defaults={"path": ""})
    @app.route("/.well-known/<path:path>")
    def _well_known(self, request: Request, path: str) -> bytes:
        raise NotFound

    @app.handle_errors(_UnknownUser)  # type: ignore[arg-type]  # Klein types the request wider
    def _who_are_you(self, request: Request, failure: Failure) -> bytes:
        challenge = {"WWW-Authenticate": f'Basic realm="{self._realm}", charset="UTF-8"'}
        assert isinstance(failure.value, GateError)
        return answer_error(request, failure.value, self._request_id(request), challenge)

    @app.handle_errors(Exception)  # type: ignore[arg-type]  # the same
    def _failed(self, request: Request, failure: Failure) -> bytes:
        return answer_failure(request, failure, self._request_id(request))

    def _admit(self, request: Request, *, scrape: bool) -> None:
        """Let those through who may see statistics; an unknown path looks like a hidden one."""
        address = getattr(request.getClientAddress(), "host", "") or ""
        credentials = basic_credentials(request.getHeader("authorization"))
        if credentials is not None and (wait_s := self._access.held_back(address)) > 0:
            raise RateLimited("Too many wrong passwords came from here.", retry_after_s=wait_s)
        forwarded = any(map(request.requestHeaders.hasHeader, FORWARDING))
        admission = self._access.admit(address, credentials, scrape=scrape, forwarded=forwarded)
        if admission is Admission.NOTHING_HERE:
            raise NotFound
        if admission is Admission.WHO_ARE_YOU:
            raise _UnknownUser
