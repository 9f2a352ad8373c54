"""The report as one page of HTML that needs nothing else: no network, and no script to be read."""

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import jinja2
import msgspec
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from meshdoctor.findings import Severity, SubjectKind
from meshdoctor.report import drawing, wording
from meshdoctor.report.document import (
    CheckVerdict,
    Report,
    ReportedFinding,
    Verdict,
)
from meshdoctor.report.picture import Callees, Callers, Picture, Reason
from meshdoctor.report.terminal import Terminal, printable
from meshdoctor.report.tree import (
    MOST_STEPS,
    Again,
    Alike,
    Branch,
    Tree,
    brief,
    cut,
    faults_and_notes,
    fold,
    leading_subject,
    where_it_was_seen,
    worst,
)
from meshdoctor.routing.calls import Pair
from meshdoctor.routing.calls import Verdict as Fate

_MOST_CAUSES: Final = 40
_MOST_CITATIONS: Final = 30
_MOST_NAMES: Final = 1_000
_MOST_REASONS: Final = 12
_MOST_PAGES: Final = 40
_BETWEEN_BACKTICKS: Final = re.compile("`([^`]+)`")
_TERMINAL: Final = Terminal()


def render(report: Report, picture: Picture | None = None) -> str:
    """The report as a page; `picture` is the mesh to draw, none where nothing of it is known."""
    folder = importlib.resources.files("meshdoctor.report") / "web"
    style, script, source = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("report.css", "report.js", "report.html")
    )
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["block"] = _block
    environment.filters["brief"] = brief
    environment.filters["prose"] = _prose
    page = environment.from_string(source).render(
        style=Markup(style),  # noqa: S704 # our own file
        script=Markup(script),  # noqa: S704 # our own file
        style_hash=_hash(style),
        script_hash=_hash(script),
        **_content(report, picture or Picture()),
    )
    return page.rstrip("\n") + "\n"


def _hash(content: str) -> str:
    """As a Content-Security-Policy has it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _visible(value: Any) -> Any:
    """What would be obeyed or hidden made visible; markup is escaped after this."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return printable(str(value), _TERMINAL)


def _block(text: str) -> Markup:
    """Several lines, each made visible."""
    lines = [printable(each.expandtabs(), _TERMINAL) for each in text.rstrip("\n").split("\n")]
    return escape("\n".join(lines))


def _prose(text: str) -> Markup:
    """A sentence, with what stands between backticks as code."""
    # As plain text: of what is marked as safe, joining escapes the tags that are put in.
    escaped = str(escape(printable(text, _TERMINAL)))
    return Markup(_BETWEEN_BACKTICKS.sub(r"<code>\1</code>", escaped))  # noqa: S704 # escaped


# ---------------------------------------------------------------- what the page shows


def _content(report: Report, picture: Picture) -> Mapping[str, Any]:
    faults, notes = faults_and_notes(report)
    shown, left = cut(faults[:_MOST_CAUSES])
    told = [tree for tree in shown if isinstance(tree, Tree)]
    cases = [_case(number, tree, report.recorded) for number, tree in enumerate(told, 1)]
    return {
        "report": report,
        "verdict": report.verdict.value,
        "word": wording.verdict_word(report).capitalize(),
        "summary": wording.summary(report),
        "sentence": _in_short(report, picture),
        "target": _target(report),
        "cases": cases,
        "left": left,
        "further": [each.finding for each in faults[_MOST_CAUSES:]][:_MOST_NAMES],
        "notes": fold(notes),
        "facts": [fact.message for check in report.checks for fact in check.facts],
        "examined": wording.examined(report),
        "suppressed": [wording.suppression(report, each) for each in report.suppressions],
        "unexamined": wording.unexamined(report),
        "crashed": [each for each in report.checks if each.verdict is CheckVerdict.CRASHED],
        "pages": _pages(report),
        "picture": picture,
        "drawn": drawing.draw(picture, _marks(report)) if picture.callers else None,
        "tiles": _tiles(report, picture),
        "kind_of": _kind_of,
        "leading_subject": leading_subject,
        "names": wording.names,
        "count": wording.count,
        "cell": _cell,
        "title_of": _title_of,
        "group_name": drawing.group_name,
        "callee_name": drawing.callee_name,
        "groups": _groups(picture),
        "reasons": [_reason(each) for each in picture.reasons[:_MOST_REASONS]],
        "more_reasons": max(0, len(picture.reasons) - _MOST_REASONS),
        "most_citations": _MOST_CITATIONS,
        "most_steps": MOST_STEPS,
        "alters": _alters,
    }


