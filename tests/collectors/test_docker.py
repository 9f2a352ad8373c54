"""Docker's engine: found as the docker command finds it, and read piece by piece."""

import json
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, NoReturn

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from meshdoctor.collectors import Options, collect, docker
from meshdoctor.collectors.interface import (
    AnswerError,
    CollectError,
    Deadline,
    GoneError,
    HungError,
    Output,
)
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.snapshot import Snapshot
from tests.collectors.conftest import self_signed
from tests.collectors.replayed import unversioned
from tests.plain_user import as_plain_user

CONSUL_ELSEWHERE = {"CONSUL_HTTP_ADDR": "127.0.0.1:1"}


def inspected(name: str, image: str, **state: Any) -> Mapping[str, Any]:
    """As `docker inspect` has it, as far as it matters."""
    return {
        "Id": sha256(name.encode()).hexdigest(),
        "Name": f"/{name}",
        "Path": "run",
        "Args": [],
        "Image": f"sha256:{sha256(image.encode()).hexdigest()}",
        "State": {"Status": "running", "Pid": 0, **state},
        "Config": {"Image": image, "Tty": False},
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Networks": {}},
    }


class Engine:
    """An engine over HTTP with a few containers; `gone` were removed after they were listed."""

    def __init__(self) -> None:
        self.containers = [
            inspected("web", "web:1"),
            inspected("registrator", "gliderlabs/registrator:latest"),
            inspected("web-sidecar", "envoyproxy/envoy:v1.30", Status="exited"),
        ]
        self.gone: set[str] = set()
        self.broken: set[str] = set()

    def __call__(self, request: Request) -> Response:
        path = unversioned(request.path)
        match path.strip("/").split("/"):
            case ["version"]:
                return answered({"Version": "20.10", "ApiVersion": "1.41"})
            case ["info"]:
                return answered({"Name": "here", "RegistryConfig": {"secret": "s3cret"}})
            case ["networks"] | ["networks", ""]:
                return answered([{"Id": "n1"}])
            case ["networks", _]:
                return answered({"Id": "n1", "Name": "mesh"})
            case ["containers", "json"]:
                return answered([{"Id": each["Id"]} for each in self.containers])
            case ["containers", id_, rest]:
                (container,) = (each for each in self.containers if each["Id"] == id_)
                return self.container(container, rest)
            case ["images", *_]:
                return answered({"Id": path.split("/")[2], "RepoTags": ["web:1"]})
            case _:
                return answered({"message": f"no {path}"}, 404)

    def container(self, container: Mapping[str, Any], rest: str) -> Response:
        name = container["Name"].removeprefix("/")
        if name in self.gone:
            return answered({"message": f"No such container: {name}"}, 404)
        if name in self.broken:
            return answered({"message": "layer does not exist"}, 500)
        if rest == "logs":
            line = b"2026-11-22T19:59:08Z Listening with token=abcdef123456\n"
            return Response(struct.pack(">BxxxL", 1, len(line)) + line)
        return answered(container)


def answered(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status=status, content_type="application/json")


@pytest.fixture
def engine(httpserver: HTTPServer) -> Engine:
    engine = Engine()
    httpserver.expect_request("").respond_with_handler(engine)
    return engine


def gather(httpserver: HTTPServer) -> Snapshot:
    host = f"tcp://{httpserver.host}:{httpserver.port}"
    environment = {"DOCKER_HOST": host, **CONSUL_ELSEWHERE}
    return collect(Options(environment=environment, request_timeout=5), lambda _message: None)


def test_containers_come_in_the_order_of_their_names(
    engine: Engine, httpserver: HTTPServer
) -> None:
    """Whoever was inspected first; the same mesh gives the same document."""
    assert engine.containers
    snapshot = gather(httpserver)
    names = [each["Name"] for each in json.loads(snapshot.read("docker/containers.json"))]
    assert names == ["/registrator", "/web", "/web-sidecar"]


