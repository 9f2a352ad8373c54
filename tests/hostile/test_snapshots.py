"""`check --snapshot` of what strangers may send: evidence, or a sentence that names the place."""

import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from meshdoctor import check
from meshdoctor.evidence.interface import MOST_PROBLEMS, MOST_VALUES
from meshdoctor.snapshot import open_snapshot
from tests.cli.conftest import MESHES, REPOSITORY, Ran, Run, environment, run
from tests.evidence.damage import recorded, recording

__all__ = ["run"]

MEMORY: Final = 3 * 2**30
"""Bytes of address space that reading any snapshot may take, the program itself included."""
SECONDS: Final = 120
"""Far more than any case takes here, and far less than for ever."""

CONTAINERS: Final = "docker/containers.json"
SERVICES: Final = "consul/catalog/services.json"
DETAILS: Final = "consul/catalog/service/details.json"
SIDECAR: Final = "consul_reviews-v1-sidecar_1"
DUMP: Final = f"envoy/{SIDECAR}/config_dump.json"
CLUSTERS: Final = f"envoy/{SIDECAR}/clusters.json"
NAT: Final = f"netfilter/{SIDECAR}.nat.txt"
METRICS: Final = "pilot/metrics.txt"

ESCAPES: Final = "\x1b[2J\x1b]0;owned\x07\u202e\u200b\r\n"
MARKUP: Final = "<script>alert(1)</script>[x](javascript:alert(1))`|**[red]bold[/red]&amp;\"'"


def packed(path: Path, documents: Mapping[str, bytes]) -> Path:
    """A .tgz of these documents."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, body in documents.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return path


def mesh_with(**changed: bytes) -> Mapping[str, bytes]:
    """The recorded mesh with some of its documents changed."""
    mesh = recording("broken")
    return {name: mesh.read(name) for name in mesh.names()} | changed


def one_changed(document: str, change: Callable[[Any], object]) -> bytes:
    found = recorded("broken", document)
    change(found)
    return json.dumps(found).encode()


def listeners(*written: Mapping[str, Any]) -> bytes:
    held = [{"name": each.get("name"), "active_state": {"listener": each}} for each in written]
    kind = "type.googleapis.com/envoy.admin.v3.ListenersConfigDump"
    return json.dumps({"configs": [{"@type": kind, "dynamic_listeners": held}]}).encode()


def renamed(name: str) -> Mapping[str, bytes]:
    """A name of a stranger's in each place where names stand."""

    def service(found: Any) -> None:
        found[0]["ServiceName"] = found[0]["ServiceID"] = name
        found[0]["ServiceMeta"] = {"protocol": name}
        found[0]["ServiceTags"] = [name]

    def container(found: Any) -> None:
        found[15]["Name"] = f"/{name}"
        found[16]["Config"]["Env"] = [f"SERVICE_NAME={name}", "SERVICE_PROTOCOL=http"]
        found[17]["Config"]["Image"] = name

    def rule(found: Any) -> None:
        item = {"metadata": {"name": name}, "spec": {"hosts": [name], "http": [{"route": []}]}}
        found["items"] = [item]

    return {
        CONTAINERS: one_changed(CONTAINERS, container),
        DETAILS: one_changed(DETAILS, service),
        SERVICES: one_changed(SERVICES, lambda found: found.update({name: [name]})),
        "istio/virtualservices.json": one_changed("istio/virtualservices.json", rule),
        DUMP: listeners({"name": name, "address": {"pipe": {"path": name}}}),
    }


def routes(regex: str, number: int) -> bytes:
    kind = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    matches = [{"match": {"safe_regex": {"regex": regex}}, "route": {"cluster": "x"}}] * number
    configuration = {
        "@type": kind,
        "name": "9080",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": matches}],
    }
    section = {
        "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
        "dynamic_route_configs": [{"route_config": configuration}],
    }
    http = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network"
        ".http_connection_manager.v3.HttpConnectionManager",
        "rds": {"route_config_name": "9080"},
    }
    listener = {
        "name": "0.0.0.0_9080",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 9080}},  # noqa: S104
        "filter_chains": [
            {"filters": [{"name": "envoy.http_connection_manager", "typed_config": http}]}
        ],
    }
    return json.dumps({"configs": [section, *json.loads(listeners(listener))["configs"]]}).encode()


