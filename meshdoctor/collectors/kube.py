"""The kubeconfig of whoever runs meshdoctor: names and addresses, never credentials."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from meshdoctor.collectors.interface import AnswerError, NotAnsweringError, Run
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.kube import CONFIG
from meshdoctor.files import read_some
from meshdoctor.topology.roles import Role, role_of
from meshdoctor.yaml_loader import LOADER

_LARGEST: Final = 2**20
"""Bytes; a kubeconfig of a hundred clusters with their certificates is a fifth of it."""

_HINT: Final = "name one with KUBECONFIG"


def collect(run: Run, containers: Iterable[Container]) -> None:
    """Have the kubeconfig read, where there is an API server that kubectl should talk to."""
    if any(role_of(each) is Role.API_SERVER for each in containers):
        run.later(CONFIG, lambda: read(run.options.environment))


def read(environment: Mapping[str, str]) -> bytes:
    """Contexts, servers and the context in use, as kubectl itself would merge them.

    Of several files in KUBECONFIG the first to name a thing wins, and those that are not there
    are passed over. Raises CollectError.
    """
    paths = tuple(_paths(environment))
    files = [config for path in paths if (config := _load(path)) is not None]
    if not files:
        places = ", ".join(map(str, paths)) or "~/.kube/config"
        raise NotAnsweringError(f"there is no kubeconfig at {places}")
    current = (_text(each.get("current-context")) for each in files)
    return msgspec.json.encode(
        {
            "current-context": next(filter(None, current), ""),
            "contexts": _named(files, "contexts", "context", "cluster"),
            "clusters": _named(files, "clusters", "cluster", "server"),
        }
    )


def _paths(environment: Mapping[str, str]) -> Iterator[Path]:
    named = environment.get("KUBECONFIG", "")
    if named:
        yield from (Path(each) for each in named.split(os.pathsep) if each)
    elif home := environment.get("HOME") or environment.get("USERPROFILE"):
        yield Path(home, ".kube", "config")


def _load(path: Path) -> Mapping[str, Any] | None:
    try:
        raw = read_some(path, _LARGEST + 1)
        if len(raw) > _LARGEST:
            raise AnswerError(f"{path} is larger than {_LARGEST} bytes: {_HINT}")
        config = yaml.load(raw, Loader=LOADER)  # noqa: S506 # a safe one
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotAnsweringError(f"{path} cannot be read: {error.strerror}; {_HINT}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # What the parser quotes may be a credential: only the place is said.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise AnswerError(f"{path} is no YAML{where}: {_HINT}") from error
    if not isinstance(config, dict):
        raise AnswerError(f"{path} is no kubeconfig: {_HINT}")
    return config


def _named(
    files: Iterable[Mapping[str, Any]], section: str, inner: str, field: str
) -> list[Mapping[str, Any]]:
    """One field of each named element, the first of a name alone."""
    found: dict[str, Mapping[str, Any]] = {}
    for config in files:
        elements = config.get(section)
        for each in elements if isinstance(elements, list) else ():
            if isinstance(each, dict) and (name := _text(each.get("name"))):
                held = each.get(inner)
                value = _text(held.get(field)) if isinstance(held, dict) else ""
                found.setdefault(name, {"name": name, inner: {field: value}})
    return list(found.values())


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
