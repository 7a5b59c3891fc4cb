"""
Every refusal and failure a client may ever see.

One class per reason; each carries the HTTP status, the JSON-RPC code, the machine-readable reason
and the text for the reader.  Nothing else of an exception reaches a client: a failure that is not
a `GateError` is a bug, answered as `Internal` with the request id, its traceback in the log only.

JSON-RPC codes of our own lie outside -32768..-32000, as the specification asks.
"""

from __future__ import annotations

from typing import ClassVar


class GateError(Exception):
    """
    A failure with a public face.

    :param detail: the sentence shown to the caller; the class's own text when empty.  It never
        holds a secret, and says what to do where something can be done.
    :param retry_after_s: seconds after which asking again makes sense, or None.
    :param data: further public fields for ``error.data`` (exit code, last stderr lines ..).
    :param fields: HTTP fields the refusal must carry (``WWW-Authenticate``, ``Allow``).
    """

    status: ClassVar[int] = 500
    code: ClassVar[int] = -32603
    reason: ClassVar[str] = "internal"
    text: ClassVar[str] = "Internal error."

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after_s: float | None = None,
        data: dict[str, object] | None = None,
        fields: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.detail = detail or self.text
        self.retry_after_s = retry_after_s
        self.data = data or {}
        self.fields = fields
        super().__init__(self.detail)


class Internal(GateError):
    """A bug of ours; the traceback is in the log under the same request id."""


# --- The request itself ---------------------------------------------------------------------


class BadRequest(GateError):
    """The request is malformed."""

    status, code, reason = 400, -32600, "bad_request"
    text = "The request is malformed."


class ParseError(GateError):
    """The body is not acceptable JSON."""

    status, code, reason = 400, -32700, "parse_error"
    text = "The body is not valid JSON."


class InvalidParams(GateError):
    """The message is understood but its parameters are not acceptable."""

    status, code, reason = 400, -32602, "invalid_params"
    text = "Invalid parameters."


class MethodNotFound(GateError):
    """The method is none of this revision, or the server does not know it."""

    status, code, reason = 404, -32601, "method_not_found"
    text = "Method not found."


class HeaderMismatch(GateError):
    """A header of the modern era is missing, doubled, or says something else than the body."""

    status, code, reason = 400, -32020, "header_mismatch"
    text = "The headers and the body say different things."


class MissingCapability(GateError):
    """
    The client did not declare a capability that its request needs.

    ``data["requiredCapabilities"]`` tells which, in the form of ``clientCapabilities``.
    """

    status, code, reason = 400, -32021, "missing_capability"
    text = "The request needs a capability that the client did not declare."


class UnsupportedRevision(GateError):
    """
    The revision of MCP that the request names is not spoken here.

    ``data`` holds ``supported`` and ``requested``.
    """

    status, code, reason = 400, -32022, "unsupported_revision"
    text = "Unsupported protocol version."


class NotFound(GateError):
    """No such server, path or session; unknown and foreign look the same."""

    status, code, reason = 404, -32001, "not_found"
    text = "Not found."


class SessionNotFound(NotFound):
    """The session id is not one of this caller's live sessions."""

    reason = "session_not_found"
    text = "Session not found. Send initialize again without a session id."


class MethodNotAllowed(GateError):
    """The path does not answer this HTTP method."""

    status, code, reason = 405, -32600, "method_not_allowed"
    text = "Method not allowed."


class NotAcceptable(GateError):
    """The Accept header leaves no form of answer."""

    status, code, reason = 406, -32600, "not_acceptable"
    text = "Accept must list application/json and text/event-stream."


class RequestTimeout(GateError):
    """The request did not arrive in time."""

    status, code, reason = 408, -32600, "request_timeout"
    text = "The request took too long to arrive."


class Conflict(GateError):
    """Another request of the same session took this one's place."""

    status, code, reason = 409, -32600, "conflict"
    text = "Another request took this one's place."


class TooLarge(GateError):
    """A bound on size was crossed."""

    status, code, reason = 413, -31009, "too_large"
    text = "The message is too large."


class TargetTooLong(GateError):
    """The request line is too long."""

    status, code, reason = 414, -31009, "target_too_long"
    text = "The request line is too long."


class HeadTooLarge(GateError):
    """The request's fields are too many or too long."""

    status, code, reason = 431, -31009, "head_too_large"
    text = "The request header is too large."


class ExpectationFailed(GateError):
    """``Expect`` asks for something else than ``100-continue``."""

    status, code, reason = 417, -32600, "expectation_failed"
    text = "Only 'Expect: 100-continue' is understood."


class NotImplementedHere(GateError):
    """A method or transfer coding that nobody here knows."""

    status, code, reason = 501, -32600, "not_implemented"
    text = "This method or transfer coding is not implemented."


