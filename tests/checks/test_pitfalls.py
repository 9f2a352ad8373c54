"""The pitfalls that people met with this mesh, each from evidence to the words they read."""

import json
from typing import Any, Final

import pytest

from meshdoctor.evidence import layout
from meshdoctor.report.terminal import Terminal
from meshdoctor.report.text import render
from tests.checks.editing import CONTAINERS, Recording

PILOT: Final = "consul_pilot_1"
PORTS: Final = (15003, 15005, 15007, 15010, 15014)
CONSUL: Final = "consul_consul_1"
REVIEWS: Final = ("reviews-v1", "reviews-v2", "reviews-v3")
EMPTY_NAT: Final = b"*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
SIGNS: Final = ("✗ ", "! ", "i ")
"""How the line of a root begins: an error, a warning, a note."""

REGISTERED: Final = (
    "i info MD209  pilot-15003, pilot-15005, pilot-15007, pilot-15010 and pilot-15014 are "
    "registered as services, though they are part of the control plane (consul_pilot_1)."
)


def printed(recording: Recording) -> list[str]:
    """The first sentence of each diagnosis, as the text report prints it, unwrapped."""
    found: list[str] = []
    open_ended = False
    for line in render(recording.report(), Terminal()).splitlines():
        said = line.removeprefix("│").strip()
        if line.startswith(SIGNS):
            found.append(line)
            open_ended = True
        elif open_ended and said and not said.startswith(("seen in ", "sidecars: ", "└", "├")):
            found[-1] = f"{found[-1]} {said}"
        else:
            open_ended = False
    return found


def roots(recording: Recording) -> list[str]:
    """The same without what is in every recording, and is no part of the other pitfalls."""
    return [line for line in printed(recording) if line != REGISTERED]


def symptoms(recording: Recording, root: str) -> set[str]:
    """The codes below the one root of that code."""
    report = recording.report()
    (tree,) = [each for each in report.diagnoses if report.finding(each.root).code == root]
    return {report.finding(each).code for each in tree.findings[1:]}


def remove_container(recording: Recording, name: str) -> None:
    """As if it had never been created."""
    recording.edit(CONTAINERS, lambda them: [one for one in them if one["Name"] != f"/{name}"])


def unregister(recording: Recording, service: str) -> None:
    """Nobody ever registered it: neither Consul nor Pilot nor its sidecars know of it."""
    recording.remove(layout.catalog_service(service))
    recording.remove(layout.health_service(service))
    recording.edit(
        "consul/catalog/services.json",
        lambda names: {name: tags for name, tags in names.items() if name != service},
    )
    host = f"{service}.service.consul"
    for page in ("pilot/registryz.json", "pilot/endpointz.json"):
        if page in recording.documents:
            recording.edit(page, lambda known: [each for each in known if host not in str(each)])


