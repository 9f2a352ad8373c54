"""The recordings under other names, ports, networks and ways to start: the same diagnosis.

Nothing in a report may be left of the names of before: what is, stands in the code.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from meshdoctor.findings import Severity
from meshdoctor.report.document import CheckVerdict, Report
from tests.checks.editing import CONTAINERS, Recording

BROKEN: Final = ("broken", "broken-v2")
FIXED: Final = ("fixed", "fixed-v2")

Variant = Callable[[Recording], None]


def other_services(recording: Recording) -> None:
    recording.replace(
        {
            "details": "articles",
            "productpage": "frontdoor",
            "ratings": "stars",
            "reviews": "opinions",
            "bookinfo": "bookshop",
        }
    )


def port_of(number: str) -> Variant:
    def change(recording: Recording) -> None:
        recording.replace({"9080": number})

    return change


def other_network(recording: Recording) -> None:
    recording.replace({"consul_istiomesh": "shop_backend", "istiomesh": "backend"})
    recording.replace({"172.28.0.": "10.99.7.", "172.28.": "10.99."})


def other_project(recording: Recording) -> None:
    """Compose's project is named after its folder, and the folder lies elsewhere."""
    recording.replace({"consul_istiomesh": "NETWORK", "/srv/mesh": "/home/me/my mesh"})
    _relabel(recording, lambda labels: labels | {f"{_COMPOSE}project": "shop"})
    recording.replace({"consul_": "shop_", "NETWORK": "consul_istiomesh"})


def compose_v2(recording: Recording) -> None:
    """Names with hyphens, and the version in the labels."""
    recording.replace({"consul_istiomesh": "NETWORK"})
    recording.replace({"consul_": "consul-", "_1": "-1", '"1.29.2"': '"2.24.5"'})
    recording.replace({"NETWORK": "consul_istiomesh"})


def docker_run(recording: Recording) -> None:
    """Started by hand: no label of Compose's, and plain names."""
    _relabel(recording, lambda labels: {k: v for k, v in labels.items() if _COMPOSE not in k})
    names = _names(recording)
    # The longest first, so that no name is changed as a part of another.
    for name in sorted(names, key=len, reverse=True):
        plain = re.sub(r"^consul_(.*)_1$", r"\1", name)
        recording.replace({name: "the-consul" if plain == "consul" else plain})


_COMPOSE: Final = "com.docker.compose."

