"""Fuzz one target, guided by coverage: `python -m tests.fuzz decoders -runs=1000000`.

What follows the target is libFuzzer's. What it learns stays in .fuzz/<target>/, or below
$MESHDOCTOR_FUZZ, so that the next run goes on from there. A case that breaks the target is
written there too: once mended, it moves to tests/fuzz/found/<target>/ and is tried in every run
of the tests.
"""

import hashlib
import os
import random
import sys
from pathlib import Path
from typing import Final

import atheris

WORK: Final = Path(os.environ.get("MESHDOCTOR_FUZZ") or Path(__file__).parents[2] / ".fuzz")

# A second is a thousand times what the largest seed takes; gibibytes are a thousand times it.
LIMITS: Final = ("-timeout=10", "-rss_limit_mb=2048", "-max_len=200000", "-print_final_stats=1")

_LETTERS: Final = 0.2
"""The share of cases whose letters are changed, not their values."""


def main(arguments: list[str]) -> None:
    """Fuzz until libFuzzer's own limits, or the first case that breaks the target."""
    with atheris.instrument_imports(include=["meshdoctor", "meshdoctor_checks", "tarfile"]):
        from tests.fuzz.mutation import HEAD, damage  # noqa: PLC0415 # instrumented while imported
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    name, *given = arguments
    target = TARGETS[name]
    folder = WORK / name
    learned = folder / "learned"
    learned.mkdir(parents=True, exist_ok=True)
    for seed in (*target.seeds(), *(path.read_bytes() for path in target.found())):
        (learned / hashlib.sha256(seed).hexdigest()[:20]).write_bytes(seed)

    def mutate(case: bytes, most: int, seed: int) -> bytes:
        generator = random.Random(seed)  # noqa: S311 # no secret is made of it
        if not target.has_head:
            return _letters(case, most)
        head, line, body = case.partition(HEAD)
        if generator.random() < _LETTERS:
            return (head + line + _letters(body, most - len(head) - 1))[:most]
        return damage(case, generator)[:most]

    atheris.Setup(
        ["fuzz", *LIMITS, f"-artifact_prefix={folder}/broke-", *given, str(learned)],
        target.run,
        custom_mutator=mutate,
    )
    atheris.Fuzz()


def _letters(body: bytes, most: int) -> bytes:
    changed: bytes = atheris.Mutate(body[:most] or b"{}", max(most, 2))
    return changed


if __name__ == "__main__":
    main(sys.argv[1:])
