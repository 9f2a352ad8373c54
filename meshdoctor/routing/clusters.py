"""How Envoy finds the endpoints of a cluster that a call may end at."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from meshdoctor.evidence.envoy import Cluster, Endpoint
from meshdoctor.routing.model import UndecidedError

_PANIC_THRESHOLD: Final = 50.0
_OVERPROVISIONING: Final = 140


class Choice(msgspec.Struct, frozen=True):
    """The endpoints that may be taken, with their shares; none where nothing may be."""

    endpoints: tuple[tuple[Endpoint, float], ...]
    why: str


def balance(cluster: Cluster, endpoints: Sequence[Endpoint]) -> Choice:
    """The endpoints that Envoy balances over: by priority and health, all of them in a panic."""
    threshold = _PANIC_THRESHOLD if cluster.panic_threshold is None else cluster.panic_threshold
    factor = cluster.overprovisioning_factor or _OVERPROVISIONING
    return _balance(by_priority(endpoints), min(100.0, threshold), factor)


def balance_levels(levels: Sequence[Sequence[Endpoint]]) -> Choice:
    """Like `balance`, for an aggregate cluster's members one below the other."""
    return _balance(levels, _PANIC_THRESHOLD, _OVERPROVISIONING)


def by_priority(endpoints: Iterable[Endpoint]) -> list[list[Endpoint]]:
    """The endpoints of each priority, the first that is taken first."""
    found: dict[int, list[Endpoint]] = {}
    for endpoint in endpoints:
        found.setdefault(endpoint.priority, []).append(endpoint)
    return [found[priority] for priority in sorted(found)]


def _all_healthy(number: int) -> str:
    return "the only one, healthy" if number == 1 else f"one of {number}, all of them healthy"


def _balance(levels: Sequence[Sequence[Endpoint]], threshold: float, factor: int) -> Choice:
    levels = tuple(level for level in levels if level)
    total = sum(map(len, levels))
    if not total:
        return Choice((), "it has no endpoint")
    healthy = [[each for each in level if _state(each) == "healthy"] for level in levels]
    degraded = [[each for each in level if _state(each) == "degraded"] for level in levels]
    usable = sum(map(len, healthy)) + sum(map(len, degraded))
    if usable == total and not any(degraded) and len(levels) == 1:
        return Choice(_shared([(levels[0], 1.0)]), _all_healthy(total))
    health = [
        [min(100, factor * len(part) // len(level)) for part, level in zip(parts, levels)]  # noqa: B905 # one a level
        for parts in (healthy, degraded)
    ]
    available = min(100, sum(health[0]) + sum(health[1]))
    panic = [
        available < 100  # noqa: PLR2004 # percent
        and 100.0 * (len(healthy[n]) + len(degraded[n])) / len(levels[n]) < threshold
        for n in range(len(levels))
    ]
    if all(panic):
        loads = [(level, len(level) / total) for level in levels]
        return Choice(
            _shared(loads),
            f"panic: only {usable} of {total} are healthy, so the health of all is ignored",
        )
    if not usable:
        return Choice((), f"none of its {total} endpoints is healthy")
    parts: list[tuple[Sequence[Endpoint], float]] = []
    remaining = 100
    for kind, pools in ((0, healthy), (1, degraded)):
        for n, pool in enumerate(pools):
            load = min(remaining, health[kind][n] * 100 // available)
            remaining -= load
            if load:
                parts.append((levels[n] if panic[n] else pool, load / 100))
    if remaining and parts:
        # Rounding leaves something over: Envoy gives it to the first level that takes any.
        first, share = parts[0]
        parts[0] = (first, share + remaining / 100)
    return Choice(_shared(parts), f"one of the {usable} healthy of {total}")


def _state(endpoint: Endpoint) -> str:
    if not endpoint.is_available:
        return "unhealthy"
    return "degraded" if endpoint.health == "DEGRADED" else "healthy"


def _shared(
    parts: Sequence[tuple[Sequence[Endpoint], float]],
) -> tuple[tuple[Endpoint, float], ...]:
    found: list[tuple[Endpoint, float]] = []
    for pool, share in parts:
        weights = [1 if each.weight is None else max(1, each.weight) for each in pool]
        total = sum(weights)
        found += [
            (each, share * weight / total) for each, weight in zip(pool, weights, strict=True)
        ]
    return tuple(found)


# ---------------------------------------------------------------- subsets


def in_subset(
    cluster: Cluster, endpoints: Sequence[Endpoint], match: Mapping[str, Any] | None
) -> Sequence[Endpoint]:
    """The endpoints left by a cluster's subsets and a route's `metadata_match`.

    Raises UndecidedError where the endpoints' metadata is not known.
    """
    if not cluster.subset_selectors:
        return endpoints
    wanted = criteria(match)
    if wanted and tuple(sorted(wanted)) in cluster.subset_selectors:
        if any(endpoint.metadata is None for endpoint in endpoints):
            raise UndecidedError(
                f"cluster {cluster.name} takes a subset of its endpoints by metadata "
                f"({', '.join(f'{key}={value}' for key, value in sorted(wanted.items()))}), "
                "and their metadata is not in the evidence"
            )
        kept = [each for each in endpoints if _holds(each, wanted)]
        if kept:
            return kept
    match cluster.subset_fallback:
        case "ANY_ENDPOINT":
            return endpoints
        case "NO_FALLBACK":
            return ()
        case fallback:
            raise UndecidedError(f"cluster {cluster.name} falls back to {fallback} of its subsets")


def criteria(match: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What a `metadata_match`, or an endpoint's metadata, says of subsets."""
    metadata = (match or {}).get("filter_metadata")
    found = metadata.get("envoy.lb") if isinstance(metadata, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _holds(endpoint: Endpoint, wanted: Mapping[str, Any]) -> bool:
    held = criteria(endpoint.metadata)
    return all(held.get(key) == value for key, value in wanted.items())
