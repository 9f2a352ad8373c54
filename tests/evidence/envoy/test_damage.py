"""Property: a recorded page, damaged anyhow, gives evidence or a decode error, nothing else."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy
from meshdoctor.evidence.interface import EvidenceError, MissingEvidenceError, Problem
from meshdoctor.snapshot import open_snapshot

MESHES = Path(__file__).parents[3] / "fixtures" / "meshes"
SOURCES = {
    "fixed": "consul_productpage-v1-sidecar_1",
    "fixed-v2": "consul_productpage-v1-sidecar_1",
    "connect-collision": "web-sidecar-proxy",
}
PAGES = ("config_dump.json", "clusters.json", "server_info.json", "stats.json")

# Hundreds of extension names that no decoder looks at would take nearly all the damage.
_DULL = {"extensions", "last_updated", "user_agent_build_version", "command_line_options"}


def trimmed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: trimmed(held) for key, held in value.items() if key not in _DULL}
    if isinstance(value, list):
        return [trimmed(held) for held in value[:12]]
    return value


@cache
def recorded(mesh: str, page: str) -> str:
    snapshot = open_snapshot(MESHES / f"{mesh}.tgz")
    return json.dumps(trimmed(json.loads(snapshot.read(f"envoy/{SOURCES[mesh]}/{page}"))))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    found = [(*path, key) for key, _ in children]
    for key, held in children:
        found += places(held, (*path, key))
    return found


WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**18, -(10**18), 10**40, 2**32, 65536, 1e308, "", "x", "9" * 5000]),
    st.text(max_size=3),
    st.sampled_from([[], {}, [None], [[]], {"": {}}, {"name": 1}, [{}], {"value": []}]),
)


class Documents:
    """One damaged page beside sound ones."""

    created = ""

    def __init__(self, held: dict[str, bytes]) -> None:
        self.held = held

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self.held if name.startswith(prefix))

    def read(self, name: str) -> bytes:
        if name not in self.held:
            raise MissingEvidenceError(name)
        return self.held[name]

    def missing(self, prefix: str = "") -> list[Problem]:  # noqa: ARG002 # nothing is
        return []


def load(page: str, body: bytes) -> EnvoyProxies | None:
    held = {"envoy/web/config_dump.json": b'{"configs": []}'}
    held[f"envoy/web/{page}"] = body
    try:
        loaded = EnvoyProxies.load(Documents(held))
    except EvidenceError:
        return None
    for proxy in loaded.proxies.values():
        walk(proxy)
    return loaded


def walk(proxy: EnvoyProxy) -> None:
    """What is decoded can be read, compared and printed."""
    repr(proxy)
    hash(proxy.listeners)
    hash(proxy.routes)
    hash(proxy.clusters)
    for cluster in proxy.endpoints:
        assert proxy.endpoints[cluster].cluster == cluster
    for entry in proxy.listeners:
        assert entry.listener.key is not None
        assert 0 <= entry.listener.port <= 65535


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("mesh", SOURCES)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_changed_values(mesh: str, page: str, data: st.DataObject) -> None:
    """Keys dropped, types changed, numbers huge, nulls."""
    body = json.loads(recorded(mesh, page))
    every = places(body)
    for _ in range(data.draw(st.integers(1, 4))):
        *path, last = data.draw(st.sampled_from(every))
        parent = body
        try:
            for key in path:
                parent = parent[key]
            if data.draw(st.booleans()):
                del parent[last]
            else:
                parent[last] = copy.deepcopy(data.draw(WRONG))
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this place away
    load(page, json.dumps(body).encode())


@pytest.mark.parametrize("page", PAGES)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_changed_bytes(page: str, data: st.DataObject) -> None:
    """Cut short, or with bytes that are no JSON, no UTF-8, or half a surrogate."""
    body = bytearray(recorded("fixed", page).encode())
    cut = data.draw(st.integers(0, len(body)))
    if data.draw(st.booleans()):
        del body[cut:]
    else:
        body[cut:cut] = data.draw(
            st.sampled_from([b"\x00", b"\xff", b'"\\ud800"', b"[" * 5000, b"{", b"1" * 6000, b","])
        )
    load(page, bytes(body))


@given(st.binary(max_size=200))
def test_any_bytes_at_all(body: bytes) -> None:
    """A dump of noise is an unreachable sidecar."""
    loaded = load("config_dump.json", body)
    assert loaded is not None
    assert list(loaded.unreachable) == ["web"]
