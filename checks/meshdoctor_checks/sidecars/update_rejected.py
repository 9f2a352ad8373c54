"""MD308: a proxy refused configuration that it was sent."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.envoy import EnvoyProxies, RejectedUpdate
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
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing, verb

_KINDS = {
    "listener": SubjectKind.LISTENER,
    "cluster": SubjectKind.CLUSTER,
    "route": SubjectKind.ROUTE,
}


@check(code="MD308", severity=Severity.ERROR, since="0.1", explains=("MD307",))
def update_rejected(proxies: EnvoyProxies) -> Iterator[Finding | Fact]:
    """A proxy refused configuration that its control plane sent.

    ## Why it matters

    Envoy keeps what it had before, or has nothing: what was to change does not. The control plane
    often says nothing of it, and the reason stands only in the proxy.

    ## How it is found

    A listener, cluster or route configuration in the proxy's dump has an `error_state`. Its
    reason is quoted as Envoy gives it.

    ## How to fix it

    Mend what the reason names: where the configuration comes from, not in the proxy.
    """
    if not proxies.proxies:
        raise CannotLookError("no sidecar's configuration could be read")
    groups: dict[tuple[str, str, str], dict[str, list[RejectedUpdate]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for sidecar, proxy in proxies.proxies.items():
        for update in proxy.rejected:
            groups[update.kind, update.name, update.details][sidecar].append(update)
    for (kind, name, details), by_sidecar in groups.items():
        updates = [update for each in by_sidecar.values() for update in each]
        yield _finding(proxies, kind, name, details, list(by_sidecar), updates)
    if not groups:
        yield Fact(f"{count(len(proxies.proxies), 'proxy', 'proxies')} without rejected updates")


def _finding(
    proxies: EnvoyProxies,
    kind: str,
    name: str,
    details: str,
    sidecars: Sequence[str],
    updates: Sequence[RejectedUpdate],
) -> Finding:
    number = len(sidecars)
    about = [Subject(_KINDS[kind], name)] if kind in _KINDS else []
    about += [
        Subject(SubjectKind.LISTENER, update.listener.key)
        for update in updates
        if update.listener is not None
    ]
    reason = details.rstrip(".")
    return Finding(
        message=(
            f"{listing(sidecars)} {verb(number, 'refuses', 'refuse')} the {kind} {name}: "
            f"{proofs.shorten(reason)}."
        ),
        subjects=(
            *subjects(SubjectKind.SIDECAR, sidecars),
            *dict.fromkeys(about),
        ),
        seen_in=tuple(
            Citation(proxies.proxies[sidecar].document, update.pointer, proofs.shorten(details))
            for sidecar in sidecars
            for update in proxies.proxies[sidecar].rejected
            if (update.kind, update.name, update.details) == (kind, name, details)
        ),
        remedies=(
            Remedy(
                summary=(
                    "Mend the configuration that the reason names where it comes from (Consul's "
                    "registrations and config entries, or Istio's rules); the proxy takes it by "
                    "itself."
                ),
                commands=(commands.see_that_it_worked("MD308"),),
            ),
        ),
    )