def test_logs_are_those_of_the_control_plane_and_of_dead_sidecars(
    engine: Engine, httpserver: HTTPServer
) -> None:
    """An application's log is its owner's own."""
    assert engine.containers
    snapshot = gather(httpserver)
    assert list(snapshot.names("docker/logs/")) == [
        "docker/logs/registrator.log",
        "docker/logs/web-sidecar.log",
    ]
    assert snapshot.read("docker/logs/registrator.log") == (
        b"2026-11-22T19:59:08Z Listening with token=[redacted]\n"
    )


def test_a_container_that_vanished_costs_only_itself(
    engine: Engine, httpserver: HTTPServer
) -> None:
    """It is nobody's fault, and nothing to report."""
    engine.gone = {"web"}
    snapshot = gather(httpserver)
    assert [each.name for each in DockerEngine.load(snapshot).containers] == [
        "registrator",
        "web-sidecar",
    ]
    assert not [each for each in snapshot.absent if each.document.startswith("docker/")]


def test_a_container_that_cannot_be_inspected_is_named(
    engine: Engine, httpserver: HTTPServer
) -> None:
    """With what the engine says of it."""
    engine.broken = {"web"}
    snapshot = gather(httpserver)
    (problem,) = (each for each in snapshot.absent if each.document.startswith("docker/"))
    assert problem.document.startswith("docker/containers.json#")
    assert problem.message == "Docker says: layer does not exist"


def test_of_the_engine_only_what_tells_where_and_what_it_is(
    engine: Engine, httpserver: HTTPServer
) -> None:
    """Its account of itself has registries, swarm and more."""
    assert engine.containers
    assert json.loads(gather(httpserver).read("docker/info.json")) == {"Name": "here"}


def reason(environment: Mapping[str, str], **options: Any) -> str:
    with pytest.raises(CollectError) as raised:
        docker.connect(Options(environment=environment, **options), Deadline(5, 1))
    return str(raised.value)


def test_a_missing_socket_says_how_to_point_elsewhere() -> None:
    """The commonest case: Docker is not there, or somewhere else."""
    said = reason({"DOCKER_HOST": "unix:///nonexistent/docker.sock"})
    assert said == (
        "no Docker engine at unix:///nonexistent/docker.sock: there is no such socket; start "
        "Docker, or name the engine with --docker-host or DOCKER_HOST, or a context with "
        "--docker-context"
    )


def test_what_is_no_address_is_said_to_be_none() -> None:
    """With addresses as they are written, not with the words of the SDK."""
    said = reason({}, docker_host="mesh-host")
    assert said.startswith("mesh-host is no address of a Docker engine, as unix:///")
    assert "ssh://mesh-host" in said


def test_a_socket_without_permission_says_what_gives_it(tmp_path: Path) -> None:
    """In one sentence: another engine is not what is wanted."""
    path = tmp_path / "docker.sock"
    path.touch(mode=0)
    with as_plain_user(tmp_path, *tmp_path.parents[:2]):
        said = reason({"DOCKER_HOST": f"unix://{path}"})
    assert said == (
        f"no permission to use Docker's socket {path}: join the group `docker`, or run "
        "meshdoctor with sudo"
    )


