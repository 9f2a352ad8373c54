"""A page of plain text that is written for one terminal, line by line.

Of rich only the widths of characters are taken, and only of those that are not ASCII: to import
its console and its styles would take longer than to judge a small mesh.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from meshdoctor.findings import Severity
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


_SIGNS: Final = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.INFO: "i"}
STYLES: Final = {
    Severity.ERROR: "bold red",
    Severity.WARNING: "bold yellow",
    Severity.INFO: "bold cyan",
}

_WORD: Final = re.compile(r"\s*\S+\s*")
_CODES: Final = {
    "bold": "1",
    "dim": "2",
    "italic": "3",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "magenta": "35",
    "cyan": "36",
}
"""What terminals know the words of a style by (ECMA-48, "select graphic rendition")."""


class Part(NamedTuple):
    """Some words and their style, as in "bold red"; "" for none."""

    words: str
    style: str


class Text:
    """What is written at one go, in parts that may have a style."""

    def __init__(self, *parts: Part) -> None:
        self.parts = list(parts)

    @property
    def plain(self) -> str:
        return "".join(part.words for part in self.parts)

    def append(self, other: "Text") -> None:
        self.parts += other.parts

    def lines(self, width: int) -> Iterator["Text"]:
        """The text wrapped between words; a word wider than a line goes over several."""
        plain = self.plain
        begins = 0
        for ends in (*_breaks(plain, width), len(plain)):
            yield self._cut(begins, begins + len(plain[begins:ends].rstrip()))
            begins = ends

    def stripped(self) -> "Text":
        """Without blanks at its end."""
        return self._cut(0, len(self.plain.rstrip()))

    def _cut(self, begins: int, ends: int) -> "Text":
        kept = []
        at = 0
        for words, style in self.parts:
            if piece := words[max(0, begins - at) : max(0, ends - at)]:
                kept.append(Part(piece, style))
            at += len(words)
        return Text(*kept)


def _breaks(plain: str, width: int) -> Iterator[int]:
    """Where lines other than the first begin."""
    if plain.isascii() and len(plain.rstrip()) <= width:
        return
    taken = 0
    for word in _WORD.finditer(plain):
        start = word.start()
        needed = _columns(word.group().rstrip())
        if taken + needed <= width:
            taken += _columns(word.group())
        elif needed <= width:
            yield start
            taken = _columns(word.group())
        else:
            from rich.cells import chop_cells  # noqa: PLC0415

            for piece in chop_cells(word.group(), width):
                if start:
                    yield start
                start += len(piece)
                taken = _columns(piece)


def _columns(words: str) -> int:
    """How many columns of a terminal they take."""
    if words.isascii() or words.strip() in _ASCII:
        return len(words)
    from rich.cells import cell_len  # noqa: PLC0415

    return cell_len(words)


class Page:
    """Sentences wrap, what is there to be pasted does not, and nothing that fits a page is cut.

    Nothing given to a page can colour it, move the cursor or end a line: see `printable`.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._lines: list[str] = []
        self._at_gap = True

    def __str__(self) -> str:
        return "".join(self._lines)

    def glyph(self, sign: str) -> str:
        """`sign`, or what stands for it in ASCII."""
        return sign if self.terminal.unicode else _ASCII[sign]

    def mark(self, severity: Severity, code: str) -> tuple[str, str]:
        """What stands before a finding, and its style."""
        return f"{self.glyph(_SIGNS[severity])} {severity} {code}", STYLES[severity]

    def text(self, *parts: str | tuple[str, str]) -> Text:
        """One text of its parts, each a string or a string and its style."""
        pairs = (part if isinstance(part, tuple) else (part, "") for part in parts)
        return Text(
            *(Part(printable(_bounded(words), self.terminal), style) for words, style in pairs)
        )

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
        for number, line in enumerate(text.lines(column)):
            if number and not line.parts:
                # Before a word too long for a line, one of the blanks between them may be left.
                continue
            before = rest if number else first
            self._write(Text(Part(before, "" if before.isspace() else "dim"), *line.parts))

    def row(self, *parts: str | tuple[str, str]) -> None:
        """One line as it is, of parts that were made to fit: it is not wrapped."""
        self._write(self.text(*parts).stripped())

    def verbatim(self, line: str, indent: str, style: str = "") -> None:
        """One line to be copied: it is never wrapped, however long."""
        self._write(Text(Part((indent + printable(line, self.terminal)).rstrip(), style)))

    def _write(self, line: Text) -> None:
        self._lines += (self._styled(part) for part in line.parts)
        self._lines.append("\n")
        self._at_gap = False

    def _styled(self, part: Part) -> str:
        if not (part.words and part.style and self.terminal.color):
            return part.words
        codes = ";".join(_CODES[word] for word in part.style.split())
        return f"\x1b[{codes}m{part.words}\x1b[0m"


def _bounded(content: str) -> str:
    if len(content) <= _LONGEST:
        return content
    return f"{content[:_LONGEST]}... and {len(content) - _LONGEST} letters more"
