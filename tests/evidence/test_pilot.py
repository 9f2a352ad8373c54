"""What Pilot's debug pages and metrics tell, and what of it survives damage."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.evidence.pilot import PilotDebug, PilotPort
from meshdoctor.snapshot import Snapshot
from tests.evidence.damage import ISTIO, damaged, few, mangled, recorded, recording, snapshot

REGISTRY = "pilot/registryz.json"
ENDPOINTS = "pilot/endpointz.json"
SYNC = "pilot/syncz.json"
METRICS = "pilot/metrics.txt"
PAGES = {name: json.dumps(recorded("broken", name)) for name in (ENDPOINTS, REGISTRY, SYNC)}


def load(**documents: Any) -> PilotDebug:
    return PilotDebug.load(snapshot(documents))


@pytest.mark.parametrize("mesh", ISTIO)
def test_a_recording_is_decoded_whole(mesh: str) -> None:
    """Every service, every proxy and every metric is there."""
    pilot = PilotDebug.load(recording(mesh))
    assert pilot.problems == ()
    assert pilot.registry is not None
    assert {service.hostname for service in pilot.registry} >= {
        "details.service.consul",
        "reviews.service.consul",
    }
    assert pilot.sync is not None
    assert len(pilot.sync) == len(recorded(mesh, SYNC))
    assert pilot.metrics["pilot_info"] == 1.0


def test_what_pilot_made_of_the_catalogue() -> None:
    """In the broken mesh Pilot takes port 9080 for TCP, in the fixed one for HTTP."""
    for mesh, protocol in (("broken", "TCP"), ("fixed", "HTTP")):
        registry = PilotDebug.load(recording(mesh)).registry or ()
        details = [each for each in registry if each.hostname == "details.service.consul"]
        assert [each.ports for each in details] == [(PilotPort(9080, protocol),)]


@pytest.mark.parametrize("mesh", ISTIO)
def test_where_pilot_has_the_instances(mesh: str) -> None:
    """Of each service the very addresses that Consul has."""
    endpoints = PilotDebug.load(recording(mesh)).endpoints
    assert endpoints is not None
    registered = recorded(mesh, "consul/catalog/service/reviews.json")
    assert endpoints["reviews.service.consul"] == {
        (each["ServiceAddress"], each["ServicePort"]) for each in registered
    }


def test_endpoints_of_several_ports_are_one_service() -> None:
    """Pilot lists each port by itself, and ends each list with an empty object."""
    pages = [
        {"svc": "web:http", "ep": [{"endpoint": {"Address": "10.0.0.1", "Port": 80}}, {}]},
        {"svc": "web:admin", "ep": [{"endpoint": {"Address": "10.0.0.1", "Port": 81}}, {}]},
        {"svc": "idle:http", "ep": None},
        {},
    ]
    assert load(**{ENDPOINTS: pages}).endpoints == {
        "web": {("10.0.0.1", 80), ("10.0.0.1", 81)},
        "idle": frozenset(),
    }
    assert load(**{SYNC: []}).endpoints is None


def test_endpoints_of_another_form_are_not_known() -> None:
    """Pilots after 1.1 have the port under another name: nothing is lacking there."""
    later = [
        {"svc": "web:http", "ep": [{"endpoint": {"Address": "10.0.0.1", "EndpointPort": 80}}]}
    ]
    assert load(**{ENDPOINTS: later}).endpoints is None


def test_the_last_element_of_registryz_is_no_service() -> None:
    """Pilot 1.1 closes its list with an empty object."""
    assert recorded("broken", REGISTRY)[-1] == {}
    registry = load(**{REGISTRY: '[{"hostname": "web"}, {}]'}).registry
    assert registry is not None
    assert [each.hostname for each in registry] == ["web"]


def test_a_damaged_element_costs_only_itself() -> None:
    """The other services and proxies are there."""
    registry = recorded("broken", REGISTRY)
    registry[2]["ports"] = "http"
    sync = recorded("broken", SYNC)
    sync[0] = 7
    pilot = load(**{REGISTRY: registry, SYNC: sync})
    assert pilot.registry is not None
    assert len(pilot.registry) == len(registry) - 2
    assert pilot.sync is not None
    assert len(pilot.sync) == len(sync) - 1
    assert [problem.document for problem in pilot.problems] == [f"{REGISTRY}#/2", f"{SYNC}#/0"]


def test_a_page_that_is_not_there_differs_from_an_empty_one() -> None:
    """None is not asked, () is nothing known; null is Go's empty list."""
    pilot = load(**{REGISTRY: "null"})
    assert (pilot.registry, pilot.sync, pilot.metrics) == ((), None, {})
    assert pilot.problems == ()


def test_a_damaged_page_costs_only_itself() -> None:
    """It counts as not there, and is said to be damaged."""
    pilot = load(**{REGISTRY: "404 page not found", SYNC: PAGES[SYNC]})
    assert pilot.registry is None
    assert pilot.sync
    assert [problem.document for problem in pilot.problems] == [REGISTRY]


def test_metrics_are_summed_over_their_labels() -> None:
    """Comments and what is no number are passed over; a label may hold a brace."""
    text = (
        "# HELP pilot_xds_pushes Pilot build.\n"
        'pilot_xds_pushes{type="lds"} 3\n'
        'pilot_xds_pushes{type="c}ds",a="{"} 4 1395066363000\n'
        "pilot_conflict_inbound_listener 0\n"
        "pilot_odd NaNaN\n"
        "{} 1\n"
        "pilot_large +Inf\n"
    )
    assert load(**{METRICS: text}).metrics == {
        "pilot_xds_pushes": 7.0,
        "pilot_conflict_inbound_listener": 0.0,
        "pilot_large": float("inf"),
    }


def test_without_any_page_the_reason_is_said() -> None:
    """What the collector said of Pilot is what the user reads, with what to do."""
    told = Snapshot({}, absent=(Problem("pilot/", "connection refused"),))
    with pytest.raises(MissingEvidenceError, match="connection refused") as caught:
        PilotDebug.load(told)
    assert "--pilot" in caught.value.hint


@few
@given(st.sampled_from(sorted(PAGES)), st.data())
def test_changed_pages(page: str, data: st.DataObject) -> None:
    """Whatever a page looks like, there are facts or a word about what is wrong."""
    pilot = load(**{page: data.draw(damaged(PAGES[page]) | mangled(PAGES[page]))})
    repr(pilot)
    for service in pilot.registry or ():
        assert service.hostname


@few
@given(st.text(alphabet='{}=" \n1.eapilot_#NaInf+-', max_size=60))
@example('pilot_pushes{type="a"} 1\npilot_pushes{type="b"} 2e0\npilot_pushes 1e\n')
@example("pilot_pushes NaN\npilot_pushes +Inf\npilot_pushes{ 1\n")
def test_metrics_of_any_form(text: str) -> None:
    """Whatever the text is, metrics are numbers by name."""
    assert all(isinstance(value, float) for value in load(**{METRICS: text}).metrics.values())
