"""
The load before relays: keep-alive connections that send one small request each.

By wrk; by a program of ours where it is missing or the turn shorter than wrk knows.
"""

from __future__ import annotations

import re

from bench.lab import cores
from bench.lab.calls import call
from bench.lab.lab import Lab
from bench.lab.parts import find
from bench.lab.running import HOST, BenchError, run
from bench.lab.tls import keep_calling
from bench.lab.usage import usage

_SCRIPT = """
wrk.method = "POST"
wrk.body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json, text/event-stream"
wrk.headers["Authorization"] = "Bearer KEY"
"""
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
CONNECTIONS = 32


class Load:
    """What loads relays, with a key."""

    def __init__(self, lab: Lab, key: str) -> None:
        self._lab = lab
        self._key = key
        self._wrk = None if lab.smoke else find("wrk")
        self._directory = lab.place("wrk")
        self._script = self._directory / "request.lua"
        self._script.write_text(_SCRIPT.replace("KEY", key))
        if self._wrk is None and not lab.smoke:
            lab.outcome.note("wrk is not installed: a slower program of ours made the load")

    def turn(self, port: int, path: str, pid: int, *, tls: bool = False) -> dict[str, float]:
        """
        Load one server for a turn.

        :param pid: whose use of the processor is told.
        :raises BenchError: an answer was not 2xx, or none came.
        """
        if self._wrk is not None:
            return self._by_wrk(self._wrk, port, path, pid, tls=tls)
        if tls:
            return keep_calling(self._lab, port, path, self._key, pid)
        task = {"era": "none", "clients": self._lab.size(CONNECTIONS, 4), "keys": [self._key]}
        return call(self._lab, port, path, pid=pid, **task)

    def _by_wrk(
        self, binary: str, port: int, path: str, pid: int, *, tls: bool
    ) -> dict[str, float]:
        # Over TLS the handshakes of all connections come first, and are not what is measured.
        seconds = max(1, round(self._lab.seconds)) * (3 if tls else 1)
        url = f"{'https' if tls else 'http'}://{HOST}:{port}{path}"
        before = usage(pid)
        said = run(
            [
                *cores.for_load(),
                *[binary, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"],
                *["--latency", "-s", str(self._script), url],
            ],
            self._directory,
            seconds + 30.0,
        )
        after = usage(pid)
        # What wrk says of its time leaves its start out.
        took = re.search(r"requests in ([\d.]+)(us|ms|s|m)\b", said)
        bad = re.search(r"Non-2xx.*|Socket errors.*", said)
        count = re.search(r"(\d+) requests in", said)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
        if bad is not None:
            raise BenchError(f"wrk: {bad[0]}")
        if count is None or took is None or rate is None or not int(count[1]):
            raise BenchError("wrk got no answer")
        return {
            "rate": float(rate[1]),
            "p50_ms": _ms(said, "50%"),
            "p99_ms": _ms(said, "99%"),
            **after.since(before, float(took[1]) * _UNITS[took[2]] / 1000, int(count[1])),
        }


def _ms(said: str, mark: str) -> float:
    found = re.search(rf"{mark}\s+([\d.]+)(us|ms|s|m)\b", said)
    if found is None:
        raise BenchError("wrk told no latency")
    return float(found[1]) * _UNITS[found[2]]
