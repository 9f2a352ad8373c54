"""What Istio's rules tell, and what of it survives damage."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdoctor.evidence.interface import MissingEvidenceError
from meshdoctor.evidence.istio import (
    CONFIGZ,
    DESTINATION_RULE,
    DESTINATION_RULES,
    VIRTUAL_SERVICE,
    VIRTUAL_SERVICES,
    Destination,
    IstioRules,
    StringMatch,
    Subset,
)
from meshdoctor.snapshot import Snapshot
from tests.evidence.damage import ISTIO, damaged, few, mangled, recording, snapshot

SERVICE: Final[dict[str, Any]] = {
    "metadata": {"name": "reviews", "namespace": "default"},
    "spec": {
        "hosts": ["reviews.service.consul"],
        "http": [{"route": [{"destination": {"host": "reviews.service.consul"}}]}],
    },
}
RULE: Final[dict[str, Any]] = {
    "metadata": {"name": "reviews", "namespace": "default"},
    "spec": {
        "host": "reviews.service.consul",
        "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "all"}],
    },
}


def listed(*items: Any) -> dict[str, Any]:
    return {"kind": "List", "items": list(items)}


def load(services: Any = None, rules: Any = None) -> IstioRules:
    return IstioRules.load(
        snapshot({VIRTUAL_SERVICES: services or listed(), DESTINATION_RULES: rules or listed()})
    )


@pytest.mark.parametrize("mesh", ISTIO)
def test_no_rule_is_evidence_too(mesh: str) -> None:
    """The recorded lists are empty, which is not the same as not recorded."""
    rules = IstioRules.load(recording(mesh))
    assert (rules.virtual_services, rules.destination_rules, rules.problems) == ((), (), ())


def test_what_was_not_recorded_is_missing() -> None:
    """With the collector's own reason where there is one."""
    with pytest.raises(MissingEvidenceError, match="no rules were recorded"):
        IstioRules.load(snapshot({}))
    with pytest.raises(MissingEvidenceError, match="no rules were recorded"):
        IstioRules.load(recording("connect-healthy"))


def test_a_rule_is_decoded_with_its_place() -> None:
    """Names, hosts, whether it has HTTP routes, and the pointer to it."""
    rules = load(listed({}, SERVICE), listed(RULE))
    _, service = rules.virtual_services
    assert (service.name, service.namespace) == ("reviews", "default")
    assert service.hosts == ("reviews.service.consul",)
    assert service.http
    assert (service.document, service.pointer) == (VIRTUAL_SERVICES, "/items/1")
    (rule,) = rules.destination_rules
    assert rule.host == "reviews.service.consul"
    assert rule.subsets == (Subset("v1", {"version": "v1"}), Subset("all", {}))


@pytest.mark.parametrize(
    ("gateways", "expected"),
    [(None, True), ([], True), (["mesh"], True), (["g", "mesh"], True), (["g"], False)],
)
def test_for_whom_a_rule_is(gateways: list[str] | None, expected: bool) -> None:  # noqa: FBT001
    """A rule with gateways is for sidecars only where it names `mesh` among them."""
    spec = {**SERVICE["spec"], "gateways": gateways}
    (service,) = load(listed({**SERVICE, "spec": spec})).virtual_services
    assert service.for_sidecars is expected
    assert service.for_gateways is ("g" in (gateways or ()))


def test_a_damaged_rule_costs_only_itself() -> None:
    """The others are there, and the damage is said with its place."""
    rules = load(listed(7, SERVICE), listed(RULE, {"spec": {"host": 1.5}}))
    assert [each.name for each in rules.virtual_services] == ["reviews"]
    assert [each.name for each in rules.destination_rules] == ["reviews"]
    assert [problem.document for problem in rules.problems] == [
        f"{VIRTUAL_SERVICES}#/items/0",
        f"{DESTINATION_RULES}#/items/1",
    ]


