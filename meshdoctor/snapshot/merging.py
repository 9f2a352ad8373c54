"""Several snapshots as one: taken on each host of a mesh, they are judged together."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from meshdoctor.evidence import layout
from meshdoctor.evidence.interface import NOT_JSON, Problem
from meshdoctor.evidence.times import moment
from meshdoctor.snapshot.documents import Document, Snapshot

_LISTED: Final = ("docker/containers.json", "docker/networks.json", "docker/images.json")
"""What each host's engine has of its own: arrays of objects with an `Id`."""
_OWN: Final = ("docker/version.json", "docker/info.json", "consul/agent/self.json")
"""What each host says of itself: that they differ is no disagreement."""
_KEYED: Final = ("consul/agent/services.json",)
"""What each host's Consul agent has of its own: objects by id."""
_EACH_HOSTS: Final = ("docker/", "envoy/", "netfilter/")
"""Folders of which every host has its own part: one that is missing stays missing."""
_BY_CONTAINER: Final = ("docker/logs/", "envoy/", "netfilter/", "probe/")
_EVER_CHANGING: Final = ("pilot/metrics.txt",)

_APART: Final = timedelta(minutes=2)
"""So far apart, what changed in the mesh meanwhile may look like a fault."""
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class Part(msgspec.Struct, frozen=True):
    """One of the snapshots, what a person calls it, and its host where that is known by a name.

    Else the name that the engine has for itself tells its containers from another's.
    """

    name: str
    snapshot: Snapshot
    host: str = ""


def merge(parts: Sequence[Part]) -> Snapshot:
    """One snapshot of all, the same in whichever order they come.

    Containers, networks and images are united by their `Id`; containers of several hosts that
    have one name all get `@` and their host behind it. Of any other document that several have,
    the newest snapshot's counts, and where they disagree a note says so.
    """
    if len(parts) == 1:
        return parts[0].snapshot
    # Oldest first, so that what comes later counts.
    ordered: Sequence[Part] = sorted(
        parts, key=lambda part: (moment(part.snapshot.created) or _NEVER, part.name)
    )
    notes = [note for part in ordered for note in part.snapshot.notes]
    notes.extend(_apart(ordered))
    ordered = _with_distinct_names(ordered, notes)
    having: dict[str, list[Part]] = defaultdict(list)
    for part in ordered:
        for name in part.snapshot.names():
            having[name].append(part)
    documents: dict[str, Document] = {}
    redactions: dict[str, int] = {}
    disagreements: list[Problem] = []
    for name, holders in having.items():
        if len(holders) > 1 and name in _LISTED:
            documents[name] = partial(_united, name, holders)
            kept = holders
        elif len(holders) > 1 and name in _KEYED:
            documents[name] = partial(_joined, name, holders)
            kept = holders
        else:
            kept = holders[-1:]
            documents[name] = partial(kept[0].snapshot.read, name)
            disagreements.extend(_disagreement(name, holders))
        count = sum(each.snapshot.redactions.get(name, 0) for each in kept)
        if count:
            redactions[name] = count
    notes.extend(_folded(disagreements))
    created = [part.snapshot.created for part in ordered if moment(part.snapshot.created)]
    return Snapshot(
        documents=documents,
        absent=tuple(_absent(ordered, having)),
        notes=tuple(dict.fromkeys(notes)),
        # The oldest: what some evidence may not have seen yet is not held against the mesh.
        created=created[0] if created else "",
        redactions=redactions,
    )


def _apart(ordered: Sequence[Part]) -> Iterator[Problem]:
    dated = [(at, part) for part in ordered if (at := moment(part.snapshot.created)) is not None]
    if dated and dated[-1][0] - dated[0][0] > _APART:
        minutes = (dated[-1][0] - dated[0][0]).total_seconds() / 60
        yield Problem(
            dated[0][1].name,
            f"taken {minutes:.0f} minutes before {dated[-1][1].name}: what changed in the mesh "
            "between them may look like a fault",
        )


