"""
Container images for tests, made without a registry and without a network.

The running Python, its standard library and the shared libraries these need are packed into one
layer; with it come the packages of a virtual environment, or node and its modules.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PREFIX = "mcpgate-test"
"""Repository of every image made here."""

_LEFT_OUT = re.compile(
    r"(^|/)(__pycache__|test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|config-[^/]*)(/|$)"
)
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0::/:/x\napp:x:10001:10001::/home/app:/x\nnobody:x:65534:65534::/:/x\n",
    "etc/group": "root:x:0:\napp:x:10001:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
_FOLDERS = ("tmp", "proc", "sys", "dev", "run/mcpgate", "data", "home/app", "etc")


class Layer:
    """A file system under construction."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()
        self._tar = tarfile.open(fileobj=self.file, mode="w")
        self._seen: set[str] = set()
        for folder in _FOLDERS:
            self.folder(folder, 0o777 if folder in ("tmp", "data", "home/app") else 0o755)
        for path, text in _ACCOUNTS.items():
            self.text(path, text)

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Add a folder."""
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(entry)

    def text(self, path: str, text: str) -> None:
        """Add a file with this content."""
        entry = tarfile.TarInfo(path)
        entry.size, entry.mode = len(text.encode()), 0o644
        self._tar.addfile(entry, io.BytesIO(text.encode()))

    def copy(self, source: str | Path, path: str) -> None:
        """Add a file of the host, links followed."""
        if path in self._seen:
            return
        self._seen.add(path)
        real = os.path.realpath(source)
        entry = self._tar.gettarinfo(real, path)
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        with open(real, "rb") as file:
            self._tar.addfile(entry, file)

    def tree(self, source: Path, path: str) -> list[Path]:
        """Add a tree of the host; give what in it is a program or library."""
        binaries = []
        for found in _files(source):
            self.copy(found, f"{path}/{found.relative_to(source)}")
            if found.suffix in (".so", ".node") or ".so." in found.name:
                binaries.append(found)
        return binaries

    def libraries(self, binaries: Iterable[str | Path]) -> None:
        """Add the shared libraries that these need, where the loader looks for them."""
        for binary in binaries:
            told = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
            for library in re.findall(r"(/\S+\.so\S*)", told.stdout):
                name = os.path.basename(library)
                usual = library.startswith(("/lib64/ld-", "/lib/ld-"))
                self.copy(library, library.lstrip("/") if usual else f"usr/lib/{name}")

    def done(self) -> Any:
        """Close it; give the file, at its beginning."""
        self._tar.close()
        self.file.seek(0)
        return self.file


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        here = os.path.relpath(folder, root)
        folders[:] = [n for n in folders if not _LEFT_OUT.search(f"{here}/{n}/")]
        for name in names:
            yield Path(folder, name)


def _image(client: Any, tag: str, layer: Layer, environment: dict[str, str], entry: str) -> str:
    repository, _, version = tag.partition(":")
    changes = [f"ENV {name}={value}" for name, value in environment.items()]
    changes += ["WORKDIR /home/app", "USER 10001:10001", f"ENTRYPOINT {entry}"]
    # The address of the engine may be slow to take a hundred megabytes.
    client.timeout = 300
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        shutil.copyfileobj(layer.done(), file)
        file.flush()
        told = client.import_image(
            src=file.name, repository=repository, tag=version, changes=changes
        )
    # Podman takes no notice of the tag.
    image = json.loads(told.splitlines()[-1])["status"]
    client.tag(image, repository, version, force=True)
    return tag


def python_image(
    client: Any,
    name: str,
    *,
    packages: Path | None = None,
    module: str = "",
    files: dict[str, str] | None = None,
) -> str:
    """
    Make an image that runs Python; give its tag.

    :param packages: ``site-packages`` to take along.
    :param module: what ``python -m`` runs; empty: the image's arguments are Python's.
    :param files: further files, such as programs.
    """
    layer = Layer()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    layer.copy(sys.executable, f"opt/py/bin/{version}")
    binaries: list[str | Path] = [os.path.realpath(sys.executable)]
    library = Path(sysconfig.get_path("stdlib"))
    # The folder of packages of the interpreter itself is none of a test's.
    for found in _files(library):
        inner = found.relative_to(library)
        if inner.parts[0] not in ("site-packages", "dist-packages"):
            layer.copy(found, f"opt/py/lib/{version}/{inner}")
            if found.suffix == ".so":
                binaries.append(found)
    if packages is not None:
        binaries += layer.tree(packages, f"opt/py/lib/{version}/site-packages")
    layer.libraries(binaries)
    for path, text in (files or {}).items():
        layer.text(path.lstrip("/"), text)
    entry = [f"/opt/py/bin/{version}", *(("-m", module) if module else ())]
    environment = {
        "PATH": "/opt/py/bin",
        "PYTHONHOME": "/opt/py",
        "LD_LIBRARY_PATH": "/usr/lib",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/home/app",
    }
    quoted = ", ".join(f'"{word}"' for word in entry)
    return _image(client, f"{PREFIX}/{name}:1", layer, environment, f"[{quoted}]")


def node_image(client: Any, name: str, node: str, modules: Path, script: str) -> str:
    """Make an image that runs a script below ``node_modules``; give its tag."""
    layer = Layer()
    layer.copy(node, "usr/bin/node")
    binaries: list[str | Path] = [node, *layer.tree(modules, "app/node_modules")]
    layer.libraries(binaries)
    environment = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/usr/lib", "HOME": "/home/app"}
    entry = f'["/usr/bin/node", "/app/node_modules/{script}"]'
    return _image(client, f"{PREFIX}/{name}:1", layer, environment, entry)
