"""Compose files and what lies beside them, read from disk."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.interface import AnswerError, NotAnsweringError, Run
from meshdoctor.evidence import layout
from meshdoctor.evidence.compose import LONGEST_FILE, ComposeFiles
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.interface import DecodeError
from meshdoctor.files import is_file, read_some
from meshdoctor.snapshot.redaction import RedactionError, redact
from meshdoctor.topology.roles import installs_redirect, role_of, runs_envoy

_REGISTRATORS: Final = re.compile(r"SERVICE_", re.IGNORECASE)
_LONGEST_NAME: Final = 240
"""A document's name is a file's name, of which file systems take 255 bytes."""


def collect(run: Run, engine: Engine, containers: Iterable[Container]) -> None:
    """Have the files read that Compose started the mesh from, where they are on this host.

    Only a patch needs them: nothing is judged by what a file says of a mesh that runs.
    """
    paths = {path for each in containers if _belongs(each) for path in each.compose_paths}
    if paths and not engine.is_local:
        reason = f"Docker runs on {engine.host}, and what its Compose files are only that host has"
        run.recorder.absent(layout.COMPOSE, reason)
        return
    for path in sorted(paths):
        document = layout.compose_file(path)
        if not path.startswith("/") or len(document) > _LONGEST_NAME:
            reason = "not recorded: its path is none that a document can be named for"
            run.recorder.absent(layout.COMPOSE, f"{path}: {reason}")
            continue
        run.later(document, partial(_read, Path(path)))


def _belongs(container: Container) -> bool:
    return (
        role_of(container) is not None
        or runs_envoy(container)
        or installs_redirect(container)
        or any(map(_REGISTRATORS.match, (*container.environment, *container.labels)))
    )


def _read(path: Path) -> bytes:
    if not is_file(path):
        # A pipe would be waited for.
        raise NotAnsweringError("there is no such file on this host")
    try:
        return _text(path, str(path)).encode()
    except DecodeError as error:
        raise AnswerError(error.problem) from error


def read_compose(paths: Sequence[Path], environment: Mapping[str, str]) -> ComposeFiles:
    """The files as `docker compose -f` merges them, `environment` for their variables.

    Other files that they name (`env_file`, `extends`, `.env`) are read where they lie in the
    folder of one of them, or below. Raises DecodeError with file and line.
    """
    project = paths[0].parent.resolve()
    folders = [path.parent.resolve() for path in paths]

    def read(name: str) -> str | None:
        path = (project / name).resolve()
        if not is_file(path) or not any(path.is_relative_to(folder) for folder in folders):
            return None
        try:
            return _text(path, name).removeprefix("\ufeff")
        except DecodeError:
            return None

    files = []
    for path in paths:
        name = Path(os.path.relpath(path.parent.resolve() / path.name, project)).as_posix()
        files.append((name, _text(path, str(path))))
    return ComposeFiles.of(
        files,
        folder=project.name,
        environment=environment,
        read=read,
        paths=[str(path) for path in paths],
        texts=dict(_texts(paths, files)),
    )


def _texts(paths: Sequence[Path], files: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What a report may quote of each, by the path that the user gave."""
    for path, (_, text) in zip(paths, files, strict=True):
        try:
            clean, _ = redact(layout.compose_file(str(path)), text.encode())
        except RedactionError:  # then it would not have been decoded
            continue
        yield str(path), clean.decode()


def _text(path: Path, name: str) -> str:
    try:
        raw = read_some(path, LONGEST_FILE + 1)
    except OSError as error:
        raise DecodeError(name, f"cannot be read: {error.strerror or error}") from error
    if len(raw) > LONGEST_FILE:
        raise DecodeError(name, f"longer than {LONGEST_FILE} bytes, so hardly a Compose file")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DecodeError(f"{name}, line {line}", "not UTF-8 text") from error
