"""How an instance tells many watchers that it has ended, and how it did."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from mcpgate.model import Exit


class Ending:
    """
    Fires every watcher once, with the same `Exit`.

    :ivar ended: the instance's own Deferred, see `IInstance.ended`.
    :ivar exit: how it ended; None while it lives.
    """

    def __init__(self) -> None:
        self.ended: Deferred[Exit] = Deferred()
        self.exit: Exit | None = None
        # A dict for its order: who watched first hears first.
        self._watchers: dict[Deferred[Exit], None] = {}

    def watch(self) -> Deferred[Exit]:
        """Give a Deferred of the caller's own; cancelling it disturbs nobody."""
        watcher: Deferred[Exit] = Deferred(lambda gone: self._watchers.pop(gone, None))
        if self.exit is None:
            self._watchers[watcher] = None
        else:
            watcher.callback(self.exit)
        return watcher

    def tell(self, how: Exit) -> None:
        """Fire; only the first call counts."""
        if self.exit is not None:
            return
        self.exit = how
        watchers, self._watchers = self._watchers, {}
        self.ended.callback(how)
        for watcher in watchers:
            watcher.callback(how)
