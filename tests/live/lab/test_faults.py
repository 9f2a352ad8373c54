"""Break it, diagnose it, mend it by what is printed: on a mesh of real programs."""

import json
import os
import subprocess
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pytest

from meshdoctor import __version__
from meshdoctor.check import Examination
from meshdoctor.collectors import Options, collect
from meshdoctor.diagnosis import Checks, examine
from meshdoctor.report import json as json_report
from meshdoctor.routing.calls import Calls, Pair, Verdict
from meshdoctor.snapshot import Snapshot, open_snapshot, write_snapshot
from meshdoctor_checks import CHECKS
from tests.live.lab.faults import FAULTS, Fault
from tests.live.lab.lab import PORT, PROJECT, Call, Lab, environment
from tests.live.mesh import NoMeshError

Report = Mapping[str, Any]
_LOOKS: Final = 8
"""How often it is looked until a change has gone through Consul and the control plane."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The mesh, up for all tests of this module."""
    lab = Lab()
    try:
        lab.require()
        if not ("MESHDOCTOR_LAB_KEEP" in os.environ and lab.is_up()):
            lab.up()
    except NoMeshError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no lab here: {error}")
    try:
        yield lab
    finally:
        if "MESHDOCTOR_LAB_KEEP" not in os.environ:
            lab.down()


def look() -> tuple[Snapshot, Report]:
    """Gather all evidence, and judge it, as `meshdoctor check` does."""
    snapshot = collect(Options(), lambda _said: None)
    return snapshot, judged(snapshot)


def judged(snapshot: Snapshot) -> Report:
    """What `meshdoctor check --format json` says."""
    examined = examine(snapshot, Checks(tuple(CHECKS)), {"kind": "live"})
    report: Report = json.loads(json_report.render(examined))
    return report


def predicted(snapshot: Snapshot) -> Sequence[Pair]:
    """What `meshdoctor matrix` says."""
    return Examination(snapshot).get(Calls).pairs


def bad(report: Report) -> frozenset[str]:
    """The codes of everything that is not a mere remark."""
    return frozenset(each["code"] for each in report["findings"] if each["severity"] != "info")


def roots(report: Report) -> Sequence[str]:
    """The code of each diagnosis that is not a mere remark, in the report's order."""
    by_id = {each["id"]: each for each in report["findings"]}
    found = [by_id[each["root"]] for each in report["diagnoses"]]
    return [each["code"] for each in found if each["severity"] != "info"]


def explains(report: Report, fault: Fault) -> bool:
    found = bad(report)
    return fault.expected <= found <= fault.expected | fault.perhaps and sorted(
        set(roots(report))
    ) == sorted(fault.root)


def told(report: Report) -> list[tuple[str, str, str]]:
    """The verdict, to compare: codes and sentences, apart from moments in them."""
    return [(each["code"], each["severity"], each["message"]) for each in report["findings"]]


def mend(report: Report, ran: list[str]) -> None:
    """Run the first remedy of each diagnosis as it is printed, and note it in `ran`."""
    by_id = {each["id"]: each for each in report["findings"]}
    for diagnosis in report["diagnoses"]:
        root = by_id[diagnosis["root"]]
        if root["severity"] == "info" or not root["remedies"]:
            continue
        remedy = root["remedies"][0]
        if remedy.get("patch"):
            apply(remedy["patch"])
        for command in remedy["commands"]:
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


def disagreements(calls: Sequence[Call], pairs: Sequence[Pair]) -> list[str]:
    """Where what was met is not what was predicted."""
    met = {(f"{PROJECT}_{each.caller}_1", each.callee): each for each in calls}
    wrong = []
    for pair in pairs:
        call = met.get((pair.caller, pair.callee))
        if call is None or pair.port != PORT:
            continue
        # A caller reaches itself through its own inbound listener, where its service's name gives
        # its own address.
        itself = call.answered == call.callee == call.caller.partition("-")[0]
        agrees = {
            Verdict.RIGHT: call.answered == call.callee,
            Verdict.WRONG: itself or call.answered == pair.reached,
            Verdict.NOWHERE: itself or not call.answered,
        }
        if not agrees.get(pair.verdict, True):
            wrong.append(
                f"{call.caller} -> {call.callee}: {pair.verdict} {pair.reached} ({pair.reason}), "
                f"met {call.status} {call.answered} {call.error}"
            )
    return wrong


def clean(lab: Lab) -> None:
    """Look until nothing is found."""
    for _ in range(_LOOKS):
        _, report = look()
        if not bad(report):
            lab.settle()
            return
        time.sleep(1)
    pytest.fail(f"it is not clean: {text(report)}")


def text(report: Report) -> str:
    return "\n".join(
        f"{each['id']} {each['code']} {each['severity']} <- {each['causes']}: {each['message']}"
        for each in report["findings"]
    )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault(lab: Lab, fault: Fault) -> None:
    """Silent before; the cause is the diagnosis; what is printed mends it; silent after.

    What was found, what requests met, what was run: all is kept in a folder beside the lab's.
    """
    if lab.unsure:
        clean(lab)
    lab.unsure = True
    folder = lab.folder.with_name(f"{lab.folder.name}-states") / fault.name
    folder.mkdir(parents=True, exist_ok=True)
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
    clean(lab)
    if fault.tidy is not None:
        fault.tidy(lab)
