"""Raw evidence as recorded: a folder or a .tgz in, a folder or a .tgz out."""

from meshdoctor.snapshot.archive import (
    archives_in,
    is_snapshot,
    open_snapshot,
    open_snapshots,
    write_snapshot,
)
from meshdoctor.snapshot.documents import Document, Snapshot, SnapshotError

__all__ = [
    "Document",
    "Snapshot",
    "SnapshotError",
    "archives_in",
    "is_snapshot",
    "open_snapshot",
    "open_snapshots",
    "write_snapshot",
]
