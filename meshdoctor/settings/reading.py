"""One settings file: read, checked, and where in it things stand. Most runs have none to read."""

import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from meshdoctor.diagnosis import Suppression
from meshdoctor.findings import Severity
from meshdoctor.settings import ENGINE, PYPROJECT, Keys, Settings, SettingsError, Value

_TABLE: Final = ("tool", "meshdoctor")
_SECONDS: Final = (0.1, 86400.0)


def parse(path: Path, raw: bytes) -> Settings | None:
    """What the file says; None for a pyproject.toml that says nothing of meshdoctor."""
    try:
        text = raw.decode("utf-8")
        table: Any = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: it is not UTF-8, as TOML must be: {error}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: it is not TOML: {error}") from error
    root: Keys = ()
    if path.name == PYPROJECT:
        root = _TABLE
        for key in root:
            if not isinstance(table, dict) or key not in table:
                return None
            table = table[key]
    reading = _Reading(path, text, root)
    settings = reading.settings(table)
    if reading.problems:
        raise SettingsError("\n".join(reading.problems))
    return settings


class _Reading:
    """One file while it is read. Every fault is kept, so that all are told at once."""

    def __init__(self, path: Path, text: str, root: Keys) -> None:
        self.path = path
        self.text = text
        self.root = root
        self.problems: list[str] = []

    def fault(self, said: str, *keys: str | int) -> None:
        self.problems.append(f"{where(self.path, self.text, (*self.root, *keys))}: {said}")

    def settings(self, table: Any) -> Settings:
        if not isinstance(table, dict):
            self.fault(f"[tool.meshdoctor] is a table, not {_called(table)}")
            return Settings()
        self.known_keys(table, (*KEYS, "suppress", "severity"), ())
        values: dict[str, Value] = {}
        for key, read in KEYS.items():
            if key in table and (value := read(self, table[key], key)) is not None:
                values[key] = value
        if all(key in values for key in ENGINE):
            self.fault("docker-context stands beside docker-host: keep one of them", ENGINE[1])
        return Settings(
            path=self.path,
            values=values,
            suppress=tuple(self.suppressions(table.get("suppress", []))),
            severity=dict(self.severities(table.get("severity", {}))),
            text=self.text,
        )

    def known_keys(
        self, table: Mapping[str, Any], known: Sequence[str], place: Keys, title: str = ""
    ) -> None:
        for key in table:
            if key in known:
                continue
            if key.replace("_", "-") == "consul-token":
                self.fault(
                    f"{key}: a token has no place in a file that is shared: write the path "
                    "of a file that holds it, consul-token-file, or set CONSUL_HTTP_TOKEN",
                    *place,
                    key,
                )
                continue
            near = _nearest(key.replace("_", "-"), known)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(known)}"
            self.fault(f"{key!r} is no key{title}: {hint}", *place, key)

    def suppressions(self, entries: Any) -> Iterator[Suppression]:
        if not isinstance(entries, list):
            self.fault("suppress: write each as a table of its own, [[suppress]]", "suppress")
            return
        for number, entry in enumerate(entries):
            place = ("suppress", number)
            if not isinstance(entry, dict):
                self.fault(f"suppress: each is a table, not {_called(entry)}", *place)
                continue
            self.known_keys(
                entry, ("code", "subject", "reason", "until"), place, " of [[suppress]]"
            )
            texts = {
                key: self.line(entry[key], *place, key)
                for key in ("code", "subject", "reason")
                if key in entry
            }
            for key in ("code", "reason"):
                if key not in entry:
                    why = ": say why this is known and left" if key == "reason" else ", as MD201"
                    self.fault(f"this suppression has no {key}{why}", *place)
            until = entry.get("until")
            # A time of a day is a date too, to Python.
            if until is not None and (isinstance(until, datetime) or not isinstance(until, date)):
                self.fault("until: write a date without quotes, as 2030-01-31", *place, "until")
                until = None
            yield Suppression(
                texts.get("code") or "",
                texts.get("reason") or "",
                texts.get("subject") or "",
                until,
            )

    def severities(self, table: Any) -> Iterator[tuple[str, Severity]]:
        if not isinstance(table, dict):
            self.fault(
                'severity: write a table [severity] of lines as MD201 = "error"', "severity"
            )
            return
        for code, word in table.items():
            found = self.choice(word, tuple(Severity), "severity", code)
            if found is not None:
                yield code, Severity(found)

    # -------------------------------------------------------- one value

    def line(self, value: Any, *keys: str | int) -> str | None:
        """One line of text that is not empty; line ends in it are spaces."""
        if not isinstance(value, str):
            self.fault(f"{keys[-1]}: write a text in quotes, not {_called(value)}", *keys)
            return None
        line = " ".join(value.split())
        if not line or not line.isprintable():
            said = "it has characters that cannot be shown" if line else "it is empty"
            self.fault(f"{keys[-1]}: {said}", *keys)
            return None
        return line

    def choice(self, value: Any, words: Sequence[str], *keys: str | int) -> str | None:
        if not isinstance(value, str) or value not in words:
            shown = repr(value) if isinstance(value, str) else _called(value)
            near = _nearest(value, words) if isinstance(value, str) else None
            hint = f"; did you mean {near}?" if near else ""
            self.fault(f"{keys[-1]}: write one of {', '.join(words)}, not {shown}{hint}", *keys)
            return None
        return value

    def address(self, value: Any, *keys: str | int) -> str | None:
        line = self.line(value, *keys)
        if line is None:
            return None
        try:
            parts = urlsplit(line if "://" in line else f"http://{line}")
            # Docker's engine may be behind a name at ssh://; nobody else has use for one.
            secret = parts.password is not None or (
                parts.username is not None and keys[-1] != "docker-host"
            )
        except ValueError as error:
            self.fault(f"{keys[-1]}: {line!r} is no address: {error}", *keys)
            return None
        if secret:
            self.fault(f"{keys[-1]}: an address here holds no name or password", *keys)
            return None
        return line

    def engines(self, value: Any, *keys: str | int) -> str | tuple[str, ...] | None:
        """One engine as a text, or several as a list."""
        read = self.address if keys[-1] == "docker-host" else self.line
        if not isinstance(value, list):
            return read(value, *keys)
        if not value:
            self.fault(f"{keys[-1]}: the list is empty", *keys)
        found = [read(each, *keys) for each in value]
        return tuple(each for each in found if each is not None) or None

    def addresses(self, value: Any, *keys: str | int) -> tuple[str, ...] | None:
        """As the command line takes them, NAME=URL."""
        if not isinstance(value, dict):
            self.fault(
                f"{keys[-1]}: write a name and an address for each sidecar, as in "
                f'envoy = {{web = "http://127.0.0.1:19000"}}, not {_called(value)}',
                *keys,
            )
            return None
        pairs = []
        for name, url in value.items():
            if not name or "=" in name:
                self.fault(f"{keys[-1]}: {name!r} is no name of a sidecar", *keys, name)
            elif (address := self.address(url, *keys, name)) is not None:
                pairs.append(f"{name}={address}")
        return tuple(pairs)

    def words(self, value: Any, *keys: str | int) -> tuple[str, ...] | None:
        if not isinstance(value, list):
            self.fault(f'{keys[-1]}: write a list, as in ["..."], not {_called(value)}', *keys)
            return None
        lines = []
        for each in value:
            if (line := self.line(each, *keys)) is None:
                return None
            lines.append(line)
        return tuple(lines)

    def file(self, value: Any, *keys: str | int) -> Path | None:
        line = self.line(value, *keys)
        return None if line is None else self.beside(line)

    def files(self, value: Any, *keys: str | int) -> tuple[Path, ...] | None:
        words = self.words(value, *keys)
        return None if words is None else tuple(map(self.beside, words))

    def beside(self, written: str) -> Path:
        """A path is meant from the file in which it stands, wherever the command runs."""
        try:
            path = Path(written).expanduser()
        except RuntimeError:
            path = Path(written)
        return self.path.absolute().parent / path

    def seconds(self, value: Any, *keys: str | int) -> float | None:
        least, most = _SECONDS
        # A claim is a number too, to Python; and nan is in no range.
        number = None if isinstance(value, bool) or not isinstance(value, int | float) else value
        if number is None or not least <= number <= most:
            shown = _called(value) if number is None else number
            self.fault(
                f"{keys[-1]}: write a number of seconds from {least:g} to {most:g}, not {shown}",
                *keys,
            )
            return None
        return float(number)

    def fail_on(self, value: Any, *keys: str | int) -> str | None:
        return self.choice(value, tuple(reversed(Severity)), *keys)


