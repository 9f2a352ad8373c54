"""Collecting and judging a live mesh, against fetching the same bytes and against what people do.

The Envoys are real, each in a container's network namespace, as Docker runs sidecars. Which way
leads to them is found by meshdoctor itself; each way is also timed alone.
"""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import docker

from meshdoctor import __version__
from meshdoctor.collectors import Options, collect, namespace, ways
from meshdoctor.collectors.docker import Engine, connect
from meshdoctor.collectors.docker import collect as discover
from meshdoctor.collectors.envoy import paths, read_pages
from meshdoctor.collectors.interface import Deadline, Recorder, Run, Workers
from meshdoctor.diagnosis import examine, load_checks
from meshdoctor.evidence.docker import Container
from meshdoctor.snapshot import open_snapshot, write_snapshot
from tests.benchmarks.containers import ADMIN, sidecars
from tests.benchmarks.measure import Row, compare
from tests.live.mesh import LiveMesh, NoMeshError, stand_ins

_RECORDING: Final = Path(__file__).parents[2] / "fixtures" / "meshes" / "broken.tgz"
_SIDECARS: Final = 20
_FEW: Final = 100
_CORES: Final = os.cpu_count() or 1
_PATIENCE: Final = 60.0
_LOOPED: Final = (
    "docker exec ... curl one after another, and json (config dumps alone, not judged)"
)
_IN_A_SHELL: Final = (
    "a shell's loop of docker exec ... curl and jq (the ports and filters of their listeners)"
)
# What meshdoctor asks an Envoy for when it judges, in the same order.
_PAGES: Final = paths(whole=False)
# Nor is a Consul asked that may run here: the loop that it is compared with asks none either.
_OPTIONS: Final = Options(consul="http://127.0.0.1:1", whole=False)


def rows() -> Iterator[Row]:
    """20 sidecars of 100 and of 1000 services, then the mesh of the story with its six."""
    try:
        for services, at_most in ((_FEW, 0.25), (1000, 0.45)):
            with sidecars(_SIDECARS, services) as started:
                names = [each.name for each in started]
                what = f"{_SIDECARS} sidecars, S={services}"
                yield from _of(what, names, at_most)
                if services == _FEW:
                    yield from _against_a_shell(what, names)
        yield from _of_the_story()
    except NoMeshError as error:
        yield Row("collection", f"not measured: {error}", "", float("nan"))


def _of(what: str, names: Collection[str], at_most: float) -> Iterator[Row]:
    deadline = Deadline(3600, _PATIENCE)
    engine = connect(_OPTIONS, deadline)
    found = {each.id: each for each in _found(engine, deadline)}
    containers = [each for each in found.values() if each.name in names]
    fetching = partial(_at_once, _fetch, containers)
    looping = partial(_by_exec, names)
    fetched = "the same pages by http.client in their namespaces, a thread for each core"
    everything = f"{fetched}; and so Docker's answers, and their nat rules"
    fetching_all = partial(_fetch_all, engine, containers)
    yield _row(f"collect and judge {what}", everything, fetching_all, _judge, 1.25)
    yield _row(f"collect and judge {what}", fetched, fetching, _judge)
    yield _row(f"collect and judge {what}", _LOOPED, looping, _judge, at_most)
    yield _row(f"the command meshdoctor check, {what}", _LOOPED, looping, _command)
    for way, leading in _ways(engine, found, deadline).items():
        reading = partial(_at_once, partial(_read_by, leading), containers)
        yield _row(f"read {what} by {way}", fetched, fetching, reading)
    yield _row(
        f"find them among {2 * len(names)} containers, networks and images",
        "docker-py: the same questions, one after another",
        _by_the_sdk,
        partial(_found, engine, deadline),
        0.5,
    )
    engine.close()


def _against_a_shell(what: str, names: Collection[str]) -> Iterator[Row]:
    """What people have without meshdoctor, and with what it recorded."""
    if shutil.which("jq") is not None:
        yield _row(f"collect and judge {what}", _IN_A_SHELL, partial(_by_jq, names), _judge)
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "mesh.tgz"
        _record(recording)
        judging = partial(_judge_recorded, recording)
        yield _row(f"judge {what} from a .tgz", _LOOPED, partial(_by_exec, names), judging)


def _row(
    what: str,
    against: str,
    base: Callable[[], object],
    other: Callable[[], object],
    target: float | None = None,
) -> Row:
    found = compare(base, other, time.perf_counter)
    return Row("collection", what, against, found.ratio, target, found.spread)


# ---------------------------------------------------------------- what others do


def _at_once(reading: Callable[[Container], object], containers: Iterable[Container]) -> None:
    with ThreadPoolExecutor(_CORES) as pool:
        list(pool.map(reading, containers))


def _fetch(container: Container) -> None:
    def inside() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", ADMIN, timeout=_PATIENCE)
        for page in _PAGES:
            connection.request("GET", page)
            connection.getresponse().read()
        connection.close()

    namespace.within(container.pid, inside, _PATIENCE)


