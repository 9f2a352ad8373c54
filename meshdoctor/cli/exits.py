"""How a command ends: its exit code, and what it says on stderr."""

import os
import sys
from typing import Final, NoReturn, TextIO

import click

EXIT_CLEAN: Final = 0
EXIT_FINDINGS: Final = 1
EXIT_USAGE: Final = 2
EXIT_NO_VERDICT: Final = 3
EXIT_INTERRUPTED: Final = 130


def no_verdict(message: str) -> NoReturn:
    say(f"meshdoctor: {message}")
    sys.exit(EXIT_NO_VERDICT)


def discard(stream: TextIO) -> None:
    """Let what is left to write to that stream go nowhere: at Python's end it is tried again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def say(message: str) -> None:
    """To stderr, where names come from strangers too: they must not steer the terminal.

    On a terminal sentences wrap between words; commands stay whole.
    """
    from textwrap import wrap  # noqa: PLC0415

    from meshdoctor.report.terminal import Terminal, printable  # noqa: PLC0415

    terminal = Terminal.of(sys.stderr)
    for line in message.split("\n"):
        shown = printable(line.replace("\t", "  "), terminal)
        if sys.stderr.isatty() and not shown.startswith("  meshdoctor "):
            blank = " " * (len(shown) - len(shown.lstrip()))
            shown = "\n".join(
                wrap(
                    shown,
                    terminal.width,
                    subsequent_indent=f"{blank}  " if blank else "",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
        try:
            click.echo(shown, err=True)
        except OSError:
            # Nobody listens. What the command has found out stands all the same.
            discard(sys.stderr)
            return
