"""MD704: a call that an upstream is there for is denied by an intention."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.connect import ConsulConnect, Intention
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
from meshdoctor.kinds.consul_connect import intention_for, leads_to
from meshdoctor.topology import Mesh
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.upstreams import Held, upstreams, workloads_of
from meshdoctor_checks.wording import count, listing, verb

_MOST_PROOFS = 6


@check(
    code="MD704",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD402", "MD603"),
    kinds=(Kind.CONSUL_CONNECT,),
)
def intention_denies(mesh: Mesh, connect: ConsulConnect) -> Iterator[Finding | Fact]:
    """An intention, or the default, denies calls that an upstream is there for.

    ## Why it matters

    Consul writes intentions into the proxy of the service that is called. A caller that is denied
    connects to its own proxy all the same and is cut off then, or gets 403: it looks like a fault
    of the network, or of the service.

    ## How it is found

    For each upstream of a registered proxy, the intention that decides is the first, by Consul's
    precedence, whose source and destination are the two services or `*`. Where none is about
    them, the default of the agent decides, which follows its ACLs. Intentions that decide by
    request are no finding: somebody chose which requests to allow. Where Consul's ACLs hide some
    intentions, only those for the very two services are judged. An intention that denies what no
    upstream asks for is told as an information.

    ## How to fix it

    Where the call is meant, allow it: `consul intention create -allow SOURCE DESTINATION`. Where
    it is not, take the upstream out of the service's definition.
    """
    if connect.intentions is None:
        raise CannotLookError(
            "Consul's intentions could not be read",
            "give a token that may read intentions (intentions = read for each service)",
        )
    held = [
        each
        for each in upstreams(mesh)
        # Where Consul sends the call on, the intention of the service that it reaches decides.
        if each.is_here and not leads_to(each.upstream.destination, connect)
    ]
    denied, unsure = _denied(held, connect, connect.intentions)
    for deciding, them in denied.items():
        yield _finding(mesh, deciding, them)
    asked = {_pair(each) for each in held}
    for each in connect.intentions:
        pair = (each.source, each.destination)
        known = all(service in mesh.services for service in pair)
        if each.action == "deny" and known and pair not in asked:
            yield _unasked(each)
    if unsure:
        what = (
            "an intention that is not shown" if connect.are_filtered else "a default, not known,"
        )
        yield Fact(f"{count(unsure, 'upstream')} whose calls only {what} decides")
    if len(held) > unsure and not denied:
        yield Fact(f"intentions allow the calls of {count(len(held) - unsure, 'upstream')}")


def _pair(held: Held) -> tuple[str, str]:
    return held.service, held.upstream.destination


def _denied(
    held: Sequence[Held], connect: ConsulConnect, intentions: Sequence[Intention]
) -> tuple[Mapping[Intention | None, Sequence[Held]], int]:
    """The upstreams that are denied, by what decides, and of how many nobody can tell."""
    denied: dict[Intention | None, list[Held]] = defaultdict(list)
    unsure = 0
    for each in held:
        deciding = intention_for(intentions, *_pair(each))
        if connect.are_filtered and not _is_exactly(deciding, _pair(each)):
            # A narrower one may be among those that are not shown.
            unsure += 1
        elif deciding is None and connect.allows_by_default is None:
            unsure += 1
        elif _denies(deciding, connect):
            denied[deciding].append(each)
    return denied, unsure


def _denies(deciding: Intention | None, connect: ConsulConnect) -> bool:
    if deciding is None:
        return connect.allows_by_default is False
    return deciding.action == "deny"


def _finding(mesh: Mesh, deciding: Intention | None, them: Sequence[Held]) -> Finding:
    pairs = list(dict.fromkeys(map(_pair, them)))
    calls = listing([f"{source} to {service}" for source, service in pairs], most=4)
    number = len(pairs)
    why = (
        f"no intention is about {verb(number, 'it', 'them')}, and Consul denies by default"
        if deciding is None
        else f"the intention {deciding.name} denies {verb(number, 'it', 'them')}"
    )
    callers = dict.fromkeys(
        workload.name for each in them for workload in workloads_of(mesh, each.service)
    )
    return Finding(
        message=(
            f"The {verb(number, 'call', 'calls')} from {calls}, for which "
            f"{verb(number, 'an upstream is', 'upstreams are')} there, "
            f"{verb(number, 'is', 'are')} denied: {why}."
        ),
        subjects=(
            *(() if deciding is None else (_rule(deciding),)),
            *subjects(SubjectKind.SERVICE, dict.fromkeys(service for _, service in pairs)),
            *subjects(SubjectKind.WORKLOAD, callers),
            *dict.fromkeys(subject for each in them for subject in each.listeners),
        ),
        seen_in=(
            *(() if deciding is None else (_proof(deciding),)),
            *(
                each.proof(f"{each.service} has the upstream {each.upstream.destination}")
                for each in them[:_MOST_PROOFS]
            ),
        ),
        remedies=(_allow(deciding, pairs), _drop(them)),
    )


def _unasked(deciding: Intention) -> Finding:
    return Finding(
        message=(
            f"The intention {deciding.name} denies calls from {deciding.source} to "
            f"{deciding.destination}, for which no upstream is there."
        ),
        subjects=(_rule(deciding),),
        seen_in=(_proof(deciding),),
        remedies=(
            Remedy(
                summary="Nothing is to be done where that is meant; see what decides.",
                commands=(
                    commands.quoted(
                        "consul", "intention", "check", deciding.source, deciding.destination
                    ),
                ),
                effect="Changes nothing.",
            ),
        ),
        severity=Severity.INFO,
    )


def _rule(deciding: Intention) -> Subject:
    return Subject(SubjectKind.RULE, f"service-intentions/{deciding.destination}")


def _proof(deciding: Intention) -> Citation:
    return Citation(
        deciding.document,
        deciding.pointer,
        proofs.shorten(f"{deciding.name}: {deciding.action}, precedence {deciding.precedence}"),
    )


def _allow(deciding: Intention | None, pairs: Sequence[tuple[str, str]]) -> Remedy:
    number = len(pairs)
    creating = tuple(
        commands.quoted(
            *("consul", "intention", "create"),
            *(("-replace",) if _is_exactly(deciding, pair) else ()),
            *("-allow", *pair),
        )
        for pair in pairs
    )
    return Remedy(
        summary=f"Where {verb(number, 'the call is', 'the calls are')} meant, allow "
        f"{verb(number, 'it', 'them')}: a narrower intention comes before a wider one.",
        commands=(*creating, commands.see_that_it_worked("MD704", "MD402")),
        effect="Consul tells the proxies of the services that are called within seconds.",
    )


def _is_exactly(deciding: Intention | None, pair: tuple[str, str]) -> bool:
    return deciding is not None and (deciding.source, deciding.destination) == pair


def _drop(them: Sequence[Held]) -> Remedy:
    services = list(dict.fromkeys(each.service for each in them))
    lines = "\n".join(
        f"# in {each.service}.hcl, of its upstreams\n"
        f'-  {{ destination_name = "{each.upstream.destination}" }}'
        for each in them
    )
    return Remedy(
        summary=(
            f"Where {verb(len(them), 'it is', 'they are')} not, take the "
            f"{verb(len(them), 'upstream', 'upstreams')} out of the "
            f"{verb(len(services), 'definition', 'definitions')} of {listing(services)} instead."
        ),
        commands=tuple(
            commands.quoted("consul", "services", "register", f"{each}.hcl") for each in services
        ),
        patch=lines,
        effect="The proxy no longer listens there; the application's calls are refused at once.",
    )
