"""What stands in a `meshdoctor.toml` or a pyproject.toml: found, read, checked and said.

The file comes third: a flag beats a variable beats the file beats what is found by itself.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from meshdoctor.diagnosis import Checks, ChecksError, Policy, Suppression
from meshdoctor.files import read_some
from meshdoctor.findings import Severity
from meshdoctor.report.document import Report

if TYPE_CHECKING:
    from meshdoctor.report.config import Config, Origin

FILE: Final = "meshdoctor.toml"
PYPROJECT: Final = "pyproject.toml"

_LARGEST: Final = 2**20
"""Bytes. More than this is no settings file, and may be a device without an end."""
_REPOSITORIES: Final = (".git", ".hg")

_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "docker-host": ("DOCKER_HOST",),
    "docker-context": ("DOCKER_CONTEXT",),
    "consul": ("CONSUL_HTTP_ADDR",),
    "consul-token-file": ("CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE"),
}
_SECRET: Final = "CONSUL_HTTP_TOKEN"  # noqa: S105 # its name
ENGINE: Final = ("docker-host", "docker-context")
"""Two names for one thing: where one is given, the other one is out of force."""

Value = str | float | Path | tuple[str, ...] | tuple[Path, ...] | Mapping[str, str]
Keys = tuple[str | int, ...]


class SettingsError(Exception):
    """A settings file that cannot be used; the message names the file, the line and the key."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one file says, or nothing where there is none. `values` are by key, paths absolute.

    Codes of checks are as they were written: `policy` holds them against the checks there are.
    """

    path: Path | None = None
    values: Mapping[str, Value] = msgspec.field(default_factory=dict)
    suppress: tuple[Suppression, ...] = ()
    severity: Mapping[str, Severity] = msgspec.field(default_factory=dict)
    text: str = ""

    def where(self, *keys: str | int) -> str:
        """The file and the line where that key stands, as in `meshdoctor.toml:3`."""
        if self.path is None:
            return ""
        from meshdoctor.settings.reading import where  # noqa: PLC0415

        return where(self.path, self.text, keys)

    def options(self, environment: Mapping[str, str]) -> dict[str, Value]:
        """The values that no variable beats, by the names that the command line has for them."""
        if not self.values:
            return {}
        from meshdoctor.report.config import Origin  # noqa: PLC0415

        return {
            # The command line may name several engines, so that one is a list of one to it.
            _option(key): (value,) if key in ENGINE and isinstance(value, str) else value
            for key, value in self.values.items()
            if self._origin(key, (), environment)[0] is Origin.FILE
        }

    def policy(self, checks: Checks) -> Policy:
        """What is suppressed and how severe findings are. Raises SettingsError for unknown codes.

        `checks` are all that are installed, so that `--select` makes no code unknown.
        """
        problems: list[str] = []

        def known(code: str, *keys: str | int) -> str:
            try:
                return checks.find(code).code
            except ChecksError as error:
                problems.append(f"{self.where(*keys)}: {error}")
                return code

        for key in ("select", "ignore"):
            words = self.values.get(key, ())
            try:
                checks.choose(
                    [str(word) for word in words] if isinstance(words, tuple) else [], []
                )
            except ChecksError as error:
                problems.append(f"{self.where(key)}: {key}: {error}")
        suppressions = tuple(
            replace(each, code=known(each.code, "suppress", number, "code"))
            for number, each in enumerate(self.suppress)
        )
        severities = {
            known(code, "severity", code): severity for code, severity in self.severity.items()
        }
        if problems:
            raise SettingsError("\n".join(problems))
        return Policy(suppressions, severities)

    def warnings(self, report: Report) -> Iterator[str]:
        """A sentence for each suppression that is past its date or hides nothing."""
        for number, each in enumerate(report.suppressions):
            about = f"{each.code} {each.subject}".rstrip()
            where = self.where("suppress", number)
            if each.expired:
                yield (
                    f"{where}: the suppression of {about} held until {each.until}, and hides "
                    "nothing any more: set a later date or take it out"
                )
            elif report.is_unused(each):
                more = "widen its subject or " if each.subject else ""
                yield (
                    f"{where}: the suppression of {about} hides nothing, for it covers no finding "
                    f"whole: {more}take it out"
                )

    def in_force(
        self,
        policy: Policy,
        options: Mapping[str, Any],
        flags: Sequence[str],
        environment: Mapping[str, str],
        today: date,
    ) -> "Config":
        """Every setting, with where its value comes from.

        `options` are the command line's, with this file's values already among them; `flags` the
        names of those that were typed.
        """
        from meshdoctor.report.config import (  # noqa: PLC0415
            Config,
            Origin,
            Setting,
            SeverityInForce,
            SuppressionInForce,
        )
        from meshdoctor.settings.reading import KEYS  # noqa: PLC0415

        settings = []
        for key in KEYS:
            origin, where = self._origin(key, flags, environment)
            value = options[_option(key)] or None
            if origin is Origin.VARIABLE:
                value = None if where == _SECRET else environment[where]
            elif origin is Origin.DEFAULT and key in ENGINE:
                value = None
            elif key in ENGINE and isinstance(value, tuple) and len(value) == 1:
                value = value[0]
            settings.append(Setting(key, _without_secrets(value), origin, where))
        return Config(
            file=self.path,
            settings=tuple(settings),
            suppress=tuple(
                SuppressionInForce(
                    each.code,
                    each.subject,
                    each.reason,
                    each.until.isoformat() if each.until else "",
                    each.expired(today),
                    self.where("suppress", number),
                )
                for number, each in enumerate(policy.suppressions)
            ),
            severity=tuple(
                SeverityInForce(code, severity, self.where("severity", written))
                for written, (code, severity) in zip(
                    self.severity, policy.severities.items(), strict=True
                )
            ),
        )

    def _origin(
        self, key: str, flags: Sequence[str], environment: Mapping[str, str]
    ) -> "tuple[Origin, str]":
        from meshdoctor.report.config import Origin  # noqa: PLC0415

        rivals = ENGINE if key in ENGINE else (key,)
        if any(_option(each) in flags for each in rivals):
            typed = _option(key) in flags
            return (Origin.FLAG, f"--{key}") if typed else (Origin.DEFAULT, "")
        for each in rivals:
            for variable in _VARIABLES.get(each, ()):
                if environment.get(variable):
                    return (Origin.VARIABLE, variable) if each == key else (Origin.DEFAULT, "")
        if key in self.values:
            return Origin.FILE, self.where(key)
        return Origin.DEFAULT, ""


def _option(key: str) -> str:
    """What the command line calls it."""
    return {"checks": "check_paths", "envoy": "envoys"}.get(key, key.replace("-", "_"))


def _without_secrets(value: Any) -> Any:
    from meshdoctor.snapshot.redaction import redact_text  # noqa: PLC0415

    match value:
        case str():
            return redact_text(value)
        case Mapping():
            return {name: redact_text(each) for name, each in value.items()}
        case tuple():
            return tuple(map(_without_secrets, value))
        case _:
            return value


# ---------------------------------------------------------------- finding the file


def discover(folder: Path | None = None, home: Path | None = None) -> Settings:
    """The settings of the nearest file in `folder` or above it, else none at all.

    By default from the working directory on. The search ends at the root of a repository, at
    `home` (by default the user's), or at the top. Raises SettingsError.
    """
    try:
        folder = Path.cwd() if folder is None else folder
        home = Path.home().resolve() if home is None else home
    except (OSError, RuntimeError):
        # A working directory that was deleted, or a user without a home.
        return Settings()
    for place in (folder, *folder.parents):
        for name in (FILE, PYPROJECT):
            path = place / name
            if not _in_reach(path) or not path.is_file():
                continue
            raw = _read(path)
            # Most pyproject.toml have nothing to say here, and none of them is parsed for it.
            if name == PYPROJECT and b"meshdoctor" not in raw:
                continue
            from meshdoctor.settings.reading import parse  # noqa: PLC0415

            settings = parse(path, raw)
            if settings is not None:
                _trust(path)
                return settings
        if place == home or any(_in_reach(place / each) for each in _REPOSITORIES):
            break
    return Settings()


def _in_reach(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # A folder that this user may not look into.
        return False


def load(path: Path) -> Settings:
    """The settings of that file. Raises SettingsError."""
    from meshdoctor.settings.reading import parse  # noqa: PLC0415

    settings = parse(path, _read(path))
    if settings is None:
        raise SettingsError(f"{path}: it has no table [tool.meshdoctor]")
    return settings


def _trust(path: Path) -> None:
    """Refuse what another user left in a folder above: a settings file names code to run."""
    if os.name != "posix":
        return
    owner, me = path.stat().st_uid, os.geteuid()
    mine = {0, me}
    if me == 0 and (sudoer := os.environ.get("SUDO_UID", "")).isdecimal():
        mine.add(int(sudoer))
    if owner not in mine:
        raise SettingsError(
            f"{path}: it belongs to another user (uid {owner}), so it is not read: name it with "
            f"--config if you trust it, or do without by --config {os.devnull}"
        )


def _read(path: Path) -> bytes:
    try:
        raw = read_some(path, _LARGEST + 1)
    except OSError as error:
        raise SettingsError(f"{path}: it cannot be read: {error.strerror or error}") from error
    if len(raw) > _LARGEST:
        raise SettingsError(f"{path}: it is larger than 1 MiB, so it is no settings file")
    return raw
