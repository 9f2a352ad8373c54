"""Where every call lands, as a table on a terminal and as `meshdoctor.matrix/v1`."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from rich.cells import cell_len

from meshdoctor.report import schemas, wording
from meshdoctor.report.json import written
from meshdoctor.report.page import Page
from meshdoctor.report.terminal import Terminal, printable
from meshdoctor.routing.calls import WORST_FIRST, Pair, Verdict

SCHEMA: Final = "meshdoctor.matrix/v1"

_SIGNS: Final = {
    Verdict.RIGHT: "✓",
    Verdict.WRONG: "✗",
    Verdict.NOWHERE: "✗",
    Verdict.BY_LUCK: "!",
    Verdict.UNKNOWN: "?",
}
_STYLES: Final = {
    Verdict.RIGHT: "green",
    Verdict.WRONG: "bold red",
    Verdict.NOWHERE: "bold red",
    Verdict.BY_LUCK: "bold yellow",
    Verdict.UNKNOWN: "bold magenta",
}

_MANY_CALLERS: Final = 12
"""Callers that are still read one by one. Of more, those whose calls fare alike share a row."""
_MOST_NAMES: Final = 24
_FIRST_NAMES: Final = 12
_FEW_NAMES: Final = 3
_MOST_REASONS: Final = 20
_GAP: Final = "  "
_AT_ONCE: Final = 1000

Column = tuple[str, int]
"""A callee and its port."""


class Matrix(msgspec.Struct, frozen=True):
    """The calls to report on. `shown` are those to print, where only some were asked for.

    `snapshots` are the paths of the recordings they were read from, () for a live mesh.
    """

    pairs: Sequence[Pair]
    shown: Sequence[Pair]
    snapshots: tuple[str, ...] = ()

    def count(self, verdict: Verdict) -> int:
        """How many of all the calls fare so."""
        return sum(pair.verdict is verdict for pair in self.pairs)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that every document satisfies."""
    return schemas.load("matrix-v1")


def render_json(matrix: Matrix) -> str:
    """One JSON document, in ASCII, with a line end."""
    document = {
        "schema": SCHEMA,
        "summary": {verdict.value: matrix.count(verdict) for verdict in WORST_FIRST},
        "pairs": [],
    }
    before, nothing, after = written(document).rpartition("[]")
    shown = matrix.shown
    # Bit by bit: what is written of a million pairs at once takes many times the memory.
    parts = (shown[start : start + _AT_ONCE] for start in range(0, len(shown), _AT_ONCE))
    pairs = ",".join(written(list(map(_pair, part)))[1:-3] for part in parts)
    # They stand one step further in. Within texts, line ends are escaped.
    listed = pairs.replace("\n", "\n  ")
    return f"{before}[{listed}\n  ]{after}" if listed else f"{before}{nothing}{after}"


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "caller": pair.caller,
        "callee": pair.callee,
        "port": pair.port,
        "url": pair.url,
        "verdict": pair.verdict.value,
        "reached": pair.reached,
        "instances": list(pair.instances),
        "status": pair.status,
        "reason": pair.reason,
        "sidecar": pair.sidecar,
    }


def render(matrix: Matrix, terminal: Terminal | None = None) -> str:
    """The table as text for `terminal`, by default for a pipe."""
    page = Page(terminal or Terminal())
    columns = sorted({(pair.callee, pair.port) for pair in matrix.shown})
    rows = _rows(matrix.shown)
    if matrix.shown and not _write_table(page, columns, rows):
        _write_lists(page, columns, rows)
    _write_alike(page, rows)
    page.gap()
    page.paragraph(page.text((summary(matrix), "bold")))
    _write_reasons(page, matrix.shown)
    _write_hint(page, matrix)
    return str(page)


def summary(matrix: Matrix) -> str:
    """How the calls fare, in one sentence, the worst first."""
    total = len(matrix.pairs)
    right = matrix.count(Verdict.RIGHT)
    if right == total:
        return f"{_all(total)} the service {'it names' if total == 1 else 'they name'}."
    said: list[str] = []
    for verdict in WORST_FIRST:
        number = matrix.count(verdict)
        if number:
            of = f" of {wording.count(total, 'call')}" if not said else ""
            said.append(f"{number}{of} {_fate(verdict, number)}")
    return f"{', '.join(said)}."


def _all(total: int) -> str:
    return "The one call reaches" if total == 1 else f"All {total} calls reach"


def _fate(verdict: Verdict, number: int) -> str:
    one = number == 1
    match verdict:
        case Verdict.WRONG:
            return f"{'reaches' if one else 'reach'} the wrong service"
        case Verdict.NOWHERE:
            return f"{'ends' if one else 'end'} nowhere"
        case Verdict.UNKNOWN:
            return "cannot be told"
        case Verdict.BY_LUCK:
            return f"{'is' if one else 'are'} right only by luck"
        case Verdict.RIGHT:
            return f"{'is' if one else 'are'} right"


