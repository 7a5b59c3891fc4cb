"""
``docker run ...`` lines: an image and what its container may do.

What our containers are anyway (``--rm``, ``-i``, ``--init``, ``--cap-drop``, ``--read-only``) is
passed over in silence; what they never are (``--privileged``, the host's network) is noted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mcpgate.config.dialects.entries import Server, our_text, set_command

_SILENT: Final = frozenset(
    "-i -t -it -ti -d --interactive --tty --detach --rm --init --read-only -q --quiet "
    "--no-healthcheck".split()
)
# Options with a value that say nothing for us.
_IGNORED: Final = frozenset(
    "--name --label -l --restart --cap-drop --security-opt --platform --log-driver --log-opt "
    "--hostname -h --stop-timeout --stop-signal --attach -a --cidfile --cpu-shares -c "
    "--memory-swap --shm-size --ulimit --tmpfs --pull".split()
)
_VALUED: Final[Mapping[str, str]] = {
    "-m": "memory",
    "--memory": "memory",
    "--cpus": "cpus",
    "--pids-limit": "pids",
    "-u": "user",
    "--user": "user",
    "--entrypoint": "entrypoint",
}
_REFUSED: Final = frozenset(
    "--cap-add --device --privileged --pid --ipc --userns --uts --group-add --gpus --mount "
    "--publish -p --publish-all -P --workdir -w --add-host --dns --env-file --volumes-from "
    "--runtime --cgroup-parent --link".split()
)
_WITHOUT_VALUE: Final = frozenset("--privileged --publish-all -P".split())
_SIZES: Final = {"b": "B", "k": "KiB", "m": "MiB", "g": "GiB"}


def is_docker_run(words: Sequence[str]) -> bool:
    """Tell whether a command line starts a container."""
    if len(words) < 3 or words[0].rsplit("/", 1)[-1] not in ("docker", "podman"):
        return False
    return words[1] == "run" or tuple(words[1:3]) == ("container", "run")


def take_docker_run(server: Server, words: Sequence[str], environ: Mapping[str, str]) -> bool:
    """
    Set the keys of a server that ``docker run`` starts; False when there is no image.

    :param words: the whole command line.
    """
    rest = list(words[words.index("run") + 1 :])
    egress = "internet"
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            rest.insert(0, word)
            break
        option, equals, value = word.partition("=")
        if option[:2] != "--" and len(option) > 2 and option not in _SILENT:
            # -eNAME=VALUE, -v/a:/b
            option, value, equals = word[:2], word[2:].removeprefix("="), "="
        if option in _SILENT or option in _WITHOUT_VALUE:
            if option in _REFUSED:
                server.notes.append(f"{option}: left out, containers of the gate never are that")
            continue
        if not equals:
            if not rest:
                return False
            value = rest.pop(0)
        if option in ("--network", "--net"):
            egress = "none" if value == "none" else "internet"
            if value not in ("none", "bridge", "default"):
                server.notes.append(
                    f"{option}: containers of the gate have networks of their own; "
                    "see egress in the guide"
                )
        else:
            _take(server, option, value, environ)
    if not rest:
        return False
    server.keys.insert(0, ("image", rest.pop(0)))
    if rest:
        set_command(server, rest, environ)
    server.set("egress", egress)
    return True


def _take(server: Server, option: str, value: str, environ: Mapping[str, str]) -> None:
    if option in ("-e", "--env"):
        name, equals, text = value.partition("=")
        key = f"env.{name}"
        server.set(key, our_text(server, key, text, environ) if equals else f"${{{name}}}")
    elif option in ("-v", "--volume"):
        _volume(server, value)
    elif option in ("-m", "--memory"):
        size = _size(value)
        if size is None:
            server.notes.append("memory: left out, it is no size")
        else:
            server.set("memory", size)
    elif option in _VALUED:
        server.set(_VALUED[option], our_text(server, _VALUED[option], value, environ))
    elif option not in _IGNORED:
        server.notes.append(f"{option}: left out, the gate has no key for it")


def _volume(server: Server, value: str) -> None:
    host, _, rest = value.partition(":")
    inside, _, mode = rest.partition(":")
    if not host.startswith("/") or not inside.startswith("/"):
        server.notes.append(
            "volumes: a named volume was left out; use data = per-key, or a folder of the host"
        )
        return
    text = f"{host}:{inside}" + ("" if "ro" in mode.split(",") else ":rw")
    for number, (key, old) in enumerate(server.keys):
        if key == "volumes":
            server.keys[number] = (key, f"{old}\n{text}")
            return
    server.set("volumes", text)


def _size(value: str) -> str | None:
    number = value.lower().removesuffix("b") or value
    unit = number[-1:] if number[-1:] in _SIZES else ""
    digits = number.removesuffix(unit) if unit else number
    return f"{digits}{_SIZES[unit or 'b']}" if digits.isdigit() else None
