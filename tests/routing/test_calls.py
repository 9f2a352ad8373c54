"""Where calls land: what real requests met in recorded meshes, and cases built by hand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from meshdoctor.check import Examination
from meshdoctor.evidence import access
from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.routing import shared
from meshdoctor.routing.calls import Calls, Follower, Pair, Registry, Verdict
from meshdoctor.routing.model import HopKind
from meshdoctor.snapshot import Snapshot, open_snapshot
from meshdoctor.topology import Mesh
from tests.routing.meshes import (
    App,
    Documents,
    examine,
    http,
    istio,
    listener,
    outbound,
    tcp,
)

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"
RECORDINGS = (
    "broken",
    "fixed",
    "broken-v2",
    "fixed-v2",
    "connect-healthy",
    "connect-collision",
)
PROJECT = "consul_"

every_recording = pytest.mark.parametrize("name", RECORDINGS)


@dataclass(frozen=True)
class Probe:
    """What one real request met: the HTTP status, and the service that answered, if any did."""

    status: int
    answered: str | None


def probes(name: str) -> Mapping[tuple[str, str], Probe]:
    """The requests that were sent when the mesh was recorded; v2 dumps are of the same moment."""
    file = MESHES / f"{name.removesuffix('-v2')}.probe.txt"
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    return {
        (client, asked): Probe(int(status), answered[0] if answered else None)
        for client, asked, status, *answered in lines
    }


@cache
def recorded(name: str) -> Examination:
    return Examination(open_snapshot(MESHES / f"{name}.tgz"))


def without(name: str, *prefixes: str, missing: tuple[Problem, ...] = ()) -> Examination:
    """The recording without some of its documents."""
    snapshot = open_snapshot(MESHES / f"{name}.tgz")
    kept = {
        each: document
        for each, document in snapshot.documents.items()
        if not each.startswith(prefixes)
    }
    return Examination(Snapshot(kept, absent=missing))


def edited(name: str, document: str, change: Callable[[Any], None]) -> Examination:
    """The recording with one of its JSON documents changed in place."""
    snapshot = open_snapshot(MESHES / f"{name}.tgz")
    content = msgspec.json.decode(snapshot.read(document))
    change(content)
    documents = dict(snapshot.documents)
    documents[document] = msgspec.json.encode(content)
    return Examination(Snapshot(documents))


def pairs(examination: Examination) -> Mapping[tuple[str, str], Pair]:
    return {(each.caller, each.callee): each for each in examination.get(Calls).pairs}


def seen(pair: Pair) -> tuple[Any, ...]:
    """What a row says, without the walks."""
    return (pair.caller, pair.callee, pair.port, pair.verdict, pair.reached, pair.instances)


# ---------------------------------------------------------------- recorded meshes


@every_recording
def test_agrees_with_what_requests_met(name: str) -> None:
    """Every call of the matrix ends where a real request ended, and no request is missing."""
    wanted = probes(name)
    found = recorded(name).get(Calls).pairs
    assert {(each.caller.removeprefix(PROJECT), each.callee) for each in found} == set(wanted)
    assert len(found) == len(wanted)
    for pair in found:
        probe = wanted[pair.caller.removeprefix(PROJECT), pair.callee]
        assert pair.reached == probe.answered, pair
        assert (pair.verdict is Verdict.NOWHERE) == (probe.answered is None), pair
        assert pair.status == (None if probe.answered is not None else probe.status), pair
        right = pair.verdict in (Verdict.RIGHT, Verdict.BY_LUCK)
        assert right == (probe.answered == pair.callee), pair


@every_recording
def test_only_the_winner_of_a_contested_listener_is_right_by_luck(name: str) -> None:
    """By luck are the calls that the wildcard (or the doubly bound) listener takes and wins."""
    found = recorded(name).get(Calls).pairs
    lucky = {(each.caller, each.callee) for each in found if each.verdict is Verdict.BY_LUCK}
    match name.removesuffix("-v2"):
        case "broken":
            callers = {each.caller for each in found}
            assert lucky == {(caller, "reviews") for caller in callers}
        case "connect-collision":
            assert lucky == {("web", "pay")}
        case _:
            assert lucky == set()


@every_recording
def test_rows_are_sorted_and_each_stands_once(name: str) -> None:
    """One row for each caller, callee and port."""
    keys = [(each.caller, each.callee, each.port) for each in recorded(name).get(Calls).pairs]
    assert keys == sorted(set(keys))


@every_recording
def test_what_is_not_right_has_a_reason(name: str) -> None:
    """Each verdict but `right` says why."""
    for pair in recorded(name).get(Calls).pairs:
        assert bool(pair.reason) == (pair.verdict is not Verdict.RIGHT), pair


@every_recording
def test_its_own_walks_are_written_in_its_own_sidecar(name: str) -> None:
    """A row may be decided by another caller's walk; the one it shows is its own."""
    for pair in recorded(name).get(Calls).pairs:
        assert pair.walks
        for walk, decided in zip(pair.walks, pair.followed, strict=True):
            assert walk.proxy == pair.sidecar
            assert walk.outcome == decided.outcome
            assert [hop.name for hop in walk.hops] == [hop.name for hop in decided.hops]


