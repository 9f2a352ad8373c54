"""What twice the services or twice the sidecars cost."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from meshdoctor.check import Examination
from meshdoctor.diagnosis import Checks, examine, load_checks
from meshdoctor.routing.calls import Calls
from meshdoctor.snapshot import Snapshot
from tests.benchmarks.measure import Row, compare
from tests.benchmarks.meshes import snapshot, write_mesh

_TARGET: Final = 2.2
_DOUBLED: Final = (20, 50, 100, 200, 400, 1000)
_SERVICES: Final = 100
_SIDECARS: Final = 50


def rows() -> Iterator[Row]:
    """Sidecars doubled at 100 services, services doubled at 50 sidecars; the peak of the larger.

    First of healthy meshes, then of one where every call but one service's goes astray.

    Every service has an instance, which is a caller too, with a sidecar or without: twice the
    services are four times the pairs. So the last is measured without the pairs as well. Every
    sidecar is an instance, which all others have among their endpoints: with twice the sidecars
    the snapshot has more than twice the bytes, 2.8 times from 200 to 400.
    """
    checks = load_checks()
    for more in _DOUBLED:
        what = f"check of {more} sidecars, {_SERVICES} services"
        yield _doubled(what, (_SERVICES, more // 2), (_SERVICES, more), checks)
    for more in _DOUBLED:
        what = f"check of {more} services, {_SIDECARS} sidecars"
        yield _doubled(what, (more // 2, _SIDECARS), (more, _SIDECARS), checks)
    per_pair = [
        each.code for each in checks.checks if any(n.evidence is Calls for n in each.needs)
    ]
    largest = _DOUBLED[-1]
    for services, sidecars in ((_SERVICES, largest), (largest, _SIDECARS)):
        what = f"broken as in the story: {sidecars} sidecars, {services} services"
        half = (services // 2, sidecars) if services == largest else (services, sidecars // 2)
        yield _doubled(what, half, (services, sidecars), checks, is_broken=True)
    what = f"check of {largest} services, {_SIDECARS} sidecars, without the checks of pairs"
    others = checks.choose((), per_pair)
    yield _doubled(what, (largest // 2, _SIDECARS), (largest, _SIDECARS), others)
    yield _matrix(200)


def fleet() -> Iterator[Row]:
    """A thousand sidecars of a thousand services, from a .tgz: a million calls."""
    for state, is_broken in (("healthy", False), ("broken as in the story", True)):
        peak, seconds = cost_of(1000, 1000, is_broken=is_broken)
        yield Row(
            "memory",
            f"check --snapshot FILE.tgz, 1000 sidecars, 1000 services, {state}, at its peak",
            "1 GiB",
            peak / 2**30,
            1,
            note=f"{peak / 2**20:.0f} MiB, {seconds:.0f} s of CPU",
        )


def _doubled(
    what: str,
    half: tuple[int, int],
    whole: tuple[int, int],
    checks: Checks,
    *,
    is_broken: bool = False,
) -> Row:
    """Both are so many services and so many sidecars."""
    small, large = snapshot(*half, is_broken=is_broken), snapshot(*whole, is_broken=is_broken)
    found = compare(partial(_examine, small, checks), partial(_examine, large, checks))
    peak, _ = cost_of(*whole, is_broken=is_broken)
    note = f"peak {peak / 2**20:.0f} MiB"
    return Row("growth", what, "half as many", found.ratio, _TARGET, found.spread, note)


def _examine(mesh: Snapshot, checks: Checks) -> object:
    # Another snapshot in each round: nothing that was made of one is there for the next.
    return examine(Snapshot(dict(mesh.documents)), checks, {"kind": "snapshot"})


def _matrix(size: int) -> Row:
    """Every caller's calls, against one caller's as many times."""
    small, large = snapshot(size, 1), snapshot(size, size)
    found = compare(partial(_calls, small), partial(_calls, large))
    return Row(
        "growth",
        f"matrix of {size} x {size}",
        f"one caller, {size} times",
        found.ratio / size,
        None,
        (found.spread[0] / size, found.spread[1] / size),
    )


def _calls(mesh: Snapshot) -> object:
    return Examination(Snapshot(dict(mesh.documents))).get(Calls)


def cost_of(services: int, sidecars: int, *, is_broken: bool = False) -> tuple[int, float]:
    """What a process of its own takes that judges such a mesh, recorded in a .tgz.

    Its resident bytes at their highest, and its seconds of CPU.
    """
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from meshdoctor.diagnosis import examine, load_checks\n"
        "from meshdoctor.snapshot import open_snapshot\n"
        "examine(open_snapshot(Path(sys.argv[1])), load_checks(), {})\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        # Its own peak: `ru_maxrss` has what it was forked from in it.
        "status = Path('/proc/self/status').read_text()\n"
        "peak = status.partition('VmHWM:')[2].split()[0]\n"
        "print(peak, used.ru_utime + used.ru_stime)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "mesh.tgz"
        write_mesh(services, sidecars, recording, is_broken=is_broken)
        ran = subprocess.run(
            [sys.executable, "-c", script, recording], capture_output=True, check=True
        )
    peak, seconds = ran.stdout.split()
    return int(peak) * 1024, float(seconds)
