"""The text of the Compose files that containers were started from, for patches of them."""

from collections.abc import Mapping
from typing import ClassVar, Self

import msgspec

from meshdoctor.evidence.interface import Documents, MissingEvidenceError, Problem
from meshdoctor.evidence.layout import COMPOSE, name_of


class ComposeTexts(msgspec.Struct, frozen=True):
    """Compose files by their full path on the host of the engine.

    Each line is the file's own, or has something masked in it.
    """

    title: ClassVar[str] = "the Compose files"
    hint: ClassVar[str] = "run meshdoctor on the host where Compose was run"

    files: Mapping[str, str]
    problems: tuple[Problem, ...]

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Read compose/. Raises MissingEvidenceError where there is none."""
        files: dict[str, str] = {}
        problems: list[Problem] = []
        for document in documents.names(COMPOSE):
            try:
                text = documents.read(document).decode()
            except UnicodeDecodeError:
                problems.append(Problem(document, "not UTF-8 text"))
            else:
                files[name_of(document.removeprefix(COMPOSE))] = text
        if not files:
            raise MissingEvidenceError("no Compose file was recorded", cls.hint)
        return cls(files, tuple(problems))
