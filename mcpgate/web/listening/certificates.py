"""
Certificates on disk: reading a chain with its key, and making a self-signed one.

Says how long a certificate is good for; never refuses one that has expired (R64): a gate that does
not start serves nobody, an expired certificate only those who insist.
"""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    PrivateKeyTypes,
    PublicKeyTypes,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

# Apple's bound on what a user may trust by hand; nobody asks for less of a certificate that was
# trusted on purpose.
SELF_SIGNED_LIFE = timedelta(days=825)
RENEW_BEFORE = timedelta(days=7)

_MIN_RSA_BITS = 2048


class CertificateError(Exception):
    """A certificate or key that can not be used; the text names the file and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """
    Where a certificate lies.

    :ivar chain: PEM file: the server's certificate first, then those that vouch for it.
    :ivar key: PEM file of the private key; the same file when empty.
    """

    chain: str
    key: str = ""

    @property
    def key_path(self) -> str:
        """The file that holds the key."""
        return self.key or self.chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """
    A certificate ready to serve.  Holds a private key: never logged.

    :ivar names: host names and addresses it is good for, lower case; ``*.`` wildcards as written.
    :ivar not_after: end of its life, aware.
    """

    files: CertificateFiles
    chain: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes
    names: tuple[str, ...]
    not_after: datetime

    def days_left(self, now: datetime) -> float:
        """Tell how many days it is still good for; negative when expired."""
        return (self.not_after - now) / timedelta(days=1)

    def __repr__(self) -> str:
        return f"Certificate({self.files.chain!r}, names={self.names!r})"


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise CertificateError(
            f"{what} {path} does not exist. Check the path, or create the file."
        ) from error
    except OSError as error:
        raise CertificateError(
            f"{what} {path} can not be read ({error.strerror}). "
            "Let the user that runs the gate read it, or pass it with LoadCredential= of systemd."
        ) from error


def load_certificate(files: CertificateFiles) -> Certificate:
    """
    Read and check a chain and its key.

    :raises CertificateError: missing, unreadable, not PEM, encrypted or mismatched.
    """
    chain = _load_chain(files)
    key = _load_key(files)
    leaf = chain[0]
    if _public_bytes(leaf.public_key()) != _public_bytes(key.public_key()):
        if any(_public_bytes(c.public_key()) == _public_bytes(key.public_key()) for c in chain[1:]):
            raise CertificateError(
                f"Certificate file {files.chain} begins with another certificate than the server's."
                " Put the server's own certificate first."
            )
        raise CertificateError(
            f"Key {files.key_path} does not belong to certificate {files.chain}. "
            "Use the key the certificate was requested with, or replace both files."
        )
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _MIN_RSA_BITS:
        raise CertificateError(
            f"Key {files.key_path} has only {key.key_size} bits; clients refuse it. "
            f"Use at least {_MIN_RSA_BITS} bits, or ECDSA."
        )
    return Certificate(
        files=files,
        chain=chain,
        key=key,
        names=certificate_names(leaf),
        not_after=leaf.not_valid_after_utc,
    )


def _load_chain(files: CertificateFiles) -> tuple[x509.Certificate, ...]:
    pem = _read(files.chain, "Certificate file")
    try:
        chain = tuple(x509.load_pem_x509_certificates(pem))
        # Parsed on demand: what is broken inside shall show here.
        chain[0].public_key()
        certificate_names(chain[0])
        return chain
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"Certificate file {files.chain} holds no readable PEM certificate. "
            "It must begin with -----BEGIN CERTIFICATE-----."
        ) from error


def _load_key(files: CertificateFiles) -> PrivateKeyTypes:
    pem = _read(files.key_path, "Key file")
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise CertificateError(
            f"Key {files.key_path} is encrypted. Decrypt it: "
            f"openssl pkey -in {files.key_path} -out plain.key"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"Key file {files.key_path} holds no readable PEM private key. "
            "Name the key's file with the certificate, or put the key into the same file."
        ) from error


def _public_bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def certificate_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Give the names of a certificate: its SANs, or the common name when there are none."""
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(name.value).lower() for name in common)
    dns = [name.lower() for name in san.get_values_for_type(x509.DNSName)]
    return (*dns, *(str(address) for address in san.get_values_for_type(x509.IPAddress)))


def self_signed(
    directory: str, names: Iterable[str], now: datetime, *, stem: str = "self-signed"
) -> Certificate:
    """
    Give the self-signed certificate kept in ``directory``, making it if need be.

    It is kept while it is good for more than 7 days and for every name asked: whoever trusted it
    by hand need not do so again.  The key's file is readable by its owner only.

    :param names: host names and addresses besides localhost, 127.0.0.1 and ::1.
    :param now: wall clock, aware.
    """
    wanted = tuple(dict.fromkeys([*(name.lower() for name in names), *LOCAL_NAMES]))
    files = CertificateFiles(
        chain=os.path.join(directory, f"{stem}.pem"), key=os.path.join(directory, f"{stem}.key")
    )
    if os.path.exists(files.chain):
        try:
            kept = load_certificate(files)
        except CertificateError:
            pass
        else:
            if kept.not_after - now > RENEW_BEFORE and set(wanted) <= set(kept.names):
                return kept
    chain, key = make_self_signed(wanted, now)
    try:
        # The key first: a crash in between leaves a mismatched pair, which is made anew.
        _write(files.key_path, key, 0o600)
        _write(files.chain, chain, 0o644)
    except OSError as error:
        raise CertificateError(
            f"The self-signed certificate can not be written to {directory} ({error.strerror}). "
            "Make the state directory writable for the gate, or configure a certificate."
        ) from error
    return load_certificate(files)


def make_self_signed(names: Sequence[str], now: datetime) -> tuple[bytes, bytes]:
    """
    Make an ECDSA P-256 certificate that can be trusted directly; answer PEM of it and its key.

    Not marked as an authority: whoever adds it to a trust store trusts this one server only, and
    stacks that refuse an authority as a server (rustls) take it.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "mcpgate self-signed"),
            x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64]),
        ]
    )
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clients' clocks are not ours.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + SELF_SIGNED_LIFE)
        .add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(usage, True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise CertificateError(
            f"{name!r} can not stand in a certificate. "
            "Write host names in ASCII (xn-- form) and addresses without brackets."
        ) from error


def _write(path: str, content: bytes, mode: int) -> None:
    """Replace the file as a whole: whoever reads it sees the old or the new one."""
    directory, name = os.path.split(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
