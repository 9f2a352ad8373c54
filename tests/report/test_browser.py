"""The page in a real browser: nothing is refused, nothing is loaded, and everything works."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from meshdoctor.report import html
from meshdoctor.report.document import Report
from meshdoctor.report.picture import Picture
from tests.report.made_up import made_up
from tests.report.planted import planted
from tests.report.stories import BROKEN, LARGE

pytestmark = pytest.mark.live

Drawn = tuple[Report, Picture]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, headless; skips the test without it, except in CI."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if found is None:
        reason = "no chromium here: install Debian's package of that name"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        # Its own sandbox needs namespaces that a container and root do not have.
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def meshes() -> dict[str, Drawn]:
    """One of 12 services, one of 500, one with names of somebody who wishes harm."""
    return {"small": made_up(12, 12), "large": made_up(500, 20), "planted": planted()}


class Visit:
    """A page that is open, and all that the browser said or asked for meanwhile."""

    def __init__(self, context: BrowserContext, file: Path, drawn: Drawn) -> None:
        file.write_text(html.render(*drawn), encoding="utf-8")
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())

    def evaluate(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture
def visit(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    """`visit(drawn, **context)` opens the page; at the end nothing may have been complained of."""
    visits: list[Visit] = []

    def open_page(drawn: Drawn, **context: Any) -> Visit:
        file = tmp_path / f"report-{len(visits)}.html"
        visits.append(Visit(browser.new_context(**context), file, drawn))
        return visits[-1]

    yield open_page
    for each in visits:
        each.page.wait_for_load_state("networkidle")
        assert each.said == []
        assert [url.partition(":")[0] for url in each.asked] == ["file"]
        each.page.context.close()


@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("mesh", ["small", "large", "planted"])
def test_fits_the_screen(mesh: str, width: int, visit: Any, meshes: dict[str, Drawn]) -> None:
    """Nothing but what scrolls by itself is wider than a phone, also when all is unfolded."""
    page = visit(meshes[mesh], viewport={"width": width, "height": 844})
    for script in ("0", "document.querySelectorAll('details').forEach(each => each.open = true)"):
        page.evaluate(script)
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("mesh", ["small", "large"])
def test_is_of_a_size_that_a_person_reads(mesh: str, visit: Any, meshes: dict[str, Drawn]) -> None:
    """Five hundred services take no longer page than twelve."""
    page = visit(meshes[mesh], viewport={"width": 1280, "height": 900})
    assert page.evaluate("document.documentElement.scrollHeight") < 6_000
    assert page.page.locator("svg.mesh .box").count() < 80
    assert page.page.locator(".grid td.wrong").first.is_visible()


def test_copies_a_command(visit: Any) -> None:
    """By mouse and by keyboard, and says that it did."""
    page = visit((BROKEN, Picture()), permissions=["clipboard-read", "clipboard-write"])
    button = page.page.locator("button.copy").nth(1)
    assert button.is_visible()
    button.click()
    assert page.evaluate("navigator.clipboard.readText()") == "cd /home/ana/istio/samples/consul"
    assert button.inner_text() == "Copied"
    page.page.locator("button.copy").nth(2).focus()
    page.page.keyboard.press("Enter")
    page.page.wait_for_function("document.getElementById('said').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()").startswith("docker-compose -f")


def test_is_readable_without_script(visit: Any, meshes: dict[str, Drawn]) -> None:
    """No button that does nothing, and evidence still unfolds."""
    page = visit(meshes["small"], java_script_enabled=False)
    assert page.page.locator("button.copy:visible").count() == 0
    assert page.page.locator("svg.mesh").is_visible()
    evidence = page.page.locator("details.evidence").first
    evidence.locator("summary").click()
    assert evidence.locator("li").first.is_visible()


def test_works_by_keyboard(visit: Any, meshes: dict[str, Drawn]) -> None:
    """The first stop leads past the menu; what is folded opens with Enter."""
    page = visit(meshes["small"])
    page.page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.page.locator("details.evidence summary").first.focus()
    page.page.keyboard.press("Enter")
    assert page.page.locator("details.evidence li").first.is_visible()


def test_a_code_leads_to_its_page(visit: Any, meshes: dict[str, Drawn]) -> None:
    """Which unfolds."""
    page = visit(meshes["small"])
    page.page.locator("a.code-of").first.click()
    page.page.locator("#about-MD201 .page").wait_for(state="visible")


def test_is_dark_where_a_person_likes_it_dark(visit: Any, meshes: dict[str, Drawn]) -> None:
    """And light where not."""

    def light(scheme: str) -> int:
        page = visit(meshes["small"], color_scheme=scheme)
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(each) for each in color.removeprefix("rgb(").removesuffix(")").split(","))

    assert light("dark") < 150
    assert light("light") > 600


def test_prints_what_was_folded(visit: Any, meshes: dict[str, Drawn]) -> None:
    """On paper nothing can be unfolded."""
    page = visit(meshes["small"])
    assert page.page.pdf(format="A4").startswith(b"%PDF")
    page.page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.page.locator("details.evidence li").first.is_visible()
    assert page.page.locator("button.copy:visible").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.page.locator("details.evidence").first.evaluate("each => each.open")


def test_names_do_nothing(visit: Any, meshes: dict[str, Drawn]) -> None:
    """The title is still ours, and no element is theirs."""
    page = visit(meshes["planted"])
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.page.title() == "Broken: a report of meshdoctor"
    assert page.page.locator("img, iframe, main script").count() == 0


def test_a_report_of_hundreds_of_findings_opens(visit: Any) -> None:
    """Those that are alike are folded."""
    page = visit((LARGE, Picture()))
    assert page.page.locator("details.alike").count() == 1