@pytest.mark.parametrize("name", ["broken", "fixed", "broken-v2", "fixed-v2"])
def test_needs_no_nat_rules(name: str) -> None:
    """Where netfilter could not be read, the redirect is assumed, and the hop says so."""
    found = without(name, "netfilter/").get(Calls).pairs
    assert [seen(each) for each in found] == [
        seen(each) for each in recorded(name).get(Calls).pairs
    ]
    redirect = found[0].walks[0].hop(HopKind.REDIRECT)
    assert redirect is not None
    assert "assumed" in redirect.why


def test_an_unreachable_sidecar_makes_its_callers_calls_unknown() -> None:
    """Nothing is said of them, but why; calls of others to it are followed as before."""
    sidecar = "consul_ratings-v1-sidecar_1"
    problem = Problem(f"envoy/{sidecar}/config_dump.json", "timed out after 5 s")
    found = pairs(without("fixed", f"envoy/{sidecar}/", missing=(problem,)))
    own = [pair for (caller, _), pair in found.items() if caller == "consul_ratings-v1_1"]
    assert len(own) == 4
    for pair in own:
        assert pair.verdict is Verdict.UNKNOWN
        assert (pair.reached, pair.status, pair.sidecar) == (None, None, None)
        assert sidecar in pair.reason
        assert "timed out after 5 s" in pair.reason
    assert found["consul_details-v1_1", "ratings"].verdict is Verdict.RIGHT


def test_without_any_sidecar_there_is_no_matrix() -> None:
    """It is missing evidence, not a matrix of unknowns."""
    with pytest.raises(MissingEvidenceError, match="no sidecar's configuration"):
        without("fixed", "envoy/").get(Calls)


def test_without_a_catalogue_there_is_no_matrix() -> None:
    """Nobody knows then what a call should reach."""
    with pytest.raises(MissingEvidenceError, match="no application's service"):
        without("fixed", "consul/").get(Calls)


def stop(containers: list[dict[str, Any]], name: str) -> None:
    """Let Docker say that a container stopped: it has no address then."""
    for container in containers:
        if container["Name"] == f"/{name}":
            container["State"] |= {"Running": False, "Status": "exited"}
            for network in container["NetworkSettings"]["Networks"].values():
                network["IPAddress"] = ""


def test_a_stopped_container_is_reached_by_nobody_and_calls_nobody() -> None:
    """Consul may still have it, and proxies send calls there: a registration gone stale."""
    stopped = "consul_details-v1_1"
    found = pairs(edited("fixed", "docker/containers.json", lambda each: stop(each, stopped)))
    pair = found["consul_ratings-v1_1", "details"]
    assert (pair.verdict, pair.reached) == (Verdict.NOWHERE, None)
    assert f"whose container {stopped} does not run" in pair.reason
    own = found[stopped, "ratings"]
    assert own.verdict is Verdict.UNKNOWN
    assert own.reason == f"{stopped} does not run, so it calls nobody"


def readdress(containers: list[dict[str, Any]], name: str, address: str) -> None:
    """Let Docker say that a container has another address on its network."""
    for container in containers:
        if container["Name"] == f"/{name}":
            for network in container["NetworkSettings"]["Networks"].values():
                network["IPAddress"] = address


