"""GET, and the sentences for what can go wrong."""

import socket

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

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
from tests.collectors.conftest import Serve, answer, hang


def get(url: str, deadline: Deadline) -> bytes:
    with HttpSource(url, deadline) as source:
        return source.get("/page")


def test_the_body_comes_as_it_was_sent(httpserver: HTTPServer, deadline: Deadline) -> None:
    """Bytes that are no text survive."""
    httpserver.expect_request("/page").respond_with_data(bytes(range(256)))
    assert get(httpserver.url_for(""), deadline) == bytes(range(256))


def test_http_1_1_is_spoken(httpserver: HTTPServer, deadline: Deadline) -> None:
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
        get(f"http://127.0.0.1:{port}", deadline)


def test_a_server_that_never_answers_costs_one_timeout(serve: Serve) -> None:
    """It is said that it took the request."""
    with pytest.raises(HungError, match=r"accepted the request and sent nothing for 0\.1 seconds"):
        get(serve(hang), Deadline(30, 0.1))


def test_a_server_that_drips_is_given_up(serve: Serve) -> None:
    """A byte in each timeout does not keep it alive for ever."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        connection.settimeout(0.05)
        while True:
            try:
                if connection.recv(1) == b"":
                    return
            except TimeoutError:
                connection.sendall(b"x")

    with pytest.raises(HungError, match="was not complete"):
        get(serve(drip), Deadline(30, 0.1))


def test_an_answer_that_breaks_off_is_no_answer(serve: Serve, deadline: Deadline) -> None:
    """Its length tells."""
    with pytest.raises(AnswerError, match="broke off after 4 bytes"):
        get(serve(answer(b"half", length=8)), deadline)


def test_what_is_not_http_is_said_to_be_so(serve: Serve, deadline: Deadline) -> None:
    """As when a port belongs to something else."""

    def greet(connection: socket.socket) -> None:
        connection.sendall(b"220 mail.example ESMTP\r\n")
        connection.close()

    with pytest.raises(NotAnsweringError, match="does not speak HTTP"):
        get(serve(greet), deadline)


def test_redirects_are_not_followed(httpserver: HTTPServer, deadline: Deadline) -> None:
    """A token must not travel to wherever an answer points."""
    httpserver.expect_request("/page").respond_with_data(
        status=302, headers={"Location": "http://elsewhere.example/"}
    )
    with pytest.raises(AnswerError, match="not followed"):
        get(httpserver.url_for(""), deadline)


def test_a_status_is_quoted_with_what_was_said(httpserver: HTTPServer, deadline: Deadline) -> None:
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


def test_nothing_is_asked_after_the_deadline(httpserver: HTTPServer) -> None:
    """What comes too late is missing for that reason."""
    deadline = Deadline(30, 5)
    deadline.end()
    with pytest.raises(OutOfTimeError, match="--timeout"):
        get(httpserver.url_for(""), deadline)


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a b", "nonsense", "ftp://x"])
def test_an_address_that_is_none_is_an_error_not_a_crash(url: str, deadline: Deadline) -> None:
    """People type them."""
    with pytest.raises(CollectError):
        get(url, deadline)
