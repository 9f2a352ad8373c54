"""`fleet`: many snapshots, each judged by itself."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshdoctor.cli.choice import choose, split
from meshdoctor.cli.delivery import deliver, exit_code_of
from meshdoctor.cli.evidence import nearest, progress
from meshdoctor.cli.exits import EXIT_NO_VERDICT, no_verdict
from meshdoctor.cli.options import (
    RECORDED,
    answer_options,
    config_option,
    fail_on_option,
    select_options,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from meshdoctor.report.fleet import Fleet, Judgement


@click.command(short_help="Judge many snapshots, each by itself.")
@click.argument("places", nargs=-1, required=True, type=RECORDED, metavar="PATH...")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="Processes on this machine; else one for each core.",
)
@click.option(
    "--dask",
    "scheduler",
    metavar="ADDRESS",
    help="Judge on the Dask cluster with this scheduler, as tcp://10.0.0.5:8786, instead.",
)
@fail_on_option()
@select_options
@answer_options
@config_option
def fleet(
    places: tuple[Path | str, ...],
    *,
    workers: int | None,
    scheduler: str | None,
    fail_on: str,
    **options: Any,
) -> None:
    """Judge many snapshots, each by itself: a line for each, and the causes they share.

    PATH is a .tgz, a folder or a URL. Of a folder or prefix, each entry is one mesh: a .tgz, a
    snapshot's folder, or a folder of .tgz files, which are its hosts. Snapshots of one mesh's
    hosts are judged together by `meshdoctor check --snapshot`. One that cannot be judged costs no
    other one.

    Exit code: the worst of 0 nothing found at or above --fail-on, 1 findings, 3 no verdict on
    one of them; 2 wrong usage.
    """
    from meshdoctor.fleet import Judging, entries, judge_each  # noqa: PLC0415
    from meshdoctor.report import fleet as report  # noqa: PLC0415
    from meshdoctor.snapshot import SnapshotError  # noqa: PLC0415

    if workers is not None and scheduler is not None:
        raise click.UsageError("--workers are of this machine, --dask has its own: keep one")
    begun = time.monotonic()
    _, policy = choose(options)
    judging = Judging(
        tuple(path.absolute() for path in options["check_paths"]),
        tuple(split(options["select"])),
        tuple(split(options["ignore"])),
        policy,
    )
    try:
        found = entries(places)
    except SnapshotError as error:
        no_verdict(f"{error}{nearest(places)}")
    judgements: list[Judgement] = []
    with _executor(scheduler) as executor, progress() as under_way:
        for each in judge_each(found, judging, executor=executor, workers=workers):
            judgements.append(each)
            under_way(f"judged {len(judgements)} of {len(found)}")
    document = report.Fleet.of(judgements, time.monotonic() - begun)
    deliver(
        lambda shown: report.render(document, shown), lambda: report.render_json(document), options
    )
    sys.exit(_worst(document, fail_on))


@contextmanager
def _executor(scheduler: str | None) -> "Iterator[Executor | None]":
    from meshdoctor.fleet import ExecutorError, dask  # noqa: PLC0415

    if scheduler is None:
        yield None
        return
    try:
        with dask(scheduler) as executor:
            yield executor
    except ExecutorError as error:
        raise click.UsageError(str(error)) from error


def _worst(fleet: "Fleet", fail_on: str) -> int:
    """The exit code of the whole."""
    return max((_code(each, fail_on) for each in fleet.judgements), default=EXIT_NO_VERDICT)


def _code(judgement: "Judgement", fail_on: str) -> int:
    """That of `check` for one."""
    from meshdoctor.report.document import Verdict  # noqa: PLC0415

    is_known = judgement.verdict not in (None, Verdict.UNKNOWN)
    found = (severity for severity, number in judgement.findings.items() if number)
    return exit_code_of(found, fail_on, is_known=is_known)
