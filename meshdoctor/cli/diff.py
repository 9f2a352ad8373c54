"""`diff`: what two reports, or snapshots, say differently."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from meshdoctor.cli.choice import choose
from meshdoctor.cli.delivery import deliver
from meshdoctor.cli.evidence import DEMO, nearest, open_recorded
from meshdoctor.cli.exits import EXIT_CLEAN, EXIT_FINDINGS, no_verdict, say
from meshdoctor.cli.options import (
    EVIDENCE,
    answer_options,
    config_option,
    fail_on_option,
    select_options,
)
from meshdoctor.files import is_folder, is_there, read_some

if TYPE_CHECKING:
    from meshdoctor.diagnosis import Checks, Policy
    from meshdoctor.report.told import Told
    from meshdoctor.routing.calls import Pair

_STDIN = "-"
_LARGEST: Final = 64 * 2**20
"""Bytes of a report: one of every check's most findings is a tenth of it."""


class _Side(NamedTuple):
    """One side: its report, and of a snapshot its calls, None of a report."""

    report: "Told"
    pairs: "Sequence[Pair] | None"


@click.command(short_help="Say what two reports or snapshots say differently.")
@click.argument("before", type=EVIDENCE, metavar="BEFORE")
@click.argument("after", type=EVIDENCE, metavar="AFTER")
@fail_on_option("The least severity of something new that gives exit code 1.")
@select_options
@answer_options
@config_option
def diff(before: Path, after: Path, *, fail_on: str, **options: Any) -> None:
    """Say what was found, what is gone and what changed from BEFORE to AFTER, causes first.

    Each is a report (`check --format json`, `-` for stdin) or a snapshot (a folder or .tgz); of
    two snapshots the calls are compared too. `meshdoctor diff monday.tgz tuesday.tgz`

    Exit code: 0 nothing new at or above --fail-on, 1 something new, or risen to it, 2 wrong
    usage, 3 one of the two cannot be read.
    """
    from meshdoctor.findings import Severity  # noqa: PLC0415
    from meshdoctor.report import diff as report  # noqa: PLC0415

    if str(before) == str(after) == _STDIN:
        raise click.UsageError(
            "only one of the two can come from stdin: name a file for the other"
        )
    checks, policy = choose(options)
    old, new = (_side(path, checks, policy) for path in (before, after))
    both = None if old.pairs is None or new.pairs is None else (old.pairs, new.pairs)
    difference = report.compare(old.report, new.report, both)
    if both is not None and all(both) and set(map(_ends, both[0])).isdisjoint(map(_ends, both[1])):
        say(f"meshdoctor: no call of {before} is in {after}: are they of one mesh?")
    deliver(
        lambda shown: report.render(difference, shown),
        lambda: report.render_json(difference),
        options,
    )
    sys.exit(EXIT_FINDINGS if difference.is_worse(Severity(fail_on)) else EXIT_CLEAN)


def _ends(pair: "Pair") -> tuple[str, str]:
    return pair.caller, pair.callee


def _side(path: Path, checks: "Checks", policy: "Policy") -> _Side:
    """A report as it is, a snapshot as it is judged now."""
    from meshdoctor.check import Examination  # noqa: PLC0415
    from meshdoctor.diagnosis import examine  # noqa: PLC0415
    from meshdoctor.evidence.interface import DecodeError  # noqa: PLC0415
    from meshdoctor.report.told import read_report, told  # noqa: PLC0415
    from meshdoctor.routing.calls import Calls  # noqa: PLC0415

    written = _written(path)
    if written is not None:
        try:
            return _Side(read_report(str(path), written), None)
        except DecodeError as error:
            no_verdict(str(error))
    snapshot = open_recorded((path,))
    target = {"kind": "snapshot", "paths": [str(path)]}
    examination = Examination(snapshot)
    report = examine(snapshot, checks, target, policy, examination=examination)
    calls = examination.find(Calls)
    return _Side(told(report), calls.pairs if calls is not None else ())


def _written(path: Path) -> bytes | None:
    """The bytes of a file that is no archive; None for what is to be opened as a snapshot."""
    try:
        if str(path) == _STDIN:
            raw = sys.stdin.buffer.read(_LARGEST + 1)
        elif is_folder(path) or (str(path) == DEMO and not is_there(path)):
            return None
        else:
            raw = read_some(path, _LARGEST + 1)
    except OSError as error:
        no_verdict(f"{path}: {error.strerror or error}{nearest([path])}")
    if raw.lstrip()[:1] != b"{" and path.suffix != ".json" and str(path) != _STDIN:
        return None
    if not raw.strip():
        nothing = (
            "nothing came from stdin" if str(path) == _STDIN else f"{path}: the file is empty"
        )
        no_verdict(f"{nothing}: write a report with `meshdoctor check --format json`")
    if len(raw) > _LARGEST:
        no_verdict(f"{path}: larger than {_LARGEST} bytes, so no report of meshdoctor's")
    return raw
