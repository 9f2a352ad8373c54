"""MD205: a tag that makes no label."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.consul import ConsulCatalog, Instance
from meshdoctor.evidence.istio import DestinationRule, IstioRules
from meshdoctor.findings import Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import service_of_host
from meshdoctor.topology import Mesh, Service
from meshdoctor_checks import commands, proofs
from meshdoctor_checks.compose import plan_of
from meshdoctor_checks.neighbours import workloads_of
from meshdoctor_checks.wording import count, listing, verb

_REGISTRATORS: Final = frozenset({"udp"})
"""Registrator gives it to every service on a UDP port."""
_MEANT: Final = r"(?P<key>[A-Za-z][\w.-]*?)(?P<sign>=|:|\||-(?=v?\d))(?P<value>[\w.-]*)"
_VERSION: Final = r"v\d[\w.-]*"


class _Tag(msgspec.Struct, frozen=True):
    """One word among an instance's tags, and the label that was probably meant."""

    instance: Instance
    word: str
    meant: str


@check(
    code="MD205",
    severity=Severity.WARNING,
    since="0.1",
    explains=("MD502",),
    plan=plan_of("registry", "tag_without_value"),
    kinds=(Kind.ISTIO_CONSUL,),
)
def tag_without_value(
    mesh: Mesh, catalog: ConsulCatalog, rules: IstioRules | None
) -> Iterator[Finding | Fact]:
    """A tag is not of the form `key|value`, so Pilot makes no label of it.

    ## Why it matters

    Subsets choose instances by their labels, and Pilot takes labels from tags: `version|v1` is
    the label `version` with the value `v1`. A tag `v1`, `version=v1` or `version:v1` is nothing
    to it but a line in its log, and the subset stays empty.

    ## How it is found

    A tag of an application's instance has no `|` with a word on both sides. It is a warning where
    a label was probably meant: it looks like a version, or like a label that a DestinationRule
    wants or other instances have, or the service has labels on its other instances alone. Any
    other word is a note, for other programs may read it.

    ## How to fix it

    Write `SERVICE_TAGS=version|v1` and recreate the container.
    """
    if Kind.ISTIO_CONSUL not in mesh.kinds:
        raise CannotLookError("only Pilot makes labels of tags, and none is seen")
    labels = 0
    found = False
    keys = _keys(mesh, rules)
    for service in mesh.applications:
        words: dict[str, list[_Tag]] = defaultdict(list)
        for instance in service.instances:
            labels += sum(map(_is_label, instance.tags))
            for tag in instance.tags:
                if not _is_label(tag) and tag not in _REGISTRATORS:
                    words[tag].append(_Tag(instance, tag, _meant(tag)))
        if words:
            found = True
            yield _finding(mesh, service, words, _wanting(service, rules), keys)
    if labels and not found:
        yield Fact(f"{count(labels, 'tag')} of the form key|value, of which Pilot makes labels")


def _keys(mesh: Mesh, rules: IstioRules | None) -> frozenset[str]:
    """The keys of labels that somebody in this mesh has or wants, and the usual one."""
    had = {
        tag.partition("|")[0]
        for service in mesh.applications
        for instance in service.instances
        for tag in instance.tags
        if _is_label(tag)
    }
    wanted = {
        key
        for rule in (rules.destination_rules if rules is not None else ())
        for subset in rule.subsets
        for key in subset.labels
    }
    return frozenset({"version", *had, *wanted})


def _is_label(tag: str) -> bool:
    key, _, rest = tag.partition("|")
    return bool(key) and bool(rest.partition("|")[0])


def _meant(tag: str) -> str:
    """The tag as Pilot would read it, "" where nothing tells what was meant."""
    if re.fullmatch(_VERSION, tag):
        return f"version|{tag}"
    match = re.fullmatch(_MEANT, tag)
    return f"{match['key']}|{match['value']}" if match is not None and match["value"] else ""


