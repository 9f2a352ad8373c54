"""What a terminal, or a pipe, can show."""

from dataclasses import dataclass
from typing import Final

PIPE_WIDTH: Final = 100
"""Columns where nothing tells how many there are: in a file, a pipe, a CI log."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """What to render for. `unicode` is false where the stream takes ASCII at best."""

    width: int = PIPE_WIDTH
    color: bool = False
    unicode: bool = True


def printable(text: str, terminal: Terminal) -> str:
    r"""`text` with all that a terminal would obey or hide made visible, as in `\x1b`.

    Escape sequences, line ends, bidirectional overrides, zero-width characters and lone
    surrogates become escapes; so does everything but ASCII where `terminal` has no Unicode.
    """
    if text.isprintable() and (terminal.unicode or text.isascii()):
        return text
    return "".join(
        character
        if character.isprintable() and (terminal.unicode or character.isascii())
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
