"""`snapshot`: record the evidence, without secrets."""

from pathlib import Path
from typing import Any

import click

from meshdoctor import __version__
from meshdoctor.cli.evidence import gather, nothing_there
from meshdoctor.cli.exits import no_verdict, say
from meshdoctor.cli.options import PATH, config_option, where_options


@click.command(short_help="Record the evidence, without secrets, for an issue.")
@click.option(
    "-o",
    "--output",
    "path",
    required=True,
    type=PATH,
    metavar="FILE.tgz",
    help="Where to write: a .tgz, or a folder that is empty or not there yet.",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@where_options
@config_option
def snapshot(path: Path, *, force: bool, **options: Any) -> None:
    """Record the evidence of a live mesh, without secrets, to attach to an issue.

    `meshdoctor check --snapshot FILE.tgz` says the same of it as of the live mesh.
    """
    from meshdoctor.snapshot import SnapshotError, write_snapshot  # noqa: PLC0415

    if path.is_file() and not force:
        raise click.UsageError(f"{path} is there already: name another file, or add --force")
    gathered = gather(options)
    nothing = nothing_there(gathered)
    if nothing is not None and not gathered.names():
        no_verdict(nothing)
    try:
        write_snapshot(gathered, path, tool="meshdoctor", version=__version__)
    except SnapshotError as error:
        raise click.UsageError(str(error)) from error
    for problem in gathered.missing() if nothing is None else ():
        say(f"not recorded: {problem.document}: {problem.message}")
    left_out = sum(gathered.redactions.values())
    click.echo(
        f"{path}: {len(gathered.names())} documents; {left_out} values that no check needs were "
        f"left out. Read it with: meshdoctor check --snapshot {path}",
        err=True,
    )
    if nothing is not None:
        # It is written all the same: a mesh that is not recognised is worth an issue.
        no_verdict(nothing)
