"""The whole run on whole meshes: one cause where there is one, two where there are two."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from meshdoctor.findings import Severity, SubjectKind
from meshdoctor.report.document import CheckVerdict, Report, ReportedFinding, Verdict
from tests.checks.editing import MESHES, Recording

BROKEN: Final = ("broken", "broken-v2")
SOUND: Final = ("fixed", "fixed-v2")
SERVICES: Final = frozenset({"details", "productpage", "ratings", "reviews"})
PORT: Final = 9080


def reported(report: Report, code: str) -> ReportedFinding:
    (finding,) = [each for each in report.findings if each.code == code]
    return finding


def named(finding: ReportedFinding, kind: SubjectKind) -> set[str]:
    return {subject.name for subject in finding.subjects if subject.kind is kind}


def steps(finding: ReportedFinding) -> set[str]:
    return {step for remedy in finding.remedies for step in remedy.commands}


def error_roots(report: Report) -> list[str]:
    """The codes of the roots of what is an error, sorted."""
    return sorted(
        report.finding(diagnosis.root).code
        for diagnosis in report.diagnoses
        if diagnosis.severity is Severity.ERROR
    )


def tree(report: Report, root: str) -> set[str]:
    """The codes below the one root of that code, itself among them."""
    (diagnosis,) = [each for each in report.diagnoses if report.finding(each.root).code == root]
    return {report.finding(each).code for each in diagnosis.findings}


def crashed(report: Report) -> Mapping[str, str]:
    return {
        each.code: each.traceback for each in report.checks if each.verdict is CheckVerdict.CRASHED
    }


def owner_in_the_dumps(recording: Recording) -> str:
    """The service that the TCP listener of the port sends to, as the raw dumps have it."""

    def clusters(value: Any) -> Iterator[str]:
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            if key == "cluster" and isinstance(each, str):
                yield each
            elif isinstance(each, dict | list):
                yield from clusters(each)

    def listeners(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and "filter_chains" in value:
            yield value
        elif isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                yield from listeners(each)

    wildcard = {"address": "0.0.0.0", "port_value": PORT}  # noqa: S104 # how Pilot binds it
    owners = {
        cluster.rpartition("|")[2].partition(".")[0]
        for name, body in recording.documents.items()
        if name.endswith("/config_dump.json")
        for listener in listeners(json.loads(body))
        if wildcard.items() <= listener["address"]["socket_address"].items()
        for cluster in clusters(listener)
    }
    (owner,) = owners
    return owner


def owner_that_answered() -> str:
    """The service that answered, whatever others were asked for."""
    rows = [line.split() for line in (MESHES / "broken.probe.txt").read_text().splitlines()]
    answers = Counter(row[3] for row in rows if row[3] != row[1])
    return answers.most_common(1)[0][0]


# ---------------------------------------------------------------- as recorded


@pytest.mark.parametrize("mesh", BROKEN)
def test_one_diagnosis_from_the_image_to_the_listener(mesh: str) -> None:
    """Registrator's image, the services without protocol, the listener: one error, that chain."""
    report = Recording(mesh).report()
    assert error_roots(report) == ["MD202"]
    root, missing, listener = (reported(report, code) for code in ("MD202", "MD201", "MD401"))
    assert "consul_registrator_1" in root.message
    assert "gliderlabs/registrator:latest" in root.message
    assert missing.causes == (root.id,)
    assert named(missing, SubjectKind.SERVICE) == SERVICES
    assert listener.causes == (missing.id,)
    assert named(listener, SubjectKind.LISTENER) == {f"0.0.0.0:{PORT}"}


@pytest.mark.parametrize("mesh", BROKEN)
def test_the_listener_names_its_owner_and_all_it_shadows(mesh: str) -> None:
    """The owner is the one of the raw dumps and of the real answers; all six sidecars have it."""
    recording = Recording(mesh)
    owner = owner_in_the_dumps(recording)
    assert owner == owner_that_answered()
    listener = reported(recording.report(), "MD401")
    assert f"to {owner}," in listener.message
    shadowed = listener.message.partition(" so ")[2].partition(" are shadowed")[0]
    assert set(shadowed.replace(" and ", ", ").split(", ")) == SERVICES - {owner}
    assert "arbitrary" in listener.message
    assert named(listener, SubjectKind.SERVICE) == SERVICES
    assert len(named(listener, SubjectKind.SIDECAR)) == 6
    assert len(listener.seen_in) == 6


@pytest.mark.parametrize("mesh", SOUND)
def test_a_sound_mesh_is_healthy(mesh: str) -> None:
    """No error and no warning, no check crashed, and the verdict says so."""
    report = Recording(mesh).report()
    assert [each for each in report.findings if each.severity is not Severity.INFO] == []
    assert crashed(report) == {}
    assert report.verdict is Verdict.HEALTHY


