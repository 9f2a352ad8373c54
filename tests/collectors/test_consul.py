"""Consul's HTTP API, spoken with as its own command would."""

import json
import socket
import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from http.server import HTTPServer as PlainServer
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from meshdoctor.collectors import Options, collect
from meshdoctor.snapshot import Snapshot
from tests.collectors.conftest import self_signed

NOWHERE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
TOKEN = "5f1a0c9e-0000-4000-8000-c0ffee000001"  # noqa: S105 # of nothing


def gather(environment: Mapping[str, str], **options: Any) -> Snapshot:
    return collect(
        Options(environment={**NOWHERE, **environment}, request_timeout=2, **options),
        lambda _message: None,
    )


def reason(snapshot: Snapshot, document: str) -> str:
    (said,) = [each.message for each in snapshot.absent if each.document == document]
    return said


class Consul:
    """A Consul that knows two services; `statuses` make a path answer something else."""

    def __init__(self) -> None:
        self.statuses: dict[str, tuple[int, str]] = {}
        self.asked: list[Request] = []

    def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        path = request.path.removeprefix("/v1/")
        if path in self.statuses:
            status, body = self.statuses[path]
            return Response(body, status=status)
        pages: dict[str, Any] = {
            "status/leader": "127.0.0.1:8300",
            "catalog/services": {"web": ["version|v1"], "a b/c": []},
            "agent/self": {"Config": {"Version": "1.17.3"}},
        }
        return Response(json.dumps(pages.get(path, [])), content_type="application/json")


@pytest.fixture
def consul(httpserver: HTTPServer) -> Consul:
    consul = Consul()
    httpserver.expect_request("").respond_with_handler(consul)
    return consul


def address(httpserver: HTTPServer) -> str:
    return f"{httpserver.host}:{httpserver.port}"


def test_every_document_of_the_layout_is_asked_for(consul: Consul, httpserver: HTTPServer) -> None:
    """Services' names come from the catalogue, and are percent-encoded where they must be."""
    snapshot = gather({"CONSUL_HTTP_ADDR": address(httpserver)})
    assert {name for name in snapshot.names("consul/") if "/config/" not in name} == {
        "consul/agent/self.json",
        "consul/agent/services.json",
        "consul/catalog/datacenters.json",
        "consul/catalog/nodes.json",
        "consul/catalog/service/a%20b%2Fc.json",
        "consul/catalog/service/web.json",
        "consul/catalog/services.json",
        "consul/connect/ca/roots.json",
        "consul/connect/intentions.json",
        "consul/health/service/a%20b%2Fc.json",
        "consul/health/service/web.json",
        "consul/namespaces.json",
        "consul/partitions.json",
        "consul/peerings.json",
        "consul/status/leader.json",
    }
    assert "consul/config/service-defaults.json" in snapshot.names("consul/config/")
    assert "/v1/catalog/service/a b/c" in {each.path for each in consul.asked}


def test_a_flag_beats_a_variable(consul: Consul, httpserver: HTTPServer) -> None:
    """As everywhere."""
    snapshot = gather({"CONSUL_HTTP_ADDR": "127.0.0.1:1"}, consul=f"http://{address(httpserver)}/")
    assert snapshot.names("consul/")
    assert consul.asked


def test_datacenter_namespace_and_partition_are_asked_for(
    consul: Consul, httpserver: HTTPServer
) -> None:
    """In each request."""
    gather(
        {
            "CONSUL_HTTP_ADDR": address(httpserver),
            "CONSUL_DATACENTER": "east",
            "CONSUL_NAMESPACE": "shop",
            "CONSUL_PARTITION": "team",
        }
    )
    named = {tuple(each.args[name] for name in ("dc", "ns", "partition")) for each in consul.asked}
    assert named == {("east", "shop", "team")}


