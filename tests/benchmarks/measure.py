"""Ratios within one run: two things timed in turn, round by round, and their medians compared."""

import gc
import resource
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

ROUNDS: Final = 9


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: `ratio` is what was measured over what it is compared with."""

    group: str
    what: str
    against: str
    ratio: float
    target: float | None = None
    spread: tuple[float, float] | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the target was met in this run."""
        if self.target is None:
            return ""
        return "met" if self.ratio <= self.target else "missed"


Clock = Callable[[], float]


def of_programs() -> float:
    """The seconds of CPU that the programs started from here have used, those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(action: Callable[[], object], clock: Clock) -> float:
    """How long it takes once, by that clock, with nothing left over from what ran before."""
    # Else the garbage of one round is collected in another, at random.
    gc.collect()
    begun = clock()
    action()
    return clock() - begun


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians of rounds in which both took their turn, and the spread of the rounds' ratios."""

    base: float
    other: float
    spread: tuple[float, float]

    @property
    def ratio(self) -> float:
        return self.other / self.base


def compare(
    base: Callable[[], object], other: Callable[[], object], clock: Clock = time.process_time
) -> Comparison:
    """Time both in turn, the first of each round changing, after one round that is not counted.

    By seconds of CPU where neither waits: other work on the machine does not change them as much.
    """
    base()
    other()
    taken: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        if number % 2:
            second = seconds(other, clock)
            first = seconds(base, clock)
        else:
            first = seconds(base, clock)
            second = seconds(other, clock)
        taken.append((first, second))
    ratios = sorted(second / first for first, second in taken)
    return Comparison(
        base=median(first for first, _ in taken),
        other=median(second for _, second in taken),
        spread=(ratios[0], ratios[-1]),
    )


def memory(action: Callable[[], object]) -> tuple[int, int]:
    """Bytes at the peak and bytes held at the end while its result is still there."""
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        result = action()
        held, peak = tracemalloc.get_traced_memory()
        del result
    finally:
        tracemalloc.stop()
    return peak - before, held - before
