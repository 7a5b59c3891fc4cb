"""Looks at the container engine: what it can do, images, networks, the firewall."""

from __future__ import annotations

import shutil
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final

from mcpgate.config.model import Config
from mcpgate.model import ServerSpec
from mcpgate.runtime.docker.container import LABEL_GATE
from mcpgate.runtime.docker.engine import NotThere, connect, translated
from mcpgate.runtime.docker.images import digest_of
from mcpgate.runtime.docker.networks import needs_network, subnets_of
from mcpgate.service.doctor.findings import FAIL, WARN, Finding, Look

ASK_S: Final = 5.0

_CAP_NET_ADMIN: Final = 12
_IPTABLES_PATH: Final = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
_OLD: Final = (20, 10)


def in_containers(config: Config) -> list[ServerSpec]:
    """Give the servers that need the engine."""
    return [spec for spec in config.servers if spec.runtime == "docker"]


def looks(config: Config, gate_id: str, pid: int | None) -> dict[str, Look]:
    """Give every look at the engine; none when no server needs it."""
    specs = in_containers(config)
    if not specs:
        return {}

    def asking(name: str, ask: Callable[[Any], Iterable[Finding]]) -> Look:
        def look() -> list[Finding]:
            try:
                client = connect(config.docker.url, ASK_S)
            except Exception as error:
                # A border: the SDK raises many kinds when nobody answers.
                return [_silent(name, error)] if name == "engine" else []
            try:
                return list(ask(client))
            finally:
                client.close()

        return look

    found: dict[str, Look] = {
        "engine": asking("engine", lambda client: engine(client.version(), client.info())),
        "images": asking("images", lambda client: images(specs, client)),
    }
    if any(map(needs_network, specs)):
        found["subnets"] = asking(
            "subnets",
            lambda client: subnets(
                config.docker.subnets, gate_id, client.networks(), host_routes()
            ),
        )
        if config.docker.firewall == "gate":
            found["firewall"] = lambda: firewall(pid)
    return found


def _silent(name: str, error: Exception) -> Finding:
    missing = isinstance(error, ImportError)
    return Finding(
        check=name,
        level=FAIL,
        text="the docker SDK is not installed" if missing else f"it does not answer: {error}",
        remedy="pip install 'mcpgate[docker]'"
        if missing
        else "start it; [docker] url, and the group of its socket, must fit",
    )


