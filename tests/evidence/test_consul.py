"""What Consul's HTTP API tells, and what of it survives damage."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from meshdoctor.evidence.access import LEFT_OUT
from meshdoctor.evidence.consul import (
    AGENT_SERVICES,
    DATACENTERS,
    LEADER,
    NAMESPACES,
    PARTITIONS,
    PEERINGS,
    SELF,
    SERVICES,
    ConsulCatalog,
    ConsulStatus,
    HealthCheck,
    Upstream,
)
from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.snapshot import Snapshot
from tests.evidence.damage import (
    CONNECT,
    ISTIO,
    damaged,
    few,
    mangled,
    recorded,
    recording,
    snapshot,
)

REVIEWS = "consul/catalog/service/reviews.json"
SIDECAR = "consul/catalog/service/web-sidecar-proxy.json"
HEALTH = "consul/health/service/reviews.json"
PAGES = {
    name: json.dumps(recorded("fixed", name)) for name in (SERVICES, LEADER, SELF, REVIEWS, HEALTH)
}
PAGES |= {
    name: json.dumps(recorded("connect-healthy", name)) for name in (SIDECAR, AGENT_SERVICES)
}


def load(**documents: Any) -> ConsulCatalog:
    return ConsulCatalog.load(snapshot(documents))


@pytest.mark.parametrize("mesh", ISTIO + CONNECT)
def test_a_recording_is_decoded_whole(mesh: str) -> None:
    """Every service has its instances, and nothing is said to be damaged."""
    catalog = ConsulCatalog.load(recording(mesh))
    assert catalog.problems == ()
    assert catalog.unread == {}
    assert list(catalog.services) == sorted(recorded(mesh, SERVICES))
    assert {instance.service for instance in catalog.instances} == set(catalog.services)
    assert catalog.leader
    assert catalog.datacenter == "dc1"
    assert catalog.version
    assert {instance.id for instance in catalog.instances} == set(catalog.checks)


OTHERS: dict[str, Any] = {
    DATACENTERS: ["dc3", "dc1", "dc2"],
    PEERINGS: [{"Name": "cluster-02", "State": "ACTIVE"}],
    PARTITIONS: [{"Name": "default"}, {"Name": "team"}],
    NAMESPACES: [{"Name": "default"}, {"Name": "shop"}],
}


def elsewhere(**changed: Any) -> list[str]:
    catalog = load(**PAGES | OTHERS | changed)
    assert catalog.problems == ()
    return [f"{each.kind} {each.name}" for each in catalog.elsewhere]


def test_what_consul_knows_besides_this_catalogue() -> None:
    """As the pages of Community and Enterprise list it; hand-made, as Consul documents them."""
    others = ["datacenter dc2", "datacenter dc3", "peer cluster-02"]
    assert elsewhere() == [*others, "partition team", "namespace shop"]
    assert elsewhere(**{PARTITIONS: None, NAMESPACES: None}) == others


def test_what_the_instances_belong_to_is_not_elsewhere() -> None:
    """Another datacenter, partition and namespace were asked for."""
    (first, *_) = recorded("fixed", REVIEWS)
    there = {"Datacenter": "dc2", "Partition": "team", "Namespace": "shop"}
    sidecars = {SIDECAR: [], SERVICES: {"reviews": []}}
    assert elsewhere(**{REVIEWS: [first | there]} | sidecars) == [
        "datacenter dc1",
        "datacenter dc3",
        "peer cluster-02",
        "partition default",
        "namespace default",
    ]


def test_a_recording_names_nothing_elsewhere() -> None:
    """One datacenter, and no peer."""
    for mesh in ISTIO + CONNECT:
        assert ConsulCatalog.load(recording(mesh)).elsewhere == ()


def test_an_instance_in_every_field_that_checks_read() -> None:
    """The facts are those of the catalogue, and the pointer leads back to them."""
    catalog = ConsulCatalog.load(recording("fixed"))
    for instance in catalog.instances:
        answer = recorded("fixed", instance.document)[int(instance.pointer[1:])]
        assert instance.id == answer["ServiceID"]
        assert instance.address == (answer["ServiceAddress"] or answer["Address"])
        assert instance.port == answer["ServicePort"]
        assert instance.meta == answer["ServiceMeta"]
    reviews = [each for each in catalog.instances if each.service == "reviews"]
    assert [each.protocol for each in reviews] == ["http"] * 3
    assert {tag for each in reviews for tag in each.tags} == {
        "version|v1",
        "version|v2",
        "version|v3",
    }


def test_metadata_that_registrator_dropped_is_no_protocol() -> None:
    """Consul answers null or an empty object where a service has no metadata."""
    catalog = ConsulCatalog.load(recording("broken"))
    assert {instance.protocol for instance in catalog.instances} == {None}
    assert all(instance.meta == {} for instance in catalog.instances)


def test_the_proxy_of_a_connect_sidecar() -> None:
    """Whose sidecar it is, and where it listens for each upstream."""
    catalog = ConsulCatalog.load(recording("connect-healthy"))
    proxies = {each.id: each.proxy for each in catalog.instances}
    web = proxies["web-sidecar-proxy"]
    assert web is not None
    assert (web.destination, web.destination_id) == ("web", "web")
    assert [(each.destination, each.local_address, each.local_port) for each in web.upstreams] == [
        ("api", "127.0.0.1", 9191),
        ("pay", "127.0.0.1", 9192),
    ]
    assert proxies["web"] is None


def test_what_only_the_agent_knows_of() -> None:
    """A proxy registered a moment ago stands in the agent before it stands in the catalogue."""
    catalog = ConsulCatalog.load(recording("connect-collision"))
    (web,) = catalog.agent
    assert (web.id, web.kind) == ("web-sidecar-proxy", "connect-proxy")
    assert (web.document, web.pointer) == (AGENT_SERVICES, "/web-sidecar-proxy")
    assert web.proxy is not None
    assert [each.local_port for each in web.proxy.upstreams] == [9191, 9191]
    assert ConsulCatalog.load(recording("connect-healthy")).agent == ()


def test_a_damaged_service_of_the_agent_costs_only_itself() -> None:
    """Its place is named, and the others are there."""
    answer = recorded("connect-collision", AGENT_SERVICES)
    answer["a~b/c"] = {"Kind": "connect-proxy", "Port": "many"}
    catalog = load(**{REVIEWS: "[]", AGENT_SERVICES: answer})
    assert [each.id for each in catalog.agent if each.kind] == [
        f"{name}-sidecar-proxy" for name in ("api", "db", "pay", "web")
    ]
    assert [problem.document for problem in catalog.problems] == [f"{AGENT_SERVICES}#/a~0b~1c"]


def test_defaults_that_consul_does_not_write() -> None:
    """An upstream listens on 127.0.0.1 and names a service, where nothing else is said."""
    (instance,) = load(
        **{
            SIDECAR: [
                {
                    "ServiceName": "web-sidecar-proxy",
                    "ServiceKind": "connect-proxy",
                    "ServiceProxy": {"Upstreams": [{"DestinationName": "api"}]},
                    "Address": "10.0.0.1",
                }
            ]
        }
    ).instances
    assert instance.proxy is not None
    assert instance.proxy.upstreams == (Upstream("api", "127.0.0.1", 0, "", "", "service"),)
    assert (instance.registered, instance.address) == ("", "10.0.0.1")


def test_a_damaged_instance_costs_only_itself() -> None:
    """Its place is named, and the others of its service are there."""
    answer = recorded("fixed", REVIEWS)
    answer[1] = {"ServiceName": None}
    catalog = load(**{REVIEWS: answer})
    assert len(catalog.instances) == len(answer) - 1
    assert [problem.document for problem in catalog.problems] == [f"{REVIEWS}#/1"]
    assert catalog.unread == {}


def test_a_damaged_answer_costs_only_its_service() -> None:
    """The service is listed, as one whose instances could not be read, with the reason."""
    catalog = load(**{REVIEWS: "<html>", SIDECAR: PAGES[SIDECAR]})
    assert catalog.services == ("reviews", "web-sidecar-proxy")
    assert [instance.service for instance in catalog.instances] == ["web-sidecar-proxy"]
    assert list(catalog.unread) == ["reviews"]
    assert "not JSON" in catalog.unread["reviews"]


def test_a_service_without_its_instances_is_unread_not_empty() -> None:
    """That nobody recorded the instances does not mean that there are none."""
    documents = {name: recording("fixed").read(name) for name in (SERVICES, REVIEWS)}
    absent = Problem("consul/catalog/service/details.json", "403 Permission denied")
    catalog = ConsulCatalog.load(Snapshot(documents, absent=(absent,)))
    assert "details" in catalog.services
    assert "403 Permission denied" in catalog.unread["details"]
    assert "reviews" not in catalog.unread


def test_a_service_without_instances_is_not_known() -> None:
    """[] and null are both no instances, and Consul lists no service that has none."""
    for answer in ("[]", "null", " null\n"):
        catalog = load(**{REVIEWS: answer})
        assert (catalog.services, catalog.instances) == (("reviews",), ())
        assert "shows no instance" in catalog.unread["reviews"]
        assert catalog.problems == ()


def test_a_catalogue_without_consul_itself_is_not_whole() -> None:
    """Its servers register themselves, in the default namespace; older ones tell no ACLs."""
    whole = load(**{SERVICES: '{"consul": [], "reviews": []}', REVIEWS: PAGES[REVIEWS]})
    assert (whole.hidden, whole.filtered, whole.may_have("ratings")) == ("", False, False)
    short = load(**{SERVICES: '{"reviews": []}', REVIEWS: PAGES[REVIEWS]})
    assert "ACLs hide services" in short.hidden
    assert short.filtered
    assert short.may_have("ratings")
    assert not short.may_have("reviews")
    elsewhere = [{**each, "Namespace": "team"} for each in recorded("fixed", REVIEWS)]
    assert load(**{SERVICES: '{"reviews": []}', REVIEWS: json.dumps(elsewhere)}).hidden == ""


def test_what_collectors_say_of_acls_is_known() -> None:
    """Without a token a newer Consul tells only that it may leave something out."""
    for said, sure in ((LEFT_OUT, True), ("it may hide some", False)):
        absent = (Problem("consul/catalog/", f"{said}: give a token"),)
        catalog = ConsulCatalog.load(replace(recording("fixed"), absent=absent))
        assert catalog.hidden == f"{said}: give a token"
        assert catalog.filtered is sure


def test_a_catalogue_that_shows_nothing_is_none() -> None:
    """Not even itself: then nothing follows from what is not there."""
    with pytest.raises(MissingEvidenceError, match="not even itself"):
        load(**{SERVICES: "{}"})


def test_a_damaged_health_entry_costs_only_itself() -> None:
    """The checks of the other instances are there."""
    answer = recorded("fixed", HEALTH)
    answer[0]["Checks"] = "passing"
    catalog = load(**{REVIEWS: PAGES[REVIEWS], HEALTH: answer})
    assert len(catalog.checks) == len(answer) - 1
    assert [problem.document for problem in catalog.problems] == [f"{HEALTH}#/0"]


def test_instances_that_share_an_id_have_their_checks_together() -> None:
    """An id is unique on one agent only: no critical check is lost to another node's."""
    answer = [
        {"Service": {"ID": "web"}, "Checks": [{"Status": "critical"}]},
        {"Service": {"ID": "web"}, "Checks": [{"Status": "passing"}]},
        {"Service": {"ID": "web"}, "Checks": None},
    ]
    catalog = load(**{REVIEWS: "[]", HEALTH: answer})
    assert catalog.checks == {
        "web": (HealthCheck("", "", "critical", "", ""), HealthCheck("", "", "passing", "", ""))
    }


