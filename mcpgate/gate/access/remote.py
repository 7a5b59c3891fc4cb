"""
Keys checked by the API they belong to.

One HTTP request tells whether a key is good and whose it is.  Only the API's own 401 or 403 makes
a key bad; whatever else goes wrong leaves that open (R57).  The key goes where the templates put
it and nowhere else: no redirect is followed, no cookie kept, nothing of the exchange is logged
but what kind of failure it was (R76, R84).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.client import RequestTransmissionFailed, ResponseNeverReceived
from zope.interface import implementer

from mcpgate.errors import AuthUnavailable, InvalidCredential, Unauthenticated
from mcpgate.gate.access.digest import KeyDigest
from mcpgate.gate.access.keyfile import made_id
from mcpgate.gate.access.outbound import (
    BadAnswerError,
    OutboundClient,
    PrivateAddressError,
    discard,
    read_bounded,
)
from mcpgate.interfaces import IAuthenticator
from mcpgate.model import KIB, Caller, Principal, Secret, fill
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.deferreds import deferred

log = Logger()

SUBJECT_LIMIT: Final = 256

_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,4096}").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCheck:
    """
    What is asked, and how the answer is read.

    :ivar url: may hold ``{key}``, which is put in percent-encoded.
    :ivar headers: names and values; values may hold ``{key}``, put in as it is.
    :ivar body: may hold ``{key}``: put in percent-encoded when a header says that the body is a
        form, else JSON-escaped.  Empty for no body.
    :ivar expect_status: answers that mean the key is good.
    :ivar refuse_status: answers that mean it is not.
    :ivar user_field: dotted path of the user's id in the JSON answer, numbers for places in
        lists; empty: the answer is not read and the subject is the key's fingerprint.
    :ivar timeout_s: for the whole of a check, waiting for one of ``calls`` places included.
    :ivar ca_file: PEM file of the authorities to trust instead of the system's.
    :ivar allow_private: the URL may lead to loopback and private addresses.
    """

    url: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: str = field(default="", repr=False)
    expect_status: tuple[int, ...] = (200,)
    refuse_status: tuple[int, ...] = (401, 403)
    user_field: str = ""
    timeout_s: float = 5.0
    max_answer_bytes: int = 256 * KIB
    calls: int = 32
    ca_file: Path | None = None
    allow_private: bool = False


#: Asked with a key, answers treq's response: `OutboundClient.send`.
Send = Callable[[str, str, list[tuple[str, str]], bytes | None], Deferred[Any]]


@implementer(IAuthenticator)
class RemoteAuthenticator:
    """
    Asks the API about each key it is given; remembers nothing, so put a cache on top.

    Keys made by a gate (``mg_..``) are refused without asking: they are nobody else's business.

    :param issuer: name of the ``[auth:NAME]`` section.
    :param send: how to ask; see `make_remote` for the real way.
    """

    def __init__(
        self,
        issuer: str,
        check: RemoteCheck,
        send: Send,
        clock: IReactorTime,
        digest: KeyDigest,
        *,
        meters: Meters,
        servers: frozenset[str] | None = None,
    ) -> None:
        self._issuer = issuer
        self._rules = check
        self._send = send
        self._clock = clock
        self._digest = digest
        self._meters = meters
        self._servers = servers
        self._places = DeferredSemaphore(check.calls)
        self._form = any(
            name.lower() == "content-type" and "x-www-form-urlencoded" in value.lower()
            for name, value in check.headers
        )

    def remembered(self, credential: Secret) -> Caller | None:
        """See `IAuthenticator.remembered`."""
        return None

    @deferred
    async def authenticate(self, credential: Secret) -> Caller:
        """See `IAuthenticator.authenticate`."""
        if not credential:
            raise Unauthenticated
        key = credential.reveal()
        # Nothing that could end a header line or a JSON string gets as far as a template.
        if not _VISIBLE(key) or made_id(credential):
            raise InvalidCredential
        checking = Deferred.fromCoroutine(self._check(key))
        try:
            subject = await checking.addTimeout(self._rules.timeout_s, self._clock)
        except AuthUnavailable:
            self._meters.events["auth_unavailable"] += 1
            raise
        except TimeoutError:
            self._meters.events["auth_unavailable"] += 1
            raise self._unavailable("no answer in time") from None
        self._meters.events["auth_ok"] += 1
        key_digest = self._digest(credential)
        principal = Principal(self._issuer, subject or key_digest[:8], key_digest)
        return Caller(principal, credential, self._servers)

    async def _check(self, key: str) -> str:
        """Ask, and give the subject; empty where none is looked for."""
        await self._places.acquire()
        try:
            response = await self._ask(key)
            status = response.code
            if status not in self._rules.expect_status:
                if status in self._rules.refuse_status:
                    await self._drain(response)
                    raise InvalidCredential
                discard(response)
                raise self._unavailable(f"status {status}")
            if not self._rules.user_field:
                await self._drain(response)
                return ""
            return self._subject(await read_bounded(response, self._rules.max_answer_bytes))
        except BadAnswerError as error:
            raise self._unavailable(str(error)) from None
        finally:
            self._places.release()

    async def _ask(self, key: str) -> Any:
        rules = self._rules
        url = fill(rules.url, {"key": quote(key, safe="")})
        headers = [(name, fill(value, {"key": key})) for name, value in rules.headers]
        body: bytes | None = None
        if rules.body:
            put_in = quote(key, safe="") if self._form else json.dumps(key)[1:-1]
            body = fill(rules.body, {"key": put_in}).encode("utf-8")
        try:
            try:
                return await self._send(rules.method, url, headers, body)
            except (ResponseNeverReceived, RequestTransmissionFailed) as error:
                if any(reason.check(CancelledError) for reason in error.reasons):
                    # How Agent tells that our deadline passed; nothing would end a second try.
                    raise CancelledError from None
                # An idle connection that the API closed at the moment we used it again; a
                # check changes nothing, so it may be sent twice.
                return await self._send(rules.method, url, headers, body)
        except (BadAnswerError, CancelledError):
            raise
        except PrivateAddressError:
            raise self._unavailable("its address is private: set allow_private") from None
        except Exception as error:
            # Neither the text nor the traceback: a URL may hold the key.
            raise self._unavailable(type(error).__name__) from None

    async def _drain(self, response: Any) -> None:
        """Read what nobody needs, so that the connection can be used again."""
        try:
            await read_bounded(response, self._rules.max_answer_bytes)
        except BadAnswerError:
            return

    def _subject(self, body: bytes) -> str:
        try:
            found: object = json.loads(body)
        except (ValueError, RecursionError):
            raise self._unavailable("the answer is not JSON") from None
        for step in self._rules.user_field.split("."):
            if isinstance(found, dict):
                found = found.get(step)
            elif isinstance(found, list) and step.isascii() and step.isdigit():
                place = int(step)
                found = found[place] if place < len(found) else None
            else:
                found = None
        if isinstance(found, int) and not isinstance(found, bool):
            found = str(found)
        if not isinstance(found, str) or not found:
            raise self._unavailable("the answer does not name the user where user_field says")
        if len(found) > SUBJECT_LIMIT or not found.isprintable():
            raise self._unavailable("the user's name is too long or not printable")
        return found

    def _unavailable(self, problem: str) -> AuthUnavailable:
        log.warn(
            "A key could not be checked at {name}: {problem}", name=self._issuer, problem=problem
        )
        return AuthUnavailable(retry_after_s=5.0)


def make_remote(
    reactor: Any,
    issuer: str,
    check: RemoteCheck,
    digest: KeyDigest,
    *,
    meters: Meters,
    servers: frozenset[str] | None = None,
) -> tuple[RemoteAuthenticator, OutboundClient]:
    """
    Give an authenticator with connections of its own; close these when the gate stops.

    :raises OSError: ``ca_file`` can not be read.
    :raises ValueError: ``ca_file`` holds no good certificate.
    """
    client = OutboundClient(
        reactor,
        connect_s=check.timeout_s,
        ca_file=check.ca_file,
        public_only=not check.allow_private,
    )
    remote = RemoteAuthenticator(
        issuer, check, client.send, reactor, digest, meters=meters, servers=servers
    )
    return remote, client
