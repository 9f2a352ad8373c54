"""Cases with one thing changed by hand in memory, and what the check then says of them.

Each row stands for one sentence of a check's page, or one thing that it must not say. Where a
change is too large for a row, it is a case of its own in fixtures/checks.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from meshdoctor.check import Examination, run
from meshdoctor.evidence.layout import compose_file
from meshdoctor.testing import render, unsound
from meshdoctor_checks import CHECKS
from tests.checks.editing import CONTAINERS, Recording

CASES: Final = Path(__file__).parents[2] / "fixtures" / "checks"
BY_NAME: Final = {check.name: check for check in CHECKS}

Change = Callable[[Recording], None]


def at(document: str, **places: object) -> Change:
    """Other values at places, as `items__0__spec` for /items/0/spec; None takes one away."""

    def change(recording: Recording) -> None:
        recording.edit(document, lambda content: _set(content, places))

    return change


def docker(name: str, **places: object) -> Change:
    """The same in what `docker inspect` says of one container."""
    return lambda recording: recording.container(name, lambda one: _set(one, places))


def _set(content: Any, places: Mapping[str, object]) -> None:
    for place, value in places.items():
        *path, last = [int(key) if key.isdecimal() else key for key in place.split("__")]
        inner = content
        for key in path:
            inner = inner.setdefault(key, {}) if isinstance(inner, dict) else inner[key]
        if value is None:
            inner.pop(last, None)
        else:
            inner[last] = value


def words(**changed: str) -> Change:
    """Other words everywhere."""
    return lambda recording: recording.replace(changed)


def instead(old: str, new: str, document: str = "") -> Change:
    """Another text in the documents whose names begin so."""

    def change(recording: Recording) -> None:
        names = [name for name in recording.documents if name.startswith(document)]
        assert any(old.encode() in recording.documents[name] for name in names), old
        for name in names:
            body = recording.documents[name]
            recording.documents[name] = body.replace(old.encode(), new.encode())

    return change


def lost(prefix: str) -> Change:
    return lambda recording: recording.remove(prefix)


def text(document: str, content: str) -> Change:
    def change(recording: Recording) -> None:
        recording.documents[document] = content.encode()

    return change


def no_container(name: str) -> Change:
    def change(recording: Recording) -> None:
        recording.edit(CONTAINERS, lambda them: [one for one in them if one["Name"] != f"/{name}"])

    return change


def another(name: str, new: str, **places: object) -> Change:
    """A container like one that is there, put before all others."""

    def change(recording: Recording) -> None:
        def add(containers: list[dict[str, Any]]) -> None:
            (one,) = [each for each in containers if each["Name"] == f"/{name}"]
            twin = json.loads(json.dumps(one))
            twin.update(Id=(new.encode().hex() * 64)[:64], Name=f"/{new}")
            _set(twin, places)
            containers.insert(0, twin)

        recording.edit(CONTAINERS, add)

    return change


def dumps(change_dump: Callable[[Any], None], sidecar: str = "") -> Change:
    """Every configuration dump, or that of one sidecar."""

    def change(recording: Recording) -> None:
        for name in recording.documents:
            if name.startswith(f"envoy/{sidecar}") and name.endswith("/config_dump.json"):
                recording.edit(name, change_dump)

    return change


def _configs(dump: Any, kind: str) -> Any:
    (found,) = [each for each in dump["configs"] if each["@type"].endswith(f"{kind}ConfigDump")]
    return found


def routes(place: str, value: object) -> Change:
    """Another value in the virtual host of reviews."""

    def change(dump: Any) -> None:
        for entry in _configs(dump, "Routes")["dynamic_route_configs"]:
            for host in entry["route_config"]["virtual_hosts"]:
                if host["name"].startswith("reviews."):
                    _set(host, {place: value})

    return dumps(change)


def _without_routes(dump: Any) -> None:
    dump["configs"].remove(_configs(dump, "Routes"))


NETWORK: Final = "consul_istiomesh"
CONSUL: Final = "consul_consul_1"
PILOT: Final = "consul_pilot_1"
REGISTRATOR: Final = "consul_registrator_1"
DETAILS: Final = "consul_details-v1_1"
RATINGS: Final = "consul_ratings-v1_1"
REVIEWS: Final = "consul_reviews-v1_1"
APPLICATIONS: Final = (DETAILS, RATINGS, REVIEWS)
STOPPED: Final[dict[str, object]] = {"State__Status": "exited", "State__Pid": 0}


def asking(*servers: str) -> tuple[Change, ...]:
    """The applications' `dns:`."""
    return tuple(docker(each, HostConfig__Dns=list(servers)) for each in APPLICATIONS)


NOT_PUBLISHED: Final = docker(
    CONSUL, HostConfig__PortBindings={}, NetworkSettings__Ports={"8600/udp": None}
)
DNS: Final = "control_plane/consul_dns_unreachable"
COMPOSE: Final = compose_file("/srv/mesh/install/consul/control-plane.yaml")
SERVICES: Final = "services:\n  consul:\n    image: consul:1.3.0\n    ports:\n"
ANSWERED: Final = {"53/udp": [{"HostIp": "172.28.0.1", "HostPort": "53"}]}

