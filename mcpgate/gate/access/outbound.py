"""
How the gate calls an API of its own accord: TLS checked, addresses checked, answers bounded.

treq sits on an agent of ours, since treq asks for gzip and decodes it, keeps cookies between
calls and follows redirects unless kept from all three.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from typing_extensions import override
from zope.interface import implementer

from mcpgate.checked_endpoint import CheckedEndpoint, numeric

_WHOLE: Final = (ResponseDone, PotentialDataLoss)

IDLE_CONNECTIONS: Final = 4
IDLE_S: Final = 20.0


class BadAnswerError(Exception):
    """The API's answer can not be used; the text says why and holds nothing of the answer."""


class PrivateAddressError(Exception):
    """The URL leads to an address of this machine or network, which is not allowed."""


def is_public(address: str) -> bool:
    """Tell whether an address is one of the open Internet (R78)."""
    parsed = numeric(address)
    return parsed is not None and parsed.is_global and not parsed.is_multicast


def _check(address: str) -> None:
    if not is_public(address):
        raise PrivateAddressError


class PublicOnlyEndpoint(CheckedEndpoint):
    """Refuses connections that ended up at a private address."""

    def __init__(self, inner: IStreamClientEndpoint) -> None:
        super().__init__(inner, _check)


@implementer(IAgentEndpointFactory)
class EndpointFactory:
    """
    Endpoints of HTTP and HTTPS URLs, certificates and names verified.

    :param ca_file: PEM file of the authorities to trust instead of the system's.
    :param public_only: refuse private addresses.
    """

    def __init__(
        self, reactor: Any, *, connect_s: float, ca_file: Path | None, public_only: bool
    ) -> None:
        self._reactor = reactor
        self._connect_s = connect_s
        self._public_only = public_only
        self._policy = (
            BrowserLikePolicyForHTTPS()
            if ca_file is None
            else BrowserLikePolicyForHTTPS(trustRootFromCertificates(read_authorities(ca_file)))
        )

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802 - named by Twisted
        """See `IAgentEndpointFactory.endpointForURI`."""
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, uri.host, uri.port, timeout=self._connect_s
        )
        if self._public_only:
            endpoint = PublicOnlyEndpoint(endpoint)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return endpoint


def read_authorities(path: Path) -> list[Certificate]:
    """
    Read every certificate of a PEM file.

    :raises ValueError: there is none, or one is malformed.
    :raises OSError: the file can not be read.
    """
    end = b"-----END CERTIFICATE-----"
    parts = path.read_bytes().split(end)[:-1]
    if not parts:
        raise ValueError(f"{path}: holds no PEM certificate")
    try:
        return [Certificate.loadPEM(part + end) for part in parts]
    except Exception:
        raise ValueError(f"{path}: holds a malformed certificate") from None


@implementer(IAgent)
class PlainAgent:
    """Asks for answers without content coding, and refuses coded ones: they may be bombs."""

    def __init__(self, inner: IAgent) -> None:
        self._inner = inner

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803 - named by Twisted
    ) -> Deferred[IResponse]:
        """See `IAgent.request`."""
        plain = Headers() if headers is None else headers.copy()
        plain.setRawHeaders(b"Accept-Encoding", [b"identity"])
        asked: Deferred[IResponse] = self._inner.request(method, uri, plain, bodyProducer)
        return asked.addCallback(self._uncoded)

    def _uncoded(self, response: IResponse) -> IResponse:
        codings = response.headers.getRawHeaders(b"Content-Encoding", [])
        if any(coding.strip().lower() not in (b"", b"identity") for coding in codings):
            discard(response)
            raise BadAnswerError("the answer is compressed although that was declined")
        return response


class OutboundClient:
    """
    One API's connections, and a fresh HTTP client for each call.

    :param reactor: TCP, names and time.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        connect_s: float = 5.0,
        ca_file: Path | None = None,
        public_only: bool = True,
    ) -> None:
        self._reactor = reactor
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = IDLE_CONNECTIONS
        self._pool.cachedConnectionTimeout = IDLE_S  # type: ignore[assignment]  # a float is fine
        factory = EndpointFactory(
            reactor, connect_s=connect_s, ca_file=ca_file, public_only=public_only
        )
        self._agent = PlainAgent(Agent.usingEndpointFactory(reactor, factory, self._pool))

    def send(
        self, method: str, url: str, headers: list[tuple[str, str]], body: bytes | None
    ) -> Deferred[Any]:
        """Send a request; fires with treq's response, its body not read yet."""
        lines = Headers()
        for name, value in headers:
            lines.addRawHeader(name.encode("ascii"), value.encode("latin-1"))
        # A new client each time: treq's keeps cookies, one caller's would go with the next's.
        return HTTPClient(self._agent).request(
            method,
            url,
            headers=lines,
            data=body,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )

    def close(self) -> Deferred[None]:
        """Let go of idle connections."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed


def read_bounded(response: Any, limit: int) -> Deferred[bytes]:
    """
    Collect the body of a response; cancelling cuts the connection.

    Fails with `BadAnswerError` when it is longer than ``limit`` bytes or breaks off.
    """
    if response.length != UNKNOWN_LENGTH and response.length > limit:
        discard(response)
        return fail(BadAnswerError("the answer is too long"))
    done: Deferred[bytes] = Deferred(lambda _: body.abort())
    body = _Body(limit, done)
    response.deliverBody(body)
    return done


def discard(response: Any) -> None:
    """Cut the connection of a response whose body is not wanted."""
    body = _Body(0, None)
    response.deliverBody(body)
    body.abort()


class _Body(Protocol):
    """Collects up to ``limit`` bytes, then cuts the connection."""

    def __init__(self, limit: int, done: Deferred[bytes] | None) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._done = done

    @override
    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self.abort()
            self._settle(lambda done: done.errback(BadAnswerError("the answer is too long")))
        else:
            self._parts.append(data)

    @override
    def connectionLost(self, reason: Failure | None = None) -> None:
        if reason is not None and reason.check(*_WHOLE):
            self._settle(lambda done: done.callback(b"".join(self._parts)))
        else:
            self._settle(lambda done: done.errback(BadAnswerError("the answer broke off")))

    def abort(self) -> None:
        """Cut the connection; nothing more is collected."""
        self._parts.clear()
        # The transport handed to bodies can only be closed politely, and a TLS peer that does
        # not answer that keeps the connection open; what it stands for can be cut.
        transport = getattr(self.transport, "_producer", None) or self.transport
        cut = getattr(transport, "abortConnection", None) or getattr(
            transport, "loseConnection", None
        )
        if cut is not None:
            cut()

    def _settle(self, settle: Callable[[Deferred[bytes]], None]) -> None:
        done, self._done = self._done, None
        if done is not None and not done.called:
            settle(done)