def test_a_sound_mesh_of_consuls_own_has_too_new_an_envoy() -> None:
    """It was recorded with an Envoy newer than that Consul supports: a warning, and all works."""
    report = Recording("connect-healthy").report()
    (finding,) = report.findings
    assert (finding.code, finding.severity) == ("MD708", Severity.WARNING)
    assert crashed(report) == {}
    assert report.verdict is Verdict.DEGRADED


# ---------------------------------------------------------------- other names

OTHER_NAMES: Final = {
    "consul_istiomesh": "shop_backend",
    "/srv/mesh/bookinfo": "/home/me/shop",
    "details": "articles",
    "productpage": "frontdoor",
    "ratings": "stars",
    "reviews": "opinions",
    "9080": "8081",
    "172.28.0.": "10.77.3.",
    '"com.docker.compose.project": "consul"': '"com.docker.compose.project": "shop"',
    '"com.docker.compose.project":"consul"': '"com.docker.compose.project":"shop"',
    "consul_": "shop_",
}


@pytest.mark.parametrize("mesh", [*BROKEN, "fixed", "fixed-v2"])
def test_nothing_depends_on_names(mesh: str) -> None:
    """Other services, containers, ports, networks and files: the same findings of the others."""
    before, after = Recording(mesh), Recording(mesh)
    after.replace(OTHER_NAMES)

    def renamed(text: str) -> str:
        for old, new in OTHER_NAMES.items():
            text = text.replace(old, new)
        return text.replace("-p consul ", "-p shop ")

    def shape(report: Report) -> list[tuple[str, Severity, int]]:
        return sorted((each.code, each.severity, len(each.causes)) for each in report.findings)

    assert shape(after.report()) == shape(before.report())
    said = {each.code: each for each in after.report().findings}
    for each in before.report().findings:
        if each.code in ("MD202", "MD209"):
            assert said[each.code].message == renamed(each.message)
            before_them = {in_any_order(renamed(step)) for step in steps(each)}
            assert {in_any_order(step) for step in steps(said[each.code])} == before_them


def in_any_order(step: str) -> tuple[str, ...]:
    """The words of a step; names are listed in their own order."""
    return tuple(sorted(re.split(r"[ ,{}]", step)))


def test_compose_v2_writes_other_names() -> None:
    """`consul-reviews-v1-1` instead of `consul_reviews-v1_1`, and `docker compose`."""
    recording = Recording("broken")
    recording.replace(
        {
            "consul_istiomesh": "CONSUL-ISTIOMESH",
            "consul_": "consul-",
            "_1": "-1",
            "CONSUL-ISTIOMESH": "consul_istiomesh",
            '"1.29.2"': '"2.24.5"',
        }
    )
    report = recording.report()
    assert error_roots(report) == ["MD202"]
    root = reported(report, "MD202")
    assert "consul-registrator-1" in root.message
    assert any(step.startswith("docker compose -p consul ") for step in steps(root))


# ---------------------------------------------------------------- less evidence

DOCUMENTS: Final = [
    pytest.param(mesh, name, id=f"{mesh} without {name}")
    for mesh in ("broken", "fixed", "connect-healthy")
    for name in Recording(mesh).documents
]
SOURCES: Final = ("consul/", "docker/", "envoy/", "istio/", "netfilter/", "pilot/")

TRUE_OF_LESS: Final = frozenset({"MD311"})
"""What may be said of a sound mesh of which a document is missing: that it could not be read."""


def _true_of(mesh: str) -> set[str]:
    return {each.code for each in Recording(mesh).report().findings} | TRUE_OF_LESS


def _without(mesh: str, *prefixes: str) -> Report:
    recording = Recording(mesh)
    for prefix in prefixes:
        recording.remove(prefix)
    return recording.report()


def _is_honest(report: Report, mesh: str) -> None:
    assert crashed(report) == {}
    assert {each.code for each in report.findings} <= _true_of(mesh)
    read = {each.name for each in report.coverage.sources if each.state.value != "missing"}
    if "consul" not in read or not report.coverage.sidecars_examined:
        assert report.verdict is not Verdict.HEALTHY


@pytest.mark.parametrize(("mesh", "document"), DOCUMENTS)
def test_a_missing_document_invents_nothing(mesh: str, document: str) -> None:
    """What is said without a document was true with it, and nothing crashes."""
    _is_honest(_without(mesh, document), mesh)


