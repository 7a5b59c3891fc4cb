"""
What must never be shown, by name and by value (R84).

`Secret` already hides itself.  This is the second line: a key that got into an exception's text,
a path or a child's stderr is taken out on its way to the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from json import dumps
from typing import Final
from urllib.parse import quote

from mcpgate.model import Secret

HIDDEN: Final = "***"

#: Shorter values are not looked for: hiding every "abc" would ruin the log.
SHORTEST: Final = 4

_SECRET_WORDS: Final = frozenset(
    {
        *("key", "keys", "apikey", "token", "tokens", "authorization", "password", "passwd"),
        *("secret", "secrets", "cookie", "cookies", "credential", "credentials", "sessionid"),
    }
)
_SECRET_ENDINGS: Final = ("session_id", "upstream_session")


def is_secret_name(name: str) -> bool:
    """Tell whether a field of this name is hidden whatever it holds."""
    lowered = name.lower().replace("-", "_")
    return lowered.endswith(_SECRET_ENDINGS) or not _SECRET_WORDS.isdisjoint(lowered.split("_"))


class Redactor:
    """
    Knows secret values and takes them out of texts.

    The cost of a look does not grow with the number of secrets.  Adding is safe while another
    thread reads.

    :ivar version: changes whenever a value is added or dropped; for those who remember results.
    """

    def __init__(self, secrets: Iterable[str | Secret] = ()) -> None:
        self.version = 0
        self._longest = 0
        self._counts: dict[str, int] = {}
        self._by_start: dict[str, tuple[str, ...]] = {}
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str | Secret) -> None:
        """Hide this value from now on; as often as it was added it must be dropped."""
        for form in self._forms(secret):
            count = self._counts.get(form, 0)
            self._counts[form] = count + 1
            if count == 0:
                start = form[:SHORTEST]
                known = (*self._by_start.get(start, ()), form)
                # The longest first: a secret may begin with another one.
                self._by_start[start] = tuple(sorted(known, key=len, reverse=True))
                self._longest = max(self._longest, len(form))
                self.version += 1

    def discard(self, secret: str | Secret) -> None:
        """Stop hiding a value that is not in use any more."""
        for form in self._forms(secret):
            count = self._counts.get(form, 0) - 1
            if count > 0:
                self._counts[form] = count
            elif count == 0:
                del self._counts[form]
                start = form[:SHORTEST]
                left = tuple(known for known in self._by_start[start] if known != form)
                if left:
                    self._by_start[start] = left
                else:
                    del self._by_start[start]
                self.version += 1

    def text(self, text: str, start: int = 0, stop: int | None = None) -> str:
        """
        Put ``***`` in place of every known secret value.

        :param start: with ``stop``: give this part of the text only; a value that stands across
            its edges is hidden, too.  What lies far outside is not looked at.
        """
        stop = len(text) if stop is None else min(stop, len(text))
        starts = self._by_start
        if not starts:
            return text[start:stop]
        seen_from = max(0, start - self._longest)
        seen = text[seen_from : stop + self._longest]
        pieces: list[str] = []
        copied, end = start - seen_from, stop - seen_from
        at = 0
        while at < end:
            for form in starts.get(seen[at : at + SHORTEST], ()):
                if seen.startswith(form, at):
                    after = at + len(form)
                    if after > copied:
                        pieces += (seen[copied:at], HIDDEN)
                        copied = after
                    at = after
                    break
            else:
                at += 1
        pieces.append(seen[copied:end])
        return "".join(pieces)

    @staticmethod
    def _forms(secret: str | Secret) -> set[str]:
        value = secret.reveal() if isinstance(secret, Secret) else secret
        # As it is, as in a URL, as in JSON or a repr.
        forms = {value, quote(value, safe="", errors="replace"), dumps(value)[1:-1]}
        forms.add(repr(value)[1:-1])
        return {form for form in forms if len(form) >= SHORTEST}
