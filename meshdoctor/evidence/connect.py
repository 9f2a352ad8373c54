"""What Consul's own service mesh is told: intentions, config entries, certificate authority."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar, Final, Self

import msgspec

from meshdoctor.evidence.access import LEFT_OUT
from meshdoctor.evidence.consul import SELF, setting
from meshdoctor.evidence.interface import (
    Documents,
    MissingEvidenceError,
    Problem,
    decode_each_if_there,
    decode_if_there,
)

INTENTIONS: Final = "consul/connect/intentions.json"
ROOTS: Final = "consul/connect/ca/roots.json"
_LISTED: Final = "consul/connect/"
"""What collectors call missing where Consul said that it left out intentions."""
_CONFIG: Final = "consul/config/"
_OWN_NAMESPACE: Final = frozenset({"", "default", "*"})
"""The only one there is without Consul Enterprise."""


class Intention(msgspec.Struct, frozen=True):
    """Who may call whom; `*` is everybody. `action` is "" where `permissions` decide by request.

    `permissions` are the actions of the rules for requests, in order. The higher precedence
    decides.
    """

    source: str
    destination: str
    action: str
    permissions: tuple[str, ...]
    precedence: int
    document: str
    pointer: str

    @property
    def name(self) -> str:
        """As Consul's own command has it: `web => api`."""
        return f"{self.source} => {self.destination}"


class ConfigEntry(msgspec.Struct, frozen=True):
    """One config entry, as far as it tells protocols and where calls are sent on to.

    `protocol` is "" where it names none. `leads_to` are the services that a router, splitter or
    resolver sends calls to instead of the service it is for, or besides; `subsets` those that a
    resolver defines, `wanted` the (service, subset) pairs that an entry asks for. `leads_away`
    names another datacenter or peer that calls may be sent to, "" for none.
    """

    kind: str
    name: str
    protocol: str
    leads_to: tuple[str, ...]
    subsets: tuple[str, ...]
    wanted: tuple[tuple[str, str], ...]
    document: str
    pointer: str
    leads_away: str = ""

    @property
    def rule(self) -> str:
        """`kind/name`, as reports name it."""
        return f"{self.kind}/{self.name}"


class Root(msgspec.Struct, frozen=True):
    """A root certificate of Consul's certificate authority; times in RFC 3339."""

    name: str
    serial: int
    active: bool
    not_after: str
    pointer: str


