"""What is fuzzed: each target takes one case, and may give only evidence or a clear error."""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

from markdown_it import MarkdownIt

from meshdoctor.check import SOURCES
from meshdoctor.collectors.rules import RulesError, lay_over
from meshdoctor.diagnosis import Checks, examine, load_checks
from meshdoctor.evidence import layout
from meshdoctor.evidence.compose import ComposeFiles
from meshdoctor.evidence.interface import DecodeError, Evidence, MissingEvidenceError
from meshdoctor.report import html, junit, markdown, sarif, text
from meshdoctor.report import json as json_report
from meshdoctor.report.document import CheckVerdict
from meshdoctor.report.terminal import Terminal
from meshdoctor.settings import SettingsError
from meshdoctor.settings import load as load_settings
from meshdoctor.snapshot import Snapshot, SnapshotError, open_snapshot
from meshdoctor.snapshot.redaction import RedactionError, redact
from meshdoctor.topology.plan import Plan
from tests.fuzz.mutation import HEAD
from tests.report.planted import NAMES, planted

FIXTURES: Final = Path(__file__).parents[2] / "fixtures"
FOUND: Final = Path(__file__).parent / "found"
"""A folder a target: cases that once broke it, and must not again."""

_LARGEST_SEED: Final = 12_000
_SEEDS_OF_A_KIND: Final = 12
_BESIDE: Final = {
    "consul": {"consul/catalog/services.json": b'{"details": [], "web": []}'},
    "envoy": {"envoy/beside/config_dump.json": b'{"configs": []}'},
}
"""What a source needs beside a damaged document, so that the document is looked at."""


class FaultError(AssertionError):
    """A target did what no input may make it do."""


# ---------------------------------------------------------------- decoders


def decoders(case: bytes) -> None:
    """The document of the case, by the decoder of its source."""
    name, body = _document(case)
    source = name.partition("/")[0]
    documents = Snapshot({**_BESIDE.get(source, {}), name: body})
    for evidence in _evidence_of(source):
        try:
            evidence.load(documents)
        except (DecodeError, MissingEvidenceError) as error:
            _said(str(error))


def _evidence_of(source: str) -> tuple[type[Evidence], ...]:
    return tuple(each for each in SOURCES if each.__module__.split(".")[2] == source)


def redaction(case: bytes) -> None:
    """The document of the case, redacted as when it is collected; twice is as once."""
    name, body = _document(case)
    try:
        clean, _ = redact(name, body)
    except RedactionError as error:
        _said(str(error))
        return
    if (
        name.endswith(".json")
        and not name.startswith("envoy/")
        and redact(name, clean)[0] != clean
    ):
        raise FaultError(f"{name}: what was redacted is redacted further")


# ---------------------------------------------------------------- the whole


def check(case: bytes) -> None:
    """`check --snapshot` of a fixture whose document the case replaces, in every format."""
    place, body = _placed(case)
    folder, name = _case_and_name(place)
    report = examine(
        Snapshot({**_case(folder), name: body}), _checks(), {"kind": "snapshot", "paths": ["x"]}
    )
    for result in report.checks:
        if result.verdict is CheckVerdict.CRASHED:
            raise FaultError(f"{result.code} crashed: {result.reason}")
    shown = text.render(report, Terminal())
    if not shown.replace("\n", "").isprintable():
        raise FaultError("the text holds letters that a terminal would obey")
    json.loads(json_report.render(report))


@cache
def _checks() -> Checks:
    return load_checks(())


@cache
def _cases() -> Mapping[str, Path]:
    root = FIXTURES / "checks"
    return {each.relative_to(root).as_posix(): each for each in root.glob("*/*/*")}


@cache
def _case(folder: str) -> Mapping[str, bytes]:
    root = _cases().get(folder)
    if root is None:
        return {}
    files = (each for each in root.rglob("*") if each.is_file() and each.name != "expected.txt")
    return {each.relative_to(root).as_posix(): each.read_bytes() for each in files}


# ---------------------------------------------------------------- what is shown


