"""`python -m tests.live.lab.states`: what the lab's tests left becomes fixtures.

Each state that was as the table says: its snapshot and what requests met. Of a snapshot nothing is
changed but the folder of the lab's Compose files, which is named `/srv/mesh`.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from msgspec.structs import replace

from meshdoctor import __version__
from meshdoctor.snapshot import Snapshot, open_snapshot, write_snapshot
from tests.live.lab.lab import Lab

STATES: Final = Path(__file__).parents[3] / "fixtures" / "meshes" / "lab"
_NAMED: Final = "/srv/mesh"


def left(lab: Lab) -> Iterator[Path]:
    """The folders of states in which nothing was other than the table says."""
    for folder in sorted(lab.folder.with_name(f"{lab.folder.name}-states").iterdir()):
        problems = folder / "problems.txt"
        if problems.exists() and not problems.read_text():
            yield folder


def elsewhere(snapshot: Snapshot, folder: Path) -> Snapshot:
    """As if the lab's files had been in `/srv/mesh`."""
    here, there = str(folder), _NAMED
    return replace(
        snapshot,
        documents={
            name.replace(quote(here, ""), quote(there, "")): snapshot.read(name).replace(
                here.encode(), there.encode()
            )
            for name in snapshot.names()
        },
    )


def main() -> int:
    """Replace the fixtures of all states that are there."""
    lab = Lab()
    for folder in left(lab):
        archive = STATES / f"{folder.name}.tgz"
        archive.unlink(missing_ok=True)
        snapshot = elsewhere(open_snapshot(folder / archive.name), lab.folder)
        write_snapshot(snapshot, archive, tool="meshdoctor", version=__version__)
        shutil.copy(folder / "calls.json", archive.with_suffix(".calls.json"))
        print(archive)  # noqa: T201 # its answer
    return 0


if __name__ == "__main__":
    sys.exit(main())
