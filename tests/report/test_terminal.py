"""What strangers' names look like on a terminal."""

import pytest

from meshdoctor.report.terminal import Terminal, printable


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