class _Case(msgspec.Struct, frozen=True):
    """One cause with all that hangs below it, and what to do."""

    number: int
    tree: Tree
    severity: Severity
    here: tuple[Any, ...]
    further: tuple[Any, ...]


def _case(number: int, tree: Tree, recorded: Sequence[str]) -> _Case:
    own = [where_it_was_seen(each, recorded) for each in tree.finding.remedies]
    remedies = [where_it_was_seen(each, recorded) for each in tree.remedies]
    return _Case(
        number,
        tree,
        worst(tree),
        tuple(each for each in remedies if each in own),
        tuple(each for each in remedies if each not in own),
    )


def _kind_of(branch: Branch) -> str:
    match branch:
        case Again():
            return "again"
        case Alike():
            return "alike"
        case Tree():
            return "tree"


def _in_short(report: Report, picture: Picture) -> str:
    """What a person wants to know first."""
    causes = sum(each.severity is not Severity.INFO for each in report.diagnoses)
    counts = picture.counts or {}
    total = sum(counts.values())
    bad = counts.get(Fate.WRONG, 0) + counts.get(Fate.NOWHERE, 0)
    calls = ""
    if bad:
        calls = f" {bad:,} of {total:,} calls in this mesh do not arrive where they should."
    elif total and counts.get(Fate.RIGHT, 0) == total:
        calls = f" All {total:,} calls in this mesh reach the service they name."
    match report.verdict:
        case Verdict.HEALTHY:
            return f"Nothing that was looked for is wrong.{calls}"
        case Verdict.UNKNOWN:
            reason = report.verdict_reason or "too little could be examined"
            return f"There is no verdict: {wording.ended(reason)}{calls}"
        case Verdict.BROKEN | Verdict.DEGRADED:
            findings = len(report.findings)
            behind = "is" if causes == 1 else "are"
            what = wording.count(findings, "finding")
            return f"Behind {what} {behind} {wording.count(causes, 'cause')}.{calls}"


def _target(report: Report) -> str:
    paths = ", ".join(str(each) for each in report.target.get("paths", ()))
    match report.target.get("kind"):
        case "snapshot":
            return f"recorded evidence: {paths}"
        case "compose":
            return f"Compose files, before anything runs: {paths}"
        case _:
            return "a mesh as it runs"


def _tiles(report: Report, picture: Picture) -> list[tuple[str, str, str]]:
    """Figures to see at a glance: the figure, what it counts, and how good it is."""
    tiles = []
    counts = picture.counts or {}
    if total := sum(counts.values()):
        right, luck = counts.get(Fate.RIGHT, 0), counts.get(Fate.BY_LUCK, 0)
        bad = counts.get(Fate.WRONG, 0) + counts.get(Fate.NOWHERE, 0)
        mood = "good" if right == total else "bad" if bad else "warn"
        what = "calls reach the service they name"
        what += f", {luck} of them by luck" if luck else ""
        tiles.append((f"{right + luck:,} of {total:,}", what, mood))
    coverage = report.coverage
    if coverage.sidecars_found:
        whole = coverage.sidecars_examined == coverage.sidecars_found
        figure = f"{coverage.sidecars_examined} of {coverage.sidecars_found}"
        tiles.append((figure, "sidecars examined", "good" if whole else "warn"))
    if coverage.services:
        tiles.append((str(coverage.services), _noun(coverage.services, "service"), "plain"))
    if coverage.workloads:
        tiles.append((str(coverage.workloads), _noun(coverage.workloads, "workload"), "plain"))
    clean = sum(each.verdict is CheckVerdict.CLEAN for each in report.checks)
    looked = clean + sum(each.verdict is CheckVerdict.FOUND for each in report.checks)
    if looked:
        tiles.append((f"{clean} of {looked}", "checks that could look found nothing", "plain"))
    return tiles


