"""Istio's routing rules, as its API server or Pilot lists them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Final, Self, TypeVar

import msgspec

from meshdoctor.evidence import layout
from meshdoctor.evidence.interface import (
    DecodeError,
    Documents,
    Problem,
    decode_bytes,
    decode_each_if_there,
    decode_if_there,
    not_recorded,
)

T = TypeVar("T")

VIRTUAL_SERVICES: Final = "istio/virtualservices.json"
DESTINATION_RULES: Final = "istio/destinationrules.json"
CONFIGZ: Final = layout.pilot("configz.json")

VIRTUAL_SERVICE: Final = "VirtualService"
DESTINATION_RULE: Final = "DestinationRule"
_SERVICE_ENTRY: Final = "ServiceEntry"
DOCUMENTS: Final = {VIRTUAL_SERVICE: VIRTUAL_SERVICES, DESTINATION_RULE: DESTINATION_RULES}
"""The list that holds the rules of a kind."""

_MESH: Final = "mesh"
"""The reserved name that stands for all sidecars among a rule's gateways."""
_REDACTED: Final = "[redacted]"
PILOTS_KINDS: Final = {
    "virtual-service": VIRTUAL_SERVICE,
    "destination-rule": DESTINATION_RULE,
    "service-entry": _SERVICE_ENTRY,
}


# ---------------------------------------------------------------- VirtualServices


class StringMatch(msgspec.Struct, frozen=True):
    """`kind` is exact, prefix or regex; "" where it is none of them, or was redacted."""

    kind: str
    value: str = ""


class HttpMatch(msgspec.Struct, frozen=True):
    """One alternative of an HTTP route: all of it must hold, and what is empty always does.

    `conditions` are by what they look at: `uri`, `scheme`, `method`, `authority`, `header NAME`,
    `query NAME`. `unmodelled` names the fields that decide too and are not read.
    """

    conditions: Mapping[str, StringMatch]
    port: int | None
    source_labels: Mapping[str, str]
    gateways: tuple[str, ...]
    unmodelled: tuple[str, ...]
    pointer: str


class Destination(msgspec.Struct, frozen=True):
    """Where a share of a route goes; `port` is None where it names none by number."""

    host: str
    subset: str
    port: int | None
    weight: int
    pointer: str


class HttpRoute(msgspec.Struct, frozen=True):
    """One HTTP route; without `matches` it takes every request.

    `answers` is true of one that redirects, and so has no destination.
    """

    matches: tuple[HttpMatch, ...]
    destinations: tuple[Destination, ...]
    mirror: Destination | None
    answers: bool
    pointer: str


class StreamRoute(msgspec.Struct, frozen=True):
    """One route under `tcp` or `tls`."""

    destinations: tuple[Destination, ...]
    pointer: str


class VirtualService(msgspec.Struct, frozen=True):
    """One VirtualService.

    `for_sidecars` is false where it is for gateways alone (`gateways` without the word `mesh`),
    `for_gateways` true where it names any.
    `exported_to` are the namespaces that see it, () for all. `created` is Kubernetes' own string.
    `file` is where it stands if it is not in force, but only tried out: see `--rules`. `spec`
    leads to its spec.
    """

    name: str
    namespace: str
    hosts: tuple[str, ...]
    http: tuple[HttpRoute, ...]
    streams: tuple[StreamRoute, ...]
    for_sidecars: bool
    for_gateways: bool
    exported_to: tuple[str, ...]
    created: str
    file: str
    document: str
    pointer: str
    spec: str

    @property
    def destinations(self) -> Iterator[tuple[Destination, bool]]:
        """Every destination, and whether it gets any calls: a share of weight 0 gets none."""
        routes: list[HttpRoute | StreamRoute] = [*self.http, *self.streams]
        for route in routes:
            alone = len(route.destinations) == 1
            for each in route.destinations:
                yield each, alone or each.weight > 0
        for http in self.http:
            if http.mirror is not None:
                yield http.mirror, True


# ---------------------------------------------------------------- DestinationRules


class Subset(msgspec.Struct, frozen=True):
    """A subset of a DestinationRule, and the labels that its instances have."""

    name: str
    labels: Mapping[str, str]


