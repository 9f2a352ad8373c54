"""Sidecars as Docker runs them: a real Envoy in the network namespace of each application.

Made by hand, for their number and size. The applications sleep; their Envoys are told the same,
`meshes.configuration`, over ADS by the lab's control plane on this machine.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import docker
import msgspec
from docker.errors import DockerException

from tests.benchmarks.envoys import bootstrap, control_plane
from tests.live.mesh import NoMeshError, program, proxy_image, tar_of
from tests.routing.real_envoy import address

ADMIN: Final = 15000
_FOLDER: Final = "/etc/envoy"
_APPLICATION: Final = "meshdoctor-benchmark/application"
# The name that Istio's image has: beside such a one a redirect may be, so no address is tried.
_PROXY: Final = "meshdoctor-benchmark/proxyv2"
_START_SECONDS: Final = 120


class Container(msgspec.Struct, frozen=True):
    """A running one: its name and id in Docker, and its process on this machine."""

    name: str
    id: str
    pid: int


@contextmanager
def sidecars(count: int, services: int) -> Iterator[Sequence[Container]]:
    """So many, each with the configuration of so many services. Raises NoMeshError."""
    with ExitStack() as stack:
        engine = _Engine(stack)
        host = engine.gateway()
        port = stack.enter_context(control_plane(services, host, count))
        files = tar_of({f"{_FOLDER}/envoy.json": _bootstrap(host, port)})

        def start(number: int) -> Container:
            service = f"service-{number:04}"
            environment = {"SERVICE_NAME": service}
            app = engine.run(_APPLICATION, service, _SLEEP, environment=environment)
            return engine.run(_PROXY, f"{service}-sidecar", _ENVOY, inside=app.id, files=files)

        with ThreadPoolExecutor(4) as pool:
            started = list(pool.map(start, range(count)))
        for each in started:
            engine.await_envoy(each)
        yield started


_SLEEP: Final = ("/bin/busybox", "sleep", "86400")
_ENVOY: Final = (
    *("envoy", "-c", f"{_FOLDER}/envoy.json", "--concurrency", "1", "--disable-hot-restart"),
    *("--log-level", "warning"),
)


class _Engine:
    """Runs containers of one project, and removes them all when `stack` ends."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._project = f"mdbench{uuid.uuid4().hex[:6]}"
        try:
            self._api: Any = docker.APIClient(version="auto", timeout=60)
            stack.callback(self._api.close)
            self._image(_PROXY, proxy_image())
            self._image(_APPLICATION, tar_of({"bin/busybox": program("busybox")}))
        except DockerException as error:
            raise NoMeshError(f"no Docker engine answers: {error}") from error

    def _image(self, name: str, content: bytes) -> None:
        said = self._api.import_image_from_data(content, repository=name, tag=self._project)
        self._stack.callback(self._api.remove_image, json.loads(said)["status"], force=True)

    def gateway(self) -> str:
        """Where containers reach this machine: a network may not say so, a container does."""
        started = self.run(_APPLICATION, "first", _SLEEP)
        inspected = self._api.inspect_container(started.id)
        return str(inspected["NetworkSettings"]["Networks"]["bridge"]["Gateway"])

    def run(
        self,
        image: str,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        inside: str = "",
        files: bytes = b"",
    ) -> Container:
        """Start one, in the network namespace of the container `inside` where there is one."""
        api = self._api
        network = f"container:{inside}" if inside else "bridge"
        whole = f"{self._project}_{name}_1"
        created = api.create_container(
            f"{image}:{self._project}",
            command=list(command),
            name=whole,
            environment=dict(environment or {}),
            host_config=api.create_host_config(network_mode=network),
        )["Id"]
        self._stack.callback(self._remove, created)
        if files:
            api.put_archive(created, "/", files)
        api.start(created)
        return Container(whole, created, api.inspect_container(created)["State"]["Pid"])

    def _remove(self, container: str) -> None:
        with contextlib.suppress(DockerException):
            self._api.remove_container(container, force=True)

    def await_envoy(self, sidecar: Container) -> None:
        """Until it has all its configuration. Raises NoMeshError."""
        until = time.monotonic() + _START_SECONDS
        asking = ["curl", "-s", f"http://127.0.0.1:{ADMIN}/ready"]
        while True:
            execution = self._api.exec_create(sidecar.id, asking)
            if b"LIVE" in self._api.exec_start(execution["Id"]):
                return
            if time.monotonic() > until:
                said = self._api.logs(sidecar.id, tail=3).decode("utf-8", "replace")
                raise NoMeshError(f"the Envoy of {sidecar.name} is not ready: {said}")
            time.sleep(0.1)


def _bootstrap(host: str, port: int) -> bytes:
    """With the control plane at this address, for Envoy's command to read."""
    # Istio's is on localhost; on all addresses, so that each way leads there.
    admin = {"address": address("0.0.0.0", ADMIN)}  # noqa: S104 # within a container
    return json.dumps({"admin": admin, **bootstrap(host, port)}).encode()
