"""Snapshots in an object store, or wherever else fsspec reaches: fetched, then read as ever."""

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from meshdoctor.files import is_folder
from meshdoctor.snapshot import (
    Snapshot,
    SnapshotError,
    archives_in,
    is_snapshot,
    open_snapshot,
)
from meshdoctor.snapshot.archive import ENDINGS, MAX_MEMBERS, MAX_TOTAL
from meshdoctor.snapshot.merging import Part, merge
from meshdoctor.snapshot.redaction import redact_text

Place = str | Path
"""Where a snapshot is: a path, or a URL that fsspec knows, as s3://bucket/mesh/."""

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.+")
_CHUNK: Final = 2**20
_EXTRA: Final = "pip install 'meshdoctor[fsspec]'"


def is_url(place: Place) -> bool:
    """Whether it is fetched, and not a path."""
    return isinstance(place, str) and _URL.fullmatch(place) is not None


def open_places(places: Sequence[Place]) -> Snapshot:
    """The snapshots at `places` as one; one that is a folder, or a prefix, of .tgz is all of them.

    Raises SnapshotError.
    """
    return open_together([each for place in places for each in archives_at(place) or (place,)])


def open_together(places: Sequence[Place]) -> Snapshot:
    """The snapshots at `places` as one, each of them an archive or a folder of its own.

    Raises SnapshotError.
    """
    named: dict[str, Place] = {}
    for place in places:
        name = str(place).rstrip("/").rpartition("/")[2]
        named[str(place) if name in named else name] = place
    return merge([Part(name, open_place(place)) for name, place in named.items()])


def open_place(place: Place) -> Snapshot:
    """The one snapshot there. Raises SnapshotError."""
    if not is_url(place):
        return open_snapshot(Path(place))
    url = str(place)
    try:
        folder = Path(tempfile.mkdtemp(prefix="meshdoctor-"))
    except OSError as error:
        raise SnapshotError(
            f"{redact_text(url)}: there is no folder to fetch it into: name one with TMPDIR"
        ) from error
    gone = partial(shutil.rmtree, folder, ignore_errors=True)
    try:
        path = folder / (url.rstrip("/").rpartition("/")[2] or "snapshot.tgz")
        with _explained(url), path.open("wb") as file:
            _fetch(url, file)
        return open_snapshot(path, gone=gone)
    except SnapshotError as error:
        gone()
        said = str(error).replace(f"{folder}/{path.name}", redact_text(url))
        raise SnapshotError(said) from error
    except BaseException:
        gone()
        raise


def archives_at(place: Place) -> Sequence[Place]:
    """The .tgz of a folder or prefix that is no snapshot itself, sorted; () of anything else.

    Raises SnapshotError.
    """
    if not is_url(place):
        return archives_in(Path(place))
    url = str(place)
    found = [each for each, is_folder in _below(url) if not is_folder]
    archives = sorted(each for each in found if each.endswith(ENDINGS))
    if found and not archives:
        raise SnapshotError(f"{redact_text(url)}: no .tgz file is there")
    return archives


def entries_at(place: Place) -> Sequence[Place]:
    """What is a mesh by itself in a folder or prefix that is no snapshot: its .tgz and folders.

    () of anything else. Raises SnapshotError.
    """
    if is_url(place):
        found = _below(str(place))
        return sorted(each for each, is_folder in found if is_folder or each.endswith(ENDINGS))
    path = Path(place)
    if not is_folder(path) or is_snapshot(path):
        return ()
    return [
        each
        for each in sorted(path.iterdir())
        if each.name.endswith(ENDINGS) or (is_folder(each) and _may_be_a_mesh(each))
    ]


def _may_be_a_mesh(folder: Path) -> bool:
    try:
        return is_snapshot(folder) or bool(archives_in(folder))
    except SnapshotError:
        # Whoever judges it says why it cannot be read, and of it alone.
        return True


def _below(url: str) -> Sequence[tuple[str, bool]]:
    """What a prefix leads to, one level deep, and whether that is a folder; () of one file."""
    with _explained(url):
        files, path = _file_system(url)
        if files.isfile(path):
            return ()
        if files.isdir(path):
            found = files.ls(path, detail=True)
        else:
            above, _, begun = path.rstrip("/").rpartition("/")
            found = [
                each
                for each in files.ls(above, detail=True)
                if each["name"].rstrip("/").rpartition("/")[2].startswith(begun)
            ]
    if not found:
        raise SnapshotError(f"{redact_text(url)}: nothing is there")
    if len(found) > MAX_MEMBERS:
        raise SnapshotError(f"{redact_text(url)}: more than {MAX_MEMBERS} are there")
    return [(files.unstrip_protocol(each["name"]), each["type"] == "directory") for each in found]


def _fetch(url: str, file: IO[bytes]) -> None:
    files, path = _file_system(url)
    fetched = 0
    with files.open(path, "rb") as remote:
        while chunk := remote.read(_CHUNK):
            fetched += len(chunk)
            if fetched > MAX_TOTAL:
                raise SnapshotError(f"{redact_text(url)}: larger than {MAX_TOTAL} bytes")
            file.write(chunk)


def _file_system(url: str) -> tuple[Any, str]:
    # Imported here: it comes with an extra.
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415
    except ImportError as error:
        raise SnapshotError(
            f"{redact_text(url)}: a URL is read through fsspec, which is not installed: {_EXTRA}"
        ) from error
    found: tuple[Any, str] = url_to_fs(url)
    return found


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Every store has errors of its own, and each says what is wrong in its own words."""
    try:
        yield
    except SnapshotError:
        raise
    except FileNotFoundError as error:
        raise SnapshotError(f"{redact_text(url)}: nothing is there") from error
    except ImportError as error:
        # fsspec knows the store, and the package for it is another one.
        raise SnapshotError(redact_text(f"{url}: {error}")) from error
    except Exception as error:
        said = str(error) or type(error).__name__
        raise SnapshotError(redact_text(f"{url}: it cannot be read: {said}")) from error
