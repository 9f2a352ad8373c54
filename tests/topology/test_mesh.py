"""Whose sidecar is whose, which instance is which container, and what is not known."""

from collections.abc import Mapping
from typing import Any

import pytest

from meshdoctor.check import Examination
from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.evidence.envoy import EnvoyProxies
from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.kinds import Kind
from meshdoctor.snapshot import Snapshot
from meshdoctor.topology import Mesh, Role, Sidecar, SidecarState, Workload
from tests.evidence.damage import CONNECT, ISTIO, recording
from tests.topology.containers import (
    REGISTRATOR,
    catalog,
    engine,
    inspected,
    listening,
    proxies,
    registered,
)

ENVOY = ("/usr/local/bin/envoy", "-c", "/etc/envoy.json")
INIT = ("/usr/local/bin/istio-iptables.sh", "-p", "15001")


def join(
    docker: DockerEngine | None = None,
    consul: ConsulCatalog | None = None,
    envoys: EnvoyProxies | None = None,
    unreachable: Mapping[str, str] | None = None,
) -> Mesh:
    return Mesh.join(
        docker=docker,
        catalog=consul,
        proxies=envoys,
        netfilter=None,
        pilot=None,
        unreachable=unreachable or {},
    )


def within(name: str) -> str:
    """The network mode of a container that shares another's namespace."""
    return f"container:{name.ljust(64, '0')}"


def application(name: str, address: str = "10.0.0.2", **parts: Any) -> dict[str, Any]:
    return inspected(name, address=address, exposed=("9080/tcp",), **parts)


def sidecar(name: str, of: str, **parts: Any) -> dict[str, Any]:
    return inspected(name, command=ENVOY, network=within(of), **parts)


def whose(mesh: Mesh) -> dict[str, str | None]:
    return {each.name: each.workload for each in mesh.sidecars}


def only(workloads: tuple[Workload, ...]) -> Workload:
    (workload,) = workloads
    return workload


@pytest.mark.parametrize("name", ISTIO)
def test_a_recorded_istio_mesh(name: str) -> None:
    """Six workloads, each an instance, an init container and its own sidecar, all examined."""
    mesh = Examination(recording(name)).get(Mesh)
    assert mesh.kinds == (Kind.ISTIO_CONSUL,)
    assert [each.name for each in mesh.applications] == [
        "details",
        "productpage",
        "ratings",
        "reviews",
    ]
    assert [each.name for each in mesh.services.values() if each.infrastructure] == [
        "consul",
        *(f"pilot-{port}" for port in (15003, 15005, 15007, 15010, 15014)),
    ]
    assert len(mesh.workloads) == 6
    for workload in mesh.workloads:
        stem = workload.name.removesuffix("_1")
        assert [each.name for each in workload.sidecars] == [f"{stem}-sidecar_1"]
        assert [each.name for each in workload.inits] == [f"{stem}-init_1"]
        assert [each.id for each in workload.expected] == [each.id for each in workload.instances]
        assert workload.sidecars[0].state is SidecarState.EXAMINED
        assert workload.sidecars[0].nat is not None
    assert {each.role for each in mesh.components} == {Role.CONSUL, Role.PILOT, Role.REGISTRATOR}
    assert mesh.shared_ports() == {9080: mesh.applications}


@pytest.mark.parametrize("name", CONNECT)
def test_a_recorded_connect_mesh(name: str) -> None:
    """Without Docker, what Consul registered says whose sidecar is whose."""
    mesh = Examination(recording(name)).get(Mesh)
    assert mesh.kinds == (Kind.CONSUL_CONNECT,)
    assert [each.name for each in mesh.workloads] == ["api", "db", "pay", "web"]
    assert whose(mesh) == {f"{each}-sidecar-proxy": each for each in ("api", "db", "pay", "web")}
    assert all(each.container is None for each in mesh.workloads)
    assert [len(each.sidecars) for each in mesh.workloads] == [1] * 4
    assert mesh.registrator is None


def test_names_mislead_and_namespaces_do_not() -> None:
    """A sidecar is of the container whose namespace it shares, whatever the two are called."""
    mesh = join(
        engine(
            application("details", "10.0.0.2"),
            application("reviews", "10.0.0.3"),
            sidecar("details-sidecar", "reviews"),
            sidecar("reviews-sidecar", "details"),
        )
    )
    assert whose(mesh) == {"details-sidecar": "reviews", "reviews-sidecar": "details"}


