"""Where reports go: stdout, files, and the exit code they give."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshdoctor.cli.choice import warn
from meshdoctor.cli.exits import (
    EXIT_CLEAN,
    EXIT_FINDINGS,
    EXIT_NO_VERDICT,
    discard,
    no_verdict,
)
from meshdoctor.cli.options import SEVERITIES
from meshdoctor.cli.replacing import in_the_way

if TYPE_CHECKING:
    from meshdoctor.check import Examination
    from meshdoctor.report.document import Report
    from meshdoctor.report.picture import Picture
    from meshdoctor.report.terminal import Terminal
    from meshdoctor.topology.plan import Plan


def publish(
    report: "Report",
    options: Mapping[str, Any],
    picture: Callable[[], "Picture"],
    *,
    shown: bool = True,
) -> None:
    """Write the report to the files that were asked for, and where `shown`, to stdout.

    `picture` draws the mesh, for formats that show it.
    """

    def written(name: str, terminal: "Terminal") -> str:
        return render(report, name, terminal, options["fail_on"], picture)

    unwritten = _hand_out(written, options, shown=shown)
    warn(report)
    _complain(unwritten)


def exit_code(report: "Report", fail_on: str) -> int:
    severities = (each.severity for each in report.findings)
    return exit_code_of(severities, fail_on, is_known=report.has_verdict)


def exit_code_of(severities: Iterable[str], fail_on: str, *, is_known: bool) -> int:
    """By the severities of what was found, and whether there is a verdict where that is little."""
    failing = SEVERITIES[: SEVERITIES.index(fail_on) + 1]
    if any(each in failing for each in severities):
        return EXIT_FINDINGS
    return EXIT_CLEAN if is_known else EXIT_NO_VERDICT


def picture_of(examination: "Examination") -> "Picture":
    """The mesh to draw, as far as it is known."""
    from meshdoctor.report.picture import Picture  # noqa: PLC0415
    from meshdoctor.routing.calls import Calls  # noqa: PLC0415
    from meshdoctor.topology import Mesh  # noqa: PLC0415

    calls = examination.find(Calls)
    return Picture.of(examination.find(Mesh), calls.pairs if calls is not None else ())


def picture_of_plan(plan: "Plan") -> "Picture":
    from meshdoctor.report.picture import Picture  # noqa: PLC0415

    return Picture.planned_by(plan)


def render(
    report: "Report",
    name: str,
    terminal: "Terminal",
    fail_on: str,
    picture: Callable[[], "Picture"],
) -> str:
    """The report in the format of that name. Each format is imported where it is asked for."""
    match name:
        case "json":
            from meshdoctor.report import json  # noqa: PLC0415

            return json.render(report)
        case "markdown":
            from meshdoctor.report import markdown  # noqa: PLC0415

            return markdown.render(report)
        case "html":
            from meshdoctor.report import html  # noqa: PLC0415

            return html.render(report, picture())
        case "junit":
            from meshdoctor.findings import Severity  # noqa: PLC0415
            from meshdoctor.report import junit  # noqa: PLC0415

            return junit.render(report, Severity(fail_on))
        case "sarif":
            from meshdoctor.report import sarif  # noqa: PLC0415

            return sarif.render(report)
        case _:
            from meshdoctor.report import text  # noqa: PLC0415

            return text.render(report, terminal)


def terminal_of(width: int | None, color: bool | None = None) -> "Terminal":  # noqa: FBT001 # a tri-state flag
    """What stdout can show, as the flags correct it."""
    from msgspec.structs import replace  # noqa: PLC0415

    from meshdoctor.report.terminal import Terminal  # noqa: PLC0415

    found = Terminal.of(sys.stdout)
    return replace(
        found,
        width=found.width if width is None else width,
        color=found.color if color is None else color,
    )


def print_out(text: str, shown: "Terminal") -> bool:
    """Write to stdout; whether anybody reads on.

    Who reads it may stop early, as `head` does: that is no error of ours. Where it cannot be
    written, as to a full disk, the command ends without a verdict.
    """
    try:
        click.echo(text, nl=False, color=shown.color)
    except BrokenPipeError:
        discard(sys.stdout)
        return False
    except OSError as error:
        discard(sys.stdout)
        no_verdict(f"the answer could not be written to stdout: {error.strerror or error}")
    return True


def deliver(
    text: Callable[["Terminal"], str],
    json: Callable[[], str],
    options: Mapping[str, Any],
    others: Callable[[str], str] | None = None,
) -> None:
    """To stdout and to the files that were asked for; the caller says the exit code.

    `others` writes the other formats that the command has, by their names.
    """

    def written(name: str, terminal: "Terminal") -> str:
        if name == "json":
            return json()
        return text(terminal) if name == "text" or others is None else others(name)

    _complain(_hand_out(written, options))


def _hand_out(
    written: Callable[[str, "Terminal"], str], options: Mapping[str, Any], *, shown: bool = True
) -> Sequence[str]:
    """Have it `written` for each file that was asked for, and for stdout; what went wrong.

    Files first, for a pipe may close; complaints are the caller's, for they are worth less.
    """
    from meshdoctor.report.terminal import Terminal  # noqa: PLC0415

    unwritten = [
        problem
        for name, path in options["outputs"]
        if (problem := _write(path, name, written(name, Terminal()), options)) is not None
    ]
    if shown:
        terminal = terminal_of(options["width"], options["color"])
        print_out(written(options["format_"], terminal), terminal)
    return unwritten


def _complain(unwritten: Sequence[str]) -> None:
    if unwritten:
        raise click.UsageError("; ".join(unwritten))


def _write(path: Path, name: str, text: str, options: Mapping[str, Any]) -> str | None:
    """Write a file whole or not at all, for its owner's eyes only; what went wrong, or None."""
    import tempfile  # noqa: PLC0415

    # It was looked for before the work began; that may be minutes ago.
    if not options["force"] and (why := in_the_way(path, name)) is not None:
        return why
    try:
        target = path.resolve()
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
