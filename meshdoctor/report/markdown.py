"""The report as Markdown, to be pasted into an issue: short on top, the rest folded away.

Nothing that comes from the mesh is more than text there: no link, no mention, no markup.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from meshdoctor.findings import Citation, Remedy
from meshdoctor.report import wording
from meshdoctor.report.document import (
    CheckResult,
    CheckVerdict,
    Report,
    ReportedFinding,
    Verdict,
)
from meshdoctor.report.terminal import Terminal, printable
from meshdoctor.report.tree import (
    Again,
    Alike,
    Branch,
    Tree,
    brief,
    faults_and_notes,
    fold,
    leading_subject,
    where_it_was_seen,
)

LIMIT: Final = 65_536
"""GitHub takes so many characters in an issue or a comment."""

_ROOM: Final = 62_000
"""Bytes that are filled, so that a sentence and a title can be written around the report."""
_FOR_CAUSES: Final = 26_000
_FOR_REMEDIES: Final = 46_000
"""Of the room, what causes and remedies may fill, so that something is left for the others."""

_SIGNS: Final = {
    Verdict.HEALTHY: "✅",
    Verdict.DEGRADED: "⚠️",
    Verdict.BROKEN: "❌",
    Verdict.UNKNOWN: "❔",
}
_LONGEST: Final = 1_500
"""Characters of a sentence: names in it may be of any length."""
_LONGEST_EXCERPT: Final = 200
_LONGEST_BLOCK: Final = 12_000
_DEEPEST: Final = 6
_TERMINAL: Final = Terminal()

_ESCAPED: Final = str.maketrans({each: f"\\{each}" for each in r"\`*_{}[]|~!^"})
_ENTITIES: Final = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "\u200b": "&#8203;"}
)
_BREAK: Final = "\u200b"
"""A space of no width: what stands around it is neither a mention nor a link."""
_REFERENCE: Final = r"@|#|(?<=[hH])(?=[tT]{2}[pP][sS]?:)|(?i:www\.|ftp:|GH-)|:(?=\w+:)"
_ADDRESS: Final = re.compile(r"https?://[\w.-]+(?:/[\w./?=&%+,-]*)?(?:#[\w.-]*)?", re.ASCII)
_START: Final = r"^(\d*)([-+.)=])"
"""What would begin a list, or underline a title, where it begins a line."""
_HEXADECIMAL: Final = r"(?<![0-9a-f])([0-9a-f]{6})(?=[0-9a-f]{1,34}(?![0-9a-f]))"


def render(report: Report) -> str:
    """The report in Markdown as GitHub and GitLab read it, always below GitHub's limit."""
    faults, notes = faults_and_notes(report)
    out = _Sheet()
    sign = _SIGNS[report.verdict]
    word = wording.verdict_word(report).capitalize()
    out.add(f"## {sign} {word}: {_prose(wording.summary(report))}\n")
    _write_causes(out, faults)
    _write_remedies(out, report, faults)
    _write_versions(out, report)
    _write_notes(out, notes)
    _write_facts(out, report)
    _write_evidence(out, report)
    _write_examined(out, report)
    _write_crashes(out, report)
    _write_checks(out, report)
    return str(out)


class _Sheet(msgspec.Struct):
    """What is written so far. Of what does not fit, only the number is kept."""

    blocks: list[str] = msgspec.field(default_factory=list)
    size: int = 0

    def add(self, block: str, room: int = _ROOM) -> bool:
        """Write a block whole, or not at all."""
        size = len(block.encode("utf-8", "replace")) + 1
        if self.size + size > room:
            return False
        self.blocks.append(block)
        self.size += size
        return True

    def fold(self, summary: str, blocks: Iterable[str], more: str) -> None:
        """A folded part; `more` says what it is of which some were left out."""
        waiting = list(blocks)
        # The heading, the end and the sentence about what is left out must fit too.
        room = _ROOM - 400
        if not waiting or self.size + 400 > _ROOM:
            return
        self.add(f"<details><summary>{summary}</summary>\n")
        shown = 0
        for block in waiting:
            if not self.add(block, room):
                break
            shown += 1
        if shown < len(waiting):
            self.add(f"\n{_left_out(len(waiting) - shown, more)}")
        self.add("\n</details>\n")

    def __str__(self) -> str:
        return "\n".join(self.blocks).rstrip("\n") + "\n"


