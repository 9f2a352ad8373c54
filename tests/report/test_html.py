"""The report as a page: what stands in it, whatever the mesh."""

import re
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from meshdoctor.report import html
from meshdoctor.report.document import Report
from meshdoctor.report.picture import Picture
from meshdoctor.routing.calls import Verdict
from tests.report.made_up import made_up
from tests.report.planted import NAMES, planted
from tests.report.stories import BROKEN, CRASHED, HEALTHY, HOSTILE, STORIES

any_story = pytest.mark.parametrize("report", STORIES.values(), ids=STORIES.keys())

VOID = {"meta", "rect", "path", "br", "img"}


class Elements(HTMLParser):
    """Every element with its attributes, and the text; elements must be closed as opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@any_story
def test_a_page_is_whole_and_needs_nothing(report: Report) -> None:
    """Each element is closed, each id is one, nothing is loaded, nothing is inline but ours."""
    page = Elements(html.render(report))
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.found:
        assert tag not in {"img", "link", "iframe", "object", "form", "base"}
        assert not {each for each in attributes if each.startswith("on")} | (
            {"src", "style", "srcset", "action"} & attributes.keys()
        )
        assert (attributes.get("href") or "#").startswith("#")
    assert [tag for tag, _ in page.found].count("script") == 1
    assert [tag for tag, _ in page.found].count("style") == 1


def test_a_link_leads_to_what_is_there() -> None:
    """On the page itself."""
    checks = tuple(replace(each, page=f"{each.name}.\n\n## Why") for each in BROKEN.checks)
    page = Elements(html.render(replace(BROKEN, checks=checks)))
    ids = {f"#{attributes['id']}" for _, attributes in page.found if "id" in attributes}
    links = {attributes["href"] for tag, attributes in page.found if tag == "a"}
    assert links <= ids


def test_says_the_verdict_first_then_the_cause_then_what_to_do() -> None:
    """In that order, without script."""
    words = Elements(html.render(BROKEN)).words
    told = ("Broken", "drops the metadata", "MD201", "MD401", "What to do")
    places = [words.index(each, words.index("To the diagnosis")) for each in told]
    assert places == sorted(places)


def test_a_healthy_mesh_shows_what_was_verified() -> None:
    """Unfolded, for it is the news."""
    page = html.render(HEALTHY)
    assert "24 of 24 calls reach the service they name." in page
    assert re.search(r"<details open><summary><h2>What is well", page)


def test_a_traceback_is_folded() -> None:
    """It is for the author of the check."""
    assert re.search(r'<details class="crash">.*KeyError', html.render(CRASHED), re.DOTALL)


def test_the_grid_names_who_answers_instead() -> None:
    """Twelve callers are read one by one."""
    report, picture = made_up(12, 12)
    page = Elements(html.render(report, picture))
    classes = [attributes.get("class") for tag, attributes in page.found if tag == "td"]
    assert classes.count("wrong") == 11 * 11
    assert classes.count("right") == 12
    assert classes.count("luck") == 11
    assert "12 of 12 sidecars examined" in page.words


def test_a_large_mesh_is_folded_by_how_it_fares() -> None:
    """Who answers for others stands alone; nobody is dropped, and no cell is."""
    report, picture = made_up(60, 30)
    assert [len(each.names) for each in picture.callers] == [30, 30]
    assert [len(each.offered) for each in picture.callees] == [59, 1]
    verdicts = {place: pair.verdict for place, pair in (picture.cells or {}).items()}
    assert verdicts[0, 0] is Verdict.WRONG
    page = html.render(report, picture)
    for number in range(60):
        assert f"shop-{number:03}" in page


def test_what_does_not_fit_is_counted() -> None:
    """The worst are shown, and it is said how many are not."""
    _, picture = made_up(12, 12)
    shown = replace(picture, more_callers=7, more_callees=1)
    assert "Not drawn: 7 more callers and 1 more service" in html.render(BROKEN, shown)


def test_what_stands_between_backticks_is_code() -> None:
    """A command in a sentence is told from its words; markup in it stays text."""
    told = replace(BROKEN.findings[0], message="See `compose ps --<b>`, or `ps`.")
    page = html.render(replace(BROKEN, findings=(told, *BROKEN.findings[1:])))
    assert "See <code>compose ps --&lt;b&gt;</code>, or <code>ps</code>." in page


def test_names_are_only_text() -> None:
    """Markup, script and control characters arrive as what they are: words."""
    report, picture = planted()
    for each, drawn in ((report, picture), (HOSTILE, Picture())):
        text = html.render(each, drawn)
        page = Elements(text)
        assert [tag for tag, _ in page.found].count("script") == 1
        assert not [tag for tag, _ in page.found if tag in {"img", "failure", "error"}]
        assert all(one == "\n" or one.isprintable() for one in text)
    assert NAMES[0] in page.words or NAMES[0] in Elements(html.render(report, picture)).words