def _noun(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"


def _marks(report: Report) -> Mapping[tuple[str, str], drawing.Mark]:
    """What findings are about, by kind and name: the worst severity, and their codes."""
    marks: dict[tuple[str, str], drawing.Mark] = {}
    kinds = {
        SubjectKind.SERVICE,
        SubjectKind.WORKLOAD,
        SubjectKind.SIDECAR,
        SubjectKind.COMPONENT,
    }
    for finding in report.findings:
        if finding.severity is Severity.INFO:
            continue
        for subject in finding.subjects:
            # What a finding is about first of all is marked; the rest only meets its symptoms.
            if subject.kind not in kinds or subject.kind is not finding.subjects[0].kind:
                continue
            key = (str(subject.kind), subject.name)
            marks[key] = drawing.Mark.joined(marks.get(key), finding.severity, finding.code)
    return marks


def _pages(report: Report) -> Mapping[str, Markup]:
    """What the checks with findings say of themselves. Their Markdown holds no HTML of its own."""
    parser = MarkdownIt("commonmark", {"html": False})
    found = {finding.code for finding in report.findings}
    pages: dict[str, Markup] = {}
    for check in report.checks:
        if check.code in found and check.page and len(pages) < _MOST_PAGES:
            _, _, body = check.page.partition("\n")
            shown = "\n".join(printable(line, _TERMINAL) for line in body.split("\n"))
            pages[check.code] = Markup(parser.render(shown))  # noqa: S704 # made of Markdown
    return pages


def _title_of(report: Report, finding: ReportedFinding) -> str:
    return next((each.title for each in report.checks if each.code == finding.code), "")


# ---------------------------------------------------------------- the grid


class _Cell(msgspec.Struct, frozen=True):
    """One cell: a class for its colour, a sign and words that need none."""

    mood: str
    sign: str
    word: str


_WELL: Final = _Cell("right", "✓", "right")


def _cell(pair: Pair | None) -> _Cell | None:
    if pair is None:
        return None
    match pair.verdict:
        case Fate.RIGHT:
            return _WELL
        case Fate.WRONG:
            return _Cell("wrong", "✗", pair.reached or "another")
        case Fate.NOWHERE:
            status = "" if pair.status is None else f" {pair.status}"
            return _Cell("nowhere", "✗", f"nowhere{status}")
        case Fate.BY_LUCK:
            return _Cell("luck", "!", "by luck")
        case Fate.UNKNOWN:
            return _Cell("unknown", "?", "unknown")


def _groups(picture: Picture) -> list[tuple[str, Sequence[str], int]]:
    """Who is behind the name of a group: its name, its members, and how many are not listed."""
    found: list[tuple[str, Sequence[str], int]] = []
    groups: list[Callers | Callees] = [*picture.callers, *picture.callees]
    for group in groups:
        if isinstance(group, Callers):
            name, members = drawing.group_name(group), list(group.names)
        else:
            name = drawing.callee_name(group)
            members = [f"{each.service}:{each.port}" for each in group.offered]
        if len(members) > 1:
            found.append((name, members[:_MOST_NAMES], max(0, len(members) - _MOST_NAMES)))
    return found


def _reason(reason: Reason) -> tuple[str, str, str]:
    """The mood, what happens, and why."""
    called, calls = wording.names(reason.callees), wording.count(reason.calls, "call")
    why = wording.ended(reason.why)
    match reason.verdict:
        case Fate.WRONG:
            who = reason.reached or "Somebody"
            return "wrong", f"{who} answers instead of {called} ({calls})", why
        case Fate.NOWHERE:
            status = "" if reason.status is None else f", status {reason.status}"
            return "nowhere", f"{called} is not reached{status} ({calls})", why
        case Fate.BY_LUCK | Fate.RIGHT:
            return "luck", f"{called} is reached by luck ({calls})", why
        case Fate.UNKNOWN:
            return "unknown", f"It is not known where {calls} to {called} land", why


def _alters(command: str) -> bool:
    """Whether a command cannot be shown as it is, and so must not be pasted."""
    return any(printable(line, _TERMINAL) != line for line in command.rstrip("\n").split("\n"))
