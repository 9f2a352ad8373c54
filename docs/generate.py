"""What the docs site has beside the files of docs/: made when it is built, so never stale.

A hook of MkDocs. On pages, `<!-- help: check -->` stands for the help text of a command and
`<!-- fields: report-v1 -->` for the tables of a JSON schema; a check's code becomes a link.
"""

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
from click.testing import CliRunner
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from meshdoctor.check import Check
from meshdoctor.cli import cli
from meshdoctor.diagnosis import examine, load_checks
from meshdoctor.report import text
from meshdoctor.report.terminal import Terminal
from meshdoctor.snapshot import open_snapshot

ROOT: Final = Path(__file__).parents[1]
BUILT_IN: Final = "meshdoctor_checks"
FAMILIES: Final[Mapping[str, str]] = {
    "control_plane": "Control plane",
    "registry": "Registry",
    "sidecars": "Sidecars",
    "traffic": "Traffic",
    "rules": "Routing rules",
    "probe": "Probe",
    "consul_mesh": "Consul service mesh",
}

_HELP: Final = re.compile(r"<!-- help: ([a-z]+) -->")
_FIELDS: Final = re.compile(r"<!-- fields: ([a-z]+-v[0-9]+) -->")
_FENCE: Final = re.compile(r"(```.*?^ *```|<!--.*?-->)", re.DOTALL | re.MULTILINE)
_CODE: Final = re.compile(r"(?<![\w`\[/(#])(MD\d{3})(?![\w`\]])")
_CODE_ALONE: Final = re.compile(r"(?<!\[)`(MD\d{3})`(?!\])")


