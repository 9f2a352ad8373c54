"""The pictures of the terminal show what meshdoctor prints now."""

import html
import re
from collections.abc import Iterable

import pytest

from docs.picture import FOLDER, PICTURES, draw, output


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_shows_what_is_printed(name: str, request: pytest.FixtureRequest) -> None:
    """Line by line; how the lines are drawn is the library's business, and its version's."""
    path = FOLDER / f"{name}.svg"
    printed = squeezed(line.plain for line in output(name).split())
    if request.config.getoption("--refresh-goldens") and drawn(path.read_text()) != printed:
        path.write_text(draw(name), encoding="utf-8", newline="\n")
    assert drawn(path.read_text(encoding="utf-8")) == printed


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_takes_nothing_from_elsewhere(name: str) -> None:
    """No font, no script: it is the same without a network."""
    text = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert not re.search(r"url\([^#]|@import|href=|src=|<script", text)


def drawn(svg: str) -> list[str]:
    """The lines of text in a picture, from top to bottom, without blanks: those are not drawn."""
    rows: dict[float, dict[float, str]] = {}
    texts = re.compile(r'<text [^>]*?x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', re.DOTALL)
    for x, y, text in texts.findall(svg.partition('-matrix">')[2]):
        rows.setdefault(float(y), {})[float(x)] = html.unescape(text).replace("\xa0", " ")
    return squeezed("".join(text for _, text in sorted(row.items())) for row in rows.values())


def squeezed(lines: Iterable[str]) -> list[str]:
    return [text for line in lines if (text := "".join(line.split()))]
