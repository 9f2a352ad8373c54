"""What Consul was told of its mesh, and what of it survives damage."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdoctor.evidence.connect import INTENTIONS, ROOTS, ConsulConnect
from meshdoctor.evidence.consul import SELF
from meshdoctor.evidence.envoy import EnvoyProxies
from meshdoctor.evidence.interface import EvidenceError, MissingEvidenceError
from tests.evidence.damage import damaged, few, mangled, recording, snapshot

CERTS = "envoy/web-sidecar-proxy/certs.json"
ENTRIES = {
    "consul/config/service-router.json": [
        {"Kind": "service-router", "Name": "api", "Routes": [{"Destination": {"Service": "pay"}}]}
    ],
    "consul/config/service-splitter.json": [
        {"Name": "pay", "Splits": [{"Weight": 90}, {"Weight": 10, "Service": "db"}]}
    ],
    "consul/config/service-resolver.json": [
        {
            "Name": "db",
            "DefaultSubset": "v2",
            "Subsets": {"v1": {}, "v2": {}},
            "Failover": {"*": {"Targets": [{"Service": "old", "ServiceSubset": "v1"}]}},
        }
    ],
    "consul/config/proxy-defaults.json": [{"Name": "global", "Config": {"protocol": "HTTP"}}],
    "consul/config/service-defaults.json": [
        {"Name": "db", "Protocol": "tcp"},
        {"Name": "odd", "Namespace": "team", "Protocol": "grpc"},
    ],
}


def load(documents: dict[str, Any]) -> ConsulConnect:
    return ConsulConnect.load(snapshot(documents))


@pytest.mark.parametrize(("ports", "port"), [({"Plaintext": 8502}, 8502), ({"Plaintext": -1}, 0)])
def test_where_an_agent_serves_envoys_without_tls(ports: dict[str, int], port: int) -> None:
    """-1 is none; an agent before Consul 1.14 has but one port, and its TLS is not told."""
    told = {"Config": {"NodeName": "vm"}, "xDS": {"Port": 8502, "Ports": ports}}
    found = load({"consul/agent/self.json": told})
    assert (found.agent, found.plain_port) == ("vm", port)
    older = load({"consul/agent/self.json": {"xDS": {"Port": 8502}}})
    assert (older.agent, older.plain_port) == ("", 0)


def test_config_entries_tell_protocols_and_where_calls_are_sent_on() -> None:
    """Those of other namespaces are about services that this catalogue does not name."""
    found = load(ENTRIES)
    defaults = found.entry("proxy-defaults", "global")
    assert defaults is not None
    assert defaults.protocol == "http"
    assert found.entry("service-defaults", "odd") is None
    router = found.entry("service-router", "api")
    splitter = found.entry("service-splitter", "pay")
    resolver = found.entry("service-resolver", "db")
    assert router is not None
    assert router.leads_to == ("pay",)
    assert router.rule == "service-router/api"
    assert splitter is not None
    assert splitter.leads_to == ("db",)
    assert resolver is not None
    assert resolver.leads_to == ("old",)
    assert resolver.subsets == ("v1", "v2")
    assert resolver.wanted == (("old", "v1"), ("db", "v2"))


def test_intentions_come_in_the_order_of_precedence() -> None:
    """From the list, or where that is missing from the config entries."""
    listed = [
        {"SourceName": "*", "DestinationName": "*", "Action": "deny", "Precedence": 5},
        {"SourceName": "web", "DestinationName": "api", "Action": "allow", "Precedence": 9},
        {"SourceName": "far", "SourcePeer": "west", "DestinationName": "api", "Precedence": 9},
        {"SourceName": "x", "SourceNS": "team", "DestinationName": "api", "Precedence": 9},
    ]
    entries = [
        {"Name": "api", "Sources": [{"Name": "web", "Action": "allow", "Precedence": 9}]},
        {"Name": "*", "Sources": [{"Name": "*", "Action": "deny", "Precedence": 5}]},
    ]
    for documents in (
        {INTENTIONS: listed},
        {"consul/config/service-intentions.json": entries},
    ):
        found = load(documents).intentions
        assert found is not None
        assert [each.name for each in found] == ["web => api", "* => *"]
        assert [each.action for each in found] == ["allow", "deny"]


@pytest.mark.parametrize(
    ("debug", "expected"),
    [
        ({}, True),
        ({"ACLResolverSettings": {"ACLsEnabled": False, "ACLDefaultPolicy": "deny"}}, True),
        ({"ACLResolverSettings": {"ACLsEnabled": True, "ACLDefaultPolicy": "deny"}}, False),
        ({"ACLsEnabled": True, "ACLDefaultPolicy": "allow"}, True),
        ({"ACLsEnabled": True}, None),
        ({"DefaultIntentionPolicy": "deny"}, False),
    ],
)
def test_the_default_for_calls_follows_the_acls(
    debug: dict[str, Any],
    expected: bool | None,  # noqa: FBT001 # a case
) -> None:
    """Unless Consul was told otherwise, which it can be since 1.17."""
    assert load({SELF: {"DebugConfig": debug}}).allows_by_default is expected


def test_an_agent_that_tells_nothing_of_itself_tells_no_default() -> None:
    """A token that may not read the agent leaves it out."""
    assert load({INTENTIONS: []}).allows_by_default is None


def test_a_recording_tells_whom_consul_supports_and_what_it_trusts() -> None:
    """As the agent says it of itself."""
    found = ConsulConnect.load(recording("connect-healthy"))
    assert found.supported_envoys == ("1.20.2", "1.18.6", "1.17.4", "1.16.5", "1.15.5")
    assert found.trust_domain.endswith(".consul")
    assert [root.active for root in found.roots] == [True]
    assert found.allows_by_default is True
    assert found.intentions == ()
    assert found.problems == ()


def test_without_any_of_it_there_is_no_evidence() -> None:
    """A catalogue alone does not tell how the mesh is configured."""
    with pytest.raises(MissingEvidenceError):
        load({"consul/catalog/services.json": {}})


def test_a_proxy_shows_its_certificate_once() -> None:
    """However many TLS contexts use it."""
    proxy = EnvoyProxies.load(recording("connect-healthy")).proxies["web-sidecar-proxy"]
    assert proxy.certificates is not None
    assert [each.pointer for each in proxy.certificates.authorities] == [
        "/certificates/0/ca_cert/0"
    ]
    ((leaf,),) = proxy.certificates.chains
    assert leaf.pointer == "/certificates/0/cert_chain/0"
    assert leaf.expires == "2026-11-25T20:29:26Z"
    (name,) = proxy.certificates.names
    assert name.endswith("/ns/default/dc/dc1/svc/web")


PAGES = {
    **ENTRIES,
    INTENTIONS: [
        {"SourceName": "web", "DestinationName": "api", "Permissions": [{"Action": "deny"}]}
    ],
    ROOTS: {"TrustDomain": "x.consul", "Roots": [{"Name": "root", "SerialNumber": 7}]},
    SELF: {
        "DebugConfig": {"ACLsEnabled": True},
        "xDS": {"SupportedProxies": {"envoy": ["1.2.3"]}},
    },
}


@few
@given(st.sampled_from(sorted(PAGES)), st.data())
def test_changed_answers(page: str, data: st.DataObject) -> None:
    """Whatever one answer looks like, the others stand."""
    text = snapshot(PAGES).read(page).decode()
    found = load(PAGES | {page: data.draw(damaged(text) | mangled(text), label=page)})
    repr(found)
    if page != INTENTIONS:
        assert found.intentions is not None
        assert [each.name for each in found.intentions] == ["web => api"]
    for entries in found.entries.values():
        for entry in entries:
            hash(entry)


@few
@given(st.data())
def test_changed_certificates(data: st.DataObject) -> None:
    """A damaged page costs the certificates alone."""
    text = recording("connect-healthy").read(CERTS).decode()
    body = data.draw(damaged(text) | mangled(text))
    documents = {"envoy/web/config_dump.json": {"configs": []}, "envoy/web/certs.json": body}
    try:
        found = EnvoyProxies.load(snapshot(documents))
    except EvidenceError:
        return
    hash(found.proxies["web"].certificates)


def test_intentions_of_peers_and_of_other_namespaces_are_not_this_meshs() -> None:
    """Whether they are read from the list or from the config entries."""
    sources = [
        {"Name": "web", "Action": "allow", "Precedence": 9},
        {"Name": "far", "Action": "allow", "Peer": "cluster-2"},
        {"Name": "odd", "Action": "deny", "Namespace": "team"},
    ]
    entry = {"Kind": "service-intentions", "Name": "api", "Sources": sources}
    found = load({"consul/config/service-intentions.json": [entry], ROOTS: {"Roots": []}})
    assert found.intentions is not None
    assert [(each.source, each.destination) for each in found.intentions] == [("web", "api")]
    assert found.intentions[0].pointer == "/0/Sources/0"
    listed = [
        {"SourceName": "web", "DestinationName": "api", "Action": "allow"},
        {"SourceName": "far", "DestinationName": "api", "SourcePeer": "cluster-2"},
        {"SourceName": "odd", "DestinationName": "api", "SourceNS": "team"},
    ]
    found = load({INTENTIONS: listed, ROOTS: {"Roots": []}})
    assert found.intentions is not None
    assert [each.source for each in found.intentions] == ["web"]
