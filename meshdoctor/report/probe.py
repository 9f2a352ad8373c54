"""Prediction beside reality: as a table on a terminal, and as the member `probe` of the report.

`meshdoctor probe --format json` prints the report, `meshdoctor.report/v1`, with one member more:
`probe`, whose form is in `schema/probe-v1.json`.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from rich.cells import cell_len

from meshdoctor.evidence.probe import How
from meshdoctor.report import json as report_json
from meshdoctor.report import schemas, wording
from meshdoctor.report.document import Report
from meshdoctor.report.json import written
from meshdoctor.report.page import Page
from meshdoctor.report.terminal import Terminal, printable
from meshdoctor.routing.calls import Verdict
from meshdoctor.routing.probed import Agreement, Comparison, End

_SIGNS: Final = {
    Agreement.DIFFERENT: "✗",
    Agreement.UNKNOWN: "?",
    Agreement.SAME: "✓",
}
_STYLES: Final = {
    Agreement.DIFFERENT: "bold red",
    Agreement.UNKNOWN: "bold magenta",
    Agreement.SAME: "green",
}
_HEAD: Final = ("caller", "calls", "prediction", "reality", "known by", "")
_GAP: Final = "  "
_MOST_ROWS: Final = 60
"""Of more requests than these only those are printed that did not go as they should."""


class Outcome(msgspec.Struct, frozen=True):
    """What the probe came to. `left_out` says what was not asked, and why."""

    compared: Sequence[Comparison]
    left_out: Sequence[str] = ()

    def count(self, agreement: Agreement) -> int:
        """How many requests met, or did not meet, what was predicted."""
        return sum(each.agreement is agreement for each in self.compared)

    @property
    def right(self) -> int:
        """How many were answered by the service they were for."""
        return sum(map(_is_right, self.compared))


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the member `probe`."""
    return schemas.load("probe-v1")


def render_json(report: Report, outcome: Outcome) -> str:
    """The report as one JSON document, in ASCII, with the member `probe`."""
    document = json.loads(report_json.render(report))
    document["probe"] = {
        "summary": {
            "requests": len(outcome.compared),
            "right": outcome.right,
            **{each.value: outcome.count(each) for each in Agreement},
        },
        "left_out": list(outcome.left_out),
        "requests": [_request(each) for each in outcome.compared],
    }
    return written(document)


def _request(comparison: Comparison) -> dict[str, Any]:
    request = comparison.request
    by = request.answered_by
    return {
        "caller": comparison.probed.caller,
        "callee": request.callee,
        "port": request.port,
        "url": request.url,
        "path": request.path,
        "way": comparison.probed.way,
        "predicted": {
            **_end(comparison.predicted),
            "verdict": Verdict.UNKNOWN.value
            if comparison.pair is None
            else comparison.pair.verdict.value,
        },
        "observed": {
            **_end(comparison.observed),
            "status": None if request.answer is None else request.answer.status,
            "known_by": by.how.value,
            "flag": by.flag,
            "connected": request.connected,
            "resolution": request.resolution,
            "failure": request.failure.value,
            "error": request.error,
        },
        "agreement": comparison.agreement.value,
    }


def _end(end: End) -> dict[str, Any]:
    return {"services": sorted(end.services), "nowhere": end.nowhere, "status": end.status}


# ---------------------------------------------------------------- on a terminal


def render(outcome: Outcome, terminal: Terminal | None = None) -> str:
    """The table as text for `terminal`, by default for a pipe."""
    page = Page(terminal or Terminal())
    shown = list(outcome.compared)
    if len(shown) > _MOST_ROWS:
        shown = [each for each in shown if not _is_right(each) or not _agrees(each)]
    if shown and not _write_table(page, shown):
        _write_list(page, shown)
    if len(shown) < len(outcome.compared):
        number = len(outcome.compared) - len(shown)
        page.gap()
        page.paragraph(
            page.text((f"{wording.count(number, 'request')} more went as they should.", "dim"))
        )
    page.gap()
    page.paragraph(page.text((summary(outcome), "bold")))
    for each in outcome.left_out:
        page.paragraph(page.text((f"not asked: {each}.", "dim")))
    return str(page)


def summary(outcome: Outcome) -> str:
    """How many went right, and how many as predicted, in one sentence."""
    total = len(outcome.compared)
    if not total:
        return "No request was sent."
    same = outcome.count(Agreement.SAME)
    differing = outcome.count(Agreement.DIFFERENT)
    unknown = outcome.count(Agreement.UNKNOWN)
    requests = wording.count(total, "request")
    said = f"{outcome.right} of {requests} {_were(outcome.right)} answered by the service asked; "
    said += f"{same} of {total} met what the configuration predicts"
    if differing:
        said += f", {differing} did not"
    if unknown:
        said += f", of {unknown} it is not known"
    return f"{said}."


def _is_right(comparison: Comparison) -> bool:
    return comparison.request.answered_by.service == comparison.request.callee


def _agrees(comparison: Comparison) -> bool:
    return comparison.agreement is Agreement.SAME


def _cells(page: Page, comparison: Comparison) -> list[str]:
    request = comparison.request
    by_luck = comparison.pair is not None and comparison.pair.verdict is Verdict.BY_LUCK
    sign = page.glyph(_SIGNS[comparison.agreement])
    return [
        comparison.probed.caller,
        f"{request.callee}:{request.port}",
        f"{comparison.predicted}{' (by luck)' if by_luck else ''}",
        reality(comparison),
        "" if request.answered_by.how is How.UNKNOWN else request.answered_by.how.value,
        f"{sign} {comparison.agreement}",
    ]


def reality(comparison: Comparison) -> str:
    """`reviews, 404`, `nowhere (503 UH)`, `refused`, `somebody, 200`."""
    request = comparison.request
    by = request.answered_by
    if request.answer is None:
        return by.service or request.failure.value
    if by.how is How.PROXY:
        return f"nowhere ({' '.join((str(request.answer.status), by.flag)).strip()})"
    return f"{by.service or 'somebody'}, {request.answer.status}"


def _write_table(page: Page, compared: Sequence[Comparison]) -> bool:
    """Write a row a request; False, and nothing, where it is too wide."""
    table = [list(_HEAD), *(_cells(page, each) for each in compared)]
    table = [[printable(text, page.terminal) for text in line] for line in table]
    widths = [max(map(cell_len, cells)) for cells in zip(*table, strict=True)]
    if sum(widths) + len(_GAP) * (len(widths) - 1) > page.terminal.width:
        return False
    for line, comparison in zip(table, (None, *compared), strict=True):
        padded = [
            text + " " * (width - cell_len(text)) for text, width in zip(line, widths, strict=True)
        ]
        if comparison is None:
            page.row((_GAP.join(padded), "bold"))
        else:
            page.row(_GAP.join(padded[:-1]), _GAP, (padded[-1], _STYLES[comparison.agreement]))
    return True


def _write_list(page: Page, compared: Sequence[Comparison]) -> None:
    """Two lines a request, for narrow terminals."""
    for each in compared:
        caller, callee, predicted, met, by, agreement = _cells(page, each)
        page.paragraph(page.text((f"{caller} calls {callee}", "bold")), "", "  ")
        known = f" ({by})" if by else ""
        page.paragraph(
            page.text(
                (agreement, _STYLES[each.agreement]),
                f": predicted {predicted}, met {met}{known}",
            ),
            "  ",
            "    ",
        )


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
