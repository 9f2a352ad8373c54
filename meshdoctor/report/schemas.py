"""The JSON Schemas (draft 2020-12) of what meshdoctor writes, as they lie in `schema/`."""

import json
from typing import Any


def load(name: str) -> dict[str, Any]:
    """The schema of that name, as `report-v1`."""
    # Only tests and those who validate ask for it.
    import importlib.resources  # noqa: PLC0415

    file = importlib.resources.files("meshdoctor.report") / "schema" / f"{name}.json"
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document
