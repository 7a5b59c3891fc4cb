"""Servers the gate does not start: the runtime of ``url`` entries."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mcpgate.interfaces import IInstance, IRuntime
from mcpgate.model import Exit, InstanceKey, Launch, ServerSpec, Usage
from mcpgate.runtime.ending import Ending


@implementer(IInstance)
class RemoteInstance:
    """See `IInstance`; it has neither address nor channel: the spec's ``url`` says where it is."""

    def __init__(self, instance_id: str, key: InstanceKey) -> None:
        self.instance_id = instance_id
        self.key = key
        self.address = None
        self.channel = None
        self._ending = Ending()
        self.ended: Deferred[Exit] = self._ending.ended

    def when_ended(self) -> Deferred[Exit]:
        """See `IInstance.when_ended`; it ends when the gate stops using it."""
        return self._ending.watch()

    def logs(self) -> list[str]:
        """See `IInstance.logs`."""
        return []

    def log_after(self, seen: int) -> tuple[list[str], int]:
        """See `IInstance.log_after`."""
        return [], 0

    def usage(self) -> Usage:
        """See `IInstance.usage`."""
        return Usage()

    def end(self) -> None:
        """Stop using it."""
        self._ending.tell(Exit(reason="stopped"))


@implementer(IRuntime)
class RemoteRuntime:
    """
    See `IRuntime`; everything succeeds at once.

    An instance stands for the connections to a remote server, so that these, too, are closed
    when nobody uses them.
    """

    def __init__(self) -> None:
        self._instances: dict[str, RemoteInstance] = {}

    def start(self, spec: ServerSpec, launch: Launch) -> Deferred[IInstance]:
        """See `IRuntime.start`."""
        instance = self._instances.get(launch.instance_id)
        if instance is None:
            instance = RemoteInstance(launch.instance_id, launch.key)
            self._instances[launch.instance_id] = instance
        found: IInstance = instance
        return succeed(found)

    def stop(self, instance: IInstance, grace_s: float) -> Deferred[Exit]:
        """See `IRuntime.stop`."""
        remote = self._instances.pop(instance.instance_id, None)
        if remote is not None:
            remote.end()
        return instance.when_ended()

    def assign(self, instance: IInstance, key: InstanceKey) -> None:
        """See `IRuntime.assign`; there are no spare ones of these."""

    def remove(self, key: InstanceKey) -> Deferred[None]:
        """See `IRuntime.remove`."""
        return succeed(None)

    def adopt(self) -> Deferred[list[IInstance]]:
        """See `IRuntime.adopt`."""
        return succeed([])

    def shutdown(self) -> Deferred[None]:
        """See `IRuntime.shutdown`."""
        instances, self._instances = self._instances, {}
        for instance in instances.values():
            instance.end()
        return succeed(None)
