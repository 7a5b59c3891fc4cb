"""
The credential of a request: found in its fields, never in its URL.

Reads only; whether the credential is any good is the authenticators' business.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from mcpgate.errors import BadRequest, InvalidCredential, Unauthenticated
from mcpgate.http.fields import Fields
from mcpgate.model import KIB, Secret

CREDENTIAL_LIMIT: Final = 4 * KIB

_AUTHORIZATION: Final = b"authorization"
_API_KEY: Final = b"x-api-key"
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]+").fullmatch
_QUERY_SUSPECT: Final = re.compile(rb"key|token|%", re.IGNORECASE).search

#: Query parameters that are credentials whatever else the request carries (RFC 6750 2.3).
_QUERY_ALWAYS: Final = frozenset((b"access_token", b"api_key", b"api-key", b"apikey"))
#: Query parameters that relayed servers use for other things (page tokens, look-up keys): they
#: are taken for credentials only in a request that carries none in a field.
_QUERY_ALONE: Final = frozenset((b"token", b"key"))


def extract(fields: Fields, query: bytes | None, headers: tuple[bytes, ...]) -> Secret | None:
    """
    Find the credential in ``Authorization``, ``X-API-Key`` or one of ``headers``.

    ``Authorization`` holds ``Bearer KEY`` (the scheme in any case) or the bare key.  The same key
    in two different fields is accepted: some clients send it both ways.  R68.

    :param query: the raw query.  Pass None where a server is open to everybody and may have
        parameters of these names for itself.
    :param headers: further lower-case field names.
    :return: None when the request carries no credential (an empty field is none).
    :raises BadRequest: two different credentials, one field twice, or a credential in the query.
    :raises Unauthenticated: what was sent can not be a credential: another scheme, over 4 KiB,
        characters that are not visible ASCII.
    """
    found: bytes | None = None
    value = fields.get(_AUTHORIZATION)
    if value is not None:
        _once(fields, _AUTHORIZATION)
        found = _bearer(value)
    value = fields.get(_API_KEY)
    if value:
        found = _add(fields, _API_KEY, value, found)
    for name in headers:
        value = fields.get(name)
        if value and name not in (_AUTHORIZATION, _API_KEY):
            found = _add(fields, name, value, found)
    if query and _QUERY_SUSPECT(query):
        _refuse_query(query, alone=found is None)
    if found is None:
        return None
    if len(found) > CREDENTIAL_LIMIT:
        raise InvalidCredential("The key is too long.")
    if not _VISIBLE(found):
        raise InvalidCredential("A key consists of visible ASCII characters.")
    return Secret(found.decode("ascii"))


def _once(fields: Fields, name: bytes) -> None:
    if fields.count(name) > 1:
        raise BadRequest(f"The field {name.decode('ascii')} may be sent only once.")


def _add(fields: Fields, name: bytes, value: bytes, found: bytes | None) -> bytes:
    _once(fields, name)
    if found is not None and found != value:
        raise BadRequest("The request carries two different keys; send one.")
    return value


def _bearer(value: bytes) -> bytes | None:
    scheme, blank, rest = value.partition(b" ")
    if not blank:
        # A client whose variable is unset sends "Bearer" and nothing: that is no credential.
        return value if value and value.lower() != b"bearer" else None
    if scheme.lower() != b"bearer":
        raise Unauthenticated("Authorization must be of the form 'Bearer KEY'.")
    return rest.strip(b" ") or None


def _refuse_query(query: bytes, *, alone: bool) -> None:
    for part in query.split(b"&"):
        name = unquote_to_bytes(part.partition(b"=")[0]).lower()
        if name in _QUERY_ALWAYS or (alone and name in _QUERY_ALONE):
            raise BadRequest(
                "Keys are not accepted in the URL, where logs keep them: "
                "send 'Authorization: Bearer KEY'."
            )
