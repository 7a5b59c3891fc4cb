"""How far a pull is, told by the steps the engine reports: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mcpgate.model import MIB

# An image has some tens of layers; whoever sends more is not followed.
_LAYERS: Final = 1000
_DONE: Final = ("Pull complete", "Already exists")
_FETCHED: Final = ("Verifying Checksum", "Download complete", "Extracting", *_DONE)


@dataclass(slots=True)
class _Layer:
    got: int = 0
    total: int = 0
    done: bool = False


@dataclass(slots=True)
class PullProgress:
    """
    One pull under way.

    :ivar text: for people; empty before the first step.
    :ivar percent: of the bytes known to be fetched; None before any is known.
    """

    text: str = ""
    percent: float | None = None
    _layers: dict[str, _Layer] = field(default_factory=dict)

    def step(self, step: Mapping[str, Any]) -> None:
        """Take a step as the engine tells it: id of a layer, status, perhaps bytes."""
        name, status = str(step.get("id") or ""), str(step.get("status") or "")
        detail = step.get("progressDetail")
        if name and (name in self._layers or len(self._layers) < _LAYERS):
            if status.startswith("Pulling from"):
                self.text = status[:200]
                return
            layer = self._layers.setdefault(name, _Layer())
            if status == "Downloading" and isinstance(detail, Mapping):
                layer.got = _whole(detail.get("current"))
                layer.total = max(layer.got, _whole(detail.get("total")))
            elif status in _FETCHED:
                layer.got, layer.done = layer.total, status in _DONE
        self._tell(status)

    def _tell(self, status: str) -> None:
        got = sum(layer.got for layer in self._layers.values())
        total = sum(layer.total for layer in self._layers.values())
        if not self._layers:
            self.text = status[:200]
            return
        done = sum(1 for layer in self._layers.values() if layer.done)
        self.text = f"{done} of {len(self._layers)} layers"
        if total:
            self.percent = round(100.0 * got / total, 1)
            self.text += f", {got / MIB:.1f} of {total / MIB:.1f} MiB"


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
