"""JSON-RPC 2.0 messages: bytes to values and back, within bounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """A request: wants an answer under ``id``."""

    id: int | str
    method: str
    params: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """A notification: wants no answer."""

    method: str
    params: dict[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """The successful answer to the request ``id``."""

    id: int | str
    result: dict[str, object]


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """The failed answer; ``id`` is None where the request's id could not be read."""

    id: int | str | None
    code: int
    message: str
    data: object = None


Message = Request | Notification | Response | ErrorResponse
