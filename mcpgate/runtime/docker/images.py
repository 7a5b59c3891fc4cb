"""
Images: looked for at each start, pulled only when and as the configuration says (R47).

A pull is under way once for all who want it; who waits for it no longer leaves it to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mcpgate.errors import ImageMissing, RuntimeUnavailable
from mcpgate.model import ServerSpec
from mcpgate.runtime.docker.engine import DockerCalls, NotThere, Refused

log = Logger()

PULL_S: Final = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """
    What the gate wants to know of an image; nothing else it says of itself counts (R53).

    :ivar user: who it runs as, when nobody says otherwise.
    """

    image_id: str
    user: str


class Images:
    """
    The images of the engine.

    :param reactor: clock and ``callFromThread``.
    :param pulls: another way to the engine, for pulls take long and must not be in the way.
    :ivar progress: what pulls under way said last, by image: for people.
    """

    def __init__(self, reactor: Any, calls: DockerCalls, pulls: Callable[[], DockerCalls]) -> None:
        self.progress: dict[str, str] = {}
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
        told: Mapping[str, Any] = await self._calls.call(lambda client: client.inspect_image(name))
        user = (told.get("Config") or {}).get("User") or ""
        return Image(image_id=str(told["Id"]), user=str(user))

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
            status = " ".join(str(step.get(each) or "") for each in ("id", "status", "progress"))
            self._reactor.callFromThread(self._stepped, name, status.strip()[:200])

    def _stepped(self, name: str, status: str) -> None:
        self.progress[name] = status

    def _over(self, name: str, failure: Failure | None) -> None:
        self.progress.pop(name, None)
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
                except (NotThere, Refused, RuntimeUnavailable):
                    continue  # It is in the log; who calls the server is told.

        Deferred.fromCoroutine(work()).addErrback(
            lambda failure: log.warn("Images: {why}", why=failure.getErrorMessage())
        )

    def log_progress(self) -> None:
        """Write down how pulls go; call it every so often."""
        for name, status in self.progress.items():
            log.info("Pulling image {image}: {status}", image=name, status=status)

    def close(self) -> None:
        """Let go of the thread."""
        if self._pulls is not None:
            self._pulls.close()
