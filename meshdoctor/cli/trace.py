"""`trace`: one call, hop by hop."""

import sys
from pathlib import Path
from typing import Any

import click

from meshdoctor.cli.delivery import deliver
from meshdoctor.cli.evidence import examination_of, required
from meshdoctor.cli.exits import EXIT_CLEAN, EXIT_FINDINGS, EXIT_NO_VERDICT, no_verdict
from meshdoctor.cli.options import (
    answer_options,
    config_option,
    headers_of,
    snapshot_option,
    where_options,
)


@click.command(short_help="Follow one call hop by hop.")
@click.argument("source")
@click.argument("url")
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    callback=headers_of,
    metavar="'NAME: VALUE'",
    help="A header of the request. Repeat it.",
)
@click.option(
    "-X",
    "--request",
    "method",
    default="GET",
    show_default=True,
    metavar="METHOD",
    help="The method of the request.",
)
@snapshot_option
@answer_options
@where_options
@config_option
def trace(
    source: str,
    url: str,
    headers: tuple[tuple[str, str], ...],
    method: str,
    snapshots: tuple[Path | str, ...],
    **options: Any,
) -> None:
    """Follow one call hop by hop: where it really goes, and where that is written.

    SOURCE is a workload, a service, a sidecar, or a part of such a name that only one has. URL is
    http, https or tcp; its host a service, an address, an instance or a workload. Nothing is
    sent. Exit code: 0 the call reaches the service it names, 1 it does not, 2 wrong usage, 3 that
    cannot be told.
    """
    from meshdoctor.report import trace as report  # noqa: PLC0415
    from meshdoctor.routing import trace as routing  # noqa: PLC0415
    from meshdoctor.routing.calls import Verdict  # noqa: PLC0415
    from meshdoctor.topology import Mesh  # noqa: PLC0415

    mesh = required(examination_of(snapshots, options), Mesh)
    if not (mesh.workloads or mesh.sidecars):
        no_verdict("no workload is known: the evidence has no container or service of one")
    try:
        traced = routing.trace(mesh, source, url, method=method, headers=headers)
    except routing.TraceError as error:
        raise click.UsageError(str(error)) from error
    deliver(
        lambda shown: report.render(traced, shown), lambda: report.render_json(traced), options
    )
    match traced.verdict:
        case Verdict.WRONG | Verdict.NOWHERE:
            sys.exit(EXIT_FINDINGS)
        case Verdict.UNKNOWN:
            sys.exit(EXIT_NO_VERDICT)
        case Verdict.RIGHT | Verdict.BY_LUCK:
            sys.exit(EXIT_CLEAN)
