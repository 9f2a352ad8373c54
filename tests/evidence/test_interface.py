"""What no source says, and what is made of a document that is damaged all over."""

from typing import Any

import msgspec
import pytest

from meshdoctor.evidence.compose_text import ComposeTexts
from meshdoctor.evidence.interface import (
    MOST_PROBLEMS,
    MOST_VALUES,
    DecodeError,
    MissingEvidenceError,
    Problem,
    decode_each,
    decode_each_if_there,
    refuse_bomb,
)
from meshdoctor.evidence.layout import compose_file
from tests.evidence.damage import snapshot

NAME = "docker/containers.json"


class Named(msgspec.Struct):
    """Something that has a name."""

    name: str


def test_a_damaged_element_costs_only_itself() -> None:
    """It is named by its pointer."""
    problems: list[Problem] = []
    held = snapshot({NAME: [{"name": "a"}, {"name": 7}, {"name": "b"}]})
    found = list(decode_each(held, NAME, Named, problems))
    assert [(pointer, each.name) for pointer, each in found] == [("/0", "a"), ("/2", "b")]
    assert [each.document for each in problems] == [f"{NAME}#/1"]


def test_a_document_that_is_damaged_all_over_is_refused() -> None:
    """One sentence says more than a thousand."""
    problems: list[Problem] = []
    held = snapshot({NAME: [7] * (MOST_PROBLEMS + 1)})
    with pytest.raises(DecodeError, match="damaged all over, as here"):
        list(decode_each(held, NAME, Named, problems))
    problems.clear()
    assert decode_each_if_there(held, NAME, Named, problems) is None
    assert problems[-1].document == NAME
    assert len(problems) == MOST_PROBLEMS + 1


@pytest.mark.parametrize(
    ("raw", "refused"),
    [
        (b"[" + b"0," * MOST_VALUES + b"0]", False),
        (b'"' + b"x" * (3 * MOST_VALUES) + b'"', False),
        (b"[" + b"{}," * MOST_VALUES + b"0]", True),
    ],
    ids=["short", "one long text", "many values"],
)
def test_a_document_of_more_values_than_any_source_has(raw: bytes, *, refused: bool) -> None:
    """By how many it holds, not by how long it is."""
    if not refused:
        refuse_bomb(NAME, raw)
        return
    with pytest.raises(DecodeError, match="it holds more than 5,000,000 values"):
        refuse_bomb(NAME, raw)


def test_compose_files_as_they_were_recorded() -> None:
    """By the path on the engine's host; what is no text is said, and costs only itself."""
    paths = {"/srv/a.yaml": b"services: {}", "/srv/b.yaml": b"\xff"}
    held: dict[str, Any] = {compose_file(path): raw for path, raw in paths.items()}
    found = ComposeTexts.load(snapshot(held))
    assert found.files == {"/srv/a.yaml": "services: {}"}
    assert found.problems == (Problem(compose_file("/srv/b.yaml"), "not UTF-8 text"),)
    with pytest.raises(MissingEvidenceError, match="no Compose file was recorded"):
        ComposeTexts.load(snapshot({}))
