"""Two things that are wrong at once have two roots, and one that follows from another hangs there.

Each of these was said wrongly once, most of them of a mesh that was recorded as it was.
"""

import json
from typing import Any, Final

import pytest

from meshdoctor.evidence import layout
from meshdoctor.findings import Severity
from meshdoctor.report.document import Report, ReportedFinding
from tests.checks.editing import Recording

PILOT: Final = "consul_pilot_1"
SERVICES: Final = ("details", "productpage", "ratings", "reviews")
REFUSED: Final = "dial tcp 172.28.0.13:8080: connect: connection refused"


def bad_roots(report: Report) -> list[str]:
    found = [report.finding(each.root) for each in report.diagnoses]
    return [each.code for each in found if each.severity is not Severity.INFO]


def causes(report: Report, code: str) -> list[set[str]]:
    """The codes of the causes of each finding of that code."""
    return [
        {report.finding(cause).code for cause in each.causes}
        for each in report.findings
        if each.code == code
    ]


def reported(report: Report, code: str) -> ReportedFinding:
    (found,) = [each for each in report.findings if each.code == code]
    return found


@pytest.mark.parametrize(
    ("mesh", "cause"), [("lab/off-mesh-registration", "MD208"), ("lab/really-tcp", "MD401")]
)
def test_a_missing_sidecar_is_not_why_calls_to_its_service_end_elsewhere(
    mesh: str, cause: str
) -> None:
    """The callers have theirs, and it is these that decide."""
    report = Recording(mesh).report()
    assert "MD301" in bad_roots(report)
    assert causes(report, "MD402") == [{cause}]


def test_a_missing_redirect_is_not_why_calls_to_its_service_end_elsewhere() -> None:
    """Nor is it the cause of what the listener that all share does."""
    recording = Recording("broken")
    sidecar = "consul_ratings-v1-sidecar_1"
    recording.documents[layout.netfilter(sidecar)] = b"*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
    report = recording.report()
    assert {"MD202", "MD303"} <= set(bad_roots(report))
    assert all(found == {"MD401"} for found in causes(report, "MD402"))


def test_who_lost_its_namespace_cuts_no_others_off() -> None:
    """The other sidecar was making its connection anew: Pilot lacks nothing of it."""
    report = Recording("lab/application-stopped").report()
    assert bad_roots(report) == ["MD304"]
    errors, notes = (
        [each for each in report.findings if (each.code, each.severity) == ("MD306", severity)]
        for severity in (Severity.ERROR, Severity.INFO)
    )
    assert [each.message.partition(" ")[0] for each in errors] == ["consul_ratings-v1-sidecar_1"]
    assert [each.message.partition(" ")[0] for each in notes] == ["consul_reviews-v2-sidecar_1"]
    assert notes[0].causes == ()


def test_a_connection_that_pilot_lost_too_is_an_error() -> None:
    """Where Pilot does not list the proxy, it is no matter of moments."""
    recording = Recording("lab/application-stopped")
    recording.remove("pilot/syncz")
    severities = {each.severity for each in recording.report().findings if each.code == "MD306"}
    assert severities == {Severity.ERROR}


def test_pilot_gave_up_for_want_of_the_api_server() -> None:
    """One cause, and it is started first."""
    report = Recording("lab/no-api-server").report()
    assert bad_roots(report) == ["MD101"]
    found = reported(report, "MD101")
    assert found.message == (
        "The API server (consul_istio-apiserver_1) stopped with exit code 0, and Pilot "
        "(consul_pilot_1) stopped with exit code 255 for want of it."
    )
    started = [each.split()[-1] for each in found.remedies[0].commands if " up " in each]
    assert started == ["istio-apiserver", "pilot"]
    assert causes(report, "MD306") == [{"MD101"}]


def add(recording: Recording, name: str, image: str, log: str, **state: Any) -> None:
    """Another part of the control plane that does not run."""

    def change(containers: list[dict[str, Any]]) -> None:
        (pilot,) = [each for each in containers if each["Name"] == f"/{PILOT}"]
        other = json.loads(json.dumps(pilot))
        other.update(Id=(name.encode().hex() * 64)[:64], Name=f"/{name}", Path=image, Args=[])
        other["Config"].update(Image=image, Labels={}, Env=[])
        other["NetworkSettings"].update(Networks={}, Ports={})
        other["State"].update({"Status": "exited", "Running": False, "Pid": 0} | state)
        containers.append(other)

    recording.edit("docker/containers.json", change)
    recording.documents[layout.docker_log(name)] = f"2026-11-22T20:00:02.1Z {log}\n".encode()


def test_whoever_stopped_first_is_the_cause() -> None:
    """etcd, then the API server, then Pilot."""
    recording = Recording("fixed")
    recording.stop(PILOT, 255)
    recording.remove("pilot/")
    gave_up = "failed to create discovery service: config controller: failed to register custom"
    log = f"2026-11-22T20:00:09.1Z Error: {gave_up} resources: {REFUSED}\n"
    recording.documents[layout.docker_log(PILOT)] = log.encode()
    add(recording, "etcd_1", "etcd", "fatal: no space left on device", ExitCode=1)
    add(recording, "apiserver_1", "kube-apiserver", f"F1122 etcd: {REFUSED}", ExitCode=255)
    found = reported(recording.report(), "MD101")
    assert found.message == (
        "Etcd (etcd_1) stopped with exit code 1; it last said "
        "'fatal: no space left on device'; the API server (apiserver_1) stopped with exit code "
        "255 for want of it; Pilot (consul_pilot_1) stopped with exit code 255 for want of it."
    ).replace("'", '"')


