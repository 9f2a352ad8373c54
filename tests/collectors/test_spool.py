"""What waits to be read: in memory while there is little, then in a file."""

import tempfile
from functools import partial
from pathlib import Path

import pytest

from meshdoctor.collectors import spool
from meshdoctor.collectors.spool import Spool


@pytest.fixture(autouse=True)
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_LARGE", 10)
    monkeypatch.setattr(spool, "_IN_MEMORY", 40)


def test_what_fits_stays_in_memory_and_the_rest_is_read_back() -> None:
    """Each document as it was kept, whatever came between."""
    kept = Spool()
    bodies = [bytes([number]) * 20 for number in range(5)]
    documents = [kept.keep(body) for body in bodies]
    assert documents[:2] == bodies[:2]
    assert [each() for each in documents[2:] if callable(each)] == bodies[2:]


def test_what_is_small_takes_no_room() -> None:
    """A thousand small answers do not drive the large ones out."""
    kept = Spool()
    assert all(kept.keep(b"small") == b"small" for _ in range(1000))
    assert kept.keep(b"x" * 40) == b"x" * 40


def test_where_nothing_may_be_written_it_stays_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a container whose file system is read-only: a mesh is examined there too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    kept = Spool()
    kept.keep(b"x" * 40)
    assert kept.keep(b"y" * 20) == b"y" * 20


def test_where_the_disk_is_full_it_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better more memory than no document."""
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "r+b"))
    kept = Spool()
    kept.keep(b"x" * 40)
    assert kept.keep(b"y" * 20) == b"y" * 20
