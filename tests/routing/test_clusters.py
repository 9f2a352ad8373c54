"""Which endpoints of a cluster may be taken."""

import pytest

from meshdoctor.evidence.envoy import Cluster, Endpoint, FreeForm
from meshdoctor.routing.clusters import balance, in_subset
from meshdoctor.routing.model import UndecidedError

CLUSTER = Cluster(name="c")
CALM = Cluster(name="c", panic_threshold=0.0)


def endpoints(*levels: str) -> list[Endpoint]:
    """One letter an endpoint: h(ealthy), u(nhealthy), d(egraded); one word a priority."""
    health = {"h": "HEALTHY", "u": "UNHEALTHY", "d": "DEGRADED"}
    return [
        Endpoint(
            address=f"{letter}{priority}{number}", port=1, health=health[letter], priority=priority
        )
        for priority, word in enumerate(levels)
        for number, letter in enumerate(word)
    ]


def taken(cluster: Cluster, *levels: str) -> dict[str, float]:
    found = balance(cluster, endpoints(*levels)).endpoints
    shares: dict[str, float] = {}
    for endpoint, share in found:
        key = endpoint.address[:2]
        shares[key] = shares.get(key, 0) + share
    return {key: round(share, 2) for key, share in shares.items()}


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (("hhh",), {"h0": 1.0}),
        (("hhu",), {"h0": 1.0}),
        (("huu",), {"h0": 0.33, "u0": 0.67}),
        (("uu",), {"u0": 1.0}),
        (("u", "h"), {"h1": 1.0}),
        (("huu", "h"), {"h0": 0.46, "h1": 0.54}),
        (("hd",), {"h0": 0.7, "d0": 0.3}),
        (("du",), {"d0": 1.0}),
        ((), {}),
    ],
)
def test_priorities_health_and_panic(levels: tuple[str, ...], expected: dict[str, float]) -> None:
    """Less than half healthy and no level to fall back to: the health of all is ignored."""
    assert taken(CLUSTER, *levels) == expected


def test_without_panic_nothing_unhealthy_is_taken() -> None:
    """As Consul's clusters are: a threshold of 0."""
    assert taken(CALM, "huu") == {"h0": 1.0}
    assert taken(CALM, "uu") == {}
    assert balance(CALM, endpoints("uu")).why == "none of its 2 endpoints is healthy"


def test_subsets() -> None:
    """By metadata where it is known; where it is not, nothing is guessed."""
    cluster = Cluster(name="c", subset_selectors=(("version",),))
    match = FreeForm({"filter_metadata": {"envoy.lb": {"version": "v1"}}})
    known = [
        Endpoint(
            address=version,
            metadata=FreeForm({"filter_metadata": {"envoy.lb": {"version": version}}}),
        )
        for version in ("v1", "v2")
    ]
    assert [each.address for each in in_subset(cluster, known, match)] == ["v1"]
    assert in_subset(cluster, known, None) == ()
    with pytest.raises(UndecidedError, match="version=v1"):
        in_subset(cluster, [Endpoint(address="v1")], match)
