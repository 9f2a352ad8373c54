"""Calls in Consul's own service mesh, against what real requests met in the recorded meshes."""

import json
from typing import Any

import pytest

from meshdoctor.check import Examination
from meshdoctor.evidence.envoy import FreeForm
from meshdoctor.routing.calls import Calls, Pair, Verdict
from meshdoctor.routing.matching import request_headers
from meshdoctor.routing.model import Call, Denial, UndecidedError
from meshdoctor.routing.rbac import denied
from meshdoctor.snapshot import Snapshot
from tests.evidence.damage import MESHES, recording

RECORDED = (
    "connect-collision",
    "connect-healthy",
    "connect/covered-address",
    "connect/denied",
    "connect/denied-by-request",
    "connect/denied-tcp",
    "connect/failed-over",
    "connect/failover",
    "connect/foreign-certificate",
    "connect/other-protocol",
    "connect/routed",
    "connect/transparent",
)


def pairs(mesh: str) -> dict[tuple[str, str], Pair]:
    found = Examination(recording(mesh)).get(Calls).pairs
    return {(each.caller, each.callee): each for each in found}


@pytest.mark.parametrize("mesh", RECORDED)
def test_where_calls_land_is_what_the_probe_met(mesh: str) -> None:
    """Caller, callee, HTTP status (000: cut off), and the service that answered (-: none)."""
    found = pairs(mesh)
    for line in (MESHES / f"{mesh}.probe.txt").read_text().splitlines():
        caller, callee, status, answered = line.split()
        pair = found[caller, callee]
        assert pair.verdict is not Verdict.UNKNOWN, line
        if answered == "-":
            assert pair.reached is None, line
            assert pair.status == (int(status) or None), line
        else:
            assert pair.reached == answered, line


@pytest.mark.parametrize(
    ("mesh", "said", "denial"),
    [
        ("connect/denied", "denied by intention web => api", ("consul-intentions-layer4", True)),
        (
            "connect/denied-by-request",
            "denied by intention web => api",
            ("consul-intentions-layer7-0", False),
        ),
    ],
)
def test_a_denied_call_names_the_intention(mesh: str, said: str, denial: tuple[str, bool]) -> None:
    """Where it decides by request, others may be allowed."""
    pair = pairs(mesh)["web", "api"]
    assert pair.verdict is Verdict.NOWHERE
    assert said in pair.reason
    assert pair.denied == Denial(*denial)


@pytest.mark.parametrize(
    ("created", "verdict"),
    [
        ("2026-11-24T17:00:00Z", Verdict.RIGHT),
        ("2026-11-24T19:00:00Z", Verdict.NOWHERE),
        ("", Verdict.RIGHT),
    ],
)
def test_with_a_certificate_that_ran_out_no_call_passes(created: str, verdict: Verdict) -> None:
    """To the sidecar that shows it or from it; the page is hand-made.

    A recording that does not say when it was made proves no certificate expired.
    """
    healthy = recording("connect-healthy")
    documents = {name: healthy.read(name) for name in healthy.names()}
    leaf = {"serial_number": "0c", "expiration_time": "2026-11-24T18:00:00Z"}
    page = {"certificates": [{"ca_cert": [], "cert_chain": [leaf]}]}
    documents["envoy/pay-sidecar-proxy/certs.json"] = json.dumps(page).encode()
    found = Examination(Snapshot(documents, created=created)).get(Calls).pairs
    touched = [each for each in found if "pay" in (each.caller, each.callee)]
    assert {each.verdict for each in touched} == {verdict}
    assert {each.verdict for each in found if each not in touched} == {Verdict.RIGHT}
    if verdict is Verdict.NOWHERE:
        assert all("expired at 2026-11-24T18:00:00Z" in each.reason for each in touched)


def test_where_consul_sends_calls_on_the_other_service_is_right() -> None:
    """A splitter gives db a tenth of the calls to pay: that was meant."""
    pair = pairs("connect/routed")["web", "pay"]
    assert pair.verdict is Verdict.RIGHT
    assert "Consul's own rules for pay send it on to db" in pair.reason


def test_whether_a_service_understands_its_proxy_is_not_guessed() -> None:
    """Its proxy was told grpc, its service-defaults say http: the real call got 502."""
    pair = pairs("connect/other-protocol")["web", "api"]
    assert pair.verdict is Verdict.UNKNOWN
    assert "speaks grpc" in pair.reason


# ---------------------------------------------------------------- RBAC

