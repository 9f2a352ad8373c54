"""What a stream can show, and what strangers' names look like there."""

import fcntl
import io
import os
import struct
import termios
from collections.abc import Iterator, Mapping
from typing import TextIO

import pytest
from rich.cells import cell_len

from meshdoctor.report.page import Page
from meshdoctor.report.terminal import PIPE_WIDTH, Terminal, printable


@pytest.fixture
def screen() -> Iterator[TextIO]:
    """A terminal of 72 columns."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 72, 0, 0))
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        yield stream
    os.close(ours)


def pipe(encoding: str = "utf-8") -> TextIO:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


def test_a_pipe_gets_text_alone() -> None:
    """No colour and one width for all, so that files and CI logs are alike."""
    assert Terminal.of(pipe(), {}) == Terminal(PIPE_WIDTH, color=False, unicode=True)


def test_a_screen_gets_colour_and_its_own_width(screen: TextIO) -> None:
    """What the terminal says of itself counts."""
    assert Terminal.of(screen, {"TERM": "xterm"}) == Terminal(72, color=True, unicode=True)


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_screen_without_colour(screen: TextIO, environ: Mapping[str, str]) -> None:
    """NO_COLOR and a dumb terminal are obeyed."""
    assert not Terminal.of(screen, environ).color


@pytest.mark.parametrize(
    ("environ", "color"),
    [
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": ""}, False),
    ],
)
def test_colour_in_a_pipe(environ: Mapping[str, str], *, color: bool) -> None:
    """FORCE_COLOR gives it, NO_COLOR beats that, and an empty variable is none."""
    assert Terminal.of(pipe(), environ).color is color


@pytest.mark.parametrize(
    ("columns", "width"),
    [
        ("40", 40),
        ("200", 200),
        ("3", 24),
        ("0", PIPE_WIDTH),
        ("-5", PIPE_WIDTH),
        ("x", PIPE_WIDTH),
    ],
)
def test_columns_are_obeyed(columns: str, width: int) -> None:
    """COLUMNS sets the width if it is one that a sentence fits in."""
    assert Terminal.of(pipe(), {"COLUMNS": columns}).width == width


def test_a_screen_that_does_not_know_its_size(screen: TextIO) -> None:
    """0 columns, as serial lines and some CI systems say, is no width."""
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    assert Terminal.of(screen, {}).width == PIPE_WIDTH


@pytest.mark.parametrize(
    ("encoding", "is_unicode"), [("utf-8", True), ("ascii", False), ("latin-1", False)]
)
def test_ascii_where_the_stream_takes_no_more(encoding: str, *, is_unicode: bool) -> None:
    """Signs and branches are drawn only where they can be encoded."""
    assert Terminal.of(pipe(encoding), {}).unicode is is_unicode


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("reviews", "reviews"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\x9b2J", "\\x9b2J"),
        ("\ud800", "\\ud800"),
        ("größe", "größe"),
    ],
)
def test_what_a_terminal_would_obey_is_made_visible(raw: str, shown: str) -> None:
    """Control characters, overrides, hidden characters and surrogates become escapes."""
    assert printable(raw, Terminal()) == shown


def test_ascii_shows_every_other_character_as_an_escape() -> None:
    """Nothing is lost where the stream takes ASCII only."""
    assert printable("größe ✓", Terminal(unicode=False)) == "gr\\xf6\\xdfe \\u2713"


@pytest.mark.parametrize("sign", ["✓", "✗", "…", "├─", "└─", "│"])
def test_a_page_counts_its_own_signs_as_terminals_do(sign: str) -> None:
    """A character of them takes one column, so that words beside them wrap where they must."""
    assert cell_len(sign) == len(sign)
    assert Page(Terminal()).glyph(sign) == sign


def test_a_line_with_wide_characters_wraps_by_their_columns() -> None:
    """A name of ten letters from East Asia is twenty columns wide."""
    page = Page(Terminal(width=24))
    page.paragraph(page.text("one two three 服服服服服服服服服服 four"))
    assert str(page) == "one two three\n服服服服服服服服服服\nfour\n"
