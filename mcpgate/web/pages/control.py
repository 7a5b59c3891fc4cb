"""
The control socket: how ``mcpgate ps`` and its kin talk to a running gate.

A Unix socket in the state directory, mode 0600, HTTP with JSON by a small Klein tree of its own,
`mcpgate.web.pages.control_tree`, which is not loaded before somebody asks.
The kernel tells who is at the other end; only the gate's own user and root are listened to.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorUNIX,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from mcpgate.gate.sessions import SessionView
from mcpgate.model import KIB, MIB, Secret
from mcpgate.telemetry.views import ImageView, InstanceView, Leftover, LogView, ServerView
from mcpgate.timing.deferreds import deferred
from mcpgate.web.unix_sockets import clear_forsaken

log = Logger()

SOCKET_NAME: Final = "control.sock"
BODY_BYTES: Final = 16 * KIB
#: Of a question to a server: a call's arguments are in it.
ASKED_BYTES: Final = 4 * MIB
ASK_MOST_S: Final = 3600.0
#: What may be asked of a server in an operator's name.
METHODS: Final = frozenset(
    {
        "server/discover",
        "tools/list",
        "tools/call",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
    }
)
SESSIONS_LISTED: Final = 10_000
#: ``sun_path`` of Linux holds 108 bytes with the closing NUL; the lock beside it adds 5.
PATH_BYTES: Final = 102

#: Logs followed in one question: their cursors must fit into its body.
FOLLOWED: Final = 200

_CREDENTIALS: Final = struct.Struct("3i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """
    Which instances are meant; what is empty leaves it open.

    :ivar owner: a label, see `mcpgate.model.Owner`; ``user``: the subject of a caller.
    :ivar idle_s: only those without a call in work, unused for this long; None: any.
    :ivar key: a key whose owner is meant.
    """

    server: str = ""
    owner: str = ""
    user: str = ""
    idle_s: float | None = None
    key: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    A question to a server or group.

    :ivar chosen: which, and in whose name.
    :ivar method: one of `METHODS`.
    """

    chosen: Chosen
    method: str
    params: Mapping[str, Any]
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PinsAsked:
    """
    A question how the tools of a server differ from those that are trusted.

    :ivar chosen: which, and in whose name.
    :ivar accept: trust them from now on.
    """

    chosen: Chosen
    accept: bool
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tidying:
    """
    What a clean-up is to remove; see `mcpgate.runtime.docker.cleanup.Wish`.

    :ivar data: owners whose data folders go.
    """

    dry_run: bool = False
    stopped: bool = False
    orphans: bool = False
    data: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlView:
    """
    What the socket may ask and do; the composition root fills it in.

    :ivar left: containers of stopped instances no call has asked for since the gate started;
        fails when the engine does not answer.
    :ivar images: looks at the images of the configuration, fires with what is known of them.
    :ivar logs: last lines of the instances of a server, by owner label; None: there is no such
        server.
    :ivar follow: what they wrote since the cursors (by owner label) of the last answer.
    :ivar start: starts instances of a server, fires with their (server, owner label) when they
        are ready; None: there is no such server.
    :ivar stop: stops running instances, fires with their (server, owner label) when they have
        ended; None: there is no such server.
    :ivar servers: every server and group that is served.
    :ivar ask: puts a question to a server, fires with ``result`` or the server's own ``error``;
        None: there is no such server.
    :ivar pins: asks a server for its tools, fires with how they differ from those that are
        trusted, and that they are now if that was wanted; None: there is no such server.
    :ivar clean_up: removes what is asked for, or only tells; fails when the engine is silent.
    :ivar reload: reads the configuration anew, fires with what changed and could not be changed,
        in words; fails with a `GateError` that says why nothing was changed.
    """

    version: str
    started_at: float
    wall: Callable[[], float]
    instances: Callable[[], Sequence[InstanceView]]
    sessions: Callable[[int], Sequence[SessionView]]
    left: Callable[[], Deferred[list[InstanceView]]]
    images: Callable[[], Deferred[Sequence[ImageView]]]
    logs: Callable[[Chosen], Mapping[str, Sequence[str]] | None]
    follow: Callable[[Chosen, Mapping[str, str]], Mapping[str, LogView] | None]
    start: Callable[[Chosen], Deferred[list[tuple[str, str]]] | None]
    stop: Callable[[Chosen], Deferred[list[tuple[str, str]]] | None]
    servers: Callable[[], Sequence[ServerView]]
    ask: Callable[[Asked], Deferred[dict[str, Any]] | None]
    pins: Callable[[PinsAsked], Deferred[dict[str, Any]] | None]
    clean_up: Callable[[Tidying], Deferred[list[Leftover]]]
    reload: Callable[[], Deferred[list[str]]]


