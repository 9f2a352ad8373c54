"""Consul's catalogue: which instances are registered, with what metadata, in what health."""

import enum
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import ClassVar, Final, Self

import msgspec

from meshdoctor.evidence import layout
from meshdoctor.evidence.access import LEFT_OUT
from meshdoctor.evidence.interface import (
    NOT_JSON,
    DecodeError,
    Documents,
    EvidenceError,
    MissingEvidenceError,
    Problem,
    decode_bytes,
    decode_each,
    decode_each_if_there,
    decode_if_there,
    not_recorded,
    pointer_token,
)

SERVICES: Final = "consul/catalog/services.json"
LEADER: Final = "consul/status/leader.json"
SELF: Final = "consul/agent/self.json"
AGENT_SERVICES: Final = "consul/agent/services.json"
DATACENTERS: Final = "consul/catalog/datacenters.json"
PEERINGS: Final = "consul/peerings.json"
PARTITIONS: Final = "consul/partitions.json"
NAMESPACES: Final = "consul/namespaces.json"
_CATALOG: Final = "consul/catalog/service/"
_EVERYTHING: Final = "consul/catalog/"
"""What collectors call missing where Consul said that it left something out."""
_HEALTH: Final = "consul/health/service/"
_DEFAULT: Final = "default"
"""The namespace and the partition of whoever names none."""

DNS_DOMAIN: Final = "service.consul"
"""Where Consul's DNS answers for its services; Pilot names them so too."""
DNS_SUFFIX: Final = f".{DNS_DOMAIN}"

CONSUL_ITSELF: Final = "consul"
"""The name under which Consul's servers register themselves, on their RPC port."""


class Upstream(msgspec.Struct, frozen=True):
    """What a Connect proxy was told to reach, and where it listens for it locally."""

    destination: str
    local_address: str
    local_port: int
    datacenter: str
    namespace: str
    kind: str
    protocol: str = ""
    """`Config.protocol`, which overrides what the destination's config entries say."""
    peer: str = ""


class ProxyRegistration(msgspec.Struct, frozen=True):
    """The `Proxy` of a `connect-proxy`: whose sidecar it is, and its upstreams."""

    destination: str
    destination_id: str
    local_port: int
    upstreams: tuple[Upstream, ...]
    is_transparent: bool
    """Nat rules turn every connection of its service to it, as in Istio's sidecars."""
    protocol: str = ""
    """`Config.protocol`, of its own service's listener."""
    local_address: str = "127.0.0.1"


class HealthCheck(msgspec.Struct, frozen=True):
    """One health check; `service_id` is "" for a check of the node itself.

    `node` is "" where nobody tells whose it is.
    """

    id: str
    name: str
    status: str
    output: str
    service_id: str
    node: str = ""


class Instance(msgspec.Struct, frozen=True):
    """One registered instance of a service, and where in the snapshot it stands.

    `address` is what clients are told: the service's address, else its node's. `registered`
    is the service's own address alone, "" where none was given.
    """

    service: str
    id: str
    node: str
    node_address: str
    registered: str
    port: int
    tags: tuple[str, ...]
    meta: Mapping[str, str]
    kind: str
    proxy: ProxyRegistration | None
    datacenter: str
    document: str
    pointer: str
    virtual: tuple[str, int] | None = None
    """The address and port that transparent proxies know its service by."""
    namespace: str = ""
    partition: str = ""

    @property
    def address(self) -> str:
        return self.registered or self.node_address

    @property
    def protocol(self) -> str | None:
        """`ServiceMeta.protocol`, which Pilot reads, or None where there is none."""
        return self.meta.get("protocol") or None


class Beyond(enum.StrEnum):
    """What a Consul knows of besides the part of it that a catalogue is of."""

    DATACENTER = "datacenter"
    PEER = "peer"
    PARTITION = "partition"
    NAMESPACE = "namespace"


class Elsewhere(msgspec.Struct, frozen=True):
    """A part of the world that Consul knows of, and that the catalogue read is not of."""

    kind: Beyond
    name: str


