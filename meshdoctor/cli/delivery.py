"""Where reports go: stdout, files, and the exit code they give."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshdoctor.cli.choice import warn
from meshdoctor.cli.exits import EXIT_CLEAN, EXIT_FINDINGS, EXIT_NO_VERDICT
from meshdoctor.cli.options import SEVERITIES

if TYPE_CHECKING:
    from meshdoctor.report.document import Report
    from meshdoctor.report.terminal import Terminal


def publish(report: "Report", options: Mapping[str, Any], *, shown: bool = True) -> None:
    """Write the report to the files that were asked for, and where `shown`, to stdout."""
    from meshdoctor.report.terminal import Terminal  # noqa: PLC0415

    # Files first, for a pipe may close; errors last, for the report is worth more than they.
    unwritten = [
        error
        for name, path in options["outputs"]
        if (error := _write(path, _render(report, name, Terminal()))) is not None
    ]
    terminal = terminal_of(options["width"], options["color"])
    if shown:
        print_out(_render(report, options["format_"], terminal), terminal)
    warn(report)
    if unwritten:
        raise click.UsageError("; ".join(unwritten))


def exit_code(report: "Report", fail_on: str) -> int:
    from meshdoctor.diagnosis import NOTHING_WOULD_BREAK  # noqa: PLC0415
    from meshdoctor.report.document import Verdict  # noqa: PLC0415

    worst = SEVERITIES.index(fail_on)
    if any(finding.severity in SEVERITIES[: worst + 1] for finding in report.findings):
        return EXIT_FINDINGS
    if report.verdict is not Verdict.UNKNOWN:
        return EXIT_CLEAN
    # Of files alone it is the verdict that nothing in them would break.
    return EXIT_CLEAN if report.verdict_reason == NOTHING_WOULD_BREAK else EXIT_NO_VERDICT


def _render(report: "Report", name: str, terminal: "Terminal") -> str:
    if name == "json":
        from meshdoctor.report import json  # noqa: PLC0415

        return json.render(report)
    from meshdoctor.report import text  # noqa: PLC0415

    return text.render(report, terminal)


def terminal_of(width: int | None, color: bool | None = None) -> "Terminal":  # noqa: FBT001 # a tri-state flag
    """What stdout can show, as the flags correct it."""
    from meshdoctor.report.terminal import Terminal  # noqa: PLC0415

    found = Terminal.of(sys.stdout)
    return replace(
        found,
        width=found.width if width is None else width,
        color=found.color if color is None else color,
    )


def print_out(text: str, shown: "Terminal") -> None:
    """Write to stdout. Who reads it may stop early, as `head` does: that is no error of ours."""
    try:
        click.echo(text, nl=False, color=shown.color)
    except BrokenPipeError:
        # What is left in the buffer goes nowhere, so that Python's exit does not try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def deliver(text: Callable[["Terminal"], str], json: str, options: Mapping[str, Any]) -> None:
    """To stdout and to the files that were asked for; the caller says the exit code."""
    from meshdoctor.report.terminal import Terminal  # noqa: PLC0415

    wrong = [
        problem
        for name, path in options["outputs"]
        if (problem := _write(path, json if name == "json" else text(Terminal())))
    ]
    shown = terminal_of(options["width"], options["color"])
    print_out(json if options["format_"] == "json" else text(shown), shown)
    if wrong:
        raise click.UsageError("; ".join(wrong))


def _write(path: Path, text: str) -> str | None:
    """Write a file whole or not at all, for its owner's eyes only; what went wrong, or None."""
    import tempfile  # noqa: PLC0415

    target = path.resolve()
    try:
        if target.exists() and not target.is_file():
            # A pipe or a device, as /dev/stderr: there is nothing to replace.
            with target.open("w", encoding="utf-8") as stream:
                stream.write(text)
            return None
        descriptor, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            Path(partial).replace(target)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        return f"{path} was not written: {error.strerror or error}"
    return None
