"""What somebody's rules do with calls on purpose is no misrouted call."""

import json
from collections.abc import Sequence
from typing import Any, Final

import pytest

from meshdoctor.findings import Severity
from meshdoctor.report.document import Report, Verdict
from tests.checks.editing import Recording

SUFFIX: Final = ".service.consul"
EVERYTHING: Final = {"prefix": "/"}
INBOUND_OF_ANOTHER_PORT: Final = (
    "-A ISTIO_INBOUND -p tcp -j ISTIO_REDIRECT",
    "-A ISTIO_INBOUND -p tcp -m tcp --dport 8080 -j ISTIO_REDIRECT",
)


def ruled(host: str, routes: Sequence[dict[str, Any]], kind: str = "http") -> Recording:
    """The sound mesh with one VirtualService."""
    recording = Recording("fixed")
    rule = {
        "metadata": {"name": "meant", "namespace": "default"},
        "spec": {"hosts": [host], kind: routes},
    }
    recording.edit("istio/virtualservices.json", lambda rules: rules.update(items=[rule]))
    return recording


def routed(recording: Recording, service: str, routes: Sequence[dict[str, Any]]) -> Recording:
    """What Pilot makes of it in each sidecar."""

    def change(dump: dict[str, Any]) -> None:
        for each in dump["configs"]:
            for entry in each.get("dynamic_route_configs", ()):
                for host in entry["route_config"]["virtual_hosts"]:
                    if host["name"].startswith(f"{service}."):
                        host["routes"] = routes

    for name in recording.documents:
        if name.endswith("/config_dump.json"):
            recording.edit(name, change)
    return recording


def to(service: str, **matching: Any) -> dict[str, Any]:
    cluster = f"outbound|9080||{service}{SUFFIX}"
    return {"match": matching or EVERYTHING, "route": {"cluster": cluster}}


def destination(service: str) -> dict[str, Any]:
    return {"route": [{"destination": {"host": f"{service}{SUFFIX}"}}]}


def facts(report: Report) -> list[str]:
    return [fact.message for each in report.checks for fact in each.facts]


def misrouted(report: Report) -> list[str]:
    return [each.message for each in report.findings if each.code == "MD402"]


@pytest.mark.parametrize("host", [f"ratings{SUFFIX}", f"*{SUFFIX}"])
def test_a_rule_sends_calls_on_to_another_service(host: str) -> None:
    """That service is what the caller is meant to reach."""
    recording = routed(ruled(host, [destination("details")]), "ratings", [to("details")])
    report = recording.report()
    assert [each for each in report.findings if each.severity is not Severity.INFO] == []
    assert report.verdict is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("host", "leads_to"), [(f"reviews{SUFFIX}", "details"), (f"ratings{SUFFIX}", "reviews")]
)
def test_a_rule_for_others_is_no_excuse(host: str, leads_to: str) -> None:
    """Neither one for another service, nor one that leads elsewhere."""
    recording = routed(ruled(host, [destination(leads_to)]), "ratings", [to("details")])
    (message,) = misrouted(recording.report())
    assert message.startswith("Calls to ratings on port 9080 reach details instead")


def test_a_rule_for_requests_does_not_excuse_a_tcp_listener() -> None:
    """What a collision does to calls is what nobody's rule asked for."""
    recording = Recording("broken")
    rule = {
        "metadata": {"name": "meant", "namespace": "default"},
        "spec": {"hosts": [f"ratings{SUFFIX}"], "http": [destination("reviews")]},
    }
    recording.edit("istio/virtualservices.json", lambda rules: rules.update(items=[rule]))
    assert any("to ratings on port 9080 reach reviews" in m for m in misrouted(recording.report()))


@pytest.mark.parametrize(
    "only",
    [
        {"prefix": "/reviews"},
        {"prefix": "/", "headers": [{"name": "x-api", "exact_match": "1"}]},
    ],
)
def test_routes_for_other_requests_are_no_fault(only: dict[str, Any]) -> None:
    """GET / is not what the callers of such a service ask for."""
    recording = routed(
        ruled(f"reviews{SUFFIX}", [destination("reviews")]), "reviews", [to("reviews", **only)]
    )
    report = recording.report()
    assert misrouted(report) == []
    assert "6 calls whose routes send on other requests than GET /" in facts(report)
    assert "18 of 24 calls reach the service they name" in facts(report)


