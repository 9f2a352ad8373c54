"""The README shows what meshdoctor really prints."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SHOWN = re.compile(r"(<!-- output: demo -->\n```text\n)(.*?)(```\n)", re.DOTALL)


def test_readme_shows_the_demo(request: pytest.FixtureRequest) -> None:
    """The output in the README is the demo's, at 80 columns, up to the first remedy."""
    run = subprocess.run(
        [sys.executable, "-m", "meshdoctor", "demo", "--width", "80", "--no-color"],
        capture_output=True,
        text=True,
        check=True,
    )
    printed, second, _ = run.stdout.partition("\n2. ")
    assert second
    text = README.read_text(encoding="utf-8")
    if request.config.getoption("--refresh-goldens"):
        text = SHOWN.sub(lambda match: f"{match[1]}{printed}{match[3]}", text)
        README.write_text(text, encoding="utf-8")
    shown = SHOWN.search(text)
    assert shown is not None
    assert shown[2] == printed


@pytest.mark.parametrize("name", ["demo", "test"])
def test_readme_has_the_commands_that_ci_runs(name: str) -> None:
    """Each of the two commands stands in a block of its own behind its name."""
    text = README.read_text(encoding="utf-8")
    assert re.search(rf"<!-- {name} -->\n```sh\n[^\n]+\n```\n", text) is not None