def test_a_damaged_list_costs_only_itself() -> None:
    """What is no list is a problem; the other document is read."""
    rules = load("404 page not found", listed(RULE))
    assert rules.virtual_services == ()
    assert [problem.document for problem in rules.problems] == [VIRTUAL_SERVICES]
    assert len(rules.destination_rules) == 1


def test_one_document_is_enough() -> None:
    """The other was not recorded, and is taken for empty; null is Go's empty list."""
    rules = IstioRules.load(snapshot({VIRTUAL_SERVICES: {"items": None}}))
    assert (rules.virtual_services, rules.destination_rules, rules.problems) == ((), (), ())


BODIES: Final = {
    VIRTUAL_SERVICES: json.dumps(listed(SERVICE, SERVICE)),
    DESTINATION_RULES: json.dumps(listed(RULE)),
}


@few
@given(st.data(), st.sampled_from(sorted(BODIES)), st.sampled_from([damaged, mangled]))
def test_damage_gives_rules_or_a_problem(data: st.DataObject, name: str, damage: Any) -> None:
    """Never anything else is raised."""
    body = data.draw(damage(BODIES[name]))
    rules = IstioRules.load(Snapshot({**{k: v.encode() for k, v in BODIES.items()}, name: body}))
    assert len(rules.virtual_services) + len(rules.destination_rules) <= 12
    assert all(problem.document.startswith("istio/") for problem in rules.problems)


# ---------------------------------------------------------------- what a rule says

ROUTES: Final[dict[str, Any]] = {
    "hosts": ["reviews.service.consul"],
    "http": [
        {
            "match": [
                {
                    "uri": {"prefix": "/reviews"},
                    "headers": {"End-User": {"exact": "jason"}, "cookie": {"regex": "[redacted]"}},
                    "port": 9080,
                    "sourceLabels": {"app": "web"},
                    "gateways": ["mesh"],
                    "ignoreUriCase": True,
                    "name": "of no meaning",
                }
            ],
            "route": [
                {"destination": {"host": "reviews", "subset": "v2", "port": {"number": 9080}}}
            ],
            "mirror": {"host": "shadow"},
        },
        {"redirect": {"uri": "/"}},
    ],
    "tcp": [{"route": [{"destination": {"host": "db"}, "weight": "50"}]}],
    "exportTo": ["."],
}
PILOTS_ROUTES: Final[dict[str, Any]] = {
    "hosts": ["reviews.service.consul"],
    "http": [
        {
            "match": [
                {
                    "uri": {"MatchType": {"Prefix": "/reviews"}},
                    "headers": {
                        "End-User": {"MatchType": {"Exact": "jason"}},
                        "cookie": {"MatchType": {"Regex": "[redacted]"}},
                    },
                    "port": 9080,
                    "source_labels": {"app": "web"},
                    "gateways": ["mesh"],
                    "ignoreUriCase": True,
                }
            ],
            "route": [
                {
                    "destination": {
                        "host": "reviews",
                        "subset": "v2",
                        "port": {"Port": {"Number": 9080}},
                    }
                }
            ],
            "mirror": {"host": "shadow"},
        },
        {"redirect": {"uri": "/"}},
    ],
    "tcp": [{"route": [{"destination": {"host": "db"}, "weight": 50}]}],
    "export_to": ["."],
}


