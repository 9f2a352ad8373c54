"""Property: what a dump says does not depend on which dumps were decoded before it."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdoctor.evidence.envoy.dump import FIRST_BYTES, Dump, Shared, decode_dump
from meshdoctor.evidence.envoy.pages import decode_clusters
from meshdoctor.evidence.interface import DecodeError
from tests.evidence.damage import CONNECT, ISTIO, damaged, few, recorded, recording

_REFUSED = {"error_state": {"details": "no such address", "failed_configuration": {"name": "x"}}}


def dumps(mesh: str) -> list[Any]:
    names = [each for each in recording(mesh).names("envoy/") if each.endswith("config_dump.json")]
    return [recorded(mesh, name) for name in names]


def decoded(written: bytes, shared: Shared) -> Dump | str:
    try:
        return decode_dump("envoy/x/config_dump.json", written, shared)
    except DecodeError as error:
        return str(error)


def lists(dump: Any) -> list[list[Any]]:
    """The lists of the sections: of listeners, of clusters, ..."""
    return [
        held
        for section in dump["configs"]
        for held in section.values()
        if isinstance(held, list) and held
    ]


@st.composite
def changed(draw: st.DrawFn, dump: Any) -> bytes:
    """The same dump with elements moved, left out, doubled, refused, or with a new version."""
    dump = copy.deepcopy(dump)
    for elements in lists(dump):
        match draw(st.sampled_from(["as it was", "moved", "less", "twice", "refused", "pushed"])):
            case "moved":
                elements[:] = draw(st.permutations(elements))
            case "less":
                del elements[draw(st.integers(0, len(elements) - 1))]
            case "twice":
                elements.append(elements[0])
            case "refused":
                elements[draw(st.integers(0, len(elements) - 1))] |= _REFUSED
            case "pushed":
                elements[0]["version_info"] = "another"
    return json.dumps(dump).encode()


@pytest.mark.parametrize("mesh", ["fixed", "fixed-v2", "connect-collision"])
@few
@given(st.data())
def test_a_dump_says_the_same_whatever_was_decoded_before_it(mesh: str, data: Any) -> None:
    own = data.draw(st.sampled_from(dumps(mesh)))
    cases = [json.dumps(own).encode(), data.draw(changed(own)), data.draw(changed(own))]
    cases.append(data.draw(damaged(cases[-1].decode())))
    # By their bytes, by digests, or by bytes first.
    shared = Shared(looked_up=data.draw(st.sampled_from([0, FIRST_BYTES, FIRST_BYTES - 50_000])))
    for case in data.draw(st.lists(st.sampled_from(cases), min_size=2, max_size=6)):
        assert decoded(case, shared) == decoded(case, Shared(several=False))


@st.composite
def another(draw: st.DrawFn, page: Any) -> bytes:
    """The same `/clusters`, with a cluster moved, left out, doubled, or with its hosts changed."""
    page = copy.deepcopy(page)
    statuses = page["cluster_statuses"]
    number = draw(st.integers(0, len(statuses) - 1))
    match draw(st.sampled_from(["moved", "less", "twice", "failed", "empty"])):
        case "moved":
            statuses.append(statuses.pop(number))
        case "less":
            del statuses[number]
        case "twice":
            statuses.append({"name": statuses[number]["name"]})
        case "failed":
            for host in statuses[number].get("host_statuses", ()):
                host["health_status"]["failed_outlier_check"] = True
        case "empty":
            statuses[number].pop("host_statuses", None)
    return json.dumps(page).encode()


@pytest.mark.parametrize("mesh", ["fixed", "connect-collision"])
@few
@given(st.data())
def test_endpoints_are_the_same_whatever_was_decoded_before_them(mesh: str, data: Any) -> None:
    names = [each for each in recording(mesh).names("envoy/") if each.endswith("clusters.json")]
    own = recorded(mesh, data.draw(st.sampled_from(names)))
    cases = [json.dumps(own).encode(), *(data.draw(another(own)) for _ in range(3))]
    shared = Shared()
    for case in data.draw(st.lists(st.sampled_from(cases), min_size=2, max_size=6)):
        alone = decode_clusters("envoy/x/clusters.json", case, Shared(several=False))
        table = decode_clusters("envoy/x/clusters.json", case, shared)
        assert list(table.items()) == list(alone.items())


@pytest.mark.parametrize(
    "looked_up",
    [0, FIRST_BYTES - 1, FIRST_BYTES],
    ids=["by its bytes", "by its bytes, then by a digest", "by a digest"],
)
@pytest.mark.parametrize("mesh", ISTIO + CONNECT)
def test_a_resource_is_held_once_wherever_it_stands(mesh: str, looked_up: int) -> None:
    """Also where the dump before had it elsewhere, or not at all."""
    dump = dumps(mesh)[0]
    turned = copy.deepcopy(dump)
    for elements in lists(turned):
        elements.reverse()
    shared = Shared(looked_up=looked_up)
    first, other, again = (
        decode_dump("envoy/x/config_dump.json", json.dumps(each).encode(), shared)
        for each in (dump, turned, dump)
    )
    facts = {entry.cluster.name: entry.cluster for entry in first.clusters}
    assert len(facts) == len(first.clusters) > 1
    assert all(facts[entry.cluster.name] is entry.cluster for entry in other.clusters)
    mine = [*first.clusters, *first.listeners, *first.routes]
    yours = [*again.clusters, *again.listeners, *again.routes]
    assert len(mine) == len(yours)
    assert all(one is another for one, another in zip(mine, yours, strict=True))
