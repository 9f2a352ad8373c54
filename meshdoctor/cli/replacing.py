"""What `--output` may write over: nothing, an empty file, or a report of the same format."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

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