def test_no_leader_differs_from_not_asked() -> None:
    """Consul answers "" where it has none."""
    assert load(**{REVIEWS: "[]", LEADER: '""'}).leader == ""
    assert load(**{REVIEWS: "[]"}).leader is None


def test_the_status_is_known_where_the_catalogue_is_not() -> None:
    """A Consul without a leader gives no catalogue: that is when its status matters."""
    assert ConsulStatus.load(recording("fixed")).leader == "127.0.0.1:8300"
    assert ConsulStatus.load(snapshot({LEADER: '""'})).leader == ""
    refused = Problem("consul/catalog/services.json", "it answers 500 (No cluster leader)")
    status = ConsulStatus.load(Snapshot({}, absent=(refused,)))
    assert (status.leader, status.unanswered) == (None, (refused,))
    with pytest.raises(MissingEvidenceError):
        ConsulStatus.load(Snapshot({}))


def test_without_a_catalogue_consul_is_missing_with_the_reason() -> None:
    """What the collector said of Consul is what the user reads, with what to do."""
    told = Snapshot({LEADER: b'""'}, absent=(Problem("consul/", "connection refused"),))
    with pytest.raises(MissingEvidenceError, match="connection refused") as caught:
        ConsulCatalog.load(told)
    assert "CONSUL_HTTP_ADDR" in caught.value.hint


def test_names_that_no_file_system_holds() -> None:
    """A service's name comes back as Consul has it."""
    catalog = load(**{"consul/catalog/service/a%2Fb.json": '[{"ServiceName": "a/b"}]'})
    assert catalog.services == ("a/b",)


def walk(catalog: ConsulCatalog) -> None:
    """What is decoded can be read and printed."""
    repr(catalog)
    assert set(catalog.unread) <= set(catalog.services)
    for instance in catalog.instances:
        repr((instance.address, instance.protocol))


@few
@given(st.sampled_from(sorted(PAGES)), st.data())
def test_changed_answers(page: str, data: st.DataObject) -> None:
    """Whatever one answer looks like, the others stand."""
    body = data.draw(damaged(PAGES[page]) | mangled(PAGES[page]), label=page)
    catalog = load(
        **(PAGES | {"consul/catalog/service/other.json": [{"ServiceName": "other"}], page: body})
    )
    walk(catalog)
    assert "other" in {instance.service for instance in catalog.instances}
