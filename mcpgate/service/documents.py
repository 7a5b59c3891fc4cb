"""
OpenAPI documents that are fetched: ``openapi = URL``.

Each is asked for at the start and every so often, never because somebody calls.  The last good one
is kept in the state directory, so that a start while its service is down has tools as well.  A
document that is broken, or can not be had, leaves the old one in place and is asked for again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    TimeoutError,
    gatherResults,
)
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.config.document_check import check
from mcpgate.config.problems import BadValueError
from mcpgate.config.rest import fetched_service
from mcpgate.errors import BadRequest
from mcpgate.mcp.rest_document import Described
from mcpgate.model import RESTSource, ServerSpec
from mcpgate.service.document_outbound import NotHadError, Outbound
from mcpgate.stores.document_files import DocumentFiles, Origin
from mcpgate.stores.sqlite import IBlockingThread, OneThread
from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.views import DocumentView
from mcpgate.timing.deferreds import deferred

log = Logger()

# Comes with an HTTP client, which takes long to load: on the thread, when there are documents.
_FETCH: Final = "mcpgate.service.document_fetch"

FOLDER: Final = "openapi"
# Its process gives up before; what is beside it is other documents' turns.
CHECK_S: Final = 300.0
FETCHES: Final = 4
# All that one reload brings.
PREPARE_S: Final = 90.0
RETRY_S: Final = 5.0
LONGEST_RETRY_S: Final = 300.0


@dataclass(slots=True, eq=False)
class _Document:
    """
    What is known of one document.

    :ivar tools: of the last good one; None: there is none yet.
    :ivar confirmed: the service said in this life of the gate that ``tools`` are its own.
    :ivar refused: digest of a document that is broken, not to be looked at again.
    :ivar problem: why the last try failed, with the remedy.
    """

    spec: ServerSpec
    source: RESTSource
    tools: Described | None = None
    origin: Origin | None = None
    confirmed: bool = False
    refused: tuple[str, str] = ("", "")
    problem: str = ""
    failures: int = 0
    timer: IDelayedCall | None = None
    work: Deferred[None] | None = None


class Documents:
    """
    The documents of one gate.

    :param thread: reads, checks and writes.
    :param outbound: how services are asked.
    :param changed: called with the servers whose tools are others now.
    :param examine: parses and validates; blocks.
    """

    def __init__(
        self,
        clock: IReactorTime,
        thread: IBlockingThread,
        files: DocumentFiles,
        outbound: Outbound,
        *,
        wall: Callable[[], float],
        meters: Meters,
        changed: Callable[[Sequence[str]], None],
        examine: Callable[[bytes], dict[str, Any]] = check,
    ) -> None:
        self._clock = clock
        self._thread = thread
        self._files = files
        self._outbound = outbound
        self._wall = wall
        self._meters = meters
        self._changed = changed
        self._examine = examine
        self._places = DeferredSemaphore(FETCHES)
        self._documents: dict[str, _Document] = {}
        self._prepared: dict[str, _Document] = {}
        self._running = self._stopped = False

    # --- Life -----------------------------------------------------------------------------------

    @deferred
    async def start(self, servers: Iterable[ServerSpec]) -> None:
        """Take up what an earlier life kept, and begin to ask; waits for no service."""
        self.take(servers)
        names = tuple(self._documents)
        tidying = self._thread.run(partial(self._files.tidy, names))
        await tidying.addErrback(
            lambda failure: log.warn("Old documents stay: {why}", why=failure.getErrorMessage())
        )
        # A reload may come meanwhile: what it brings is asked for as well.
        for one in tuple(self._documents.values()):
            await self._take_up(one)
        if self._stopped:
            return
        self._running = True
        if names:
            self._changed(names)
        self.renew()

    @deferred
    async def stop(self) -> None:
        """Ask for nothing any more."""
        self._stopped, self._running = True, False
        for one in (*self._documents.values(), *self._prepared.values()):
            _rest(one)
        self._thread.stop()
        await self._outbound.close()

    def renew(self) -> None:
        """Ask for every document now."""
        for one in self._documents.values():
            self._later(one, 0)

    # --- What is served ---------------------------------------------------------------------------

    def take(self, servers: Iterable[ServerSpec]) -> tuple[ServerSpec, ...]:
        """Serve these from now on, as the configuration has them; give them with their tools."""
        servers = tuple(servers)
        old, self._documents = self._documents, {}
        for spec in servers:
            if spec.rest_source is None:
                continue
            one = self._prepared.pop(spec.name, None) or old.pop(spec.name, None)
            if one is None or one.source != spec.rest_source:
                if one is not None:
                    _rest(one)
                one = _Document(spec, spec.rest_source)
            one.spec = spec
            self._documents[spec.name] = one
            if self._running and one.timer is None and one.work is None:
                self._later(one, self._wait_s(one) if one.confirmed else 0)
        for gone in old.values():
            _rest(gone)
        return self.filled(servers)

    def filled(self, servers: Iterable[ServerSpec]) -> tuple[ServerSpec, ...]:
        """Give entries with the tools that are known now."""
        return tuple(map(self._filled, servers))

    def _filled(self, spec: ServerSpec) -> ServerSpec:
        one = self._documents.get(spec.name)
        if one is None or one.tools is None or one.source != spec.rest_source:
            return spec
        url = one.tools.base if one.source.names_base else spec.url
        return replace(spec, rest=one.tools.service, url=url)

    def view(self, server: str) -> DocumentView | None:
        """Tell how a server's document is; None where none is fetched."""
        one = self._documents.get(server)
        if one is None:
            return None
        state = "missing" if one.tools is None else "fetched" if one.confirmed else "copy"
        at = one.origin.fetched_at if one.origin is not None else 0.0
        return DocumentView(state=state, fetched_at=at, error=one.problem)

    @deferred
    async def prepare(self, servers: Iterable[ServerSpec]) -> None:
        """
        Fetch what a reload brings, before it counts; `take` takes it up.

        :raises BadRequest: a document can not be had, nor is there a copy of it; or all together
            take too long.
        """
        for one in self._prepared.values():
            _rest(one)
        self._prepared = {}
        new: list[_Document] = []
        for spec in servers:
            source, old = spec.rest_source, self._documents.get(spec.name)
            if source is None or (old is not None and old.source == source):
                continue
            new.append(_Document(spec, source))
        fetching = gatherResults(
            [Deferred.fromCoroutine(self._prepare(one)) for one in new], consumeErrors=True
        )

        def late(_: object, timeout_s: float) -> NoReturn:
            raise BadRequest(
                f"Not all OpenAPI documents could be fetched within {timeout_s:g} s. "
                "Nothing was changed; bring fewer at once."
            )

        await fetching.addTimeout(PREPARE_S, self._clock, late)
        faults = [
            f"[server:{one.spec.name}] openapi: {one.problem}" for one in new if not one.tools
        ]
        if faults:
            raise BadRequest("\n".join(faults))
        self._prepared = {one.spec.name: one for one in new}

    async def _prepare(self, one: _Document) -> None:
        await self._try(one)
        if one.tools is None:
            await self._take_up(one)

    # --- One document -----------------------------------------------------------------------------

    async def _take_up(self, one: _Document) -> None:
        """Read the copy of an earlier life."""

        def read() -> tuple[Origin, Described] | None:
            kept = self._files.read(one.spec.name)
            if kept is None or kept[0].url != one.source.url:
                return None
            try:
                return kept[0], fetched_service(kept[1], one.source)
            except (BadValueError, AttributeError, TypeError, ValueError) as error:
                log.warn(
                    "The kept OpenAPI document of {server} is passed over: {why}",
                    server=one.spec.name,
                    why=str(error),
                )
                return None

        found = await self._thread.run(read)
        if found is not None and one.tools is None:
            one.origin, one.tools = found

    def _later(self, one: _Document, wait_s: float | None) -> None:
        if one.timer is not None:
            one.timer.cancel()
            one.timer = None
        if self._running and wait_s is not None:
            one.timer = self._clock.callLater(wait_s, self._due, one)

    def _due(self, one: _Document) -> None:
        one.timer = None
        if one.work is None:
            one.work = Deferred.fromCoroutine(self._work(one))
            if one.work.called:
                one.work = None

    async def _work(self, one: _Document) -> None:
        try:
            other = await self._try(one)
        except CancelledError:
            return
        one.work = None
        if self._documents.get(one.spec.name) is not one:
            return  # A reload has taken it out meanwhile.
        self._later(one, self._wait_s(one))
        if other:
            self._changed((one.spec.name,))

    def _wait_s(self, one: _Document) -> float | None:
        refresh_s = one.source.refresh_s
        if not one.problem:
            return refresh_s or None
        wait_s = float(min(RETRY_S * 2 ** min(one.failures - 1, 16), LONGEST_RETRY_S))
        return min(wait_s, refresh_s) if refresh_s else wait_s

    async def _try(self, one: _Document) -> bool:
        """Ask once; tell whether the tools are others now.  What fails is told in ``problem``."""
        name = one.spec.name
        try:
            other = await self._renew(one)
        except BadValueError as bad:
            problem = f"{bad.text}. {bad.remedy}"
        except NotHadError as error:
            problem = str(error)
        except CancelledError:
            raise
        except Exception:
            # A border: a bug here must not end the asking.
            log.failure("The OpenAPI document of {server} could not be renewed", server=name)
            problem = "see the log of the gate"
        else:
            if one.problem or other or not one.confirmed:
                assert one.tools is not None
                service = one.tools.service
                log.info(
                    "The OpenAPI document of {server} is up to date: {count} tools, "
                    "{left_out} operations are none",
                    server=name,
                    count=len(service.operations),
                    left_out=len(service.left_out),
                )
            if other:
                self._meters.events["document_changed"] += 1
            one.confirmed, one.problem, one.failures = True, "", 0
            return other
        self._meters.events["document_failed"] += 1
        one.failures += 1
        if problem != one.problem:
            one.problem = problem
            log.warn(
                "The OpenAPI document of {server} can not be taken: {why}. {then}",
                server=name,
                why=problem,
                then=_then(one),
            )
        return False

    async def _renew(self, one: _Document) -> bool:
        await self._places.acquire()
        have = one.origin if one.tools is not None else None
        try:
            if _FETCH not in sys.modules:
                await self._thread.run(partial(import_module, _FETCH))
            from mcpgate.service.document_fetch import fetch  # noqa: PLC0415 - it is there by now

            fetched = await fetch(self._outbound.ask, one.spec, one.source, have, self._clock)
        finally:
            self._places.release()
        if fetched is None:
            return False
        digest = sha256(fetched.content).hexdigest()
        origin = Origin(
            url=one.source.url,
            digest=digest,
            etag=fetched.etag,
            modified=fetched.modified,
            fetched_at=self._wall(),
        )
        if one.origin is not None and digest == one.origin.digest:
            one.origin = origin
            return False
        if one.refused[0] == digest:
            raise NotHadError(one.refused[1])

        def make() -> tuple[dict[str, Any], Described]:
            document = self._examine(fetched.content)
            return document, fetched_service(document, one.source)

        try:
            made = self._thread.run(make).addTimeout(CHECK_S, self._clock)
            document, tools = await made
        except TimeoutError:
            raise NotHadError("checking it takes too long. Simplify it") from None
        except BadValueError as bad:
            one.refused = (digest, f"{bad.text}. {bad.remedy}")
            raise
        other = tools != one.tools
        one.tools, one.origin, one.refused = tools, origin, ("", "")
        writing = self._thread.run(partial(self._files.write, one.spec.name, origin, document))
        writing.addErrback(_not_kept, one.spec.name)
        return other


def _rest(one: _Document) -> None:
    if one.timer is not None:
        one.timer.cancel()
        one.timer = None
    work, one.work = one.work, None
    if work is not None:
        work.cancel()


def _then(one: _Document) -> str:
    if one.tools is None:
        return "There is no earlier one: the server has no tools"
    return "The last good one serves on" if one.confirmed else "The copy of an earlier start serves"


def _not_kept(failure: Failure, server: str) -> None:
    log.warn(
        "The OpenAPI document of {server} is not kept for the next start: {why}",
        server=server,
        why=failure.getErrorMessage(),
    )


def make_documents(
    reactor: Any,
    state_dir: Path,
    *,
    wall: Callable[[], float],
    meters: Meters,
    changed: Callable[[Sequence[str]], None],
) -> Documents:
    """Put it together; nothing is read or asked yet."""
    return Documents(
        reactor,
        OneThread(reactor.callFromThread, "documents"),
        DocumentFiles(state_dir / FOLDER),
        Outbound(reactor),
        wall=wall,
        meters=meters,
        changed=changed,
    )
