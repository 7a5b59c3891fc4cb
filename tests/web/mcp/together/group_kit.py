"""Servers of a group that stay in memory, and what hears a group's answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from zope.interface import implementer

from mcpgate.errors import GateError
from mcpgate.interfaces import IMessageSink
from mcpgate.mcp.jsonrpc import (
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
    encode,
)
from mcpgate.mcp.modern import MODERN, Context
from mcpgate.model import (
    Caller,
    Eras,
    Group,
    Principal,
    Secret,
    ServerSpec,
    Transport,
)
from mcpgate.timing.wheel import DeadlineWheel
from mcpgate.web.mcp.modern.post import ModernPost
from mcpgate.web.mcp.together.aggregate import Aggregate
from mcpgate.web.mcp.together.member import Members

JSON = [(b"content-type", b"application/json")]
STREAM = [(b"content-type", b"text/event-stream")]
CONTEXT = Context(version=MODERN, capabilities={})
ANN = Caller(Principal("keys", "ann", "a" * 32), Secret("k"))


def spec(name: str) -> ServerSpec:
    """Make a server."""
    return ServerSpec(name=name, transport=Transport.STDIO)


class FakeServers:
    """
    See `mcpgate.web.mcp.modern.post.ModernSpeaker`.

    :ivar posts: what was asked, oldest first.
    :ivar results: the result of a method of a server, or an error, or what makes one of a post.
    """

    def __init__(self) -> None:
        self.posts: list[ModernPost] = []
        self.listens: dict[str, ModernPost] = {}
        self.results: dict[tuple[str, str], Any] = {}

    def call(self, post: ModernPost) -> None:
        """See `ModernSpeaker.call`; what has no result waits."""
        self.posts.append(post)
        result = self.results.get((post.spec.name, post.request.method))
        if callable(result):
            result = result(post)
        if isinstance(result, Exception):
            raise result
        if isinstance(result, ErrorResponse):
            post.inbound.respond(404, JSON, encode(result))
        elif result is not None:
            post.inbound.respond(200, JSON, encode(Response(post.request.id, result)))

    def listen(self, post: ModernPost) -> None:
        """See `ModernSpeaker.listen`."""
        self.posts.append(post)
        result = self.results.get((post.spec.name, "subscriptions/listen"))
        if isinstance(result, Exception):
            raise result
        if isinstance(result, ErrorResponse):
            post.inbound.respond(404, JSON, encode(result))
            return
        self.listens[post.spec.name] = post
        post.inbound.start(200, STREAM, None)

    def say(self, server: str, message: Message) -> None:
        """Write on the stream of a server's subscription."""
        self.listens[server].inbound.write(b"data: " + encode(message) + b"\n\n")

    def asked(self, server: str) -> list[Request]:
        """Give what a server was asked."""
        return [post.request for post in self.posts if post.spec.name == server]


@implementer(IMessageSink)
class Heard:
    """See `IMessageSink`; keeps everything."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.answer: Message | None = None
        self.error: GateError | None = None

    def deliver(self, message: Message) -> None:
        """See `IMessageSink.deliver`."""
        self.told.append(message)

    def finish(self, response: Message) -> None:
        """See `IMessageSink.finish`."""
        assert self.answer is None and self.error is None
        self.answer = response

    def fail(self, error: GateError) -> None:
        """See `IMessageSink.fail`."""
        assert self.answer is None and self.error is None
        self.error = error

    @property
    def result(self) -> dict[str, Any]:
        """The result it was answered with."""
        assert isinstance(self.answer, Response), (self.answer, self.error)
        return self.answer.result

    @property
    def methods(self) -> list[str]:
        """The methods of what was told."""
        return [one.method for one in self.told if isinstance(one, Notification)]


class GroupWorld:
    """
    A group of two servers, ``notes`` and ``git``.

    :ivar stopped: those that do not run.
    """

    def __init__(self, **group: Any) -> None:
        self.clock = Clock()
        self.servers = FakeServers()
        self.stopped: set[str] = set()
        self.specs = {name: spec(name) for name in ("notes", "git")}
        self.aggregate = Aggregate(
            Members(self.servers),
            self.specs.get,
            running=lambda spec, caller: spec.name not in self.stopped,
            clock=self.clock,
            wheel=DeadlineWheel(self.clock),
        )
        self.group = ServerSpec(
            name="team",
            transport=Transport.GROUP,
            runtime="group",
            era=Eras.MODERN,
            group=Group(**{"servers": ("notes", "git"), **group}),
        )

    def ask(
        self, method: str, caller: Caller = ANN, **params: object
    ) -> tuple[Heard, Callable[[], None]]:
        """Ask the group; give what heard the answer, and what takes the request back."""
        heard = Heard()
        request = Request(7, method, {**params, "_meta": CONTEXT.meta()})
        return heard, self.aggregate.ask(self.group, caller, request, heard)

    def result(self, method: str, **params: object) -> dict[str, Any]:
        """Ask the group and give the result."""
        return self.ask(method, ANN, **params)[0].result

    def lists(self, method: str, member: str, **items: list[dict[str, object]]) -> None:
        """Give servers their lists."""
        for server, found in items.items():
            self.servers.results[server, method] = {
                "resultType": "complete",
                member: found,
                "ttlMs": 1000,
                "cacheScope": "public",
            }
