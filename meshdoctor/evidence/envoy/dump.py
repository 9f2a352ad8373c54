"""`/config_dump`, whole or in parts, of Envoy's v2 and v3, decoded into facts."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, cached_property, reduce
from itertools import zip_longest
from operator import attrgetter, or_
from sys import intern
from typing import Any, ClassVar, Final

import msgspec

from meshdoctor.evidence.envoy import spelling
from meshdoctor.evidence.envoy.clusters import decode_cluster, decode_load_assignment
from meshdoctor.evidence.envoy.facts import (
    ClusterEntry,
    ConfigState,
    Endpoint,
    EndpointTable,
    FreeForm,
    ListenerEntry,
    Node,
    RejectedUpdate,
    RouteEntry,
)
from meshdoctor.evidence.envoy.listeners import decode_listener
from meshdoctor.evidence.envoy.routes import decode_route_configuration
from meshdoctor.evidence.envoy.wire import DAMAGE, NOTHING, Address, Wire, is_set, type_of
from meshdoctor.evidence.interface import MOST_PROBLEMS, DecodeError, Problem

Row = tuple[str, tuple[Endpoint, ...]]
_Assignment = tuple[Row, str, int]
"""A row; where such rows stand in a dump, `{}` for the index; and the index of this one."""
Decode = Callable[[bytes | msgspec.Raw], Any]


# ---------------------------------------------------------------- as it is written


class _Root(Wire, frozen=True):
    configs: list[msgspec.Raw] | None = None


class _State(Wire, frozen=True):
    version_info: str = ""
    listener: msgspec.Raw = NOTHING


class _Failed(Wire, frozen=True):
    name: str = ""


class _ErrorState(Wire, frozen=True):
    failed_configuration: msgspec.Raw = NOTHING
    details: str = ""


class _ListenerElement(Wire, frozen=True):
    """Of every list of listeners there is: static, v3's states, v2's lists by state."""

    name: str = ""
    version_info: str = ""
    listener: msgspec.Raw = NOTHING
    active_state: _State | None = None
    warming_state: _State | None = None
    draining_state: _State | None = None
    error_state: _ErrorState | None = None


class _ClusterElement(Wire, frozen=True):
    version_info: str = ""
    cluster: msgspec.Raw = NOTHING
    error_state: _ErrorState | None = None


class _RouteElement(Wire, frozen=True):
    version_info: str = ""
    route_config: msgspec.Raw = NOTHING
    error_state: _ErrorState | None = None


class _EndpointElement(Wire, frozen=True):
    endpoint_config: msgspec.Raw = NOTHING


class WrittenNode(Wire, frozen=True):
    """`{"id": "sidecar~172.28.0.8~...", "cluster": "details", "metadata": {...}}`."""

    id: str = ""
    cluster: str = ""
    metadata: dict[str, Any] | None = None

    @property
    def fact(self) -> Node:
        metadata = None if self.metadata is None else FreeForm(self.metadata)
        return Node(id=self.id, cluster=self.cluster, metadata=metadata)


class _Admin(Wire, frozen=True):
    address: Address = Address()


class _EnvoyGrpc(Wire, frozen=True):
    cluster_name: str = ""


class _GoogleGrpc(Wire, frozen=True):
    target_uri: str = ""


class _GrpcService(Wire, frozen=True):
    envoy_grpc: _EnvoyGrpc | None = None
    google_grpc: _GoogleGrpc | None = None


class _ApiSource(Wire, frozen=True):
    grpc_services: tuple[_GrpcService, ...] = ()


class _ConfigSource(Wire, frozen=True):
    api_config_source: _ApiSource | None = None


class _DynamicResources(Wire, frozen=True):
    """`{"ads_config": {"grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}}`."""

    ads_config: _ApiSource | None = None
    lds_config: _ConfigSource | None = None
    cds_config: _ConfigSource | None = None


class _Bootstrap(Wire, frozen=True):
    node: WrittenNode | None = None
    admin: _Admin | None = None
    dynamic_resources: msgspec.Raw = NOTHING


class _BootstrapSection(Wire, frozen=True):
    bootstrap: _Bootstrap = _Bootstrap()


# ---------------------------------------------------------------- what proxies share


class _Read(msgspec.Struct, frozen=True, gc=False):
    """The elements of a list, and the entries of each: None where there is more to say of it."""

    elements: Sequence[Any] = ()
    entries: Sequence[tuple[Any, ...] | None] = ()


_NOTHING_READ: Final = _Read()


class Statuses(msgspec.Struct, frozen=True, gc=False):
    """What one `/clusters` said: each cluster's name, its hosts as written, and the row of it.

    `order` has their places, sorted by name.
    """

    names: Sequence[str] = ()
    hosts: Sequence[msgspec.Raw] = ()
    rows: Sequence[Row] = ()
    order: Sequence[int] = ()


FIRST_BYTES: Final = 2**20
"""Of resources looked up. The sidecars of a small mesh have no more that differ, and to load what
makes digests takes as long as to decode all they have."""


class Shared(msgspec.Struct):
    """What was decoded already, for proxies of one mesh to hold together.

    Sidecars get the same resources over and over. What is byte for byte the same is decoded
    once; what is equal is held once. It lives as long as the loading does. Where there is only
    one proxy, `several` is false, and nothing is kept for another.

    Nearly always an element stands where it stood in the dump before: `before` has that dump's,
    by the pointer to their list. So one dump is held. What has changed, or moved, is looked up:
    by its bytes while that is little, else by a digest. `first_seen` is the first dump's until
    then; `statuses` is what the last `/clusters` said.
    """

    several: bool = True
    dumps: int = 0
    before: dict[str, _Read] = msgspec.field(default_factory=dict)
    first_seen: dict[str, list[tuple[msgspec.Raw, Any]]] = msgspec.field(default_factory=dict)
    looked_up: int = 0
    digested: bool = False
    resources: dict[tuple[str, bytes], Any] = msgspec.field(default_factory=dict)
    entries: dict[tuple[str, str, int, ConfigState], Any] = msgspec.field(default_factory=dict)
    statuses: Statuses = Statuses()
    values: dict[Any, Any] = msgspec.field(default_factory=dict)

    def resource(self, kind: str, raw: msgspec.Raw) -> Any:
        """The fact that `raw` decodes to. Raises one of DAMAGE."""
        if not self.several:
            return _decoded(kind, raw)
        if self.dumps == 1:
            # There is nothing yet that could be found.
            fact = _decoded(kind, raw)
            self.first_seen.setdefault(kind, []).append((raw, fact))
            return fact
        for known, fact in self.first_seen.pop(kind, ()):
            key = self._key(kind, known)
            self.resources[key] = fact
        key = self._key(kind, raw)
        fact = self.resources.get(key)
        if fact is None:
            fact = self.resources[key] = _decoded(kind, raw)
        return fact

    def _key(self, kind: str, raw: msgspec.Raw) -> tuple[str, bytes]:
        """With its bytes while those kept are few, then with a digest, as all that are kept."""
        if self.looked_up < FIRST_BYTES:
            written = bytes(raw)
            self.looked_up += len(written)
            return kind, written
        from hashlib import sha256  # noqa: PLC0415

        if not self.digested:
            self.digested = True
            known = self.resources.items()
            self.resources = {(of, sha256(key).digest()): fact for (of, key), fact in known}
        return kind, sha256(raw).digest()

    def entry(self, kind: str, fact: Any, state: ConfigState, place: str, version: str) -> Any:
        """The one entry of a fact at `place`; as facts are held, no two have the same id."""
        # One string is held for all that came with one push.
        entry = _ENTRIES[kind](fact, state, place, intern(version))
        if not self.several:
            return entry
        return self.entries.setdefault((place, version, id(fact), state), entry)

    def endpoint(self, endpoint: Endpoint) -> Endpoint:
        """The one endpoint held that is equal to this one."""
        if not self.several:
            return endpoint
        held: Endpoint = self.values.setdefault(endpoint, endpoint)
        return held

    def row(self, row: Row) -> Row:
        """The one row held that is equal to this one."""
        if not self.several:
            return row
        held: Row = self.values.setdefault(row, row)
        return held


_DECODE: Final[dict[str, Decode]] = {
    "listener": decode_listener,
    "cluster": decode_cluster,
    "route": decode_route_configuration,
    "endpoint": decode_load_assignment,
}
_ENTRIES: Final[dict[str, Callable[[Any, ConfigState, str, str], Any]]] = {
    "listener": lambda fact, state, place, version: ListenerEntry(
        listener=fact, state=state, pointer=place, version=version
    ),
    "cluster": lambda fact, state, place, version: ClusterEntry(
        cluster=fact, state=state, pointer=place, version=version
    ),
    "route": lambda fact, state, place, version: RouteEntry(
        route_config=fact, state=state, pointer=place, version=version
    ),
}


def _decoded(kind: str, raw: msgspec.Raw) -> Any:
    decode = _DECODE[kind]
    try:
        return decode(raw)
    except DAMAGE:
        # Perhaps only unusual: a null where Envoy would have left the field out.
        return decode(spelling.normalise(raw))


# ---------------------------------------------------------------- the sections


_LISTENER_LISTS: Final = {
    "static_listeners": ConfigState.STATIC,
    "dynamic_listeners": ConfigState.ACTIVE,
    "dynamic_active_listeners": ConfigState.ACTIVE,
    "dynamic_warming_listeners": ConfigState.WARMING,
    "dynamic_draining_listeners": ConfigState.DRAINING,
}
_CLUSTER_LISTS: Final = {
    "static_clusters": ConfigState.STATIC,
    "dynamic_active_clusters": ConfigState.ACTIVE,
    "dynamic_warming_clusters": ConfigState.WARMING,
}
_ROUTE_LISTS: Final = {
    "static_route_configs": ConfigState.STATIC,
    "dynamic_route_configs": ConfigState.ACTIVE,
}
_ENDPOINT_LISTS: Final = {
    "static_endpoint_configs": ConfigState.STATIC,
    "dynamic_endpoint_configs": ConfigState.ACTIVE,
}
_STATES: Final = (
    ("active_state", ConfigState.ACTIVE),
    ("warming_state", ConfigState.WARMING),
    ("draining_state", ConfigState.DRAINING),
)


class _Form:
    """One kind of section: its lists, and the form of their elements.

    `fast` decodes a sound section in one go; `slow` leaves the elements to be decoded one by
    one, so that a damaged one costs only itself. Few dumps need either.
    """

    def __init__(
        self, kind: str, message: str, lists: dict[str, ConfigState], element: Any
    ) -> None:
        self.kind: Final = kind
        self.title: Final = f"{kind}s"
        self.message: Final = attrgetter(message)
        self.lists: Final = lists
        self._element: Final = element
        self.section: Final = _section(lists, tuple[element, ...])

    @cached_property
    def element(self) -> msgspec.json.Decoder[Any]:
        return _decoder(self._element)

    @cached_property
    def fast(self) -> msgspec.json.Decoder[Any]:
        return _decoder(self.section)

    @cached_property
    def slow(self) -> msgspec.json.Decoder[Any]:
        return _decoder(_section(self.lists, tuple[msgspec.Raw, ...]))


def _decoder(form: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(form, strict=False)


def _section(lists: Iterable[str], form: Any) -> Any:
    return msgspec.defstruct(
        "_Section",
        [("version_info", str, ""), *((name, form, ()) for name in lists)],
        bases=(Wire,),
        frozen=True,
        gc=False,
    )


_LISTENERS: Final = _Form("listener", "listener", _LISTENER_LISTS, _ListenerElement)
_CLUSTERS: Final = _Form("cluster", "cluster", _CLUSTER_LISTS, _ClusterElement)
_ROUTES: Final = _Form("route", "route_config", _ROUTE_LISTS, _RouteElement)
_ENDPOINTS: Final = _Form("endpoint", "endpoint_config", _ENDPOINT_LISTS, _EndpointElement)

_SECTIONS: Final = {
    "ListenersConfigDump": _LISTENERS,
    "ClustersConfigDump": _CLUSTERS,
    "RoutesConfigDump": _ROUTES,
    "EndpointsConfigDump": _ENDPOINTS,
}
# A dump with these sections is a whole one.
_WHOLE: Final = frozenset({"BootstrapConfigDump", "ClustersConfigDump", "ListenersConfigDump"})

# With ?resource= the elements of the lists stand in configs[] themselves. Active and warming
# clusters look the same then; both are asked for as active ones.
_ELEMENTS: Final = {
    "ListenersConfigDump.StaticListener": (_LISTENERS, ConfigState.STATIC),
    "ListenersConfigDump.DynamicListener": (_LISTENERS, ConfigState.ACTIVE),
    "ClustersConfigDump.StaticCluster": (_CLUSTERS, ConfigState.STATIC),
    "ClustersConfigDump.DynamicCluster": (_CLUSTERS, ConfigState.ACTIVE),
    "RoutesConfigDump.StaticRouteConfig": (_ROUTES, ConfigState.STATIC),
    "RoutesConfigDump.DynamicRouteConfig": (_ROUTES, ConfigState.ACTIVE),
    "EndpointsConfigDump.StaticEndpointConfig": (_ENDPOINTS, ConfigState.STATIC),
    "EndpointsConfigDump.DynamicEndpointConfig": (_ENDPOINTS, ConfigState.ACTIVE),
}

_ADMIN: Final = "envoy.admin."
_V2: Final = "v2alpha"
_V3: Final = "v3"
_HEAD: Final = 1024

_ROOT: Final = msgspec.json.Decoder(_Root, strict=False)


@cache
def _at_once(version: str) -> msgspec.json.Decoder[Any]:
    """Decodes a sound dump of known sections in one pass; `kind` tells which each is."""
    forms: dict[str, Any] = {name: form.section for name, form in _SECTIONS.items()}
    forms["BootstrapConfigDump"] = _BootstrapSection
    forms |= dict.fromkeys(("ScopedRoutesConfigDump", "SecretsConfigDump", "EcdsConfigDump"), Wire)
    tagged = [
        msgspec.defstruct(
            name,
            [("kind", ClassVar[str], name), ("version", ClassVar[str], version)],
            bases=(form,),
            tag_field="@type",
            tag=f"type.googleapis.com/{_ADMIN}{version}.{name}",
            frozen=True,
            gc=False,
        )
        for name, form in forms.items()
    ]
    configs: Any = reduce(or_, tagged)
    root = msgspec.defstruct("_Dump", [("configs", list[configs])], gc=False)
    return _decoder(root)


_FAILED: Final = msgspec.json.Decoder(_Failed, strict=False)
_BOOTSTRAP: Final = msgspec.json.Decoder(_BootstrapSection, strict=False)
_DYNAMIC: Final = msgspec.json.Decoder(_DynamicResources, strict=False)


class Dump(msgspec.Struct):
    """What one `/config_dump` tells; `endpoints` is None where it has no such section."""

    api: str = ""
    held: set[str] = msgspec.field(default_factory=set)
    listeners: list[ListenerEntry] = msgspec.field(default_factory=list)
    routes: list[RouteEntry] = msgspec.field(default_factory=list)
    clusters: list[ClusterEntry] = msgspec.field(default_factory=list)
    endpoints: EndpointTable | None = None
    rejected: list[RejectedUpdate] = msgspec.field(default_factory=list)
    node: Node | None = None
    admin_address: str = ""
    admin_port: int = 0
    control_plane: tuple[str, ...] = ()
    version_info: dict[str, str] = msgspec.field(default_factory=dict)
    problems: list[Problem] = msgspec.field(default_factory=list)


def decode_dump(document: str, raw: bytes, shared: Shared, *, endpoints: bool = True) -> Dump:
    """Decode a `/config_dump`; `document` is its name. Raises DecodeError if it is none at all.

    A damaged section or resource costs only itself, and is a problem of the dump. With
    `endpoints` false, the endpoint section is passed over.
    """
    shared.dumps += 1
    # Envoy writes the first section's type at once. Where somebody else wrote it later, the dump
    # is taken apart: what it tells stays the same.
    version = _V2 if f"{_ADMIN}{_V2}.".encode() in raw[:_HEAD] else _V3
    try:
        sections = _at_once(version).decode(raw).configs
    except DAMAGE:
        sections = []
    if any(map(_lists_something, sections)):
        reader = _Reader(document, shared, endpoints=endpoints, camel=False)
        sections.reverse()
        for index in range(len(sections)):
            # What was taken is let go before the next is.
            reader.take(sections.pop(), f"/configs/{index}")
        return reader.finish()
    # Damaged, or of another form, or in camel case: taken apart, so that each part stands alone.
    try:
        configs = _ROOT.decode(raw).configs
    except DAMAGE as error:
        raise DecodeError(
            document, f"no config dump ({len(raw)} bytes): {_said(error)}"
        ) from error
    if configs is None:
        raise DecodeError(document, "no config dump: it has no `configs`")
    reader = _Reader(document, shared, endpoints=endpoints, camel=_is_camel_case(configs))
    for index, section in enumerate(configs):
        reader.read(section, f"/configs/{index}")
    return reader.finish()


def _lists_something(section: Any) -> bool:
    form = _SECTIONS.get(section.kind)
    return form is not None and any(getattr(section, name) for name in form.lists)


def _is_camel_case(configs: list[msgspec.Raw]) -> bool:
    # The bootstrap is asked last: most of what stands first in it are keys of the node's own.
    told = [spelling.is_camel_case(section) for section in (*configs[1:], *configs[:1])]
    return next((camel for camel in told if camel is not None), False)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


class _Reader:
    """Reads the sections of one dump, one after the other."""

    def __init__(self, document: str, shared: Shared, *, endpoints: bool, camel: bool) -> None:
        self._document = document
        self._shared = shared
        self._with_endpoints = endpoints
        self._camel = camel
        self._dump = Dump()
        self._damaged: set[str] = set()
        self._sections: set[str] = set()
        self._refused: set[tuple[str, str, str]] = set()
        self._read: dict[str, _Read] = {}
        self._assignments: list[_Assignment] = []
        self._held: dict[str, tuple[list[Any], str]] = {
            "listener": (self._dump.listeners, "listener"),
            "cluster": (self._dump.clusters, "cluster"),
            "route": (self._dump.routes, self._spelt("route_config")),
            "endpoint": (self._assignments, self._spelt("endpoint_config")),
        }

    def finish(self) -> Dump:
        dump = self._dump
        if "endpoints" in dump.held:
            dump.endpoints = self._table()
        if self._sections >= _WHOLE:
            # Envoy writes no section of routes before it has seen a listener that wants some.
            dump.held.add("routes")
        dump.held -= self._damaged
        self._shared.before = self._read
        return dump

    # -------------------------------------------------------- sections

    def read(self, raw: msgspec.Raw | bytes, pointer: str) -> None:
        try:
            if self._camel:
                raw = spelling.normalise(raw)
            message = type_of(raw)
        except DAMAGE as error:
            self._problem(pointer, error)
            # Nobody knows which section that was.
            self._damaged.update(("listeners", "routes", "clusters", "endpoints"))
            return
        version, name = _admin_message(message)
        if version and not self._dump.api:
            self._dump.api = version
        self._sections.add(name)
        if name == "BootstrapConfigDump":
            self._bootstrap(raw, pointer)
        elif name in _SECTIONS:
            self._section(_SECTIONS[name], raw, pointer)
        elif name in _ELEMENTS:
            form, state = _ELEMENTS[name]
            if self._wanted(form):
                below, _, index = pointer.rpartition("/")
                self._raw_element(form, raw, state, below, int(index))

    def take(self, section: Any, pointer: str) -> None:
        """A section that was decoded with the whole dump."""
        if not self._dump.api:
            self._dump.api = section.version.removesuffix("alpha")
        self._sections.add(section.kind)
        if section.kind == "BootstrapConfigDump":
            self._take_bootstrap(section.bootstrap, pointer)
        elif section.kind in _SECTIONS and self._wanted(_SECTIONS[section.kind]):
            self._take_section(_SECTIONS[section.kind], section, pointer, whole=True)

    def _wanted(self, form: _Form) -> bool:
        if form is _ENDPOINTS and not self._with_endpoints:
            return False
        self._dump.held.add(form.title)
        return True

    def _bootstrap(self, raw: msgspec.Raw | bytes, pointer: str) -> None:
        try:
            bootstrap = self._tolerant(_BOOTSTRAP.decode, raw).bootstrap
        except DAMAGE as error:
            self._problem(pointer, error)
            return
        self._take_bootstrap(bootstrap, pointer)

    def _take_bootstrap(self, bootstrap: _Bootstrap, pointer: str) -> None:
        if bootstrap.node is not None:
            self._dump.node = bootstrap.node.fact
        if bootstrap.admin is not None:
            host, port = bootstrap.admin.address.host_and_port
            self._dump.admin_address, self._dump.admin_port = host, port
        if is_set(bootstrap.dynamic_resources):
            try:
                written = self._tolerant(_DYNAMIC.decode, bootstrap.dynamic_resources)
            except DAMAGE as error:
                self._problem(f"{pointer}/bootstrap/dynamic_resources", error)
            else:
                self._dump.control_plane = tuple(dict.fromkeys(_control_planes(written)))

    def _section(self, form: _Form, raw: msgspec.Raw | bytes, pointer: str) -> None:
        if not self._wanted(form):
            return
        try:
            section, whole = form.fast.decode(raw), True
        except DAMAGE:
            try:
                section, whole = self._tolerant(form.slow.decode, raw), False
            except DAMAGE as error:
                self._problem(pointer, error)
                self._damaged.add(form.title)
                return
        self._take_section(form, section, pointer, whole=whole)

    def _take_section(self, form: _Form, section: Any, pointer: str, *, whole: bool) -> None:
        if section.version_info:
            self._dump.version_info[form.title] = section.version_info
        for written, state in form.lists.items():
            elements = getattr(section, written)
            below = f"{pointer}/{self._spelt(written)}"
            if whole:
                self._take(form, elements, state, below)
                continue
            for index, element in enumerate(elements):
                self._raw_element(form, element, state, below, index)

    def _raw_element(
        self,
        form: _Form,
        raw: msgspec.Raw | bytes,
        state: ConfigState,
        below: str,
        index: int,
    ) -> None:
        try:
            element = self._tolerant(form.element.decode, raw)
        except DAMAGE as error:
            self._problem(f"{below}/{index}", error)
            self._damaged.add(form.title)
            return
        self._element(form, element, state, below, index)

    def _take(self, form: _Form, elements: Sequence[Any], state: ConfigState, below: str) -> None:
        """All the elements of a list."""
        held, _ = self._held[form.kind]
        before = self._shared.before.get(below, _NOTHING_READ)
        read: list[tuple[Any, ...] | None] = []
        size = len(elements)
        there = zip_longest(elements, before.elements[:size], before.entries[:size])
        for index, (element, known, entries) in enumerate(there):
            if entries is not None and element == known:
                held.extend(entries)
                read.append(entries)
            else:
                read.append(self._element(form, element, state, below, index))
        if self._shared.several:
            self._read[below] = _Read(elements, read)

    # -------------------------------------------------------- elements

    def _element(
        self, form: _Form, element: Any, state: ConfigState, below: str, index: int
    ) -> tuple[Any, ...] | None:
        """Take the entries of one element: them, or None if there is more to say of it."""
        held, _ = self._held[form.kind]
        first, problems = len(held), len(self._dump.problems)
        if form is _ENDPOINTS:
            self._load_assignment(element.endpoint_config, below, index)
        else:
            pointer = f"{below}/{index}"
            version = element.version_info
            self._entry(form.kind, form.message(element), state, pointer, version)
            if form is _LISTENERS:
                self._states(element, pointer)
            if element.error_state is not None:
                name = element.name if form is _LISTENERS else ""
                self._reject(form.kind, name, element.error_state, pointer)
                return None
        return tuple(held[first:]) if len(self._dump.problems) == problems else None

    def _states(self, element: _ListenerElement, pointer: str) -> None:
        for name, lived in _STATES:
            written: _State | None = getattr(element, name)
            if written is not None:
                place = f"{pointer}/{self._spelt(name)}"
                self._entry("listener", written.listener, lived, place, written.version_info)

    def _entry(
        self, kind: str, raw: msgspec.Raw, state: ConfigState, pointer: str, version: str
    ) -> None:
        if not is_set(raw):
            return
        held, message = self._held[kind]
        place = f"{pointer}/{message}"
        try:
            fact = self._shared.resource(kind, raw)
        except DAMAGE as error:
            self._problem(place, error)
            self._damaged.add(f"{kind}s")
            return
        held.append(self._shared.entry(kind, fact, state, place, version))

    def _load_assignment(self, raw: msgspec.Raw, below: str, index: int) -> None:
        if not is_set(raw):
            return
        held, message = self._held["endpoint"]
        try:
            name, endpoints, _ = self._shared.resource("endpoint", raw)
        except DAMAGE as error:
            self._problem(f"{below}/{index}/{message}", error)
            self._damaged.add("endpoints")
            return
        held.append((self._shared.row((name, endpoints)), f"{below}/{{}}/{message}", index))

    def _table(self) -> EndpointTable:
        # Of two for one cluster, the last one counts.
        found = {row[0]: (row, place, index) for row, place, index in self._assignments}
        names = sorted(found)
        which: dict[str, int] = {}
        for _, place, _ in found.values():
            which.setdefault(place, len(which))
        places = array("L")
        for name in names:
            _, place, index = found[name]
            places.append(index * len(which) + which[place])
        rows = tuple([found[name][0] for name in names])
        return EndpointTable(self._document, tuple(which), rows, places)

    def _reject(self, kind: str, name: str, error: _ErrorState, pointer: str) -> None:
        listener = None
        failed = error.failed_configuration
        if is_set(failed):
            try:
                name = name or self._tolerant(_FAILED.decode, failed).name
                if kind == "listener":
                    listener = self._shared.resource("listener", failed)
            except DAMAGE as damage:
                # It may well be what the proxy refused it for.
                self._problem(
                    f"{pointer}/{self._spelt('error_state')}/"
                    f"{self._spelt('failed_configuration')}",
                    damage,
                )
        # Envoy says what it refused twice, where it has nothing older of that name.
        said = (kind, name, error.details)
        if said in self._refused:
            return
        self._refused.add(said)
        self._dump.rejected.append(
            RejectedUpdate(
                kind=kind,
                name=name,
                details=error.details,
                pointer=f"{pointer}/{self._spelt('error_state')}",
                listener=listener,
            )
        )

    # -------------------------------------------------------- what they share

    @staticmethod
    def _tolerant(decode: Decode, raw: msgspec.Raw | bytes) -> Any:
        try:
            return decode(raw)
        except DAMAGE:
            return decode(spelling.normalise(raw))

    def _spelt(self, name: str) -> str:
        return spelling.camel_case(name) if self._camel else name

    def _problem(self, pointer: str, error: Exception) -> None:
        message = f"{pointer}: cannot be decoded, so it is left out: {_said(error)}"
        self._dump.problems.append(Problem(self._document, message))
        if len(self._dump.problems) > MOST_PROBLEMS:
            raise DecodeError(self._document, f"damaged all over, as here: {message}")


def _control_planes(dynamic: _DynamicResources) -> Iterator[str]:
    """The clusters, or addresses, at which a proxy was told to ask for its configuration."""
    others = (dynamic.lds_config, dynamic.cds_config)
    own = [each.api_config_source for each in others if each is not None]
    for source in (dynamic.ads_config, *own):
        for service in source.grpc_services if source is not None else ():
            if service.envoy_grpc is not None and service.envoy_grpc.cluster_name:
                yield service.envoy_grpc.cluster_name
            if service.google_grpc is not None and service.google_grpc.target_uri:
                yield service.google_grpc.target_uri


def _admin_message(message: str) -> tuple[str, str]:
    """`envoy.admin.v3.ListenersConfigDump.DynamicListener`: ("v3", "ListenersConfigDump...")."""
    parts = message.split(".")
    if parts[:2] != ["envoy", "admin"]:
        return "", ""
    version, *names = parts[2:] or [""]
    return version.removesuffix("alpha"), ".".join(names)
