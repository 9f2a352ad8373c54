"""Callers that fare alike: what is told of one by another is what following it by itself tells."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from meshdoctor.check import Examination
from meshdoctor.evidence.interface import EvidenceError
from meshdoctor.routing.calls import Calls, Follower, Judgement, Pair, Registry, Verdict
from meshdoctor.snapshot import Snapshot, open_snapshot
from meshdoctor.topology import Mesh
from tests.routing.meshes import App, Documents, examine, http, istio, listener, outbound, tcp
from tests.scale.multiplied import multiplied

MESHES: Final = Path(__file__).parents[2] / "fixtures" / "meshes"
RECORDINGS: Final = sorted(each.relative_to(MESHES) for each in MESHES.rglob("*.tgz"))
WHOLE: Final = ("broken", "fixed", "broken-v2", "fixed-v2", "connect-healthy", "connect-collision")


def one_by_one(mesh: Mesh) -> Sequence[Pair]:
    """All calls, each caller's followed as if there were no other caller."""
    return [pair for each in mesh.workloads for pair in Follower(Registry(mesh)).pairs(each)]


def is_judged(verdict: Verdict, judgement: Judgement) -> bool:
    return judgement.verdict is verdict


def hold(examination: Examination) -> Calls:
    """Hold what callers were told by each other against what each is told by itself."""
    calls = examination.get(Calls)
    alone = one_by_one(examination.get(Mesh))
    assert list(calls.pairs) == alone
    for pair, other in zip(calls.pairs, alone, strict=True):
        assert [each.outcome for each in pair.followed] == [each.outcome for each in other.walks]
        assert [each.hops for each in pair.walks] == [each.hops for each in other.walks]
    every = {(pair.callee, pair.port) for pair in alone}
    judged, others = calls.judged(), calls.judged(own=False)
    assert judged.keys() == every
    for destination in every:
        there = [pair for pair in alone if (pair.callee, pair.port) == destination]
        assert list(calls.to(destination)) == there
        for verdict in Verdict:
            said = [pair for pair in there if pair.verdict is verdict]
            assert list(calls.to(destination, partial(is_judged, verdict))) == said
            counted = (judged[destination], others[destination])
            assert [
                sum(number for each, number in counts.items() if each.verdict is verdict)
                for counts in counted
            ] == [len(said), sum(not pair.is_own for pair in said)]
    return calls


@pytest.mark.parametrize("name", RECORDINGS, ids=str)
def test_recorded_callers(name: Path) -> None:
    """In every recorded mesh whose calls can be followed."""
    examination = Examination(open_snapshot(MESHES / name))
    if not isinstance(examination.look(Calls), EvidenceError):
        hold(examination)


@pytest.mark.parametrize("name", WHOLE)
def test_many_recorded_callers(name: str) -> None:
    """Copies know their own services alone: most calls from one to another lead nowhere."""
    hold(Examination(multiplied(open_snapshot(MESHES / f"{name}.tgz"), 3)))


# ---------------------------------------------------------------- sidecars that differ

APPS: Final = [
    App(f"svc{number % 7}", f"10.0.0.{number + 1}", 9080 if number % 7 < 5 else 9090)
    for number in range(12)
]
"""Twelve callers of seven services on two ports, five of which have two instances."""

FIRST, SOME, LAST = APPS[0], APPS[4], APPS[-1]
Difference = Callable[[Documents, App], None]


def section(documents: Documents, app: App, name: str) -> dict[str, Any]:
    """One section of an app's dump, to be changed in place."""
    configs = documents[f"envoy/{app.id}/config_dump.json"]["configs"]
    found: dict[str, Any]
    (found,) = [each for each in configs if each["@type"].endswith(f".{name}ConfigDump")]
    return found


def held(documents: Documents, app: App, cluster: str) -> list[Any]:
    """The endpoints that an app's proxy holds for a cluster, to be changed in place."""
    statuses = documents[f"envoy/{app.id}/clusters.json"]["cluster_statuses"]
    found: list[Any] = next(each["host_statuses"] for each in statuses if each["name"] == cluster)
    return found


def listeners(documents: Documents, app: App) -> list[Any]:
    found: list[Any] = section(documents, app, "Listeners")["dynamic_listeners"]
    return found


