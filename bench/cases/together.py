"""
One endpoint over ten stdio servers, beside one of them at its own address.

Clients call in turn a tool of each server; and list the tools of all of them.
"""

from __future__ import annotations

from functools import partial

from bench.lab import echo
from bench.lab.calls import call
from bench.lab.gate import Gate, stdio
from bench.lab.lab import GATE, Case, Lab

SERVERS = 10
ONE = f"{GATE}, one server"
CALL, LIST = "32 clients, tools/call", "8 clients, tools/list"


def run(lab: Lab) -> None:
    """Measure."""
    count = lab.size(SERVERS, 3)
    names = [f"s{number}" for number in range(count)]
    entries = "".join(stdio(name, echo.command()) for name in names)
    gate = Gate(lab, entries, gate="aggregate = on\n")
    turn = partial(call, lab, gate.port, pid=gate.pid, keys=gate.keys)
    many = partial(turn, clients=lab.size(32, 4), tools=[f"{name}__echo" for name in names])
    one = partial(turn, "/s0/mcp", clients=lab.size(32, 4))
    lab.interleave(CALL, {GATE: partial(many, "/mcp"), ONE: one})
    listing = partial(turn, clients=lab.size(8, 2), method="tools/list")
    lab.interleave(LIST, {GATE: partial(listing, "/mcp"), ONE: partial(listing, "/s0/mcp")})


CASE = Case("together", "one endpoint over 10 stdio servers", run, lives=2)
