"""Property: whatever a configuration holds, following a call gives a walk."""

import copy
import json
import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshdoctor.evidence.envoy import EnvoyProxies
from meshdoctor.routing import Call, Walk, follow
from tests.routing import chains, generated
from tests.routing.configured import ADMIN, http, listener, proxy
from tests.routing.real_envoy import Documents

WORLD = generated.world(dict.fromkeys(generated.SERVERS, 8000))
WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
    st.sampled_from([[], {}, [None], "(", "[a", "\\C", "%zz", {"any": True}, [{}], {"a": [1]}]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    return [
        place for key, held in children for place in ((*path, key), *places(held, (*path, key)))
    ]


def written(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)  # noqa: S311 # for a test
    world = generated.world(dict.fromkeys(generated.SERVERS, 8000))
    listeners = [generated.http_listener(rng, f"l{port}", port, world) for port in (80, 81)]
    listeners.append(chains.listener(rng, "l82", (82, 83), (1, 2, 3)))
    configs = [
        {"@type": f"{ADMIN}BootstrapConfigDump"},
        {
            "@type": f"{ADMIN}ClustersConfigDump",
            "static_clusters": [{"cluster": each} for each in world.clusters],
        },
        {
            "@type": f"{ADMIN}ListenersConfigDump",
            "static_listeners": [{"listener": each} for each in listeners],
        },
        {
            "@type": f"{ADMIN}RoutesConfigDump",
            "dynamic_route_configs": [
                {"route_config": file["resources"][0]}
                for name, file in world.files.items()
                if name.startswith("l")
            ],
        },
    ]
    # A copy: what is shared between tests is not for damaging.
    return copy.deepcopy({"configs": configs})


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_follow_never_raises(data: st.DataObject) -> None:
    """What cannot be told is an Unknown outcome."""
    body = written(data.draw(st.integers(0, 30)))
    every = places(body["configs"])
    for _ in range(data.draw(st.integers(0, 6))):
        *path, last = data.draw(st.sampled_from(every))
        parent: Any = body["configs"]
        try:
            for key in path:
                parent = parent[key]
            parent[last] = copy.deepcopy(data.draw(WRONG))
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this place away
    held = {"envoy/web/config_dump.json": json.dumps(body).encode()}
    loaded = EnvoyProxies.load(Documents(held))
    rng = random.Random(data.draw(st.integers(0, 1000)))  # noqa: S311 # for a test
    for found in loaded.proxies.values():
        for port in (80, 81):
            for request in generated.requests(rng, 6, WORLD, port):
                call = Call(
                    "127.0.0.1",
                    port,
                    host=request.host,
                    path=request.path,
                    method=request.method,
                    headers=request.headers,
                )
                assert isinstance(follow(found, call, explain=True), Walk)
        for connection in chains.connections(rng, 6, (82, 83), (1, 2, 3)):
            call = Call(
                connection.address,
                connection.port,
                tls=connection.tls,
                server_name=connection.server_name,
                application_protocols=connection.protocols,
                source_address=connection.source,
            )
            assert isinstance(follow(found, call, explain=True), Walk)


WORDS = st.sampled_from(
    [
        "rules",
        "action",
        "policies",
        "permissions",
        "principals",
        "any",
        "condition",
        "matcher",
        "abort",
        "percentage",
        "numerator",
        "denominator",
        "percent",
        "http_status",
        "headers",
        "rbac",
        "disabled",
        "config",
        "filter_metadata",
        "envoy.lb",
        "DENY",
    ]
)
SETTINGS = st.dictionaries(
    WORDS,
    st.recursive(
        st.one_of(WRONG, WORDS, st.just(100)),
        lambda deeper: st.one_of(st.lists(deeper, max_size=2), st.dictionaries(WORDS, deeper)),
        max_leaves=8,
    ),
)
KINDS = ("rbac.v3.RBAC", "fault.v3.HTTPFault", "cors.v3.Cors")


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(KINDS), own=SETTINGS, override=SETTINGS, match=SETTINGS)
def test_filters_of_any_configuration(
    kind: str, own: dict[str, Any], override: dict[str, Any], match: dict[str, Any]
) -> None:
    """Filters are kept as somebody wrote them, so their forms are nobody's promise."""
    type_ = f"type.googleapis.com/envoy.extensions.filters.http.{kind}"
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "c", "metadata_match": match},
        "typed_per_filter_config": {"mine": override},
    }
    filters = [
        {"name": "mine", "typed_config": {**own, "@type": type_}},
        {"name": "envoy.filters.http.router"},
    ]
    found = proxy(listener(http(route, http_filters=filters)))
    walk = follow(found, Call("127.0.0.1", 80, host="h"), explain=True)
    assert isinstance(walk, Walk)
