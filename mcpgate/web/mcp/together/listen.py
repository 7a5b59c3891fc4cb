"""
``subscriptions/listen`` on a group: one subscription at each server, heard as one.

The acknowledgement comes when every server has acknowledged, refused or taken too long, and tells
the union.  A server that is lost is asked again later, and the client told that anything of it may
have changed.

A client of the modern era that listens wants to hear every server, which may start them.  One of
the legacy era has a stream open, and that is all it said: for it no server is started, but those
whose resources it subscribed to; the others are heard once they were used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from zope.interface import implementer

from mcpgate.errors import GateError
from mcpgate.interfaces import IInbound, IMessageSink
from mcpgate.mcp import merge
from mcpgate.mcp.jsonrpc import ErrorResponse, Message, Notification, Request
from mcpgate.mcp.listening import ACKNOWLEDGED, LISTS, Filter, acknowledgement, tagged
from mcpgate.mcp.methods import RESOURCE_UPDATED
from mcpgate.model import Caller, Principal, ServerSpec
from mcpgate.timing.wheel import Deadline

if TYPE_CHECKING:
    from mcpgate.web.mcp.together.aggregate import Aggregate

# A client must not wait for the slowest server to hear that it is listened to.
ACK_WAIT_S: Final = 10.0
AGAIN_S: Final = 15.0
LONGEST_S: Final = 240.0


class Absences:
    """Which servers of a group did not answer a caller, and who wants to hear of a change."""

    def __init__(self) -> None:
        self._absent: dict[tuple[Principal, str], frozenset[str]] = {}
        self._open: dict[tuple[Principal, str], dict[TogetherListen, None]] = {}

    def note(self, principal: Principal, group: str, names: frozenset[str]) -> None:
        """Note who did not answer just now; only kept while somebody listens."""
        key = (principal, group)
        listening = self._open.get(key)
        if listening is None:
            return
        before = self._absent.get(key)
        self._absent[key] = names
        if before is not None and before != names:
            for listen in tuple(listening):
                listen.changed()

    def used(self, principal: Principal, group: str, server: str) -> None:
        """Have streams hear a server that runs now."""
        for listen in tuple(self._open.get((principal, group), ())):
            listen.used(server)

    def add(self, principal: Principal, group: str, listen: TogetherListen) -> None:
        """Have a stream hear of changes."""
        self._open.setdefault((principal, group), {})[listen] = None

    def remove(self, principal: Principal, group: str, listen: TogetherListen) -> None:
        """Forget a stream that has ended."""
        key = (principal, group)
        listening = self._open.get(key, {})
        listening.pop(listen, None)
        if not listening:
            self._open.pop(key, None)
            self._absent.pop(key, None)


class TogetherListen:
    """
    One client's subscription to a group; its sink hears it as one server's.

    :ivar modest: no server is started to be listened to.
    """

    def __init__(
        self,
        aggregate: Aggregate,
        absences: Absences,
        view: merge.View,
        spec: ServerSpec,
        caller: Caller,
        request: Request,
        sink: IMessageSink,
        source: IInbound | None,
        *,
        modest: bool,
    ) -> None:
        self.filter = Filter.of(request)
        self.modest = modest
        self._aggregate = aggregate
        self._absences = absences
        self._view = view
        self._spec = spec
        self._caller = caller
        self._request = request
        self._sink = sink
        self._source = source
        self._acknowledged = False
        self._over = False
        self._patience: Deadline | None = None
        self._parts: list[_Part] = []

    def begin(self) -> None:
        """Subscribe at every server."""
        self._absences.add(self._caller.principal, self._spec.name, self)
        uris: dict[str, list[str]] = {}
        for shown in self.filter.uris:
            meant = self._view.meant_uri(shown)
            if meant is not None:
                uris.setdefault(meant[0], []).append(meant[1])
        self._patience = self._aggregate.wheel.arm(ACK_WAIT_S, self._acknowledge)
        self._parts = [_Part(self, name, uris.get(name, [])) for name in self._view.servers]
        for part in self._parts:
            part.begin()
        if not self._parts:
            self._acknowledge()

    def cancel(self) -> None:
        """End it: the client has gone."""
        if self._over:
            return
        self._over = True
        if self._patience is not None:
            self._patience.cancel()
        for part in self._parts:
            part.cancel()
        self._absences.remove(self._caller.principal, self._spec.name, self)

    def changed(self) -> None:
        """Tell the client that the lists are others: a server has gone or come back."""
        if self._acknowledged and not self._over:
            for notification in Filter(
                {**self.filter.told, "resourceSubscriptions": []}
            ).all_changed():
                self._deliver(notification)

    def used(self, server: str) -> None:
        """Hear a server that was waited for, and runs now."""
        for part in self._parts:
            if part.server == server:
                part.wake()

    # --- For the parts ----------------------------------------------------------------------------

    def subscribe(self, server: str, uris: list[str], sink: IMessageSink) -> Callable[[], None]:
        """Subscribe at one server."""
        wanted = {**self.filter.told, "resourceSubscriptions": uris}
        if not uris:
            del wanted["resourceSubscriptions"]
        params = {**(self._request.params or {}), "notifications": wanted}
        request = Request(self._request.id, self._request.method, params)
        spec = self._aggregate.server(server)
        return self._aggregate.members.ask(spec, self._caller, request, sink, self._source)

    def runs(self, server: str) -> bool:
        """Tell whether a server can be asked without a start."""
        return self._aggregate.runs(server, self._caller)

    def settled(self) -> None:
        """See whether every server has said what it honours, or that it does not."""
        if all(part.settled for part in self._parts):
            self._acknowledge()

    def heard(self, server: str, notification: Notification) -> None:
        """Pass on what a server tells, its resource under the address the client knows."""
        if not self._acknowledged or self._over:
            return
        params = dict(notification.params or {})
        if notification.method == RESOURCE_UPDATED and isinstance(params.get("uri"), str):
            params["uri"] = self._view.shown_uri(server, str(params["uri"]))
        self._deliver(Notification(notification.method, params))

    def again(self, part: _Part, delay_s: float) -> Deadline:
        """Ask a server that was lost again, later."""
        return self._aggregate.wheel.arm(delay_s, part.begin)

    def _acknowledge(self) -> None:
        if self._acknowledged or self._over:
            return
        self._acknowledged = True
        if self._patience is not None:
            self._patience.cancel()
        # A server may come and go whatever it says itself, so changes of lists are always told.
        told: dict[str, object] = {key: True for key in LISTS if self.filter.told.get(key) is True}
        uris = [
            self._view.shown_uri(part.server, uri)
            for part in self._parts
            if part.honoured is not None
            for uri in part.honoured.uris
        ]
        if uris:
            told["resourceSubscriptions"] = uris
        self._deliver(acknowledgement(Filter(told)))

    def _deliver(self, notification: Notification) -> None:
        self._sink.deliver(tagged(notification, self._request.id))


@implementer(IMessageSink)
class _Part:
    """
    The subscription at one server; see `IMessageSink`.

    :ivar honoured: what the server acknowledged; None before, and when it refused.
    :ivar settled: it has acknowledged or refused.
    """

    def __init__(self, whole: TogetherListen, server: str, uris: list[str]) -> None:
        self.server = server
        self.honoured: Filter | None = None
        self.settled = False
        self._whole = whole
        self._uris = uris
        self._lost = False
        self._waits = False
        self._pause_s = AGAIN_S
        self._again: Deadline | None = None
        self._take_back: Callable[[], None] | None = None
        self._over = False

    def begin(self) -> None:
        """Subscribe, or wait until the server is used."""
        self._again = None
        if self._over:
            return
        if self._whole.modest and not self._uris and not self._whole.runs(self.server):
            self._waits = True
            self._settle()
            return
        self._ask()

    def wake(self) -> None:
        """Subscribe at a server that was waited for."""
        if self._waits and not self._over:
            self._waits = False
            self._ask()

    def _ask(self) -> None:
        try:
            self._take_back = self._whole.subscribe(self.server, self._uris, self)
        except GateError as error:
            self.fail(error)

    def cancel(self) -> None:
        """End it."""
        self._over = True
        if self._again is not None:
            self._again.cancel()
        if self._take_back is not None:
            self._take_back()

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        if self._over or not isinstance(message, Notification):
            return
        if message.method != ACKNOWLEDGED:
            self._whole.heard(self.server, message)
            return
        self.honoured = Filter.acknowledged(message)
        self._pause_s = AGAIN_S
        lost, self._lost = self._lost, False
        self._settle()
        if lost:
            for notification in self.honoured.all_changed():
                self._whole.heard(self.server, notification)

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`; a server that has no subscriptions is not asked again."""
        self._take_back = None
        if isinstance(response, ErrorResponse):
            self._settle()
        else:
            self._lose()

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        self._take_back = None
        self._lose()

    def _settle(self) -> None:
        if not self.settled:
            self.settled = True
            self._whole.settled()

    def _lose(self) -> None:
        if self._over:
            return
        self._lost = True
        self._again = self._whole.again(self, self._pause_s)
        self._pause_s = min(LONGEST_S, self._pause_s * 2)
        self._settle()
