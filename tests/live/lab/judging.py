"""What is said of the lab's mesh, and whether it is what the table and the requests say."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from meshdoctor.check import Examination
from meshdoctor.collectors import Options, collect
from meshdoctor.diagnosis import Checks, examine
from meshdoctor.report import json as json_report
from meshdoctor.routing.calls import Calls, Pair, Verdict
from meshdoctor.snapshot import Snapshot
from meshdoctor_checks import CHECKS
from tests.live.lab.faults import Fault
from tests.live.lab.lab import PORT, PROJECT, Call

Report = Mapping[str, Any]


def look() -> tuple[Snapshot, Report]:
    """Gather all evidence, and judge it, as `meshdoctor check` does."""
    snapshot = collect(Options(), lambda _said: None)
    return snapshot, judged(snapshot)


def judged(snapshot: Snapshot) -> Report:
    """What `meshdoctor check --format json` says."""
    examined = examine(snapshot, Checks(tuple(CHECKS)), {"kind": "live"})
    report: Report = json.loads(json_report.render(examined))
    return report


def predicted(snapshot: Snapshot) -> Sequence[Pair]:
    """What `meshdoctor matrix` says; nothing where it says that it cannot tell."""
    calls = Examination(snapshot).find(Calls)
    return () if calls is None else calls.pairs


def bad(report: Report) -> frozenset[str]:
    """The codes of everything that is not a mere remark."""
    return frozenset(each["code"] for each in report["findings"] if each["severity"] != "info")


def roots(report: Report) -> Sequence[str]:
    """The code of each diagnosis that is not a mere remark, in the report's order."""
    by_id = {each["id"]: each for each in report["findings"]}
    found = [by_id[each["root"]] for each in report["diagnoses"]]
    return [each["code"] for each in found if each["severity"] != "info"]


def explains(report: Report, fault: Fault) -> bool:
    """Whether a report says of a fault what the table says."""
    found = bad(report)
    if fault.unseen and not (
        report["verdict"] == "unknown" and fault.unseen in json.dumps(report["coverage"])
    ):
        return False
    return fault.expected <= found <= fault.expected | fault.perhaps and sorted(
        set(roots(report))
    ) == sorted(fault.root)


def told(report: Report) -> list[tuple[str, str, str]]:
    """The verdict, to compare: codes and sentences, apart from moments in them."""
    return [(each["code"], each["severity"], each["message"]) for each in report["findings"]]


def disagreements(calls: Sequence[Call], pairs: Sequence[Pair]) -> list[str]:
    """Where what was met is not what was predicted."""
    met = {(f"{PROJECT}_{each.caller}_1", each.callee): each for each in calls}
    wrong = []
    for pair in pairs:
        call = met.get((pair.caller, pair.callee))
        # The matrix begins where a name has been resolved; what is said of names, the table has.
        if call is None or pair.port != PORT or "gaierror" in call.error:
            continue
        # A caller reaches itself through its own inbound listener, where its service's name gives
        # its own address.
        itself = call.answered == call.callee == call.caller.partition("-")[0]
        agrees = {
            Verdict.RIGHT: call.answered == call.callee,
            Verdict.WRONG: itself or call.answered == pair.reached,
            Verdict.NOWHERE: itself or not call.answered or _partly(pair, call),
        }
        if not agrees.get(pair.verdict, True):
            wrong.append(
                f"{call.caller} -> {call.callee}: {pair.verdict} {pair.reached} ({pair.reason}), "
                f"met {call.status} {call.answered} {call.error}"
            )
    return wrong


def _partly(pair: Pair, call: Call) -> bool:
    """Balanced over instances of which one is not there, a single request may meet another."""
    return bool(pair.absent and pair.instances) and call.answered == call.callee


def text(report: Report) -> str:
    return "\n".join(
        f"{each['id']} {each['code']} {each['severity']} <- {each['causes']}: {each['message']}"
        for each in report["findings"]
    )
