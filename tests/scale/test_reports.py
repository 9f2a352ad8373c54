"""However large a mesh and whatever is wrong with it, a report stays one that somebody reads."""

import gzip
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from meshdoctor.check import Check, check
from meshdoctor.diagnosis import Checks, examine, load_checks
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.findings import Citation, Finding, Remedy, Severity, Subject, SubjectKind
from meshdoctor.report import html, junit, markdown, sarif, text
from meshdoctor.report import json as report_json
from meshdoctor.report.document import Report
from meshdoctor.snapshot import Snapshot, open_snapshot
from tests.scale.multiplied import multiplied

FIXTURES: Final = Path(__file__).parents[2] / "fixtures"
COPIES: Final = 167
"""Of a mesh of six sidecars: a thousand and two."""

LARGEST: Final = {"text": 150_000, "markdown": 65_536, "html": 1_000_000, "junit": 2_000_000}
LARGEST_SARIF: Final = 10_000_000
"""What GitHub's code scanning takes, compressed."""

RENDERERS: Final[dict[str, Callable[[Report], str]]] = {
    "text": text.render,
    "markdown": markdown.render,
    "html": html.render,
    "junit": junit.render,
    "sarif": sarif.render,
}
PAGE: Final = "Wrong.\n\n## Why it matters\n\n## How it is found\n\n## How to fix it\n\nMend it.\n"


@cache
def thousand() -> Report:
    """Of each six sidecars one stopped, and one service misspelt its protocol.

    Without the checks of calls: a million pairs are for the benchmarks.
    """
    checks = load_checks().choose((), ("MD402", "MD407", "MD409", "MD604"))
    mesh = multiplied(open_snapshot(FIXTURES / "meshes" / "lab" / "two-at-once.tgz"), COPIES)
    return examine(mesh, checks, {"kind": "snapshot", "paths": ["mesh.tgz"]})


def word(number: int) -> str:
    """A word of letters: what differs by numbers alone would be told as one."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def different(number: int) -> Finding:
    """A finding that says what no other says, with more than anybody reads of everything."""
    name = f"of-{word(number)}"
    return Finding(
        f"What is wrong with {name} is wrong as {word(number * 7)} is: {word(number) * 60}.",
        (
            *tuple(Subject(SubjectKind.SERVICE, f"{name}-{each}") for each in range(300)),
            Subject(SubjectKind.COMPONENT, "consul"),
        ),
        seen_in=tuple(Citation(f"docker/{each}.json", "/0", "y" * 160) for each in range(300)),
        remedies=(
            Remedy(
                f"Mend {name}.",
                tuple(f"mend {name} --step {each}" for each in range(900)),
                patch="\n".join(f"+ {name}: {each}" for each in range(900)),
            ),
        ),
    )


def a_check(code: str, explains: tuple[str, ...], numbers: range) -> Check:
    def function(docker: DockerEngine) -> Iterator[Finding]:  # noqa: ARG001 # it must be there
        yield from map(different, numbers)

    function.__doc__ = PAGE
    function.__name__ = f"check_{code.lower()}"
    return check(code=code, severity=Severity.ERROR, since="0.1", explains=explains)(function)


@cache
def nothing_alike() -> Report:
    """Three hundred causes that share nothing, of which one has three hundred symptoms."""
    docker = Snapshot({"docker/containers.json": b"[]"})
    made = (
        a_check("XX101", ("XX102",), range(1)),
        a_check("XX102", (), range(1000, 1300)),
        a_check("XX103", (), range(2000, 2300)),
    )
    return examine(docker, Checks(made), {"kind": "live"})


@pytest.mark.parametrize("form", LARGEST)
@pytest.mark.parametrize("report", [thousand, nothing_alike])
def test_a_report_for_people_is_below_a_fixed_size(
    report: Callable[[], Report], form: str
) -> None:
    """What is left out is counted, and said to be in the JSON report."""
    said = RENDERERS[form](report())
    assert len(said.encode()) <= LARGEST[form]
    assert "JSON report" in said or "--format json" in said


@pytest.mark.parametrize("report", [thousand, nothing_alike])
def test_code_scanning_takes_the_sarif(report: Callable[[], Report]) -> None:
    log = json.loads(said := RENDERERS["sarif"](report()))
    assert len(gzip.compress(said.encode())) <= LARGEST_SARIF
    (run,) = log["runs"]
    assert len(run["results"]) == len(report().findings)
    for each in run["results"]:
        assert len(each["locations"]) + len(each.get("relatedLocations", ())) <= 100


def test_the_text_of_a_thousand_sidecars_is_read_in_one_go() -> None:
    """A line that is wrapped stays within the page; only what is to be pasted is longer."""
    said = text.render(thousand())
    assert "1002 of 1002" not in said  # the ones that stopped could not be examined
    assert said.count("\n") <= 400
    assert "167 sidecars" in said
    assert max(map(len, said.splitlines())) <= 4_000


def test_causes_that_are_only_named_have_their_remedies_mentioned() -> None:
    said = text.render(nothing_alike())
    assert "295 more like it" in said
    assert "The other 295 of XX103 have remedies of their own" in said


def test_the_json_has_all() -> None:
    """Nothing is left out where a program reads."""
    said = json.loads(report_json.render(nothing_alike()))
    assert len(said["findings"]) == 601  # 1, 300 and 300
    assert all(len(each["subjects"]) == 301 for each in said["findings"])
    assert all(len(each["remedies"][0]["commands"]) == 900 for each in said["findings"])
    stopped = [
        each
        for each in json.loads(report_json.render(thousand()))["findings"]
        if each["code"] == "MD302"
    ]
    sidecars = {each["name"] for each in stopped[0]["subjects"] if each["kind"] == "sidecar"}
    assert len(sidecars) == COPIES