def _fetch_all(engine: Engine, containers: Sequence[Container]) -> None:
    """All that a run reads, byte for byte, and nothing made of it."""
    with ThreadPoolExecutor(_CORES) as pool:
        docker_asked = _Asking(engine.url.removeprefix("unix://"))
        listed = json.loads(docker_asked("/containers/json?all=1"))
        asked = [f"/containers/{each['Id']}/json" for each in listed]
        asked += [f"/images/{each}/json" for each in {each["ImageID"] for each in listed}]
        networks = json.loads(docker_asked("/networks"))
        asked += [f"/networks/{each['Id']}" for each in networks]
        asked += ["/version", "/info"]
        for each in (
            pool.map(docker_asked, asked),
            pool.map(_fetch, containers),
            pool.map(_nat_rules, containers),
        ):
            list(each)


class _Asking:
    """GET over a Unix socket, on a connection kept for each thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept = threading.local()

    def __call__(self, what: str) -> bytes:
        connection = getattr(self._kept, "connection", None)
        if connection is None:
            connection = self._kept.connection = http.client.HTTPConnection("docker")
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(self._path)
        connection.request("GET", what)
        return connection.getresponse().read()


def _nat_rules(container: Container) -> None:
    def inside() -> None:
        subprocess.run(["iptables-nft-save"], capture_output=True, check=True)

    namespace.within(container.pid, inside, _PATIENCE)


def _by_exec(names: Collection[str]) -> Mapping[str, object]:
    def dump(name: str) -> object:
        command = ["docker", "exec", name, "curl", "-s", f"127.0.0.1:{ADMIN}/config_dump"]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    return {name: dump(name) for name in names}


def _by_jq(names: Collection[str]) -> None:
    """What people paste into a shell to see which listeners their sidecars have."""
    script = (
        'for name in "$@"; do docker exec "$name" curl -s "127.0.0.1:$PORT/config_dump" | '
        "jq -c '.configs[].dynamic_listeners[]?.active_state.listener | "
        "[.address.socket_address.port_value, [.filter_chains[].filters[].name]]'; done"
    )
    command = ["sh", "-ec", script, "sh", *names]
    environment = {**os.environ, "PORT": str(ADMIN)}
    subprocess.run(command, capture_output=True, check=True, env=environment)


def _by_the_sdk() -> None:
    client = docker.from_env()
    client.version()
    client.info()
    client.networks.list(greedy=True)
    images = {each.attrs["Image"] for each in client.containers.list(all=True)}
    for each in images:
        client.images.get(each)
    client.close()


# ---------------------------------------------------------------- what meshdoctor does


def _judge(options: Options = _OPTIONS) -> None:
    examine(collect(options, lambda _message: None), load_checks(), {"kind": "live"})


def _record(recording: Path) -> None:
    snapshot = collect(replace(_OPTIONS, whole=True), lambda _message: None)
    write_snapshot(snapshot, recording, tool="meshdoctor", version=__version__)


def _judge_recorded(recording: Path) -> None:
    examine(open_snapshot(recording), load_checks(), {"kind": "snapshot"})


def _command() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "meshdoctor", "check", "--consul", "http://127.0.0.1:1"]
        subprocess.run(command, capture_output=True, check=False, cwd=folder)


def _found(engine: Engine, deadline: Deadline) -> Sequence[Container]:
    workers = Workers(_OPTIONS.workers)
    run = Run(_OPTIONS, deadline, workers, Recorder(), lambda _message: None)
    found = discover(run, engine)
    workers.settle(deadline)
    workers.stop()
    return found


def _ways(
    engine: Engine, found: Mapping[str, Container], deadline: Deadline
) -> Mapping[str, Callable[[Container], ways.Way]]:
    def by_address(sidecar: Container) -> ways.Way:
        application = found[sidecar.network_container]
        return ways.ByAddress([f"http://{application.bridge_address}:{ADMIN}"], deadline)

    return {
        "address": by_address,
        "namespace": lambda sidecar: ways.ByNamespace(sidecar, (ADMIN,), deadline),
        "exec": lambda sidecar: ways.ByExec(engine, sidecar.id, (ADMIN,), deadline),
    }


def _read_by(leading: Callable[[Container], ways.Way], sidecar: Container) -> object:
    way = leading(sidecar)
    return way.read(partial(read_pages, whole=False, ends_told=way.tells_ends), _PAGES)


def _of_the_story() -> Iterator[Row]:
    recording = open_snapshot(_RECORDING)
    with stand_ins(recording) as images:
        mesh = LiveMesh(recording, images, f"mdbench{uuid.uuid4().hex[:6]}")
        try:
            mesh.start()
            names = [mesh.name(f"{app}-sidecar") for app in mesh.apps]
            yield _row(
                "the whole check of the story's 6 sidecars, Consul, Pilot and rules",
                _LOOPED,
                partial(_by_exec, names),
                partial(_judge, Options(whole=False)),
            )
        finally:
            mesh.stop()
