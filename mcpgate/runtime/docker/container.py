"""
What the engine is asked to create: pure.

Every wall of a container stands here, and none can be configured away.  All texts come from the
configuration, from the gate's own digests and ids: nothing that came over the network becomes an
argument, an image, a mount or a name, and what an image says of itself (labels, exposed ports,
health checks) changes nothing (R51, R53, R54, R79).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from mcpgate.model import (
    MIB,
    InstanceKey,
    Isolation,
    Owner,
    ServerSpec,
    Transport,
    fill,
)

LABEL_GATE: Final = "mcpgate.gate"
LABEL_SERVER: Final = "mcpgate.server"
LABEL_ISOLATION: Final = "mcpgate.isolation"
LABEL_OWNER: Final = "mcpgate.owner"
LABEL_SPEC: Final = "mcpgate.spec"
LABEL_KEY: Final = "mcpgate.key"

DATA_DIR: Final = "/data"
FILES_DIR: Final = "/run/mcpgate"
NOBODY: Final = "65534:65534"
NO_NETWORK: Final = "none"

_PREFIX: Final = "mcpgate"
_GIVEN: Final = "for"
_GIVEN_PARTS: Final = 5
_HIDDEN_FROM: Final = 8
_EXITED: Final = re.compile(r"Exited \((\d{1,3})\)", re.ASCII)
_LOG_OPTIONS: Final = {"max-size": "10m", "max-file": "3"}

# What the life of a container does not depend on: it may change without a new container.
_BESIDE: Final = frozenset(
    "lifetime headers forward_headers url call_timeout_s call_timeout_max_s max_instances "
    "max_calls rate pool_lost_sessions max_body_bytes relay relay_body_bytes mcp_path "
    "ready_path era snapshot warm prestart".split()
)
_ESSENTIAL: Final = tuple(one.name for one in fields(ServerSpec) if one.name not in _BESIDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    Where a container is put.

    :ivar network: name of its network, or ``none``.
    :ivar published: its port is published on the loopback address of the host.
    :ivar closed: nothing beyond the network can be reached, so names are not looked up either.
    :ivar files_dir: folder of the host for ``{files_dir}``; empty when there are no files.
    :ivar data_dir: folder of the host for ``{data_dir}``; empty for none.
    :ivar hosts_file: file of the host for ``/etc/hosts``; empty for the engine's.
    """

    network: str = NO_NETWORK
    closed: bool = True
    published: bool = False
    files_dir: str = ""
    data_dir: str = ""
    hosts_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the engine says of one container of ours, as far as it matters here."""

    container_id: str
    name: str
    image_id: str
    state: str
    labels: Mapping[str, str]
    created_at: float
    network: str
    status: str = ""

    @property
    def exit_code(self) -> int | None:
        """Tell how it ended; None while it has not, or when the engine does not say."""
        found = _EXITED.match(self.status)
        return int(found[1]) if found else None

    @property
    def key(self) -> InstanceKey | None:
        """Whose it is; None when its labels are not as we write them."""
        made_for = self.made_for
        if made_for is None or not made_for.owner.is_nobody:
            return made_for
        # Labels can not be changed, so its name tells whom a spare container was given to.
        parts = self.name.split(".")
        if len(parts) != _GIVEN_PARTS or parts[1] != _GIVEN:
            return made_for
        try:
            owner = Owner(Isolation(parts[2]), parts[3].replace("_", "/"))
        except ValueError:
            return made_for
        return InstanceKey(made_for.server, owner)

    @property
    def made_for(self) -> InstanceKey | None:
        """Whom it was made for; None when its labels are not as we write them."""
        try:
            isolation = Isolation(self.labels[LABEL_ISOLATION])
            return InstanceKey(
                self.labels[LABEL_SERVER], Owner(isolation, self.labels[LABEL_OWNER])
            )
        except (KeyError, ValueError):
            return None

    @property
    def is_used_up(self) -> bool:
        """It was made for nobody, and nobody has it, or nobody has it any more."""
        if self.made_for is None or not self.made_for.owner.is_nobody:
            return False
        return not self.running or self.key == self.made_for

    @property
    def instance_id(self) -> str:
        """The id of its last start: the end of its name."""
        return self.name.rpartition(".")[2]

    @property
    def running(self) -> bool:
        """Tell whether something runs in it."""
        return self.state in ("running", "paused", "restarting")


def known(listed: Mapping[str, Any]) -> Known:
    """Read an entry of the engine's list of containers."""
    names = listed.get("Names") or [""]
    return Known(
        container_id=str(listed["Id"]),
        name=str(names[0]).lstrip("/"),
        image_id=str(listed.get("ImageID", "")),
        state=str(listed.get("State", "")),
        labels=listed.get("Labels") or {},
        created_at=float(listed.get("Created") or 0),
        status=str(listed.get("Status", "")),
        network=str((listed.get("HostConfig") or {}).get("NetworkMode", "")),
    )


