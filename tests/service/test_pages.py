"""Tests of what a gate shows of itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.model import Config
from mcpgate.gate.catalog import Catalog
from mcpgate.gate.eras import EraBook
from mcpgate.model import InstanceKey, InstanceState, Isolation, Owner, ServerSpec, Transport, Usage
from mcpgate.runtime.pool import Report
from mcpgate.service.pages import Pages, view_of

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


class ViewTests(SynchronousTestCase):
    """One instance as it is shown."""

    def report(self, state: InstanceState, **more: Any) -> Report:
        """Make what the pool tells."""
        return Report(
            key=InstanceKey("old", Owner(Isolation.SHARED)),
            instance_id="i1",
            user="",
            state=state,
            since_at=100.0,
            last_use_at=150.0,
            leases=0,
            passive=0,
            starts=1,
            usage=Usage(),
            spec=OLD,
            last_exit=None,
            error="",
            **more,
        )

    def test_unresponsive(self) -> None:
        """One that does not answer is not shown as running, and still has its time."""
        view = view_of(self.report(InstanceState.RUNNING, unresponsive=True, heard_at=120.0), 200.0)
        self.assertEqual((view.state, view.heard_s, view.uptime_s), ("unresponsive", 80.0, 100.0))
        view = view_of(self.report(InstanceState.RUNNING, heard_at=190.0), 200.0)
        self.assertEqual((view.state, view.heard_s), ("running", 10.0))
        view = view_of(self.report(InstanceState.STOPPED), 200.0)
        self.assertEqual((view.state, view.heard_s), ("stopped", None))
