"""MD602: the name of a service does not resolve where it is called."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.probe import AddressSource, Probed, ProbeResults
from meshdoctor.findings import (
    Citation,
    Fact,
    Finding,
    Remedy,
    Severity,
    SubjectKind,
    subjects,
)
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing, verb


@check(code="MD602", severity=Severity.ERROR, since="0.1")
def name_not_resolved(mesh: Mesh, results: ProbeResults) -> Iterator[Finding | Fact]:
    """The name of a service does not resolve in the caller's network namespace.

    ## Why it matters

    An application that gets no address for a name never makes its call: no proxy sees it, and
    the application's own log is the only place that tells.

    ## How it is found

    `meshdoctor probe` resolves each callee's name with the caller's own `/etc/hosts`,
    `/etc/resolv.conf` and name servers. Where a name gives nothing, the request is sent to the
    address that Consul has for the service, so that the rest of its way is seen as well; the
    application itself would not have come so far.

    ## How to fix it

    Consul's DNS must answer where the container's name server looks for it (in Istio's Compose
    files `DOCKER_GATEWAY` decides that), and the container's search domain must be
    `service.consul` for short names to work.
    """
    named = [each for each in results.sent if each.request.name]
    if not named:
        raise CannotLookError("no request named its callee: they go to addresses of their own")
    callers: dict[str, list[Probed]] = defaultdict(list)
    for each in named:
        if each.request.addresses_from is not AddressSource.NAME:
            callers[each.request.name].append(each)
    # Where all names of the same callers fail, it is one fault.
    alike: dict[frozenset[str], list[Probed]] = defaultdict(list)
    for failed in callers.values():
        alike[frozenset(each.caller for each in failed)].extend(failed)
    asked = {each.caller for each in named}
    for failed in alike.values():
        yield _finding(mesh, failed, len(asked))
    good = sum(each.request.addresses_from is AddressSource.NAME for each in named)
    yield Fact(f"{good} of {count(len(named), 'name')} resolve where they are called")


def _finding(mesh: Mesh, failed: Sequence[Probed], asked: int) -> Finding:
    names = sorted({each.request.name for each in failed})
    callers = sorted({each.caller for each in failed})
    if len(callers) == asked > 1:
        fails = f"{verb(len(names), 'resolves', 'resolve')} in none of the {asked} callers"
    else:
        fails = f"{verb(len(names), 'does', 'do')} not resolve in {listing(callers, most=3)}"
    reasons = sorted({each.request.resolution for each in failed} - {""})
    why = f" ({proofs.shorten(reasons[0])})" if reasons else ""
    return Finding(
        message=(
            f"The {verb(len(names), 'name', 'names')} {listing(names)} {fails}{why}; "
            "the probe went to Consul's addresses instead."
        ),
        subjects=(
            *subjects(SubjectKind.WORKLOAD, callers),
            *subjects(SubjectKind.SERVICE, sorted({each.request.callee for each in failed})),
        ),
        seen_in=tuple(
            Citation(
                each.document,
                f"{each.pointer}/resolution",
                proofs.shorten(each.request.resolution),
            )
            for each in failed[:12]
        ),
        remedies=_remedies(mesh, callers[0]),
    )


def _remedies(mesh: Mesh, caller: str) -> tuple[Remedy, ...]:
    containers = [each.container for each in mesh.workloads if each.name == caller]
    container = next((each for each in containers if each is not None), None)
    if container is None:
        return ()
    servers = listing(container.dns) or "the engine's own name servers"
    search = listing(container.dns_search)
    looks = f"{servers}, with the search domain {search}" if search else servers
    return (
        Remedy(
            summary=(f"See that a DNS server answers where {caller} looks for one: {looks}."),
            commands=(
                commands.quoted("docker", "exec", container.name, "cat", "/etc/resolv.conf"),
                commands.quoted("docker", "ps", "--filter", "publish=53/udp"),
            ),
            effect=(
                "Shows what the container asks and which container publishes DNS; changes nothing."
            ),
        ),
    )
