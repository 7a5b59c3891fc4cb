"""
The yardstick servers of ``servers/yardstick*``: how each is started, alone or by a gate.

They are written with the official SDKs and offer what the conformance suite and the matrix of
eras call.  What a gate does worse than a yardstick alone is the gate's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.functional import real
from tests.functional.gate_process import SERVERS, free_port, wait_for

START_S = 90.0


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """
    One server.

    :ivar part: the SDK it is written with, see `tests.functional.real_parts`.
    :ivar words: what follows its script's name, before a port.
    :ivar how: ``http``, ``sse`` or ``stdio``.
    """

    part: str
    script: str
    words: tuple[str, ...] = ()
    how: str = "http"

    def command(self, port: int | str = "") -> list[str]:
        """Give the command that starts it."""
        script = str(SERVERS / self.script)
        if self.script.endswith(".mjs"):
            return [real.node(), script, str(real.package(self.part)), *self.words, str(port)]
        words = [*self.words, self.how]
        return [
            real.python(self.part),
            script,
            *words,
            *([str(port)] if self.how != "stdio" else []),
        ]

    def entry(self, name: str, port: int | None = None) -> str:
        """
        Write the entry of a gate's configuration for it.

        :param port: where it runs already; None lets the gate start it.
        """
        path = "/sse" if self.how == "sse" else "/mcp"
        lines = [f"[server:{name}]"]
        if port is not None:
            lines.append(f"url = http://127.0.0.1:{port}{path}")
        else:
            # Memory is counted as addresses: Node.js takes many of them.
            lines += [f"command = {' '.join(self.command('{port}'))}", "memory = 0", "pids = 0"]
            lines += ["stop_grace = 1s", "isolation = per-key"]
        if port is None or self.how == "sse":
            lines.append(f"transport = {self.how}")
        return "\n".join(lines) + "\n"


# Both eras: what the gate is measured by.  The others speak one, for what the gate bridges.
YARDSTICKS = {
    "py2": Yardstick(part="mcp2", script="yardstick2.py", words=("dual",)),
    "py2-modern": Yardstick(part="mcp2", script="yardstick2.py", words=("modern",)),
    "py2-modern-stdio": Yardstick(
        part="mcp2", script="yardstick2.py", words=("modern",), how="stdio"
    ),
    "ts2": Yardstick(part="sdk2", script="yardstick2.mjs", words=("dual",)),
    "ts2-modern": Yardstick(part="sdk2", script="yardstick2.mjs", words=("modern",)),
    "py1": Yardstick(part="mcp1", script="yardstick1.py"),
    "py1-sse": Yardstick(part="mcp1", script="yardstick1.py", how="sse"),
    "py1-stdio": Yardstick(part="mcp1", script="yardstick1.py", how="stdio"),
}


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def running(yardstick: Yardstick, port: int = 0) -> Iterator[int]:
    """Run an HTTP yardstick on 127.0.0.1; give its port, and end it afterwards."""
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="mcpgate-yardstick-") as home:
        log = Path(home) / "log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                yardstick.command(port),
                cwd=home,
                env={"PATH": os.environ["PATH"], "HOME": home},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:

            def answers() -> bool:
                if process.poll() is not None:
                    raise AssertionError(f"the yardstick ended: {log.read_text()[-2000:]}")
                return listens(port)

            wait_for(answers, "the yardstick listens", START_S)
            yield port
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
