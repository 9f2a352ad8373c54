"""The mesh as lines and boxes: callers on the left, the services they call on the right.

Only places and words are worked out here; what they look like stands in the page's style.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from meshdoctor.findings import Severity
from meshdoctor.report import wording
from meshdoctor.report.picture import Callees, Callers, Condition, Picture
from meshdoctor.routing.calls import Verdict

WIDTH: Final = 960
_BOX: Final = 236
_SIDECAR: Final = 74
_HEIGHT: Final = 50
_STEP: Final = 66
_PART: Final = 168
_PART_HEIGHT: Final = 46
_GAP: Final = 16
_LONGEST: Final = 27
_LONGEST_PART: Final = 22
_MOST_CODES: Final = 2
_MANY_LINES: Final = 48
"""Of more lines, those of calls that are right are drawn faintly."""


class Mark(msgspec.Struct, frozen=True):
    """What the findings about one thing are: the worst severity, and their codes."""

    severity: Severity
    codes: tuple[str, ...]

    @classmethod
    def joined(cls, known: "Mark | None", severity: Severity, code: str) -> "Mark":
        if known is None:
            return cls(severity, (code,))
        worst = max(known.severity, severity, key=lambda each: each.rank)
        codes = known.codes if code in known.codes else (*known.codes, code)
        return cls(worst, codes)

    @property
    def said(self) -> str:
        """The codes, or the first of them."""
        more = len(self.codes) - _MOST_CODES
        return " ".join(self.codes[:_MOST_CODES]) + (f" +{more}" if more > 0 else "")


Marks = Mapping[tuple[str, str], Mark]


class Box(msgspec.Struct, frozen=True):
    """A part of the mesh. `whole` is its name uncut, `kind` and `mood` are classes."""

    x: int
    y: int
    width: int
    height: int
    name: str
    below: str
    whole: str
    kind: str
    mood: str
    mark: str


class Line(msgspec.Struct, frozen=True):
    """A way that calls take. `cross` is where it breaks off, None where it does not."""

    path: str
    mood: str
    cross: tuple[float, float] | None
    said: str


class Drawing(msgspec.Struct, frozen=True):
    """All there is to draw, and the same in words."""

    height: int
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    titles: tuple[tuple[int, int, str], ...]
    said: str
    faint: bool

    @property
    def width(self) -> int:
        return WIDTH


def draw(picture: Picture, marks: Marks) -> Drawing:
    """Place everything. The drawing grows with what is shown, which `picture` bounds."""
    return _Desk(picture, marks).drawing()


def group_name(callers: Callers) -> str:
    """The one caller, or the first and how many fare like it."""
    more = len(callers.names) - 1
    return callers.names[0] if not more else f"{callers.names[0]} and {more} like it"


def callee_name(callees: Callees) -> str:
    """The one service, or the first and how many are reached like it."""
    first, more = callees.offered[0], len(callees.offered) - 1
    return first.service if not more else f"{first.service} and {more} like it"


class _Desk:
    def __init__(self, picture: Picture, marks: Marks) -> None:
        self._picture = picture
        self._marks = marks
        self._lines: list[Line] = []
        self._boxes: list[Box] = []
        self._titles: list[tuple[int, int, str]] = []

    def drawing(self) -> Drawing:
        top = self._components()
        rows, columns = self._picture.callers, self._picture.callees
        most = max(len(rows), len(columns), 1)
        # The shorter side stands in the middle of the longer one.
        down = [top + _offset(most, len(rows)) + n * _STEP for n in range(len(rows))]
        across = [top + _offset(most, len(columns)) + n * _STEP for n in range(len(columns))]
        verb = "would be" if self._picture.planned else "are"
        calls = self._picture.counts
        self._titles.append((0, top - 26, "Workloads and their sidecars"))
        right = "Services that they call" if calls else f"Services that they {verb}"
        self._titles.append((WIDTH - _BOX, top - 26, right))
        self._callers(down)
        self._callees(across)
        if calls:
            self._calls(down, across)
        else:
            self._offers(down, across)
        self._lines.sort(key=lambda line: _LAYERS.index(line.mood))
        return Drawing(
            height=top + most * _STEP,
            boxes=tuple(self._boxes),
            lines=tuple(self._lines),
            titles=tuple(self._titles),
            said=self._said(),
            faint=sum(line.mood == "right" for line in self._lines) > _MANY_LINES,
        )

    def _components(self) -> int:
        """The control plane on top; where what follows begins."""
        parts = self._picture.parts
        if not parts:
            return 44
        self._titles.append((0, 12, "Control plane"))
        in_a_row = WIDTH // (_PART + _GAP)
        for number, part in enumerate(parts):
            row, place = divmod(number, in_a_row)
            self._box(
                (place * (_PART + _GAP), 28 + row * (_PART_HEIGHT + _GAP)),
                (_PART, _PART_HEIGHT),
                (part.called, part.name),
                ("part", part.condition),
                [("component", part.name)],
            )
        rows = -(-len(parts) // in_a_row)
        return 28 + rows * (_PART_HEIGHT + _GAP) + 56

    def _callers(self, places: Sequence[int]) -> None:
        for group, y in zip(self._picture.callers, places, strict=True):
            services = list(dict.fromkeys(f"{name}:{port}" for name, port in group.offers))
            below = ", ".join(services) or "no service of Consul's"
            if len(group.names) > 1:
                below = wording.count(len(group.names), "workload")
            self._box(
                (0, y),
                (_BOX, _HEIGHT),
                (group_name(group), below),
                ("workload", group.condition),
                [("workload", name) for name in group.names],
            )
            beside = group.beside
            said = {
                Condition.WELL: "Envoy",
                Condition.UNREAD: "not read",
                Condition.DOWN: "down",
                Condition.MISSING: "no sidecar",
            }[beside.condition]
            self._boxes.append(
                Box(
                    x=_BOX,
                    y=y + 8,
                    width=_SIDECAR,
                    height=_HEIGHT - 16,
                    name=said,
                    below="",
                    whole=f"sidecar {beside.name or 'missing'}",
                    kind="sidecar",
                    mood=str(beside.condition),
                    mark="",
                )
            )

    def _callees(self, places: Sequence[int]) -> None:
        for group, y in zip(self._picture.callees, places, strict=True):
            declared = {each.protocol for each in group.offered if each.protocol is not None}
            protocols = {each or "no protocol" for each in declared}
            ports = {each.port for each in group.offered}
            port = f"port {ports.pop()}" if len(ports) == 1 else wording.count(len(ports), "port")
            several = ", several protocols" if protocols else ""
            protocol = f", {protocols.pop()}" if len(protocols) == 1 else several
            self._box(
                (WIDTH - _BOX, y),
                (_BOX, _HEIGHT),
                (callee_name(group), f"{port}{protocol}"),
                ("service", Condition.WELL),
                [("service", each.service) for each in group.offered],
            )

    def _box(
        self,
        at: tuple[int, int],
        size: tuple[int, int],
        words: tuple[str, str],
        kind: tuple[str, Condition],
        about: Sequence[tuple[str, str]],
    ) -> None:
        marks = [self._marks[each] for each in about if each in self._marks]
        joined: Mark | None = None
        for mark in marks:
            for code in mark.codes:
                joined = Mark.joined(joined, mark.severity, code)
        longest = _LONGEST_PART if kind[0] == "part" else _LONGEST
        mood = str(kind[1])
        if joined is not None and kind[1] is Condition.WELL:
            mood = str(joined.severity)
        self._boxes.append(
            Box(
                x=at[0],
                y=at[1],
                width=size[0],
                height=size[1],
                name=_cut(words[0], longest),
                below=_cut(words[1] if mood != "down" else f"{words[1]}: does not run", 34),
                whole=f"{words[0]}, {words[1]}",
                kind=kind[0],
                mood=mood,
                mark=joined.said if joined is not None else "",
            )
        )

    def _calls(self, down: Sequence[int], across: Sequence[int]) -> None:
        """A line a cell; of one that is broken also where the calls really end."""
        callees = self._picture.callees
        places = {column: n for n, group in enumerate(callees) for column in group.columns}
        landed: set[tuple[int, int]] = set()
        for (row, column), pair in (self._picture.cells or {}).items():
            caller, callee = self._picture.callers[row], callees[column]
            said = f"{group_name(caller)} to {callee_name(callee)}"
            is_broken = pair.verdict in (Verdict.WRONG, Verdict.NOWHERE)
            mood = "broken" if is_broken else _MOODS[pair.verdict]
            self._line(down[row], across[column], mood, f"{said}: {pair.verdict}")
            end = places.get((pair.reached or "", pair.port))
            if pair.verdict is Verdict.WRONG and end is not None and (row, end) not in landed:
                landed.add((row, end))
                answering = callee_name(callees[end])
                self._line(
                    down[row], across[end], "astray", f"{group_name(caller)} gets {answering}"
                )

    def _offers(self, down: Sequence[int], across: Sequence[int]) -> None:
        """Where no call is known, who is which service."""
        for row, caller in enumerate(self._picture.callers):
            for column, callee in enumerate(self._picture.callees):
                if callee.columns & set(caller.offers):
                    said = f"{group_name(caller)} is {callee_name(callee)}"
                    self._line(down[row], across[column], "offer", said)

    def _line(self, y1: int, y2: int, mood: str, said: str) -> None:
        x1, x2 = _BOX + _SIDECAR, WIDTH - _BOX
        y1, y2 = y1 + _HEIGHT // 2, y2 + _HEIGHT // 2
        bend = (x2 - x1) // 2
        path = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
        cross = None
        if mood == "broken":
            x2 -= 22
            path = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
            cross = (float(x2 + 8), float(y2))
        self._lines.append(Line(path, mood, cross, said))

    def _said(self) -> str:
        """The drawing for who does not see it."""
        picture = self._picture
        sentences = []
        if picture.parts:
            names = wording.names([f"{each.called} ({each.condition})" for each in picture.parts])
            sentences.append(f"Control plane: {names}.")
        counts = picture.counts or {}
        if counts:
            total = sum(counts.values())
            fates = ", ".join(f"{number} {fate}" for fate, number in counts.items())
            sentences.append(f"{wording.count(total, 'call')}: {fates}.")
        sentences.append("The table below says the same of each.")
        return " ".join(sentences)


_MOODS: Final = {
    Verdict.RIGHT: "right",
    Verdict.BY_LUCK: "luck",
    Verdict.UNKNOWN: "unknown",
}
_LAYERS: Final = ("offer", "right", "unknown", "luck", "broken", "astray")
"""What is drawn over what."""


def _offset(most: int, number: int) -> int:
    return (most - number) * _STEP // 2


def _cut(text: str, longest: int) -> str:
    """Both ends of a name that is too long: the middle tells least."""
    if len(text) <= longest:
        return text
    tail = longest // 3
    return f"{text[: longest - tail - 1]}…{text[-tail:]}"
