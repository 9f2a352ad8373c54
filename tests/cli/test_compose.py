"""`meshdoctor check --compose`: what files would do, before anything runs."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from meshdoctor.cli import REPORT_FORMATS
from meshdoctor.report.json import schema
from tests.cli.conftest import REPOSITORY, Run
from tests.conftest import Golden

CASES = REPOSITORY / "fixtures" / "compose"
NAMES = sorted(path.name for path in CASES.iterdir())
FILES = ("docker-compose.yaml", "bookinfo.yaml", "bookinfo.sidecars.yaml")

CODES = {
    "applications-alone": {"MD201", "MD403"},
    "broken": {"MD105", "MD201", "MD202", "MD209", "MD301", "MD401"},
    "consul-dns-not-published": {"MD105"},
    "control-plane-alone": {"MD202", "MD209"},
    "gateway-unset": {"MD105"},
    "init-forgotten": {"MD303"},
    "init-without-capability": {"MD303"},
    "instances-disagree": {"MD204"},
    "mended": set(),
    "names-not-asked": {"MD105"},
    "no-sidecars": {"MD301"},
    "not-internal": {"MD208"},
    "pilot-1.0": set(),
    "protocol-undeclared": {"MD201", "MD403"},
    "protocol-unknown": {"MD203", "MD403"},
    "really-tcp": {"MD403", "MD410"},
    "sidecar-forgotten": {"MD301"},
    "tag-without-value": {"MD205"},
    "two-ports": {"MD210"},
}


@pytest.fixture(autouse=True)
def _nobody_set_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_GATEWAY", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"):
        monkeypatch.delenv(name, raising=False)


def arguments(folder: Path) -> list[str]:
    """As somebody in that folder would name its files."""
    return [word for file in FILES if (folder / file).exists() for word in ("--compose", file)]


def _of_these_files(text: str) -> str:
    """Without the time it took and the checks that need a running mesh, which become more."""
    text = re.sub(r"    skipped for it: MD101[^\n]*\n(?:    MD[MD0-9, ]+\n)*", "", text)
    text = re.sub(r", [0-9]+ could not\slook", "", text)
    told, _, verdict = text.rstrip("\n").rpartition("\n\n")
    verdict = re.sub(r" in [a-z0-9. ]+ s[.]$", ".", verdict.replace("\n", " "))
    return f"{told}\n\n{verdict}\n"


@pytest.mark.parametrize("case", NAMES)
def test_what_a_person_reads_of_files(
    case: str, run: Run, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole text at 80 columns, beside the files."""
    folder = CASES / case
    monkeypatch.chdir(folder)
    ran = run("check", *arguments(folder), "--width", 80)
    assert ran.stderr == ""
    golden(folder / "expected.txt", _of_these_files(ran.stdout))