DNS_ROWS: Final = {
    "another container publishes port 53 there": (
        f"{DNS}/quiet-on-the-gateway",
        (NOT_PUBLISHED, docker(PILOT, NetworkSettings__Ports=ANSWERED)),
        "clean",
    ),
    "the server is another container": (
        f"{DNS}/quiet-on-the-gateway",
        (
            *asking("172.28.0.9"),
            docker(PILOT, NetworkSettings__Networks__consul_istiomesh__IPAddress="172.28.0.9"),
        ),
        "clean",
    ),
    "Consul itself, on a port that no resolver asks": (
        f"{DNS}/quiet-on-the-gateway",
        asking("172.28.0.4"),
        f"no Consul answers: it is {CONSUL}, whose DNS is on port 8600 there, not on 53.",
    ),
    "Consul itself, on port 53": (
        f"{DNS}/quiet-on-the-gateway",
        (*asking("172.28.0.4"), docker(CONSUL, Args=["agent", "-dev", "-dns-port=53"])),
        "3 applications ask Consul's DNS at 172.28.0.4",
    ),
    "a free address, but of a network that goes beyond this host": (
        f"{DNS}/quiet-on-the-gateway",
        (*asking("172.28.0.99"), at("docker/networks.json", **{"0__Driver": "overlay"})),
        "clean",
    ),
    "Consul does not run": (
        f"{DNS}/quiet-on-the-gateway",
        (docker(CONSUL, **STOPPED),),
        f"reason: {CONSUL} does not run, so nobody answers anywhere",
    ),
    "two Consuls, one could not start": (
        f"{DNS}/fires-gateway-unset",
        (another(CONSUL, "a_consul_1", **STOPPED, State__Error=""),),
        "no Consul answers: a_consul_1 does not run.",
    ),
    "the Compose file takes the address from a variable": (
        f"{DNS}/fires-not-published",
        (text(COMPOSE, f"{SERVICES}      - ${{DOCKER_GATEWAY}}8600:8600/udp\n"),),
        "its Compose file takes the address from DOCKER_GATEWAY",
    ),
    "the Compose file does not publish it": (
        f"{DNS}/fires-not-published",
        (text(COMPOSE, f"{SERVICES}      - 8500:8500\n"),),
        '| +      - "172.28.0.1:53:8600/udp"',
    ),
    "Docker knows the short names": (
        f"{DNS}/fires-all-without-search-domain",
        tuple(
            docker(each, NetworkSettings__Networks__consul_istiomesh__Aliases=[word])
            for each, word in zip(APPLICATIONS, ("details", "ratings", "reviews"), strict=True)
        ),
        "clean\n  fact: 3 applications ask",
    ),
}

RULE: Final = "rules/rule_not_in_effect"
RULES: Final = "istio/virtualservices.json"
HTTP: Final = "items__0__spec__http"


def to(host: str, **more: object) -> dict[str, object]:
    return {"destination": {"host": host, **more}}


RULE_ROWS: Final = {
    "its host is not registered": (
        f"{RULE}/fires-default-route-stands",
        (at(RULES, items__0__spec__hosts=["nobody.service.consul"]),),
        "clean",
    ),
    "its destination is not registered": (
        f"{RULE}/fires-default-route-stands",
        (at(RULES, **{HTTP: [{"route": [to("nobody.service.consul")]}]}),),
        "clean",
    ),
    "a share of nothing needs no route": (
        f"{RULE}/fires-default-route-stands",
        (
            at(
                RULES,
                **{
                    HTTP: [
                        {
                            "route": [
                                {**to("reviews.service.consul"), "weight": 100},
                                {**to("reviews.service.consul", subset="v2"), "weight": 0},
                            ]
                        }
                    ]
                },
            ),
        ),
        "clean\n  fact: the sidecars' routes show 1 VirtualService",
    ),
    "a destination with a port of its own": (
        f"{RULE}/fires-default-route-stands",
        (at(RULES, **{HTTP: [{"route": [to("reviews.service.consul", port={"number": 7})]}]}),),
        "no route leads to outbound|7||reviews.service.consul",
    ),
    "a sidecar that holds no routes at all": (
        f"{RULE}/fires-default-route-stands",
        (dumps(_without_routes, "consul_ratings"),),
        "is not in effect in consul_reviews-v1-sidecar_1: no route",
    ),
    "the route configuration never came": (
        f"{RULE}/fires-default-route-stands",
        (instead('"name": "9080"', '"name": "9081"', "envoy/"),),
        "clean",
    ),
    "no virtual host has its name": (
        f"{RULE}/fires-default-route-stands",
        (routes("domains", ["elsewhere"]),),
        "clean",
    ),
    "a route that leads to where a header says": (
        f"{RULE}/fires-default-route-stands",
        (routes("routes__0__route", {"cluster_header": "x-where"}),),
        "clean",
    ),
    "a route that redirects leads to no cluster": (
        f"{RULE}/fires-default-route-stands",
        (routes("routes__0", {"match": {"prefix": "/"}, "redirect": {"host_redirect": "a"}}),),
        "nor to any other cluster.",
    ),
}

