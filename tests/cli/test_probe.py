"""`meshdoctor probe` on a mesh that this process plays: no Docker, and real requests."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import jsonschema
import pytest
from pytest_httpserver import HTTPServer, URIPattern
from werkzeug import Request, Response

from meshdoctor.report import json as report_json
from meshdoctor.report import probe as report
from meshdoctor.snapshot import open_snapshot
from tests.cli.conftest import MESHES, Ran, Run, unexpired

NO_DOCKER: Final = ("--docker-host", "unix:///nonexistent/docker.sock")
SIDECAR: Final = "web-sidecar-proxy"
UPSTREAM: Final = "9191"
"""The port at which the recorded `web` calls api, and by mistake pay."""


class Catalogue(URIPattern):
    """All that Consul is asked."""

    def match(self, uri: str) -> bool:
        return uri.startswith("/v1/")


@pytest.fixture
def services() -> Iterator[HTTPServer]:
    """What listens at the port of the upstreams: an application that says it is `pay`."""
    with HTTPServer() as server:
        yield server


@pytest.fixture
def where(services: HTTPServer, httpserver: HTTPServer) -> tuple[str, ...]:
    """The options that lead to the mesh: Consul and one Envoy, as recorded."""
    recording = open_snapshot(MESHES / "connect-collision.tgz")

    def recorded(name: str) -> Response:
        if name not in recording.names():
            return Response("", 404)
        body = unexpired(recording.read(name)).decode().replace(UPSTREAM, str(services.port))
        return Response(body, content_type="application/json")

    def consul(request: Request) -> Response:
        return recorded(f"consul/{request.path.removeprefix('/v1/')}.json")

    def envoy(request: Request) -> Response:
        return recorded(f"envoy/{SIDECAR}{request.path}.json")

    for path in ("/config_dump", "/clusters", "/listeners", "/server_info", "/stats", "/certs"):
        httpserver.expect_request(path).respond_with_handler(envoy)
    httpserver.expect_request(Catalogue()).respond_with_handler(consul)
    url = httpserver.url_for("").rstrip("/").replace("localhost", "127.0.0.1")
    pilot = ("--pilot", "http://127.0.0.1:1")
    return (*NO_DOCKER, "--consul", url, "--envoy", f"{SIDECAR}={url}", *pilot)


def answering(services: HTTPServer, status: int = 200) -> list[Request]:
    """Have the upstreams' port answer as `pay`; gives what it is asked."""
    asked: list[Request] = []

    def answer(request: Request) -> Response:
        asked.append(request)
        return Response("I am pay", status, {"X-Service": "pay"})

    services.expect_request("/").respond_with_handler(answer)
    services.expect_request("/health").respond_with_handler(answer)
    return asked


def probe(run: Run, where: tuple[str, ...], *arguments: object) -> Ran:
    return run("probe", *where, "--caller", "web", "--width", 100, *arguments)


def test_prediction_stands_beside_reality(
    run: Run, where: tuple[str, ...], services: HTTPServer
) -> None:
    """And the findings follow, below their cause."""
    asked = answering(services)
    ran = probe(run, where, "--answer-header", "x-service")
    assert ran.code == 1
    assert "probe sends 2 GET / requests from 1 workload to api, pay\n" in ran.stderr
    assert [request.method for request in asked] == ["GET", "GET"]
    table, _, diagnosis = ran.stdout.partition("\n\n")
    rows = [line.split() for line in table.splitlines()[1:]]
    assert [row[0] for row in rows] == ["web", "web"]
    api = next(row for row in rows if row[1].startswith("api:"))
    assert api[2:] == ["pay", "pay,", "200", "header", "✓", "same"]
    assert "1 of 2 requests was answered by the service asked; 2 of 2 met" in diagnosis
    assert "MD601 Requests to api on port" in " ".join(diagnosis.split())
    assert "MD604" not in diagnosis


def test_the_json_is_the_report_with_the_probe_in_it(
    run: Run, where: tuple[str, ...], services: HTTPServer
) -> None:
    """One document; both schemas hold."""
    answering(services)
    ran = probe(run, where, "--answer-header", "X-Service", "--format", "json")
    document = json.loads(ran.stdout)
    jsonschema.validate(document, report_json.schema())
    jsonschema.validate(document["probe"], report.schema())
    assert document["probe"]["summary"] == {
        "requests": 2,
        "right": 1,
        "same": 2,
        "different": 0,
        "unknown": 0,
    }
    codes = {each["id"]: each["code"] for each in document["findings"]}
    (met,) = [each for each in document["findings"] if each["code"] == "MD601"]
    assert "MD701" in {codes[cause] for cause in met["causes"]}
    assert "probe" in {each["name"] for each in document["coverage"]["sources"]}


