"""
What is served over TLS: contexts by name (SNI), swapped while connections are open.

TLS 1.2 and 1.3 with forward secrecy and AEAD only, sessions resumed by ticket.  Tickets are good as
long as the certificates are: a swap makes everybody shake hands anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mcpgate.telemetry.meters import Meters
from mcpgate.web.listening.certificates import (
    Certificate,
    CertificateError,
    CertificateFiles,
    load_certificate,
)

log = Logger()

HTTP1 = b"http/1.1"
HTTP2 = b"h2"

CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)

# The post-quantum hybrid first where this OpenSSL knows it.
GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")

# Days before the end at which an operator is told, once each (R64).
EXPIRY_WARNINGS = (30, 7, 1)

_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE


VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


def server_context(
    certificate: Certificate, protocols: Sequence[bytes], min_version: str = "1.2"
) -> SSL.Context:
    """
    Make the context that serves one certificate.

    :param protocols: ALPN names, the preferred first.  A client that offers none of them is served
        without ALPN, as HTTP/1.1.
    :param min_version: the oldest version of TLS spoken, one of `VERSIONS`.
    :raises CertificateError: OpenSSL refuses the pair.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(VERSIONS[min_version])
    context.set_options(_OPTIONS)
    # Idle connections give their 34 KiB of buffers back (R30).
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(CIPHERS)
    _set_groups(context)
    # Resumption is by ticket, of which the client bears the memory.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"mcpgate")
    try:
        context.use_certificate(certificate.chain[0])
        for link in certificate.chain[1:]:
            context.add_extra_chain_cert(link)
        # OpenSSL's types lag behind those of cryptography; it says itself what it can not use.
        context.use_privatekey(certificate.key)  # type: ignore[arg-type]
        context.check_privatekey()
    except (SSL.Error, TypeError, ValueError) as error:
        raise CertificateError(
            f"OpenSSL does not accept certificate {certificate.files.chain} with key "
            f"{certificate.files.key_path}. Use an RSA (2048 bits or more) or ECDSA pair."
        ) from error

    offered = tuple(protocols)

    def choose(connection: SSL.Connection, wanted: list[bytes]) -> object:
        for protocol in offered:
            if protocol in wanted:
                return protocol
        return SSL.NO_OVERLAPPING_PROTOCOLS

    context.set_alpn_select_callback(choose)  # type: ignore[arg-type]  # sentinel's type is private
    return context


def _set_groups(context: SSL.Context) -> None:
    # pyOpenSSL has no call for a list of groups; Twisted takes the same way round.
    for groups in GROUPS:
        if lib.SSL_CTX_set1_curves_list(context._context, groups) == 1:
            return
        lib.ERR_clear_error()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """
    One generation of contexts.

    :ivar exact: by name; ``wildcard``: by what follows ``*.``.
    """

    default: SSL.Context
    exact: dict[bytes, SSL.Context]
    wildcard: dict[bytes, SSL.Context]

    def find(self, name: bytes | None) -> SSL.Context:
        """Give the context for a server name: exact, else wildcard, else the first."""
        if not name:
            return self.default
        name = name.lower()
        found = self.exact.get(name) or self.wildcard.get(name.partition(b".")[2])
        return found or self.default


def select_among(
    certificates: Sequence[Certificate], protocols: Sequence[bytes], min_version: str = "1.2"
) -> Selection:
    """
    Make contexts for certificates, of which the first is the default.

    Where two are good for one name the earlier is served.
    """
    contexts = [server_context(one, protocols, min_version) for one in certificates]
    exact: dict[bytes, SSL.Context] = {}
    wildcard: dict[bytes, SSL.Context] = {}
    for certificate, context in zip(certificates, contexts, strict=True):
        for name in certificate.names:
            if name.startswith("*."):
                wildcard.setdefault(name[2:].encode(), context)
            else:
                exact.setdefault(name.encode(), context)
    selection = Selection(default=contexts[0], exact=exact, wildcard=wildcard)

    def by_name(connection: SSL.Connection) -> None:
        # Whatever is raised here ends the handshake with an alert: it fails closed.
        context = selection.find(connection.get_servername())
        if context is not selection.default:
            connection.set_context(context)

    selection.default.set_tlsext_servername_callback(by_name)
    return selection


Source = CertificateFiles | Callable[[], Certificate]


