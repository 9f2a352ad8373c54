"""The mesh as it is drawn: who calls whom, who stands beside whom, and where calls land.

What fares alike is put together, so that a mesh of any size fits on a page.
"""

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Self

import msgspec

from meshdoctor.kinds import Kind
from meshdoctor.routing.calls import WORST_FIRST, Pair, Verdict
from meshdoctor.topology import Mesh, Role, SidecarState

if TYPE_CHECKING:
    from meshdoctor.topology.plan import Plan

MANY: Final = 16
"""Callers, or services, that are shown one by one. Of more, those that fare alike are one."""
MOST: Final = 24
"""So many groups are shown, the worst first; the others are counted."""

Column = tuple[str, int]
"""A service and its port."""


class Condition(enum.StrEnum):
    """How a part of the mesh is."""

    WELL = "well"
    UNREAD = "unread"
    DOWN = "down"
    MISSING = "missing"


class Beside(msgspec.Struct, frozen=True):
    """A sidecar, or its place where there is none (`name` is "")."""

    name: str
    condition: Condition


class Part(msgspec.Struct, frozen=True):
    """A control-plane component: its role as a sentence has it, and its container."""

    called: str
    name: str
    condition: Condition


class Offered(msgspec.Struct, frozen=True):
    """A service on one port, and the protocol that it declares there.

    That is "" where it declares none, and None where nobody asks for it.
    """

    service: str
    port: int
    protocol: str | None


class Callers(msgspec.Struct, frozen=True):
    """Workloads whose calls fare alike; `offers` are the services that the first of them is."""

    names: tuple[str, ...]
    beside: Beside
    offers: tuple[Column, ...]
    condition: Condition


class Callees(msgspec.Struct, frozen=True):
    """Services on a port that are reached alike."""

    offered: tuple[Offered, ...]

    @property
    def columns(self) -> frozenset[Column]:
        """What of the matrix is in it."""
        return frozenset((each.service, each.port) for each in self.offered)


class Reason(msgspec.Struct, frozen=True):
    """Why calls end as they do, and how many do."""

    verdict: Verdict
    reached: str | None
    status: int | None
    why: str
    callees: tuple[str, ...]
    calls: int