MISSING: Final = "control_plane/control_plane_component_missing"
ALONE: Final[dict[str, object]] = {"Config__Labels": {}}
NO_HOST: Final = "warn dial tcp: lookup consul on 127.0.0.11:53: no such host\n"
APISERVER: Final = "consul_istio-apiserver_1"
KUBECTL: Final = "control_plane/kubectl_context_mismatch"
TRACING: Final = "control_plane/tracing_unreachable"
FOLLOWED: Final = "control_plane/registry_not_followed"
DOWN: Final = "control_plane/control_plane_component_down"
REGISTRY: Final = "pilot/registryz.json"

CONTROL_PLANE_ROWS: Final = {
    "nobody knows which Compose file would start it": (
        f"{MISSING}/fires-consul-never-created",
        (docker(PILOT, **ALONE), docker(REGISTRATOR, **ALONE)),
        "Start Consul as consul on the network consul_istiomesh, or correct the address",
    ),
    "an old Registrator that stopped is a leftover": (
        f"{MISSING}/quiet-as-recorded",
        (another(REGISTRATOR, "consul_old_1", **STOPPED, Args=["consul://nowhere:8500"]),),
        "clean\n  fact: 1 name that parts of the mesh reach others by is a container: consul",
    ),
    "the log says of a name what the command says already": (
        f"{MISSING}/fires-consul-never-created",
        (text("docker/logs/consul_pilot_1.log", f"2026-11-22T20:00:02.1Z {NO_HOST}"),),
        "found 1\n\nerror: consul_pilot_1 and consul_registrator_1 look for Consul at consul",
    ),
    "an API server on another network is somebody else's": (
        f"{MISSING}/quiet-as-recorded",
        (
            another(
                CONSUL,
                "kube_1",
                Path="kube-apiserver",
                Args=["--etcd-servers", "http://etcd:2379"],
                Config__Image="gcr.io/google_containers/kube-apiserver-amd64:v1.7.3",
                NetworkSettings__Networks={"kube": {"IPAddress": "10.0.0.2", "Aliases": []}},
            ),
        ),
        "clean\n  fact: 1 name that parts of the mesh reach others by is a container: consul",
    ),
    "the API server does not run": (
        f"{KUBECTL}/quiet-context-of-the-mesh",
        (docker(APISERVER, **STOPPED),),
        f"reason: the API server ({APISERVER}) does not run",
    ),
    "the API server has no address": (
        f"{KUBECTL}/quiet-context-of-the-mesh",
        (
            docker(
                APISERVER,
                NetworkSettings__Ports={"22/tcp": [{"HostIp": "127.0.0.1", "HostPort": "22"}]},
                NetworkSettings__Networks__consul_istiomesh__IPAddress="",
            ),
        ),
        f"reason: Docker shows no address of the API server ({APISERVER})",
    ),
    "the API server is in the host's network": (
        f"{KUBECTL}/quiet-context-of-the-mesh",
        (docker(APISERVER, NetworkSettings__Ports={}, HostConfig__NetworkMode="host"),),
        "clean\n  fact: kubectl's context \"istio\" points at the mesh's API server",
    ),
    "the context names no host": (
        f"{KUBECTL}/quiet-context-of-the-mesh",
        (at("kube/config.json", clusters__0__cluster__server="http://"),),
        "points at http://, and the mesh's API server",
    ),
    "somebody else's Zipkin on another network": (
        f"{TRACING}/fires-no-zipkin",
        tuple(docker(each, **ALONE) for each in (CONSUL, PILOT, REGISTRATOR)),
        (
            "remedy: Start the tracing server, if anybody wants traces.\n"
            "    $ meshdoctor check --select MD107"
        ),
    ),
    "a tracing server at an address": (
        f"{TRACING}/fires-no-zipkin",
        (instead("zipkin:9411", "10.0.0.9:9411", CONTAINERS),),
        "clean",
    ),
    "Pilot takes its services from Kubernetes": (
        f"{FOLLOWED}/fires-other-protocol",
        (instead('"Consul"', '"Kubernetes"', CONTAINERS),),
        "reason: Pilot takes its services from another registry than Consul",
    ),
    "Pilot has another port": (
        f"{FOLLOWED}/fires-other-protocol",
        (at(REGISTRY, **{"1__ports__0__port": 9090}),),
        "has the ports 9090 of details instead of 9080",
    ),
    "Pilot of before the protocols": (
        f"{FOLLOWED}/fires-other-protocol",
        (docker(PILOT, Config__Image="docker.io/istio/pilot:1.0.5"),),
        "clean\n  fact: Pilot knows all 4 services as Consul has them",
    ),
    "Pilot knows a service of which Consul forgot": (
        f"{FOLLOWED}/fires-for-who-knows-how-long",
        (
            lost("consul/catalog/service/details"),
            at("consul/catalog/services.json", details=None),
        ),
        "consul/catalog/services.json: no details",
    ),
    "Pilot's container is not seen": (
        f"{FOLLOWED}/fires-other-protocol",
        (lost("docker/"),),
        "remedy: See in Pilot's log what Consul answers it for that service, then restart it.",
    ),
    "Consul's container is not seen": (
        "control_plane/consul_without_leader/fires-no-leader",
        (lost("docker/"),),
        "$ consul operator raft list-peers -stale",
    ),
    "no part of a control plane is in Docker": (
        f"{DOWN}/quiet-all-running",
        tuple(map(no_container, (CONSUL, PILOT, REGISTRATOR))),
        "reason: no container of a control plane is seen in Docker",
    ),
    "Pilot gave up because the API server is down": (
        f"{DOWN}/fires-pilot-gave-up-on-the-api-server",
        (
            another(
                CONSUL,
                "consul_apiserver_1",
                Path="kube-apiserver",
                Args=[],
                Config__Image="gcr.io/google_containers/kube-apiserver-amd64:v1.7.3",
                Config__Labels={},
                **STOPPED,
            ),
        ),
        "$ docker start consul_apiserver_1\n    $",
    ),
}

