"""One entry for each answered request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessEntry:
    """
    What is told of one request.  Holds no query string, no field values, no session id.

    :ivar path: path as received, without query, cut at 256 characters.
    :ivar status: 0 when the client went before an answer began.
    :ivar complete: the answer was sent whole.
    :ivar notes: what the rooms added: server, principal (fingerprint), reason ..
    """

    peer: str
    method: str
    path: str
    status: int
    bytes_in: int
    bytes_out: int
    duration_s: float
    request_id: str
    protocol: str
    complete: bool
    notes: dict[str, object]
