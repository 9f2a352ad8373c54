"""The trace on a terminal and as JSON: goldens of what people see, and the contract."""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdoctor.check import Examination
from meshdoctor.report import trace as report
from meshdoctor.report.terminal import Terminal
from meshdoctor.routing.calls import Verdict
from meshdoctor.routing.model import (
    Answered,
    Bypassed,
    Call,
    Closed,
    Hop,
    HopKind,
    NotTaken,
    Unknown,
    Walk,
)
from meshdoctor.routing.trace import Trace, Way, trace
from meshdoctor.snapshot import open_snapshot
from meshdoctor.testing import resolve
from meshdoctor.topology import Mesh
from tests.conftest import Golden
from tests.routing.meshes import App, examine, istio, outbound

GOLDENS = Path(__file__).parent / "goldens" / "trace"
MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"
STYLE = re.compile(r"\x1b\[[0-9;]*m")
WIDTHS = (40, 80, 120)
WEB, API, PAY = App("web", "10.0.0.1"), App("api", "10.0.0.2"), App("pay", "10.0.0.3")


@cache
def recorded(name: str) -> Examination:
    return Examination(open_snapshot(MESHES / f"{name}.tgz"))


def of_recording(name: str, source: str, url: str) -> Callable[[], Trace]:
    return lambda: trace(recorded(name).get(Mesh), source, url)


def split() -> Trace:
    """Calls split over a service, another one, and a cluster that does not exist."""
    documents = istio((WEB, API, PAY))
    shares = [
        {"name": outbound("api", 9080), "weight": 50},
        {"name": outbound("pay", 9080), "weight": 30},
        {"name": outbound("api", 9080, "v2"), "weight": 20},
    ]
    action = {
        "weighted_clusters": {"clusters": shares},
        "retry_policy": {"retry_on": "5xx"},
    }
    for section in documents["envoy/web-1/config_dump.json"]["configs"]:
        for each in section.get("dynamic_route_configs", ()):
            for host in each["route_config"]["virtual_hosts"]:
                if host["name"].startswith("api."):
                    host["routes"][0]["route"] = action
    return trace(examine(documents).get(Mesh), "web", "http://api:9080/")


def unread() -> Trace:
    documents = istio((WEB, API))
    for page in ("config_dump", "clusters"):
        del documents[f"envoy/web-1/{page}.json"]
    return trace(examine(documents).get(Mesh), "web", "http://api:9080/")


STORIES: Mapping[str, Callable[[], Trace]] = {
    "wrong": of_recording("broken", "details-v1", "http://ratings:9080/"),
    "right": of_recording("fixed", "consul_details-v1_1", "http://ratings:9080/"),
    "two-ways": of_recording("broken", "reviews-v2", "http://reviews:9080/"),
    "refused": of_recording("connect-collision", "web", "http://api/"),
    "no-host": of_recording("fixed", "consul_details-v1_1", "http://172.28.0.5:9080/"),
    "unregistered": of_recording("fixed", "consul_details-v1_1", "http://10.9.8.7:1234/"),
    "split": split,
    "unread": unread,
}

any_story = pytest.mark.parametrize("name", STORIES)
any_width = pytest.mark.parametrize("width", WIDTHS)


@cache
def story(name: str) -> Trace:
    return STORIES[name]()


@any_story
@any_width
def test_looks_like_its_golden(name: str, width: int, golden: Golden) -> None:
    """What people see changes only on purpose."""
    golden(GOLDENS / f"{name}-{width}.txt", report.render(story(name), Terminal(width)))


def test_looks_like_its_golden_in_colour(golden: Golden) -> None:
    """The styles too are pinned."""
    rendered = report.render(story("refused"), Terminal(80, color=True))
    golden(GOLDENS / "refused-80-color.txt", rendered)


@any_story
@any_width
def test_colour_adds_nothing_but_colour(name: str, width: int) -> None:
    """Whoever sees no colour reads the same words."""
    colored = report.render(story(name), Terminal(width, color=True))
    plain = report.render(story(name), Terminal(width))
    assert STYLE.sub("", colored) == plain
    assert colored != plain


@any_story
@any_width
def test_keeps_within_the_terminal(name: str, width: int) -> None:
    """Long names and pointers wrap: nothing is cut."""
    rendered = report.render(story(name), Terminal(width))
    assert all(len(line) <= width for line in rendered.splitlines())
    whole = "".join(rendered.split())
    for walk in story(name).walks:
        for hop in walk.hops:
            assert "".join(hop.name.split()) in whole
            assert "".join(f"{hop.document}{hop.pointer}".split()) in whole


@any_story
def test_ends_with_the_verdict(name: str) -> None:
    """What was expected, what was reached, and the verdict in a word."""
    lines = report.render(story(name), Terminal(300)).splitlines()
    text = "\n".join(lines[-6:])
    assert "Expected: " in text
    assert "Reached: " in text
    assert f"{story(name).verdict.value.upper()}: " in text