def peer_uid(connection: Any) -> int | None:
    """Ask the kernel whose process is at the other end of a Unix socket."""
    try:
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except (AttributeError, OSError):
        return None
    _, uid, _ = _CREDENTIALS.unpack(told)
    return int(uid)


class _CheckedConnection(Protocol):
    """Listens to one peer, if it may talk to us at all; reads nothing before the tree is there."""

    def __init__(self, site: Callable[[], Deferred[IProtocolFactory]], address: Any) -> None:
        self._site = site
        self._address = address
        self._inner: IProtocol | None = None
        self._gone = False

    @override
    def connectionMade(self) -> None:
        transport: Any = self.transport
        uid = peer_uid(getattr(transport, "getHandle", lambda: None)())
        if uid not in (0, os.geteuid()):
            log.warn("Control socket: user id {uid} was sent away", uid=uid, ev="control_refused")
            transport.abortConnection()
            return
        transport.pauseProducing()
        self._site().addCallback(self._go_on).addErrback(self._failed)

    def _go_on(self, site: IProtocolFactory) -> None:
        transport: Any = self.transport
        if self._gone:
            return
        inner = self._inner = site.buildProtocol(self._address)
        assert inner is not None
        inner.makeConnection(transport)
        transport.resumeProducing()

    def _failed(self, failure: Failure) -> None:
        transport: Any = self.transport
        log.failure("Control socket: the commands can not be served", failure=failure)
        transport.abortConnection()

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)


class _CheckingFactory(Factory):
    noisy = False

    def __init__(self, site: Callable[[], Deferred[IProtocolFactory]]) -> None:
        self._site = site

    @override
    def buildProtocol(self, addr: IAddress | None) -> Any:
        return _CheckedConnection(self._site, addr)


class ControlService(Service):
    """
    The socket while the gate runs.

    :param state_dir: where ``control.sock`` is made; what a dead gate left there is replaced.
    :param site: gives `mcpgate.web.pages.control_tree.make_site`'s, when somebody first connects.
    """

    def __init__(
        self,
        reactor: IReactorUNIX,
        state_dir: Path,
        site: Callable[[], Deferred[IProtocolFactory]],
    ) -> None:
        self.setName("control socket")
        self._reactor = reactor
        self._path = state_dir / SOCKET_NAME
        self._site = site
        self._port: IListeningPort | None = None

    @override
    def startService(self) -> None:
        """
        Listen.

        :raises OSError: the path is too long for a socket.
        :raises CannotListenError: another gate uses this state directory.
        """
        if len(os.fsencode(self._path)) > PATH_BYTES:
            raise OSError(
                f"the path of the control socket, {self._path}, is longer than {PATH_BYTES} bytes: "
                "choose a shorter state_dir"
            )
        clear_forsaken(str(self._path))
        old = os.umask(0o177)
        try:
            self._port = self._reactor.listenUNIX(
                str(self._path),
                _CheckingFactory(self._site),
                mode=0o600,
                wantPID=True,
            )
        finally:
            os.umask(old)
        super().startService()

    @override
    @deferred
    async def stopService(self) -> None:
        """Stop listening and remove the socket."""
        super().stopService()
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
