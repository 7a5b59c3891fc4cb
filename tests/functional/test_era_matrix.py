"""Clients of all revisions do with servers of all transports what both can, through a gate."""

from __future__ import annotations

import sys
from collections.abc import Callable
from unittest import TestCase

from tests.functional import expected, real
from tests.functional.era_matrix import (
    CLIENTS,
    EXPECTED,
    PARTS,
    SERVERS,
    gate_with_all,
    through,
)


class EraMatrixTests(TestCase):
    """One test for each client; what is expected to fail may only become less."""


def _make(name: str) -> Callable[[EraMatrixTests], None]:
    client = CLIENTS[name]

    def test(self: EraMatrixTests) -> None:
        real.require(*PARTS)
        failures = {}
        with gate_with_all() as gate:
            for server in SERVERS:
                outcomes = through(gate, client, server)
                bad = {feature: how for feature, how in outcomes.items() if how != "ok"}
                line = f"{name} client, {server} server: {len(outcomes) - len(bad)} ok {bad}"
                print(f"\n{line[:500]}", file=sys.stderr)  # noqa: T201 - why, if it is new
                failures[server] = list(bad)
        expected.check(self, EXPECTED, name, failures)

    test.__doc__ = f"A client of {client.title} uses every server."
    return test


for _name in CLIENTS:
    setattr(EraMatrixTests, "test_" + _name.replace("-", "_"), _make(_name))
