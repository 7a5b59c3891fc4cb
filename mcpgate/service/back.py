"""The side of the servers, put together from ``[server:NAME]``: instances and upstreams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mcpgate.errors import BackendUnavailable
from mcpgate.interfaces import IInstance, IUpstream
from mcpgate.model import Isolation, ServerSpec, Transport
from mcpgate.telemetry.meters import Meters
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.upstream.http import HTTPUpstream, plain_endpoint, remote
from mcpgate.upstream.stdio import StdioUpstream


def make_connect(
    reactor: Any, wheel: DeadlineWheel, meters: Meters
) -> Callable[[ServerSpec, IInstance], IUpstream]:
    """Give what makes the upstream of an instance that has just become ready."""

    def connect(spec: ServerSpec, instance: IInstance) -> IUpstream:
        if spec.transport is Transport.STDIO:
            if instance.channel is None:
                raise BackendUnavailable("The server has no pipes.")
            return StdioUpstream(
                instance.channel,
                clock=reactor,
                wheel=wheel,
                ended=instance.when_ended(),
                meters=meters,
                name=instance.instance_id,
                max_calls=spec.max_calls,
                broadcast_logs=spec.isolation is not Isolation.SHARED,
            )
        if spec.url:
            place = remote(reactor, spec.url)
            return HTTPUpstream(
                reactor,
                place.make_endpoint,
                authority=place.authority,
                wheel=wheel,
                meters=meters,
            )
        if instance.address is None:
            raise BackendUnavailable("The server has no address.")
        host, port = instance.address
        return HTTPUpstream(
            reactor,
            lambda: plain_endpoint(reactor, host, port),
            authority=f"{host}:{port}".encode("ascii"),
            wheel=wheel,
            meters=meters,
        )

    return connect
