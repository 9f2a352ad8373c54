"""Snapshots on disk: folders and .tgz files, read without trust and written atomically."""

import lzma
import os
import posixpath
import stat
import tarfile
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from meshdoctor.evidence import layout
from meshdoctor.evidence.interface import EvidenceError, Problem
from meshdoctor.snapshot.documents import Document, Snapshot, SnapshotError, from_documents

if TYPE_CHECKING:
    from indexed_gzip import IndexedGzipFile

# Bounds on what strangers send. One dump of 3,000 services is 10 MB, a mesh of 1,000 sidecars
# with 1,000 services 3.5 GB uncompressed: far more than one person attaches to an issue.
MAX_DOCUMENT: Final = 256 * 2**20
MAX_TOTAL: Final = 4 * 2**30
MAX_MEMBERS: Final = 100_000

# What is unpacked beyond this stays in the archive, and is read from there when it is asked for.
HELD: Final = 64 * 2**20
# Between two places in a gzip stream from which reading can begin: each costs 32 KiB of memory.
_SPACING: Final = 4 * 2**20

ENDINGS: Final = (".tgz", ".tar.gz")
# TypeError is what tarfile raises where a gzip header ends within its optional fields.
_DAMAGED: Final = (
    *(tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError),
    TypeError,
)


def open_snapshots(paths: Sequence[Path]) -> Snapshot:
    """The snapshots at `paths` as one; a folder of .tgz files is one snapshot for each.

    Raises SnapshotError.
    """
    found = [each for path in paths for each in archives_in(path) or (path,)]
    if len(found) == 1:
        return open_snapshot(found[0])
    from meshdoctor.snapshot.merging import Part, merge  # noqa: PLC0415

    named: dict[str, Path] = {}
    for path in found:
        named[str(path) if path.name in named else path.name] = path
    return merge([Part(name, open_snapshot(path)) for name, path in named.items()])


def archives_in(path: Path) -> Sequence[Path]:
    """The .tgz files of a folder that is no snapshot itself, sorted."""
    if is_snapshot(path):
        return ()
    names = _names_in(path)
    return [path / name for name in sorted(names) if name.endswith(ENDINGS)]


def is_snapshot(path: Path) -> bool:
    """Whether it is a folder that a snapshot was written to. Raises SnapshotError."""
    names = _names_in(path)
    return layout.MANIFEST in names or not names.isdisjoint(layout.SOURCES)


def _names_in(path: Path) -> set[str]:
    try:
        return {each.name for each in path.iterdir()} if path.is_dir() else set()
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror or error}") from error


