"""Listeners and their filters, as Envoy's v2 and v3 write them, decoded into facts."""

import re
from typing import Any, Final

import msgspec

from meshdoctor.evidence.envoy import facts
from meshdoctor.evidence.envoy.routes import (
    RouteConfiguration,
    Upgrade,
    WeightedClusters,
    route_configuration,
    split,
    upgrade_types,
)
from meshdoctor.evidence.envoy.wire import (
    EMPTY,
    NOTHING,
    Address,
    Empty,
    Enumeration,
    Port,
    Unsigned,
    Wire,
    enumeration,
    free_form,
    free_map,
    is_set,
    typed,
)

_SOURCE_TYPES: Final = ("ANY", "SAME_IP_OR_LOOPBACK", "EXTERNAL")
_DIRECTIONS: Final = ("UNSPECIFIED", "INBOUND", "OUTBOUND")
_PROTOCOLS: Final = ("TCP", "UDP")
_ESCAPED_SLASHES: Final = (
    "IMPLEMENTATION_SPECIFIC_DEFAULT",
    "KEEP_UNCHANGED",
    "REJECT_REQUEST",
    "UNESCAPE_AND_REDIRECT",
    "UNESCAPE_AND_FORWARD",
)
_UNDERSCORES: Final = ("ALLOW", "REJECT_REQUEST", "DROP_HEADER")

# HTTP filters that never change where a request goes nor answer it by their listener-wide
# configuration alone: what they hold is not kept. Everything else is, for routing to judge.
_PASSIVE_HTTP_FILTERS: Final = (
    ".router.",
    ".grpc_stats.",
    ".alpn.",
    ".istio_stats.",
    ".stats.",
    "metadata_exchange",
    ".decompressor.",
    ".compressor.",
)


class _CidrRange(Wire, frozen=True):
    address_prefix: str = ""
    prefix_len: Unsigned = 0


class _FilterChainMatch(Wire, frozen=True):
    destination_port: Port | None = None
    prefix_ranges: tuple[_CidrRange, ...] = ()
    direct_source_prefix_ranges: tuple[_CidrRange, ...] = ()
    source_type: Enumeration = "ANY"
    source_prefix_ranges: tuple[_CidrRange, ...] = ()
    source_ports: tuple[Port, ...] = ()
    server_names: tuple[str, ...] = ()
    sni_domains: tuple[str, ...] = ()
    transport_protocol: str = ""
    application_protocols: tuple[str, ...] = ()


class _Filter(Wire, frozen=True):
    name: str = ""
    typed_config: msgspec.Raw = NOTHING
    config: msgspec.Raw = NOTHING
    config_discovery: Empty | None = None
    disabled: bool = False


class _TransportSocket(Wire, frozen=True):
    name: str = ""
    typed_config: msgspec.Raw = NOTHING


class _FilterChain(Wire, frozen=True):
    name: str = ""
    filter_chain_match: _FilterChainMatch | None = None
    filters: tuple[_Filter, ...] = ()
    transport_socket: _TransportSocket | None = None
    tls_context: Empty | None = None


class _ListenerFilter(Wire, frozen=True):
    name: str = ""
    typed_config: msgspec.Raw = NOTHING


class _DeprecatedV1(Wire, frozen=True):
    bind_to_port: bool = True


class _AdditionalAddress(Wire, frozen=True):
    address: Address = Address()


class _Listener(Wire, frozen=True):
    name: str = ""
    address: Address = Address()
    additional_addresses: tuple[_AdditionalAddress, ...] = ()
    filter_chains: tuple[_FilterChain, ...] = ()
    default_filter_chain: _FilterChain | None = None
    filter_chain_matcher: msgspec.Raw = NOTHING
    use_original_dst: bool = False
    hidden_envoy_deprecated_use_original_dst: bool = False
    bind_to_port: bool = True
    deprecated_v1: _DeprecatedV1 | None = None
    listener_filters: tuple[_ListenerFilter, ...] = ()
    traffic_direction: Enumeration = "UNSPECIFIED"


class _TcpProxyV1Route(Wire, frozen=True):
    cluster: str = ""
    destination_ip_list: tuple[Any, ...] = ()
    destination_ports: str = ""
    source_ip_list: tuple[Any, ...] = ()
    source_ports: str = ""

    @property
    def takes_everything(self) -> bool:
        return not (
            self.destination_ip_list
            or self.destination_ports
            or self.source_ip_list
            or self.source_ports
        )


class _TcpProxyV1(Wire, frozen=True):
    routes: tuple[_TcpProxyV1Route, ...] = ()


class _TcpProxy(Wire, frozen=True):
    stat_prefix: str = ""
    cluster: str = ""
    weighted_clusters: WeightedClusters | None = None
    metadata_match: dict[str, Any] | None = None
    tunneling_config: Empty | None = None
    deprecated_v1: _TcpProxyV1 | None = None
    # What v1 called it, found where `config` is {"deprecated_v1": true, "value": {...}}.
    route_config: _TcpProxyV1 | None = None


