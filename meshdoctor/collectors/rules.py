"""Rules from YAML files, laid over those that are in force, as if they were applied."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from msgspec.structs import replace

from meshdoctor.evidence.interface import MissingEvidenceError
from meshdoctor.evidence.istio import CONFIGZ, DOCUMENTS, PILOTS_KINDS, IstioRules
from meshdoctor.files import is_folder, read_some
from meshdoctor.snapshot import Snapshot
from meshdoctor.snapshot.redaction import redact
from meshdoctor.yaml_loader import LOADER

_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
_LARGEST: Final = 4 * 2**20
_MOST_VALUES: Final = 100_000
"""An anchor that is used again and again makes much of little."""
_API: Final = "networking.istio.io/v1alpha3"
_DEFAULT_NAMESPACE: Final = "default"


class RulesError(Exception):
    """Rules that were named cannot be read: the file, the line, and what is wrong there."""


class _Rule(msgspec.Struct, frozen=True):
    """One rule as a file has it."""

    kind: str
    place: str
    item: Mapping[str, Any]


def lay_over(snapshot: Snapshot, paths: Sequence[Path]) -> Snapshot:
    """The snapshot with the VirtualServices and DestinationRules of these files and folders.

    One of the same name and namespace takes the place of the one in force, as with
    `kubectl apply`; of several files the last one counts. Raises RulesError.
    """
    rules = [rule for path in paths for file in _files(path) for rule in _rules(file)]
    if not rules:
        named = ", ".join(map(str, paths))
        raise RulesError(f"{named}: no VirtualService and no DestinationRule in it")
    documents = dict(snapshot.documents)
    for kind, document in DOCUMENTS.items():
        new = [each for each in rules if each.kind == kind]
        if new:
            items = _laid_over(_in_force(snapshot, kind), new)
            listed = {"apiVersion": _API, "kind": f"{kind}List", "items": items}
            documents[document] = redact(document, json.dumps(listed).encode())[0]
    laid = replace(snapshot, documents=documents)
    _check(laid)
    return laid


# ---------------------------------------------------------------- files


def _files(path: Path) -> Sequence[Path]:
    if not is_folder(path):
        return (path,)
    files = sorted(each for each in path.rglob("*") if each.suffix.lower() in _SUFFIXES)
    if not files:
        raise RulesError(f"{path}: no .yaml, .yml or .json file in this folder")
    return files


def _rules(file: Path) -> Iterator[_Rule]:
    for line, value in _documents(file):
        place = f"{file}:{line}"
        for item in _items(value):
            if not isinstance(item, dict):
                raise RulesError(f"{place}: not a Kubernetes object: write kind, metadata, spec")
            kind = item.get("kind")
            if isinstance(kind, str) and kind in DOCUMENTS:
                yield _Rule(kind, place, _item(item, kind, place))


def _documents(file: Path) -> Iterator[tuple[int, Any]]:
    """The documents of a YAML file, each with its first line."""
    try:
        raw = read_some(file, _LARGEST + 1)
        if len(raw) > _LARGEST:
            raise RulesError(f"{file}: larger than {_LARGEST} bytes: name the rules' own files")
        loader = LOADER(raw)
    except OSError as error:
        raise RulesError(f"{file}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise RulesError(f"{file}: not YAML: {_said(error)}") from error
    try:
        while (node := loader.get_node() if loader.check_node() else None) is not None:
            budget = [_MOST_VALUES]
            line = node.start_mark.line + 1
            yield line, _plain(loader.construct_document(node), budget, f"{file}:{line}")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        raise RulesError(f"{where}: not YAML: {_said(error)}") from error
    except (ValueError, RecursionError) as error:
        # A date that is none, or brackets without end.
        raise RulesError(f"{file}: not YAML: {_said(error)}") from error
    finally:
        loader.dispose()


def _said(error: Exception) -> str:
    said = getattr(error, "problem", None) or str(error) or type(error).__name__
    return " ".join(said.split())


def _plain(value: Any, budget: list[int], place: str) -> Any:
    """What YAML makes of it, as JSON has it."""
    budget[0] -= 1
    if budget[0] < 0:
        raise RulesError(f"{place}: more than {_MOST_VALUES} values in one document")
    match value:
        case dict():
            return {str(key): _plain(each, budget, place) for key, each in value.items()}
        case list():
            return [_plain(each, budget, place) for each in value]
        case None | bool() | int() | float() | str():
            return value
        case datetime() | date():
            return value.isoformat()
        case _:
            raise RulesError(f"{place}: a {type(value).__name__} has no place in a rule")


def _items(value: Any) -> Sequence[Any]:
    """A document, or those that a Kubernetes list holds."""
    if value is None:
        return ()
    if isinstance(value, dict) and isinstance(value.get("items"), list):
        items: list[Any] = value["items"]
        return items
    return (value,)


def _item(item: Mapping[str, Any], kind: str, place: str) -> Mapping[str, Any]:
    metadata, spec = item.get("metadata"), item.get("spec")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not name:
        raise RulesError(f"{place}: a {kind} without metadata.name")
    if not isinstance(spec, dict):
        raise RulesError(f"{place}: the {kind} {name} has no spec")
    namespace = metadata.get("namespace") or _DEFAULT_NAMESPACE
    return {
        "apiVersion": _API,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
        "meshdoctor": {"file": place},
    }


# ---------------------------------------------------------------- laid over


def _in_force(snapshot: Snapshot, kind: str) -> list[Any]:
    """The rules of a kind that the snapshot has, as the API server or Pilot tells them."""
    listed = _json(snapshot, DOCUMENTS[kind])
    if isinstance(listed, dict):
        items = listed.get("items")
        return list(items) if isinstance(items, list) else []
    found = []
    pilots = _json(snapshot, CONFIGZ)
    for each in pilots if isinstance(pilots, list) else ():
        if isinstance(each, dict) and kind in (
            each.get("kind"),
            PILOTS_KINDS.get(str(each.get("type"))),
        ):
            own = {
                key: each[key] for key in ("name", "namespace", "creationTimestamp") if key in each
            }
            found.append(
                {
                    "apiVersion": _API,
                    "kind": kind,
                    "metadata": each.get("metadata", own),
                    "spec": each.get("Spec", each.get("spec", {})),
                }
            )
    return found


def _json(snapshot: Snapshot, document: str) -> Any:
    """None where there is none, or it is damaged: then the rules are laid over nothing."""
    try:
        return json.loads(snapshot.read(document))
    except (MissingEvidenceError, ValueError, RecursionError):
        return None


def _laid_over(there: Sequence[Any], new: Sequence[_Rule]) -> list[Any]:
    laid = {_key(rule.item): rule.item for rule in new}
    kept = [each for each in there if _key(each) not in laid]
    return [*kept, *laid.values()]


def _key(item: Any) -> tuple[str, str]:
    metadata = item.get("metadata") if isinstance(item, dict) else None
    if not isinstance(metadata, dict):
        return "", ""
    return str(metadata.get("namespace") or _DEFAULT_NAMESPACE), str(metadata.get("name", ""))


def _check(snapshot: Snapshot) -> None:
    """Raises RulesError for the first new rule that does not decode."""
    places = {}
    for document in DOCUMENTS.values():
        listed = _json(snapshot, document)
        for index, item in enumerate(listed["items"] if isinstance(listed, dict) else ()):
            if isinstance(item, dict) and "meshdoctor" in item:
                places[f"{document}#/items/{index}"] = item["meshdoctor"]["file"]
    for problem in IstioRules.load(snapshot).problems:
        document, mark, pointer = problem.document.partition("#")
        item = "/".join(pointer.split("/")[:3])
        place = places.get(f"{document}{mark}{item}")
        if place is not None:
            raise RulesError(f"{place}: {problem.message}")
