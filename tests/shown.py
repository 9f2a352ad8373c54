"""What pages show of meshdoctor: the commands in them, run, and the outputs below them, compared.

In a page,

    <!-- output: meshdoctor demo; until "2. " -->

stands before a block, which holds what that command prints, at 80 columns, up to a line that
begins so. `from` names the line where it starts, `without proofs` leaves out the lines that cite
documents, and `at /pointer` takes a part of a JSON document. Commands run in an empty folder that
has the repository's `fixtures/`, and as files the blocks of the page with a `title="NAME"`.
"""

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshdoctor.cli import cli
from meshdoctor.testing import resolve
from tests.cli.conftest import in_process

ROOT: Final = Path(__file__).parents[1]

_SHOWN: Final = re.compile(
    r"(?P<before><!-- output: (?P<line>[^\n]+?) -->\n```[a-z]+\n)(?P<block>.*?)(?P<after>```\n)",
    re.DOTALL,
)
_FILE: Final = re.compile(r'```[a-z]+ title="([^"\n]+)"\n(.*?)```\n', re.DOTALL)
_PROOF: Final = re.compile(r"^[ │]*(?:seen in|and in|see https|sidecars:) ?")


def pages() -> list[Path]:
    """What a newcomer reads: what stands at the top of the repository, and the site's pages."""
    top = (ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md"))
    return [*top, *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True, slots=True)
class Shown:
    """One output in a page, and what to do to have it again."""

    command: list[str]
    cuts: list[list[str]]
    block: str


def shown(text: str) -> Iterator[Shown]:
    """The outputs in a page."""
    for found in _SHOWN.finditer(text):
        words, *cuts = found["line"].split("; ")
        program, *arguments = shlex.split(words)
        assert program == "meshdoctor", words
        yield Shown(arguments, [shlex.split(cut) for cut in cuts], found["block"])


def refreshed(text: str, blocks: list[str]) -> str:
    """The page with other blocks in the place of its own, in their order."""
    rest = iter(blocks)
    return _SHOWN.sub(lambda found: found["before"] + next(rest) + found["after"], text)


def printed(text: str, each: Shown, folder: Path) -> str:
    """What the command prints now, run in `folder` with the files that the page gives."""
    for name, content in _FILE.findall(text):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    fixtures = folder / "fixtures"
    if not fixtures.exists():
        fixtures.symlink_to(ROOT / "fixtures")
    known = {name for parameter in cli.commands[each.command[0]].params for name in parameter.opts}
    plain = ["--width", "80"] if "--width" in known and "--width" not in each.command else []
    plain += ["--no-color"] if "--color" in known else []
    with contextlib.chdir(folder):
        ran = in_process(*each.command, *plain)
    assert ran.code in (0, 1), f"{shlex.join(each.command)}: {ran.stderr}"
    text = ran.stdout
    for cut in each.cuts:
        text = _cut(text, cut)
    return text.strip("\n") + "\n"


def _cut(text: str, words: list[str]) -> str:
    match words:
        case ["from", start]:
            lines = text.splitlines()
            return "\n".join(lines[_first(lines, start) :])
        case ["until", end]:
            lines = text.splitlines()
            return "\n".join(lines[: _first(lines, end)])
        case ["without", "proofs"]:
            return "\n".join(_without_proofs(text))
        case ["at", pointer]:
            return json.dumps(resolve(json.loads(text), pointer), indent=2, ensure_ascii=False)
    raise AssertionError(f"no such cut: {shlex.join(words)}")


def _first(lines: list[str], start: str) -> int:
    found = [number for number, line in enumerate(lines) if line.startswith(start)]
    assert found, f"no line begins with {start!r}"
    return found[0]


def _without_proofs(text: str) -> Iterator[str]:
    depth: int | None = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip(" │├└─"))
        is_new = bool(re.search("[├└]─", line))
        if _PROOF.match(line):
            depth = indent
        elif depth is None or is_new or indent <= depth:
            depth = None
            yield line
