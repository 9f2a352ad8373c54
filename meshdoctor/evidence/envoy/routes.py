"""Route configurations, as Envoy's v2 and v3 write them, decoded into facts."""

import sys
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from meshdoctor.evidence.envoy import facts
from meshdoctor.evidence.envoy.facts import FreeForm
from meshdoctor.evidence.envoy.wire import (
    DAMAGE,
    Empty,
    Enumeration,
    Signed,
    Unsigned,
    Wire,
    as_written,
    enumeration,
    free_map,
)

_REQUIRE_TLS: Final = ("NONE", "EXTERNAL_ONLY", "ALL")
_DENOMINATORS: Final = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}
_REDIRECT_CODES: Final = {
    "MOVED_PERMANENTLY": 301,
    "FOUND": 302,
    "SEE_OTHER": 303,
    "TEMPORARY_REDIRECT": 307,
    "PERMANENT_REDIRECT": 308,
}
_NOT_FOUND_CODES: Final = {"SERVICE_UNAVAILABLE": 503, "NOT_FOUND": 404}
# In v2 an INTERNAL_SERVER_ERROR came later than the others, by number too.
_NOT_FOUND_NAMES: Final = ("SERVICE_UNAVAILABLE", "NOT_FOUND", "INTERNAL_SERVER_ERROR")

_Overrides = dict[str, msgspec.Raw]


class _Regex(Wire, frozen=True):
    regex: str = ""


class _StringMatch(Wire, frozen=True):
    exact: str | UnsetType = UNSET
    prefix: str | UnsetType = UNSET
    suffix: str | UnsetType = UNSET
    contains: str | UnsetType = UNSET
    safe_regex: _Regex | UnsetType = UNSET
    regex: str | UnsetType = UNSET
    custom: Empty | UnsetType = UNSET
    ignore_case: bool = False


class _Range(Wire, frozen=True):
    start: Signed = 0
    end: Signed = 0


class _HeaderMatch(Wire, frozen=True):
    name: str = ""
    exact_match: str | UnsetType = UNSET
    prefix_match: str | UnsetType = UNSET
    suffix_match: str | UnsetType = UNSET
    contains_match: str | UnsetType = UNSET
    regex_match: str | UnsetType = UNSET
    safe_regex_match: _Regex | UnsetType = UNSET
    string_match: _StringMatch | UnsetType = UNSET
    range_match: _Range | UnsetType = UNSET
    present_match: bool | UnsetType = UNSET
    invert_match: bool = False
    treat_missing_header_as_empty: bool = False


class _QueryMatch(Wire, frozen=True):
    name: str = ""
    string_match: _StringMatch | UnsetType = UNSET
    present_match: bool | UnsetType = UNSET
    value: str = ""
    regex: bool = False


class _Fraction(Wire, frozen=True):
    numerator: Unsigned = 0
    denominator: Enumeration = "HUNDRED"


class _RuntimeFraction(Wire, frozen=True):
    default_value: _Fraction = _Fraction()


class _RouteMatch(Wire, frozen=True):
    prefix: str | UnsetType = UNSET
    path: str | UnsetType = UNSET
    safe_regex: _Regex | UnsetType = UNSET
    regex: str | UnsetType = UNSET
    connect_matcher: Empty | UnsetType = UNSET
    path_separated_prefix: str | UnsetType = UNSET
    path_match_policy: Empty | UnsetType = UNSET
    case_sensitive: bool = True
    runtime_fraction: _RuntimeFraction | None = None
    headers: tuple[_HeaderMatch, ...] = ()
    query_parameters: tuple[_QueryMatch, ...] = ()
    cookies: tuple[Empty, ...] = ()
    dynamic_metadata: tuple[Empty, ...] = ()
    filter_state: tuple[Empty, ...] = ()
    tls_context: Empty | None = None
    grpc: Empty | None = None


class WeightedClusterEntry(Wire, frozen=True):
    """An entry of a route's or a TCP proxy's `weighted_clusters`."""

    name: str = ""
    weight: Unsigned = 0
    cluster_header: str = ""
    metadata_match: dict[str, Any] | None = None
    typed_per_filter_config: _Overrides | None = None
    per_filter_config: _Overrides | None = None


class WeightedClusters(Wire, frozen=True):
    """`{"clusters": [{"name": "reviews-v1", "weight": 90}, ...], "total_weight": 100}`."""

    clusters: tuple[WeightedClusterEntry, ...] = ()
    total_weight: Unsigned | None = None
    runtime_key_prefix: str = ""
    header_name: str = ""


class _RetryPolicy(Wire, frozen=True):
    retry_on: str = ""


class _Mirror(Wire, frozen=True):
    cluster: str = ""
    cluster_header: str = ""