# What stands where a document should, and what is said of it ("" where it tells something).
DOCUMENTS: Final[Mapping[str, tuple[str, bytes, str]]] = {
    "empty": (CONTAINERS, b"", "not JSON"),
    "nul": (CONTAINERS, b"\0" * 1000, "not JSON"),
    "utf-16": (CONTAINERS, '[{"Id": "a"}]'.encode("utf-16"), "not JSON"),
    "latin-1": (CONTAINERS, b'[{"Id": "\xe4"}]', "containers.json"),
    "lone surrogate": (CONTAINERS, b'[{"Id": "\\ud800"}]', "containers.json"),
    "deep lists": (CONTAINERS, b"[" * 1_000_000, "containers.json"),
    "deep objects": (DUMP, b'{"configs":' * 200_000, "config_dump.json"),
    "deep and whole": (DUMP, b'{"configs":' + b"[" * 90_000 + b"]" * 90_000 + b"}", ""),
    "wrong type": (CONTAINERS, b'{"Id": "a"}', "not of the expected form"),
    "wrong types within": (CONTAINERS, b'[1, null, "a", [], {"Id": []}]', "containers.json#/0"),
    "huge number": (CLUSTERS, b'{"cluster_statuses": 1%s}' % (b"0" * 100_000), "clusters.json"),
    "number beyond floats": (
        DETAILS,
        b'[{"ServiceName": "details", "ServicePort": 1e999}]',
        DETAILS,
    ),
    "NaN": (DETAILS, b'[{"ServiceName": "details", "ServicePort": NaN}]', DETAILS),
    "duplicate keys": (DETAILS, b'[{"ServiceName": "a", "ServiceName": "details"}]', ""),
    "megabytes in a string": (DUMP, b'"%s"' % (b"a" * 8_000_000), "config_dump.json"),
    "cut short": (CONTAINERS, recording("broken").read(CONTAINERS)[:5000], "not JSON"),
    "a page of HTML": (DUMP, b"<html>Sign in</html>", "config_dump.json"),
    "nat in one line": (NAT, b"*nat\n-A OUTPUT " + b"-j A " * 200_000, ""),
    "nat of chains": (
        NAT,
        b"*nat\n"
        + b"".join(b":C%d - [0:0]\n-A C%d -j C%d\n" % (n, n, n + 1) for n in range(9000))
        + b"-A OUTPUT -j C0\nCOMMIT\n",
        "",
    ),
    "nat of quotes": (NAT, b'*nat\n-A OUTPUT -m comment --comment "' + b"'" * 100_000, ""),
    "metrics of braces": (METRICS, b"pilot_x{" * 100_000, ""),
    "a log in one line": ("docker/logs/consul_pilot_1.log", b"error " * 2_000_000, ""),
    "regexes that explode": (DUMP, routes("(a|b|ab)*" * 50 + "c{1000}", 200), ""),
    "a regex of megabytes": (DUMP, routes("(?:" + "a?" * 500_000 + ")", 1), ""),
    "no regex at all": (DUMP, routes("([", 1), ""),
    "damage all over": (CONTAINERS, b"[%s1]" % (b"1," * 200_000), "damaged all over"),
    "listeners without anything": (DUMP, listeners(*[{"name": "a"}] * 20_000), ""),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_a_hostile_document_costs_only_itself(run: Run, tmp_path: Path, case: str) -> None:
    """It is named with what is wrong with it, and the other sources are examined."""
    document, body, said = DOCUMENTS[case]
    path = packed(tmp_path / "mesh.tgz", mesh_with(**{document: body}))
    ran = run("check", "--snapshot", path, "--format", "json")
    report = sound(ran)
    told = "\n".join(f"{each['name']} {each['reason']}" for each in report["coverage"]["sources"])
    told += "\n".join(each["reason"] for each in report["coverage"]["sidecars"]["unreachable"])
    assert said in told
    assert report["coverage"]["services"]


def sound(ran: Ran) -> Any:
    """The JSON report of a run that ended as a run may end."""
    assert ran.code in {0, 1, 3}, ran.stderr
    assert "Traceback" not in ran.stderr
    report = json.loads(ran.stdout)
    crashed = [each for each in report["checks"] if each["verdict"] == "crashed"]
    assert not crashed
    return report


NAMES: Final = (ESCAPES, MARKUP, "\0", "a" * 200_000, "\ud800", "..", "/", " ")


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:12]))
def test_names_of_strangers_are_inert(run: Run, tmp_path: Path, name: str) -> None:
    """A terminal obeys none of them, whatever the colour; sentences cut what is too long."""
    path = packed(tmp_path / "mesh.tgz", mesh_with(**renamed(name)))
    sound(run("check", "--snapshot", path, "--format", "json"))
    plain = run("check", "--snapshot", path, "--no-color")
    assert plain.stdout.replace("\n", "").isprintable()
    sentences = [line for line in plain.stdout.split("\n") if len(line) <= 100]
    assert sum(map(len, sentences)) < 1_000_000
    coloured = run("check", "--snapshot", path, "--color")
    assert "\x1b]" not in coloured.stdout
    assert "\x1b[2J" not in coloured.stdout
    for command in ("matrix", "checks"):
        arguments = ("--snapshot", path) if command == "matrix" else ()
        assert run(command, *arguments).stdout.replace("\n", "").isprintable()


