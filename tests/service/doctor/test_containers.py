"""Tests of looking at the container engine."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mcpgate.config.model import Config, DockerSection
from mcpgate.model import Container, ServerSpec, Transport
from mcpgate.runtime.docker.engine import NotThere
from mcpgate.service.doctor import containers
from mcpgate.service.doctor.findings import Finding

BOX = ServerSpec(
    name="box", transport=Transport.HTTP, runtime="docker", container=Container(image="x:1")
)
GOOD = {
    "CgroupVersion": "2",
    "SecurityOptions": ["name=seccomp,profile=default", "name=userns"],
    "LiveRestoreEnabled": True,
    "MemoryLimit": True,
}
POOL = IPv4Network("10.213.0.0/16")


class FakeClient:
    """The SDK's calls."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, Any]] = {}
        self.closed = 0

    def version(self) -> dict[str, str]:
        """See the SDK."""
        return {"Version": "29.1.0"}

    def info(self) -> dict[str, Any]:
        """See the SDK."""
        return GOOD

    def networks(self) -> list[dict[str, Any]]:
        """See the SDK."""
        return []

    def inspect_image(self, name: str) -> dict[str, Any]:
        """See the SDK."""
        if name not in self.there:
            raise NotThere(name)
        if not self.there[name]:
            raise ZeroDivisionError
        return self.there[name]

    def close(self) -> None:
        """See the SDK."""
        self.closed += 1


def network(name: str, subnet: str, gate: str = "") -> dict[str, Any]:
    """Make a network as the engine lists it."""
    labels = {"mcpgate.gate": gate} if gate else None
    return {"Name": name, "Labels": labels, "IPAM": {"Config": [{"Subnet": subnet}]}}


