"""The HTTP server behind what is measured, on the core of the load."""

from __future__ import annotations

from bench.lab import cores
from bench.lab.lab import Lab
from bench.lab.running import Program, free_port, python


class Upstream:
    """`bench.programs.upstream`, running; :raises BenchError: it does not start."""

    def __init__(self, lab: Lab) -> None:
        self.port = free_port()
        command = [*cores.for_load(), *python("upstream", self.port)]
        self.program: Program = lab.start("upstream", command, self.port)
        self.pid = self.program.pid
