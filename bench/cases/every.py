"""Every case there is, in the order they run."""

from __future__ import annotations

from typing import Final

from bench.cases import relay, relay_tls, stdio
from bench.lab.lab import Case

CASES: Final[tuple[Case, ...]] = (relay.CASE, relay_tls.CASE, stdio.CASE)
