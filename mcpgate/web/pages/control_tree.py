"""What the control socket is asked, and the answers: a small Klein tree of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, TypeVar

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from typing_extensions import override

from mcpgate.errors import BadRequest, GateError, NotFound, TooLarge
from mcpgate.model import Secret
from mcpgate.web.pages.control import (
    ASK_MOST_S,
    ASKED_BYTES,
    BODY_BYTES,
    FOLLOWED,
    METHODS,
    SESSIONS_LISTED,
    Asked,
    Chosen,
    ControlView,
    PinsAsked,
    Tidying,
)
from mcpgate.web.pages.tree import (
    CheckedResource,
    answer_error,
    answer_failure,
    answer_json,
    plain_map,
)

log = Logger()

T = TypeVar("T")

_NO_SERVER: Final = "There is no such server."


class ControlTree:
    """The commands as resources.  Errors look as they do everywhere."""

    app = plain_map(Klein())

    def __init__(self, view: ControlView, *, make_id: Callable[[], str]) -> None:
        self._view = view
        self._make_id = make_id

    def resource(self) -> IResource:
        """Give the tree as a resource."""
        return CheckedResource(
            self.app.resource(), lambda request: answer_error(request, NotFound(), self._make_id())
        )

    @app.route("/version", methods=["GET"])
    def _version(self, request: Request) -> bytes:
        view = self._view
        uptime_s = max(0.0, view.wall() - view.started_at)
        told = {"version": view.version, "pid": os.getpid(), "uptime_s": round(uptime_s, 1)}
        return answer_json(request, told)

    @app.route("/instances", methods=["GET"])
    def _instances(self, request: Request) -> bytes:
        return answer_json(request, {"instances": [asdict(one) for one in self._view.instances()]})

    @app.route("/instances/all", methods=["GET"])
    async def _all_instances(self, request: Request) -> bytes:
        known = {(one.server, one.owner): one for one in self._view.instances()}
        missing = ""
        try:
            left = await self._view.left()
        except GateError as error:
            left, missing = [], error.detail
        # What a call asked for says more than its container does.
        both = {(one.server, one.owner): one for one in left} | known
        shown = [asdict(one) for _, one in sorted(both.items(), key=lambda item: item[0])]
        return answer_json(request, {"instances": shown, "missing": missing})

    @app.route("/images", methods=["GET"])
    async def _images(self, request: Request) -> bytes:
        return answer_json(request, {"images": [asdict(one) for one in await self._view.images()]})

    @app.route("/sessions", methods=["GET"])
    def _sessions(self, request: Request) -> bytes:
        views = self._view.sessions(SESSIONS_LISTED)
        return answer_json(request, {"sessions": [asdict(one) for one in views]})

    @app.route("/logs/<server>", methods=["GET"])
    def _logs(self, request: Request, server: str) -> bytes:
        owner, user = (
            request.args.get(name, [b""])[0].decode("utf-8", "replace")
            for name in (b"owner", b"user")
        )
        found = self._view.logs(Chosen(server=server, owner=owner, user=user))
        if found is None:
            raise NotFound(_NO_SERVER)
        return answer_json(
            request, {"logs": {label: list(lines) for label, lines in found.items()}}
        )

    @app.route("/logs/<server>/follow", methods=["POST"])
    def _follow(self, request: Request, server: str) -> bytes:
        asked = _body(request)
        cursors = asked.get("cursors", {})
        if not isinstance(cursors, dict) or not all(isinstance(c, str) for c in cursors.values()):
            raise BadRequest("cursors are texts by owner.")
        found = self._view.follow(_chosen({**asked, "server": server}), cursors)
        if found is None:
            raise NotFound(_NO_SERVER)
        if len(found) > FOLLOWED:
            raise BadRequest(f"More than {FOLLOWED} logs can not be followed: choose an owner.")
        return answer_json(
            request, {"logs": {label: asdict(view) for label, view in found.items()}}
        )

    @app.route("/instances/start", methods=["POST"])
    async def _start(self, request: Request) -> bytes:
        starting = self._view.start(_chosen(_body(request)))
        if starting is None:
            raise NotFound(_NO_SERVER)
        started = await _shielded(starting)
        log.info("Started by the control socket: {started}", started=started)
        return answer_json(request, {"started": _named(started)})

    @app.route("/instances/stop", methods=["POST"])
    async def _stop(self, request: Request) -> bytes:
        stopping = self._view.stop(_chosen(_body(request)))
        if stopping is None:
            raise NotFound(_NO_SERVER)
        stopped = await _shielded(stopping)
        log.info("Stopped by the control socket: {stopped}", stopped=stopped)
        return answer_json(request, {"stopped": _named(stopped)})

    @app.route("/servers", methods=["GET"])
    def _servers(self, request: Request) -> bytes:
        return answer_json(request, {"servers": [asdict(one) for one in self._view.servers()]})

    @app.route("/servers/<server>/ask", methods=["POST"])
    async def _ask(self, request: Request, server: str) -> bytes:
        # Not shielded: the question is taken back when whoever asked has gone.
        asking = self._view.ask(_asked({**_body(request, ASKED_BYTES), "server": server}))
        if asking is None:
            raise NotFound(_NO_SERVER)
        return answer_json(request, await asking)

    @app.route("/servers/<server>/pins", methods=["POST"])
    async def _pins(self, request: Request, server: str) -> bytes:
        # Not shielded, for nothing is accepted before the server has told all of its tools.
        asking = self._view.pins(_pins_asked({**_body(request), "server": server}))
        if asking is None:
            raise NotFound(_NO_SERVER)
        return answer_json(request, await asking)

    @app.route("/cleanup", methods=["POST"])
    async def _clean_up(self, request: Request) -> bytes:
        tidying = _tidying(_body(request))
        found = await _shielded(self._view.clean_up(tidying))
        if not tidying.dry_run:
            log.info(
                "Cleaned up by the control socket: {found}",
                found=[f"{one.kind} {one.name}" for one in found if not one.error],
            )
        return answer_json(request, {"found": [asdict(one) for one in found]})

    @app.route("/reload", methods=["POST"])
    async def _reload(self, request: Request) -> bytes:
        return answer_json(request, {"changes": await _shielded(self._view.reload())})

    @app.handle_errors(Exception)  # type: ignore[arg-type]  # Klein types the request wider
    def _failed(self, request: Request, failure: Failure) -> bytes:
        return answer_failure(request, failure, self._make_id())


def _named(instances: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"server": server, "owner": owner} for server, owner in instances]


def _chosen(asked: Mapping[str, Any]) -> Chosen:
    """Read which instances are meant; raises `BadRequest`."""
    texts = {name: asked.get(name, "") for name in ("server", "owner", "user", "key")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise BadRequest("server, owner, user and key are texts.")
    idle_s = asked.get("idle_s")
    if idle_s is not None and (isinstance(idle_s, bool) or not isinstance(idle_s, int | float)):
        raise BadRequest("idle_s is a number of seconds.")
    key = texts.pop("key")
    return Chosen(**texts, idle_s=idle_s, key=Secret(key) if key else None)


def _asked(asked: Mapping[str, Any]) -> Asked:
    """Read a question to a server; raises `BadRequest`."""
    method, params = asked.get("method"), asked.get("params", {})
    if not isinstance(method, str) or method not in METHODS:
        raise BadRequest(f"method is one of {', '.join(sorted(METHODS))}.")
    if not isinstance(params, dict):
        raise BadRequest("params is an object.")
    return Asked(chosen=_chosen(asked), method=method, params=params, timeout_s=_timeout_s(asked))


def _pins_asked(asked: Mapping[str, Any]) -> PinsAsked:
    """Read a question for a server's pin; raises `BadRequest`."""
    accept = asked.get("accept", False)
    if not isinstance(accept, bool):
        raise BadRequest("accept is true or false.")
    return PinsAsked(chosen=_chosen(asked), accept=accept, timeout_s=_timeout_s(asked))