def test_a_recorded_mesh_under_other_names() -> None:
    """With every container renamed to another's name, each workload keeps its own sidecar."""
    docker = DockerEngine.load(recording("fixed"))
    names = [each.name for each in docker.containers]
    other = dict(zip(names, names[1:] + names[:1], strict=True))
    renamed = engine(
        *(
            inspected(
                other[each.name],
                id=each.id,
                image=each.image,
                command=each.command,
                network=each.network_mode,
                addresses=dict(each.addresses),
                started=each.started_at,
            )
            for each in docker.containers
        )
    )
    mesh = join(renamed, ConsulCatalog.load(recording("fixed")))
    for each in mesh.sidecars:
        assert each.container is not None
        host = docker.container(each.container.network_container)
        assert host is not None
        assert each.workload == other[host.name]
        assert not each.namespace_is_dead


def test_a_sidecar_of_a_container_that_is_gone() -> None:
    """It is nobody's sidecar, and so said."""
    mesh = join(engine(application("web"), sidecar("web-sidecar", "replaced")))
    (found,) = mesh.sidecars
    assert found.namespace_is_dead
    assert found.workload is None
    assert mesh.workloads == ()


@pytest.mark.parametrize(
    ("web", "its_sidecar", "dead"),
    [
        ("2026-01-01T00:00:00.000000001Z", "2026-01-01T00:00:05Z", False),
        ("2026-01-01T00:00:05Z", "2026-01-01T00:00:00Z", True),
        ("2026-01-01T00:00:00.000002Z", "2026-01-01T00:00:00.0000010Z", True),
        ("2026-01-01T02:00:01+02:00", "2026-01-01T00:00:02Z", False),
        ("2026-01-01T02:00:03+02:00", "2026-01-01T00:00:02Z", True),
        ("0001-01-01T00:00:00Z", "2026-01-01T00:00:02Z", False),
        ("", "2026-01-01T00:00:02Z", False),
        ("yesterday", "2026-01-01T00:00:02Z", False),
    ],
)
def test_a_container_started_again_has_a_new_namespace(
    web: str, its_sidecar: str, *, dead: bool
) -> None:
    """The sidecar that was there before still holds the old one; unknown times tell nothing."""
    mesh = join(
        engine(application("web", started=web), sidecar("s", "web", started=its_sidecar)),
    )
    (found,) = mesh.sidecars
    assert found.namespace_is_dead is dead
    assert found.workload == (None if dead else "web")


def test_a_stopped_sidecar_is_down_and_not_in_a_dead_namespace() -> None:
    """What does not run holds no namespace; it is still its workload's."""
    mesh = join(engine(application("web"), sidecar("s", "web", status="exited")))
    (found,) = mesh.sidecars
    assert (found.state, found.namespace_is_dead) == (SidecarState.DOWN, False)
    assert only(mesh.workloads).sidecars == (found,)


def test_a_chain_of_namespaces_ends_at_the_one_who_has_it() -> None:
    """`container:` of `container:`, by id and by name; a circle ends too."""
    mesh = join(
        engine(
            application("web"),
            inspected("helper", network=within("web")),
            inspected("s", command=ENVOY, network="container:helper"),
            inspected("a", command=ENVOY, network="container:b"),
            inspected("b", command=ENVOY, network="container:a"),
        )
    )
    assert whose(mesh) == {"a": None, "b": None, "s": "web"}


def test_the_init_containers_of_a_workload_are_in_its_namespace() -> None:
    """They exited long ago, and are no sidecars."""
    init = inspected("i", command=INIT, network=within("web"), status="exited")
    mesh = join(engine(application("web"), init, sidecar("s", "web")))
    workload = only(mesh.workloads)
    assert [each.name for each in workload.inits] == ["i"]
    assert [each.name for each in workload.sidecars] == ["s"]


def test_an_application_in_its_sidecars_namespace() -> None:
    """Who owns the namespace makes no difference."""
    mesh = join(
        engine(
            inspected("s", command=ENVOY, address="10.0.0.2"),
            inspected("web", network=within("s"), exposed=("9080/tcp",)),
            inspected("i", command=INIT, network=within("s"), status="exited"),
        ),
        catalog(registered("web", "host:web:9080")),
    )
    workload = only(mesh.workloads)
    assert workload.name == "web"
    assert [each.name for each in workload.sidecars] == ["s"]
    assert [each.name for each in workload.inits] == ["i"]


