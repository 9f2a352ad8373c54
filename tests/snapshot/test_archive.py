"""Snapshots on disk: what strangers may send, and what is written."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.snapshot import Snapshot, SnapshotError, archive, open_snapshot, write_snapshot
from tests.plain_user import as_plain_user

MANIFEST = b'{"schema": "meshdoctor.snapshot/v1"}'
DOCUMENTS = {"docker/version.json": b"{}", "consul/status/leader.json": b'"a"'}


def tgz(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for member, body in members:
            member.size = len(body)
            packed.addfile(member, io.BytesIO(body))
    return path


def file(name: str, body: bytes = b"{}") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), body


def link(name: str, target: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def read(snapshot: Snapshot) -> Mapping[str, bytes]:
    return {name: snapshot.read(name) for name in snapshot.names()}


def write(snapshot: Snapshot, path: Path) -> Path:
    write_snapshot(snapshot, path, tool="meshdoctor", version="0")
    return path


@pytest.fixture
def snapshot() -> Snapshot:
    return Snapshot(
        DOCUMENTS,
        absent=(Problem("docker/info.json", "no answer"),),
        created="2026-11-22T20:00:00Z",
        redactions={"docker/version.json": 2},
    )


@pytest.mark.parametrize("name", ["mesh.tgz", "mesh.tar.gz", "mesh"])
def test_what_is_written_is_read_again(snapshot: Snapshot, tmp_path: Path, name: str) -> None:
    """Documents, and what is missing, and why."""
    again = open_snapshot(write(snapshot, tmp_path / name))
    assert read(again) == DOCUMENTS
    assert again.missing() == snapshot.missing()
    assert again.created == snapshot.created
    assert again.redactions == snapshot.redactions
    with pytest.raises(MissingEvidenceError, match=r"docker/info\.json .* no answer"):
        again.read("docker/info.json")


def test_the_same_snapshot_gives_the_same_bytes(snapshot: Snapshot, tmp_path: Path) -> None:
    """No time, no name and no user of the machine that wrote it."""
    one, other = write(snapshot, tmp_path / "one.tgz"), write(snapshot, tmp_path / "other.tgz")
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", ["mesh.tgz", "mesh"])
def test_files_are_for_their_owner_only(snapshot: Snapshot, tmp_path: Path, name: str) -> None:
    """Evidence is nobody else's."""
    path = write(snapshot, tmp_path / name)
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    assert files
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """Neither half an archive nor a temporary file."""

    def lost() -> bytes:
        raise SnapshotError("the disk it came from is gone")

    with pytest.raises(SnapshotError):
        write(Snapshot({"docker/version.json": lost}), tmp_path / "mesh.tgz")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_files_is_not_written_into(snapshot: Snapshot, tmp_path: Path) -> None:
    """Two meshes must not mix."""
    (tmp_path / "note").touch()
    with pytest.raises(SnapshotError, match="not empty"):
        write(snapshot, tmp_path)


def test_files_may_lie_under_one_folder(tmp_path: Path) -> None:
    """As `tar -czf mesh.tgz mesh/` makes it."""
    path = tgz(
        tmp_path / "a.tgz", file("mesh/manifest.json", MANIFEST), file("mesh/docker/version.json")
    )
    assert read(open_snapshot(path)) == {"docker/version.json": b"{}"}


def test_a_leading_dot_is_no_folder(tmp_path: Path) -> None:
    """As `tar -czf mesh.tgz .` makes it."""
    path = tgz(
        tmp_path / "a.tgz", file("./manifest.json", MANIFEST), file("./docker/version.json")
    )
    assert read(open_snapshot(path)) == {"docker/version.json": b"{}"}


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../passwd", "docker/../../passwd", "docker/../consul/x.json"]
)
def test_a_name_that_leads_outside_is_passed_over(tmp_path: Path, name: str) -> None:
    """And noted; the rest is read."""
    path = tgz(tmp_path / "a.tgz", file("manifest.json", MANIFEST), file(name), file("docker/a"))
    snapshot = open_snapshot(path)
    assert list(snapshot.names()) == ["docker/a"]
    assert [each.document for each in snapshot.notes] == [name]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_are_passed_over(tmp_path: Path, kind: bytes) -> None:
    """A link could name any file of the reader's."""
    path = tgz(
        tmp_path / "a.tgz",
        file("manifest.json", MANIFEST),
        link("docker/version.json", "/etc/passwd", kind),
    )
    snapshot = open_snapshot(path)
    assert not snapshot.names()
    assert snapshot.notes == (Problem("docker/version.json", "passed over: not a regular file"),)


