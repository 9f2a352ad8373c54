"""`/config_dump`, whole or in parts, of Envoy's v2 and v3, decoded into facts."""

import hashlib
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from meshdoctor.evidence.envoy import spelling
from meshdoctor.evidence.envoy.clusters import decode_cluster, decode_load_assignment
from meshdoctor.evidence.envoy.facts import (
    Cluster,
    ClusterEntry,
    ConfigState,
    Endpoint,
    EndpointTable,
    FreeForm,
    Listener,
    ListenerEntry,
    Node,
    RejectedUpdate,
    RouteConfiguration,
    RouteEntry,
)
from meshdoctor.evidence.envoy.listeners import decode_listener
from meshdoctor.evidence.envoy.routes import decode_route_configuration
from meshdoctor.evidence.envoy.wire import DAMAGE, NOTHING, Address, Wire, is_set, message_type
from meshdoctor.evidence.interface import DecodeError, Problem

T = TypeVar("T")
Decode = Callable[[bytes | msgspec.Raw], Any]


# ---------------------------------------------------------------- as it is written


class _Root(Wire, frozen=True):
    configs: list[msgspec.Raw] | None = None


class _Typed(Wire, frozen=True):
    type: str = msgspec.field(name="@type", default="")


class _State(Wire, frozen=True):
    version_info: str = ""
    listener: msgspec.Raw = NOTHING


class _Failed(Wire, frozen=True):
    name: str = ""


class _ErrorState(Wire, frozen=True):
    failed_configuration: msgspec.Raw = NOTHING
    details: str = ""
    version_info: str = ""


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


class _BootstrapNode(Wire, frozen=True):
    id: str = ""
    cluster: str = ""
    metadata: dict[str, Any] | None = None


class _Admin(Wire, frozen=True):
    address: Address = Address()


class _Bootstrap(Wire, frozen=True):
    node: _BootstrapNode | None = None
    admin: _Admin | None = None


class _BootstrapSection(Wire, frozen=True):
    bootstrap: _Bootstrap = _Bootstrap()


# ---------------------------------------------------------------- what proxies share


