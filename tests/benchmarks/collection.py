"""Collecting and judging a live mesh, against fetching the same bytes and against what people do.

The Envoys are real. On loopback they are given by address; those in Docker's containers are
reached as meshdoctor finds them, and by one `docker exec` after another, as a shell loop would.
"""

import http.client
import json
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from meshdoctor.collectors import Options, collect
from meshdoctor.collectors.envoy import PAGES
from meshdoctor.diagnosis import examine, load_checks
from meshdoctor.snapshot import open_snapshot
from tests.benchmarks.envoys import envoy_with
from tests.benchmarks.measure import Row, compare
from tests.live.mesh import LiveMesh, NoMeshError, stand_ins

_RECORDING: Final = Path(__file__).parents[2] / "fixtures" / "meshes" / "broken.tgz"
_PAGES: Final = (
    "/server_info",
    "/config_dump?include_eds",
    "/clusters?format=json",
    "/listeners?format=json",
    PAGES["stats.json"][0],
    "/certs",
)


def rows() -> Iterator[Row]:
    """By address with 4 Envoys of 100 and of 1000 services, then in Docker with six sidecars."""
    for services in (100, 1000):
        with ExitStack() as stack:
            envoys = [stack.enter_context(envoy_with(services)) for _ in range(4)]
            ports = [each.admin for each in envoys]
            found = compare(partial(_fetch, ports), partial(_check, ports), time.perf_counter)
        yield Row(
            "collection",
            f"collect and judge 4 Envoys, S={services}",
            "the same pages by http.client, kept alive",
            found.ratio,
            1.25,
            found.spread,
        )
    yield from _in_docker()


def _fetch(ports: Sequence[int]) -> None:
    for port in ports:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for page in _PAGES:
            connection.request("GET", page)
            connection.getresponse().read()
        connection.close()


def _check(ports: Sequence[int]) -> None:
    # Neither a Docker nor a Consul that may run here is asked.
    envoys = {str(port): f"http://127.0.0.1:{port}" for port in ports}
    _judge(
        Options(
            docker_host="unix:///nonexistent/docker.sock",
            consul="http://127.0.0.1:1",
            envoys=envoys,
        )
    )


def _judge(options: Options) -> None:
    examine(collect(options, lambda _message: None), load_checks(), {"kind": "live"})


def _in_docker() -> Iterator[Row]:
    recording = open_snapshot(_RECORDING)
    project = f"mdbench{uuid.uuid4().hex[:6]}"
    try:
        with stand_ins(recording) as images:
            mesh = LiveMesh(recording, images, project)
            try:
                mesh.start()
                sidecars = [mesh.name(f"{app}-sidecar") for app in mesh.apps]
                found = compare(
                    partial(_by_exec, sidecars), partial(_judge, Options()), time.perf_counter
                )
            finally:
                mesh.stop()
    except NoMeshError as error:
        yield Row("collection", f"not measured: {error}", "", float("nan"))
        return
    yield Row(
        "collection",
        "the whole check of 6 sidecars in Docker",
        "docker exec ... curl one after another, and json",
        found.ratio,
        0.25,
        found.spread,
        note="the loop reads config dumps alone, and judges nothing",
    )


def _by_exec(sidecars: Sequence[str]) -> Mapping[str, object]:
    def dump(name: str) -> object:
        command = ["docker", "exec", name, "curl", "-s", "127.0.0.1:15000/config_dump"]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    return {name: dump(name) for name in sidecars}
