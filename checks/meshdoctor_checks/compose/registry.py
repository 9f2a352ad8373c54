"""What Registrator would write into Consul."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from meshdoctor.check import CannotLookError
from meshdoctor.findings import Fact, Finding, Remedy, Severity, Subject, SubjectKind, subjects
from meshdoctor.kinds.istio_consul import PROTOCOLS, is_http, is_known, nearest
from meshdoctor.topology.plan import Plan, PlannedInstance, PlannedWorkload
from meshdoctor.topology.registrator import Registrator, declared, is_gliderlabs
from meshdoctor_checks.compose import files
from meshdoctor_checks.compose_edits import Argument, Change, Value, Variable
from meshdoctor_checks.protocols import spoken_on
from meshdoctor_checks.wording import count, listing, verb

_GOOD_IMAGE: Final = "gliderlabs/registrator:master"
_VERSION_TAG: Final = r"v\d[\w.-]*|version[=:-]\S+"


def _registrator(plan: Plan) -> Registrator:
    """Raises CannotLookError where the files hold none."""
    if plan.registrator is None:
        raise CannotLookError(
            "these files hold no Registrator", "name the control plane's file too, with --compose"
        )
    return plan.registrator


def registrator_drops_metadata(plan: Plan) -> Iterator[Finding | Fact]:
    """MD202, from the tag of Registrator's image."""
    files.require_pilot(plan)
    container = _registrator(plan).container
    service = plan.files.services[container.name]
    if plan.ignores_metadata:
        yield Fact(f"Pilot {plan.pilot_version} does not read the attributes of containers")
        return
    losing = [each for each in plan.instances if each.registration.attributes]
    if plan.attributes_kept is None:
        raise CannotLookError(
            f"it is not known whether {container.image or 'an image that is built'} writes the "
            "SERVICE_* attributes to Consul"
        )
    if plan.attributes_kept:
        yield Fact(f"{container.image} writes the SERVICE_* attributes of containers to Consul")
        return
    if not losing and plan.instances:
        raise CannotLookError("no container declares a SERVICE_* attribute that could be lost")
    protocols = [each for each in losing if each.declared]
    telling = protocols or losing
    workloads = list(dict.fromkeys(each.workload.name for each in telling))
    number = len(workloads)
    what = "a protocol" if protocols else "attributes"
    lost = (
        f": {count(number, 'container')} {verb(number, 'declares', 'declare')} {what}, and Consul "
        "would have none"
        if number
        # The applications stand in a file that was not named.
        else ""
    )
    image = service.image
    mirror = container.image_repository if is_gliderlabs(container) else ""
    good = f"{mirror}:master" if mirror else _GOOD_IMAGE
    change = files.change(plan, [service], Value("image", good, container.image))
    yield Finding(
        message=(
            f"{container.name} (image {container.image}) would drop the SERVICE_* attributes of "
            f"the containers, as this tag is known to do{lost}."
        ),
        subjects=(
            Subject(SubjectKind.COMPONENT, container.name),
            *subjects(SubjectKind.SERVICE, sorted({each.service for each in losing})),
            *subjects(SubjectKind.WORKLOAD, workloads),
        ),
        seen_in=(
            *((files.cite_setting("image", image),) if image is not None else ()),
            *(files.cite_protocol(each) for each in protocols),
        ),
        remedies=(
            files.remedy(
                plan,
                f"Name the image {good} for {container.name}: it writes the attributes to Consul.",
                change,
            ),
        ),
        severity=Severity.ERROR if protocols else Severity.WARNING,
        references=(
            "https://github.com/gliderlabs/registrator/issues/633",
            "https://github.com/gliderlabs/registrator/commit/d91f662",
        ),
    )


def service_without_protocol(plan: Plan) -> Iterator[Finding | Fact]:
    """MD201, from what the containers declare and what Registrator would keep of it."""
    files.require_pilot(plan)
    files.require_instances(plan)
    if plan.ignores_metadata:
        yield Fact(f"Pilot {plan.pilot_version} takes a missing protocol for HTTP")
        return
    groups: dict[tuple[int, bool], list[str]] = defaultdict(list)
    for port in plan.ports:
        for service, instances in plan.on_port(port).items():
            if not any(each.protocol for each in instances):
                groups[port, any(each.declared for each in instances)].append(service)
    for (port, dropped), services in sorted(groups.items()):
        on_port = plan.on_port(port)
        number = len(services)
        if dropped:
            why = (
                f"though {verb(number, 'its container declares', 'their containers declare')} one"
            )
        else:
            why = f"for {verb(number, 'its container declares', 'their containers declare')} none"
        lacking = [each for service in services for each in on_port[service]]
        shared, spoken = len(on_port) > 1, "" if dropped else spoken_on(port)
        alone = Severity.INFO if spoken else Severity.WARNING
        yield Finding(
            message=(
                f"{listing(services)} would be registered in Consul without a protocol, {why}: "
                f"{plan.pilot_called} would take {verb(number, 'its', 'their')} port {port} for "
                f"TCP{f', as {spoken} is' if spoken else ''}."
            ),
            subjects=subjects(SubjectKind.SERVICE, services),
            seen_in=tuple(files.cite_protocol(each) for each in lacking),
            remedies=() if dropped else (_declare(plan, lacking, spoken, shared=shared),),
            severity=Severity.ERROR if shared else alone,
            references=("https://github.com/istio/istio/issues/13239",),
        )
    if not groups:
        number = len(plan.services)
        yield Fact(f"{count(number, 'service')} {verb(number, 'declares', 'declare')} a protocol")


