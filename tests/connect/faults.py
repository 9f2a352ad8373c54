"""Faults that people meet on Consul's own service mesh, each put into a running one by name."""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tests.connect.mesh import ConnectMesh


@dataclass(frozen=True, slots=True)
class Fault:
    """`apply` breaks a healthy mesh; `acl` and `servers` say how that mesh must be started."""

    about: str
    apply: Callable[[ConnectMesh], None]
    acl: bool = False
    servers: int = 1


def _port_collision(mesh: ConnectMesh) -> None:
    """Consul from 1.12 on refuses the same address twice, but not one that covers the other."""
    api, pay = mesh.services["web"].upstreams
    api.address, pay.port = "0.0.0.0", api.port  # noqa: S104 # it is the fault
    mesh.register("web")


def _port_collision_of_two(mesh: ConnectMesh) -> None:
    """Two sidecars of one host: each Envoy lets others bind what it binds."""
    mesh.services["pay"].upstreams[0].port = mesh.services["web"].upstreams[0].port
    mesh.register("pay")


def _port_collision_with_inbound(mesh: ConnectMesh) -> None:
    mesh.services["web"].upstreams[0].port = mesh.services["web"].sidecar_port
    mesh.register("web")


def _upstream_misspelt(mesh: ConnectMesh) -> None:
    mesh.services["api"].upstreams[0].name = "dbb"
    mesh.register("api")


def _no_instance(mesh: ConnectMesh) -> None:
    # The registration of its sidecar goes with it.
    mesh.run("consul", "services", "deregister", "-id", "db")


def _proxy_dead(mesh: ConnectMesh) -> None:
    mesh.stop_program("pay-sidecar-proxy")


def _service_dead(mesh: ConnectMesh) -> None:
    mesh.silence("db")


def _denied_by_intention(mesh: ConnectMesh) -> None:
    mesh.run("consul", "intention", "create", "-replace", "-deny", "web", "pay")


def _denied_by_default(mesh: ConnectMesh) -> None:
    mesh.run("consul", "intention", "delete", "web", "pay")


def _http_rules_on_tcp(mesh: ConnectMesh) -> None:
    """Consul refuses a router for a TCP service, but not a caller that takes it for TCP."""
    mesh.write_config("api-defaults", _defaults("api", "http"))
    mesh.write_config("pay-defaults", _defaults("pay", "http"))
    mesh.write_config(
        "api-router",
        """Kind = "service-router"
Name = "api"
Routes = [
  {
    Match { HTTP { PathPrefix = "/pay" } }
    Destination { Service = "pay" }
  }
]
""",
    )
    mesh.services["web"].upstreams[0].protocol = "tcp"
    mesh.register("web")


def _http_intention_on_tcp(mesh: ConnectMesh) -> None:
    """Consul refuses it for a TCP service, but not where the sidecar itself was told TCP."""
    mesh.write_config("api-defaults", _defaults("api", "http"))
    mesh.write_config(
        "api-intentions",
        """Kind = "service-intentions"
Name = "api"
Sources = [
  {
    Name = "web"
    Permissions = [
      { Action = "allow", HTTP { PathPrefix = "/", Methods = ["GET"] } }
    ]
  }
]
""",
    )
    mesh.services["api"].protocol = "tcp"
    mesh.register("api")


def _protocols_disagree(mesh: ConnectMesh) -> None:
    """The sidecar of api speaks HTTP/2 to a service that knows HTTP/1.1 only."""
    mesh.write_config("api-defaults", _defaults("api", "http"))
    mesh.services["api"].protocol = "grpc"
    mesh.register("api")


def _foreign_certificate(mesh: ConnectMesh) -> None:
    """The sidecar of pay gets its configuration, and its certificate, from another Consul."""
    other = ConnectMesh(mesh.folder / "other", calls={"pay": ("db",), "db": ()})
    other.services["pay"].admin = mesh.services["pay"].admin
    other.services["pay"].port = mesh.services["pay"].port
    other.services["pay"].sidecar_port = mesh.services["pay"].sidecar_port
    other.services["pay"].upstreams[0].port = mesh.services["pay"].upstreams[0].port
    other.folder.mkdir()
    other.start_consul()
    mesh.programs["other-consul"] = other.programs.pop("consul")
    (mesh.folder / "other-consul.log").symlink_to(other.folder / "consul.log")
    other.until(lambda: other.get("/v1/status/leader"), "the other Consul has a leader")
    other.until(lambda: other.get("/v1/connect/ca/roots")["Roots"], "it has a root")
    other.register("pay")
    mesh.stop_program("pay-sidecar-proxy")
    mesh.start_sidecar("pay", instead=other.environment)