def names(case: bytes) -> None:
    """The case as the name of a service, in a report of every format: text, and nothing else."""
    name = case.decode("utf-8", "replace")
    report, picture = planted((name or "x", "beside"))
    for shown in (text.render(report, Terminal()), markdown.render(report), junit.render(report)):
        if not shown.replace("\n", "").isprintable():
            raise FaultError("the report holds letters that a terminal would obey")
    for document in (json_report.render(report), sarif.render(report)):
        json.loads(document)
        if not document.replace("\n", "").isascii():
            raise FaultError("JSON holds letters that are not escaped")
    alien = _tags_of_junit(junit.render(report)) - _known().junit
    alien |= _elements(html.render(report, picture)) - _known().html
    alien |= _in_markdown(markdown.render(report)) - _known().markdown
    if alien:
        raise FaultError(f"a name became more than text: {sorted(alien)[:3]}")


@dataclass(frozen=True, slots=True)
class _Known:
    """What reports are made of where names are plain words."""

    junit: frozenset[str]
    html: frozenset[str]
    markdown: frozenset[str]


@cache
def _known() -> _Known:
    drawn = [planted((each, "beside")) for each in ("web", "web.example.com", "x" * 6000)]
    return _Known(
        frozenset().union(*(_tags_of_junit(junit.render(each)) for each, _ in drawn)),
        frozenset().union(*(_elements(html.render(*each)) for each in drawn)),
        frozenset().union(*(_in_markdown(markdown.render(each)) for each, _ in drawn)),
    )


def _tags_of_junit(document: str) -> set[str]:
    return {each.tag for each in ET.fromstring(document).iter()}  # noqa: S314 # our own


