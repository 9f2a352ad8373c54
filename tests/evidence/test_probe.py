"""What a probe recorded, what of it survives damage, and whose answer an answer is."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.evidence.probe import (
    SCHEMA,
    AddressSource,
    Answer,
    AnsweredBy,
    Failure,
    How,
    Moved,
    ProbeDocument,
    ProbeResults,
    Request,
    flag_of,
)
from meshdoctor.snapshot import Snapshot
from tests.evidence.damage import damaged, few, mangled, snapshot

NAME = "probe/web.json"
REQUESTS = (
    Request(
        callee="api",
        port=9191,
        url="http://127.0.0.1:9191/",
        connected="127.0.0.1:9191",
        answer=Answer(200, {"server": "envoy"}, "ab", 3),
        moved=(Moved("api", "127.0.0.1", 21001, 1),),
        answered_by=AnsweredBy("pay", How.STATISTICS),
    ),
    Request(
        callee="pay",
        port=9191,
        url="http://pay:9191/",
        name="pay",
        addresses_from=AddressSource.CONSUL,
        resolution="no such name",
        failure=Failure.REFUSED,
        error="connection refused",
    ),
    Request(
        callee="db",
        port=1,
        url="http://db:1/",
        failure=Failure.NOT_SENT,
        error="too late",
    ),
)
TEXT = msgspec.json.encode(ProbeDocument(SCHEMA, "web", "namespace", (), REQUESTS)).decode()


def load(**documents: Any) -> ProbeResults:
    return ProbeResults.load(snapshot(documents))


def test_what_was_written_is_read() -> None:
    """Every field, and where it stands."""
    results = load(**{NAME: TEXT})
    assert results.problems == ()
    assert tuple(each.request for each in results.probed) == REQUESTS
    assert {(each.caller, each.way, each.document) for each in results.probed} == {
        ("web", "namespace", NAME)
    }
    assert [each.pointer for each in results.probed] == [
        "/requests/0",
        "/requests/1",
        "/requests/2",
    ]
    assert [each.request.connected_address for each in results.probed] == ["127.0.0.1", "", ""]


def test_what_was_not_sent_is_no_result() -> None:
    """It is said in words instead."""
    results = load(**{NAME: TEXT})
    assert [each.request.callee for each in results.sent] == ["api", "pay"]
    assert results.unsent == ("1 from web: too late",)


def test_without_a_probe_the_reason_says_how_to_ask_for_one() -> None:
    """It is no fault that nobody probed."""
    with pytest.raises(MissingEvidenceError, match="no probe was asked for") as missing:
        load()
    assert "meshdoctor probe" in missing.value.hint
    tried = Snapshot({}, absent=(Problem("probe/web.json", "no way in"),))
    with pytest.raises(MissingEvidenceError, match="no way in"):
        ProbeResults.load(tried)


def test_a_damaged_request_costs_only_itself() -> None:
    """The others are there."""
    document = json.loads(TEXT)
    document["requests"][0]["port"] = "many"
    results = load(**{NAME: document})
    assert [each.request.callee for each in results.probed] == ["pay", "db"]
    assert [each.document for each in results.problems] == [f"{NAME}#/requests/0"]


def test_a_document_of_another_schema_is_not_read() -> None:
    """A later version may mean something else by the same words."""
    results = load(**{NAME: {"schema": "meshdoctor.probe/v2", "caller": "web"}})
    assert results.probed == ()
    assert "meshdoctor.probe/v2" in results.problems[0].message


@few
@given(st.one_of(damaged(TEXT), mangled(TEXT)))
def test_damage_gives_evidence_or_a_problem(document: bytes) -> None:
    """And never anything else."""
    results = load(**{NAME: document})
    assert len(results.probed) <= len(REQUESTS) or not results.problems


# ---------------------------------------------------------------- a proxy's own answers


@pytest.mark.parametrize(
    ("status", "headers", "body", "flag"),
    [
        (503, {"server": "envoy"}, b"no healthy upstream", "UH"),
        (503, {}, b"no healthy upstream", "UH"),
        (504, {"server": "envoy"}, b"upstream request timeout", "UT"),
        (403, {"server": "envoy"}, b"RBAC: access denied", "RBAC"),
        (404, {"server": "envoy"}, b"", "NR"),
        (404, {"server": "istio-envoy"}, b"", "NR"),
        (503, {"server": "envoy"}, b"", "NC"),
        (426, {"server": "envoy"}, b"", ""),
        (
            503,
            {"server": "envoy"},
            b"upstream connect error or disconnect/reset before headers. reset reason: overflow",
            "UO",
        ),
        (
            503,
            {"server": "envoy"},
            b"upstream connect error or disconnect/reset before headers. retried and failed",
            "UF",
        ),
        # An application's own.
        (200, {"server": "envoy"}, b"", None),
        (200, {"server": "envoy"}, b"hello", None),
        (404, {"server": "envoy", "x-envoy-upstream-service-time": "1"}, b"", None),
        (404, {"server": "envoy"}, b"no such page", None),
        (404, {"server": "nginx"}, b"", None),
        (500, {}, b"\xff\xfe", None),
    ],
)
def test_a_proxys_own_answer_is_told_apart(
    status: int, headers: dict[str, str], body: bytes, flag: str | None
) -> None:
    """By Envoy's own words, or where it says nothing by what is missing from the headers."""
    assert flag_of(status, headers, body) == flag