@implementer(IOpenSSLServerConnectionCreator)
class CertificateStore:
    """
    The certificates served now, and where they come from.

    Reading is strict when made: a gate is not started with a broken pair.  Later reads keep what
    is served when a file is missing or wrong, and say so.

    :param sources: files to read, or callables that give a certificate (`self_signed`, ACME); the
        first one's certificate is shown to clients that ask for an unknown name or none.
    :param now: wall clock, aware.
    :param http2: offer ``h2`` by ALPN.
    :param min_version: the oldest version of TLS spoken, one of `VERSIONS`.
    :ivar certificates: what is served now.
    :raises CertificateError: when made, and a source can not be used.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        now: Callable[[], datetime],
        meters: Meters,
        http2: bool = False,
        min_version: str = "1.2",
    ) -> None:
        if not sources:
            raise CertificateError("No certificate is configured. Name one, or let one be made.")
        self._sources = tuple(sources)
        self._now = now
        self._meters = meters
        self._protocols = (HTTP2, HTTP1) if http2 else (HTTP1,)
        self._min_version = min_version
        self._seen: object = None
        self._warned: dict[tuple[str, datetime], float] = {}
        self.certificates: tuple[Certificate, ...] = ()
        self._selection = self._load()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of every certificate, once."""
        return tuple(dict.fromkeys(name for c in self.certificates for name in c.names))

    @property
    def first_expiry(self) -> datetime:
        """When the first of the certificates ends; for the metric."""
        return min(certificate.not_after for certificate in self.certificates)

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See `IOpenSSLServerConnectionCreator.serverConnectionForTLS`."""
        connection = SSL.Connection(self._selection.default, None)
        connection.set_accept_state()
        return connection

    def refresh(self) -> bool:
        """
        Read again if a file has changed (or a callable is among the sources); look at expiry.

        Cheap when nothing changed; meant for a `Ticker` of 5 s or less and for SIGHUP.

        :return: whether other certificates are served than before.
        """
        changed = False
        if self._signature() != self._seen:
            changed = self.reload()
        self.warn_of_expiry()
        return changed

    def reload(self) -> bool:
        """Read everything again; a source that can not be used leaves all as it was."""
        before = [certificate.chain for certificate in self.certificates]
        selection = self._selection
        try:
            self._selection = self._load()
        except CertificateError as error:
            self._meters.events["certificate_reload_failed"] += 1
            log.error("Certificates stay as they were: {reason}", reason=str(error))
            return False
        if [certificate.chain for certificate in self.certificates] == before:
            # Tickets are the contexts': new ones would make everybody shake hands anew.
            self._selection = selection
            return False
        self._meters.events["certificate_reloaded"] += 1
        log.info("New certificates are served for {names}", names=", ".join(self.names))
        return True

    def warn_of_expiry(self) -> None:
        """Tell, once for each of 30, 7 and 1 days and the end, that a certificate runs out."""
        now = self._now()
        for certificate in self.certificates:
            days = certificate.days_left(now)
            due = [limit for limit in (*EXPIRY_WARNINGS, 0) if days <= limit]
            mark = (certificate.files.chain, certificate.not_after)
            if not due or self._warned.get(mark, float("inf")) <= due[-1]:
                continue
            self._warned[mark] = due[-1]
            if days <= 0:
                log.error(
                    "Certificate {chain} has expired {days:.0f} days ago: clients refuse it",
                    chain=certificate.files.chain,
                    days=-days,
                )
            else:
                log.warn(
                    "Certificate {chain} expires in {days:.0f} days",
                    chain=certificate.files.chain,
                    days=days,
                )

    def _load(self) -> Selection:
        # Taken before reading: what is replaced meanwhile is read again next time.
        self._seen = self._signature()
        certificates = tuple(
            load_certificate(source) if isinstance(source, CertificateFiles) else source()
            for source in self._sources
        )
        selection = select_among(certificates, self._protocols, self._min_version)
        self.certificates = certificates
        return selection

    def _signature(self) -> list[object]:
        """Tell the state of the files, so that two looks can be compared."""
        signature: list[object] = []
        for source in self._sources:
            if isinstance(source, CertificateFiles):
                signature.extend(_stat_all((source.chain, source.key_path)))
            else:
                # It says itself when it has a new one; asked at most once per minute.
                signature.append(self._now().replace(second=0, microsecond=0))
        return signature


def _stat_all(paths: Iterable[str]) -> list[object]:
    found: list[object] = []
    for path in paths:
        try:
            stat = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return found
