"""`meshdoctor watch` beside a mesh that changes: a Consul that holds queries, and its Envoys."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jsonschema
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from meshdoctor.cli import (
    EXIT_CLEAN,
    EXIT_FINDINGS,
    EXIT_INTERRUPTED,
    EXIT_NO_VERDICT,
    watch,
)
from meshdoctor.evidence import layout
from meshdoctor.evidence.interface import MissingEvidenceError
from meshdoctor.report import diff
from meshdoctor.snapshot import open_snapshot
from tests.cli.conftest import MESHES, Run, command, environment, unexpired

SIDECARS = ("api", "db", "pay", "web")


class Mesh:
    """The recorded mesh of Consul's own, served as Consul and the Envoys would; it can change."""

    def __init__(self, server: HTTPServer, recording: str) -> None:
        self.server = server
        self.recorded = open_snapshot(MESHES / f"{recording}.tgz")
        self.index = 7
        self.is_down = False
        self.holds_envoys = False
        self.asked: list[str] = []
        self.changed = threading.Condition()
        self.blocked = threading.Event()
        self.read_versions = threading.Event()
        server.expect_request("").respond_with_handler(self.answer)

    def become(self, recording: str, *, told_by_consul: bool = True) -> None:
        with self.changed:
            self.recorded = open_snapshot(MESHES / f"{recording}.tgz")
            self.index += told_by_consul
            self.changed.notify_all()

    def answer(self, request: Request) -> Response:
        path = request.path
        if path.startswith("/v1/"):
            return self.consul(path.removeprefix("/v1/"), request)
        _, sidecar, page = path.split("/", 2)
        # A look asks for statistics by a filter too, of more names than the versions'.
        if page == "stats" and "version" in request.args.get("filter", ""):
            self.asked.append(path)
            if len(self.asked) > 2 * len(SIDECARS):
                self.read_versions.set()
            return Response(json.dumps({"stats": [self.version(sidecar)]}))
        with self.changed:
            self.changed.wait_for(lambda: not self.holds_envoys, timeout=20)
        name = layout.envoy(f"{sidecar}-sidecar-proxy", f"{page}.json")
        return self.document(name)

    def version(self, sidecar: str) -> dict[str, object]:
        raw = self.recorded.read(layout.envoy(f"{sidecar}-sidecar-proxy", "config_dump.json"))
        return {"name": "listener_manager.lds.version", "value": hash(raw) & 0xFFFF}

    def consul(self, page: str, request: Request) -> Response:
        if self.is_down:
            return Response(status=500)
        asked = int(request.args.get("index", 0))
        with self.changed:
            if asked:
                self.blocked.set()
                self.changed.wait_for(lambda: self.index > asked or self.is_down, timeout=20)
            index = self.index
        if page == "health/state/any":
            answer = Response("[]")
        else:
            answer = self.document(f"consul/{page}.json")
        answer.headers["X-Consul-Index"] = str(index)
        return answer

    def document(self, name: str) -> Response:
        try:
            raw = self.recorded.read(name)
        except MissingEvidenceError:
            return Response(status=404)
        return Response(unexpired(raw))

    @property
    def options(self) -> list[str]:
        url = f"http://{self.server.host}:{self.server.port}"
        envoys = [f"--envoy={name}-sidecar-proxy={url}/{name}" for name in SIDECARS]
        return ["--docker-host", "unix:///nonexistent/docker.sock", "--consul", url, *envoys]

    @property
    def but_versions(self) -> list[str]:
        """Its Envoys are newer than its Consul knows, of which MD708 warns."""
        return ["--ignore=MD708", *self.options]


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """One that answers while it holds other requests."""
    server = HTTPServer(threaded=True)
    server.start()
    yield server
    server.clear()
    server.stop()


def later(ready: threading.Event, change: threading.Thread) -> None:
    def run() -> None:
        assert ready.wait(30)
        change.start()

    threading.Thread(target=run, daemon=True).start()


def test_a_warning_that_stays_is_not_waited_for(server: HTTPServer, run: Run) -> None:
    """MD708's is true, and the mesh as ready as it gets; --fail-on warning waits on."""
    mesh = Mesh(server, "connect-healthy")
    ran = run("watch", "--until", "healthy", "--timeout", 60, *mesh.options)
    assert ran.code == EXIT_CLEAN, ran.stdout + ran.stderr
    assert "MD708" in ran.stdout
    assert "degraded, but nothing at or above error is found" in ran.stderr
    strict = ("--timeout", 4, "--fail-on", "warning")
    ran = run("watch", "--until", "healthy", *strict, *mesh.options)
    assert ran.code == EXIT_FINDINGS
    assert "still degraded after 4 seconds" in ran.stderr


def test_a_sidecar_that_cannot_be_read_yet_is_waited_for(server: HTTPServer, run: Run) -> None:
    """That is a warning too, and the mesh is not ready."""
    mesh = Mesh(server, "connect-healthy")
    refused = "--envoy=web-sidecar-proxy=http://127.0.0.1:1"
    options = [each for each in mesh.options if not each.startswith("--envoy=web")]
    ran = run("watch", "--until", "healthy", "--timeout", 4, *options, refused)
    assert ran.code == EXIT_FINDINGS, ran.stdout + ran.stderr
    assert "MD311" in ran.stdout
    assert "still degraded" in ran.stderr


