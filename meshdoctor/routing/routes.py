"""How Envoy picks a route of a virtual host, and what the route does with a request."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from meshdoctor.evidence.envoy import (
    ClusterRoute,
    DirectResponse,
    Redirect,
    Route,
    RouteConfiguration,
    UnmodelledAction,
    VirtualHost,
    WeightedCluster,
)
from meshdoctor.routing.clusters import criteria
from meshdoctor.routing.hosts import port_start
from meshdoctor.routing.matching import (
    Headers,
    matches_header,
    matches_path,
    matches_query,
    query_parameters,
    without_parameters,
    without_query,
)
from meshdoctor.routing.model import Answered, UndecidedError


class Picked(msgspec.Struct, frozen=True):
    """A route that takes a request, and the share of such requests that it takes."""

    place: int
    route: Route
    share: float


class ToCluster(msgspec.Struct, frozen=True):
    """A share of the requests goes to this cluster."""

    cluster: str
    share: float
    why: str
    missing_status: int = 503
    metadata_match: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] | None = None


def route_name(route: Route) -> str:
    """Its own, else what it matches."""
    return route.name or f"{route.match.path_kind} {route.match.path}".strip()


def pick_routes(
    config: RouteConfiguration, host: VirtualHost, headers: Headers
) -> tuple[list[Picked], float]:
    """The routes that take the request, and the share that none takes.

    One route as a rule; more where a route takes only a fraction of what it matches. Raises
    UndecidedError.
    """
    if host.has_matcher:
        raise UndecidedError(
            f"virtual host {host.name} picks its routes by a match tree, which is not followed"
        )
    picked: list[Picked] = []
    left = 1.0
    for place, share in _matching(config, host, headers):
        picked.append(Picked(place, host.routes[place], left * share))
        left *= 1 - share
        if left <= 0:
            return picked, 0.0
    return picked, left


def _matching(
    config: RouteConfiguration, host: VirtualHost, headers: Headers
) -> Iterator[tuple[int, float]]:
    path = _matched_path(config, headers)
    parameters: dict[str, str] | None = None
    for place, route in enumerate(host.routes):
        match = route.match
        if match.query and parameters is None:
            parameters = query_parameters(headers[":path"])
        if not _matches(route, path, headers, parameters or {}):
            continue
        if match.runtime_fraction is None:
            yield place, 1.0
            return
        numerator, denominator = match.runtime_fraction
        if numerator:
            yield place, min(1.0, numerator / denominator)


def _matched_path(config: RouteConfiguration, headers: Headers) -> str:
    """What path specifiers are held against."""
    path = without_query(headers[":path"])
    return without_parameters(path, headers) if config.ignore_path_parameters else path


def _matches(route: Route, path: str, headers: Headers, parameters: dict[str, str]) -> bool:
    match = route.match
    if not matches_path(match, path, headers[":method"]):
        return False
    if match.grpc_only and not _is_grpc(headers):
        return False
    if not all(matches_header(each, headers) for each in match.headers):
        return False
    if not all(matches_query(each, parameters) for each in match.query):
        return False
    if match.unmodelled:
        raise UndecidedError(
            f"route {route.name or route.match.path!r} depends on "
            f"{', '.join(match.unmodelled)}, which is not followed"
        )
    return True


def _is_grpc(headers: Headers) -> bool:
    kind = headers.first("content-type")
    return kind.startswith("application/grpc") and kind[16:17] in ("", "+")


def why_not(config: RouteConfiguration, route: Route, headers: Headers) -> str:
    """What of the request a route does not match."""
    match = route.match
    path = _matched_path(config, headers)
    if not matches_path(match, path, headers[":method"]):
        return f"the path is not of {match.path_kind} {match.path!r}"
    for header in match.headers:
        if not matches_header(header, headers):
            return f"header {header.name} does not match"
    parameters = query_parameters(headers[":path"])
    for query in match.query:
        if not matches_query(query, parameters):
            return f"query parameter {query.name} does not match"
    if match.grpc_only and not _is_grpc(headers):
        return "it takes gRPC only"
    if match.runtime_fraction is not None:
        return "it takes {} of {} requests".format(*match.runtime_fraction)
    return "an earlier route takes the request"


# ---------------------------------------------------------------- actions


def act(route: Route, headers: Headers) -> Answered | list[ToCluster]:
    """What the route does. Raises UndecidedError."""
    action = route.action
    match action:
        case Redirect():
            location = _location(action, headers)
            return Answered(action.code, "", f"the route redirects to {location}", location)
        case DirectResponse():
            return Answered(action.status, "", "the route answers itself")
        case ClusterRoute():
            return _clusters(action, headers)
        case UnmodelledAction():
            raise UndecidedError(
                f"the route's action {action.name or '(none)'} is not one that is followed"
            )


def _clusters(action: ClusterRoute, headers: Headers) -> list[ToCluster]:
    if action.unmodelled:
        raise UndecidedError(
            f"the route picks its cluster by {', '.join(action.unmodelled)}, which is not followed"
        )
    if action.weighted_clusters:
        return _split(action, headers)
    name, why = action.cluster, "the route names it"
    if action.cluster_header:
        name = headers.first(action.cluster_header)
        why = f"the header {action.cluster_header} names it"
    return [
        ToCluster(
            cluster=name,
            share=1.0,
            why=why,
            missing_status=action.not_found_status,
            metadata_match=action.metadata_match,
        )
    ]


def _split(action: ClusterRoute, headers: Headers) -> list[ToCluster]:
    shares = split(action.weighted_clusters, action.total_weight)
    found = []
    for each, share in shares:
        name = each.name
        if each.cluster_header:
            name = headers.first(each.cluster_header)
        found.append(
            ToCluster(
                cluster=name,
                share=share,
                why=f"the route sends it {each.weight} of "
                f"{sum(one.weight for one in action.weighted_clusters)} requests",
                missing_status=action.not_found_status,
                metadata_match=merged(action.metadata_match, each.metadata_match),
                overrides=each.overrides,
            )
        )
    return found


def split(
    clusters: tuple[WeightedCluster, ...], total: int | None = None
) -> list[tuple[WeightedCluster, float]]:
    """The clusters that get any share, each with it. Raises UndecidedError."""
    weights = sum(each.weight for each in clusters)
    if not weights:
        raise UndecidedError("the weights of the split add up to nothing")
    if total and total != weights:
        raise UndecidedError(f"the weights of the split add up to {weights}, not to {total}")
    return [(each, each.weight / weights) for each in clusters if each.weight]


def merged(
    outer: Mapping[str, Any] | None, inner: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The route's metadata match with what the weighted cluster adds or replaces."""
    if not outer or not inner:
        return inner or outer
    return {"filter_metadata": {"envoy.lb": {**criteria(outer), **criteria(inner)}}}


