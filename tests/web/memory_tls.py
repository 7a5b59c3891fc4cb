"""Certificates in temporary directories and TLS clients in memory, for tests."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from typing_extensions import override

from mcpgate.web.listening.certificates import CertificateFiles, make_self_signed

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CLIENT = IPv4Address("TCP", "192.0.2.7", 50000)


def write_certificate(directory: str, stem: str, *names: str) -> CertificateFiles:
    """Write a fresh self-signed pair for these names, with the real clock's dates."""
    os.makedirs(directory, exist_ok=True)
    files = CertificateFiles(
        chain=os.path.join(directory, f"{stem}.pem"), key=os.path.join(directory, f"{stem}.key")
    )
    chain, key = make_self_signed(names, datetime.now(UTC))
    with open(files.chain, "wb") as stream:
        stream.write(chain)
    with open(files.key, "wb") as stream:
        stream.write(key)
    return files


def common_name_only(name: str) -> tuple[x509.Certificate, bytes]:
    """Make a certificate without alternative names, as old tools do, and its key in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=2))
        .not_valid_after(NOW - timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate, pem


class Recorder(Protocol):
    """Remembers what happened to it and echoes what it gets."""

    def __init__(self, address: IAddress) -> None:
        self.address = address
        self.received = b""
        self.peer: object = None
        self.host: object = None
        self.lost: Failure | None = None

    @override
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.peer = self.transport.getPeer()
        self.host = self.transport.getHost()

    @override
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.received += data
        self.transport.write(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class RecorderFactory(Factory[Recorder]):
    """Keeps the protocols it built; ``full`` makes it refuse."""

    noisy = False

    def __init__(self) -> None:
        self.built: list[Recorder] = []
        self.full = False
        self.running = 0

    @override
    def doStart(self) -> None:
        self.running += 1

    @override
    def doStop(self) -> None:
        self.running -= 1

    @override
    def buildProtocol(self, addr: IAddress | None) -> Recorder | None:
        if self.full:
            return None
        assert addr is not None
        self.built.append(Recorder(addr))
        return self.built[-1]


class Wire(StringTransport):
    """A server's transport that remembers being cut and tells its protocol of a close."""

    def __init__(self, peer: IAddress = CLIENT) -> None:
        super().__init__(peerAddress=peer)
        self.aborted = False
        self.at_once = False

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802 - Twisted's name
        """See `ITCPTransport`."""
        self.at_once = enabled

    @override
    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


def client_context(**options: object) -> SSL.Context:
    """Make a context that trusts everybody."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    if "alpn" in options:
        context.set_alpn_protos(options["alpn"])  # type: ignore[arg-type]  # tests pass lists
    if "maximum" in options:
        context.set_max_proto_version(options["maximum"])  # type: ignore[arg-type]  # an int
    if "ciphers" in options:
        context.set_cipher_list(options["ciphers"])  # type: ignore[arg-type]  # bytes
    return context


class MemoryClient:
    """
    A TLS client connected to a factory's protocol in memory.

    :ivar wire: the server's transport.
    """

    def __init__(
        self,
        factory: IProtocolFactory,
        context: SSL.Context,
        name: bytes = b"",
        session: SSL.Session | None = None,
    ) -> None:
        self.tls = SSL.Connection(context, None)
        self.tls.set_connect_state()
        if name:
            self.tls.set_tlsext_host_name(name)
        if session is not None:
            self.tls.set_session(session)
        self.wire = Wire()
        self.server = factory.buildProtocol(CLIENT)
        assert self.server is not None
        self.server.makeConnection(self.wire)

    def shake(self) -> None:
        """Complete the handshake; raises `SSL.Error` when the server refuses."""
        for _ in range(10):
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                self.pump()
            else:
                self.pump()
                return
        raise AssertionError("the handshake does not end")

    def pump(self) -> None:
        """Carry bytes both ways once."""
        assert self.server is not None
        try:
            data = self.tls.bio_read(1 << 16)
        except SSL.WantReadError:
            pass
        else:
            self.server.dataReceived(data)
        answer = self.wire.value()
        self.wire.clear()
        if answer:
            self.tls.bio_write(answer)

    def say(self, data: bytes) -> bytes:
        """Send bytes and read what comes back."""
        self.tls.send(data)
        self.pump()
        return self.tls.recv(1 << 16)

    @property
    def shown(self) -> str:
        """The first name of the certificate the server showed."""
        certificate = self.tls.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)[0]
