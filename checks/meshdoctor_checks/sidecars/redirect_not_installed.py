"""MD303: connections of an application are not sent through its sidecar."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.evidence.netfilter import NatRule, NatTable, NetfilterRules
from meshdoctor.evidence.times import moment
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import PROXY_UID
from meshdoctor.topology import Mesh, SidecarState, Workload
from meshdoctor_checks import commands, proofs, states
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.compose_edits import Element
from meshdoctor_checks.wording import count, listing

_NOT_FOR_WANT_OF_RIGHTS: Final = frozenset({125, 126, 127, 137, 143})
"""Exit codes of a program that was not found, not allowed to run, or killed."""

_PRIVILEGES: Final = frozenset({"ALL", "CAP_ALL", "CAP_NET_ADMIN", "NET_ADMIN"})

_EFFECT: Final = "Connections made from then on go through Envoy; open ones stay as they are."


class _Fault(msgspec.Struct, frozen=True):
    """What is wrong with one workload's redirect, and the nat table that shows it, if one does."""

    workload: Workload
    faults: tuple[str, ...]
    table: NatTable | None


@check(
    code="MD303",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD402",),
    # Calls to the service come to it, past its sidecar.
    explains_by={"MD402": SubjectKind.WORKLOAD},
    plan=plan_of("sidecars", "redirect_not_installed"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def redirect_not_installed(
    mesh: Mesh, docker: DockerEngine, rules: NetfilterRules | None
) -> Iterator[Finding | Fact]:
    """The nat rules that send an application's connections through its sidecar are not there.

    ## Why it matters

    Without them calls go straight to whatever address DNS gave: they may even succeed, but past
    every rule of the mesh. Without the exception for Envoy's own user, Envoy's connections are
    sent back to Envoy, and nothing gets out at all.

    ## How it is found

    From the nat table of the namespace where it could be read: a REDIRECT for outgoing and one
    for incoming TCP connections, and an exception for the user that Envoy runs as. Incoming ones
    are not judged where the init container was told to use TPROXY, which stands in another
    table. Where the nat table could not be read, from the init container: it failed, never
    started, or ran before the application was started the last time, which gave the application
    a new and empty namespace.

    ## How to fix it

    Run the init container again, with the capability NET_ADMIN, then the sidecar.
    """
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError("no mesh is seen that redirects connections by nat rules")
    looked = judged = 0
    found = False
    for workload in mesh.workloads:
        running = [each for each in workload.sidecars if each.state is not SidecarState.DOWN]
        if workload.container is None or not workload.container.running:
            continue
        if not running and not workload.inits:
            continue
        looked += 1
        tables = [each.nat for each in running if each.nat is not None]
        table = tables[0] if tables else None
        faults = _faults_of_inits(workload) if table is None else _faults_of_rules(table, workload)
        if faults is None:
            continue
        judged += 1
        if faults:
            found = True
            yield _finding(mesh, _Fault(workload, faults, table))
    if not looked:
        raise CannotLookError("no workload has a sidecar or an init container")
    if not judged:
        raise CannotLookError(
            "neither nat rules nor init containers are seen", NetfilterRules.hint
        )
    if not found:
        yield Fact(f"{count(judged, 'workload')} with the redirect through Envoy installed")


def _faults_of_rules(table: NatTable, workload: Workload) -> tuple[str, ...]:
    outbound = list(table.reachable("OUTPUT"))
    inbound = list(table.reachable("PREROUTING"))
    redirects = [rule for rule in outbound if rule.target == "REDIRECT"]
    by_tproxy = any("TPROXY" in word for init in workload.inits for word in init.command)
    faults = []
    if not redirects:
        faults.append("no rule redirects outgoing connections")
    if not by_tproxy and not any(rule.target in ("REDIRECT", "TPROXY") for rule in inbound):
        faults.append("no rule redirects incoming connections")
    if redirects and not _excepts_envoy(outbound):
        faults.append(f"no rule lets Envoy's own connections (user {PROXY_UID}) pass")
    return tuple(faults)


def _excepts_envoy(rules: Sequence[NatRule]) -> bool:
    """A rule lets a user or group pass, or redirects all but one."""
    return any(
        (rule.target in ("RETURN", "ACCEPT") and (rule.uid or rule.gid))
        or rule.negated & {"uid", "gid"}
        for rule in rules
    )


def _faults_of_inits(workload: Workload) -> tuple[str, ...] | None:
    """What the init containers show; None where there is none to judge by."""
    if not workload.inits:
        return None
    newest = max(workload.inits, key=lambda each: each.started_at)
    if newest.status == "created":
        return (f"{newest.name} was created and never ran",)
    if newest.status == "exited" and newest.exit_code != 0:
        return (_failed(newest),)
    ran = moment(newest.started_at)
    began = moment(workload.container.started_at) if workload.container is not None else None
    if ran is not None and began is not None and began > ran:
        return (f"{workload.name} was started again after {newest.name} had run",)
    return ()


def _failed(init: Container) -> str:
    return f"{init.name} failed with exit code {init.exit_code}{_likely(init)}"


def _likely(init: Container) -> str:
    if (
        init.exit_code in _NOT_FOR_WANT_OF_RIGHTS
        or init.privileged
        or _PRIVILEGES & {each.upper() for each in init.capabilities}
    ):
        return ""
    return ", and it lacks the capability NET_ADMIN"


def _finding(mesh: Mesh, fault: _Fault) -> Finding:
    workload, table = fault.workload, fault.table
    failed = [
        _failed(init)
        for init in workload.inits
        if table is not None and init.status == "exited" and init.exit_code != 0
    ]
    because = f" ({listing(failed)})" if failed else ""
    return Finding(
        message=(
            f"The connections of {workload.name} do not go through its sidecar as they should: "
            f"{listing(fault.faults)}{because}."
        ),
        subjects=(
            *subjects(SubjectKind.WORKLOAD, (workload.name,)),
            *subjects(SubjectKind.SERVICE, workload.services),
            *subjects(SubjectKind.SIDECAR, (each.name for each in workload.sidecars)),
        ),
        seen_in=(
            *(
                (Citation(table.document, "", count(len(table.rules), "nat rule")),)
                if table is not None
                else ()
            ),
            *(proofs.container(init, "/State", states.seen(init)) for init in workload.inits),
        ),
        remedies=(_remedy(mesh, workload),),
    )


def _remedy(mesh: Mesh, workload: Workload) -> Remedy:
    check_again = commands.see_that_it_worked("MD303")
    if not workload.inits:
        return Remedy(
            summary=(
                f"Run an init container in the network namespace of {workload.name}, with the "
                "capability NET_ADMIN."
            ),
            commands=(commands.install_redirect(workload.name), check_again),
            effect=_EFFECT,
        )
    lacking = [each for each in workload.inits if each.exit_code != 0 and _likely(each)]
    change = commands.change(mesh, lacking, Element("cap_add", "NET_ADMIN", first=True))
    composed = all(each.compose_service for each in lacking)
    if lacking:
        return Remedy(
            summary="Give the init container the capability NET_ADMIN and run it again.",
            commands=(
                *change.commands,
                *(
                    commands.recreate(lacking)
                    if composed
                    else (commands.install_redirect(workload.name),)
                ),
                check_again,
            ),
            patch=change.patch,
            effect=_EFFECT,
        )
    return Remedy(
        summary="Run the init container again: its rules go into the application's namespace.",
        commands=(
            *(commands.quoted("docker", "start", "-a", each.name) for each in workload.inits),
            check_again,
        ),
        effect=_EFFECT,
    )
