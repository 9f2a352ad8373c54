"""What Zipkin tells, and what its silence does."""

import pytest
from hypothesis import given

from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.evidence.zipkin import SERVICES, Zipkin
from meshdoctor.snapshot import Snapshot
from tests.evidence.damage import damaged, few, mangled, snapshot

TWO = '["details", "reviews"]'


def test_the_services_it_heard_of() -> None:
    """None at all is an answer too."""
    assert Zipkin.load(snapshot({SERVICES: TWO})).services == ("details", "reviews")
    assert Zipkin.load(snapshot({SERVICES: "[]"})).services == ()


def test_no_answer_is_evidence() -> None:
    """Not asked is not."""
    tried = Snapshot({}, absent=(Problem(SERVICES, "connection refused"),))
    assert Zipkin.load(tried).unanswered == "connection refused"
    with pytest.raises(MissingEvidenceError):
        Zipkin.load(Snapshot({}))


@few
@given(damaged(TWO) | mangled(TWO))
def test_changed_answers(body: bytes) -> None:
    """Whatever came, there are names or a word about what is wrong."""
    zipkin = Zipkin.load(snapshot({SERVICES: body}))
    assert (zipkin.services is None) == bool(zipkin.problems)