class ConsulConnect(msgspec.Struct, frozen=True):
    """What Consul was told of its mesh.

    `intentions` are None where they could not be read, and not all where they `are_filtered` by
    ACLs; `entries` hold the kinds that could be.
    `allows_by_default` is None where the agent did not tell; `supported_envoys` are the versions
    that it says it supports, the newest first. `agent` is the node of the agent that was asked,
    and `plain_port` where it gives Envoys their configuration without TLS; "" and 0 where it did
    not tell.
    """

    title: ClassVar[str] = "the configuration of Consul's service mesh"
    hint: ClassVar[str] = (
        "point meshdoctor at a Consul of 1.8 or later, with a token that may read intentions and "
        "services"
    )

    intentions: tuple[Intention, ...] | None
    entries: Mapping[str, tuple[ConfigEntry, ...]]
    roots: tuple[Root, ...]
    trust_domain: str
    allows_by_default: bool | None
    supported_envoys: tuple[str, ...]
    agent: str
    plain_port: int
    problems: tuple[Problem, ...]
    are_filtered: bool = False

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Decode them. Raises MissingEvidenceError where there is none at all."""
        problems: list[Problem] = []
        own = decode_if_there(documents, SELF, _Self, problems)
        roots = decode_if_there(documents, ROOTS, _Roots, problems)
        intentions = _intentions(documents, problems)
        entries = dict(_entries(documents, problems))
        if own is None and roots is None and intentions is None and not entries:
            tried = [
                each
                for each in documents.missing("consul/")
                if each.document.startswith(("consul/connect", "consul/config"))
            ]
            reason = tried[0].message if tried else "none of it was recorded"
            raise MissingEvidenceError(reason, cls.hint)
        return cls(
            intentions=intentions,
            entries=MappingProxyType(entries),
            roots=() if roots is None else tuple(_root(roots, n) for n in range(len(roots.roots))),
            trust_domain="" if roots is None else roots.trust_domain,
            allows_by_default=None if own is None else _allows(own),
            supported_envoys=()
            if own is None
            else tuple(own.xds.supported_proxies.get("envoy") or ()),
            agent="" if own is None else own.config.node_name,
            # -1 where there is none. Older agents have one port, and do not tell of its TLS.
            plain_port=0 if own is None else max(0, own.xds.ports.plaintext),
            problems=tuple(problems),
            are_filtered=any(
                each.document == _LISTED and each.message.startswith(LEFT_OUT)
                for each in documents.missing(_LISTED)
            ),
        )

    def entry(self, kind: str, name: str) -> ConfigEntry | None:
        """The entry of that kind and name."""
        return next((each for each in self.entries.get(kind, ()) if each.name == name), None)


# ---------------------------------------------------------------- the agent itself


class _Resolver(msgspec.Struct, gc=False):
    policy: str = msgspec.field(default="", name="ACLDefaultPolicy")
    enabled: bool = msgspec.field(default=False, name="ACLsEnabled")


class _Debug(msgspec.Struct, gc=False):
    resolver: _Resolver = msgspec.field(default_factory=_Resolver, name="ACLResolverSettings")
    # Before Consul 1.10 they stood here.
    policy: str = msgspec.field(default="", name="ACLDefaultPolicy")
    enabled: bool = msgspec.field(default=False, name="ACLsEnabled")
    # Since Consul 1.17.
    intention_policy: str = msgspec.field(default="", name="DefaultIntentionPolicy")


class _Ports(msgspec.Struct, rename="pascal", gc=False):
    plaintext: int = 0


class _Xds(msgspec.Struct, gc=False):
    supported_proxies: dict[str, list[str] | None] = msgspec.field(
        default_factory=dict, name="SupportedProxies"
    )
    ports: _Ports = msgspec.field(default_factory=_Ports, name="Ports")


class _Config(msgspec.Struct, rename="pascal", gc=False):
    node_name: str = ""


class _Self(msgspec.Struct, gc=False):
    """`GET /v1/agent/self`: {"xDS": {"SupportedProxies": {"envoy": ["1.24.12", ...]}}, ...}."""

    debug: _Debug | None = msgspec.field(default=None, name="DebugConfig")
    xds: _Xds = msgspec.field(default_factory=_Xds, name="xDS")
    config: _Config = msgspec.field(default_factory=_Config, name="Config")


def _allows(own: _Self) -> bool | None:
    """Whether calls that no intention is about are allowed: as the ACLs' default, unless said."""
    debug = own.debug
    if debug is None:
        return None
    if debug.intention_policy:
        return debug.intention_policy == "allow"
    if not (debug.resolver.enabled or debug.enabled):
        return True
    policy = debug.resolver.policy or debug.policy
    return policy == "allow" if policy else None


# ---------------------------------------------------------------- roots


class _Root(msgspec.Struct, rename="pascal", gc=False):
    name: str = ""
    serial_number: int = 0
    active: bool = False
    not_after: str = ""


class _Roots(msgspec.Struct, rename="pascal", gc=False):
    trust_domain: str = ""
    roots: list[_Root] = []


def _root(written: _Roots, place: int) -> Root:
    each = written.roots[place]
    return Root(each.name, each.serial_number, each.active, each.not_after, f"/Roots/{place}")


# ---------------------------------------------------------------- intentions


class _Permission(msgspec.Struct, rename="pascal", gc=False):
    action: str = ""


class _Intention(msgspec.Struct, gc=False):
    """`GET /v1/connect/intentions`: [{"SourceName": "web", "Action": "deny", ...}]."""

    source: str = msgspec.field(default="", name="SourceName")
    source_namespace: str = msgspec.field(default="", name="SourceNS")
    source_peer: str = msgspec.field(default="", name="SourcePeer")
    destination: str = msgspec.field(default="", name="DestinationName")
    destination_namespace: str = msgspec.field(default="", name="DestinationNS")
    action: str = msgspec.field(default="", name="Action")
    permissions: list[_Permission] | None = msgspec.field(default=None, name="Permissions")
    precedence: int = msgspec.field(default=0, name="Precedence")


class _Source(msgspec.Struct, rename="pascal", gc=False):
    name: str = ""
    namespace: str = ""
    peer: str = ""
    action: str = ""
    permissions: list[_Permission] | None = None
    precedence: int = 0


class _ServiceIntentions(msgspec.Struct, rename="pascal", gc=False):
    name: str = ""
    namespace: str = ""
    sources: list[_Source] | None = None


