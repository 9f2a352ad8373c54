"""What a terminal, or a pipe, can show: its width, its colours, its characters."""

import os
from collections.abc import Mapping
from typing import Final, Self, TextIO

import msgspec

PIPE_WIDTH: Final = 100
"""Columns where nothing tells how many there are: in a file, a pipe, a CI log."""

_NARROWEST: Final = 24
"""Below this, sentences wrap at every word and nothing is gained by obeying."""


class Terminal(msgspec.Struct, frozen=True):
    """What to render for. `unicode` is false where the stream takes ASCII at best."""

    width: int = PIPE_WIDTH
    color: bool = False
    unicode: bool = True

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str] = os.environ) -> Self:
        """What `stream` can show, with NO_COLOR, FORCE_COLOR, COLUMNS and TERM obeyed."""
        if environ.get("NO_COLOR"):
            color = False
        elif environ.get("FORCE_COLOR"):
            color = True
        else:
            color = stream.isatty() and environ.get("TERM") != "dumb"
        encoding = (getattr(stream, "encoding", None) or "ascii").lower()
        return cls(_width(stream, environ), color, encoding.startswith("utf"))


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


def _width(stream: TextIO, environ: Mapping[str, str]) -> int:
    columns = environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return max(int(columns), _NARROWEST)
    if not stream.isatty():
        return PIPE_WIDTH
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        import shutil  # noqa: PLC0415

        width = shutil.get_terminal_size((PIPE_WIDTH, 25)).columns
    # Terminals that do not know their size say 0.
    return max(width, _NARROWEST) if width else PIPE_WIDTH
