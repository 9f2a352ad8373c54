"""MD202: Registrator does not write the containers' SERVICE_* attributes into Consul."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog, Instance
from meshdoctor.evidence.docker import Container, DockerEngine
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
from meshdoctor.topology import Mesh, Registration, Registrator
from meshdoctor.topology.registrator import is_gliderlabs, keeps_attributes
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.compose_edits import Change, Value
from meshdoctor_checks.protocols import pilot_before_service_meta, require_pilot
from meshdoctor_checks.wording import count, listing

GOOD_REPOSITORY: Final = "gliderlabs/registrator"
GOOD_TAG: Final = "master"


class _Pair(msgspec.Struct, frozen=True):
    """What a container declares, and what stands in Consul for it."""

    container: Container
    expected: Registration
    instance: Instance

    @property
    def kept(self) -> bool:
        return any(key in self.instance.meta for key in self.expected.attributes)


@check(
    code="MD202",
    severity=Severity.ERROR,
    since="0.1",
    explains=("MD201",),
    plan=plan_of("registry", "registrator_drops_metadata"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def registrator_drops_metadata(
    mesh: Mesh, docker: DockerEngine, catalog: ConsulCatalog
) -> Iterator[Finding | Fact]:
    """Registrator drops the SERVICE_* attributes of the containers.

    The containers declare attributes such as `SERVICE_PROTOCOL=http`, and none of them stands in
    Consul's `ServiceMeta`.

    ## Why it matters

    Pilot learns the protocol of a service from `ServiceMeta` alone. Without it every service is
    TCP to Pilot, and TCP services on one port cannot be told apart: all calls to that port land
    on one of them.

    ## How it is found

    From what `docker inspect` says of each container it is worked out what Registrator should
    register, and that is compared with what stands in Consul. When every instance that should
    have attributes has none of them, it is not the containers that are at fault but the
    Registrator. Registrator writes attributes into `ServiceMeta` only since a commit of June 2018
    that no release has: the tags `v7` and `latest` drop them, `master` writes them. It is a
    warning where no container declares a protocol, since Pilot reads nothing else of it; Pilot
    1.0 reads nothing at all, so there nothing is said.

    ## How to fix it

    Use the image `gliderlabs/registrator:master`. As a rule the new container has a new host
    name, which begins the ids of its registrations: what the old one registered stays in Consul
    beside the new registrations, and must be taken out. Where the host name stays the same, the
    old registrations are written over, and must not be taken out.
    """
    require_pilot(mesh)
    registrator = mesh.registrator
    if registrator is None:
        raise CannotLookError("no Registrator container is seen")
    if old := pilot_before_service_meta(mesh):
        yield Fact(f"Pilot {old} does not read the attributes that Registrator writes")
        return
    pairs = list(_pairs(mesh))
    if not pairs:
        raise CannotLookError("no registered container declares a SERVICE_* attribute")
    if any(pair.kept for pair in pairs):
        kept = sum(pair.kept for pair in pairs)
        yield Fact(
            f"Registrator wrote the attributes of {kept} of {len(pairs)} instances to Consul"
        )
        return
    container = registrator.container
    services = sorted({pair.instance.service for pair in pairs})
    known = keeps_attributes(container) is False
    protocol = any("protocol" in pair.expected.attributes for pair in pairs)
    yield Finding(
        message=(
            f"Registrator ({container.name}, image {container.image}) drops the SERVICE_* "
            f"attributes of the containers: {_how_many(pairs)}"
            f"{', as this tag is known to do' if known else ''}."
        ),
        subjects=(
            Subject(SubjectKind.COMPONENT, container.name),
            *subjects(SubjectKind.SERVICE, services),
            *subjects(SubjectKind.WORKLOAD, sorted({pair.container.name for pair in pairs})),
        ),
        seen_in=(
            proofs.container(container, "/Config/Image", _image(container, docker)),
            *(_declaration(pair) for pair in pairs[:1]),
            *(proofs.service_meta(pair.instance) for pair in pairs),
        ),
        remedies=(_remedy(mesh, registrator, services), *_stop_gap(mesh, registrator, pairs)),
        severity=Severity.ERROR if protocol else Severity.WARNING,
        references=(
            "https://github.com/gliderlabs/registrator/issues/633",
            "https://github.com/gliderlabs/registrator/commit/d91f662",
        ),
    )


def _pairs(mesh: Mesh) -> Iterator[_Pair]:
    for workload in mesh.workloads:
        for expected in workload.expected:
            for instance in workload.instances:
                if instance.port == expected.port and expected.attributes and workload.container:
                    yield _Pair(workload.container, expected, instance)


def _how_many(pairs: Sequence[_Pair]) -> str:
    protocol = all("protocol" in pair.expected.attributes for pair in pairs)
    what = "a protocol" if protocol else "attributes"
    number = len(pairs)
    if number == 1:
        return f"the one instance that declares {what} on its container has none in Consul"
    return f"{count(number, 'instance')} declare {what} on their containers, none has it in Consul"


def _image(container: Container, docker: DockerEngine) -> str:
    image = docker.images.get(container.image_id)
    others = sorted(set(image.tags) - {container.image}) if image is not None else []
    also = f", the same image as {listing(others)}" if others else ""
    return f"{container.image} (id {container.image_id.removeprefix('sha256:')[:12]}{also})"


def _declaration(pair: _Pair) -> Citation:
    """Where the container declares one of the attributes, the protocol before all."""
    keys = sorted(pair.expected.attributes, key=lambda key: key != "protocol")
    names = [name for key in keys for name in _spellings(key, pair)]
    for field, there in (
        ("/Config/Env", pair.container.environment),
        ("/Config/Labels", pair.container.labels),
    ):
        for name in names:
            if name in there:
                return proofs.container(pair.container, field, f"{name}={there[name]}")
    return proofs.container(pair.container, "/Config", ", ".join(keys))


def _spellings(key: str, pair: _Pair) -> tuple[str, str]:
    return f"SERVICE_{pair.expected.port}_{key.upper()}", f"SERVICE_{key.upper()}"


def _remedy(mesh: Mesh, registrator: Registrator, services: Sequence[str]) -> Remedy:
    container = registrator.container
    old = _left_behind(mesh, registrator)
    new_image = f"{GOOD_REPOSITORY}:{GOOD_TAG}"
    if is_gliderlabs(container):
        new_image = f"{container.image_repository}:{GOOD_TAG}"
    change = Change(None)
    if container.image != new_image:
        change = commands.change(mesh, [container], Value("image", new_image, container.image))
    then = f", then take out what the old one registered for {listing(services)}" if old else ""
    return Remedy(
        summary=(
            f"Replace Registrator by the image {new_image}, which writes the attributes to "
            f"Consul{then}."
        ),
        commands=(
            *_replacement(container, new_image, change),
            *commands.deregister(mesh, old),
            commands.see_that_it_worked("MD202", "MD201", "MD401"),
        ),
        patch=change.patch,
        effect=(
            "The new Registrator registers all running containers again, with their attributes"
            f"{' and under new ids' if old else ''}. Pilot follows within seconds and sends HTTP "
            "listeners to the sidecars; the applications keep running."
        ),
    )


def _stop_gap(mesh: Mesh, registrator: Registrator, pairs: Sequence[_Pair]) -> tuple[Remedy, ...]:
    # Written without its health check, an instance would lose the one that Registrator gave it.
    if any(key.startswith("check_") for pair in pairs for key in pair.expected.attributes):
        return ()
    remedy = Remedy(
        summary=(
            "Or, as a stop-gap while Registrator cannot be replaced: register the instances "
            "again with their attributes."
        ),
        commands=(
            *(commands.register(mesh, pair.instance, pair.expected.attributes) for pair in pairs),
            commands.see_that_it_worked("MD201", "MD401"),
        ),
        effect=(
            f"It lasts only until {registrator.container.name} writes a registration again: when "
            "it, or the instance's container, is restarted."
        ),
    )
    return (remedy,)


def _left_behind(mesh: Mesh, registrator: Registrator) -> Sequence[str]:
    """The ids that a new Registrator will not write over: where its host name is another."""
    if not registrator.hostname or commands.has_own_hostname(registrator.container):
        return ()
    return sorted(
        instance.id
        for service in mesh.services.values()
        for instance in service.instances
        if instance.id.startswith(f"{registrator.hostname}:")
    )


def _replacement(container: Container, new_image: str, change: Change) -> Sequence[str]:
    pull = commands.quoted("docker", "pull", new_image)
    files = container.compose_paths
    if container.compose_service and files:
        if change.commands:
            return (*change.commands, commands.start(container))
        # Nothing to change, or nobody knows what exactly: then wherever the image stands.
        pulled = container.image == new_image or change.patch is None
        step = pull if pulled else commands.replace_in_file(container.image, new_image, files)
        return (step, commands.start(container))
    return (
        pull,
        commands.quoted("docker", "stop", container.name),
        commands.quoted("docker", "rename", container.name, f"{container.name_on_host}-old"),
        commands.run_again(container, new_image),
    )
