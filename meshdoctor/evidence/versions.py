"""Versions as programs and the tags of images write them."""

import re

# More digits are no version, and very many no number that Python reads.
_MINOR = re.compile(r"(\d{1,9})\.(\d{1,9})")


def minor(version: str) -> tuple[int, int] | None:
    """(1, 36) of `1.36.2` or `1.36-alpine`, None of what begins otherwise."""
    found = _MINOR.match(version)
    return None if found is None else (int(found[1]), int(found[2]))