def _location(action: Redirect, headers: Headers) -> str:
    scheme = "https" if action.https else action.scheme or headers[":scheme"]
    host = headers[":authority"]
    if action.host:
        host = action.host
    start = port_start(host)
    if action.port:
        host = f"{host if start is None else host[:start]}:{action.port}"
    elif start is not None and not action.host and scheme == "https":
        # A port that is the old scheme's own does not outlive a change of scheme.
        host = host[:start] if host[start:] == ":80" else host
    path = without_query(headers[":path"]) if action.strip_query else headers[":path"]
    if action.path:
        path = action.path if "?" in action.path else action.path + _query(path)
    elif action.prefix_rewrite:
        path = f"(rewritten: {action.prefix_rewrite})"
    return f"{scheme}://{host}{path}"


def _query(path: str) -> str:
    _, mark, query = path.partition("?")
    return mark + query


def notes(route: Route) -> list[str]:
    """What of the route is said and not followed."""
    action = route.action
    if not isinstance(action, ClusterRoute):
        return []
    said = []
    if action.retry_on:
        said.append(f"retried on {action.retry_on}")
    if action.mirrors:
        said.append(f"mirrored to {', '.join(action.mirrors)}")
    if action.prefix_rewrite:
        said.append(f"the path is rewritten: {action.prefix_rewrite}")
    if action.host_rewrite:
        said.append(f"the host is rewritten: {action.host_rewrite}")
    return said