CERTIFICATES: Final = "consul_mesh/certificate_unsound"
CERTS: Final = "envoy/web-sidecar-proxy/certs.json"
DEAD: Final = "consul_mesh/registered_proxy_not_running/fires-dead"
REFUSED: Final = "consul_mesh/proxy_not_supported/fires-refused"
PROXY: Final = "consul/catalog/service/api-sidecar-proxy.json"


def _refuses(kind: str, what: str, name: str) -> Change:
    """The update that is refused is of another kind."""

    def change(dump: Any) -> None:
        for config in dump["configs"]:
            for entries in config.values():
                for entry in entries if isinstance(entries, list) else ():
                    state = entry.pop("error_state", None)
                    if state is not None:
                        refused.append(state)
        if refused:
            state = {**refused[-1], "failed_configuration": {"@type": what, "name": name}}
            found = _configs(dump, kind)
            (entries,) = [each for key, each in found.items() if key.startswith("dynamic_")][:1]
            entries[0]["error_state"] = state

    refused: list[Any] = []
    return dumps(change, "web-")


CONSUL_MESH_ROWS: Final = {
    "a proxy with no certificate": (
        f"{CERTIFICATES}/quiet-healthy",
        (at(CERTS, certificates=[]),),
        "clean\n  fact: the certificates of 1 sidecar are of Consul's authority",
    ),
    "a certificate that tells no end": (
        f"{CERTIFICATES}/quiet-healthy",
        (instead('"expiration_time": "2026-11-27', '"expiration": "2026-11-27', CERTS),),
        "clean\n  fact: the certificates of 2 sidecars",
    ),
    "an authority of another Consul": (
        f"{CERTIFICATES}/quiet-healthy",
        (instead('"serial_number": "07"', '"serial_number": "7f"', CERTS),),
        "error: web-sidecar-proxy believes an authority that is none of this Consul's.",
    ),
    "a serial number that is none": (
        f"{CERTIFICATES}/quiet-healthy",
        (instead('"serial_number": "07"', '"serial_number": "?"', CERTS),),
        "clean\n  fact: the certificates of 2 sidecars",
    ),
    "a proxy that is registered by another id": (
        DEAD,
        (
            instead('"ServiceID": "api-sidecar-proxy"', '"ServiceID": "front"', "consul/"),
            instead('"ID": "api-sidecar-proxy"', '"ID": "front"', "consul/health"),
        ),
        "$ consul connect envoy -proxy-id front",
    ),
    "nothing near is registered": (
        "consul_mesh/upstream_not_registered/fires-misspelt",
        (instead('"apii"', '"warehouse"', "consul/"),),
        (
            "The upstream warehouse of web-sidecar-proxy names a service that is not registered "
            "in Consul"
        ),
    ),
    "an intention for everybody is no rule of one service": (
        "consul_mesh/protocol_left_at_tcp/fires-protocol-missing",
        (instead('"DestinationName": "api"', '"DestinationName": "*"', "consul/connect"),),
        "clean\n  fact: no rule for requests",
    ),
    "no rule is lost by the tcp of an upstream": (
        "consul_mesh/protocols_disagree/quiet-rules-lost",
        (lost("consul/config/service-router"), lost("consul/connect/intentions")),
        "The protocol of api is http by service-defaults/api, and tcp by the upstream api",
    ),
    "a cluster is refused for its version": (
        REFUSED,
        (_refuses("Clusters", "type.googleapis.com/envoy.config.cluster.v3.Cluster", "api"),),
        "cluster/api",
    ),
}

