"""MD702: an upstream names a service that no catalogue has."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.connect import ConsulConnect
from meshdoctor.evidence.consul import SERVICES, ConsulCatalog
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
from meshdoctor.kinds.consul_connect import leads_to
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.spelling import Spelling
from meshdoctor_checks.upstreams import Held, definition, redefine, upstreams
from meshdoctor_checks.wording import count, listing, verb


@check(
    code="MD702",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD405", "MD402", "MD603"),
    kinds=(Kind.CONSUL_CONNECT,),
)
def upstream_not_registered(
    mesh: Mesh, catalog: ConsulCatalog, connect: ConsulConnect | None
) -> Iterator[Finding | Fact]:
    """An upstream names a service that is not registered in Consul.

    ## Why it matters

    Consul does not refuse it: the proxy gets a listener and a cluster without endpoints. Calls
    end there, with 503 or a closed connection, as if the service were down.

    ## How it is found

    The name in the registration of a proxy's upstream is compared with the services of the
    catalogue. Names that a resolver, router or splitter sends on to others are left out, and so
    are upstreams in other datacenters, namespaces and peers.

    ## How to fix it

    Correct the name, or register the service.
    """
    if any(each.document.startswith("consul/catalog/") for each in catalog.problems):
        raise CannotLookError("a part of Consul's catalogue is damaged")
    checked = [each for each in upstreams(mesh) if each.is_here]
    known = {name for name in catalog.services if name not in catalog.unread} | {
        each.service for each in (*catalog.instances, *catalog.agent)
    }
    missing: dict[str, list[Held]] = defaultdict(list)
    for each in checked:
        name = each.upstream.destination
        sent_on = connect is not None and leads_to(name, connect)
        if name not in known and name not in catalog.unread and not sent_on:
            missing[name].append(each)
    if missing and catalog.hidden:
        raise CannotLookError(
            f"whether {listing(sorted(missing), most=4)} {verb(len(missing), 'is', 'are')} "
            f"registered is not shown: {catalog.hidden}"
        )
    spelling = Spelling([service.name for service in mesh.applications], cutoff=0.6)
    for name, them in sorted(missing.items()):
        yield _finding(mesh, name, them, spelling.nearest(name))
    if checked and not missing:
        number = len(checked)
        yield Fact(
            f"{count(number, 'upstream')} {verb(number, 'names', 'name')} services that are "
            "registered"
        )


def _finding(mesh: Mesh, name: str, them: Sequence[Held], near: str) -> Finding:
    sidecars = list(dict.fromkeys(each.sidecar for each in them))
    callers = list(dict.fromkeys(each.service for each in them))
    hint = f"; {near} is, which may be meant" if near else ""
    return Finding(
        message=(
            f"The upstream {name} of {listing(sidecars)} names a service that is not registered "
            f"in Consul{hint}."
        ),
        subjects=(
            Subject(SubjectKind.SERVICE, name),
            *subjects(SubjectKind.INSTANCE, dict.fromkeys(each.instance.id for each in them)),
            *dict.fromkeys(subject for each in them for subject in each.listeners),
        ),
        seen_in=(
            *(each.proof(f"{each.service} has the upstream {name}") for each in them),
            Citation(
                SERVICES,
                "",
                proofs.shorten(
                    f"registered: {listing([each.name for each in mesh.applications], most=8)}"
                ),
            ),
        ),
        remedies=_remedies(name, near, them, callers),
    )


def _remedies(
    name: str, near: str, them: Sequence[Held], callers: Sequence[str]
) -> tuple[Remedy, ...]:
    registering = Remedy(
        summary=f"Register {name} with a sidecar, where it should be there.",
        commands=(
            commands.quoted("consul", "services", "register", f"{name}.hcl"),
            commands.see_that_it_worked("MD702", "MD405"),
        ),
        effect="Consul gives its sidecar to the callers as an endpoint.",
    )
    if not near:
        return (registering,)
    correcting = tuple(
        redefine(
            caller,
            "\n".join(
                f"-  {definition(each.upstream)}\n"
                f"+  {definition(each.upstream, destination_name=_quoted(near))}"
                for each in them
                if each.service == caller
            ),
            f"Where {near} is meant, correct the name in the definition of {caller}.",
            "MD702",
            "MD405",
        )
        for caller in callers
    )
    return (*correcting, registering)


def _quoted(name: str) -> str:
    return f'"{name}"'