def test_a_flag_beats_a_variable() -> None:
    """As in the docker command."""
    said = reason({"DOCKER_HOST": "unix:///wrong"}, docker_host="unix:///nonexistent/right")
    assert "/nonexistent/right" in said


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that no file of users knows, as a container may be given, with HOME unset."""

    def unknown(uid: int) -> NoReturn:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(RuntimeError):
        Path.home()


@pytest.mark.usefixtures("homeless")
def test_a_user_without_a_home_has_no_settings() -> None:
    """And needs none, unless certificates are asked for."""
    said = reason({"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_TLS_VERIFY": "1"})
    assert "name their folder with DOCKER_CERT_PATH" in said
    assert "Docker context" in reason({"DOCKER_CONTEXT": "elsewhere"})
    default = docker._address(Options(environment={}))  # noqa: SLF001 # else this machine is asked
    assert default == ("unix:///var/run/docker.sock", None)


def test_an_unknown_context_is_said() -> None:
    """By its name, with the command that lists them."""
    assert "no Docker context elsewhere: see `docker context ls`" in reason(
        {"DOCKER_CONTEXT": "elsewhere"}
    )


def test_docker_host_beats_docker_context() -> None:
    """As in the docker command."""
    environment = {"DOCKER_HOST": "unix:///nonexistent/a.sock", "DOCKER_CONTEXT": "elsewhere"}
    assert "/nonexistent/a.sock" in reason(environment)


def test_a_named_context_beats_docker_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag says it; the file is where the docker command keeps it."""
    folder = tmp_path / "contexts" / "meta" / sha256(b"lab").hexdigest()
    folder.mkdir(parents=True)
    endpoint = {"Host": "unix:///nonexistent/lab.sock", "SkipTLSVerify": False}
    meta = {"Name": "lab", "Metadata": {}, "Endpoints": {"docker": endpoint}}
    (folder / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    environment = {"DOCKER_HOST": "unix:///nonexistent/a.sock"}
    assert "/nonexistent/lab.sock" in reason(environment, docker_context="lab")


def test_missing_certificates_are_said() -> None:
    """By their path."""
    environment = {
        "DOCKER_HOST": "tcp://127.0.0.1:1",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": "/nonexistent/certificates",
    }
    assert reason(environment) == (
        "Docker is to be asked by TLS, and in /nonexistent/certificates is no cert.pem and no "
        "key.pem: name their folder with DOCKER_CERT_PATH"
    )


def test_an_engine_behind_tls_is_read_with_certificates(tmp_path: Path) -> None:
    """As DOCKER_TLS_VERIFY and DOCKER_CERT_PATH say; without them nothing is trusted."""
    certificate = self_signed("localhost", tmp_path)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_bytes(certificate.read_bytes())
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
    server.load_cert_chain(certificate)
    server.verify_mode = ssl.CERT_REQUIRED
    with HTTPServer(host="localhost", ssl_context=server) as httpserver:
        httpserver.expect_request("").respond_with_handler(Engine())
        with_certificates = {
            "DOCKER_HOST": f"tcp://localhost:{httpserver.port}",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": str(tmp_path),
            **CONSUL_ELSEWHERE,
        }
        snapshot = collect(Options(environment=with_certificates), lambda _message: None)
    assert len(DockerEngine.load(snapshot).containers) == 3


def test_a_password_in_the_address_is_not_repeated() -> None:
    """A reason is read by others."""
    assert "s3cret" not in reason({"DOCKER_HOST": "tcp://me:s3cret@127.0.0.1:1"})


@pytest.fixture
def forbidden_socket() -> Iterator[Path]:
    """A socket that only its owner may use, in a folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "docker.sock")
        path.touch(mode=0o000)
        yield path


@pytest.mark.usefixtures("without_root")
def test_a_socket_without_permission_says_what_to_do(forbidden_socket: Path) -> None:
    """The commonest case on Linux."""
    assert "join the group `docker`" in reason({"DOCKER_HOST": f"unix://{forbidden_socket}"})


# ---------------------------------------------------------------- commands in containers

PRINTED = docker.framed(1, b"half a ") + docker.framed(2, b"oh\n") + docker.framed(1, b"page")


class Executing(BaseHTTPRequestHandler):
    """An engine that runs commands: `page` prints, `hang` prints and then nothing more comes."""

    protocol_version = "HTTP/1.1"
    server: "ExecutingServer"

    def do_GET(self) -> None:
        self.server.read.append(unversioned(self.path))
        if unversioned(self.path) == "/_ping":
            self.answer(200, "OK", {"Api-Version": self.server.api})
        elif unversioned(self.path) == "/version":
            self.answer(200, {"ApiVersion": "1.41"})
        else:
            self.answer(200, {"ExitCode": 3})

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        match unversioned(self.path).strip("/").split("/"):
            case ["containers", "gone", "exec"]:
                self.answer(404, {"message": "No such container: gone"})
            case ["containers", _, "exec"]:
                self.server.asked.append(sent)
                self.answer(201, {"Id": sent["Cmd"][0]})
            case ["exec", "none", "start"]:
                self.answer(400, {"message": "none: not found in $PATH"})
            case ["exec", command, "start"]:
                # As the engine does it: no length is told, the end is that of the connection.
                self.send_response(200)
                self.send_header("Content-Type", "application/vnd.docker.raw-stream")
                self.end_headers()
                self.wfile.write(PRINTED)
                if command == "hang":
                    self.server.closing.wait(30)
                self.close_connection = True

    def answer(self, status: int, body: object, headers: Mapping[str, str] = {}) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_arguments: object) -> None:
        pass


class ExecutingServer(ThreadingMixIn, TCPServer):
    daemon_threads = True

    def __init__(self, folder: Path | None) -> None:
        """On a Unix socket in that folder, or on a port."""
        self.asked: list[Mapping[str, Any]] = []
        self.read: list[str] = []
        self.api = "1.41"
        self.closing = threading.Event()
        self.address_family = socket.AF_INET if folder is None else socket.AF_UNIX
        place: Any = ("127.0.0.1", 0) if folder is None else str(folder / "docker.sock")
        super().__init__(place, Executing)
        self.url = f"unix://{place}"
        if folder is None:
            host, port = self.server_address[:2]
            self.url = f"tcp://{host!s}:{port}"

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, _ = super().get_request()
        # Those on a Unix socket have no address, and one is logged.
        return connection, ("here", 0)


@pytest.fixture(params=["unix", "tcp"])
def executing(request: pytest.FixtureRequest) -> Iterator[ExecutingServer]:
    """Read without the SDK, and with it."""
    with tempfile.TemporaryDirectory() as folder:
        server = ExecutingServer(Path(folder) if request.param == "unix" else None)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def commanding(executing: ExecutingServer) -> Iterator[docker.Engine]:
    engine = docker.connect(Options(docker_host=executing.url, environment={}), Deadline(30, 1))
    yield engine
    engine.close()


def test_a_command_has_output_errors_and_a_code(
    commanding: docker.Engine, executing: ExecutingServer
) -> None:
    """It is run as the user wanted, and without the container's proxy."""
    assert commanding.execute("c", ["page", "-x"], user="7") == Output(3, b"half a page", "oh")
    (asked,) = executing.asked
    assert (asked["Cmd"], asked["User"]) == (["page", "-x"], "7")
    assert {"http_proxy=", "all_proxy="} < set(asked["Env"])
    assert (asked["AttachStdout"], asked["AttachStderr"]) == (True, True)


def test_what_a_command_printed_before_it_hung_is_kept(commanding: docker.Engine) -> None:
    """It may be all that was wanted."""
    with pytest.raises(HungError) as raised:
        commanding.execute("c", ["hang"])
    assert raised.value.came == b"half a page"


def test_a_command_that_is_not_there_is_told(commanding: docker.Engine) -> None:
    """As newer engines do."""
    with pytest.raises(AnswerError, match=r"^Docker says: none: not found in \$PATH$"):
        commanding.execute("c", ["none"])


def test_a_container_that_is_gone_runs_nothing(commanding: docker.Engine) -> None:
    """No other tool is tried there."""
    with pytest.raises(GoneError, match=r"^Docker says: No such container: gone$"):
        commanding.execute("gone", ["page"])


@pytest.mark.parametrize("executing", ["unix"], indirect=True)
@pytest.mark.parametrize(
    ("api", "asked"),
    [("1.41", ["/_ping"]), ("", ["/_ping", "/version"]), ("one", ["/_ping", "/version"])],
)
def test_an_engine_is_known_by_its_answer_to_a_ping(
    executing: ExecutingServer, api: str, asked: Sequence[str]
) -> None:
    """For its version it starts other programs; it is asked where a ping tells too little."""
    executing.api = api
    docker.connect(Options(docker_host=executing.url, environment={}), Deadline(30, 1)).close()
    assert executing.read == asked
