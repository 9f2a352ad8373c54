"""MD705: rules for requests, for a service that Consul or a proxy takes for TCP."""

from collections.abc import Iterator, Sequence

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.connect import ConsulConnect
from meshdoctor.findings import (
    Citation,
    Fact,
    Finding,
    Remedy,
    Severity,
    Subject,
    SubjectKind,
    subjects,
)
from meshdoctor.kinds import Kind
from meshdoctor.kinds.consul_connect import HTTP_PROTOCOLS, protocol_of
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands
from meshdoctor_checks.protocol_overrides import Override, overrides
from meshdoctor_checks.upstreams import redefine
from meshdoctor_checks.wording import count, listing, verb

_ROUTING = ("service-router", "service-splitter")


class _Rule(msgspec.Struct, frozen=True):
    """A rule that reads requests; `caller` is "" where it holds for all, `*` for everybody."""

    name: str
    service: str
    proof: Citation
    caller: str = ""

    @property
    def is_intention(self) -> bool:
        """It is enforced by the proxy of the service that is called, not by the caller's."""
        return bool(self.caller)


@check(
    code="MD705",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD402", "MD603"),
    kinds=(Kind.CONSUL_CONNECT,),
)
def protocol_left_at_tcp(mesh: Mesh, connect: ConsulConnect) -> Iterator[Finding | Fact]:
    """Rules for requests are written for a service whose protocol is TCP.

    ## Why it matters

    A proxy that takes a service for TCP cannot read its requests. A router or splitter has no
    effect there, and an intention that decides by request denies every call.

    ## How it is found

    There is a service-router, a service-splitter, or an intention with permissions for a service
    whose protocol is not HTTP: by its service-defaults, else by the proxy-defaults, else `tcp`.
    Or it is HTTP, and the `protocol` in the configuration of the proxy that would apply the rule
    says otherwise: for routers and splitters that of a caller's upstream, for intentions that of
    the service's own proxy.

    ## How to fix it

    Set the protocol in a service-defaults entry, and take out the setting that contradicts it.
    """
    rules = tuple(_rules(connect))
    if not rules:
        if connect.intentions is None and not connect.entries:
            raise CannotLookError("neither intentions nor config entries could be read")
        yield Fact("no rule for requests that a protocol could stand in the way of")
        return
    found = False
    for service in dict.fromkeys(each.service for each in rules):
        its = [each for each in rules if each.service == service]
        protocol, said_by = protocol_of(service, connect)
        if protocol not in HTTP_PROTOCOLS:
            found = True
            yield _left(service, its, protocol, said_by)
            continue
        for each in overrides(mesh, service):
            hit = [rule for rule in its if each.is_upstream is not rule.is_intention]
            if each.protocol not in HTTP_PROTOCOLS and hit:
                found = True
                yield _overridden(service, hit, each)
    if not found:
        number = len(rules)
        yield Fact(f"{count(number, 'rule')} for requests, all to services that are HTTP")


def _rules(connect: ConsulConnect) -> Iterator[_Rule]:
    for kind in _ROUTING:
        for entry in connect.entries.get(kind, ()):
            yield _Rule(
                entry.rule, entry.name, Citation(entry.document, entry.pointer, entry.rule)
            )
    for each in connect.intentions or ():
        if each.permissions and each.destination != "*":
            yield _Rule(
                f"service-intentions/{each.destination}",
                each.destination,
                Citation(each.document, each.pointer, f"{each.name}, with permissions"),
                caller=each.source,
            )


def _left(service: str, rules: Sequence[_Rule], protocol: str, said_by: str) -> Finding:
    names = list(dict.fromkeys(each.name for each in rules))
    why = f"by {said_by}" if said_by else "because nothing says otherwise"
    return Finding(
        message=(
            f"{listing(names)} {verb(len(names), 'is', 'are')} for requests to {service}, whose "
            f"protocol is {protocol} {why}: proxies cannot apply {verb(len(names), 'it', 'them')}."
        ),
        subjects=_subjects(service, names),
        seen_in=tuple(each.proof for each in rules),
        remedies=(
            Remedy(
                summary=f"Say in its service-defaults that {service} speaks HTTP.",
                commands=(
                    commands.quoted("consul", "config", "write", f"{service}-defaults.hcl"),
                    commands.see_that_it_worked("MD705"),
                ),
                patch=(
                    f"# {service}-defaults.hcl\n"
                    '+Kind     = "service-defaults"\n'
                    f'+Name     = "{service}"\n'
                    '+Protocol = "http"'
                ),
                effect=(
                    "Consul gives the proxies of the service and of its callers HTTP listeners "
                    "within seconds; the entry that is written replaces an old one whole."
                ),
            ),
        ),
    )


def _overridden(service: str, rules: Sequence[_Rule], override: Override) -> Finding:
    names = list(dict.fromkeys(each.name for each in rules))
    number = len(names)
    effect = (
        f"{verb(number, 'has', 'have')} no effect on its calls"
        if override.is_upstream
        else f"{verb(number, 'denies', 'deny')} every call instead"
    )
    return Finding(
        message=(
            f"{listing(names)} {verb(number, 'is', 'are')} for requests to {service}, and "
            f"{override.where} is told that its protocol is {override.protocol}: "
            f"{verb(number, 'the rule', 'the rules')} {effect}."
        ),
        subjects=(*_subjects(service, names), *override.subjects),
        seen_in=(override.proof, *(each.proof for each in rules)),
        remedies=(without(override, "MD705", "MD402"),),
    )


def without(override: Override, *codes: str) -> Remedy:
    """Take the setting out of the definition."""
    return redefine(
        override.service,
        f'# {override.place}\n-  config {{ protocol = "{override.protocol}" }}',
        f"Take the protocol out of the definition of {override.service}: Consul then goes by the "
        "service-defaults.",
        *codes,
    )


def _subjects(service: str, names: Sequence[str]) -> tuple[Subject, ...]:
    return (
        Subject(SubjectKind.SERVICE, service),
        *subjects(SubjectKind.RULE, names),
    )
