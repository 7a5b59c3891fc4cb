"""
What a client is told while its server does not run: from a snapshot, at once.

``initialize`` and the lists are answered, and the server is started behind it; the first call
waits for it.  Once it runs it is looked at: the snapshot is renewed, and whoever was told lists
that turn out to be others hears that they changed.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mcpgate.errors import GateError
from mcpgate.gate.sessions import Session
from mcpgate.mcp.jsonrpc import Notification, Response
from mcpgate.mcp.snapshot import Snapshot, asks_for_list, differing, mark
from mcpgate.model import ServerSpec
from mcpgate.telemetry.meters import Meters
from mcpgate.upstream.stdio_handshake import InitializeRefused
from mcpgate.web.mcp.cold.look import Look, NotNowError, Viewer
from mcpgate.web.mcp.cold.snapshots import SnapshotBook
from mcpgate.web.mcp.errand import Errand
from mcpgate.web.mcp.post import Post, owner_of

if TYPE_CHECKING:
    from mcpgate.web.mcp.speaking import SpeakerBase

log = Logger()

LOOK_S: Final = 30.0
"""An answer to the gate's own question is waited for this long."""

SETTLE_S: Final = 1.0
"""A server that says its lists changed is looked at again this much later."""

_SEEN: Final = 10_000

Key = tuple[str, str, str]
"""Server, digest of the owner (which begins with its principal's), name of the snapshot."""


@dataclass(slots=True, kw_only=True)
class _Seen:
    """
    An instance that was looked at.

    :ivar marks: of its lists, by method; None when its greeting is not known.
    :ivar viewer: None when its session has ended: nobody can look again before the next call.
    """

    instance_id: str
    marks: dict[str, str] | None = None
    viewer: Viewer | None


