"""Causes and symptoms on whole meshes: one root for one fault, two for two."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pytest

from meshdoctor.findings import Severity, SubjectKind
from meshdoctor.report.document import Report, ReportedFinding, Verdict
from tests.checks.editing import Recording

WORKLOADS: Final = (
    "details-v1",
    "productpage-v1",
    "ratings-v1",
    "reviews-v1",
    "reviews-v2",
    "reviews-v3",
)
ISTIO_SIDECARS: Final = tuple(f"consul_{name}-sidecar_1" for name in WORKLOADS)
DETAILS: Final = ISTIO_SIDECARS[0]
WEB: Final = "web-sidecar-proxy"
UNDEFINED: Final = "outbound|9080|v9|reviews.service.consul"

Codes = tuple[str, Sequence[str]]
"""The code of a root, and those of all findings below it, sorted."""


# ---------------------------------------------------------------- what a report says


def errors(report: Report) -> list[Codes]:
    """The roots of what is an error, without the warning that sidecars differ (MD409)."""
    return sorted(
        (root, [code for code in below if code != "MD409"])
        for root, below in trees(report)
        if root != "MD409"
    )


def trees(report: Report) -> list[Codes]:
    """The diagnoses that are errors or warnings, in the report's order."""
    by_id = {finding.id: finding for finding in report.findings}
    return [
        (by_id[each.root].code, sorted(by_id[i].code for i in each.findings if i != each.root))
        for each in report.diagnoses
        if each.severity is not Severity.INFO
    ]


def all_of(report: Report, code: str) -> list[ReportedFinding]:
    return [each for each in report.findings if each.code == code]


def named(finding: ReportedFinding, kind: SubjectKind) -> list[str]:
    return [subject.name for subject in finding.subjects if subject.kind is kind]


# ---------------------------------------------------------------- faults


def dump(recording: Recording, sidecar: str, change: Callable[[Mapping[str, Any]], None]) -> None:
    """Change a sidecar's dump, given as its sections by their short names."""

    def apply(content: Any) -> None:
        change({each["@type"].rpartition(".")[2]: each for each in content["configs"]})

    recording.edit(f"envoy/{sidecar}/config_dump.json", apply)


def route_to(recording: Recording, sidecar: str, service: str, cluster: str) -> None:
    """Let the route of a service lead to another cluster, as a VirtualService does."""

    def change(sections: Mapping[str, Any]) -> None:
        config = sections["RoutesConfigDump"]["dynamic_route_configs"][0]["route_config"]
        for host in config["virtual_hosts"]:
            if host["name"].startswith(f"{service}."):
                host["routes"][0]["route"]["cluster"] = cluster

    dump(recording, sidecar, change)


def add_cluster(recording: Recording, sidecar: str, name: str) -> None:
    """Give a proxy a cluster for a subset of reviews that no instance belongs to."""

    def change(sections: Mapping[str, Any]) -> None:
        clusters = sections["ClustersConfigDump"]["dynamic_active_clusters"]
        (like,) = [
            each
            for each in clusters
            if each["cluster"]["name"] == "outbound|9080||reviews.service.consul"
        ]
        added = copy.deepcopy(like)
        added["cluster"]["name"] = name
        clusters.append(added)

    dump(recording, sidecar, change)
    recording.edit(
        f"envoy/{sidecar}/clusters.json",
        lambda page: page["cluster_statuses"].append({"name": name}),
    )


def empty(recording: Recording, sidecar: str, begins: str) -> None:
    """Take the endpoints of a cluster away."""

    def change(page: Any) -> None:
        for each in page["cluster_statuses"]:
            if each["name"].startswith(begins):
                each["host_statuses"] = []

    recording.edit(f"envoy/{sidecar}/clusters.json", change)


def age(recording: Recording, sidecar: str, winner: str) -> None:
    """Give a sidecar the listener of port 9080 that it had while Pilot took the port for TCP."""
    cluster = f"outbound|9080||{winner}.service.consul"
    tcp = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"

    def change(sections: Mapping[str, Any]) -> None:
        sections["RoutesConfigDump"]["dynamic_route_configs"] = []
        for each in sections["ListenersConfigDump"]["dynamic_listeners"]:
            if each["name"] == "0.0.0.0_9080":
                config = {"@type": tcp, "stat_prefix": cluster, "cluster": cluster}
                filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": config}]
                each["active_state"]["listener"]["filter_chains"] = [{"filters": filters}]

    dump(recording, sidecar, change)


def forget_routes(recording: Recording, sidecar: str) -> None:
    """Take the routes of port 9080 away."""
    dump(
        recording,
        sidecar,
        lambda sections: sections["RoutesConfigDump"].update(dynamic_route_configs=[]),
    )


def refuse(recording: Recording, sidecar: str, name: str, port: int) -> None:
    """Let a proxy have refused a listener, for a reason that is no address."""

    def change(sections: Mapping[str, Any]) -> None:
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        refused = {
            "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
            "name": name,
            "address": address,
        }
        reason = "Didn't find a registered implementation for 'envoy.filters.http.router'"
        sections["ListenersConfigDump"]["dynamic_listeners"].append(
            {"name": name, "error_state": {"failed_configuration": refused, "details": reason}}
        )

    dump(recording, sidecar, change)


# ---------------------------------------------------------------- one fault, one root