@pytest.mark.parametrize("case", NAMES)
def test_each_fault_has_its_code_and_nothing_else_has(
    case: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fault, one code, and what follows from it; the report satisfies its schema."""
    folder = CASES / case
    monkeypatch.chdir(folder)
    ran = run("check", *arguments(folder), "--format", "json")
    report = json.loads(ran.stdout)
    jsonschema.validate(report, schema())
    assert {finding["code"] for finding in report["findings"]} == CODES[case]
    assert report["target"] == {"kind": "compose", "paths": arguments(folder)[1::2]}
    assert ran.code == (1 if report["summary"]["error"] else 0)
    assert report["verdict"] != "healthy"


@pytest.mark.parametrize("case", NAMES)
def test_no_sentence_claims_that_anything_runs(
    case: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What files say and what would follow; never what stands in Consul or in a sidecar."""
    folder = CASES / case
    monkeypatch.chdir(folder)
    report = json.loads(run("check", *arguments(folder), "--format", "json").stdout)
    said = [finding["message"] for finding in report["findings"]]
    said += [fact for check in report["checks"] for fact in map(str, check.get("facts", ()))]
    for sentence in said:
        assert not re.search(r"\b(is|are|was|were) (running|registered|seen)\b", sentence)
        assert not re.search(r"at present|examined", sentence)
    for finding in report["findings"]:
        assert "would" in finding["message"]
        for citation in finding["seen_in"]:
            assert citation["document"].startswith("compose/")
            assert re.match(r"line [1-9][0-9]*: ", citation["excerpt"])


def test_citations_name_the_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the file as an editor counts it."""
    monkeypatch.chdir(CASES / "broken")
    ran = run("check", *arguments(CASES / "broken"), "--format", "json", "--select", "MD202")
    cited = json.loads(ran.stdout)["findings"][0]["seen_in"]
    for citation in cited:
        line = int(re.match(r"line (\d+)", citation["excerpt"])[1])  # type: ignore[index]
        file = citation["document"].removeprefix("compose/")
        written = Path(file).read_text(encoding="utf-8").splitlines()[line - 1]
        assert "registrator:latest" in written or "SERVICE_PROTOCOL=http" in written


@pytest.mark.parametrize(
    ("case", "more", "code"),
    [
        ("broken", (), 1),
        ("broken", ("--select", "MD105"), 0),
        ("broken", ("--select", "MD105", "--fail-on", "warning"), 1),
        ("mended", ("--fail-on", "info"), 0),
        ("two-ports", ("--fail-on", "warning"), 1),
    ],
)
@pytest.mark.parametrize("format_", REPORT_FORMATS)
def test_exit_codes_are_the_same_in_every_format(
    format_: str, case: str, more: tuple[str, ...], code: int, run: Run
) -> None:
    """0 where nothing would break, though the verdict is unknown; 1 with findings."""
    named = [word for file in FILES for word in ("--compose", CASES / case / file)]
    ran = run("check", *named, *more, "--format", format_)
    assert (ran.code, ran.stderr) == (code, "")


def test_the_environment_beats_the_file_beside(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for Compose."""
    monkeypatch.setenv("DOCKER_GATEWAY", "172.28.0.1:")
    named = [word for file in FILES for word in ("--compose", CASES / "gateway-unset" / file)]
    ran = run("check", *named, "--fail-on", "info")
    assert ran.code == 0
    assert "nothing in these files would break" in ran.stdout


def test_a_later_file_overrides_an_earlier_one(run: Run, tmp_path: Path) -> None:
    """The mended Registrator of an override counts."""
    for file in (*FILES, ".env"):
        shutil.copy(CASES / "broken" / file, tmp_path / file)
    override = tmp_path / "override.yaml"
    override.write_text(
        "services: {registrator: {image: 'gliderlabs/registrator:master'}}", encoding="utf-8"
    )
    named = [word for file in FILES for word in ("--compose", tmp_path / file)]
    assert run("check", *named, "--select", "MD202").code == 1
    assert run("check", *named, "--compose", override, "--select", "MD202").code == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"services:\n  web:\n   - [", "compose.yaml, line 4: not YAML"),
        (b"services: {web: {image: [a]}}\n", "compose.yaml, line 1: `image` must be a single"),
        (b"services:\n  web:\n    ports: ['http']\n", "compose.yaml, line 3: `http` is no port"),
        (b"", "the file is empty"),
        (b"- services\n", "compose.yaml, line 1: not a Compose file"),
        (b"services:\n  \xff: {}\n", "line 2: not UTF-8 text"),
        (b"a: &a [*a, *b]", "undefined alias"),
    ],
)
def test_a_file_that_is_not_valid_is_wrong_usage(
    content: bytes, said: str, run: Run, tmp_path: Path
) -> None:
    """2, with file and line, and nothing on stdout."""
    path = tmp_path / "compose.yaml"
    path.write_bytes(content)
    ran = run("check", "--compose", path)
    assert (ran.code, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    """2, with its path and the reason."""
    ran = run("check", "--compose", tmp_path / "nowhere.yaml")
    assert ran.code == 2
    assert "nowhere.yaml: cannot be read: No such file" in ran.stderr


def test_files_without_a_mesh_have_no_verdict(run: Run, tmp_path: Path) -> None:
    """3, and what was looked for."""
    path = tmp_path / "compose.yaml"
    path.write_text("services: {web: {image: nginx, ports: ['80:80']}}\n", encoding="utf-8")
    ran = run("check", "--compose", path)
    assert (ran.code, ran.stdout) == (3, "")
    assert "these files describe no mesh" in ran.stderr


@pytest.mark.parametrize(
    "other", [("--snapshot", "x.tgz"), ("--consul", "http://127.0.0.1:8500"), ("--pilot", "x")]
)
def test_files_are_judged_alone(other: tuple[str, str], run: Run) -> None:
    """A live address beside them would promise what is not done."""
    ran = run("check", "--compose", CASES / "mended" / FILES[0], *other)
    assert ran.code == 2
    assert other[0] in ran.stderr


PATCHED = [name for name in NAMES if " | patch " in (CASES / name / "expected.txt").read_text()]


def test_most_faults_get_a_patch() -> None:
    """The test below runs what there is."""
    assert len(PATCHED) >= 10


@pytest.mark.parametrize("case", PATCHED)
def test_the_printed_patches_mend_the_files(
    case: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command is run as it is printed; then the finding is gone, and nothing new is there."""
    folder = tmp_path / case
    shutil.copytree(CASES / case, folder)
    monkeypatch.chdir(folder)

    def report() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            run("check", *arguments(folder), "--format", "json").stdout
        )
        return found

    before = report()
    mended = set()
    for finding in before["findings"]:
        for remedy in finding["remedies"]:
            for command in remedy["commands"]:
                if " | patch " in command:
                    assert remedy["patch"].startswith("--- ")
                    subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
                    mended.add(finding["message"])
    after = {finding["message"] for finding in report()["findings"]}
    assert mended
    assert not after & mended
    assert {finding["code"] for finding in report()["findings"]} <= CODES[case]
