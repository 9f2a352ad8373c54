"""What stands in a `meshdoctor.toml` or a pyproject.toml: found, read, checked and said.

The file comes third: a flag beats a variable beats the file beats what is found by itself.
"""

import difflib
import math
import os
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from meshdoctor.diagnosis import Checks, ChecksError, Policy, Suppression
from meshdoctor.findings import Severity
from meshdoctor.report.config import Entry, Origin, Setting
from meshdoctor.report.document import Report

FILE: Final = "meshdoctor.toml"
PYPROJECT: Final = "pyproject.toml"
_TABLE: Final = ("tool", "meshdoctor")

_LARGEST: Final = 2**20
"""Bytes. More than this is no settings file, and may be a device without an end."""
_REPOSITORIES: Final = (".git", ".hg")
_SHORTEST: Final = 0.1
_LONGEST: Final = 86400.0

Value = str | float | Path | tuple[str, ...] | tuple[Path, ...] | Mapping[str, str]
_Keys = tuple[str | int, ...]


class SettingsError(Exception):
    """A settings file that cannot be used; the message names the file, the line and the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one file says, or nothing where there is none. `values` are by key, paths absolute.

    Codes of checks are as they were written: `policy` holds them against the checks there are.
    """

    path: Path | None = None
    values: Mapping[str, Value] = field(default_factory=dict)
    suppress: tuple[Suppression, ...] = ()
    severity: Mapping[str, Severity] = field(default_factory=dict)
    text: str = field(default="", repr=False)

    def where(self, *keys: str | int) -> str:
        """The file and the line where that key stands, as in `meshdoctor.toml:3`."""
        return "" if self.path is None else _where(self.path, self.text, keys)

    def options(self, environment: Mapping[str, str]) -> dict[str, Value]:
        """The values that no variable beats, by the names that the command line has for them."""
        return {
            _OPTIONS.get(key, key.replace("-", "_")): value
            for key, value in self.values.items()
            if _variable(key, environment) is None
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
                checks.choose(words if isinstance(words, tuple) else (), ())  # type: ignore[arg-type] # strings, by their reader
            except ChecksError as error:
                problems.append(f"{self.where(key)}: {key}: {error}")
        policy = Policy(
            tuple(
                Suppression(
                    known(each.code, "suppress", number, "code"),
                    each.reason,
                    each.subject,
                    each.until,
                )
                for number, each in enumerate(self.suppress)
            ),
            {
                known(code, "severity", code): severity
                for code, severity in self.severity.items()
            },
        )
        if problems:
            raise SettingsError("\n".join(problems))
        return policy

    def warnings(self, report: Report) -> Iterator[str]:
        """A sentence for each suppression that is past its date or hides nothing."""
        for number, each in enumerate(report.suppressions):
            about = f"{each.code} {each.subject}".rstrip()
            where = self.where("suppress", number)
            if each.expired:
                yield (
                    f"{where}: the suppression of {about} ended on {each.until}, so it hides "
                    "nothing: move its date or take it out"
                )
            elif report.is_unused(each):
                yield f"{where}: the suppression of {about} hides nothing: take it out"

    def in_force(
        self,
        options: Mapping[str, Any],
        flags: Sequence[str],
        environment: Mapping[str, str],
    ) -> tuple[Setting, ...]:
        """Every setting, with where its value comes from.

        `options` are the command line's, with this file's values already among them; `flags` the
        names of those that were typed.
        """
        rows = []
        for key in KEYS:
            option = _OPTIONS.get(key, key.replace("-", "_"))
            value = options[option]
            variable = _variable(key, environment)
            if option in flags:
                row = Setting(key, value, Origin.FLAG, f"--{key}")
            elif variable is not None and _chosen_elsewhere(key, flags):
                row = Setting(key, None, Origin.DEFAULT)
            elif variable is not None:
                row = Setting(key, _shown(variable, environment), Origin.VARIABLE, variable)
            elif key in self.values and value is not None:
                row = Setting(key, value, Origin.FILE, self.where(key))
            else:
                row = Setting(key, value or None, Origin.DEFAULT)
            rows.append(row)
        return tuple(rows)

    def entries(self, policy: Policy, today: date) -> tuple[Entry, ...]:
        """What the file says about findings, one entry a suppression or severity."""
        severities = (
            Entry(code, f"severity {severity}", self.where("severity", written))
            for written, (code, severity) in zip(
                self.severity, policy.severities.items(), strict=True
            )
        )
        return tuple(severities)


# ---------------------------------------------------------------- where a value comes from