class VersionNotSupported(GateError):
    """Neither HTTP/1.0 nor HTTP/1.1."""

    status, code, reason = 505, -32600, "http_version"
    text = "Only HTTP/1.0 and HTTP/1.1 are spoken here."


class UnsupportedMediaType(GateError):
    """Content-Type or Content-Encoding is not one we read."""

    status, code, reason = 415, -32600, "unsupported_media_type"
    text = "Content-Type must be application/json, without Content-Encoding."


class MisdirectedRequest(GateError):
    """The Host is not one of ours."""

    status, code, reason = 421, -32600, "misdirected"
    text = "This host name is not served here."


class UpgradeRefused(GateError):
    """The upgrade asked for is not offered here."""

    status, code, reason = 426, -32600, "upgrade_refused"
    text = "This upgrade is not offered here."


# --- Who calls ------------------------------------------------------------------------------


class Unauthenticated(GateError):
    """No credential, or not a valid one: answered 401 with WWW-Authenticate."""

    status, code, reason = 401, -32600, "unauthenticated"
    text = "A valid key is required: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."


class InvalidCredential(Unauthenticated):
    """A credential was sent, and it is not a valid one: the challenge says ``invalid_token``."""

    reason = "invalid_credential"
    text = "This key is not valid, or not any more."


class Forbidden(GateError):
    """The caller is known but may not do this."""

    status, code, reason = 403, -32600, "forbidden"
    text = "This key may not use this server."


class ForbiddenOrigin(Forbidden):
    """A browser page of an origin that is not allowed."""

    reason = "forbidden_origin"
    text = "This origin is not allowed."


class RateLimited(GateError):
    """The bucket is empty."""

    status, code, reason = 429, -31006, "rate_limited"
    text = "Too many requests."


class AuthUnavailable(GateError):
    """The API that knows the keys does not answer, and this key is not remembered."""

    status, code, reason = 503, -31007, "auth_unavailable"
    text = "Keys can not be checked at the moment. Try again shortly."


# --- The servers behind ---------------------------------------------------------------------


class Overloaded(GateError):
    """A cap is reached; asking again later may succeed."""

    status, code, reason = 503, -31005, "overloaded"
    text = "The gate is at its limit. Try again shortly."


class Starting(GateError):
    """The server is starting and did not become ready in the time the caller may wait."""

    status, code, reason = 503, -31004, "starting"
    text = "The server is still starting. Try again shortly."


class Draining(GateError):
    """The gate is shutting down."""

    status, code, reason = 503, -31008, "draining"
    text = "The gate is shutting down."


class BackendUnavailable(GateError):
    """The server can not be started or reached."""

    status, code, reason = 503, -31001, "backend_unavailable"
    text = "The server is not available."


class WrongEra(BackendUnavailable):
    """The server speaks other revisions of MCP than the one it was asked in."""

    reason = "wrong_era"
    text = "The server speaks other revisions of MCP. Try again shortly."


class RuntimeUnavailable(BackendUnavailable):
    """What makes servers exist (the container engine) does not answer; no server is to blame."""

    reason = "runtime_unavailable"
    text = "The container engine does not answer. Try again shortly."


class ImageMissing(BackendUnavailable):
    """The container image of the server is not on this machine."""

    reason = "image_missing"
    text = "The image of the server is missing."


class BackendTimeout(GateError):
    """The server did not answer in time."""

    status, code, reason = 504, -31002, "backend_timeout"
    text = "The server did not answer in time."


class BackendDied(GateError):
    """The server ended, or broke the connection, while the call was in work."""

    status, code, reason = 502, -31003, "backend_died"
    text = "The server ended while it was working on this call."


class BadBackendAnswer(BackendDied):
    """The server's answer broke HTTP, JSON-RPC or a bound."""

    reason = "bad_backend_answer"
    text = "The server gave an answer that can not be passed on."


class CallCancelled(GateError):
    """
    The client took its request back (``notifications/cancelled``), or its session ended.

    MCP wants no answer to a cancelled request: an event stream just ends; where HTTP must have a
    body this is it.
    """

    status, code, reason = 499, -31010, "cancelled"
    text = "The call was cancelled."


class ToolWithheld(GateError):
    """The tool is not as it was when it was trusted, and ``tools_pinned = block`` is set."""

    status, code, reason = 403, -31011, "tool_withheld"
    text = "The tool is not as it was when it was trusted."


class ToolFailed(GateError):
    """
    A tool called through the OpenAPI face said that it failed; the text is its own.

    Over MCP this is a result (``isError``) or an error of the server's.
    """

    status, code, reason = 422, -32603, "tool_failed"
    text = "The tool failed."


class ToolAsks(GateError):
    """A tool called through the OpenAPI face wants to ask its user or model something."""

    status, code, reason = 422, -32021, "tool_asks"
    text = "This tool asks questions while it works: call it with an MCP client."
