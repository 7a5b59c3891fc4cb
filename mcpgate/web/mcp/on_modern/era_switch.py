"""
What happens when a server refuses legacy sessions: it may be of the other era.

Legacy sessions begin with ``initialize``, whatever the server is.  One that refuses is asked
whether it is modern (``server/discover``).  If it is, that is written down, and the session goes
on over the bridge; its client notices nothing.  The process of a stdio server serves one era in
its life: the one that refused was the trial, and another is started.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import (
    BackendDied,
    BackendTimeout,
    BackendUnavailable,
    Draining,
    GateError,
    Overloaded,
    RateLimited,
    Starting,
)
from mcpgate.gate.eras import EraBook
from mcpgate.gate.sessions import Session
from mcpgate.interfaces import IInstancePool, ILease
from mcpgate.mcp.evidence import refuses_legacy
from mcpgate.mcp.revisions import revision
from mcpgate.model import Caller, InstanceKey, ServerSpec, Transport
from mcpgate.upstream.stdio import StdioUpstream
from mcpgate.upstream.stdio_handshake import InitializeRefused, NegotiatedModern
from mcpgate.web.mcp.on_modern.era_watch import EraWatch, Probe
from mcpgate.web.mcp.post import Post, owner_of

if TYPE_CHECKING:
    from mcpgate.mcp.jsonrpc import Request
    from mcpgate.web.mcp.answer import Answer

log = Logger()

# Statuses with which HTTP servers refuse what they do not know (protocol.md 2.9).
_REFUSALS: Final = frozenset({400, 404, 405, 406, 415})


class Bridge(Protocol):
    """What is asked of the speaker for servers of the modern era."""

    def open(self, post: Post, session: Session) -> Deferred[dict[str, object]]:
        """Begin a session there; gives the answer to ``initialize``."""

    def take(self, post: Post, session: Session, request: Request, answer: Answer) -> None:
        """Answer a request that was to go another way."""


class EraSwitch:
    """
    Takes sessions over the bridge where their server turns out to be modern.

    :param pool: stops the process that was the trial.
    :param bridge: gives what serves legacy sessions on modern servers.
    :param probe: asks an HTTP server.
    """

    def __init__(
        self,
        eras: EraBook,
        pool: IInstancePool,
        bridge: Callable[[], Bridge],
        watch: EraWatch,
        probe: Probe,
    ) -> None:
        self._eras = eras
        self._pool = pool
        self._bridge = bridge
        self._watch = watch
        self._probe = probe

    def used(self, spec: ServerSpec, caller: Caller) -> None:
        """See `EraWatch.used`."""
        self._watch.used(spec, caller)

    def shaken(self, spec: ServerSpec, result: dict[str, object]) -> None:
        """See `SpeakerBase.shaken`."""
        agreed = revision(result.get("protocolVersion"))
        known = self._eras.known(spec)
        if agreed is None or agreed.legacy or known.pinned:
            self._eras.note(spec, legacy=True)
        elif known.modern is not False:
            raise NegotiatedModern(result)

    async def check_legacy(self, spec: ServerSpec, session: Session, lease: ILease) -> None:
        """See `SpeakerBase.check_era`."""
        if not isinstance(lease.upstream, StdioUpstream):
            lease.release()
            await self._expel(spec, session, legacy=False)
        elif not self._eras.known(spec).modern_only:
            return
        raise BackendUnavailable(
            "The server changes to another revision of MCP. Try again shortly.", retry_after_s=1.0
        )

    async def opened(self, failure: Failure, post: Post, session: Session) -> dict[str, object]:
        """
        Begin the session in the other era.

        :raises GateError: what the failure says: the server is not modern either.
        """
        spec = post.spec
        if not self._suspects(spec, failure.value):
            failure.raiseException()
        if spec.transport is Transport.STDIO:
            result = await self._opened_anew(failure, post, session)
        else:
            try:
                modern = await self._probe(spec, post.caller)
            except GateError:
                failure.raiseException()
            self._eras.note(spec, modern=modern)
            if not modern and isinstance(failure.value, NegotiatedModern):
                # It has shaken hands all the same: nothing else could be done with it.
                return failure.value.result
            if not modern:
                failure.raiseException()
            result = await self._bridge().open(post, session)
        if not self._eras.known(spec).modern_only:
            log.info("{server} is modern alone: legacy clients are bridged", server=spec.name)
        self._eras.note(spec, legacy=False, modern=True)
        return result

    async def _opened_anew(
        self, failure: Failure, post: Post, session: Session
    ) -> dict[str, object]:
        """Begin the session with a process that hears nothing legacy first."""
        spec = post.spec
        self._eras.note(spec, legacy=False, modern=True)
        await self._expel(spec, session, legacy=True)
        try:
            return await self._bridge().open(post, session)
        except (Overloaded, RateLimited, Starting, Draining):
            raise  # That tells nothing; whoever comes next finds the same verdict to try.
        except GateError as error:
            log.debug("{server} is not modern: {why}", server=spec.name, why=error.detail)
            self._eras.forget(spec)
            self._eras.note(spec, modern=False)
            await self._expel(spec, session, legacy=False)
            failure.raiseException()

    def handed_over(
        self,
        failure: Failure,
        post: Post,
        session: Session,
        requests: tuple[Request, ...],
        answer: Answer,
        failed: Callable[[Failure], None],
    ) -> bool:
        """
        Have requests of an older session answered over the bridge, if their server is modern now.

        :param failed: called with the failure when it is not.
        :return: False when the failure tells nothing of eras; nothing is done then.
        """
        if not self._suspects(post.spec, failure.value):
            return False
        session.in_use += 1
        opening = Deferred.fromCoroutine(self.opened(failure, post, session))

        def take(_: object) -> None:
            for request in requests:
                self._bridge().take(post, session, request, answer)

        def over(_: object) -> None:
            session.in_use -= 1

        opening.addCallbacks(take, failed).addBoth(over)
        opening.addErrback(lambda bug: log.failure("A session could not change its era", bug))
        return True

    def _suspects(self, spec: ServerSpec, error: BaseException | None) -> bool:
        """Tell whether it is worth asking whether the server is modern."""
        if isinstance(error, NegotiatedModern):
            return True
        known = self._eras.known(spec)
        strong = isinstance(error, InitializeRefused) and refuses_legacy(error.response)
        if known.pinned or (known.modern is False and not strong and not self._eras.is_old(spec)):
            return False
        if isinstance(error, InitializeRefused):
            # A process that has shaken hands before refuses for a reason of its own.
            return strong or known.legacy is not True or spec.transport is Transport.HTTP
        if spec.transport is Transport.HTTP:
            return isinstance(error, BackendUnavailable) and error.data.get("status") in _REFUSALS
        # Some servers die of, or are silent to, what they do not expect first.
        return known.legacy is None and isinstance(error, BackendDied | BackendTimeout)

    async def _expel(self, spec: ServerSpec, session: Session, *, legacy: bool) -> None:
        """Stop the session's process, unless one of the other era has taken its place already."""
        key = session.record.key
        # Modern processes belong to no session.
        owner = owner_of(spec, key.principal, key.session_id if legacy else "")
        lease = self._pool.ready(spec, owner)
        if lease is None:
            return
        is_legacy = isinstance(lease.upstream, StdioUpstream)
        lease.release()
        if is_legacy is legacy:
            await self._pool.stop(InstanceKey(spec.name, owner))