def test_without_a_header_nobody_can_tell(
    run: Run, where: tuple[str, ...], services: HTTPServer
) -> None:
    """It is said that it is not known, and how to know more."""
    answering(services)
    ran = probe(run, where)
    assert "somebody, 200" in ran.stdout
    assert "of 2 it is not known" in " ".join(ran.stdout.split())
    assert "--fingerprint" in ran.stdout


def test_the_path_is_what_is_asked_for(
    run: Run, where: tuple[str, ...], services: HTTPServer
) -> None:
    """With its query; what is no path is wrong usage, and nothing is sent."""
    asked = answering(services)
    probe(run, where, "--path", "/health?full=1", "--callee", "api")
    assert [(each.path, each.query_string) for each in asked] == [("/health", b"full=1")]
    for wrong in ("health", "/a b", "/a\r\nX: y", ""):
        ran = probe(run, where, "--path", wrong)
        assert ran.code == 2
        assert "write a path" in ran.stderr
    assert len(asked) == 1


def test_a_failing_service_is_a_finding(
    run: Run, where: tuple[str, ...], services: HTTPServer
) -> None:
    """500 from whoever answers is no success."""
    answering(services, 500)
    ran = probe(run, where)
    assert ran.code == 1
    assert "MD603" in ran.stdout
    assert "were answered with 500" in " ".join(ran.stdout.split())


def test_what_was_met_can_be_recorded_and_judged_again(
    run: Run, where: tuple[str, ...], services: HTTPServer, tmp_path: Path
) -> None:
    """`check --snapshot` says of it what the live probe said."""
    answering(services)
    file = tmp_path / "probed.tgz"
    report_file = tmp_path / "live.json"
    live = probe(
        run,
        where,
        *("--answer-header", "x-service", "--record", file, "--output", f"json={report_file}"),
    )
    assert live.code == 1
    again = json.loads(run("check", "--snapshot", file, "--format", "json").stdout)
    told = json.loads(report_file.read_text(encoding="utf-8"))
    assert again["findings"] == told["findings"]
    assert {"MD601"} <= {each["code"] for each in again["findings"]}
    refused = probe(run, where, "--record", file)
    assert refused.code == 2
    assert "is there already" in refused.stderr


def test_what_cannot_be_recorded_is_said(
    run: Run, where: tuple[str, ...], services: HTTPServer, tmp_path: Path
) -> None:
    """The requests were sent: what they met is told all the same."""
    answering(services)
    file = tmp_path / "file"
    file.touch()
    ran = probe(run, where, "--record", file / "probed")
    assert ran.code == 1
    assert "not recorded: " in ran.stderr
    assert "Not a directory" in ran.stderr
    assert "somebody, 200" in ran.stdout


def test_nothing_is_sent_where_it_could_not_be_recorded(
    run: Run, where: tuple[str, ...], services: HTTPServer, tmp_path: Path
) -> None:
    """So far as that is known before: what was met once cannot be had again."""
    answering(services)
    ran = probe(run, where, "--record", tmp_path / "no such folder" / "probed.tgz")
    assert (ran.code, ran.stdout) == (2, "")
    assert "there is no folder" in ran.stderr
    assert not services.log


def test_a_name_that_fits_nobody_is_wrong_usage(run: Run, where: tuple[str, ...]) -> None:
    """With the names there are."""
    ran = run("probe", *where, "--caller", "nobody")
    assert ran.code == 2
    assert "there are api, pay, web" in ran.stderr


def test_many_requests_are_not_sent_without_asking(
    run: Run, where: tuple[str, ...], services: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal to ask on it is wrong usage, and --yes is the answer."""
    asked = answering(services)
    monkeypatch.setattr("meshdoctor.collectors.probe.ASK_ABOVE", 1)
    ran = probe(run, where)
    assert ran.code == 2
    assert "2 requests are more than 1: add --yes" in ran.stderr
    assert asked == []
    assert probe(run, where, "--yes").code == 1
    assert len(asked) == 2


def test_without_a_mesh_there_is_no_verdict(run: Run) -> None:
    """Nothing is sent, and it is said what was looked for."""
    ran = run(
        "probe", *NO_DOCKER, "--consul", "http://127.0.0.1:1", "--pilot", "http://127.0.0.1:1"
    )
    assert ran.code == 3
    assert ran.stdout == ""


def test_check_says_how_to_ask_for_a_probe(run: Run) -> None:
    """That nobody probed is no alarm."""
    ran = run("check", "--snapshot", MESHES / "fixed.tgz", "--select", "MD601")
    said = " ".join(ran.stdout.split())
    assert "no probe was asked for. `meshdoctor probe` sends one GET" in said
