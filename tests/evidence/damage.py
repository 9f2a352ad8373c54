"""Recorded documents, and damage done to them: keys dropped, types changed, numbers huge."""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from meshdoctor.snapshot import Snapshot, open_snapshot

MESHES: Final = Path(__file__).parents[2] / "fixtures" / "meshes"
ISTIO: Final = ("broken", "broken-v2", "fixed", "fixed-v2")
CONNECT: Final = ("connect-collision", "connect-healthy")

few = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
"""Enough examples to find what is loose, the same ones in every run."""

_WRONG: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**18, -(10**18), 10**40, 65536, 1e308, "", "x", "9" * 5000, "/", ":"]),
    st.text(max_size=3),
    st.sampled_from([[], {}, [None], [[]], {"": {}}, {"Name": 1}, [{}], {"a": None}]),
)


@cache
def recording(mesh: str) -> Snapshot:
    """One of the recorded meshes."""
    return open_snapshot(MESHES / f"{mesh}.tgz")


def recorded(mesh: str, document: str) -> Any:
    """A document of a recorded mesh, decoded anew for each caller to change."""
    return json.loads(recording(mesh).read(document))


def snapshot(documents: dict[str, Any]) -> Snapshot:
    """A snapshot of documents: bytes and text as they are, everything else as JSON."""

    def body(document: Any) -> bytes:
        if isinstance(document, bytes):
            return document
        return (document if isinstance(document, str) else json.dumps(document)).encode()

    return Snapshot({name: body(document) for name, document in documents.items()})


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """JSON with one to four of its values dropped or replaced by something else."""
    root = [json.loads(text)]
    every = _places(root)
    for _ in range(draw(st.integers(1, 4))):
        *path, last = draw(st.sampled_from(every))
        parent: Any = root
        try:
            for key in path:
                parent = parent[key]
            if draw(st.booleans()):
                del parent[last]
            else:
                parent[last] = draw(_WRONG)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this place away
    return json.dumps(root[0]).encode() if root else b""


@st.composite
def mangled(draw: st.DrawFn, text: str) -> bytes:
    """Text cut short, or with bytes that are no JSON, no UTF-8, or half a surrogate."""
    body = bytearray(text.encode())
    cut = draw(st.integers(0, len(body)))
    if draw(st.booleans()):
        del body[cut:]
    else:
        body[cut:cut] = draw(
            st.sampled_from([b"\0", b"\xff", b'"\\ud800"', b"[" * 5000, b"{", b"1" * 6000, b","])
        )
    return bytes(body)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    found = [(*path, key) for key, _ in children]
    for key, held in children:
        found += _places(held, (*path, key))
    return found
