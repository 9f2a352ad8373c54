"""What VirtualServices and DestinationRules say of whom, as Pilot reads them."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from meshdoctor.evidence.consul import DNS_SUFFIX, Instance
from meshdoctor.evidence.istio import Destination, DestinationRule, IstioRules, VirtualService
from meshdoctor.findings import Citation
from meshdoctor.routing.hosts import Identity
from meshdoctor.topology import Mesh, Role, Service
from meshdoctor_checks import commands, proofs

Rule = VirtualService | DestinationRule
Step = tuple[str, str, object]
"""Of a JSON patch (RFC 6902): the operation, the place inside of the rule, the new value."""

_API_PORT: Final = 8080
_KINDS: Final = {VirtualService: "VirtualService", DestinationRule: "DestinationRule"}


# ---------------------------------------------------------------- hosts


def full_host(host: str, namespace: str) -> str:
    """The host that Pilot takes a rule's for: a name without a dot becomes Kubernetes' own.

    `ResolveShortnameToFQDN` in Istio's `pilot/pkg/model`.
    """
    host = host.lower()
    return host if "." in host or "*" in host else f"{host}.{namespace or 'default'}.svc"


def service_at(mesh: Mesh, host: str) -> Service | None:
    """The service that Pilot knows by this full host name."""
    return mesh.services.get(host.removesuffix(DNS_SUFFIX)) if host.endswith(DNS_SUFFIX) else None


def services_of(mesh: Mesh, rule: Rule, hosts: Iterable[str]) -> list[Service]:
    """The services that the rule means by these hosts, as they stand in it."""
    found = [service_at(mesh, full_host(each, rule.namespace)) for each in hosts]
    return [each for each in found if each is not None]


def covers(pattern: str, host: str) -> bool:
    """Whether a host, which may begin with `*`, stands for another."""
    return pattern == host or (pattern.startswith("*") and host.endswith(pattern[1:]))


def by_host(rules: IstioRules) -> Mapping[str, Sequence[DestinationRule]]:
    """The DestinationRules by the full host they are for; one with `*` may be for many."""
    found: dict[str, list[DestinationRule]] = {}
    for each in rules.destination_rules:
        found.setdefault(full_host(each.host, each.namespace), []).append(each)
    return found


def deciding_rules(
    rules: Mapping[str, Sequence[DestinationRule]], host: str
) -> Sequence[DestinationRule]:
    """Of those, by host, the ones whose subsets a host has: its own, else the nearest.

    Pilot joins the rules of one host, and takes the most specific host of several.
    """
    if host in rules:
        return rules[host]
    wildcards = [named for named in _wildcards(Identity(rules)) if covers(named, host)]
    return rules[max(wildcards, key=len)] if wildcards else ()


# A thousand hosts are asked for one by one.
@functools.lru_cache(maxsize=2)
def _wildcards(rules: Identity[Mapping[str, Sequence[DestinationRule]]]) -> Sequence[str]:
    return [named for named in rules.fact if named.startswith("*")]


def clusters(
    host: str, subset: str, service: Service | None, destinations: Iterable[Destination] = ()
) -> tuple[str, ...]:
    """The names of the clusters that Pilot makes of a host's subset."""
    ports = {each.port for each in destinations if each.port is not None}
    if service is not None:
        ports.update(service.ports)
    return tuple(f"outbound|{port}|{subset}|{host}" for port in sorted(ports))


def labels(instance: Instance) -> Mapping[str, str]:
    """The labels that Pilot makes of an instance's tags: `version|v1`."""
    pairs = (tag.split("|") for tag in instance.tags)
    return {pair[0]: pair[1] for pair in pairs if len(pair) > 1}


def routed(rules: IstioRules) -> Iterator[tuple[VirtualService, Destination, str, bool]]:
    """Every destination with its rule, its full host, and whether it gets any calls."""
    for rule in rules.virtual_services:
        for each, called in rule.destinations:
            yield rule, each, full_host(each.host, rule.namespace), called


# ---------------------------------------------------------------- several for one host


def seen_by_all(rule: VirtualService) -> bool:
    """Whether sidecars of every namespace get it."""
    return not rule.exported_to or "*" in rule.exported_to


def oldest(rules: Sequence[VirtualService]) -> VirtualService | None:
    """The one that counts, None where nobody tells when they were made.

    A rule that is only tried out would be made last. Kubernetes writes times that sort as text;
    of one second, Pilot takes the first by its name.
    """
    there = [each for each in rules if not each.file]
    if len(there) == 1:
        return there[0]
    if not there or not all(each.created for each in there):
        return None
    return min(there, key=lambda each: (each.created, f"{each.name}.{each.namespace}"))


# ---------------------------------------------------------------- names and proofs


def kind(rule: Rule) -> str:
    return _KINDS[type(rule)]


def subject(rule: Rule) -> str:
    """`VirtualService/reviews`."""
    return f"{kind(rule)}/{rule.name}"


def called(rule: Rule) -> str:
    """`VirtualService reviews`, and the file it is tried out from."""
    return f"{kind(rule)} {rule.name}{f' ({rule.file})' if rule.file else ''}"


def proof(rule: Rule, pointer: str, excerpt: str) -> Citation:
    """A place in a rule."""
    file, _, line = rule.file.rpartition(":")
    return Citation(
        rule.document,
        pointer,
        proofs.shorten(excerpt),
        file=file,
        line=int(line) if line.isdecimal() else 0,
    )


# ---------------------------------------------------------------- commands


def kubectl(mesh: Mesh, rule: Rule, *words: str) -> str:
    """A command for the API server of this mesh, and the namespace of a rule."""
    server = mesh.component(Role.API_SERVER)
    published = server.container.published if server is not None else ()
    ports = [each for each in published if (each.port, each.protocol) == (_API_PORT, "tcp")]
    where = [("-s", f"http://{each.local_address}:{each.host_port}") for each in ports]
    namespace = ("-n", rule.namespace) if rule.namespace else ()
    return commands.quoted("kubectl", *(where[0] if where else ()), *namespace, *words)


def change(mesh: Mesh, rule: Rule, *steps: Step) -> tuple[str, ...]:
    """The command that changes places of a rule in force, () for one that is only tried out."""
    if rule.file or not steps:
        return ()
    import json  # noqa: PLC0415

    patch = json.dumps([{"op": op, "path": path, "value": value} for op, path, value in steps])
    return (
        kubectl(mesh, rule, "patch", kind(rule).lower(), rule.name, "--type=json", f"-p={patch}"),
    )


def inside(rule: Rule, pointer: str) -> str:
    """A pointer into the document as one into the object itself: `/spec/http/0`."""
    return f"/spec{pointer.removeprefix(rule.spec)}"


def field_of(rule: Rule, destination: Destination, field: str) -> str:
    """Where in the rule a field of a destination is: a mirror's stands without a weight."""
    place = inside(rule, destination.pointer)
    return f"{place}/{field}" if place.endswith("/mirror") else f"{place}/destination/{field}"