def _expired_certificate(mesh: ConnectMesh) -> None:
    """The sidecar of pay runs from a file of what it was last told, its certificate run out.

    The certificate is of the mesh's own authority, which is set to sign for two seconds (as only
    Consul's own tests do) and set back. Of the rest nothing is changed.
    """
    service = mesh.services["pay"]
    dump = mesh.admin("pay", "/config_dump?include_eds")
    settings = mesh.get("/v1/connect/ca/configuration")
    usual = {name: settings[name] for name in ("Provider", "Config")}
    brief = usual["Config"] | {"LeafCertTTL": "2s", "SkipValidate": True}
    mesh.put("/v1/connect/ca/configuration", usual | {"Config": brief})
    # An agent keeps what it signed for each token: under another one it asks anew.
    leaf = mesh.get("/v1/agent/connect/ca/leaf/pay", token=str(uuid.uuid4()))
    mesh.put("/v1/connect/ca/configuration", usual)
    bootstrap = json.loads((mesh.folder / f"{service.sidecar}.json").read_text())
    bootstrap.pop("dynamic_resources")
    bootstrap["static_resources"] = _as_last_told(dump, leaf)
    file = mesh.folder / "expired.json"
    file.write_text(json.dumps(bootstrap))
    mesh.stop_program(service.sidecar)
    time.sleep(max(0.0, _ends(leaf) - time.time()) + 1)
    mesh.start_envoy("pay", file)


def _ends(leaf: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(leaf["ValidBefore"]).timestamp()


def _as_last_told(dump: Any, leaf: Mapping[str, Any]) -> Mapping[str, Any]:
    """An Envoy's dump as its static configuration, with this certificate wherever it has one."""
    sections = {each["@type"].rpartition(".")[2]: each for each in dump["configs"]}
    clusters = [
        each["cluster"] for each in sections["ClustersConfigDump"]["dynamic_active_clusters"]
    ]
    told = {
        each["endpoint_config"]["cluster_name"]: [
            {"endpoint": {"address": one["endpoint"]["address"]}}
            for group in each["endpoint_config"]["endpoints"]
            for one in group["lb_endpoints"]
        ]
        for each in sections["EndpointsConfigDump"]["dynamic_endpoint_configs"]
    }
    for cluster in clusters:
        cluster.pop("@type")
        if cluster.pop("eds_cluster_config", None) is not None:
            cluster["type"] = "STATIC"
            cluster["load_assignment"] = {
                "cluster_name": cluster["name"],
                "endpoints": [{"lb_endpoints": told[cluster["name"]]}],
            }
    listeners = [
        each["active_state"]["listener"]
        for each in sections["ListenersConfigDump"]["dynamic_listeners"]
    ]
    for listener in listeners:
        listener.pop("@type")
    static = {"clusters": clusters, "listeners": listeners}
    _put_certificate(static, leaf)
    return static


def _put_certificate(value: Any, leaf: Mapping[str, Any]) -> None:
    if isinstance(value, list):
        for each in value:
            _put_certificate(each, leaf)
    elif isinstance(value, dict):
        if "tls_certificates" in value:
            value["tls_certificates"] = [
                {
                    "certificate_chain": {"inline_string": leaf["CertPEM"]},
                    "private_key": {"inline_string": leaf["PrivateKeyPEM"]},
                }
            ]
        for each in value.values():
            _put_certificate(each, leaf)


def _without_leader(mesh: ConnectMesh) -> None:
    mesh.stop_program("consul-2")


def _none(_mesh: ConnectMesh) -> None:
    pass


def _defaults(name: str, protocol: str) -> str:
    return f'Kind = "service-defaults"\nName = "{name}"\nProtocol = "{protocol}"\n'


FAULTS: Final[Mapping[str, Fault]] = {
    "none": Fault("nothing is wrong", _none),
    "port-collision": Fault("two upstreams of web have one local port", _port_collision),
    "port-collision-of-two": Fault(
        "an upstream of pay has the local port of one of web's", _port_collision_of_two
    ),
    "port-collision-with-inbound": Fault(
        "an upstream of web has the port of its own sidecar", _port_collision_with_inbound
    ),
    "upstream-misspelt": Fault("api calls dbb, which nobody registered", _upstream_misspelt),
    "no-instance": Fault("db is not registered any more", _no_instance),
    "proxy-dead": Fault("the sidecar of pay ended", _proxy_dead),
    "service-dead": Fault("db itself ended, its sidecar did not", _service_dead),
    "denied-by-intention": Fault("an intention denies web to pay", _denied_by_intention),
    "denied-by-default": Fault(
        "nothing allows web to call pay, and Consul denies by default",
        _denied_by_default,
        acl=True,
    ),
    "http-rules-on-tcp": Fault("a router for api, which web was told is TCP", _http_rules_on_tcp),
    "http-intention-on-tcp": Fault(
        "an intention on methods of api, whose sidecar was told TCP", _http_intention_on_tcp
    ),
    "protocols-disagree": Fault(
        "api's sidecar was told grpc, api speaks http", _protocols_disagree
    ),
    "foreign-certificate": Fault(
        "the sidecar of pay belongs to another Consul", _foreign_certificate
    ),
    "expired-certificate": Fault(
        "pay's sidecar no longer hears from Consul, and its certificate ran out",
        _expired_certificate,
    ),
    "without-leader": Fault(
        "one of two servers is gone, so nobody leads", _without_leader, servers=2
    ),
}
