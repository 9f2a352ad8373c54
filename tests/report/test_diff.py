"""What two reports say differently: by what findings are about, not by their numbers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdoctor.check import Examination
from meshdoctor.diagnosis import examine, load_checks
from meshdoctor.evidence.interface import DecodeError
from meshdoctor.findings import Severity
from meshdoctor.report import diff
from meshdoctor.report import json as report_json
from meshdoctor.report.diff import compare, render, render_json, summary
from meshdoctor.report.document import Report
from meshdoctor.report.terminal import Terminal
from meshdoctor.report.told import Told, read_report, told
from meshdoctor.routing.calls import Calls, Pair
from meshdoctor.snapshot import Snapshot, open_snapshot

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"


def recorded(name: str) -> Snapshot:
    return open_snapshot(MESHES / f"{name}.tgz")


def examined(name: str) -> Report:
    return examine(recorded(name), load_checks(), {"kind": "live"})


def pairs(name: str) -> Sequence[Pair]:
    return Examination(recorded(name)).get(Calls).pairs


def report(*findings: dict[str, Any], **more: Any) -> Told:
    """A report of those findings, each its own diagnosis unless told otherwise."""
    listed = [{"id": f"F{n}", "check": "x", **each} for n, each in enumerate(findings)]
    written = {
        "schema": "meshdoctor.report/v1",
        "verdict": "broken" if findings else "healthy",
        "findings": listed,
        "diagnoses": [{"root": each["id"], "findings": [each["id"]]} for each in listed],
        "checks": [{"code": f"MD10{n}", "verdict": "clean"} for n in range(4)],
    }
    return read_report("test", json.dumps(written | more).encode())


def finding(code: str, *names: str, severity: str = "error", message: str = "m") -> dict[str, Any]:
    subjects = [{"kind": "service", "name": name} for name in names]
    return {"code": code, "severity": severity, "message": message, "subjects": subjects}


def test_a_report_and_itself_do_not_differ() -> None:
    """Whatever numbers its findings have."""
    one = report(finding("MD101", "a"), finding("MD102", "b"))
    two = report(finding("MD102", "b"), finding("MD101", "a"))
    difference = compare(one, two)
    assert difference.is_none
    assert not difference.is_worse(Severity.INFO)
    assert render(difference) == "No difference: still broken.\n"


def test_found_and_gone_are_about_other_things() -> None:
    """The same code about another service is another finding."""
    difference = compare(report(finding("MD101", "a")), report(finding("MD101", "b")))
    assert [each.subjects[0].name for each in difference.found] == ["b"]
    assert [each.subjects[0].name for each in difference.gone] == ["a"]
    assert difference.changed == ()
    assert difference.is_worse(Severity.ERROR)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("a", "b", "c"), ("a", "b", "c", "d")),
        (("a", "b", "c", "d"), ("d", "c", "b")),
        (("a", "b"), ("a", "c", "d", "e", "f")),
    ],
)
def test_a_finding_that_spreads_has_changed(
    before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    """Half of what it is about, or what it is mostly about, is still the same."""
    difference = compare(report(finding("MD101", *before)), report(finding("MD101", *after)))
    (change,) = difference.changed
    assert {each.name for each in change.joined} == {*after} - {*before}
    assert {each.name for each in change.left} == {*before} - {*after}
    assert difference.found == difference.gone == ()
    assert not difference.is_worse(Severity.INFO)


def test_one_more_of_many_is_no_new_finding() -> None:
    """Eight are told one by one, and nine as one: no fault came or went but the ninth."""
    eight = [finding("MD101", f"s{n}", message=f"s{n} is open") for n in range(8)]
    names = [f"s{n}" for n in range(9)]
    nine = finding("MD101", *names, message="s0 is open. The same is true of 8 more.")
    nine["alike"] = 9
    grown = compare(report(*eight), report(nine))
    assert not grown.gone
    assert not grown.found
    assert {each.name for change in grown.changed for each in change.joined} == set(names) - {"s0"}
    shrunk = compare(report(nine), report(*eight))
    assert not shrunk.gone
    assert not shrunk.found
    # Another fault of the same check is none of them.
    other = finding("MD101", "s7", "z", message="s7 is open by z")
    assert [each.message for each in compare(report(*eight[:7], other), report(nine)).gone]


def test_the_most_alike_are_one() -> None:
    """Whatever order they come in."""
    before = report(finding("MD101", "a", "b", "c"), finding("MD101", "x", "y"))
    after = report(finding("MD101", "y", "x", "z"), finding("MD101", "b", "c"))
    difference = compare(before, after)
    changed = {
        (each.before.subjects[0].name, each.after.subjects[0].name) for each in difference.changed
    }
    assert changed == {("a", "b"), ("x", "y")}


def test_a_severity_that_rises_is_worse() -> None:
    """One that falls is not."""
    low, high = (report(finding("MD101", "a", severity=each)) for each in ("warning", "error"))
    assert compare(low, high).is_worse(Severity.ERROR)
    assert not compare(high, low).is_worse(Severity.INFO)
    assert "was: warning" in render(compare(low, high))


def test_a_finding_about_nothing_is_known_by_its_check() -> None:
    """Other words of it are a change, and it is said what they were."""
    difference = compare(
        report(finding("MD101", message="one")), report(finding("MD101", message="two"))
    )
    assert difference.found == difference.gone == ()
    text = render(difference)
    assert "was: one" in text
    assert "now too" not in text


def test_of_many_changes_each_has_its_line_below_one_heading() -> None:
    """So have many that are no longer looked for."""
    before = report(finding("MD101", "a"), finding("MD102", "b"), finding("MD998", "c"))
    after = report(
        finding("MD101", "a", severity="warning"), finding("MD102", "b", severity="warning")
    )
    more = report(*(finding("MD997", each) for each in "xy"))
    text = render(compare(before, after))
    assert text.count("was: error") == 2
    assert text.count("Changed\n") == 1
    assert render(compare(more, report())).count("No longer looked for\n") == 1


def test_what_was_not_looked_for_is_not_gone() -> None:
    """A skipped check mends nothing."""
    skipped = [{"code": "MD101", "verdict": "skipped", "reason": "Docker did not answer"}]
    difference = compare(report(finding("MD101", "a")), report(checks=skipped))
    assert difference.gone == ()
    (lost,) = difference.lost
    assert lost.reason == "skipped: Docker did not answer"
    text = render(difference)
    assert "No longer looked for" in text
    assert "Docker did not answer" in text


def test_what_is_suppressed_is_not_gone() -> None:
    """It is there all the same."""
    after = report(suppressions=[{"code": "MD101", "matched": 1}])
    (lost,) = compare(report(finding("MD101", "a")), after).lost
    assert "suppressed" in lost.reason


def test_a_check_that_was_not_run_says_nothing() -> None:
    """As with --select."""
    (lost,) = compare(report(finding("MD999", "a")), report()).lost
    assert lost.reason == "this check was not run"


def test_causes_stand_before_their_symptoms() -> None:
    """Below them, or with their name where they are not new."""
    both = [finding("MD103", "s"), finding("MD101", "s")]
    both[0]["causes"] = ["F1"]
    tree = [{"root": "F1", "findings": ["F1", "F0"]}]
    difference = compare(report(), report(*both, diagnoses=tree))
    assert [each.code for each in difference.found] == ["MD101", "MD103"]
    lines = render(difference).splitlines()
    assert lines[1].startswith("✗ error MD101")
    assert lines[2].startswith("└─ ✗ error MD103")
    known = compare(report(finding("MD101", "s")), report(*both, diagnoses=tree))
    assert "caused by MD101" in render(known)


def test_the_story_backwards() -> None:
    """From the mesh that works to the one that does not, and back."""
    healthy, broken = told(examined("fixed")), told(examined("broken"))
    calls = (pairs("fixed"), pairs("broken"))
    worse = compare(healthy, broken, calls)
    assert [each.code for each in worse.found[:3]] == ["MD202", "MD201", "MD401"]
    assert worse.calls is not None
    assert len(worse.calls) == 21
    assert summary(worse) == "Healthy before, broken after: 6 found, calls: 15 now wrong."
    better = compare(broken, healthy, calls[::-1])
    assert better.gone == worse.found
    assert not better.is_worse(Severity.INFO)
    assert summary(better).endswith("6 gone, calls: 21 now right.")
    for difference in (worse, better, compare(healthy, broken)):
        written = json.loads(render_json(difference))
        jsonschema.validate(written, diff.schema())
        assert (written["calls"] is None) == (difference.calls is None)


@pytest.mark.parametrize("width", [40, 80])
def test_it_fits_its_terminal(width: int) -> None:
    """Without colour and without Unicode too."""
    difference = compare(told(examined("fixed")), told(examined("broken")))
    text = render(difference, Terminal(width=width, unicode=False))
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= width


def test_a_call_that_is_no_longer_there_is_told() -> None:
    """As where a port changed."""
    old, new = pairs("fixed")[:2], pairs("fixed")[1:2]
    difference = compare(report(), report(), (old, new))
    assert difference.calls is not None
    (change,) = difference.calls
    assert change.after is None
    assert "is not there" in render(difference)
    assert summary(difference) == "Still healthy: calls: 1 fare otherwise."


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schema": "meshdoctor.matrix/v1", "verdict": "healthy"}',
        b'{"schema": "meshdoctor.report/v1"}',
        b'{"schema": "meshdoctor.report/v1", "verdict": "splendid"}',
        b"\x1f\x8b\x08",
    ],
)
def test_what_is_no_report_is_refused(raw: bytes) -> None:
    """With the file's name."""
    with pytest.raises(DecodeError, match=r"^x\.json: "):
        read_report("x.json", raw)


