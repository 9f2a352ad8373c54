"""What Istio's rules tell, and what of it survives damage."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdoctor.evidence.interface import MissingEvidenceError
from meshdoctor.evidence.istio import (
    DESTINATION_RULES,
    VIRTUAL_SERVICES,
    IstioRules,
    Subset,
)
from meshdoctor.snapshot import Snapshot
from tests.evidence.damage import ISTIO, damaged, few, mangled, recording, snapshot

VIRTUAL_SERVICE: Final[dict[str, Any]] = {
    "metadata": {"name": "reviews", "namespace": "default"},
    "spec": {
        "hosts": ["reviews.service.consul"],
        "http": [{"route": [{"destination": {"host": "reviews.service.consul"}}]}],
    },
}
DESTINATION_RULE: Final[dict[str, Any]] = {
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
    rules = load(listed({}, VIRTUAL_SERVICE), listed(DESTINATION_RULE))
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
    spec = {**VIRTUAL_SERVICE["spec"], "gateways": gateways}
    (service,) = load(listed({**VIRTUAL_SERVICE, "spec": spec})).virtual_services
    assert service.for_sidecars is expected


def test_a_damaged_rule_costs_only_itself() -> None:
    """The others are there, and the damage is said with its place."""
    rules = load(listed(7, VIRTUAL_SERVICE), listed(DESTINATION_RULE, {"spec": {"host": 1.5}}))
    assert [each.name for each in rules.virtual_services] == ["reviews"]
    assert [each.name for each in rules.destination_rules] == ["reviews"]
    assert [problem.document for problem in rules.problems] == [
        f"{VIRTUAL_SERVICES}#/items/0",
        f"{DESTINATION_RULES}#/items/1",
    ]


def test_a_damaged_list_costs_only_itself() -> None:
    """What is no list is a problem; the other document is read."""
    rules = load("404 page not found", listed(DESTINATION_RULE))
    assert rules.virtual_services == ()
    assert [problem.document for problem in rules.problems] == [VIRTUAL_SERVICES]
    assert len(rules.destination_rules) == 1


def test_one_document_is_enough() -> None:
    """The other was not recorded, and is taken for empty; null is Go's empty list."""
    rules = IstioRules.load(snapshot({VIRTUAL_SERVICES: {"items": None}}))
    assert (rules.virtual_services, rules.destination_rules, rules.problems) == ((), (), ())


BODIES: Final = {
    VIRTUAL_SERVICES: json.dumps(listed(VIRTUAL_SERVICE, VIRTUAL_SERVICE)),
    DESTINATION_RULES: json.dumps(listed(DESTINATION_RULE)),
}


@few
@given(st.data(), st.sampled_from(sorted(BODIES)), st.sampled_from([damaged, mangled]))
def test_damage_gives_rules_or_a_problem(data: st.DataObject, name: str, damage: Any) -> None:
    """Never anything else is raised."""
    body = data.draw(damage(BODIES[name]))
    rules = IstioRules.load(Snapshot({**{k: v.encode() for k, v in BODIES.items()}, name: body}))
    assert len(rules.virtual_services) + len(rules.destination_rules) <= 12
    assert all(problem.document.startswith("istio/") for problem in rules.problems)
