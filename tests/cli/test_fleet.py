"""`meshdoctor fleet`: what it prints, and its exit code."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from meshdoctor.cli import EXIT_CLEAN, EXIT_FINDINGS, EXIT_NO_VERDICT, EXIT_USAGE
from meshdoctor.fleet import Judging, entries, judge
from meshdoctor.report.fleet import schema
from tests.cli.conftest import MESHES, Run, environment, process
from tests.plain_user import as_plain_user


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recordings."""
    there = tmp_path / "meshes"
    there.mkdir()
    for name in ("broken", "broken-v2", "connect-healthy"):
        shutil.copy(MESHES / f"{name}.tgz", there)
    return there


def test_a_line_for_each_and_the_causes(run: Run, folder: Path) -> None:
    """Within the width, the worst first, and what to type for more, which is not wrapped."""
    ran = run("fleet", folder, "--width", 80)
    assert (ran.code, ran.stderr) == (EXIT_FINDINGS, "")
    lines = ran.stdout.splitlines()
    said = [line for line in lines if not line.startswith("  meshdoctor check ")]
    assert max(map(len, said)) <= 80
    assert [line.split()[1] for line in lines if line.startswith(("✗", "!", "✓"))] == [
        *("broken", "broken", "degraded"),
    ]
    assert "2 of 3  error MD202 registrator-drops-metadata, as in" in ran.stdout
    assert "meshdoctor check --snapshot" in ran.stdout
    assert lines[-1].startswith("3 snapshots: 2 broken, 1 degraded. ")


def test_what_to_type_is_ready_to_paste(run: Run, folder: Path) -> None:
    """On one line, whatever the width, and quoted where the name needs it."""
    place = folder / "the broken one.tgz"
    shutil.copy(MESHES / "broken.tgz", place)
    ran = run("fleet", place, "--width", 40)
    assert f"\n  meshdoctor check --snapshot '{place}'\n" in ran.stdout
    again = run("snapshot", "--snapshot", place, "-o", folder / "a b.tgz")
    assert again.stderr.endswith(f"\n  meshdoctor check --snapshot '{folder / 'a b.tgz'}'\n")


def test_as_json(run: Run, folder: Path, tmp_path: Path) -> None:
    """Valid, and written to a file too."""
    file = tmp_path / "fleet.json"
    ran = run("fleet", f"file://{folder}", "--output", f"json={file}", "--workers", 1)
    assert ran.code == EXIT_FINDINGS
    document = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.validate(document, schema())
    assert document["summary"]["broken"] == 2
    (shared,) = [each for each in document["causes"] if each["code"] == "MD202"]
    assert shared["snapshots"] == [
        f"file://{folder}/broken-v2.tgz",
        f"file://{folder}/broken.tgz",
    ]


def test_the_exit_code_is_the_worst(run: Run, folder: Path) -> None:
    """Of what was chosen to be looked at; one that cannot be judged is the worst."""
    healthy = folder / "connect-healthy.tgz"
    assert run("fleet", healthy).code == EXIT_CLEAN
    assert run("fleet", healthy, "--fail-on", "warning").code == EXIT_FINDINGS
    assert run("fleet", healthy, "--fail-on", "warning", "--ignore", "MD7").code == EXIT_CLEAN
    (folder / "damaged.tgz").write_bytes(b"no archive")
    ran = run("fleet", folder, "--format", "json")
    assert ran.code == EXIT_NO_VERDICT
    document = json.loads(ran.stdout)
    jsonschema.validate(document, schema())
    assert document["summary"]["unjudged"] == 1
    assert document["summary"]["broken"] == 2


def test_a_place_that_is_not_there(run: Run, folder: Path) -> None:
    """It is one that cannot be judged; an empty folder holds nothing to judge."""
    ran = run("fleet", folder / "nothing.tgz")
    assert ran.code == EXIT_NO_VERDICT
    assert "No such file" in " ".join(ran.stdout.split())
    ran = run("fleet", "memory://nowhere/")
    assert (ran.code, ran.stdout) == (EXIT_NO_VERDICT, "")
    assert "memory://nowhere/: nothing is there" in ran.stderr


def test_a_folder_that_may_not_be_read_costs_no_other(folder: Path) -> None:
    """It is named with the reason, as a file is."""
    (folder / "closed").mkdir(mode=0)
    with as_plain_user(folder, *folder.parents[:3]):
        places = entries([folder])
        assert folder / "closed" in places
        judged = judge(folder / "closed", Judging())
    assert (judged.verdict, judged.reason) == (None, "Permission denied")


def test_one_or_the_other(run: Run, folder: Path) -> None:
    """Processes here, or a cluster."""
    ran = run("fleet", folder, "--workers", 2, "--dask", "tcp://127.0.0.1:1")
    assert (ran.code, ran.stdout) == (EXIT_USAGE, "")


def test_without_the_extra_it_is_named(folder: Path, tmp_path: Path) -> None:
    """What to type, and no traceback."""
    (tmp_path / "distributed.py").write_text("raise ModuleNotFoundError('no distributed')\n")
    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    ran = process("fleet", folder, "--dask", "tcp://127.0.0.1:1", PYTHONPATH=path)
    assert (ran.code, ran.stdout) == (EXIT_USAGE, "")
    assert "pip install 'meshdoctor[dask]'" in ran.stderr
    assert "Traceback" not in ran.stderr
