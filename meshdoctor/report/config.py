"""The settings in force, and where each comes from: as text and as JSON."""

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from meshdoctor.findings import Severity
from meshdoctor.report import schemas
from meshdoctor.report.json import written
from meshdoctor.report.page import Page
from meshdoctor.report.terminal import Terminal

SCHEMA: Final = "meshdoctor.config/v1"

_BY_ITSELF: Final[Mapping[str, str]] = {
    "select": "every check",
    "ignore": "none",
    "checks": "none but those installed",
    "docker-host": "that of the Docker context",
    "docker-context": "the one in use",
    "consul": "found through Docker or here",
    "consul-token-file": "no token",
    "pilot": "found through Docker",
    "apiserver": "found through Docker",
    "kubeconfig": "none",
    "envoy": "found through Docker or here",
}
"""What holds where nobody said anything."""

_COLUMN: Final = 30
"""Columns that a value gets at least to stand in a column of its own."""


class Origin(enum.StrEnum):
    """Where a value comes from, the strongest first."""

    FLAG = "flag"
    VARIABLE = "variable"
    FILE = "file"
    DEFAULT = "default"


class Setting(msgspec.Struct, frozen=True):
    """One setting. `value` is None where there is none, or it is a secret.

    `where` says more of its origin: the flag, the variable, or the file and its line.
    """

    key: str
    value: Any
    origin: Origin
    where: str = ""


class SuppressionInForce(msgspec.Struct, frozen=True):
    """One suppression as the file has it; `subject` and `until` are "" where there is none."""

    code: str
    subject: str
    reason: str
    until: str
    expired: bool
    where: str


class SeverityInForce(msgspec.Struct, frozen=True):
    """How severe the findings of one check are by the file."""

    code: str
    severity: Severity
    where: str


class Config(msgspec.Struct, frozen=True):
    """All settings of a run. `file` is None where there is no settings file."""

    file: Path | None
    settings: Sequence[Setting]
    suppress: Sequence[SuppressionInForce] = ()
    severity: Sequence[SeverityInForce] = ()


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that `render_json` satisfies."""
    return schemas.load("config-v1")


def render(config: Config, terminal: Terminal | None = None) -> str:
    """The settings as text for `terminal`, by default for a pipe."""
    page = Page(terminal or Terminal())
    found = f"Settings file: {config.file}" if config.file else "No settings file was found."
    page.paragraph(page.text(found))
    page.gap()
    engine = any(each.key == "docker-host" and each.value for each in config.settings)
    rows = []
    for each in config.settings:
        said = _value(each)
        if each.key == "docker-context" and each.value is None and engine:
            said = "not asked, for there is a docker-host"
        rows.append((each.key, said, each.where or each.origin.value))
    rows += [
        ("severity", f"{each.code} = {each.severity}", each.where) for each in config.severity
    ]
    rows += [("suppress", _suppression(each), each.where) for each in config.suppress]
    widest = max(len(key) for key, _, _ in rows)
    below = " " * (widest + 4)
    if page.terminal.width < len(below) + _COLUMN:
        # Beside the keys there is no room: what is said of one goes on below it.
        widest, below = 0, " " * 4
    # The file is named whole at the top.
    folder = "" if config.file is None else f"{config.file.parent}/"
    for key, said, where in rows:
        page.paragraph(
            page.text(
                (key.ljust(widest), "bold"),
                f"  {said}",
                (f"  ({where.removeprefix(folder)})", "dim"),
            ),
            "  ",
            below,
        )
    return str(page)


def render_json(config: Config) -> str:
    """The settings as one JSON document, `meshdoctor.config/v1`, in ASCII, with a line end."""
    document = {
        "schema": SCHEMA,
        "file": None if config.file is None else str(config.file),
        "settings": [
            {
                "key": each.key,
                "value": _plain(each.value),
                "origin": each.origin.value,
                "where": each.where,
            }
            for each in config.settings
        ],
        "severity": [
            {"code": each.code, "severity": each.severity.value, "where": each.where}
            for each in config.severity
        ],
        "suppress": [
            {
                "code": each.code,
                "subject": each.subject,
                "reason": each.reason,
                "until": each.until,
                "expired": each.expired,
                "where": each.where,
            }
            for each in config.suppress
        ],
    }
    return written(document)


def _value(setting: Setting) -> str:
    match setting.value:
        case None:
            if setting.origin is Origin.VARIABLE:
                return "a token, not shown"
            return _BY_ITSELF[setting.key]
        case float():
            return f"{setting.value:g} s"
        case Mapping():
            return ", ".join(f"{name} at {url}" for name, url in setting.value.items())
        case list() | tuple():
            return ", ".join(map(str, setting.value))
        case _:
            return str(setting.value)


def _suppression(entry: SuppressionInForce) -> str:
    about = f"{entry.code} {entry.subject}".rstrip()
    if not entry.until:
        return f"{about}: {entry.reason}"
    return f"{about}: {entry.reason}; {'held' if entry.expired else 'holds'} until {entry.until}"


def _plain(value: Any) -> Any:
    match value:
        case Path():
            return str(value)
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return value