def _absent(ordered: Sequence[Part], having: Mapping[str, object]) -> Iterable[Problem]:
    """What none of them has; for one folder of several hosts, each host's own gap counts."""
    filled = {name.partition("/")[0] for name in having}
    kept: dict[Problem, None] = {}
    for part in ordered:
        own = {name.partition("/")[0] for name in part.snapshot.names()}
        for gap in part.snapshot.absent:
            folder = gap.document.partition("/")[0]
            if gap.document in having and gap.document not in _LISTED:
                continue
            shared = not gap.document.startswith(_EACH_HOSTS)
            # That host did not see the source at all, and another did.
            if shared and folder in filled and folder not in own:
                continue
            kept[gap] = None
    return sorted(kept, key=lambda gap: (gap.document, gap.message))


# ---------------------------------------------------------------- documents of several


def _united(name: str, holders: Sequence[Part]) -> bytes:
    """Arrays of objects by `Id`, as one array in the order of names."""
    found: dict[str, Any] = {}
    for part in holders:
        elements = _decoded(name, part)
        if not isinstance(elements, list):
            continue
        for index, each in enumerate(elements):
            known = each.get("Id") if isinstance(each, dict) else None
            found[str(known) if known else f"{part.name}#{index}"] = each
    return msgspec.json.encode([found[key] for key in sorted(found, key=_by_name(found))])


def _by_name(found: Mapping[str, Any]) -> Callable[[str], tuple[str, str]]:
    def key(id: str) -> tuple[str, str]:
        each = found[id]
        return (str(each.get("Name", "")) if isinstance(each, dict) else "", id)

    return key


def _joined(name: str, holders: Sequence[Part]) -> bytes:
    joined: dict[str, Any] = {}
    for part in holders:
        found = _decoded(name, part)
        if isinstance(found, dict):
            joined |= found
    return msgspec.json.encode(dict(sorted(joined.items())))


def _decoded(name: str, part: Part) -> Any:
    """The document; None, which is of no form that is wanted, where it does not decode.

    Damage of one host's document must not cost the others theirs.
    """
    try:
        return msgspec.json.decode(part.snapshot.read(name))
    except NOT_JSON:
        return None


def _disagreement(name: str, holders: Sequence[Part]) -> Iterator[Problem]:
    newest = holders[-1]
    if len(holders) == 1 or name in _OWN or name in _EVER_CHANGING:
        return
    raw = newest.snapshot.read(name)
    others = [part for part in holders[:-1] if part.snapshot.read(name) != raw]
    if not others:
        return
    settled = _settled(_decoded(name, newest))
    others = [part for part in others if _settled(_decoded(name, part)) != settled]
    if others:
        said = ", ".join(part.name for part in others)
        yield Problem(
            name, f"{newest.name} and {said} disagree: {newest.name}, the newest, counts"
        )


def _folded(disagreements: Iterable[Problem]) -> Iterator[Problem]:
    """One note for a source's documents about which the same snapshots disagree."""
    alike: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for each in disagreements:
        alike[each.document.partition("/")[0], each.message].append(each)
    for (folder, said), notes in alike.items():
        if len(notes) == 1:
            yield notes[0]
        else:
            yield Problem(
                f"{folder}/", f"of {len(notes)} documents, as {notes[0].document}, {said}"
            )


_INDEXES: Final = frozenset({"CreateIndex", "ModifyIndex", "resourceVersion"})


def _settled(value: Any) -> Any:
    """Without what counts changes: it differs though nothing that matters does."""
    if isinstance(value, dict):
        return {key: _settled(each) for key, each in value.items() if key not in _INDEXES}
    if isinstance(value, list):
        return [_settled(each) for each in value]
    return value


# ---------------------------------------------------------------- containers of one name


