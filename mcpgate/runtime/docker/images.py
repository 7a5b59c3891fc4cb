"""
Images: looked for at each start, pulled only when and as the configuration says (R47).

What was last seen of each image of the configuration is kept, for people who ask.

A pull is under way once for all who want it; who waits for it no longer leaves it to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import ImageMissing, RuntimeUnavailable
from mcpgate.model import ServerSpec
from mcpgate.runtime.docker.engine import DockerCalls, NotThere, Refused
from mcpgate.runtime.docker.pulls import PullProgress
from mcpgate.telemetry.views import ImageView
from mcpgate.timing.deferreds import deferred

log = Logger()

PULL_S: Final = 1800.0
LOG_S: Final = 10.0
"""A pull under way is told of in the log this often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """
    What the gate wants to know of an image; nothing else it says of itself counts (R53).

    :ivar user: who it runs as, when nobody says otherwise.
    """

    image_id: str
    user: str


@dataclass(slots=True)
class _Seen:
    """What was last seen of one image of the configuration."""

    servers: list[str] = field(default_factory=list)
    pull: str = "never"
    state: str = "unknown"
    digest: str = ""
    size_bytes: int | None = None
    error: str = ""


def digest_of(told: Mapping[str, Any]) -> str:
    """Give the digest its registry knows an image by; its own id where it came from none."""
    for text in told.get("RepoDigests") or ():
        _, at, found = str(text).partition("@")
        if at:
            return found
    return str(told.get("Id") or "")


