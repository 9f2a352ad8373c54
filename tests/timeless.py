"""What a snapshot says, to compare with what another says: the report but for its times."""

import json
from typing import Any

from meshdoctor.diagnosis import examine, load_checks
from meshdoctor.report import json as report_json
from meshdoctor.snapshot import Snapshot


def report(snapshot: Snapshot) -> Any:
    """As `meshdoctor check --format json` gives it."""
    said = json.loads(report_json.render(examine(snapshot, load_checks(), {"kind": "live"})))
    for name in ("created", "seconds"):
        del said[name]
    for check in said["checks"]:
        del check["milliseconds"]
    return said
