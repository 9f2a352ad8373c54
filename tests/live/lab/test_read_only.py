"""Whatever is asked of a mesh of real programs only reads: seen by a recorder on every way."""

import contextlib
import http.client
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from meshdoctor.collectors import Options, collect, namespace
from meshdoctor.collectors.tools import SCRIPT
from meshdoctor.snapshot import Snapshot
from tests.cli.conftest import process
from tests.live.lab.lab import APPLICATIONS, PORT, PROJECT, SERVICES, Lab
from tests.live.nobody import as_nobody
from tests.live.recorder import Connect, Recorder, recording, to, to_socket

SOCKET: Final = "/var/run/docker.sock"
ADMIN: Final = 15000
READS: Final = re.compile(
    r"/_ping|/version|/info"
    r"|/containers/json|/containers/[^/]+/(json|logs)"
    r"|/networks|/networks/[^/]+"
    r"|/images/.+/json"
    r"|/exec/[0-9a-f]+/json"
)
"""What Docker's engine may be asked with GET: lists, inspections and logs."""
EXECS: Final = re.compile(r"/containers/[^/]+/exec|/exec/[0-9a-f]+/start")
"""What it may be asked with POST."""
COMMANDS: Final = re.compile(
    rf"sh -c {re.escape(SCRIPT)} meshdoctor [0-9a-f]{{32}} (curl|wget|pilot-agent|python3|bash)? "
    r"\d+( \d+)* \d+ \d+( [\w/?&=%.~-]+)*"
    r"|curl -sS -f -g --noproxy \* --max-time \d+ http://127\.0\.0\.1:\d+/[\w/?&=%.~-]*"
    r"|wget -q -t 1 -T \d+ -O - http://127\.0\.0\.1:\d+/[\w/?&=%.~-]*"
    r"|pilot-agent request GET [\w/?&=%.~-]*"
    r"|iptables-save"
)
"""What may be run in a container: it looks for a program, asks its own localhost, lists rules.

What the script may hold is told in `tests/collectors/test_tools.py`.
"""
PAGES: Final = re.compile(
    r"/(server_info|config_dump\?include_eds|config_dump|clusters\?format=json"
    r"|listeners\?format=json|stats\?format=json(&filter=[\w%.~-]+(&usedonly)?)?|certs)"
)
"""What an Envoy's admin interface may be asked: it has pages that change things, by POST."""


@dataclass(frozen=True)
class Recorders:
    """One for each server that a run may ask, and how to have it asked there."""

    docker: Recorder
    consul: Recorder
    pilot: Recorder
    apiserver: Recorder
    envoys: Mapping[str, Recorder]
    options: Options


def sidecar(application: str) -> str:
    return f"{PROJECT}_{application}-sidecar_1"


def inside(lab: Lab, container: str) -> Connect:
    """Connections to the admin interface on the localhost of a container's network."""
    pid = int(lab.docker("inspect", "-f", "{{.State.Pid}}", container).strip())
    return lambda: namespace.within(pid, to("127.0.0.1", ADMIN), 30)


@pytest.fixture(scope="module")
def recorders(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorders]:
    """A recorder before Docker, Consul, Pilot, the API server, and each Envoy."""
    with ExitStack() as stack:

        def before(connect: Connect, at: Path | None = None) -> tuple[str, Recorder]:
            return stack.enter_context(recording(connect, at))

        at = tmp_path_factory.mktemp("docker") / "docker.sock"
        engine, docker = before(to_socket(SOCKET), at)
        catalogue, consul = before(to("127.0.0.1", 8500))
        debug, pilot = before(to("127.0.0.1", 8081))
        rules, apiserver = before(to("127.0.0.1", 8080))
        admin = {sidecar(each): before(inside(lab, sidecar(each))) for each in APPLICATIONS}
        yield Recorders(
            docker,
            consul,
            pilot,
            apiserver,
            {name: recorder for name, (_, recorder) in admin.items()},
            Options(
                docker_host=engine,
                consul=catalogue,
                pilot=debug,
                apiserver=rules,
                envoys={name: url for name, (url, _) in admin.items()},
            ),
        )


def state(lab: Lab) -> Mapping[str, Any]:
    """What a run must leave as it is: containers, registrations, rules, what each Envoy holds."""
    ids = lab.docker(
        "ps", "-aq", "--no-trunc", "--filter", f"label=com.docker.compose.project={PROJECT}"
    )
    form = "{{.Id}} {{.Name}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}}"
    containers = lab.docker("inspect", "-f", form, *sorted(ids.split()))
    everything = lab.docker("ps", "-aq", "--no-trunc")
    services = {
        each: json.loads(
            lab.run(["curl", "-fsS", f"http://127.0.0.1:8500/v1/catalog/service/{each}"])
        )
        for each in SERVICES
    }
    rules = [
        lab.kubectl("get", kind, "-A", "-o", "json").stdout
        for kind in ("virtualservices", "destinationrules")
    ]
    return {
        "containers": containers,
        "of anybody": sorted(everything.split()),
        "registrations": services,
        "rules": rules,
        "configuration": {each: configuration(lab, sidecar(each)) for each in APPLICATIONS},
    }


