"""MD212: a service's name cannot stand in a host name."""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from meshdoctor.check import check
from meshdoctor.evidence.consul import SERVICES, ConsulCatalog
from meshdoctor.evidence.docker import Container
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.topology import Mesh, Service
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose_edits import Variable
from meshdoctor_checks.neighbours import workloads_of
from meshdoctor_checks.wording import count, listing, verb

_LONGEST: Final = 63
"""Letters of one label (RFC 1035, 2.3.4)."""
_FOREIGN: Final = r"[^A-Za-z0-9-]"
"""What Consul itself warns of: names with it are not discoverable via DNS."""


_NAMES: Final = r"SERVICE_(\d+_)?NAME"


@check(code="MD212", severity=Severity.WARNING, since="0.1")
def name_not_a_host_name(mesh: Mesh, catalog: ConsulCatalog) -> Iterator[Finding | Fact]:
    """A service has a name that no host name can hold.

    ## Why it matters

    Callers reach a service as `name.service.consul`. A dot in the name makes two labels of it,
    and Consul looks for another service; an underscore or a space is refused by many clients
    before they ask.

    ## How it is found

    The name has other characters than letters, digits and hyphens, begins or ends with a hyphen,
    or is longer than 63. Upper case does not matter.

    ## How to fix it

    Give the container a `SERVICE_NAME` of letters, digits and hyphens, and recreate it.
    """
    sound = 0
    for service in mesh.applications:
        fault = _fault(service.name)
        if fault:
            yield _finding(mesh, service, fault)
        else:
            sound += 1
    if sound and sound == len(mesh.applications):
        are = verb(sound, "can be a host name", "can be host names")
        yield Fact(f"{count(sound, 'service name')} {are}")


def _fault(name: str) -> str:
    foreign = [_shown(each) for each in sorted(set(re.findall(_FOREIGN, name)))]
    if foreign:
        return f"{verb(len(foreign), 'the character', 'the characters')} {listing(foreign)}"
    if name.startswith("-") or name.endswith("-"):
        return f"a hyphen at its {'end' if name.endswith('-') else 'beginning'}"
    return f"{len(name)} characters, more than {_LONGEST}" if len(name) > _LONGEST else ""


def _shown(character: str) -> str:
    return (
        f'"{character}"'
        if character.isprintable() and character != '"'
        else f"U+{ord(character):04X}"
    )


def _better(name: str, taken: Collection[str]) -> str:
    """The nearest name that will do, "" where nothing is left of it or it is taken."""
    kept = re.sub(r"-+", "-", re.sub(_FOREIGN, "-", name)).strip("-")
    better = kept[:_LONGEST].strip("-").lower()
    return "" if better in taken else better


def _finding(mesh: Mesh, service: Service, fault: str) -> Finding:
    owners = [mesh.owners[each.id] for each in service.instances if each.id in mesh.owners]
    better = _better(service.name, mesh.services)
    such = f", such as {better}" if better else ""
    workloads = workloads_of(mesh, owners)
    change = commands.change_each(
        mesh, [(each, _renamed(each, service.name, better)) for each in owners if better]
    )
    names = listing([each.name for each in owners] or [each.id for each in service.instances])
    return Finding(
        message=(
            f'The service name "{service.name}" is no host name, for it has {fault}: callers '
            f"cannot count on reaching it as {service.name}.service.consul."
        ),
        subjects=(
            *subjects(SubjectKind.SERVICE, (service.name,)),
            *subjects(SubjectKind.INSTANCE, (each.id for each in service.instances)),
        ),
        seen_in=tuple(proofs.registration(each) for each in service.instances)
        or (Citation(SERVICES, "", service.name),),
        remedies=(
            Remedy(
                summary=f"Register {names} under another name{such}.",
                commands=(
                    *change.commands,
                    *commands.recreate_with_sidecars(workloads),
                    commands.see_that_it_worked("MD212"),
                ),
                patch=change.patch,
                effect="Callers and rules must use the new name.",
            ),
        ),
    )


def _renamed(owner: Container, name: str, better: str) -> Sequence[Variable]:
    """The new name, in place of the settings that gave the old one where there are some."""
    given = [
        variable
        for variable, value in owner.environment.items()
        if value == name and re.fullmatch(_NAMES, variable)
    ] or ["SERVICE_NAME"]
    return [Variable(each, better, owner.environment.get(each)) for each in given]