class _Elements(HTMLParser):
    """Each element with its attributes' names, where it leads, and what scripts there are."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_script = tag in {"script", "style"}
        self.found |= {tag, *(f"{tag} {name}" for name, _ in attrs)}
        leads = (value or "" for name, value in attrs if name in {"href", "src", "action"})
        self.found |= {f"to {each}" for each in leads if not each.startswith("#")}

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.found.add(data)
        self._in_script = False


def _elements(page: str) -> set[str]:
    parser = _Elements()
    parser.feed(page)
    parser.close()
    return parser.found


def _in_markdown(document: str) -> set[str]:
    """What a reader with raw HTML and tables makes of it: kinds of tokens, elements, links."""
    parsed = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    found = set()
    for block in parsed.parse(document):
        for each in (block, *(block.children or ())):
            found.add(each.type)
            if each.type.startswith("html"):
                found |= _elements(each.content)
            if each.type in {"link_open", "image"}:
                found.add(f"to {each.attrs.get('href', each.attrs.get('src'))}")
    return found


def _names() -> Iterator[bytes]:
    for each in (*NAMES, *_TRICKS):
        yield each.encode()


_TRICKS: Final = (
    "\x1b[31mred\x9b0m\u2028\u2029\ufeff",
    "[bold]x[/bold][link=javascript:x]y",
    "*a* _b_ ~~c~~ `d` > e # f - g 1. h | i \\ j",
    "<!--<![CDATA[<?x?>&lt;&#60;&#x3c;",
    "{{ 7*7 }}{% raw %}${x}",
    "data:text/html,<svg/onload=x>",
)


# ---------------------------------------------------------------- files that people name


def archive(case: bytes) -> None:
    """The case itself as a snapshot file."""
    with tempfile.NamedTemporaryFile(suffix=".tgz") as file:
        file.write(case)
        file.flush()
        try:
            snapshot = open_snapshot(Path(file.name))
        except SnapshotError as error:
            _said(str(error))
            return
    for name in snapshot.names():
        if name.startswith("/") or ".." in name.split("/"):
            raise FaultError(f"{name!r} leads outside the snapshot")
        snapshot.read(name)


def files(case: bytes) -> None:
    """A Compose file, rules or settings, as its first line says."""
    kind, body = _placed(case)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(kind).name or "x").with_suffix(
            ".toml" if kind.endswith("toml") else ".yaml"
        )
        path.write_bytes(body)
        try:
            _read_file(kind, path, body)
        except (DecodeError, RulesError, SettingsError) as error:
            _said(str(error))


def _read_file(kind: str, path: Path, body: bytes) -> None:
    if kind.startswith("compose"):
        found = ComposeFiles.of(
            [(path.name, body.decode("utf-8", "replace"))],
            folder="x",
            environment={},
            read=lambda _name: None,
        )
        Plan.of(found)
    elif kind.endswith("toml"):
        load_settings(path)
    else:
        lay_over(Snapshot({"docker/version.json": b"{}"}), [path])


# ---------------------------------------------------------------- cases


def _placed(case: bytes) -> tuple[str, bytes]:
    head, _, body = case.partition(HEAD)
    return head.decode("utf-8", "replace"), body


def _document(case: bytes) -> tuple[str, bytes]:
    place, body = _placed(case)
    return _case_and_name(place)[1], body


def _case_and_name(place: str) -> tuple[str, str]:
    """`registry/stale_registration/fires-x consul/status/leader.json`."""
    folder, _, name = place.partition(" ")
    if name.partition("/")[0] not in layout.SOURCES:
        return folder, "docker/containers.json"
    return folder, name


def _said(message: str) -> None:
    if not message.strip():
        raise FaultError("an error without a word")


def _documents() -> Iterator[bytes]:
    """Documents of the fixtures, some of each kind; each was recorded or cut from a recording."""
    kinds: dict[str, int] = {}
    seen: set[bytes] = set()
    for path in sorted((FIXTURES / "checks").rglob("*/*/*/**/*.*")):
        parts = path.relative_to(FIXTURES / "checks").parts
        folder, name = "/".join(parts[:3]), "/".join(parts[3:])
        if not path.is_file() or name.partition("/")[0] not in layout.SOURCES:
            continue
        kind = name.partition("/")[0] + path.name if parts[3] == "envoy" else "/".join(parts[3:5])
        body = path.read_bytes()
        digest = hashlib.sha256(body).digest()
        if len(body) > _LARGEST_SEED or digest in seen:
            continue
        seen.add(digest)
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] <= _SEEDS_OF_A_KIND:
            yield f"{folder} {name}".encode() + HEAD + body
    yield from _pages()


def _pages() -> Iterator[bytes]:
    """Pages of the recordings, their lists cut short."""
    for mesh in ("broken", "fixed-v2", "connect-collision"):
        snapshot = open_snapshot(FIXTURES / "meshes" / f"{mesh}.tgz")
        for name in snapshot.names():
            body = snapshot.read(name)
            if name.endswith(".json"):
                body = json.dumps(_shortened(json.loads(body)), separators=(",", ":")).encode()
            if len(body) <= _LARGEST_SEED:
                yield b" " + name.encode() + HEAD + body


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if key != "extensions"}
        return {key: _shortened(each) for key, each in list(kept.items())[:40]}
    if isinstance(value, list):
        return [_shortened(each) for each in value[:4]]
    return value


def _archives() -> Iterator[bytes]:
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode=mode, format=form) as archive:
                for name, body in (
                    ("manifest.json", b'{"schema": "meshdoctor.snapshot/v1"}'),
                    ("docker/version.json", b"{}"),
                    ("docker/logs/\u00e4.log", b"x"),
                ):
                    member = tarfile.TarInfo(name)
                    member.size = len(body)
                    archive.addfile(member, io.BytesIO(body))
            yield packed.getvalue()


def _files() -> Iterator[bytes]:
    for path in sorted((FIXTURES / "compose").rglob("*.y*ml")):
        yield b"compose.yaml" + HEAD + path.read_bytes()
    for mesh in ("broken", "fixed"):
        snapshot = open_snapshot(FIXTURES / "meshes" / f"{mesh}.tgz")
        for name in snapshot.names("istio/"):
            yield b"rules.yaml" + HEAD + snapshot.read(name)
    yield b"meshdoctor.toml" + HEAD + _SETTINGS


_SETTINGS: Final = b"""\
fail-on = "warning"
docker-host = "ssh://me@mesh"
consul = "http://127.0.0.1:8500"
timeout = 30
ignore = ["MD209"]

[envoy]
web = "http://127.0.0.1:19000"

[severity]
MD401 = "warning"

[[suppress]]
code = "MD209"
subject = "pilot-*"
reason = "known"
until = 2027-01-01
"""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to fuzz: what takes a case, what to begin with, whether cases name documents."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    has_head: bool = True

    def found(self) -> list[Path]:
        """The cases that once broke it."""
        folder = FOUND / self.run.__name__
        return sorted(folder.iterdir()) if folder.is_dir() else []


TARGETS: Final[Mapping[str, Target]] = {
    "decoders": Target(decoders, _documents),
    "redaction": Target(redaction, _documents),
    "archive": Target(archive, _archives, has_head=False),
    "files": Target(files, _files),
    "check": Target(check, _documents),
    "names": Target(names, _names, has_head=False),
}
