"""What is found, and how many looks are had at once, each within its deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Thread
from time import monotonic
from typing import Final

DEADLINE_S: Final = 10.0

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    One line.

    :ivar level: `OK`, `WARN` (it works, or may not always) or `FAIL`.
    :ivar remedy: what to do; empty for what is well.
    """

    check: str
    level: str = OK
    text: str
    remedy: str = ""


Look = Callable[[], Iterable[Finding]]


@dataclass(slots=True)
class _Looking:
    name: str
    look: Look
    found: list[Finding] = field(default_factory=list)

    def work(self) -> None:
        """Look, on a thread."""
        try:
            self.found = list(self.look())
        except Exception as error:
            # A border: one look that fails is told of, and the others go on.
            self.found = [
                Finding(check=self.name, level=FAIL, text=f"could not be looked at: {error}")
            ]


def examine(looks: Mapping[str, Look], deadline_s: float = DEADLINE_S) -> list[Finding]:
    """Have all looks at once; give what was found, in their order, within the deadline."""
    working = [_Looking(name, look) for name, look in looks.items()]
    # Daemons: what hangs for ever must not keep the program.
    threads = [Thread(target=one.work, name=f"doctor-{one.name}", daemon=True) for one in working]
    for thread in threads:
        thread.start()
    end = monotonic() + deadline_s
    found: list[Finding] = []
    for one, thread in zip(working, threads, strict=True):
        thread.join(max(0.0, end - monotonic()))
        if thread.is_alive():
            text = f"no answer within {deadline_s:g} s"
            found.append(Finding(check=one.name, level=FAIL, text=text))
        else:
            found += one.found
    return found
