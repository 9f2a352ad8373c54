"""`watch`: stay, and say what changes; or wait until the mesh is ready."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from meshdoctor.cli.choice import choose
from meshdoctor.cli.delivery import exit_code, print_out, terminal_of
from meshdoctor.cli.evidence import gather, nothing_there, where
from meshdoctor.cli.exits import EXIT_CLEAN, EXIT_FINDINGS, EXIT_NO_VERDICT, say
from meshdoctor.cli.options import (
    FORMATS,
    Finite,
    color_option,
    config_option,
    fail_on_option,
    select_options,
    watch_where_options,
    width_option,
)

if TYPE_CHECKING:
    from meshdoctor.diagnosis import Checks, Policy
    from meshdoctor.report.document import Report
    from meshdoctor.routing.calls import Pair
    from meshdoctor.snapshot import Snapshot

_FIRST_PAUSE: Final = 2.0
"""Seconds until another look at a mesh that is not as it should be, then twice as many, ..."""
HEALTHY: Final = "healthy"


class _Look(NamedTuple):
    """What one look at the mesh showed."""

    snapshot: "Snapshot"
    report: "Report"
    pairs: Sequence["Pair"] | None
    nothing: str | None


@click.command(short_help="Stay, and say what changes; or wait until the mesh is ready.")
@click.option(
    "--until",
    type=click.Choice((HEALTHY,)),
    help="End with exit code 0 as soon as the mesh is healthy, or nothing at or above --fail-on "
    "is found and every sidecar was read: `meshdoctor watch --until healthy --timeout 120` waits "
    "until it is ready.",
)
@click.option(
    "--timeout",
    "patience",
    type=Finite(min=0.1),
    metavar="SECONDS",
    help="End after so long. Without it, only Ctrl-C does.",
)
@click.option(
    "--every",
    type=Finite(min=1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Look again after so long though nothing told of a change: not all that a check reads "
    "tells.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="json prints each change as one line, meshdoctor.diff/v1.",
)
@width_option
@color_option
@fail_on_option(
    "The least severity that --until healthy waits to be gone, and that gives exit code 1 when "
    "--timeout is over."
)
@select_options
@watch_where_options
@config_option
def watch(until: str | None, patience: float | None, *, every: float, **options: Any) -> None:
    """Stay and print what changes in the mesh: findings that come, change and go, and calls.

    Consul is asked by blocking queries, Docker for its events, and each Envoy only for the
    versions of its configuration; all of it is read again when one of them changed.

    Exit code: 0 ready with --until, or nothing at or above --fail-on when --timeout is over, 1
    findings are left then, 2 wrong usage, 3 no verdict was possible until then, 130 Ctrl-C.
    """
    from meshdoctor.collectors.watching import Watcher  # noqa: PLC0415
    from meshdoctor.report.document import Verdict  # noqa: PLC0415

    checks, policy = choose(options)
    end = None if patience is None else time.monotonic() + patience
    watcher = Watcher(where(options))
    pause = _FIRST_PAUSE
    before: _Look | None = None
    reasons: tuple[str, ...] = ()
    try:
        while True:
            look = _look(checks, policy, _within(options, end))
            is_over = end is not None and time.monotonic() >= end
            if is_over and before is not None and not _is_ready(look.report, options["fail_on"]):
                # The end may have cut it short: what it lacks is not gone.
                sys.exit(_left(before.report, until, options["fail_on"], patience))
            changed, is_read = _print_changes(before, look, reasons, options)
            if not is_read:
                # As `watch | head -5` is over: to whom nobody listens, there is nothing to tell.
                sys.exit(exit_code(look.report, options["fail_on"]))
            if changed:
                pause = _FIRST_PAUSE
            before = look
            is_healthy = look.report.verdict is Verdict.HEALTHY
            if until == HEALTHY and _is_ready(look.report, options["fail_on"]):
                if not is_healthy:
                    left_over = f"nothing at or above {options['fail_on']} is found"
                    say(f"meshdoctor: {look.report.verdict}, but {left_over}")
                sys.exit(EXIT_CLEAN)
            watcher.look_at(look.snapshot)
            left = every if is_healthy else min(pause, every)
            pause *= 2
            reasons = watcher.wait(left if end is None else min(left, end - time.monotonic()))
            if end is not None and time.monotonic() >= end:
                sys.exit(_left(look.report, until, options["fail_on"], patience))
    finally:
        watcher.close()


def _within(options: Mapping[str, Any], end: float | None) -> Mapping[str, Any]:
    """The options, with no more time for one look than is left."""
    if end is None:
        return options
    return {**options, "timeout": max(0.1, min(options["timeout"], end - time.monotonic()))}


def _look(checks: "Checks", policy: "Policy", options: Mapping[str, Any]) -> _Look:
    from meshdoctor.check import Examination  # noqa: PLC0415
    from meshdoctor.diagnosis import examine  # noqa: PLC0415
    from meshdoctor.routing.calls import Calls  # noqa: PLC0415

    snapshot = gather(options)
    examination = Examination(snapshot)
    report = examine(snapshot, checks, {"kind": "live"}, policy, examination=examination)
    calls = examination.find(Calls)
    return _Look(
        snapshot,
        report,
        None if calls is None else calls.pairs,
        nothing_there(examination),
    )


def _print_changes(
    before: _Look | None,
    look: _Look,
    reasons: tuple[str, ...],
    options: Mapping[str, Any],
) -> tuple[bool, bool]:
    """Print how `look` differs from the one before, and why it was looked.

    Whether it differs, and whether anybody reads it.
    """
    from meshdoctor.report import diff  # noqa: PLC0415
    from meshdoctor.report.told import NOTHING, told  # noqa: PLC0415

    both = None
    if before is not None and before.pairs is not None and look.pairs is not None:
        both = (before.pairs, look.pairs)
    old = NOTHING if before is None else told(before.report)
    difference = diff.compare(old, told(look.report), both)
    if before is not None and difference.is_none:
        return False, True
    shown = terminal_of(options["width"], options["color"])
    if options["format_"] == "json":
        said = diff.render_json(difference, indent=None)
    else:
        because = f" ({'; '.join(reasons[:3])})" if reasons else ""
        said = diff.render(difference, shown)
        if before is None and look.nothing is not None:
            # All that is missing is one thing: there is no mesh yet.
            said = "No mesh is there yet: `meshdoctor check` says where it was looked for.\n"
        title = diff.title(f"{time.strftime('%H:%M:%S')}{because}", shown)
        said = f"{title}{said}\n"
    return True, print_out(said, shown)


def _is_ready(report: "Report", fail_on: str) -> bool:
    """Healthy, or as good as it will get: some warnings stay, as that of an Envoy's version.

    A sidecar that was not read may be one that is still starting, which is a warning too.
    """
    from meshdoctor.report.document import Verdict  # noqa: PLC0415

    if report.verdict is Verdict.HEALTHY:
        return True
    coverage = report.coverage
    all_read = coverage.sidecars_examined == coverage.sidecars_found
    return all_read and exit_code(report, fail_on) == EXIT_CLEAN


def _left(report: "Report", until: str | None, fail_on: str, patience: float | None) -> int:
    """The exit code when the time is over."""
    from meshdoctor.report.document import Verdict  # noqa: PLC0415

    is_unknown = report.verdict is Verdict.UNKNOWN
    code = EXIT_NO_VERDICT if is_unknown else EXIT_FINDINGS
    if until is None:
        code = exit_code(report, fail_on)
        is_unknown = code == EXIT_NO_VERDICT
    if until is not None or is_unknown:
        why = "; `meshdoctor check` says why" if is_unknown else ""
        say(f"meshdoctor: still {report.verdict} after {patience:g} seconds{why}")
    return code
