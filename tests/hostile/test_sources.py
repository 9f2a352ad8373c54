"""Sources that fail, on real sockets: each costs its own evidence alone, and is said in a word."""

import contextlib
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from meshdoctor.collectors import Options, collect
from meshdoctor.snapshot import Snapshot
from tests.cli.conftest import command, environment
from tests.collectors.conftest import Behaviour, Serve, answer, hang, serve
from tests.collectors.test_docker import Engine
from tests.evidence.damage import recording

__all__ = ["serve"]

DUMP: Final = "envoy/web/config_dump.json"
LEADER: Final = "consul/catalog/services.json"
TOKEN: Final = "5f1a0c9e-0000-4000-8000-c0ffee000009"  # noqa: S105 # of nothing
NO_DOCKER: Final = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


@pytest.fixture
def sound_envoy(httpserver: HTTPServer) -> str:
    """The address of an Envoy that answers, to see that it is read whatever else fails."""
    pages = ("config_dump", "clusters", "listeners", "server_info", "stats")
    for page in pages:
        body = recording("broken").read(f"envoy/consul_ratings-v1-sidecar_1/{page}.json")
        httpserver.expect_request(f"/{page}").respond_with_data(body)
    return httpserver.url_for("")


def gather(consul: str, envoy: str, **options: Any) -> Snapshot:
    variables = {**NO_DOCKER, "CONSUL_HTTP_ADDR": consul, "CONSUL_HTTP_TOKEN": TOKEN}
    return collect(
        Options(
            environment=variables,
            envoys={"web": envoy},
            **{"request_timeout": 0.5, "deadline": 20.0, **options},
        ),
        lambda _message: None,
    )


def said_of_consul(snapshot: Snapshot) -> str:
    """The one sentence on Consul; the sidecar was read all the same, and no token is in it."""
    assert DUMP in snapshot.documents
    said = [each.message for each in snapshot.absent if each.document.startswith("consul/")]
    assert len(set(said)) == 1
    assert "\n" not in said[0]
    assert TOKEN not in repr(snapshot.absent)
    return said[0]


def reset(connection: socket.socket) -> None:
    """Close so that the other side gets a reset, not an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def reset_in_mid_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[[[[")
    time.sleep(0.1)
    reset(connection)


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def drip_head(connection: socket.socket) -> None:
    for letter in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: 1\r\n" * 1000:
        connection.sendall(bytes([letter]))
        time.sleep(0.05)


def never_end(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        time.sleep(0.01)


def endless_head(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Many: " + b"a" * 1000 + b"\r\n")


def status(code: int) -> Behaviour:
    def behave(connection: socket.socket) -> None:
        body = f"no, not with {TOKEN}".encode()
        head = f"HTTP/1.1 {code} Whatever\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)

    return behave


FAILURES: Final[Mapping[str, tuple[Behaviour, str]]] = {
    "reset at once": (reset, "Consul does not answer"),
    "reset in mid-body": (reset_in_mid_body, "Consul does not answer"),
    "silence": (hang, "sent nothing for 0.5 seconds"),
    "byte by byte": (drip, "was not complete after 2 seconds"),
    "a head that drips": (drip_head, "was not complete after 2 seconds"),
    "a head without end": (endless_head, "Consul does not answer"),
    "a body without end": (never_end, "was not complete after 2 seconds"),
    "too short": (answer(b'"x"', length=100), "broke off after 3 bytes"),
    "longer than said": (answer(b'"x" and more', length=3), ""),
    "401": (status(401), "401"),
    "403": (status(403), "403"),
    "404": (status(404), "404"),
    "429": (status(429), "429"),
    "500": (status(500), "500"),
    "503": (status(503), "503"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_consul_costs_only_itself(serve: Serve, sound_envoy: str, failure: str) -> None:
    """What came of the others is kept, and the run ends."""
    behaviour, sentence = FAILURES[failure]
    snapshot = gather(serve(behaviour), sound_envoy)
    if failure == "longer than said":
        # The length is what counts: what follows belongs to no answer.
        assert snapshot.read("consul/status/leader.json") == b'"x"'
        assert DUMP in snapshot.documents
        return
    assert sentence in said_of_consul(snapshot)


def test_a_refusal_is_told_apart(sound_envoy: str) -> None:
    """Nothing listens there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "connection refused" in said_of_consul(gather(f"127.0.0.1:{port}", sound_envoy))