def in_pilots_page(*items: Any) -> IstioRules:
    return IstioRules.load(snapshot({CONFIGZ: [*items, {}]}))


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        (load(listed({"metadata": {"name": "reviews"}, "spec": ROUTES})), "/items/0/spec"),
        (
            in_pilots_page({"type": "virtual-service", "name": "reviews", "Spec": PILOTS_ROUTES}),
            "/0/Spec",
        ),
        (
            in_pilots_page(
                {"kind": "VirtualService", "metadata": {"name": "reviews"}, "spec": ROUTES}
            ),
            "/0/spec",
        ),
    ],
    ids=["api-server", "pilot-1.1", "later-pilots"],
)
def test_routes_are_the_same_whoever_tells_them(rules: IstioRules, place: str) -> None:
    """Pilot 1.1 prints its own Go structures; each place is told in its document's spelling."""
    (service,) = rules.virtual_services
    assert (service.name, service.exported_to, service.spec) == ("reviews", (".",), place)
    first, second = service.http
    (match,) = first.matches
    assert match.conditions == {
        "uri": StringMatch("prefix", "/reviews"),
        "header end-user": StringMatch("exact", "jason"),
        "header cookie": StringMatch("", "[redacted]"),
    }
    assert (match.port, match.source_labels, match.gateways) == (9080, {"app": "web"}, ("mesh",))
    assert match.unmodelled == ("ignoreUriCase",)
    assert match.pointer == f"{place}/http/0/match/0"
    assert first.destinations == (
        Destination("reviews", "v2", 9080, 0, f"{place}/http/0/route/0"),
    )
    assert (first.answers, second.answers) == (False, True)
    assert [(each.host, called) for each, called in service.destinations] == [
        ("reviews", True),
        ("db", True),
        ("shadow", True),
    ]


def test_a_share_without_weight_gets_no_call() -> None:
    """Unless it is the only one."""
    shares = [{"destination": {"host": "a"}, "weight": 100}, {"destination": {"host": "b"}}]
    (service,) = load(listed({"spec": {"http": [{"route": shares}]}})).virtual_services
    assert [called for _, called in service.destinations] == [True, False]


def test_pilot_tells_what_the_api_server_did_not() -> None:
    """Of the kind that was not recorded alone; ServiceEntries stand only there."""
    pilots = [
        {"type": "virtual-service", "name": "old", "Spec": {}},
        {"type": "destination-rule", "name": "reviews", "Spec": RULE["spec"]},
        {"type": "service-entry", "name": "out", "Spec": {"hosts": ["api.example.com"]}},
        {"type": "gateway", "name": "web", "Spec": {}},
    ]
    rules = IstioRules.load(snapshot({VIRTUAL_SERVICES: listed(SERVICE), CONFIGZ: pilots}))
    assert [each.name for each in rules.virtual_services] == ["reviews"]
    assert [each.document for each in rules.destination_rules] == [CONFIGZ]
    assert rules.entries == {"api.example.com"}
    assert rules.held == {VIRTUAL_SERVICE, DESTINATION_RULE}


def test_a_kind_is_held_where_nothing_of_it_is_damaged() -> None:
    """Nothing follows from what a list lacks that is not known whole."""
    assert load(listed(7), listed(RULE)).held == {DESTINATION_RULE}
    assert load("nothing", listed(RULE)).held == {DESTINATION_RULE}
    assert IstioRules.load(snapshot({VIRTUAL_SERVICES: listed()})).held == {VIRTUAL_SERVICE}
    damaged_spec = listed({"spec": {"http": [{"route": [{"weight": "many"}]}]}})
    assert load(damaged_spec, listed(RULE)).held == {DESTINATION_RULE}


def test_pilots_page_alone_is_evidence() -> None:
    """Also where it says that there is no rule; damaged, it is a problem and nothing more."""
    assert in_pilots_page().held == {VIRTUAL_SERVICE, DESTINATION_RULE}
    with pytest.raises(MissingEvidenceError):
        IstioRules.load(snapshot({CONFIGZ: "404 page not found"}))


@few
@given(st.data(), st.sampled_from([damaged, mangled]))
def test_damage_to_pilots_page_gives_rules_or_a_problem(data: st.DataObject, damage: Any) -> None:
    """Never anything else is raised."""
    page = [{"type": "virtual-service", "name": "reviews", "Spec": PILOTS_ROUTES}, {}]
    body = data.draw(damage(json.dumps(page)))
    try:
        rules = IstioRules.load(Snapshot({CONFIGZ: body}))
    except MissingEvidenceError:
        return
    assert len(rules.virtual_services) <= 12
