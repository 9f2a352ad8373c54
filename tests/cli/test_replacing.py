"""What `--output` writes over: its own earlier report, and with --force anything."""

from pathlib import Path
from typing import Final

import pytest

from meshdoctor.cli import REPORT_FORMATS
from tests.cli.conftest import MESHES, REPOSITORY, Run, run

__all__ = ["run"]

BROKEN: Final = MESHES / "broken.tgz"
COMPOSE: Final = REPOSITORY / "fixtures" / "compose" / "broken" / "docker-compose.yaml"
WHERE: Final = {
    "broken": ("check", "--snapshot", BROKEN),
    "degraded": ("check", "--snapshot", BROKEN, "--select", "MD402"),
    "healthy": ("check", "--snapshot", MESHES / "fixed.tgz"),
    "unknown": ("check", "--snapshot", MESHES / "broken.tgz", "--select", "MD7"),
    "planned": ("check", "--compose", COMPOSE),
    "demo": ("demo",),
}
MARKED: Final = [name for name in REPORT_FORMATS if name != "text"]


@pytest.mark.parametrize("where", WHERE)
def test_a_report_is_replaced_by_the_next_of_its_format(
    run: Run, tmp_path: Path, where: str
) -> None:
    """Whatever either says: a job that writes the same file in each run needs no flag."""
    files = {name: tmp_path / name for name in MARKED}
    outputs = [part for name, file in files.items() for part in ("--output", f"{name}={file}")]
    run(*WHERE[where], *outputs)
    before = {name: file.stat().st_ino for name, file in files.items()}
    again = run("check", "--snapshot", BROKEN, *outputs)
    assert (again.code, again.stderr) == (1, "")
    assert not {name for name, file in files.items() if file.stat().st_ino == before[name]}


@pytest.mark.parametrize("command", ["matrix", "trace", "diff"])
def test_so_is_the_answer_of_another_command(run: Run, tmp_path: Path, command: str) -> None:
    """In JSON each says whose it is."""
    file = tmp_path / "answer.json"
    called: tuple[object, ...] = {
        "matrix": ("matrix", "--snapshot", "demo"),
        "trace": ("trace", "productpage", "http://details:9080/", "--snapshot", "demo"),
        "diff": ("diff", BROKEN, MESHES / "fixed.tgz"),
    }[command]
    run(*called, "--output", f"json={file}")
    before = file.stat().st_ino
    assert run(*called, "--output", f"json={file}").code < 2
    assert file.stat().st_ino != before


@pytest.mark.parametrize("name", REPORT_FORMATS)
@pytest.mark.parametrize("held", ["{}", "mine\n", "services:\n  meshdoctor: {}\n"])
def test_nothing_else_is_written_over(run: Run, tmp_path: Path, name: str, held: str) -> None:
    """It is said before any work is done, and nothing is written to the others either."""
    file, other = tmp_path / "mine", tmp_path / "other"
    file.write_text(held, encoding="utf-8")
    called = ("check", "--snapshot", BROKEN, "--output", f"json={other}")
    ran = run(*called, "--output", f"{name}={file}")
    assert ran.code == 2
    assert (str(file) in ran.stderr, "--force" in ran.stderr, ran.stdout) == (True, True, "")
    assert file.read_text(encoding="utf-8") == held
    assert not other.exists()
    assert run(*called, "--output", f"{name}={file}", "--force").code == 1
    assert file.read_text(encoding="utf-8") != held


def test_a_report_of_another_format_is_something_else(run: Run, tmp_path: Path) -> None:
    """Who mixes up two names loses neither. Of a text it cannot be told whose it is."""
    files = {name: tmp_path / name for name in REPORT_FORMATS}
    outputs = [part for name, file in files.items() for part in ("--output", f"{name}={file}")]
    run("demo", *outputs)
    for name in REPORT_FORMATS:
        for there, file in files.items():
            refused = run("demo", "--output", f"{name}={file}").code == 2
            assert refused == (name != there or name == "text"), (name, there)


def test_an_empty_file_is_nothing_to_lose(run: Run, tmp_path: Path) -> None:
    """As a CI service makes one for a job's summary."""
    for name in REPORT_FORMATS:
        file = tmp_path / name
        file.touch()
        assert run("check", "--snapshot", BROKEN, "--output", f"{name}={file}").code == 1
        assert file.stat().st_size


def test_what_came_there_meanwhile_stays(run: Run, tmp_path: Path) -> None:
    """It is looked for again when the report is written: here the first of two is in the way."""
    file = tmp_path / "report"
    ran = run("demo", "--output", f"json={file}", "--output", f"html={file}")
    assert ran.code == 2
    assert "no html report" in ran.stderr
    assert file.read_text(encoding="utf-8").startswith("{")
