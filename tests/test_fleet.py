"""Many snapshots, each judged by itself: the same as one by one, and none costs another."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from distributed import LocalCluster
from msgspec.structs import replace

from meshdoctor.collectors.remote import Place
from meshdoctor.diagnosis import examine, load_checks
from meshdoctor.fleet import ExecutorError, Judging, dask, entries, judge_each
from meshdoctor.report.document import Verdict
from meshdoctor.report.fleet import Fleet, Judgement
from meshdoctor.snapshot import open_snapshot, open_snapshots

MESHES = Path(__file__).parents[1] / "fixtures" / "meshes"
RECORDED = ("broken", "connect-collision", "connect-healthy", "fixed")

DEADLY = '''"""A check that ends the process wherever there is no Docker."""

import os

from meshdoctor.check import check
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.findings import Severity


@check(code="XX901", severity=Severity.ERROR, since="0.1")
def deadly(docker: DockerEngine | None):
    """Ends its process.

    ## Why it matters

    A process may be ended for want of memory.

    ## How it is found

    It is not.

    ## How to fix it

    It stays.
    """
    if docker is None:
        os._exit(9)
    yield from ()
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four recordings and a file that is none."""
    for name in RECORDED:
        shutil.copy(MESHES / f"{name}.tgz", tmp_path)
    (tmp_path / "damaged.tgz").write_bytes(b"no archive")
    (tmp_path / "notes.txt").write_text("not judged")
    return tmp_path


def timeless(judgements: Iterator[Judgement]) -> list[Judgement]:
    """In one order, without how long each took."""
    return [replace(each, seconds=0) for each in Fleet.of(judgements, 0).judgements]


def expected(place: Path) -> Judgement:
    """What `check` says of one."""
    report = examine(open_snapshots([place]), load_checks(), {"kind": "snapshot"})
    return replace(Judgement.of(str(place), report), seconds=0)


def test_each_is_judged_as_by_itself(folder: Path) -> None:
    """By several processes; the one that cannot be read says why and costs no other."""
    found = timeless(judge_each(entries([folder]), workers=2))
    (unread,) = [each for each in found if each.verdict is None]
    assert unread.snapshot == str(folder / "damaged.tgz")
    assert unread.reason.startswith("not a folder, nor a .tgz that can be read")
    judged = {each.snapshot: each for each in found if each.verdict is not None}
    assert judged == {
        str(folder / f"{name}.tgz"): expected(folder / f"{name}.tgz") for name in RECORDED
    }


def test_the_order_is_always_the_same(folder: Path) -> None:
    """The worst first, whoever was done first."""
    places = entries([folder])
    with ThreadPoolExecutor(3) as executor:
        found = timeless(judge_each(places[::-1], executor=executor))
        assert found == timeless(judge_each(places, executor=executor))
    assert [each.verdict for each in found] == [
        *(Verdict.BROKEN, Verdict.BROKEN, None),
        *(Verdict.DEGRADED, Verdict.HEALTHY),
    ]


def test_one_that_ends_its_process_costs_no_other(folder: Path, tmp_path: Path) -> None:
    """It is named; those that were under way beside it are judged again."""
    (tmp_path / "deadly.py").write_text(DEADLY)
    judging = Judging(paths=(tmp_path / "deadly.py",))
    places: list[Place] = [folder / f"{name}.tgz" for name in RECORDED]
    found = {Path(each.snapshot).stem: each for each in judge_each(places, judging, workers=2)}
    assert found.keys() == set(RECORDED)
    assert (found["broken"].verdict, found["fixed"].verdict) == (Verdict.BROKEN, Verdict.HEALTHY)
    for name in ("connect-collision", "connect-healthy"):
        assert found[name].verdict is None
        assert "its process was ended" in found[name].reason


def test_the_same_cause_is_told_once(folder: Path) -> None:
    """With the snapshots that have it."""
    shutil.copy(MESHES / "broken-v2.tgz", folder)
    with ThreadPoolExecutor(2) as executor:
        fleet = Fleet.of(judge_each(entries([folder]), executor=executor), 0)
    shared = {each.code: [Path(name).stem for name in each.snapshots] for each in fleet.causes()}
    assert shared["MD202"] == ["broken-v2", "broken"]
    assert shared["MD701"] == ["connect-collision"]
    assert fleet.causes()[0].code == "MD202"


def test_what_is_judged_by_itself(folder: Path) -> None:
    """Of a folder each archive, and each folder with snapshots in it; a snapshot is itself."""
    hosts = folder / "hosts"
    hosts.mkdir()
    for name in ("east", "west"):
        shutil.copy(MESHES / "broken.tgz", hosts / f"{name}.tgz")
    (folder / "empty").mkdir()
    unpacked = folder / "unpacked"
    shutil.unpack_archive(MESHES / "fixed.tgz", unpacked, "gztar")
    found = [Path(each).name for each in entries([folder])]
    archives = [f"{name}.tgz" for name in ("broken", "connect-collision", "connect-healthy")]
    assert found == [*archives, "damaged.tgz", "fixed.tgz", "hosts", "unpacked"]
    assert entries([unpacked, folder / "fixed.tgz"]) == [unpacked, folder / "fixed.tgz"]
    with ThreadPoolExecutor(1) as executor:
        (one,) = judge_each([hosts], executor=executor)
    assert (one.parts, one.verdict) == (2, Verdict.BROKEN)


def test_what_is_judged_by_itself_in_a_store(folder: Path) -> None:
    """The same at a URL."""
    store = fsspec.filesystem("memory")
    for name in RECORDED:
        store.pipe(f"/many/{name}.tgz", (folder / f"{name}.tgz").read_bytes())
    store.pipe("/many/hosts/east.tgz", (folder / "broken.tgz").read_bytes())
    found = entries(["memory://many"])
    assert [str(each).rpartition("/")[2] for each in found] == [
        *(f"{name}.tgz" for name in RECORDED),
        "hosts",
    ]
    with ThreadPoolExecutor(1) as executor:
        judged = timeless(judge_each(found, executor=executor))
    assert [each.verdict for each in judged] == [
        *[Verdict.BROKEN] * 3,
        *(Verdict.DEGRADED, Verdict.HEALTHY),
    ]
    store.rm("/many", recursive=True)


def test_a_dask_cluster_judges_the_same(folder: Path) -> None:
    """A real scheduler and two workers of it, on loopback."""
    places = entries([folder])
    with (
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        dask(cluster.scheduler_address) as executor,
    ):
        there = timeless(judge_each(places, executor=executor))
    assert there == timeless(judge_each(places, workers=2))


def test_no_dask_scheduler_says_so() -> None:
    """With the address."""
    with pytest.raises(ExecutorError, match="nonsense"), dask("nonsense://nowhere"):
        pass


def test_a_recording_is_still_one(folder: Path) -> None:
    """A single path is judged, not listed."""
    assert open_snapshot(folder / "fixed.tgz").names()
    assert entries([folder / "fixed.tgz"]) == [folder / "fixed.tgz"]