def _timeout_s(asked: Mapping[str, Any]) -> float:
    """Read how long to wait; raises `BadRequest`."""
    timeout_s = asked.get("timeout_s", 60.0)
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float):
        raise BadRequest("timeout_s is a number of seconds.")
    if not 0 < timeout_s <= ASK_MOST_S:
        raise BadRequest(f"timeout_s is more than 0 and at most {ASK_MOST_S:g}.")
    return float(timeout_s)


def _tidying(asked: Mapping[str, Any]) -> Tidying:
    """Read what is to be removed; raises `BadRequest`."""
    flags = {name: asked.get(name, False) for name in ("dry_run", "stopped", "orphans")}
    data = asked.get("data", [])
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise BadRequest("dry_run, stopped and orphans are true or false.")
    if not isinstance(data, list) or not all(isinstance(owner, str) for owner in data):
        raise BadRequest("data is a list of owners.")
    return Tidying(**flags, data=tuple(data))


def _shielded(work: Deferred[T]) -> Deferred[T]:
    """Wait for work that goes on when the one who asked has gone (Klein cancels then)."""
    waiter: Deferred[T] = Deferred()

    def over(result: T | Failure) -> None:
        if not waiter.called:
            waiter.callback(result)
        elif isinstance(result, Failure):
            log.failure("Work for the control socket failed", failure=result)

    work.addBoth(over)
    return waiter


def _body(request: Request, limit: int = BODY_BYTES) -> dict[str, Any]:
    content = request.content
    assert content is not None
    body = content.read(limit + 1)
    if len(body) > limit:
        raise TooLarge
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadRequest("The body is not a JSON object.")
    return value


class _QuietSite(Site):
    """Writes no access log: what is worth telling (a stop, a reload) is logged where it is done."""

    noisy = False
    displayTracebacks = False  # noqa: N815  # of Site

    @override
    def log(self, request: Any) -> None:
        pass


def make_site(
    view: ControlView, *, make_id: Callable[[], str], clock: IReactorTime
) -> IProtocolFactory:
    """Make what serves the commands on a connection."""
    return _QuietSite(ControlTree(view, make_id=make_id).resource(), timeout=60, reactor=clock)