def admin(lab: Lab, container: str, page: str) -> Any:
    """A page of an Envoy, asked past meshdoctor."""
    connection = http.client.HTTPConnection("127.0.0.1")
    connection.sock = inside(lab, container)()
    with contextlib.closing(connection):
        connection.request("GET", f"/{page}")
        return json.load(connection.getresponse())


def configuration(lab: Lab, container: str) -> tuple[Any, ...]:
    """What an Envoy was told, with the version and moment of each push, and as what it runs."""
    info = admin(lab, container, "server_info")
    dump = admin(lab, container, "config_dump")
    return dump["configs"], info["state"], info["command_line_options"]


def gather(options: Options) -> Snapshot:
    snapshot = collect(options, lambda _said: None)
    dumps = {name for name in snapshot.documents if name.endswith("/config_dump.json")}
    assert dumps == {f"envoy/{sidecar(each)}/config_dump.json" for each in APPLICATIONS}
    return snapshot


def judge_docker(recorder: Recorder) -> list[list[str]]:
    """Only lists, inspections, logs, and execs that read; the commands of these."""
    commands = []
    for each in recorder.asked:
        path = each.path.partition("?")[0]
        if each.method == "GET":
            assert READS.fullmatch(path), each.path
            continue
        assert each.method == "POST", (each.method, each.path)
        assert EXECS.fullmatch(path), each.path
        if path.startswith("/containers/"):
            assert COMMANDS.fullmatch(" ".join(each.command)), each.command
            settings = json.loads(each.body)
            assert not settings["Privileged"]
            assert not settings["AttachStdin"]
            commands.append(each.command)
    return commands


def test_only_reading_is_asked_of_any_source(lab: Lab, recorders: Recorders) -> None:
    """GET alone, of each; and no Envoy is asked for two pages at once, nor one page twice."""
    before = state(lab)
    gather(recorders.options)
    assert judge_docker(recorders.docker) == []
    for each in (recorders.consul, recorders.pilot, recorders.apiserver):
        assert each.asked
        assert {asked.method for asked in each.asked} == {"GET"}
    for name, recorder in recorders.envoys.items():
        assert {asked.method for asked in recorder.asked} == {"GET"}, name
        pages = [asked.path for asked in recorder.asked]
        assert all(map(PAGES.fullmatch, pages)), pages
        # Envoy writes a page on the one thread that also takes configuration: it is free between
        # two pages, and never held for longer than one takes.
        assert recorder.overlapping() == [], name
        assert len(pages) == len(set(pages)), pages
    assert state(lab) == before


def test_what_is_run_in_containers_only_reads(lab: Lab) -> None:
    """Who may do nothing but use Docker has exec alone: each command is of the list."""
    before, files = state(lab), changed(lab)
    with recording(to_socket(SOCKET)) as (address, recorder):
        document = f"envoy/{sidecar(APPLICATIONS[0])}/access.json"
        way = json.loads(as_nobody(document, docker_host=address.replace("http:", "tcp:")))["way"]
    commands = judge_docker(recorder)
    ran = {" ".join(each) for each in commands}
    assert way == "exec"
    assert any("config_dump" in each for each in ran)
    assert "iptables-save" in ran
    # The rules beside a proxy may be listed meanwhile: that asks the kernel, not the proxy.
    asking = [each for each in recorder.asked if b"http://127.0.0.1:" in each.body]
    assert asking
    for container in {each.path for each in asking}:
        of_one = Recorder(recorder.connect, [e for e in asking if e.path == container])
        assert of_one.overlapping() == [], container
    assert state(lab) == before
    assert changed(lab) == files


def changed(lab: Lab) -> Mapping[str, Sequence[str]]:
    """What is another file in each sidecar than in its image."""
    return {each: sorted(lab.docker("diff", sidecar(each)).split("\n")) for each in APPLICATIONS}


def requests(lab: Lab) -> Mapping[str, int]:
    """How many requests each Envoy took, of its application and for it."""
    counted = {}
    for each in APPLICATIONS:
        stats = admin(lab, sidecar(each), "stats?format=json")["stats"]
        counted[each] = sum(
            stat["value"]
            for stat in stats
            if re.fullmatch(r"http\.(?!admin\.).*\.downstream_rq_total", stat.get("name", ""))
        )
    return counted


def test_probe_sends_what_it_announced_and_nothing_else(lab: Lab) -> None:
    """Real listeners count: each request once where it leaves, and once where it arrives.

    But a call to its own service may only come in again, where it is counted once.
    """
    lab.settle()
    before = state(lab)
    counted = requests(lab)
    ran = process("probe", "--format", "json", "--caller", "*reviews*", HOME="/nonexistent")
    announced = re.search(
        rf"probe sends (\d+) GET / requests from 3 workloads to {', '.join(SERVICES)}",
        " ".join(ran.stderr.split()),
    )
    assert announced is not None, ran.stderr
    pairs = json.loads(ran.stdout)["probe"]["requests"]
    assert int(announced[1]) == len(pairs) == 3 * len(SERVICES)
    assert {each["port"] for each in pairs} == {PORT}
    after = requests(lab)
    sent = {each: after[each] - counted[each] for each in APPLICATIONS}
    for each in ("details-v1", "productpage-v1", "ratings-v1"):
        assert sent[each] == 3, sent
    assert 2 * len(pairs) - 3 <= sum(sent.values()) <= 2 * len(pairs), sent
    assert state(lab) == before
