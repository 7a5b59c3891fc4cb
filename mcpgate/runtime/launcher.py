r"""
What stands between the gate and a server: a program that prepares its own process, then becomes
the server.

`reactor.spawnProcess` can not ask for a session of its own, a death signal or limits, so it runs
this file (``python -I -S launcher.py``), which does and then calls exec.  It imports no module of
ours and as little as it can of Python's: 10 to 15 ms on a small machine, most of it the
interpreter.

Instructions come on file descriptor 3, never as arguments (they hold secrets, and arguments show
in process lists): ``name=value`` pairs, each ended by NUL, see `Instructions`.  File descriptor 4
tells the gate how it went: the byte ``.`` when everything is prepared, then the end of file when
exec succeeded (the descriptor closes on exec), else ``step\0errno\0about what``.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

INSTRUCTIONS_FD = 3
REPORT_FD = 4

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38


class Instructions:
    """
    What the gate wants.

    :ivar args: the command; ``env``: its whole environment; ``limits``: RLIMIT number to value.
    :ivar options: ``parent`` (the gate's pid), ``cwd``, ``nice``, ``oom_score_adj``.
    """

    def __init__(self, data: bytes) -> None:
        self.args: list[bytes] = []
        self.env: dict[bytes, bytes] = {}
        self.limits: dict[int, int] = {}
        self.options: dict[str, bytes] = {}
        for pair in data.split(b"\0")[:-1]:
            name, _, value = pair.partition(b"=")
            if name == b"arg":
                self.args.append(value)
            elif name == b"env":
                key, _, text = value.partition(b"=")
                self.env[key] = text
            elif name == b"limit":
                number, _, most = value.partition(b":")
                self.limits[int(number)] = int(most)
            else:
                self.options[name.decode()] = value


def read_instructions() -> Instructions:  # pragma: no cover  # as main
    """Read to the end of the pipe; an end without a NUL means the gate died while writing."""
    parts = []
    while True:
        part = os.read(INSTRUCTIONS_FD, 65536)
        if not part:
            break
        parts.append(part)
    data = b"".join(parts)
    if not data.endswith(b"end=\0"):
        os._exit(127)
    os.close(INSTRUCTIONS_FD)
    return Instructions(data)


def live_and_die_with(parent: int) -> None:  # pragma: no cover  # as main
    """
    Have the kernel kill us when the gate dies, whatever it dies of.

    The signal is tied to the thread that started us (the reactor's), and is not inherited by our
    children: the gate finds those by session at its next start.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        os._exit(127)  # It died before we asked.
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")


def limit(limits: dict[int, int]) -> None:  # pragma: no cover  # as main
    """Set each limit, or the lower hard limit that is there already."""
    for number, wanted in limits.items():
        hard = resource.getrlimit(number)[1]
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        # The stack's is a default for threads, which a server may raise; the others are ours.
        resource.setrlimit(number, (most, hard if number == resource.RLIMIT_STACK else most))


def prefer_for_oom(score: bytes) -> None:  # pragma: no cover  # as main
    """Be killed before the gate when memory is short; not being allowed to ask is no failure."""
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(score)
    except OSError:
        pass


def found(command: bytes, path: bytes) -> bytes | None:
    """Give the file to execute; None when no folder of PATH has it."""
    if b"/" in command:
        return command
    for folder in path.split(b":"):
        candidate = (folder or b".") + b"/" + command
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    return None


def main() -> None:  # pragma: no cover  # runs without coverage; tests/functional proves it
    """Prepare, then become the server; only comes back by exiting."""
    step, about = "instructions", b""
    try:
        os.set_inheritable(REPORT_FD, False)
        told = read_instructions()
        step = "prepare"
        os.setsid()
        live_and_die_with(int(told.options["parent"]))
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these two.
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o077)
        prefer_for_oom(told.options["oom_score_adj"])
        if int(told.options["nice"]):
            os.nice(int(told.options["nice"]))
        limit(told.limits)
        os.closerange(REPORT_FD + 1, 65536)
        step, about = "cwd", told.options["cwd"]
        os.chdir(about)
        step, about = "command", told.args[0]
        program = found(about, told.env.get(b"PATH", b""))
        if program is None:
            raise FileNotFoundError(2, "not found")
        os.write(REPORT_FD, b".")
        os.execve(program, told.args, told.env)  # noqa: S606  # the purpose of this file
    except OSError as error:
        report = b"%s\0%d\0%s" % (step.encode(), error.errno or 0, about)
        os.write(REPORT_FD, report)
    except BaseException as error:
        os.write(REPORT_FD, b"%s\x000\x00%s" % (step.encode(), repr(error).encode()))
    os._exit(127)


if __name__ == "__main__":  # pragma: no cover  # as main
    sys.dont_write_bytecode = True
    main()