def test_a_container_that_only_holds_the_namespace_open_is_no_workload() -> None:
    """The registered application is, and all of one namespace have the sidecar in common."""
    docker = engine(
        inspected("pause", address="10.0.0.2"),
        inspected("api", network=within("pause")),
        inspected("web", network=within("pause")),
        inspected("shell", network=within("pause")),
        sidecar("s", "pause"),
    )
    mesh = join(
        docker, catalog(registered("web", "host:web:9080"), registered("api", "host:api:9081"))
    )
    assert [each.name for each in mesh.workloads] == ["api", "web"]
    assert all([s.name for s in each.sidecars] == ["s"] for each in mesh.workloads)
    assert whose(mesh) == {"s": "api"}


def test_an_envoy_on_its_own_is_nobodys_sidecar() -> None:
    """A gateway shares no namespace."""
    mesh = join(engine(inspected("gateway", command=ENVOY, address="10.0.0.9")))
    assert whose(mesh) == {"gateway": None}


# ---------------------------------------------------------------- instances and containers


def owners(mesh: Mesh) -> dict[str, str]:
    return {key: container.name for key, container in mesh.owners.items()}


def test_an_instance_is_the_container_with_its_address() -> None:
    """Whatever its id says, where the id is not Registrator's."""
    mesh = join(
        engine(application("one", "10.0.0.2"), inspected("two", bridge="172.17.0.2")),
        catalog(
            registered("web", "web-1", "10.0.0.2"),
            registered("api", "a:b:c", "172.17.0.2"),
            registered("db", "db", "10.0.0.9"),
        ),
    )
    assert owners(mesh) == {"web-1": "one", "a:b:c": "two"}


def test_an_address_given_again_does_not_make_another_the_owner() -> None:
    """The id names a container that stopped; its address is by now another's."""
    mesh = join(
        engine(application("old", "10.0.0.2", status="exited"), application("new", "10.0.0.2")),
        catalog(
            registered("details", "host:old:9080", "10.0.0.2"),
            registered("reviews", "host:new:9080", "10.0.0.2"),
        ),
    )
    assert owners(mesh) == {"host:old:9080": "old", "host:new:9080": "new"}
    assert {each.name: each.services for each in mesh.workloads} == {
        "new": ("reviews",),
        "old": ("details",),
    }


def test_a_removed_containers_address_is_not_inherited_with_its_registration() -> None:
    """Who has the address has a registration of its own, so this one is nobody's."""
    mesh = join(
        engine(application("new", "10.0.0.2")),
        catalog(
            registered("details", "host:removed:9080", "10.0.0.2"),
            registered("reviews", "host:new:9080", "10.0.0.2"),
        ),
    )
    assert owners(mesh) == {"host:new:9080": "new"}
    assert [each.name for each in mesh.workloads] == ["new"]


def test_a_renamed_container_keeps_its_registration() -> None:
    """Nobody else claims its address, and no container has the name of the id."""
    mesh = join(
        engine(application("renamed", "10.0.0.2")),
        catalog(registered("details", "host:before:9080", "10.0.0.2")),
    )
    assert owners(mesh) == {"host:before:9080": "renamed"}


def test_on_the_hosts_address_the_id_tells() -> None:
    """Without -internal every instance has the host's address."""
    mesh = join(
        engine(application("web", "10.0.0.2")),
        catalog(registered("web", "host:web:9080:udp", "192.0.2.1", 32768)),
    )
    assert owners(mesh) == {"host:web:9080:udp": "web"}


def test_of_two_with_one_address_the_one_that_has_the_port() -> None:
    """Two engines recorded together may give one address twice."""
    mesh = join(
        engine(
            inspected("a", address="10.0.0.2", exposed=("80/tcp",)),
            inspected("b", address="10.0.0.2", exposed=("9080/tcp",)),
        ),
        catalog(registered("web", "web", "10.0.0.2", 9080)),
    )
    assert owners(mesh) == {"web": "b"}


