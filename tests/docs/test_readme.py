"""The README, which no build of the documentation reads."""

from __future__ import annotations

import io
import re

from docutils.core import publish_doctree
from twisted.trial.unittest import SynchronousTestCase

from tests.docs.pages import ROOT


class ReadmeTests(SynchronousTestCase):
    """``README.rst``."""

    def test_it_is_whole(self) -> None:
        """It is reStructuredText without a warning, and no merge left its marks in it."""
        text = (ROOT / "README.rst").read_text()
        said = io.StringIO()
        publish_doctree(text, settings_overrides={"warning_stream": said, "report_level": 2})
        self.assertEqual(said.getvalue(), "")
        self.assertEqual(re.findall(r"^(?:<<<<<<<|=======|>>>>>>>) .*", text, re.MULTILINE), [])
