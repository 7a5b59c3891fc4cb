"""How the engine is found: as the ``docker`` command finds it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import TestCase, mock

from mcpgate.runtime.docker.engine import connect
from tests.functional.docker_engine import require_engine


class ConnectTests(TestCase):
    """`connect`."""

    def setUp(self) -> None:
        """Have an engine."""
        self.url = require_engine()

    def ping(self, url: str = "") -> bool:
        """Ask the engine that is found."""
        client: Any = connect(url, 5.0)
        try:
            return bool(client.ping())
        finally:
            client.close()

    def test_named(self) -> None:
        """The address of the configuration counts."""
        with mock.patch.dict("os.environ", {"DOCKER_HOST": "unix:///nowhere"}):
            self.assertTrue(self.ping(self.url))

    def test_variable(self) -> None:
        """DOCKER_HOST is heeded."""
        with mock.patch.dict("os.environ", {"DOCKER_HOST": self.url}):
            self.assertTrue(self.ping())

    def test_context(self) -> None:
        """So is the context in use."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "config.json").write_text(json.dumps({"currentContext": "lab"}))
        meta = folder / "contexts" / "meta" / hashlib.sha256(b"lab").hexdigest()
        meta.mkdir(parents=True)
        endpoint = {"docker": {"Host": self.url, "SkipTLSVerify": False}}
        told = {"Name": "lab", "Metadata": {}, "Endpoints": endpoint}
        (meta / "meta.json").write_text(json.dumps(told))
        with mock.patch.dict("os.environ", {"DOCKER_CONFIG": str(folder)}):
            os.environ.pop("DOCKER_HOST", None)
            self.assertTrue(self.ping())
