"""Snapshots taken on each host are judged together, as one run over all hosts would be."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from meshdoctor.check import Examination
from meshdoctor.evidence.interface import Problem
from meshdoctor.routing.calls import Calls
from meshdoctor.snapshot import (
    Snapshot,
    SnapshotError,
    open_snapshot,
    open_snapshots,
    write_snapshot,
)
from meshdoctor.snapshot.merging import Part, merge
from tests.timeless import report

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"
RECORDINGS = sorted(MESHES.glob("*.tgz"))
CONTAINERS = "docker/containers.json"
NETWORKS = "docker/networks.json"


def documents(snapshot: Snapshot) -> dict[str, bytes]:
    return {name: snapshot.read(name) for name in snapshot.names()}


def in_order(snapshot: Snapshot) -> Snapshot:
    """The recording with its containers and networks in the order in which a run lists them."""
    found = documents(snapshot)
    for name in (CONTAINERS, NETWORKS):
        if name in found:
            listed = sorted(json.loads(found[name]), key=lambda each: (each["Name"], each["Id"]))
            found[name] = json.dumps(listed).encode()
    return replace(snapshot, documents=found)


def split(snapshot: Snapshot, hosts: int) -> Sequence[Snapshot]:
    """One snapshot for each host: it sees its own containers and sidecars, and Consul."""
    parts: list[dict[str, bytes]] = [{} for _ in range(hosts)]
    sidecars = sorted({name.split("/")[1] for name in snapshot.names("envoy/")})
    for name, raw in documents(snapshot).items():
        if name == CONTAINERS:
            for host, part in enumerate(parts):
                part[name] = json.dumps(json.loads(raw)[host::hosts]).encode()
        elif name.startswith(("envoy/", "netfilter/")):
            sidecar = name.split("/")[1].removesuffix(".nat.txt")
            place = sidecars.index(sidecar) if sidecar in sidecars else 0
            parts[place % hosts][name] = raw
        elif name.startswith("pilot/"):
            parts[0][name] = raw
        else:
            for part in parts:
                part[name] = raw
    return [replace(snapshot, documents=part) for part in parts]


@pytest.mark.parametrize("hosts", [2, 3])
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_parts_give_the_report_of_the_whole(path: Path, hosts: int) -> None:
    """To the last pointer."""
    whole = in_order(open_snapshot(path))
    parts = [Part(f"{n}.tgz", each) for n, each in enumerate(split(whole, hosts))]
    merged = merge(parts)
    assert merged.notes == ()
    assert report(merged) == report(whole)
    assert Examination(merged).get(Calls).pairs == Examination(whole).get(Calls).pairs
    assert documents(merge(parts[::-1])) == documents(merged)


def test_a_folder_of_archives_is_a_snapshot_a_file(tmp_path: Path) -> None:
    """As a job on every host leaves them, under whatever names."""
    whole = in_order(open_snapshot(MESHES / "broken.tgz"))
    for number, part in enumerate(split(whole, 3)):
        write_snapshot(part, tmp_path / f"host-{number}.tgz", tool="meshdoctor", version="0")
    (tmp_path / "README").write_text("not a snapshot")
    assert report(open_snapshots([tmp_path])) == report(whole)
    apart = open_snapshots(sorted(tmp_path.glob("*.tgz")))
    assert report(apart) == report(whole)


def test_a_folder_with_neither_says_so(tmp_path: Path) -> None:
    """It may be the wrong one."""
    with pytest.raises(SnapshotError, match="no file that meshdoctor knows"):
        open_snapshots([tmp_path])


def part(name: str, created: str, found: Mapping[str, Any], **more: Any) -> Part:
    raw = {key: json.dumps(value).encode() for key, value in found.items()}
    return Part(name, Snapshot(raw, created=created, **more))


EARLY, LATE, LATER = "2026-11-22T20:00:00Z", "2026-11-22T20:00:30Z", "2026-11-22T20:30:00+00:00"
LEADER = "consul/status/leader.json"


def test_of_what_several_say_the_newest_counts_and_a_note_says_so() -> None:
    """In whichever order they are named."""
    parts = [part("b", LATE, {LEADER: "new"}), part("a", EARLY, {LEADER: "old"})]
    for ordered in (parts, parts[::-1]):
        merged = merge(ordered)
        assert merged.read(LEADER) == b'"new"'
        assert merged.notes == (Problem(LEADER, "b and a disagree: b, the newest, counts"),)
        assert merged.created == EARLY


def test_many_disagreements_are_one_note() -> None:
    """A mesh that changed between them has one in each document."""
    services = {f"consul/catalog/service/{n}.json": ["old"] for n in range(20)}
    new = {key: ["new"] for key in services}
    merged = merge([part("a", EARLY, services), part("b", LATE, new)])
    (note,) = merged.notes
    assert note.document == "consul/"
    assert "of 20 documents" in note.message


def test_counts_of_changes_are_no_disagreement() -> None:
    """Consul counts what it writes; nothing that matters differs."""
    name = "consul/catalog/nodes.json"
    merged = merge([part("a", EARLY, {name: [{"ModifyIndex": 1}]}), part("b", LATE, {name: [{}]})])
    assert merged.notes == ()


def test_far_apart_is_said() -> None:
    """What changed meanwhile may look like a fault."""
    merged = merge([part("a", EARLY, {LEADER: "x"}), part("b", LATER, {LEADER: "x"})])
    (note,) = merged.notes
    assert note == Problem(
        "a",
        "taken 30 minutes before b: what changed in the mesh between them may look like a fault",
    )


def test_agents_of_several_hosts_know_each_their_own() -> None:
    """What they say of themselves is no disagreement."""
    name = "consul/agent/services.json"
    own = {"consul/agent/self.json": {"Config": {"NodeName": "b"}}}
    merged = merge(
        [part("a", EARLY, {name: {"web": {}}}), part("b", LATE, {name: {"db": {}}} | own)]
    )
    assert json.loads(merged.read(name)) == {"db": {}, "web": {}}
    assert merged.notes == ()


def test_what_one_host_could_not_see_is_missing_only_if_none_did() -> None:
    """Consul is everybody's; an engine is its host's own."""
    gaps = (
        Problem("consul/catalog/services.json", "nothing listens there"),
        Problem("pilot/registryz.json", "no Pilot here"),
        Problem("docker/", "no such socket"),
        Problem("envoy/web/config_dump.json", "hung"),
    )
    found: dict[str, Any] = {
        "consul/catalog/services.json": {},
        CONTAINERS: [],
        "envoy/web/config_dump.json": {},
    }
    merged = merge([part("a", EARLY, {}, absent=gaps), part("b", LATE, found)])
    assert merged.absent == (gaps[2], gaps[1])


def test_containers_of_one_name_are_told_apart() -> None:
    """One Compose file on two hosts."""
    beside = "container:web"

    def host(name: str, id: str, created: str) -> Part:
        return part(
            f"{name}.tgz",
            created,
            {
                CONTAINERS: [
                    {"Id": id, "Name": "/web-sidecar", "HostConfig": {"NetworkMode": beside}},
                    {"Id": f"app-{id}", "Name": "/web"},
                    {"Id": f"own-{id}", "Name": f"/{id}"},
                ],
                "docker/info.json": {"Name": name},
                "envoy/web-sidecar/stats.json": {"of": id},
                "docker/logs/web-sidecar.log": id,
            },
        )

    merged = merge([host("east", "1", EARLY), host("west", "2", LATE)])
    listed = {each["Name"]: each for each in json.loads(merged.read(CONTAINERS))}
    apart = [f"/{name}@{host}" for name in ("web-sidecar", "web") for host in ("east", "west")]
    assert list(listed) == ["/1", "/2", *apart]
    for id_, at in (("1", "east"), ("2", "west")):
        assert listed[f"/web-sidecar@{at}"]["Id"] == id_
        assert listed[f"/web-sidecar@{at}"]["HostConfig"] == {"NetworkMode": f"container:web@{at}"}
        assert json.loads(merged.read(f"envoy/web-sidecar@{at}/stats.json")) == {"of": id_}
        assert json.loads(merged.read(f"docker/logs/web-sidecar@{at}.log")) == id_
    assert [each.document for each in merged.notes] == ["west.tgz", "east.tgz"]
    assert "<name>@east" in merged.notes[1].message


def test_engines_of_one_name_are_told_apart_by_what_somebody_calls_them() -> None:
    """As two on one machine."""
    parts = [
        replace(
            part(
                f"tcp://{host}",
                EARLY,
                {
                    CONTAINERS: [{"Id": host, "Name": "/web"}],
                    "docker/info.json": {"Name": "machine"},
                },
            ),
            host=host,
        )
        for host in ("east:2375", "west:2375")
    ]
    names = [each["Name"] for each in json.loads(merge(parts).read(CONTAINERS))]
    assert names == ["/web@east:2375", "/web@west:2375"]


def test_the_same_snapshot_twice_is_itself() -> None:
    """Named by a glob and by hand."""
    whole = in_order(open_snapshot(MESHES / "connect-collision.tgz"))
    assert report(merge([Part("a", whole), Part("b", whole)])) == report(whole)


def test_damage_on_one_host_costs_the_others_nothing() -> None:
    """Its document counts as nothing where all are united."""
    good = part("a", EARLY, {CONTAINERS: [{"Id": "1", "Name": "/web"}]})
    bad = Part("b", Snapshot({CONTAINERS: b"{broken"}, created=LATE))
    assert json.loads(merge([good, bad]).read(CONTAINERS)) == [{"Id": "1", "Name": "/web"}]


def test_one_snapshot_alone_is_itself() -> None:
    """Nothing of it is written anew."""
    only = part("a", EARLY, {LEADER: "x"})
    assert merge([only]) is only.snapshot


def test_what_was_left_out_of_documents_stays_counted() -> None:
    """Of united ones in all of them, of others in the one that counts."""
    found = {CONTAINERS: [], LEADER: "x"}
    merged = merge(
        [
            part("a", EARLY, found, redactions={CONTAINERS: 2, LEADER: 5}),
            part("b", LATE, found, redactions={CONTAINERS: 3}),
        ]
    )
    assert merged.redactions == {CONTAINERS: 5}


def test_a_host_that_does_not_see_a_source_lacks_nothing_of_it() -> None:
    """Where another host sees that source: its own gaps in it are gaps all the same."""
    unseen = Problem("pilot/", "nothing listens on port 15014")
    own = Problem("pilot/configz.json", "timed out")
    merged = merge(
        [
            part("a", EARLY, {LEADER: "x"}, absent=(unseen,)),
            part("b", LATE, {LEADER: "x", "pilot/registryz.json": []}, absent=(own,)),
        ]
    )
    assert merged.absent == (own,)


@pytest.mark.parametrize("damage", [[], "text", None])
def test_an_answer_of_another_form_costs_the_others_nothing(damage: Any) -> None:
    """What is joined by key is what has keys."""
    name = "consul/agent/services.json"
    merged = merge([part("a", EARLY, {name: {"web": {}}}), part("b", LATE, {name: damage})])
    assert json.loads(merged.read(name)) == {"web": {}}


def test_engines_that_nothing_tells_apart_are_told_apart_by_their_snapshots() -> None:
    """Machines of one image may have one name; what is no container stays as it is."""
    listed: list[Any] = ["damaged"]
    parts = [
        part(
            f"{name}.tgz",
            EARLY,
            {
                CONTAINERS: [
                    *listed,
                    {"Id": name, "Name": "/web", "HostConfig": {"NetworkMode": "host"}},
                    {"Id": f"{name}-own", "Name": f"/{name}"},
                ],
                "docker/info.json": {"Name": "machine"},
            },
        )
        for name in ("one", "two")
    ]
    found = json.loads(merge(parts).read(CONTAINERS))
    named = {each["Name"]: each for each in found if isinstance(each, dict)}
    assert set(named) == {"/web@one.tgz", "/web@machine", "/one", "/two"}
    assert named["/web@one.tgz"]["HostConfig"] == {"NetworkMode": "host"}
    assert "damaged" in found
