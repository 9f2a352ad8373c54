"""Prediction beside reality, as people and as programs read it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import jsonschema
import pytest

from meshdoctor.evidence.probe import Answer, AnsweredBy, Failure, How, Probed, Request
from meshdoctor.report import json as report_json
from meshdoctor.report import probe
from meshdoctor.report.probe import Outcome
from meshdoctor.report.terminal import Terminal
from meshdoctor.routing.calls import Pair, Verdict
from meshdoctor.routing.probed import Agreement, Comparison, End
from tests.conftest import Golden
from tests.report.stories import BROKEN

GOLDENS: Final = Path(__file__).parent / "goldens"
WIDTHS: Final = (40, 80, 120)


def comparison(
    callee: str,
    request: Request,
    predicted: End,
    observed: End,
    agreement: Agreement,
    verdict: Verdict = Verdict.RIGHT,
) -> Comparison:
    probed = Probed("shop_web_1", "namespace", request, "probe/shop_web_1.json", "/requests/0")
    pair = Pair("shop_web_1", callee, 9080, f"http://{callee}:9080/", verdict, None, (), None, "")
    return Comparison(probed, pair, predicted, observed, agreement)


def asked(callee: str, **met: object) -> Request:
    return Request(callee=callee, port=9080, url=f"http://{callee}:9080/", **met)  # type: ignore[arg-type] # fields of its own


def at(*services: str) -> End:
    return End(frozenset(services))


STORY: Final = (
    comparison(
        "details",
        asked("details", answer=Answer(200), answered_by=AnsweredBy("details", How.STATISTICS)),
        at("details"),
        at("details"),
        Agreement.SAME,
        Verdict.BY_LUCK,
    ),
    comparison(
        "ratings",
        asked("ratings", answer=Answer(404), answered_by=AnsweredBy("details", How.HEADER)),
        at("ratings"),
        at("details"),
        Agreement.DIFFERENT,
    ),
    comparison(
        "reviews",
        asked("reviews", answer=Answer(503), answered_by=AnsweredBy(None, How.PROXY, "UH")),
        End(nowhere=True, status=503),
        End(nowhere=True, status=503),
        Agreement.SAME,
        Verdict.NOWHERE,
    ),
    comparison(
        "stock",
        asked("stock", answer=Answer(200)),
        at("stock", "stock-old"),
        End(),
        Agreement.UNKNOWN,
    ),
    comparison(
        "pay",
        asked("pay", failure=Failure.TIMED_OUT, error="no answer"),
        at("pay"),
        End(nowhere=True),
        Agreement.UNKNOWN,
    ),
)
OUTCOME: Final = Outcome(STORY, ("db on port 3306: it speaks mysql",))


@pytest.mark.parametrize("width", WIDTHS)
def test_looks_like_its_golden(width: int, golden: Golden) -> None:
    """A table where there is room, else two lines a request; nothing is cut."""
    rendered = probe.render(OUTCOME, Terminal(width))
    golden(GOLDENS / f"probe-{width}.txt", rendered)
    assert all(len(line) <= width for line in rendered.splitlines())


def test_in_ascii_there_are_stand_ins_for_signs() -> None:
    """Where the stream takes no more."""
    assert probe.render(OUTCOME, Terminal(80, unicode=False)).isascii()


def many(agreement: Agreement) -> Sequence[Comparison]:
    first = STORY[0]
    return [Comparison(first.probed, first.pair, first.predicted, first.observed, agreement)] * 100


def test_of_many_requests_only_what_went_wrong_is_printed() -> None:
    """And the others are counted."""
    rendered = probe.render(Outcome([*many(Agreement.SAME), *STORY]), Terminal(120))
    assert "101 requests more went as they should." in rendered
    assert len(rendered.splitlines()) < 15


def test_no_request_is_said_too() -> None:
    """With what was left out."""
    rendered = probe.render(Outcome((), ("from web: it does not run",)))
    assert rendered == "No request was sent.\nnot asked: from web: it does not run.\n"


def test_the_member_of_the_report_satisfies_its_schema() -> None:
    """And the report stays a report."""
    document = json.loads(probe.render_json(BROKEN, OUTCOME))
    jsonschema.Draft202012Validator.check_schema(probe.schema())
    jsonschema.validate(document["probe"], probe.schema())
    jsonschema.validate(document, report_json.schema())
    assert document["probe"]["summary"] == {
        "requests": 5,
        "right": 1,
        "same": 2,
        "different": 1,
        "unknown": 2,
    }
    without = {name: value for name, value in document.items() if name != "probe"}
    assert without == json.loads(report_json.render(BROKEN))
