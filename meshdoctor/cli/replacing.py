"""Where files may be written, and over what: nothing, an empty file, or a report of its format."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from meshdoctor.files import is_file, is_folder, is_there, may_use

_HEAD: Final = 4096
"""Bytes at a file's beginning in which each format says whose it is."""

_BEGINNINGS: Final[Mapping[str, bytes]] = {
    "json": rb'\{\s*"schema": "meshdoctor\.',
    "sarif": rb'(?s)\{\s*"\$schema": "[^"]*sarif.*?"driver": \{\s*"name": "meshdoctor"',
    "junit": rb'<\?xml [^>]*>\s*<testsuites name="meshdoctor"',
    "html": rb"(?s)<!doctype html>.*?: a report of meshdoctor</title>",
    "markdown": ("(?i)## (✅|⚠️|❌|❔) (Would be )?(Healthy|Degraded|Broken|Unknown): ".encode()),
}
"""Text has no such beginning: nothing tells it from other text."""


def _unwritable(path: Path) -> str | None:
    """Why no file of that name can be written, so far as that is known before it is; or None."""
    if is_folder(path):
        return f"{path} is a folder: name a file"
    folder = path.parent
    if not is_folder(folder):
        return f"{path} cannot be written, for there is no folder {folder}"
    if not may_use(folder, os.W_OK | os.X_OK):
        return f"{path} cannot be written, for you may not write to the folder {folder}"
    return None


_OTHER_ARCHIVES: Final = (".zip", ".tar", ".gz", ".bz2", ".xz", ".zst", ".7z")


def no_snapshot_to(path: Path, *, force: bool) -> str | None:
    """Why no snapshot is written to `path`, a .tgz or a folder; or None."""
    from meshdoctor.snapshot.archive import ENDINGS  # noqa: PLC0415

    if path.name.endswith(ENDINGS):
        if is_file(path) and not force:
            return f"{path} is there already: name another file, or add --force"
        return _unwritable(path)
    if path == Path("-") or path.suffix in _OTHER_ARCHIVES:
        return f"a snapshot is a .tgz or a folder, so none is written to {path}: name evidence.tgz"
    if is_folder(path):
        try:
            is_empty = next(path.iterdir(), None) is None
        except OSError as error:
            return f"{path}: {error.strerror or error}"
        return None if is_empty else f"{path}: the folder is not empty"
    if is_there(path):
        return f"{path} is there already, and no folder: name a .tgz, or another folder"
    return None


def in_the_way(path: Path, name: str) -> str | None:
    """Why no report of that format may be written to `path` without --force; or None.

    What cannot be read is for the writing to complain of.
    """
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    beginning = _BEGINNINGS.get(name)
    if not head or (beginning is not None and re.match(beginning, head)):
        return None
    what = "of a text nothing tells whose it is"
    if beginning is not None:
        what = f"it is no {name} report of meshdoctor's"
    return f"{path} is there already, and {what}: name another file, or add --force"