def test_the_token_travels_in_the_header_alone(
    consul: Consul, httpserver: HTTPServer, tmp_path: Path
) -> None:
    """Not in a URL, not in a reason, not in a document."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    consul.statuses["catalog/nodes"] = (403, f"Permission denied: token {TOKEN} lacks node:read")
    snapshot = gather(
        {"CONSUL_HTTP_ADDR": address(httpserver), "CONSUL_HTTP_TOKEN_FILE": str(file)}
    )
    assert {each.headers["X-Consul-Token"] for each in consul.asked} == {TOKEN}
    assert not any(TOKEN in each.url for each in consul.asked)
    assert TOKEN not in snapshot.manifest("meshdoctor", "0").decode()
    assert TOKEN not in repr(Options(consul_token=TOKEN))


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, "it answers 403 FORBIDDEN (no); give a token that may read it"),
        (404, "it answers 404 NOT FOUND (no); this Consul has no such page"),
        (429, "it answers 429 TOO MANY REQUESTS (no); it asks for fewer requests"),
        (500, "it answers 500 INTERNAL SERVER ERROR (no)"),
    ],
)
def test_a_refused_page_costs_only_itself(
    consul: Consul, httpserver: HTTPServer, status: int, said: str
) -> None:
    """The reason has the status, and what to try."""
    consul.statuses["catalog/service/web"] = (status, "no")
    snapshot = gather({"CONSUL_HTTP_ADDR": address(httpserver)})
    assert said in reason(snapshot, "consul/catalog/service/web.json")
    assert "consul/health/service/web.json" in snapshot.names()


def test_a_consul_without_config_entries_says_so_once(
    consul: Consul, httpserver: HTTPServer
) -> None:
    """Before 1.5 there are none of any kind."""
    consul.statuses["config/service-defaults"] = (404, "")
    snapshot = gather({"CONSUL_HTTP_ADDR": address(httpserver)})
    assert reason(snapshot, "consul/config/") == "this Consul has no config entries"
    assert not [each for each in consul.asked if "proxy-defaults" in each.path]


FILTERED = {"X-Consul-Results-Filtered-By-ACLs": "true"}
DENYING = {"X-Consul-Default-ACL-Policy": "deny"}


def test_what_acls_hide_is_said(consul: Consul, httpserver: HTTPServer) -> None:
    """Consul answers 200 and leaves out what a token may not see."""
    assert not consul.asked
    httpserver.expect_oneshot_request("/v1/catalog/services").respond_with_data(
        '{"web": []}', headers=FILTERED
    )
    httpserver.expect_oneshot_request("/v1/catalog/service/web").respond_with_data(
        "[]\n", headers=FILTERED
    )
    snapshot = gather({"CONSUL_HTTP_ADDR": address(httpserver), "CONSUL_HTTP_TOKEN": TOKEN})
    assert "CONSUL_HTTP_TOKEN" in reason(snapshot, "consul/catalog/")
    assert "Consul hides all of it" in reason(snapshot, "consul/catalog/service/web.json")
    assert "consul/catalog/service/web.json" not in snapshot.names()


def test_intentions_that_acls_hide_are_said(consul: Consul, httpserver: HTTPServer) -> None:
    """What is shown is kept."""
    assert not consul.asked
    shown = '[{"SourceName": "web", "DestinationName": "api", "Action": "allow"}]'
    httpserver.expect_oneshot_request("/v1/connect/intentions").respond_with_data(
        shown, headers=FILTERED
    )
    snapshot = gather({"CONSUL_HTTP_ADDR": address(httpserver), "CONSUL_HTTP_TOKEN": TOKEN})
    assert "CONSUL_HTTP_TOKEN" in reason(snapshot, "consul/connect/")
    assert "consul/connect/intentions.json" in snapshot.names()


def test_without_a_token_an_empty_answer_tells_nothing(
    consul: Consul, httpserver: HTTPServer
) -> None:
    """Consul does not say then that it left something out, only that it denies by default."""
    assert not consul.asked
    for path in ("/v1/catalog/services", "/v1/connect/intentions"):
        httpserver.expect_oneshot_request(path).respond_with_data("[]\n", headers=DENYING)
    snapshot = gather({"CONSUL_HTTP_ADDR": address(httpserver)})
    for name in ("catalog/services", "connect/intentions"):
        assert "without a token" in reason(snapshot, f"consul/{name}.json")


def test_a_kind_of_entry_that_this_consul_does_not_know_has_none(
    consul: Consul, httpserver: HTTPServer
) -> None:
    """That is no gap in the evidence."""
    consul.statuses["config/api-gateway"] = (500, "invalid config entry kind: api-gateway")
    consul.statuses["config/mesh"] = (500, "No cluster leader")
    snapshot = gather({"CONSUL_HTTP_ADDR": address(httpserver)})
    missing = {each.document for each in snapshot.absent}
    assert "consul/config/api-gateway.json" not in missing
    assert "consul/config/mesh.json" in missing


ENTRIES = {"service-defaults", "service-intentions", "mesh", "api-gateway"}
"""Some kinds, of Consul 1.5, 1.9, 1.10 and 1.15."""


@pytest.mark.parametrize(
    ("version", "newer"),
    [
        ("1.4.5", ENTRIES),
        ("1.9.17+ent", {"mesh", "api-gateway"}),
        ("1.15.0-dev", set()),
        ("", set()),
    ],
)
def test_a_consul_is_asked_for_no_kind_of_entry_that_is_newer(
    consul: Consul, httpserver: HTTPServer, version: str, newer: set[str]
) -> None:
    """It would call that an error in its log, at every run."""
    consul.statuses["agent/self"] = (200, json.dumps({"Config": {"Version": version}}))
    snapshot = gather({"CONSUL_HTTP_ADDR": address(httpserver)})
    asked = {each.path.rpartition("/")[2] for each in consul.asked if "/config/" in each.path}
    assert asked & ENTRIES == ENTRIES - newer
    assert snapshot.read("consul/agent/self.json")
    assert bool(asked) == bool(snapshot.names("consul/config/"))


def test_pages_of_other_consuls_are_not_missed(consul: Consul, httpserver: HTTPServer) -> None:
    """Namespaces and partitions are Enterprise's, peers came late; a 403 is another matter."""
    consul.statuses["namespaces"] = consul.statuses["partitions"] = (404, "")
    consul.statuses["peerings"] = (403, "Permission denied")
    snapshot = gather({"CONSUL_HTTP_ADDR": address(httpserver)})
    missing = {each.document for each in snapshot.absent}
    assert {"consul/namespaces.json", "consul/partitions.json"}.isdisjoint(missing)
    assert "CONSUL_HTTP_TOKEN" in reason(snapshot, "consul/peerings.json")


