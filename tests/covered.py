"""Whether tests go through enough branches: `coverage json -o - | python -m tests.covered`.

Coverage's own threshold is for lines and branches together, where lines, which are more, hide what
branches lack.
"""

import json
import sys
from typing import Final

LEAST: Final = 95.0
"""Per cent."""


def main() -> int:
    """1 where it is less."""
    totals = json.load(sys.stdin)["totals"]
    share = totals["percent_branches_covered"]
    told = f"{totals['covered_branches']} of {totals['num_branches']} branches: {share:.1f} %"
    print(f"{told} (at least {LEAST:g} %)")  # noqa: T201 # its answer
    return 0 if share >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
