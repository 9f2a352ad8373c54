"""MD303: connections of an application are not sent through its sidecar."""

from collections.abc import Iterator

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.evidence.netfilter import NatTable, NetfilterRules
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import PROXY_UID
from meshdoctor.topology import Mesh, SidecarState, Workload
from meshdoctor.topology.mesh import started
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.wording import count, listing

_KILLED = 137


@check(code="MD303", severity=Severity.ERROR, since="0.1", explains=("MD402",))
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
    for incoming TCP connections, and a RETURN for the user that Envoy runs as. Where it could not
    be read, from the init container: it failed, never started, or ran before the application was
    started the last time, which gave the application a new and empty namespace.

    ## How to fix it

    Run the init container again, with the capability NET_ADMIN, then the sidecar.
    """
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError("no mesh is seen that redirects connections by nat rules")
    looked = judged = 0
    for workload in mesh.workloads:
        running = [each for each in workload.sidecars if each.state is not SidecarState.DOWN]
        if workload.container is None or not workload.container.running:
            continue
        if not running and not workload.inits:
            continue
        looked += 1
        tables = [each.nat for each in running if each.nat is not None]
        faults = _faults_of_rules(tables[0]) if tables else _faults_of_inits(workload)
        if faults is None:
            continue
        judged += 1
        if faults:
            yield _finding(workload, faults, tables[0] if tables else None)
    if not looked:
        raise CannotLookError("no workload has a sidecar or an init container")
    if not judged:
        raise CannotLookError(
            "neither nat rules nor init containers are seen", NetfilterRules.hint
        )
    yield Fact(f"{count(judged, 'workload')} with the redirect through Envoy installed")


def _faults_of_rules(table: NatTable) -> tuple[str, ...]:
    outbound = list(table.reachable("OUTPUT"))
    inbound = list(table.reachable("PREROUTING"))
    faults = []
    redirects_out = any(rule.target == "REDIRECT" for rule in outbound)
    redirects_in = any(rule.target in ("REDIRECT", "TPROXY") for rule in inbound)
    if not redirects_out:
        faults.append("no rule redirects outgoing connections")
    if not redirects_in:
        faults.append("no rule redirects incoming connections")
    excepted = any(
        rule.target in ("RETURN", "ACCEPT") and (rule.uid or rule.gid) for rule in outbound
    )
    if redirects_out and not excepted:
        faults.append(f"no rule lets Envoy's own connections (user {PROXY_UID}) pass")
    return tuple(faults)


def _faults_of_inits(workload: Workload) -> tuple[str, ...] | None:
    """What the init containers show; None where there is none to judge by."""
    if not workload.inits:
        return None
    newest = max(workload.inits, key=lambda each: each.started_at)
    if newest.status == "created":
        return (f"{newest.name} was created and never ran",)
    if newest.status == "exited" and newest.exit_code != 0:
        return (f"{newest.name} failed with exit code {newest.exit_code}{_likely(newest)}",)
    ran, began = started(newest), started(workload.container) if workload.container else None
    if ran is not None and began is not None and began > ran:
        return (f"{workload.name} was started again after {newest.name} had run",)
    return ()


def _likely(init: Container) -> str:
    if init.exit_code == _KILLED or init.privileged or "NET_ADMIN" in init.capabilities:
        return ""
    return ", and it lacks the capability NET_ADMIN"


def _finding(workload: Workload, faults: tuple[str, ...], table: NatTable | None) -> Finding:
    sidecars = [each.name for each in workload.sidecars]
    failed = [
        f"{init.name} failed with exit code {init.exit_code}{_likely(init)}"
        for init in workload.inits
        if table is not None and (init.exit_code != 0 or init.status == "created")
    ]
    because = f" ({listing(failed)})" if failed else ""
    return Finding(
        message=(
            f"The connections of {workload.name} do not go through its sidecar as they should: "
            f"{listing(faults)}{because}."
        ),
        subjects=(
            *subjects(SubjectKind.WORKLOAD, (workload.name,)),
            *subjects(SubjectKind.SERVICE, workload.services),
            *subjects(SubjectKind.SIDECAR, sidecars),
        ),
        seen_in=(
            *((Citation(table.document, "", f"{len(table.rules)} nat rules"),) if table else ()),
            *(
                proofs.container(init, "/State", f"{init.status}, exit code {init.exit_code}")
                for init in workload.inits
            ),
        ),
        remedies=(_remedy(workload),),
    )


def _remedy(workload: Workload) -> Remedy:
    lacking = [each for each in workload.inits if _likely(each)]
    patch = "\n".join(
        f"# {listing(commands.compose_files(each))}\n"
        f"  {each.compose_service}:\n"
        "+   cap_add:\n"
        "+     - NET_ADMIN"
        for each in lacking
        if each.compose_service
    )
    if not workload.inits:
        return Remedy(
            summary=(
                f"Run an init container (image istio/proxy_init) in the network namespace of "
                f"{workload.name}, with the capability NET_ADMIN."
            ),
            commands=(
                commands.quoted(
                    *("docker", "run", "--rm", "--cap-add", "NET_ADMIN"),
                    *("--network", f"container:{workload.name}"),
                    *("istio/proxy_init:1.1.0", "-p", "15001", "-u", PROXY_UID),
                ),
                commands.see_that_it_worked("MD303"),
            ),
        )
    again = (
        commands.recreate(workload.inits)
        if lacking
        else tuple(commands.quoted("docker", "start", "-a", each.name) for each in workload.inits)
    )
    return Remedy(
        summary="Run the init container again: its rules go into the application's namespace.",
        commands=(*again, commands.see_that_it_worked("MD303")),
        patch=patch or None,
        effect="Connections made from then on go through Envoy; open ones stay as they are.",
    )
