"""Who would have a sidecar, and whose connections would go through it."""

from collections.abc import Iterator, Sequence
from typing import Final

from meshdoctor.check import CannotLookError
from meshdoctor.evidence.docker import Container
from meshdoctor.findings import (
    Citation,
    Fact,
    Finding,
    Severity,
    Subject,
    SubjectKind,
    subjects,
)
from meshdoctor.topology import Role
from meshdoctor.topology.plan import Plan, PlannedWorkload
from meshdoctor.topology.roles import runs_envoy
from meshdoctor_checks.compose import files
from meshdoctor_checks.compose_edits import Element
from meshdoctor_checks.wording import count, listing, verb

_PRIVILEGES: Final = frozenset({"ALL", "CAP_ALL", "CAP_NET_ADMIN", "NET_ADMIN"})


def workload_without_sidecar(plan: Plan) -> Iterator[Finding | Fact]:
    """MD301, from `network_mode` of the sidecars."""
    files.require_pilot(plan)
    meant = [each for each in plan.workloads if each.has_settings]
    served = [each for each in meant if each.sidecars]
    bare = [each for each in meant if not each.sidecars]
    if not plan.sidecars and plan.component(Role.PILOT) is None:
        raise CannotLookError(
            "these files hold neither a sidecar nor Pilot", "name their files too, with --compose"
        )
    if not meant and not plan.astray:
        raise CannotLookError("these files hold no application that says anything to Registrator")
    if bare:
        yield _bare(plan, bare)
    if plan.astray:
        yield _astray(plan)
    if old := _old_names(plan):
        yield _named_by_old_compose(plan, old)
    if served and not bare:
        yield Fact(f"{count(len(served), 'application')} would have a sidecar")


def _bare(plan: Plan, bare: Sequence[PlannedWorkload]) -> Finding:
    names = [each.name for each in bare]
    number = len(names)
    forgotten = not plan.sidecars
    where = (
        ": none of these files holds a sidecar"
        if forgotten
        else f": no sidecar in these files shares {verb(number, 'its', 'their')} network namespace"
    )
    return Finding(
        message=f"{listing(names)} would run without a sidecar{where}.",
        subjects=(
            *subjects(SubjectKind.WORKLOAD, names),
            *subjects(
                SubjectKind.SERVICE,
                sorted({one.name for each in bare for one in each.expected}),
            ),
        ),
        seen_in=tuple(files.cite_service(each.service) for each in bare),
        remedies=(
            files.remedy(
                plan,
                "If the sidecars stand in another file, name it with --compose too; else give "
                f"{verb(number, 'it', 'each')} a sidecar with `network_mode: "
                f"service:{names[0]}` and an init container before it.",
            ),
        ),
        # Istio keeps them in a file of their own, which may just not have been named.
        severity=Severity.WARNING if forgotten else Severity.ERROR,
    )


def _astray(plan: Plan) -> Finding:
    names = [each.name for each in plan.astray]
    wanted = sorted({each.network_container for each in plan.astray})
    number = len(names)
    return Finding(
        message=(
            f"{listing(names)} {verb(number, 'is', 'are')} to share the network namespace of "
            f"{listing(wanted)}, and none of these files gives a container "
            f"{verb(len(wanted), 'that name', 'such a name')}."
        ),
        subjects=subjects(SubjectKind.SIDECAR, names),
        seen_in=tuple(_network_mode(plan, each) for each in plan.astray),
        remedies=(
            files.remedy(
                plan,
                "If the applications stand in another file, name it with --compose too; else "
                "correct the names.",
            ),
        ),
        severity=Severity.WARNING,
    )


def _old_names(plan: Plan) -> list[Container]:
    """Sidecars whose application is named as only Compose v1 names containers."""
    found = []
    for each in (*plan.sidecars, *(one for work in plan.workloads for one in work.inits)):
        owner = plan.files.services.get(each.network_container)
        named_by_compose = owner is not None and owner.container_name is None
        if named_by_compose and f"_{each.network_container}_" in _named(plan, each):
            found.append(each)
    return found


def _named(plan: Plan, container: Container) -> str:
    """The container that a `network_mode` names, "" where it names a service or none."""
    mode = plan.files.services[container.name].network_mode
    kind, _, name = (mode.value if mode is not None else "").partition(":")
    return name if kind == "container" else ""


