"""`snapshot`: record the evidence, without secrets."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshdoctor import __version__
from meshdoctor.cli.evidence import gather, nothing_there, open_recorded
from meshdoctor.cli.exits import no_verdict, say
from meshdoctor.cli.options import PATH, RECORDED, config_option, where_options
from meshdoctor.cli.replacing import no_snapshot_to

if TYPE_CHECKING:
    from meshdoctor.snapshot import Snapshot


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
@click.option(
    "--pseudonyms",
    is_flag=True,
    help="Give services, containers, hosts, images and addresses other names, everywhere the "
    "same: for an issue that everybody may read.",
)
@click.option(
    "--snapshot",
    "snapshots",
    multiple=True,
    type=RECORDED,
    metavar="PATH",
    help="Write recorded evidence anew, a folder or .tgz, instead of recording a live mesh; "
    "several become one. As in: snapshot --snapshot mine.tgz --pseudonyms -o public.tgz",
)
@where_options
@config_option
def snapshot(
    path: Path, snapshots: tuple[Path | str, ...], *, force: bool, pseudonyms: bool, **options: Any
) -> None:
    """Record the evidence of a live mesh, without secrets, to attach to an issue.

    `meshdoctor check --snapshot FILE.tgz` says the same of it as of the live mesh. Exit code: 0
    written, 2 wrong usage, 3 there is no mesh to record, or with --pseudonyms its verdict would
    be another one.
    """
    from meshdoctor.check import Examination  # noqa: PLC0415
    from meshdoctor.snapshot import SnapshotError, write_snapshot  # noqa: PLC0415

    if (why := no_snapshot_to(path, force=force)) is not None:
        raise click.UsageError(why)
    gathered = _redacted(open_recorded(snapshots)) if snapshots else gather(options, whole=True)
    nothing = nothing_there(Examination(gathered), snapshots)
    if nothing is not None and not gathered.names():
        no_verdict(nothing)
    if pseudonyms:
        gathered = _pseudonymised(gathered)
    try:
        write_snapshot(gathered, path, tool="meshdoctor", version=__version__)
    except SnapshotError as error:
        raise click.UsageError(str(error)) from error
    for problem in gathered.missing() if nothing is None else ():
        say(f"not recorded: {problem.document}: {problem.message}")
    left_out = sum(gathered.redactions.values())
    say(
        f"{path}: {len(gathered.names())} documents; {left_out} values that no check needs were "
        "left out. Read it with:"
    )
    say(f"  {shlex.join(('meshdoctor', 'check', '--snapshot', str(path)))}")
    if nothing is not None:
        # It is written all the same: a mesh that is not recognised is worth an issue.
        no_verdict(nothing)


def _redacted(recorded: "Snapshot") -> "Snapshot":
    """Without what a run would leave out now; what cannot be cleared is not kept."""
    from msgspec.structs import replace  # noqa: PLC0415

    from meshdoctor.evidence.interface import Problem  # noqa: PLC0415
    from meshdoctor.snapshot import Document  # noqa: PLC0415
    from meshdoctor.snapshot.redaction import RedactionError, redact, redact_text  # noqa: PLC0415

    documents: dict[str, Document] = {}
    redactions = dict(recorded.redactions)
    absent = [Problem(each.document, redact_text(each.message)) for each in recorded.absent]
    for name in recorded.names():
        try:
            documents[name], count = redact(name, recorded.read(name))
        except RedactionError as error:
            absent.append(Problem(name, f"not kept, for it cannot be redacted: {error}"))
            continue
        if count:
            redactions[name] = redactions.get(name, 0) + count
    return replace(recorded, documents=documents, absent=tuple(absent), redactions=redactions)


def _pseudonymised(gathered: "Snapshot") -> "Snapshot":
    """The same under other names, once it is seen that all checks say the same of it."""
    from meshdoctor.diagnosis import examine, load_checks  # noqa: PLC0415
    from meshdoctor.snapshot.pseudonyms import pseudonymised  # noqa: PLC0415

    renamed = pseudonymised(gathered)
    checks = load_checks()
    before, after = (examine(each, checks, {"kind": "live"}) for each in (gathered, renamed))
    codes = [
        sorted((each.code, each.severity, len(each.subjects)) for each in report.findings)
        for report in (before, after)
    ]
    if before.verdict is not after.verdict or codes[0] != codes[1]:
        no_verdict(
            "nothing was written, for under pseudonyms the checks would say something else of "
            f"this mesh ({before.verdict} with {len(before.findings)} findings; {after.verdict} "
            f"with {len(after.findings)}). This is a fault of meshdoctor's own: please report "
            "it. Without --pseudonyms the real names are kept."
        )
    return renamed
