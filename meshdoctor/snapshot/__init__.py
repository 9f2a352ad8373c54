"""Raw evidence as recorded: a folder or a .tgz in, a folder or a .tgz out."""

from meshdoctor.snapshot.archive import open_snapshot, write_snapshot
from meshdoctor.snapshot.documents import Snapshot, SnapshotError

__all__ = ["Snapshot", "SnapshotError", "open_snapshot", "write_snapshot"]