def stale_listener(documents: Documents, app: App) -> None:
    """At an address of an instance of svc1, it sends calls to svc2."""
    listeners(documents, app).append(listener("10.0.0.2", 9080, tcp(outbound("svc2", 9080))))


def listener_of_nobody(documents: Documents, app: App) -> None:
    """At an address that nobody calls: it makes no difference."""
    listeners(documents, app).append(listener("10.9.9.9", 9080, tcp(outbound("svc2", 9080))))


def port_for_one(documents: Documents, app: App) -> None:
    """The listener of port 9080 is TCP: svc3 gets all calls."""
    found = listeners(documents, app)
    found[:] = [each for each in found if each["name"] != "0.0.0.0_9080"]
    found.append(listener("0.0.0.0", 9080, tcp(outbound("svc3", 9080))))  # noqa: S104


def no_port(documents: Documents, app: App) -> None:
    """Without a listener calls pass through."""
    found = listeners(documents, app)
    found[:] = [each for each in found if each["name"] != "0.0.0.0_9090"]


def other_routes(documents: Documents, app: App) -> None:
    """The listener of port 9090 asks for routes that never came."""
    no_port(documents, app)
    listeners(documents, app).append(listener("0.0.0.0", 9090, http("other")))  # noqa: S104


def another_route(documents: Documents, app: App) -> None:
    """A virtual host leads to another service."""
    for config in section(documents, app, "Routes")["dynamic_route_configs"]:
        for host in config["route_config"]["virtual_hosts"]:
            if host["name"].startswith("svc4."):
                host["routes"][0]["route"]["cluster"] = outbound("svc0", 9080)


def no_routes(documents: Documents, app: App) -> None:
    section(documents, app, "Routes")["dynamic_route_configs"].pop(0)


def missing_cluster(documents: Documents, app: App) -> None:
    found = section(documents, app, "Clusters")["dynamic_active_clusters"]
    found[:] = [each for each in found if each["cluster"]["name"] != outbound("svc1", 9080)]


def other_endpoints_name(documents: Documents, app: App) -> None:
    """The endpoints are held by a name that the cluster gives, and are another's."""
    for each in section(documents, app, "Clusters")["dynamic_active_clusters"]:
        if each["cluster"]["name"] == outbound("svc2", 9080):
            each["cluster"]["eds_cluster_config"] = {"service_name": "elsewhere"}
    for each in documents[f"envoy/{app.id}/clusters.json"]["cluster_statuses"]:
        if each["name"] == outbound("svc2", 9080):
            each["name"] = "elsewhere"
            each["host_statuses"][0]["address"]["socket_address"]["address"] = SOME.address


def moved_endpoint(documents: Documents, app: App) -> None:
    host = held(documents, app, outbound("svc0", 9080))[0]
    host["address"]["socket_address"]["address"] = "10.0.0.99"


def no_endpoints(documents: Documents, app: App) -> None:
    held(documents, app, outbound("svc3", 9080)).clear()


def endpoints_unknown(documents: Documents, app: App) -> None:
    documents.pop(f"envoy/{app.id}/clusters.json", None)


def damaged_listeners(documents: Documents, app: App) -> None:
    """What the list lacks is not known."""
    no_port(documents, app)
    listeners(documents, app).append({"active_state": 7})


def no_sidecar(documents: Documents, app: App) -> None:
    endpoints_unknown(documents, app)
    documents.pop(f"envoy/{app.id}/config_dump.json", None)


def redirect(documents: Documents, app: App, rule: str) -> None:
    """Give it nat rules: this one, then that all calls are redirected."""
    policies = (":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]")
    rules = (f"-A OUTPUT {rule}", "-A OUTPUT -p tcp -j REDIRECT --to-ports 15001")
    documents[f"netfilter/{app.id}.nat.txt"] = "\n".join(("*nat", *policies, *rules, "COMMIT", ""))


def not_redirected(documents: Documents, app: App) -> None:
    """Its nat rules let port 9090 be."""
    redirect(documents, app, "-p tcp --dport 9090 -j RETURN")