@pytest.mark.parametrize("failure", ["silence", "byte by byte", "a body without end"])
def test_the_deadline_of_the_run_holds(serve: Serve, sound_envoy: str, failure: str) -> None:
    """However patient each request may be."""
    begun = time.monotonic()
    snapshot = gather(
        serve(FAILURES[failure][0]), sound_envoy, deadline=1.0, request_timeout=3600.0
    )
    # An hour is what one request may take: any figure between is far from both.
    assert time.monotonic() - begun < 600
    assert any(each.document.startswith("consul/") for each in snapshot.absent)


def test_a_token_does_not_follow_a_redirect(serve: Serve, sound_envoy: str) -> None:
    """The other host is never spoken to."""
    spoken_to: list[bytes] = []
    other = serve(lambda connection: spoken_to.append(connection.recv(1)))

    def redirect(connection: socket.socket) -> None:
        head = f"HTTP/1.1 302 Found\r\nLocation: {other}/v1/status/leader\r\n"
        connection.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())

    assert "not followed" in said_of_consul(gather(serve(redirect), sound_envoy))
    assert not spoken_to


def test_acls_that_hide_some_services_cost_those(httpserver: HTTPServer, sound_envoy: str) -> None:
    """The others are read, and the one that was denied is named with what to do."""

    def consul(request: Request) -> Response:
        if request.path.endswith("/service/pay"):
            return Response("Permission denied", status=403)
        pages: Mapping[str, Any] = {
            "/v1/status/leader": "127.0.0.1:8300",
            "/v1/catalog/services": {"web": [], "pay": []},
        }
        return Response(json.dumps(pages.get(request.path, [])))

    httpserver.expect_request("").respond_with_handler(consul)
    snapshot = gather(f"{httpserver.host}:{httpserver.port}", sound_envoy)
    assert "consul/catalog/service/web.json" in snapshot.documents
    denied = {each.document: each.message for each in snapshot.absent}
    assert "CONSUL_HTTP_TOKEN" in denied["consul/catalog/service/pay.json"]
    assert TOKEN not in repr(denied)


# ---------------------------------------------------------------- TLS


@contextlib.contextmanager
def behind_tls(certificate: trustme.LeafCert) -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server with that certificate, and what it was told after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    told: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), context.wrap_socket(plain, True) as secured:  # noqa: FBT003
                    told.append(secured.recv(65536))
                    secured.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"x"')

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", told
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


AUTHORITY: Final = trustme.CA()
LONG_AGO: Final = datetime.now(UTC) - timedelta(days=1)
CERTIFICATES: Final[Mapping[str, tuple[Callable[[], trustme.LeafCert], bool, str]]] = {
    "unknown": (lambda: AUTHORITY.issue_cert("127.0.0.1"), False, "certificate verify failed"),
    "expired": (
        lambda: AUTHORITY.issue_cert("127.0.0.1", not_after=LONG_AGO),
        True,
        "certificate has expired",
    ),
    "wrong name": (
        lambda: AUTHORITY.issue_cert("other.example"),
        True,
        "certificate is not valid",
    ),
}


@pytest.mark.parametrize("case", CERTIFICATES)
def test_a_certificate_that_proves_nothing_gets_no_token(
    sound_envoy: str, tmp_path: Path, case: str
) -> None:
    """TLS is verified by default; what fails is said, and not a byte of the request was sent."""
    issue, trusted, sentence = CERTIFICATES[case]
    authority = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(authority))
    with behind_tls(issue()) as (address, told):
        snapshot = gather(address, sound_envoy, consul_ca_cert=authority if trusted else None)
    assert sentence in said_of_consul(snapshot)
    assert not any(told)


def test_a_good_certificate_is_enough(sound_envoy: str, tmp_path: Path) -> None:
    """The counterpart: with the authority given, the same server is read."""
    authority = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(authority))
    with behind_tls(AUTHORITY.issue_cert("127.0.0.1")) as (address, told):
        snapshot = gather(address, sound_envoy, consul_ca_cert=authority)
    assert snapshot.read("consul/status/leader.json") == b'"x"'
    assert TOKEN.encode() in told[0]


# ---------------------------------------------------------------- Docker


def engine_that(die_after: int) -> Behaviour:
    """A daemon that gives its version, and dies after so many answers."""
    answered = 0

    def behave(connection: socket.socket) -> None:
        nonlocal answered
        if answered >= die_after:
            reset(connection)
            return
        answered += 1
        body = b'{"Version": "20.10", "ApiVersion": "1.41"}'
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)
        connection.close()

    return behave


@pytest.mark.parametrize("answers", [0, 1, 2])
def test_a_daemon_that_dies_costs_only_itself(
    serve: Serve, sound_envoy: str, answers: int
) -> None:
    """At the first word, or in the middle."""
    host = serve(engine_that(answers)).replace("http:", "tcp:")
    snapshot = collect(
        Options(
            environment={"DOCKER_HOST": host, "CONSUL_HTTP_ADDR": "127.0.0.1:1"},
            envoys={"web": sound_envoy},
            request_timeout=2,
        ),
        lambda _message: None,
    )
    assert DUMP in snapshot.documents
    said = [each.message for each in snapshot.absent if each.document.startswith("docker/")]
    assert said
    assert not any("\n" in each for each in said)


