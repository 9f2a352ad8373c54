"""The docs site builds without a warning, its links lead somewhere, and it needs no network."""

import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from meshdoctor.diagnosis import load_checks
from meshdoctor.evidence.layout import SOURCES
from meshdoctor.snapshot import open_snapshot
from tests.cli.conftest import MESHES
from tests.shown import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, where a proxy that is not there would be asked."""
    if find_spec("mkdocs") is None:
        if os.environ.get("CI"):
            pytest.fail("mkdocs is not installed: pip install -e .[docs]")
        pytest.skip("mkdocs is not installed: pip install -e .[docs]")
    folder = tmp_path_factory.mktemp("site")
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | nowhere | {"NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        encoding="utf-8",
    )
    assert ran.returncode == 0, ran.stdout
    assert "WARNING" not in ran.stdout
    return folder


class Links(HTMLParser):
    """What a page links to, what it loads, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.linked: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.linked.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("prev", "next", "canonical"):
            self.loaded.append(given["href"])
        self.loaded += [given[name] for name in ("src", "srcset", "data") if name in given]


def pages(site: Path) -> Iterator[tuple[Path, Links]]:
    for path in sorted(site.rglob("*.html")):
        yield path, Links(path.read_text(encoding="utf-8"))


def test_every_link_leads_somewhere(site: Path) -> None:
    """To a file of the site, and to a place in it where the link names one."""
    known = dict(pages(site))
    for path, page in known.items():
        if path.name == "404.html":
            continue  # its links are meant from the root of a server
        for link in (*page.linked, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.relative_to(site)}: {link}"
            if parts.fragment and target.suffix == ".html":
                places = known[target].places
                assert unquote(parts.fragment) in places, f"{path.relative_to(site)}: {link}"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """No script, style, font or picture; the drawings in it neither."""
    for path, page in pages(site):
        for loaded in page.loaded:
            assert not urlsplit(loaded).netloc, f"{path.relative_to(site)}: {loaded}"
        # The one library that the theme's script would fetch by itself, for such a block.
        assert 'class="mermaid"' not in path.read_text(encoding="utf-8")
    for style in (*site.rglob("*.css"), *site.rglob("*.svg")):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import|href=|src=)[\"' ]*(https?:)?//", text), style.name


def test_every_check_has_its_page(site: Path) -> None:
    """With the sections of its docstring and an example of what it says."""
    listed = (site / "checks" / "index.html").read_text(encoding="utf-8")
    for check in load_checks().checks:
        page = (site / "checks" / check.code / "index.html").read_text(encoding="utf-8")
        for section in ("Why it matters", "How it is found", "How to fix it", "What it says"):
            assert section in page, check.code
        assert f"{check.code}/" in listed
        assert check.title.partition("`")[0] in html.unescape(page)


def test_every_page_is_in_the_menu(site: Path) -> None:
    """Nobody finds a page that stands in no menu; `More` is for those not sorted in yet."""
    home = Links((site / "index.html").read_text(encoding="utf-8"))
    linked = {urlsplit(link).path.rstrip("/") for link in home.linked}
    for path in DOCS.rglob("*.md"):
        name = path.relative_to(DOCS).with_suffix("").as_posix()
        name = name.removesuffix("/index")
        assert name == "index" or name in linked, name


# ---------------------------------------------------------------- what pages say of formats


def documented() -> list[re.Pattern[str]]:
    """The documents that the page about snapshots names."""
    text = (DOCS / "reference" / "snapshot.md").read_text(encoding="utf-8")
    rows = (line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    names = [name for row in rows for name in re.findall("`([^`]+)`", row)]
    return [re.compile(re.sub("<[a-z]+>", "[^/]+", name.replace(".", r"\."))) for name in names]


@pytest.mark.parametrize("mesh", sorted(MESHES.glob("*.tgz")), ids=lambda path: path.stem)
def test_the_documents_of_a_snapshot_are_documented(mesh: Path) -> None:
    """All that stand in the recordings, each by its name."""
    named = documented()
    for name in open_snapshot(mesh).names():
        assert any(pattern.fullmatch(name) for pattern in named), name


def test_every_source_is_documented() -> None:
    """A folder that a collector can fill has its rows."""
    folders = {pattern.pattern.partition("/")[0] for pattern in documented()}
    assert folders >= SOURCES


def test_every_schema_is_documented() -> None:
    """Its fields are a table in the page about JSON."""
    text = (DOCS / "reference" / "json.md").read_text(encoding="utf-8")
    for schema in (ROOT / "meshdoctor" / "report" / "schema").glob("*.json"):
        assert f"<!-- fields: {schema.stem} -->" in text, schema.name


@pytest.mark.parametrize("title", ["github.yaml", "gitlab.yaml"])
def test_the_pipelines_can_be_read(title: str) -> None:
    """They are YAML, and they run meshdoctor."""
    text = (DOCS / "in-ci.md").read_text(encoding="utf-8")
    block = re.search(rf'```yaml title="{title}"\n(.*?)```', text, re.DOTALL)
    assert block is not None
    assert "meshdoctor check" in str(yaml.safe_load(block[1]))
