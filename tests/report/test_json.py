"""The JSON report: the contract `meshdoctor.report/v1`."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from jsonschema.protocols import Validator
from msgspec.structs import replace

from meshdoctor.findings import Severity, SubjectKind
from meshdoctor.report import json as json_report
from meshdoctor.report.document import CheckVerdict, Elsewhere, Report, SourceState, Verdict
from tests.conftest import Golden
from tests.report.stories import BROKEN, CRASHED, HEALTHY, HOSTILE, STORIES

GOLDENS = Path(__file__).parent / "goldens"

any_story = pytest.mark.parametrize("report", STORIES.values(), ids=STORIES.keys())


@pytest.fixture(scope="module")
def validator() -> Validator:
    return jsonschema.Draft202012Validator(json_report.schema())


def document(report: Report) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(json_report.render(report))
    return parsed


def test_the_schema_is_a_schema() -> None:
    """It is well-formed by its own draft."""
    jsonschema.Draft202012Validator.check_schema(json_report.schema())


@any_story
def test_every_report_satisfies_the_schema(report: Report, validator: Validator) -> None:
    """Whatever the verdict, the document is of the contract."""
    validator.validate(document(report))


@any_story
def test_a_report_is_ascii_and_ends_its_last_line(report: Report) -> None:
    """Any reader decodes it, any terminal survives it, and files of it concatenate."""
    rendered = json_report.render(report)
    assert rendered.isascii()
    assert rendered.endswith("}\n")
    assert all(character == "\n" or character.isprintable() for character in rendered)


@pytest.mark.parametrize("name", ["healthy", "crashed"])
def test_looks_like_its_golden(name: str, golden: Golden) -> None:
    """No field of v1 changes its name, its place or its form unseen."""
    golden(GOLDENS / f"{name}.json", json_report.render(STORIES[name]))


def test_what_was_not_looked_at_is_listed_by_kind(validator: Validator) -> None:
    """Absent where there is nothing else."""
    coverage = replace(HEALTHY.coverage, elsewhere=(Elsewhere("peer", "cluster-02"),))
    written = document(replace(HEALTHY, coverage=coverage))
    validator.validate(written)
    assert written["coverage"]["elsewhere"] == [{"kind": "peer", "name": "cluster-02"}]
    assert "elsewhere" not in document(HEALTHY)["coverage"]


def test_the_same_report_gives_the_same_document() -> None:
    """Only `created`, `seconds` and `milliseconds` tell two runs on one mesh apart."""
    later = replace(
        BROKEN,
        created="2027-01-01T00:00:00Z",
        seconds=9.0,
        checks=tuple(replace(each, milliseconds=99.0) for each in BROKEN.checks),
    )
    first, second = document(BROKEN), document(later)
    for each in (first, second):
        each.update(created="", seconds=0)
        for check in each["checks"]:
            check["milliseconds"] = 0
    assert first == second


def test_hostile_names_survive() -> None:
    """Control characters arrive as they are, lone surrogates as U+FFFD."""
    name = document(HOSTILE)["findings"][0]["subjects"][0]["name"]
    assert name.startswith("x\x1b]0;pwned\x07")
    assert "\ufffd[bold]ü" in name
    name.encode()


def test_only_excerpts_are_null() -> None:
    """Whoever reads a string need not ask whether it is there."""

    def nulls(value: Any, path: str) -> list[str]:
        match value:
            case None:
                return [path]
            case dict():
                return [each for key in value for each in nulls(value[key], key)]
            case list():
                return [each for item in value for each in nulls(item, path)]
            case _:
                return []

    assert {path for report in STORIES.values() for path in nulls(document(report), "")} == {
        "excerpt"
    }


def test_the_summary_counts_findings() -> None:
    """By severity, with those that were suppressed apart."""
    assert document(replace(BROKEN, suppressed=3))["summary"] == {
        "error": 4,
        "warning": 0,
        "info": 1,
        "suppressed": 3,
    }


def test_a_crash_has_its_traceback() -> None:
    """The terminal points here for it."""
    crashed = [each for each in document(CRASHED)["checks"] if each["verdict"] == "crashed"]
    assert [each["traceback"].splitlines()[-1] for each in crashed[:1]] == ["KeyError: 'route'"]


def required(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every field in a document."""
    match value:
        case dict():
            return [
                each
                for key in value
                for each in [(*path, key), *required(value[key], (*path, key))]
            ]
        case list():
            return [each for n, item in enumerate(value) for each in required(item, (*path, n))]
        case _:
            return []


def test_the_schema_requires_every_field(validator: Validator) -> None:
    """A report that lost any field it has today is refused, but for what `target` adds."""
    whole = document(CRASHED)
    for *parents, field in required(whole):
        broken = deepcopy(whole)
        holder: Any = broken
        for step in parents:
            holder = holder[step]
        del holder[field]
        optional = parents == ["target"] and field != "kind"
        assert validator.is_valid(broken) is optional, (*parents, field)


def test_the_schema_allows_fields_of_later_versions(validator: Validator) -> None:
    """Fields may be added within v1, at any place."""
    later = document(CRASHED)
    for *parents, _ in required(document(CRASHED)):
        holder: Any = later
        for step in parents:
            holder = holder[step]
        if isinstance(holder, dict):
            holder["added"] = {"in": "v1.1"}
    validator.validate(later)


def values(name: str) -> set[str]:
    """The values that the schema allows for a field of this name, wherever it stands."""
    found: set[str] = set()

    def search(node: Any) -> None:
        match node:
            case dict():
                for key, child in node.items():
                    if key == name and isinstance(child, dict):
                        found.update(child.get("enum", ()))
                    search(child)
            case list():
                for child in node:
                    search(child)

    search(json_report.schema())
    return found


def test_the_schema_knows_every_word() -> None:
    """Its enumerations are those of the code, so neither gains a word alone."""
    assert values("severity") == set(Severity)
    assert values("state") == set(SourceState)
    assert values("verdict") == set(Verdict) | set(CheckVerdict)
    assert values("kind") == set(SubjectKind) | {"live", "snapshot", "compose"}


def test_a_skip_without_a_reason_is_refused(validator: Validator) -> None:
    """What could not look says why."""
    skipped = document(HEALTHY)
    skipped["checks"][0].update(verdict="skipped", reason="")
    assert not validator.is_valid(skipped)
