"""Several snapshots on one command line."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from meshdoctor.cli import EXIT_FINDINGS, EXIT_NO_VERDICT, EXIT_USAGE
from tests.cli.conftest import MESHES, Run


@pytest.mark.parametrize("command", [("check",), ("matrix",)])
def test_several_snapshots_are_one_mesh(run: Run, tmp_path: Path, command: tuple[str]) -> None:
    """The same one twice is itself; a folder of them is all of them."""
    copies = [tmp_path / name for name in ("a.tgz", "b.tgz")]
    for copy in copies:
        copy.write_bytes((MESHES / "broken.tgz").read_bytes())
    alone = run(*command, "--snapshot", copies[0], "--format", "json")
    both = run(*command, *(word for each in copies for word in ("--snapshot", each)))
    assert alone.code == both.code == EXIT_FINDINGS, both.stderr
    folder = run(*command, "--snapshot", tmp_path, "--format", "json")
    assert folder.code == EXIT_FINDINGS
    key = "findings" if command == ("check",) else "pairs"
    assert len(json.loads(folder.stdout)[key]) == len(json.loads(alone.stdout)[key])


def test_trace_follows_a_call_through_several(run: Run) -> None:
    """The sidecar may be in the one, the catalogue in the other."""
    path = MESHES / "broken.tgz"
    ran = run("trace", "reviews-v2", "http://ratings:9080/", *("--snapshot", path) * 2)
    assert ran.code == EXIT_FINDINGS, ran.stderr


def test_one_that_cannot_be_read_is_named(run: Run, tmp_path: Path) -> None:
    """Without it the verdict would be of another mesh."""
    ran = run("check", "--snapshot", MESHES / "fixed.tgz", "--snapshot", tmp_path / "b.tgz")
    assert ran.code == EXIT_NO_VERDICT
    assert "b.tgz: No such file" in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--snapshot", ""),
        ("check", "--compose", ""),
        ("check", "--rules", "", "--snapshot", "demo"),
        ("snapshot", "--snapshot", "demo", "-o", ""),
        ("diff", "", "demo"),
        ("fleet", ""),
        ("config", "--config", ""),
    ],
)
def test_no_name_is_no_folder(run: Run, arguments: tuple[str, ...]) -> None:
    """A variable that is not set does not name the working directory."""
    ran = run(*arguments)
    assert (ran.code, ran.stdout) == (EXIT_USAGE, "")
    assert "no file or folder is named" in ran.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none/evidence.tgz", "cannot be written, for there is no folder"),
        ("evidence.zip", "a snapshot is a .tgz or a folder"),
        ("-", "a snapshot is a .tgz or a folder, so none is written to -"),
        ("full", "the folder is not empty"),
        ("full/file", "is there already, and no folder"),
        ("full/mesh.tgz", "is there already: name another file, or add --force"),
        ("folder.tgz", "is a folder: name a file"),
    ],
)
def test_where_no_snapshot_can_be_written_nothing_is_gathered(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    """2 before anything is asked: a mesh may take a minute. What is there stays."""
    (tmp_path / "full").mkdir()
    (tmp_path / "folder.tgz").mkdir()
    (tmp_path / "full" / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "full" / "mesh.tgz").write_text("mine", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    ran = run("snapshot", "--docker-host", "unix:///nonexistent/docker.sock", "-o", name)
    assert (ran.code, ran.stdout) == (EXIT_USAGE, "")
    assert said in ran.stderr
    assert "no mesh was found" not in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "full" / "mesh.tgz").read_text(encoding="utf-8") == "mine"


def test_a_folder_called_demo_hides_the_recording(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is named and is there is meant; where it is no snapshot, that is said."""
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    ran = run("matrix", "--snapshot", "demo")
    assert (ran.code, ran.stdout) == (EXIT_NO_VERDICT, "")
    assert "for the recording called demo, run this in another folder" in ran.stderr


def test_a_working_directory_that_is_gone_is_said(run: Run, tmp_path: Path) -> None:
    """The report is on stdout all the same."""
    here = Path.cwd()
    gone = tmp_path / "gone"
    gone.mkdir()
    try:
        os.chdir(gone)
        gone.rmdir()
        ran = run("check", "--snapshot", MESHES / "fixed.tgz", "--output", "json=report.json")
    finally:
        os.chdir(here)
    assert ran.code == EXIT_USAGE
    assert "report.json was not written: No such file" in ran.stderr
    assert "HEALTHY" in ran.stdout


def test_a_member_that_leads_outside_is_named_as_it_stands(run: Run, tmp_path: Path) -> None:
    """Where nothing else is in the archive, it is the answer."""
    path = tmp_path / "evil.tgz"
    with tarfile.open(path, "w:gz") as packed:
        for name in ("manifest.json", "../../evil.json"):
            member = tarfile.TarInfo(name)
            body = b'{"schema": "meshdoctor.snapshot/v1"}'
            member.size = len(body)
            packed.addfile(member, io.BytesIO(body))
    ran = run("check", "--snapshot", path)
    assert ran.code == EXIT_NO_VERDICT
    assert "  ../../evil.json: passed over: its name leads outside" in ran.stderr