class Upgrade(Wire, frozen=True):
    """An entry of a route's or a connection manager's `upgrade_configs`."""

    upgrade_type: str = ""
    enabled: bool = True


class _RegexRewrite(Wire, frozen=True):
    pattern: _Regex = _Regex()
    substitution: str = ""

    def __str__(self) -> str:
        return f"{self.pattern.regex} -> {self.substitution}"


class _ClusterRoute(Wire, frozen=True):
    cluster: str = ""
    cluster_header: str = ""
    weighted_clusters: WeightedClusters | None = None
    cluster_specifier_plugin: str = ""
    inline_cluster_specifier_plugin: Empty | None = None
    cluster_not_found_response_code: Enumeration = "SERVICE_UNAVAILABLE"
    metadata_match: dict[str, Any] | None = None
    prefix_rewrite: str = ""
    regex_rewrite: _RegexRewrite | None = None
    path_rewrite_policy: Empty | None = None
    path_rewrite: str = ""
    host_rewrite: str = ""
    host_rewrite_literal: str = ""
    host_rewrite_header: str = ""
    auto_host_rewrite: bool = False
    auto_host_rewrite_header: str = ""
    host_rewrite_path_regex: _RegexRewrite | None = None
    retry_policy: _RetryPolicy | None = None
    request_mirror_policy: _Mirror | None = None
    request_mirror_policies: tuple[_Mirror, ...] = ()
    upgrade_configs: tuple[Upgrade, ...] = ()


class _Redirect(Wire, frozen=True):
    host_redirect: str = ""
    port_redirect: Unsigned = 0
    path_redirect: str = ""
    prefix_rewrite: str = ""
    regex_rewrite: _RegexRewrite | None = None
    https_redirect: bool = False
    scheme_redirect: str = ""
    response_code: Enumeration = "MOVED_PERMANENTLY"
    strip_query: bool = False


class _DirectResponse(Wire, frozen=True):
    status: Unsigned = 0


class _Route(Wire, frozen=True):
    name: str = ""
    match: _RouteMatch = _RouteMatch()
    route: _ClusterRoute | None = None
    redirect: _Redirect | None = None
    direct_response: _DirectResponse | None = None
    filter_action: Empty | None = None
    non_forwarding_action: Empty | None = None
    typed_per_filter_config: _Overrides | None = None
    per_filter_config: _Overrides | None = None


class _VirtualHost(Wire, frozen=True):
    name: str = ""
    domains: tuple[str, ...] = ()
    routes: tuple[_Route, ...] = ()
    require_tls: Enumeration = "NONE"
    matcher: Empty | None = None
    typed_per_filter_config: _Overrides | None = None
    per_filter_config: _Overrides | None = None


class RouteConfiguration(Wire, frozen=True):
    """`{"name": "9080", "virtual_hosts": [{"name": ..., "domains": [...], "routes": [...]}]}`."""

    name: str = ""
    # Decoded one by one: all of a big configuration at once would take its size in memory again.
    virtual_hosts: tuple[msgspec.Raw, ...] = ()
    vhds: Empty | None = None
    ignore_port_in_host_matching: bool = False
    ignore_path_parameters_in_path_matching: bool = False
    typed_per_filter_config: _Overrides | None = None


_VIRTUAL_HOST: Final = msgspec.json.Decoder(_VirtualHost, strict=False)
_ROUTE_CONFIGURATION: Final = msgspec.json.Decoder(RouteConfiguration, strict=False)


def decode_route_configuration(raw: bytes | msgspec.Raw) -> facts.RouteConfiguration:
    """A `RouteConfiguration` message as a fact. Raises what msgspec raises."""
    return route_configuration(_ROUTE_CONFIGURATION.decode(raw))


def route_configuration(written: RouteConfiguration) -> facts.RouteConfiguration:
    return facts.RouteConfiguration(
        name=written.name,
        virtual_hosts=tuple(
            [_virtual_host(_VIRTUAL_HOST.decode(each)) for each in written.virtual_hosts]
        ),
        ignore_port_in_host_matching=written.ignore_port_in_host_matching,
        ignore_path_parameters=written.ignore_path_parameters_in_path_matching,
        vhds=written.vhds is not None,
        overrides=_overrides(written.typed_per_filter_config, None),
    )


def _virtual_host(written: _VirtualHost) -> facts.VirtualHost:
    return facts.VirtualHost(
        name=written.name,
        domains=tuple(written.domains),
        routes=tuple([_route(each) for each in written.routes]),
        require_tls=enumeration(written.require_tls, _REQUIRE_TLS),
        has_matcher=written.matcher is not None,
        overrides=_overrides(written.typed_per_filter_config, written.per_filter_config),
    )