def open_snapshot(path: Path, *, gone: Callable[[], object] | None = None) -> Snapshot:
    """The snapshot at `path`, a folder or a .tgz.

    Members that could reach outside the snapshot, links and devices are passed over and noted;
    of a truncated archive, what came before the damage is kept. `gone` is called once nothing
    reads from a .tgz any more, for one that lies there for this alone. Raises SnapshotError.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror or error}") from error
    try:
        if stat.S_ISDIR(mode):
            return from_documents(*_read_folder(path))
        if stat.S_ISREG(mode):
            return from_documents(*_read_tgz(path, gone))
    except SnapshotError as error:
        raise SnapshotError(f"{path}: {error}") from error
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror or error}") from error
    raise SnapshotError(f"{path}: neither a folder nor a .tgz file")


def _read_folder(root: Path) -> tuple[dict[str, Document], list[Problem]]:
    documents: dict[str, Document] = {}
    notes: list[Problem] = []

    def unread(error: OSError) -> None:
        folder = Path(error.filename)
        if folder == root:
            raise error
        name = folder.relative_to(root).as_posix()
        notes.append(Problem(f"{name}/", f"not read: {error.strerror or error}"))

    for folder, folders, files in os.walk(root, onerror=unread):
        folders.sort()
        for file in sorted(files):
            path = Path(folder, file)
            name = path.relative_to(root).as_posix()
            if path.is_symlink() or not path.is_file():
                notes.append(Problem(name, "passed over: not a regular file"))
            elif path.stat().st_size > MAX_DOCUMENT:
                notes.append(Problem(name, f"passed over: larger than {MAX_DOCUMENT} bytes"))
            elif len(documents) >= MAX_MEMBERS:
                raise SnapshotError(f"more than {MAX_MEMBERS} files: not a snapshot")
            else:
                documents[name] = partial(_read_file, path)
    return documents, notes


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror or error}") from error


def _read_tgz(
    path: Path, gone: Callable[[], object] | None
) -> tuple[dict[str, Document], list[Problem]]:
    documents: dict[str, Document] = {}
    notes: list[Problem] = []
    total = 0
    packed = _Packed(path, gone)
    is_gzip = _is_gzip(path)
    try:
        with tarfile.open(path, "r|*") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise SnapshotError(f"more than {MAX_MEMBERS} members: not a snapshot")
                name = _safe_name(member, notes)
                if name is None:
                    continue
                total += member.size
                if total > MAX_TOTAL:
                    raise SnapshotError(f"unpacks to more than {MAX_TOTAL} bytes")
                stream = archive.extractfile(member)
                if stream is None:
                    continue
                if name in documents:
                    notes.append(Problem(name, "stands twice in the archive: the first counts"))
                elif not is_gzip or total <= HELD:
                    documents[name] = stream.read()
                else:
                    _skip(stream)
                    documents[name] = partial(packed.read, name, member.offset_data, member.size)
    except _DAMAGED as error:
        if not documents:
            what = _other_file(path) or f"nor a .tgz that can be read: {error}"
            raise SnapshotError(f"not a folder, {what}") from error
        notes.append(Problem(path.name, f"damaged archive, the rest of it is lost: {error}"))
    return _without_top_folder(documents), notes


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _other_file(path: Path) -> str:
    """What a file is that people take for a snapshot, and what to do with it; "" if unknown."""
    with path.open("rb") as file:
        head = file.read(4096).lstrip()
    if head.startswith(b"PK"):
        return "but a .zip: unpack it, and name what was in it"
    if head.startswith(b"{") and b'"meshdoctor.' in head:
        return (
            "but a report, from which nothing can be examined anew: compare it with `meshdoctor "
            "diff`, or ask for the evidence, which `meshdoctor snapshot -o evidence.tgz` records"
        )
    return ""


def _skip(stream: IO[bytes]) -> None:
    """Read to its end, so that damage is noticed now."""
    while stream.read(2**20):
        pass


class _Packed:
    """A .tgz whose members are read one by one, wherever they stand, and never unpacked."""

    def __init__(self, path: Path, gone: Callable[[], object] | None) -> None:
        self._path = path
        if gone is not None:
            # It lives no longer than the last document that is read from there, if any is.
            weakref.finalize(self, gone)
        self._stream: IndexedGzipFile | None = None
        self._lock = threading.Lock()

    def read(self, name: str, offset: int, size: int) -> bytes:
        with self._lock:
            try:
                if self._stream is None:
                    # Imported here: few archives are so large.
                    from indexed_gzip import IndexedGzipFile  # noqa: PLC0415

                    self._stream = IndexedGzipFile(str(self._path), spacing=_SPACING)
                self._stream.seek(offset)
                body: bytes = self._stream.read(size)
            except Exception as error:
                # Its readers each have errors of their own.
                raise SnapshotError(f"{self._path}: {name} cannot be read: {error}") from error
        if len(body) != size:
            raise SnapshotError(f"{self._path}: {name} is no longer whole")
        return body


def _safe_name(member: tarfile.TarInfo, notes: list[Problem]) -> str | None:
    """The member's path inside the snapshot, or None with a note where it is no document."""
    if member.isdir():
        return None
    shown = member.name.encode("utf-8", "backslashreplace").decode()
    if member.name.startswith("/") or ".." in member.name.split("/"):
        notes.append(Problem(shown, "passed over: its name leads outside the snapshot"))
        return None
    if not member.isreg():
        notes.append(Problem(shown, "passed over: not a regular file"))
        return None
    if member.size > MAX_DOCUMENT:
        notes.append(Problem(shown, f"passed over: larger than {MAX_DOCUMENT} bytes"))
        return None
    return posixpath.normpath(shown)


def _without_top_folder(documents: dict[str, Document]) -> dict[str, Document]:
    """An archive may hold its files under one folder of any name."""
    if layout.MANIFEST in documents:
        return documents
    tops = {name.partition("/")[0] for name in documents}
    if len(tops) != 1:
        return documents
    (top,) = tops
    if top in layout.SOURCES:
        return documents
    return {name.partition("/")[2]: document for name, document in documents.items()}


def write_snapshot(snapshot: Snapshot, path: Path, *, tool: str, version: str) -> None:
    """Write to `path`: a .tgz where the name says so, else a folder that must not hold files yet.

    The same snapshot gives the same bytes. Files are for their owner's eyes only, and appear
    whole or not at all. Raises SnapshotError.
    """
    try:
        if path.name.endswith(ENDINGS):
            _write_tgz(snapshot, path, tool, version)
        else:
            _write_folder(snapshot, path, tool, version)
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror or error}") from error
    except EvidenceError as error:
        raise SnapshotError(f"{path}: not written: {error}") from error


def _entries(snapshot: Snapshot, tool: str, version: str) -> Iterator[tuple[str, bytes]]:
    yield layout.MANIFEST, snapshot.manifest(tool, version)
    for name in snapshot.names():
        yield name, snapshot.read(name)


def _write_tgz(snapshot: Snapshot, path: Path, tool: str, version: str) -> None:
    # Snapshots are mostly read.
    import gzip  # noqa: PLC0415
    import io  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    descriptor, partial_name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            # No name and no time in the gzip header: the same snapshot, the same bytes.
            gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name, body in _entries(snapshot, tool, version):
                member = tarfile.TarInfo(name)
                member.size = len(body)
                member.mode = 0o600
                archive.addfile(member, io.BytesIO(body))
        Path(partial_name).replace(path)
    except BaseException:
        Path(partial_name).unlink(missing_ok=True)
        raise


def _write_folder(snapshot: Snapshot, path: Path, tool: str, version: str) -> None:
    if path.exists() and any(path.iterdir()):
        raise SnapshotError(f"{path}: the folder is not empty")
    for name, body in _entries(snapshot, tool, version):
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(body)