VARIANTS: Final[dict[str, tuple[Variant, ...]]] = {
    "other services": (other_services,),
    "port 8080": (port_of("8080"),),
    "port 80": (port_of("80"),),
    "port 18443": (port_of("18443"),),
    "other network": (other_network,),
    "other project": (other_project,),
    "Compose v2": (compose_v2,),
    "docker run": (docker_run,),
    "all at once with Compose v2": (
        *(other_services, other_network, port_of("8080"), other_project),
        compose_v2,
    ),
    "all at once by hand": (other_services, other_network, port_of("7001"), docker_run),
}
GONE: Final[dict[str, str]] = {
    "other services": r"details|productpage|ratings|reviews",
    "port 8080": "9080",
    "port 80": "9080",
    "port 18443": "9080",
    "other network": r"istiomesh|172\.28",
    "other project": r"-p consul\b|consul_[a-z]+.*_1\b|/srv/mesh",
    "Compose v2": r"consul_[a-z0-9-]+_1|docker-compose -p",
    "docker run": r"_1\b|compose",
    "all at once with Compose v2": r"details|productpage|ratings|reviews|9080|172\.28|/srv|"
    r"docker-compose -p",
    "all at once by hand": r"details|productpage|ratings|reviews|9080|172\.28|/srv|compose|_1\b",
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def _relabel(recording: Recording, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    def all_of_them(containers: list[dict[str, Any]]) -> None:
        for each in containers:
            each["Config"]["Labels"] = change(each["Config"].get("Labels") or {})

    recording.edit(CONTAINERS, all_of_them)


def _names(recording: Recording) -> list[str]:
    containers = json.loads(recording.documents[CONTAINERS])
    return [each["Name"].removeprefix("/") for each in containers]


def varied(mesh: str, variant: str) -> Recording:
    recording = Recording(mesh)
    for change in VARIANTS[variant]:
        change(recording)
    return recording


def said(report: Report) -> Iterator[str]:
    """All that a person would read or paste, but for what is cited as it stands."""
    for finding in report.findings:
        yield finding.message
        yield from (subject.name for subject in finding.subjects)
        for remedy in finding.remedies:
            yield from (remedy.summary, remedy.effect or "", remedy.patch or "", *remedy.commands)
    for check in report.checks:
        yield from (check.reason, *map(str, check.facts))


def shape(report: Report) -> list[tuple[str, Severity, int, int]]:
    return sorted(
        (each.code, each.severity, len(each.causes), len(each.subjects))
        for each in report.findings
    )


def error_roots(report: Report) -> list[str]:
    return [
        report.finding(each.root).code
        for each in report.diagnoses
        if each.severity is Severity.ERROR
    ]


@each_variant
@pytest.mark.parametrize("mesh", [*BROKEN, *FIXED])
def test_the_diagnosis_is_the_same(mesh: str, variant: str) -> None:
    """As many findings of the same codes about as many things, placed in the same way."""
    report = varied(mesh, variant).report()
    assert [each.code for each in report.checks if each.verdict is CheckVerdict.CRASHED] == []
    assert shape(report) == shape(Recording(mesh).report())


@each_variant
@pytest.mark.parametrize("mesh", [*BROKEN, *FIXED])
def test_no_name_of_before_is_left(mesh: str, variant: str) -> None:
    """Not in a sentence, not in a command, not in a patch."""
    for text in said(varied(mesh, variant).report()):
        assert not re.search(GONE[variant], text), text


@each_variant
def test_commands_name_containers_that_are_there(variant: str) -> None:
    """Whatever `docker start`, `restart`, `stop` and `logs` are told."""
    recording = varied("broken", variant)
    names = set(_names(recording))
    told = set()
    for finding in recording.report().findings:
        for remedy in finding.remedies:
            for command in remedy.commands:
                words = shlex.split(command)
                if words[:2] in (["docker", each] for each in ("start", "restart", "stop")):
                    told.update(words[2:])
    assert told - {"-a"} <= names


@pytest.mark.parametrize("variant", ["docker run", "all at once by hand"])
def test_by_hand_registrator_is_run_again_by_hand(variant: str) -> None:
    """There is no file to change: the old container is kept aside, and a new one run."""
    report = varied("broken", variant).report()
    assert error_roots(report) == ["MD202"]
    (finding,) = [each for each in report.findings if each.code == "MD202"]
    remedy = finding.remedies[0]
    assert not remedy.patch
    verbs = [" ".join(shlex.split(each)[:2]) for each in remedy.commands]
    assert verbs[:4] == ["docker pull", "docker stop", "docker rename", "docker run"]
    again = shlex.split(remedy.commands[3])
    assert again[again.index("--name") + 1] == "registrator"
    assert again[again.index("--network") + 1] in {"consul_istiomesh", "shop_backend"}
    assert "gliderlabs/registrator:master" in again
    assert again[-1].startswith("consul://")


# ---------------------------------------------------------------- two faults at once


def stopped_sidecar(recording: Recording) -> None:
    recording.stop(_named(recording, "ratings-v1-sidecar"), 137)


def restarted_application(recording: Recording) -> None:
    recording.container(
        _named(recording, "details-v1"),
        lambda one: one["State"].update(StartedAt="2026-11-23T21:00:00.5Z"),
    )


def stopped_pilot(recording: Recording) -> None:
    recording.stop(_named(recording, "pilot"), 255)
    recording.remove("pilot/")
    # Registrator takes out what stops.
    for part in ("catalog", "health"):
        recording.remove(f"consul/{part}/service/pilot-")
    recording.edit(
        "consul/catalog/services.json",
        lambda names: {key: each for key, each in names.items() if "pilot" not in key},
    )


def _named(recording: Recording, service: str) -> str:
    (name,) = [
        each
        for each in _names(recording)
        if re.fullmatch(rf"(?:consul[_-]|the-)?{service}(?:[_-]1)?", each)
    ]
    return name


FAULTS: Final[dict[str, Variant]] = {
    "MD302": stopped_sidecar,
    "MD304": restarted_application,
    "MD101": stopped_pilot,
}


@pytest.mark.parametrize("variant", [None, "Compose v2", "docker run"])
@pytest.mark.parametrize("mesh", BROKEN)
@pytest.mark.parametrize("code", FAULTS)
def test_another_fault_beside_the_dropped_metadata(
    code: str, mesh: str, variant: str | None
) -> None:
    """Two roots: neither is blamed on the other."""
    recording = varied(mesh, variant) if variant is not None else Recording(mesh)
    FAULTS[code](recording)
    assert sorted(error_roots(recording.report())) == sorted(["MD202", code])


@pytest.mark.parametrize("variant", [None, "Compose v2", "docker run"])
@pytest.mark.parametrize("mesh", FIXED)
@pytest.mark.parametrize(
    "codes", [("MD302", "MD304"), ("MD101", "MD302"), ("MD101", "MD304")], ids="+".join
)
def test_two_faults_of_a_mended_mesh(
    codes: tuple[str, str], mesh: str, variant: str | None
) -> None:
    """Two roots, no third."""
    recording = varied(mesh, variant) if variant is not None else Recording(mesh)
    for code in codes:
        FAULTS[code](recording)
    assert sorted(error_roots(recording.report())) == sorted(codes)


@pytest.mark.parametrize("variant", [None, "other network", "Compose v2", "docker run"])
@pytest.mark.parametrize("mesh", FIXED)
def test_a_sidecar_that_was_left_behind_is_one_cause(mesh: str, variant: str | None) -> None:
    """Its endpoints are of before: where its calls end, and that others differ, follows."""
    recording = varied(mesh, variant) if variant is not None else Recording(mesh)
    details = json.loads(recording.documents["consul/catalog/service/details.json"])
    sidecar = _named(recording, "ratings-v1-sidecar")
    for name, body in recording.documents.items():
        if name.startswith(f"envoy/{sidecar}/"):
            moved = body.decode().replace(f'{details[0]["ServiceAddress"]}"', '10.1.2.3"')
            recording.documents[name] = moved.encode()
    report = recording.report()
    roots = [report.finding(each.root).code for each in report.diagnoses]
    assert roots == ["MD307", "MD209"]
