"""
A group of servers as one server of the modern era; see `ModernAsker`.

Lists and greetings are asked of every server at once and put together (`mcpgate.mcp.merge`); a
server that does not answer is left out, and whoever listens hears when it comes back.  A call goes
to the one server its name means.  Clients of the legacy era reach a group over the bridge, like
any modern server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mcpgate._version import __version__
from mcpgate.errors import BackendTimeout, GateError, InvalidParams, MethodNotFound
from mcpgate.interfaces import IInbound, IMessageSink
from mcpgate.mcp import merge
from mcpgate.mcp.jsonrpc import Message, Request, Response
from mcpgate.mcp.methods import DISCOVER, LISTEN
from mcpgate.mcp.modern import COMPLETE, META_SERVER, MODERN, meta_of
from mcpgate.model import Caller, Group, Principal, ServerSpec, Transport
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.mcp.modern.exchange import public_error
from mcpgate.web.mcp.together.listen import Absences, TogetherListen
from mcpgate.web.mcp.together.member import Members, RefusedError

log = Logger()

# Who asks for a list waits no longer for the slowest server.
LIST_WAIT_S: Final = 20.0
# A greeting must not keep clients from connecting.
GREETING_WAIT_S: Final = 5.0
MAX_PAGES: Final = 50
MAX_ITEMS: Final = 10_000
#: In ``_meta`` of a merged list: the servers whose items are missing.
META_ABSENT: Final = "dev.mcpgate/unavailable"

_NAMED: Final[Mapping[str, str]] = {"tools/call": "tools/list", "prompts/get": "prompts/list"}
_METHOD_NOT_FOUND: Final = -32601
_KEPT_BOOKS: Final = 1000

Lists = dict[str, list[dict[str, object]]]


class Aggregate:
    """
    The groups of a gate.

    :param servers: gives the entry of a server.
    :param running: tells whether a caller's instance of a server runs.
    """

    def __init__(
        self,
        members: Members,
        servers: Callable[[str], ServerSpec | None],
        *,
        running: Callable[[ServerSpec, Caller], bool],
        clock: IReactorTime,
        wheel: DeadlineWheel,
    ) -> None:
        self.members = members
        self.clock = clock
        self.wheel = wheel
        self._servers = servers
        self._running = running
        self._absences = Absences()
        # By principal and group: lists may differ by who asks.
        self._books: dict[tuple[Principal, str], merge.Book] = {}

    def ask(
        self,
        spec: ServerSpec,
        caller: Caller,
        request: Request,
        sink: IMessageSink,
        *,
        source: IInbound | None = None,
        params_fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> Callable[[], None]:
        """
        See `ModernAsker.ask`; fields of parameters are made anew for the server asked.

        To listen without a ``source``, for a client that did not ask for it, starts no server.
        """
        if request.method == LISTEN:
            listen = TogetherListen(
                self,
                self._absences,
                self.view(spec, caller),
                spec,
                caller,
                request,
                sink,
                source,
                modest=source is None,
            )
            listen.begin()
            return listen.cancel
        return _Work(self, spec, caller, request, sink, source).begin()

    def view(self, spec: ServerSpec, caller: Caller) -> merge.View:
        """Give how the group is shown to a caller: only servers its key may use."""
        group = group_of(spec)
        whole = caller.may_use(spec.name)
        return merge.View(
            servers=tuple(
                name
                for name in group.servers
                if (whole or caller.may_use(name)) and self._servers(name) is not None
            ),
            alias=group.alias,
            allow=group.allow,
            deny=group.deny,
            rename=dict(group.rename),
        )

    def server(self, name: str) -> ServerSpec:
        """
        Give the entry of a server.

        :raises InvalidParams: it was taken out since the view was made.
        """
        spec = self._servers(name)
        if spec is None:
            raise InvalidParams(f"There is no server {name} any more.")
        return spec

    def book(self, spec: ServerSpec, caller: Caller, view: merge.View) -> merge.Book:
        """Give what is known of the names that were shown to a caller."""
        key = (caller.principal, spec.name)
        book = self._books.pop(key, None)
        if book is None or book.view != view:
            book = merge.Book(view)
        self._books[key] = book
        if len(self._books) > _KEPT_BOOKS:
            del self._books[next(iter(self._books))]
        return book

    def runs(self, name: str, caller: Caller) -> bool:
        """Tell whether a server can be asked without starting it."""
        spec = self._servers(name)
        if spec is None:
            return False
        here = spec.transport is not Transport.REST and not spec.url
        return not here or self._running(spec, caller)

    def used(self, spec: ServerSpec, caller: Caller, name: str) -> None:
        """Note that a server has answered; whoever waited for that listens to it now."""
        self._absences.used(caller.principal, spec.name, name)

    def absent(self, spec: ServerSpec, caller: Caller, names: frozenset[str]) -> None:
        """Note which servers did not answer a list; whoever listens hears of a change."""
        self._absences.note(caller.principal, spec.name, names)


class _Work:
    """One request to a group, but for listening."""

    def __init__(
        self,
        aggregate: Aggregate,
        spec: ServerSpec,
        caller: Caller,
        request: Request,
        sink: IMessageSink,
        source: IInbound | None,
    ) -> None:
        self._aggregate = aggregate
        self._members = aggregate.members
        self._spec = spec
        self._caller = caller
        self._request = request
        self._sink = sink
        self._source = source
        self._view = aggregate.view(spec, caller)
        self._book = aggregate.book(spec, caller, self._view)
        self._given_up = False

    def begin(self) -> Callable[[], None]:
        """Begin; gives what takes the request back."""
        working = Deferred.fromCoroutine(self._answer())
        working.addErrback(self._failed)

        def give_up() -> None:
            self._given_up = True
            working.cancel()

        return give_up

    def _failed(self, failure: Failure) -> None:
        if self._given_up:
            return
        if isinstance(failure.value, RefusedError):
            self._sink.finish(replace(failure.value.response, id=self._request.id))
        else:
            self._sink.fail(public_error(failure, self._spec.name))

    async def _answer(self) -> None:
        method = self._request.method
        if method == DISCOVER:
            self._finish(await self._greeting())
        elif method in merge.LISTS:
            self._finish(await self._list())
        elif method in _NAMED:
            await self._call(_NAMED[method])
        elif method == "resources/read":
            await self._read()
        elif method == "completion/complete":
            await self._complete()
        else:
            raise MethodNotFound(f"A group of servers has no {method}.")

    def _finish(self, result: dict[str, object]) -> None:
        if not self._given_up:
            self._sink.finish(Response(self._request.id, result))

    # --- All of them ------------------------------------------------------------------------------

    async def _greeting(self) -> dict[str, object]:
        told = await self._of_all(DISCOVER, GREETING_WAIT_S)
        results = [one[0] for one in told.values()]
        capabilities = [
            one for result in results if isinstance(one := result.get("capabilities"), dict)
        ]
        merged = merge.merged_capabilities(capabilities)
        merged.pop("tasks", None)
        merged.pop("extensions", None)
        if len(told) < len(self._view.servers):
            # Whoever is late has tools, most likely; an empty list is no lie.
            merged.setdefault("tools", {"listChanged": True})
        greeting: dict[str, object] = {
            "resultType": COMPLETE,
            "supportedVersions": [MODERN],
            "capabilities": merged,
            **merge.merged_hints(results, all_of_them=len(told) == len(self._view.servers)),
            "_meta": self._meta(),
        }
        instructions = merge.merged_instructions(
            {name: one[0].get("instructions") for name, one in told.items()}
        )
        return {**greeting, "instructions": instructions} if instructions else greeting

    async def _list(self) -> dict[str, object]:
        method = self._request.method
        kind = merge.LISTS[method]
        told = await self._of_all(method, LIST_WAIT_S)
        items: Lists = {name: _items(results, kind.member) for name, results in told.items()}
        if kind.field == "name":
            for name, found in items.items():
                self._book.learn(method, name, found)
        absent = frozenset(self._view.servers) - frozenset(told)
        self._aggregate.absent(self._spec, self._caller, absent)
        shown = merge.shown_items(self._view, method, items)
        cursor = (self._request.params or {}).get("cursor")
        page, after = merge.page(shown, cursor, group_of(self._spec).page_size)
        first = [results[0] for results in told.values()]
        meta = self._meta()
        if absent:
            meta[META_ABSENT] = sorted(absent)
        result: dict[str, object] = {
            "resultType": COMPLETE,
            kind.member: page,
            **merge.merged_hints(first, all_of_them=not absent),
            "_meta": meta,
        }
        if set(self._view.servers) != set(group_of(self._spec).servers):
            result["cacheScope"] = "private"
        return {**result, "nextCursor": after} if after is not None else result

    def _meta(self) -> dict[str, object]:
        return {META_SERVER: {"name": "mcpgate", "version": __version__}}

    async def _of_all(self, method: str, wait_s: float) -> dict[str, list[dict[str, object]]]:
        """
        Ask every server; give the results (of every page) of those that answered in time.

        One that does not know the method has nothing of it, which is an answer too.
        """
        asked = {
            name: Deferred.fromCoroutine(self._pages(name, method)).addTimeout(
                wait_s, self._aggregate.clock
            )
            for name in self._view.servers
        }
        told: dict[str, list[dict[str, object]]] = {}
        try:
            for name, asking in asked.items():
                try:
                    told[name] = await asking
                    self._aggregate.used(self._spec, self._caller, name)
                except CancelledError:
                    raise
                except Exception as error:
                    log.info(
                        "{server} did not answer {method} for {group}: {why}",
                        server=name,
                        method=method,
                        group=self._spec.name,
                        why=_words(error),
                    )
        except CancelledError:
            for asking in asked.values():
                asking.addErrback(lambda _: None)
                asking.cancel()
            raise
        return told

    async def _pages(self, name: str, method: str) -> list[dict[str, object]]:
        pages: list[dict[str, object]] = []
        cursor: object = None
        count = 0
        for _ in range(MAX_PAGES):
            params: dict[str, object] = {"_meta": _own_meta(self._request)}
            if cursor is not None:
                params["cursor"] = cursor
            request = Request(f"mcpgate-{method}", method, params)
            server = self._aggregate.server(name)
            try:
                answer = await self._members.answer(server, self._caller, request, self._source)
            except RefusedError as refused:
                if refused.response.code == _METHOD_NOT_FOUND and not pages:
                    return [{"ttlMs": 0, "cacheScope": "private"}]
                raise
            pages.append(answer.result)
            if method in merge.LISTS:
                count += len(_items([answer.result], merge.LISTS[method].member))
            cursor = answer.result.get("nextCursor")
            if not isinstance(cursor, str) or count > MAX_ITEMS:
                break
        return pages

    # --- One of them ------------------------------------------------------------------------------

    async def _call(self, listing: str) -> None:
        params = self._request.params or {}
        shown = params.get("name")
        if not isinstance(shown, str):
            raise InvalidParams("A name is missing.")
        meant = self._book.meant(listing, shown)
        if meant is None:
            # It may have been cut or renamed, and its list never asked for since we started.
            for name, results in (await self._of_all(listing, LIST_WAIT_S)).items():
                self._book.learn(listing, name, _items(results, merge.LISTS[listing].member))
            meant = self._book.meant(listing, shown)
        if meant is None or not self._view.shows(*meant):
            what = "tool" if listing == "tools/list" else "prompt"
            raise InvalidParams(f"Unknown {what}: {shown[:100]}")
        server, name = meant
        await self._pass_on(server, {**params, "name": name})

    async def _read(self) -> None:
        params = self._request.params or {}
        server, uri = self._resource(params.get("uri"))
        await self._pass_on(server, {**params, "uri": uri})

    async def _complete(self) -> None:
        params = self._request.params or {}
        reference = params.get("ref")
        if not isinstance(reference, dict):
            raise InvalidParams("ref must be an object.")
        if "uri" in reference:
            server, uri = self._resource(reference["uri"])
            await self._pass_on(server, {**params, "ref": {**reference, "uri": uri}})
            return
        shown = reference.get("name")
        meant = self._book.meant("prompts/list", shown) if isinstance(shown, str) else None
        if meant is None:
            raise InvalidParams("The reference is to no prompt or resource here.")
        await self._pass_on(meant[0], {**params, "ref": {**reference, "name": meant[1]}})

    def _resource(self, shown: object) -> tuple[str, str]:
        meant = self._view.meant_uri(shown) if isinstance(shown, str) else None
        if meant is None:
            raise InvalidParams("There is no such resource.")
        return meant

    async def _pass_on(self, server: str, params: dict[str, object]) -> None:
        """Put the request to one server, everything that answers it passed back."""
        request = Request(self._request.id, self._request.method, params)
        passed = _Passed(self._sink, self._view, server)
        passed.take_back = self._members.ask(
            self._aggregate.server(server), self._caller, request, passed, self._source
        )
        await passed.over
        self._aggregate.used(self._spec, self._caller, server)


@implementer(IMessageSink)
class _Passed:
    """Passes back what one server says, its resources under the addresses clients know."""

    def __init__(self, sink: IMessageSink, view: merge.View, server: str) -> None:
        self._sink = sink
        self._view = view
        self._server = server
        self.take_back: Callable[[], None] = lambda: None
        self.over: Deferred[None] = Deferred(lambda _: self.take_back())

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        self._sink.deliver(message)

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        if isinstance(response, Response):
            result = merge.with_shown_uris(self._view, self._server, response.result)
            response = Response(response.id, result)
        self._sink.finish(response)
        self.over.callback(None)

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        self._sink.fail(error)
        self.over.callback(None)


def group_of(spec: ServerSpec) -> Group:
    """Give the group an entry stands for."""
    assert spec.group is not None
    return spec.group


def _items(results: Sequence[Mapping[str, object]], member: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for result in results:
        items = result.get(member)
        if isinstance(items, list):
            found += [item for item in items if isinstance(item, dict)]
    return found[:MAX_ITEMS]


def _own_meta(request: Request) -> dict[str, object]:
    """Give the context of a request, without the token that would bring progress of ours."""
    return {key: value for key, value in meta_of(request).items() if key != "progressToken"}


def _words(error: Exception) -> str:
    return BackendTimeout.text if type(error).__name__ == "TimeoutError" else str(error)
