"""`meshdoctor diff`: what it takes, what it prints, and its exit code."""

import json
import subprocess
from pathlib import Path

import pytest

from meshdoctor.cli import EXIT_CLEAN, EXIT_FINDINGS, EXIT_NO_VERDICT, EXIT_USAGE
from tests.cli.conftest import MESHES, Run, command, environment

BROKEN, FIXED = MESHES / "broken.tgz", MESHES / "fixed.tgz"


@pytest.fixture
def report(run: Run, tmp_path: Path) -> Path:
    """The report of the broken mesh, as CI keeps it."""
    path = tmp_path / "report.json"
    run("check", "--snapshot", BROKEN, "--output", f"json={path}")
    return path


def test_a_mended_mesh_exits_0(run: Run) -> None:
    """Though much is different."""
    ran = run("diff", BROKEN, FIXED)
    assert (ran.code, ran.stderr) == (EXIT_CLEAN, "")
    assert ran.stdout.endswith("Broken before, healthy after: 6 gone, calls: 21 now right.\n")


def test_what_is_new_exits_1(run: Run) -> None:
    """With what it is."""
    ran = run("diff", FIXED, BROKEN)
    assert (ran.code, ran.stderr) == (EXIT_FINDINGS, "")
    assert ran.stdout.startswith("Found\n")


def test_a_report_and_a_snapshot_may_be_mixed(run: Run, report: Path) -> None:
    """Of a report no calls are known."""
    ran = run("diff", report, FIXED, "--format", "json")
    assert ran.code == EXIT_CLEAN
    assert json.loads(ran.stdout)["calls"] is None
    assert run("diff", report, BROKEN).stdout == "No difference: still broken.\n"
    assert run("diff", report, "demo").stdout == "No difference: still broken.\n"


def test_a_report_comes_by_a_pipe(report: Path) -> None:
    """`meshdoctor check --format json | meshdoctor diff before.json -`."""
    ran = subprocess.run(
        command("diff", FIXED, "-"),
        input=report.read_bytes(),
        capture_output=True,
        check=False,
        env=environment(),
        timeout=60,
    )
    assert ran.returncode == EXIT_FINDINGS


def test_only_some_checks(run: Run) -> None:
    """Those that were chosen, on both sides."""
    ran = run("diff", FIXED, BROKEN, "--select", "MD402", "--format", "json")
    assert {each["code"] for each in json.loads(ran.stdout)["found"]} == {"MD402"}


@pytest.mark.parametrize("content", ["{", "{}", "not json", '{"schema": "other/v1"}'])
def test_what_cannot_be_read_exits_3(run: Run, tmp_path: Path, content: str) -> None:
    """With its name."""
    path = tmp_path / "x.json"
    path.write_text(content)
    ran = run("diff", FIXED, path)
    assert (ran.code, ran.stdout) == (EXIT_NO_VERDICT, "")
    assert "x.json" in ran.stderr


def test_a_file_that_is_not_there_exits_3(run: Run, tmp_path: Path) -> None:
    """As a snapshot that is not there does."""
    ran = run("diff", FIXED, tmp_path / "nowhere.tgz")
    assert (ran.code, ran.stdout) == (EXIT_NO_VERDICT, "")
    assert "nowhere.tgz: No such file" in ran.stderr


def test_two_meshes_are_asked_about(run: Run) -> None:
    """That all of the one is gone from the other tells nothing of a fix."""
    other = MESHES / "connect-healthy.tgz"
    ran = run("diff", BROKEN, other)
    assert ran.stderr == f"meshdoctor: no call of {BROKEN} is in {other}: are they of one mesh?\n"
    assert run("diff", BROKEN, FIXED).stderr == ""


def test_stdin_is_read_once(run: Run) -> None:
    """Both sides from one pipe would compare a report with nothing."""
    ran = run("diff", "-", "-")
    assert ran.code == EXIT_USAGE
    assert "only one of the two can come from stdin" in ran.stderr


def test_an_empty_pipe_is_said_to_be_empty() -> None:
    """As where the command before it failed: there is no JSON to complain of."""
    ran = subprocess.run(
        command("diff", "-", BROKEN),
        input="",
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=environment(),
        timeout=60,
    )
    assert ran.returncode == EXIT_NO_VERDICT
    assert ran.stderr == (
        "meshdoctor: nothing came from stdin: write a report with `meshdoctor check --format "
        "json`\n"
    )


def test_one_alone_is_wrong_usage(run: Run) -> None:
    """Two are compared."""
    assert run("diff", FIXED).code == EXIT_USAGE