@pytest.mark.parametrize("mesh", ["fixed", "fixed-v2", "connect-healthy"])
def test_a_sound_mesh_is_healthy(mesh: str) -> None:
    """No error, no warning, and the verdict says so."""
    report = Recording(mesh).report()
    assert trees(report) == []
    assert report.verdict is Verdict.HEALTHY


@pytest.mark.parametrize("mesh", ["broken", "broken-v2"])
def test_every_wrong_call_is_below_the_one_root(mesh: str) -> None:
    """Registrator drops the metadata; all that is wrong follows from it."""
    report = Recording(mesh).report()
    assert trees(report) == [("MD202", ["MD201", "MD401", "MD402", "MD402", "MD402"])]


def test_an_undefined_subset() -> None:
    """The route to it is the root, the calls that get 503 are below."""
    recording = Recording("fixed")
    for sidecar in ISTIO_SIDECARS:
        route_to(recording, sidecar, "reviews", UNDEFINED)
    report = recording.report()
    assert trees(report) == [("MD404", ["MD402"])]
    (symptom,) = all_of(report, "MD402")
    assert "get 503 from the proxy itself, from all 6 callers" in symptom.message


def test_a_subset_without_instance() -> None:
    """The empty cluster is the root."""
    recording = Recording("fixed")
    for sidecar in ISTIO_SIDECARS:
        add_cluster(recording, sidecar, UNDEFINED)
        route_to(recording, sidecar, "reviews", UNDEFINED)
    assert trees(recording.report()) == [("MD405", ["MD402"])]


def test_routes_that_never_came() -> None:
    """In one sidecar: the listener waits, all its calls get 404, and it differs from others."""
    recording = Recording("fixed")
    forget_routes(recording, DETAILS)
    report = recording.report()
    assert [root for root, _ in trees(report)] == ["MD406"]
    assert {each.code for each in report.findings if each.severity is not Severity.INFO} == {
        "MD406",
        "MD402",
        "MD409",
    }


def test_one_sidecar_with_an_old_configuration() -> None:
    """Its TCP listener is the root, and a warning names it as the one that differs."""
    recording = Recording("fixed")
    age(recording, DETAILS, "reviews")
    report = recording.report()
    (root,) = all_of(report, "MD401")
    assert "1 of 6 examined sidecars" in root.message
    assert errors(report) == [("MD401", ["MD402", "MD402"])]
    (differs,) = all_of(report, "MD409")
    assert differs.severity is Severity.WARNING
    assert named(differs, SubjectKind.SIDECAR) == [DETAILS]


def test_two_upstreams_on_one_port() -> None:
    """The registration is the root; it says who answers now."""
    report = Recording("connect-collision").report()
    assert trees(report) == [("MD701", ["MD308", "MD402"])]
    (root,) = all_of(report, "MD701")
    for name in (WEB, "127.0.0.1:9191", "api", "pay", "calls to both now reach pay"):
        assert name in root.message
    assert named(root, SubjectKind.INSTANCE) == [WEB]
    assert named(root, SubjectKind.LISTENER) == ["127.0.0.1:9191"]


def test_a_rule_without_effect() -> None:
    """An HTTP rule on the poisoned port is one more symptom of what poisoned it."""
    recording = Recording("broken")
    rule = {
        "metadata": {"name": "reviews"},
        "spec": {"hosts": ["reviews.service.consul"], "http": [{"route": []}]},
    }
    recording.edit("istio/virtualservices.json", lambda rules: rules["items"].append(rule))
    assert trees(recording.report()) == [
        ("MD202", ["MD201", "MD401", "MD402", "MD402", "MD402", "MD508"])
    ]


# ---------------------------------------------------------------- two faults, two roots


def test_faults_of_two_services() -> None:
    """An undefined subset of reviews has nothing to do with ratings, which has no endpoint."""
    recording = Recording("fixed")
    for sidecar in ISTIO_SIDECARS:
        route_to(recording, sidecar, "reviews", UNDEFINED)
        empty(recording, sidecar, "outbound|9080||ratings.")
    assert sorted(trees(recording.report())) == [("MD404", ["MD402"]), ("MD405", ["MD402"])]


def test_a_collision_and_a_subset() -> None:
    """One sidecar is behind, the others route reviews to a subset that is not there."""
    recording = Recording("fixed")
    for sidecar in ISTIO_SIDECARS:
        route_to(recording, sidecar, "reviews", UNDEFINED)
    age(recording, DETAILS, "ratings")
    assert [root for root, _ in errors(recording.report())] == ["MD401", "MD404"]


def test_a_service_without_endpoint_beside_a_collision() -> None:
    """That db has no endpoint is no work of the ports that api and pay share."""
    recording = Recording("connect-collision")
    for sidecar in ("api-sidecar-proxy", "pay-sidecar-proxy"):
        empty(recording, sidecar, "db.")
    assert sorted(trees(recording.report())) == [
        ("MD405", ["MD402", "MD402"]),
        ("MD701", ["MD308", "MD402"]),
    ]


@pytest.mark.parametrize("sidecar", [WEB, "db-sidecar-proxy"])
def test_another_listener_refused_beside_a_collision(sidecar: str) -> None:
    """A listener that was refused for another reason is a fault of its own, in any proxy."""
    recording = Recording("connect-collision")
    refuse(recording, sidecar, "other:127.0.0.1:9555", 9555)
    assert sorted(trees(recording.report())) == [("MD308", []), ("MD701", ["MD308", "MD402"])]
