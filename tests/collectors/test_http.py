"""GET, and the sentences for what can go wrong, the same in the clear and through TLS."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from meshdoctor.collectors import plain_http, secure_http
from meshdoctor.collectors.http import HttpSource
from meshdoctor.collectors.interface import (
    AnswerError,
    CollectError,
    Deadline,
    HungError,
    NotAnsweringError,
    OutOfTimeError,
    RefusedError,
)
from tests.collectors.conftest import Behaviour, Serve, answer, hang, self_signed, with_shutdown

Get = Callable[[str, Deadline], bytes]


@pytest.fixture(params=["in the clear", "through TLS"])
def get(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Get]:
    """GET /page of a server, as it is or behind one that only takes TLS."""
    if request.param == "in the clear":
        yield in_the_clear
        return
    certificate = self_signed("localhost", tmp_path)
    trusted = ssl.create_default_context(cafile=str(certificate))
    with contextlib.ExitStack() as stack:

        def through_tls(url: str, deadline: Deadline) -> bytes:
            port = stack.enter_context(tls_before(url, certificate))
            with HttpSource(f"https://localhost:{port}", deadline, verify=trusted) as source:
                return source.get("/page")

        yield through_tls


def in_the_clear(url: str, deadline: Deadline) -> bytes:
    with HttpSource(url, deadline) as source:
        return source.get("/page")


@contextlib.contextmanager
def tls_before(url: str, certificate: Path) -> Iterator[int]:
    """The port of a server that takes TLS, and passes on what comes to one without."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    port = int(url.rstrip("/").rpartition(":")[2])

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                asking, _ = listener.accept()
                threading.Thread(target=pass_on, args=(asking,), daemon=True).start()

    def pass_on(asking: socket.socket) -> None:
        """One question and its answer. By one thread: TLS of one socket is not for two."""
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(asking, server_side=True) as secured,
            socket.create_connection(("127.0.0.1", port)) as asked,
        ):
            asked.sendall(secured.recv(65536))
            while part := asked.recv(65536):
                secured.sendall(part)
            secured.unwrap()

    with socket.create_server(("localhost", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        with_shutdown(listener)


def dripping_after(head: bytes) -> Behaviour:
    """Send this, and then a byte within each timeout, for as long as somebody is there."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(head)
        connection.settimeout(0.05)
        while True:
            try:
                if connection.recv(1) == b"":
                    return
            except TimeoutError:
                connection.sendall(b"x")

    return drip


def test_the_body_comes_as_it_was_sent(
    get: Get, httpserver: HTTPServer, deadline: Deadline
) -> None:
    """Bytes that are no text survive."""
    httpserver.expect_request("/page").respond_with_data(bytes(range(256)))
    assert get(httpserver.url_for(""), deadline) == bytes(range(256))


def test_http_1_1_is_spoken(get: Get, httpserver: HTTPServer, deadline: Deadline) -> None:
    """Envoy refuses 1.0."""

    def protocol(request: Request) -> Response:
        return Response(str(request.environ["SERVER_PROTOCOL"]))

    httpserver.expect_request("/page").respond_with_handler(protocol)
    assert get(httpserver.url_for(""), deadline) == b"HTTP/1.1"


def test_nobody_listening_is_a_refusal(deadline: Deadline) -> None:
    """It is told apart from silence: no other way to the same port can do better."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RefusedError, match="connection refused"):
        in_the_clear(f"http://127.0.0.1:{port}", deadline)


def test_a_server_that_never_answers_costs_one_timeout(get: Get, serve: Serve) -> None:
    """It is said that it took the request."""
    with pytest.raises(HungError, match=r"accepted the request and sent nothing for 0\.1 seconds"):
        get(serve(hang), Deadline(30, 0.1))


def test_who_stops_in_the_middle_hangs_too(get: Get, serve: Serve) -> None:
    """Also where the end of the answer would have been that of the connection."""

    def stop(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")

    with pytest.raises(HungError, match=r"accepted the request and sent nothing for 0\.1 seconds"):
        get(serve(stop), Deadline(30, 0.1))


def test_a_server_that_drips_is_given_up(get: Get, serve: Serve) -> None:
    """A byte in each timeout does not keep it alive for ever."""
    drip = dripping_after(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    with pytest.raises(HungError, match="was not complete"):
        get(serve(drip), Deadline(30, 0.1))


def test_an_answer_that_breaks_off_is_no_answer(
    get: Get, serve: Serve, deadline: Deadline
) -> None:
    """Its length tells."""
    with pytest.raises(AnswerError, match="broke off after 4 bytes"):
        get(serve(answer(b"half", length=8)), deadline)


def test_what_is_not_http_is_said_to_be_so(get: Get, serve: Serve, deadline: Deadline) -> None:
    """As when a port belongs to something else."""

    def greet(connection: socket.socket) -> None:
        connection.sendall(b"220 mail.example ESMTP\r\n")
        connection.close()

    with pytest.raises(NotAnsweringError, match="does not speak HTTP"):
        get(serve(greet), deadline)


def test_redirects_are_not_followed(get: Get, httpserver: HTTPServer, deadline: Deadline) -> None:
    """A token must not travel to wherever an answer points."""
    httpserver.expect_request("/page").respond_with_data(
        status=302, headers={"Location": "http://elsewhere.example/"}
    )
    with pytest.raises(AnswerError, match="not followed"):
        get(httpserver.url_for(""), deadline)


def test_a_status_is_quoted_with_what_was_said(
    get: Get, httpserver: HTTPServer, deadline: Deadline
) -> None:
    """One line of it, without control characters, and no page made for browsers."""
    httpserver.expect_ordered_request("/page").respond_with_data("No\n\x1b[31mleader", status=500)
    httpserver.expect_ordered_request("/page").respond_with_data("<html>no</html>", status=404)
    with pytest.raises(AnswerError) as internal:
        get(httpserver.url_for(""), deadline)
    assert str(internal.value) == "it answers 500 INTERNAL SERVER ERROR (No [31mleader)"
    with pytest.raises(AnswerError) as missing:
        get(httpserver.url_for(""), deadline)
    assert str(missing.value) == "it answers 404 NOT FOUND"
    assert missing.value.status == 404


def test_nothing_is_asked_after_the_deadline(get: Get, httpserver: HTTPServer) -> None:
    """What comes too late is missing for that reason."""
    deadline = Deadline(30, 5)
    deadline.end()
    with pytest.raises(OutOfTimeError, match="--timeout"):
        get(httpserver.url_for(""), deadline)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a b", "nonsense", "ftp://x"])
def test_an_address_that_is_none_is_an_error_not_a_crash(url: str, deadline: Deadline) -> None:
    """People type them."""
    with pytest.raises(CollectError):
        in_the_clear(url, deadline)


def test_a_connection_is_kept_and_one_that_was_closed_is_not_used(serve: Serve) -> None:
    """A server may close what was idle for long; the next answer comes over a new one."""
    connections: list[socket.socket] = []

    def answer_twice(connection: socket.socket) -> None:
        connections.append(connection)
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        connection.sendall(reply)
        if connection.recv(65536):
            connection.sendall(reply)
        connection.close()

    with HttpSource(serve(answer_twice), Deadline(30, 5)) as source:
        assert [source.get("/page") for _ in range(4)] == [b"ok"] * 4
    assert len(connections) == 2


def test_a_head_that_drips_is_given_up(serve: Serve) -> None:
    """Each byte comes within the timeout, the end of the head never."""
    drip = dripping_after(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    with pytest.raises(HungError, match=r"was not complete .*\(0 bytes"):
        in_the_clear(serve(drip), Deadline(30, 0.1))


def test_chunks_that_break_off_are_no_answer(get: Get, serve: Serve, deadline: Deadline) -> None:
    """Envoys send their dumps so."""

    def breaks(connection: socket.socket) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"4\r\nhalf\r\n8\r\nbroken")
        connection.close()

    with pytest.raises(AnswerError, match="broke off after"):
        get(serve(breaks), deadline)


def test_an_answer_without_an_end_is_cut(
    get: Get, serve: Serve, deadline: Deadline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is not theirs to fill."""
    monkeypatch.setattr(plain_http, "MAX_BODY", 1000)
    monkeypatch.setattr(secure_http, "MAX_BODY", 1000)

    with pytest.raises(AnswerError, match="larger than 1000 bytes"):
        get(serve(answer(b"x" * 2000)), deadline)


def test_a_name_and_a_password_in_an_address_are_sent(
    httpserver: HTTPServer, deadline: Deadline
) -> None:
    """As to an admin interface behind something that asks for them."""
    expected = {"Authorization": "Basic YWxpY2U6cEBzcw=="}
    httpserver.expect_request("/page", headers=expected).respond_with_data("ok")
    url = f"http://alice:p%40ss@{httpserver.host}:{httpserver.port}"
    assert in_the_clear(url, deadline) == b"ok"


def test_a_socket_file_is_asked_like_a_port(tmp_path: Path, deadline: Deadline) -> None:
    """As Docker's engine listens; and one that nobody listens at is a refusal."""
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve_one() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            answer(b"ok")(connection)

        threading.Thread(target=serve_one, daemon=True).start()
        with HttpSource("http://localhost", deadline, unix_socket=str(path)) as source:
            assert source.get("/page") == b"ok"
    with (
        HttpSource("http://localhost", deadline, unix_socket=str(path)) as source,
        pytest.raises(RefusedError),
    ):
        source.get("/page")
