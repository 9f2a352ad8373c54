"""Consul's ACLs show a part of what there is: nothing follows from what is not shown."""

from typing import Any, Final

import pytest

from meshdoctor.diagnosis import Checks, examine
from meshdoctor.evidence import layout
from meshdoctor.evidence.access import LEFT_OUT
from meshdoctor.evidence.interface import Problem
from meshdoctor.report.document import CheckVerdict, Report, Verdict
from meshdoctor.snapshot import Snapshot
from meshdoctor_checks import CHECKS
from tests.checks.editing import Recording

SERVICES: Final = "consul/catalog/services.json"
SAID: Final = Problem("consul/catalog/", f"{LEFT_OUT}: give a token")


def hide(recording: Recording, *services: str) -> Recording:
    for service in services:
        recording.remove(layout.catalog_service(service))
        recording.remove(layout.health_service(service))
    recording.edit(
        SERVICES,
        lambda names: {name: tags for name, tags in names.items() if name not in services},
    )
    return recording


def judged(recording: Recording, *absent: Problem) -> Report:
    snapshot = Snapshot(dict(recording.documents), absent=absent)
    return examine(snapshot, Checks(tuple(CHECKS)), {"kind": "snapshot"})


def codes(report: Report) -> set[str]:
    return {each.code for each in report.findings}


def skipped(report: Report) -> set[str]:
    return {each.code for each in report.checks if each.verdict is CheckVerdict.SKIPPED}


def test_an_application_that_is_not_shown_may_be_registered() -> None:
    """Consul says that it left something out: MD207 cannot tell, nor MD103 who is behind."""
    whole = codes(Recording("fixed").report())
    recording = hide(Recording("fixed"), "details", "ratings")
    assert "MD207" in codes(judged(recording))
    report = judged(recording, SAID)
    assert codes(report) == whole
    assert "MD207" in skipped(report)
    assert report.verdict is Verdict.UNKNOWN
    assert report.verdict_reason == "Consul's ACLs hide a part of its catalogue"


def test_who_does_not_see_consul_itself_does_not_see_all() -> None:
    """An older Consul says nothing of what it leaves out."""
    report = judged(hide(Recording("fixed"), "details", "consul"))
    assert codes(report) == codes(Recording("fixed").report())
    assert report.verdict is Verdict.UNKNOWN


def test_a_catalogue_that_shows_nothing_gives_no_verdict() -> None:
    """As an older Consul answers who has no token: 200, and an empty list."""
    recording = Recording("fixed")
    recording.remove("consul/catalog/service/")
    recording.remove("consul/health/")
    recording.documents[SERVICES] = b"{}"
    report = judged(recording)
    assert codes(report) == set()
    assert report.verdict is Verdict.UNKNOWN


def test_a_service_whose_instances_are_not_shown_is_not_known() -> None:
    """ACLs may hide the node: the service is listed, and without instances."""
    recording = Recording("fixed")
    recording.documents[layout.catalog_service("ratings")] = b"[]"
    report = judged(recording)
    assert codes(report) == codes(Recording("fixed").report())
    assert report.verdict is Verdict.UNKNOWN
    assert report.verdict_reason == "the instances of ratings in Consul are not known"


@pytest.mark.parametrize("hidden", [("db",), ("db", "db-sidecar-proxy")])
def test_an_upstream_that_is_not_shown_may_be_registered(hidden: tuple[str, ...]) -> None:
    """Neither the upstream nor its proxy is at fault."""
    recording = hide(Recording("connect-healthy"), *hidden)
    assert {"MD702", "MD709"} <= codes(judged(recording))
    report = judged(recording, SAID)
    assert codes(report) == {"MD708"}
    assert "MD702" in skipped(report)
    assert report.verdict is Verdict.UNKNOWN


def test_a_rule_for_a_host_that_is_not_shown_may_be_right() -> None:
    """Where Pilot does not tell what is registered, nobody does."""
    recording = hide(Recording("fixed"), "details")
    recording.remove("pilot/")
    rule = {
        "metadata": {"name": "details", "namespace": "default"},
        "spec": {
            "hosts": ["details.service.consul"],
            "http": [{"route": [{"destination": {"host": "details.service.consul"}}]}],
        },
    }
    recording.edit("istio/virtualservices.json", lambda rules: rules.update(items=[rule]))
    assert "MD503" in codes(judged(recording))
    report = judged(recording, SAID)
    assert "MD503" not in codes(report)
    assert "MD503" in skipped(report)


DENYING: Final[dict[str, Any]] = {"SourceName": "*", "DestinationName": "*", "Action": "deny"}


def test_an_intention_that_is_not_shown_may_allow_a_call() -> None:
    """A narrower one comes before the one that is shown."""
    recording = Recording("connect-healthy")
    recording.edit("consul/connect/intentions.json", lambda _: [{**DENYING, "Precedence": 5}])
    assert "MD704" in codes(judged(recording))
    report = judged(recording, Problem("consul/connect/", f"{LEFT_OUT}: give a token"))
    assert "MD704" not in codes(report)
