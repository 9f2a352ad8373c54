"""The rules from an API server, by its address and as a kubeconfig has access."""

import base64
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from meshdoctor.collectors import Options, collect, istio
from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.interface import Deadline, Recorder, Run, Workers
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.istio import DESTINATION_RULES, VIRTUAL_SERVICES, IstioRules
from meshdoctor.snapshot import Snapshot
from tests.collectors.conftest import self_signed
from tests.topology.containers import container

NOWHERE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
TOKEN = "pl4nted-t0ken"  # noqa: S105 # of nothing


def gather(**options: Any) -> Snapshot:
    return collect(
        Options(environment=NOWHERE, request_timeout=2, consul="127.0.0.1:9", **options),
        lambda _message: None,
    )


def reason(snapshot: Snapshot, document: str) -> str:
    (said,) = [each.message for each in snapshot.absent if each.document == document]
    return said


class ApiServer:
    """One that has the rules under one version; `status` is what it answers to all else."""

    def __init__(self) -> None:
        self.version = "v1alpha3"
        self.token = ""
        self.body: bytes | None = None
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return Response('{"kind": "Status", "message": "Unauthorized"}', status=401)
        base = f"/apis/networking.istio.io/{self.version}/"
        plural = request.path.removeprefix(base)
        if not request.path.startswith(base):
            return Response("404 page not found", status=404)
        if self.body is not None:
            return Response(self.body)
        annotations = {"kubectl.kubernetes.io/last-applied-configuration": "pl4nted"}
        metadata = {"name": plural, "namespace": "default", "annotations": annotations}
        spec = {"hosts": ["reviews.service.consul"], "host": "reviews.service.consul"}
        return Response(
            json.dumps({"kind": "List", "items": [{"metadata": metadata, "spec": spec}]})
        )


@pytest.fixture
def api(httpserver: HTTPServer) -> ApiServer:
    api = ApiServer()
    httpserver.expect_request("").respond_with_handler(api)
    return api


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[HTTPServer, Path, ApiServer]]:
    """An API server over TLS, with the certificate that is its own authority."""
    certificate = self_signed("localhost", tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    api = ApiServer()
    with HTTPServer(host="localhost", ssl_context=context) as server:
        server.expect_request("").respond_with_handler(api)
        yield server, certificate, api


def kubeconfig(folder: Path, server: str, user: dict[str, Any], **cluster: Any) -> Path:
    config = {
        "current-context": "mesh",
        "contexts": [{"name": "mesh", "context": {"cluster": "mesh", "user": "me"}}],
        "clusters": [
            {"name": "other", "cluster": {"server": "http://127.0.0.1:9"}},
            {"name": "mesh", "cluster": {"server": server, **cluster}},
        ],
        "users": [{"name": "me", "user": user}],
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


def test_both_lists_are_read(api: ApiServer, httpserver: HTTPServer) -> None:
    """By GET alone, and without the annotations, which hold the object a second time."""
    snapshot = gather(apiserver=f"{httpserver.host}:{httpserver.port}")
    rules = IstioRules.load(snapshot)
    assert [each.name for each in rules.virtual_services] == ["virtualservices"]
    assert [each.host for each in rules.destination_rules] == ["reviews.service.consul"]
    assert {each.method for each in api.asked} == {"GET"}
    assert b"pl4nted" not in snapshot.read(VIRTUAL_SERVICES)


@pytest.mark.parametrize("version", ["v1beta1", "v1"])
def test_another_version_of_the_api_will_do(
    api: ApiServer, httpserver: HTTPServer, version: str
) -> None:
    """Istio of today no longer serves the one that Istio 1.1 has."""
    api.version = version
    snapshot = gather(apiserver=httpserver.url_for(""))
    assert snapshot.names("istio/") == (DESTINATION_RULES, VIRTUAL_SERVICES)


def test_a_server_that_knows_no_such_thing(api: ApiServer, httpserver: HTTPServer) -> None:
    """Pilot registers the resource types when it starts."""
    api.version = "v9"
    snapshot = gather(apiserver=httpserver.url_for(""))
    assert "it knows no VirtualServices: Pilot registers them" in reason(
        snapshot, VIRTUAL_SERVICES
    )


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"items": 3}', b"{}"])
def test_what_is_no_api_server(api: ApiServer, httpserver: HTTPServer, body: bytes) -> None:
    """Whatever else answers on that port is not recorded as rules."""
    api.body = body
    snapshot = gather(apiserver=httpserver.url_for(""))
    assert "no Kubernetes API server" in reason(snapshot, VIRTUAL_SERVICES)


def test_nothing_listens_there() -> None:
    """The reason stands beside both documents."""
    snapshot = gather(apiserver="127.0.0.1:9")
    assert "refused" in reason(snapshot, VIRTUAL_SERVICES)
    assert "refused" in reason(snapshot, DESTINATION_RULES)


def test_without_docker_and_address_nothing_is_tried() -> None:
    """A mesh without Istio has no rules to miss."""
    assert not [each for each in gather().absent if each.document.startswith("istio/")]


def test_a_token_of_a_kubeconfig(api: ApiServer, httpserver: HTTPServer, tmp_path: Path) -> None:
    """Of the current context, and of no other."""
    api.token = TOKEN
    config = kubeconfig(tmp_path, httpserver.url_for(""), {"token": TOKEN})
    assert len(gather(kubeconfig=config).names("istio/")) == 2
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    config = kubeconfig(tmp_path, httpserver.url_for(""), {"tokenFile": "token"})
    assert len(gather(kubeconfig=config).names("istio/")) == 2


def test_without_the_right_token_it_says_how(
    api: ApiServer, httpserver: HTTPServer, tmp_path: Path
) -> None:
    """And does not repeat the one that was given."""
    api.token = TOKEN
    config = kubeconfig(tmp_path, httpserver.url_for(""), {"token": "pl4nted-wrong"})
    said = reason(gather(kubeconfig=config), VIRTUAL_SERVICES)
    assert "it answers 401" in said
    assert "--kubeconfig" in said
    assert "pl4nted" not in said


def test_certificates_of_a_kubeconfig(
    secure: tuple[HTTPServer, Path, ApiServer], tmp_path: Path
) -> None:
    """As data and as files; the server's is verified against the authority that is named."""
    server, certificate, _ = secure
    pem = certificate.read_bytes()
    data = base64.b64encode(pem).decode()
    own = {"client-certificate-data": data, "client-key-data": data}
    url = server.url_for("")
    config = kubeconfig(tmp_path, url, own, **{"certificate-authority-data": data})
    assert len(gather(kubeconfig=config).names("istio/")) == 2
    named = {"client-certificate": "certificate.pem", "client-key": "certificate.pem"}
    config = kubeconfig(tmp_path, url, named, **{"certificate-authority": "certificate.pem"})
    assert len(gather(kubeconfig=config).names("istio/")) == 2
    config = kubeconfig(tmp_path, url, own)
    assert "certificate verify failed" in reason(gather(kubeconfig=config), VIRTUAL_SERVICES)
    config = kubeconfig(tmp_path, url, own, **{"insecure-skip-tls-verify": True})
    assert len(gather(kubeconfig=config).names("istio/")) == 2


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ({"exec": {"command": "login"}}, "wants another program to log in with"),
        ({"client-certificate-data": "!"}, "client-certificate-data that is not base64"),
        ({"client-certificate": "none.pem"}, "none.pem cannot be read: No such file"),
        ({"client-certificate-data": "cGw0bnRlZA=="}, "certificates of the kubeconfig cannot be"),
    ],
)
def test_access_that_cannot_be_used(tmp_path: Path, user: dict[str, Any], said: str) -> None:
    """Nothing is run, nothing is quoted."""
    config = kubeconfig(tmp_path, "https://127.0.0.1:9", user)
    reported = reason(gather(kubeconfig=config), VIRTUAL_SERVICES)
    assert said in reported
    assert "pl4nted" not in reported


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [pl4nted", "is no YAML"),
        ("- 1", "is no kubeconfig"),
        ("{}", "names no server in its current context (none)"),
        ("current-context: a\ncontexts: 3\n", "names no server in its current context (a)"),
    ],
)
def test_files_that_are_no_kubeconfig(tmp_path: Path, text: str, said: str) -> None:
    """A word on the file, none of what stands in it."""
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    reported = reason(gather(kubeconfig=file), VIRTUAL_SERVICES)
    assert said in reported
    assert "pl4nted" not in reported