def test_a_report_is_read_as_it_was_told() -> None:
    """From its file, with members that a later version may add."""
    whole = examined("broken")
    written = json.loads(report_json.render(whole)) | {"probe": {"later": True}}
    assert read_report("f", json.dumps(written).encode()) == told(whole)


CODES = st.sampled_from(["MD101", "MD102"])
NAMES = st.lists(st.sampled_from("abcdef"), max_size=4, unique=True)
SOME = st.lists(st.builds(lambda code, names: finding(code, *names), CODES, NAMES), max_size=6)


@given(SOME, SOME)
def test_every_finding_is_accounted_for(old: list[Any], new: list[Any]) -> None:
    """Once, whatever is there; and the way back is the way there."""
    before, after = report(*old), report(*new)
    there, back = compare(before, after), compare(after, before)
    same = len(old) - len(there.gone) - len(there.changed)
    assert same >= 0
    assert len(new) == same + len(there.changed) + len(there.found)
    assert not there.lost
    assert compare(before, before).is_none
    assert len(back.found) - len(back.gone) == len(there.gone) - len(there.found)


def test_verdicts_alone_may_differ() -> None:
    """As when a source went away."""
    one = report()
    difference = compare(one, replace_verdict(one))
    assert not difference.is_none
    assert summary(difference) == "Healthy before, unknown after: no finding differs."


def replace_verdict(of: Told) -> Told:
    return read_report(
        "x", json.dumps({"schema": of.schema, "verdict": "unknown", "checks": []}).encode()
    )