ALONE_ON_A_PORT: Final = "registry/service_without_protocol/fires-on-a-port-of-its-own"
UNDECLARED: Final = "registry/service_without_protocol/fires-without-docker"
LATEST: Final = "registry/registrator_drops_metadata/fires-latest"
STALE: Final = "registry/stale_registration"
NEVER: Final = "registry/running_but_not_registered/fires-one-of-three"
ENDPOINTS: Final = "traffic/cluster_without_endpoint/fires-subset-without-instance"
TWO_KINDS: Final = "traffic/mixed_protocol_port"
DESTINATIONS: Final = "istio/destinationrules.json"


def _listener_of_9080(value: object) -> Callable[[Any], None]:
    """Another filter in the shared listener."""

    def change(dump: Any) -> None:
        for entry in _configs(dump, "Listeners")["dynamic_listeners"]:
            found = entry["active_state"]["listener"]
            address = found["address"]["socket_address"]
            if (address["address"], address["port_value"]) == ("0.0.0.0", 9080):  # noqa: S104 # as Pilot writes it
                found["filter_chains"][0]["filters"] = value

    return change


TCP: Final = [
    {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "a",
            "cluster": "outbound|9080||ratings.service.consul",
        },
    }
]
ECHO: Final = [{"name": "envoy.filters.network.echo"}]
HTTP_AND_TCP: Final = "on port 9080 details is HTTP to Pilot and ratings is TCP"

OTHER_NETWORK: Final = "registry/registered_off_the_mesh/fires-other-network"


def _on_two_nodes(recording: Recording) -> None:
    """The agent got another name, as a Consul does whose container is recreated."""

    def registered(instances: list[dict[str, Any]]) -> None:
        instances += [{**each, "Node": "gone"} for each in instances]

    def judged(entries: list[dict[str, Any]]) -> None:
        for each in list(entries):
            lost = json.loads(json.dumps(each))
            for found in lost["Checks"]:
                found.update(Node="gone", Status="critical", Output="Agent not live")
            entries.append(lost)

    recording.edit("consul/catalog/service/reviews.json", registered)
    recording.edit("consul/health/service/reviews.json", judged)


