"""The READMEs and the pages of the site show what meshdoctor really prints."""

import re
from pathlib import Path

import pytest

from tests.shown import ROOT, pages, printed, refreshed, shown

READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_shows_what_is_printed(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every output in a page is what its command prints now; --refresh-goldens writes it anew."""
    text = page.read_text(encoding="utf-8")
    outputs = list(shown(text))
    assert len(outputs) == text.count("\n<!-- output: "), "an output without its block"
    now = [printed(text, each, tmp_path) for each in outputs]
    if request.config.getoption("--refresh-goldens"):
        page.write_text(refreshed(text, now), encoding="utf-8")
        return
    for each, block in zip(outputs, now, strict=True):
        assert each.block == block, f"meshdoctor {' '.join(each.command)} prints something else"


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)
@pytest.mark.parametrize("name", ["demo", "test"])
def test_readme_has_the_commands_that_ci_runs(page: Path, name: str) -> None:
    """Each of the two commands stands in a block of its own behind its name, in both alike."""
    block = re.compile(rf"<!-- {name} -->\n```sh\n[^\n]+\n```\n")
    found = block.search(page.read_text(encoding="utf-8"))
    assert found is not None
    assert found[0] in READMES[0].read_text(encoding="utf-8")


def test_the_readmes_are_one_another() -> None:
    """Section by section, with the same blocks, but for comments in them."""
    english, chinese = (page.read_text(encoding="utf-8") for page in READMES)
    levels = [re.findall("^(#+) ", text, re.MULTILINE) for text in (english, chinese)]
    assert levels[0] == levels[1]
    fenced = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
    blocks = [
        [re.sub(" *#.*", "", block) for block in fenced.findall(text)]
        for text in (english, chinese)
    ]
    assert blocks[0] == blocks[1]
    assert "README.zh-CN.md" in english
    assert "(README.md)" in chinese