class _V1(Wire, frozen=True):
    deprecated_v1: bool | _TcpProxyV1 = False
    value: msgspec.Raw = NOTHING


class _Rds(Wire, frozen=True):
    route_config_name: str = ""


class _HttpProtocolOptions(Wire, frozen=True):
    headers_with_underscores_action: Enumeration = "ALLOW"


class _LocalReply(Wire, frozen=True):
    mappers: tuple[Empty, ...] = ()


class _HttpConnectionManager(Wire, frozen=True):
    stat_prefix: str = ""
    route_config: RouteConfiguration | None = None
    rds: _Rds | None = None
    scoped_routes: msgspec.Raw = NOTHING
    http_filters: tuple[_Filter, ...] = ()
    strip_any_host_port: bool = False
    strip_matching_host_port: bool = False
    strip_trailing_host_dot: bool = False
    normalize_path: bool | None = None
    merge_slashes: bool = False
    path_with_escaped_slashes_action: Enumeration = ""
    upgrade_configs: tuple[Upgrade, ...] = ()
    common_http_protocol_options: _HttpProtocolOptions | None = None
    local_reply_config: _LocalReply | None = None
    early_header_mutation_extensions: tuple[Empty, ...] = ()
    path_normalization_options: Empty | None = None
    typed_header_validation_config: Empty | None = None


_LISTENER: Final = msgspec.json.Decoder(_Listener, strict=False)
_TCP: Final = msgspec.json.Decoder(_TcpProxy, strict=False)
_HTTP: Final = msgspec.json.Decoder(_HttpConnectionManager, strict=False)
_V1_CONFIG: Final = msgspec.json.Decoder(_V1, strict=False)


def decode_listener(raw: bytes | msgspec.Raw) -> facts.Listener:
    """A `Listener` message as a fact. Raises what msgspec raises."""
    written = _LISTENER.decode(raw)
    host, port = written.address.host_and_port
    socket = written.address.socket_address
    v1 = written.deprecated_v1
    default = written.default_filter_chain
    return facts.Listener(
        name=written.name,
        address=host,
        port=port,
        protocol="TCP" if socket is None else enumeration(socket.protocol, _PROTOCOLS),
        ipv4_compat=socket is not None and socket.ipv4_compat,
        additional_addresses=tuple(
            [each.address.host_and_port for each in written.additional_addresses]
        ),
        bind_to_port=written.bind_to_port and (v1 is None or v1.bind_to_port),
        use_original_dst=(
            written.use_original_dst or written.hidden_envoy_deprecated_use_original_dst
        ),
        traffic_direction=_direction(written),
        filter_chains=tuple([_filter_chain(each) for each in written.filter_chains]),
        default_filter_chain=None if default is None else _filter_chain(default),
        filter_chain_matcher=free_form(written.filter_chain_matcher),
        listener_filters=tuple([_listener_filter(each) for each in written.listener_filters]),
    )


def _direction(written: _Listener) -> str:
    direction = enumeration(written.traffic_direction, _DIRECTIONS)
    return "" if direction == "UNSPECIFIED" else direction


def _filter_chain(written: _FilterChain) -> facts.FilterChain:
    match = written.filter_chain_match
    return facts.FilterChain(
        name=written.name,
        match=_NO_MATCH if match is None else _match(match),
        filters=tuple([_network_filter(each) for each in written.filters]),
        transport_socket=_transport_socket(written),
    )


_NO_MATCH: Final = facts.FilterChainMatch()


def _match(written: _FilterChainMatch) -> facts.FilterChainMatch:
    source_type = enumeration(written.source_type, _SOURCE_TYPES)
    return facts.FilterChainMatch(
        # A wrapper: 0 cannot be asked for, so it means the same as nothing.
        destination_port=written.destination_port or None,
        prefix_ranges=_ranges(written.prefix_ranges),
        server_names=(*written.server_names, *written.sni_domains),
        transport_protocol=written.transport_protocol,
        application_protocols=written.application_protocols,
        # v2 called it LOCAL.
        source_type="SAME_IP_OR_LOOPBACK" if source_type == "LOCAL" else source_type,
        source_prefix_ranges=_ranges(written.source_prefix_ranges),
        direct_source_prefix_ranges=_ranges(written.direct_source_prefix_ranges),
        source_ports=written.source_ports,
    )


def _ranges(written: tuple[_CidrRange, ...]) -> tuple[facts.CidrRange, ...]:
    return tuple(
        [facts.CidrRange(prefix=each.address_prefix, length=each.prefix_len) for each in written]
    )


def _transport_socket(written: _FilterChain) -> str:
    if written.transport_socket is None:
        return "" if written.tls_context is None else "tls"
    name = written.transport_socket.name
    if is_set(written.transport_socket.typed_config):
        message, _ = typed(written.transport_socket.typed_config)
        if message.endswith(".DownstreamTlsContext"):
            return "tls"
        if message.endswith(".RawBuffer"):
            return ""
    return "" if name.endswith("raw_buffer") else name


