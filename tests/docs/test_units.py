"""Tests that the files for the system fit the documentation."""

from __future__ import annotations

import re
from dataclasses import fields

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from mcpgate.config.model import GateSection
from tests.docs.pages import ROOT, pages


class SystemdUnitTests(SynchronousTestCase):
    """``etc/mcpgate.service`` and ``etc/mcpgate.socket``."""

    @override
    def setUp(self) -> None:
        self.service = (ROOT / "etc" / "mcpgate.service").read_text(encoding="utf-8")

    def test_the_gate_outlives_its_drain(self) -> None:
        """The system waits longer for the end than calls may take by default."""
        stop = re.search(r"^TimeoutStopSec=(\d+)$", self.service, re.MULTILINE)
        assert stop is not None
        usual = {field.name: field.default for field in fields(GateSection)}["drain_s"]
        assert isinstance(usual, float)
        self.assertGreater(float(stop[1]), usual + 30.0)

    def test_a_refused_configuration_is_not_tried_again(self) -> None:
        """The exit status of a bad file ends the service for good."""
        self.assertIn("RestartPreventExitStatus=2\n", self.service)

    def test_socket_and_sample_share_the_name(self) -> None:
        """The socket's name is the one the guide has the gate listen on."""
        unit = (ROOT / "etc" / "mcpgate.socket").read_text(encoding="utf-8")
        name = re.search(r"^FileDescriptorName=(\S+)$", unit, re.MULTILINE)
        assert name is not None
        guide = (ROOT / "docs" / "guide" / "systemd.rst").read_text(encoding="utf-8")
        self.assertIn(f"listen = tls:systemd:name={name[1]}\n", guide)


class StyleTests(SynchronousTestCase):
    """What holds for every page."""

    def test_no_page_leads_to_a_machine_of_ours(self) -> None:
        """No path of the machine a page was written on is left in it."""
        for page in pages():
            text = page.read_text(encoding="utf-8")
            self.assertIsNone(re.search(r"/work/|/tmp/|/root/", text), str(page))

    def test_keys_shown_are_no_keys(self) -> None:
        """Made keys on pages are cut short or visibly invented."""
        for page in pages():
            for key in re.findall(r"mg_[0-9a-f]{8}_(\w+)", page.read_text(encoding="utf-8")):
                self.assertTrue(set("0123456789abcdef") >= set(key), str(page))
                self.assertTrue(("0123456789abcdef" * 4).startswith(key), str(page))
