"""Many snapshots, each judged by itself, on all cores or through somebody's executor.

What distributes is `concurrent.futures`: a pool of processes on this machine, or any executor that
an engine gives, as Dask's `Client.get_executor()`.
"""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from meshdoctor.collectors.remote import Place, archives_at, entries_at, open_together
from meshdoctor.diagnosis import Checks, Policy, examine, load_checks
from meshdoctor.report.fleet import Judgement
from meshdoctor.snapshot import SnapshotError

_IN_FLIGHT: Final = 1000
"""Snapshots that an executor of somebody else's has at once: enough for any number of cores."""


class ExecutorError(Exception):
    """An engine that should judge cannot be reached; the message says what to try."""


class Judging(msgspec.Struct, frozen=True):
    """With which checks: `paths` hold more of them, `select` and `ignore` are codes or names."""

    paths: tuple[Path, ...] = ()
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    policy: Policy = msgspec.field(default_factory=Policy)


def entries(places: Iterable[Place]) -> list[Place]:
    """What is judged by itself: each of the places, and of a folder or prefix each entry.

    An entry is a .tgz, a snapshot's folder, or a folder of .tgz files, which are the hosts of one
    mesh. Raises SnapshotError where a place cannot be listed.
    """
    found = (each for place in places for each in entries_at(place) or (place,))
    return list(dict.fromkeys(found))


def judge_each(
    places: Iterable[Place],
    judging: Judging | None = None,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
) -> Iterator[Judgement]:
    """What each of the snapshots says, in the order in which they are done.

    By default on a pool of `workers` processes, as many as there are cores. With an `executor`,
    meshdoctor must be installed wherever it works, and the places be there by the same names. A
    snapshot that cannot be judged is a judgement too, and costs no other one.
    """
    judging = judging or Judging()
    left = deque(places)
    if executor is not None:
        yield from _through(executor, left, judging, _IN_FLIGHT)
        return
    count = min(workers or os.cpu_count() or 1, max(1, len(left)))
    while left:
        with _pool(count) as pool:
            suspects = yield from _through(pool, left, judging, 2 * count)
        # One of those that were under way ended its process, and with it the pool.
        for place in suspects:
            with _pool(1) as pool:
                alone = deque([place])
                if (yield from _through(pool, alone, judging, 1)):
                    yield Judgement(
                        str(place), None, "its process was ended: it may need more memory"
                    )


def judge(place: Place, judging: Judging) -> Judgement:
    """What one snapshot says."""
    name = str(place)
    begun = time.monotonic()
    try:
        parts = archives_at(place) or (place,)
        snapshot = open_together(parts)
        target = {"kind": "snapshot", "paths": [name]}
        report = examine(snapshot, _checks(judging), target, judging.policy, begun=begun)
        return Judgement.of(name, report, len(parts))
    except SnapshotError as error:
        return Judgement(name, None, str(error).removeprefix(f"{name}: "))
    except Exception as error:  # noqa: BLE001 # a fault of ours with one of them is not the others'
        return _failed(place, error)


def _checks(judging: Judging) -> Checks:
    return _loaded(judging.paths, judging.select, judging.ignore)


@lru_cache(maxsize=1)
def _loaded(paths: tuple[Path, ...], select: tuple[str, ...], ignore: tuple[str, ...]) -> Checks:
    """Once in each process: checks from files cannot be sent to it."""
    return load_checks(paths).choose(select, ignore)


def _failed(place: Place, error: BaseException) -> Judgement:
    return Judgement(str(place), None, f"{type(error).__name__}: {error}")


def _through(
    executor: Executor, left: deque[Place], judging: Judging, at_once: int
) -> Generator[Judgement, None, list[Place]]:
    """Judge what is left; return those that were under way when the executor broke, if it did."""
    running: dict[Future[Judgement], Place] = {}
    while left or running:
        try:
            while left and len(running) < at_once:
                running[executor.submit(judge, left[0], judging)] = left[0]
                left.popleft()
        except BrokenExecutor:
            return list(running.values())
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        suspects = []
        for future in done:
            place = running.pop(future)
            error = future.exception()
            if error is None:
                yield future.result()
            elif isinstance(error, BrokenExecutor):
                suspects.append(place)
            else:
                yield _failed(place, error)
        if suspects:
            return [*suspects, *running.values()]
    return []


@contextmanager
def _pool(workers: int) -> Iterator[Executor]:
    # Not by fork, which copies locks that other threads of this process may hold.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_let_interrupt)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _let_interrupt() -> None:
    """Ctrl-C is for the process that the user started, which ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def dask(address: str) -> Iterator[Executor]:
    """The executor of the Dask cluster whose scheduler is there. Raises ExecutorError."""
    # Imported here: it comes with an extra.
    try:
        from distributed import Client  # noqa: PLC0415
    except ImportError as error:
        raise ExecutorError(
            "a Dask cluster is used through distributed, which is not installed: "
            "pip install 'meshdoctor[dask]'"
        ) from error
    try:
        client = Client(address, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, ImportError) as error:
        raise ExecutorError(f"no Dask scheduler answers at {address}: {error}") from error
    with client, client.get_executor() as executor:  # type: ignore[no-untyped-call]
        yield executor
