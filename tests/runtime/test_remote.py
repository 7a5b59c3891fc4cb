"""Servers the gate does not start."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mcpgate.interfaces import IInstance, IRuntime
from mcpgate.model import InstanceKey, Isolation, Launch, Owner, ServerSpec, Transport, Usage
from mcpgate.runtime.remote import RemoteRuntime

SPEC = ServerSpec(name="far", transport=Transport.HTTP, runtime="remote", url="https://far.example")
KEY = InstanceKey("far", Owner(Isolation.SHARED))


class RemoteRuntimeTests(SynchronousTestCase):
    """Everything succeeds at once."""

    def test_life(self) -> None:
        """Started, the same again, stopped, stopped again."""
        runtime = RemoteRuntime()
        verifyObject(IRuntime, runtime)
        launch = Launch(instance_id="r1", key=KEY, values={})
        instance = self.successResultOf(runtime.start(SPEC, launch))
        verifyObject(IInstance, instance)
        self.assertIs(self.successResultOf(runtime.start(SPEC, launch)), instance)
        self.assertEqual((instance.logs(), instance.usage()), ([], Usage()))
        self.assertEqual(instance.log_after(0), ([], 0))
        ended = instance.when_ended()
        self.assertNoResult(ended)
        how = self.successResultOf(runtime.stop(instance, 1.0))
        self.assertEqual(how.reason, "stopped")
        self.assertEqual(self.successResultOf(ended), how)
        self.assertEqual(self.successResultOf(runtime.stop(instance, 1.0)), how)
        self.successResultOf(runtime.remove(KEY))
        self.assertEqual(self.successResultOf(runtime.adopt()), [])

    def test_shutdown(self) -> None:
        """Shutting down ends every use."""
        runtime = RemoteRuntime()
        launch = Launch(instance_id="r1", key=KEY, values={})
        instance = self.successResultOf(runtime.start(SPEC, launch))
        self.successResultOf(runtime.shutdown())
        self.assertEqual(self.successResultOf(instance.when_ended()).reason, "stopped")
