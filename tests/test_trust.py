"""What docs/trust.md promises is held by tests that exist, and CI installs what is locked."""

import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parents[1]
PAGE: Final = (REPOSITORY / "docs" / "trust.md").read_text(encoding="utf-8")
TESTS: Final = sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", PAGE)))


@pytest.mark.parametrize("named", TESTS)
def test_a_promise_is_held_by_a_test(named: str) -> None:
    """The page names no test that was renamed or taken out."""
    file, _, function = named.partition("::")
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {function}\(", text, re.MULTILINE), named


def test_each_row_of_promises_names_one() -> None:
    """A promise without a test is a wish."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| promise", "|---"))]
    assert promises
    assert not [row for row in promises if "tests/" not in row]


def test_no_line_is_left_out_of_coverage_without_a_reason() -> None:
    """The reason stands behind a second `#` on the same line."""
    left_out = [
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for root in ("meshdoctor", "checks")
        for path in (REPOSITORY / root).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"#\s*pragma:\s*no\s*(cover|branch)(?!\s*#\s*\w+)", line, re.IGNORECASE)
    ]
    assert not left_out
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    told = settings["tool"]["coverage"]
    assert told["run"]["branch"]
    assert not {"exclude_lines", "exclude_also", "partial_branches", "omit"} & {
        *told["run"],
        *told["report"],
    }
    assert told["report"]["fail_under"] >= 95


def test_what_ci_installs_is_locked() -> None:
    """Each package that is asked for stands in the lock, at one version, with its hashes."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [
        each for extra in ("dev", "live") for each in project["optional-dependencies"][extra]
    ]
    lock = (REPOSITORY / "requirements" / "ci.txt").read_text(encoding="utf-8")
    locked = re.findall(r"^([a-z0-9.-]+)==[^ ]+ (?:;.*)?\\\n +--hash=sha256:", lock, re.MULTILINE)
    names = {re.split(r"[^A-Za-z0-9_.-]", each)[0].lower().replace("_", "-") for each in wanted}
    assert names <= set(locked)
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    assert "--require-hashes -r requirements/ci.txt" in script
