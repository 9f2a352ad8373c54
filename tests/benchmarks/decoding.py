"""Decoding the dumps of real Envoys, against the standard library's json."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Final

from meshdoctor.evidence.envoy.dump import Shared, decode_dump
from tests.benchmarks.measure import Row, compare, memory
from tests.benchmarks.meshes import envoy_with

_SIZES: Final = ((100, None), (1000, 0.35), (3000, 0.30))
_SHARED_MESH: Final = 1000  # the size that the target on what is held names


def rows() -> Iterator[Row]:
    """The first dump of a mesh, each further one that says the same, and what both hold."""
    for services, target in _SIZES:
        with envoy_with(services) as envoy:
            raw = envoy.get("/config_dump")
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
        _, held = memory(partial(_decode, raw, known))
        yield Row(
            "memory",
            f"held for each further sidecar, S={services}",
            "64 KiB",
            held / 65536,
            1 if services == _SHARED_MESH else None,
            note=f"{held / 1024:.0f} KiB",
        )


def _decode_alone(raw: bytes) -> object:
    return _decode(raw, Shared())


def _decode(raw: bytes, shared: Shared) -> object:
    return decode_dump("envoy/x/config_dump.json", raw, shared)