def test_a_container_that_should_be_registered_is_a_workload() -> None:
    """Registrator would register it, Consul does not know it."""
    mesh = join(
        engine(
            inspected("registrator", command=REGISTRATOR, hostname="reg"),
            application("web"),
            inspected("batch", address="10.0.0.7"),
            application("stopped", status="exited"),
        ),
        catalog(),
    )
    workload = only(mesh.workloads)
    assert (workload.name, workload.instances) == ("web", ())
    assert [each.id for each in workload.expected] == ["reg:web:9080"]


# ---------------------------------------------------------------- without Docker, or beside it


def test_instances_that_run_without_docker_are_workloads() -> None:
    """Also where Docker runs something else; what Registrator left behind is not one."""
    consul = catalog(
        registered("web", "web", "127.0.0.1", 8180),
        registered("old", "host:old:9080", "10.0.0.9"),
    )
    assert [each.name for each in join(None, consul).workloads] == ["host:old:9080", "web"]
    beside = join(engine(inspected("database", address="10.0.0.5")), consul)
    assert [each.name for each in beside.workloads] == ["web"]


def test_one_id_on_two_nodes_is_one_workload_of_two_instances() -> None:
    """Ids are unique on one agent only, names of workloads must be unique."""
    mesh = join(
        None,
        catalog(
            registered("web", "web", "10.0.0.1", node="a"),
            registered("web", "web", "10.0.0.2", node="b"),
        ),
    )
    assert [len(each.instances) for each in mesh.workloads] == [2]


CONNECT_PROXY = {"DestinationServiceName": "web", "DestinationServiceID": "web-1"}


def connect(proxy: dict[str, Any], **parts: Any) -> ConsulCatalog:
    return catalog(
        registered("web", "web-0", "10.0.0.1", 8180, node="far"),
        registered("web", "web-1", "10.0.0.2", 8180, node="near"),
        registered(
            "web-sidecar-proxy", "p", "10.0.0.2", 21000, kind="connect-proxy", proxy=proxy, **parts
        ),
    )


@pytest.mark.parametrize(
    ("name", "dump"),
    [
        ("p", listening()),
        ("by-hand", listening(node="p")),
        ("by-hand", listening("10.0.0.2", 21000)),
        ("by-hand", listening("10.0.0.2", 8180)),
    ],
)
def test_an_envoy_without_a_container_is_found_by_what_it_says(
    name: str, dump: dict[str, Any]
) -> None:
    """By the id it has in Consul, its node, or the address of its inbound listener."""
    mesh = join(None, connect(CONNECT_PROXY), proxies(**{name: dump}))
    assert whose(mesh) == {name: "web-1"}
    assert {each.name: len(each.sidecars) for each in mesh.workloads} == {"web-0": 0, "web-1": 1}


def test_a_proxy_registered_for_a_name_alone() -> None:
    """Then it is the instance on its own node; without one, the only name there is."""
    named = {"DestinationServiceName": "web"}
    near = join(None, connect(named, node="near"), proxies(p=listening()))
    assert whose(near) == {"p": "web-1"}
    unknown = connect({"DestinationServiceName": "gone"})
    assert whose(join(None, unknown, proxies(p=listening()))) == {"p": "gone"}


def test_an_envoy_that_says_nothing_is_nobodys_sidecar() -> None:
    """It is listed, without a workload."""
    mesh = join(None, connect(CONNECT_PROXY), proxies(x=listening("127.0.0.1", 15001)))
    assert whose(mesh) == {"x": None}


def test_an_envoy_given_by_hand_is_its_containers_sidecar() -> None:
    """The instance is a container: the workload has that one's name."""
    mesh = join(
        engine(application("web", "10.0.0.2")),
        catalog(registered("web", "host:web:9080", "10.0.0.2")),
        proxies(byhand=listening("10.0.0.2", 9080)),
    )
    assert whose(mesh) == {"byhand": "web"}
    assert [each.name for each in only(mesh.workloads).sidecars] == ["byhand"]


def test_what_the_agent_knows_counts_for_sidecars() -> None:
    """The catalogue may not have heard of the proxy yet."""
    agent = {
        "p": {
            "Kind": "connect-proxy",
            "Service": "web-sidecar-proxy",
            "Proxy": {"DestinationServiceID": "web"},
        }
    }
    consul = catalog(registered("web", "web", "10.0.0.2", 8180), agent=agent)
    assert whose(join(None, consul, proxies(p=listening()))) == {"p": "web"}


# ---------------------------------------------------------------- what could not be reached