def test_links_in_a_folder_are_passed_over(tmp_path: Path) -> None:
    """Likewise."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "manifest.json").write_bytes(MANIFEST)
    (tmp_path / "docker" / "version.json").symlink_to("/etc/passwd")
    snapshot = open_snapshot(tmp_path)
    assert not snapshot.names()
    assert snapshot.notes[0].document == "docker/version.json"


def test_of_a_doubled_document_the_first_counts(tmp_path: Path) -> None:
    """And it is noted: the two may tell different stories."""
    path = tgz(
        tmp_path / "a.tgz",
        file("manifest.json", MANIFEST),
        file("docker/version.json", b"1"),
        file("docker/version.json", b"2"),
    )
    snapshot = open_snapshot(path)
    assert snapshot.read("docker/version.json") == b"1"
    assert "twice" in snapshot.notes[0].message


def test_what_came_before_the_damage_is_kept(tmp_path: Path) -> None:
    """An upload that broke off still tells something."""
    members = [file("manifest.json", MANIFEST)]
    members += [file(f"docker/logs/{number}.log", os.urandom(5000)) for number in range(20)]
    whole = tgz(tmp_path / "a.tgz", *members).read_bytes()
    broken = tmp_path / "b.tgz"
    broken.write_bytes(whole[: len(whole) // 2])
    snapshot = open_snapshot(broken)
    assert 0 < len(snapshot.names()) < 20
    assert "the rest of it is lost" in snapshot.notes[-1].message


@pytest.mark.parametrize("body", [b"", b"hello", b"\x1f\x8b\x08\x00", gzip.compress(b"no tar")])
def test_what_is_no_archive_is_said(tmp_path: Path, body: bytes) -> None:
    """By its path, without a traceback."""
    path = tmp_path / "a.tgz"
    path.write_bytes(body)
    with pytest.raises(SnapshotError, match=r"a\.tgz"):
        open_snapshot(path)


def test_what_people_take_for_a_snapshot_is_said(tmp_path: Path) -> None:
    """With what to do: a .zip is unpacked, a report is compared."""
    path = tmp_path / "mesh.tgz"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("manifest.json", MANIFEST)
    with pytest.raises(SnapshotError, match=r"mesh.tgz: not a folder, but a .zip: unpack it"):
        open_snapshot(path)
    path.write_text('{\n  "schema": "meshdoctor.report/v1"\n}\n', encoding="utf-8")
    with pytest.raises(SnapshotError, match=r"but a report, .* with `meshdoctor diff`"):
        open_snapshot(path)


def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    """A file, the folder, or one below it, which costs only what is in it."""
    folder = tmp_path / "mesh"
    (folder / "docker").mkdir(parents=True)
    (folder / "docker" / "version.json").write_bytes(b"{}")
    (folder / "consul").mkdir(mode=0)
    packed = tgz(tmp_path / "mesh.tgz", file("manifest.json", MANIFEST))
    packed.chmod(0)
    with as_plain_user(tmp_path, *tmp_path.parents[:2]):
        assert open_snapshot(folder).notes == (Problem("consul/", "not read: Permission denied"),)
        with pytest.raises(SnapshotError, match=r"mesh.tgz: Permission denied"):
            open_snapshot(packed)
    folder.chmod(0)
    try:
        with as_plain_user(), pytest.raises(SnapshotError, match="mesh: Permission denied"):
            open_snapshot(folder)
    finally:
        folder.chmod(0o700)


def test_a_member_that_claims_too_much_is_not_read(tmp_path: Path) -> None:
    """A gigabyte of zeros fits into a megabyte."""
    member = tarfile.TarInfo("docker/containers.json")
    member.size = archive.MAX_DOCUMENT + 1
    head = tarfile.TarInfo("manifest.json")
    head.size = len(MANIFEST)
    raw = head.tobuf() + MANIFEST.ljust(512, b"\0") + member.tobuf()
    path = tmp_path / "a.tgz"
    with gzip.open(path, "wb", compresslevel=1) as packed:
        packed.write(raw)
        for _ in range(member.size // 2**20 + 1):
            packed.write(bytes(2**20))
    snapshot = open_snapshot(path)
    assert not snapshot.names()
    assert "larger than" in snapshot.notes[0].message


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many members, none of them too large by itself."""
    monkeypatch.setattr(archive, "MAX_TOTAL", 1000)
    members = (file(f"docker/logs/{number}.log", bytes(400)) for number in range(3))
    with pytest.raises(SnapshotError, match="unpacks to more than 1000 bytes"):
        open_snapshot(tgz(tmp_path / "a.tgz", *members))


