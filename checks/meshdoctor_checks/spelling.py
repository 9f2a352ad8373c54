"""The name that somebody probably meant."""

from collections.abc import Sequence
from typing import Final

MOST_SOUGHT: Final = 200
"""To compare a name with a thousand others takes milliseconds: of very many that are unknown, so
many are compared, for what is wrong with all of them is hardly their spelling."""


class Spelling:
    """Finds the nearest of some names, as long as it is not asked too often."""

    def __init__(self, names: Sequence[str], cutoff: float) -> None:
        self._names = names
        self._cutoff = cutoff
        self._asked = 0

    def nearest(self, name: str) -> str:
        """The one that is most like it, "" where none is or where nobody looks any more."""
        from difflib import get_close_matches  # noqa: PLC0415

        self._asked += 1
        if self._asked > MOST_SOUGHT:
            return ""
        return next(iter(get_close_matches(name, self._names, n=1, cutoff=self._cutoff)), "")
