"""All the memory that the processes of one gate share, by its descriptors."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mcpgate.web.workers import buckets, places, uses


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """
    The descriptors.

    :ivar places: of `SharedPlaces`; ``buckets`` of `SharedBuckets`; ``uses`` of `Uses`.
    """

    places: int
    buckets: int
    uses: int

    @classmethod
    def make(cls, workers: int) -> Tables:
        """Make them for so many workers and their owner, whose part is the first."""
        parts = 1 + workers
        return cls(
            places=places.make_table(parts),
            buckets=buckets.make_table(),
            uses=uses.make_table(parts),
        )

    def close(self) -> None:
        """Let go of the descriptors."""
        for descriptor in (self.places, self.buckets, self.uses):
            os.close(descriptor)