# ---------------------------------------------------------------- found through Docker

IMAGE = "gcr.io/google_containers/kube-apiserver-amd64:v1.7.3"


def found(docker_at: HTTPServer, deadline: Deadline, *containers: Container) -> Snapshot:
    """What is collected, where Docker's engine knows nothing of any command."""
    workers = Workers(1)
    run = Run(Options(), deadline, workers, Recorder(), lambda _message: None)
    host = f"tcp://{docker_at.host}:{docker_at.port}"
    engine = Engine(host, deadline, "1.41")
    istio.collect(run, engine, containers)
    workers.settle(deadline)
    workers.stop()
    engine.close()
    return run.recorder.snapshot("", "")


def server(port: int, published: int, *command: str, status: str = "running") -> Container:
    return container(
        "consul_istio-apiserver_1",
        image=IMAGE,
        command=["kube-apiserver", *command],
        status=status,
        published={f"{port}/tcp": [("127.0.0.1", str(published))]},
    )


@pytest.mark.parametrize(
    ("port", "command"),
    [(8080, ()), (8081, ("--insecure-port", "8081")), (8082, ("--insecure-port=8082",))],
)
@pytest.mark.usefixtures("api")
def test_the_container_is_asked_where_docker_publishes_it(
    httpserver: HTTPServer,
    deadline: Deadline,
    port: int,
    command: tuple[str, ...],
) -> None:
    """The plain port of Istio's Compose file, or the one that its command names."""
    asked = server(port, httpserver.port, *command)
    snapshot = found(httpserver, deadline, container("web"), asked)
    assert snapshot.names() == (DESTINATION_RULES, VIRTUAL_SERVICES)
    assert snapshot.missing() == ()


def test_a_server_that_is_not_reached_is_named(httpserver: HTTPServer, deadline: Deadline) -> None:
    """With what was tried, and what would help."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    said = reason(found(httpserver, deadline, server(8080, port)), VIRTUAL_SERVICES)
    assert said.startswith("consul_istio-apiserver_1 was not read (address: ")
    assert "refused" in said
    assert "--kubeconfig" in said


def test_a_server_that_stopped_is_not_asked(httpserver: HTTPServer, deadline: Deadline) -> None:
    """That it stopped is the reason."""
    snapshot = found(httpserver, deadline, server(8080, 9, status="exited"))
    assert reason(snapshot, VIRTUAL_SERVICES) == "consul_istio-apiserver_1 does not run (exited)"


def test_a_mesh_without_an_api_server_misses_none(
    httpserver: HTTPServer, deadline: Deadline
) -> None:
    """Pilot may have its rules from files, and its own page tells them."""
    snapshot = found(httpserver, deadline, container("web"))
    assert (snapshot.names(), snapshot.missing()) == ((), ())
