"""The checks there are: of every installed package, and of files that were named."""

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final, Protocol, runtime_checkable

import msgspec

from meshdoctor.check import Check
from meshdoctor.files import is_file, is_folder, is_there
from meshdoctor.plugins import find_plugins

ENTRY_POINTS: Final = "meshdoctor.checks"


class ChecksError(Exception):
    """There are no checks to run, or those that were named cannot be loaded."""


class BrokenPlugin(msgspec.Struct, frozen=True):
    """A plug-in that could not be loaded, or a check of it that was refused."""

    name: str
    error: str
    traceback: str = ""


class Checks(msgspec.Struct, frozen=True):
    """The checks there are, sorted by code, and the plug-ins that could not be loaded."""

    checks: tuple[Check, ...]
    broken: tuple[BrokenPlugin, ...] = ()

    def choose(self, select: Sequence[str], ignore: Sequence[str]) -> "Checks":
        """Those whose code begins with, or whose name is, one of `select` and none of `ignore`.

        Raises ChecksError for a word that fits no check.
        """
        for word in (*select, *ignore):
            if not any(_fits(word, each) for each in self.checks):
                raise ChecksError(self._nothing_like(word))
        kept = (
            each
            for each in self.checks
            if (not select or any(_fits(word, each) for word in select))
            and not any(_fits(word, each) for word in ignore)
        )
        return Checks(tuple(kept), self.broken)

    def find(self, word: str) -> Check:
        """The one whose code or name `word` is, in either case. Raises ChecksError."""
        for each in self.checks:
            if word.upper() == each.code or _is_name(word, each):
                return each
        begun = [each.code for each in self.checks if each.code.startswith(word.upper())]
        if word and begun:
            raise ChecksError(f"{word} is the beginning of {', '.join(begun)}: name one of them")
        raise ChecksError(self._nothing_like(word))

    def _nothing_like(self, word: str) -> str:
        from difflib import get_close_matches  # noqa: PLC0415

        # Codes that share a digit are not near: 0.75 is one letter more, less, or misplaced.
        codes = [each.code for each in self.checks]
        found = get_close_matches(word.upper(), codes, n=1, cutoff=0.75)
        names = [each.name for each in self.checks]
        holding = [name for name in names if len(word) >= _TELLING and word.lower() in name]
        found += holding or get_close_matches(word.lower(), names, n=1)
        near = " or ".join(found[:3])
        did_you_mean = f" Did you mean {near}?" if near else ""
        return f"no check has the code or name {word!r}.{did_you_mean} See `meshdoctor checks`."


_TELLING: Final = 3
"""Letters that a part of a name has at least to be meant by it."""


def _fits(word: str, check: Check) -> bool:
    return check.code.startswith(word.upper()) or _is_name(word, check)


def _is_name(word: str, check: Check) -> bool:
    return word.lower().replace("_", "-") == check.name


def load_checks(paths: Iterable[Path] = ()) -> Checks:
    """The checks of every installed package with the entry point, and of the files at `paths`.

    A package that does not load costs only its own checks. Raises ChecksError where a path that
    was named does not load, or no check is left at all.
    """
    found: list[tuple[str, Check]] = []
    broken: list[BrokenPlugin] = []
    for point in find_plugins(ENTRY_POINTS):
        try:
            found.extend((point.name, each) for each in _checks_of(point.load()))
        except (Exception, SystemExit) as error:  # noqa: BLE001 # somebody else's import
            from traceback import format_exc  # noqa: PLC0415

            said = f"{type(error).__name__}: {error}"
            broken.append(BrokenPlugin(point.name, said, format_exc()))
    seen: set[Path] = set()
    for path in paths:
        found.extend((str(path), each) for each in _load_path(path, seen))
    by_code: dict[str, tuple[str, Check]] = {}
    for origin, each in found:
        holder = by_code.setdefault(each.code, (origin, each))
        if holder[1] is not each:
            said = f"its {each.name} has the code {each.code}, which {holder[0]} has already"
            broken.append(BrokenPlugin(origin, said))
    if not by_code:
        why = "".join(f" ({plugin.name}: {plugin.error})" for plugin in broken)
        raise ChecksError(
            f"no check is installed{why}: install meshdoctor again, or name a folder of checks "
            "with --checks"
        )
    return Checks(tuple(by_code[code][1] for code in sorted(by_code)), tuple(broken))


@runtime_checkable
class Catalogue(Protocol):
    """Checks that can tell one of them without importing the others."""

    def find(self, word: str) -> Check | None:
        """The check whose code or name that is, in either case."""


def find_check(word: str, paths: Iterable[Path] = ()) -> Check:
    """The check whose code or name `word` is, in either case. Raises ChecksError.

    The built-in ones come first, as in `load_checks`, and of them only the one is imported.
    """
    for point in find_plugins(ENTRY_POINTS):
        if point.is_own:
            catalogue = point.load()
            found = catalogue.find(word) if isinstance(catalogue, Catalogue) else None
            if found is not None:
                return found
    return load_checks(paths).find(word)


def _checks_of(loaded: object) -> Sequence[Check]:
    """An entry point names a sequence of checks, or one."""
    checks = [loaded] if isinstance(loaded, Check) else list(loaded)  # type: ignore[call-overload] # anything may come
    for each in checks:
        if not isinstance(each, Check):
            raise TypeError(f"{each!r} is no check: make it one with @meshdoctor.check.check")
    return checks


def _load_path(path: Path, seen: set[Path]) -> Sequence[Check]:
    """The checks in a file, or in the files of a folder, but for those `seen` already."""
    files = sorted(path.glob("*.py")) if is_folder(path) else [path]
    new = [file for file in files if file.resolve() not in seen]
    seen.update(file.resolve() for file in new)
    checks = [each for file in new for each in vars(_import(file)).values()]
    found = [each for each in checks if isinstance(each, Check)]
    if not found and (new or not files):
        raise ChecksError(f"{path}: no check in it; a check is a function under @check(...)")
    return found


def _import(file: Path) -> ModuleType:
    name = f"meshdoctor_checks_from_path.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if not is_there(file):
        raise ChecksError(f"{file}: no such file or folder, or none that you may read")
    if spec is None or spec.loader is None or not is_file(file):
        raise ChecksError(f"{file}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Where annotations are resolved and tracebacks are read, the module must be found by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        where = f"{file}{_line_of(error, module)}"
        raise ChecksError(f"{where}: {type(error).__name__}: {error}") from error
    return module


def _line_of(error: BaseException, module: ModuleType) -> str:
    """The last line of the file that was at work; a SyntaxError says its own."""
    from traceback import walk_tb  # noqa: PLC0415

    lines = [
        line
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_code.co_filename == module.__file__
    ]
    return f", line {lines[-1]}" if lines else ""
