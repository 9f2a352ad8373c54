"""What Compose files would start, and what they do not tell."""

import pytest

from meshdoctor.evidence.compose import ComposeFiles
from meshdoctor.topology import Role
from meshdoctor.topology.plan import Plan


def plan(services: str, **environment: str) -> Plan:
    """The plan of one file with these services, in flow style."""
    text = f"services: {{{services}}}"
    return Plan.of(
        ComposeFiles.of([("compose.yaml", text)], folder="shop", environment=environment)
    )


def notes(found: Plan) -> str:
    return "; ".join(f"{each.document}: {each.message}" for each in found.notes)


WEB = "web: {image: web, expose: [80], environment: {SERVICE_NAME: web, SERVICE_PROTOCOL: http}}"
PILOT = "pilot: {image: 'istio/pilot:1.1.0', environment: [SERVICE_IGNORE=1]}"


@pytest.mark.parametrize(
    ("image", "kept", "protocol"),
    [
        ("gliderlabs/registrator", False, None),
        ("gliderlabs/registrator:latest", False, None),
        ("gliderlabs/registrator:v7", False, None),
        ("mirror.example:5000/gliderlabs/registrator:v6", False, None),
        ("gliderlabs/registrator:master", True, "http"),
        ("gliderlabs/registrator@sha256:aa", None, "http"),
        ("example/registrator:latest", None, "http"),
    ],
)
def test_an_image_of_registrator_keeps_metadata_or_drops_it(
    image: str,
    kept: bool | None,  # noqa: FBT001
    protocol: str | None,
) -> None:
    """By its tag; of others nobody knows, which is said."""
    found = plan(f"{WEB}, registrator: {{image: '{image}', command: -internal consul://c:8500}}")
    assert found.attributes_kept is kept
    assert [each.protocol for each in found.instances] == [protocol]
    assert [each.declared for each in found.instances] == ["http"]
    assert ("it is not known whether it writes metadata" in notes(found)) is (kept is None)


@pytest.mark.parametrize(
    ("body", "ports"),
    [
        ("image: 'istio/examples-bookinfo-reviews-v1:1.8.0'", [9080]),
        ("image: 'istio/examples-bookinfo-reviews-v1:1.10.1'", [9080, 9443]),
        ("image: 'docker.io/istio/examples-bookinfo-details-v1:1.15.0'", [9080]),
        ("image: 'istio/examples-bookinfo-mysqldb:1.8.0'", []),
        ("image: web, expose: ['81-82', '83/udp']", [81, 82, 83]),
        ("image: web, ports: ['8080:80']", [80]),
        ("image: web, environment: {SERVICE_80_NAME: web}", [80]),
        ("build: .", []),
    ],
)
def test_exposed_ports_as_far_as_they_are_known(body: str, ports: list[int]) -> None:
    """From the file, from images that are known, and from settings that name a port."""
    found = plan(f"app: {{{body}}}")
    assert [port for port, _ in found.workloads[0].container.exposed] == ports


def test_ports_that_only_an_image_tells() -> None:
    """Nothing is guessed, and that is said."""
    found = plan("web: {build: ., environment: {SERVICE_NAME: web}}")
    assert found.instances == ()
    assert found.is_mesh
    assert "which ports web exposes only its image, which is built, tells" in notes(found)


@pytest.mark.parametrize("mode", ["service:web", "container:shop_web_1", "container:shop-web-1"])
def test_a_sidecar_stands_beside_whose_network_it_shares(mode: str) -> None:
    """Named as a service, or as a container of any version of Compose."""
    found = plan(
        f"{WEB}, proxy: {{image: 'istio/proxyv2:1.1.0', network_mode: '{mode}'}}, "
        f"init: {{image: 'istio/proxy_init:1.1.0', network_mode: '{mode}'}}"
    )
    assert [each.name for each in found.workloads] == ["web"]
    assert [each.name for each in found.workloads[0].sidecars] == ["proxy"]
    assert [each.name for each in found.workloads[0].inits] == ["init"]
    assert found.astray == ()