def test_a_check_stops_before_nobody_could_read_it(run: Run, tmp_path: Path) -> None:
    """Sixty thousand ports of one container are not sixty thousand findings; that is said."""
    ports: dict[str, Any] = {f"{number}/tcp": {} for number in range(1, 60_000)}
    body = one_changed(
        CONTAINERS, lambda found: found[15]["Config"].update({"ExposedPorts": ports})
    )
    path = packed(tmp_path / "mesh.tgz", mesh_with(**{CONTAINERS: body}))
    report = sound(run("check", "--snapshot", path, "--format", "json"))
    cut = [each for each in report["checks"] if "stopped after" in (each["reason"] or "")]
    assert [each["verdict"] for each in cut] == ["found"]
    assert len(report["findings"]) < 3 * check.MAX_FINDINGS
    assert "stopped after" in run("check", "--snapshot", path).stdout


# ---------------------------------------------------------------- bombs


def confined(*arguments: object) -> Ran:
    """The program where it may have no more memory and no more time than a bomb must cost."""
    script = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))\n"
        "from meshdoctor.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        check=False,
        encoding="utf-8",
        cwd=REPOSITORY,
        env=environment(),
        timeout=SECONDS,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def zeros(path: Path, name: str, size: int, *, prefix: bytes, repeated: bytes) -> Path:
    """An archive of one document of `size` bytes, written without holding it."""
    head = tarfile.TarInfo(name)
    head.size = size
    block = repeated * (2**20 // len(repeated))
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(head.tobuf())
        written = file.write(prefix)
        while written < size:
            written += file.write(block[: size - written])
        file.write(bytes(-size % 512 + 1024))
    return path


BOMBS: Final[Mapping[str, tuple[str, int, bytes, bytes, str]]] = {
    "numbers": (CONTAINERS, 64 * 2**20, b"[", b"1,", "values"),
    "objects": (DUMP, 64 * 2**20, b'{"configs":[', b"{},", "values"),
    "lists": (CLUSTERS, 64 * 2**20, b'{"cluster_statuses":[', b"[[]],", "config_dump"),
    "zeros": (CONTAINERS, 64 * 2**20, b"", b"\0", "not JSON"),
    "larger than a document": (CONTAINERS, 257 * 2**20, b"", b"\0", "larger than"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_goes_off_within_its_bounds(tmp_path: Path, case: str) -> None:
    """A megabyte that unpacks to hundreds, of what is larger still once decoded."""
    document, size, prefix, repeated, said = BOMBS[case]
    path = zeros(tmp_path / "bomb.tgz", document, size, prefix=prefix, repeated=repeated)
    assert path.stat().st_size < size / 50
    ran = confined("check", "--snapshot", path, "--format", "json")
    assert ran.code == 3, ran.stderr
    assert "Traceback" not in ran.stderr
    assert said in ran.stdout + ran.stderr


def test_bounds_are_beyond_what_is_real() -> None:
    """No recorded document comes near them, though it be as large as a snapshot takes."""
    for path in MESHES.glob("*.tgz"):
        mesh = open_snapshot(path)
        for name in mesh.names():
            body = mesh.read(name)
            if not name.endswith(".json") or len(body) < 10_000:
                continue
            values = sum(map(body.count, (b",", b"[", b"{")))
            assert values / len(body) < MOST_VALUES / (60 * 2**20), name
    assert MOST_PROBLEMS > 100