def engine(version: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[Finding]:
    """Look at what the engine is and what it can hold containers to."""
    said = str(version.get("Version", "?"))
    options = [str(one) for one in info.get("SecurityOptions") or ()]
    podman = any(
        str(part.get("Name", "")).startswith("Podman") for part in version.get("Components") or ()
    )
    if podman:
        said = f"Podman {said}"
    traits = [f"cgroup {info.get('CgroupVersion') or '1'}"]
    traits += [word for word in ("userns", "rootless") if any(word in one for one in options)]
    yield Finding(check="engine", text=f"{said}, {', '.join(traits)}")
    numbers = said.split(".")
    if len(numbers) > 1 and all(number.isdecimal() for number in numbers[:2]):
        if (int(numbers[0]), int(numbers[1])) < _OLD:
            yield Finding(
                check="engine", level=WARN, text=f"{said} is old", remedy="update it to 20.10"
            )
    for key, what in (
        ("MemoryLimit", "memory"),
        ("PidsLimit", "processes"),
        ("CpuCfsQuota", "processors"),
    ):
        if info.get(key) is False:
            yield Finding(
                check="engine",
                level=FAIL,
                text=f"it can not limit {what}",
                remedy="enable that controller of the kernel's cgroups",
            )
    if not any("seccomp" in one for one in options):
        yield Finding(
            check="engine",
            level=WARN,
            text="containers are not kept from rare system calls (no seccomp)",
            remedy="use a kernel and an engine with seccomp",
        )
    # Podman has no engine that containers could end with.
    if info.get("LiveRestoreEnabled") is False and not podman:
        yield Finding(
            check="engine",
            level=WARN,
            text="containers end when the engine is restarted",
            remedy='"live-restore": true in daemon.json',
        )


def images(specs: Iterable[ServerSpec], client: Any) -> Iterator[Finding]:
    """Look for each image, and whether one pinned by digest is that one."""
    users: dict[str, list[ServerSpec]] = {}
    for spec in specs:
        users.setdefault(spec.container.image, []).append(spec)
    for name, using in users.items():
        check = f"image {name}"
        try:
            told = client.inspect_image(name)
        except Exception as error:
            if not isinstance(translated(error), NotThere):
                yield Finding(check=check, level=FAIL, text=f"could not be looked at: {error}")
                continue
            names = ", ".join(spec.name for spec in using)
            pulled = all(spec.container.pull != "never" for spec in using)
            yield Finding(
                check=check,
                level=WARN if pulled else FAIL,
                text=f"is missing, for {names}"
                + (f"; the gate pulls it {using[0].container.pull}" if pulled else ""),
                remedy=f"docker pull {name}",
            )
            continue
        yield _pinned(check, name, told)


def _pinned(check: str, name: str, told: Mapping[str, Any]) -> Finding:
    _, at, wanted = name.partition("@")
    known = {str(one).partition("@")[2] for one in told.get("RepoDigests") or ()}
    if at and wanted not in known and wanted != told.get("Id"):
        return Finding(
            check=check,
            level=FAIL,
            text="the engine has another one by this digest",
            remedy=f"docker pull {name}",
        )
    pin = "pinned" if at else "there, not pinned"
    return Finding(check=check, text=f"{pin}: {digest_of(told)[:19]}")


def missing_images(config: Config, deadline_s: float) -> list[str]:
    """Give warnings of images that are missing; blocks, no longer than each question's deadline."""
    specs = in_containers(config)
    if not specs:
        return []
    try:
        client = connect(config.docker.url, deadline_s)
    except ImportError:
        return ["the docker SDK is not installed: pip install 'mcpgate[docker]'"]
    except Exception:
        # A border, as above; and no more than a warning.
        return ["the container engine does not answer: images were not looked for"]
    try:
        return [
            f"the {one.check} {one.text}: {one.remedy}"
            for one in images(specs, client)
            if one.level != "ok"
        ]
    finally:
        client.close()


# --- Networks -------------------------------------------------------------------------------------


def host_routes(path: str = "/proc/net/route") -> list[tuple[str, IPv4Network]]:
    """Give interface and network of the routes of this machine, without the default."""
    found = []
    try:
        lines = Path(path).read_text("ascii", "replace").splitlines()[1:]
    except OSError:
        return []
    for line in lines:
        words = line.split()
        if len(words) < 8:
            continue
        try:
            address, mask = (
                socket.inet_ntoa(struct.pack("<L", int(words[place], 16))) for place in (1, 7)
            )
            network = IPv4Network(f"{address}/{mask}", strict=False)
        except (ValueError, struct.error):
            continue
        if network.prefixlen:
            found.append((words[0], network))
    return found


def subnets(
    pool: IPv4Network,
    gate_id: str,
    networks: list[dict[str, Any]],
    routes: Iterable[tuple[str, IPv4Network]],
) -> Iterator[Finding]:
    """Look whether somebody else uses the addresses of ``[docker] subnets``."""
    labels = [(one.get("Labels") or {}).get(LABEL_GATE) for one in networks]
    taken: list[str] = []
    for one, label in zip(networks, labels, strict=True):
        # Gates share a pool: each looks what is free.
        if not label and any(pool.overlaps(found) for found in subnets_of([one])):
            taken.append(f"the engine's network {one.get('Name')}")
    known = set(subnets_of(networks))
    for interface, network in routes:
        if network not in known and pool.overlaps(network):
            taken.append(f"the route to {network} by {interface}")
    if taken:
        yield Finding(
            check="subnets",
            level=WARN,
            text=f"{pool} overlaps with {', '.join(taken[:5])}",
            remedy="choose another [docker] subnets",
        )
    else:
        ours = sum(1 for label in labels if label and label == gate_id)
        others = sum(1 for label in labels if label and label != gate_id)
        text = f"{pool}: {ours} networks of this gate, {others} of other gates"
        yield Finding(check="subnets", text=text)


def firewall(pid: int | None, proc: str = "/proc", path: str = _IPTABLES_PATH) -> list[Finding]:
    """
    Look whether the gate can put up its rules.

    :param pid: of the gate; None: it is taken to run as who asks.
    """
    found = []
    if shutil.which("iptables", path=path) is None:
        text = "iptables is not installed: containers with a network are refused"
        remedy = "install iptables, or put up the rules yourself and say firewall = admin"
        found.append(Finding(check="firewall", level=FAIL, text=text, remedy=remedy))
    if not _may_admin(pid, proc):
        text = "the gate may not change the firewall: containers with a network are refused"
        remedy = "AmbientCapabilities=CAP_NET_ADMIN in the unit, or firewall = admin"
        found.append(Finding(check="firewall", level=FAIL, text=text, remedy=remedy))
    return found or [Finding(check="firewall", text="iptables is there, and may be used")]


def _may_admin(pid: int | None, proc: str) -> bool:
    try:
        lines = Path(proc, "self" if pid is None else str(pid), "status").read_text("ascii")
    except OSError:
        return True  # It can not be told; the gate itself will.
    for line in lines.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return True