def inspects_source(documents: Documents, app: App) -> None:
    """A filter chain asks for the caller's own address, which is asked for caller by caller."""
    for each in listeners(documents, app):
        if each["name"] == "0.0.0.0_9090":
            written = each["active_state"]["listener"]
            source = {"address_prefix": app.address, "prefix_len": 32}
            match = {"source_prefix_ranges": [source]}
            chain = {"filters": [tcp(outbound("svc5", 9090))], "filter_chain_match": match}
            written["filter_chains"].append(chain)


def another_version(documents: Documents, app: App) -> None:
    version = "0a1b2c/1.36.2/Clean/RELEASE/BoringSSL"
    documents[f"envoy/{app.id}/server_info.json"] = {"version": version}


def certificates(documents: Documents, app: App) -> None:
    """Of an authority that nobody else has."""
    believe(documents, app, app.id)


def believe(documents: Documents, app: App, authority: str) -> None:
    """Give it a certificate, and the authority that it believes."""
    there = {"serial_number": authority, "expiration_time": "2031-01-01T00:00:00Z"}
    shown = {"serial_number": f"{app.id} by {authority}"}
    certs = {"certificates": [{"ca_cert": [there], "cert_chain": [shown]}]}
    documents[f"envoy/{app.id}/certs.json"] = certs


def another_address_of_svc1(documents: Documents, app: App) -> None:
    """The caller is registered as an instance of a second service: two have its address."""
    instance = documents[f"consul/catalog/service/{app.service}.json"][0]
    said = {"ServiceName": "svc1", "ServiceID": f"{app.id}-again", "ServicePort": 9080}
    documents["consul/catalog/service/svc1.json"].append(
        instance | said | {"ServiceAddress": app.address}
    )


UNSEEN: Final = (listener_of_nobody, another_version, certificates)
"""Differences that change no verdict."""

SEEN: Final = (
    stale_listener,
    port_for_one,
    no_port,
    other_routes,
    another_route,
    no_routes,
    missing_cluster,
    other_endpoints_name,
    moved_endpoint,
    no_endpoints,
    damaged_listeners,
    not_redirected,
    inspects_source,
    another_address_of_svc1,
    endpoints_unknown,
    no_sidecar,
)
DIFFERENCES: Final = (*UNSEEN, *SEEN)

every_difference = pytest.mark.parametrize(
    "difference", DIFFERENCES, ids=lambda each: each.__name__
)


def mesh(*differences: tuple[Difference, App]) -> Examination:
    documents = istio(APPS)
    for difference, app in differences:
        difference(documents, app)
    return given(documents)


def given(documents: Documents) -> Examination:
    """As `examine` takes them, and texts as they are."""
    return Examination(
        Snapshot(
            {
                name: each.encode() if isinstance(each, str) else msgspec.json.encode(each)
                for name, each in documents.items()
            }
        )
    )


@pytest.mark.parametrize("app", [FIRST, SOME, LAST], ids=["first", "some", "last"])
@every_difference
def test_one_sidecar_differs(difference: Difference, app: App) -> None:
    """Whether others are held against it, or it against others."""
    hold(mesh((difference, app)))


@every_difference
def test_half_of_the_sidecars_differ(difference: Difference) -> None:
    """Of two kinds of sidecars, each has its own to be compared with."""
    hold(mesh(*((difference, app) for app in APPS[::2])))


@pytest.mark.parametrize("seed", range(40))
def test_sidecars_differ_in_several_ways(seed: int) -> None:
    """Up to nine differences, of any sidecars; the same one may have several."""
    rng = random.Random(seed)  # noqa: S311 # nothing secret
    chosen = [(rng.choice(SEEN), app) for app in rng.sample(APPS, rng.randint(2, 9))]
    chosen += [(rng.choice(UNSEEN), app) for app in rng.sample(APPS, 3)]
    # What takes documents away comes last.
    hold(mesh(*sorted(chosen, key=lambda each: DIFFERENCES.index(each[0]))))


@pytest.mark.parametrize("difference", SEEN, ids=lambda each: each.__name__)
def test_a_difference_is_told(difference: Difference) -> None:
    """Else these tests would hold the same against the same."""
    fates = [
        [
            (pair.verdict, pair.reason, [hop.name for walk in pair.walks for hop in walk.hops])
            for pair in found.get(Calls).pairs
        ]
        for found in (mesh(), mesh((difference, LAST)))
    ]
    assert fates[0] != fates[1]


