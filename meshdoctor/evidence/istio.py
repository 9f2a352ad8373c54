"""Istio's routing rules, as the API server lists them: VirtualServices and DestinationRules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self, TypeVar

import msgspec

from meshdoctor.evidence.interface import (
    DecodeError,
    Documents,
    MissingEvidenceError,
    Problem,
    decode,
    decode_bytes,
)

T = TypeVar("T")

VIRTUAL_SERVICES: Final = "istio/virtualservices.json"
DESTINATION_RULES: Final = "istio/destinationrules.json"

_MESH: Final = "mesh"
"""The reserved name that stands for all sidecars among a rule's gateways."""


@dataclass(frozen=True, slots=True)
class VirtualService:
    """One VirtualService.

    `http` is true where it has HTTP routes; `for_sidecars` false where it is for gateways alone
    (`gateways` without the word `mesh`).
    """

    name: str
    namespace: str
    hosts: tuple[str, ...]
    http: bool
    for_sidecars: bool
    document: str
    pointer: str


@dataclass(frozen=True, slots=True)
class Subset:
    """A subset of a DestinationRule, and the labels that its instances have."""

    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DestinationRule:
    """One DestinationRule."""

    name: str
    namespace: str
    host: str
    subsets: tuple[Subset, ...]
    document: str
    pointer: str


@dataclass(frozen=True, slots=True)
class IstioRules:
    """The rules that are in force. No rule at all is evidence too: the lists are empty."""

    title: ClassVar[str] = "Istio's routing rules"
    hint: ClassVar[str] = "record them from Istio's API server into the snapshot's folder istio/"

    virtual_services: tuple[VirtualService, ...]
    destination_rules: tuple[DestinationRule, ...]
    problems: tuple[Problem, ...]

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Decode istio/*. Raises MissingEvidenceError where nothing was recorded."""
        if not documents.names("istio/"):
            reported = documents.missing("istio/")
            reason = reported[0].message if reported else "no rules were recorded"
            raise MissingEvidenceError(reason, cls.hint)
        problems: list[Problem] = []
        services = _items(documents, VIRTUAL_SERVICES, _VirtualService, problems)
        rules = _items(documents, DESTINATION_RULES, _DestinationRule, problems)
        return cls(
            virtual_services=tuple(
                VirtualService(
                    name=each.metadata.name,
                    namespace=each.metadata.namespace,
                    hosts=tuple(each.spec.hosts or ()),
                    http=bool(each.spec.http),
                    for_sidecars=not each.spec.gateways or _MESH in each.spec.gateways,
                    document=VIRTUAL_SERVICES,
                    pointer=pointer,
                )
                for pointer, each in services
            ),
            destination_rules=tuple(
                DestinationRule(
                    name=rule.metadata.name,
                    namespace=rule.metadata.namespace,
                    host=rule.spec.host,
                    subsets=tuple(
                        Subset(subset.name, subset.labels or {})
                        for subset in rule.spec.subsets or ()
                    ),
                    document=DESTINATION_RULES,
                    pointer=pointer,
                )
                for pointer, rule in rules
            ),
            problems=tuple(problems),
        )


class _List(msgspec.Struct, gc=False):
    """`{"kind": "VirtualServiceList", "items": [...]}`; null is Go's empty list."""

    items: list[msgspec.Raw] | None = None


class _Metadata(msgspec.Struct, gc=False):
    name: str = ""
    namespace: str = ""


class _VirtualServiceSpec(msgspec.Struct, gc=False):
    hosts: list[str] | None = None
    gateways: list[str] | None = None
    http: list[msgspec.Raw] | None = None


class _VirtualService(msgspec.Struct, gc=False):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: _VirtualServiceSpec = msgspec.field(default_factory=_VirtualServiceSpec)


class _Subset(msgspec.Struct, gc=False):
    name: str = ""
    labels: dict[str, str] | None = None


class _DestinationRuleSpec(msgspec.Struct, gc=False):
    host: str = ""
    subsets: list[_Subset] | None = None


class _DestinationRule(msgspec.Struct, gc=False):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: _DestinationRuleSpec = msgspec.field(default_factory=_DestinationRuleSpec)


def _items(
    documents: Documents, name: str, form: type[T], problems: list[Problem]
) -> list[tuple[str, T]]:
    """The items of a Kubernetes list with their pointers; a damaged one costs only itself."""
    try:
        listed = decode(documents, name, _List)
    except MissingEvidenceError:
        return []
    except DecodeError as error:
        problems.append(Problem(error.document, error.problem))
        return []
    found: list[tuple[str, T]] = []
    for index, raw in enumerate(listed.items or ()):
        pointer = f"/items/{index}"
        try:
            found.append((pointer, decode_bytes(f"{name}#{pointer}", bytes(raw), form)))
        except DecodeError as error:
            problems.append(Problem(error.document, error.problem))
    return found