def test_a_daemon_that_drips_costs_only_itself(serve: Serve, sound_envoy: str) -> None:
    """It says who it is, and then its list of containers never ends."""

    def dripping(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            drip(connection)

    def behave(connection: socket.socket) -> None:
        if answered:
            threading.Thread(target=dripping, args=(connection,), daemon=True).start()
            return
        answered.append(connection)
        engine_that(die_after=1)(connection)

    answered: list[socket.socket] = []
    snapshot = collect(
        Options(
            environment={
                "DOCKER_HOST": serve(behave).replace("http:", "tcp:"),
                "CONSUL_HTTP_ADDR": "127.0.0.1:1",
            },
            envoys={"web": sound_envoy},
            request_timeout=0.5,
            deadline=20.0,
        ),
        lambda _message: None,
    )
    assert DUMP in snapshot.documents
    said = {each.document: each.message for each in snapshot.absent}
    assert "was not complete after 2 seconds" in said["docker/containers.json"]


# ---------------------------------------------------------------- Ctrl-C, and what others can see


@pytest.mark.parametrize("sub", ["check", "snapshot"])
def test_ctrl_c_leaves_nothing_half_done(serve: Serve, tmp_path: Path, sub: str) -> None:
    """Exit code 130, a word, no file, no traceback; the token stands nowhere."""
    file = tmp_path / "evidence.tgz"
    asked = threading.Event()

    def hold(connection: socket.socket) -> None:
        asked.set()
        hang(connection)

    arguments = ["-o", str(file)] if sub == "snapshot" else []
    process = subprocess.Popen(
        command(sub, *arguments, "--consul", serve(hold), "--request-timeout", "600"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**NO_DOCKER, CONSUL_HTTP_TOKEN=TOKEN, HOME=str(tmp_path)),
        encoding="utf-8",
    )
    with process:
        assert asked.wait(60)
        if sys.platform == "linux":
            seen = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            assert TOKEN.encode() not in seen
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert TOKEN not in out + errors
    assert not list(tmp_path.glob("*.tgz*")) + list(tmp_path.glob(".*.tgz*"))


def test_what_is_written_is_the_owners_and_replaces_nothing(
    serve: Serve, sound_envoy: str, tmp_path: Path
) -> None:
    """A snapshot is for its owner's eyes; over another file it is written with --force alone."""
    file = tmp_path / "evidence.tgz"

    def record(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(
                *("snapshot", "-o", file, "--consul", serve(status(403))),
                *("--envoy", f"web={sound_envoy}", *more),
            ),
            capture_output=True,
            check=False,
            encoding="utf-8",
            env=environment(**NO_DOCKER, CONSUL_HTTP_TOKEN=TOKEN, HOME=str(tmp_path)),
        )

    os.umask(os.umask(0o022))
    file.write_bytes(b"mine")
    refused = record()
    assert refused.returncode == 2, refused.stderr
    assert "--force" in refused.stderr
    assert file.read_bytes() == b"mine"
    written = record("--force")
    assert file.stat().st_mode & 0o777 == 0o600, written.stderr
    assert TOKEN not in written.stdout + written.stderr
    assert TOKEN.encode() not in file.read_bytes()


# ---------------------------------------------------------------- read-only


def test_only_get_is_asked_of_any_source(httpserver: HTTPServer) -> None:
    """What an engine, a Consul, a Pilot and an Envoy are asked, as a recorder between sees it."""
    engine = Engine()
    asked: list[tuple[str, str]] = []

    def record(request: Request) -> Response:
        asked.append((request.method, request.path))
        if request.path.startswith("/v1/"):
            return Response('"127.0.0.1:8300"' if "leader" in request.path else "{}")
        return engine(request)

    httpserver.expect_request("").respond_with_handler(record)
    here = f"{httpserver.host}:{httpserver.port}"
    collect(
        Options(
            environment={"DOCKER_HOST": f"tcp://{here}", "CONSUL_HTTP_ADDR": here},
            envoys={"web": f"http://{here}"},
            pilot=f"http://{here}",
            request_timeout=5,
        ),
        lambda _message: None,
    )
    for begin in ("/v1/catalog/", "/v1.41/containers/", "/server_info", "/debug/"):
        assert any(path.startswith(begin) for _, path in asked), begin
    assert {method for method, _ in asked} == {"GET"}