def test_at_an_address_that_no_container_has_is_nobody() -> None:
    """Registrator missed that the container got another: Consul and the proxies have the old."""
    moved = "consul_ratings-v1_1"
    found = pairs(
        edited(
            "fixed", "docker/containers.json", lambda each: readdress(each, moved, "172.28.0.66")
        )
    )
    pair = found["consul_details-v1_1", "ratings"]
    assert (pair.verdict, pair.reached) == (Verdict.NOWHERE, None)
    assert "an address of the network consul_istiomesh that no container has" in pair.reason
    assert pair.absent == (f"2279868ead0f:{moved}:9080",)
    assert not pair.instances
    assert found["consul_details-v1_1", "reviews"].verdict is Verdict.RIGHT


def test_of_several_instances_one_is_nowhere() -> None:
    """The worst decides, and how many calls meet it is said."""
    found = pairs(
        edited(
            "fixed",
            "docker/containers.json",
            lambda each: readdress(each, "consul_reviews-v2_1", "172.28.0.66"),
        )
    )
    pair = found["consul_details-v1_1", "reviews"]
    assert pair.verdict is Verdict.NOWHERE
    assert pair.reason.startswith("33% of the calls: it goes to 172.28.0.")
    assert pair.absent == ("2279868ead0f:consul_reviews-v2_1:9080",)
    assert len(pair.instances) == 2


def test_behind_a_stopped_sidecar_nothing_is_certain() -> None:
    """A redirect to where nobody listens lets no call in, and whether there is one nobody saw."""
    stopped = "consul_ratings-v1-sidecar_1"
    snapshot = open_snapshot(MESHES / "fixed.tgz")
    containers = msgspec.json.decode(snapshot.read("docker/containers.json"))
    stop(containers, stopped)
    documents = {
        name: document for name, document in snapshot.documents.items() if stopped not in name
    }
    documents["docker/containers.json"] = msgspec.json.encode(containers)
    found = pairs(Examination(Snapshot(documents)))
    pair = found["consul_details-v1_1", "ratings"]
    assert (pair.verdict, pair.reached) == (Verdict.UNKNOWN, None)
    assert f"{stopped} does not run" in pair.reason


def test_behind_a_removed_sidecar_nothing_is_certain() -> None:
    """Its init container tells that a redirect was installed."""
    removed = "consul_ratings-v1-sidecar_1"
    snapshot = open_snapshot(MESHES / "fixed.tgz")
    containers = msgspec.json.decode(snapshot.read("docker/containers.json"))
    documents = {
        name: document for name, document in snapshot.documents.items() if removed not in name
    }
    left = [each for each in containers if each["Name"] != f"/{removed}"]
    documents["docker/containers.json"] = msgspec.json.encode(left)
    found = pairs(Examination(Snapshot(documents)))
    pair = found["consul_details-v1_1", "ratings"]
    assert pair.verdict is Verdict.UNKNOWN
    assert "an init container ran" in pair.reason


def test_a_workload_that_registrator_missed_is_still_its_service() -> None:
    """A proxy that knows its address reaches it, registered or not."""

    def miss(instances: list[Any]) -> None:
        instances[:] = [each for each in instances if "v3" not in each["ServiceID"]]

    found = pairs(edited("fixed", "consul/catalog/service/reviews.json", miss))
    pair = found["consul_details-v1_1", "reviews"]
    assert pair.verdict is Verdict.RIGHT
    assert len(pair.instances) == 2


def upstream(**said: Any) -> Callable[[list[Any]], None]:
    """Change web's first upstream, which is api."""

    def change(instances: list[Any]) -> None:
        instances[0]["ServiceProxy"]["Upstreams"][0] |= said

    return change


WEB_PROXY = "consul/catalog/service/web-sidecar-proxy.json"


def test_an_upstream_in_another_datacenter_ends_elsewhere() -> None:
    """Its endpoints are in a catalogue that was not recorded: that is not nowhere."""

    def away(statuses: dict[str, Any]) -> None:
        for status in statuses["cluster_statuses"]:
            for host in status.get("host_statuses", ()):
                host["address"]["socket_address"]["port_value"] += 1000

    snapshot = open_snapshot(MESHES / "connect-healthy.tgz")
    documents = dict(snapshot.documents)
    for document, change in (
        (WEB_PROXY, upstream(Datacenter="dc2")),
        ("envoy/web-sidecar-proxy/clusters.json", away),
    ):
        content = msgspec.json.decode(snapshot.read(document))
        change(content)
        documents[document] = msgspec.json.encode(content)
    found = pairs(Examination(Snapshot(documents)))
    assert found["web", "api"].verdict is Verdict.UNKNOWN
    assert "the upstream is in datacenter dc2" in found["web", "api"].reason
    assert found["web", "pay"].verdict is Verdict.NOWHERE


