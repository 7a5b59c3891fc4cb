"""Tests of mcpgate.config.advice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.advice import advise
from mcpgate.config.load import parse_config
from tests.config.writing import BASE, ENVIRON, PATH

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def warnings(text: str, path: Path = PATH, *, found: bool = True) -> list[str]:
    """Give the warnings about a text."""
    config = parse_config(text, path, ENVIRON)
    return advise(config, ENVIRON, NOW, lambda name, _: name if found else None)


class AdviseTests(SynchronousTestCase):
    """Warnings about what is allowed but hardly meant."""

    def warned(self, text: str, words: str, *, found: bool = True) -> None:
        """Demand one warning with these words that the plain text does not get."""
        self.assertEqual([one for one in warnings(BASE) if words in one], [])
        hits = [one for one in warnings(text, found=found) if words in one]
        self.assertEqual(len(hits), 1, warnings(text, found=found))

    def test_usual(self) -> None:
        """The base text is only told what it lacks."""
        self.assertEqual(len(warnings(BASE)), 2)
        self.assertIn("does not exist yet", warnings(BASE)[0])
        self.assertIn("[admin] has no user", warnings(BASE)[1])

    def test_listeners(self) -> None:
        """Keys in clear, unknown hosts and untrusted certificates are told."""
        public = BASE.replace(":interface=127.0.0.1", "")
        self.warned(public, "keys travel in clear")
        self.warned(public, "neither public_url nor allowed_hosts")
        self.warned(public, "self-signed")
        named = public.replace("[gate]", "[gate]\npublic_url = https://a.example")
        self.assertFalse([one for one in warnings(named) if "neither" in one])

    def test_servers(self) -> None:
        """Missing programs and directories, endless instances and misspelt blanks are told."""
        self.assertTrue([one for one in warnings(BASE, found=False) if "is not found" in one])
        self.warned(BASE + "cwd = /nope-nope\n", "/nope-nope")
        self.warned(BASE + "idle_stop = 0\n", "idle_stop is 0")
        self.warned(BASE + "tools_pinned = block\nenv.A = {key}\n", "told who calls")
        self.warned(BASE + "env.A = {keys} {other_thing}\n", "{key} meant")
        self.warned(BASE.partition("[server")[0], "no [server:NAME]")

    def test_room(self) -> None:
        """More spare copies than there is room for are told."""
        warm = BASE + "warm = 4\n"
        self.warned(warm.replace("[gate]", "[gate]\nmax_running = 4"), "max_running is 4")
        self.warned(warm.replace("[gate]", "[gate]\nmemory_budget = 1GiB"), "takes 1GiB")
        self.assertFalse([one for one in warnings(warm) if "warm" in one])

    def test_anonymous(self) -> None:
        """A gate without keys is told to be one."""
        self.warned(BASE + "[auth:all]\ntype = none\n", "without a key")

    def test_admin(self) -> None:
        """With a user, or without statistics, there is nothing to say of [admin]."""
        for text in ("user = a\npassword = b\n", "stats = off\n"):
            self.assertEqual(len(warnings(BASE + "[admin]\n" + text)), 1)

    def test_certificates(self) -> None:
        """Expired, soon expiring, future and unreadable certificates are told."""
        base = Path(self.mktemp()).absolute()
        base.mkdir(parents=True)
        text = BASE + "[tls]\ncertificates = cert.pem cert.pem\n"
        for start, end, words in (
            (-20, -1, "has expired"),
            (-20, 10, "expires in 10 days"),
            (5, 300, "not valid yet"),
        ):
            (base / "cert.pem").write_bytes(make_certificate(start, end))
            hits = [one for one in warnings(text, base / "gate.ini") if words in one]
            self.assertEqual(len(hits), 1, words)
        (base / "cert.pem").write_bytes(make_certificate(-5, 300))
        told = warnings(text, base / "gate.ini")
        self.assertEqual([one for one in told if "cert.pem" in one], [])
        self.assertIn("there are certificates but no tls: listener", told)
        (base / "cert.pem").write_bytes(b"nonsense")
        told = warnings(text, base / "gate.ini")
        self.assertEqual(len([one for one in told if "can not be read" in one]), 1)


def make_certificate(start_days: int, end_days: int) -> bytes:
    """Make a certificate valid between two days counted from `NOW`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW + timedelta(days=start_days))
        .not_valid_after(NOW + timedelta(days=end_days))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