# ---------------------------------------------------------------- rows


class _Row(msgspec.Struct):
    """Callers whose calls fare alike, but for those of a service to itself."""

    callers: list[str]
    columns: frozenset[Column]
    cells: dict[Column, Pair]
    own: dict[Column, Pair]

    def takes(self, columns: frozenset[Column], cells: Mapping[Column, Pair]) -> bool:
        """Whether another caller's calls fare like these, where both have calls to compare."""
        return self.columns == columns and all(
            self.cells[column].fares == pair.fares
            for column, pair in cells.items()
            if column in self.cells
        )


def _rows(pairs: Iterable[Pair]) -> list[_Row]:
    callers: dict[str, dict[Column, Pair]] = defaultdict(dict)
    for pair in pairs:
        callers[pair.caller][pair.callee, pair.port] = pair
    if len(callers) <= _MANY_CALLERS:
        return [_Row([name], frozenset(), cells, {}) for name, cells in callers.items()]
    rows: list[_Row] = []
    for name, found in callers.items():
        cells = {column: pair for column, pair in found.items() if not pair.is_own}
        own = {column: pair for column, pair in found.items() if pair.is_own}
        columns = frozenset(found)
        row = next((each for each in rows if each.takes(columns, cells)), None)
        if row is None:
            rows.append(_Row([name], columns, cells, own))
        else:
            row.callers.append(name)
            row.cells |= cells
            row.own |= own
    for row in rows:
        if len(row.callers) == 1:
            row.cells |= row.own
            row.own = {}
    return rows


def _name(row: _Row) -> str:
    more = len(row.callers) - 1
    return row.callers[0] if not more else f"{row.callers[0]} and {more} like it"


def _cell(page: Page, pair: Pair | None) -> str:
    """How a call fares, in a word that needs no colour."""
    if pair is None:
        return ""
    sign = page.glyph(_SIGNS[pair.verdict])
    match pair.verdict:
        case Verdict.RIGHT:
            return sign
        case Verdict.WRONG:
            return f"{sign} {pair.reached or 'other'}"
        case Verdict.NOWHERE:
            return f"{sign} nowhere" if pair.status is None else f"{sign} nowhere {pair.status}"
        case Verdict.BY_LUCK:
            return f"{sign} by luck"
        case Verdict.UNKNOWN:
            return f"{sign} unknown"


def _labels(columns: Sequence[Column]) -> dict[Column, str]:
    ports = {port for _, port in columns}
    return {(name, port): name if len(ports) == 1 else f"{name}:{port}" for name, port in columns}


# ---------------------------------------------------------------- as a table


def _write_table(page: Page, columns: Sequence[Column], rows: Sequence[_Row]) -> bool:
    """Write callers down, callees across; False, and nothing, where it is too wide."""
    labels = _labels(columns)
    table = [["", *labels.values()]]
    table += [
        [_name(row), *(_cell(page, row.cells.get(each)) for each in columns)] for row in rows
    ]
    table = [[printable(text, page.terminal) for text in line] for line in table]
    widths = [max(map(cell_len, cells)) for cells in zip(*table, strict=True)]
    if sum(widths) + len(_GAP) * (len(widths) - 1) > page.terminal.width:
        return False
    _write_title(page, columns)
    for line, row in zip(table, (None, *rows), strict=True):
        parts: list[str | tuple[str, str]] = []
        for place, (text, width) in enumerate(zip(line, widths, strict=True)):
            padded = text + " " * (width - cell_len(text))
            pair = row.cells.get(columns[place - 1]) if row is not None and place else None
            style = "bold" if row is None else "" if pair is None else _STYLES[pair.verdict]
            parts += [_GAP, (padded, style)] if place else [(padded, style)]
        page.row(*parts)
    return True


def _write_title(page: Page, columns: Sequence[Column]) -> None:
    ports = {port for _, port in columns}
    port = f", all on port {ports.pop()}" if len(ports) == 1 else ""
    page.paragraph(page.text((f"Callers down, the services they call across{port}.", "dim")))
    page.gap()


# ---------------------------------------------------------------- as lists


