"""Looks at this machine: files, programs, clock, what the gate may open."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mcpgate.config.advice import advise
from mcpgate.config.model import Config
from mcpgate.model import MIB
from mcpgate.service.doctor.findings import FAIL, WARN, Finding
from mcpgate.service.machine import MachineFiles
from mcpgate.web.listening.certificates import (
    CertificateError,
    CertificateFiles,
    load_certificate,
)

_NEAR_DAYS: Final = 30.0
_SCARCE_BYTES: Final = 256 * MIB
_FULL_BYTES: Final = 16 * MIB
_FEW_FILES: Final = 4096
_UNSYNCHRONIZED: Final = 0x40  # STA_UNSYNC of adjtimex(2)
_TIMEX_BYTES: Final = 208
_STATUS_AT: Final = 40


def advice(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Repeat what ``mcpgate check`` warns of, but for what has a look of its own."""
    told = False
    for text in advise(
        config, environ, datetime.now(UTC), lambda name, path: shutil.which(name, path=path)
    ):
        if text.startswith("the certificate ") or " the program " in text:
            continue
        told = True
        yield Finding(check="configuration", level=WARN, text=text)
    if not told:
        yield Finding(check="configuration", text=f"{config.path} is good")


def state_dir(path: Path, gate_uid: int | None) -> Iterator[Finding]:
    """
    Look at the state directory.

    :param gate_uid: whose it must be; None: of who asks.
    """
    name = "state directory"
    uid = os.geteuid() if gate_uid is None else gate_uid
    try:
        status = path.stat()
    except FileNotFoundError:
        yield Finding(check=name, text=f"{path} is made at the first start")
        return
    except OSError as error:
        yield Finding(
            check=name,
            level=FAIL,
            text=f"{path}: {error.strerror}",
            remedy="run this as the gate's user or as root",
        )
        return
    wrong = False
    if uid not in (status.st_uid, 0):
        wrong = True
        text = f"{path} belongs to user id {status.st_uid}, not {uid}"
        yield Finding(check=name, level=FAIL, text=text, remedy=f"chown -R {uid} {path}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        wrong = True
        text = f"others may look into {path}"
        yield Finding(check=name, level=WARN, text=text, remedy=f"chmod 700 {path}")
    space = os.statvfs(path)
    free = space.f_bavail * space.f_frsize
    if free < _SCARCE_BYTES:
        wrong = True
        yield Finding(
            check=name,
            level=FAIL if free < _FULL_BYTES else WARN,
            text=f"{free // MIB} MiB are free for {path}",
            remedy="make room on its disk",
        )
    if not wrong:
        yield Finding(check=name, text=f"{path}: {free // MIB} MiB free")


def certificates(config: Config) -> Iterator[Finding]:
    """Look at the certificates of ``[tls]``: whether they load, fit their keys, and last."""
    name = "certificate"
    if not any(text.startswith("tls:") for text in config.gate.listen + config.admin.listen):
        return
    if not config.tls.certificates:
        yield Finding(check=name, text="the gate makes one of its own (self-signed)")
    now = datetime.now(UTC)
    for pair in config.tls.certificates:
        try:
            files = CertificateFiles(chain=str(pair.certificate), key=str(pair.key))
            found = load_certificate(files)
        except CertificateError as error:
            yield Finding(check=name, level=FAIL, text=str(error))
            continue
        days = found.days_left(now)
        text = f"{pair.certificate} for {', '.join(found.names[:3])}"
        if days < 0:
            told = f"{text} has expired"
            yield Finding(check=name, level=FAIL, text=told, remedy="renew it")
        elif days < _NEAR_DAYS:
            told = f"{text} ends in {days:.0f} days"
            yield Finding(check=name, level=WARN, text=told, remedy="renew it")
        else:
            yield Finding(check=name, text=f"{text} is good for {days:.0f} days")


def programs(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Look for the programs of servers that are processes."""
    for spec in config.servers:
        if spec.runtime != "process" or "{" in spec.command[0]:
            continue
        found = shutil.which(spec.command[0], path=environ.get("PATH"))
        if found is None:
            yield Finding(
                check=f"server {spec.name}",
                level=FAIL,
                text=f"the program {spec.command[0]} is not found, or can not be run",
                remedy="install it, or write its whole path; PATH is that of who asks",
            )
        else:
            yield Finding(check=f"server {spec.name}", text=f"runs {found}")


def open_files(files: MachineFiles, pid: int | None) -> Iterator[Finding]:
    """Look at how many files the gate, or one of this user, may have open."""
    most = files.open_files(pid)
    if most is not None and most < _FEW_FILES:
        text = f"the gate may have {most} files open"
        remedy = "LimitNOFILE=65536 in the unit, or ulimit -Hn"
        yield Finding(check="open files", level=WARN, text=text, remedy=remedy)
    else:
        yield Finding(check="open files", text="no limit" if most is None else f"up to {most}")


def clock() -> Iterator[Finding]:
    """Ask the kernel whether something keeps its clock right."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.CDLL(None).adjtimex(buffer) < 0:
        yield Finding(check="clock", text="the kernel does not tell whether it is kept right")
        return
    status = ctypes.c_int.from_buffer(buffer, _STATUS_AT).value
    yield clock_finding(status)


def clock_finding(status: int) -> Finding:
    """Read the status word of adjtimex(2)."""
    if status & _UNSYNCHRONIZED:
        return Finding(
            check="clock",
            level=WARN,
            text="nothing keeps the clock right: certificates and tokens may seem expired",
            remedy="run chrony or systemd-timesyncd, here or on the host of this machine",
        )
    return Finding(check="clock", text="kept right")


def files_dir(config: Config, folder: str, mounts: str) -> Iterator[Finding]:
    """
    Look whether files of servers, with their secrets, stay in memory.

    :param mounts: text of /proc/mounts.
    """
    if not any(spec.runtime == "docker" and spec.files for spec in config.servers):
        return
    kind = kind_of_mount(folder, mounts)
    if kind in ("tmpfs", "ramfs"):
        yield Finding(check="files_dir", text=f"{folder} is in memory ({kind})")
    else:
        yield Finding(
            check="files_dir",
            level=WARN,
            text=f"{folder} is not in memory ({kind or 'unknown'}): secrets reach a disk",
            remedy="[docker] files_dir below /run or /dev/shm, or RuntimeDirectory= in the unit",
        )


def kind_of_mount(folder: str, mounts: str) -> str:
    """Tell on what kind of file system a folder is, or will be."""
    best, kind = "", ""
    for line in mounts.splitlines():
        words = line.split()
        if len(words) < 3:
            continue
        place = words[1]
        inside = folder == place or folder.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, kind = place, words[2]
    return kind