KEYS: Final[Mapping[str, Callable[[_Reading, Any, str], Value | None]]] = {
    "select": _Reading.words,
    "ignore": _Reading.words,
    "checks": _Reading.files,
    "fail-on": _Reading.fail_on,
    "docker-host": _Reading.engines,
    "docker-context": _Reading.engines,
    "consul": _Reading.address,
    "consul-token-file": _Reading.file,
    "pilot": _Reading.address,
    "apiserver": _Reading.address,
    "kubeconfig": _Reading.file,
    "envoy": _Reading.addresses,
    "timeout": _Reading.seconds,
    "request-timeout": _Reading.seconds,
}
"""What has a flag of the same name, and how its value is read."""


def _called(value: Any) -> str:
    """What TOML calls a value of that type."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date"


def _nearest(word: str, known: Sequence[str]) -> str | None:
    from difflib import get_close_matches  # noqa: PLC0415

    return next(iter(get_close_matches(word, known, n=1)), None)


# ---------------------------------------------------------------- lines


def where(path: Path, text: str, keys: Keys) -> str:
    """The file and the line where that key stands, or the nearest around it."""
    lines = _lines(text)
    if path.name == PYPROJECT and keys[: len(_TABLE)] != _TABLE:
        keys = (*_TABLE, *keys)
    while keys and keys not in lines:
        keys = keys[:-1]
    return f"{path}:{lines[keys]}" if keys else str(path)


@lru_cache(maxsize=2)
def _lines(text: str) -> Mapping[Keys, int]:
    """The line on which each key and table begins.

    tomllib does not tell. But each statement of a TOML document is a document too: lines are
    gathered until they are one, and what is in it stands where they began.
    """
    lines: dict[Keys, int] = {}
    entries: Counter[Keys] = Counter()
    table: Keys = ()
    statement, begun = "", 1
    for number, line in enumerate(text.split("\n"), start=1):
        begun = begun if statement else number
        statement += f"{line}\n"
        try:
            said = tomllib.loads(statement)
        except ValueError:
            continue
        if statement.lstrip().startswith("["):
            table = _header(said, entries)
            lines.setdefault(table, begun)
        else:
            _note(said, table, begun, lines)
        statement = ""
    return lines


def _header(said: Mapping[str, Any], entries: Counter[Keys]) -> Keys:
    """The table that a line in brackets opens, with the numbers of the entries it is in."""
    keys: Keys = ()
    inner: Any = said
    while inner:
        (name,) = inner
        keys, inner = (*keys, name), inner[name]
        if isinstance(inner, list):
            entries[keys] += 1
            inner = inner[0]
        if entries[keys]:
            keys = (*keys, entries[keys] - 1)
    return keys


def _note(said: Any, place: Keys, number: int, lines: dict[Keys, int]) -> None:
    items: Any = ()
    if isinstance(said, dict):
        items = said.items()
    elif isinstance(said, list):
        items = enumerate(said)
    for key, inner in items:
        lines.setdefault((*place, key), number)
        _note(inner, (*place, key), number, lines)