def test_a_prepared_query_is_no_service_to_be_missed() -> None:
    """What it leads to is Consul's choice, so there is no row for it."""
    examination = edited("connect-healthy", WEB_PROXY, upstream(DestinationType="prepared_query"))
    assert ("web", "api") not in pairs(examination)
    assert ("web", "pay") in pairs(examination)


def test_a_destination_that_denies_every_call_ends_them() -> None:
    """The caller connects, and the far side's RBAC filter cuts it off."""

    def deny(dump: dict[str, Any]) -> None:
        for section in dump["configs"]:
            for each in section.get("dynamic_listeners", ()):
                if each["name"].startswith("public_listener"):
                    chains = each["active_state"]["listener"]["filter_chains"]
                    chains[0]["filters"][0]["typed_config"]["rules"] = {"action": "ALLOW"}

    found = pairs(edited("connect-healthy", "envoy/pay-sidecar-proxy/config_dump.json", deny))
    assert found["web", "pay"].verdict is Verdict.NOWHERE
    assert "at the far side, in pay-sidecar-proxy" in found["web", "pay"].reason
    assert found["web", "api"].verdict is Verdict.RIGHT


def test_a_sidecar_is_its_services_by_what_consul_says() -> None:
    """A recorded Envoy may have any name: its node id is the id of its registration."""
    snapshot = open_snapshot(MESHES / "connect-collision.tgz")
    documents = {
        name.replace("envoy/web-sidecar-proxy/", "envoy/mesh_web-envoy_1/"): document
        for name, document in snapshot.documents.items()
    }
    mesh = Examination(Snapshot(documents)).get(Mesh)
    envoy = next(each for each in mesh.sidecars if each.name == "mesh_web-envoy_1")
    web = next(each for each in mesh.workloads if each.name == "web")
    caller = replace(web, sidecars=(envoy,))
    targets = Registry(mesh).targets(caller)
    assert [(each.service, each.port, each.rivals) for each in targets] == [
        ("api", 9191, ("pay",)),
        ("pay", 9191, ("api",)),
    ]


# ---------------------------------------------------------------- meshes built by hand

WEB = App("web", "10.0.0.1")
API = App("api", "10.0.0.2")
PAY = App("pay", "10.0.0.3")


def config(documents: Documents, app: App, section: str) -> dict[str, Any]:
    """One section of an app's dump, to be changed in place."""
    for each in documents[f"envoy/{app.id}/config_dump.json"]["configs"]:
        if each["@type"].endswith(f".{section}ConfigDump"):
            found: dict[str, Any] = each
            return found
    raise LookupError(section)


def routes(documents: Documents, app: App) -> list[Any]:
    """The routes of an app's first route configuration, by virtual host."""
    configs = config(documents, app, "Routes")["dynamic_route_configs"]
    hosts: list[Any] = configs[0]["route_config"]["virtual_hosts"]
    return hosts


def point(documents: Documents, app: App, service: str, cluster: str) -> None:
    """Let an app's route for a service lead to a cluster."""
    for host in routes(documents, app):
        if host["name"].startswith(f"{service}."):
            host["routes"][0]["route"]["cluster"] = cluster


def endpoints(documents: Documents, app: App, cluster: str) -> list[Any]:
    """The endpoints that an app's proxy holds for a cluster, to be changed in place."""
    statuses = documents[f"envoy/{app.id}/clusters.json"]["cluster_statuses"]
    found: list[Any] = next(each["host_statuses"] for each in statuses if each["name"] == cluster)
    return found


def move(endpoint: dict[str, Any], address: str) -> None:
    endpoint["address"]["socket_address"]["address"] = address


def test_http_services_share_a_port() -> None:
    """Each call reaches the service it names, and luck has no part in it."""
    found = examine(istio((WEB, API, PAY))).get(Calls).pairs
    assert {each.verdict for each in found} == {Verdict.RIGHT}
    assert len(found) == 9


