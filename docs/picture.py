"""Pictures of the terminal, from what meshdoctor really prints: `python docs/picture.py`."""

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

FOLDER: Final = Path(__file__).parent / "images"

WIDTH: Final = 100
"""Wide enough for a sentence on two lines, narrow enough to be read in a README."""

PICTURES: Final[Mapping[str, tuple[str, str]]] = {
    # The name of the picture: the command, and the line before which it is cut.
    "demo": ("meshdoctor demo", "What to do"),
    "matrix": ("meshdoctor matrix --snapshot demo", "Follow one"),
}

_THEME: Final = TerminalTheme(
    (16, 26, 32),
    (214, 222, 226),
    [
        (38, 50, 56),
        (255, 107, 107),
        (126, 211, 133),
        (240, 196, 92),
        (110, 168, 254),
        (205, 150, 255),
        (94, 205, 214),
        (214, 222, 226),
    ],
)

# rich's own frame loads a font from the network; this one takes what the reader has.
_FRAME: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; white-space: pre;
}}
.{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def output(name: str) -> Text:
    """What the terminal shows, in colour, up to the line where the picture ends."""
    command, end = PICTURES[name]
    ran = subprocess.run(  # noqa: S603 # our own program
        [sys.executable, "-m", *command.split(), "--color", "--width", str(WIDTH)],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=os.environ | {"MESHDOCTOR_CONFIG": os.devnull},
    )
    if ran.returncode not in (0, 1):
        raise RuntimeError(ran.stderr)
    shown = Text.assemble(("$ ", "dim"), (command, "bold"), "\n\n")
    for line in Text.from_ansi(ran.stdout).split():
        if line.plain.startswith(end):
            break
        line.rstrip()
        shown.append_text(line).append("\n")
    shown.rstrip()
    # Below the last line the frame would cut off what hangs under it.
    return shown.append("\n")


def draw(name: str) -> str:
    """The picture as SVG: text that can be searched and read aloud, and nothing from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), legacy_windows=False)
    console.print(output(name), soft_wrap=True, highlight=False)
    return console.export_svg(
        title=PICTURES[name][0], theme=_THEME, code_format=_FRAME, unique_id=name
    )


if __name__ == "__main__":
    for each in PICTURES:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{each}.svg").write_text(draw(each), encoding="utf-8", newline="\n")