def test_sidecars_tried_in_vain_are_listed_though_no_envoy_answered() -> None:
    """Each is unreachable with its own reason, also where Docker and Consul are silent too."""
    snapshot = Snapshot(
        {},
        absent=(
            Problem("envoy/web/config_dump.json", "connection refused"),
            Problem("envoy/api/", "timed out"),
            Problem("envoy/", "no more sidecar was found"),
            Problem("envoy/web/stats.json", "not asked"),
        ),
    )
    mesh = Examination(snapshot).get(Mesh)
    assert [(each.name, each.state, each.reason) for each in mesh.sidecars] == [
        ("api", SidecarState.UNREACHABLE, "timed out"),
        ("web", SidecarState.UNREACHABLE, "connection refused"),
    ]
    with pytest.raises(MissingEvidenceError, match="no sidecar could be read"):
        Examination(snapshot).get(EnvoyProxies)


def test_a_containers_sidecar_has_the_reason_that_was_recorded() -> None:
    """Also where no sidecar at all could be read."""
    docker = engine(application("web"), sidecar("s", "web"), sidecar("t", "web"))
    mesh = join(docker, unreachable={"s": "permission denied"})
    reasons = {each.name: each.reason for each in mesh.sidecars}
    assert reasons == {
        "s": "permission denied",
        "t": "no config_dump.json was recorded",
    }


def test_nothing_at_all_is_no_mesh() -> None:
    """Joining nothing is an error with a reason."""
    with pytest.raises(MissingEvidenceError, match="neither Docker nor Consul nor any Envoy"):
        join()


def test_one_source_alone_is_a_mesh() -> None:
    """Each tells what it can."""
    recorded = recording("fixed")
    docker = join(DockerEngine.load(recorded))
    assert len(docker.workloads) == 6
    assert docker.applications == ()
    consul = join(None, ConsulCatalog.load(recorded))
    assert len(consul.workloads) == 6
    assert len(consul.applications) == 4
    envoys = join(None, None, EnvoyProxies.load(recorded))
    assert len(envoys.sidecars) == 6
    assert {each.workload for each in envoys.sidecars} == {None}


def test_one_order_whatever_the_order_of_evidence() -> None:
    """The same mesh gives the same document."""
    documents = [application("bb", "10.0.0.3"), application("aa"), sidecar("y", "bb")]
    documents.append(sidecar("x", "aa"))
    instances = [registered("web", f"host:{name}:9080") for name in ("bb", "aa")]
    one = join(engine(*documents), catalog(*instances))
    two = join(engine(*reversed(documents)), catalog(*reversed(instances)))

    def told(mesh: Mesh) -> list[list[str]]:
        sidecars: tuple[Sidecar, ...] = mesh.sidecars
        return [[each.name for each in mesh.workloads], [each.name for each in sidecars]]

    assert told(one) == told(two) == [["aa", "bb"], ["x", "y"]]


# ---------------------------------------------------------------- infrastructure


def test_infrastructure_is_told_by_its_container_then_by_its_name() -> None:
    """An application may be called etcd; a Pilot without Docker is known by its name alone."""
    mesh = join(
        engine(
            inspected("control", image="istio/pilot:1.1.0", address="10.0.0.2"),
            application("store", "10.0.0.3"),
        ),
        catalog(
            registered("anything-15010", "x", "10.0.0.2", 15010),
            registered("etcd", "y", "10.0.0.3"),
            registered("pilot-15003", "z", "10.9.9.9", 15003),
            registered("web-15003", "w", "10.9.9.8", 15003),
            registered("consul", "consul", "", 8300),
        ),
    )
    assert [each.name for each in mesh.applications] == ["etcd", "web-15003"]
    assert {each: mesh.owners[each].name for each in ("x", "y")} == {"x": "control", "y": "store"}
    workloads = {each.name for each in mesh.workloads}
    assert "store" in workloads
    assert "control" not in workloads


def test_of_two_that_play_a_part_the_running_one_counts() -> None:
    """A stopped Registrator beside a running one is history."""
    mesh = join(
        engine(
            inspected("a", command=REGISTRATOR, status="exited"),
            inspected("b", command=REGISTRATOR),
        )
    )
    component = mesh.component(Role.REGISTRATOR)
    assert component is not None
    assert component.name == "b"
    assert mesh.registrator is not None
    assert mesh.registrator.container.name == "b"
    assert mesh.component(Role.ETCD) is None
