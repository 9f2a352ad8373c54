"""Citations of Compose files, and how to change them."""

from collections.abc import Sequence
from typing import Final

from meshdoctor.check import CannotLookError
from meshdoctor.evidence.compose import ComposeService, Place, Setting
from meshdoctor.findings import Citation, Remedy
from meshdoctor.topology.plan import Plan, PlannedInstance, PlannedWorkload
from meshdoctor_checks import commands, compose_edits, proofs
from meshdoctor_checks.compose_edits import Change, Edit, Variable

_BY_HAND: Final = Change(None)


def require_pilot(plan: Plan) -> None:
    """Raises CannotLookError where Pilot has no part in what the files describe."""
    if not plan.is_for_pilot:
        raise CannotLookError("only Pilot makes this matter, and in these files is none")


def require_instances(plan: Plan) -> None:
    """Raises CannotLookError where Registrator would register nothing, as far as is known."""
    if not plan.instances:
        raise CannotLookError(
            "these files hold no application of which it is known that Registrator registers it",
            "name the file with the applications too, and say their ports with `expose`",
        )


def cite(place: Place, excerpt: str) -> Citation:
    """A line of a Compose file; the pointer leads to it as if the YAML were JSON."""
    return Citation(
        place.document,
        place.pointer,
        f"line {place.line}: {proofs.shorten(excerpt)}",
        file=place.file,
        line=place.line,
    )


def cite_setting(key: str, setting: Setting) -> Citation:
    return cite(setting.place, f"{key}: {setting.value}")


def cite_service(service: ComposeService) -> Citation:
    return cite(service.place, f"the service {service.name}")


def cite_protocol(instance: PlannedInstance) -> Citation:
    """Where an instance's protocol is declared, or the service that declares none."""
    workload = instance.workload
    written = workload.written("protocol", instance.registration.port)
    if written is None:
        return cite(workload.service.place, f"{workload.name} declares no protocol")
    return cite(written.place, f"SERVICE_PROTOCOL={written.value} of {workload.name}")


def change(plan: Plan, services: Sequence[ComposeService], *edits: Edit) -> Change:
    """The same edits for each of these services."""
    return change_each(plan, [(each, edits) for each in services])


def change_each(plan: Plan, wanted: Sequence[tuple[ComposeService, Sequence[Edit]]]) -> Change:
    """Edits of services: a patch of the files where they are certain, else the lines to change."""
    files = plan.files
    named = [(each.name, edits) for each, edits in wanted]
    found = compose_edits.change(files.texts, files.paths, named)
    if found is not None:
        return found
    fragments = dict.fromkeys(_fragment(each, edits) for each, edits in wanted)
    return Change("\n".join(fragments) or None)


def _fragment(service: ComposeService, edits: Sequence[Edit]) -> str:
    lines = dict.fromkeys(line for each in edits for line in each.fragment)
    place = service.place
    return "\n".join((f"# {place.file}, line {place.line}", f"   {service.name}:", *lines))


def setting(workload: PlannedWorkload, key: str, port: int, value: str) -> Variable:
    """SERVICE_<key> for a port, under the name by which the workload sets it already."""
    there = {**workload.service.labels, **workload.service.environment}
    values = {name: each.value for name, each in there.items()}
    return commands.setting_in(values, key, port, value)


def remedy(plan: Plan, summary: str, change: Change = _BY_HAND) -> Remedy:
    """What to do with the files, by hand or by a patch, and how to see that it worked."""
    return Remedy(
        summary=summary,
        patch=change.patch,
        commands=(*change.commands, see_that_it_worked(plan)),
    )


def see_that_it_worked(plan: Plan) -> str:
    """The last step of every remedy."""
    files = [word for path in plan.files.paths for word in ("--compose", path)]
    return commands.quoted("meshdoctor", "check", *files)