def _overrides(typed: _Overrides | None, plain: _Overrides | None) -> FreeForm | None:
    if typed is None and plain is None:
        return None
    # Istio's mixer writes one on every route, and nothing in it decides.
    written = {**(plain or {}), **(typed or {})}
    return free_map({name: as_written(raw) for name, raw in written.items() if name != "mixer"})


# Nearly every route of a mesh matches "/" and nothing else.
_EVERYTHING: Final = facts.RouteMatch(path_kind="prefix", path="/")
_WRITTEN_EVERYTHING: Final = _RouteMatch(prefix="/")


def _route(written: _Route) -> facts.Route:
    return facts.Route(
        name=written.name,
        match=_match(written.match),
        action=_action(written),
        overrides=_overrides(written.typed_per_filter_config, written.per_filter_config),
    )


def _match(written: _RouteMatch) -> facts.RouteMatch:
    if written == _WRITTEN_EVERYTHING:
        return _EVERYTHING
    kind, path = _path(written)
    fraction = None
    if written.runtime_fraction is not None:
        share = written.runtime_fraction.default_value
        names = tuple(_DENOMINATORS)
        denominator = _DENOMINATORS.get(enumeration(share.denominator, names), 100)
        fraction = (share.numerator, denominator)
    unmodelled = tuple(
        name
        for name, value in (
            ("cookies", written.cookies),
            ("dynamic_metadata", written.dynamic_metadata),
            ("filter_state", written.filter_state),
            ("tls_context", written.tls_context),
        )
        if value
    )
    return facts.RouteMatch(
        path_kind=kind,
        path=path,
        case_sensitive=written.case_sensitive,
        headers=tuple([_header(each) for each in written.headers]),
        query=tuple([_query(each) for each in written.query_parameters]),
        runtime_fraction=fraction,
        grpc_only=written.grpc is not None,
        unmodelled=unmodelled,
    )


def _path(written: _RouteMatch) -> tuple[str, str]:
    match written:
        case _RouteMatch(prefix=str(path)):
            return "prefix", path
        case _RouteMatch(path=str(path)):
            return "path", path
        case _RouteMatch(path_separated_prefix=str(path)):
            return "path_separated_prefix", path
        case _RouteMatch(safe_regex=_Regex(regex=path)):
            return "regex", path
        case _RouteMatch(regex=str(path)):
            return "regex", path
        case _RouteMatch(connect_matcher=Empty()):
            return "connect", ""
        case _RouteMatch(path_match_policy=Empty()):
            return "path_match_policy", ""
    return "", ""


def string_matcher(raw: Any) -> facts.StringMatch | None:
    """`{"safe_regex": {"regex": "^spiffe://..."}}` as it stands in a filter, None for no such."""
    try:
        return _string(msgspec.convert(raw, _StringMatch, strict=False))
    except DAMAGE:
        return None


def header_matcher(raw: Any) -> facts.HeaderMatch | None:
    """`{"name": ":method", "exact_match": "GET"}` as it stands in a filter, None for no such."""
    try:
        return _header(msgspec.convert(raw, _HeaderMatch, strict=False))
    except DAMAGE:
        return None


def _string(written: _StringMatch) -> facts.StringMatch:
    ignore_case = written.ignore_case
    for kind in ("exact", "prefix", "suffix", "contains"):
        value = getattr(written, kind)
        if value is not UNSET:
            return facts.StringMatch(kind=kind, value=value, ignore_case=ignore_case)
    if isinstance(written.safe_regex, _Regex):
        return facts.StringMatch(kind="regex", value=written.safe_regex.regex)
    if isinstance(written.regex, str):
        return facts.StringMatch(kind="regex", value=written.regex)
    return facts.StringMatch(kind="custom")


def _header(written: _HeaderMatch) -> facts.HeaderMatch:
    match: facts.StringMatch | None = None
    span = None
    present = None
    for kind in ("exact", "prefix", "suffix", "contains", "regex"):
        value = getattr(written, f"{kind}_match")
        if value is not UNSET:
            match = facts.StringMatch(kind=kind, value=value)
    if isinstance(written.safe_regex_match, _Regex):
        match = facts.StringMatch(kind="regex", value=written.safe_regex_match.regex)
    if isinstance(written.string_match, _StringMatch):
        match = _string(written.string_match)
    if isinstance(written.range_match, _Range):
        span = (written.range_match.start, written.range_match.end)
    if match is None and span is None:
        # No specifier at all asks for presence.
        present = True if written.present_match is UNSET else bool(written.present_match)
    return facts.HeaderMatch(
        name=written.name,
        match=match,
        present=present,
        range=span,
        invert=written.invert_match,
        treat_missing_as_empty=written.treat_missing_header_as_empty,
    )


