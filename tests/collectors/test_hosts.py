"""Several Docker hosts in one run: one mesh, and a host that fails costs only its own evidence."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from meshdoctor.check import Examination
from meshdoctor.collectors import NamedEngine, Options, collect
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.routing.calls import Calls
from meshdoctor.snapshot import Snapshot, open_snapshot
from meshdoctor.topology import Mesh
from tests.collectors.conftest import Serve, hang
from tests.collectors.replayed import NOWHERE, Consul, Host, at, gathered, hosts, served, split
from tests.timeless import report

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"


@pytest.fixture(scope="module")
def recording() -> Snapshot:
    return open_snapshot(MESHES / "broken.tgz")


@pytest.fixture(scope="module")
def engines(recording: Snapshot) -> Iterator[Mapping[int, list[str]]]:
    """One host that has the mesh, and two that have it between them."""
    with hosts(recording, 1, 2) as mesh:
        yield mesh.engines


@pytest.fixture
def two(engines: Mapping[int, list[str]]) -> list[NamedEngine]:
    """Two hosts that have the mesh between them."""
    return [NamedEngine(host=each) for each in engines[2]]


def lines(snapshot: Snapshot) -> list[str]:
    """The same line by line, so that a difference is one line."""
    return json.dumps(report(snapshot), indent=1).splitlines()


def test_two_hosts_give_the_report_of_one(
    engines: Mapping[int, list[str]], two: list[NamedEngine]
) -> None:
    """To the last pointer; and every sidecar was read, each on its own host."""
    (alone,) = engines[1]
    whole = collect(Options(docker_host=alone, environment=NOWHERE), lambda _message: None)
    both = gathered(two)
    assert lines(both) == lines(whole)
    assert whole.names() == both.names()
    coverage = report(both)["coverage"]["sidecars"]
    assert (coverage["found"], coverage["examined"]) == (6, 6)


def test_the_order_in_which_hosts_are_named_changes_nothing(two: list[NamedEngine]) -> None:
    """Not the names of containers either."""
    assert lines(gathered(two)) == lines(gathered(two[::-1]))


@pytest.mark.parametrize("failing", ["hung", "refused"])
def test_a_host_that_fails_costs_only_its_own_evidence(
    two: list[NamedEngine], serve: Serve, failing: str
) -> None:
    """It is named, with the reason; all that the others showed is there."""
    url = serve(hang).replace("http:", "tcp:") if failing == "hung" else "tcp://127.0.0.1:1"
    without, with_it = gathered(two), gathered([*two, NamedEngine(host=url)], request_timeout=0.5)
    assert with_it.names() == without.names()
    (said,) = (each.message for each in with_it.absent if each.document == "docker/")
    assert said.startswith(f"host {url} could not be read: ")
    sources = {each["name"]: each for each in report(with_it)["coverage"]["sources"]}
    assert sources["docker"]["state"] == "partial"
    assert url in sources["docker"]["reason"]


def test_a_host_whose_context_is_not_there_is_named(two: list[NamedEngine]) -> None:
    """By the name that was given."""
    said = [each.message for each in gathered([*two, NamedEngine(context="nowhere")]).absent]
    assert any(each.startswith("host nowhere could not be read: there is no") for each in said)


def test_containers_of_one_name_are_not_mixed_up(recording: Snapshot) -> None:
    """The same Compose file on two hosts: each keeps its own sidecars, ids and instances."""
    (containers,) = split(recording, 1, 1)
    wanted = ("details-v1", "ratings-v1")
    with served(Consul(recording)) as consul:
        east, west = ([each for each in containers if name in each["Name"]] for name in wanted)
        servers = []
        for name, own in (("east", east), ("west", west)):
            host = Host(recording, own, name)
            for each in own:
                # They are recorded under other names than they have on these hosts.
                kind = each["Name"].rpartition("-v1")[2]
                each["Name"] = f"/app{kind}"
            servers.append(host)
        with served(servers[0]) as one, served(servers[1]) as other:
            snapshot = gathered(
                [NamedEngine(host=at(one)), NamedEngine(host=at(other))],
                consul=f"127.0.0.1:{consul.port}",
            )
    names = {each.name for each in DockerEngine.load(snapshot).containers}
    assert names == {
        f"app{kind}@{host}"
        for kind in ("_1", "-sidecar_1", "-init_1")
        for host in ("east", "west")
    }
    mesh = Examination(snapshot).get(Mesh)
    beside = {each.name: each.workload for each in mesh.sidecars}
    assert beside == {f"app-sidecar_1@{each}": f"app_1@{each}" for each in ("east", "west")}
    nodes = {
        each.name: each.proxy.node.id if each.proxy and each.proxy.node else ""
        for each in mesh.sidecars
    }
    assert nodes == {"app-sidecar_1@east": "details-v1", "app-sidecar_1@west": "ratings-v1"}
    # Registrator's id names a container that both have: its address tells whose it is.
    owned = {id_: each.name for id_, each in mesh.owners.items() if "-v1_1:" in id_}
    assert owned["7cd48d9a2d52:consul_details-v1_1:9080"] == "app_1@east"


def test_what_was_given_by_hand_is_asked_once(
    recording: Snapshot, two: list[NamedEngine], httpserver: HTTPServer
) -> None:
    """Not once for each host, and Consul's own containers not at all."""
    httpserver.expect_request("").respond_with_handler(Consul(recording))
    snapshot = gathered(two, consul=f"127.0.0.1:{httpserver.port}")
    assert snapshot.names("consul/")
    asked = [request.path for request, _ in httpserver.log]
    assert asked.count("/v1/status/leader") == 1
    assert asked.count("/v1/catalog/services") == 1


def test_an_envoy_given_by_hand_stands_beside_the_hosts(
    recording: Snapshot, two: list[NamedEngine], httpserver: HTTPServer
) -> None:
    """One that a host showed is read there; one that none showed, at its address."""
    read = recording.read("envoy/consul_details-v1-sidecar_1/server_info.json").decode()
    httpserver.expect_request("/server_info").respond_with_data(read)
    url = httpserver.url_for("")
    shown = "consul_reviews-v1-sidecar_1"
    snapshot = gathered(two, envoys={"edge": url, shown: url})
    assert node_of(snapshot, "edge") == "details-v1"
    assert node_of(snapshot, shown) == "reviews-v1"


def node_of(snapshot: Snapshot, sidecar: str) -> str:
    info = json.loads(snapshot.read(f"envoy/{sidecar}/server_info.json"))
    return str(info["node"]["id"])


def test_calls_are_followed_from_host_to_host(two: list[NamedEngine], recording: Snapshot) -> None:
    """As in the recording, to the last pair."""
    pairs = Examination(gathered(two)).get(Calls).pairs
    assert {(each.caller, each.callee, each.verdict) for each in pairs} == {
        (each.caller, each.callee, each.verdict)
        for each in Examination(recording).get(Calls).pairs
    }
