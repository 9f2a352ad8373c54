"""Whether a container of one Docker network reaches an address."""

import pytest
from msgspec.structs import replace

from meshdoctor.evidence.docker import Container, DockerEngine, Network
from meshdoctor.evidence.interface import Problem
from meshdoctor.topology.networks import Networks
from tests.topology.containers import container

OWN = Network("mesh", "bridge", ("172.28.0.1",), ("172.28.0.0/16",), "")
OTHER = Network("bridge", "bridge", ("172.17.0.1",), ("172.17.0.0/16",), "")
WIDE = Network("swarm", "overlay", (), ("10.0.1.0/24",), "")
ODD = Network("odd", "bridge", (), ("no subnet",), "")


def at(name: str, **addresses: str) -> Container:
    return replace(container(name), addresses=addresses)


HERE = at("web", mesh="172.28.0.5")


def engine(*networks: Network, problems: tuple[Problem, ...] = ()) -> DockerEngine:
    return DockerEngine(
        containers=(HERE, at("api", mesh="172.28.0.6"), at("far", bridge="172.17.0.2")),
        images={},
        networks={each.name: each for each in networks},
        logs={},
        version="",
        asked=None,
        problems=problems,
    )


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("172.28.0.6", ""),
        ("172.28.0.7", "an address of the network mesh that no container has"),
        ("172.17.0.2", "an address of the network bridge, which is not the caller's"),
        # The host's own, and what no network of this host alone has.
        ("172.28.0.1", ""),
        ("172.17.0.1", ""),
        ("10.0.1.9", ""),
        ("192.0.2.1", ""),
        ("2001:db8::1", ""),
        ("web", ""),
    ],
)
def test_what_stands_against_an_address(address: str, why: str) -> None:
    """Only what Docker's list of this host's networks and containers shows."""
    networks = Networks.of(engine(OWN, OTHER, WIDE, ODD))
    assert networks.unreachable(address, HERE) == why


def test_where_a_container_may_have_been_missed_nothing_is_told() -> None:
    """One that could not be read may have the address."""
    gone = engine(OWN, problems=(Problem("docker/containers.json", "truncated"),))
    assert Networks.of(gone).unreachable("172.28.0.7", HERE) == ""
    assert Networks.of(None).unreachable("172.28.0.7", HERE) == ""


def test_of_two_networks_with_one_subnet_nobody_tells_which() -> None:
    """Nor of a container without a network of its own, as in the host's."""
    networks = Networks.of(engine(OWN, replace(OTHER, subnets=OWN.subnets)))
    assert networks.unreachable("172.28.0.7", HERE) == ""
    assert Networks.of(engine(OWN)).unreachable("172.28.0.7", at("host")) == ""
    assert Networks.of(engine(OWN)).unreachable("172.28.0.7", None) == ""
