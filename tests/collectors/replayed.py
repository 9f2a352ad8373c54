"""Docker hosts that are not there: engines on real HTTP sockets that replay a recorded mesh.

Each has some of the recording's containers. What `docker exec` would fetch inside one comes from
the recording too, and its Consul listens on a port of its own, where Docker says it is published.
"""

import json
import logging
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from meshdoctor.collectors import Options, collect
from meshdoctor.evidence import layout
from meshdoctor.evidence.interface import MissingEvidenceError
from meshdoctor.snapshot import Snapshot

# Nothing is found but what a test names.
NOWHERE: Final = {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "HOME": "/nonexistent"}

_ENVOY: Final = {
    "/config_dump": "config_dump.json",
    "/clusters": "clusters.json",
    "/listeners": "listeners.json",
    "/stats": "stats.json",
    "/certs": "certs.json",
    "/server_info": "server_info.json",
}


# Thousands of requests, each a line that nobody reads.
logging.getLogger("werkzeug").setLevel(logging.WARNING)


@contextmanager
def served(handler: Callable[[Request], Response]) -> Iterator[HTTPServer]:
    """A server of its own port, asked by many at once."""
    with HTTPServer(threaded=True) as server:
        server.expect_request("").respond_with_handler(handler)
        yield server


def at(server: HTTPServer) -> str:
    """As --docker-host takes it."""
    return f"tcp://{server.host}:{server.port}"


def unversioned(path: str) -> str:
    """What is asked of an engine, without the API's version before it."""
    return "/" + path.split("/", 2)[2] if path.startswith("/v1.") else path


def answered(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status=status, content_type="application/json")


class Consul:
    """Consul's pages of a recording."""

    def __init__(self, recording: Snapshot) -> None:
        self.recording = recording

    def __call__(self, request: Request) -> Response:
        try:
            return Response(self.recording.read(f"consul/{request.path[len('/v1/') :]}.json"))
        except MissingEvidenceError:
            return Response(status=404)


class Host:
    """One engine with some of the recorded containers."""

    def __init__(
        self, recording: Snapshot, containers: Sequence[Mapping[str, Any]], name: str
    ) -> None:
        self.recording = recording
        self.containers = {str(each["Id"]): each for each in containers}
        self.name = name
        self.recorded_as = {id_: each["Name"][1:] for id_, each in self.containers.items()}
        self._commands: dict[str, tuple[str, Sequence[str]]] = {}

    def __call__(self, request: Request) -> Response:
        path = unversioned(request.path)
        match path.strip("/").split("/"):
            case ["version"]:
                return self.document("docker/version.json")
            case ["info"]:
                return answered({"Name": self.name})
            case ["networks"]:
                return answered([{"Id": each["Id"]} for each in self.listed("networks")])
            case ["networks" | "images" as kind, *name]:
                found = (each for each in self.listed(kind) if each["Id"] in "/".join(name))
                return answered(next(found, {}))
            case ["containers", "json"]:
                return answered([{"Id": each} for each in self.containers])
            case ["containers" | "exec", id_, wanted]:
                return self.one(request, id_, wanted)
        return answered({"message": f"no {path}"}, 404)

    def one(self, request: Request, id_: str, wanted: str) -> Response:
        """What is asked of a container, or of a command in one."""
        if id_ in self._commands:
            said = self.said(*self._commands[id_])
            return (
                self.framed(*said) if wanted == "start" else answered({"ExitCode": 7 * (not said)})
            )
        match wanted:
            case "logs":
                return self.framed(layout.docker_log(self.recorded_as[id_]))
            case "exec":
                execution = uuid.uuid4().hex
                self._commands[execution] = (self.recorded_as[id_], request.get_json()["Cmd"])
                return answered({"Id": execution})
        return answered(self.containers[id_])

    def said(self, container: str, command: Sequence[str]) -> tuple[str, ...]:
        """The document that a command prints, or the text itself; () where nothing listens."""
        if command[0] == "sh":
            return ("=curl\n",)
        if command[0] == "iptables-save":
            return (layout.netfilter(container),)
        if command[0] != "curl":
            return ()
        url = urlsplit(command[-1])
        if url.path in _ENVOY and url.port == 15000:
            return (layout.envoy(container, _ENVOY[url.path]),)
        if "pilot" in container:
            page = url.path.rpartition("/")[2]
            return (layout.pilot("metrics.txt" if page == "metrics" else f"{page}.json"),)
        return ()

    def document(self, name: str) -> Response:
        return Response(self.recording.read(name), content_type="application/json")

    def listed(self, kind: str) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = json.loads(self.recording.read(f"docker/{kind}.json"))
        return found

    def framed(self, name: str = "=") -> Response:
        """A document as Docker frames what a container prints; after `=`, the text itself."""
        try:
            body = name[1:].encode() if name.startswith("=") else self.recording.read(name)
        except MissingEvidenceError:
            body = b""
        return Response(struct.pack(">BxxxL", 1, len(body)) + body)


def split(
    recording: Snapshot, consul: int, hosts: int, *, rename: Callable[[str], str] = str
) -> list[list[dict[str, Any]]]:
    """The recording's containers on some hosts, those of one namespace together.

    Consul is published at the port `consul` of each.
    """
    placed: list[list[dict[str, Any]]] = [[] for _ in range(hosts)]
    listed: list[dict[str, Any]] = json.loads(recording.read("docker/containers.json"))
    by_host: dict[str, list[dict[str, Any]]] = {}
    for each in sorted(listed, key=lambda each: str(each["Name"])):
        mode = each["HostConfig"]["NetworkMode"]
        by_host.setdefault(
            mode.partition(":")[2] if mode.startswith("container:") else each["Id"], []
        ).append(each)
        if "8500/tcp" in each["NetworkSettings"].get("Ports", {}):
            there = [{"HostIp": "127.0.0.1", "HostPort": str(consul)}]
            each["NetworkSettings"]["Ports"]["8500/tcp"] = there
        each["Name"] = rename(each["Name"])
    for number, together in enumerate(by_host.values()):
        placed[number % hosts] += together
    return placed


@dataclass(frozen=True)
class Hosts:
    """Addresses: of a Consul, and of engines that have a mesh between them, by how many."""

    consul: str
    engines: Mapping[int, list[str]]


@contextmanager
def hosts(recording: Snapshot, *numbers: int) -> Iterator[Hosts]:
    """The recorded mesh, on so many hosts and on so many; one Consul is theirs."""
    with ExitStack() as stack:
        consul = stack.enter_context(served(Consul(recording)))
        engines = {
            number: [
                at(stack.enter_context(served(Host(recording, containers, f"host-{index}"))))
                for index, containers in enumerate(split(recording, consul.port, number))
            ]
            for number in numbers
        }
        yield Hosts(f"http://{consul.host}:{consul.port}", engines)


def gathered(engines: Iterable[Any], **options: Any) -> Snapshot:
    """One run over those engines, and over nothing else."""
    return collect(
        Options(engines=tuple(engines), environment=NOWHERE, **options), lambda _message: None
    )
