"""Files that cannot be patched so that it is certain to be right: then there is no patch."""

from collections.abc import Sequence
from typing import Final

import pytest

from meshdoctor_checks.compose_edits import (
    Argument,
    Change,
    Edit,
    Element,
    Value,
    Variable,
    change,
)

IMAGE: Final = Value("image", "b", "a")
FLAG: Final = Argument("-internal", "consul://consul:8500")
VARIABLE: Final = Variable("SERVICE_IGNORE", "1")
PORT: Final = Element("expose", "9443")


def edited(text: str, *edits: Edit, service: str = "web") -> Change | None:
    wanted: Sequence[tuple[str, Sequence[Edit]]] = [(service, edits)]
    return change({"compose.yaml": text}, ["compose.yaml"], wanted)


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("- web\n", IMAGE),
        ("services: [web]\n", IMAGE),
        ("services: {}\n", IMAGE),
        ("services:\n  web: a\n", IMAGE),
        ("services:\n  ? [a]\n  : b\n  web:\n    image: a\n", IMAGE),
        ("services:\n  web:\n    image: &name a\n", IMAGE),
        ("services:\n  web:\n    image: !tag a\n", IMAGE),
        ("services:\n  web:\n    image: |\n      a\n", IMAGE),
        ("services:\n  web:\n    image:\n", IMAGE),
        ("services:\n  web:\n    image: [a]\n", IMAGE),
        ("services:\n  web: {dns: a}\n", IMAGE),
        ("services:\n  other: &o\n    dns: a\n  web: *o\n", IMAGE),
        ("services:\n  web:\n    image: a\n", FLAG),
        ("services:\n  web:\n    entrypoint: run\n    command: consul://consul:8500\n", FLAG),
        ("services:\n  web:\n    command: []\n", FLAG),
        ("services:\n  web:\n    command: |\n      consul://consul:8500\n", FLAG),
        ("services:\n  web:\n    environment: {}\n", VARIABLE),
        ("services:\n  web:\n    environment: []\n", VARIABLE),
        ("services:\n  web:\n    environment:\n    - [a]\n", VARIABLE),
        ("services:\n  web:\n    environment: text\n", VARIABLE),
        ("services:\n  web: {image: a}\n", VARIABLE),
        ("services:\n  web:\n    expose: {a: b}\n", PORT),
        ("services:\n  web:\n    expose:\n    - - 9080\n", PORT),
        ("services:\n  web:\n    expose:\n      - &p 9080\n      - *p\n", PORT),
        ("services:\n  web:\n    expose: ['9080']\n", Element("expose", "1", ("2",))),
        ("services:\n  web:\n    expose: ['2', '2']\n", Element("expose", "1", ("2",))),
        ("services:\n  web:\n    image: a\r\n", IMAGE),
        ("services:\n  web:\n    image: [\n", IMAGE),
        ("services:\n  web:\n    expose:\n      - &p 9080\n    labels:\n      - *p\n", VARIABLE),
        ("services:\n  web:\n    expose:\n      -   !!str 9080\n      - ? a\n", PORT),
        ("services:\n  web:\n    environment:\n      ? A\n      : b\n", VARIABLE),
        ("services:\n  web:\n    ? image\n    : a\n", VARIABLE),
        ("x: &x\n  <<: *x\nservices:\n  web:\n    <<: *x\n", VARIABLE),
    ],
)
def test_nothing_is_guessed(text: str, edit: Edit) -> None:
    """The remedy says it in words then."""
    assert edited(text, edit) is None


def test_who_is_in_no_file_is_not_patched() -> None:
    """Nor is a file without services."""
    assert edited("services:\n  web:\n    image: a\n", IMAGE, service="other") is None


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("services:\n  web:\n    expose: ['9443']\n", PORT),
        ("services:\n  web:\n    expose: '9443'\n", PORT),
    ],
)
def test_what_is_there_already_needs_no_patch(text: str, edit: Edit) -> None:
    """The file is as it is wanted: what runs is older."""
    found = edited(text, edit)
    assert found is not None
    assert found.patch is None


@pytest.mark.parametrize(
    ("text", "edit", "line"),
    [
        (
            "services:\n  web:\n    command: ['consul://consul:8500']\n",
            FLAG,
            "+    command: ['-internal', 'consul://consul:8500']",
        ),
        ("services:\n  web:\n    expose: ['1']\n", Element("expose", "2", ("1",)), "['2']"),
        ("services:\n  web:\n    expose: '1'\n", PORT, "['1', \"9443\"]"),
        ("web:\n  image: a\n", IMAGE, "+  image: b"),
        (
            "x: &l [a]\nservices:\n  web:\n    image: a\n    labels: *l\n",
            VARIABLE,
            "+      - SERVICE_IGNORE=1",
        ),
        (
            "services:\n  web:\n    build:\n      context: .\n",
            VARIABLE,
            "+      - SERVICE_IGNORE=1",
        ),
        ("services:\n  web:\n    image: a", VARIABLE, "+      - SERVICE_IGNORE=1"),
        ("services:\n  web:\n    environment: {A: b}\n", VARIABLE, '{A: b, SERVICE_IGNORE: "1"}'),
    ],
)
def test_what_is_certain_is_patched(text: str, edit: Edit, line: str) -> None:
    """The counterpart: the same edits of files that are plain."""
    found = edited(text, edit)
    assert found is not None
    assert line in (found.patch or "")