def _query(written: _QueryMatch) -> facts.QueryMatch:
    if isinstance(written.string_match, _StringMatch):
        return facts.QueryMatch(name=written.name, match=_string(written.string_match))
    if written.value:
        kind = "regex" if written.regex else "exact"
        match = facts.StringMatch(kind=kind, value=written.value)
        return facts.QueryMatch(name=written.name, match=match)
    present = True if written.present_match is UNSET else bool(written.present_match)
    return facts.QueryMatch(name=written.name, present=present)


def _action(written: _Route) -> facts.RouteAction:
    if written.route is not None:
        return _cluster_route(written.route)
    if written.redirect is not None:
        return _redirect(written.redirect)
    if written.direct_response is not None:
        return facts.DirectResponse(status=written.direct_response.status)
    if written.filter_action is not None:
        return facts.UnmodelledAction(name="filter_action")
    if written.non_forwarding_action is not None:
        return facts.UnmodelledAction(name="non_forwarding_action")
    return facts.UnmodelledAction(name="")


def _cluster_route(written: _ClusterRoute) -> facts.ClusterRoute:
    retry = written.retry_policy
    # One string is held for all that say the same.
    retry_on = "" if retry is None else sys.intern(retry.retry_on)
    if written == _ClusterRoute(cluster=written.cluster, retry_policy=retry):
        # Nearly every one.
        return facts.ClusterRoute(cluster=written.cluster, retry_on=retry_on)
    weighted = written.weighted_clusters
    code = enumeration(written.cluster_not_found_response_code, _NOT_FOUND_NAMES)
    return facts.ClusterRoute(
        cluster=written.cluster,
        cluster_header=written.cluster_header,
        weighted_clusters=() if weighted is None else split(weighted),
        total_weight=None if weighted is None else weighted.total_weight,
        not_found_status=_NOT_FOUND_CODES.get(code, 500),
        prefix_rewrite=_path_rewrite(written),
        host_rewrite=_host_rewrite(written),
        metadata_match=free_map(written.metadata_match),
        retry_on=retry_on,
        mirrors=_mirrors(written),
        upgrade_types=upgrade_types(written.upgrade_configs),
        unmodelled=_unmodelled(written),
    )


def upgrade_types(written: tuple[Upgrade, ...]) -> tuple[str, ...]:
    """The upgrades that are taken, in lower case."""
    return tuple([each.upgrade_type.lower() for each in written if each.enabled])


def split(written: WeightedClusters) -> tuple[facts.WeightedCluster, ...]:
    """The shares of a split, in the order written."""
    return tuple(
        [
            facts.WeightedCluster(
                name=each.name,
                weight=each.weight,
                cluster_header=each.cluster_header,
                metadata_match=free_map(each.metadata_match),
                overrides=_overrides(each.typed_per_filter_config, each.per_filter_config),
            )
            for each in written.clusters
        ]
    )


def _path_rewrite(written: _ClusterRoute) -> str:
    if written.regex_rewrite is not None:
        return str(written.regex_rewrite)
    if written.path_rewrite_policy is not None:
        return "(path_rewrite_policy)"
    return written.prefix_rewrite or written.path_rewrite


def _host_rewrite(written: _ClusterRoute) -> str:
    header = written.host_rewrite_header or written.auto_host_rewrite_header
    if header:
        return f"(header {header})"
    if written.auto_host_rewrite:
        return "(the endpoint's host name)"
    if written.host_rewrite_path_regex is not None:
        return "(host_rewrite_path_regex)"
    return written.host_rewrite_literal or written.host_rewrite


def _mirrors(written: _ClusterRoute) -> tuple[str, ...]:
    mirrors = list(written.request_mirror_policies)
    if written.request_mirror_policy is not None:
        mirrors.append(written.request_mirror_policy)
    return tuple([each.cluster or f"(header {each.cluster_header})" for each in mirrors])


def _unmodelled(written: _ClusterRoute) -> tuple[str, ...]:
    names = []
    if written.cluster_specifier_plugin:
        names.append("cluster_specifier_plugin")
    if written.inline_cluster_specifier_plugin is not None:
        names.append("inline_cluster_specifier_plugin")
    if written.weighted_clusters is not None:
        if written.weighted_clusters.runtime_key_prefix:
            names.append("weighted_clusters.runtime_key_prefix")
        if written.weighted_clusters.header_name:
            names.append("weighted_clusters.header_name")
    return tuple(names)


def _redirect(written: _Redirect) -> facts.Redirect:
    code = written.response_code
    names = tuple(_REDIRECT_CODES)
    return facts.Redirect(
        code=_REDIRECT_CODES.get(enumeration(code, names), 301),
        host=written.host_redirect,
        port=written.port_redirect,
        scheme=written.scheme_redirect,
        path=written.path_redirect,
        prefix_rewrite=written.prefix_rewrite or str(written.regex_rewrite or ""),
        https=written.https_redirect,
        strip_query=written.strip_query,
    )