class ColdAnswers:
    """
    Answers for servers that do not run.

    Speakers ask it first; what it does not answer goes on as ever.
    """

    def __init__(self, clock: IReactorTime, book: SnapshotBook, meters: Meters) -> None:
        self._clock = clock
        self._book = book
        self._meters = meters
        self._seen: OrderedDict[Key, _Seen] = OrderedDict()
        self._looking: set[Key] = set()
        self._again: dict[Key, IDelayedCall] = {}
        # By session: marks of the lists it was told from a snapshot and that were not checked.
        self._told: dict[Session, dict[str, str]] = {}
        self._starting: set[Session] = set()
        self._keys: dict[Session, Key] = {}

    # --- For speakers -------------------------------------------------------------------------

    def greeting(
        self, speaker: SpeakerBase, post: Post, session: Session
    ) -> dict[str, object] | None:
        """Give an InitializeResult for a session just made, and start its server behind it."""
        snapshot = self._snapshot(speaker, post, session)
        if snapshot is None:
            return None
        self._meters.events["snapshot_answer"] += 1
        self._clock.callLater(0, self._start, self._viewer(speaker, post, session))
        return snapshot.offered()

    def answers(self, speaker: SpeakerBase, post: Post, session: Session) -> bool:
        """Answer a request for a list of a server that does not run; False when it goes on."""
        spec = post.spec
        if isinstance(post.inbound, Look) or not self._book.covers(spec):
            return False
        key = self._key(spec, session)
        request = post.requests[0]
        listing = not post.batch and asks_for_list(request)
        seen = self._seen.get(key)
        met = seen is not None and seen.instance_id == session.record.upstream_instance
        if met and not listing and session not in self._told:
            return False
        lease = speaker.answering(spec, session)
        if lease is not None:
            lease.release()
            known = seen is not None and seen.instance_id == lease.instance.instance_id
            if not known or session in self._told:
                self._clock.callLater(0, self._check_soon, self._viewer(speaker, post, session))
            return False
        snapshot = self._snapshot(speaker, post, session) if listing else None
        result = None if snapshot is None else snapshot.lists.get(request.method)
        if result is None:
            return False
        self._told.setdefault(session, {})[request.method] = mark(request.method, result)
        self._meters.events["snapshot_answer"] += 1
        if isinstance(post.inbound, Errand):
            post.inbound.kept = True
        speaker.answer(post).complete(Response(request.id, result))
        post.release()
        self._clock.callLater(0, self._start, self._viewer(speaker, post, session))
        return True

    def lists_changed(self, spec: ServerSpec, session: Session) -> None:
        """Take note that the server said its lists are others now."""
        if not self._book.covers(spec):
            return
        key = self._key(spec, session)
        seen = self._seen.pop(key, None)
        if seen is not None and seen.viewer is not None and key not in self._again:
            self._again[key] = self._clock.callLater(SETTLE_S, self._look_again, key, seen.viewer)

    def stop(self) -> None:
        """Look at nothing any more."""
        again, self._again = self._again, {}
        for timer in again.values():
            timer.cancel()

    # --- From the book ------------------------------------------------------------------------

    def _key(self, spec: ServerSpec, session: Session) -> Key:
        key = self._keys.get(session)
        if key is None:
            record = session.record
            principal = record.key.principal
            owner = owner_of(spec, principal, record.key.session_id)
            name = self._book.name(spec, principal, record.initialize_params)
            key = (spec.name, owner.digest, name)
            if not session.ended:
                # One that ended while its server was started would be kept for good.
                self._keys[session] = key
                session.on_end.append(lambda _: self._forget(session))
        return key

    def _forget(self, session: Session) -> None:
        key = self._keys.pop(session, None)
        self._told.pop(session, None)
        seen = self._seen.get(key) if key is not None else None
        if seen is not None and seen.viewer is not None and seen.viewer.session is session:
            seen.viewer = None

    def _snapshot(self, speaker: SpeakerBase, post: Post, session: Session) -> Snapshot | None:
        spec = post.spec
        if not self._book.covers(spec):
            return None
        lease = speaker.answering(spec, session)
        if lease is not None:
            lease.release()
            return None
        return self._book.find(spec, self._key(spec, session)[2])

    def _viewer(self, speaker: SpeakerBase, post: Post, session: Session) -> Viewer:
        return Viewer(
            speaker=speaker,
            caller=post.caller,
            spec=post.spec,
            session=session,
            head=post.inbound.head,
            peer=post.inbound.peer,
        )

    # --- Behind it ----------------------------------------------------------------------------

    def _start(self, viewer: Viewer) -> None:
        """Bring the session's server up, and look at it."""
        session = viewer.session
        if session in self._starting or session.ended:
            return
        self._starting.add(session)
        session.in_use += 1

        starting = Deferred.fromCoroutine(self._started(viewer))
        starting.addErrback(lambda failure: log.failure("A start behind a client failed", failure))

        def over(_: object) -> None:
            self._starting.discard(session)
            session.in_use -= 1

        starting.addBoth(over)

    async def _started(self, viewer: Viewer) -> None:
        spec, session = viewer.spec, viewer.session
        try:
            lease = await viewer.speaker.connect(spec, viewer.caller, session)
        except GateError as error:
            # Whoever calls is told.
            log.debug("{server} was not started ahead: {why}", server=spec.name, why=error)
            if isinstance(error, InitializeRefused):
                self._book.forget(self._key(spec, session)[2])
            return
        try:
            await self._check(viewer, lease.instance.instance_id)
        finally:
            lease.release()

    def _check_soon(self, viewer: Viewer) -> None:
        """Look at a server that runs, unless it is gone again."""
        lease = viewer.speaker.ready(viewer.spec, viewer.session)
        if lease is None or viewer.session.ended:
            if lease is not None:
                lease.release()
            return
        checking = Deferred.fromCoroutine(self._check(viewer, lease.instance.instance_id))
        checking.addErrback(lambda failure: log.failure("A server was not looked at", failure))
        checking.addBoth(lambda _: lease.release())

    def _look_again(self, key: Key, viewer: Viewer) -> None:
        self._again.pop(key, None)
        self._check_soon(viewer)

    async def _check(self, viewer: Viewer, instance_id: str) -> None:
        """Look at an instance nobody looked at; tell the session what it was told wrongly."""
        key = self._key(viewer.spec, viewer.session)
        seen = self._seen.get(key)
        if seen is None or seen.instance_id != instance_id:
            if key in self._looking:
                return  # Whoever looks sees to this session, too.
            self._looking.add(key)
            try:
                seen = await self._look(viewer, key, instance_id)
            except NotNowError as error:
                log.debug("{server} is looked at later: {why}", server=key[0], why=error)
                return
            finally:
                self._looking.discard(key)
        if seen.marks is None:
            return
        for session in tuple(self._told):
            if self._keys.get(session) == key and session.extras is not None:
                for method in differing(self._told.pop(session), seen.marks):
                    self._meters.events["snapshot_outdated"] += 1
                    viewer.speaker.say(session, Notification(method))

    async def _look(self, viewer: Viewer, key: Key, instance_id: str) -> _Seen:
        snapshot = await viewer.look(LOOK_S)
        ended = viewer.session.ended
        seen = _Seen(instance_id=instance_id, viewer=None if ended else viewer)
        if snapshot is not None:
            seen.marks = {method: mark(method, one) for method, one in snapshot.lists.items()}
            self._book.keep(viewer.spec, key[2], snapshot, viewer.caller.principal)
        self._seen[key] = seen
        self._seen.move_to_end(key)
        while len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
        return seen