class ContainerTests(SynchronousTestCase):
    """`mcpgate.service.doctor.containers`."""

    def setUp(self) -> None:
        """Make an engine."""
        self.client = FakeClient()
        self.patch(containers, "connect", lambda url, timeout_s: self.client)
        self.patch(containers, "host_routes", list)

    def silent(self, error: Exception) -> None:
        """Have no engine answer."""

        def connect(url: str, timeout_s: float) -> Any:
            raise error

        self.patch(containers, "connect", connect)

    def look(self, *specs: ServerSpec, **docker: Any) -> dict[str, list[Finding]]:
        """Have every look."""
        config = Config(servers=specs, docker=DockerSection(**docker))
        looks = containers.looks(config, "g", None)
        return {name: list(look()) for name, look in looks.items()}

    def test_looks(self) -> None:
        """Without containers nobody is asked; what needs no network, no firewall."""
        self.assertEqual(self.look(), {})
        self.client.there["x:1"] = {"Id": "sha256:1"}
        self.assertEqual(set(self.look(BOX)), {"engine", "images", "subnets", "firewall"})
        self.assertEqual(set(self.look(BOX, firewall="admin")), {"engine", "images", "subnets"})
        pipe = replace(BOX, transport=Transport.STDIO)
        found = self.look(pipe)
        self.assertEqual(set(found), {"engine", "images"})
        self.assertEqual({one.level for each in found.values() for one in each}, {"ok"})
        self.assertEqual(self.client.closed, 2 + 3 + 3)

    def test_silent(self) -> None:
        """An engine that is not there is told of once, with the remedy."""
        for error, text in ((OSError("no socket"), "start it"), (ImportError(), "pip install")):
            self.silent(error)
            found = self.look(BOX, firewall="admin")
            self.assertEqual([len(each) for each in found.values()], [1, 0, 0])
            self.assertEqual(found["engine"][0].level, "fail")
            self.assertIn(text, found["engine"][0].remedy)

    def test_engine(self) -> None:
        """What an engine can not do is told."""
        (told,) = containers.engine({"Version": "29.1.0"}, GOOD)
        self.assertEqual(told.text, "29.1.0, cgroup 2, userns")
        poor = {"MemoryLimit": False, "PidsLimit": False, "LiveRestoreEnabled": False}
        found = list(containers.engine({"Version": "19.03.1"}, poor))
        self.assertEqual(
            [(one.level, one.text) for one in found[1:]],
            [
                ("warn", "19.03.1 is old"),
                ("fail", "it can not limit memory"),
                ("fail", "it can not limit processes"),
                ("warn", "containers are not kept from rare system calls (no seccomp)"),
                ("warn", "containers end when the engine is restarted"),
            ],
        )
        self.assertEqual(len(list(containers.engine({"Version": "master"}, GOOD))), 1)
        podman = {"Version": "4.3.1", "Components": [{"Name": "Podman Engine"}]}
        (told,) = containers.engine(podman, {**GOOD, "LiveRestoreEnabled": False})
        self.assertEqual(told.text, "Podman 4.3.1, cgroup 2, userns")

    def test_images(self) -> None:
        """Missing images are named with their servers and how to get them; pins are held."""
        pin = "y@sha256:aa"
        specs = [
            BOX,
            replace(BOX, name="other"),
            replace(BOX, name="late", container=Container(image="z:1", pull="at-start")),
            replace(BOX, name="pin", container=Container(image=pin)),
            replace(BOX, name="wrong", container=Container(image="w@sha256:bb")),
            replace(BOX, name="odd", container=Container(image="odd:1")),
        ]
        self.client.there = {
            pin: {"Id": "sha256:1", "RepoDigests": ["y@sha256:aa"]},
            "w@sha256:bb": {"Id": "sha256:2", "RepoDigests": ["w@sha256:cc"]},
            "odd:1": {},
        }
        found = list(containers.images(specs, self.client))
        self.assertEqual(
            [(one.level, one.text) for one in found],
            [
                ("fail", "is missing, for box, other"),
                ("warn", "is missing, for late; the gate pulls it at-start"),
                ("ok", "pinned: sha256:aa"),
                ("fail", "the engine has another one by this digest"),
                ("fail", "could not be looked at: "),
            ],
        )
        self.assertEqual(found[0].remedy, "docker pull x:1")

    def test_missing_images(self) -> None:
        """``check`` warns of what is missing, and no more when nobody answers."""
        config = Config(servers=(BOX,))
        self.assertEqual(containers.missing_images(Config(), 1.0), [])
        (told,) = containers.missing_images(config, 1.0)
        self.assertEqual(told, "the image x:1 is missing, for box: docker pull x:1")
        self.client.there["x:1"] = {"Id": "sha256:1"}
        self.assertEqual(containers.missing_images(config, 1.0), [])
        self.silent(OSError())
        self.assertIn("not answer", containers.missing_images(config, 1.0)[0])
        self.silent(ImportError())
        self.assertIn("pip install", containers.missing_images(config, 1.0)[0])

    def test_subnets(self) -> None:
        """Others on our addresses are named; gates share theirs."""
        networks = [
            network("ours", "10.213.0.0/28", "g"),
            network("theirs", "10.213.0.16/28", "h"),
            network("bridge", "172.17.0.0/16"),
        ]
        routes = [("mcpg0", IPv4Network("10.213.0.0/28")), ("eth0", IPv4Network("10.1.0.0/16"))]
        (told,) = containers.subnets(POOL, "g", networks, routes)
        self.assertEqual(
            (told.level, told.text),
            ("ok", f"{POOL}: 1 networks of this gate, 1 of other gates"),
        )
        networks.append(network("lab", "10.213.4.0/24"))
        routes.append(("tun0", IPv4Network("10.0.0.0/8")))
        (told,) = containers.subnets(POOL, "g", networks, routes)
        self.assertEqual(told.level, "warn")
        self.assertIn("the engine's network lab, the route to 10.0.0.0/8 by tun0", told.text)

    def test_routes(self) -> None:
        """Routes are read from the kernel's table; the default leads everywhere and is none."""
        path = Path(self.mktemp())
        self.patch(containers, "host_routes", ROUTES)
        path.write_text(
            "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
            "eth0 00000000 0102A8C0 0003 0 0 0 00000000 0 0 0\n"
            "eth0 0002A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
            "odd\n"
            "eth0 zz 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
        )
        self.assertEqual(
            containers.host_routes(str(path)), [("eth0", IPv4Network("192.168.2.0/24"))]
        )
        self.assertEqual(containers.host_routes("/nowhere"), [])

    def test_firewall(self) -> None:
        """The program and the right to use it are looked for."""
        folder = Path(self.mktemp())
        (folder / "7").mkdir(parents=True)
        (folder / "iptables").touch(0o755)
        (folder / "7" / "status").write_text("Name: x\nCapEff:\t0000000000001000\n")

        def look(pid: int | None, path: str = str(folder)) -> list[str]:
            return [one.level for one in containers.firewall(pid, str(folder), path)]

        self.assertEqual(look(7), ["ok"])
        (folder / "7" / "status").write_text("CapEff:\t0000000000000000\n")
        self.assertEqual(look(7, "/nowhere"), ["fail", "fail"])
        (folder / "7" / "status").write_text("Name: x\n")
        self.assertEqual(look(7), ["ok"])
        self.assertEqual(look(None), ["ok"])


ROUTES = containers.host_routes
