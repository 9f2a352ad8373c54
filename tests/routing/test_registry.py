"""Who owns an address and what a caller's upstreams are, from Consul's catalogue alone."""

from typing import Any

import pytest

from meshdoctor.routing.registry import Owner, Registry
from meshdoctor.topology import Mesh, Workload
from tests.topology.containers import catalog, registered


def joined(*instances: dict[str, Any]) -> Mesh:
    return Mesh.join(
        docker=None,
        catalog=catalog(*instances),
        proxies=None,
        netfilter=None,
        pilot=None,
        unreachable={},
    )


def proxied(
    service: str, *upstreams: tuple[str, int], address: str = "127.0.0.1", **more: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A service and the registration of its proxy, with upstreams at ports of loopback."""
    proxy = {
        "DestinationServiceName": service,
        "DestinationServiceID": f"{service}-1",
        "LocalServicePort": 8080,
        "Upstreams": [
            {"DestinationName": name, "DestinationType": "service", "LocalBindPort": port}
            for name, port in upstreams
        ],
    }
    node = more.pop("node", "vm")
    own = registered(service, f"{service}-1", address, more.pop("port", 8080), node=node)
    return own, registered(
        f"{service}-proxy",
        f"{service}-proxy-1",
        address,
        21000,
        node=node,
        kind="connect-proxy",
        proxy=proxy | more,
    )


def workload(mesh: Mesh, service: str) -> Workload:
    return next(each for each in mesh.workloads if service in each.services)


def rivals(mesh: Mesh, service: str) -> dict[str, tuple[str, ...]]:
    found = Registry(mesh).upstreams(workload(mesh, service))
    return {each.service: each.rivals for each in found}


def test_proxies_of_one_machine_that_listen_at_one_place_are_rivals() -> None:
    """The system shares connections out between them, whoever asked for which."""
    mesh = joined(
        *proxied("web", ("api", 9191), ("db", 9192)),
        *proxied("shop", ("pay", 9191), ("db", 9193)),
    )
    assert rivals(mesh, "web") == {"api": ("pay",), "db": ()}
    assert rivals(mesh, "shop") == {"pay": ("api",), "db": ()}


@pytest.mark.parametrize(
    ("address", "node"), [("10.0.0.9", "vm"), ("127.0.0.1", "other"), ("10.0.0.9", "other")]
)
def test_proxies_of_other_namespaces_are_none(address: str, node: str) -> None:
    """An address of its own is a namespace of its own, another node another machine."""
    mesh = joined(
        *proxied("web", ("api", 9191)),
        *proxied("shop", ("pay", 9191), address=address, node=node),
    )
    assert rivals(mesh, "web") == {"api": ()}


def test_a_proxy_that_says_nothing_of_itself_has_no_upstreams() -> None:
    """It is one by its kind alone."""
    mesh = joined(
        *proxied("web", ("api", 9191)),
        registered("odd", "odd-1", "127.0.0.1", 21001, node="vm", kind="connect-proxy"),
    )
    assert rivals(mesh, "web") == {"api": ()}


@pytest.mark.parametrize(
    ("address", "port", "asked", "owner"),
    [
        # In a namespace of its own it may listen on another port than is registered.
        ("10.0.0.2", 80, 8080, Owner("web", "web-1")),
        ("10.0.0.2", 80, 8081, None),
        # Registered by hand at loopback with another port, it is not there.
        ("127.0.0.1", 80, 8080, None),
        ("127.0.0.1", 8080, 8080, Owner("web", "web-1")),
    ],
)
def test_what_a_proxy_was_told_to_serve(
    address: str, port: int, asked: int, owner: Owner | None
) -> None:
    """An address of loopback is what listens beside the proxy."""
    mesh = joined(*proxied("web", address=address, port=port))
    assert Registry(mesh).owner("127.0.0.1", asked, at=workload(mesh, "web")) == owner


def test_a_proxy_of_a_service_that_is_not_registered_there_serves_nobody() -> None:
    """Its destination's name is another one than its destination's id has."""
    own, proxy = proxied("web", address="10.0.0.2", port=80, DestinationServiceName="old")
    mesh = joined(own, proxy)
    assert Registry(mesh).owner("127.0.0.1", 8080, at=workload(mesh, "web")) is None