class Picture(msgspec.Struct, frozen=True):
    """What there is to draw.

    `cells` says how the calls of a group of callers to a group of services fare, by their places
    in `callers` and `callees`. `more_callers` and `more_callees` are groups that are not shown.
    `own` counts calls of workloads to their own service that are in no cell.
    """

    parts: tuple[Part, ...] = ()
    callers: tuple[Callers, ...] = ()
    callees: tuple[Callees, ...] = ()
    cells: Mapping[tuple[int, int], Pair] | None = None
    counts: Mapping[Verdict, int] | None = None
    reasons: tuple[Reason, ...] = ()
    more_callers: int = 0
    more_callees: int = 0
    own: int = 0
    planned: bool = False

    @classmethod
    def of(cls, mesh: Mesh | None, pairs: Sequence[Pair] = ()) -> Self:
        """What of a mesh is known, and where its calls land."""
        if mesh is None:
            return cls()
        parts = tuple(
            _part(each.role, each.name, running=each.container.running) for each in mesh.components
        )
        # Only Pilot takes a service's protocol from the catalogue.
        is_asked_for = Kind.ISTIO_CONSUL in mesh.kinds
        protocols: dict[Column, str | None] = {
            (service.name, port): (service.protocols(port)[0] or "") if is_asked_for else None
            for service in mesh.applications
            for port in service.ports
        }
        known = {}
        for each in mesh.workloads:
            running = each.container is None or each.container.running
            beside = [Beside(one.name, _CONDITIONS[one.state]) for one in each.sidecars]
            known[each.name] = Callers(
                names=(each.name,),
                beside=min(beside, key=_severity) if beside else _NOBODY,
                offers=tuple(sorted({(one.service, one.port) for one in each.instances})),
                condition=Condition.WELL if running else Condition.DOWN,
            )
        return cls._drawn(parts, known, protocols, pairs)

    @classmethod
    def planned_by(cls, plan: "Plan") -> Self:
        """What Compose files would start."""
        parts = tuple(_part(each.role, each.name, running=True) for each in plan.components)
        protocols: dict[Column, str | None] = {
            (each.service, each.port): each.protocol or "" for each in plan.instances
        }
        known = {
            each.name: Callers(
                names=(each.name,),
                beside=Beside(each.sidecars[0].name, Condition.WELL) if each.sidecars else _NOBODY,
                offers=tuple(sorted({(one.name, one.port) for one in each.expected})),
                condition=Condition.WELL,
            )
            for each in plan.workloads
            if each.expected or each.sidecars or each.has_settings
        }
        return cls._drawn(parts, known, protocols, (), planned=True)

    @classmethod
    def _drawn(
        cls,
        parts: tuple[Part, ...],
        known: Mapping[str, Callers],
        protocols: Mapping[Column, str | None],
        pairs: Sequence[Pair],
        *,
        planned: bool = False,
    ) -> Self:
        called = {(pair.callee, pair.port) for pair in pairs}
        # A service is often called on a port of the caller's own, and never on the one it has.
        names = {name for name, _ in called}
        columns = sorted(called | {each for each in protocols if each[0] not in names})
        is_large = len(known) > MANY or len(columns) > MANY
        rows = _rows(known, pairs, fold=is_large)
        groups = _columns(columns, rows, fold=is_large)
        if is_large:
            rows.sort(key=lambda row: row.rank)
            groups.sort(key=lambda group: _rank_of(rows, group))
        shown, listed = rows[:MOST], groups[:MOST]
        counts: dict[Verdict, int] = defaultdict(int)
        for pair in pairs:
            counts[pair.verdict] += 1
        return cls(
            parts=parts,
            callers=tuple(row.callers(known) for row in shown),
            callees=tuple(
                Callees(tuple(Offered(*each, protocols.get(each)) for each in group))
                for group in listed
            ),
            cells={
                (down, across): found
                for down, row in enumerate(shown)
                for across, group in enumerate(listed)
                if (found := next((row.cells[e] for e in group if e in row.cells), None))
                is not None
            },
            counts={each: counts[each] for each in WORST_FIRST if counts[each]},
            reasons=_reasons(pairs),
            more_callers=sum(len(row.names) for row in rows[MOST:]),
            more_callees=sum(map(len, groups[MOST:])),
            own=sum(len(row.own) for row in rows),
            planned=planned,
        )


_CONDITIONS: Final = {
    SidecarState.EXAMINED: Condition.WELL,
    SidecarState.UNREACHABLE: Condition.UNREAD,
    SidecarState.DOWN: Condition.DOWN,
}
_NOBODY: Final = Beside("", Condition.MISSING)


def _severity(beside: Beside) -> tuple[int, str]:
    """A sidecar that was read tells more than one that was not."""
    return list(Condition).index(beside.condition), beside.name


def _part(role: Role, name: str, *, running: bool) -> Part:
    called = role.called.removeprefix("the ")
    condition = Condition.WELL if running else Condition.DOWN
    return Part(f"{called[0].upper()}{called[1:]}", name, condition)


# ---------------------------------------------------------------- what fares alike


class _Row(msgspec.Struct):
    """Callers whose calls fare alike, but for those of a service to itself."""

    names: list[str]
    key: object
    cells: dict[Column, Pair]
    own: list[Pair]

    @property
    def rank(self) -> tuple[int, str]:
        verdicts = [WORST_FIRST.index(pair.verdict) for pair in self.cells.values()]
        worst = min(verdicts, default=len(WORST_FIRST))
        return worst, self.names[0]

    def takes(self, key: object, cells: Mapping[Column, Pair]) -> bool:
        """Whether another caller's calls fare like these, where both have calls to compare."""
        return self.key == key and all(
            self.cells[column].fares == pair.fares
            for column, pair in cells.items()
            if column in self.cells
        )

    def callers(self, known: Mapping[str, Callers]) -> Callers:
        first = known.get(self.names[0])
        if first is None:
            return Callers(tuple(self.names), _NOBODY, (), Condition.WELL)
        return Callers(tuple(self.names), first.beside, first.offers, first.condition)


