"""
What the drivers of the matrix of eras on both Python SDKs share.

A driver is told in JSON where to connect and which features to try, and prints one line of JSON:
for each feature ``ok``, or why it failed.
"""

import asyncio
import inspect
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

TASK: dict[str, Any] = json.loads(sys.argv[1])
FEATURE_S = 8.0
WATCHED = "test://watched-resource"
KINDS = ("tools", "prompts", "resources")


class Matrix:
    """The features of one cell, tried one after the other."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    async def attempt(self, feature: str, use: Callable[[], Awaitable[None]]) -> None:
        """Try one feature, unless the task leaves it out."""
        if feature not in TASK["features"]:
            return
        try:
            await asyncio.wait_for(use(), FEATURE_S)
        except TimeoutError:
            self.outcomes[feature] = "nothing came in time"
        except Exception as error:
            self.outcomes[feature] = why(error)
        else:
            self.outcomes[feature] = "ok"

    def give_up(self, error: BaseException) -> None:
        """Say of all that was not tried why not."""
        for feature in TASK["features"]:
            self.outcomes.setdefault(feature, why(error))

    def tell(self) -> None:
        """Print the outcomes."""
        print(json.dumps(self.outcomes), flush=True)  # noqa: T201 - read by the test


def why(error: BaseException) -> str:
    """Say in one line what went wrong."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:200]


def check(seen: Any, wanted: Any) -> None:
    """Compare; :raises ValueError: they differ."""
    if seen != wanted:
        raise ValueError(f"{seen!r} is not {wanted!r}")


def check_holds(whole: Any, part: Any) -> None:
    """Look for a part; :raises ValueError: it is not there."""
    if part not in whole:
        raise ValueError(f"{part!r} is not in {whole!r}")


async def until(look: Callable[[], Any]) -> None:
    """Wait until there is something to see, awaitable or not; the feature's deadline ends it."""
    while True:
        seen = look()
        if await seen if inspect.isawaitable(seen) else seen:
            return
        await asyncio.sleep(0.02)