class DestinationRule(msgspec.Struct, frozen=True):
    """One DestinationRule; `file` and `spec` are as of a VirtualService."""

    name: str
    namespace: str
    host: str
    subsets: tuple[Subset, ...]
    file: str
    document: str
    pointer: str
    spec: str


# ---------------------------------------------------------------- all of them


class IstioRules(msgspec.Struct, frozen=True):
    """The rules that are in force. No rule at all is evidence too: the lists are empty.

    `held` are the kinds whose list is known whole: nothing follows from what another one lacks.
    `entries` are the hosts of ServiceEntries, as far as Pilot tells.
    """

    title: ClassVar[str] = "Istio's routing rules"
    hint: ClassVar[str] = (
        "point meshdoctor at Istio's API server with --apiserver, or with --kubeconfig at a file "
        "that has access"
    )

    virtual_services: tuple[VirtualService, ...]
    destination_rules: tuple[DestinationRule, ...]
    problems: tuple[Problem, ...]
    held: frozenset[str] = frozenset()
    entries: frozenset[str] = frozenset()

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Decode istio/*, and of Pilot's configz what is not there.

        Raises MissingEvidenceError where nothing was recorded.
        """
        problems: list[Problem] = []
        sources = {kind: name for kind, name in DOCUMENTS.items() if documents.names(name)}
        written = {kind: _items(documents, name, problems) for kind, name in DOCUMENTS.items()}
        pilots = _pilots(documents, problems)
        if pilots is not None:
            for kind in DOCUMENTS.keys() - sources.keys():
                written[kind] = [each for each in pilots if each.kind == kind]
                sources[kind] = CONFIGZ
        if not sources and not documents.names("istio/"):
            raise not_recorded(documents, "istio/", "no rules were recorded", cls.hint)
        services = _decoded(written[VIRTUAL_SERVICE], _virtual_service, problems)
        rules = _decoded(written[DESTINATION_RULE], _destination_rule, problems)
        entries = _decoded(
            [each for each in pilots or () if each.kind == _SERVICE_ENTRY], _entry, problems
        )
        damaged = {each.document.partition("#")[0] for each in problems}
        return cls(
            virtual_services=tuple(services),
            destination_rules=tuple(rules),
            problems=tuple(problems),
            held=frozenset(kind for kind, name in sources.items() if name not in damaged),
            entries=frozenset(host for hosts in entries for host in hosts),
        )


# ---------------------------------------------------------------- as it is written


class _Metadata(msgspec.Struct, gc=False):
    name: str = ""
    namespace: str = ""
    created: str = msgspec.field(default="", name="creationTimestamp")


class _Tried(msgspec.Struct, gc=False):
    """What meshdoctor itself notes of a rule that was laid over the others."""

    file: str = ""


class _Item(msgspec.Struct, gc=False):
    """One object as Kubernetes has it; `meshdoctor` stands only on those that are tried out."""

    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: msgspec.Raw = msgspec.Raw(b"{}")
    meshdoctor: _Tried = msgspec.field(default_factory=_Tried)


class _List(msgspec.Struct, gc=False):
    """`{"kind": "VirtualServiceList", "items": [...]}`; null is Go's empty list."""

    items: list[msgspec.Raw] | None = None


class _PilotsItem(msgspec.Struct, gc=False):
    """An element of configz: Pilot 1.1's own `{"type": "virtual-service", "Spec": {...}}`.

    Later ones write it as Kubernetes does.
    """

    type: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""
    created: str = msgspec.field(default="", name="creationTimestamp")
    metadata: _Metadata | None = None
    pilots_spec: msgspec.Raw = msgspec.field(default=msgspec.Raw(b""), name="Spec")
    spec: msgspec.Raw = msgspec.Raw(b"")


class _Written(msgspec.Struct, frozen=True):
    """One rule whose spec is still to be decoded; `below` leads from it to its spec."""

    kind: str
    metadata: _Metadata
    spec: msgspec.Raw
    file: str
    document: str
    pointer: str
    below: str = "/spec"


def _items(documents: Documents, name: str, problems: list[Problem]) -> list[_Written]:
    """The items of a Kubernetes list; a damaged one costs only itself."""
    listed = decode_if_there(documents, name, _List, problems)
    if listed is None:
        return []
    found: list[_Written] = []
    for index, raw in enumerate(listed.items or ()):
        pointer = f"/items/{index}"
        try:
            item = decode_bytes(f"{name}#{pointer}", bytes(raw), _Item)
        except DecodeError as error:
            problems.append(error.as_problem)
            continue
        found.append(_Written("", item.metadata, item.spec, item.meshdoctor.file, name, pointer))
    return found


def _pilots(documents: Documents, problems: list[Problem]) -> list[_Written] | None:
    """What Pilot says is in force, None where it was not asked or its answer is damaged."""
    listed = decode_each_if_there(documents, CONFIGZ, _PilotsItem, problems)
    if listed is None:
        return None
    found: list[_Written] = []
    for pointer, item in listed:
        below = "/Spec" if bytes(item.pilots_spec) else "/spec"
        found.append(
            _Written(
                kind=PILOTS_KINDS.get(item.type, item.kind),
                metadata=item.metadata or _Metadata(item.name, item.namespace, item.created),
                spec=item.pilots_spec if bytes(item.pilots_spec) else item.spec,
                file="",
                document=CONFIGZ,
                pointer=pointer,
                below=below,
            )
        )
    return found


def _decoded(
    written: Iterable[_Written], decoder: Callable[[_Written], T], problems: list[Problem]
) -> list[T]:
    """One that does not decode costs only itself."""
    found = []
    for each in written:
        try:
            found.append(decoder(each))
        except DecodeError as error:
            problems.append(error.as_problem)
    return found


def _spec(written: _Written, form: type[T]) -> T:
    return decode_bytes(_place(written), bytes(written.spec) or b"{}", form)


def _place(written: _Written) -> str:
    return f"{written.document}#{written.pointer}"


# ---------------------------------------------------------------- specs

# Pilot 1.1 prints its own Go structures: fields of one of several kinds stand one level deeper,
# and names of several words have an underscore.


class _GoString(msgspec.Struct, gc=False, rename="pascal"):
    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class _String(msgspec.Struct, gc=False):
    """{"exact": "jason"}, and Pilot's {"MatchType": {"Exact": "jason"}}."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None
    go: _GoString | None = msgspec.field(default=None, name="MatchType")


class _GoPort(msgspec.Struct, gc=False, rename="pascal"):
    number: int | None = None


class _Port(msgspec.Struct, gc=False):
    """{"number": 9080}, and Pilot's {"Port": {"Number": 9080}}."""

    number: int | None = None
    go: _GoPort | None = msgspec.field(default=None, name="Port")


class _Match(msgspec.Struct, gc=False):
    uri: _String | None = None
    scheme: _String | None = None
    method: _String | None = None
    authority: _String | None = None
    headers: dict[str, _String | None] | None = None
    query: dict[str, _String | None] | None = msgspec.field(default=None, name="queryParams")
    port: int | None = None
    gateways: list[str] | None = None
    labels: dict[str, str] | None = msgspec.field(default=None, name="sourceLabels")
    pilots_labels: dict[str, str] | None = msgspec.field(default=None, name="source_labels")


_READ: Final = frozenset(each.encode_name for each in msgspec.structs.fields(_Match)) | {"name"}


class _Destination(msgspec.Struct, gc=False):
    host: str = ""
    subset: str = ""
    port: _Port | None = None


class _Share(msgspec.Struct, gc=False):
    destination: _Destination | None = None
    weight: int | None = None


class _HttpRoute(msgspec.Struct, gc=False):
    match: list[msgspec.Raw] | None = None
    route: list[_Share] | None = None
    redirect: msgspec.Raw = msgspec.Raw(b"null")
    mirror: _Destination | None = None


class _StreamRoute(msgspec.Struct, gc=False):
    route: list[_Share] | None = None


class _VirtualServiceSpec(msgspec.Struct, gc=False):
    hosts: list[str] | None = None
    gateways: list[str] | None = None
    http: list[_HttpRoute] | None = None
    tcp: list[_StreamRoute] | None = None
    tls: list[_StreamRoute] | None = None
    exported_to: list[str] | None = msgspec.field(default=None, name="exportTo")
    pilots_exported_to: list[str] | None = msgspec.field(default=None, name="export_to")


class _Subset(msgspec.Struct, gc=False):
    name: str = ""
    labels: dict[str, str] | None = None


class _DestinationRuleSpec(msgspec.Struct, gc=False):
    host: str = ""
    subsets: list[_Subset] | None = None


class _ServiceEntrySpec(msgspec.Struct, gc=False):
    hosts: list[str] | None = None


def _virtual_service(written: _Written) -> VirtualService:
    spec = _spec(written, _VirtualServiceSpec)
    place = f"{written.pointer}{written.below}"
    return VirtualService(
        name=written.metadata.name,
        namespace=written.metadata.namespace,
        hosts=tuple(spec.hosts or ()),
        http=tuple(
            _http_route(written, each, f"{place}/http/{index}")
            for index, each in enumerate(spec.http or ())
        ),
        streams=tuple(
            StreamRoute(
                _destinations(each.route, f"{place}/{kind}/{index}"), f"{place}/{kind}/{index}"
            )
            for kind, routes in (("tcp", spec.tcp), ("tls", spec.tls))
            for index, each in enumerate(routes or ())
        ),
        for_sidecars=not spec.gateways or _MESH in spec.gateways,
        for_gateways=any(each != _MESH for each in spec.gateways or ()),
        exported_to=tuple(spec.exported_to or spec.pilots_exported_to or ()),
        created=written.metadata.created,
        file=written.file,
        document=written.document,
        pointer=written.pointer,
        spec=place,
    )


def _http_route(written: _Written, route: _HttpRoute, pointer: str) -> HttpRoute:
    return HttpRoute(
        matches=tuple(
            _match(written, raw, f"{pointer}/match/{index}")
            for index, raw in enumerate(route.match or ())
        ),
        destinations=_destinations(route.route, pointer),
        mirror=None
        if route.mirror is None
        else _destination(route.mirror, 0, f"{pointer}/mirror"),
        answers=bytes(route.redirect) != b"null",
        pointer=pointer,
    )


def _match(written: _Written, raw: msgspec.Raw, pointer: str) -> HttpMatch:
    where = f"{written.document}#{pointer}"
    written_match = b"{}" if bytes(raw) == b"null" else bytes(raw)
    match = decode_bytes(where, written_match, _Match)
    fields = decode_bytes(where, written_match, dict[str, msgspec.Raw])
    looked_at = {
        "uri": match.uri,
        "scheme": match.scheme,
        "method": match.method,
        "authority": match.authority,
        # Envoy knows no capitals in the names of headers.
        **{f"header {name.lower()}": each or _String() for name, each in _of(match.headers)},
        **{f"query {name}": each or _String() for name, each in _of(match.query)},
    }
    return HttpMatch(
        conditions={name: _string(each) for name, each in looked_at.items() if each is not None},
        # Pilot prints 0 for a port that was not given.
        port=match.port or None,
        source_labels=match.labels or match.pilots_labels or {},
        gateways=tuple(match.gateways or ()),
        unmodelled=tuple(sorted(fields.keys() - _READ)),
        pointer=pointer,
    )


def _of(named: Mapping[str, _String | None] | None) -> Iterable[tuple[str, _String | None]]:
    return (named or {}).items()


def _string(written: _String) -> StringMatch:
    one = written.go or written
    for kind, value in (("exact", one.exact), ("prefix", one.prefix), ("regex", one.regex)):
        if value is not None:
            return StringMatch("" if value == _REDACTED else kind, value)
    return StringMatch("")


def _destinations(shares: Sequence[_Share] | None, pointer: str) -> tuple[Destination, ...]:
    return tuple(
        _destination(each.destination or _Destination(), each.weight or 0, f"{pointer}/route/{at}")
        for at, each in enumerate(shares or ())
    )


def _destination(written: _Destination, weight: int, pointer: str) -> Destination:
    port = written.port
    number = None if port is None else port.number or (port.go and port.go.number)
    return Destination(written.host, written.subset, number or None, weight, pointer)


def _destination_rule(written: _Written) -> DestinationRule:
    spec = _spec(written, _DestinationRuleSpec)
    return DestinationRule(
        name=written.metadata.name,
        namespace=written.metadata.namespace,
        host=spec.host,
        subsets=tuple(Subset(each.name, each.labels or {}) for each in spec.subsets or ()),
        file=written.file,
        document=written.document,
        pointer=written.pointer,
        spec=f"{written.pointer}{written.below}",
    )


def _entry(written: _Written) -> Sequence[str]:
    return _spec(written, _ServiceEntrySpec).hosts or ()