def _fate(pair: Pair | None) -> tuple[Verdict, str | None, int | None] | None:
    """How a call fares, whatever service it is to: who is reached rightly, is reached."""
    if pair is None:
        return None
    return pair.verdict, pair.reached if pair.verdict is Verdict.WRONG else None, pair.status


def _rows(known: Mapping[str, Callers], pairs: Iterable[Pair], *, fold: bool) -> list[_Row]:
    calls: dict[str, dict[Column, Pair]] = {name: {} for name in known}
    for pair in pairs:
        calls.setdefault(pair.caller, {})[pair.callee, pair.port] = pair
    if not fold:
        return [_Row([name], None, cells, []) for name, cells in calls.items()]
    rows: dict[object, list[_Row]] = defaultdict(list)
    for name, found in calls.items():
        caller = known.get(name)
        state = (caller.condition, caller.beside.condition) if caller is not None else None
        key = (state, frozenset(found))
        cells = {column: pair for column, pair in found.items() if not pair.is_own}
        own = [pair for pair in found.values() if pair.is_own]
        row = next((each for each in rows[key] if each.takes(key, cells)), None)
        if row is None:
            rows[key].append(_Row([name], key, cells, own))
        else:
            row.names.append(name)
            row.cells |= cells
            row.own += own
    return [each for group in rows.values() for each in group]


def _columns(
    columns: Sequence[Column], rows: Sequence[_Row], *, fold: bool
) -> list[tuple[Column, ...]]:
    if not fold:
        return [(each,) for each in columns]
    groups: dict[object, list[Column]] = defaultdict(list)
    for each in columns:
        groups[tuple(_fate(row.cells.get(each)) for row in rows)].append(each)
    # Whoever answers for others is drawn apart, though it be called like them.
    answering = {
        (pair.reached, pair.port)
        for row in rows
        for pair in row.cells.values()
        if pair.verdict is Verdict.WRONG
    }
    split: list[tuple[Column, ...]] = []
    for group in groups.values():
        alone = [each for each in group if each in answering]
        rest = tuple(each for each in group if each not in answering)
        split += [(each,) for each in alone]
        if rest:
            split.append(rest)
    return split


def _rank_of(rows: Sequence[_Row], group: Sequence[Column]) -> tuple[int, str, int]:
    name, port = group[0]
    verdicts = [
        WORST_FIRST.index(row.cells[each].verdict)
        for row in rows
        for each in group
        if each in row.cells
    ]
    return min(verdicts, default=len(WORST_FIRST)), name, port


def _reasons(pairs: Iterable[Pair]) -> tuple[Reason, ...]:
    """Each distinct reason of calls that are not right, the worst and most frequent first."""
    found: dict[tuple[Verdict, str | None, int | None, str], list[Pair]] = defaultdict(list)
    unknown: list[Pair] = []
    for pair in pairs:
        if pair.verdict is Verdict.UNKNOWN:
            # Each caller has a reason of its own; the first of them is an example.
            unknown.append(pair)
        elif pair.verdict is not Verdict.RIGHT:
            found[pair.verdict, pair.reached, pair.status, pair.why].append(pair)
    reasons = [
        Reason(*key, tuple(sorted({pair.callee for pair in alike})), len(alike))
        for key, alike in found.items()
    ]
    if unknown:
        whys = dict.fromkeys(pair.why for pair in unknown)
        more = len(whys) - 1
        why = next(iter(whys)) + (f"; of others for {more} more reasons like it" if more else "")
        callees = tuple(sorted({pair.callee for pair in unknown}))
        reasons.append(Reason(Verdict.UNKNOWN, None, None, why, callees, len(unknown)))
    return tuple(
        sorted(
            reasons,
            key=lambda each: (WORST_FIRST.index(each.verdict), -each.calls, each.callees),
        )
    )
