"""`probe`: one request a pair, and who answered."""

import sys
import time
from pathlib import Path
from typing import Any

import click

from meshdoctor import __version__
from meshdoctor.cli.choice import choose, chosen_calls, warn
from meshdoctor.cli.delivery import deliver, exit_code, picture_of, render
from meshdoctor.cli.evidence import gather, nothing_there, progress, required, where
from meshdoctor.cli.exits import no_verdict, say
from meshdoctor.cli.options import (
    PATH,
    Finite,
    calls_options,
    config_option,
    fail_on_option,
    report_options,
    select_options,
    url_path,
    where_options,
)
from meshdoctor.cli.replacing import no_snapshot_to
from meshdoctor.files import is_file


@click.command(short_help="Send one request a pair, and say who answered.")
@calls_options
@click.option(
    "--path",
    default="/",
    show_default=True,
    callback=url_path,
    metavar="PATH",
    help="What is asked for.",
)
@click.option(
    "--answer-header",
    default="",
    metavar="NAME",
    help="A response header by which your services say who they are.",
)
@click.option(
    "--fingerprint",
    is_flag=True,
    help="Where nothing better tells who answered, ask the services' own workloads the same on "
    "their localhost, and compare.",
)
@click.option("-y", "--yes", is_flag=True, help="Send many requests without asking first.")
@click.option(
    "--rate",
    type=Finite(min=0.1, max=1000),
    default=20.0,
    show_default=True,
    metavar="NUMBER",
    help="At most so many requests a second.",
)
@click.option(
    "--probe-timeout",
    type=Finite(min=1),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Deadline for all probes together.",
)
@click.option(
    "--record",
    type=PATH,
    metavar="FILE.tgz",
    help="Record the evidence, and what the probe met, as `snapshot` does.",
)
@fail_on_option()
@select_options
@report_options
@where_options
@config_option
def probe(
    callers: tuple[str, ...], callees: tuple[str, ...], record: Path | None, **options: Any
) -> None:
    """Send a request for each caller and callee, and say who answered.

    The one command that sends traffic through the mesh: one GET from inside the caller's own
    network namespace for each caller, callee and port, and nothing else. Shows what the
    configuration predicts beside what was met, then the diagnosis. Above 100 requests it asks
    first. Exit codes are those of `check`.
    """
    from meshdoctor.check import Examination  # noqa: PLC0415
    from meshdoctor.collectors import probe as probing  # noqa: PLC0415
    from meshdoctor.diagnosis import examine  # noqa: PLC0415
    from meshdoctor.evidence.probe import ProbeResults  # noqa: PLC0415
    from meshdoctor.report import probe as report  # noqa: PLC0415
    from meshdoctor.report import text  # noqa: PLC0415
    from meshdoctor.report.terminal import Terminal  # noqa: PLC0415
    from meshdoctor.routing.calls import Calls  # noqa: PLC0415
    from meshdoctor.routing.probed import compare  # noqa: PLC0415
    from meshdoctor.snapshot import SnapshotError, write_snapshot  # noqa: PLC0415
    from meshdoctor.topology import Mesh  # noqa: PLC0415

    begun = time.monotonic()
    checks, policy = choose(options)
    if where(options).engines:
        raise click.UsageError(
            "probe sends requests from the containers of one Docker host: name one engine"
        )
    if record is not None:
        if is_file(record):
            raise click.UsageError(f"{record} is there already: name another file for --record")
        if (why := no_snapshot_to(record, force=False)) is not None:
            raise click.UsageError(why)
    gathered = gather(options)
    examination = Examination(gathered)
    if (nothing := nothing_there(examination)) is not None:
        no_verdict(nothing)
    mesh, calls = required(examination, Mesh), required(examination, Calls)
    plan = probing.plan(mesh, chosen_calls(calls.pairs, callers, callees))
    wanted = probing.Probing(
        path=options["path"],
        answer_header=options["answer_header"],
        fingerprints=options["fingerprint"],
        rate=options["rate"],
        deadline=options["probe_timeout"],
    )
    _announce(plan.announcement(wanted), len(plan.pairs), yes=options["yes"])
    with progress() as under_way:
        probed = probing.probe(gathered, mesh, plan, where(options), wanted, under_way)
    if record is not None:
        try:
            write_snapshot(probed, record, tool="meshdoctor", version=__version__)
        except SnapshotError as error:
            say(f"not recorded: {error}")
    after = Examination(probed)
    target = {"kind": "live"}
    judged = examine(probed, checks, target, policy, examination=after, begun=begun)
    results = required(after, ProbeResults)
    outcome = report.Outcome(compare(mesh, calls, results), (*plan.left_out, *results.unsent))
    deliver(
        lambda shown: f"{report.render(outcome, shown)}\n{text.render(judged, shown)}",
        lambda: report.render_json(judged, outcome),
        options,
        lambda name: render(
            judged, name, Terminal(), options["fail_on"], lambda: picture_of(after)
        ),
    )
    warn(judged)
    sys.exit(exit_code(judged, options["fail_on"]))


def _announce(announcement: str, requests: int, *, yes: bool) -> None:
    """Say what will be sent; where that is much, ask."""
    from meshdoctor.collectors.probe import ASK_ABOVE  # noqa: PLC0415

    say(announcement)
    if requests <= ASK_ABOVE or yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"{requests} requests are more than {ASK_ABOVE}: add --yes to send them, or name "
            "fewer with --caller and --callee"
        )
    if not click.confirm("Send them?", err=True):
        raise click.Abort
