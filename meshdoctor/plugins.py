"""The entry points by which checks come in: the built-in ones', and those of other packages.

`importlib.metadata` finds them all, but to import it and let it look takes longer than to judge a
small mesh. So first the folders of `sys.path` are looked through for who names the group at all.
Only where that is meshdoctor alone, its own entry points are read here.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

_OWN: Final = "meshdoctor"


class Plugin(msgspec.Struct, frozen=True):
    """One entry point; `load` imports what it names, and raises what that import raises."""

    name: str
    value: str
    is_own: bool
    load: Callable[[], object]


def find_plugins(group: str) -> list[Plugin]:
    """The entry points of that group, meshdoctor's own first: nobody takes the code of theirs."""
    found = _own_alone(group) or _all(group)
    return sorted(found, key=lambda each: (not each.is_own, each.name, each.value))


def _all(group: str) -> list[Plugin]:
    from importlib.metadata import distributions, entry_points  # noqa: PLC0415

    try:
        points = list(entry_points(group=group))
    except ValueError:
        # Somebody's file is damaged, and Python gives nobody's then.
        each_once = {
            (point.name, point.value): point
            for distribution in distributions()
            for point in _undamaged(distribution, group)
        }
        points = list(each_once.values())
    return [
        Plugin(
            point.name,
            point.value,
            point.dist is not None and point.dist.name == _OWN,
            point.load,
        )
        for point in points
    ]


def _undamaged(distribution: "Distribution", group: str) -> "Iterable[EntryPoint]":
    try:
        return distribution.entry_points.select(group=group)
    except ValueError:
        return ()


# ---------------------------------------------------------------- the look that spares it


def _own_alone(group: str) -> list[Plugin]:
    """Meshdoctor's own, where it is sure that nobody else has any; else none.

    It is sure where distributions can only lie in folders, all of these could be read, and one
    entry_points.txt names the group.
    """
    if not _only_folders_matter():
        return []
    try:
        naming = [each for folder in dict.fromkeys(sys.path) for each in _naming(group, folder)]
    except OSError:
        return []
    if len(naming) != 1:
        return []
    distribution, text = naming[0]
    if not (distribution.startswith(f"{_OWN}-") and distribution.endswith(".dist-info")):
        return []
    return list(_read(group, text))


def _only_folders_matter() -> bool:
    """Whether `importlib.metadata` would ask none but Python's own finder, and that for paths."""
    asked = [each for each in sys.meta_path if hasattr(each, "find_distributions")]
    return asked == [PathFinder] and all(isinstance(each, str) for each in sys.path)


def _naming(group: str, folder: str) -> Iterator[tuple[str, str]]:
    """The distributions in a folder whose entry_points.txt has the group in it, and that text.

    Raises OSError where the folder, as a zip file in its place, or such a text cannot be read.
    """
    try:
        files = os.scandir(folder or ".")
    except FileNotFoundError:
        # As the zip file that Python's own library might be in.
        return
    with files:
        for file in files:
            if not file.name.lower().endswith((".dist-info", "egg-info")):
                continue
            # A folder may hold hundreds: a Path and a buffer for each would double the time.
            try:
                with open(f"{file.path}/entry_points.txt", "rb", buffering=0) as text:  # noqa: PTH123
                    raw = text.read()
            except (FileNotFoundError, NotADirectoryError):
                continue
            if group.encode() in raw:
                yield file.name, raw.decode(errors="replace")


def _read(group: str, text: str) -> Iterator[Plugin]:
    """What meshdoctor's own entry_points.txt has under the group, a line each: `name = value`."""
    _, _, after = text.partition(f"[{group}]\n")
    section, _, _ = after.partition("[")
    for line in section.split("\n"):
        name, _, value = (each.strip() for each in line.partition("="))
        if value:
            yield Plugin(name, value, is_own=True, load=_loading(value))


def _loading(value: str) -> Callable[[], object]:
    """Import what `module:attribute` names, when called."""
    module, _, attribute = value.partition(":")
    return lambda: getattr(import_module(module), attribute)
