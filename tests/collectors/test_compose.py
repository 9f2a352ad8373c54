"""The Compose files of a mesh are read where they are on this host, and without secrets."""

import os
from collections.abc import Mapping
from pathlib import Path

from meshdoctor.collectors import compose
from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.interface import Deadline, Options, Recorder, Run, Workers
from meshdoctor.evidence.compose_text import ComposeTexts
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.layout import compose_file
from meshdoctor.snapshot import Snapshot
from tests.topology.containers import container

TEXT = """\
services:
  web:
    image: web  # a comment
    environment:
      - SERVICE_NAME=web
      - DATABASE_PASSWORD=hunter2
"""


def started_from(folder: Path, files: str, **known: str) -> Container:
    labels = {
        "com.docker.compose.project.working_dir": str(folder),
        "com.docker.compose.project.config_files": files,
    }
    environment = known or {"SERVICE_NAME": "web"}
    return container("web", labels=labels, env=environment)


def collected(deadline: Deadline, *containers: Container, url: str = "unix:///none") -> Snapshot:
    workers = Workers(1)
    run = Run(Options(), deadline, workers, Recorder(), lambda _message: None)
    engine = Engine(url, deadline, "1.41")
    compose.collect(run, engine, containers)
    workers.settle(deadline)
    workers.stop()
    engine.close()
    return run.recorder.snapshot("", "")


def reasons(snapshot: Snapshot) -> Mapping[str, str]:
    return {each.document: each.message for each in snapshot.absent}


def test_each_file_is_read_once_line_by_line(tmp_path: Path, deadline: Deadline) -> None:
    """By full path, though Compose v1 named them from the project's folder."""
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(TEXT, encoding="utf-8")
    snapshot = collected(
        deadline,
        started_from(tmp_path, "a.yaml,b.yaml"),
        started_from(tmp_path, f"{tmp_path}/a.yaml"),
    )
    files = ComposeTexts.load(snapshot).files
    assert files.keys() == {f"{tmp_path}/a.yaml", f"{tmp_path}/b.yaml"}
    lines = files[f"{tmp_path}/a.yaml"].splitlines()
    assert len(lines) == len(TEXT.splitlines())
    assert lines[4] == "      - SERVICE_NAME=web"
    assert "hunter2" not in str(files)
    assert "a comment" not in str(files)
    assert snapshot.redactions[compose_file(f"{tmp_path}/a.yaml")]


def test_on_another_host_the_same_path_is_another_file(tmp_path: Path, deadline: Deadline) -> None:
    """A patch of it would be a patch of the wrong file."""
    (tmp_path / "a.yaml").write_text(TEXT, encoding="utf-8")
    snapshot = collected(deadline, started_from(tmp_path, "a.yaml"), url="ssh://me@elsewhere")
    assert not snapshot.names()
    assert "elsewhere" in reasons(snapshot)["compose/"]


def test_what_is_no_compose_file_is_not_kept(tmp_path: Path, deadline: Deadline) -> None:
    """Labels may name anything: a pipe is not waited for, a private file not recorded."""
    (tmp_path / "shadow").write_text("root:$6$hunter2:19000:0:99999:7:::\n", encoding="utf-8")
    (tmp_path / "keys").write_text("services:\n  hunter2 $6$: {}\n", encoding="utf-8")
    (tmp_path / "words").write_text("hunter2", encoding="utf-8")
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_text("a" * 300_000, encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    names = ("shadow", "words", "raw", "long", "pipe", "nowhere")
    snapshot = collected(deadline, started_from(tmp_path, ",".join(("keys", *names))))
    assert "hunter2" not in str([snapshot.read(name) for name in snapshot.names()])
    missed = {Path(name.replace("%2F", "/")).name for name in reasons(snapshot)}
    assert missed == set(names)
    assert "hunter2" not in str(reasons(snapshot))


def test_of_other_projects_nothing_is_read(tmp_path: Path, deadline: Deadline) -> None:
    """What has no part in the mesh is nobody's business."""
    (tmp_path / "a.yaml").write_text(TEXT, encoding="utf-8")
    snapshot = collected(deadline, started_from(tmp_path, "a.yaml", LANG="C"))
    assert (snapshot.names(), snapshot.absent) == ((), ())
