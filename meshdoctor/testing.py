"""For authors of checks: run one check on a fixture folder, and hold it to what it should say."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from meshdoctor.check import Check, Examination, run
from meshdoctor.evidence.interface import NOT_JSON, MissingEvidenceError
from meshdoctor.findings import (
    Citation,
    Clean,
    Crashed,
    Fact,
    Finding,
    Found,
    Outcome,
    Remedy,
    Skipped,
)
from meshdoctor.snapshot import Snapshot, open_snapshot

EXPECTED: Final = "expected.txt"
"""The file of a fixture folder that holds what the check should say of it."""

LONGEST_MESSAGE: Final = 400
"""More than this nobody reads at three in the morning."""

_QUOTED: Final = re.compile(r'"[^"]*"')
_SECOND_SENTENCE: Final = re.compile(r"[.!?] +[A-Z]")


def run_check(check: Check, folder: Path) -> Outcome:
    """Run one check on the snapshot at `folder`. Raises SnapshotError."""
    return run(check, Examination(open_snapshot(folder)))


def assert_case(check: Check, folder: Path, *, refresh: bool = False) -> Outcome:
    """Run a check on a fixture folder and compare what it says with its `expected.txt`.

    A folder named `quiet-...` must give no finding, one named `fires-...` at least one, and every
    finding must be sound (see `unsound`). `refresh` writes `expected.txt` anew, to be read in the
    diff. Raises AssertionError.
    """
    snapshot = open_snapshot(folder)
    outcome = run(check, Examination(snapshot))
    if isinstance(outcome, Crashed):
        raise AssertionError(  # noqa: TRY004 # a failed test, not a wrong argument
            f"{check.name} crashed on {folder.name}:\n{outcome.traceback}"
        )
    fired = isinstance(outcome, Found)
    if folder.name.startswith("quiet-") and fired:
        raise AssertionError(f"{check.name} is not quiet:\n{render(check, outcome)}")
    if folder.name.startswith("fires-") and not fired:
        raise AssertionError(f"{check.name} does not fire:\n{render(check, outcome)}")
    complaints = unsound(outcome, snapshot)
    if complaints:
        raise AssertionError("\n".join((f"{check.name} on {folder.name}:", *complaints)))
    text = render(check, outcome)
    file = folder / EXPECTED
    if refresh:
        file.write_text(text, encoding="utf-8", newline="\n")
    expected = file.read_text(encoding="utf-8") if file.exists() else ""
    if text != expected:
        raise AssertionError(
            f"{check.name} says something else of {folder.name} than {EXPECTED} holds; "
            f"it says now:\n{text}"
        )
    return outcome


# ---------------------------------------------------------------- as text


def render(check: Check, outcome: Outcome) -> str:
    """What a check said, as text for `expected.txt`: the same outcome, the same text."""
    return "\n".join(line.rstrip() for line in _lines(check, outcome)) + "\n"


def _lines(check: Check, outcome: Outcome) -> Iterator[str]:
    said = f"{check.code} {check.name}:"
    match outcome:
        case Clean(facts):
            yield f"{said} clean"
            yield from (f"  fact: {fact.message}" for fact in facts)
        case Skipped(reason, hint):
            yield f"{said} skipped"
            yield f"  reason: {reason}"
            if hint:
                yield f"  hint: {hint}"
        case Found(findings):
            yield f"{said} found {len(findings)}"
            for finding in findings:
                yield from _finding(check, finding)
        case Crashed(error, _, findings):
            yield f"{said} crashed: {error}"
            for finding in findings:
                yield from _finding(check, finding)


def _finding(check: Check, finding: Finding) -> Iterator[str]:
    yield ""
    yield f"{finding.severity or check.severity}: {finding.message}"
    yield "  subjects"
    yield from (f"    {subject}" for subject in finding.subjects)
    yield "  seen in"
    yield from (f"    {_citation(citation)}" for citation in finding.seen_in)
    for remedy in finding.remedies:
        yield from _remedy(remedy)
    yield from (f"  reference: {reference}" for reference in finding.references)


def _citation(citation: Citation) -> str:
    where = f"{citation.document} {citation.pointer}".rstrip()
    return where if citation.excerpt is None else f"{where}: {citation.excerpt}"


def _remedy(remedy: Remedy) -> Iterator[str]:
    yield f"  remedy{' (destructive)' if remedy.destructive else ''}: {remedy.summary}"
    yield from (f"    $ {command}" for command in remedy.commands)
    if remedy.patch is not None:
        yield from (f"    | {line}" for line in remedy.patch.splitlines())
    if remedy.effect is not None:
        yield f"    effect: {remedy.effect}"


# ---------------------------------------------------------------- what a report could not bear


def unsound(outcome: Outcome, snapshot: Snapshot) -> Sequence[str]:
    """What is wrong with the findings of an outcome, one sentence each, () where nothing is.

    A sound finding has a subject; proofs that exist in the snapshot, at the place they name; a
    message of one sentence; and commands that a shell can read. A fact is not empty.
    """
    match outcome:
        case Found(findings) | Crashed(_, _, findings):
            return tuple(
                f"{finding.message!r}: {complaint}"
                for finding in findings
                for complaint in _complaints(finding, snapshot)
            )
        case Clean(facts):
            return tuple(f"{fact!r} says nothing" for fact in facts if not _says(fact))
        case Skipped(reason):
            return () if reason.strip() else ("skipped without a reason",)


def _says(fact: Fact) -> bool:
    return bool(fact.message.strip()) and "\n" not in fact.message


def _complaints(finding: Finding, snapshot: Snapshot) -> Iterator[str]:
    yield from _complaints_of_message(finding.message)
    if not finding.subjects:
        yield "it has no subject, so nothing links it to its causes"
    for subject in finding.subjects:
        if not subject.name:
            yield f"a {subject.kind} without a name"
    if len(set(finding.subjects)) != len(finding.subjects):
        yield "a subject stands twice"
    if not finding.seen_in:
        yield "it cites no proof"
    for citation in finding.seen_in:
        yield from _complaints_of_citation(citation, snapshot)
    for remedy in finding.remedies:
        yield from _complaints_of_remedy(remedy)


def _complaints_of_message(message: str) -> Iterator[str]:
    if not message.endswith(".") or message != message.strip() or "\n" in message:
        yield "the message is not one line that ends with a period"
    if _SECOND_SENTENCE.search(_QUOTED.sub('""', message)):
        yield "the message is more than one sentence"
    if len(message) > LONGEST_MESSAGE:
        yield f"the message has {len(message)} characters, more than {LONGEST_MESSAGE}"


def _complaints_of_citation(citation: Citation, snapshot: Snapshot) -> Iterator[str]:
    try:
        raw = snapshot.read(citation.document)
    except MissingEvidenceError:
        yield f"{citation.document} is cited and is not in the snapshot"
        return
    if not citation.pointer:
        return
    try:
        resolve(msgspec.json.decode(raw), citation.pointer)
    except NOT_JSON:
        yield f"{citation.document} is no JSON, so {citation.pointer} leads nowhere in it"
    except LookupError:
        yield f"{citation.pointer} leads nowhere in {citation.document}"


def resolve(document: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) leads to. Raises LookupError where it leads nowhere."""
    if pointer and not pointer.startswith("/"):
        raise LookupError(f"{pointer!r} is no JSON pointer")
    value = document
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        match value:
            case dict():
                value = value[key]
            case list() if key.isascii() and key.isdecimal():
                value = value[int(key)]
            case _:
                raise LookupError(pointer)
    return value


def _complaints_of_remedy(remedy: Remedy) -> Iterator[str]:
    if not remedy.summary.endswith("."):
        yield f"the remedy's summary {remedy.summary!r} does not end with a period"
    if remedy.effect is not None and not remedy.effect.endswith("."):
        yield f"the remedy's effect {remedy.effect!r} does not end with a period"
    for command in remedy.commands:
        try:
            words = shlex.split(command)
        except ValueError as error:
            yield f"a shell cannot read {command!r}: {error}"
            continue
        if not words or "\n" in command:
            yield f"{command!r} is not one command"
