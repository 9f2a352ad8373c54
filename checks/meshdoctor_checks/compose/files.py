"""Citations of Compose files, and how to change them."""

from collections.abc import Sequence

from meshdoctor.check import CannotLookError
from meshdoctor.evidence.compose import ComposeService, Place, Setting
from meshdoctor.findings import Citation
from meshdoctor.topology.plan import Plan, PlannedInstance
from meshdoctor_checks import commands, proofs


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


def change(service: ComposeService, place: Place, *lines: str) -> str:
    """A fragment of a file: where it is, and the lines that go (-) and come (+)."""
    return "\n".join((f"# {place.file}, line {place.line}", f"   {service.name}:", *lines))


def add_environment(services: Sequence[ComposeService], *settings: str) -> str:
    """Settings to add to the environment of services, written as each writes its own."""
    return "\n".join(
        change(
            each,
            each.place,
            "     environment:",
            *(f"+      {_written(each, setting)}" for setting in settings),
        )
        for each in services
    )


def _written(service: ComposeService, setting: str) -> str:
    name, _, value = setting.partition("=")
    is_list = all(
        key not in each.place.pointer.split("/") for key, each in service.environment.items()
    )
    quoted = f'"{value}"' if value.isdecimal() else value
    return f"- {setting}" if is_list else f"{name}: {quoted}"


def see_that_it_worked(plan: Plan) -> str:
    """The last step of every remedy."""
    files = [word for path in plan.files.paths for word in ("--compose", path)]
    return commands.quoted("meshdoctor", "check", *files)
