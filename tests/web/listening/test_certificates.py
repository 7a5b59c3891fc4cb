"""Tests for `mcpgate.web.listening.certificates`."""

from __future__ import annotations

import os
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.web.listening.certificates import (
    CertificateError,
    CertificateFiles,
    load_certificate,
    make_self_signed,
    self_signed,
)
from tests.web.memory_tls import NOW, common_name_only, write_certificate


class LoadTests(SynchronousTestCase):
    """Reading a pair."""

    @override
    def setUp(self) -> None:
        self.directory = self.mktemp()
        self.files = write_certificate(self.directory, "a", "a.example.org", "*.b.example.org")

    def refused(self, files: CertificateFiles) -> str:
        """Give the text a pair is refused with."""
        return str(self.assertRaises(CertificateError, load_certificate, files))

    def test_good_pair(self) -> None:
        """A pair is read with its names and the end of its life."""
        certificate = load_certificate(self.files)
        self.assertEqual(certificate.names, ("a.example.org", "*.b.example.org"))
        self.assertGreater(certificate.days_left(NOW), 7)
        self.assertIn("a.pem", repr(certificate))
        self.assertNotIn("PrivateKey", repr(certificate))

    def test_one_file(self) -> None:
        """Certificate and key may lie in one file."""
        with open(self.files.chain, "ab") as stream, open(self.files.key, "rb") as key:
            stream.write(key.read())
        certificate = load_certificate(CertificateFiles(chain=self.files.chain))
        self.assertEqual(certificate.names[0], "a.example.org")

    def test_missing_files_are_named(self) -> None:
        """The text of the error names the file that is missing."""
        self.assertIn("/nowhere.pem does not", self.refused(CertificateFiles(chain="/nowhere.pem")))
        lost = CertificateFiles(chain=self.files.chain, key="/nowhere.key")
        self.assertIn("Key file /nowhere.key does not exist", self.refused(lost))

    def test_unreadable_file(self) -> None:
        """A path that can not be read is named with the reason."""
        self.assertIn("Is a directory", self.refused(CertificateFiles(chain=self.directory)))

    def test_not_pem(self) -> None:
        """Files of another form are named."""
        junk = os.path.join(self.directory, "junk")
        with open(junk, "w") as stream:
            stream.write("junk")
        self.assertIn(f"Certificate file {junk}", self.refused(CertificateFiles(chain=junk)))
        files = CertificateFiles(chain=self.files.chain, key=junk)
        self.assertIn(f"Key file {junk}", self.refused(files))

    def test_mismatched_pair(self) -> None:
        """A key of another certificate is refused by name."""
        other = write_certificate(self.directory, "c", "c.example.org")
        files = CertificateFiles(chain=self.files.chain, key=other.key)
        self.assertIn("does not belong to", self.refused(files))

    def test_wrong_order(self) -> None:
        """A chain that begins with the authority's certificate is told apart from a wrong key."""
        other = write_certificate(self.directory, "c", "c.example.org")
        with open(other.chain, "ab") as stream, open(self.files.chain, "rb") as mine:
            stream.write(mine.read())
        files = CertificateFiles(chain=other.chain, key=self.files.key)
        self.assertIn("own certificate first", self.refused(files))

    def write_key(self, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, secret: bytes) -> str:
        """Write a key, encrypted when there is a secret."""
        path = os.path.join(self.directory, "other.key")
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if secret:
            encryption = serialization.BestAvailableEncryption(secret)
        with open(path, "wb") as stream:
            stream.write(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
                )
            )
        return path

    def test_encrypted_key(self) -> None:
        """An encrypted key is refused with the command that decrypts it."""
        path = self.write_key(ec.generate_private_key(ec.SECP256R1()), b"secret")
        files = CertificateFiles(chain=self.files.chain, key=path)
        self.assertIn("openssl pkey", self.refused(files))

    def test_expired_is_read(self) -> None:
        """An expired certificate without alternative names is read all the same."""
        certificate, key = common_name_only("Old.Example.org")
        path = os.path.join(self.directory, "old.pem")
        with open(path, "wb") as stream:
            stream.write(certificate.public_bytes(serialization.Encoding.PEM) + key)
        loaded = load_certificate(CertificateFiles(chain=path))
        self.assertEqual(loaded.names, ("old.example.org",))
        self.assertEqual(loaded.days_left(NOW), -1)

    def test_short_rsa_key(self) -> None:
        """An RSA key clients would refuse is refused here."""
        key = rsa.generate_private_key(65537, 1024)
        path = self.write_key(key, b"")
        subject = x509.Name([])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject)
        from cryptography.hazmat.primitives import hashes

        certificate = (
            builder.public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(NOW)
            .not_valid_after(NOW + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        chain = os.path.join(self.directory, "short.pem")
        with open(chain, "wb") as stream:
            stream.write(certificate.public_bytes(serialization.Encoding.PEM))
        self.assertIn("1024 bits", self.refused(CertificateFiles(chain=chain, key=path)))


class SelfSignedTests(SynchronousTestCase):
    """The certificate the gate makes for itself."""

    @override
    def setUp(self) -> None:
        self.directory = os.path.join(self.mktemp(), "state")

    def test_made_and_kept(self) -> None:
        """It is made once, for the names asked and the local ones, its key readable by us only."""
        first = self_signed(self.directory, ["Gate.example.org", "192.0.2.1"], NOW)
        self.assertEqual(
            first.names, ("gate.example.org", "localhost", "192.0.2.1", "127.0.0.1", "::1")
        )
        self.assertEqual(os.stat(first.files.key).st_mode & 0o777, 0o600)
        again = self_signed(self.directory, ["gate.example.org"], NOW + timedelta(days=817))
        self.assertEqual(again.chain, first.chain)
        self.assertEqual(len(os.listdir(self.directory)), 2)

    def test_renewed_before_its_end(self) -> None:
        """With a week to go it is made anew."""
        first = self_signed(self.directory, [], NOW)
        later = self_signed(self.directory, [], NOW + timedelta(days=819))
        self.assertNotEqual(later.chain, first.chain)

    def test_new_name(self) -> None:
        """A name it does not have makes a new one."""
        self_signed(self.directory, [], NOW)
        self.assertIn("x.example.org", self_signed(self.directory, ["x.example.org"], NOW).names)

    def test_broken_pair_is_replaced(self) -> None:
        """A pair torn by a crash is made anew."""
        first = self_signed(self.directory, [], NOW)
        os.unlink(first.files.key)
        self.assertNotEqual(self_signed(self.directory, [], NOW).chain, first.chain)

    def test_no_authority(self) -> None:
        """It can vouch for no other certificate."""
        chain, _ = make_self_signed(["localhost"], NOW)
        certificate = x509.load_pem_x509_certificate(chain)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertFalse(basic.value.ca)

    def test_directory_not_writable(self) -> None:
        """A state directory that can not be written is named."""
        os.makedirs(os.path.dirname(self.directory))
        with open(self.directory, "w"):
            pass
        error = self.assertRaises(CertificateError, self_signed, self.directory, [], NOW)
        self.assertIn(self.directory, str(error))

    def test_write_failure_leaves_no_rest(self) -> None:
        """A failed write leaves no temporary file behind."""
        os.makedirs(os.path.join(self.directory, "self-signed.key"))
        self.assertRaises(CertificateError, self_signed, self.directory, [], NOW)
        self.assertEqual(os.listdir(self.directory), ["self-signed.key"])

    def test_name_that_can_not_be(self) -> None:
        """A name that is not ASCII is refused with advice."""
        error = self.assertRaises(CertificateError, self_signed, self.directory, ["münchen"], NOW)
        self.assertIn("xn--", str(error))