def _declare(
    plan: Plan, lacking: Sequence[PlannedInstance], spoken: str, *, shared: bool
) -> Remedy:
    services = list({each.workload.name: each.workload.service for each in lacking}.values())
    if spoken and shared:
        names = listing([each.name for each in services])
        return files.remedy(
            plan,
            f"Where {names} {verb(len(services), 'speaks', 'speak')} {spoken}, no metadata "
            "helps: give each a port of its own. What speaks HTTP after all is to declare it.",
        )
    change = files.change(
        plan, services, Variable("SERVICE_PROTOCOL", "tcp" if spoken else "http")
    )
    return files.remedy(
        plan,
        f"Declare what {listing([each.name for each in services])} "
        f"{verb(len(services), 'speaks', 'speak')}: http, or grpc, http2, tcp and the like.",
        change,
    )


def unknown_protocol(plan: Plan) -> Iterator[Finding | Fact]:
    """MD203, from what the containers declare."""
    files.require_pilot(plan)
    files.require_instances(plan)
    if plan.ignores_metadata:
        return
    known = 0
    groups: dict[tuple[str, int, str], list[PlannedInstance]] = defaultdict(list)
    for each in plan.instances:
        if each.declared is None:
            continue
        if is_known(each.declared):
            known += 1
        else:
            groups[each.service, each.port, each.declared].append(each)
    for (service, port, protocol), instances in sorted(groups.items()):
        wanted = nearest(protocol)
        meant = f", probably meant: {wanted}" if wanted is not None else ""
        names = [each.workload.name for each in instances]
        change = _set_protocol(plan, instances, wanted) if wanted is not None else Change(None)
        yield Finding(
            message=(
                f"{listing(names)} {verb(len(names), 'declares', 'declare')} the protocol "
                f'"{protocol}" on port {port}, which {plan.pilot_called} does not know and would '
                f"take for TCP{meant}."
            ),
            subjects=(
                *subjects(SubjectKind.SERVICE, (service,)),
                *subjects(SubjectKind.WORKLOAD, names),
            ),
            seen_in=tuple(files.cite_protocol(each) for each in instances),
            remedies=(
                files.remedy(
                    plan,
                    f"Set SERVICE_PROTOCOL of {listing(names)} to "
                    f"{wanted or f'one of {listing(sorted(PROTOCOLS), most=len(PROTOCOLS))}'}.",
                    change,
                ),
            ),
        )
    if known and not groups:
        yield Fact(
            f"{count(known, 'declared protocol')} "
            f"{verb(known, 'is one that', 'are ones that')} Pilot knows"
        )


def _set_protocol(plan: Plan, instances: Sequence[PlannedInstance], protocol: str) -> Change:
    settings = [
        (each.workload.service, (files.setting(each.workload, "PROTOCOL", each.port, protocol),))
        for each in instances
    ]
    return files.change_each(plan, settings)