def test_a_mixed_port_that_http_won_works_by_luck() -> None:
    """HTTP services are reached, but a push may give the port to the TCP one, which has none."""
    plain = App("mail", "10.0.0.4", protocol=None)
    documents = istio((WEB, API, plain))
    # It lost the listener, so Pilot made it neither a listener nor a route.
    hosts = routes(documents, WEB)
    hosts[:] = [host for host in hosts if not host["name"].startswith("mail.")]
    found = pairs(examine(documents))
    assert found[WEB.id, "api"].verdict is Verdict.BY_LUCK
    lost = found[WEB.id, "mail"]
    assert (lost.verdict, lost.status, lost.reached) == (Verdict.NOWHERE, 404, None)
    assert "no virtual host takes the host mail:9080" in lost.reason


def test_calls_of_a_service_to_itself_do_not_depend_on_luck() -> None:
    """They take the inbound listener of their own address, whoever owns the port."""
    documents = istio(
        (App("web", "10.0.0.1", protocol=None), App("api", "10.0.0.2", protocol=None)),
        owners={9080: "api"},
    )
    found = pairs(examine(documents))
    assert found["web-1", "web"].verdict is Verdict.RIGHT
    assert found["web-1", "web"].is_own
    assert found["web-1", "api"].verdict is Verdict.BY_LUCK
    assert found["api-2", "api"].verdict is Verdict.RIGHT
    wrong = found["api-2", "web"]
    assert (wrong.verdict, wrong.reached) == (Verdict.WRONG, "api")
    assert "listener 0.0.0.0:9080 is TCP" in wrong.reason


def test_calls_to_another_instance_of_ones_own_service_may_be_lucky() -> None:
    """Only its own address has a listener of its own."""
    apps = [App("web", "10.0.0.1", protocol=None), App("web", "10.0.0.2", protocol=None)]
    documents = istio((*apps, App("api", "10.0.0.3", protocol=None)), owners={9080: "web"})
    assert pairs(examine(documents))["web-1", "web"].verdict is Verdict.BY_LUCK


def test_a_subset_without_a_cluster_is_503() -> None:
    """A route that names a cluster which no DestinationRule made is answered by the proxy."""
    documents = istio((WEB, API))
    point(documents, WEB, "api", outbound("api", 9080, "v9"))
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert (pair.verdict, pair.status, pair.reached) == (Verdict.NOWHERE, 503, None)
    assert "NC" in pair.reason
    assert outbound("api", 9080, "v9") in pair.reason


def test_a_cluster_without_endpoints_is_503() -> None:
    """A subset whose labels no instance has."""
    documents = istio((WEB, API))
    endpoints(documents, WEB, outbound("api", 9080)).clear()
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert (pair.verdict, pair.status) == (Verdict.NOWHERE, 503)
    assert "UH" in pair.reason


def test_an_endpoint_that_nobody_owns_is_nowhere() -> None:
    """No registered service is reached there; the reason names the address."""
    documents = istio((WEB, API))
    move(endpoints(documents, WEB, outbound("api", 9080))[0], "10.0.0.99")
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert (pair.verdict, pair.reached, pair.status) == (Verdict.NOWHERE, None, None)
    assert pair.reason == "it goes to 10.0.0.99:9080, which no registered service has"


def test_an_unowned_endpoint_is_unknown_where_the_catalogue_was_read_in_part() -> None:
    """It may be an instance of the service whose instances are not known."""
    documents = istio((WEB, API))
    documents["consul/catalog/services.json"]["pay"] = []
    move(endpoints(documents, WEB, outbound("api", 9080))[0], "10.0.0.99")
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert pair.verdict is Verdict.UNKNOWN
    assert "the instances of pay are not known" in pair.reason


def test_an_endpoint_that_another_service_has_by_now_is_wrong() -> None:
    """The registry says who is reached, not the cluster's name."""
    documents = istio((WEB, API, PAY))
    move(endpoints(documents, WEB, outbound("api", 9080))[0], PAY.address)
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert (pair.verdict, pair.reached, pair.instances) == (Verdict.WRONG, "pay", (PAY.id,))