def test_hops_are_numbered_through() -> None:
    """The far side's go on counting where the caller's ended."""
    rendered = report.render(story("right"), Terminal(120))
    numbers = [int(found[1]) for found in re.finditer(r"^ *(\d+)\. ", rendered, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert "At the far side, in consul_ratings-v1-sidecar_1 of consul_ratings-v1_1:" in rendered


def test_the_proxys_own_answer_is_said_with_its_flag() -> None:
    """Status and response flag, as access logs have them."""
    walk = Walk(
        proxy="web-sidecar",
        call=Call("10.0.0.2", 9080, host="api"),
        hops=(),
        outcome=Answered(503, "UH", "cluster api: it has no endpoint"),
    )
    rendered = report.render(made(walk), Terminal(120))
    assert (
        "The proxy answers itself with status 503, response flag UH: "
        "cluster api: it has no endpoint."
    ) in rendered


@pytest.mark.parametrize(
    ("outcome", "words", "kind"),
    [
        (
            Bypassed("10.0.0.9", 8080, "the redirect leaves its address out"),
            (
                "It goes straight to 10.0.0.9:8080, past the proxy: "
                "the redirect leaves its address out."
            ),
            "bypassed",
        ),
        (
            Closed("", "no filter chain matches"),
            "The connection is closed: no filter chain matches.",
            "closed",
        ),
        (
            Closed("NR", "no filter chain matches"),
            "The connection is closed (response flag NR): no filter chain matches.",
            "closed",
        ),
    ],
)
def test_other_ends_are_said_in_words_and_as_json(
    outcome: Bypassed | Closed, words: str, kind: str
) -> None:
    """Both of the same end."""
    walk = Walk("web-sidecar", Call("10.0.0.2", 9080, host="api"), (), outcome)
    assert words in report.render(made(walk), Terminal(200))
    written = json.loads(report.render_json(made(walk)))
    jsonschema.Draft202012Validator(report.schema()).validate(written)
    assert f'"kind": "{kind}"' in json.dumps(written)


def test_of_many_that_nearly_decided_the_first_are_named() -> None:
    """The rest is counted."""
    near = tuple(
        NotTaken(HopKind.ROUTE, f"route-{n}", "its path differs", "", "") for n in range(15)
    )
    call = Call("10.0.0.2", 9080, host="api")
    walk = Walk("web-sidecar", call, (), Answered(404, "NR", "no route"), not_taken=near)
    rendered = report.render(made(walk), Terminal(120))
    assert "route-11: its path differs." in rendered
    assert "route-12" not in rendered
    assert "and 3 more: see `--format json`" in rendered


def made(walk: Walk, **said: Any) -> Trace:
    row: dict[str, Any] = {
        "source": "web",
        "sidecar": "web-sidecar",
        "url": "http://api/",
        "expected": "api",
        "understood": (),
        "ways": (Way(walk),),
        "verdict": Verdict.NOWHERE,
        "reached": None,
        "instances": (),
        "status": 503,
        "reason": "why",
    }
    return Trace(**(row | said))


# ---------------------------------------------------------------- as JSON


@any_story
def test_every_document_satisfies_the_schema(name: str) -> None:
    """Whatever the outcome, the document is of the contract."""
    schema = report.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    rendered = report.render_json(story(name))
    jsonschema.Draft202012Validator(schema).validate(json.loads(rendered))
    assert rendered.isascii()
    assert rendered.endswith("}\n")


@pytest.mark.parametrize("name", ["refused", "split"])
def test_json_looks_like_its_golden(name: str, golden: Golden) -> None:
    """No field of v1 changes its name, its place or its form unseen."""
    golden(GOLDENS / f"{name}.json", report.render_json(story(name)))


@pytest.mark.parametrize(
    ("story_name", "recording"),
    [("wrong", "broken"), ("right", "fixed"), ("refused", "connect-collision")],
)
def test_every_hop_says_where_it_is_written(story_name: str, recording: str) -> None:
    """Each pointer leads somewhere in the document that it names."""
    documents = recorded(recording).documents
    document = json.loads(report.render_json(story(story_name)))
    cited = [*document["hops"], *document["not_taken"]]
    assert cited
    for each in cited:
        raw = documents.read(each["seen_in"]["document"])
        if each["seen_in"]["pointer"]:
            resolve(json.loads(raw), each["seen_in"]["pointer"])


# ---------------------------------------------------------------- whatever is said

names = st.text(max_size=12)
outcomes = st.one_of(
    st.builds(Answered, st.none() | st.integers(100, 599), names, names),
    st.builds(Closed, names, names),
    st.builds(Unknown, names),
)
hops = st.builds(Hop, st.sampled_from(HopKind), names, names, names, names)
near = st.builds(NotTaken, st.sampled_from(HopKind), names, names, names, names)


@settings(max_examples=60, deadline=None)
@given(st.lists(hops, max_size=4), st.lists(near, max_size=20), outcomes, names, st.booleans())
def test_whatever_is_said_is_inert(
    taken: list[Hop],
    not_taken: list[NotTaken],
    outcome: Answered | Closed | Unknown,
    name: str,
    is_unicode: bool,  # noqa: FBT001 # hypothesis gives it by position
) -> None:
    """No name or reason reaches the terminal as anything but visible characters."""
    walk = Walk(name, Call(name, 1), tuple(taken), outcome, (name,), tuple(not_taken))
    traced = made(walk, source=name, url=name, understood=(name,), reason=name, expected=name)
    rendered = report.render(traced, Terminal(60, unicode=is_unicode))
    assert all(line.isprintable() for line in rendered.split("\n"))
    assert is_unicode or rendered.isascii()
    json.loads(report.render_json(traced))
