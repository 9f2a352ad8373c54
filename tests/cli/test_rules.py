"""`meshdoctor check --rules`: what would break if these rules were applied."""

import json
from pathlib import Path

import jsonschema
import pytest

from meshdoctor.report.json import schema
from tests.cli.conftest import MESHES, Run

FIXED = MESHES / "fixed.tgz"
RULE = """\
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews.service.consul]
  http: [{route: [{destination: {host: reviews.service.consul, subset: SUBSET}}]}]
---
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews.service.consul
  subsets: [{name: v1, labels: {version: v1}}]
"""


def rules(folder: Path, subset: str) -> Path:
    file = folder / "reviews.yaml"
    file.write_text(RULE.replace("SUBSET", subset))
    return file


def test_a_rule_that_would_break_calls_fails(run: Run, tmp_path: Path) -> None:
    """It is named with its file and line, and the report says that it was only tried."""
    file = rules(tmp_path, "v9")
    ran = run("check", "--snapshot", FIXED, "--rules", file, "--width", 200)
    assert ran.code == 1
    said = " ".join(ran.stdout.split())
    assert f"VirtualService reviews ({file}:1) routes to the subset v9" in said
    assert f"as if the rules in {file} were applied" in said
    assert "kubectl" not in ran.stdout
    # What was mended in the file is tried again as it was tried now.
    assert f"     meshdoctor check --snapshot {FIXED} --rules {file} --select MD50" in ran.stdout
    assert "     meshdoctor check --select" not in ran.stdout


def test_a_rule_that_is_sound_passes(run: Run, tmp_path: Path) -> None:
    """That the sidecars do not show it yet is no fault."""
    ran = run("check", "--snapshot", FIXED, "--rules", rules(tmp_path, "v1"))
    assert ran.code == 0
    assert "1 subset that VirtualServices route to, all defined" in ran.stdout


def test_the_json_report_names_the_files(run: Run, tmp_path: Path) -> None:
    """A report of what might be is not taken for one of what is."""
    file = rules(tmp_path, "v1")
    ran = run("check", "--snapshot", FIXED, "--rules", file, "--format", "json")
    report = json.loads(ran.stdout)
    jsonschema.validate(report, schema())
    assert report["target"]["rules"] == [str(file)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: [", "bad.yaml:2: not YAML"),
        ("kind: VirtualService", "bad.yaml:1: a VirtualService"),
    ],
)
def test_bad_yaml_is_wrong_usage(run: Run, tmp_path: Path, text: str, said: str) -> None:
    """Exit code 2, and a line that names the place."""
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    ran = run("check", "--snapshot", FIXED, "--rules", file)
    assert (ran.code, ran.stdout) == (2, "")
    assert said in ran.stderr.replace("\n", " ")


def test_compose_files_have_no_rules_to_lay_over(run: Run, tmp_path: Path) -> None:
    """Nothing runs there that the rules could be compared with."""
    file = rules(tmp_path, "v1")
    ran = run("check", "--compose", file, "--rules", file)
    assert ran.code == 2
    assert "--rules needs a mesh or a --snapshot" in ran.stderr
