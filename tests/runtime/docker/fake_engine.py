"""A container engine in memory, as far as the runtime asks one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from mcpgate.errors import RuntimeUnavailable
from mcpgate.runtime.docker.engine import NotThere, Refused


class FakeReactor(Clock):
    """A clock that takes connections."""

    def __init__(self) -> None:
        super().__init__()
        self.protocols: list[Any] = []

    def adoptStreamConnection(self, handle: int, family: int, factory: Any) -> None:  # Twisted's
        """Take a connection; nothing is read from it."""
        os.fstat(handle)
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(Transport(protocol))
        self.protocols.append(protocol)


class Transport(StringTransport):
    """What streams want of a connection."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol: Any = protocol

    def startReading(self) -> None:  # noqa: N802  # Twisted's
        """Read."""

    def stopReading(self) -> None:  # noqa: N802  # Twisted's
        """Do not."""

    def loseWriteConnection(self) -> None:  # Twisted's
        """Close one half."""


class FakeEngine:
    """
    Stands for a client of the SDK and what is behind.

    :ivar containers_: by id, as ``inspect`` tells of them.
    :ivar refusals: by the name of a method, what it raises next.
    :ivar silent: it does not answer.
    """

    def __init__(self) -> None:
        self.containers_: dict[str, dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {"x:1": {"Id": "sha256:1", "Config": {}}}
        self.networks_: list[dict[str, Any]] = []
        self.refusals: dict[str, Exception] = {}
        self.silent = False
        self.asked: list[str] = []
        self.ended_at = "2020-01-01T00:00:00Z"
        self.ids = count(1)

    def call(
        self,
        work: Callable[[Any], Any],
        *,
        discard: Callable[[Any], object] | None = None,
        deadline_s: float = 0,
    ) -> Deferred[Any]:
        """See `DockerCalls.call`."""
        if self.silent:
            return fail(RuntimeUnavailable())
        try:
            return succeed(work(self))
        except Exception as error:
            return fail(error)

    def close(self) -> None:
        """See `DockerCalls.close`."""

    def asked_for(self, what: str) -> None:
        """Note a call, or refuse it."""
        self.asked.append(what)
        refusal = self.refusals.pop(what, None)
        if refusal is not None:
            raise refusal

    def find(self, container_id: str) -> dict[str, Any]:
        """Find a container."""
        if container_id not in self.containers_:
            raise NotThere(container_id)
        return self.containers_[container_id]

    # --- The SDK --------------------------------------------------------------------------------

    def inspect_image(self, name: str) -> dict[str, Any]:
        """See the SDK."""
        if name not in self.images:
            raise NotThere(name)
        return self.images[name]

    def networks(self, **_: Any) -> list[dict[str, Any]]:
        """See the SDK."""
        return list(self.networks_)

    def create_network(self, **wanted: Any) -> None:
        """See the SDK."""
        self.networks_.append({"Name": wanted["name"], "Id": wanted["name"]})

    def remove_network(self, name: str) -> None:
        """See the SDK."""
        self.networks_ = [one for one in self.networks_ if one["Id"] != name]

    def create_container_from_config(self, body: dict[str, Any], name: str) -> dict[str, str]:
        """See the SDK."""
        self.asked_for("create")
        container_id = f"c{next(self.ids)}"
        self.containers_[container_id] = {
            "Id": container_id,
            "Name": name,
            "Image": body["Image"],
            "Config": body,
            "State": {"Status": "created", "Running": False, "ExitCode": 0},
        }
        return {"Id": container_id}

    def containers(self, *, filters: dict[str, list[str]], **_: Any) -> list[dict[str, Any]]:
        """See the SDK."""
        self.asked_for("list")
        wanted = {label.partition("=")[::2] for label in filters["label"]}
        return [
            {
                "Id": one["Id"],
                "Names": ["/" + one["Name"]],
                "ImageID": one["Image"],
                "State": one["State"]["Status"],
                "Labels": one["Config"]["Labels"],
                "Created": 0,
                "HostConfig": {"NetworkMode": one["Config"]["HostConfig"]["NetworkMode"]},
            }
            for one in self.containers_.values()
            if wanted <= set(one["Config"]["Labels"].items())
        ]

    def attach_socket(self, container_id: str, params: object) -> Any:
        """See the SDK."""
        self.asked_for("attach")
        self.find(container_id)
        ours, theirs = socket.socketpair()

        def close() -> None:
            ours.close()
            theirs.close()

        raw = SimpleNamespace(_fp=SimpleNamespace(fp=SimpleNamespace(peek=lambda _: b"")))
        return SimpleNamespace(_sock=ours, _response=SimpleNamespace(raw=raw, close=close))

    def start(self, container_id: str) -> None:
        """See the SDK."""
        self.asked_for("start")
        self.find(container_id)["State"] = {"Status": "running", "Running": True, "Pid": 0}

    def inspect_container(self, container_id: str) -> dict[str, Any]:
        """See the SDK."""
        self.asked_for("inspect")
        found = self.find(container_id)
        running = found["State"]["Running"]
        address = {"IPAddress": "10.213.0.2" if running else ""}
        bound = [{"HostIp": "127.0.0.1", "HostPort": "4321"}] if running else None
        return {
            **found,
            "NetworkSettings": {"Networks": {"n": address}, "Ports": {"8000/tcp": bound}},
        }

    def rename(self, container_id: str, name: str) -> None:
        """See the SDK."""
        self.asked_for("rename")
        self.find(container_id)["Name"] = name

    def kill(self, container_id: str, name: str) -> None:
        """See the SDK."""
        self.asked_for(name)
        self.end(container_id, 143 if name == "SIGTERM" else 137)

    def logs(self, container_id: str, tail: int) -> bytes:
        """See the SDK."""
        self.asked_for("logs")
        return b"said before\n"

    def remove_container(self, container_id: str, **_: Any) -> None:
        """See the SDK."""
        self.asked_for("remove")
        self.find(container_id)
        del self.containers_[container_id]

    # --- What happens beside --------------------------------------------------------------------

    def end(self, container_id: str, code: int) -> None:
        """End a container."""
        self.find(container_id)["State"] = {
            "Status": "exited",
            "Running": False,
            "ExitCode": code,
            "FinishedAt": self.ended_at,
        }

    def states(self) -> list[str]:
        """Tell how all containers are."""
        return [one["State"]["Status"] for one in self.containers_.values()]


REFUSED = Refused(500, "no")