@pytest.mark.parametrize("mesh", ["broken", "fixed", "connect-healthy"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_missing_source_invents_nothing(mesh: str, source: str) -> None:
    """The same of everything that one source told."""
    _is_honest(_without(mesh, source), mesh)


@pytest.mark.parametrize("mesh", ["broken", "fixed", "connect-healthy"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_source_alone_invents_nothing(mesh: str, source: str) -> None:
    """The same where one source is all there is."""
    _is_honest(_without(mesh, *(each for each in SOURCES if each != source)), mesh)


# ---------------------------------------------------------------- two faults at once


def test_a_stopped_sidecar_beside_the_dropped_metadata() -> None:
    """Two causes, two trees: the sidecar is not blamed on Registrator."""
    recording = Recording("broken")
    recording.stop("consul_ratings-v1-sidecar_1", 137)
    report = recording.report()
    assert error_roots(report) == ["MD202", "MD302"]
    assert {"MD201", "MD401"} <= tree(report, "MD202")
    assert {"MD302", "MD301"} <= tree(report, "MD302")
    assert "MD301" not in tree(report, "MD202")


def test_a_service_that_never_declared_beside_the_dropped_metadata() -> None:
    """Registrator is not blamed for a service that declares nothing; both feed the listener."""
    recording = Recording("broken")

    def undeclare(container: dict[str, Any]) -> None:
        settings = container["Config"]["Env"]
        container["Config"]["Env"] = [
            each for each in settings if not each.startswith("SERVICE_PROTOCOL")
        ]

    recording.container("consul_ratings-v1_1", undeclare)
    report = recording.report()
    assert error_roots(report) == ["MD201", "MD202"]
    never, dropped = sorted(
        (each for each in report.findings if each.code == "MD201"),
        key=lambda each: len(each.subjects),
    )
    assert named(never, SubjectKind.SERVICE) == {"ratings"}
    assert never.causes == ()
    assert named(dropped, SubjectKind.SERVICE) == SERVICES - {"ratings"}
    assert set(reported(report, "MD401").causes) == {never.id, dropped.id}


def test_half_a_repair_is_one_cause() -> None:
    """Registrator replaced and its old registrations left: they are why instances disagree."""
    recording = Recording("fixed")
    recording.remove("pilot/")  # it still knows the catalogue of before

    def add_old(instances: list[dict[str, Any]]) -> None:
        host = len("2279868ead0f")
        instances.extend(
            {**each, "ServiceID": f"0ldreg15tr42{each['ServiceID'][host:]}", "ServiceMeta": {}}
            for each in list(instances)
        )

    for service in SERVICES:
        recording.edit(f"consul/catalog/service/{service}.json", add_old)
    report = recording.report()
    assert error_roots(report) == ["MD206"]
    assert "MD204" in tree(report, "MD206")


def test_an_address_that_is_gone_is_the_cause_of_calls_that_end_nowhere() -> None:
    """Registrator missed that a container came back with another address."""
    recording = Recording("fixed")

    def move(container: dict[str, Any]) -> None:
        for network in container["NetworkSettings"]["Networks"].values():
            network["IPAddress"] = "172.28.0.66"

    recording.container("consul_reviews-v2_1", move)
    report = recording.report()
    assert error_roots(report) == ["MD206"]
    assert "MD402" in tree(report, "MD206")
    assert reported(report, "MD402").message.startswith(
        "Some calls to reviews on port 9080 end nowhere, from all 6 callers"
    )


def test_a_restarted_application_is_one_cause() -> None:
    """Its sidecar and its redirect stayed behind in the old namespace: one root for both."""
    recording = Recording("fixed")
    recording.container(
        "consul_ratings-v1_1",
        lambda one: one["State"].update(StartedAt="2026-11-22T21:00:00.5Z"),
    )
    report = recording.report()
    assert error_roots(report) == ["MD304"]
    assert {"MD301", "MD303", "MD304"} <= tree(report, "MD304")


def test_a_misspelt_protocol_is_the_cause_of_the_mixture() -> None:
    """`htttp` is TCP to Pilot, so the port is mixed: the word is the root."""
    recording = Recording("fixed")
    recording.remove("pilot/")  # it still knows the catalogue of before
    recording.replace({'"protocol": "http"': '"protocol": "htttp"'})
    for service in SERVICES - {"ratings"}:
        recording.edit(
            f"consul/catalog/service/{service}.json",
            lambda instances: (
                [each["ServiceMeta"].update(protocol="http") for each in instances] and instances
            ),
        )
    report = recording.report()
    assert error_roots(report) == ["MD203"]
    assert "MD403" in tree(report, "MD203")


def test_a_stopped_registrator_explains_what_is_not_registered() -> None:
    """Registrator down and a service missing from Consul: one cause."""
    recording = Recording("fixed")
    recording.remove("pilot/")  # it still knows the catalogue of before
    recording.stop("consul_registrator_1", 1)
    recording.remove("consul/catalog/service/ratings.json")
    recording.edit("consul/catalog/services.json", lambda names: names.pop("ratings") and names)
    report = recording.report()
    assert error_roots(report)[0] == "MD101"
    assert "MD207" in tree(report, "MD101")