def test_it_waits_until_the_mesh_is_healthy(
    server: HTTPServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consul tells of the change; what was wrong is printed, and that it is gone."""
    # Else it looks again by itself, and on a busy machine before Consul has told.
    monkeypatch.setattr(watch, "_FIRST_PAUSE", 50)
    mesh = Mesh(server, "connect-collision")
    later(mesh.blocked, threading.Thread(target=mesh.become, args=("connect-healthy",)))
    ran = run("watch", "--until", "healthy", "--timeout", 60, "--every", 50, *mesh.but_versions)
    assert ran.code == EXIT_CLEAN, ran.stdout + ran.stderr
    found, _, gone = ran.stdout.partition("Gone\n")
    assert "MD701" in found
    assert "MD701" in gone
    assert "Broken before, healthy after" in gone
    assert "Consul's catalogue changed" in ran.stdout


@contextmanager
def watching(mesh: Mesh, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that watches until it is interrupted, which must end it cleanly."""
    with subprocess.Popen(
        command("watch", *options, *mesh.but_versions),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        encoding="utf-8",
    ) as running:
        try:
            yield running
            os.kill(running.pid, signal.SIGINT)
            _, complaints = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == EXIT_INTERRUPTED
    assert complaints.strip() == "meshdoctor: interrupted"


def lines_until(running: "subprocess.Popen[str]", last: str) -> list[str]:
    assert running.stdout is not None
    lines = []
    for line in running.stdout:
        lines.append(line)
        if last in line:
            return lines
    pytest.fail(f"it ended without {last!r}: {''.join(lines)}")


def test_a_proxys_version_tells_too(server: HTTPServer) -> None:
    """What Consul pushes without a change of its catalogue."""
    mesh = Mesh(server, "connect-healthy")
    with watching(mesh, "--every", "600") as running:
        lines_until(running, "Healthy: ")
        assert mesh.read_versions.wait(60)
        mesh.become("connect-collision", told_by_consul=False)
        said = "".join(lines_until(running, "Healthy before, broken after"))
    assert "has another configuration" in said
    assert "MD701" in said


def test_time_is_over_with_findings(server: HTTPServer, run: Run) -> None:
    """1: it is not ready, and why is above; nothing is printed twice."""
    mesh = Mesh(server, "connect-collision")
    ran = run("watch", "--until", "healthy", "--timeout", 5, *mesh.but_versions)
    assert ran.code == EXIT_FINDINGS
    assert ran.stdout.count("MD701") == 1
    assert "still broken after 5 seconds" in ran.stderr


def test_what_the_end_cut_short_is_not_told(server: HTTPServer, run: Run) -> None:
    """A look that had begun when time was over lacks evidence: nothing is gone by that."""
    mesh = Mesh(server, "connect-collision")

    def change() -> None:
        mesh.holds_envoys = True
        mesh.become("connect-collision")

    later(mesh.blocked, threading.Thread(target=change))
    ran = run("watch", "--until", "healthy", "--timeout", 5, *mesh.but_versions)
    mesh.holds_envoys = False
    with mesh.changed:
        mesh.changed.notify_all()
    assert ran.code == EXIT_FINDINGS
    assert ran.stdout.count("MD701") == 1
    assert "still broken after 5 seconds" in ran.stderr


def test_time_is_over_without_a_verdict(run: Run) -> None:
    """3: there is nothing to have a verdict on."""
    nowhere = ("--docker-host", "unix:///nonexistent/docker.sock", "--consul", "127.0.0.1:1")
    ran = run("watch", "--until", "healthy", "--timeout", 2, *nowhere)
    assert ran.code == EXIT_NO_VERDICT
    assert "No mesh is there yet: `meshdoctor check` says where" in ran.stdout
    assert "still unknown after 2 seconds; `meshdoctor check` says why" in ran.stderr
    ran = run("watch", "--timeout", 1, *nowhere)
    assert ran.code == EXIT_NO_VERDICT
    assert "still unknown after 1 seconds; `meshdoctor check` says why" in ran.stderr


def test_it_ends_where_nobody_reads_on(server: HTTPServer) -> None:
    """`watch | head -5` does not stay for ever; the exit code is that of the last look."""
    mesh = Mesh(server, "connect-healthy")
    with subprocess.Popen(
        command("watch", "--every", "600", *mesh.but_versions),
        stdout=subprocess.PIPE,
        env=environment(),
        encoding="utf-8",
    ) as running:
        try:
            lines_until(running, "Healthy: ")
            assert mesh.read_versions.wait(60)
            assert running.stdout is not None
            running.stdout.close()
            mesh.become("connect-collision")
            assert running.wait(60) == EXIT_FINDINGS
        finally:
            running.kill()


def test_a_mesh_that_is_started_later_is_found(server: HTTPServer, run: Run) -> None:
    """A script starts both at once."""
    mesh = Mesh(server, "connect-healthy")
    mesh.is_down = True

    def start() -> None:
        mesh.is_down = False

    threading.Timer(2, start).start()
    ran = run("watch", "--until", "healthy", "--timeout", 60, *mesh.but_versions)
    assert ran.code == EXIT_CLEAN, ran.stdout + ran.stderr
    assert "healthy after" in ran.stdout


def test_each_change_is_one_line_of_json(server: HTTPServer) -> None:
    """For a program that reads along."""
    mesh = Mesh(server, "connect-healthy")
    with watching(mesh, "--format", "json", "--every", "600") as running:
        (first,) = map(json.loads, lines_until(running, '"healthy"'))
        assert mesh.read_versions.wait(60)
        mesh.become("connect-collision")
        (second,) = map(json.loads, lines_until(running, '"broken"'))
    for each in (first, second):
        jsonschema.validate(each, diff.schema())
    assert first["after"]["verdict"] == "healthy"
    assert second["summary"]["found"] == 3
    assert second["calls"]
