"""The matrix on a terminal and as JSON: goldens of what people see, and the contract."""

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from meshdoctor.check import Examination
from meshdoctor.report import matrix
from meshdoctor.report.matrix import Matrix
from meshdoctor.report.terminal import Terminal
from meshdoctor.routing.calls import Calls, Pair, Verdict
from meshdoctor.snapshot import open_snapshot
from tests.conftest import Golden
from tests.routing.meshes import App, examine, istio

GOLDENS = Path(__file__).parent / "goldens" / "matrix"
MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"
STYLE = re.compile(r"\x1b\[[0-9;]*m")
WIDTHS = (40, 80, 120)


def pair(caller: str, callee: str, verdict: Verdict, **said: Any) -> Pair:
    reached = callee if verdict in (Verdict.RIGHT, Verdict.BY_LUCK) else None
    why = "" if verdict is Verdict.RIGHT else f"why {verdict.value}"
    row: dict[str, Any] = {
        "caller": caller,
        "callee": callee,
        "port": 9080,
        "url": f"http://{callee}:9080/",
        "verdict": verdict,
        "reached": reached,
        "instances": (),
        "status": None,
        "reason": why,
        "why": why,
    }
    return Pair(**(row | said))


def whole(pairs: Sequence[Pair]) -> Matrix:
    return Matrix(pairs, pairs)


@cache
def story(name: str) -> Matrix:
    """A matrix that people may see, by name."""
    match name:
        case "large" | "large-broken":
            protocol = "http" if name == "large" else None
            apps = [App(f"shop-{n:03}", f"10.0.0.{n + 1}", protocol=protocol) for n in range(60)]
            owners = {} if name == "large" else {9080: "shop-007"}
            return whole(examine(istio(apps, owners)).get(Calls).pairs)
        case "mixed":
            return whole(MIXED)
        case "hostile":
            return whole(
                [
                    pair("x\x1b]0;pwned\x07\n", "a[bold]\u202eb", Verdict.WRONG, reached="c\nd"),
                    pair("x\x1b]0;pwned\x07\n", "服务", Verdict.RIGHT),
                    pair("y", "服务", Verdict.UNKNOWN),
                ]
            )
        case _:
            snapshot = open_snapshot(MESHES / f"{name}.tgz")
            return whole(Examination(snapshot).get(Calls).pairs)


MIXED = [
    pair("web-1", "api", Verdict.NOWHERE, status=503, why="the proxy has no cluster v9 (NC)"),
    pair("web-1", "pay", Verdict.BY_LUCK),
    pair("web-1", "web", Verdict.RIGHT, port=8080, is_own=True),
    pair("api-1", "api", Verdict.RIGHT, is_own=True),
    pair("api-1", "pay", Verdict.NOWHERE, why="the connection is closed"),
    pair("api-1", "web", Verdict.WRONG, port=8080, reached="pay"),
    pair("old-1", "api", Verdict.UNKNOWN, why="old-1 has no sidecar"),
    pair("old-1", "pay", Verdict.UNKNOWN, why="old-1 has no sidecar"),
]

STORIES = (
    "broken",
    "fixed",
    "connect-collision",
    "connect-healthy",
    "mixed",
    "large",
    "large-broken",
    "hostile",
)

any_story = pytest.mark.parametrize("name", STORIES)
any_width = pytest.mark.parametrize("width", WIDTHS)


def words(rendered: str) -> str:
    return " ".join(rendered.split())


@any_story
@any_width
def test_looks_like_its_golden(name: str, width: int, golden: Golden) -> None:
    """What people see changes only on purpose."""
    golden(GOLDENS / f"{name}-{width}.txt", matrix.render(story(name), Terminal(width)))


def test_looks_like_its_golden_in_ascii(golden: Golden) -> None:
    """Signs have stand-ins where the stream takes ASCII only."""
    rendered = matrix.render(story("broken"), Terminal(80, unicode=False))
    assert rendered.isascii()
    golden(GOLDENS / "broken-80-ascii.txt", rendered)


def test_looks_like_its_golden_in_colour(golden: Golden) -> None:
    """The styles too are pinned."""
    rendered = matrix.render(story("mixed"), Terminal(80, color=True))
    golden(GOLDENS / "mixed-80-color.txt", rendered)


@any_story
@any_width
def test_colour_adds_nothing_but_colour(name: str, width: int) -> None:
    """Whoever sees no colour reads the same words, and every verdict."""
    colored = matrix.render(story(name), Terminal(width, color=True))
    plain = matrix.render(story(name), Terminal(width))
    assert STYLE.sub("", colored) == plain
    assert colored != plain


@any_story
@any_width
def test_keeps_within_the_terminal(name: str, width: int) -> None:
    """A table that is too wide becomes lists; only the command to copy may be longer."""
    for line in matrix.render(story(name), Terminal(width)).splitlines():
        assert cell_len(line) <= width or line.startswith("  meshdoctor trace ")


@any_story
@any_width
def test_is_visible_characters_only(name: str, width: int) -> None:
    """Nothing in a name moves the cursor, colours the line or ends it."""
    rendered = matrix.render(story(name), Terminal(width))
    assert all(character == "\n" or character.isprintable() for character in rendered)


