"""`meshdoctor check --snapshot`: what goes where, and what the exit code says."""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from meshdoctor.cli import REPORT_FORMATS
from meshdoctor.report.json import schema
from tests.cli.conftest import MESHES, Run, process
from tests.conftest import Golden

GOLDENS = Path(__file__).parent / "goldens"
RECORDINGS = sorted(path.name.removesuffix(".tgz") for path in MESHES.glob("*.tgz"))
BROKEN = MESHES / "broken.tgz"
FIXED = MESHES / "fixed.tgz"


def timeless(text: str) -> str:
    """Without the time it took, and without the line ends that depend on it."""
    told, _, verdict = text.rstrip("\n").rpartition("\n\n")
    verdict = re.sub(r" in [a-z0-9. ]+ s[.]$", ".", verdict.replace("\n", " "))
    return f"{told}\n\n{verdict}\n"


@pytest.mark.parametrize("mesh", RECORDINGS)
def test_what_a_person_sees(
    mesh: str, run: Run, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole text at 80 columns, on stdout alone."""
    monkeypatch.chdir(MESHES)
    ran = run("check", "--snapshot", f"{mesh}.tgz", "--width", 80)
    assert ran.stderr == ""
    golden(GOLDENS / f"{mesh}.txt", timeless(ran.stdout))


@pytest.mark.parametrize("mesh", RECORDINGS)
def test_the_json_report_of_a_recording_satisfies_its_schema(mesh: str, run: Run) -> None:
    """And says where the evidence was from."""
    ran = run("check", "--snapshot", MESHES / f"{mesh}.tgz", "--format", "json")
    report = json.loads(ran.stdout)
    jsonschema.validate(report, schema())
    assert report["target"] == {"kind": "snapshot", "paths": [str(MESHES / f"{mesh}.tgz")]}
    assert ran.code == (1 if report["summary"]["error"] else 0)
    assert ran.stderr == ""


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize("format_", REPORT_FORMATS)
@pytest.mark.parametrize(
    ("mesh", "arguments", "code"),
    [
        ("broken", (), 1),
        ("broken", ("--fail-on", "info"), 1),
        ("broken", ("--select", "MD209"), 0),
        ("broken", ("--select", "MD209", "--fail-on", "warning"), 0),
        ("broken", ("--select", "MD209", "--fail-on", "info"), 1),
        ("fixed", (), 0),
        ("fixed", ("--fail-on", "info"), 1),
        ("fixed", ("--fail-on", "info", "--ignore", "MD209"), 0),
        ("connect-healthy", (), 0),
        ("connect-healthy", ("--fail-on", "warning"), 1),
        ("connect-healthy", ("--fail-on", "info", "--ignore", "MD708"), 0),
        ("connect-collision", (), 1),
    ],
)
def test_exit_codes_are_the_same_in_every_format(
    format_: str, mesh: str, arguments: tuple[str, ...], code: int, run: Run
) -> None:
    """0 nothing at or above --fail-on, 1 findings."""
    path = MESHES / f"{mesh}.tgz"
    ran = run("check", "--snapshot", path, "--format", format_, *arguments)
    assert (ran.code, ran.stderr) == (code, "")
    assert ran.stdout


@pytest.mark.parametrize("format_", REPORT_FORMATS)
def test_a_mesh_of_which_too_little_is_known_has_no_verdict(
    format_: str, run: Run, tmp_path: Path
) -> None:
    """3, also where nothing was found, and the reason is in the report."""
    services = tmp_path / "consul" / "catalog" / "services.json"
    services.parent.mkdir(parents=True)
    services.write_text('{"web": []}', encoding="utf-8")
    ran = run("check", "--snapshot", tmp_path, "--format", format_)
    assert ran.code == 3
    assert "no sidecar was found" in ran.stdout


@pytest.mark.parametrize("command", ["check", "matrix", "trace"])
def test_docker_without_a_mesh_is_said_in_few_words(
    command: str, run: Run, tmp_path: Path
) -> None:
    """No page of checks that could not look: what was looked for, and what to do."""
    containers = tmp_path / "docker" / "containers.json"
    containers.parent.mkdir(parents=True)
    containers.write_text(
        json.dumps(
            [
                {"Id": name, "Name": f"/{name}", "Config": {"Image": "postgres:15"}}
                for name in ("one", "two")
            ]
        ),
        encoding="utf-8",
    )
    call = ("one", "http://two/") if command == "trace" else ()
    ran = run(command, *call, "--snapshot", tmp_path)
    assert (ran.code, ran.stdout) == (3, "")
    assert "no Envoy, Pilot, Consul or Registrator among 2 containers" in ran.stderr
    assert ran.stderr.count("\n") < 5


def test_the_recording_of_the_demo_has_a_name(run: Run) -> None:
    """So that the commands which the demo prints work where there is no mesh."""
    ran = run("trace", "productpage", "http://details:9080/", "--snapshot", "demo")
    assert ran.code == 1
    assert "reaches reviews instead of details" in ran.stdout


def test_a_name_in_an_error_cannot_steer_the_terminal(run: Run, tmp_path: Path) -> None:
    """What is wrong usage is told with names that strangers chose."""
    ran = run("check", "--snapshot", tmp_path / "\x1b]0;title\x07\u202egone.tgz")
    assert ran.code == 3
    assert "\\x1b]0;title\\x07\\u202egone.tgz" in ran.stderr
    asked = run("explain", "\u202eMD1")
    assert (asked.code, "\u202e" in asked.stderr) == (2, False)


def test_a_damaged_document_is_not_taken_for_a_mesh_that_is_not_there(
    run: Run, tmp_path: Path
) -> None:
    """It may have held one: the report names it."""
    containers = tmp_path / "docker" / "containers.json"
    containers.parent.mkdir(parents=True)
    containers.write_text("[{", encoding="utf-8")
    ran = run("check", "--snapshot", tmp_path)
    assert ran.code == 3
    assert "docker/containers.json: not JSON" in ran.stdout


@pytest.mark.parametrize("format_", REPORT_FORMATS)
def test_an_empty_snapshot_has_no_verdict(format_: str, run: Run, tmp_path: Path) -> None:
    """There is a valid report where a program reads it, and plain words for a person."""
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"schema": "meshdoctor.snapshot/v1"}', encoding="utf-8")
    ran = run("check", "--snapshot", tmp_path, "--format", format_)
    assert ran.code == 3
    assert "nothing could be examined" in ran.stderr
    if format_ == "json":
        report = json.loads(ran.stdout)
        jsonschema.validate(report, schema())
        assert report["verdict"] == "unknown"
    elif format_ == "text":
        assert ran.stdout == ""


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.tgz", None, "No such file or directory"),
        ("noise.tgz", b"\x00" * 100, "nor a .tgz that can be read"),
        ("notes.txt", b"hello", "nor a .tgz that can be read"),
    ],
)
@pytest.mark.parametrize("format_", REPORT_FORMATS)
def test_a_snapshot_that_cannot_be_read(
    format_: str, name: str, content: bytes | None, said: str, run: Run, tmp_path: Path
) -> None:
    """3, with the path and the reason in one line and nothing on stdout."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    ran = run("check", "--snapshot", path, "--format", format_)
    assert (ran.code, ran.stdout) == (3, "")
    assert str(path) in ran.stderr
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_folder_that_is_no_snapshot(run: Run, tmp_path: Path) -> None:
    """It is said how one is made."""
    (tmp_path / "x.txt").write_text("x", encoding="utf-8")
    ran = run("check", "--snapshot", tmp_path)
    assert (ran.code, ran.stdout) == (3, "")
    assert "meshdoctor snapshot -o FILE.tgz" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--format", "xml"), "'xml' is not one of"),
        (("--fail-on", "fatal"), "'fatal' is not one of"),
        (("--width", "5"), "--width"),
        (("--timeout", "0"), "--timeout"),
        (("--envoy", "web"), "write NAME=URL"),
        (("--output", "report.json"), "write FORMAT=FILE"),
        (("--output", "xml=report.xml"), "write FORMAT=FILE"),
        (("--output", "json="), "write FORMAT=FILE"),
        (("--no-such-option",), "No such option"),
        (("--select", "MD410O"), "Did you mean MD410?"),
        (("--select", "tcp-listener-colision"), "Did you mean tcp-listener-collision?"),
        (("--select", "MD401,zzzzzzzz"), "no check has the code or name 'zzzzzzzz'"),
        (("--ignore", "MD999x"), "no check has the code or name 'MD999x'"),
        (("--checks", "no-such-file.py"), "no-such-file.py: no such file or folder"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str, run: Run) -> None:
    """2, what is wrong on stderr, nothing on stdout."""
    ran = run("check", "--snapshot", FIXED, *arguments)
    assert (ran.code, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_wrong_usage_is_said_before_the_snapshot_is_read(run: Run) -> None:
    """Nobody waits for a mesh to be gathered to hear of a slip of the finger."""
    ran = run("check", "--snapshot", "no-such-snapshot", "--select", "zzzzzzzz")
    assert ran.code == 2


# ---------------------------------------------------------------- selection


def codes(report: dict[str, Any]) -> list[str]:
    return [each["code"] for each in report["checks"]]


def test_selected_checks_alone_are_run(run: Run) -> None:
    """By beginnings, names and lists; what is ignored is not run."""
    ran = run(
        *("check", "--snapshot", BROKEN, "--format", "json"),
        *("--select", "md20,tcp-listener-collision", "--select", "MD401", "--ignore", "MD202"),
    )
    found = codes(json.loads(ran.stdout))
    assert found == sorted(found)
    assert {"MD201", "MD401"} <= set(found)
    assert "MD202" not in found
    assert all(each.startswith("MD20") or each == "MD401" for each in found)


def test_ignored_checks_leave_symptoms_without_their_cause(run: Run) -> None:
    """What was a symptom is then a root of its own."""
    ran = run("check", "--snapshot", BROKEN, "--format", "json", "--ignore", "MD2")
    report = json.loads(ran.stdout)
    roots = {each["root"] for each in report["diagnoses"]}
    by_id = {each["id"]: each["code"] for each in report["findings"]}
    assert "MD401" in {by_id[root] for root in roots}


# ---------------------------------------------------------------- --output


def test_reports_are_written_to_files_too(run: Run, tmp_path: Path) -> None:
    """Several at once; each is what stdout would show, for its owner's eyes only."""
    text, document = tmp_path / "report.txt", tmp_path / "report.json"
    ran = run(
        *("check", "--snapshot", BROKEN),
        *("--output", f"text={text}", "--output", f"json={document}"),
    )
    assert (ran.code, ran.stderr) == (1, "")
    assert timeless(text.read_text(encoding="utf-8")) == timeless(ran.stdout)
    jsonschema.validate(json.loads(document.read_text(encoding="utf-8")), schema())
    for path in (text, document):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.txt"}


def test_a_file_that_was_there_is_replaced_whole(run: Run, tmp_path: Path) -> None:
    """Also behind a link, which stays one."""
    real = tmp_path / "real.json"
    real.write_text("x" * 1_000_000, encoding="utf-8")
    link = tmp_path / "link.json"
    link.symlink_to(real)
    run("check", "--snapshot", FIXED, "--output", f"json={link}", "--force")
    assert link.is_symlink()
    assert json.loads(real.read_text(encoding="utf-8"))["verdict"] == "healthy"


def test_a_device_is_written_to_and_not_replaced(run: Run) -> None:
    """Whoever runs this as root still has a /dev/null afterwards."""
    ran = run("check", "--snapshot", FIXED, "--output", f"json={os.devnull}")
    assert (ran.code, ran.stderr) == (0, "")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


@pytest.mark.parametrize("name", ["no/such/folder/report.json", "folder"])
def test_a_path_that_cannot_be_written_costs_no_report(
    name: str, run: Run, tmp_path: Path
) -> None:
    """2, the path and the reason on stderr, the report on stdout and in the other files."""
    (tmp_path / "folder").mkdir()
    other = tmp_path / "other.json"
    ran = run(
        *("check", "--snapshot", BROKEN, "--format", "json"),
        *("--output", f"json={tmp_path / name}", "--output", f"json={other}"),
    )
    assert ran.code == 2
    assert str(tmp_path / name) in ran.stderr
    assert "was not written" in ran.stderr
    assert json.loads(ran.stdout)["verdict"] == "broken"
    assert json.loads(other.read_text(encoding="utf-8"))["verdict"] == "broken"
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "other.json"}


# ---------------------------------------------------------------- colour


def test_colour_is_for_those_who_want_it(run: Run) -> None:
    """Not in a pipe, unless asked for."""
    arguments = ("check", "--snapshot", BROKEN)
    assert "\x1b[" not in run(*arguments).stdout
    assert "\x1b[" in run(*arguments, "--color").stdout
    assert "\x1b[" not in run(*arguments, "--no-color").stdout


@pytest.mark.parametrize(
    ("variables", "arguments", "coloured"),
    [
        ({}, (), False),
        ({"FORCE_COLOR": "1"}, (), True),
        ({"FORCE_COLOR": "1"}, ("--no-color",), False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, (), False),
        ({"NO_COLOR": "1"}, ("--color",), True),
    ],
)
def test_colour_by_variable_and_flag(
    variables: dict[str, str], arguments: tuple[str, ...], *, coloured: bool
) -> None:
    """A flag beats a variable."""
    ran = process("check", "--snapshot", BROKEN, *arguments, **variables)
    assert ("\x1b[" in ran.stdout) is coloured


def test_a_terminal_without_unicode_gets_ascii() -> None:
    """Old locales show what they can."""
    ran = process("check", "--snapshot", BROKEN, LC_ALL="C", PYTHONIOENCODING="ascii")
    assert ran.code == 1
    assert ran.stdout.isascii()
    assert "MD401" in ran.stdout


def test_commands_name_the_snapshot_as_the_user_did(run: Run) -> None:
    """With its folder: they are pasted where the first command was."""
    path = MESHES / "broken.tgz"
    ran = run("check", "--snapshot", path, "--select", "MD402", "--width", 200)
    traces = [line for line in ran.stdout.splitlines() if "meshdoctor trace" in line]
    assert traces
    assert all(line.endswith(f" --snapshot {path}") for line in traces)
