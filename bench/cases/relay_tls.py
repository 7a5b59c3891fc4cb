"""
The same small call over TLS: on connections kept open, on new ones, on new ones that resume.

nginx has the gate's own certificate and key.  A handshake costs the client as much as the server:
the time of the processor says more than the rate.
"""

from __future__ import annotations

from functools import partial

from bench.lab.gate import Gate, remote
from bench.lab.lab import GATE, Case, Lab
from bench.lab.load import Load
from bench.lab.nginx import NGINX, nginx
from bench.lab.tls import connect
from bench.lab.upstream import Upstream

KEPT, NEW, RESUMED = "kept alive", "new connections", "resumed sessions"
PATH = "/srv/json"


def run(lab: Lab) -> None:
    """Measure."""
    upstream = Upstream(lab)
    gate = Gate(lab, remote("srv", upstream.port, "relay = on"))
    load = Load(lab, gate.key)
    made = lab.assemble(
        [KEPT, NEW, RESUMED],
        {NGINX: partial(nginx, lab, upstream.port, gate.key, certificate=gate.certificate)},
    )
    servers = {GATE: (gate.tls_port, PATH, gate.pid)}
    servers |= {name: (server.tls_port, PATH, server.pid) for name, server in made.items()}
    lab.interleave(KEPT, {name: partial(load.turn, *to, tls=True) for name, to in servers.items()})
    for work, resume in ((NEW, False), (RESUMED, True)):
        turn = partial(connect, lab, key=gate.key, resume=resume)
        lab.interleave(work, {name: partial(turn, *to) for name, to in servers.items()})


CASE = Case("relay-tls", "a small JSON call through the relay, over TLS", run)