def test_a_caller_on_another_network() -> None:
    """Where an address leads is told by the networks of who calls it."""
    snapshot = multiplied(open_snapshot(MESHES / "fixed.tgz"), 2)
    moved = "consul_productpage-1-v1_1"
    containers = msgspec.json.decode(snapshot.read("docker/containers.json"))
    (there,) = [each for each in containers if each["Name"] == f"/{moved}"]
    networks = there["NetworkSettings"]["Networks"]
    networks["other"] = networks.pop(next(iter(networks)))
    documents = dict(snapshot.documents)
    documents["docker/containers.json"] = msgspec.json.encode(containers)
    calls = hold(Examination(Snapshot(documents)))
    fates = {pair.reason for pair in calls.pairs if pair.caller == moved}
    assert any("which is not the caller's" in each for each in fates)


def test_a_listener_that_a_redirect_leads_to() -> None:
    """One sidecar lacks it: it is at no address that a call names."""
    documents = istio(APPS)
    for app in APPS:
        redirect(documents, app, "-p tcp --dport 9090 -j REDIRECT --to-ports 16000")
        if app is not SOME:
            taking = listener("127.0.0.1", 16000, tcp(outbound("svc5", 9090)))
            taking["active_state"]["listener"]["bind_to_port"] = True
            listeners(documents, app).append(taking)
    fates = {pair.caller: pair.verdict for pair in hold(given(documents)).to(("svc5", 9090))}
    assert [name for name, each in fates.items() if each is not Verdict.RIGHT] == [SOME.id]


def test_endpoints_by_another_name() -> None:
    """One sidecar holds others for the name that a cluster of all sidecars gives."""
    documents = istio(APPS)
    for app in APPS:
        other_endpoints_name(documents, app)
    held(documents, SOME, "elsewhere").clear()
    fates = {pair.caller: pair.status for pair in hold(given(documents)).to(("svc2", 9080))}
    assert [name for name, status in fates.items() if status is not None] == [SOME.id]


def test_an_endpoint_at_loopback() -> None:
    """It is each caller's own: an instance of whatever service the caller is."""
    documents = istio(APPS)
    for app in APPS:
        for host in held(documents, app, outbound("svc2", 9080)):
            host["address"]["socket_address"]["address"] = "127.0.0.1"
    fates = {pair.caller: pair.reached for pair in hold(given(documents)).to(("svc2", 9080))}
    assert {fates[app.id] for app in APPS if app.port != 9090} >= {"svc0", "svc1", "svc2"}


def test_a_certificate_of_a_stranger() -> None:
    """All sidecars have the same clusters, in TLS, and one believes another authority."""
    documents = istio(APPS)
    for app in APPS:
        for each in section(documents, app, "Clusters")["dynamic_active_clusters"]:
            if each["cluster"]["name"] == outbound("svc2", 9080):
                each["cluster"]["transport_socket"] = {"name": "envoy.transport_sockets.tls"}
        believe(documents, app, "ours")
    believe(documents, SOME, "theirs")
    calls = hold(given(documents)).to(("svc2", 9080))
    fates = {pair.caller: pair.reason for pair in calls if not pair.is_own}
    strangers = [name for name, why in fates.items() if "different authorities" in why]
    assert strangers == [SOME.id]


# ---------------------------------------------------------------- what it is for


def test_callers_of_equal_configuration_have_a_row_in_common() -> None:
    """But for calls to their own addresses, whose listeners no other sidecar has.

    Certificates are no matter where calls go in plain text.
    """
    apps = [App(f"svc{number:02}", f"10.0.0.{number + 1}") for number in range(40)]
    documents = istio(apps)
    for has_certificates in (False, True):
        for app in apps if has_certificates else ():
            certificates(documents, app)
        rows = examine(documents).get(Calls).rows
        assert len({id(row.common) for row in rows}) == 1
        assert all(len(row.but) <= 2 for row in rows)  # its own and the first's


def test_callers_without_a_sidecar_have_a_row_in_common() -> None:
    """Each for a reason of its own."""
    documents = istio(APPS)
    for app in APPS[1:]:
        no_sidecar(documents, app)
    rows = examine(documents).get(Calls).rows
    assert len({id(row.common) for row in rows}) == 2  # and the first's
    assert len({row.unexamined for row in rows}) == len(APPS)