NAME = "spiffe://t.consul/ns/default/dc/dc1/svc/web"
IS_WEB = {"authenticated": {"principal_name": {"safe_regex": {"regex": "^spiffe://.*/svc/web$"}}}}
IS_ANY = {"any": True}


def rules(action: str, *, who: Any = IS_WEB, what: Any = IS_ANY) -> FreeForm:
    policy = {"principals": [who], "permissions": [what]}
    return FreeForm({"rules": {"action": action, "policies": {"p": policy}}})


def header(name: str, **match: Any) -> dict[str, Any]:
    return {"header": {"name": name, **match}}


def decide(config: FreeForm, path: str = "/admin", **call: Any) -> Denial | None:
    asked = Call("127.0.0.1", 80, host="api", path=path, **{"tls": True, **call})
    headers = request_headers(
        authority="api", path=path, method="GET", scheme="http", headers=(("x-a", "1"),)
    )
    return denied(config, "filter", asked, headers)


@pytest.mark.parametrize(
    ("who", "what", "matches"),
    [
        (IS_WEB, IS_ANY, True),
        (IS_ANY, IS_ANY, True),
        ({"not_id": IS_WEB}, IS_ANY, False),
        ({"and_ids": {"ids": [IS_ANY, {"not_id": IS_WEB}]}}, IS_ANY, False),
        ({"or_ids": {"ids": [{"not_id": IS_ANY}, IS_WEB]}}, IS_ANY, True),
        ({"authenticated": {}}, IS_ANY, True),
        ({"authenticated": {"principal_name": {"exact": "spiffe://other"}}}, IS_ANY, False),
        (IS_WEB, {"url_path": {"path": {"prefix": "/ad"}}}, True),
        (IS_WEB, {"url_path": {"path": {"exact": "/admin?x"}}}, False),
        (IS_WEB, {"not_rule": {"url_path": {"path": {"prefix": "/"}}}}, False),
        (IS_WEB, header(":method", exact_match="GET"), True),
        (IS_WEB, header(":method", string_match={"exact": "PUT"}), False),
        (IS_WEB, header("x-a", present_match=True), True),
        (IS_WEB, header("x-b", present_match=True), False),
        (IS_WEB, {"and_rules": {"rules": [IS_ANY, header("x-b", present_match=True)]}}, False),
        (IS_WEB, {"or_rules": {"rules": [header("x-b"), header("x-a")]}}, True),
    ],
)
def test_a_policy_decides(who: Any, what: Any, matches: bool) -> None:  # noqa: FBT001 # a case
    """It denies under DENY where it matches, under ALLOW where it does not."""
    for action, denies in (("DENY", matches), ("ALLOW", not matches)):
        outcome = decide(rules(action, who=who, what=what), principals=(NAME,))
        assert (outcome is not None) is denies


@pytest.mark.parametrize(
    ("who", "what"),
    [
        ({"source_ip": {"address_prefix": "10.0.0.0"}}, IS_ANY),
        ({"metadata": {}}, IS_ANY),
        ("anybody", IS_ANY),
        (IS_WEB, {"requested_server_name": {"exact": "api"}}),
        (IS_WEB, {"url_path": {"path": {"custom": {}}}}),
        (IS_WEB, {"url_path": 7}),
        (IS_WEB, header("x-forwarded-client-cert", prefix_match="By=")),
        (IS_WEB, {"and_rules": {"rules": 3}}),
        (IS_WEB, {"any": True, "header": {}}),
    ],
)
def test_what_is_not_followed_is_not_guessed(who: Any, what: Any) -> None:
    """Neither is what is not of the form that is known."""
    for action in ("ALLOW", "DENY"):
        with pytest.raises(UndecidedError):
            decide(rules(action, who=who, what=what), principals=(NAME,))


def test_a_caller_whose_certificate_nobody_recorded_is_not_guessed() -> None:
    """One that shows none is known to be nobody."""
    with pytest.raises(UndecidedError):
        decide(rules("DENY"))
    assert decide(rules("DENY"), tls=False) is None
    assert decide(rules("ALLOW"), tls=False) == Denial("", every_request=True)


def test_a_caller_allowed_some_requests_is_not_denied_all() -> None:
    """What the policy lets pass is another path."""
    some = rules("ALLOW", what={"url_path": {"path": {"prefix": "/ok"}}})
    assert decide(some, "/ok/then", principals=(NAME,)) is None
    assert decide(some, principals=(NAME,)) == Denial("", every_request=False)
