"""The report on a terminal: goldens of what people see, and what holds for any report."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from meshdoctor.findings import Severity
from meshdoctor.report import text
from meshdoctor.report.document import (
    Diagnosis,
    Elsewhere,
    Report,
    Source,
    SourceState,
    Unreachable,
    Verdict,
)
from meshdoctor.report.terminal import Terminal, printable
from tests.conftest import Golden
from tests.report.stories import (
    BROKEN,
    COLLISION,
    CRASHED,
    DEGRADED,
    HEALTHY,
    HOSTILE,
    LARGE,
    MASTER,
    STORIES,
    TWO_CAUSES,
)

GOLDENS = Path(__file__).parent / "goldens"
WIDTHS = (40, 80, 120)
STYLE = re.compile(r"\x1b\[[0-9;]*m")

any_story = pytest.mark.parametrize("report", STORIES.values(), ids=STORIES.keys())
any_width = pytest.mark.parametrize("width", WIDTHS)


def pasted(report: Report) -> list[str]:
    """The lines of a report that are there to be copied, and so never wrap."""
    blocks = []
    for diagnosis in report.diagnoses:
        for remedy in diagnosis.remedies:
            blocks += [*remedy.commands, remedy.patch or ""]
    lines = [line for block in blocks for line in block.split("\n") if line]
    return [printable(line, Terminal()).strip() for line in lines]


def words(rendered: str) -> str:
    """What is said, without line ends and branches."""
    return " ".join(re.sub("[│├└─]", " ", rendered).split())


@any_story
@any_width
def test_looks_like_its_golden(report: Report, width: int, golden: Golden) -> None:
    """What people see changes only on purpose."""
    name = next(name for name, story in STORIES.items() if story is report)
    golden(GOLDENS / f"{name}-{width}.txt", text.render(report, Terminal(width)))


def test_looks_like_its_golden_in_ascii(golden: Golden) -> None:
    """Signs and branches have stand-ins where the stream takes ASCII only."""
    rendered = text.render(CRASHED, Terminal(80, unicode=False))
    assert rendered.isascii()
    golden(GOLDENS / "crashed-80-ascii.txt", rendered)


def test_looks_like_its_golden_in_colour(golden: Golden) -> None:
    """The styles too are pinned."""
    golden(GOLDENS / "broken-80-color.txt", text.render(BROKEN, Terminal(80, color=True)))


@any_story
@any_width
def test_colour_adds_nothing_but_colour(report: Report, width: int) -> None:
    """Whoever sees no colour reads the same words."""
    colored = text.render(report, Terminal(width, color=True))
    assert colored != STYLE.sub("", colored)
    assert STYLE.sub("", colored) == text.render(report, Terminal(width))


@any_story
@any_width
def test_sentences_keep_within_the_terminal(report: Report, width: int) -> None:
    """Only what is there to be copied may be longer than a line."""
    copied = pasted(report)
    for line in text.render(report, Terminal(width)).splitlines():
        if len(line) > width:
            assert line.strip() in copied or "see https://" in line


@any_story
def test_commands_are_ready_to_paste(report: Report) -> None:
    """A command stands alone on its line, whole, after spaces only, on the narrowest screen."""
    lines = [line.strip(" ") for line in text.render(report, Terminal(40)).splitlines()]
    assert set(pasted(report)) <= set(lines)


def test_sentences_stay_readable_on_a_wide_terminal() -> None:
    """A terminal of 300 columns is no reason for lines of 300 characters."""
    assert text.render(CRASHED, Terminal(300)) == text.render(CRASHED, Terminal(120))


@any_story
def test_nothing_moves_the_cursor(report: Report) -> None:
    """Without colour every character is printable; with it, only styles are added."""
    for color in (False, True):
        rendered = text.render(report, Terminal(80, color=color))
        plain = STYLE.sub("", rendered) if color else rendered
        assert all(character == "\n" or character.isprintable() for character in plain)


def test_a_name_cannot_forge_the_verdict() -> None:
    """A line end in a name never puts what follows it at the start of a line."""
    lines = text.render(HOSTILE, Terminal(120)).splitlines()
    assert [line for line in lines if line.startswith("HEALTHY")] == []
    assert [line for line in lines if line.startswith("BROKEN: ")] != []


def test_markup_in_names_is_text() -> None:
    """What looks like rich's markup is printed as it is."""
    assert "[bold]" in text.render(HOSTILE)


def test_a_command_that_cannot_be_shown_says_so() -> None:
    """Nobody is led to paste a command whose characters were replaced."""
    assert "Do not paste this one" in text.render(HOSTILE)
    assert "Do not paste this one" not in text.render(BROKEN)


