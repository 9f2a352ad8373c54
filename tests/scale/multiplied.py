"""A small mesh many times over: its services, containers and sidecars under other names.

What is the control plane's stays one. Each copy's sidecars know the services of their own copy.
"""

import ipaddress
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from meshdoctor.evidence import layout
from meshdoctor.snapshot import Snapshot

_CONTROL_PLANE: Final = re.compile(
    r"(?:.*[_-])?(?:consul|pilot|registrator|etcd|istio-apiserver|apiserver|zipkin)(?:[_-]?\d+)*"
)
_ADDRESS: Final = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
_HEXADECIMAL: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{12,64}(?![0-9a-f])")
_ID: Final = 12
"""The characters of a container's id that also stand alone, as its host's name."""


def multiplied(mesh: Snapshot, copies: int, only: Collection[str] = ()) -> Snapshot:
    """The mesh so many times in one snapshot; the first copy has the names it had.

    With `only`, the copies share all but the things of those names.
    """
    texts = {name: mesh.read(name).decode() for name in mesh.names()}
    if layout.MANIFEST in mesh.documents:
        texts[layout.MANIFEST] = mesh.read(layout.MANIFEST).decode()
    renaming = _Renaming(texts, only)
    merged: dict[str, Any] = {}
    for number in range(copies):
        for name, text in texts.items():
            copy = renaming.of(name, number)
            if copy not in merged:
                merged[copy] = renaming.of(text, number)
            elif name.endswith(".json"):
                there = merged[copy]
                if isinstance(there, str):
                    there = merged[copy] = _Merged(json.loads(there))
                there.take(json.loads(renaming.of(text, number)))
    return Snapshot(
        {
            name: (each if isinstance(each, str) else json.dumps(each.value)).encode()
            for name, each in merged.items()
        },
        absent=mesh.absent,
        created=mesh.created,
    )


class _Merged:
    """One document of what several say: lists behind each other, objects into each other."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self._seen: dict[int, set[str]] = {}

    def take(self, other: Any) -> None:
        self._merge(self.value, other)

    def _merge(self, here: Any, other: Any) -> None:
        match here, other:
            case dict(), dict():
                for key, value in other.items():
                    if key in here:
                        self._merge(here[key], value)
                    else:
                        here[key] = value
            case list(), list():
                if id(here) not in self._seen:
                    self._seen[id(here)] = {json.dumps(each) for each in here}
                seen = self._seen[id(here)]
                for each in other:
                    if (written := json.dumps(each)) not in seen:
                        seen.add(written)
                        here.append(each)


class _Renaming:
    """Names, ids and addresses of all but the control plane, as they are in each copy."""

    def __init__(self, texts: Mapping[str, str], only: Collection[str]) -> None:
        containers = _json(texts, "docker/containers.json", [])
        copied = [each for each in containers if not _CONTROL_PLANE.fullmatch(_name(each))]
        kept = {text for each in containers if each not in copied for text in _addresses(each)}
        words = set(_services(texts))
        words |= {
            name
            for name in (*map(_name, copied), *_sidecars(texts))
            if not (words and re.search(_pattern(words), name))
        }
        words = set(only) or words
        self._words = re.compile(_pattern(words)) if words else None
        self._ids = {str(each["Id"])[:_ID] for each in copied if "Id" in each}
        found = {text for each in copied for text in _addresses(each)}
        for service in _services(texts):
            found |= set(_ADDRESS.findall(texts.get(layout.catalog_service(service), "")))
        found |= {
            text
            for name, body in texts.items()
            if name.startswith("pilot/")
            for text in _ADDRESS.findall(body)
        }
        self._addresses = {
            text for text in found - kept if _is_host(text) and not text.endswith(".1")
        }

    def of(self, text: str, number: int) -> str:
        """The text as it is in that copy; of copy 0 as it was."""
        if not number:
            return text
        if self._words is not None:
            text = self._words.sub(rf"\g<0>-{number}", text)
        if self._ids:
            text = _HEXADECIMAL.sub(lambda found: self._id(found[0], number), text)
        if self._addresses:
            text = _ADDRESS.sub(lambda found: self._address(found[0], number), text)
        return text

    def _id(self, text: str, number: int) -> str:
        return f"{number:04x}{text[4:]}" if text[:_ID] in self._ids else text

    def _address(self, text: str, number: int) -> str:
        if text not in self._addresses:
            return text
        return str(ipaddress.ip_address(text) + number * 256)


def _pattern(words: set[str]) -> str:
    longest_first = sorted(words, key=lambda each: (-len(each), each))
    return rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, longest_first))})(?![A-Za-z0-9]|_[a-z])"


def _json(texts: Mapping[str, str], name: str, otherwise: Any) -> Any:
    try:
        return json.loads(texts[name])
    except (KeyError, ValueError):
        return otherwise


def _name(container: Mapping[str, Any]) -> str:
    return str(container.get("Name", "")).lstrip("/")


def _addresses(container: Mapping[str, Any]) -> Iterator[str]:
    yield from _ADDRESS.findall(json.dumps(container.get("NetworkSettings", {})))


def _services(texts: Mapping[str, str]) -> Iterator[str]:
    for service in _json(texts, "consul/catalog/services.json", {}):
        if not re.match(r"(?:consul|pilot|registrator|etcd|zipkin|istio)\b", service):
            yield service


def _sidecars(texts: Mapping[str, str]) -> Iterator[str]:
    for name in texts:
        if name.startswith("envoy/"):
            yield layout.name_of(name.split("/")[1])


def _is_host(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)