REGISTRY_ROWS: Final = {
    "a database without a protocol is TCP, as it should be": (
        ALONE_ON_A_PORT,
        (words(**{"9081": "5432"}),),
        (
            "info: ratings is registered in Consul without a protocol, so only its port tells "
            "what it speaks, PostgreSQL's protocol: Pilot takes its port 5432 for TCP."
        ),
    ),
    "nobody is told to declare a database as HTTP": (
        ALONE_ON_A_PORT,
        (words(**{"9081": "5432"}),),
        "| +      - SERVICE_PROTOCOL=tcp",
    ),
    "of databases on one port only ports of their own help": (
        UNDECLARED,
        (words(**{"9080": "3306"}),),
        "If ratings speaks MySQL's protocol, no metadata helps: give it a port of its own",
    ),
    "a container that is on the others' network already is not connected to it again": (
        OTHER_NETWORK,
        (
            docker(
                RATINGS,
                NetworkSettings__Networks__consul_istiomesh={"IPAddress": "172.28.0.77"},
            ),
        ),
        (
            "remedy: Let consul_ratings-v1_1 leave the networks other than consul_istiomesh, and "
            "restart Registrator, which registers every running container again.\n"
            "    $ docker network disconnect consul_back consul_ratings-v1_1\n"
        ),
    ),
    "an instance that an agent which is gone has registered too": (
        "registry/instance_failing_health/quiet-as-recorded",
        (_on_two_nodes,),
        (
            "3 of 6 instances of reviews fail their checks in Consul: "
            "2279868ead0f:consul_reviews-v1_1:9080 on node gone, "
        ),
    ),
    "a node that is gone is taken out": (
        "registry/instance_failing_health/quiet-as-recorded",
        (_on_two_nodes,),
        "$ docker exec consul_consul_1 consul force-leave gone\n",
    ),
    "a hyphen at the end of a name": (
        "registry/name_not_a_host_name/fires-underscore",
        (words(book_reviews="reviews-"),),
        'The service name "reviews-" is no host name, for it has a hyphen at its end',
    ),
    "another image than that of gliderlabs": (
        LATEST,
        (instead("gliderlabs/registrator:latest", "me/registrator:latest", CONTAINERS),),
        "Replace Registrator by the image gliderlabs/registrator:master",
    ),
    "a Registrator that does not run cannot write the new address": (
        f"{STALE}/fires-address-changed",
        (docker(REGISTRATOR, **STOPPED),),
        f"component/{REGISTRATOR}",
    ),
    "a Registrator that does not run, of a container that is gone": (
        f"{STALE}/fires-container-removed",
        (docker(REGISTRATOR, **STOPPED),),
        "remedy: Take the old registration out of Consul.",
    ),
    "under another id alone": (
        f"{STALE}/fires-left-by-an-earlier-registrator",
        (instead('"ServiceID": "2279868ead0f:', '"ServiceID": "0ldreg15tr42:', "consul/"),),
        "clean\n  fact: 8 registered instances belong to a running container",
    ),
    "Consul publishes no port": (
        LATEST,
        (docker(CONSUL, NetworkSettings__Ports={"8500/tcp": None, "8600/udp": None}),),
        f"$ docker exec {CONSUL} consul services deregister -id=",
    ),
    "Consul publishes another port": (
        LATEST,
        (
            docker(
                CONSUL,
                NetworkSettings__Ports={"8600/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}]},
            ),
        ),
        f"$ docker exec {CONSUL} consul services register -id=",
    ),
}

SIDECAR_ROWS: Final = {
    "inbound clusters of a name with another form": (
        "sidecars/sidecar_of_another_service/fires-inbound-of-another",
        (instead("inbound|9080|http|", "inbound|9080|", "envoy/"),),
        "clean\n  fact: 2 proxies that declare nothing but their workload",
    ),
    "an old Envoy that does not tell its version": (
        "sidecars/update_rejected/fires-old-envoy-that-only-counts",
        (instead('"version"', '"was"', "envoy/"),),
        "consul_productpage-v1-sidecar_1 has refused 3 updates of its listeners",
    ),
}

TRAFFIC_ROWS: Final = {
    "clusters of one sidecar were not recorded": (
        ENDPOINTS,
        (
            dumps(
                lambda dump: dump["configs"].remove(_configs(dump, "Clusters")), "consul_details"
            ),
        ),
        "has no endpoint, in 1 sidecar.",
    ),
    "no rule tells the labels of the subset": (
        ENDPOINTS,
        (at(DESTINATIONS, items=[]),),
        "that has the tags which the subset v9 asks for",
    ),
    "another host's rule tells nothing of the subset": (
        ENDPOINTS,
        (at(DESTINATIONS, items__0__spec__host="ratings.service.consul"),),
        "that has the tags which the subset v9 asks for",
    ),
    "the rule defines other subsets": (
        ENDPOINTS,
        (at(DESTINATIONS, items__0__spec__subsets=[{"name": "v1", "labels": {"version": "v1"}}]),),
        "that has the tags which the subset v9 asks for",
    ),
    "the sidecars differ in who has the port": (
        f"{TWO_KINDS}/fires-http-won",
        (dumps(_listener_of_9080(TCP), "consul_details"),),
        "and at present the sidecars differ in it.",
    ),
    "a listener of neither kind": (
        f"{TWO_KINDS}/fires-http-won",
        (dumps(_listener_of_9080(ECHO)),),
        (
            "warning: On port 9080 details is HTTP to Pilot and ratings is TCP; only one kind can "
            "have the listener, luck decides at every push which."
        ),
    ),
    "Pilot of before the protocols takes no service for TCP": (
        "traffic/really_tcp_on_one_port/fires-two-declare-tcp",
        (docker(PILOT, Config__Image="docker.io/istio/pilot:1.0.5"),),
        "clean",
    ),
    "nor disagree its instances": (
        "registry/instances_disagree_on_protocol/fires-both-http",
        (docker(PILOT, Config__Image="docker.io/istio/pilot:1.0.5"),),
        "clean",
    ),
    "no sidecar tells of its routes": (
        "traffic/route_configuration_missing/fires-in-one-sidecar",
        (dumps(_without_routes),),
        "reason: no sidecar told of its route configurations",
    ),
}

PROBE_ROWS: Final = {
    "no request was sent": (
        "probe/call_failed/quiet-all-answer",
        tuple(at(f"probe/{each}.json", requests=[]) for each in APPLICATIONS),
        "reason: no request of the probe was sent",
    ),
    "requests went to addresses": (
        "probe/name_not_resolved/quiet-names-resolve",
        tuple(at(f"probe/{each}.json", requests=[]) for each in APPLICATIONS),
        "reason: no request named its callee",
    ),
    "nobody knows how the callers ask": (
        "probe/name_not_resolved/fires-no-name-server-answers",
        (lost("docker/"),),
        "the probe went to Consul's addresses instead.",
    ),
}

SKEW: Final = "control_plane/proxy_version_skew/quiet-pilot-speaks-v3"
ENDLESS: Final = "consul/catalog/service/reviews.json"
HEALTHY: Final = "consul_mesh/registered_proxy_not_running/quiet-healthy"
COLLISION: Final = "consul_mesh/upstream_port_collision/fires-collision"
SERVED: Final = "traffic/host_name_not_served/fires-short-name-missing"
ASTRAY: Final = "registry/registered_off_the_mesh/fires-host-address"
ROUTE: Final = f"{HTTP}__0__route__0__destination"


def copied(document: str, case: str) -> Change:
    """A document of another case."""
    return text(document, (CASES / case / document).read_text(encoding="utf-8"))


def damaged(end: str) -> Change:
    """Whatever ends so broke off."""

    def change(recording: Recording) -> None:
        for name in recording.documents:
            if name.endswith(end):
                recording.documents[name] = b"{"

    return change


def static_cluster(name: str, *endpoints: tuple[str, int]) -> Change:
    """A cluster of the sidecar's bootstrap."""
    held = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
        for host, port in endpoints
    ]
    cluster = {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STRICT_DNS",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": held}]},
    }

    def change(dump: Any) -> None:
        _configs(dump, "Clusters")["static_clusters"] = [{"cluster": cluster}]

    return dumps(change)