def test_one_bad_endpoint_of_several_is_enough() -> None:
    """Where calls may end in several ways, the worst of them is the verdict."""
    second = App("api", "10.0.0.4")
    documents = istio((WEB, API, second))
    move(endpoints(documents, WEB, outbound("api", 9080))[0], "10.0.0.99")
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert pair.verdict is Verdict.NOWHERE
    assert pair.instances == (second.id,)


def test_addresses_that_fare_differently_are_told_apart() -> None:
    """A listener of one address takes that instance's calls alone; the reason says whose."""
    second = App("api", "10.0.0.4")
    documents = istio((WEB, API, second, PAY))
    stale = listener(second.address, 9080, tcp(outbound("pay", 9080)))
    config(documents, WEB, "Listeners")["dynamic_listeners"].append(stale)
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert (pair.verdict, pair.reached) == (Verdict.WRONG, "pay")
    assert pair.reason.startswith(
        "reaches pay instead of api: at 10.0.0.4:9080: listener 10.0.0.4"
    )


def test_a_share_that_goes_to_a_missing_cluster_counts() -> None:
    """Half of the calls are answered with 503, so the call is not right."""
    documents = istio((WEB, API))
    for host in routes(documents, WEB):
        if host["name"].startswith("api."):
            shares = [
                {"name": outbound("api", 9080), "weight": 50},
                {"name": outbound("api", 9080, "v2"), "weight": 50},
            ]
            host["routes"][0]["route"] = {"weighted_clusters": {"clusters": shares}}
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert (pair.verdict, pair.status) == (Verdict.NOWHERE, 503)
    assert "50% of the calls" in pair.reason


def test_a_service_on_two_ports_has_two_rows() -> None:
    """Each port is a call of its own."""
    admin = App("api", "10.0.0.2", port=9090)
    documents = istio((WEB, API))
    documents["consul/catalog/service/api.json"].append(
        documents["consul/catalog/service/api.json"][0]
        | {"ServiceID": "api-admin", "ServicePort": admin.port}
    )
    found = [each for each in examine(documents).get(Calls).pairs if each.caller == WEB.id]
    rows = [(each.callee, each.port, each.verdict) for each in found]
    # Nobody told the proxies of the second port: the call passes through to its own address.
    assert rows == [
        ("api", 9080, Verdict.RIGHT),
        ("api", 9090, Verdict.RIGHT),
        ("web", 9080, Verdict.RIGHT),
    ]
    assert found[1].instances == ("api-admin",)
    assert found[1].url == "http://api:9090/"


def test_a_caller_without_a_sidecar_is_unknown() -> None:
    """Its calls pass no proxy that could be read; others still call it."""
    documents = istio((WEB, API))
    del documents[f"envoy/{WEB.id}/config_dump.json"]
    del documents[f"envoy/{WEB.id}/clusters.json"]
    found = pairs(examine(documents))
    assert found[WEB.id, "api"].verdict is Verdict.UNKNOWN
    assert "has no sidecar" in found[WEB.id, "api"].reason
    assert found[API.id, "web"].verdict is Verdict.RIGHT


def test_the_far_side_has_the_last_word() -> None:
    """An inbound listener that passes calls on to nobody ends them there."""
    documents = istio((WEB, API))
    inbound = "inbound|9080||api.service.consul"
    endpoints(documents, API, inbound).clear()
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert pair.verdict is Verdict.NOWHERE
    assert f"at the far side, in {API.id}" in pair.reason


def test_an_address_that_two_services_have_counts_for_either() -> None:
    """A workload may be registered under two names."""
    documents = istio((WEB, API))
    documents["consul/catalog/services.json"]["shop"] = []
    documents["consul/catalog/service/shop.json"] = [
        documents["consul/catalog/service/api.json"][0]
        | {"ServiceName": "shop", "ServiceID": "shop-1"}
    ]
    found = pairs(examine(documents))
    assert found[WEB.id, "api"].verdict is Verdict.RIGHT


def test_a_route_configuration_that_never_came_is_404() -> None:
    """The listener waits for it, and the proxy answers itself."""
    documents = istio((WEB, API))
    found = config(documents, WEB, "Listeners")["dynamic_listeners"]
    found[-1] = listener("0.0.0.0", 9080, http("other"))  # noqa: S104 # as Pilot binds it
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert (pair.verdict, pair.status) == (Verdict.NOWHERE, 404)