def test_folding_loses_nothing() -> None:
    """On a narrow terminal every caller, callee and verdict of the table is still there."""
    narrow = words(matrix.render(story("broken"), Terminal(40)))
    for each in story("broken").pairs:
        assert f"{each.caller} calls" in narrow
        assert each.callee in narrow
    assert narrow.count("by luck: reviews") == 6
    assert narrow.count("✗ reviews answers:") == 6
    assert narrow.count("✓ right:") == 3


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "broken",
            "15 of 24 calls reach the wrong service, 6 are right only by luck, 3 are right.",
        ),
        ("fixed", "All 24 calls reach the service they name."),
        ("connect-healthy", "All 4 calls reach the service they name."),
        (
            "connect-collision",
            "1 of 4 calls reaches the wrong service, 1 is right only by luck, 2 are right.",
        ),
        (
            "mixed",
            (
                "1 of 8 calls reaches the wrong service, 2 end nowhere, 2 cannot be told, "
                "1 is right only by luck, 2 are right."
            ),
        ),
    ],
)
def test_sums_up_in_one_sentence(name: str, line: str) -> None:
    """The worst comes first, and the parts add up to all calls."""
    assert matrix.summary(story(name)) == line


def test_one_line_a_reason() -> None:
    """Fifteen wrong calls have one cause, which is said once, with who is shadowed."""
    rendered = words(matrix.render(story("broken")))
    assert rendered.count("is TCP and sends every connection") == 1
    assert "reviews answers instead of details, productpage, ratings (15 calls):" in rendered


def test_a_large_matrix_fits_a_page() -> None:
    """Callers whose calls fare alike share a row, but for the calls to themselves."""
    rendered = matrix.render(story("large-broken"), Terminal(80))
    assert len(rendered.splitlines()) < 60
    assert "shop-000-1 and 59 like it" in rendered
    assert "Calls of services to themselves are not in these rows: 60 right." in words(rendered)
    assert "3481 of 3600 calls reach the wrong service" in words(rendered)


def test_callers_that_fare_differently_keep_their_own_row() -> None:
    """Only equal rows are put together."""
    many = [
        pair(f"web-{n:02}", "api", Verdict.WRONG if n == 5 else Verdict.RIGHT, reached="api")
        for n in range(20)
    ]
    rendered = matrix.render(whole(many), Terminal(80))
    assert "web-00 and 18 like it" in rendered
    assert re.search(r"^web-05 +✗ api", rendered, re.MULTILINE)


def test_what_is_left_out_still_counts() -> None:
    """With only the wrong calls shown, the sentence still speaks of all."""
    every = story("broken").pairs
    wrong = [each for each in every if each.verdict is Verdict.WRONG]
    rendered = words(matrix.render(Matrix(every, wrong)))
    assert "15 of 24 calls reach the wrong service" in rendered
    assert "by luck (6 calls)" not in rendered


def test_nothing_to_show_is_said() -> None:
    """A healthy matrix of only its wrong calls is one sentence."""
    every = story("fixed").pairs
    assert matrix.render(Matrix(every, ())) == "All 24 calls reach the service they name.\n"


# ---------------------------------------------------------------- as JSON


@any_story
def test_every_document_satisfies_the_schema(name: str) -> None:
    """Whatever the verdicts, the document is of the contract."""
    schema = matrix.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    rendered = matrix.render_json(story(name))
    jsonschema.Draft202012Validator(schema).validate(json.loads(rendered))
    assert rendered.isascii()
    assert rendered.endswith("}\n")


@pytest.mark.parametrize("name", ["connect-collision", "mixed"])
def test_json_looks_like_its_golden(name: str, golden: Golden) -> None:
    """No field of v1 changes its name, its place or its form unseen."""
    golden(GOLDENS / f"{name}.json", matrix.render_json(story(name)))


def test_json_has_a_row_for_each_call() -> None:
    """In the order of the calls, with the fields that the contract names."""
    document = json.loads(matrix.render_json(story("broken")))
    assert document["schema"] == "meshdoctor.matrix/v1"
    assert len(document["pairs"]) == 24
    row = next(each for each in document["pairs"] if each["callee"] == "ratings")
    assert row["caller"] == "consul_details-v1_1"
    assert (row["port"], row["url"]) == (9080, "http://ratings:9080/")
    assert (row["verdict"], row["reached"], row["status"]) == ("wrong", "reviews", None)
    assert len(row["instances"]) == 3


names = st.text(min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(names, names, st.sampled_from(Verdict), names), max_size=20),
    st.integers(20, 100),
    st.booleans(),
)
def test_whatever_is_said_is_inert(
    said: list[tuple[str, str, Verdict, str]],
    width: int,
    is_unicode: bool,  # noqa: FBT001 # hypothesis gives it by position
) -> None:
    """No name or reason reaches the terminal as anything but visible characters."""
    pairs = [pair(*each, why=why, reason=why) for *each, why in said]  # type: ignore[arg-type] # in that order
    rendered = matrix.render(whole(pairs), Terminal(width, unicode=is_unicode))
    assert all(line.isprintable() for line in rendered.split("\n"))
    assert is_unicode or rendered.isascii()


@pytest.mark.parametrize("number", [0, 1, 999, 1000, 1001, 2500])
def test_of_many_calls_json_is_written_like_of_few(number: int) -> None:
    """It is written bit by bit, and one document all the same, whatever its texts have."""
    every = [
        pair(
            f"web-{n}", "api", Verdict.WRONG, reason="[]\n  }, [\u00e9\ud800", instances=("a", "b")
        )
        for n in range(number)
    ]
    written = matrix.render_json(whole(every))
    document = json.loads(written)
    assert [each["caller"] for each in document["pairs"]] == [each.caller for each in every]
    assert {each["reason"] for each in document["pairs"]} <= {"[]\n  }, [\u00e9\ufffd"}
    assert written == json.dumps(document, indent=2) + "\n"
