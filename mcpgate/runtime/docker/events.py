"""
What the engine says happened, on a thread of its own.

The stream ends when the engine is restarted; it is opened again from where it ended.  Whoever
listens looks at everything anew each time it was opened: what happened in between may be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Event, Thread
from typing import Any, Final

from twisted.logger import Logger

log = Logger()

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 2.0


class EventStream:
    """
    Follows the containers that carry one label.

    :param call_from_thread: the reactor's.
    :param make_client: makes a client of the SDK, whose reads may wait for ever.
    :param received: called with each event.
    :param opened: called each time the stream was opened.
    """

    def __init__(
        self,
        call_from_thread: Callable[..., Any],
        make_client: Callable[[], Any],
        *,
        label: str,
        received: Callable[[Mapping[str, Any]], None],
        opened: Callable[[], None],
    ) -> None:
        self._call = call_from_thread
        self._make_client = make_client
        self._label = label
        self._received = received
        self._opened = opened
        self._stopped = Event()
        self._stream: Any = None
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin; once."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="mcpgate-docker-events", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread, soon."""
        self._stopped.set()
        stream = self._stream
        if stream is not None:
            try:
                stream.close()
            except (OSError, AttributeError):
                return  # It ended just now.

    def _run(self) -> None:
        since: str | None = None
        pause_s = FIRST_PAUSE_S
        while not self._stopped.is_set():
            client: Any = None
            try:
                client = self._make_client()
                stream = client.events(
                    since=since,
                    decode=True,
                    filters={"type": "container", "label": self._label},
                )
                self._stream = stream
                self._call(self._opened)
                pause_s = FIRST_PAUSE_S
                for event in stream:
                    nanos = int(event.get("timeNano", 0))
                    since = f"{nanos // 10**9}.{nanos % 10**9:09d}" if nanos else since
                    if self._stopped.is_set():
                        break
                    self._call(self._received, event)
            except Exception as error:
                # A border: whatever ends the stream, it is opened again.
                log.debug("The engine's events ended: {error}", error=error)
            finally:
                self._stream = None
                if client is not None:
                    client.close()
            self._stopped.wait(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