def test_the_cause_is_what_one_reads_first() -> None:
    """The first line is the root cause, though a note was found before it."""
    first = text.render(BROKEN).splitlines()[0]
    assert first.startswith("✗ error MD202  consul_registrator_1 runs gliderlabs/registrator")


def test_errors_come_before_warnings() -> None:
    """However the diagnoses are ordered, errors are read first and notes last."""
    report = replace(
        DEGRADED,
        diagnoses=(*DEGRADED.diagnoses, *BROKEN.diagnoses),
        findings=(
            *(replace(each, id=f"F{9 + n}") for n, each in enumerate(DEGRADED.findings)),
            *BROKEN.findings,
        ),
    )
    report = replace(
        report,
        diagnoses=(
            *(
                replace(each, root=f"F{9 + n}", findings=(f"F{9 + n}",))
                for n, each in enumerate(DEGRADED.diagnoses)
            ),
            *BROKEN.diagnoses,
        ),
    )
    rendered = text.render(report)
    order = [rendered.index(word) for word in ("error MD202", "warning MD205", "info MD209")]
    assert order == sorted(order)


def test_every_severity_is_a_word() -> None:
    """Severity is never said by colour or sign alone."""
    assert "error MD401" in text.render(BROKEN)
    assert "info MD209" in text.render(BROKEN)
    assert "warning MD403" in text.render(DEGRADED)


def test_a_finding_below_two_causes_is_printed_once() -> None:
    """Below its second cause it is only referred to."""
    rendered = words(text.render(TWO_CAUSES))
    assert rendered.count(COLLISION.message) == 1
    assert "error MD401 listener 0.0.0.0:9080: see above." in rendered


def test_a_step_is_printed_once() -> None:
    """A remedy that mends two causes is one step, and the second cause points to it."""
    rendered = text.render(TWO_CAUSES)
    assert rendered.count("Each service then has a listener of its own") == 1
    assert "As step 3: Give the services different ports." in rendered


def test_the_remedies_of_the_root_come_first() -> None:
    """What mends a symptom is offered only for the case that the cause's remedy did not help."""
    rendered = text.render(BROKEN)
    order = [
        rendered.index(words)
        for words in ("1. Run the master image", "Should that not be enough:", "2. Register")
    ]
    assert order == sorted(order)


def test_what_destroys_says_so() -> None:
    """A remedy that loses something warns in words."""
    assert "Careful, this loses something: " in text.render(DEGRADED)
    assert "Careful" not in text.render(BROKEN)


def test_a_healthy_mesh_is_not_silent() -> None:
    """The facts that were verified are said."""
    assert "✓ 24 of 24 calls reach the service they name." in text.render(HEALTHY)


def test_many_findings_of_one_check_fold() -> None:
    """Nine hundred symptoms of one cause fit a page, and are counted."""
    rendered = text.render(LARGE, Terminal(80))
    assert len(rendered.splitlines()) < 70
    assert "895 more like it, about the services shop-006, " in words(rendered)


def test_a_reason_is_said_once() -> None:
    """Checks that were skipped for one reason share its line, and so does the source."""
    rendered = words(text.render(STORIES["skipped"]))
    assert rendered.count("permission denied for /var/run/docker.sock") == 1
    assert "skipped for it: MD101, MD102, MD302" in rendered


def test_why_a_sidecar_was_not_reached_is_said_once() -> None:
    """By its name; what else its source lacks is said as well."""
    reason = "its admin interface was not reached (url: refused; exec: none)"
    said = f"envoy/web/config_dump.json: {reason}; envoy/api/certs.json: 404 Not Found"
    coverage = replace(
        HEALTHY.coverage,
        unreachable=(Unreachable("web", reason),),
        sources=(Source("envoy", SourceState.PARTIAL, said),),
    )
    shown = text.render(replace(HEALTHY, coverage=coverage), Terminal(120))
    assert shown.count("was not reached") == 1
    assert (
        f"  - Sidecar web: {reason}.\n  - envoy: envoy/api/certs.json: 404 Not Found.\n" in shown
    )


def test_who_was_not_examined_is_named() -> None:
    """Unreachable sidecars and crashed checks are never only counted."""
    rendered = words(text.render(CRASHED))
    assert "Sidecar consul_ratings-v1-sidecar_1: timed out after 5 s." in rendered
    assert "crashed MD404 route-to-missing-cluster: KeyError: 'route'." in rendered


def test_how_to_give_evidence_is_said_once() -> None:
    """A reason that names the flag needs no hint that names it again."""
    skipped = STORIES["skipped"].checks[0]
    told = replace(
        skipped, reason="no Consul was found; name it with --consul", hint="say --consul"
    )
    rendered = words(text.render(replace(HEALTHY, checks=(told,))))
    assert "name it with --consul." in rendered
    assert "Say --consul" not in rendered


