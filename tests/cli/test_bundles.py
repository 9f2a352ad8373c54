"""Secrets planted wherever evidence is collected: none is in a bundle, nor in any report."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from meshdoctor.cli import REPORT_FORMATS
from meshdoctor.evidence.interface import Problem
from meshdoctor.snapshot import Snapshot, open_snapshot, write_snapshot
from meshdoctor.snapshot.redaction import redact
from tests.cli.conftest import Run
from tests.timeless import report

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"
RECORDINGS = sorted(MESHES.glob("*.tgz"))

PLANTED: Final = "pl4nted"
TOKEN: Final = f"{PLANTED}-5f1a0c9e-0000-4000-8000-c0ffee000001"
URL: Final = f"https://admin:{PLANTED}@registry.example/v2/"
PEM: Final = f"-----BEGIN PRIVATE KEY-----\nMIIC{PLANTED}AAAA\n-----END PRIVATE KEY-----\n"
JWT: Final = f"eyJhbGciOiJub25lIn0.{PLANTED}AAAAAAAA.{PLANTED}"
LINES: Final = (
    f"level=error msg=failed Authorization: Bearer {TOKEN}",
    f"GET /login?user=jason&pin={PLANTED} 200",
    f"customer {PLANTED} ordered a book",
    f"cannot connect to {URL}",
    f"error: --token {TOKEN}",
    f"failed with PASSWORD={TOKEN}",
)

IN_ANY: Final = {
    "api_key": TOKEN,
    "clientSecret": TOKEN,
    "x-consul-token": TOKEN,
    "private_key": {"inline_string": PEM},
    "headers": [{"key": "Authorization", "value": f"Bearer {TOKEN}"}],
    "where": URL,
    "jwt": JWT,
    "pem": PEM,
}
"""What may stand in any object of any source."""


def planted(name: str, raw: bytes) -> bytes:
    if not name.endswith(".json"):
        lines = LINES if name.startswith("docker/logs/") else LINES[3:]
        # In the middle: the first line of a log, and its last, may be quoted.
        first, _, rest = raw.decode().partition("\n")
        return "\n".join((first, *lines, rest)).encode()
    return json.dumps(with_secrets(json.loads(raw), "", top=True)).encode()


def with_secrets(value: Any, field: str, *, top: bool = False) -> Any:
    if isinstance(value, dict):
        inside = {key: with_secrets(each, key) for key, each in value.items()}
        # Objects that are keyed by names hold nothing else.
        return (
            inside
            if field in NAMED or (top and not HOLDS_FIELDS & value.keys())
            else (inside | IN_ANY)
        )
    if isinstance(value, list):
        listed = [with_secrets(each, field) for each in value]
        match field:
            case "Env":
                return [*listed, f"DB_PASSWORD={TOKEN}", f"SERVICE_API_KEY={TOKEN}", f"X={URL}"]
            case "Args" | "Cmd" | "Entrypoint":
                return [*listed, "-token", TOKEN, f"--password={TOKEN}", "-at", URL]
            case "ServiceTags" | "Tags":
                return [*listed, URL, f"token={TOKEN}", f"api-key|{PLANTED}"]
        return listed
    return value


NAMED: Final = frozenset(
    {
        "Networks",
        "Ports",
        "ExposedPorts",
        "PortBindings",
        "Containers",
        "Volumes",
        "TaggedAddresses",
    }
)
HOLDS_FIELDS: Final = frozenset(
    {"configs", "Config", "Version", "Name", "node", "stats", "items", "certificates", "way"}
    | {"cluster_statuses", "listener_statuses", "Roots", "state"}
)


@pytest.fixture(params=["broken", "connect-collision"])
def recording(request: pytest.FixtureRequest) -> Snapshot:
    """A recorded mesh, with documents of the kinds that it lacks."""
    snapshot = open_snapshot(MESHES / f"{request.param}.tgz")
    more = {
        "kube/config.json": json.dumps(
            {
                "clusters": [{"name": "c", "cluster": {"server": URL}}],
                "users": [{"name": "u", "user": {"token": TOKEN, "client-key-data": TOKEN}}],
            }
        ).encode(),
        "zipkin/services.json": b'["reviews"]',
        "istio/virtualservices.json": json.dumps(
            {
                "items": [
                    {
                        "kind": "VirtualService",
                        "metadata": {"name": "r", "annotations": {"last": TOKEN}},
                        "spec": {
                            "hosts": ["r"],
                            "http": [{"match": [{"headers": {"cookie": {"exact": TOKEN}}}]}],
                        },
                    }
                ]
            }
        ).encode(),
    }
    documents = {name: snapshot.read(name) for name in snapshot.names()}
    return Snapshot(
        {name: planted(name, raw) for name, raw in (more | documents).items()},
        absent=(Problem("envoy/late/stats.json", f"at {URL}: refused"),),
        created=snapshot.created,
    )


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            yield member.name, stream.read() if stream is not None else b""


def test_no_planted_secret_leaves(recording: Snapshot, run: Run, tmp_path: Path) -> None:
    """Neither with the bundle nor with a report made from it."""
    raw = tmp_path / "raw"
    write_snapshot(recording, raw, tool="test", version="0")
    assert PLANTED in (raw / "manifest.json").read_text()
    for options in ((), ("--pseudonyms",)):
        bundle = tmp_path / f"bundle{len(options)}.tgz"
        ran = run("snapshot", "--snapshot", raw, "-o", bundle, *options)
        assert ran.code == 0, ran.stderr
        assert PLANTED not in ran.stderr
        for name, body in members(bundle):
            assert PLANTED not in body.decode(), (name, context(body.decode()))
        written = {form: tmp_path / f"report{len(options)}.{form}" for form in REPORT_FORMATS}
        outputs = (f"--output={form}={path}" for form, path in written.items())
        ran = run("check", "--snapshot", bundle, *outputs)
        for said in (ran.stdout, ran.stderr, *(path.read_text() for path in written.values())):
            assert PLANTED not in said


def context(text: str) -> str:
    at = text.index(PLANTED)
    return text[max(0, at - 120) : at + 40]


def test_what_was_left_out_is_said(recording: Snapshot, run: Run, tmp_path: Path) -> None:
    """In the manifest, by document."""
    raw, bundle = tmp_path / "raw", tmp_path / "bundle"
    write_snapshot(recording, raw, tool="test", version="0")
    run("snapshot", "--snapshot", raw, "-o", bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    told = {each["document"]: each["count"] for each in manifest["redactions"]}
    assert told.keys() >= {"kube/config.json", "istio/virtualservices.json"}
    assert all(count > 0 for count in told.values())


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_report_made_from_a_bundle_is_the_same(path: Path, run: Run, tmp_path: Path) -> None:
    """To the last pointer and excerpt: what is left out, no check would have used."""
    raw = open_snapshot(path)
    bundle = tmp_path / "bundle.tgz"
    assert run("snapshot", "--snapshot", path, "-o", bundle).code == 0
    assert report(open_snapshot(bundle)) == report(raw)


def test_the_same_evidence_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    """Whenever, and from a folder as from an archive."""
    paths = [tmp_path / f"{n}.tgz" for n in range(3)]
    run("snapshot", "--snapshot", MESHES / "broken.tgz", "-o", paths[0])
    with tarfile.open(MESHES / "broken.tgz") as archive:
        archive.extractall(tmp_path / "folder", filter="data")
    run("snapshot", "--snapshot", tmp_path / "folder", "-o", paths[1])
    run("snapshot", "--snapshot", paths[0], "-o", paths[2])
    one, *others = (path.read_bytes() for path in paths)
    assert all(other == one for other in others)
    with tarfile.open(fileobj=io.BytesIO(one)) as archive:
        listed = archive.getmembers()
    assert {(each.mtime, each.uid, each.gid, each.uname) for each in listed} == {(0, 0, 0, "")}
    assert [each.name for each in listed][1:] == sorted(each.name for each in listed[1:])
    assert one[4:8] == bytes(4)


def test_of_a_log_only_what_tells_is_kept() -> None:
    """The first line, failures, registrations, and the last."""
    log = (
        "2026-11-22T19:59:08Z Starting registrator v7 ...\n"
        "2026-11-22T19:59:09Z customer 4711 logged in\n"
        "2026-11-22T19:59:10Z added: 7cd48d9a2d52 host:web:80\n"
        "2026-11-22T19:59:11Z lookup consul on 127.0.0.11:53: no such host\n"
        "\n"
        "2026-11-22T19:59:12Z order 4712 paid\n"
        "2026-11-22T19:59:13Z Listening for Docker events ...\n"
        "2026-11-22T19:59:14Z [ERR] agent: failed to check for updates: no route\n"
    )
    clean, count = redact("docker/logs/registrator.log", log.encode())
    kept = [line.split(" ", 1)[1] for line in clean.decode().splitlines()]
    assert kept == [
        "Starting registrator v7 ...",
        "added: 7cd48d9a2d52 host:web:80",
        "lookup consul on 127.0.0.11:53: no such host",
        "Listening for Docker events ...",
        "[ERR] agent: failed to check for updates: no route",
    ]
    assert count == 2
    assert redact("docker/logs/registrator.log", clean) == (clean, 0)
