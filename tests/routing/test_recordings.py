"""What was predicted for the recorded meshes is what real requests met in them."""

from functools import cache
from pathlib import Path

import msgspec
import pytest

from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy
from meshdoctor.evidence.netfilter import NetfilterRules
from meshdoctor.routing import Answered, Bypassed, Call, Closed, HopKind, Reached, Unknown, follow
from meshdoctor.snapshot import Snapshot, open_snapshot

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"


@cache
def snapshot(mesh: str) -> Snapshot:
    return open_snapshot(MESHES / f"{mesh}.tgz")


@cache
def proxies(mesh: str) -> EnvoyProxies:
    return EnvoyProxies.load(snapshot(mesh))


@cache
def rules(mesh: str) -> NetfilterRules:
    return NetfilterRules.load(snapshot(mesh))


def owners(mesh: str) -> dict[tuple[str, int], str]:
    """Which service answers at an address: the endpoints of the clusters named for it."""
    found: dict[tuple[str, int], str] = {}
    for proxy in proxies(mesh).proxies.values():
        for cluster, held in proxy.endpoints.items():
            if cluster.startswith("outbound|9080||"):
                service = cluster.rpartition("|")[2].partition(".")[0]
                found |= {(each.address, each.port): service for each in held.endpoints}
    return found


@pytest.mark.parametrize("mesh", ["broken", "fixed"])
def test_where_calls_land_is_what_the_probe_met(mesh: str) -> None:
    """Each pair of the probe: the predicted service is the one that answered."""
    owner = owners(mesh)
    for line in (MESHES / f"{mesh}.probe.txt").read_text().splitlines():
        caller, callee, _, answered = line.split()
        sidecar = f"consul_{caller.replace('_1', '-sidecar_1')}"
        proxy, table = proxies(mesh).proxies[sidecar], rules(mesh).tables[sidecar]
        for (address, port), service in owner.items():
            if service != callee:
                continue
            walk = follow(proxy, Call(address, port, host=f"{callee}:9080"), nat=table)
            match walk.outcome:
                case Reached(destinations):
                    # One's own sidecar passes a call to oneself on to localhost.
                    met = {owner.get((each.address, each.port), callee) for each in destinations}
                    assert met == {answered}, line
                case other:
                    pytest.fail(f"{line}: {other}")


def test_the_hops_of_a_call_through_the_fixed_mesh() -> None:
    """Every decision is there, in order, and each leads to where it is written."""
    sidecar = "consul_productpage-v1-sidecar_1"
    (details,) = [at for at, service in owners("fixed").items() if service == "details"]
    walk = follow(
        proxies("fixed").proxies[sidecar],
        Call(*details, host="details:9080", path="/details/0"),
        nat=rules("fixed").tables[sidecar],
    )
    assert [hop.kind for hop in walk.hops] == list(HopKind)
    assert [hop.name for hop in walk.hops] == [
        "to port 15001",
        "0.0.0.0:9080 (0.0.0.0_9080)",
        "0.0.0.0:9080 #0",
        "9080",
        "details.service.consul:9080",
        "prefix /",
        "outbound|9080||details.service.consul",
        f"{details[0]}:9080",
    ]
    assert walk.hops[0].document == f"netfilter/{sidecar}.nat.txt"
    assert walk.hops[5].pointer == (
        "/configs/5/dynamic_route_configs/0/route_config/virtual_hosts/0/routes/0"
    )
    assert walk.hops[7].document == f"envoy/{sidecar}/clusters.json"


def test_a_host_that_no_virtual_host_serves_is_answered_404() -> None:
    """With the response flag that access logs have, and the virtual hosts there are."""
    proxy = proxies("fixed").proxies["consul_productpage-v1-sidecar_1"]
    walk = follow(proxy, Call("172.28.0.6", 9080, host="nobody"), explain=True)
    assert isinstance(walk.outcome, Answered)
    assert (walk.outcome.status, walk.outcome.flag) == (404, "NR")
    names = [each.name for each in walk.not_taken if each.kind is HopKind.VIRTUAL_HOST]
    assert "details.service.consul:9080" in names
    assert walk.hops[0].why.startswith("assumed")


def test_what_no_listener_has_passes_through() -> None:
    """To the original destination itself."""
    proxy = proxies("fixed").proxies["consul_productpage-v1-sidecar_1"]
    outcome = follow(proxy, Call("203.0.113.9", 443)).outcome
    assert isinstance(outcome, Reached)
    (destination,) = outcome.destinations
    assert (destination.cluster, destination.address, destination.port) == (
        "PassthroughCluster",
        "203.0.113.9",
        443,
    )


def test_the_refused_upstream_is_said_beside_the_one_that_has_its_port() -> None:
    """A call meant for `api` ends at `pay`, and `explain` says why."""
    proxy = proxies("connect-collision").proxies["web-sidecar-proxy"]
    walk = follow(proxy, Call("127.0.0.1", 9191, host="api"), explain=True)
    assert isinstance(walk.outcome, Reached)
    assert walk.outcome.clusters[0].startswith("pay.")
    (refused,) = [each for each in walk.not_taken if each.kind is HopKind.LISTENER]
    assert "has duplicate address" in refused.why
    assert refused.pointer.endswith("/error_state")


def test_a_plain_call_to_a_listener_that_expects_tls_is_cut_off() -> None:
    """And one that no listener of the proxy takes goes straight there."""
    proxy = proxies("connect-healthy").proxies["web-sidecar-proxy"]
    assert isinstance(follow(proxy, Call("127.0.0.1", 21000)).outcome, Closed)
    assert isinstance(follow(proxy, Call("127.0.0.1", 1)).outcome, Bypassed)


def test_nothing_is_concluded_from_a_section_that_is_not_known_whole() -> None:
    """A listener that was lost might have had the call's own address."""
    whole = proxies("fixed").proxies["consul_productpage-v1-sidecar_1"]
    for lost in ("listeners", "routes", "clusters"):
        proxy = damaged(whole, lost)
        outcome = follow(proxy, Call("172.28.0.6", 9080, host="details:9080")).outcome
        assert isinstance(outcome, Unknown), lost
        assert lost in outcome.why


def damaged(proxy: EnvoyProxy, lost: str) -> EnvoyProxy:
    """As if one section had been damaged, and had lost what the call needs."""
    held = proxy.held - {lost}
    if lost == "routes":
        return msgspec.structs.replace(proxy, held=held, routes=())
    if lost == "clusters":
        return msgspec.structs.replace(proxy, held=held, clusters=())
    return msgspec.structs.replace(proxy, held=held)
