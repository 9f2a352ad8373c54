"""Snapshots in object stores are judged as those on disk are, and trusted no more."""

import gc
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from meshdoctor.collectors.remote import open_places
from meshdoctor.snapshot import SnapshotError, archive, open_snapshot, write_snapshot
from tests.cli.conftest import Ran, environment, in_process, process
from tests.snapshot.test_merging import MESHES, in_order, split
from tests.timeless import report

PARTS = 3


@pytest.fixture(scope="module")
def per_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording split by container, a snapshot for each of three hosts."""
    folder = tmp_path_factory.mktemp("per-host")
    whole = in_order(open_snapshot(MESHES / "broken.tgz"))
    for number, part in enumerate(split(whole, PARTS)):
        write_snapshot(part, folder / f"host-{number}.tgz", tool="meshdoctor", version="0")
    return folder


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """A store within this process."""
    store = fsspec.filesystem("memory")
    yield store
    store.store.clear()
    store.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def s3(per_host: Path) -> Iterator[str]:
    """The address of a store on loopback that speaks S3, with the snapshots in a bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    store = fsspec.filesystem(
        "s3",
        key="test",
        secret="test",  # noqa: S106 # of a store in this process
        client_kwargs={"endpoint_url": url},
    )
    store.mkdir("fleet")
    for each in per_host.glob("*.tgz"):
        store.pipe(f"fleet/mesh/{each.name}", each.read_bytes())
    yield url
    server.stop()


def whole_report() -> object:
    return report(in_order(open_snapshot(MESHES / "broken.tgz")))


def test_a_prefix_gives_the_report_of_the_whole(
    memory: fsspec.AbstractFileSystem, per_host: Path
) -> None:
    """As one run over all hosts would, to the last pointer; whatever else lies there."""
    for each in per_host.glob("*.tgz"):
        memory.pipe(f"/fleet/{each.name}", each.read_bytes())
    memory.pipe("/fleet/README", b"not a snapshot")
    assert report(open_places(["memory://fleet"])) == whole_report()
    assert report(open_places(["memory://fleet/"])) == whole_report()
    assert report(open_places(["memory://fleet/host-"])) == whole_report()
    singly = [f"memory://fleet/host-{number}.tgz" for number in range(PARTS)]
    assert report(open_places(singly)) == whole_report()


def test_urls_and_paths_go_together(per_host: Path) -> None:
    """One host's snapshot is here, the others lie elsewhere."""
    first, *others = sorted(per_host.iterdir())
    assert report(open_places([first, *(f"file://{each}" for each in others)])) == whole_report()


def test_s3_from_the_command_line(s3: str) -> None:
    """With the variables that people have already."""
    ran = process("check", "--snapshot", "s3://fleet/mesh/", "--format", "json", **access(s3))
    assert ran.code == 1, ran.stderr
    told = json.loads(ran.stdout)
    assert told["target"] == {"kind": "snapshot", "paths": ["s3://fleet/mesh/"]}
    expected = whole_report()
    assert isinstance(expected, dict)
    assert [each["message"] for each in told["findings"]] == [
        each["message"] for each in expected["findings"]
    ]


def test_s3_without_the_bucket(s3: str) -> None:
    """3, on stderr, with the URL; no traceback, and no key."""
    ran = process("check", "--snapshot", "s3://elsewhere/mesh/", **access(s3))
    assert (ran.code, ran.stdout) == (3, "")
    assert "s3://elsewhere/mesh/: " in ran.stderr
    assert "Traceback" not in ran.stderr


def access(url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def lacking(folder: Path, package: str) -> Ran:
    """`check` where a package is not installed."""
    (folder / f"{package}.py").write_text(f"raise ModuleNotFoundError('no {package}')\n")
    path = f"{folder}:{environment()['PYTHONPATH']}"
    return process("check", "--snapshot", "s3://fleet/mesh/", PYTHONPATH=path)


def test_without_the_extra_it_is_named(tmp_path: Path) -> None:
    """What to type, and no traceback; and what has no URL needs none of it."""
    ran = lacking(tmp_path, "fsspec")
    assert (ran.code, ran.stdout) == (3, "")
    assert "pip install 'meshdoctor[fsspec]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_without_the_stores_own_package_it_is_named(tmp_path: Path) -> None:
    """Fsspec knows which."""
    ran = lacking(tmp_path, "s3fs")
    assert ran.code == 3
    assert "s3fs" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://nowhere/a.tgz", "memory://nowhere/a.tgz: nothing is there"),
        ("memory://fleet/none", "memory://fleet/none: no .tgz file is there"),
        ("memory://fleet/text.tgz", "memory://fleet/text.tgz: not a folder, nor a .tgz"),
        ("nonsense://x/y", "Protocol not known"),
        ("ftp://me:s3cret@127.0.0.1:1/x.tgz", "cannot be read"),
    ],
)
def test_what_is_no_snapshot_says_so(
    memory: fsspec.AbstractFileSystem, url: str, said: str
) -> None:
    """3, with the URL and without a password in it."""
    memory.pipe("/fleet/none/README", b"")
    memory.pipe("/fleet/text.tgz", b"not an archive")
    ran = in_process("check", "--snapshot", url)
    assert (ran.code, ran.stdout) == (3, "")
    assert said in ran.stderr
    assert "s3cret" not in ran.stderr
    assert tempfile.gettempdir() not in ran.stderr


def test_a_strangers_archive_is_bound_as_on_disk(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leads outside is passed over; what is too large is refused, fetched or unpacked."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as made:
        for name, body in (("../outside.json", b"{}"), ("docker/info.json", b"{}" + b" " * 9000)):
            member = tarfile.TarInfo(name)
            member.size = len(body)
            made.addfile(member, io.BytesIO(body))
    memory.pipe("/fleet/a.tgz", packed.getvalue())
    snapshot = open_places(["memory://fleet/a.tgz"])
    assert snapshot.names() == ("docker/info.json",)
    assert "leads outside" in snapshot.notes[0].message
    monkeypatch.setattr(archive, "MAX_TOTAL", 1000)
    with pytest.raises(SnapshotError, match="unpacks to more than 1000 bytes"):
        open_places(["memory://fleet/a.tgz"])
    monkeypatch.setattr("meshdoctor.collectors.remote.MAX_TOTAL", 100)
    with pytest.raises(SnapshotError, match=r"memory://fleet/a\.tgz: larger than 100 bytes"):
        open_places(["memory://fleet/a.tgz"])


def test_what_was_fetched_is_gone_with_the_snapshot(
    memory: fsspec.AbstractFileSystem,
    per_host: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once where all of it is held; a large one stays on disk for as long as it is read."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    memory.pipe("/fleet/a.tgz", (per_host / "host-0.tgz").read_bytes())
    snapshot = open_places(["memory://fleet/a.tgz"])
    gc.collect()
    assert not os.listdir(tmp_path)  # noqa: PTH208 # names will do
    monkeypatch.setattr(archive, "HELD", 1000)
    large = open_places(["memory://fleet/a.tgz"])
    assert [large.read(name) for name in large.names()] == [
        snapshot.read(name) for name in snapshot.names()
    ]
    assert len(os.listdir(tmp_path)) == 1  # noqa: PTH208
    del large
    gc.collect()
    assert not os.listdir(tmp_path)  # noqa: PTH208


def test_without_a_folder_to_fetch_into_it_is_said(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a container whose file system is read-only."""
    memory.pipe("fleet/mesh.tgz", b"")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    with pytest.raises(SnapshotError, match=r"mesh.tgz: there is no folder .* with TMPDIR"):
        open_places(["memory://fleet/mesh.tgz"])
