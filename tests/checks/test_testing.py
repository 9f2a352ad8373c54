"""What authors of checks lean on: `meshdoctor.testing`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from meshdoctor.check import Check, check
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.findings import (
    Citation,
    Clean,
    Crashed,
    Fact,
    Finding,
    Found,
    Remedy,
    Severity,
    Skipped,
    Subject,
    SubjectKind,
)
from meshdoctor.snapshot import Snapshot
from meshdoctor.testing import EXPECTED, assert_case, render, unsound


@check(code="ACME001", severity=Severity.WARNING, since="1.0")
def service_named_test(catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """A service is named test.

    ## Why it matters

    It does not.

    ## How it is found

    By its name.

    ## How to fix it

    Name it otherwise.
    """
    for each in catalog.instances:
        if each.service == "test":
            yield Finding(
                "There is a service test.",
                (Subject(SubjectKind.SERVICE, "test"),),
                (Citation(each.document, f"{each.pointer}/ServiceName", "test"),),
            )
    yield Fact(f"{len(catalog.instances)} instances read")


def case(folder: Path, service: str) -> Path:
    document = folder / "consul" / "catalog" / "service" / f"{service}.json"
    document.parent.mkdir(parents=True)
    document.write_text(f'[{{"ServiceName": "{service}", "ServiceID": "1"}}]')
    return folder


def test_a_case_is_compared_with_its_expected_text(tmp_path: Path) -> None:
    """First it fails, refreshed it holds, and any change of it fails again."""
    folder = case(tmp_path / "fires-named-so", "test")
    own: Check = service_named_test
    with pytest.raises(AssertionError, match=EXPECTED):
        assert_case(own, folder)
    assert isinstance(assert_case(own, folder, refresh=True), Found)
    assert_case(own, folder)
    (folder / EXPECTED).write_text("something else\n")
    with pytest.raises(AssertionError, match="There is a service test"):
        assert_case(own, folder)


def test_the_name_of_a_case_says_what_must_come(tmp_path: Path) -> None:
    """`quiet-` must not fire and `fires-` must, whatever the expected text holds."""
    with pytest.raises(AssertionError, match="not quiet"):
        assert_case(service_named_test, case(tmp_path / "quiet-a", "test"), refresh=True)
    with pytest.raises(AssertionError, match="does not fire"):
        assert_case(service_named_test, case(tmp_path / "fires-a", "other"), refresh=True)


@pytest.mark.parametrize(
    ("finding", "complaint"),
    [
        (Finding("no period", ()), "ends with a period"),
        (Finding("One. Two.", ()), "more than one sentence"),
        (Finding('It said "One. Two", twice.', ()), "no subject"),
        (Finding(f"{'long ' * 100}.", ()), "characters"),
        (Finding("It.", (Subject(SubjectKind.SERVICE, ""),)), "without a name"),
        (Finding("It.", (), (Citation("envoy/x/stats.json"),)), "not in the snapshot"),
        (Finding("It.", (), (Citation("a.json", "/0/b"),)), "leads nowhere"),
        (Finding("It.", (), (Citation("b.txt", "/0"),)), "no JSON"),
        (Finding("It.", (), (), (Remedy("Do it.", ("echo 'x",)),)), "a shell cannot read"),
        (Finding("It.", (), (), (Remedy("Do it.", ("",)),)), "not one command"),
        (Finding("It.", (), (), (Remedy("Do it"),)), "summary"),
        (Finding("It.", (), (), (Remedy("Do it.", effect="It does"),)), "effect"),
        (Finding("It.", (Subject(SubjectKind.SERVICE, "a"),) * 2), "stands twice"),
    ],
)
def test_what_a_report_could_not_bear(finding: Finding, complaint: str) -> None:
    """Each flaw is said, in words that tell where to look."""
    snapshot = Snapshot({"a.json": b'[{"a": 1}]', "b.txt": b"text"})
    assert any(complaint in said for said in unsound(Found((finding,)), snapshot))


@check(code="ACME002", severity=Severity.WARNING, since="1.0")
def service_that_breaks(catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """A service breaks the check.

    ## Why it matters

    It does not.

    ## How it is found

    By its name.

    ## How to fix it

    Name it otherwise.
    """
    for each in catalog.instances:
        yield Finding(f"{each.service} and no period", (Subject(SubjectKind.SERVICE, "a"),))
    raise ZeroDivisionError


@check(code="ACME003", severity=Severity.WARNING, since="1.0")
def service_without_a_period(catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """A service is told of in half a sentence.

    ## Why it matters

    It does not.

    ## How it is found

    By its name.

    ## How to fix it

    Name it otherwise.
    """
    for each in catalog.instances:
        yield Finding(f"{each.service} and no period", (Subject(SubjectKind.SERVICE, "a"),))


def test_a_check_that_breaks_is_a_failure(tmp_path: Path) -> None:
    """With the traceback, though it had found something before."""
    with pytest.raises(AssertionError, match=r"crashed on fires-a:\n(.|\n)*ZeroDivisionError"):
        assert_case(service_that_breaks, case(tmp_path / "fires-a", "a"))


def test_a_case_that_no_report_could_bear_is_a_failure(tmp_path: Path) -> None:
    """Even where the expected text would be written anew."""
    folder = case(tmp_path / "fires-a", "a")
    with pytest.raises(AssertionError, match="the message is not one line that ends with a perio"):
        assert_case(service_without_a_period, folder, refresh=True)
    assert not (folder / EXPECTED).exists()


def test_what_was_found_before_it_broke_is_rendered() -> None:
    """Below what broke it."""
    found = Finding("It.", (Subject(SubjectKind.SERVICE, "a"),))
    said = render(service_named_test, Crashed("ValueError: x", "...", (found,)))
    assert said.startswith("ACME001 service-named-test: crashed: ValueError: x\n\nwarning: It.\n")


def test_facts_and_reasons_say_something() -> None:
    """A line, and not an empty one."""
    snapshot = Snapshot({})
    assert unsound(Clean((Fact("Two are well"),)), snapshot) == ()
    assert len(unsound(Clean((Fact(" "), Fact("One.\nTwo."))), snapshot)) == 2
    assert unsound(Skipped("it was not recorded"), snapshot) == ()
    assert unsound(Skipped(" "), snapshot) == ("skipped without a reason",)
