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
from meshdoctor.routing.configuration import configuration
from meshdoctor.topology import Mesh, Sidecar, SidecarState, Workload
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
    leads_astray: bool = False


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
    for incoming TCP connections, an exception for the user that Envoy runs as, and that they lead
    to a port on which the Envoy takes redirected connections. Incoming ones
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
        fault = _judge(workload, running)
        if fault is None:
            continue
        judged += 1
        if fault.faults:
            found = True
            yield _finding(mesh, fault)
    if not looked:
        raise CannotLookError("no workload has a sidecar or an init container")
    if not judged:
        raise CannotLookError(
            "neither nat rules nor init containers are seen", NetfilterRules.hint
        )
    if not found:
        yield Fact(f"{count(judged, 'workload')} with the redirect through Envoy installed")


def _judge(workload: Workload, running: Sequence[Sidecar]) -> _Fault | None:
    """What is wrong with its redirect, if anything; None where nobody can tell."""
    table = next((each.nat for each in running if each.nat is not None), None)
    if table is None:
        of_inits = _faults_of_inits(workload)
        return None if of_inits is None else _Fault(workload, of_inits, None)
    faults = _faults_of_rules(table, workload)
    if faults:
        return _Fault(workload, faults, table)
    astray = _faults_of_ports(table, running)
    return _Fault(workload, astray, table, leads_astray=bool(astray))


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


def _faults_of_ports(table: NatTable, sidecars: Sequence[Sidecar]) -> tuple[str, ...]:
    """Redirects that are there and lead where Envoy does not listen.

    As those of a newer Istio's init container do, which sends what comes in to a port of its own.
    Nothing is said of an Envoy that takes no redirected connection at all: it may not have got
    its listeners yet.
    """
    known = [configuration(each.proxy) for each in sidecars if each.proxy is not None]
    listening = {entry.listener.port for config in known for entry in config.original_destination}
    faults = []
    for chain, what in (("OUTPUT", "outgoing"), ("PREROUTING", "incoming")):
        ports = {rule.to for rule in table.reachable(chain) if rule.target == "REDIRECT"}
        numbers = {int(each) for each in ports if each.isascii() and each.isdecimal()}
        if len(numbers) == len(ports) and ports and listening and not numbers & listening:
            to = listing([str(each) for each in sorted(numbers)])
            taken = listing([str(each) for each in sorted(listening)])
            faults.append(
                f"{what} connections are sent to port {to}, and its Envoy takes them on {taken}"
            )
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
        remedies=(_of_other_ports(workload) if fault.leads_astray else _remedy(mesh, workload),),
    )


def _of_other_ports(workload: Workload) -> Remedy:
    images = listing(sorted({each.image for each in workload.inits}))
    instead = f", instead of {images}," if images else ""
    return Remedy(
        summary=(
            "Install the redirect by an init container of the version that the sidecar is of"
            f"{instead} and name its image where the application is started from."
        ),
        commands=(
            commands.install_redirect(workload.name),
            commands.see_that_it_worked("MD303", "MD402"),
        ),
        effect=_EFFECT,
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