# ---------------------------------------------------------------- what MkDocs calls


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation: the checks by family, and what mkdocs.yml does not name."""
    there = {path.relative_to(config.docs_dir).as_posix() for path in _written(config)}
    there |= {name for name, _ in _generated()}
    nav = list(_present(config.nav or [], there))
    for section in nav:
        if isinstance(section, dict) and "Checks" in section:
            section["Checks"] += _families()
    named = set(_named(nav))
    more = sorted(there - named)
    config.nav = [*nav, {"More": more}] if more else nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files."""
    for name, content in _generated():
        files.append(File.generated(config, name, content=content))
    files.append(File.generated(config, "assets/demo-report.html", content=_demo()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 # the hook's signature
    """Fill in what a page asks for, and link codes to their pages."""
    markdown = _HELP.sub(lambda found: _help(found[1]), markdown)
    markdown = _FIELDS.sub(lambda found: "\n".join(_fields(found[1])), markdown)
    known = {check.code for check in _checks()}
    up = "../" * page.file.src_uri.count("/")

    def link(found: re.Match[str]) -> str:
        here = page.file.src_uri == f"checks/{found[1]}.md"
        return (
            found[0]
            if here or found[1] not in known
            else f"[{found[0]}]({up}checks/{found[1]}.md)"
        )

    pieces = _FENCE.split(markdown)
    pieces[::2] = [_link_lines(piece, link) for piece in pieces[::2]]
    return "".join(pieces)


def _link_lines(prose: str, link: Any) -> str:
    """Links in prose; a heading stays as it is, for its anchor is made of its words."""
    return "\n".join(
        line if line.startswith("#") else _CODE_ALONE.sub(link, _CODE.sub(link, line))
        for line in prose.split("\n")
    )


# ---------------------------------------------------------------- the pages and their order


def _written(config: MkDocsConfig) -> Iterator[Path]:
    return Path(config.docs_dir).rglob("*.md")


@cache
def _generated() -> tuple[tuple[str, str], ...]:
    return tuple(_pages())


def _pages() -> Iterator[tuple[str, str]]:
    checks = _checks()
    yield "checks/index.md", "\n".join(_catalogue(checks))
    for check in checks:
        yield f"checks/{check.code}.md", "\n".join(_check_page(check, checks))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    yield "changelog.md", changes.replace("](docs/", "](")
    yield "zh-CN.md", _from_root(ROOT / "README.zh-CN.md")


def _from_root(path: Path) -> str:
    """A page that stands at the top of the repository, with its links as the site has them."""
    page = path.read_text(encoding="utf-8").replace("docs/", "")
    page = page.replace("(README.md)", "(index.md)").replace("(CHANGELOG.md)", "(changelog.md)")
    # What the site does not have is named without a link.
    return re.sub(r"\[([^\]]+)\]\((?:CONTRIBUTING\.md|LICENSE)\)", r"\1", page)


def _present(nav: Iterable[Any], there: set[str]) -> Iterator[Any]:
    """The navigation without pages that are not there."""
    for entry in nav:
        match entry:
            case str() if entry in there:
                yield entry
            case dict():
                ((title, below),) = entry.items()
                if isinstance(below, list):
                    yield {title: list(_present(below, there))}
                elif below in there:
                    yield entry


def _named(nav: Iterable[Any]) -> Iterator[str]:
    for entry in nav:
        below = next(iter(entry.values())) if isinstance(entry, dict) else entry
        if isinstance(below, str):
            yield below
        else:
            yield from _named(below)


def _families() -> list[dict[str, list[dict[str, str]]]]:
    return [
        {title: [{f"{check.code} {check.name}": f"checks/{check.code}.md"} for check in members]}
        for title, members in _by_family(_checks())
    ]


# ---------------------------------------------------------------- checks


@cache
def _checks() -> list[Check]:
    found = (each for each in load_checks().checks if each.module.startswith(f"{BUILT_IN}."))
    return sorted(found, key=lambda each: each.code)


def _by_family(checks: Iterable[Check]) -> Iterator[tuple[str, list[Check]]]:
    families: dict[str, list[Check]] = defaultdict(list)
    for check in checks:
        families[check.module.split(".")[1]].append(check)
    for family, members in families.items():
        yield FAMILIES.get(family, family.replace("_", " ").capitalize()), members


def _catalogue(checks: Sequence[Check]) -> Iterator[str]:
    yield "# Checks"
    yield ""
    yield (
        f"The {len(checks)} checks that ship with meshdoctor. Codes are stable: never used again, "
        "never renumbered. The severity is the default; a [settings file](../settings.md) can "
        "change it. `meshdoctor checks` lists those installed where you are, `meshdoctor explain "
        "CODE` prints a check's page."
    )
    for title, members in _by_family(checks):
        yield f"\n## {title}\n"
        yield "| code | severity | finds |"
        yield "|---|---|---|"
        for check in members:
            yield (
                f"| [{check.code}]({check.code}.md) | {_badge(check.severity.value)} | "
                f"{_plain(check.title)} |"
            )


def _plain(sentence: str) -> str:
    """A title as Markdown: what is not between backticks stands for itself."""
    pieces = sentence.split("`")
    pieces[::2] = [re.sub(r"([*_<|])", r"\\\1", piece) for piece in pieces[::2]]
    return "`".join(pieces)


def _badge(severity: str) -> str:
    return f'<span class="severity {severity}">{severity}</span>'


def _check_page(check: Check, checks: Sequence[Check]) -> Iterator[str]:
    title, _, body = check.page.partition("\n")
    yield f"# {check.code} {check.name}"
    yield f"\n**{_plain(title.strip())}**\n"
    causes = [each.code for each in checks if check.code in each.explains]
    needs = [f"{need.title}{' (if there)' * need.optional}" for need in check.needs]
    yield "| | |"
    yield "|---|---|"
    yield f"| Severity | {_badge(check.severity.value)} by default |"
    yield f"| Looks at | {', '.join(needs)} |"
    if causes:
        yield f"| Can be caused by | {', '.join(causes)} |"
    if check.explains:
        yield f"| Can be the cause of | {', '.join(check.explains)} |"
    if check.plan is not None:
        yield "| Compose files | judged too, by `meshdoctor check --compose FILE` |"
    yield f"| Since | version {check.since} |"
    yield f"| Written in | `{check.module}` |"
    yield body
    yield from _example(check)


def _example(check: Check) -> Iterator[str]:
    """What a report says of one of the check's own cases, the one nearest to a real recording."""
    family, name = check.module.split(".")[1:3]
    cases = list((ROOT / "fixtures" / "checks" / family / name).glob("fires-*"))
    if not cases:
        return
    case = min(cases, key=lambda each: ((each / "ABOUT").exists(), each.name))
    about = case / "ABOUT"
    yield "\n## What it says\n"
    yield f"Of the evidence in `{case.relative_to(ROOT).as_posix()}`, " + (
        f"which was changed for this: {_plain(about.read_text(encoding='utf-8').strip())}"
        if about.exists()
        else "which was cut out of a recording of a real mesh:"
    )
    chosen = load_checks().choose([check.code], [])
    target = {"kind": "snapshot", "paths": [case.name]}
    report = text.render(examine(open_snapshot(case), chosen, target), Terminal(width=80))
    yield "\n```text"
    yield report.partition("\nMore about a finding")[0].rstrip("\n")
    yield "```"


def _demo() -> str:
    """The page that `meshdoctor demo --output html=...` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        arguments = ["demo", "--format", "json", "--output", f"html={path}"]
        CliRunner().invoke(cli, arguments, catch_exceptions=False)
        return path.read_text(encoding="utf-8")


# ---------------------------------------------------------------- help


def _help(name: str) -> str:
    command = cli.commands[name]
    context = click.Context(cli, info_name="meshdoctor", max_content_width=90, terminal_width=90)
    # What click would ask the terminal must not depend on who builds the site.
    with click.Context(command, info_name=name, parent=context, terminal_width=90) as own:
        return f"```text\n{command.get_help(own)}\n```"


# ---------------------------------------------------------------- the fields of a JSON document


def _fields(name: str) -> Iterator[str]:
    path = ROOT / "meshdoctor" / "report" / "schema" / f"{name}.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    yield schema.get("description", "")
    yield ""
    yield from _table(schema)
    for title, definition in schema.get("$defs", {}).items():
        if "properties" not in definition:
            continue
        yield f"\n### {name.partition('-')[0]}: {title}\n"
        if "description" in definition:
            yield f"{definition['description']}\n"
        yield from _table(definition)


def _table(schema: Mapping[str, Any]) -> Iterator[str]:
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    for path, field, required in _leaves(schema, ""):
        optional = "" if required else " (may be absent)"
        meaning = field.get("description", "").replace("|", "\\|")
        yield f"| `{path}` | {_type(field)}{optional} | {meaning} |"


def _leaves(
    schema: Mapping[str, Any], before: str
) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """The fields of an object, and of objects written out inside it."""
    for name, field in schema.get("properties", {}).items():
        path = f"{before}{name}"
        yield path, field, name in schema.get("required", ())
        inner = field.get("items", field) if field.get("type") == "array" else field
        if "properties" in inner:
            yield from _leaves(inner, f"{path}[]." if inner is not field else f"{path}.")


def _type(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "any")
    if kind == "array":
        return f"list of {_type(field.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
