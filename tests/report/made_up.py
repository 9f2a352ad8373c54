"""Meshes that nobody recorded: made up in any size, with the fault of the story or without."""

import msgspec

from meshdoctor.check import Examination
from meshdoctor.diagnosis import examine, load_checks
from meshdoctor.report.document import Report
from meshdoctor.report.picture import Picture
from meshdoctor.routing.calls import Calls
from meshdoctor.snapshot.documents import Snapshot
from meshdoctor.topology import Mesh
from tests.routing.meshes import App, catalogue, sidecar

PORT = 9080


def made_up(services: int, sidecars: int, *, broken: bool = True) -> tuple[Report, Picture]:
    """A mesh of so many services on one port, and what a run says of it.

    Only the first so many have a sidecar; where it is broken, shop-007 answers for all.
    """
    protocol = None if broken else "http"
    apps = [
        App(f"shop-{n:03}", f"10.0.{n // 250}.{n % 250 + 1}", PORT, protocol)
        for n in range(services)
    ]
    owners = {PORT: "shop-007"} if broken else {}
    documents = {name: msgspec.json.encode(each) for name, each in catalogue(apps).items()}
    for app in apps[:sidecars]:
        said = sidecar(app, apps, owners)
        documents |= {name: msgspec.json.encode(each) for name, each in said.items()}
    snapshot = Snapshot(documents)
    examination = Examination(snapshot)
    target = {"kind": "snapshot", "paths": ["made-up.tgz"]}
    report = examine(snapshot, load_checks(), target, examination=examination)
    return report, Picture.of(examination.get(Mesh), examination.get(Calls).pairs)
