"""A page of plain text that is written for one terminal, line by line."""

import io
from typing import Final

from rich.console import Console
from rich.text import Text

from meshdoctor.report.terminal import Terminal, printable

_WIDEST_SENTENCE: Final = 120
"""On a wider terminal, lines would be too long for the eye to find the next one."""
_NARROWEST_COLUMN: Final = 20
"""However deep a tree goes, its sentences keep this many columns."""

_LONGEST: Final = 10_000
"""Letters of one part of a sentence; a name of megabytes would take minutes to wrap."""

_ASCII: Final = {
    "✓": "ok",
    "✗": "x",
    "…": "...",
    "!": "!",
    "?": "?",
    "i": "i",
    "├─": "|-",
    "└─": "`-",
    "│": "|",
}


class Page:
    """Sentences wrap, what is there to be pasted does not, and nothing that fits a page is cut.

    Nothing given to a page can colour it, move the cursor or end a line: see `printable`.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._file = io.StringIO()
        self._console = Console(
            file=self._file,
            width=terminal.width,
            height=25,  # rich asks the environment unless it is told both
            color_system="standard" if terminal.color else None,
            force_terminal=terminal.color,
            no_color=not terminal.color,
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
            _environ={},
        )
        self._at_gap = True

    def __str__(self) -> str:
        return self._file.getvalue()

    def glyph(self, sign: str) -> str:
        """`sign`, or what stands for it in ASCII."""
        return sign if self.terminal.unicode else _ASCII[sign]

    def text(self, *parts: str | tuple[str, str]) -> Text:
        """One text of its parts, each a string or a string and its style."""
        text = Text()
        for part in parts:
            content, style = (part, "") if isinstance(part, str) else part
            text.append(printable(_bounded(content), self.terminal), style or None)
        return text

    def alters(self, line: str) -> bool:
        """Whether `line` cannot be shown as it is."""
        return printable(line, self.terminal) != line

    def gap(self) -> None:
        """One empty line: never two, and none at the top."""
        if not self._at_gap:
            self._write(Text())
        self._at_gap = True

    def heading(self, title: str) -> None:
        """A title with a gap before it."""
        self.gap()
        self.paragraph(self.text((title, "bold")))

    def paragraph(self, text: Text, first: str = "", rest: str | None = None) -> None:
        """`text`, wrapped; its first line follows `first`, the others `rest` (else `first`)."""
        rest = first if rest is None else rest
        width = min(self.terminal.width, _WIDEST_SENTENCE)
        column = max(_NARROWEST_COLUMN, width - max(len(first), len(rest)))
        for number, line in enumerate(text.wrap(self._console, column, overflow="fold")):
            line.rstrip()
            if number and not line:
                # Before a word too long for a line, rich leaves one of the blank between them.
                continue
            before = rest if number else first
            self._write(Text.assemble(Text(before, "" if before.isspace() else "dim"), line))

    def row(self, *parts: str | tuple[str, str]) -> None:
        """One line as it is, of parts that were made to fit: it is not wrapped."""
        line = self.text(*parts)
        line.rstrip()
        self._write(line)

    def verbatim(self, line: str, indent: str, style: str = "") -> None:
        """One line to be copied: it is never wrapped, however long."""
        self._write(Text((indent + printable(line, self.terminal)).rstrip(), style))

    def _write(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)
        self._at_gap = False


def _bounded(content: str) -> str:
    if len(content) <= _LONGEST:
        return content
    return f"{content[:_LONGEST]}... and {len(content) - _LONGEST} letters more"
