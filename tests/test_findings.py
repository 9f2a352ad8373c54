"""The words of a finding: their order, and that nobody changes them."""

import msgspec
import pytest
from msgspec.structs import replace

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
    subjects,
)


def test_severities_rise() -> None:
    """From what may be known to what must be mended."""
    assert sorted(Severity, key=lambda each: each.rank) == [
        Severity.INFO,
        Severity.WARNING,
        Severity.ERROR,
    ]


def test_the_kinds_of_subject_are_the_reports() -> None:
    """Reports of v1 know these, by these words, and no others."""
    assert [kind.value for kind in SubjectKind] == [
        "service",
        "instance",
        "workload",
        "sidecar",
        "component",
        "listener",
        "cluster",
        "route",
        "rule",
    ]


def test_subjects_are_equal_by_kind_and_name() -> None:
    """That is what links a cause to its symptoms."""
    one, two = subjects(SubjectKind.SERVICE, ("details", "reviews"))
    assert one == Subject(SubjectKind.SERVICE, "details")
    assert one != Subject(SubjectKind.WORKLOAD, "details")
    assert len({one, two, Subject(SubjectKind.SERVICE, "details")}) == 2
    assert str(one) == "service/details"


@pytest.mark.parametrize(
    "said",
    [
        Subject(SubjectKind.SERVICE, "details"),
        Citation("docker/containers.json"),
        Remedy("Restart it."),
        Finding("It is broken.", ()),
        Fact("it works"),
        Clean(),
        Found(()),
        Skipped("no evidence"),
        Crashed("KeyError", "Traceback"),
    ],
)
def test_what_was_said_stays_said(said: msgspec.Struct) -> None:
    """Frozen, slotted and hashable: reports may share and compare it."""
    with pytest.raises(AttributeError):
        setattr(said, said.__struct_fields__[0], "something else")
    assert not hasattr(said, "__dict__")
    assert hash(said) == hash(replace(said))
