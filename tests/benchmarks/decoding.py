"""Decoding what real Envoys say, against the standard library's json."""

import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from meshdoctor.collectors.envoy import PAGES
from meshdoctor.evidence.envoy import EnvoyProxies
from meshdoctor.evidence.envoy.dump import Shared, decode_dump
from tests.benchmarks.envoys import envoy_with, sidecars_of
from tests.benchmarks.measure import Row, compare, memory
from tests.routing.real_envoy import Documents, Envoy

_SIZES: Final = ((100, None), (1000, 0.35), (3000, 0.30))
_SHARED_MESH: Final = 1000  # the size that the target on what is held names
_SIDECARS: Final = 20


def rows() -> Iterator[Row]:
    """The first dump of a mesh, each further one that says the same, and what both hold.

    Then the sidecars of a mesh as a run reads them: the dumps of all, and all of their pages.
    """
    # Else each collection of json's garbage would go through all that is imported here, too.
    gc.collect()
    gc.freeze()
    for services, target in _SIZES:
        with envoy_with(services) as envoy:
            raw = envoy.get("/config_dump")
            pages = _pages(envoy) if services == _SHARED_MESH else {}
        size = f"S={services}, {len(raw) / 1e6:.1f} MB"
        stdlib = partial(json.loads, raw)
        first = compare(stdlib, partial(_decode_alone, raw))
        yield Row(
            "decoding", f"first dump, {size}", "json.loads", first.ratio, target, first.spread
        )
        known = Shared()
        _decode(raw, known)
        further = compare(stdlib, partial(_decode, raw, known))
        yield Row(
            "decoding",
            f"each further dump, {size}",
            "json.loads",
            further.ratio,
            target,
            further.spread,
        )
        peak, _ = memory(partial(_decode_alone, raw))
        yield Row("memory", f"peak while decoding, {size}", "the dump's bytes", peak / len(raw), 1)
        dumps = sidecars_of(raw, _SIDECARS)
        _, held = memory(partial(_decode_each, dumps, known))
        held //= _SIDECARS
        yield Row(
            "memory",
            f"held for each further sidecar, S={services}",
            "64 KiB",
            held / 65536,
            1 if services == _SHARED_MESH else None,
            note=f"{held / 1024:.0f} KiB",
        )
        if pages:
            yield from _of_a_mesh(services, target, dumps, pages)


def _of_a_mesh(
    services: int, target: float | None, dumps: Sequence[bytes], pages: Mapping[str, bytes]
) -> Iterator[Row]:
    mesh = f"{_SIDECARS} sidecars of one mesh, S={services}"
    found = compare(partial(_load_each, dumps), partial(_decode_mesh, dumps))
    yield Row("decoding", f"{mesh}, their dumps", "json.loads", found.ratio, target, found.spread)
    written = [(name, sidecars_of(page, _SIDECARS)) for name, page in pages.items()]
    documents = {
        f"envoy/{number}/{name}": page
        for name, each in written
        for number, page in enumerate(each)
    }
    found = compare(
        partial(_load_each, list(documents.values())),
        partial(EnvoyProxies.load, Documents(documents)),
    )
    yield Row("decoding", f"{mesh}, all pages", "json.loads", found.ratio, target, found.spread)


def _pages(envoy: Envoy) -> dict[str, bytes]:
    """What a run asks a sidecar for."""
    asked = {name: paths[0] for name, paths in PAGES.items()}
    return {
        name: envoy.get(path)
        for name, path in {"server_info.json": "/server_info", **asked}.items()
    }


def _load_each(documents: Sequence[bytes]) -> None:
    for each in documents:
        json.loads(each)


def _decode_alone(raw: bytes) -> object:
    return _decode(raw, Shared())


def _decode_mesh(dumps: Sequence[bytes]) -> object:
    return _decode_each(dumps, Shared())


def _decode_each(dumps: Sequence[bytes], shared: Shared) -> object:
    return [_decode(raw, shared) for raw in dumps]


def _decode(raw: bytes, shared: Shared) -> object:
    return decode_dump("envoy/x/config_dump.json", raw, shared)
