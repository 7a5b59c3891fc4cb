"""
What the pages answer, whoever carries it: the Klein tree, or the front door itself.

Those that are asked all the time and need no tree to be found are here; an idle gate answers them
without Klein being loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from mcpgate.errors import GateError, NotFound, RateLimited
from mcpgate.web.pages.admin import AdminView
from mcpgate.web.pages.admin_access import AdminAccess, Admission, basic_credentials

_JSON: Final = "application/json"
_FIELDS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_HINT: Final = "MCP endpoints are at /SERVER/mcp; a key is required."


class UnknownUser(GateError):  # noqa: N818 - named as the client reads it
    """Nobody who may see statistics: Basic, as browsers and scrapers know it."""

    status, code, reason = 401, -32600, "unauthenticated"
    text = "User and password are required."


@dataclass(frozen=True, slots=True)
class Answer:
    """
    A page.

    :ivar fields: beyond, or instead of, those of every page.
    """

    status: int
    body: bytes
    content_type: str
    fields: Mapping[str, str] = field(default_factory=dict)

    def head(self) -> dict[str, str]:
        """Give the fields of its head, without its length."""
        return {**_FIELDS, **self.fields, "Content-Type": self.content_type}


def json_answer(value: object, status: int = 200, **fields: str) -> Answer:
    """Answer with a JSON value; underscores in names of fields are dashes."""
    body = json.dumps(value, ensure_ascii=True).encode("ascii") + b"\n"
    named = {name.replace("_", "-"): text for name, text in fields.items()}
    return Answer(status, body, _JSON, named)


def error_answer(
    error: GateError, request_id: str, fields: Mapping[str, str] | None = None
) -> Answer:
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
    return Answer(error.status, body, _JSON, named)


def root_answer(accept: str) -> Answer:
    """Tell somebody who looks at the gate's address where to go on."""
    if "application/json" in accept:
        return json_answer({"name": "mcpgate", "hint": _HINT})
    return Answer(200, f"mcpgate\n{_HINT}\n".encode(), "text/plain; charset=utf-8")


def health_answer() -> Answer:
    """Tell that the process answers."""
    return json_answer({"status": "ok"})


def ready_answer(view: AdminView) -> Answer:
    """Tell whether the gate should get traffic."""
    reasons = list(view.unready())
    if reasons:
        told = {"status": "unready", "reasons": reasons}
        return json_answer(told, 503, Retry_After="5")
    return json_answer({"status": "ready"})


def unknown_user_answer(error: UnknownUser, request_id: str, realm: str) -> Answer:
    """Ask for user and password."""
    realm = realm.replace('"', "").replace("\\", "")
    challenge = {"WWW-Authenticate": f'Basic realm="{realm}", charset="UTF-8"'}
    return error_answer(error, request_id, challenge)


def admit(
    access: AdminAccess, *, address: str, authorization: str | None, forwarded: bool, scrape: bool
) -> None:
    """
    Let those through who may see statistics; an unknown path looks like a hidden one.

    :param address: numeric, of the client; empty for a unix socket.
    :param forwarded: the request has one of `mcpgate.web.forwarding.FORWARDING`.
    :param scrape: it is ``/metrics`` that is asked for.
    :raises GateError: they may not.
    """
    credentials = basic_credentials(authorization)
    if credentials is not None and (wait_s := access.held_back(address)) > 0:
        raise RateLimited("Too many wrong passwords came from here.", retry_after_s=wait_s)
    admission = access.admit(address, credentials, scrape=scrape, forwarded=forwarded)
    if admission is Admission.NOTHING_HERE:
        raise NotFound
    if admission is Admission.WHO_ARE_YOU:
        raise UnknownUser
