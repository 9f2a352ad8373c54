"""Pitfall 8, rules that send calls nowhere: the one root, and the calls below it."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from meshdoctor.collectors.rules import lay_over
from meshdoctor.evidence.istio import DESTINATION_RULES, VIRTUAL_SERVICES
from meshdoctor.findings import Severity
from meshdoctor.report.document import Report
from tests.checks.editing import Recording, judged

HOST: Final = "reviews.service.consul"
VERSIONS: Final = ("v1", "v2", "v3")
SECTIONS: Final = ("RoutesConfigDump", "ClustersConfigDump")

Tree = tuple[str, list[str]]


def trees(report: Report) -> list[Tree]:
    """The root of each diagnosis that is an error or a warning, and what is below it."""
    codes = {finding.id: finding.code for finding in report.findings}
    return [
        (codes[each.root], sorted(codes[i] for i in each.findings if i != each.root))
        for each in report.diagnoses
        if each.severity is not Severity.INFO
    ]


def apply(recording: Recording, *, route: str, subsets: tuple[str, ...]) -> None:
    """A VirtualService that routes to a subset, and a DestinationRule with those subsets."""
    share = {"destination": {"host": HOST, "subset": route}}
    metadata = {"name": "reviews", "namespace": "default"}
    service = {"metadata": metadata, "spec": {"hosts": [HOST], "http": [{"route": [share]}]}}
    labels = [{"name": name, "labels": {"version": name}} for name in subsets]
    rule = {"metadata": metadata, "spec": {"host": HOST, "subsets": labels}}
    for document, item in ((VIRTUAL_SERVICES, service), (DESTINATION_RULES, rule)):
        recording.documents[document] = json.dumps({"items": [item]}).encode()


def push(recording: Recording, *, route: str, subsets: tuple[str, ...]) -> None:
    """What Pilot then sends to every sidecar: the route, and a cluster for each subset."""
    for name in [each for each in recording.documents if each.endswith("/config_dump.json")]:

        def change(dump: Any) -> None:
            parts = {each["@type"].rpartition(".")[2]: each for each in dump["configs"]}
            routes, clusters = (parts[each] for each in SECTIONS)
            for host in routes["dynamic_route_configs"][0]["route_config"]["virtual_hosts"]:
                if host["name"].startswith("reviews."):
                    host["routes"][0]["route"]["cluster"] = f"outbound|9080|{route}|{HOST}"
            there = clusters["dynamic_active_clusters"]
            (like,) = [e for e in there if e["cluster"]["name"] == f"outbound|9080||{HOST}"]
            for subset in subsets:
                added = json.loads(json.dumps(like))
                added["cluster"]["name"] = f"outbound|9080|{subset}|{HOST}"
                there.append(added)

        recording.edit(name, change)
        page = name.replace("config_dump", "clusters")
        recording.edit(page, lambda page: page["cluster_statuses"].extend(statuses(page, subsets)))


def statuses(page: Any, subsets: tuple[str, ...]) -> list[Any]:
    """The endpoints of each subset: one each, and none for a version that nobody has."""
    (like,) = [e for e in page["cluster_statuses"] if e["name"] == f"outbound|9080||{HOST}"]
    hosts = like["host_statuses"]
    return [
        {
            "name": f"outbound|9080|{subset}|{HOST}",
            "host_statuses": [hosts[VERSIONS.index(subset)]] if subset in VERSIONS else [],
        }
        for subset in subsets
    ]


def test_8_a_subset_that_nobody_defines() -> None:
    """The rule is the root, the route to a missing cluster below it, then the calls."""
    recording = Recording("fixed")
    apply(recording, route="v9", subsets=VERSIONS)
    push(recording, route="v9", subsets=VERSIONS)
    report = recording.report()
    assert trees(report) == [("MD501", ["MD402", "MD404"])]
    (call,) = [each for each in report.findings if each.code == "MD402"]
    (route,) = [each for each in report.findings if each.code == "MD404"]
    assert call.causes == (route.id,)
    assert report.diagnoses[0].title == (
        "VirtualService reviews routes to the subset v9 of reviews.service.consul, which no "
        "DestinationRule defines (v1, v2 and v3 are defined): calls sent there find no cluster, "
        "and fail."
    )


def test_8_a_subset_that_no_instance_belongs_to() -> None:
    """The rule is the root, the empty cluster below it, then the calls."""
    recording = Recording("fixed")
    apply(recording, route="v4", subsets=("v1", "v4"))
    push(recording, route="v4", subsets=("v1", "v4"))
    assert trees(recording.report()) == [("MD502", ["MD402", "MD405"])]


def test_8_a_subset_that_is_defined_and_has_an_instance() -> None:
    """Nothing is wrong with it."""
    recording = Recording("fixed")
    apply(recording, route="v2", subsets=VERSIONS)
    push(recording, route="v2", subsets=VERSIONS)
    assert trees(recording.report()) == []


def test_8_a_host_written_short() -> None:
    """A DestinationRule for `reviews` defines nothing for reviews.service.consul."""
    recording = Recording("fixed")
    apply(recording, route="v1", subsets=("v1",))
    recording.edit(DESTINATION_RULES, lambda them: them["items"][0]["spec"].update(host="reviews"))
    push(recording, route="v1", subsets=())
    assert trees(recording.report()) == [("MD503", ["MD402", "MD404", "MD501"])]


def test_a_rule_that_never_came_to_the_sidecars() -> None:
    """It is applied, and every sidecar has the routes it had."""
    recording = Recording("fixed")
    apply(recording, route="v2", subsets=VERSIONS)
    assert trees(recording.report()) == [("MD507", [])]


def test_the_second_rule_of_a_host_counts_for_nothing() -> None:
    """The older one is in effect, so nothing is missing from the sidecars."""
    recording = Recording("fixed")
    apply(recording, route="v1", subsets=VERSIONS)

    def add(them: Any) -> None:
        (first,) = them["items"]
        second = json.loads(json.dumps(first).replace('"v1"', '"v3"'))
        first["metadata"]["creationTimestamp"] = "2026-11-22T19:00:00Z"
        second["metadata"].update(name="canary", creationTimestamp="2026-11-22T19:30:00Z")
        them["items"].append(second)

    recording.edit(VIRTUAL_SERVICES, add)
    push(recording, route="v1", subsets=VERSIONS)
    assert trees(recording.report()) == [("MD506", [])]


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        ("fixed", [("MD501", [])]),
        (
            "broken",
            [("MD202", ["MD201", "MD401", "MD402", "MD402", "MD402", "MD508"]), ("MD501", [])],
        ),
    ],
)
def test_a_rule_that_is_only_tried_out(mesh: str, expected: list[Tree], tmp_path: Path) -> None:
    """It is judged as if it were applied; that the sidecars do not show it is no fault."""
    file = tmp_path / "reviews.yaml"
    share = {"destination": {"host": HOST, "subset": "v9"}}
    spec = {"hosts": [HOST], "http": [{"route": [share]}]}
    rule = {"kind": "VirtualService", "metadata": {"name": "reviews"}, "spec": spec}
    file.write_text(json.dumps(rule))
    report = judged(lay_over(Recording(mesh).snapshot(), [file]))
    assert trees(report) == expected