def test_who_stopped_for_another_reason_has_a_finding_of_its_own() -> None:
    """It says nothing of a connection."""
    recording = Recording("fixed")
    recording.stop(PILOT, 1)
    recording.remove("pilot/")
    recording.documents[layout.docker_log(PILOT)] = b"2026-11-22T20:00:09.1Z fatal: bad flag\n"
    add(recording, "apiserver_1", "kube-apiserver", "fatal: bad flag", ExitCode=1)
    report = recording.report()
    assert sum(each.code == "MD101" for each in report.findings) == 2


def test_what_a_part_says_of_others_is_not_why_it_stopped() -> None:
    """Consul tells of each request that it refuses, meshdoctor's own among them."""
    found = reported(Recording("lab/consul-stopped").report(), "MD101")
    assert "Shutdown without a Leave" in found.message
    assert "Request error" not in found.message


def mended_in_consul() -> Recording:
    """Consul has the protocols by now; Pilot and its sidecars have what they had."""
    recording = Recording("broken")

    def declare(instances: list[dict[str, Any]]) -> None:
        for each in instances:
            each["ServiceMeta"] = {"protocol": "http"}

    for service in SERVICES:
        recording.edit(layout.catalog_service(service), declare)
    return recording


def test_a_pilot_that_does_not_follow_is_why_a_port_is_tcp_still() -> None:
    """The registry is sound; who asks it is not."""
    report = mended_in_consul().report()
    assert bad_roots(report) == ["MD103"]
    assert causes(report, "MD401") == [{"MD103"}]


def test_a_pilot_that_does_not_follow_is_no_cause_of_what_stands_in_consul() -> None:
    """Services of two kinds on one port are mixed there, whatever Pilot knows of it."""
    recording = Recording("fixed")
    recording.edit(
        layout.catalog_service("ratings"),
        lambda instances: instances[0].update(ServiceMeta={"protocol": "mongo"}),
    )
    report = recording.report()
    assert set(bad_roots(report)) == {"MD103", "MD403"}


def test_calls_wait_for_the_listener_that_takes_them_all() -> None:
    """A sidecar that has just started: all of its listeners are warming."""
    recording = Recording("fixed")

    def warm(dump: dict[str, Any]) -> None:
        for config in dump["configs"]:
            for each in config.get("dynamic_listeners", ()):
                each["warming_state"] = each.pop("active_state")

    recording.edit("envoy/consul_ratings-v1-sidecar_1/config_dump.json", warm)
    report = recording.report()
    assert causes(report, "MD402") == [{"MD309"}] * 4


NEWER: Final = """*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ISTIO_INBOUND - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -p tcp -j ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
"""
"""As the init containers of later Istios write them, for Envoys that listen on two ports."""


def test_a_redirect_to_where_nobody_listens_is_why_no_call_arrives() -> None:
    """The init container is of another Istio than the sidecar."""
    recording = Recording("fixed")
    name = layout.netfilter("consul_ratings-v1-sidecar_1")
    recording.documents[name] = NEWER.encode()
    report = recording.report()
    assert bad_roots(report) == ["MD303"]
    assert reported(report, "MD303").message.endswith(
        "incoming connections are sent to port 15006, and its Envoy takes them on 15001."
    )
    assert causes(report, "MD402") == [{"MD303"}]


def test_an_envoy_without_listeners_tells_nothing_of_the_redirect() -> None:
    """It may have just started."""
    recording = Recording("fixed")

    def without(dump: dict[str, Any]) -> None:
        for config in dump["configs"]:
            config.pop("dynamic_listeners", None)

    recording.edit("envoy/consul_ratings-v1-sidecar_1/config_dump.json", without)
    assert "MD303" not in {each.code for each in recording.report().findings}


@pytest.mark.parametrize("begun", ["2026-11-22T21:00:00.5Z", "2026-11-22T19:00:00.5Z"])
def test_a_consul_that_forgot_everything_is_one_cause(begun: str) -> None:
    """As one in -dev mode does that is started again: Registrator does not look by itself."""
    recording = Recording("fixed")
    recording.remove("pilot/")
    for service in SERVICES:
        recording.remove(layout.catalog_service(service))
        recording.remove(layout.health_service(service))
    recording.edit(
        "consul/catalog/services.json",
        lambda names: {name: tags for name, tags in names.items() if name not in SERVICES},
    )
    recording.container("consul_consul_1", lambda one: one["State"].update(StartedAt=begun))
    report = recording.report()
    assert bad_roots(report) == ["MD207"]
    found = reported(report, "MD207")
    assert "details, productpage, ratings and reviews, but are not in Consul" in found.message
    is_younger = begun > "2026-11-22T20"
    assert ("and was started after it (consul_consul_1)" in found.message) is is_younger


def test_names_that_do_not_resolve_follow_from_a_name_server_that_is_not_there() -> None:
    """What a probe met, and why."""
    recording = Recording("lab/dns-address-without-dns")
    request = {
        "callee": "details",
        "port": 9080,
        "url": "http://details:9080/",
        "path": "/",
        "name": "details",
        "addresses_from": "consul",
        "resolution": "no answer from its name server 172.28.0.77",
        "answer": {"status": 200, "headers": {}, "sha256": "", "bytes": 0, "whole": True},
        "answered_by": {"service": "details", "how": "proxy statistics", "flag": ""},
    }
    caller = "consul_ratings-v1_1"
    told = {"schema": "meshdoctor.probe/v1", "caller": caller, "requests": [request]}
    recording.documents[f"probe/{caller}.json"] = json.dumps(told).encode()
    assert causes(recording.report(), "MD602") == [{"MD105"}]
