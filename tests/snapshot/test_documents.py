"""A snapshot in memory: documents by name, the manifest, and what is missing."""

import json

import pytest

from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.snapshot import Snapshot, SnapshotError
from meshdoctor.snapshot.documents import from_documents


def test_names_below_a_prefix_are_sorted() -> None:
    """The manifest is none of them."""
    snapshot = Snapshot({"b/2": b"", "manifest.json": b"", "b/1": b"", "a/1": b"", "c": b""})
    assert list(snapshot.names()) == ["a/1", "b/1", "b/2", "c"]
    assert list(snapshot.names("b/")) == ["b/1", "b/2"]
    assert list(snapshot.names("d")) == []


def test_a_document_may_be_read_when_it_is_asked_for() -> None:
    """Large ones wait elsewhere."""
    assert Snapshot({"a": lambda: b"later"}).read("a") == b"later"


def test_a_missing_document_says_why() -> None:
    """Where that was recorded."""
    snapshot = Snapshot({}, absent=(Problem("a", "it was refused"),))
    with pytest.raises(MissingEvidenceError, match="a was not recorded: it was refused"):
        snapshot.read("a")
    with pytest.raises(MissingEvidenceError, match=r"^b was not recorded$"):
        snapshot.read("b")


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000])
def test_a_damaged_manifest_costs_only_itself(manifest: bytes) -> None:
    """The documents are still there."""
    snapshot = from_documents({"manifest.json": manifest, "docker/version.json": b"{}"}, ())
    assert list(snapshot.names()) == ["docker/version.json"]
    assert snapshot.notes[0].document == "manifest.json"


def test_another_schema_is_refused() -> None:
    """With both names."""
    with pytest.raises(SnapshotError, match=r"'meshdoctor\.snapshot/v2'.*/v1"):
        from_documents({"manifest.json": b'{"schema": "meshdoctor.snapshot/v2"}'}, ())


def test_a_snapshot_needs_no_manifest_where_its_folders_tell() -> None:
    """As when somebody put it together by hand."""
    assert list(from_documents({"envoy/web/certs.json": b"{}"}, ()).names())


@pytest.mark.parametrize("documents", [{}, {"README": b""}])
def test_what_is_no_snapshot_is_said(documents: dict[str, bytes]) -> None:
    """With what to do instead."""
    with pytest.raises(SnapshotError):
        from_documents(documents, ())


def test_fields_that_a_later_version_adds_are_skipped() -> None:
    """Within v1 fields may be added."""
    manifest = {"schema": "meshdoctor.snapshot/v1", "created": "2026", "host": {"name": "a"}}
    snapshot = from_documents({"manifest.json": json.dumps(manifest).encode()}, ())
    assert snapshot.created == "2026"


def test_the_manifest_says_who_what_and_when() -> None:
    """And holds nothing that is empty."""
    snapshot = Snapshot({}, created="2026", absent=(Problem("a", "why"),), redactions={"b": 2})
    assert json.loads(snapshot.manifest("meshdoctor", "0.1")) == {
        "schema": "meshdoctor.snapshot/v1",
        "created": "2026",
        "tool": {"name": "meshdoctor", "version": "0.1"},
        "missing": [{"document": "a", "reason": "why"}],
        "redactions": [{"document": "b", "count": 2}],
    }
