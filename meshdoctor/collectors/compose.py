"""Compose files and what lies beside them, read from disk."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from meshdoctor.evidence.compose import LONGEST_FILE, ComposeFiles
from meshdoctor.evidence.interface import DecodeError


def read_compose(paths: Sequence[Path], environment: Mapping[str, str]) -> ComposeFiles:
    """The files as `docker compose -f` merges them, `environment` for their variables.

    Other files that they name (`env_file`, `extends`, `.env`) are read where they lie in the
    folder of one of them, or below. Raises DecodeError with file and line.
    """
    project = paths[0].parent.resolve()
    folders = [path.parent.resolve() for path in paths]

    def read(name: str) -> str | None:
        path = (project / name).resolve()
        if not path.is_file() or not any(path.is_relative_to(folder) for folder in folders):
            return None
        try:
            return _text(path, name)
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
    )


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST_FILE + 1)
    except OSError as error:
        raise DecodeError(name, f"cannot be read: {error.strerror or error}") from error
    if len(raw) > LONGEST_FILE:
        raise DecodeError(name, f"longer than {LONGEST_FILE} bytes, so hardly a Compose file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DecodeError(f"{name}, line {line}", "not UTF-8 text") from error
