"""
Ten thousand made-up requests: what the gate forwards is what h11 and twisted.web read.

The mass goes through the gate's own connection, route, relay and upstream objects without a socket;
some hundreds through a gate in a process of its own, over sockets.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from unittest import TestCase

from twisted.trial.unittest import SynchronousTestCase

from tests.functional.gate_process import GATE, NO_LIMITS, GateProcess
from tests.http.agreement import NOT_READ, Agreement
from tests.http.generated import Case, Generated
from tests.http.readers import H11Reader
from tests.web.relay.in_memory import ANSWER, AUTHORITY, GateInMemory

SERVER = """
[server:srv]
url = http://127.0.0.1:{port}/mcp
"""


class MassTests(SynchronousTestCase):
    """Without sockets."""

    def test_ten_thousand(self) -> None:
        """Nobody reads otherwise, and the gate is never laxer than both others."""
        gate, agreement = GateInMemory(), Agreement(authority=AUTHORITY)
        # Some stand behind one that ended the connection: nobody looks at those.
        for case in Generated(20261129).cases(11_200):
            agreement.compare(case, *gate.converse(case.pieces))
        print("\n" + agreement.tally.table())  # noqa: T201 - for who reads the log
        self.assertEqual(agreement.tally.unexpected(), [])
        outcomes = agreement.tally.outcomes
        self.assertGreater(outcomes["forwarded, all agree on it"], 5_000)
        self.assertGreater(outcomes.total() - outcomes[NOT_READ], 10_000)


class RecordingServer:
    """
    Keeps every byte the gate sends, and answers requests that are whole.

    Blocking, a thread for each connection: the gate is another process.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._taken: dict[int, bytes] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        number = 0
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                number += 1
                threading.Thread(target=self._serve, args=(number, line), daemon=True).start()

    def _serve(self, number: int, line: socket.socket) -> None:
        reader = H11Reader()
        answered = 0
        with contextlib.suppress(OSError), line:
            while data := line.recv(65536):
                with self._lock:
                    self._taken[number] = self._taken.get(number, b"") + data
                reader.feed(data)
                while answered < len(reader.seen):
                    answered += 1
                    line.sendall(ANSWER)

    def take(self) -> list[bytes]:
        """Give what came since the last time, by connection, in order."""
        with self._lock:
            taken, self._taken = self._taken, {}
        return [data for _, data in sorted(taken.items())]

    def close(self) -> None:
        """Accept no more."""
        # Closing alone does not wake up who accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class RealGateTests(TestCase):
    """Over sockets, with keys, routes and a pool of connections."""

    def converse(self, gate: GateProcess, case: Case) -> bytes:
        """Send a case; give everything the gate said."""
        told = b""
        with socket.create_connection(("127.0.0.1", gate.plain_port), 10) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Who has been refused is not read to the end.
            with contextlib.suppress(ConnectionError):
                for piece in case.pieces:
                    line.sendall(piece)
                line.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while data := line.recv(65536):
                    told += data
        return told

    def test_some_hundreds(self) -> None:
        """A running gate passes on the same as its parts."""
        server = RecordingServer()
        self.addCleanup(server.close)
        gate = GateProcess(self, GATE + NO_LIMITS + SERVER.format(port=server.port))
        key = gate.add_key("ann")
        gate.start()
        agreement = Agreement(authority=b"127.0.0.1:%d" % server.port)
        generated = Generated(29, common=(b"Authorization: Bearer " + key.encode(),))
        for case in generated.cases(600):
            agreement.compare(case, self.converse(gate, case), server.take())
        print("\n" + agreement.tally.table())  # noqa: T201 - for who reads the log
        self.assertEqual(agreement.tally.unexpected(), [])
        self.assertGreater(agreement.tally.outcomes["forwarded, all agree on it"], 200)