def test_a_virtual_host_without_routes_is_a_fault() -> None:
    """No request whatever is sent on."""
    (message,) = misrouted(routed(Recording("fixed"), "reviews", []).report())
    assert message.startswith("Calls to reviews on port 9080 get 404 from the proxy itself")


def test_a_redirect_is_no_fault() -> None:
    """The caller is told where to go instead."""
    redirect = {"match": EVERYTHING, "redirect": {"path_redirect": "/v1"}}
    recording = routed(
        ruled(f"reviews{SUFFIX}", [{"redirect": {"uri": "/v1"}}]), "reviews", [redirect]
    )
    assert misrouted(recording.report()) == []


def test_a_port_that_no_rule_redirects_is_reached_past_the_sidecar() -> None:
    """Nothing sends such a call round in circles."""
    recording = Recording("fixed")
    old, new = INBOUND_OF_ANOTHER_PORT
    name = "netfilter/consul_details-v1-sidecar_1.nat.txt"
    text = recording.documents[name].decode()
    assert old in text
    recording.documents[name] = text.replace(old, new).encode()
    assert misrouted(recording.report()) == []


@pytest.mark.parametrize(("answers", "codes"), [("details", set()), ("reviews", {"MD601"})])
def test_a_probe_is_answered_by_whom_a_rule_sends_it_to(answers: str, codes: set[str]) -> None:
    """Whoever else answers is the wrong one."""
    recording = routed(
        ruled(f"ratings{SUFFIX}", [destination("details")]), "ratings", [to("details")]
    )
    request = {
        "callee": "ratings",
        "port": 9080,
        "url": "http://ratings:9080/",
        "path": "/",
        "name": "ratings",
        "connected": "172.28.0.8:9080",
        "answer": {"status": 200, "headers": {}, "sha256": "", "bytes": 0, "whole": True},
        "answered_by": {"service": answers, "how": "proxy statistics", "flag": ""},
    }
    caller = "consul_reviews-v1_1"
    told = {"schema": "meshdoctor.probe/v1", "caller": caller, "requests": [request]}
    recording.documents[f"probe/{caller}.json"] = json.dumps(told).encode()
    said = {each.code for each in recording.report().findings}
    assert said & {"MD601", "MD603"} == codes


def of_connect(kind: str, entry: dict[str, Any] | None, **upstream: str) -> Recording:
    """Consul's own mesh, in which the endpoints of api lie at an address of somebody else's."""
    recording = Recording("connect-healthy")

    def move(page: dict[str, Any]) -> None:
        for cluster in page["cluster_statuses"]:
            for host in cluster.get("host_statuses", ()) if "api." in cluster["name"] else ():
                host["address"]["socket_address"]["address"] = "10.50.0.1"

    def change(instances: list[dict[str, Any]]) -> None:
        for each in instances[0]["ServiceProxy"]["Upstreams"]:
            if each["DestinationName"] == "api":
                each.update(upstream)

    recording.edit("envoy/web-sidecar-proxy/clusters.json", move)
    recording.edit("consul/catalog/service/web-sidecar-proxy.json", change)
    if entry is not None:
        entries = [{"Kind": kind, "Name": "api", **entry}]
        recording.documents[f"consul/config/{kind}.json"] = json.dumps(entries).encode()
    return recording


RESOLVER: Final = "service-resolver"


@pytest.mark.parametrize(
    ("kind", "entry", "upstream"),
    [
        (RESOLVER, {"Redirect": {"Service": "api", "Datacenter": "dc2"}}, {}),
        (RESOLVER, {"Redirect": {"Service": "api", "Peer": "east"}}, {}),
        (RESOLVER, {"Failover": {"*": {"Datacenters": ["dc2"]}}}, {}),
        (RESOLVER, {"Failover": {"*": {"Targets": [{"Peer": "east"}]}}}, {}),
        ("", None, {"DestinationPeer": "east"}),
        ("", None, {"DestinationNamespace": "team"}),
    ],
)
def test_what_lies_in_another_place_is_not_known_here(
    kind: str, entry: dict[str, Any] | None, upstream: dict[str, str]
) -> None:
    """Its endpoints are in another catalogue than this."""
    (message,) = misrouted(of_connect("", None).report())
    assert message.startswith("Calls to api on port 9191 end nowhere, from web")
    assert misrouted(of_connect(kind, entry, **upstream).report()) == []