def _left_out(number: int, noun: str) -> str:
    return (
        f"*{wording.count(number, f'more {noun}')} left out here, for GitHub takes {LIMIT:,} "
        "characters: `meshdoctor check --format json` has all.*"
    )


# ---------------------------------------------------------------- on top


def _write_causes(out: _Sheet, faults: Sequence[Tree]) -> None:
    folded = fold(faults)
    for number, branch in enumerate(folded):
        lines = list(_lines(branch, 0))
        if out.add("\n".join(lines) + "\n", _FOR_CAUSES):
            continue
        # The root alone, and what of its symptoms fits.
        shown = 0
        for line in lines:
            if not out.add(line, _FOR_CAUSES - 400):
                break
            shown += 1
        if shown:
            out.add(f"\n{_left_out(len(lines) - shown, 'symptom')}\n")
        if left := len(folded) - number - bool(shown):
            out.add(f"{_left_out(left, 'cause')}\n")
        return


def _lines(branch: Branch, depth: int) -> Iterator[str]:
    """A list item for each finding, its symptoms indented below it."""
    indent = "  " * min(depth, _DEEPEST)
    match branch:
        case Again(finding):
            about = f" {leading_subject(finding)}:" if finding.subjects else ""
            yield f"{indent}- {_mark(finding)}{_prose(about)} see above."
        case Alike(alike):
            leading = [each.finding.subjects[0].name for each in alike if each.finding.subjects]
            about = f", about {wording.names(leading)}" if leading else ""
            like_it = f"{len(alike)} more like it{_prose(about)}"
            yield (
                f"{indent}- {_mark(alike[0].finding)} {like_it}. "
                "`meshdoctor check --format json` has each."
            )
        case Tree(finding, symptoms):
            message = _prose(finding.message)
            yield f"{indent}- {_mark(finding)} {message}"
            for symptom in symptoms:
                yield from _lines(symptom, depth + 1)


def _mark(finding: ReportedFinding) -> str:
    return f"**{finding.severity} {finding.code}**"


def _write_remedies(out: _Sheet, report: Report, faults: Sequence[Tree]) -> None:
    """The first remedy of each cause in view, the others folded."""
    first: list[str] = []
    further: list[str] = []
    said: set[Remedy] = set()
    for tree in faults:
        remedies = [where_it_was_seen(each, report.recorded) for each in tree.remedies]
        for number, remedy in enumerate(remedies):
            if remedy in said:
                continue
            said.add(remedy)
            (further if number else first).append(_remedy(tree.finding.code, remedy))
    if not first:
        return
    out.add("### What to do\n")
    shown = 0
    for block in first:
        if not out.add(block, _FOR_REMEDIES):
            break
        shown += 1
    if left := len(first) - shown:
        out.add(f"{_left_out(left, 'step')}\n")
    steps = wording.count(len(further), "more step")
    out.fold(f"Should that not be enough: {steps}", further, "step")


def _remedy(code: str, remedy: Remedy) -> str:
    remedy = brief(remedy)
    parts = [f"**{code}**: {_prose(remedy.summary)}"]
    if remedy.destructive:
        parts.append(f"**Careful, this loses something:** {_prose(remedy.effect or '')}")
    elif remedy.effect:
        parts.append(_prose(remedy.effect))
    if remedy.patch:
        parts.append(_block(remedy.patch, "diff"))
    if remedy.commands:
        said = "\n".join(remedy.commands)
        parts.append(_block(said, "sh"))
        if any(printable(line, _TERMINAL) != line for line in said.split("\n")):
            parts.append(
                "Do not paste these: they have characters that cannot be shown. The JSON report "
                "has them as they are."
            )
    return "\n\n".join(parts) + "\n"


def _write_versions(out: _Sheet, report: Report) -> None:
    told = [f"meshdoctor {report.tool_version}"]
    told += [f"{each.name} {each.version}" for each in report.versions]
    shown = "; ".join(_prose(each, _LONGEST_EXCERPT) for each in told[: wording.MOST_NAMES])
    more = len(told) - wording.MOST_NAMES
    out.add(f"**Versions:** {shown}{f' and {more} more' if more > 0 else ''}.\n")


# ---------------------------------------------------------------- folded


def _write_notes(out: _Sheet, notes: Sequence[Tree]) -> None:
    lines = [line for branch in fold(notes) for line in _lines(branch, 0)]
    out.fold(f"Notes ({len(notes)})", lines, "note")


