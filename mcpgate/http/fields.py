"""HTTP fields (headers) in their order of arrival, looked up without regard to case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Fields:
    """
    Field lines as received, names lower-cased, values stripped of outer white space.

    A field that comes more than once keeps all its values; `get` answers the first, so whoever
    must not be fooled by a second one asks `count` or `get_all`.
    """

    __slots__ = ("_first", "lines")

    def __init__(self, lines: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.lines: list[tuple[bytes, bytes]] = list(lines)
        self._first: dict[bytes, bytes] = {}
        for name, value in reversed(self.lines):
            self._first[name] = value

    def get(self, name: bytes) -> bytes | None:
        """Give the first value of a lower-case name."""
        return self._first.get(name)

    def get_all(self, name: bytes) -> list[bytes]:
        """Give every value of a lower-case name."""
        if name not in self._first:
            return []
        if len(self._first) == len(self.lines):
            return [self._first[name]]  # no name comes twice
        return [value for key, value in self.lines if key == name]

    def count(self, name: bytes) -> int:
        """Tell how often a lower-case name stands there."""
        if name not in self._first:
            return 0
        if len(self._first) == len(self.lines):
            return 1
        return sum(1 for key, _ in self.lines if key == name)

    def __contains__(self, name: object) -> bool:
        return name in self._first

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def __repr__(self) -> str:
        """Names only: values may be credentials."""
        return f"Fields({sorted(self._first)!r})"