def _write_lists(page: Page, columns: Sequence[Column], rows: Sequence[_Row]) -> None:
    """Each caller, and below it what it calls, by how the calls fare."""
    labels = _labels(columns)
    ports = {port for _, port in columns}
    if len(ports) == 1:
        page.paragraph(page.text((f"All calls are to port {ports.pop()}.", "dim")))
    for row in rows:
        page.gap()
        verb = "calls" if len(row.callers) == 1 else "call"
        page.paragraph(page.text((f"{_name(row)} {verb}", "bold")), "", "  ")
        fates: dict[tuple[Verdict, str], list[Column]] = defaultdict(list)
        for column in columns:
            pair = row.cells.get(column)
            if pair is not None:
                fates[pair.verdict, _cell(page, pair)].append(column)
        for (verdict, said), called in sorted(
            fates.items(), key=lambda each: (WORST_FIRST.index(each[0][0]), each[0][1])
        ):
            word = f"{said} answers" if verdict is Verdict.WRONG else said
            word = f"{said} right" if verdict is Verdict.RIGHT else word
            names = _called([labels[each] for each in called], list(labels.values()))
            page.paragraph(page.text((f"{word}:", _STYLES[verdict]), f" {names}"), "  ", "    ")


def _called(called: Sequence[str], labels: Sequence[str]) -> str:
    """The services, or which are missing where these are nearly all."""
    missing = sorted(set(labels) - set(called))
    if len(called) > _MOST_NAMES and len(missing) <= _FEW_NAMES:
        but = f" but {', '.join(missing)}" if missing else ""
        return f"all {len(labels)} services{but}"
    return _names(called)


def _write_alike(page: Page, rows: Sequence[_Row]) -> None:
    """Who shares a row with whom, and how those call themselves."""
    shared = [row for row in rows if len(row.callers) > 1]
    if not shared:
        return
    page.gap()
    for row in shared:
        page.paragraph(
            page.text((f"Like {row.callers[0]}: {_names(row.callers[1:])}", "dim")), "", "  "
        )
    page.paragraph(page.text(("Each call is in `--format json`.", "dim")))
    own = Counter(pair.verdict for row in shared for pair in row.own.values())
    if own:
        said = ", ".join(f"{own[each]} {each.value}" for each in WORST_FIRST if own[each])
        page.paragraph(
            page.text((f"Calls of services to themselves are not in these rows: {said}.", "dim"))
        )


# ---------------------------------------------------------------- why


def _write_reasons(page: Page, pairs: Iterable[Pair]) -> None:
    """One line for each distinct reason."""
    reasons: dict[tuple[Verdict, str | None, int | None, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.verdict is not Verdict.RIGHT:
            reasons[pair.verdict, pair.reached, pair.status, pair.why].append(pair)
    ordered = sorted(
        reasons.items(), key=lambda each: (WORST_FIRST.index(each[0][0]), -len(each[1]))
    )
    for (verdict, _, _, why), found in ordered[:_MOST_REASONS]:
        sign = page.glyph(_SIGNS[verdict])
        page.paragraph(
            page.text((f"{sign} {_what(found)}:", _STYLES[verdict]), f" {wording.ended(why)}"),
            "",
            " " * (len(sign) + 1),
        )
    left = len(ordered) - _MOST_REASONS
    if left > 0:
        page.paragraph(page.text(f"{wording.count(left, 'more reason')}: see `--format json`."))


def _what(pairs: Sequence[Pair]) -> str:
    first = pairs[0]
    called = _names(sorted({pair.callee for pair in pairs}))
    calls = wording.count(len(pairs), "call")
    match first.verdict:
        case Verdict.WRONG:
            return f"{first.reached or 'Somebody'} answers instead of {called} ({calls})"
        case Verdict.NOWHERE:
            status = f", status {first.status}" if first.status is not None else ""
            return f"{called} is not reached{status} ({calls})"
        case Verdict.BY_LUCK | Verdict.RIGHT:
            return f"{called} is reached by luck ({calls})"
        case Verdict.UNKNOWN:
            callers = wording.count(len({each.caller for each in pairs}), "caller")
            return f"{callers} unknown ({calls})"


def _write_hint(page: Page, matrix: Matrix) -> None:
    bad = [pair for pair in matrix.shown if pair.verdict in (Verdict.WRONG, Verdict.NOWHERE)]
    for pair in bad:
        # Where several upstreams have one local address, only the name says which is meant.
        alike = {each.callee for each in matrix.pairs if each.url == pair.url}
        url = pair.url if len(alike) == 1 else f"http://{pair.callee}/"
        recorded = [word for path in matrix.snapshots for word in ("--snapshot", path)]
        command = shlex.join(("meshdoctor", "trace", pair.caller, url, *recorded))
        if not page.alters(command):
            page.gap()
            page.paragraph(page.text(("Follow one of these calls hop by hop:", "dim")))
            page.verbatim(command, "  ", "cyan")
            return


# ---------------------------------------------------------------- words


def _names(names: Sequence[str]) -> str:
    if len(names) <= _MOST_NAMES:
        return ", ".join(names)
    first = ", ".join(names[:_FIRST_NAMES])
    return f"{first} and {len(names) - _FIRST_NAMES} more"