def _named_by_old_compose(plan: Plan, old: Sequence[Container]) -> Finding:
    name = _named(plan, old[0])
    owner = old[0].network_container
    number = len(old)
    return Finding(
        message=(
            f"{_beside(old)} {verb(number, 'names', 'name')} "
            f"{verb(number, 'its application', 'their applications')} as Compose v1 names "
            f"containers ({name}); Compose v2 would call that one "
            f"{_in_new_style(name, owner)}, and {verb(number, 'it', 'they')} would not start."
        ),
        subjects=(
            *subjects(SubjectKind.SIDECAR, (each.name for each in old if runs_envoy(each))),
            *subjects(SubjectKind.WORKLOAD, dict.fromkeys(each.network_container for each in old)),
        ),
        seen_in=tuple(_network_mode(plan, each) for each in old),
        remedies=(
            files.remedy(
                plan,
                "Give the applications the names that the sidecars expect with "
                f"`container_name: {name}` and the like, or use docker-compose v1, or "
                "`docker compose --compatibility`.",
            ),
        ),
        severity=Severity.WARNING,
    )


def _beside(containers: Sequence[Container]) -> str:
    inits = sum(not runs_envoy(each) for each in containers)
    counts = ((len(containers) - inits, "sidecar"), (inits, "init container"))
    return listing([count(number, noun) for number, noun in counts if number])


def _in_new_style(name: str, owner: str) -> str:
    project, _, number = name.rpartition(f"_{owner}_")
    return f"{project}-{owner}-{number}"


def _network_mode(plan: Plan, container: Container) -> Citation:
    service = plan.files.services[container.name]
    if service.network_mode is None:
        return files.cite_service(service)
    return files.cite_setting("network_mode", service.network_mode)


def redirect_not_installed(plan: Plan) -> Iterator[Finding | Fact]:
    """MD303, from the init containers and their capabilities."""
    files.require_pilot(plan)
    judged = [each for each in plan.workloads if each.sidecars]
    if not judged:
        raise CannotLookError("in these files no application has a sidecar")
    without = [each for each in judged if not each.inits]
    powerless = [each for each in judged if each.inits and not any(map(_may_redirect, each.inits))]
    if without:
        yield _without_init(plan, without)
    if powerless:
        yield _without_capability(plan, powerless)
    if not without and not powerless:
        yield Fact(
            f"{count(len(judged), 'application')} would have the redirect to Envoy installed"
        )


def _may_redirect(init: Container) -> bool:
    return init.privileged or bool(_PRIVILEGES & {each.upper() for each in init.capabilities})


def _without_init(plan: Plan, without: Sequence[PlannedWorkload]) -> Finding:
    names = [each.name for each in without]
    number = len(names)
    return Finding(
        message=(
            f"Nothing would send the connections of {listing(names)} through "
            f"{verb(number, 'its sidecar', 'their sidecars')}: no init container in these files "
            f"shares {verb(number, 'its', 'their')} network namespace."
        ),
        subjects=_subjects(without),
        seen_in=tuple(files.cite_service(each.service) for each in without),
        remedies=(
            files.remedy(
                plan,
                f"Give {verb(number, 'it', 'each')} an init container (proxy_init) with "
                f"`network_mode: service:{names[0]}` and the capability NET_ADMIN.",
            ),
        ),
    )


def _without_capability(plan: Plan, powerless: Sequence[PlannedWorkload]) -> Finding:
    inits = [plan.files.services[each.name] for workload in powerless for each in workload.inits]
    names = [each.name for each in inits]
    change = files.change(plan, inits, Element("cap_add", "NET_ADMIN", first=True))
    number = len(names)
    return Finding(
        message=(
            f"{listing(names)} {verb(number, 'lacks', 'lack')} the capability NET_ADMIN and would "
            f"fail, so the connections of {listing([each.name for each in powerless])} would not "
            f"go through {verb(len(powerless), 'its sidecar', 'their sidecars')}."
        ),
        subjects=_subjects(powerless),
        seen_in=tuple(files.cite_service(each) for each in inits),
        remedies=(files.remedy(plan, f"Give {listing(names)} the capability NET_ADMIN.", change),),
    )


def _subjects(workloads: Sequence[PlannedWorkload]) -> tuple[Subject, ...]:
    return (
        *subjects(SubjectKind.WORKLOAD, (each.name for each in workloads)),
        *subjects(SubjectKind.SIDECAR, (one.name for each in workloads for one in each.sidecars)),
    )
