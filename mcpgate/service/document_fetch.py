"""
An OpenAPI document asked for at its address, with whatever may go wrong said in words.

Certificate, address and length are looked at, and no redirect is followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import RequestTransmissionFailed, ResponseNeverReceived

from mcpgate.config.document_check import too_long
from mcpgate.config.rest import DOCUMENT_BYTES
from mcpgate.gate.access.outbound import (
    BadAnswerError,
    PrivateAddressError,
    discard,
    read_bounded,
)
from mcpgate.model import RESTSource, ServerSpec
from mcpgate.service.document_outbound import Ask, NotHadError
from mcpgate.stores.document_files import Origin

FETCH_S: Final = 30.0

_NOT_MODIFIED: Final = 304
_ACCEPT: Final = ("Accept", "application/json, application/yaml;q=0.9, */*;q=0.5")
_OURS: Final = frozenset({"accept", "host", "if-none-match", "if-modified-since"})
_FIELD_CHARS: Final = 1000


@dataclass(frozen=True, slots=True)
class Fetched:
    """
    What came.

    :ivar etag: what the service calls this version; ``modified``: since when it is one.
    """

    content: bytes
    etag: str
    modified: str


async def fetch(
    ask: Ask, spec: ServerSpec, source: RESTSource, have: Origin | None, clock: IReactorTime
) -> Fetched | None:
    """
    Ask for a document; None: it is the one we have.

    :raises NotHadError: it can not be had.
    """
    try:
        asking = Deferred.fromCoroutine(_fetch(ask, spec, source, have))
        return await asking.addTimeout(FETCH_S, clock)
    except TimeoutError:
        raise NotHadError(
            f"{_place(source)} does not answer within {FETCH_S:g} s. Look at it and the network"
        ) from None


async def _fetch(
    ask: Ask, spec: ServerSpec, source: RESTSource, have: Origin | None
) -> Fetched | None:
    fields = [_ACCEPT, *_own_fields(spec, source)]
    known = []
    if have is not None and have.etag:
        known.append(("If-None-Match", have.etag))
    elif have is not None and have.modified:
        known.append(("If-Modified-Since", have.modified))
    try:
        response = await ask(source, fields + known)
        status = response.code
        if status == 200:
            content = await read_bounded(response, DOCUMENT_BYTES)
            return Fetched(content, _field(response, "ETag"), _field(response, "Last-Modified"))
        discard(response)
    except BadAnswerError as error:
        remedy = too_long().remedy if "too long" in str(error) else "Look at the service"
        raise NotHadError(f"{error}. {remedy}") from None
    except PrivateAddressError:
        raise NotHadError(
            "its address is of this machine or a private network. "
            "Set allow_private = on if it is meant"
        ) from None
    except CancelledError:
        raise
    except Exception as error:
        raise _unreached(source, error) from None
    if status == _NOT_MODIFIED and known:
        return None
    if 300 <= status < 400:
        raise NotHadError(
            f"the service answers HTTP {status}, and redirects are not followed. "
            "Name the address it leads to"
        )
    raise NotHadError(f"the service answers HTTP {status}. Look at the address")


def _own_fields(spec: ServerSpec, source: RESTSource) -> list[tuple[str, str]]:
    """Give what the operator has sent along with calls, where it goes to the same place."""
    document, service = urlsplit(source.url), urlsplit(spec.url)
    if (document.scheme, document.netloc.lower()) != (service.scheme, service.netloc.lower()):
        return []
    return [
        (name, value)
        for name, value in spec.headers
        if "{" not in value and name.lower() not in _OURS
    ]


def _field(response: Any, name: str) -> str:
    values = response.headers.getRawHeaders(name, [])
    text = str(values[0]) if values else ""
    return text if text.isascii() and text.isprintable() and len(text) <= _FIELD_CHARS else ""


def _place(source: RESTSource) -> str:
    # No query: it may hold a secret.
    return urlsplit(source.url).netloc


def _unreached(source: RESTSource, error: Exception) -> Exception:
    if isinstance(error, ResponseNeverReceived | RequestTransmissionFailed):
        if any(reason.check(CancelledError) for reason in error.reasons):
            return CancelledError()  # How Agent tells that our deadline has passed.
        error = error.reasons[0].value if error.reasons else error
    kind = type(error).__name__
    if type(error).__module__.startswith("OpenSSL") or "Verification" in kind:
        return NotHadError(
            f"TLS with {_place(source)} fails: its certificate is not trusted, or not its own. "
            "Mend it, or have this system trust its authority"
        )
    return NotHadError(
        f"{_place(source)} can not be reached ({kind}). Look at name, route and firewall"
    )
