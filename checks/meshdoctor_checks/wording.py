"""Pieces of the sentences that findings are made of."""

from collections.abc import Sequence
from typing import Final

MANY: Final = 12
"""A sentence names that many things; of more it names some and counts the rest."""


def listing(names: Sequence[str], *, most: int = MANY) -> str:
    """`a`, `a and b`, `a, b and c`, or `a, b and 898 more`."""
    shown = list(names)
    if len(shown) > most:
        rest = len(shown) - (most - 1)
        shown = [*shown[: most - 1], f"{rest} more"]
    if len(shown) <= 1:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 sidecar`, `6 sidecars`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def verb(number: int, singular: str, plural: str) -> str:
    """The form of a verb that agrees with so many subjects."""
    return singular if number == 1 else plural
