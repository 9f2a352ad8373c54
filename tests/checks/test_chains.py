"""Faults of the control plane and of the registry, as causes of what follows from them."""

import json
from collections.abc import Iterator
from typing import Any

from meshdoctor.evidence.consul import LEADER
from meshdoctor.findings import Severity
from meshdoctor.report.document import Report
from tests.checks.editing import Recording

RATINGS = "consul/catalog/service/ratings.json"


def trees(recording: Recording) -> dict[str, set[str]]:
    """The codes of each diagnosis that is an error or a warning, by its root's."""

    def found(report: Report) -> Iterator[tuple[str, set[str]]]:
        for each in report.diagnoses:
            if each.severity is not Severity.INFO:
                codes = {report.finding(finding).code for finding in each.findings}
                yield report.finding(each.root).code, codes

    return dict(found(recording.report()))


def test_without_a_leader_nothing_is_registered() -> None:
    """That a service is not in Consul follows from it."""
    recording = Recording("fixed")
    recording.documents[LEADER] = b'""'
    recording.remove(RATINGS)
    recording.remove("pilot/")
    recording.edit(
        "consul/catalog/services.json",
        lambda names: {name: tags for name, tags in names.items() if name != "ratings"},
    )
    assert trees(recording) == {"MD104": {"MD104", "MD207"}}


def test_an_instance_without_an_address_is_an_endpoint_of_nobodys() -> None:
    """What the sidecars still have is no address of Consul's any more."""
    recording = Recording("fixed")
    recording.remove("pilot/")

    def forget(instances: list[dict[str, Any]]) -> None:
        instances[0]["ServiceAddress"] = ""

    recording.edit(RATINGS, forget)
    (codes,) = (codes for root, codes in trees(recording).items() if root == "MD208")
    assert "MD405" in codes


def test_an_ill_instance_is_why_a_cluster_has_no_healthy_endpoint() -> None:
    """Consul's word for it and Envoy's are one fault."""
    recording = Recording("fixed")

    def ail(entries: list[dict[str, Any]]) -> None:
        instance = entries[0]["Service"]["ID"]
        entries[0]["Checks"].append(
            {"CheckID": "web", "Name": "web", "Status": "critical", "ServiceID": instance}
        )

    def unhealthy(page: dict[str, Any]) -> None:
        for cluster in page["cluster_statuses"]:
            if cluster["name"] == "outbound|9080||ratings.service.consul":
                for host in cluster["host_statuses"]:
                    host["health_status"] = {"eds_health_status": "UNHEALTHY"}

    recording.edit("consul/health/service/ratings.json", ail)
    for name in [each for each in recording.documents if each.endswith("/clusters.json")]:
        recording.edit(name, unhealthy)
    found = trees(recording)
    assert list(found) == ["MD211"]
    assert "MD405" in found["MD211"]


def test_a_tag_without_a_key_is_a_warning_of_its_own() -> None:
    """Nothing routes by it in this mesh, so nothing follows."""
    recording = Recording("fixed")
    text = recording.documents[RATINGS].decode()
    recording.documents[RATINGS] = text.replace('"version|v1"', '"v1"').encode()
    assert json.loads(recording.documents[RATINGS])[0]["ServiceTags"] == ["v1"]
    assert trees(recording) == {"MD205": {"MD205"}}


def test_a_sidecar_without_any_configuration_is_why_its_calls_end_nowhere() -> None:
    """Both the calls of its application and those to it."""
    recording = Recording("lab/weights-of-ninety")
    sidecar = "envoy/consul_ratings-v1-sidecar_1"

    def nothing_received(dump: dict[str, Any]) -> None:
        kept = []
        for each in dump["configs"]:
            section = each["@type"].rpartition(".")[2]
            if section in {"BootstrapConfigDump", "ListenersConfigDump", "ClustersConfigDump"}:
                kept.append({key: each[key] for key in each if not key.startswith("dynamic")})
        dump["configs"] = kept

    recording.edit(f"{sidecar}/config_dump.json", nothing_received)
    recording.edit(f"{sidecar}/clusters.json", lambda _page: {"cluster_statuses": []})
    recording.edit(f"{sidecar}/stats.json", lambda _page: {"stats": []})
    found = trees(recording)
    assert found.pop("MD306") == {"MD306", "MD402", "MD409"}
    assert set(found) == {"MD505"}
