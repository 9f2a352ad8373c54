"""The report as JUnit's XML."""

import xml.etree.ElementTree as ET

import junitparser
import pytest
from msgspec.structs import replace

from meshdoctor.findings import Severity
from meshdoctor.report import junit
from meshdoctor.report.document import CheckVerdict, Report, Verdict
from tests.report.planted import planted
from tests.report.stories import (
    BROKEN,
    CRASHED,
    DEGRADED,
    HEALTHY,
    HOSTILE,
    SKIPPED,
    STORIES,
    UNKNOWN,
)

any_story = pytest.mark.parametrize("report", STORIES.values(), ids=STORIES.keys())

CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase"},
    "properties": {"property"},
    "testcase": {"skipped", "error", "failure", "system-out"},
}


def parsed(report: Report, fail_on: Severity = Severity.ERROR) -> ET.Element:
    return ET.fromstring(junit.render(report, fail_on))  # noqa: S314 # our own


def cases(root: ET.Element) -> dict[str, ET.Element]:
    return {case.attrib["name"]: case for case in root.iter("testcase")}


@any_story
def test_is_built_as_readers_expect(report: Report) -> None:
    """Known elements, each where it belongs, and counts that are those of the cases."""
    root = parsed(report)
    assert root.tag == "testsuites"
    for element in root.iter():
        assert {each.tag for each in element} <= CHILDREN.get(element.tag, set()), element.tag
    (suite,) = root
    found = list(suite.iter("testcase"))
    assert all({"name", "classname", "time"} <= case.attrib.keys() for case in found)
    for holder in (root, suite):
        assert int(holder.attrib["tests"]) == len(found) == len(report.checks) + 1
        assert int(holder.attrib["skipped"]) == len(list(suite.iter("skipped")))
        assert int(holder.attrib["errors"]) == len(list(suite.iter("error")))
        assert int(holder.attrib["failures"]) == len(list(suite.iter("failure")))


@any_story
def test_another_reader_counts_the_same(report: Report) -> None:
    """One that is not ours."""
    text = junit.render(report)
    read = junitparser.JUnitXml.fromstring(text.encode())
    again = junitparser.JUnitXml.fromstring(text.encode())
    again.update_statistics()  # type: ignore[no-untyped-call] # theirs
    for each in ("tests", "failures", "errors", "skipped"):
        assert getattr(read, each) == getattr(again, each)


def test_a_case_a_check() -> None:
    """Findings fail it, with their cause and what to type."""
    found = cases(parsed(BROKEN))
    failure = found["MD201 service-without-protocol"].find("failure")
    assert failure is not None
    assert failure.attrib["type"] == "error"
    assert "because of MD202 (F1)" in (failure.text or "")
    assert "docker restart consul_registrator_1" in (failure.text or "")
    clean = found["MD301 workload-without-sidecar"]
    assert [each.tag for each in clean] == ["system-out"]


def test_what_could_not_look_is_skipped_with_the_reason() -> None:
    """And how to give it what it needs."""
    skipped = cases(parsed(SKIPPED))["MD302 sidecar-down"].find("skipped")
    assert skipped is not None
    assert "permission denied" in skipped.attrib["message"]
    assert "Join the group" in skipped.attrib["message"]


def test_a_crashed_check_is_an_error() -> None:
    """With its traceback."""
    error = cases(parsed(CRASHED))["MD404 route-to-missing-cluster"].find("error")
    assert error is not None
    assert "KeyError: 'route'" in (error.text or "")


def test_fails_from_the_severity_that_was_asked_for() -> None:
    """Lesser findings are told without failing."""
    checks = tuple(
        replace(HEALTHY.checks[0], code=each.code, name=each.check, verdict=CheckVerdict.FOUND)
        for each in DEGRADED.findings[1:]
    )
    report = replace(DEGRADED, checks=checks)
    assert parsed(report).attrib["failures"] == "0"
    assert "MD205" in (
        cases(parsed(report))["MD205 tag-without-value"].findtext("system-out") or ""
    )
    assert parsed(report, Severity.WARNING).attrib["failures"] == "2"


def test_no_verdict_is_no_green_run() -> None:
    """Where nothing could be examined, all cases alone would be skipped."""
    assert UNKNOWN.verdict is Verdict.UNKNOWN
    assert parsed(UNKNOWN).attrib["errors"] == "1"
    assert parsed(HEALTHY).attrib["errors"] == "0"


def test_names_are_only_text() -> None:
    """XML knows no way to write most control characters; here they are made visible."""
    report, _ = planted()
    for each in (report, HOSTILE):
        text = junit.render(each)
        assert all(one == "\n" or one.isprintable() for one in text)
        found = parsed(each)
        assert not [
            e for e in found.iter() if e.tag not in {*CHILDREN, *CHILDREN["testcase"], "property"}
        ]
    assert "<script>document.title='pwned'</script>" in "".join(parsed(report).itertext())