def test_a_sidecar_of_nobody_in_the_files() -> None:
    """It is named, so that the missing file can be."""
    found = plan("proxy: {image: 'istio/proxyv2:1.1.0', network_mode: 'container:far'}")
    assert [each.name for each in found.astray] == ["proxy"]
    assert found.is_mesh


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        (WEB, True),
        (PILOT, True),
        (f"{WEB}, consul: {{image: 'consul:1.3.0'}}", False),
        (f"{WEB}, registrator: {{image: 'gliderlabs/registrator'}}", False),
        (f"{WEB}, proxy: {{image: 'envoyproxy/envoy:v1.31', command: pilot-agent proxy}}", True),
        (f"{WEB}, proxy: {{image: 'envoyproxy/envoy:v1.31'}}", False),
        (f"{WEB}, proxy: {{image: 'hashicorp/consul-dataplane:1.4'}}", False),
    ],
)
def test_whose_sidecars_they_are(services: str, expected: bool) -> None:  # noqa: FBT001
    """Pilot's rules hold for Pilot's sidecars alone."""
    assert plan(services).is_for_pilot is expected


def test_parts_of_the_control_plane() -> None:
    """By image and command, as in a mesh."""
    found = plan(f"{PILOT}, c: {{image: 'consul:1.3.0'}}, zipkin: {{image: openzipkin/zipkin}}")
    roles = {each.role for each in found.components}
    assert roles == {Role.CONSUL, Role.PILOT, Role.TRACING}
    assert found.pilot_version == "1.1.0"
    assert found.registered == {}


def test_what_is_taken_for_granted_is_said() -> None:
    """No Registrator, no Pilot, and services that no profile starts."""
    said = notes(plan(f"{WEB}, job: {{image: job, profiles: [jobs]}}"))
    assert "there is no Registrator" in said
    assert "there is no Pilot" in said
    assert "job was left out: its profile jobs is not enabled" in said


@pytest.mark.parametrize("services", ["", "web: {image: nginx, ports: ['80:80']}", "web: {}"])
def test_files_without_a_mesh(services: str) -> None:
    """Ports alone make no mesh."""
    assert not plan(services).is_mesh


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ("environment: {SERVICE_80_PROTOCOL: http, SERVICE_PROTOCOL: tcp}", "http"),
        ("environment: {SERVICE_PROTOCOL: tcp}", "tcp"),
        ("labels: {service_protocol: tcp}", "tcp"),
        ("environment: {SERVICE_80_PROTOCOL: http}, labels: {SERVICE_80_PROTOCOL: tcp}", "http"),
        ("environment: {SERVICE_81_PROTOCOL: http}", None),
        ("image: web", None),
    ],
)
def test_where_a_setting_stands_that_counts_for_a_port(body: str, value: str | None) -> None:
    """What names the port comes first, then the environment."""
    (workload,) = plan(f"web: {{expose: [80], {body}}}").workloads
    setting = workload.written("protocol", 80)
    assert (None if setting is None else setting.value) == value


def test_services_of_one_port() -> None:
    """Each with its instances there; what listens for datagrams has a port of its own."""
    found = plan(
        "a: {image: a, expose: [80]}, b: {image: b, expose: [80, 81]}, "
        "c: {image: c, expose: [82]}, d: {image: d, expose: ['80/udp']}"
    )
    there = found.on_port(80)
    assert list(there) == ["a", "b-80"]
    assert [each.port for group in there.values() for each in group] == [80, 80]
    assert list(found.on_port(83)) == []


def test_a_pilot_whose_tag_is_no_version() -> None:
    """Which rules were taken is said, and nothing of the tag is repeated as a version."""
    found = plan(f"{WEB}, pilot: {{image: 'istio/pilot:latest'}}")
    assert "Pilot's tag names no version; the rules of 1.1 and later were taken" in notes(found)
    assert found.pilot_called == "Pilot"
