"""
``requestState``: what a client brings back to go on with a call that was parked.

To the client it is an opaque text.  It is encrypted, and holds only for the same key, server,
method and params, and only for a while; whatever is wrong with one, the client hears the same.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mcpgate.errors import InvalidParams
from mcpgate.mcp.jsonrpc import Request
from mcpgate.model import Principal

MAX_CHARS: Final = 1024
_NONCE_BYTES: Final = 12
_VERSION: Final = b"1"
# What a retry adds to the params of the first try, or may change of them.
_OF_TRIES: Final = frozenset({"inputResponses", "requestState", "_meta"})


class InvalidState(InvalidParams):
    """The state is not one of this caller's, of this request, or not any more."""

    reason = "invalid_request_state"
    text = "Invalid or expired requestState"


def original(request: Request) -> dict[str, object] | None:
    """Give the params of a request without what only a retry has."""
    params = request.params
    if params is None or not ("inputResponses" in params or "requestState" in params):
        return params
    return {
        name: value
        for name, value in params.items()
        if name not in ("inputResponses", "requestState")
    }


class Seal:
    """
    Makes states and reads them.

    :param secret: of the state directory.
    :param wall: the wall clock, seconds.
    """

    def __init__(
        self, secret: bytes, *, wall: Callable[[], float], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._cipher = AESGCM(hmac.digest(secret, b"requestState", "sha256"))
        self._wall = wall
        self._random_bytes = random_bytes

    def close(
        self, handle: str, principal: Principal, server: str, request: Request, valid_s: float
    ) -> str:
        """
        Make a state, good for ``valid_s`` seconds.

        :param handle: of the parked call; empty when it is over and has to be sent anew.
        """
        told = json.dumps([handle, self._wall() + valid_s]).encode()
        nonce = self._random_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, told, _bound_to(principal, server, request))
        return urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode("ascii")

    def open(self, text: object, principal: Principal, server: str, request: Request) -> str:
        """
        Read the handle out of a state.

        :raises InvalidState: it was not made here for this request of this caller, or is old.
        """
        if not isinstance(text, str) or len(text) > MAX_CHARS or not text.isascii():
            raise InvalidState
        try:
            raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            nonce, sealed = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
            told = self._cipher.decrypt(nonce, sealed, _bound_to(principal, server, request))
        except (NotBase64, ValueError, InvalidTag):
            raise InvalidState from None
        handle, until = json.loads(told)
        if self._wall() >= until:
            raise InvalidState
        return str(handle)


def _bound_to(principal: Principal, server: str, request: Request) -> bytes:
    """Give a digest of what a state holds for."""
    params = {
        name: value for name, value in (request.params or {}).items() if name not in _OF_TRIES
    }
    bound = [
        principal.issuer,
        principal.subject,
        principal.key_digest,
        server,
        request.method,
        params,
    ]
    text = json.dumps(bound, sort_keys=True, separators=(",", ":"))
    return _VERSION + sha256(text.encode("utf-8", "surrogatepass")).digest()