# ---------------------------------------------------------------- followed once


def many(count: int) -> list[App]:
    return [App(f"svc{n:03}", f"10.0.0.{n + 1}", protocol=None) for n in range(count)]


def followed(apps: list[App], owners: Mapping[int, str]) -> tuple[int, int]:
    """How many rows the matrix has, and how many walks it took."""
    mesh = examine(istio(apps, owners)).get(Mesh)
    follower = Follower(Registry(mesh))
    rows = [pair for caller in mesh.workloads for pair in follower.pairs(caller)]
    return len(rows), follower.walks.followed


@pytest.mark.parametrize("owners", [{}, {9080: "svc001"}], ids=["http", "tcp"])
def test_equal_configuration_is_followed_once(owners: Mapping[int, str]) -> None:
    """Walks grow with callers and callees, while rows grow with their product."""
    rows, walks = followed(many(8), owners)
    assert (rows, walks) == (64, 24)
    rows, walks = followed(many(24), owners)
    assert (rows, walks) == (576, 72)


def unshared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no proxy answer like another."""

    def answer(reader: shared.Reader, question: shared.Question) -> int:
        return hash((reader.config.proxy.name, question))

    monkeypatch.setattr(shared.Reader, "answer", answer)


Broken = Callable[[], Documents]


def one_stale() -> Documents:
    documents = istio((WEB, API, PAY))
    move(endpoints(documents, WEB, outbound("api", 9080))[0], PAY.address)
    return documents


def one_refused() -> Documents:
    documents = istio((WEB, API, PAY))
    point(documents, PAY, "api", "nothing")
    return documents


def one_in_part() -> Documents:
    documents = istio((WEB, API, PAY))
    config(documents, WEB, "Listeners")["dynamic_listeners"].pop()
    config(documents, API, "Listeners")["dynamic_listeners"][-1] = {"active_state": 7}
    return documents


@pytest.mark.parametrize("built", [one_stale, one_refused, one_in_part])
def test_sharing_walks_changes_no_row(built: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that differs in one thing is told apart wherever that matters."""
    rows = examine(built()).get(Calls).pairs
    unshared(monkeypatch)
    assert examine(built()).get(Calls).pairs == rows