class ConsulCatalog(msgspec.Struct, frozen=True):
    """What Consul told.

    `agent` are the proxies that the local agent knows of and the catalogue does not list yet.
    `unread` are services that the catalogue lists and whose instances could not be read, with
    the reason. `leader` is "" where Consul has none and None where it was not asked. `elsewhere`
    is what Consul knows of and this catalogue does not cover, the kinds in the order of `Beyond`.
    `hidden` says why services may be registered that it does not list, "" where it lists all;
    `filtered` is true where it surely lists less than there is.
    """

    title: ClassVar[str] = "the Consul catalogue"
    hint: ClassVar[str] = (
        "point meshdoctor at Consul's HTTP API with --consul or CONSUL_HTTP_ADDR, and give a "
        "token that may read services with CONSUL_HTTP_TOKEN where ACLs are on"
    )

    services: tuple[str, ...]
    instances: tuple[Instance, ...]
    agent: tuple[Instance, ...]
    checks: Mapping[str, tuple[HealthCheck, ...]]
    unread: Mapping[str, str]
    leader: str | None
    version: str
    datacenter: str
    elsewhere: tuple[Elsewhere, ...]
    problems: tuple[Problem, ...]
    hidden: str = ""
    filtered: bool = False

    def checks_of(self, instance: Instance) -> tuple[HealthCheck, ...]:
        """Its health checks, without those of instances that have the same id on other nodes."""
        return tuple(
            each
            for each in self.checks.get(instance.id, ())
            if each.node in ("", instance.node) or not instance.node
        )

    def may_have(self, service: str) -> bool:
        """True where a service that is not listed may be registered all the same."""
        return bool(self.hidden) and service not in self.services

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Decode consul/*. A document that does not decode costs only its own service.

        Raises MissingEvidenceError where nothing of a catalogue was recorded, or it shows nothing.
        """
        listed = documents.names(_CATALOG)
        problems: list[Problem] = []
        names = _service_names(documents, problems)
        if names is None and not listed:
            raise not_recorded(documents, "consul/", "no catalogue was recorded", cls.hint)
        if not names and not listed:
            raise MissingEvidenceError(
                "Consul shows no service, not even itself, as where its ACLs hide them", cls.hint
            )
        instances: list[Instance] = []
        unread: dict[str, str] = {}
        for service in _all_names(names, listed):
            document = layout.catalog_service(service)
            try:
                found = list(_instances(documents, document, problems))
                instances += found
                # Consul forgets a service with its last instance: what is listed has one.
                if not found and not _is_damaged(document, problems):
                    unread[service] = "Consul lists it, and shows no instance of it"
            except EvidenceError as error:
                unread[service] = str(error)
                if isinstance(error, DecodeError):
                    problems.append(error.as_problem)
        hidden, filtered = _hidden(documents, names, instances)
        own = decode_if_there(documents, SELF, _Self, problems) or _Self()
        listed_ids = {instance.id for instance in instances}
        return cls(
            services=_all_names(names, listed),
            # As Consul orders its answer; Pilot goes by the first of a service.
            instances=tuple(
                sorted(instances, key=lambda each: (each.service, each.node, each.id))
            ),
            agent=tuple(
                each for each in _agent_proxies(documents, problems) if each.id not in listed_ids
            ),
            checks=_checks(documents, problems),
            unread=unread,
            leader=decode_if_there(documents, LEADER, str, problems),
            version=own.config.version,
            datacenter=own.config.datacenter,
            elsewhere=tuple(_elsewhere(documents, own.config, instances, problems)),
            problems=tuple(problems),
            hidden=hidden,
            filtered=filtered,
        )


class ConsulStatus(msgspec.Struct, frozen=True):
    """How Consul itself fares, which can be told also where it gives no catalogue.

    `leader` is "" where it has none and None where it did not say; `unanswered` is what it was
    asked for and did not give, with the reason.
    """

    title: ClassVar[str] = "Consul's status"
    hint: ClassVar[str] = ConsulCatalog.hint

    leader: str | None
    unanswered: tuple[Problem, ...]
    problems: tuple[Problem, ...]

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Decode the leader's address. Raises MissingEvidenceError where Consul was not asked."""
        problems: list[Problem] = []
        leader = decode_if_there(documents, LEADER, str, problems)
        unanswered = tuple(documents.missing("consul/"))
        if leader is None and not unanswered:
            raise MissingEvidenceError(f"{LEADER} was not recorded", cls.hint)
        return cls(leader, unanswered, tuple(problems))


def _is_damaged(document: str, problems: Sequence[Problem]) -> bool:
    return any(each.document.partition("#")[0] == document for each in problems)


def _hidden(
    documents: Documents, names: frozenset[str] | None, instances: Sequence[Instance]
) -> tuple[str, bool]:
    """What collectors say that Consul's ACLs hide, else what the list shows; and if it is sure.

    Only newer ones tell of it. But Consul's servers register themselves, in the default namespace
    and partition: who does not see them is not shown all.
    """
    for each in documents.missing(_EVERYTHING):
        if each.document == _EVERYTHING:
            return each.message, each.message.startswith(LEFT_OUT)
    spaces = {space for each in instances for space in (each.namespace, each.partition)}
    if names and CONSUL_ITSELF not in names and spaces <= {"", _DEFAULT}:
        return "Consul does not show itself, so its ACLs hide services", True
    return "", False


def _all_names(names: frozenset[str] | None, listed: Sequence[str]) -> tuple[str, ...]:
    recorded = {
        layout.name_of(name.removeprefix(_CATALOG).removesuffix(".json")) for name in listed
    }
    return tuple(sorted(recorded | (names or frozenset())))


def _service_names(documents: Documents, problems: list[Problem]) -> frozenset[str] | None:
    found = decode_if_there(documents, SERVICES, dict[str, msgspec.Raw], problems)
    return None if found is None else frozenset(found)


class _Config(msgspec.Struct, rename="pascal", gc=False):
    version: str = ""
    datacenter: str = ""
    partition: str = ""


class _Self(msgspec.Struct, rename="pascal", gc=False):
    config: _Config = msgspec.field(default_factory=_Config)


def version_told(agent: bytes) -> str:
    """Consul's version as an answer of `/v1/agent/self` has it, "" where it does not tell."""
    try:
        return msgspec.json.decode(agent, type=_Self).config.version
    except NOT_JSON:
        return ""


class _Named(msgspec.Struct, rename="pascal", gc=False):
    """Of `/v1/peerings`, `/v1/partitions` and `/v1/namespaces`: [{"Name": "cluster-02", ...}]."""

    name: str


def _elsewhere(
    documents: Documents,
    own: _Config,
    instances: Sequence[Instance],
    problems: list[Problem],
) -> Iterator[Elsewhere]:
    """What the pages name and no instance that was read belongs to."""
    datacenters = decode_if_there(documents, DATACENTERS, list[str], problems) or []
    # All of them may be of another one: it can be asked for with CONSUL_DATACENTER.
    read = {each.datacenter for each in instances} - {""} or {own.datacenter}
    # Which one this is, is not known where the agent did not say either.
    if read != {""}:
        yield from _others(Beyond.DATACENTER, datacenters, read)
    yield from _others(Beyond.PEER, _named(documents, PEERINGS, problems), set())
    read = {each.partition for each in instances} - {""} or {own.partition or _DEFAULT}
    yield from _others(Beyond.PARTITION, _named(documents, PARTITIONS, problems), read)
    read = {each.namespace for each in instances} - {""} or {_DEFAULT}
    yield from _others(Beyond.NAMESPACE, _named(documents, NAMESPACES, problems), read)


def _others(kind: Beyond, names: Sequence[str], read: AbstractSet[str]) -> Iterator[Elsewhere]:
    for name in sorted(set(names) - read - {""}):
        yield Elsewhere(kind, name)


def _named(documents: Documents, document: str, problems: list[Problem]) -> Sequence[str]:
    found = decode_each_if_there(documents, document, _Named, problems)
    return [each.name for _, each in found or ()]


class _Upstream(msgspec.Struct, rename="pascal", gc=False):
    destination_name: str = ""
    destination_type: str = ""
    destination_namespace: str = ""
    datacenter: str = ""
    local_bind_address: str = ""
    local_bind_port: int = 0
    destination_peer: str = ""
    config: dict[str, msgspec.Raw] | None = None


class _Proxy(msgspec.Struct, rename="pascal", gc=False):
    destination_service_name: str = ""
    destination_service_id: str = msgspec.field(default="", name="DestinationServiceID")
    local_service_port: int = 0
    local_service_address: str = ""
    mode: str = ""
    config: dict[str, msgspec.Raw] | None = None
    upstreams: list[_Upstream] | None = None


class _Tagged(msgspec.Struct, rename="pascal", gc=False):
    address: str = ""
    port: int = 0


class _Registered(msgspec.Struct, rename="pascal", gc=False):
    """`GET /v1/catalog/service/details`: [{"ServiceName": "details", "ServiceMeta": {}, ...}]."""

    service_name: str
    service_id: str = msgspec.field(default="", name="ServiceID")
    node: str = ""
    address: str = ""
    datacenter: str = ""
    service_address: str = ""
    service_port: int = 0
    service_tags: list[str] | None = None
    service_meta: dict[str, str] | None = None
    service_kind: str = ""
    service_proxy: _Proxy | None = None
    service_tagged_addresses: dict[str, _Tagged] | None = None
    namespace: str = ""
    partition: str = ""


def _instances(documents: Documents, document: str, problems: list[Problem]) -> Iterator[Instance]:
    for pointer, each in decode_each(documents, document, _Registered, problems):
        yield Instance(
            service=each.service_name,
            id=each.service_id,
            node=each.node,
            node_address=each.address,
            registered=each.service_address,
            port=each.service_port,
            tags=tuple(each.service_tags or ()),
            meta=each.service_meta or {},
            kind=each.service_kind,
            proxy=_proxy(each.service_kind, each.service_proxy),
            datacenter=each.datacenter,
            document=document,
            pointer=pointer,
            virtual=_virtual(each.service_tagged_addresses),
            namespace=each.namespace,
            partition=each.partition,
        )


def _proxy(kind: str, proxy: _Proxy | None) -> ProxyRegistration | None:
    if kind != "connect-proxy" or proxy is None:
        return None
    return ProxyRegistration(
        destination=proxy.destination_service_name,
        destination_id=proxy.destination_service_id,
        local_port=proxy.local_service_port,
        upstreams=tuple(
            Upstream(
                destination=upstream.destination_name,
                local_address=upstream.local_bind_address or "127.0.0.1",
                local_port=upstream.local_bind_port,
                datacenter=upstream.datacenter,
                namespace=upstream.destination_namespace,
                kind=upstream.destination_type or "service",
                protocol=setting(upstream.config, "protocol"),
                peer=upstream.destination_peer,
            )
            for upstream in proxy.upstreams or ()
        ),
        is_transparent=proxy.mode == "transparent",
        protocol=setting(proxy.config, "protocol"),
        local_address=proxy.local_service_address or "127.0.0.1",
    )


def setting(config: Mapping[str, msgspec.Raw] | None, name: str) -> str:
    """A text in an opaque `Config`, in lower case; "" for none, whatever else stands there."""
    try:
        return msgspec.json.decode((config or {}).get(name, b'""'), type=str).lower()
    except NOT_JSON:
        return ""


def _virtual(tagged: Mapping[str, _Tagged] | None) -> tuple[str, int] | None:
    """`virtual` is given by hand or by Kubernetes, `consul-virtual` by Consul itself."""
    for name in ("consul-virtual", "virtual"):
        found = (tagged or {}).get(name)
        if found is not None and found.address:
            return found.address, found.port
    return None


class _AgentService(msgspec.Struct, rename="pascal", gc=False):
    """`GET /v1/agent/services`: {"web-sidecar-proxy": {"Kind": "connect-proxy", ...}}."""

    service: str = ""
    kind: str = ""
    address: str = ""
    port: int = 0
    tags: list[str] | None = None
    meta: dict[str, str] | None = None
    proxy: _Proxy | None = None


def _agent_proxies(documents: Documents, problems: list[Problem]) -> Iterator[Instance]:
    found = decode_if_there(documents, AGENT_SERVICES, dict[str, msgspec.Raw], problems) or {}
    for service_id, raw in sorted(found.items()):
        pointer = f"/{pointer_token(service_id)}"
        try:
            each = decode_bytes(f"{AGENT_SERVICES}#{pointer}", bytes(raw), _AgentService)
        except DecodeError as error:
            problems.append(error.as_problem)
            continue
        if not each.kind:
            continue
        yield Instance(
            service=each.service,
            id=service_id,
            node="",
            node_address="",
            registered=each.address,
            port=each.port,
            tags=tuple(each.tags or ()),
            meta=each.meta or {},
            kind=each.kind,
            proxy=_proxy(each.kind, each.proxy),
            datacenter="",
            document=AGENT_SERVICES,
            pointer=pointer,
        )


class _Check(msgspec.Struct, rename="pascal", gc=False):
    check_id: str = msgspec.field(default="", name="CheckID")
    name: str = ""
    status: str = ""
    output: str = ""
    service_id: str = msgspec.field(default="", name="ServiceID")
    node: str = ""


class _HealthService(msgspec.Struct, gc=False):
    id: str = msgspec.field(default="", name="ID")


class _Health(msgspec.Struct, rename="pascal", gc=False):
    service: _HealthService = msgspec.field(default_factory=_HealthService)
    checks: list[_Check] | None = None


def _checks(
    documents: Documents, problems: list[Problem]
) -> Mapping[str, tuple[HealthCheck, ...]]:
    """Health checks by instance id; the node's own checks count for each of its instances.

    Ids are unique on one agent only: instances that share one have their checks together.
    """
    found: dict[str, tuple[HealthCheck, ...]] = {}
    for document in documents.names(_HEALTH):
        try:
            for _, entry in decode_each(documents, document, _Health, problems):
                found[entry.service.id] = found.get(entry.service.id, ()) + tuple(
                    HealthCheck(
                        check.check_id,
                        check.name,
                        check.status,
                        check.output,
                        check.service_id,
                        check.node,
                    )
                    for check in entry.checks or ()
                )
        except DecodeError as error:
            problems.append(error.as_problem)
    return found
