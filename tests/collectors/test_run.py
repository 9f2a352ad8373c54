"""The run as a whole: its deadline, its end, and what it says where there is nothing."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from meshdoctor.collectors import Options, collect, spool
from meshdoctor.collectors.interface import Deadline, Recorder, Workers
from meshdoctor.evidence.interface import MissingEvidenceError
from meshdoctor.snapshot import Snapshot, open_snapshot
from tests.collectors.conftest import Serve, hang

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"
NOTHING = {
    "DOCKER_HOST": "unix:///nonexistent/docker.sock",
    "CONSUL_HTTP_ADDR": "127.0.0.1:1",
}


def reasons(snapshot: Snapshot) -> Mapping[str, str]:
    return {each.document: each.message for each in snapshot.absent}


def test_with_nothing_there_each_source_says_how_to_point_at_it() -> None:
    """No document, no traceback, no waiting."""
    snapshot = collect(Options(environment=NOTHING), lambda _message: None)
    assert not snapshot.documents
    said = reasons(snapshot)
    assert "DOCKER_HOST" in said["docker/"]
    assert "CONSUL_HTTP_ADDR" in said["consul/catalog/services.json"]
    assert "--pilot" in said["pilot/"]
    assert "--envoy NAME=URL" in said["envoy/"]


def test_without_docker_consul_tells_which_proxies_there_are(httpserver: HTTPServer) -> None:
    """Each is named, with how to give its address; one that was given is read."""
    recorded = open_snapshot(MESHES / "connect-healthy.tgz")

    def replay(request: Request) -> Response:
        name = request.path.removeprefix("/v1/")
        try:
            return Response(recorded.read(f"consul/{name}.json"))
        except MissingEvidenceError:
            return Response(status=404)

    httpserver.expect_request("").respond_with_handler(replay)
    environment = {**NOTHING, "CONSUL_HTTP_ADDR": f"{httpserver.host}:{httpserver.port}"}
    snapshot = collect(Options(environment=environment), lambda _message: None)
    envoys = {name: why for name, why in reasons(snapshot).items() if name.startswith("envoy/")}
    assert envoys.keys() == {
        f"envoy/{name}-sidecar-proxy/config_dump.json" for name in ("api", "db", "pay", "web")
    }
    assert all("--envoy " in why for why in envoys.values())


def test_what_missed_the_deadline_is_absent_for_that_reason(serve: Serve) -> None:
    """And the run does not wait for it."""
    snapshot = collect(
        Options(environment=NOTHING, envoys={"web": serve(hang)}, deadline=0.3),
        lambda _message: None,
    )
    assert "envoy/web/config_dump.json" in reasons(snapshot)
    assert snapshot.created


def test_a_hung_docker_costs_only_itself(serve: Serve) -> None:
    """Its socket may be there and nobody behind it."""
    environment = {**NOTHING, "DOCKER_HOST": serve(hang).replace("http:", "tcp:")}
    snapshot = collect(
        Options(environment=environment, request_timeout=0.3), lambda _message: None
    )
    assert "docker/" in reasons(snapshot)
    assert "consul/catalog/services.json" in reasons(snapshot)


def test_progress_is_told_one_at_a_time() -> None:
    """From whichever worker it comes."""
    speaking = threading.Lock()

    def progress(_message: str) -> None:
        assert speaking.acquire(blocking=False)
        time.sleep(0.001)
        speaking.release()

    envoys = {f"web{number}": "http://127.0.0.1:1" for number in range(20)}
    collect(Options(environment=NOTHING, envoys=envoys), progress)


def test_ctrl_c_leaves_though_a_server_hangs(serve: Serve) -> None:
    """No thread that waits for an answer holds the process."""
    script = (
        "from meshdoctor.collectors import Options, collect\n"
        f"options = Options(environment={NOTHING!r}, envoys={{'web': {serve(hang)!r}}},\n"
        "                  request_timeout=600, deadline=600)\n"
        "collect(options, lambda message: print(message, flush=True))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline()
        # The request is on its way a moment after the first word.
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors


def test_a_failing_task_does_not_end_its_worker() -> None:
    """The next one finds it alive; the failure waits for whoever asks for the result."""
    workers = Workers(1)
    failing = workers.submit(int, "no number")
    working = workers.submit(int, "1")
    assert workers.settle(Deadline(10, 10))
    assert isinstance(failing.exception(), ValueError)
    assert working.result() == 1
    workers.stop()


def test_one_that_hangs_holds_up_none_of_the_others() -> None:
    """Of many that are asked a few at a time; each has its own result, or its own failure."""
    workers = Workers(3)
    hang, begun = threading.Event(), threading.Lock()
    under_way = most = 0

    def ask(number: int) -> float:
        nonlocal under_way, most
        with begun:
            under_way += 1
            most = max(most, under_way)
        if number == 1:
            hang.wait(30)
        with begun:
            under_way -= 1
        return 12 / number

    asked = workers.submit_each(ask, range(7), 2)
    others = [asked[number].result(30) for number in range(2, 7)]
    assert others == [12 / number for number in range(2, 7)]
    assert isinstance(asked[0].exception(30), ZeroDivisionError)
    assert not asked[1].done()
    hang.set()
    assert workers.settle(Deadline(30, 30))
    assert asked[1].result() == 12
    assert most == 2
    workers.stop()


def test_what_was_not_begun_at_the_end_is_not_done() -> None:
    """Nor waited for."""
    workers = Workers(1)
    hang, begun = threading.Event(), threading.Event()

    def ask(number: int) -> int:
        begun.set()
        hang.wait(30)
        return number

    asked = workers.submit_each(ask, range(3), 1)
    assert begun.wait(30)
    workers.stop()
    hang.set()
    assert workers.settle(Deadline(30, 30))
    assert [each.done() for each in asked.values()] == [True, False, False]


def test_nothing_is_recorded_after_the_end() -> None:
    """A snapshot that was handed out does not change."""
    recorder = Recorder()
    recorder.expect("a", "b")
    recorder.put("a", b"early")
    snapshot = recorder.snapshot("too late", "")
    recorder.put("b", b"late")
    recorder.absent("c", "late")
    assert snapshot.documents.keys() == {"a"}
    assert reasons(snapshot) == {"b": "too late"}


def test_large_answers_wait_outside_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are many; and read back as they were, in any order."""
    monkeypatch.setattr(spool, "_IN_MEMORY", 0)
    recorder = Recorder()
    bodies = {f"netfilter/{number}.nat.txt": bytes([number]) * 100_000 for number in range(5)}
    for name, body in bodies.items():
        recorder.put(name, body)
    snapshot = recorder.snapshot("", "")
    assert all(callable(document) for document in snapshot.documents.values())
    assert {name: snapshot.read(name) for name in reversed(list(bodies))} == bodies


def test_what_is_at_a_known_address_does_not_wait_for_docker(
    serve: Serve, httpserver: HTTPServer
) -> None:
    """Consul, Pilot and the API server are asked while Docker is silent."""
    paths = ("/v1/status/leader", "/debug/registryz", "/metrics")
    asked = {path: threading.Event() for path in paths}
    rules = threading.Event()

    def note(request: Request) -> Response:
        asked.get(request.path, rules).set()
        return Response(status=404)

    waited: list[bool] = []

    def docker(_connection: socket.socket) -> None:
        """Silent until all the others were asked: in turn, they never would be."""
        waited.extend(each.wait(20) for each in (*asked.values(), rules))

    httpserver.expect_request("").respond_with_handler(note)
    known = f"{httpserver.host}:{httpserver.port}"
    collect(
        Options(
            environment={"DOCKER_HOST": serve(docker).replace("http:", "tcp:")},
            consul=known,
            pilot=known,
            apiserver=known,
            request_timeout=30,
        ),
        lambda _message: None,
    )
    assert waited[:4] == [True] * 4