def test_a_redirect_is_not_followed(consul: Consul, httpserver: HTTPServer) -> None:
    """The token would go with it."""
    elsewhere = "http://127.0.0.1:1/"
    consul.statuses["catalog/nodes"] = (302, "")
    httpserver.expect_oneshot_request("/v1/catalog/nodes").respond_with_data(
        status=302, headers={"Location": elsewhere}
    )
    snapshot = gather({"CONSUL_HTTP_ADDR": address(httpserver)})
    assert "consul/catalog/nodes.json" not in snapshot.names()


def test_what_is_not_consul_is_not_read(httpserver: HTTPServer) -> None:
    """Something else may listen there."""
    httpserver.expect_request("").respond_with_data("<html>hello</html>")
    snapshot = gather({"CONSUL_HTTP_ADDR": address(httpserver)})
    assert not snapshot.names("consul/")
    assert "what answers there is not Consul" in reason(snapshot, "consul/catalog/services.json")


def test_an_answer_that_is_not_json_is_not_kept(consul: Consul, httpserver: HTTPServer) -> None:
    """What cannot be read cannot be cleared of secrets."""
    consul.statuses["catalog/nodes"] = (200, "not json")
    snapshot = gather({"CONSUL_HTTP_ADDR": address(httpserver)})
    assert "cannot be redacted" in reason(snapshot, "consul/catalog/nodes.json")


