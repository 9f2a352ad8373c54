"""What filters in front of the routing do to a call: let it pass, end it, or nobody can tell."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from meshdoctor.evidence.envoy import HttpFilter, NetworkFilter
from meshdoctor.routing.model import Answered, Closed, UndecidedError

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


@dataclass(slots=True)
class Passage:
    """What was met on the way to the routing.

    `sni_cluster` is set where the server name chooses the cluster; `notes` say what may end some
    of the calls.
    """

    sni_cluster: bool = False
    notes: list[str] = field(default_factory=list)


def pass_network_filter(written: NetworkFilter, passage: Passage) -> Answered | Closed | None:
    """None lets the connection pass on. Raises UndecidedError."""
    told = _told(written.type_url, written.name)
    if "sni_cluster" in told:
        passage.sni_cluster = True
        return None
    if ".rbac" in told:
        if not _allowed(written.config, f"network filter {written.name}"):
            return Closed("", f"the network filter {written.name} (RBAC) denies every connection")
        return None
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
) -> Answered | None:
    """None lets the request pass on to the router.

    `overrides` are per-filter configurations, the most specific first. Raises UndecidedError.
    """
    specific = [each for each in overrides if each]
    for written in filters:
        override = next((each[written.name] for each in specific if written.name in each), None)
        answer = _pass_http_filter(written, override, passage)
        if answer is not None:
            return answer
    return None


def _pass_http_filter(written: HttpFilter, override: Any, passage: Passage) -> Answered | None:
    told = _told(written.type_url, written.name)
    if any(part in told for part in _PASSING_HTTP):
        return None
    disabled = written.disabled
    config = written.config
    if isinstance(override, Mapping):
        if str(override.get("@type", "")).endswith(_FILTER_CONFIG):
            disabled = bool(override.get("disabled", False))
            override = override.get("config")
        else:
            disabled = bool(override.get("disabled", False))
    if disabled:
        return None
    if any(part in told for part in _LIMITING_HTTP):
        passage.notes.append(f"HTTP filter {written.name} may refuse requests over a limit")
        return None
    if ".fault" in told:
        fault = override if isinstance(override, Mapping) else config
        return _fault(written.name, fault, passage)
    if ".rbac" in told:
        rules = override.get("rbac", {}) if isinstance(override, Mapping) else config
        if not _allowed(rules, f"HTTP filter {written.name}"):
            return Answered(403, "", f"the HTTP filter {written.name} (RBAC) denies every request")
        return None
    raise UndecidedError(f"the HTTP filter {written.name} may decide, and is not followed")


def _told(type_url: str, name: str) -> str:
    return f".{type_url or name}."


# ---------------------------------------------------------------- RBAC


def _allowed(config: Mapping[str, Any] | None, what: str) -> bool:
    """Whether an RBAC filter lets everything pass. Raises UndecidedError if it depends."""
    config = config or {}
    if config.get("matcher"):
        raise UndecidedError(f"the {what} decides by a match tree, which is not followed")
    rules = config.get("rules")
    if not isinstance(rules, Mapping):
        return True
    action = rules.get("action", "ALLOW")
    policies = rules.get("policies") or {}
    if action in ("LOG", 2):
        return True
    allows = action in ("ALLOW", 0)
    if not policies:
        # Nobody is allowed, or nobody denied.
        return not allows
    if isinstance(policies, Mapping) and any(_takes_all(each) for each in policies.values()):
        return allows
    raise UndecidedError(
        f"the {what} (RBAC) decides by its policies {', '.join(sorted(map(str, policies)))}, "
        "which are not followed"
    )


def _takes_all(policy: Any) -> bool:
    if not isinstance(policy, Mapping) or policy.get("condition"):
        return False
    return all(
        any(isinstance(each, Mapping) and each.get("any") is True for each in policy.get(name, ()))
        for name in ("permissions", "principals")
    )


# ---------------------------------------------------------------- faults

_DENOMINATORS: Final = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}
_CODES: Final = tuple(_DENOMINATORS)


def _fault(name: str, config: Mapping[str, Any] | None, passage: Passage) -> Answered | None:
    abort = (config or {}).get("abort")
    if not isinstance(abort, Mapping):
        return None
    share = _share(abort)
    status = abort.get("http_status")
    if share == 0:
        return None
    conditional = any((config or {}).get(key) for key in ("headers", "downstream_nodes"))
    if conditional or (config or {}).get("upstream_cluster"):
        raise UndecidedError(f"the HTTP filter {name} aborts some requests by conditions")
    if share < 1:
        passage.notes.append(f"HTTP filter {name} aborts {share:.0%} of the requests")
        return None
    if not isinstance(status, int | float):
        raise UndecidedError(f"the HTTP filter {name} aborts requests as their headers say")
    return Answered(int(status), "FI", f"the HTTP filter {name} aborts every request")


def _share(abort: Mapping[str, Any]) -> float:
    percentage = abort.get("percentage")
    if isinstance(percentage, Mapping):
        numerator = percentage.get("numerator", 0)
        named = percentage.get("denominator", "HUNDRED")
        denominator = (
            _DENOMINATORS.get(named, 100)
            if isinstance(named, str)
            else _DENOMINATORS[_CODES[named]]
            if named in (0, 1, 2)
            else 100
        )
        return min(1.0, float(numerator) / denominator) if _number(numerator) else 1.0
    percent = abort.get("percent", 0)
    return min(1.0, float(percent) / 100) if _number(percent) else 1.0


def _number(value: Any) -> bool:
    return isinstance(value, int | float)