def _unreadable_routes(dump: Any) -> None:
    _configs(dump, "Routes")["dynamic_route_configs"] = [{"route_config": 3}]


def _another_port(instances: list[dict[str, Any]]) -> None:
    instances.append({**instances[0], "ServiceID": "a:b:9443", "ServicePort": 9443})


def routed_by(**how: object) -> Change:
    """The shared HTTP listener gets its routes otherwise than by RDS."""

    def change(dump: Any) -> None:
        for entry in _configs(dump, "Listeners")["dynamic_listeners"]:
            for chain in entry["active_state"]["listener"]["filter_chains"]:
                for each in chain["filters"]:
                    if "rds" in each.get("typed_config", {}):
                        del each["typed_config"]["rds"]
                        each["typed_config"].update(how)

    return dumps(change)


WITHOUT_SEARCH: Final = tuple(
    docker(each, HostConfig__DnsSearch=[]) for each in (DETAILS, RATINGS)
)

FURTHER_ROWS: Final = {
    "sidecars look for Pilot as their bootstrap says": (
        f"control_plane_component_missing={SKEW}",
        (*WITHOUT_SEARCH, static_cluster("xds-grpc", ("pilot-nobody", 15010))),
        "2 sidecars look for Pilot at pilot-nobody",
    ),
    "a bootstrap that names no address of Pilot": (
        f"control_plane_component_missing={SKEW}",
        (static_cluster("xds-grpc"),),
        "clean\n  fact: 1 name that parts of the mesh reach others by",
    ),
    "sidecars send traces where their bootstrap says": (
        f"tracing_unreachable={SKEW}",
        (*WITHOUT_SEARCH, static_cluster("zipkin", ("zipkin", 9411))),
        "2 sidecars send traces to zipkin:9411, where nobody takes them",
    ),
    "a bootstrap that names no tracing server": (
        f"tracing_unreachable={SKEW}",
        (static_cluster("zipkin"),),
        "reason: no sidecar says where it sends its traces",
    ),
    "a tracing server whose sidecar lost its namespace": (
        f"{TRACING}/fires-no-zipkin",
        (no_container(DETAILS), no_container(RATINGS)),
        "clean",
    ),
    "a certificate that tells no time": (
        f"{CERTIFICATES}/quiet-healthy",
        (
            instead(
                '"expiration_time": "2026-11-27T15:54:00Z"', '"expiration_time": "soon"', CERTS
            ),
        ),
        "clean\n  fact: the certificates of 2 sidecars",
    ),
    "the protocol of its own proxy loses an intention, which is another check's": (
        "protocols_disagree=consul_mesh/protocol_left_at_tcp/fires-intention-at-a-tcp-proxy",
        (),
        "clean\n  fact: the protocol of",
    ),
    "proxies whose registrations say nothing of them": (
        COLLISION,
        (lost("consul/agent/services"), instead('"ServiceProxy"', '"Was"', "consul/")),
        "reason: no registration of a connect-proxy could be read",
    ),
    "of Consul's own mesh only Consul is a control plane": (
        f"control_plane_component_down={HEALTHY}",
        (
            copied(CONTAINERS, f"{DOWN}/quiet-all-running"),
            no_container(PILOT),
            docker(REGISTRATOR, **STOPPED),
        ),
        f"clean\n  fact: 1 part of the control plane running: {CONSUL}",
    ),
    "a part in the host's network asks the host's resolver": (
        f"{MISSING}/fires-consul-never-created",
        tuple(docker(each, HostConfig__NetworkMode="host") for each in (PILOT, REGISTRATOR)),
        "reason: no part of the mesh names another by a name that Docker decides",
    ),
    "on Docker's first network there are no names": (
        f"{MISSING}/fires-consul-never-created",
        tuple(
            docker(each, NetworkSettings__Networks={"bridge": {"IPAddress": "172.17.0.9"}})
            for each in (PILOT, REGISTRATOR)
        ),
        "reason: no part of the mesh names another by a name that Docker decides",
    ),
    "a search domain of somebody else's may have the name": (
        f"{MISSING}/fires-consul-never-created",
        tuple(
            docker(each, HostConfig__DnsSearch=["example.org"]) for each in (PILOT, REGISTRATOR)
        ),
        "reason: no part of the mesh names another by a name that Docker decides",
    ),
    "a service of two ports is reached on the rule's own": (
        f"{RULE}/fires-default-route-stands",
        (lambda recording: recording.edit(ENDLESS, _another_port),),
        "is not in effect in all 2 examined sidecars",
    ),
    "a pattern that takes every path": (
        "rules/rule_never_reached/fires-path-that-is-everything",
        (at(RULES, **{f"{HTTP}__0__match": [{"uri": {"regex": ".*"}}]}),),
        "match 1 of route 1: uri regex .*",
    ),
    "no sidecar of those that a rule is for was read": (
        "rules/http_rule_on_tcp_port/fires-broken",
        (damaged("config_dump.json"),),
        "reason: no sidecar's configuration could be read",
    ),
    "an instance of a container that stopped is no stray": (
        ASTRAY,
        tuple(docker(each, **STOPPED) for each in (REVIEWS, "consul_reviews-v2_1")),
        "clean",
    ),
    "a misspelt destination with a port of its own": (
        "rules/host_not_registered/fires-routes-to-a-misspelt-one",
        (at(RULES, **{f"{ROUTE}__port": {"number": 81}}),),
        "cluster/outbound|81||reviewz.service.consul",
    ),
    "some requests may be made": (
        "misrouted_call=../meshes/connect/denied-by-request.tgz",
        (),
        "allowed for some requests only, and not for GET /",
    ),
    "nobody tells who answered": (
        "prediction_differs=probe/wrong_service_answered/quiet-nobody-tells-who-answered",
        (),
        "reason: of no request both prediction and end are known",
    ),
    "a sidecar with a network of its own": (
        "sidecars/admin_port_exposed/fires-any-address",
        (docker("consul_details-v1-sidecar_1", HostConfig__NetworkMode=NETWORK),),
        "is reachable from outside: it listens on 0.0.0.0:15000.",
    ),
    "routes that stand in the listener": (
        SERVED,
        (
            routed_by(
                route_config={
                    "name": "inline",
                    "virtual_hosts": [{"name": "all", "domains": ["*"]}],
                }
            ),
        ),
        "clean\n  fact: every HTTP service is served under all names that clients use",
    ),
    "routes by scopes": (
        SERVED,
        (routed_by(scoped_routes={"name": "scopes"}),),
        "clean\n  fact: no HTTP listener of a service's port is there to judge",
    ),
    "sidecars that Compose did not start are restarted": (
        "control_plane/proxy_version_skew/fires-two-versions",
        (docker("consul_reviews-v1-sidecar_1", Config__Labels={}),),
        "$ docker restart consul_reviews-v1-sidecar_1",
    ),
    "a Registrator that Docker restarts needs no command to start it": (
        "registry/running_but_not_registered/fires-registrator-paused",
        (docker(REGISTRATOR, State__Status="restarting"),),
        "$ docker logs --tail 50 consul_registrator_1\n    $ meshdoctor check --select MD207",
    ),
    "an application without a sidecar is not of the mesh": (
        ASTRAY,
        tuple(no_container(f"consul_reviews-{each}-sidecar_1") for each in ("v1", "v2")),
        "clean\n  fact: 2 registered instances are on the mesh",
    ),
    "more sidecars stopped than one would list": (
        "workload_without_sidecar=sidecars/sidecar_down/fires-all-at-once",
        (),
        "in their network namespaces: 6 sidecars do not run.",
    ),
    "routes that could not be decoded": (
        "sidecars/listener_not_active/fires-waits-for-its-routes",
        (dumps(_unreadable_routes),),
        "is warming in",
    ),
    "all services are HTTP by now": (
        "traffic/tcp_listener_collision/fires-though-consul-is-mended",
        (instead('"ServiceMeta": {}', '"ServiceMeta": {"protocol": "http"}', "consul/"),),
        "In Consul all services on this port are HTTP by now",
    ),
}

ROWS: Final[dict[str, tuple[str, tuple[Change, ...], str]]] = {
    **DNS_ROWS,
    **RULE_ROWS,
    **CONTROL_PLANE_ROWS,
    **CONSUL_MESH_ROWS,
    **REGISTRY_ROWS,
    **SIDECAR_ROWS,
    **TRAFFIC_ROWS,
    **PROBE_ROWS,
    **FURTHER_ROWS,
}


@pytest.mark.parametrize(
    ("case", "changes", "says"), ROWS.values(), ids=[each.replace(" ", "-") for each in ROWS]
)
def test_what_a_check_says(case: str, changes: tuple[Change, ...], says: str) -> None:
    """And nothing unsound. A case is its own check's, or as `another_check=case`."""
    name, _, folder = case.rpartition("=")
    recording = Recording("", CASES / folder)
    for each in changes:
        each(recording)
    snapshot = recording.snapshot()
    check = BY_NAME[(name or folder.split("/")[1]).replace("_", "-")]
    outcome = run(check, Examination(snapshot))
    rendered = render(check, outcome)
    assert unsound(outcome, snapshot) == ()
    assert says in rendered, rendered
    # A verdict of nothing is the whole of it.
    assert says != "clean" or rendered.count("\n") == 1, rendered
