"""What holds for the whole repository: style, types, layers, and what the README promises."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
import pytest

from meshdoctor.cli import cli
from tests.shown import pages

REPOSITORY: Final = Path(__file__).parents[1]

# The console scripts of the environment that the tests run in, wherever PATH leads.
SCRIPTS: Final = Path(sys.executable).parent

TOOLS: Final = {
    "ruff check": ("ruff", "check", "--output-format", "concise"),
    "ruff format": ("ruff", "format", "--check"),
    "mypy": ("mypy",),
    "import-linter": ("lint-imports",),
}


@pytest.mark.parametrize("arguments", TOOLS.values(), ids=TOOLS.keys())
def test_a_tool_has_nothing_to_say(arguments: tuple[str, ...]) -> None:
    """The same commands, with the same settings, as a contributor runs."""
    program = SCRIPTS / arguments[0]
    if not program.exists():
        pytest.skip(f"{arguments[0]} is not installed: pip install -e .[dev]")
    ran = subprocess.run(
        [program, *arguments[1:]],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        encoding="utf-8",
    )
    assert ran.returncode == 0, f"{' '.join(arguments)}:\n{ran.stdout}"


def written(page: Path) -> list[list[str]]:
    """The words of each `meshdoctor` command line in a page: of its code blocks and its code."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line.strip()
        for block in re.findall(r"```.*?```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    lines += re.findall(r"`([^`\n]+)`", text)
    found = (re.findall(r"(?:^|[\s/])meshdoctor ([^|&;#]+)", line) for line in lines)
    return [command.split() for commands in found for command in commands if command.strip()]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_commands_of_a_page_exist(page: Path) -> None:
    """Whoever pastes one does not meet `No such command` or `No such option`."""
    known = {parameter for each in cli.params for parameter in each.opts} | {"--help", "-h"}
    for words in written(page):
        first = words[0]
        if first.startswith("-"):
            assert first in known, f"{page.name}: meshdoctor {' '.join(words)}"
            continue
        command = cli.commands.get(first)
        assert command is not None, f"{page.name}: meshdoctor {' '.join(words)}"
        options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        for word in words[1:]:
            option = word.partition("=")[0].rstrip("`.,;)")
            if re.fullmatch(r"--?[a-z][a-z-]*", option):
                assert option in options | {"--help"}, f"{page.name}: {first} {option}"


def test_the_readme_names_the_commands_to_start_with() -> None:
    """The first two things to type."""
    commands = {words[0] for words in written(REPOSITORY / "README.md")}
    assert {"demo", "check"} <= commands


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_and_option_says_what_it_is_for(name: str) -> None:
    """Help without holes; the first line is one sentence."""
    command = cli.commands[name]
    assert command.help, name
    assert command.help.split("\n\n")[0].rstrip().endswith((".", "`.")), command.help
    for each in command.params:
        if isinstance(each, click.Option) and each.name not in {"format_", "width"}:
            assert each.help, f"{name} {each.opts}"


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_option_has_an_example(name: str) -> None:
    """In the command's page of the guide, or on the guide's first page for what many share."""
    page = REPOSITORY / "docs" / "guide" / f"{name}.md"
    assert page.exists(), f"write {page.relative_to(REPOSITORY)}, and name it in mkdocs.yml"
    assert f"<!-- help: {name} -->" in page.read_text(encoding="utf-8")
    used = {
        word.partition("=")[0] for words in written(page) for word in words if words[0] == name
    }
    for words in written(page.with_name("index.md")):
        used |= {word.partition("=")[0] for word in words}
    for each in cli.commands[name].params:
        if isinstance(each, click.Option):
            names = {*each.opts, *each.secondary_opts}
            assert names & used, f"{page.name} has no example of {', '.join(sorted(names))}"


def test_every_module_says_what_lives_in_it() -> None:
    """One line at the top of each file."""
    roots = ("meshdoctor", "checks/meshdoctor_checks", "tests")
    for path in (path for root in roots for path in (REPOSITORY / root).rglob("*.py")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        assert first.startswith(('"""', 'r"""')), path