def instances_disagree_on_protocol(plan: Plan) -> Iterator[Finding | Fact]:
    """MD204, from what the containers of one service declare."""
    files.require_pilot(plan)
    files.require_instances(plan)
    if plan.ignores_metadata:
        return
    agreeing = 0
    found = False
    for port in plan.ports:
        on_port = plan.on_port(port)
        for service, instances in on_port.items():
            words: dict[str, list[str]] = defaultdict(list)
            for each in instances:
                words[(each.declared or "none").lower()].append(each.workload.name)
            if len(words) == 1:
                agreeing += len(instances) > 1
                continue
            found = True
            said = listing(
                [
                    f"{listing(names)} {verb(len(names), 'declares', 'declare')} {word}"
                    for word, names in words.items()
                ]
            )
            mixed = len({is_http(each.declared) for each in instances}) > 1
            # What most of them declare is meant, HTTP where they are as many.
            wanted = max(words, key=lambda word: (len(words[word]), is_http(word), word))
            odd = [each for each in instances if (each.declared or "none").lower() != wanted]
            known = is_known(wanted)
            change = _set_protocol(plan, odd, wanted) if known else Change(None)
            yield Finding(
                message=(
                    f"The containers of {service} differ on the protocol of port {port}: {said}. "
                    "Pilot would go by whichever instance Consul lists first."
                ),
                subjects=(
                    *subjects(SubjectKind.SERVICE, (service,)),
                    *subjects(SubjectKind.WORKLOAD, (each.workload.name for each in instances)),
                ),
                seen_in=tuple(files.cite_protocol(each) for each in instances),
                remedies=(
                    files.remedy(
                        plan,
                        f"Give all containers of {service} the same SERVICE_PROTOCOL"
                        f"{f', {wanted} it seems' if known else ''}.",
                        change,
                    ),
                ),
                severity=Severity.ERROR if mixed and len(on_port) > 1 else Severity.WARNING,
            )
    if agreeing and not found:
        yield Fact(
            f"{count(agreeing, 'service')} with several instances "
            f"{verb(agreeing, 'agrees', 'agree')} on the protocol"
        )


def tag_without_value(plan: Plan) -> Iterator[Finding | Fact]:
    """MD205, for tags that look like a version."""
    files.require_pilot(plan)
    files.require_instances(plan)
    labels = 0
    wrong: dict[str, list[PlannedInstance]] = defaultdict(list)
    for each in plan.instances:
        for tag in each.registration.tags:
            labels += "|" in tag
            if re.fullmatch(_VERSION_TAG, tag):
                wrong[tag].append(each)
    for tag, instances in sorted(wrong.items()):
        names = list(dict.fromkeys(each.workload.name for each in instances))
        meant = f"version|{re.sub(r'^version[=:-]', '', tag)}"
        places = [each.workload.written("tags", each.registration.port) for each in instances]
        change = files.change_each(
            plan,
            [
                (each.workload.service, (_with_labels(each, tag, meant),))
                for each in {one.workload.name: one for one in instances}.values()
            ],
        )
        yield Finding(
            message=(
                f"Pilot would make no label of the tag {tag} of {listing(names)}: it reads "
                f"key|value, as in {meant}."
            ),
            subjects=(
                *subjects(SubjectKind.SERVICE, sorted({each.service for each in instances})),
                *subjects(SubjectKind.WORKLOAD, names),
            ),
            seen_in=tuple(
                files.cite(each.place, f"SERVICE_TAGS={each.value}")
                for each in places
                if each is not None
            ),
            remedies=(
                files.remedy(plan, f"Write {meant} in SERVICE_TAGS of {listing(names)}.", change),
            ),
        )
    if labels and not wrong:
        yield Fact(f"{count(labels, 'tag')} of the form key|value, of which Pilot makes labels")


def _with_labels(instance: PlannedInstance, tag: str, meant: str) -> Variable:
    tags = [meant if each == tag else each for each in instance.registration.tags]
    return files.setting(instance.workload, "TAGS", instance.port, ",".join(tags))


def registered_off_the_mesh(plan: Plan) -> Iterator[Finding | Fact]:
    """MD208, from Registrator's command."""
    registrator = _registrator(plan)
    container = registrator.container
    if registrator.internal:
        yield Fact(f"{container.name} would register the containers' own ports and addresses")
        return
    service = plan.files.services[container.name]
    absent = [each.name for each in plan.workloads if each.has_settings and not each.expected]
    renumbered = [
        f"{each.workload.name} as port {each.port}"
        for each in plan.instances
        if each.port not in {port for port, _ in each.workload.container.exposed}
    ]
    if not absent and not renumbered:
        raise CannotLookError(
            "where Registrator without -internal finds addresses only a running mesh shows"
        )
    registered = [each.name for each in plan.workloads if each.expected]
    others = " ".join(container.command[1:])
    change = files.change(plan, [service], Argument("-internal", others))
    number = len(absent)
    left_out = (
        f"{listing(absent)} {verb(number, 'publishes', 'publish')} none and would be left out"
    )
    parts = ([listing(renumbered)] if renumbered else []) + ([left_out] if absent else [])
    yield Finding(
        message=(
            f"{container.name} is started without -internal, so it would register only published "
            f"ports, by their numbers on the host: {'; '.join(parts)}."
        ),
        subjects=(
            Subject(SubjectKind.COMPONENT, container.name),
            *subjects(SubjectKind.SERVICE, plan.services),
            *subjects(SubjectKind.WORKLOAD, (*registered, *absent)),
        ),
        seen_in=(
            files.cite(
                service.command[0].place if service.command else service.place,
                f"command: {' '.join(container.command[1:])}",
            ),
        ),
        remedies=(
            files.remedy(
                plan, f"Put -internal before the other arguments of {container.name}.", change
            ),
        ),
    )


