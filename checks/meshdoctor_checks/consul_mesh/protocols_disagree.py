"""MD706: what says which protocol a service speaks contradicts itself."""

from collections.abc import Iterator, Sequence

from meshdoctor.check import check
from meshdoctor.evidence.connect import ConsulConnect
from meshdoctor.findings import Fact, Finding, Remedy, Severity, Subject, SubjectKind
from meshdoctor.kinds import Kind
from meshdoctor.kinds.consul_connect import HTTP_PROTOCOLS, protocol_of
from meshdoctor.topology import Mesh
from meshdoctor_checks.protocol_overrides import Override, overrides
from meshdoctor_checks.upstreams import redefine
from meshdoctor_checks.wording import count, listing


@check(
    code="MD706",
    severity=Severity.WARNING,
    since="0.1",
    explains=("MD402", "MD603"),
    kinds=(Kind.CONSUL_CONNECT,),
)
def protocols_disagree(mesh: Mesh, connect: ConsulConnect) -> Iterator[Finding | Fact]:
    """Config entries, a proxy and its callers' upstreams name different protocols of one service.

    ## Why it matters

    One proxy then reads HTTP where the next sends bytes, or speaks HTTP/2 to a service that knows
    HTTP/1.1 only: calls fail with 502 or 503, or rules for requests have no effect.

    ## How it is found

    The service-defaults of a service, else the proxy-defaults, else `tcp`, is compared with the
    `protocol` in the configuration of its own proxy and of the upstreams that lead to it. Where
    a rule for requests is lost by it, MD705 says so instead.

    ## How to fix it

    Say the protocol once, in the service-defaults, and take it out of the other places.
    """
    compared = 0
    found = False
    for service in mesh.applications:
        protocol, said_by = protocol_of(service.name, connect)
        others = [each for each in overrides(mesh, service.name) if each.protocol != protocol]
        others = [each for each in others if not _loses_rules(each, connect)]
        compared += 1
        if others:
            found = True
            yield _finding(service.name, protocol, said_by, others)
    if compared and not found:
        yield Fact(f"the protocol of {count(compared, 'service')} is the same wherever it is said")


def _loses_rules(override: Override, connect: ConsulConnect) -> bool:
    """Whether it keeps rules for requests from being applied."""
    if override.protocol in HTTP_PROTOCOLS:
        return False
    if override.is_upstream:
        return any(
            connect.entry(kind, override.of) for kind in ("service-router", "service-splitter")
        )
    return any(
        each.permissions and each.destination == override.of for each in connect.intentions or ()
    )


def _finding(service: str, protocol: str, said_by: str, others: Sequence[Override]) -> Finding:
    said = listing([f"{each.protocol} by {each.where}" for each in others], most=4)
    default = f"by {said_by}" if said_by else "by default"
    return Finding(
        message=f"The protocol of {service} is {protocol} {default}, and {said}.",
        subjects=(
            Subject(SubjectKind.SERVICE, service),
            *dict.fromkeys(subject for each in others for subject in each.subjects),
        ),
        seen_in=tuple(each.proof for each in others),
        remedies=tuple(map(_remedy, others)),
    )


def _remedy(override: Override) -> Remedy:
    return redefine(
        override.service,
        f'# {override.place}\n-  config {{ protocol = "{override.protocol}" }}',
        f"Take the protocol out of the definition of {override.service}, where the config entries "
        f"are right; else write a service-defaults entry for {override.of} that says "
        f"{override.protocol}.",
        "MD706",
    )
