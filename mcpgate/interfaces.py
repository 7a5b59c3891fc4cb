"""
The slab: every interface that crosses a room.  The floor plan; no code.

Values are of `mcpgate.model` and `mcpgate.http`; failures are of `mcpgate.errors`.  What answers
at once is synchronous on purpose: a warm call costs look-ups, no Deferred.  Over 500 lines, because
the plan of all rooms is one page.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocol

    from mcpgate.errors import GateError
    from mcpgate.http.heads import Peer, RequestHead, ResponseHead
    from mcpgate.mcp.jsonrpc import Message
    from mcpgate.model import (
        Caller,
        Decision,
        Exit,
        InstanceKey,
        Launch,
        Owner,
        Rate,
        Secret,
        ServerSpec,
        SessionKey,
        SessionRecord,
        Usage,
    )


# --- Front door: one request of a client ------------------------------------------------------


class IInbound(Interface):
    """
    One request of a client, and the way to answer it; the same over HTTP/1.1 and HTTP/2.

    The head is complete and has passed the strict checks when the dispatcher gets this.  The body
    is not read before `read_body` or `stream_body` is called.  Exactly one answer is given: either
    `respond`, or `start` .. `write` .. `finish`, or `take_over`.  After the client has gone every
    answering method does nothing.  What the dispatcher leaves undone is not undone for it: an
    inbound that is never answered stays open until the client goes.
    """

    head: RequestHead = Attribute("The request's head.")
    peer: Peer = Attribute("Who is at the other end.")
    request_id: str = Attribute("Made by the gate; in the log, in error bodies, in X-Request-Id.")
    started: bool = Attribute("The response head has been written.")
    finished: bool = Attribute("The answer is complete, or the client has gone.")
    extra_fields: list[tuple[bytes, bytes]] = Attribute(
        "Fields added to the head of whatever answer is given (CORS); set before it begins."
    )
    notes: dict[str, object] = Attribute(
        "What the access log shall tell beyond the head: server, principal (fingerprint), "
        "session, instance, reason .."
    )

    def read_body(limit: int, done: Callable[[bytes], None]) -> None:
        """
        Collect the whole body and call ``done`` with it, perhaps at once.

        A body over ``limit`` bytes, a slow or broken one is answered here (413, 408, 400) and
        ``done`` is never called.
        """

    def stream_body(
        data: Callable[[bytes], None],
        ended: Callable[[list[tuple[bytes, bytes]]], None],
        limit: int,
    ) -> None:
        """
        Pass the body on as it arrives; ``ended`` gets the trailers (mostly none).

        ``limit`` of 0 means no limit on size.  Breaches are answered here if nothing was answered
        yet, else the connection is cut; `on_gone` callbacks tell.
        """

    def pause_body() -> None:
        """Stop reading from the client until `resume_body`."""

    def resume_body() -> None:
        """Go on reading."""

    def respond(status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer completely.  Content-Length is added; HEAD gets no body."""

    def start(status: int, fields: list[tuple[bytes, bytes]], length: int | None) -> None:
        """
        Begin a streamed answer; framing fields are the inbound's business, not the caller's.

        :param length: bytes that will follow, or None when unknown.
        """

    def write(data: bytes) -> None:
        """Add to the body."""

    def finish(trailers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Complete a streamed answer."""

    def abort() -> None:
        """Cut the answer off so that the client sees it is incomplete."""

    def register_flow(pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Have ``pause`` called when the client reads too slowly, ``resume`` when it caught up."""

    def on_gone(callback: Callable[[], None]) -> None:
        """Have ``callback`` called once if the client goes before the answer is complete."""

    def take_over(status: int, fields: list[tuple[bytes, bytes]], protocol: IProtocol) -> None:
        """
        Answer an upgrade: write the head, then give the connection to ``protocol``.

        Bytes that already arrived are its first data.  HTTP/1.1 only.
        """


# --- Who may call, how often ------------------------------------------------------------------


class IAuthenticator(Interface):
    """Turns a credential into a caller.  Wrappers (cache, breaker ..) are authenticators too."""

    def remembered(credential: Secret) -> Caller | None:
        """Answer from memory, at once; None when it has to be asked."""

    def authenticate(credential: Secret) -> Deferred[Caller]:
        """
        Check the credential.

        Fails with `Unauthenticated` when it is surely not valid, with `AuthUnavailable` when that
        can not be told now.  Cancelling one waiter does not disturb others for the same key.
        """


class IRateLimiter(Interface):
    """Token buckets by key; exact, on monotonic time."""

    def take(key: Hashable, rate: Rate, cost: float) -> Decision:
        """Take ``cost`` tokens from the bucket of ``key`` if there are enough."""

    def give_back(key: Hashable, rate: Rate, cost: float) -> None:
        """Return tokens that were taken for something that did not happen."""


class ISlots(Interface):
    """Counted places: calls in work, streams, connections."""

    def acquire(key: Hashable, limit: int) -> bool:
        """Take a place; False when ``limit`` are taken.  A limit of 0 means no limit."""

    def release(key: Hashable) -> None:
        """Give a place back."""


# --- Sessions ---------------------------------------------------------------------------------


class ISessionStore(Interface):
    """Keeps session records over a restart.  Writing is behind: it never delays a call."""

    def load() -> Deferred[list[SessionRecord]]:
        """
        Read every record, that which was used last at the end.

        Called once, before the first call is served.
        """

    def put(record: SessionRecord) -> None:
        """Keep this state of the record, soon; the last one before a crash may be lost (100 ms)."""

    def delete(key: SessionKey) -> None:
        """Forget the record, soon."""

    def flush() -> Deferred[None]:
        """Write everything that waits."""

    def close() -> Deferred[None]:
        """Flush and let go of the file.  Idempotent."""


# --- Instances --------------------------------------------------------------------------------


class IStdioChannel(Interface):
    """Lines to and from a child's stdin and stdout.  A line is one JSON-RPC message, unparsed."""

    def send(line: bytes) -> bool:
        """
        Queue one line (without newline) for the child.

        False when more than the queue's bound waits already: nothing was queued.  True is no word
        that the child will read it: it may be dying.
        """

    def attach(received: Callable[[bytes], None]) -> None:
        """
        Have ``received`` called with each line (without newline) from now on.

        Of a line over the channel's bound it gets the two ends with a NUL, which no message can
        hold, between them: enough to tell whose answer it would have been.
        """

    def pause() -> None:
        """Stop reading the child's stdout: what it writes backs up into the pipe."""

    def resume() -> None:
        """Go on reading."""


class IInstance(Interface):
    """
    One running copy of a server, as its runtime hands it out.

    Exactly one of ``address`` and ``channel`` is set.
    """

    instance_id: str = Attribute("Unique per start.")
    key: InstanceKey = Attribute("Server and owner.")
    address: tuple[str, int] | None = Attribute("Where an HTTP server listens.")
    channel: IStdioChannel | None = Attribute("The pipes of a stdio server.")
    ended: Deferred[Exit] = Attribute(
        "Fires once, with how it ended, however it ended.  Each watcher chains its own Deferred "
        "with `when_ended`; nobody adds callbacks here."
    )

    def when_ended() -> Deferred[Exit]:
        """Give a new Deferred that fires when this instance has ended (at once if it has)."""

    def logs() -> list[str]:
        """Give the last lines it wrote to stderr (and stdout, for HTTP servers), oldest first."""

    def log_after(seen: int) -> tuple[list[str], int]:
        """
        Give the whole lines after the first ``seen``, and how many there are by now.

        What is not kept any more is left out; so asking again with the number follows the log.
        """

    def usage() -> Usage:
        """Tell what it uses now.  Cheap: reads /proc or a cgroup file."""


class IRuntime(Interface):
    """
    Makes instances exist.  Implementations: process, docker (an issue of its own), memory.

    Every method is idempotent.  Deadlines are the caller's business except where stated.
    """

    def start(spec: ServerSpec, launch: Launch) -> Deferred[IInstance]:
        """
        Start one copy.

        Success means the copy exists (process spawned, container started), not that it answers:
        readiness is the pool's to probe.  Fails with `BackendUnavailable`.  Cancelling stops what
        was begun.
        """

    def stop(instance: IInstance, grace_s: float) -> Deferred[Exit]:
        """Close stdin, wait, TERM, wait, KILL; each step ``grace_s``.  Fires when it has ended."""

    def assign(instance: IInstance, key: InstanceKey) -> None:
        """
        Note that a copy that was nobody's (`Owner.is_nobody`) has an owner from now on, or that
        one of an older entry is put aside: it ends beside the one that takes its place.

        What it leaves is removed when it ends; it is never taken up again.
        """

    def remove(key: InstanceKey) -> Deferred[None]:
        """Remove what a stopped instance left (container, files, not the user's data)."""

    def adopt() -> Deferred[list[IInstance]]:
        """Give running instances of an earlier life of this gate; remove strays.  At start."""

    def shutdown() -> Deferred[None]:
        """Stop everything that does not outlive the gate; release threads and files."""


class IUpstream(Interface):
    """The connection object the pool keeps beside a running instance: HTTP or stdio."""

    heard_s: float = Attribute(
        "Clock reading of when anything came from the server last, or went on of a body it is "
        "sent; at first of when this was made."
    )

    unreachable: bool = Attribute(
        "The last connection could not be made, and nothing came from the server since."
    )

    def ask_alive(timeout_s: float) -> bool:
        """
        Ask the server for a sign of life, in its own era; whatever it says shows in ``heard_s``.

        No client notices, and no session begins or ends.

        :param timeout_s: what comes later is not waited for.
        :return: False when it owes no answer now: nothing could be asked that does no harm.
        """

    def close(error: GateError) -> None:
        """End every exchange with ``error`` and let go of the connections."""


class ILease(Interface):
    """A use of an instance.  While one is held the instance is not idle."""

    instance: IInstance = Attribute("What is used.")
    upstream: Any = Attribute("The upstream made for it: `HTTPUpstream` or `StdioUpstream`.")

    def touch() -> None:
        """Bytes went by: the instance is in use now."""

    def make_passive(stopped: Callable[[], None]) -> None:
        """
        Hold on without keeping the instance from idling: for a stream nobody asked anything on.

        ``stopped`` is called once when the instance is stopped or dies before `release`.  There
        is no way back: whoever calls again takes a lease of its own.
        """

    def release() -> None:
        """Give it back.  Idempotent."""


class ILoan(Interface):
    """What others do with an instance that was lent to them; read whenever somebody asks."""

    in_work: int = Attribute("Requests under way.")
    used_s: float = Attribute("Clock reading of the last use; 0 before there was one.")
    heard_s: float = Attribute("Clock reading of when something came from the server last; or 0.")


class IInstancePool(Interface):
    """Instances by (server, owner): one start for many waiters, caps, idle stop, backoff."""

    def ready(spec: ServerSpec, owner: Owner) -> ILease | None:
        """Lease a running instance at once; None when there is none and `lease` must be asked."""

    def lease(spec: ServerSpec, owner: Owner, caller: Caller) -> Deferred[ILease]:
        """
        Lease an instance, starting it if need be.

        Fails with `Starting` when it is not ready within ``start_wait_s`` (the start goes on),
        `Overloaded` when a cap is reached and nothing idle can be stopped, `BackendUnavailable`
        when it can not be started or crashes too often (with ``retry_after_s``).  Cancelling
        leaves the start to other waiters.
        """

    def start_ahead(spec: ServerSpec, owner: Owner, caller: Caller) -> bool:
        """
        Start an instance nobody waits for, where no other has to make room; never raises.

        :return: whether it runs, or is being started.
        """

    def stop(key: InstanceKey) -> Deferred[None]:
        """Stop an instance now; callers in work are told."""


# --- Upstream HTTP ----------------------------------------------------------------------------


class IResponseReceiver(Interface):
    """
    Gets the answer to one upstream request.

    Order: ``response_head`` once, ``response_data`` any number of times, then ``response_end``;
    or ``response_failed`` at any point, after which nothing comes.
    """

    def response_head(head: ResponseHead) -> None:
        """Tell status and fields.  1xx never comes here."""

    def response_data(data: bytes) -> None:
        """Pass on body bytes, de-chunked, content coding untouched."""

    def response_end(trailers: list[tuple[bytes, bytes]]) -> None:
        """Tell that the answer is complete."""

    def response_failed(error: GateError, sent: bool) -> None:
        """
        Tell that there will be no (more) answer.

        :param sent: whether any byte of the request may have reached the server; when False the
            request may safely be sent again.
        """

    def response_upgraded(head: ResponseHead, transport: Any) -> IProtocol:
        """
        Take the connection after 101: answer a protocol that gets all further bytes.

        It is connected to ``transport`` by the caller.
        """


class IUpstreamCall(Interface):
    """One request under way to an HTTP server."""

    sent: bool = Attribute("A byte of it may have reached the server.")

    def write(data: bytes) -> None:
        """Send body bytes of a streamed request."""

    def end(trailers: list[tuple[bytes, bytes]]) -> None:
        """End the body of a streamed request."""

    def register_flow(pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Have the source of the request body paused when the server reads too slowly."""

    def pause() -> None:
        """Stop reading the answer."""

    def resume() -> None:
        """Go on reading."""

    def abort() -> None:
        """Give the request up: the connection is cut, the receiver hears nothing more."""


class IHTTPUpstream(Interface):
    """Speaks HTTP/1.1 to one server (or instance), connections reused per principal."""

    def send(
        method: str,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        body: bytes | None,
        receiver: IResponseReceiver,
        *,
        pool: Hashable,
        length: int | None,
        timeout_s: float,
        stream: bool,
    ) -> IUpstreamCall:
        """
        Send one request.

        :param fields: everything but ``Host``, ``Content-Length``, ``Transfer-Encoding`` and
            ``Connection``, which are written here.  Values with CR, LF or NUL are refused.
        :param body: the whole body; None when it is streamed with `IUpstreamCall.write` (or
            there is none: then ``length`` is 0).
        :param length: of a streamed body, or None for chunked.
        :param pool: connections are reused only within one pool key: the principal.
        :param timeout_s: from sending to the response head; the receiver may set its own clock
            for what follows.
        :param stream: the answer may be silent for long (SSE, WebSocket): no idle timeout.
        """


class IRepeatingUpstream(IHTTPUpstream):
    """An `IHTTPUpstream` that need not write a head again of which only the id is another."""

    def prepare(
        method: str, target: bytes, fields: list[tuple[bytes, bytes]], request_id: str
    ) -> Any:
        """
        Write the head of requests with a whole body; None where it can not be used again.

        :param fields: as of `send`; among them ``X-Request-Id`` with this id.
        """

    def send_prepared(
        prepared: Any,
        request_id: str,
        body: bytes,
        receiver: IResponseReceiver,
        *,
        pool: Hashable,
        timeout_s: float,
    ) -> IUpstreamCall:
        """Send one, with an id of its own.  See `send`."""


# --- MCP messages -----------------------------------------------------------------------------


class IMessageSink(Interface):
    """Where the messages that answer one client message go (upstream/stdio towards web)."""

    def deliver(message: Message) -> None:
        """Pass on a notification or a server's request that belongs to this exchange."""

    def finish(response: Message) -> None:
        """Pass on the answer, with the client's own id; nothing comes after it."""

    def fail(error: GateError) -> None:
        """Tell that there will be no answer."""


class ISessionPeer(Interface):
    """One client session as a stdio upstream sees it.  Hashable by identity."""

    capabilities: dict[str, object] = Attribute("What the client declared at initialize.")

    def unsolicited(message: Message) -> None:
        """Take a message that answers no call: for the session's GET stream, else dropped."""