def wall_time(text: str) -> float:
    """Read a time as the engine writes it (RFC 3339, nanoseconds); 0 when it is none."""
    try:
        return datetime.fromisoformat(text[:19] + "+00:00").timestamp()
    except ValueError:
        return 0.0


def digest(*parts: str, length: int = 16) -> str:
    """Give hex digits that stand for some texts in a name."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:length]


def container_name(gate_id: str, key: InstanceKey, instance_id: str) -> str:
    """
    Name a container after its server, a digest of its owner, and its last start.

    The name changes with each start: so the engine itself knows, for the next gate, which start
    is running.
    """
    return f"{_PREFIX}-{key.server}-{digest(gate_id, key.owner.digest, length=8)}.{instance_id}"


def given_name(gate_id: str, made_for: InstanceKey, key: InstanceKey, instance_id: str) -> str:
    """Name a container that was made for nobody and has an owner now."""
    first = container_name(gate_id, made_for, instance_id).partition(".")[0]
    owner = key.owner.digest.replace("/", "_")
    return f"{first}.{_GIVEN}.{key.owner.isolation.value}.{owner}.{instance_id}"


def key_label(key: InstanceKey) -> str:
    """Give the label by which the containers of one (server, owner) are found."""
    return digest(key.server, key.owner.isolation.value, key.owner.digest, length=32)


def spec_hash(spec: ServerSpec, hash_key: bytes) -> str:
    """
    Tell whether a container was made for this entry of the configuration.

    Keyed, for it is shown by the engine and its text may hold secrets.
    """
    # Fields one by one: ``repr`` of the whole leaves out what must not be shown.
    text = repr([(name, getattr(spec, name)) for name in _ESSENTIAL])
    return hmac.new(hash_key, text.encode("utf-8", "surrogateescape"), "sha256").hexdigest()[:32]


def template_values(spec: ServerSpec, values: Mapping[str, str]) -> dict[str, str]:
    """Give what templates of this server mean inside its container."""
    inside = {**values, "data_dir": DATA_DIR, "files_dir": FILES_DIR}
    if spec.transport.listens:
        inside["port"] = str(spec.container.port)
    return inside


def hidden_texts(spec: ServerSpec, values: Mapping[str, str]) -> tuple[str, ...]:
    """Give what must not be seen in what the server prints, longest first."""
    texts = {fill(value, dict(values)) for _, value in spec.env}
    hidden = {text for text in texts if len(text) >= _HIDDEN_FROM}
    if values.get("key"):
        hidden.add(values["key"])
    return tuple(sorted(hidden, key=len, reverse=True))


def create_parameters(
    spec: ServerSpec,
    key: InstanceKey,
    *,
    gate_id: str,
    image_id: str,
    image_user: str,
    values: Mapping[str, str],
    place: Place,
    hash_key: bytes,
) -> dict[str, Any]:
    """
    Give the body of ``POST /containers/create``.

    :param image_id: what the image's name stands for now, so that it can not change in between.
    :param image_user: who the image would run as.
    :param values: of `template_values`.
    """
    box, stdio = spec.container, spec.transport is Transport.STDIO
    user, env = _user(spec, image_user), [f"{name}={fill(v, dict(values))}" for name, v in spec.env]
    if user == NOBODY and not any(name == "HOME" for name, _ in spec.env):
        env.append("HOME=/tmp")  # Nobody has none, and libraries want to write there.
    body: dict[str, Any] = {
        "Image": image_id,
        "Env": env,
        "User": user,
        "Labels": labels(spec, key, gate_id, hash_key),
        "Tty": False,
        "AttachStdin": stdio,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": stdio,
        # The end of the gate's connection is the end of stdin: a server on stdio ends with it.
        "StdinOnce": stdio,
        # An image's check costs a process every few seconds, out of the server's own share.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(spec, place),
    }
    if spec.command:
        body["Cmd"] = [_argument(word, values) for word in spec.command]
    if box.entrypoint:
        body["Entrypoint"] = list(box.entrypoint)
    if spec.cwd:
        body["WorkingDir"] = fill(spec.cwd, dict(values))
    if place.published and not stdio:
        body["ExposedPorts"] = {f"{box.port}/tcp": {}}
    if place.network != NO_NETWORK:
        body["NetworkingConfig"] = {"EndpointsConfig": {place.network: {}}}
    return body


def _argument(word: str, values: Mapping[str, str]) -> str:
    """
    Fill in an argument.

    :raises ValueError: it became an option by what somebody else put in: a user's name (R54).
    """
    filled = fill(word, dict(values))
    if filled.startswith("-") and not word.startswith("-"):
        raise ValueError("an argument became an option by what was put in")
    return filled


def labels(spec: ServerSpec, key: InstanceKey, gate_id: str, hash_key: bytes) -> dict[str, str]:
    """Give the labels by which the next gate knows the container."""
    return {
        LABEL_GATE: gate_id,
        LABEL_SERVER: key.server,
        LABEL_ISOLATION: key.owner.isolation.value,
        LABEL_OWNER: key.owner.digest,
        LABEL_KEY: key_label(key),
        LABEL_SPEC: spec_hash(spec, hash_key),
    }


def _user(spec: ServerSpec, image_user: str) -> str:
    if spec.container.user:
        return spec.container.user
    name = image_user.partition(":")[0]
    return NOBODY if name in ("", "0", "root") else image_user


def _host_config(spec: ServerSpec, place: Place) -> dict[str, Any]:
    """Put up the walls (R51)."""
    limit, box = spec.restraint, spec.container
    config: dict[str, Any] = {
        "CapDrop": ["ALL"],
        "CapAdd": [],
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,mode=1777,size={box.tmp_bytes}"},  # noqa: S108  # inside
        "Init": True,
        "IpcMode": "private",
        "NetworkMode": place.network,
        "PublishAllPorts": False,
        "PortBindings": {},
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "Ulimits": _ulimits(spec),
        "Mounts": _mounts(box.volumes, place),
        # What a server on stdio prints are its users' messages: they are kept on no disk.
        "LogConfig": {"Type": "none"}
        if spec.transport is Transport.STDIO
        else {"Type": "json-file", "Config": dict(_LOG_OPTIONS)},
    }
    if place.published and spec.transport.listens:
        # The engine chooses the port: what the gate would choose may be taken in between.
        config["PortBindings"] = {f"{box.port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    if limit.memory_bytes:
        config["Memory"] = max(limit.memory_bytes, 6 * MIB)
        config["MemorySwap"] = config["Memory"]
    if limit.cpus:
        config["NanoCpus"] = round(limit.cpus * 1e9)
    if limit.pids:
        config["PidsLimit"] = limit.pids
    if place.closed and place.network != NO_NETWORK:
        # Else the engine would ask its own name servers for a container that may reach nobody,
        # and names can carry data out.
        config["Dns"] = ["127.0.0.1"]
        # Nobody answers there: a program that asks all the same is told after a second, not ten.
        config["DnsOptions"] = ["timeout:1", "attempts:1"]
    return config


def _ulimits(spec: ServerSpec) -> list[dict[str, Any]]:
    limit = spec.restraint
    found = [{"Name": "core", "Soft": 0, "Hard": 0}]  # A core dump holds keys.
    if limit.open_files:
        found.append({"Name": "nofile", "Soft": limit.open_files, "Hard": limit.open_files})
    if limit.file_bytes:
        found.append({"Name": "fsize", "Soft": limit.file_bytes, "Hard": limit.file_bytes})
    return found


def _mounts(volumes: Sequence[str], place: Place) -> list[dict[str, Any]]:
    found = []
    if place.files_dir:
        found.append(_bind(place.files_dir, FILES_DIR, read_only=True))
    if place.hosts_file:
        found.append(_bind(place.hosts_file, "/etc/hosts", read_only=True))
    if place.data_dir:
        found.append(_bind(place.data_dir, DATA_DIR, read_only=False))
    for volume in volumes:
        source, target, *mode = volume.split(":")
        found.append(_bind(source, target, read_only=mode != ["rw"]))
    return found


def _bind(source: str, target: str, *, read_only: bool) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }
