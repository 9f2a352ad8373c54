"""MD104: Consul has no leader, or nobody reaches it."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import LEADER, ConsulStatus
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.evidence.times import moment
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
from meshdoctor.topology import Mesh, Role
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose_edits import Variable
from meshdoctor_checks.wording import count

_LEADERLESS: Final = r"(?i)No cluster leader|No known Consul servers"
"""What a server without a leader answers, and an agent that knows no server."""
_REFUSED: Final = "refused"

_FORGETS: Final = "A Consul in -dev mode forgets what was registered until that is done again."

_ELECTION: Final = timedelta(seconds=15)
"""A server that just started waits about ten seconds before it stands for election."""


@check(code="MD104", severity=Severity.ERROR, since="0.1", explains=("MD103", "MD207"))
def consul_without_leader(
    status: ConsulStatus, mesh: Mesh | None, docker: DockerEngine | None
) -> Iterator[Finding | Fact]:
    """Consul has no leader, or its HTTP API does not answer where others ask it.

    ## Why it matters

    Without a leader Consul takes no registration and answers questions about its catalogue with
    an error. Registrator registers nothing, and Pilot and the sidecars stay as they were.

    ## How it is found

    `/v1/status/leader` is empty, or Consul answers `No cluster leader` or `No known Consul
    servers`. Within the first seconds after a start that is normal, and only a warning. Or Consul
    runs in a container that refuses connections at its own address on port 8500, which is where
    Pilot and Registrator ask it: its `-client` address is then its own localhost.

    ## How to fix it

    Read its log. A server that stands alone needs `-dev` or `-bootstrap-expect=1`; one that
    serves others needs `-client 0.0.0.0`.
    """
    consul = mesh.component(Role.CONSUL) if mesh is not None else None
    container = consul.container if consul is not None and consul.container.running else None
    registrators = (
        [each.name for each in mesh.components if each.role is Role.REGISTRATOR]
        if mesh is not None
        else []
    )
    said = next(
        (each.message for each in status.unanswered if re.search(_LEADERLESS, each.message)), ""
    )
    if status.leader == "" or (said and not status.leader):
        yield _leaderless(container, docker, registrators, status, said)
    elif mesh is not None and container is not None and (where := _refusing(container, status)):
        yield _unreachable(mesh, container, where, registrators)
    elif status.leader:
        yield Fact(f"Consul has a leader, {status.leader}")
    else:
        raise CannotLookError("Consul did not say who leads it")


def _called(container: Container | None) -> str:
    return f"Consul ({container.name})" if container is not None else "Consul"


def _leaderless(
    container: Container | None,
    docker: DockerEngine | None,
    registrators: list[str],
    status: ConsulStatus,
    said: str,
) -> Finding:
    age = _age(container, docker)
    young = age is not None and timedelta() <= age < _ELECTION
    since = (
        f"; it had started only {count(int(age.total_seconds()), 'second')} before it was asked"
        if young and age is not None
        else ""
    )
    proof = [Citation(LEADER, "", '""')] if status.leader == "" else []
    if container is not None:
        proof.append(proofs.container(container, "/State", container.status))
    word = re.search(_LEADERLESS, said)
    quoted = f' and answers "{word[0]}"' if word is not None else ""
    return Finding(
        message=(
            f"{_called(container)} has no leader{quoted}, so nothing can be registered{since}."
        ),
        subjects=_subjects(container, registrators),
        seen_in=tuple(proof),
        remedies=_elect(container, registrators),
        severity=Severity.WARNING if young else None,
    )


def _age(container: Container | None, docker: DockerEngine | None) -> timedelta | None:
    if container is None or docker is None or docker.asked is None:
        return None
    since = moment(container.started_at)
    return None if since is None else docker.asked - since


def _subjects(container: Container | None, registrators: list[str]) -> tuple[Subject, ...]:
    names = [container.name if container is not None else "consul", *registrators]
    return subjects(SubjectKind.COMPONENT, dict.fromkeys(names))


def _elect(container: Container | None, registrators: list[str]) -> tuple[Remedy, ...]:
    check_again = commands.see_that_it_worked("MD104")
    if container is None:
        return (
            Remedy(
                summary="See which servers Consul knows, and start those that are missing.",
                commands=("consul operator raft list-peers -stale", check_again),
            ),
        )
    look = (
        commands.logs(container),
        commands.quoted(
            *("docker", "exec", container.name, "consul", "operator", "raft", "list-peers"),
            "-stale",
        ),
    )
    again = tuple(commands.quoted("docker", "restart", each) for each in registrators)
    return (
        Remedy(
            summary="Read what it says of the election and which servers it waits for.",
            commands=look,
        ),
        Remedy(
            summary=(
                "Where it is the only server, restart it"
                f"{', then Registrator, which registers every container again' if again else ''}."
            ),
            commands=(commands.restart(container), *again, check_again),
            effect=_FORGETS,
        ),
    )


def _refusing(container: Container, status: ConsulStatus) -> str:
    """The container's own address and port, where a connection to it was refused."""
    for address in container.addresses.values():
        where = f"{address}:{commands.CONSUL_PORT}"
        for each in status.unanswered:
            # Of each address that was tried, in turn and separated by semicolons, the reason.
            about = re.search(rf"//{re.escape(where)}: ([^;]*)", each.message)
            if about is not None and _REFUSED in about[1]:
                return where
    return ""


def _unreachable(mesh: Mesh, container: Container, where: str, registrators: list[str]) -> Finding:
    change = commands.change(mesh, [container], Variable("CONSUL_CLIENT_INTERFACE", "eth0"))
    return Finding(
        message=(
            f"{_called(container)} runs and refuses connections to its HTTP API at {where}, where "
            "Registrator and Pilot ask it."
        ),
        subjects=_subjects(container, registrators),
        seen_in=(proofs.container(container, "/Args", " ".join(container.command)),),
        remedies=(
            Remedy(
                summary=(
                    "Have it listen to others: start it with -client 0.0.0.0, or with "
                    "CONSUL_CLIENT_INTERFACE=eth0 in its environment."
                ),
                commands=(
                    commands.logs(container),
                    *change.commands,
                    *commands.recreate([container]),
                    *(commands.quoted("docker", "restart", each) for each in registrators),
                    commands.see_that_it_worked("MD104"),
                ),
                patch=change.patch,
                effect=_FORGETS,
            ),
        ),
    )
