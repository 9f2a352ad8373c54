"""`check` and `demo`: examine a mesh and print the diagnosis."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from meshdoctor.cli.choice import choose, live_options
from meshdoctor.cli.delivery import exit_code, picture_of, picture_of_plan, publish
from meshdoctor.cli.evidence import (
    DEMO,
    gather,
    laid_over,
    nearest,
    nothing_there,
    open_recorded,
    recorded_demo,
)
from meshdoctor.cli.exits import EXIT_CLEAN, EXIT_FINDINGS, no_verdict, say
from meshdoctor.cli.options import (
    PATH,
    TakesNoFiles,
    config_option,
    fail_on_option,
    report_options,
    select_options,
    snapshot_option,
    where_options,
)

if TYPE_CHECKING:
    from meshdoctor.diagnosis import Checks, Policy
    from meshdoctor.snapshot import Snapshot


@click.command(short_help="Examine the mesh and print the diagnosis.", cls=TakesNoFiles)
@snapshot_option
@click.option(
    "--compose",
    "composes",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Judge Compose files alone, before anything runs: what would break, and why. Repeat it, "
    "in the order that `docker compose -f` has them.",
)
@fail_on_option()
@click.option(
    "--rules",
    multiple=True,
    type=PATH,
    metavar="PATH",
    help="Judge as if the VirtualServices and DestinationRules of this YAML file or folder were "
    "applied: what would break. Repeat it.",
)
@select_options
@report_options
@where_options
@config_option
def check(
    snapshots: tuple[Path | str, ...],
    composes: tuple[Path, ...],
    rules: tuple[Path, ...],
    **options: Any,
) -> None:
    """Examine the mesh, live, from a snapshot or from Compose files, and print the diagnosis.

    Exit code: 0 nothing found at or above --fail-on, 1 findings, 2 wrong usage, 3 no verdict
    (nothing could be examined, the snapshot is unreadable, or a check crashed).
    """
    begun = time.monotonic()
    checks, policy = choose(options)
    if composes and rules:
        raise click.UsageError("--rules needs a mesh or a --snapshot; --compose has neither")
    if composes:
        _only_compose(snapshots)
        _judge_compose(composes, checks, policy, options, begun)
    if snapshots:
        snapshot = open_recorded(snapshots)
        target: dict[str, Any] = {
            "kind": "snapshot",
            "paths": [str(path) for path in snapshots],
        }
    else:
        snapshot = gather(options)
        target = {"kind": "live"}
    if rules:
        snapshot = laid_over(snapshot, rules)
        target["rules"] = [str(path) for path in rules]
    _judge(snapshot, checks, policy, target, options, begun)


@click.command(short_help="Examine a recorded mesh: none of your own is needed.")
@report_options
def demo(**options: Any) -> None:
    """Examine a recorded mesh with the fault that meshdoctor was born from.

    No mesh is needed: the evidence was recorded on a real one, and ships with meshdoctor.
    """
    begun = time.monotonic()
    snapshot = recorded_demo()
    say(
        "A recorded mesh: Istio 1.1 on Docker Compose with Consul. Calls to port 9080 land on "
        "the wrong service. This is what `meshdoctor check` says of it:\n"
    )
    options |= {"fail_on": "error", "select": (), "ignore": (), "check_paths": ()}
    target = {"kind": "snapshot", "paths": [DEMO]}
    _judge(snapshot, *choose(options), target, options, begun, demo=True)


def _judge(
    snapshot: "Snapshot",
    checks: "Checks",
    policy: "Policy",
    target: Mapping[str, Any],
    options: Mapping[str, Any],
    begun: float,
    *,
    demo: bool = False,
) -> NoReturn:
    from meshdoctor.check import Examination  # noqa: PLC0415
    from meshdoctor.diagnosis import examine  # noqa: PLC0415

    examination = Examination(snapshot)
    report = examine(snapshot, checks, target, policy, examination=examination, begun=begun)
    blank = report.is_blank or not snapshot.names()
    nothing = nothing_there(examination, target.get("paths", ())) if blank else None
    publish(
        report,
        options,
        lambda: picture_of(examination),
        shown=nothing is None or options["format_"] != "text",
    )
    if nothing is not None:
        no_verdict(nothing)
    code = exit_code(report, options["fail_on"])
    sys.exit(EXIT_CLEAN if demo and code == EXIT_FINDINGS else code)


def _judge_compose(
    paths: Sequence[Path],
    checks: "Checks",
    policy: "Policy",
    options: Mapping[str, Any],
    begun: float,
) -> NoReturn:
    from meshdoctor.collectors.compose import read_compose  # noqa: PLC0415
    from meshdoctor.diagnosis import examine_plan  # noqa: PLC0415
    from meshdoctor.evidence.interface import DecodeError  # noqa: PLC0415
    from meshdoctor.topology.plan import Plan  # noqa: PLC0415

    try:
        plan = Plan.of(read_compose(paths, os.environ))
    except DecodeError as error:
        raise click.UsageError(f"{error}{nearest(paths)}") from error
    if not plan.is_mesh:
        no_verdict(
            "these files describe no mesh: in them is no Consul, Registrator, Pilot or sidecar, "
            "and no service sets a SERVICE_* variable. Name all files of the mesh, each with "
            "--compose, as you do with `docker compose -f`."
        )
    target = {"kind": "compose", "paths": [str(path) for path in paths]}
    report = examine_plan(plan, checks, target, policy, begun=begun)
    publish(report, options, lambda: picture_of_plan(plan))
    sys.exit(exit_code(report, options["fail_on"]))


def _only_compose(snapshots: Sequence[Path | str]) -> None:
    """Files alone are judged: nothing beside them can be asked for. Raises UsageError."""
    named = live_options()
    if snapshots:
        named.insert(0, "--snapshot")
    if named:
        raise click.UsageError(
            f"--compose judges files alone, so leave out {' and '.join(named)}, or leave out "
            "--compose to examine what runs"
        )
