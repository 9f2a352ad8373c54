"""Recorded meshes with something changed in them, in memory."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from meshdoctor.diagnosis import Checks, examine
from meshdoctor.evidence import layout
from meshdoctor.report.document import Report
from meshdoctor.snapshot import Snapshot, open_snapshot
from meshdoctor_checks import CHECKS

MESHES: Final = Path(__file__).parents[2] / "fixtures" / "meshes"
CONTAINERS: Final = "docker/containers.json"


class Recording:
    """One recorded mesh; every change is made to this copy alone."""

    def __init__(self, mesh: str, folder: Path | None = None) -> None:
        snapshot = open_snapshot(folder or MESHES / f"{mesh}.tgz")
        self.documents = {name: snapshot.read(name) for name in snapshot.names()}

    def edit(self, document: str, change: Callable[[Any], Any]) -> None:
        """Change a JSON document in place; `change` may return another."""
        content = json.loads(self.documents[document])
        changed = change(content)
        self.documents[document] = json.dumps(content if changed is None else changed).encode()

    def remove(self, prefix: str) -> None:
        """Take away every document whose name begins so."""
        for name in [name for name in self.documents if name.startswith(prefix)]:
            del self.documents[name]

    def replace(self, words: Mapping[str, str]) -> None:
        """Put other words in, in all documents and in their names."""
        changed = {}
        for name, body in self.documents.items():
            text = body.decode()
            for old, new in words.items():
                text, name = text.replace(old, new), name.replace(old, new)  # noqa: PLW2901 # is replaced too
            changed[name] = text.encode()
        self.documents = changed

    def container(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change what `docker inspect` says of one container."""

        def apply(containers: Sequence[dict[str, Any]]) -> None:
            (one,) = [each for each in containers if each["Name"] == f"/{name}"]
            change(one)

        self.edit(CONTAINERS, apply)

    def stop(self, name: str, exit_code: int) -> None:
        """Stop a container, and with it what it could be asked."""
        state = {"Status": "exited", "Running": False, "Pid": 0, "ExitCode": exit_code}
        self.container(name, lambda one: one["State"].update(state))
        self.remove(f"envoy/{name}/")
        self.remove(layout.netfilter(name))

    def snapshot(self) -> Snapshot:
        return Snapshot(dict(self.documents))

    def report(self) -> Report:
        return judged(self.snapshot())


def judged(snapshot: Snapshot) -> Report:
    """The report of all built-in checks."""
    return examine(snapshot, Checks(tuple(CHECKS)), {"kind": "snapshot"})