def test_a_token_file_that_cannot_be_read_is_said(httpserver: HTTPServer) -> None:
    """By its name."""
    snapshot = gather(
        {"CONSUL_HTTP_ADDR": address(httpserver), "CONSUL_HTTP_TOKEN_FILE": "/nonexistent/token"}
    )
    assert reason(snapshot, "consul/catalog/services.json") == (
        "Consul's token cannot be read from /nonexistent/token (No such file or directory); name "
        "its file with --consul-token-file or CONSUL_HTTP_TOKEN_FILE"
    )


def test_a_unix_socket_that_is_not_there_is_named() -> None:
    """Not the name that HTTP gives it."""
    snapshot = gather({"CONSUL_HTTP_ADDR": "unix:///nonexistent/consul.sock"})
    said = reason(snapshot, "consul/catalog/services.json")
    assert said.startswith("Consul does not answer (unix:///nonexistent/consul.sock: No such file")


def test_a_consul_without_tls_is_said_to_have_none(httpserver: HTTPServer) -> None:
    """And what asked for it, where that was no address."""
    plain = address(httpserver)
    snapshot = gather({"CONSUL_HTTP_ADDR": plain, "CONSUL_HTTP_SSL": "true"})
    said = reason(snapshot, "consul/catalog/services.json")
    assert ", by CONSUL_HTTP_SSL: what answers there speaks no TLS: http:// is its addr" in said
    secure = f"https://{plain.removeprefix('http://')}"
    said = reason(gather({"CONSUL_HTTP_ADDR": secure}), "consul/catalog/services.json")
    assert f"({secure}: what answers there speaks no TLS" in said


def test_a_unix_socket_is_spoken_to(tmp_path: Path) -> None:
    """CONSUL_HTTP_ADDR=unix:///path."""
    path = tmp_path / "consul.sock"
    server = _UnixServer(str(path), _Leader)  # type: ignore[arg-type] # a path here
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        snapshot = gather({"CONSUL_HTTP_ADDR": f"unix://{path}"})
    finally:
        server.shutdown()
        server.server_close()
    assert snapshot.read("consul/status/leader.json") == b'"10.0.0.1:8300"'


class _Leader(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'"10.0.0.1:8300"' if self.path == "/v1/status/leader" else b"{}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _UnixServer(PlainServer):
    address_family = socket.AF_UNIX
    request_queue_size = 64

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "consul", 0

    def get_request(self) -> tuple[Any, Any]:
        connection, _ = self.socket.accept()
        return connection, ("", 0)


@pytest.mark.parametrize("variable", ["CONSUL_CACERT", "CONSUL_CLIENT_CERT"])
def test_tls_files_that_cannot_be_used_are_said(variable: str) -> None:
    """By the variables to look at."""
    snapshot = gather({"CONSUL_HTTP_ADDR": "https://127.0.0.1:1", variable: "/nonexistent.pem"})
    assert variable in reason(snapshot, "consul/catalog/services.json")


def test_tls_is_verified_unless_told_not_to(tmp_path: Path) -> None:
    """CONSUL_HTTP_SSL_VERIFY=false, or the authority in CONSUL_CACERT, makes it acceptable."""
    certificate = self_signed("consul.example", tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = PlainServer(("127.0.0.1", 0), _Leader)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = {"CONSUL_HTTP_ADDR": f"https://127.0.0.1:{server.server_port}"}
    try:
        refused = gather(at)
        unverified = gather({**at, "CONSUL_HTTP_SSL_VERIFY": "false"})
        named = gather(
            {**at, "CONSUL_CACERT": str(certificate), "CONSUL_TLS_SERVER_NAME": "consul.example"}
        )
    finally:
        server.shutdown()
        server.server_close()
    assert "certificate verify failed" in reason(refused, "consul/catalog/services.json")
    assert unverified.read("consul/status/leader.json")
    assert named.read("consul/status/leader.json")
