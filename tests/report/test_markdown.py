"""The report in Markdown: short on top, within GitHub's limit, and nothing in it is obeyed."""

import re

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from msgspec.structs import replace

from meshdoctor.findings import Remedy, Severity
from meshdoctor.report import markdown
from meshdoctor.report.document import Diagnosis, Report
from tests.report.made_up import made_up
from tests.report.planted import planted
from tests.report.stories import BROKEN, CRASHED, DROPPED, HOSTILE, LARGE, NO_PROTOCOL, STORIES

any_story = pytest.mark.parametrize("report", STORIES.values(), ids=STORIES.keys())

CHECKS_OWN_LINK = re.compile(r"https://github\.com/[\w./-]+")
OUR_HTML = re.compile(r"(<details><summary>[^<>&@#\\]+</summary>|</details>)\n*")


def tokens(text: str) -> list[Token]:
    """All that a reader with raw HTML and tables makes of it, the inline ones too."""
    parsed = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    found = []
    for each in parsed.parse(text):
        found += [each, *(each.children or ())]
    return found


def on_top(text: str) -> str:
    return text.partition("<details>")[0]


@any_story
def test_fits_into_an_issue(report: Report) -> None:
    """Counted in bytes, which are at least as many as characters."""
    assert len(markdown.render(report).encode()) < markdown.LIMIT


@any_story
def test_what_is_folded_is_closed_again(report: Report) -> None:
    """However much was left out."""
    text = markdown.render(report)
    assert text.count("<details>") == text.count("</details>")
    assert not re.search("<details>[^/]*<details>", text.replace("</summary>", ""))


def test_says_the_verdict_the_chain_the_remedy_and_the_versions_on_top() -> None:
    """Whoever opens the issue sees them unfolded; proof comes after."""
    text = markdown.render(BROKEN)
    top = on_top(text)
    assert top.startswith("## ❌ Broken: 1 cause, 5 findings (4 errors, 1 info).")
    order = ("**error MD202**", "  - **error MD201**", "    - **error MD401**", "### What to do")
    places = [top.index(each) for each in order]
    assert places == sorted(places)
    assert "+    image: gliderlabs/registrator:master" in top
    assert "**Versions:** meshdoctor 0.1.0; Docker 20.10.24" in text
    assert "seen" not in top
    assert "`docker/containers.json /7/Config/Image`: `gliderlabs/registrator:latest`" in text


def test_a_traceback_is_there_for_the_author_of_the_check() -> None:
    """Folded."""
    text = markdown.render(CRASHED)
    assert "KeyError: 'route'" in text
    assert "Traceback" not in on_top(text)


def test_a_mesh_of_any_size_fits() -> None:
    """What was left out is counted, and it is said where it is."""
    large, _ = made_up(60, 12)
    remedy = Remedy("Write it down.", tuple(f"echo {n} {'x' * 900}" for n in range(900)))
    for report in (
        LARGE,
        large,
        replace(
            LARGE,
            diagnoses=(replace(LARGE.diagnoses[0], remedies=(remedy,)),),
            findings=(replace(LARGE.findings[0], remedies=(remedy,)), *LARGE.findings[1:]),
        ),
    ):
        text = markdown.render(report)
        assert len(text.encode()) < markdown.LIMIT
        assert text.startswith("## ❌ Broken")
        assert "meshdoctor check --format json" in text


def test_names_are_only_text() -> None:
    """No link, picture, heading, mention or markup comes of a name."""
    report, _ = planted()
    for each in (report, HOSTILE):
        text = markdown.render(each)
        assert len(text.encode()) < markdown.LIMIT
        for token in tokens(text):
            assert token.type not in {"image", "table_open", "html_inline", "hr", "s_open"}
            assert token.type != "link_open" or token.info == "auto"
            if token.type == "html_block":
                assert OUR_HTML.fullmatch(token.content), token.content
            if token.type == "heading_open":
                assert token.map is not None
                title = text.split("\n")[token.map[0]]
                assert title == "### What to do" or title.startswith("## ❌ Broken: ")
            if token.type == "text" and not CHECKS_OWN_LINK.fullmatch(token.content):
                assert not re.search(r"@\w|#\d|GH-\d|www\.\w|https?:|:tada:", token.content)
        assert all(each == "\n" or each.isprintable() for each in text)


def test_the_words_of_a_name_are_all_there() -> None:
    """Escaped, not dropped."""
    report, _ = planted()
    shown = " ".join(each.content for each in tokens(markdown.render(report)))
    for each in ("<script>document.title='pwned'</script>", "[pwned](h\u200bttps:example.org)"):
        assert each in shown


def test_a_command_is_shown_whole_or_not_at_all() -> None:
    """Half a command would be another command."""
    long = f"echo {'y' * 40_000}"
    tree = replace(BROKEN.diagnoses[1], remedies=(Remedy("Say it.", (long, "echo done")),))
    text = markdown.render(replace(BROKEN, diagnoses=(tree,)))
    assert "yyy" not in text
    assert "40," in text


def test_what_does_not_fit_is_counted() -> None:
    """Of causes, of the symptoms of the last one in view, and of steps: nothing goes unsaid."""
    causes = [
        replace(DROPPED, id=f"C{n}", code=f"MD{n:03}", message=f"Cause {n}: {'y' * 1400}.")
        for n in range(40)
    ]
    steps = [Remedy(f"Step {n}: {'z' * 1400}.", ()) for n in range(40)]
    report = replace(
        BROKEN,
        findings=tuple(causes),
        diagnoses=tuple(
            Diagnosis(each.id, (each.id,), each.message, Severity.ERROR, (step,))
            for each, step in zip(causes, steps, strict=True)
        ),
    )
    text = markdown.render(report)
    assert len(text.encode()) < markdown.LIMIT
    shown = len(re.findall(r"^- \*\*error", text.partition("### What to do")[0], re.MULTILINE))
    left = re.search(r"(\d+) more causes left out here", text)
    assert left is not None
    assert shown + int(left[1]) == len(causes)
    assert re.search(r"\d+ more steps? left out here", text)


def test_symptoms_that_do_not_fit_are_counted() -> None:
    """Below the one cause that is shown."""
    many = [
        replace(
            NO_PROTOCOL,
            id=f"S{n}",
            code=f"MD{n:03}",
            causes=(DROPPED.id,),
            message=f"{n} {'y' * 1400}.",
        )
        for n in range(60)
    ]
    whole = tuple(each.id for each in (DROPPED, *many))
    report = replace(
        BROKEN,
        findings=(DROPPED, *many),
        diagnoses=(Diagnosis(DROPPED.id, whole, DROPPED.message, Severity.ERROR, ()),),
    )
    text = markdown.render(report)
    assert len(text.encode()) < markdown.LIMIT
    assert re.search(r"\d+ more symptoms left out here", text)
