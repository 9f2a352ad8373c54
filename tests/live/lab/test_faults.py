"""Break it, diagnose it, mend it by what is printed: on a mesh of real programs."""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pytest

from tests.live.lab.faults import FAULTS, Fault
from tests.live.lab.lab import Call, Lab, environment
from tests.live.mesh import NoMeshError

Report = Mapping[str, Any]
_LOOKS: Final = 20
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


def meshdoctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("meshdoctor")), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )


def check(*arguments: str) -> Report:
    done = meshdoctor("check", "--format", "json", *arguments)
    assert done.stdout, done.stderr
    report: Report = json.loads(done.stdout)
    return report


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


def matrix_agrees(calls: Sequence[Call], matrix: Mapping[str, Any]) -> list[str]:
    """Where what was met is not what was predicted."""
    met = {(f"consul_{each.caller}_1", each.callee): each for each in calls}
    wrong = []
    for pair in matrix["pairs"]:
        call = met.get((pair["caller"], pair["callee"]))
        if call is None or pair["port"] != 9080:  # what was called
            continue
        agrees = {
            "right": call.answered == call.callee,
            # A caller reaches itself through its own inbound listener, where its service's name
            # gives its own address.
            "wrong": call.answered == pair["reached"]
            or call.answered == call.callee == call.caller.partition("-")[0],
            "nowhere": not call.answered,
        }
        if not agrees.get(pair["verdict"], True):
            wrong.append(
                f"{call.caller} -> {call.callee}: {pair['verdict']} {pair['reached']} "
                f"({pair['reason']}), met {call.status} {call.answered} {call.error}"
            )
    return wrong


def clean(lab: Lab) -> Report:
    """Look until nothing is found."""
    report = check()
    for _ in range(_LOOKS):
        if not bad(report):
            break
        report = check()
    assert not bad(report), text(report)
    lab.settle()
    return report


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
        report = diagnosed(lab, fault, folder)
        mended(lab, fault, report, folder)
    except BaseException:
        (folder / "failure.txt").write_text(traceback.format_exc())
        lab.up()
        raise
    lab.unsure = False


def diagnosed(lab: Lab, fault: Fault, folder: Path) -> Report:
    """Put the fault in, and see what is said of it; live and from a snapshot the same."""
    fault.put_in(lab)
    report = check()
    for _ in range(_LOOKS):
        if explains(report, fault):
            break
        report = check()
    snapshot = str(folder / f"{fault.name}.tgz")
    with ThreadPoolExecutor() as pool:
        making = pool.submit(meshdoctor, "snapshot", "-o", snapshot, "--force")
        calls = lab.calls()
        assert making.result().returncode == 0, making.result().stderr
        replaying = pool.submit(check, "--snapshot", snapshot)
        matrix = json.loads(
            meshdoctor("matrix", "--format", "json", "--snapshot", snapshot).stdout
        )
        replayed = replaying.result()
    (folder / "report.json").write_text(json.dumps(report, indent=1))
    (folder / "calls.json").write_text(json.dumps([asdict(each) for each in calls], indent=1))
    assert explains(report, fault), f"{roots(report)}\n{text(report)}"
    assert told(replayed) == told(report)
    assert matrix_agrees(calls, matrix) == []
    return report


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
                report = check()
            mend(report, ran)
    finally:
        (folder / "ran.txt").write_text("\n".join(ran))
    clean(lab)