# `envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector`, its v2 kin, and the names
# `envoy.listener.tls_inspector` and `envoy.filters.listener.tls_inspector`.
_LISTENER_FILTER: Final = re.compile(r"\.listener\.(\w+)(?:\.v\d\w*\.\w+)?$")


def _listener_filter(written: _ListenerFilter) -> str:
    if is_set(written.typed_config):
        found = _LISTENER_FILTER.search(typed(written.typed_config)[0])
        if found is not None:
            return f"envoy.filters.listener.{found[1]}"
    found = _LISTENER_FILTER.search(written.name)
    return written.name if found is None else f"envoy.filters.listener.{found[1]}"


_KIND: Final = re.compile(r"\.(tcp_proxy|http_connection_manager)(?:\.v\d\w*\.\w+)?$")


def _network_filter(written: _Filter) -> facts.Filter:
    """A filter with a `typed_config` is what its type says, else what its name says."""
    if is_set(written.typed_config):
        message, raw = typed(written.typed_config)
        kind = _KIND.search(message)
        decoded = None if kind is None else _known(kind[1], raw)
        if decoded is not None:
            return decoded
        return facts.NetworkFilter(name=written.name, type_url=message, config=free_form(raw))
    kind = _KIND.search(written.name)
    if kind is not None and written.config_discovery is None:
        decoded = _known(kind[1], written.config if is_set(written.config) else EMPTY)
        if decoded is not None:
            return decoded
    return facts.NetworkFilter(name=written.name, config=free_form(written.config))


def _known(kind: str, raw: msgspec.Raw) -> facts.Filter | None:
    """None where it is written in a way that is not followed."""
    if kind == "http_connection_manager":
        v1 = _V1_CONFIG.decode(raw)
        return None if v1.deprecated_v1 is True else _http_connection_manager(_HTTP.decode(raw))
    v1 = _V1_CONFIG.decode(raw)
    if v1.deprecated_v1 is True and is_set(v1.value):
        raw = v1.value
    return _tcp_proxy(_TCP.decode(raw))


def _tcp_proxy(written: _TcpProxy) -> facts.TcpProxy | None:
    cluster = written.cluster
    v1 = written.deprecated_v1 or written.route_config
    if v1 is not None and v1.routes:
        # v1 chose by address, first match first; only a single route for all is followed.
        if len(v1.routes) > 1 or not v1.routes[0].takes_everything:
            return None
        cluster = v1.routes[0].cluster
    weighted = written.weighted_clusters
    return facts.TcpProxy(
        stat_prefix=written.stat_prefix,
        cluster=cluster,
        weighted_clusters=() if weighted is None else split(weighted),
        metadata_match=free_map(written.metadata_match),
        tunneling=written.tunneling_config is not None,
    )


def _http_connection_manager(written: _HttpConnectionManager) -> facts.HttpConnectionManager:
    inline = written.route_config
    return facts.HttpConnectionManager(
        stat_prefix=written.stat_prefix,
        route_config=None if inline is None else route_configuration(inline),
        rds=None if written.rds is None else written.rds.route_config_name,
        scoped_routes=(
            None
            if not is_set(written.scoped_routes)
            else free_form(written.scoped_routes) or facts.FreeForm({})
        ),
        http_filters=tuple([_http_filter(each) for each in written.http_filters]),
        strip_any_host_port=written.strip_any_host_port,
        strip_matching_host_port=written.strip_matching_host_port,
        strip_trailing_host_dot=written.strip_trailing_host_dot,
        normalize_path=written.normalize_path,
        merge_slashes=written.merge_slashes,
        path_with_escaped_slashes_action=_escaped_slashes(written),
        upgrade_types=upgrade_types(written.upgrade_configs),
        unmodelled=_unmodelled(written),
    )


def _escaped_slashes(written: _HttpConnectionManager) -> str:
    action = written.path_with_escaped_slashes_action
    return "" if action == "" else enumeration(action, _ESCAPED_SLASHES)


def _unmodelled(written: _HttpConnectionManager) -> tuple[str, ...]:
    names = []
    if written.early_header_mutation_extensions:
        names.append("early_header_mutation_extensions")
    if written.local_reply_config is not None and written.local_reply_config.mappers:
        names.append("local_reply_config")
    if written.path_normalization_options is not None:
        names.append("path_normalization_options")
    if written.typed_header_validation_config is not None:
        names.append("typed_header_validation_config")
    options = written.common_http_protocol_options
    if options is not None:
        action = enumeration(options.headers_with_underscores_action, _UNDERSCORES)
        if action != "ALLOW":
            names.append("headers_with_underscores_action")
    return tuple(names)


def _http_filter(written: _Filter) -> facts.HttpFilter:
    message, raw = "", written.config
    if is_set(written.typed_config):
        message, raw = typed(written.typed_config)
    elif written.config_discovery is not None:
        # What it is comes over ECDS, which the listener does not tell.
        message = "config_discovery"
    told = f".{message or written.name}."
    passive = any(part in told for part in _PASSIVE_HTTP_FILTERS)
    return facts.HttpFilter(
        name=written.name,
        type_url=message,
        disabled=written.disabled,
        config=None if passive else free_form(raw),
    )