def test_damage_to_the_recording_is_said_before_what_it_cost() -> None:
    """Everything else that is missing may be missing for it."""
    coverage = replace(
        HEALTHY.coverage,
        sources=(
            Source("netfilter", SourceState.MISSING, "no nat rules were recorded"),
            Source("snapshot", SourceState.PARTIAL, "x.tgz: damaged archive"),
        ),
    )
    rendered = text.render(replace(HEALTHY, coverage=coverage))
    assert rendered.index("damaged archive") < rendered.index("no nat rules")


def test_what_consul_knows_of_and_nobody_looked_at_is_named() -> None:
    """Each kind once, with all its names, and how to ask for it."""
    coverage = replace(
        HEALTHY.coverage,
        elsewhere=(
            Elsewhere("datacenter", "dc2"),
            Elsewhere("datacenter", "dc3"),
            Elsewhere("peer", "cluster-02"),
        ),
    )
    rendered = words(text.render(replace(HEALTHY, coverage=coverage)))
    said = "Consul also knows the datacenters dc2, dc3; the peer cluster-02: nothing there was"
    assert f"{said} looked at. CONSUL_DATACENTER asks this Consul for another." in rendered
    assert "Consul also knows" not in words(text.render(HEALTHY))


LOOKED = "Checked 4 services, 6 workloads, 6 of 6 sidecars in 0.4 s."


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (BROKEN, f"BROKEN: 1 cause, 5 findings (4 errors, 1 info). {LOOKED}"),
        (
            replace(DEGRADED, seconds=0.42),
            f"DEGRADED: 3 causes, 3 findings (3 warnings, 2 suppressed). {LOOKED}",
        ),
        (HEALTHY, f"HEALTHY: 3 checks found nothing. {LOOKED}"),
        (
            replace(HEALTHY, checks=(*HEALTHY.checks, STORIES["skipped"].checks[0])),
            f"HEALTHY: 3 checks found nothing, 1 could not look. {LOOKED}",
        ),
        (STORIES["skipped"], "UNKNOWN: No check could look. Checked nothing in 0.4 s."),
    ],
)
def test_the_last_line_is_the_verdict(report: Report, line: str) -> None:
    """The verdict in a word, what it counts, what was checked and how long it took."""
    assert words(text.render(report)).endswith(f" {line}")


hostile_text = st.text(min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    message=hostile_text,
    name=hostile_text,
    command=hostile_text,
    is_unicode=st.booleans(),
)
def test_whatever_is_said_is_inert(
    message: str, name: str, command: str, *, is_unicode: bool
) -> None:
    """No string of a report reaches the terminal as anything but visible characters."""
    remedy = replace(MASTER, summary=message, commands=(command,), patch=name, effect=name)
    finding = replace(
        COLLISION,
        id="F1",
        causes=(),
        message=message,
        subjects=tuple(replace(each, name=name) for each in COLLISION.subjects),
        seen_in=tuple(replace(each, document=name, excerpt=message) for each in COLLISION.seen_in),
    )
    report = replace(
        BROKEN,
        diagnoses=(Diagnosis("F1", ("F1",), message, Severity.ERROR, (remedy,)),),
        findings=(finding,),
        target={"kind": "snapshot", "paths": [name]},
    )
    rendered = text.render(report, Terminal(60, unicode=is_unicode))
    assert all(line.isprintable() for line in rendered.split("\n"))
    assert is_unicode or rendered.isascii()
    assert sum(line.startswith("BROKEN: ") for line in rendered.split("\n")) == 1


@st.composite
def tangles(draw: st.DrawFn) -> Sequence[tuple[int, ...]]:
    """The causes of each of some findings, with cycles and findings that nothing leads to."""
    size = draw(st.integers(1, 7))
    return draw(
        st.lists(
            st.lists(st.integers(0, size - 1), max_size=3, unique=True).map(tuple),
            min_size=size,
            max_size=size,
        )
    )


@settings(max_examples=80, deadline=None)
@given(tangles(), st.integers(0, 7))
def test_no_finding_is_lost(causes: Sequence[tuple[int, ...]], diagnosed: int) -> None:
    """However findings cause each other, and if no diagnosis has them, each is said once."""
    findings = tuple(
        replace(
            COLLISION,
            id=f"F{number}",
            message=f"Fault number {number}.",
            causes=tuple(f"F{cause}" for cause in each),
        )
        for number, each in enumerate(causes)
    )
    ids = tuple(finding.id for finding in findings[:diagnosed])
    diagnoses = (Diagnosis(ids[0], ids, "Tangled.", Severity.ERROR, ()),) if ids else ()
    report = replace(BROKEN, diagnoses=diagnoses, findings=findings, verdict=Verdict.BROKEN)
    rendered = text.render(report, Terminal(200))
    assert [rendered.count(finding.message) for finding in findings] == [1] * len(findings)