@every_recording
def test_sharing_walks_changes_no_row_of_a_recording(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor of a mesh as it really was."""
    rows = recorded(name).get(Calls).pairs
    unshared(monkeypatch)
    alone = Calls.of(recorded(name).get(Mesh)).pairs
    assert [(seen(each), each.reason) for each in alone] == [
        (seen(each), each.reason) for each in rows
    ]


# ---------------------------------------------------------------- the far side


def filtered(documents: Documents, app: App, name: str, config: dict[str, Any]) -> None:
    """Put a network filter before the others of an app's inbound listener."""
    (listened,) = [
        each
        for each in config_of_listeners(documents, app)
        if each["name"].startswith(app.address)
    ]
    (chain,) = listened["active_state"]["listener"]["filter_chains"]
    chain["filters"].insert(0, {"name": name, "typed_config": config})


def config_of_listeners(documents: Documents, app: App) -> list[Any]:
    found: list[Any] = config(documents, app, "Listeners")["dynamic_listeners"]
    return found


NETWORK = "type.googleapis.com/envoy.extensions.filters.network"


def test_a_far_side_that_is_not_followed_leaves_what_was_decided_here() -> None:
    """Its filter may decide; that the call gets there is known."""
    documents = istio((WEB, API))
    filtered(documents, API, "mine", {"@type": f"{NETWORK}.ext_authz.v3.ExtAuthz"})
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert (pair.verdict, pair.reached) == (Verdict.RIGHT, "api")


def test_a_denial_that_no_intention_made_names_none() -> None:
    """Istio has rules of its own."""
    documents = istio((WEB, API))
    filtered(documents, API, "rbac", {"@type": f"{NETWORK}.rbac.v3.RBAC", "rules": {}})
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert pair.verdict is Verdict.NOWHERE
    assert pair.reason.startswith(f"at the far side, in {API.id}: ")
    assert "intention" not in pair.reason
    assert pair.denied is not None


def test_what_a_gateway_passes_on_is_not_followed() -> None:
    """It may lead to another datacenter."""
    documents = istio((WEB, API))
    documents["consul/catalog/services.json"]["gateway"] = []
    documents["consul/catalog/service/gateway.json"] = [
        {
            "ServiceName": "gateway",
            "ServiceID": "gateway-1",
            "ServiceAddress": "10.0.0.50",
            "ServicePort": 9080,
            "ServiceKind": "mesh-gateway",
        }
    ]
    move(endpoints(documents, WEB, outbound("api", 9080))[0], "10.0.0.50")
    pair = pairs(examine(documents))[WEB.id, "api"]
    assert pair.verdict is Verdict.UNKNOWN
    assert "it goes on through the gateway gateway, which is not followed" in pair.reason


def test_behind_a_sidecar_that_hangs_nothing_is_certain() -> None:
    """Its admin port takes connections and answers nothing: so may its listeners."""
    hanging = "consul_ratings-v1-sidecar_1"
    problem = Problem(f"envoy/{hanging}/config_dump.json", f"10.0.0.9: {access.HANGS}")
    found = pairs(without("fixed", f"envoy/{hanging}/", missing=(problem,)))
    pair = found["consul_details-v1_1", "ratings"]
    assert (pair.verdict, pair.reached) == (Verdict.UNKNOWN, None)
    assert f"{hanging} answers nothing at its admin port" in pair.reason


def test_past_the_proxy_to_a_container_that_does_not_run() -> None:
    """The call is not balanced: there is no share of it to tell."""
    snapshot = open_snapshot(MESHES / "fixed.tgz")
    containers = msgspec.json.decode(snapshot.read("docker/containers.json"))
    stop(containers, "consul_details-v1_1")
    documents = dict(snapshot.documents)
    documents["docker/containers.json"] = msgspec.json.encode(containers)
    rules = b"*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
    for name in documents:
        if name.startswith("netfilter/"):
            documents[name] = rules
    pair = pairs(Examination(Snapshot(documents)))["consul_ratings-v1_1", "details"]
    assert pair.verdict is Verdict.NOWHERE
    assert pair.reason.startswith("it goes to ")
    assert "whose container consul_details-v1_1 does not run" in pair.reason


IN = "-A PREROUTING -p tcp -j REDIRECT --to-ports 15001"
OVER_LO = "-A OUTPUT -p tcp ! -d 127.0.0.1/32 -o lo -j REDIRECT --to-ports 15001"
OWN_USER = "-A OUTPUT -p tcp -m owner --uid-owner 1337 -j RETURN"
OUT = "-A OUTPUT -p tcp -j REDIRECT --to-ports 15001"


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        # What goes over `lo` is caught, the proxy's own connections too.
        ((IN, OVER_LO, OWN_USER, OUT), Verdict.NOWHERE),
        # The proxy's own connections are let be, wherever they go.
        ((IN, OWN_USER, OUT), Verdict.RIGHT),
        # Whose connections are the proxy's, the rules do not tell.
        ((IN, OVER_LO, OUT), Verdict.RIGHT),
    ],
)
def test_a_far_side_that_passes_a_call_on_to_itself(
    rules: tuple[str, ...], verdict: Verdict
) -> None:
    """Without an inbound listener its outbound ones send it to the very address it came to."""
    sidecar = "consul_ratings-v1-sidecar_1"
    snapshot = open_snapshot(MESHES / "fixed.tgz")
    dump = msgspec.json.decode(snapshot.read(f"envoy/{sidecar}/config_dump.json"))
    for section in dump["configs"]:
        section["dynamic_listeners"] = [
            each
            for each in section.get("dynamic_listeners", ())
            if not each["name"].startswith("172.28.")
        ]
    table = ("*nat", ":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", *rules, "COMMIT", "")
    documents = dict(snapshot.documents)
    documents[f"envoy/{sidecar}/config_dump.json"] = msgspec.json.encode(dump)
    documents[f"netfilter/{sidecar}.nat.txt"] = "\n".join(table).encode()
    pair = pairs(Examination(Snapshot(documents)))["consul_details-v1_1", "ratings"]
    assert pair.verdict is verdict
    assert pair.reason.endswith("gets it back without end") is (verdict is Verdict.NOWHERE)
