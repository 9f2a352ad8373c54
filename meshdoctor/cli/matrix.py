"""`matrix`: where the calls of every workload land."""

import sys
from pathlib import Path
from typing import Any

import click

from meshdoctor.cli.choice import chosen_calls
from meshdoctor.cli.delivery import deliver
from meshdoctor.cli.evidence import examination_of, required
from meshdoctor.cli.exits import EXIT_CLEAN, EXIT_FINDINGS, EXIT_NO_VERDICT, say
from meshdoctor.cli.options import (
    TakesNoFiles,
    answer_options,
    calls_options,
    config_option,
    fail_on_option,
    snapshot_option,
    where_options,
)


@click.command(short_help="Show where every workload's calls really land.", cls=TakesNoFiles)
@snapshot_option
@calls_options
@click.option(
    "--wrong", is_flag=True, help="Show only calls that reach another service, or nowhere."
)
@fail_on_option("With warning, calls that are right only by luck give exit code 1 too.")
@answer_options
@where_options
@config_option
def matrix(
    snapshots: tuple[Path | str, ...],
    callers: tuple[str, ...],
    callees: tuple[str, ...],
    *,
    wrong: bool,
    fail_on: str,
    **options: Any,
) -> None:
    """Show where the calls of every workload to every service really land.

    Each call is followed through its caller's own Envoy; nothing is sent. Exit code: 0 all calls
    are right, 1 some reach another service or nowhere, 2 wrong usage, 3 nothing is known.
    """
    from meshdoctor.report import matrix as report  # noqa: PLC0415
    from meshdoctor.routing.calls import Calls, Verdict  # noqa: PLC0415

    pairs = chosen_calls(
        required(examination_of(snapshots, options), Calls).pairs, callers, callees
    )
    bad = [pair for pair in pairs if pair.verdict in (Verdict.WRONG, Verdict.NOWHERE)]
    document = report.Matrix(pairs, bad if wrong else pairs, tuple(map(str, snapshots)))
    deliver(
        lambda shown: report.render(document, shown), lambda: report.render_json(document), options
    )
    unknown, lucky = document.count(Verdict.UNKNOWN), document.count(Verdict.BY_LUCK)
    if lucky and fail_on == "error" and not bad:
        say(f"{_calls(lucky)} right only by luck. With --fail-on warning that is exit code 1.")
    if unknown:
        say(f"{_calls(unknown)} not known.")
    if bad or (lucky and fail_on != "error"):
        sys.exit(EXIT_FINDINGS)
    sys.exit(EXIT_NO_VERDICT if unknown == len(pairs) else EXIT_CLEAN)


def _calls(number: int) -> str:
    return "1 call is" if number == 1 else f"{number} calls are"