def control_plane_registered(plan: Plan) -> Iterator[Finding | Fact]:
    """MD209, from the ports of the control plane that nothing tells Registrator to ignore."""
    if not plan.components:
        raise CannotLookError("these files hold no part of the control plane")
    if plan.registrator is None:
        raise CannotLookError("these files hold no Registrator, which alone registers containers")
    if not plan.registered:
        yield Fact(
            "nothing of the control plane would be registered, as far as its ports are known"
        )
        return
    owners = sorted(plan.registered)
    registrations = [each for owner in owners for each in plan.registered[owner]]
    names = list(dict.fromkeys(each.name for each in registrations))
    contested = sorted({each.port for each in registrations} & set(plan.ports))
    contest = (
        f" On port {listing([str(each) for each in contested])} they would contend with "
        "applications for the listener."
        if contested
        else ""
    )
    services = [plan.files.services[each] for each in owners]
    change = files.change(plan, services, Variable("SERVICE_IGNORE", "1"))
    yield Finding(
        message=(
            f"Registrator would register {listing(names)} as "
            f"{verb(len(names), 'a service', 'services')}, for {listing(owners)} "
            f"{verb(len(owners), 'sets', 'set')} no SERVICE_IGNORE.{contest}"
        ),
        subjects=(
            *subjects(SubjectKind.SERVICE, names),
            *subjects(SubjectKind.COMPONENT, owners),
        ),
        seen_in=tuple(files.cite_service(each) for each in services),
        remedies=(
            Remedy(
                summary=f"Set SERVICE_IGNORE=1 in the environment of {listing(owners)}.",
                patch=change.patch,
                commands=(*change.commands, files.see_that_it_worked(plan)),
                effect="Harmless to leave as it is, unless an application has one of the ports.",
            ),
        ),
        severity=Severity.WARNING if contested else Severity.INFO,
    )


def name_changed_by_port(plan: Plan) -> Iterator[Finding | Fact]:
    """MD210, from the ports that a container is known to expose."""
    files.require_instances(plan)
    kept = 0
    changed: dict[str, list[PlannedWorkload]] = defaultdict(list)
    for workload in plan.workloads:
        for registration in workload.expected:
            wanted = declared(workload.container, registration.port)[0].get("name", "")
            if not wanted:
                continue
            if registration.suffixed:
                if workload not in changed[wanted]:
                    changed[wanted].append(workload)
            else:
                kept += 1
    for wanted, workloads in sorted(changed.items()):
        yield _changed(plan, wanted, workloads)
    if kept and not changed:
        yield Fact(
            f"{count(kept, 'instance')} would have the name that "
            f"{verb(kept, 'its container asks', 'their containers ask')} for"
        )


def _changed(plan: Plan, wanted: str, workloads: Sequence[PlannedWorkload]) -> Finding:
    suffixed = [
        each
        for workload in workloads
        for each in workload.expected
        if each.suffixed and each.name == f"{wanted}-{each.port}"
    ]
    names = sorted({each.name for each in suffixed})
    ports = sorted({each.port for each in suffixed})
    number = len(workloads)
    # What others have too is what callers use.
    others = [each.port for each in plan.instances if each.workload not in workloads]
    port = max(ports, key=lambda each: (others.count(each), -each))
    change = files.change(
        plan,
        [each.service for each in workloads],
        Variable(f"SERVICE_{port}_NAME", wanted),
        *(Variable(f"SERVICE_{each}_IGNORE", "1") for each in ports if each != port),
    )
    places = [each.written("name", port) for each in workloads]
    return Finding(
        message=(
            f"{listing([each.name for each in workloads])} {verb(number, 'asks', 'ask')} for the "
            f"name {wanted} and would be registered as {listing(names)}, because "
            f"{verb(number, 'it exposes', 'they expose')} the ports "
            f"{listing([str(each) for each in ports])}"
            f"{'' if wanted in plan.services else f'; Consul would have no {wanted}'}."
        ),
        subjects=(
            *subjects(SubjectKind.SERVICE, (wanted, *names)),
            *subjects(SubjectKind.WORKLOAD, (each.name for each in workloads)),
        ),
        seen_in=(
            *(files.cite(each.place, f"SERVICE_NAME={each.value}") for each in places if each),
            *(
                files.cite_setting("image", each.service.image)
                for each in workloads
                if each.service.image is not None
            ),
        ),
        remedies=(
            files.remedy(
                plan,
                f"Give the name to the port that callers use, {port} it seems, and drop the rest.",
                change,
            ),
        ),
    )