def _mended(tag: str) -> str:
    return tag if _is_label(tag) else _meant(tag) or tag


def _wanting(service: Service, rules: IstioRules | None) -> Sequence[DestinationRule]:
    """The DestinationRules for a service that choose its instances by labels."""
    return [
        each
        for each in (rules.destination_rules if rules is not None else ())
        if service_of_host(each.host) == service.name
        and any(subset.labels for subset in each.subsets)
    ]


def _finding(
    mesh: Mesh,
    service: Service,
    words: Mapping[str, Sequence[_Tag]],
    wanting: Sequence[DestinationRule],
    keys: frozenset[str],
) -> Finding:
    tags = [tag for each in words.values() for tag in each]
    instances = list({tag.instance.id: tag.instance for tag in tags}.values())
    wanted = sorted(
        {
            f"{key}={value}"
            for rule in wanting
            for subset in rule.subsets
            for key, value in subset.labels.items()
        }
    )
    others = any(
        _is_label(tag) for each in service.instances if each not in instances for tag in each.tags
    )
    bare = any(not any(map(_is_label, each.tags)) for each in instances)
    suspicious = (bare and (bool(wanted) or others)) or any(
        tag.meant.partition("|")[0] in keys for tag in tags
    )
    number = len(words)
    rule = (
        f", though the DestinationRule {listing([each.name for each in wanting])} asks for "
        f"{listing(wanted, most=4)}"
        if wanted
        else ""
    )
    quoted = listing([f'"{word}"' for word in words], most=5)
    return Finding(
        message=(
            f"{count(len(instances), 'instance')} of {service.name} "
            f"{verb(len(instances), 'has', 'have')} the {verb(number, 'tag', 'tags')} {quoted}, "
            f"{verb(number, 'which is', 'which are')} not of the form key|value and "
            f"{verb(number, 'gives', 'give')} Pilot no label with a value{rule}."
        ),
        subjects=(
            *subjects(SubjectKind.SERVICE, (service.name,)),
            *subjects(SubjectKind.INSTANCE, (each.id for each in instances)),
            *subjects(SubjectKind.RULE, (f"DestinationRule/{each.name}" for each in wanting)),
        ),
        seen_in=tuple(proofs.tags(each) for each in instances),
        remedies=(_remedy(mesh, words, instances),) if suspicious else (),
        severity=Severity.WARNING if suspicious else Severity.INFO,
    )


def _remedy(
    mesh: Mesh, words: Mapping[str, Sequence[_Tag]], instances: Sequence[Instance]
) -> Remedy:
    ids = {each.id for each in instances}
    owners = [mesh.owners[each] for each in sorted(ids) if each in mesh.owners]
    changes = [
        (mesh.owners[tag.instance.id], tag)
        for each in words.values()
        for tag in each
        if tag.meant and tag.instance.id in mesh.owners
    ]
    change = commands.change_each(
        mesh,
        [
            (
                owner,
                (
                    commands.setting(
                        owner,
                        "TAGS",
                        tag.instance.port,
                        ",".join(map(_mended, tag.instance.tags)),
                    ),
                ),
            )
            for owner, tag in {owner.id: (owner, tag) for owner, tag in changes}.values()
        ],
    )
    names = listing([each.name for each in owners] or sorted(ids))
    meant = sorted({tag.meant for _, tag in changes})
    return Remedy(
        summary=(
            f"Write the tags of {names} as key|value"
            f"{f', as in {meant[0]}' if meant else ''}, then recreate "
            f"{verb(len(ids), 'it', 'them')}."
        ),
        commands=(
            *change.commands,
            *commands.recreate_with_sidecars(workloads_of(mesh, owners)),
            commands.see_that_it_worked("MD205", "MD502"),
        ),
        patch=change.patch,
        effect=(
            "Registrator registers the new containers with the tags; calls to them fail until "
            "they and their sidecars are up again."
        ),
    )