def test_too_many_members_are_no_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs memory, however empty."""
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    members = [file(f"docker/logs/{number}.log") for number in range(4)]
    with pytest.raises(SnapshotError, match="more than 3 members"):
        open_snapshot(tgz(tmp_path / "a.tgz", *members))


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    """With the system's word for it."""
    with pytest.raises(SnapshotError, match="No such file"):
        open_snapshot(tmp_path / "nothing.tgz")


def test_a_device_is_neither_folder_nor_archive() -> None:
    """Reading it could last for ever."""
    with pytest.raises(SnapshotError, match="neither a folder nor"):
        open_snapshot(Path("/dev/zero"))


def test_a_large_archive_is_read_from_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its members come in any order, and beyond a bound none is held."""
    bodies = {f"envoy/s{n:02}/stats.json": b"%d" % n * 50_000 for n in range(40)}
    path = write(Snapshot(bodies), tmp_path / "mesh.tgz")
    monkeypatch.setattr(archive, "HELD", 200_000)
    found = open_snapshot(path)
    held = [name for name, document in found.documents.items() if isinstance(document, bytes)]
    assert 1 < len(held) < 10
    for name in reversed(found.names()):
        assert found.read(name) == bodies[name], name


def test_a_large_archive_that_is_cut_short_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between listing and reading somebody may write another."""
    noise = os.urandom(2**20)
    path = write(Snapshot({"docker/version.json": noise}), tmp_path / "mesh.tgz")
    monkeypatch.setattr(archive, "HELD", 2**10)
    found = open_snapshot(path)
    os.truncate(path, 2**10)
    with pytest.raises(MissingEvidenceError, match=r"mesh\.tgz: docker/version\.json"):
        found.read("docker/version.json")


def test_a_folder_of_too_many_files_is_no_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is somebody's home, named by mistake."""
    for number in range(4):
        (tmp_path / f"{number}.json").write_bytes(b"{}")
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    with pytest.raises(SnapshotError, match="more than 3 files: not a snapshot"):
        open_snapshot(tmp_path)


def test_a_file_that_is_too_large_is_passed_over(tmp_path: Path) -> None:
    """The others count; it has no blocks on disk, only a length."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "version.json").write_bytes(b"{}")
    with (tmp_path / "docker" / "images.json").open("wb") as large:
        large.truncate(archive.MAX_DOCUMENT + 1)
    snapshot = open_snapshot(tmp_path)
    assert list(snapshot.names()) == ["docker/version.json"]
    assert Problem(
        "docker/images.json", f"passed over: larger than {archive.MAX_DOCUMENT} bytes"
    ) in (snapshot.notes)


@pytest.mark.parametrize(
    ("names", "held"),
    [
        (("mesh/docker/version.json", "mesh/docker/info.json"), "docker/"),
        (("docker/version.json", "docker/info.json"), "docker/"),
        (("docker/version.json", "consul/status/leader.json"), ""),
    ],
)
def test_an_archive_without_a_manifest(tmp_path: Path, names: tuple[str, ...], held: str) -> None:
    """One folder on top of it is left out, unless that is a source's own."""
    snapshot = open_snapshot(tgz(tmp_path / "mesh.tgz", *map(file, names)))
    assert sorted(snapshot.names()) == sorted(each.removeprefix("mesh/") for each in names)
    assert all(each.startswith(held) for each in snapshot.names())
