"""Raw evidence as recorded: a folder or a .tgz in, a folder or a .tgz out."""

from meshdoctor.snapshot.archive import (
    archives_in,
    is_snapshot,
    open_snapshot,
    open_snapshots,
    write_snapshot,
)
from meshdoctor.snapshot.documents import Document, Snapshot, SnapshotError
from meshdoctor.snapshot.merging import Part, merge

__all__ = [
    "Document",
    "Part",
    "Snapshot",
    "SnapshotError",
    "archives_in",
    "is_snapshot",
    "merge",
    "open_snapshot",
    "open_snapshots",
    "write_snapshot",
]
