"""A snapshot in memory: raw documents by name, and a word for each that is missing."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from meshdoctor.evidence import layout
from meshdoctor.evidence.interface import NOT_JSON, MissingEvidenceError, Problem, refuse_bomb


class SnapshotError(Exception):
    """A path holds no snapshot that can be read. The message says what to try."""


class _Tool(msgspec.Struct, frozen=True):
    name: str = ""
    version: str = ""


class _Missing(msgspec.Struct, frozen=True):
    document: str
    reason: str = ""


class _Redaction(msgspec.Struct, frozen=True):
    document: str
    count: int = 0


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`manifest.json`; only `schema` is required."""

    schema: str
    created: str = ""
    tool: _Tool = _Tool()
    missing: tuple[_Missing, ...] = ()
    redactions: tuple[_Redaction, ...] = ()


Document = bytes | Callable[[], bytes]
"""A document's bytes, or how to read them when somebody asks."""


class Snapshot(msgspec.Struct, frozen=True):
    """The evidence of one mesh at one time.

    `absent` holds what was wanted and could not be had; `notes` what was passed over while
    reading the snapshot itself (a link in an archive, a file that is too large).
    """

    documents: Mapping[str, Document]
    absent: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()
    created: str = ""
    redactions: Mapping[str, int] = msgspec.field(default_factory=dict)
    _sorted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = (name for name in self.documents if name != layout.MANIFEST)
        msgspec.structs.force_setattr(self, "_sorted", tuple(sorted(names)))

    def names(self, prefix: str = "") -> Sequence[str]:
        """The documents below `prefix`, sorted; the manifest is not one of them."""
        start = bisect_left(self._sorted, prefix)
        end = start
        while end < len(self._sorted) and self._sorted[end].startswith(prefix):
            end += 1
        return self._sorted[start:end]

    def read(self, name: str) -> bytes:
        """The document's bytes.

        Raises MissingEvidenceError, with the recorded reason if any, or DecodeError where it
        would not fit into memory once decoded.
        """
        document = self.documents.get(name)
        if document is None:
            reasons = [problem.message for problem in self.missing() if problem.document == name]
            reason = f": {reasons[0]}" if reasons else ""
            raise MissingEvidenceError(f"{name} was not recorded{reason}")
        try:
            raw = document() if callable(document) else document
        except SnapshotError as error:
            raise MissingEvidenceError(str(error)) from error
        if name.endswith(".json"):
            refuse_bomb(name, raw)
        return raw

    def missing(self, prefix: str = "") -> Sequence[Problem]:
        """What could not be had or not be read below `prefix`."""
        problems = (*self.absent, *self.notes)
        return tuple(problem for problem in problems if problem.document.startswith(prefix))

    def manifest(self, tool: str, version: str) -> bytes:
        """`manifest.json` for this snapshot, written by `tool`."""
        created = self.created or datetime.now(UTC).isoformat(timespec="seconds")
        manifest = Manifest(
            schema=layout.SCHEMA,
            created=created,
            tool=_Tool(tool, version),
            missing=tuple(_Missing(each.document, each.message) for each in self.missing()),
            redactions=tuple(
                _Redaction(name, count) for name, count in sorted(self.redactions.items())
            ),
        )
        return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def from_documents(documents: Mapping[str, Document], notes: Iterable[Problem]) -> Snapshot:
    """A snapshot of documents read from somewhere, its manifest among them if it has one.

    Raises SnapshotError where the manifest is of another schema, or nothing is there at all.
    """
    notes = list(notes)
    if not documents:
        said = "; ".join(f"{each.document}: {each.message}" for each in notes[:3])
        raise SnapshotError(f"it holds no file that meshdoctor knows{said and f' ({said})'}")
    manifest = Manifest(schema=layout.SCHEMA)
    recorded = documents.get(layout.MANIFEST)
    if recorded is None:
        if layout.SOURCES.isdisjoint(name.partition("/")[0] for name in documents):
            raise SnapshotError(
                "it has no manifest.json and none of the folders docker/, consul/ or envoy/: "
                "record one with `meshdoctor snapshot -o FILE.tgz`"
            )
    else:
        raw = recorded() if callable(recorded) else recorded
        try:
            manifest = msgspec.json.decode(raw, type=Manifest)
        except NOT_JSON as error:
            notes.append(Problem(layout.MANIFEST, f"not read: {error}"))
    if manifest.schema != layout.SCHEMA:
        raise SnapshotError(
            f"its manifest.json says schema {manifest.schema!r}; this version reads "
            f"{layout.SCHEMA!r}"
        )
    return Snapshot(
        documents=documents,
        absent=tuple(Problem(each.document, each.reason) for each in manifest.missing),
        notes=tuple(notes),
        created=manifest.created,
        redactions={each.document: each.count for each in manifest.redactions},
    )