@dataclass(slots=True)
class Shared:
    """What was decoded already, for proxies of one mesh to hold together.

    Sidecars get the same resources over and over. What is byte for byte the same is decoded
    once; what is equal is held once. It lives as long as the loading does.
    """

    resources: dict[tuple[str, bytes], Any] = field(default_factory=dict)
    values: dict[Any, Any] = field(default_factory=dict)

    def resource(self, kind: str, raw: bytes | msgspec.Raw, decode: Decode) -> Any:
        """The fact that `raw` decodes to. Raises one of DAMAGE.

        Facts are shared by a digest, not by the bytes, which would all have to be kept.
        """
        key = (kind, hashlib.sha256(raw).digest())
        fact = self.resources.get(key)
        if fact is None:
            try:
                fact = decode(raw)
            except DAMAGE:
                # Perhaps only unusual: a null where Envoy would have left the field out.
                fact = decode(spelling.normalise(raw))
            self.resources[key] = fact
        return fact

    def endpoint(self, endpoint: Endpoint) -> Endpoint:
        """The one endpoint held that is equal to this one."""
        held: Endpoint = self.values.setdefault(endpoint, endpoint)
        return held

    def value(self, key: Any, make: Callable[[], T]) -> T:
        """The one value held for `key`."""
        held = self.values.get(key)
        if held is None:
            held = self.values[key] = make()
        found: T = held
        return found


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
    one, so that a damaged one costs only itself.
    """

    __slots__ = ("element", "fast", "lists", "slow", "title")

    def __init__(self, title: str, lists: dict[str, ConfigState], element: Any) -> None:
        self.title: Final = title
        self.lists: Final = lists
        self.element: Final = _decoder(element)
        self.fast: Final = _decoder(_section(lists, tuple[element, ...]))
        self.slow: Final = _decoder(_section(lists, tuple[msgspec.Raw, ...]))


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


_LISTENERS: Final = _Form("listeners", _LISTENER_LISTS, _ListenerElement)
_CLUSTERS: Final = _Form("clusters", _CLUSTER_LISTS, _ClusterElement)
_ROUTES: Final = _Form("routes", _ROUTE_LISTS, _RouteElement)
_ENDPOINTS: Final = _Form("endpoints", _ENDPOINT_LISTS, _EndpointElement)

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

_ROOT: Final = msgspec.json.Decoder(_Root, strict=False)
_TYPED: Final = msgspec.json.Decoder(_Typed, strict=False)
_FAILED: Final = msgspec.json.Decoder(_Failed, strict=False)
_BOOTSTRAP: Final = msgspec.json.Decoder(_BootstrapSection, strict=False)


@dataclass(slots=True)
class Dump:
    """What one `/config_dump` tells; `endpoints` is None where it has no such section."""

    api: str = ""
    held: set[str] = field(default_factory=set)
    listeners: list[ListenerEntry] = field(default_factory=list)
    routes: list[RouteEntry] = field(default_factory=list)
    clusters: list[ClusterEntry] = field(default_factory=list)
    endpoints: EndpointTable | None = None
    rejected: list[RejectedUpdate] = field(default_factory=list)
    node: Node | None = None
    admin_address: str = ""
    admin_port: int = 0
    version_info: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def decode_dump(document: str, raw: bytes, shared: Shared, *, endpoints: bool = True) -> Dump:
    """Decode a `/config_dump`; `document` is its name. Raises DecodeError if it is none at all.

    A damaged section or resource costs only itself, and is a problem of the dump. With
    `endpoints` false, the endpoint section is passed over.
    """
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
        self._endpoints: dict[str, tuple[tuple[Endpoint, ...], str, int]] = {}

    def finish(self) -> Dump:
        dump = self._dump
        if "endpoints" in dump.held:
            dump.endpoints = self._table()
        if self._sections >= _WHOLE:
            # Envoy writes no section of routes before it has seen a listener that wants some.
            dump.held.add("routes")
        dump.held -= self._damaged
        return dump

    # -------------------------------------------------------- sections

    def read(self, raw: msgspec.Raw | bytes, pointer: str) -> None:
        try:
            if self._camel:
                raw = spelling.normalise(raw)
            message = message_type(_TYPED.decode(raw).type)
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
                self._raw_element(form, raw, state, pointer)

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
        node = bootstrap.node
        if node is not None:
            metadata = None if node.metadata is None else FreeForm(node.metadata)
            self._dump.node = Node(id=node.id, cluster=node.cluster, metadata=metadata)
        if bootstrap.admin is not None:
            host, port = bootstrap.admin.address.host_and_port
            self._dump.admin_address, self._dump.admin_port = host, port

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
        if section.version_info:
            self._dump.version_info[form.title] = section.version_info
        for written, state in form.lists.items():
            elements = getattr(section, written)
            below = f"{pointer}/{self._spelt(written)}"
            for index, element in enumerate(elements):
                if whole:
                    self._element(element, state, f"{below}/{index}")
                else:
                    self._raw_element(form, element, state, f"{below}/{index}")

    def _raw_element(
        self, form: _Form, raw: msgspec.Raw | bytes, state: ConfigState, pointer: str
    ) -> None:
        try:
            element = self._tolerant(form.element.decode, raw)
        except DAMAGE as error:
            self._problem(pointer, error)
            self._damaged.add(form.title)
            return
        self._element(element, state, pointer)

    def _element(self, element: Any, state: ConfigState, pointer: str) -> None:
        match element:
            case _ListenerElement():
                self._listener(element, state, pointer)
            case _ClusterElement():
                self._cluster(element, state, pointer)
            case _RouteElement():
                self._route(element, state, pointer)
            case _EndpointElement():
                self._load_assignment(element, pointer)

    # -------------------------------------------------------- elements

    def _listener(self, element: _ListenerElement, state: ConfigState, pointer: str) -> None:
        if is_set(element.listener):
            self._listener_entry(element.listener, state, f"{pointer}/listener", element)
        for name, lived in _STATES:
            written: _State | None = getattr(element, name)
            if written is not None and is_set(written.listener):
                place = f"{pointer}/{self._spelt(name)}/listener"
                self._listener_entry(written.listener, lived, place, written)
        if element.error_state is not None:
            self._reject("listener", element.name, element.error_state, pointer)

    def _listener_entry(
        self,
        raw: msgspec.Raw,
        state: ConfigState,
        pointer: str,
        written: _ListenerElement | _State,
    ) -> None:
        listener: Listener | None = self._resource("listener", raw, decode_listener, pointer)
        if listener is None:
            self._damaged.add("listeners")
            return
        version = written.version_info
        self._dump.listeners.append(
            self._shared.value(
                ("listener", id(listener), state, pointer, version),
                lambda: ListenerEntry(
                    listener=listener, state=state, pointer=pointer, version=version
                ),
            )
        )

    def _cluster(self, element: _ClusterElement, state: ConfigState, pointer: str) -> None:
        if is_set(element.cluster):
            place = f"{pointer}/cluster"
            cluster: Cluster | None = self._resource(
                "cluster", element.cluster, decode_cluster, place
            )
            if cluster is None:
                self._damaged.add("clusters")
            else:
                version = element.version_info
                self._dump.clusters.append(
                    self._shared.value(
                        ("cluster", id(cluster), state, place, version),
                        lambda: ClusterEntry(
                            cluster=cluster, state=state, pointer=place, version=version
                        ),
                    )
                )
        if element.error_state is not None:
            self._reject("cluster", "", element.error_state, pointer)

    def _route(self, element: _RouteElement, state: ConfigState, pointer: str) -> None:
        if is_set(element.route_config):
            place = f"{pointer}/{self._spelt('route_config')}"
            config: RouteConfiguration | None = self._resource(
                "route", element.route_config, decode_route_configuration, place
            )
            if config is None:
                self._damaged.add("routes")
            else:
                version = element.version_info
                self._dump.routes.append(
                    self._shared.value(
                        ("route", id(config), state, place, version),
                        lambda: RouteEntry(
                            route_config=config, state=state, pointer=place, version=version
                        ),
                    )
                )
        if element.error_state is not None:
            self._reject("route", "", element.error_state, pointer)

    def _load_assignment(self, element: _EndpointElement, pointer: str) -> None:
        if not is_set(element.endpoint_config):
            return
        place = f"{pointer}/{self._spelt('endpoint_config')}"
        held = self._resource("endpoints", element.endpoint_config, decode_load_assignment, place)
        if held is None:
            self._damaged.add("endpoints")
            return
        cluster, endpoints, _ = held
        parts = place.split("/")
        index = int(parts.pop(-2))
        parts.insert(-1, "{}")
        self._endpoints[cluster] = (endpoints, "/".join(parts), index)

    def _table(self) -> EndpointTable:
        pointers: dict[str, int] = {}
        for _, pointer, _ in self._endpoints.values():
            pointers.setdefault(pointer, len(pointers))
        names = sorted(self._endpoints)
        rows = tuple([(name, self._endpoints[name][0]) for name in names])
        places = array(
            "L",
            [
                self._endpoints[name][2] * len(pointers) + pointers[self._endpoints[name][1]]
                for name in names
            ],
        )
        return EndpointTable(
            self._document, tuple(pointers), share_rows(self._shared, rows), places
        )

    def _reject(self, kind: str, name: str, error: _ErrorState, pointer: str) -> None:
        listener = None
        failed = error.failed_configuration
        if is_set(failed):
            try:
                name = name or self._tolerant(_FAILED.decode, failed).name
                if kind == "listener":
                    listener = self._shared.resource("listener", failed, decode_listener)
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
                attempted=error.version_info,
                listener=listener,
            )
        )

    # -------------------------------------------------------- what they share

    def _resource(self, kind: str, raw: msgspec.Raw, decode: Decode, pointer: str) -> Any:
        try:
            return self._shared.resource(kind, raw, decode)
        except DAMAGE as error:
            self._problem(pointer, error)
            return None

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


def share_rows(
    shared: Shared, rows: tuple[tuple[str, tuple[Endpoint, ...]], ...]
) -> tuple[tuple[str, tuple[Endpoint, ...]], ...]:
    """The same rows, each held once however many proxies have it."""
    values = shared.values
    return tuple([values.setdefault(row, row) for row in rows])


def _admin_message(message: str) -> tuple[str, str]:
    """`envoy.admin.v3.ListenersConfigDump.DynamicListener`: ("v3", "ListenersConfigDump...")."""
    parts = message.split(".")
    if parts[:2] != ["envoy", "admin"]:
        return "", ""
    version, *names = parts[2:] or [""]
    return version.removesuffix("alpha"), ".".join(names)