class Images:
    """
    The images of the engine.

    :param reactor: clock and ``callFromThread``.
    :param pulls: another way to the engine, for pulls take long and must not be in the way.
    :param specs: every server of the configuration, for `views`.
    :ivar progress: pulls under way, by image.
    :ivar ids: what the names stood for when they were last looked at.
    """

    def __init__(
        self,
        reactor: Any,
        calls: DockerCalls,
        pulls: Callable[[], DockerCalls],
        specs: Iterable[ServerSpec] = (),
    ) -> None:
        self.progress: dict[str, PullProgress] = {}
        self.ids: dict[str, str] = {}
        self._logged_at: dict[str, float] = {}
        self._seen: dict[str, _Seen] = {}
        for spec in specs:
            if spec.container.image:
                seen = self._seen.setdefault(spec.container.image, _Seen())
                seen.servers.append(spec.name)
                if spec.container.pull != "never":
                    seen.pull = spec.container.pull
        self._clock: IReactorTime = reactor
        self._reactor = reactor
        self._calls = calls
        self._make_pulls = pulls
        self._pulls: DockerCalls | None = None
        self._waiting: dict[str, list[Deferred[None]]] = {}

    async def require(self, spec: ServerSpec) -> Image:
        """
        Give the image of a server, pulled first if it says ``pull = on-demand``.

        :raises ImageMissing: it is not there.
        """
        name = spec.container.image
        try:
            return await self._look(name)
        except NotThere:
            if spec.container.pull != "on-demand" and name not in self._waiting:
                raise self._missing(spec) from None
        try:
            await self.pull(name)
            return await self._look(name)
        except (NotThere, Refused):
            raise self._missing(spec) from None

    async def _look(self, name: str) -> Image:
        seen = self._seen.get(name) or _Seen()
        try:
            told: Mapping[str, Any] = await self._calls.call(
                lambda client: client.inspect_image(name)
            )
        except NotThere:
            seen.state, seen.digest, seen.size_bytes = "missing", "", None
            self.ids.pop(name, None)
            raise
        seen.state, seen.digest, seen.error = "present", digest_of(told), ""
        seen.size_bytes = int(told.get("Size") or 0)
        user = (told.get("Config") or {}).get("User") or ""
        image_id = self.ids[name] = str(told["Id"])
        return Image(image_id=image_id, user=str(user))

    def _missing(self, spec: ServerSpec) -> ImageMissing:
        name = spec.container.image
        return ImageMissing(
            f"The image '{name}' of server '{spec.name}' is not on this machine.",
            retry_after_s=30.0,
            data={"cause": "image_missing"},
        )

    async def missing(self, specs: Iterable[ServerSpec]) -> list[str]:
        """Name the images that are not there."""
        found = []
        for name in dict.fromkeys(spec.container.image for spec in specs):
            try:
                await self._look(name)
            except NotThere:
                found.append(name)
        return found

    # --- For people ---------------------------------------------------------------------------

    def views(self) -> list[ImageView]:
        """Tell of every image of the configuration, as last seen."""
        found = []
        for name, seen in sorted(self._seen.items()):
            pull = self.progress.get(name)
            found.append(
                ImageView(
                    name=name,
                    servers=tuple(seen.servers),
                    state=seen.state if pull is None else "pulling",
                    digest=seen.digest,
                    size_bytes=seen.size_bytes,
                    pull=seen.pull,
                    progress="" if pull is None else pull.text,
                    percent=None if pull is None else pull.percent,
                    error=seen.error,
                )
            )
        return found

    @deferred
    async def look(self) -> None:
        """Look at every image of the configuration again; an engine that is silent is left."""
        for name in self._seen:
            try:
                await self._look(name)
            except NotThere:
                continue
            except (Refused, RuntimeUnavailable):
                return

    # --- Pulling ------------------------------------------------------------------------------

    def pull(self, name: str) -> Deferred[None]:
        """Pull an image; fails with `Refused`, `NotThere` or `RuntimeUnavailable`."""
        begun = name in self._waiting
        waiting = self._waiting.setdefault(name, [])
        waiter: Deferred[None] = Deferred(waiting.remove)
        waiting.append(waiter)
        if not begun:
            self._begin(name)  # Which may be over at once, when the engine is silent.
        return waiter

    def _begin(self, name: str) -> None:
        if self._pulls is None:
            self._pulls = self._make_pulls()
        self.progress[name] = PullProgress()
        self._logged_at[name] = self._clock.seconds()
        log.info("Pulling image {image}", image=name)
        pulling = self._pulls.call(lambda client: self._pull(client, name), deadline_s=PULL_S)
        pulling.addCallbacks(
            lambda _: self._over(name, None), lambda failure: self._over(name, failure)
        ).addErrback(lambda failure: log.failure("What follows a pull failed", failure))

    def _pull(self, client: Any, name: str) -> None:
        """Pull, on a thread."""
        from docker.utils import parse_repository_tag  # noqa: PLC0415  # an optional requirement

        repository, tag = parse_repository_tag(name)
        for step in client.pull(repository, tag=tag or "latest", stream=True, decode=True):
            if "error" in step:
                raise Refused(500, str(step["error"]))
            self._reactor.callFromThread(self._stepped, name, step)

    def _stepped(self, name: str, step: Mapping[str, Any]) -> None:
        progress = self.progress.get(name)
        if progress is None:
            return  # It is over: nobody waited for its last words.
        progress.step(step)
        now = self._clock.seconds()
        if now - self._logged_at[name] >= LOG_S:
            self._logged_at[name] = now
            log.info("Pulling image {image}: {status}", image=name, status=progress.text)

    def _over(self, name: str, failure: Failure | None) -> None:
        self.progress.pop(name, None)
        self._logged_at.pop(name, None)
        seen = self._seen.get(name)
        if seen is not None and failure is not None:
            seen.error = failure.getErrorMessage()[:500]
        if failure is None:
            log.info("Image {image} is there", image=name)
        else:
            log.error("Image {image}: {why}", image=name, why=failure.getErrorMessage())
        for waiter in self._waiting.pop(name, []):
            if failure is None:
                waiter.callback(None)
            else:
                waiter.errback(failure)

    def pull_at_start(self, specs: Iterable[ServerSpec]) -> None:
        """Pull what is missing of the servers that say ``pull = at-start``; in the background."""
        wanted = [spec for spec in specs if spec.container.pull == "at-start"]

        async def work() -> None:
            for name in await self.missing(wanted):
                try:
                    await self.pull(name)
                    await self._look(name)
                except (NotThere, Refused, RuntimeUnavailable):
                    continue  # It is in the log; who calls the server is told.
            await self.look()

        Deferred.fromCoroutine(work()).addErrback(
            lambda failure: log.warn("Images: {why}", why=failure.getErrorMessage())
        )

    def close(self) -> None:
        """Let go of the thread."""
        if self._pulls is not None:
            self._pulls.close()
