"""What Pilot makes of the protocols in Consul, for the checks that turn on it."""

from typing import Final

from meshdoctor.check import CannotLookError
from meshdoctor.evidence.consul import Instance
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import is_http, is_known, takes_missing_for_http
from meshdoctor.topology import Mesh, Role, Service

READS: Final = "reads the protocol from ServiceMeta"
SHARES: Final = "makes one listener of all services on a port"


_NO_HTTP: Final = {
    22: "SSH",
    25: "SMTP",
    389: "LDAP",
    443: "HTTPS",
    1433: "SQL Server's protocol",
    1521: "Oracle's protocol",
    1883: "MQTT",
    2181: "ZooKeeper's protocol",
    3306: "MySQL's protocol",
    4222: "NATS",
    5432: "PostgreSQL's protocol",
    5672: "AMQP",
    6379: "Redis's protocol",
    9042: "Cassandra's protocol",
    9092: "Kafka's protocol",
    11211: "memcached's protocol",
    27017: "MongoDB's protocol",
}
"""What is spoken on ports that everybody uses for the same, and is no HTTP."""


def spoken_on(port: int) -> str:
    """What a service without a protocol speaks by its port, "" where that tells nothing."""
    return _NO_HTTP.get(port, "")


def require_pilot(mesh: Mesh, does: str = READS) -> None:
    """Raises CannotLookError where no Pilot is seen, which alone `does` what matters here."""
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError(f"only Pilot {does}, and none is seen")


def pilot_before_service_meta(mesh: Mesh) -> str:
    """The version of a Pilot that does not read ServiceMeta at all (1.0), else ""."""
    pilot = mesh.component(Role.PILOT)
    version = pilot.container.image_tag if pilot is not None else ""
    return version if takes_missing_for_http(version) else ""


def has_tcp_listener(protocol: str | None) -> bool:
    """True where Pilot makes a TCP listener of it.

    Of a missing or unknown word it does; of udp it makes no listener at all
    (`ModelProtocolToListenerProtocol` in Istio's `networking/plugin`).
    """
    return not is_http(protocol) and (protocol or "").lower() != "udp"


def declares_tcp(service: Service, port: int) -> bool:
    """True of a service that says by a known word that it is TCP, and so will not share."""
    word = deciding(service, port)
    return word is not None and is_known(word) and has_tcp_listener(word)


def deciding(service: Service, port: int) -> str | None:
    """The protocol that Pilot goes by: that of the first instance in Consul's answer."""
    return service.protocols(port)[0]


def first_on(service: Service, port: int) -> Instance:
    """That first instance itself."""
    return next(each for each in service.instances if each.port == port)