def _write_facts(out: _Sheet, report: Report) -> None:
    facts = [f"- {_prose(fact.message)}" for each in report.checks for fact in each.facts]
    out.fold(f"What was verified ({len(facts)})", facts, "fact")


def _write_evidence(out: _Sheet, report: Report) -> None:
    """Where each finding was seen."""
    cited = [finding for finding in report.findings if finding.seen_in or finding.references]
    blocks = []
    for finding in cited:
        lines = [f"- {_mark(finding)} ({finding.id}) {_prose(finding.message, _LONGEST_EXCERPT)}"]
        lines += [f"  - {_citation(each)}" for each in finding.seen_in[: wording.MOST_NAMES]]
        if (more := len(finding.seen_in) - wording.MOST_NAMES) > 0:
            lines.append(f"  - and {wording.count(more, 'more place')}")
        lines += [f"  - see {_link(each)}" for each in finding.references]
        blocks.append("\n".join(lines))
    out.fold(f"Evidence: where {_findings(len(cited))} seen", blocks, "finding")


def _findings(number: int) -> str:
    return "1 finding was" if number == 1 else f"{number} findings were"


def _citation(citation: Citation) -> str:
    where = _code(f"{citation.document} {citation.pointer}".rstrip())
    if citation.excerpt is None:
        return where
    return f"{where}: {_code(_shortened(citation.excerpt, _LONGEST_EXCERPT))}"


def _write_examined(out: _Sheet, report: Report) -> None:
    lines = [f"- {_prose(each)}" for each in wording.examined(report)]
    lines += [f"- {_prose(wording.suppression(report, each))}" for each in report.suppressions]
    missing = wording.unexamined(report)
    for each in missing:
        codes = f" Skipped for it: {', '.join(each.codes)}." if each.codes else ""
        lines.append(f"- {_prose(f'Not examined: {each.sentence} {each.hint}'.rstrip())}{codes}")
    also = f", and {wording.count(len(missing), 'thing')} that could not be" if missing else ""
    out.fold(f"What was examined{also}", lines, "line")


def _write_crashes(out: _Sheet, report: Report) -> None:
    """Tracebacks are what the authors of the checks need."""
    crashed = [each for each in report.checks if each.verdict is CheckVerdict.CRASHED]
    blocks = [
        f"**{_prose(f'{each.code} {each.name}')}**: {_prose(each.reason)}\n\n"
        + (_block(each.traceback, "") if each.traceback else "")
        for each in crashed
    ]
    number = wording.count(len(crashed), "check")
    out.fold(f"{number} crashed: the fault is in the check, not in the mesh", blocks, "crash")


def _write_checks(out: _Sheet, report: Report) -> None:
    lines = [f"- {_checked(each)}" for each in report.checks]
    out.fold(f"Checks ({len(lines)})", lines, "check")


def _checked(result: CheckResult) -> str:
    title = f": {_prose(result.title)}" if result.title else ""
    return f"{result.verdict}: {_prose(f'{result.code} {result.name}')}{title}"


# ---------------------------------------------------------------- what is only text


def _prose(text: str, longest: int = _LONGEST) -> str:
    """One line that reads as `text` and does nothing."""
    shown = printable(_shortened(text.lstrip(" "), longest), _TERMINAL)
    shown = re.sub(_REFERENCE, lambda match: f"{match[0]}{_BREAK}", shown)
    shown = re.sub(_HEXADECIMAL, rf"\1{_BREAK}", shown)
    shown = shown.translate(_ESCAPED).translate(_ENTITIES)
    return re.sub(_START, r"\1\\\2", shown)


def _code(text: str) -> str:
    """A code span, whatever backticks are in it."""
    shown = printable(text, _TERMINAL)
    fence = "`" * (_longest_run(shown) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}" if shown.strip() else ""


def _block(text: str, language: str) -> str:
    """A block of code; the lines of it are shown whole, or not at all."""
    if len(text) > _LONGEST_BLOCK:
        return (
            f"*What stands here has {len(text):,} characters: `meshdoctor check --format json` "
            "has it.*"
        )
    lines = [printable(line.expandtabs(), _TERMINAL) for line in text.rstrip("\n").split("\n")]
    body = "\n".join(lines)
    fence = "`" * max(3, _longest_run(body) + 1)
    return f"{fence}{language}\n{body}\n{fence}"


def _link(address: str) -> str:
    """A link only where nothing in the address could be more than one."""
    return f"<{address}>" if _ADDRESS.fullmatch(address) else _code(address)


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest].rstrip()}…"