def add_api_server(recording: Recording) -> None:
    """The API server of Istio's Compose file, published on port 8080 of the host."""

    def add(containers: list[dict[str, Any]]) -> None:
        (consul,) = [one for one in containers if one["Name"] == f"/{CONSUL}"]
        server = json.loads(json.dumps(consul))
        ports = {"8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}  # noqa: S104 # how Docker writes it
        server.update(Id="a" * 64, Name="/consul_istio-apiserver_1", Path="kube-apiserver")
        server.update(Args=["--etcd-servers", "http://172.28.0.12:2379"])
        server["Config"].update(Image="gcr.io/google_containers/kube-apiserver-amd64:v1.7.3")
        server["NetworkSettings"].update(Ports=ports)
        endpoint = {"IPAddress": "172.28.0.13", "Aliases": ["istio-apiserver", "apiserver"]}
        server["NetworkSettings"]["Networks"] = {"consul_istiomesh": endpoint}
        containers.append(server)

    recording.edit(CONTAINERS, add)


@pytest.fixture
def fixed() -> Recording:
    """The mesh as it should be, to be spoilt."""
    recording = Recording("fixed")
    assert roots(recording) == []
    return recording


def test_1_pilot_gave_up_before_the_api_server_answered(fixed: Recording) -> None:
    """Compose starts all at once; Pilot exits 255 and nothing starts it again."""
    fixed.stop(PILOT, 255)
    fixed.remove("pilot/")
    for port in PORTS:
        unregister(fixed, f"pilot-{port}")
    refused = (
        "2026-11-22T20:00:02.1Z Error: failed to create discovery service: config controller: "
        "failed to register custom resources: dial tcp 172.28.0.13:8080: connect: "
        "connection refused\n"
    )
    fixed.documents[layout.docker_log(PILOT)] = refused.encode()
    assert roots(fixed) == [
        (
            "✗ error MD101  Pilot (consul_pilot_1) stopped with exit code 255 because the "
            "API server did not answer when it started, as happens when Compose starts all "
            "containers at once."
        ),
    ]


def test_2_registrator_drops_the_metadata() -> None:
    """The image of years ago: what the whole story began with."""
    assert roots(Recording("broken")) == [
        (
            "✗ error MD202  Registrator (consul_registrator_1, image "
            "gliderlabs/registrator:latest) drops the SERVICE_* attributes of the "
            "containers: 6 instances declare a protocol on their containers, none has it in "
            "Consul, as this tag is known to do."
        ),
    ]


def test_3_an_application_was_never_registered(fixed: Recording) -> None:
    """Registrator missed an event, and no log says so."""
    unregister(fixed, "ratings")
    assert roots(fixed) == [
        (
            "✗ error MD207  consul_ratings-v1_1 runs and should be registered as ratings, "
            "but is not in Consul, which has no service ratings at all."
        ),
    ]


def test_4_the_sidecars_were_forgotten(fixed: Recording) -> None:
    """Only the first of the two Compose files was started."""
    for app in ("details-v1", "productpage-v1", "ratings-v1", *REVIEWS):
        for beside in ("sidecar", "init"):
            remove_container(fixed, f"consul_{app}-{beside}_1")
    fixed.remove("envoy/")
    fixed.remove("netfilter/")
    assert roots(fixed) == [
        (
            "✗ error MD301  consul_details-v1_1, consul_productpage-v1_1, "
            "consul_ratings-v1_1, consul_reviews-v1_1, consul_reviews-v2_1 and "
            "consul_reviews-v3_1 have no running sidecar in their network namespaces."
        ),
    ]


def test_4_an_init_container_failed(fixed: Recording) -> None:
    """Without NET_ADMIN no rule is written: calls pass the sidecar by."""
    fixed.container("consul_ratings-v1-init_1", lambda one: one["State"].update(ExitCode=1))
    fixed.documents[layout.netfilter("consul_ratings-v1-sidecar_1")] = EMPTY_NAT
    assert roots(fixed) == [
        (
            "✗ error MD303  The connections of consul_ratings-v1_1 do not go through its "
            "sidecar as they should: no rule redirects outgoing connections and no rule "
            "redirects incoming connections (consul_ratings-v1-init_1 failed with exit code "
            "1)."
        ),
    ]


def test_4_the_application_was_recreated(fixed: Recording) -> None:
    """Its sidecar still sits in the namespace of the container that is gone."""
    fixed.container("consul_ratings-v1_1", lambda one: one.update(Id="f" * 64))
    assert roots(fixed) == [
        (
            "✗ error MD304  consul_ratings-v1-sidecar_1 sits in the network namespace of a "
            "container that does not exist any more, and by its name belongs to "
            "consul_ratings-v1_1."
        ),
    ]


def test_5_kubectl_talks_to_another_cluster(fixed: Recording) -> None:
    """`kubectl apply` succeeds, and nothing happens here."""
    add_api_server(fixed)
    kubeconfig = {
        "current-context": "minikube",
        "contexts": [{"name": "minikube", "context": {"cluster": "minikube"}}],
        "clusters": [{"name": "minikube", "cluster": {"server": "https://192.168.49.2:8443"}}],
    }
    fixed.documents["kube/config.json"] = json.dumps(kubeconfig).encode()
    assert roots(fixed) == [
        (
            """! warning MD106  kubectl's context "minikube" points at """
            "https://192.168.49.2:8443, and the mesh's API server "
            "(consul_istio-apiserver_1) is at 127.0.0.1:8080: rules applied with it go "
            "elsewhere."
        ),
    ]


def test_6_docker_gateway_was_not_set(fixed: Recording) -> None:
    """Port 53 of every address is taken on most hosts: Consul does not start."""

    def unpublished(consul: dict[str, Any]) -> None:
        consul["State"].update(Status="created", Running=False, Pid=0, ExitCode=128)
        consul["State"]["Error"] = (
            "driver failed programming external connectivity on endpoint consul_consul_1 (5f0c): "
            "Error starting userland proxy: listen udp4 0.0.0.0:53: bind: address already in use"
        )
        consul["HostConfig"]["PortBindings"]["8600/udp"] = [{"HostIp": "", "HostPort": "53"}]
        consul["NetworkSettings"]["Ports"] = {}

    fixed.container(CONSUL, unpublished)
    fixed.remove("consul/")
    assert roots(fixed) == [
        (
            "✗ error MD105  consul_details-v1_1, consul_productpage-v1_1, "
            "consul_ratings-v1_1 and 3 more ask 172.28.0.1 for names, where no Consul "
            "answers: consul_consul_1 could not start, because it is to publish its DNS as "
            "*:53 and the port is taken on this host, as happens where DOCKER_GATEWAY is "
            "not set."
        ),
    ]
    assert "MD101" in symptoms(fixed, "MD105")


def test_6_consul_answers_on_another_address(fixed: Recording) -> None:
    """It runs, and its DNS is where no container asks."""

    def elsewhere(consul: dict[str, Any]) -> None:
        bindings = [{"HostIp": "127.0.0.1", "HostPort": "53"}]
        consul["HostConfig"]["PortBindings"]["8600/udp"] = bindings
        consul["NetworkSettings"]["Ports"]["8600/udp"] = bindings

    fixed.container(CONSUL, elsewhere)
    assert roots(fixed) == [
        (
            "✗ error MD105  consul_details-v1_1, consul_productpage-v1_1, "
            "consul_ratings-v1_1 and 3 more ask 172.28.0.1 for names, where no Consul "
            "answers: consul_consul_1 publishes its DNS as 127.0.0.1:53."
        ),
    ]


def test_6_the_search_domain_is_missing(fixed: Recording) -> None:
    """Short names fail in that container alone."""
    fixed.container("consul_ratings-v1_1", lambda one: one["HostConfig"].update(DnsSearch=None))
    assert roots(fixed) == [
        (
            "✗ error MD105  consul_ratings-v1_1 asks Consul for names without the search "
            "domain service.consul, so short names such as details do not resolve there, "
            "only details.service.consul."
        ),
    ]


def test_7_an_image_could_not_be_pulled(fixed: Recording) -> None:
    """Consul's container was never created: there is no state and no log to look at."""
    remove_container(fixed, CONSUL)
    fixed.remove("consul/")
    fixed.remove("pilot/")
    assert roots(fixed) == [
        (
            "✗ error MD102  consul_pilot_1 and consul_registrator_1 look for Consul at "
            "consul, and no container on their network consul_istiomesh has that name."
        ),
    ]


def test_7_the_api_servers_image_could_not_be_pulled(fixed: Recording) -> None:
    """It comes from another registry than the rest. That Pilot stopped for it is a symptom."""
    fixed.stop(PILOT, 255)
    fixed.remove("pilot/")
    for port in PORTS:
        unregister(fixed, f"pilot-{port}")
    unknown = (
        "2026-11-22T20:00:02.1Z Error: failed to create discovery service: config controller: "
        "failed to register custom resources: Get http://istio-apiserver:8080/apis: dial tcp: "
        "lookup istio-apiserver on 127.0.0.11:53: no such host\n"
    )
    fixed.documents[layout.docker_log(PILOT)] = unknown.encode()
    assert roots(fixed) == [
        (
            "✗ error MD102  consul_pilot_1 looks for the API server at istio-apiserver, and no "
            "container on its network consul_istiomesh has that name."
        ),
    ]
    assert "MD101" in symptoms(fixed, "MD102")


def test_9_pilots_own_ports_are_registered() -> None:
    """Without SERVICE_IGNORE Registrator takes them for services."""
    assert printed(Recording("fixed")) == [REGISTERED]
