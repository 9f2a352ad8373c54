"""Which kinds of mesh the evidence shows."""

import pytest

from meshdoctor.check import Examination
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.evidence.envoy import EnvoyProxies
from meshdoctor.evidence.pilot import PilotDebug
from meshdoctor.kinds import Kind, Signs, recognise
from tests.evidence.damage import CONNECT, ISTIO, recording
from tests.topology.containers import catalog, engine, inspected, registered

NOTHING = Signs(None, None, None, None)


@pytest.mark.parametrize("mesh", ISTIO + CONNECT)
@pytest.mark.parametrize("source", [DockerEngine, ConsulCatalog, EnvoyProxies, PilotDebug])
def test_each_source_alone_tells_what_it_can(mesh: str, source: type) -> None:
    """Every source but Istio's catalogue shows the kind by itself, and none the wrong one."""
    examination = Examination(recording(mesh))
    found = recognise(
        Signs(
            examination.find(DockerEngine) if source is DockerEngine else None,
            examination.find(ConsulCatalog) if source is ConsulCatalog else None,
            examination.find(EnvoyProxies) if source is EnvoyProxies else None,
            examination.find(PilotDebug) if source is PilotDebug else None,
        )
    )
    # Services in Consul are what both kinds have, and Connect was recorded without Docker.
    silent: tuple[type, ...] = (ConsulCatalog,) if mesh in ISTIO else (DockerEngine, PilotDebug)
    kind = Kind.ISTIO_CONSUL if mesh in ISTIO else Kind.CONSUL_CONNECT
    expected = () if source in silent else (kind,)
    assert found == expected


def test_nothing_shows_no_kind() -> None:
    """An unknown mesh is not guessed at."""
    assert recognise(NOTHING) == ()
    assert recognise(Signs(engine(), catalog(), None, None)) == ()


def test_both_kinds_side_by_side() -> None:
    """One Consul may serve both; they come in the order of `Kind`."""
    docker = engine(inspected("anything", command=("/usr/local/bin/pilot-discovery", "discovery")))
    consul = catalog(registered("p", "p", kind="connect-proxy"))
    assert recognise(Signs(docker, consul, None, None)) == tuple(Kind)


@pytest.mark.parametrize(
    ("image", "command", "is_pilot"),
    [
        ("istio/pilot:1.1.0", (), True),
        ("docker.io/istio/pilot@sha256:" + "0" * 64, (), True),
        ("mirror/own:1", ("/usr/local/bin/pilot-discovery", "discovery"), True),
        ("mirror/own:1", ("sh", "-c", "exec pilot-discovery discovery"), True),
        ("mirror/pilot-training:1", (), False),
        ("istio/proxy_debug:1.1.0", ("pilot-agent", "proxy"), False),
    ],
)
def test_pilot_is_known_by_its_image_or_its_program(
    image: str, command: tuple[str, ...], *, is_pilot: bool
) -> None:
    """Never by the container's name."""
    docker = engine(inspected("pilot", image=image, command=command))
    kinds = recognise(Signs(docker, None, None, None))
    assert kinds == ((Kind.ISTIO_CONSUL,) if is_pilot else ())


@pytest.mark.parametrize(
    "kind",
    ["connect-proxy", "mesh-gateway", "ingress-gateway", "terminating-gateway", "api-gateway"],
)
def test_each_proxy_of_consuls_shows_connect(kind: str) -> None:
    """`ServiceKind` tells; a typical service has none."""
    consul = catalog(registered("p", "p", kind=kind))
    assert recognise(Signs(None, consul, None, None)) == (Kind.CONSUL_CONNECT,)
    assert recognise(Signs(None, catalog(registered("p", "p")), None, None)) == ()
