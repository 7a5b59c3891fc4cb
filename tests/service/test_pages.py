"""Tests of what a gate shows of itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.model import Config
from mcpgate.gate.catalog import Catalog
from mcpgate.gate.eras import EraBook
from mcpgate.model import ServerSpec, Transport
from mcpgate.service.pages import Pages

OLD = ServerSpec(name="old", transport=Transport.STDIO)
NEW = ServerSpec(name="new", transport=Transport.STDIO)


class PagesTests(SynchronousTestCase):
    """A gate whose servers were others when it started."""

    def test_eras_after_a_reload(self) -> None:
        """Eras are told of the servers there are now."""
        gateway = SimpleNamespace(
            config=Config(servers=(OLD,)), catalog=Catalog((NEW,)), eras=EraBook(lambda: 0.0)
        )
        pages: Any = SimpleNamespace(_gateway=gateway)
        self.assertEqual([one.server for one in Pages.eras(cast("Pages", pages))], ["new"])
