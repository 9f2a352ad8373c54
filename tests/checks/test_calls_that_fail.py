"""How a request fails is said in the words of what happened to it."""

import json
from typing import Any, Final

import pytest

from meshdoctor.diagnosis import Checks, examine
from meshdoctor.snapshot import Snapshot, open_snapshot
from meshdoctor_checks import CHECKS
from tests.checks.editing import MESHES

CASE: Final = MESHES.parent / "checks" / "probe" / "call_failed" / "quiet-all-answer"
CALLER: Final = "probe/consul_ratings-v1_1.json"


def said(**request: Any) -> list[str]:
    """What MD602 says, where the first request of one caller met that."""
    recorded = open_snapshot(CASE)
    documents = {name: recorded.read(name) for name in recorded.names()}
    probed = json.loads(documents[CALLER])
    probed["requests"][0].update(request)
    documents[CALLER] = json.dumps(probed).encode()
    report = examine(Snapshot(documents), Checks(tuple(CHECKS)), {"kind": "snapshot"})
    return [each.message for each in report.findings if each.check == "call-failed"]


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("refused", "were refused"),
        ("timed out", "got no answer in time"),
        ("closed", "were cut off without an answer"),
        ("not HTTP", "got an answer that is no HTTP"),
        ("no connection", "found no way to connect"),
    ],
)
def test_without_an_answer(failure: str, words: str) -> None:
    """Each way to fail has its own."""
    nobody = {"service": None, "how": "unknown", "flag": ""}
    found = said(answer=None, failure=failure, error="x", answered_by=nobody)
    assert [each for each in found if words in each], found


def test_an_answer_that_is_an_error() -> None:
    """Of the service itself, and of the proxy before it."""
    answer = {"status": 500, "headers": {}, "sha256": "", "bytes": 0, "whole": True}
    own = {"service": "details", "how": "proxy statistics", "flag": ""}
    assert any("were answered with 500" in each for each in said(answer=answer, answered_by=own))
    proxys = {"service": None, "how": "the proxy itself", "flag": "UH"}
    late = {**answer, "status": 503}
    found = said(answer=late, answered_by=proxys)
    assert any("got 503 from a proxy" in each and "(UH)" in each for each in found), found
