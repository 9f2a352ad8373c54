"""What filters in front of the routing do to a call: let it pass, end it, or nobody can tell."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeGuard

import msgspec

from meshdoctor.evidence.envoy import HttpFilter, NetworkFilter
from meshdoctor.routing.matching import Headers
from meshdoctor.routing.model import Answered, Call, Closed, Denial, UndecidedError

# Recognised by a part of the type or the name, whichever was written.
_PASSING_NETWORK: Final = (
    "metadata_exchange",
    "mongo_proxy",
    "mysql_proxy",
    "postgres_proxy",
    "zookeeper_proxy",
    "kafka_broker",
    "forward_downstream_sni",
    "set_filter_state",
    "network.wasm.istio",
    "istio.stats",
    "mixer",
    "envoy.filters.network.authn",
    "istio_authn",
)
_LIMITING_NETWORK: Final = ("connection_limit", "local_ratelimit", "network.ratelimit")
_PASSING_HTTP: Final = (
    ".router",
    ".cors",
    "csrf_shadow",
    "grpc_stats",
    "grpc_web",
    "grpc_http1_bridge",
    "compressor",
    "gzip",
    "brotli",
    ".buffer",
    "istio_authn",
    "istio.authn",
    "istio.metadata_exchange",
    "istio.stats",
    "istio_stats",
    "istio.alpn",
    ".alpn",
    "peer_metadata",
    "metadata_exchange",
    "mixer",
    "header_mutation",
    "set_metadata",
    "set_filter_state",
    ".tap.",
    "original_src",
    "bandwidth_limit",
    "upstream_codec",
    "file_system_buffer",
)
_LIMITING_HTTP: Final = ("local_ratelimit", "http.ratelimit", "rate_limit_quota", "admission")

_FILTER_CONFIG: Final = "envoy.config.route.v3.FilterConfig"


class Passage(msgspec.Struct):
    """What was met on the way to the routing.

    `sni_cluster` is set where the server name chooses the cluster; `notes` say what may end some
    of the calls.
    """

    sni_cluster: bool = False
    notes: list[str] = msgspec.field(default_factory=list)


def pass_network_filter(
    written: NetworkFilter, passage: Passage, call: Call
) -> Answered | Closed | None:
    """None lets the connection pass on. Raises UndecidedError."""
    told = _told(written.type_url, written.name)
    if "sni_cluster" in told:
        passage.sni_cluster = True
        return None
    if ".rbac" in told:
        from meshdoctor.routing.rbac import denied  # noqa: PLC0415 # few proxies have such rules

        what = f"network filter {written.name}"
        denial = denied(written.config, what, call, None)
        if denial is None:
            return None
        return Closed("", f"the {what} {_by(denial, 'connection')}", denial)
    if any(part in told for part in _PASSING_NETWORK):
        return None
    if any(part in told for part in _LIMITING_NETWORK):
        passage.notes.append(f"network filter {written.name} may close connections over a limit")
        return None
    if "network.echo" in told or "network.direct_response" in told:
        return Answered(None, "", f"the network filter {written.name} answers itself")
    raise UndecidedError(f"the network filter {written.name} may decide, and is not followed")


def pass_http_filters(
    filters: Iterable[HttpFilter],
    overrides: Iterable[Mapping[str, Any] | None],
    passage: Passage,
    call: Call,
    headers: Headers,
) -> Answered | None:
    """None lets the request pass on to the router.

    `headers` are those of the request of `call`, as the proxy sees them. `overrides` are
    per-filter configurations, the most specific first. Raises UndecidedError.
    """
    specific = [each for each in overrides if each]
    for written in filters:
        override = next((each[written.name] for each in specific if written.name in each), None)
        answer = _pass_http_filter(written, override, passage, call, headers)
        if answer is not None:
            return answer
    return None


def _pass_http_filter(
    written: HttpFilter, override: Any, passage: Passage, call: Call, headers: Headers
) -> Answered | None:
    told = _told(written.type_url, written.name)
    if any(part in told for part in _PASSING_HTTP):
        return None
    disabled = written.disabled
    config = written.config
    if isinstance(override, Mapping):
        disabled = bool(override.get("disabled", False))
        if str(override.get("@type", "")).endswith(_FILTER_CONFIG):
            override = override.get("config")
    if disabled:
        return None
    if any(part in told for part in _LIMITING_HTTP):
        passage.notes.append(f"HTTP filter {written.name} may refuse requests over a limit")
        return None
    if ".fault" in told:
        fault = override if isinstance(override, Mapping) else config
        return _fault(written.name, fault, passage)
    if ".rbac" in told:
        from meshdoctor.routing.rbac import denied  # noqa: PLC0415

        rules = override.get("rbac", {}) if isinstance(override, Mapping) else config
        what = f"HTTP filter {written.name}"
        denial = denied(rules, what, call, headers)
        if denial is None:
            return None
        return Answered(403, "", f"the {what} {_by(denial, 'request')}", denied=denial)
    raise UndecidedError(f"the HTTP filter {written.name} may decide, and is not followed")


def _by(denial: Denial, what: str) -> str:
    """`(RBAC) denies the request by its policy consul-intentions-layer4`."""
    if not denial.policy:
        return f"(RBAC) denies the {what}, which none of its policies allows"
    return f"(RBAC) denies the {what} by its policy {denial.policy}"


def _told(type_url: str, name: str) -> str:
    return f".{type_url or name}."


# ---------------------------------------------------------------- faults

_DENOMINATORS: Final = {
    "HUNDRED": 100,
    "TEN_THOUSAND": 10_000,
    "MILLION": 1_000_000,
    0: 100,
    1: 10_000,
    2: 1_000_000,
}
_STATUSES: Final = range(200, 600)


def _fault(name: str, config: Mapping[str, Any] | None, passage: Passage) -> Answered | None:
    what = f"HTTP filter {name}"
    fault = message(config, what)
    if fault.get("abort") is None:
        return None
    abort = message(fault["abort"], what)
    share = _share(abort, what)
    if share == 0:
        return None
    if any(fault.get(key) for key in ("headers", "downstream_nodes", "upstream_cluster")):
        raise UndecidedError(f"the {what} aborts some requests by conditions")
    if share < 1:
        passage.notes.append(f"{what} aborts {share:.0%} of the requests")
        return None
    status = abort.get("http_status")
    if not _is_number(status) or int(status) not in _STATUSES:
        raise UndecidedError(f"the {what} aborts requests in a way that is not followed")
    return Answered(int(status), "FI", f"the {what} aborts every request")


def _share(abort: Mapping[str, Any], what: str) -> float:
    """Of requests that are aborted; v2 had whole percents."""
    if abort.get("percentage") is None:
        numerator, denominator = abort.get("percent", 0), 100
    else:
        percentage = message(abort["percentage"], what)
        numerator = percentage.get("numerator", 0)
        named = percentage.get("denominator", "HUNDRED")
        denominator = _DENOMINATORS.get(named, 0) if isinstance(named, str | int) else 0
    if not _is_number(numerator) or numerator < 0 or not denominator:
        raise UndecidedError(f"the {what} aborts a share of requests that is not to be read")
    return min(1.0, float(numerator) / denominator)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53


def message(value: Any, what: str) -> Mapping[str, Any]:
    """A part of a filter's configuration, empty where it is not set. Raises UndecidedError."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    raise UndecidedError(f"the configuration of the {what} is not of the form that is known")