def _intentions(documents: Documents, problems: list[Problem]) -> tuple[Intention, ...] | None:
    """The list of them, else those in the config entries; the deciding ones first.

    Those of other namespaces and of peers are about services that this catalogue does not name.
    """
    found: list[Intention] = []
    listed = decode_each_if_there(documents, INTENTIONS, _Intention, problems)
    if listed is not None:
        for pointer, each in listed:
            spaces = {each.source_namespace, each.destination_namespace}
            if spaces <= _OWN_NAMESPACE and not each.source_peer:
                found.append(
                    Intention(
                        each.source,
                        each.destination,
                        each.action,
                        tuple(rule.action for rule in each.permissions or ()),
                        each.precedence,
                        INTENTIONS,
                        pointer,
                    )
                )
    else:
        document = f"{_CONFIG}service-intentions.json"
        entries = decode_each_if_there(documents, document, _ServiceIntentions, problems)
        if entries is None:
            return None
        for pointer, entry in entries:
            for place, source in enumerate(entry.sources or ()):
                spaces = {entry.namespace, source.namespace}
                if spaces <= _OWN_NAMESPACE and not source.peer:
                    found.append(
                        Intention(
                            source.name,
                            entry.name,
                            source.action,
                            tuple(rule.action for rule in source.permissions or ()),
                            source.precedence,
                            document,
                            f"{pointer}/Sources/{place}",
                        )
                    )
    return tuple(sorted(found, key=lambda each: (-each.precedence, each.name)))


# ---------------------------------------------------------------- config entries


class _Target(msgspec.Struct, rename="pascal", gc=False):
    service: str = ""
    service_subset: str = ""
    datacenter: str = ""
    datacenters: list[str] | None = None
    peer: str = ""
    targets: "list[_Target] | None" = None

    @property
    def away(self) -> str:
        """Where it lies, "" for here, as far as the entry says."""
        if self.peer:
            return f"peer {self.peer}"
        datacenter = self.datacenter or next(iter(self.datacenters or ()), "")
        return f"datacenter {datacenter}" if datacenter else ""


class _Route(msgspec.Struct, rename="pascal", gc=False):
    destination: _Target | None = None


class _Entry(msgspec.Struct, rename="pascal", gc=False):
    """`GET /v1/config/service-router`: [{"Kind": "service-router", "Name": "api", ...}]."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    protocol: str = ""
    config: dict[str, msgspec.Raw] | None = None
    routes: list[_Route] | None = None
    splits: list[_Target] | None = None
    redirect: _Target | None = None
    failover: dict[str, _Target] | None = None
    default_subset: str = ""
    subsets: dict[str, msgspec.Raw] | None = None

    def sends_to(self) -> Iterator[_Target]:
        """All that it names as the next step of a call."""
        yield from (each.destination for each in self.routes or () if each.destination)
        yield from self.splits or ()
        for each in (self.redirect, *(self.failover or {}).values()):
            if each is not None:
                yield each
                yield from each.targets or ()
        if self.default_subset:
            yield _Target(self.name, self.default_subset)


def _entries(
    documents: Documents, problems: list[Problem]
) -> Iterator[tuple[str, tuple[ConfigEntry, ...]]]:
    for document in documents.names(_CONFIG):
        kind = document.removeprefix(_CONFIG).removesuffix(".json")
        written = decode_each_if_there(documents, document, _Entry, problems)
        if written is not None:
            yield (
                kind,
                tuple(
                    _entry(kind, each, document, pointer)
                    for pointer, each in written
                    if each.namespace in _OWN_NAMESPACE
                ),
            )


def _entry(kind: str, written: _Entry, document: str, pointer: str) -> ConfigEntry:
    targets = tuple(written.sends_to())
    return ConfigEntry(
        kind=kind,
        name=written.name,
        protocol=written.protocol.lower() or setting(written.config, "protocol"),
        leads_to=tuple(
            dict.fromkeys(
                each.service for each in targets if each.service not in ("", written.name)
            )
        ),
        subsets=tuple(sorted(written.subsets or ())),
        wanted=tuple(
            dict.fromkeys(
                (each.service or written.name, each.service_subset)
                for each in targets
                if each.service_subset
            )
        ),
        document=document,
        pointer=pointer,
        leads_away=next((each.away for each in targets if each.away), ""),
    )
