"""Certificates that change while the gate runs."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
from datetime import UTC, datetime
from unittest import TestCase

from mcpgate.web.listening.certificates import self_signed
from tests.functional.gate_process import GATE, STDIO, GateProcess, wait_for
from tests.functional.real import missing

TLS = "\n[tls]\ncertificates = <dir>/live.pem <dir>/live.key\n"


class CertificateTests(TestCase):
    """A gate with certificate files of the administrator."""

    def setUp(self) -> None:
        """Start it with the first of two certificates."""
        self.gate = GateProcess(self, GATE + STDIO + TLS)
        self.certificates = {}
        for stem in ("one", "two"):
            self_signed(str(self.gate.directory), (), datetime.now(UTC), stem=stem)
            pem = (self.gate.directory / f"{stem}.pem").read_text()
            self.certificates[stem] = ssl.PEM_cert_to_DER_cert(pem)
        self.install("one")
        self.trust("one")
        self.gate.start()

    def install(self, stem: str) -> None:
        """Put a certificate where the gate looks, as certbot does."""
        for kind in ("pem", "key"):
            new = self.gate.directory / f"new.{kind}"
            shutil.copy(self.gate.directory / f"{stem}.{kind}", new)
            new.rename(self.gate.directory / f"live.{kind}")

    def trust(self, stem: str) -> None:
        """Have the tests trust it."""
        path = self.gate.directory / f"{stem}.pem"
        self.gate._context = ssl.create_default_context(cafile=str(path))

    def shown(self) -> bytes | None:
        """Give the certificate a new connection sees."""
        line = self.gate.socket()
        try:
            return line.getpeercert(binary_form=True)
        finally:
            line.close()

    def test_swap(self) -> None:
        """SIGHUP takes up a new certificate; open connections go on."""
        connection = self.gate.connection()
        connection.request("GET", "/health")
        connection.getresponse().read()
        self.install("two")
        os.kill(self.gate.pid, signal.SIGHUP)

        self.trust("two")
        wait_for(self.sees_two, "the new certificate is shown")
        connection.request("GET", "/health")
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()

    def test_bad_swap(self) -> None:
        """Files that are no certificate are logged, and the old one is shown on."""
        (self.gate.directory / "live.pem").write_text("half a certif")
        os.kill(self.gate.pid, signal.SIGHUP)
        wait_for(lambda: "live.pem" in self.gate.log_text(), "it is logged")
        self.assertEqual(self.shown(), self.certificates["one"])

    def sees_two(self) -> bool:
        """Tell whether new connections see the second certificate."""
        try:
            return self.shown() == self.certificates["two"]
        except ssl.SSLError:
            return False

    def test_without_a_signal(self) -> None:
        """Replaced files are noticed within seconds."""
        self.install("two")
        self.trust("two")
        wait_for(self.sees_two, "the new certificate is shown")


class HTTP2Tests(TestCase):
    """``[gate] http2 = on``."""

    def test_served(self) -> None:
        """Who offers h2 is answered over it, everybody else over HTTP/1.1."""
        if shutil.which("curl") is None:
            missing("curl")
        gate = GateProcess(self, GATE.replace("[gate]", "[gate]\nhttp2 = on") + STDIO)
        gate.start()
        url = f"https://127.0.0.1:{gate.port}/health"
        for flag, version in (("--http1.1", "1.1"), ("--http2", "2")):
            told = subprocess.run(
                [
                    *("curl", "-sS", flag, "--cacert", str(gate.certificate), "-o", "/dev/null"),
                    *("-w", "%{http_code} %{http_version}", "--max-time", "10", url),
                ],
                capture_output=True,
                check=False,
                text=True,
            )
            self.assertEqual(told.stdout, f"200 {version}", told.stderr)