def _with_distinct_names(ordered: Sequence[Part], notes: list[Problem]) -> Sequence[Part]:
    """On two hosts, one Compose file gives the same names: none of them stays without its host."""
    names = [_names(part) for part in ordered]
    ids: dict[str, set[str]] = defaultdict(set)
    for own in names:
        for name, id_ in own.items():
            ids[name].add(id_)
    several = {name for name, having in ids.items() if len(having) > 1}
    called = [_host(part) for part in ordered]
    if len(set(called)) < len(called):
        called = [part.host or name for part, name in zip(ordered, called, strict=True)]
    owners: dict[str, str] = {}
    changed: list[Part] = []
    for part, own, host in reversed(list(zip(ordered, names, called, strict=True))):
        taken = {name: id_ for name, id_ in own.items() if name in several}
        if any(owners.get(f"{name}@{host}", id_) != id_ for name, id_ in taken.items()):
            # Engines of one name too.
            host = part.name  # noqa: PLW2901
        renamed = {name: f"{name}@{host}" for name in taken}
        owners |= {renamed[name]: id_ for name, id_ in taken.items()}
        if renamed:
            notes.append(
                Problem(
                    part.name,
                    f"containers of another host have the same names: {len(renamed)} of this one "
                    f"are called <name>@{host} here",
                )
            )
            part = replace(part, snapshot=_renamed(part.snapshot, renamed))  # noqa: PLW2901
        changed.append(part)
    return changed[::-1]


def _names(part: Part) -> Mapping[str, str]:
    """The ids of its containers by their names."""
    containers = _decoded(_LISTED[0], part) if _LISTED[0] in part.snapshot.documents else None
    return {
        str(each["Name"]).removeprefix("/"): str(each["Id"])
        for each in (containers if isinstance(containers, list) else ())
        if isinstance(each, dict) and "Name" in each and "Id" in each
    }


def _host(part: Part) -> str:
    info = (
        _decoded("docker/info.json", part) if "docker/info.json" in part.snapshot.names() else {}
    )
    name = info.get("Name") if isinstance(info, dict) else ""
    if isinstance(name, str) and name:
        return name
    return part.host or part.name.partition(".")[0]


def _renamed(snapshot: Snapshot, names: Mapping[str, str]) -> Snapshot:
    def containers() -> bytes:
        listed = msgspec.json.decode(snapshot.read(_LISTED[0]))
        for each in listed:
            if not isinstance(each, dict):
                continue
            name = str(each.get("Name", "")).removeprefix("/")
            if name in names:
                each["Name"] = f"/{names[name]}"
            _rename_target(each.get("HostConfig"), names)
        return msgspec.json.encode(listed)

    def document(name: str) -> str:
        for folder in _BY_CONTAINER:
            if name.startswith(folder):
                segment, rest = _segment(name.removeprefix(folder))
                new = names.get(layout.name_of(segment))
                return name if new is None else f"{folder}{layout.segment(new)}{rest}"
        return name

    documents: dict[str, Document] = {
        document(name): partial(snapshot.read, name) for name in snapshot.names()
    }
    documents[_LISTED[0]] = containers
    return Snapshot(
        documents=documents,
        absent=tuple(Problem(document(each.document), each.message) for each in snapshot.absent),
        notes=snapshot.notes,
        created=snapshot.created,
        redactions={document(name): count for name, count in snapshot.redactions.items()},
    )


def _rename_target(settings: object, names: Mapping[str, str]) -> None:
    """Whose network namespace a container shares may be written by name."""
    mode = settings.get("NetworkMode") if isinstance(settings, dict) else None
    if isinstance(settings, dict) and isinstance(mode, str):
        kind, colon, name = mode.partition(":")
        if kind == "container" and name in names:
            settings["NetworkMode"] = f"{kind}{colon}{names[name]}"


_ENDINGS: Final = (".nat.txt", ".log", ".json")


def _segment(below: str) -> tuple[str, str]:
    """`web.log` as ("web", ".log"), `web/stats.json` as ("web", "/stats.json")."""
    name, slash, page = below.partition("/")
    if slash:
        return name, f"/{page}"
    ending = next((each for each in _ENDINGS if below.endswith(each)), "")
    return below[: len(below) - len(ending)], ending
