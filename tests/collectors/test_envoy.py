"""Envoy's admin pages: the ladder of ways, and what each fault costs."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from meshdoctor.collectors import Options, collect, envoy
from meshdoctor.collectors.envoy import admin_ports
from meshdoctor.evidence.docker import CONTAINERS, Container, DockerEngine
from meshdoctor.snapshot import Snapshot
from tests.collectors.conftest import Serve, answer, hang

STATS = envoy.PAGES["stats.json"][0]
NOTHING_ELSE = {
    "DOCKER_HOST": "unix:///nonexistent/docker.sock",
    "CONSUL_HTTP_ADDR": "127.0.0.1:1",
}
PAGES = {
    "/server_info": {"version": "abc/1.30.0/Clean/RELEASE/BoringSSL", "node": {"id": "web"}},
    "/config_dump": {"configs": []},
    "/clusters": {"cluster_statuses": []},
    "/listeners": {"listener_statuses": []},
    "/stats": {"stats": []},
    "/certs": {"certificates": []},
}


class Admin:
    """An admin interface; `instead` are other answers by path."""

    def __init__(self) -> None:
        self.instead: dict[str, Response] = {}
        self.asked: list[str] = []

    def __call__(self, request: Request) -> Response:
        asked = f"{request.path}?{request.query_string.decode()}".rstrip("?")
        self.asked.append(asked)
        if asked in self.instead:
            return self.instead[asked]
        return Response(json.dumps(PAGES[request.path]))


@pytest.fixture
def admin(httpserver: HTTPServer) -> Admin:
    admin = Admin()
    httpserver.expect_request("").respond_with_handler(admin)
    return admin


def gather(*urls: str, timeout: float = 5, whole: bool = True) -> Snapshot:
    envoys = {f"web{number}": url for number, url in enumerate(urls)}
    options = Options(
        environment=NOTHING_ELSE, envoys=envoys, request_timeout=timeout, whole=whole
    )
    return collect(options, lambda _message: None)


def reasons(snapshot: Snapshot) -> Mapping[str, str]:
    return {each.document: each.message for each in snapshot.absent}


def test_every_page_of_the_layout_is_asked_for(admin: Admin, httpserver: HTTPServer) -> None:
    """Once each, the endpoints with the dump, as JSON."""
    snapshot = gather(httpserver.url_for(""))
    assert admin.asked == [
        "/server_info",
        "/clusters?format=json",
        "/config_dump?include_eds",
        "/listeners?format=json",
        STATS,
        "/certs",
    ]
    assert admin.asked == list(envoy.paths())
    assert len(snapshot.names("envoy/web0/")) == len(PAGES) + 1
    assert json.loads(snapshot.read("envoy/web0/access.json")) == {"way": "url", "tried": []}


def test_what_no_check_reads_is_only_asked_for_where_it_is_recorded(
    admin: Admin, httpserver: HTTPServer
) -> None:
    """To judge, endpoints in one page are enough; without that page they come with the dump."""
    gather(httpserver.url_for(""), whole=False)
    assert admin.asked == [
        "/server_info",
        "/clusters?format=json",
        "/config_dump",
        STATS,
        "/certs",
    ]
    assert admin.asked == list(envoy.paths(whole=False))
    admin.instead["/clusters?format=json"] = Response("no such path", status=404)
    admin.asked.clear()
    gather(httpserver.url_for(""), whole=False)
    assert "/config_dump?include_eds" in admin.asked


def test_a_control_plane_that_was_never_reached_is_told_by_a_zero(
    admin: Admin, httpserver: HTTPServer
) -> None:
    """Envoy counts a statistic as unused that it never set, though its 0 tells."""
    asks = {"ads_config": {"grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]}}
    dump = {"configs": [{"bootstrap": {"dynamic_resources": asks}}]}
    admin.instead["/config_dump?include_eds"] = Response(json.dumps(dump))
    everything = STATS.removesuffix("&usedonly")
    zero = {"stats": [{"name": "control_plane.connected_state", "value": 0}]}
    admin.instead[everything] = Response(json.dumps(zero))
    snapshot = gather(httpserver.url_for(""))
    assert json.loads(snapshot.read("envoy/web0/stats.json")) == zero
    admin.instead[STATS] = admin.instead[everything]
    admin.asked.clear()
    gather(httpserver.url_for(""))
    assert everything not in admin.asked


def test_an_envoy_that_refuses_include_eds_is_asked_without(
    admin: Admin, httpserver: HTTPServer
) -> None:
    """Better a dump without endpoints than none."""
    admin.instead["/config_dump?include_eds"] = Response("unknown parameter", status=400)
    snapshot = gather(httpserver.url_for(""))
    assert snapshot.read("envoy/web0/config_dump.json")
    assert "envoy/web0/config_dump.json" not in reasons(snapshot)


def test_an_envoy_that_refuses_a_filter_gives_all_its_statistics(
    admin: Admin, httpserver: HTTPServer
) -> None:
    """More than is read, but not less."""
    admin.instead[STATS] = Response("Invalid re2 regex", status=400)
    snapshot = gather(httpserver.url_for(""))
    assert snapshot.read("envoy/web0/stats.json")
    assert admin.asked[-2] == "/stats?format=json"


@pytest.mark.parametrize(
    "body", ['{"stats": [', "", "stats.one: 1", '{"stats": ["' + "x" * 2**17, "x" * 2**17]
)
def test_a_page_that_is_no_whole_json_costs_only_itself(
    admin: Admin, httpserver: HTTPServer, body: str
) -> None:
    """As when an answer breaks off and nobody says so."""
    for path in envoy.PAGES["stats.json"]:
        admin.instead[path] = Response(body)
    snapshot = gather(httpserver.url_for(""))
    assert "no whole JSON" in reasons(snapshot)["envoy/web0/stats.json"]
    assert "envoy/web0/certs.json" in snapshot.names()


def test_a_page_an_old_envoy_does_not_have_costs_only_itself(
    admin: Admin, httpserver: HTTPServer
) -> None:
    """The reason has the status."""
    admin.instead["/certs"] = Response("no such path", status=404)
    snapshot = gather(httpserver.url_for(""))
    assert "404" in reasons(snapshot)["envoy/web0/certs.json"]


def test_what_is_no_envoy_is_not_read(admin: Admin, httpserver: HTTPServer) -> None:
    """Something else may answer on that port."""
    admin.instead["/server_info"] = Response("<html>hello</html>")
    snapshot = gather(httpserver.url_for(""))
    assert not snapshot.names("envoy/")
    assert "not an Envoy's admin interface" in reasons(snapshot)["envoy/web0/config_dump.json"]
    assert admin.asked == ["/server_info"]


def test_a_hung_proxy_costs_only_itself(
    admin: Admin, httpserver: HTTPServer, serve: Serve
) -> None:
    """The others are read meanwhile."""
    snapshot = gather(serve(hang), httpserver.url_for(""), timeout=0.3)
    assert "sent nothing for 0.3 seconds" in reasons(snapshot)["envoy/web0/config_dump.json"]
    assert "envoy/web1/config_dump.json" in snapshot.names()
    assert admin.asked


def test_an_answer_that_breaks_off_is_said(serve: Serve) -> None:
    """With how much of it had come."""
    snapshot = gather(serve(answer(b"{", length=100)))
    assert "broke off after 1 bytes" in reasons(snapshot)["envoy/web0/config_dump.json"]


def sidecar(*command: str) -> Container:
    inspected: Mapping[str, Any] = {
        "Id": "c",
        "Name": "/web-sidecar",
        "Path": command[0],
        "Args": command[1:],
    }
    raw = json.dumps([inspected]).encode()
    return DockerEngine.load(Snapshot({CONTAINERS: raw})).containers[0]


@pytest.mark.parametrize(
    ("command", "ports"),
    [
        (("envoy", "-c", "/etc/envoy.yaml"), (15000, 19000, 9901)),
        (("pilot-agent", "proxy", "--proxyAdminPort", "15100"), (15100,)),
        (("pilot-agent", "proxy", "--proxyAdminPort=15100"), (15100,)),
        (("consul", "connect", "envoy", "-admin-bind", "127.0.0.1:19001"), (19001,)),
        (("consul", "connect", "envoy", "-admin-bind=localhost:19002"), (19002,)),
        (("consul-dataplane", "-envoy-admin-bind-port=19003"), (19003,)),
        (
            (
                "envoy",
                "--config-yaml",
                'admin: {address: {socket_address: {address: "::", port_value: 9902}}}',
            ),
            (9902,),
        ),
        (
            (
                "sh",
                "-c",
                'envoy --config-yaml "{\\"admin\\":{\\"address\\":{\\"port_value\\":9903}}}"',
            ),
            (9903,),
        ),
    ],
)
def test_the_admin_port_is_told_by_the_command_line(
    command: tuple[str, ...], ports: tuple[int, ...]
) -> None:
    """Else the usual ones are tried."""
    assert admin_ports(sidecar(*command)) == ports
