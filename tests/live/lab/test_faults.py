"""Break it, diagnose it, mend it by what is printed: on a mesh of real programs."""

import json
import shutil
import subprocess
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Final

import pytest

from meshdoctor import __version__
from meshdoctor.snapshot import open_snapshot, write_snapshot
from tests.live.lab.faults import FAULTS, Fault
from tests.live.lab.judging import (
    Report,
    bad,
    disagreements,
    explains,
    judged,
    look,
    predicted,
    roots,
    text,
    told,
)
from tests.live.lab.lab import Lab, environment

_LOOKS: Final = 30
"""How often it is looked until a change has gone through Consul and the control plane."""


def mend(report: Report, ran: list[str]) -> None:
    """Run the first remedy of each diagnosis as it is printed, and note it in `ran`."""
    by_id = {each["id"]: each for each in report["findings"]}
    for diagnosis in report["diagnoses"]:
        root = by_id[diagnosis["root"]]
        if root["severity"] == "info" or not root["remedies"]:
            continue
        remedy = root["remedies"][0]
        # Rules are in no file of the lab: what their patches say, the commands do.
        if (remedy.get("patch") or "").startswith("# /"):
            apply(remedy["patch"])
        for command in remedy["commands"]:
            if " edit " in command:
                # For a person in an editor; what is to be edited, `by_hand` does.
                continue
            ran.append(command)
            done = subprocess.run(
                ["bash", "-c", command],
                capture_output=True,
                text=True,
                check=False,
                env=environment(),
                timeout=180,
            )
            # What was mended may need a moment until the check that ends a remedy sees it.
            if not command.startswith("meshdoctor "):
                assert done.returncode == 0, (command, done.stderr)


def apply(patch: str) -> None:
    """Edit Compose files as a person would who reads a remedy's patch."""
    file: Path | None = None
    lines: list[str] = []
    at = 0
    for line in patch.splitlines():
        if line.startswith("# "):
            if file is not None:
                file.write_text("\n".join(lines) + "\n")
            file = Path(line[2:])
            lines = file.read_text().splitlines()
            at = 0
            continue
        sign, text = line[:1], line[1:]
        if sign == "+":
            lines.insert(at, text)
            at += 1
            continue
        # In the patch a line may stand with other spaces than in the file.
        wanted = text.strip().rstrip(":")
        found = next(
            (
                index
                for index in range(at, len(lines))
                if lines[index].strip().rstrip(":") == wanted
            ),
            None,
        )
        assert found is not None, f"{text!r} is not in {file}"
        if sign == "-":
            del lines[found]
            at = found
        else:
            at = found + 1
    assert file is not None
    file.write_text("\n".join(lines) + "\n")


def clean(lab: Lab, but: frozenset[str] = frozenset()) -> None:
    """Look until nothing is found `but` these codes."""
    for _ in range(_LOOKS):
        _, report = look()
        if bad(report) <= but:
            lab.settle()
            return
        time.sleep(1)
    pytest.fail(f"it is not clean: {text(report)}")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(lab: Lab, fault: Fault) -> None:
    """Silent before; the cause is the diagnosis; what is printed mends it; silent after.

    What was found, what requests met, what was run: all is kept in a folder beside the lab's.
    """
    if lab.unsure:
        clean(lab)
    lab.unsure = True
    folder = lab.folder.with_name(f"{lab.folder.name}-states") / fault.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        report, problems = diagnosed(lab, fault, folder)
        mended(lab, fault, report, folder)
    except BaseException:
        (folder / "failure.txt").write_text(traceback.format_exc())
        lab.up()
        raise
    lab.unsure = False
    (folder / "problems.txt").write_text("\n".join(problems))
    assert not problems, "\n".join(problems)


def diagnosed(lab: Lab, fault: Fault, folder: Path) -> tuple[Report, list[str]]:
    """Put the fault in, and see what is said of it; live and from a snapshot the same.

    What is not as it should be is told after the fault is mended: the next needs a sound mesh.
    """
    fault.put_in(lab)
    lab.rest()
    for _ in range(_LOOKS):
        snapshot, report = look()
        if explains(report, fault):
            break
        time.sleep(1)
    calls = lab.calls()
    for _ in range(3):
        if not disagreements(calls, predicted(snapshot)):
            break
        # A listener that was just replaced resets what it had taken.
        calls = lab.calls()
    (folder / "report.json").write_text(json.dumps(report, indent=1))
    (folder / "calls.json").write_text(json.dumps([asdict(each) for each in calls], indent=1))
    archive = folder / f"{fault.name}.tgz"
    write_snapshot(snapshot, archive, tool="meshdoctor", version=__version__)
    replayed = open_snapshot(archive)
    problems = disagreements(calls, predicted(replayed))
    if not explains(report, fault):
        problems.append(f"diagnosed as {roots(report)}:\n{text(report)}")
    if told(judged(replayed)) != told(report):
        problems.append("the snapshot says something else")
    return report, problems


def mended(lab: Lab, fault: Fault, report: Report, folder: Path) -> None:
    """By what is printed, until nothing is found any more and every call is right."""
    if fault.anew:
        lab.up()
    ran: list[str] = []
    try:
        if fault.by_hand is not None:
            fault.by_hand(lab)
        for number in range(0 if fault.anew else fault.rounds):
            if number:
                _, report = look()
            mend(report, ran)
    finally:
        (folder / "ran.txt").write_text("\n".join(ran))
    clean(lab, fault.leaves)
    if fault.tidy is not None:
        fault.tidy(lab)
        lab.rest()
        clean(lab)
