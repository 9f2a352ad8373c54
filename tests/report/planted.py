"""A mesh whose names were chosen by somebody who wishes harm, made up from end to end."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import msgspec

from meshdoctor.check import Examination
from meshdoctor.diagnosis import Checks, examine, load_checks
from meshdoctor.evidence import layout
from meshdoctor.report.document import Report
from meshdoctor.report.picture import Picture
from meshdoctor.routing.calls import Calls
from meshdoctor.snapshot.documents import Snapshot
from meshdoctor.topology import Mesh
from tests.routing.meshes import App, catalogue, sidecar

NAMES: Final = (
    "<script>document.title='pwned'</script>",
    '"><img src=x onerror="document.title=\'pwned\'">',
    "`whoami` ```\n# pwned",
    "@octocat #1 GH-1 :tada: www.example.org http:example.org $x$ a@example.org",
    "[pwned](https:example.org) ![p](x.png) | x | </details><h1>",
    "]]></failure><error>pwned {0} {{7*7}} %s",
    "\x1b]0;pwned\x07\u202egpj.\ufffe\x00\r\n- pwned",
    "x" * 5_000,
)


@cache
def _checks() -> Checks:
    return load_checks()


def planted(names: Sequence[str] = NAMES) -> tuple[Report, Picture]:
    """What a run says of a mesh with those names, one of which answers for all others."""
    apps = [
        App(name, f"10.0.0.{n}", 9080, None if n % 2 else "http")
        for n, name in enumerate(names, 1)
    ]
    owners = {9080: names[0]}
    told: dict[str, Any] = {"consul/catalog/services.json": {name: [] for name in names}}
    for app in apps:
        entries = catalogue([app])[f"consul/catalog/service/{app.service}.json"]
        told[layout.catalog_service(app.service)] = entries
        for name, said in sidecar(app, apps, owners).items():
            told[layout.envoy(app.id, name.rpartition("/")[2])] = said
    snapshot = Snapshot({name: msgspec.json.encode(each) for name, each in told.items()})
    examination = Examination(snapshot)
    target = {"kind": "snapshot", "paths": [names[0]]}
    report = examine(snapshot, _checks(), target, examination=examination)
    return report, Picture.of(examination.get(Mesh), examination.get(Calls).pairs)
