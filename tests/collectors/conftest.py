"""What tests of collectors share: a run without workers' haste, and servers that misbehave."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from meshdoctor.collectors.interface import Deadline

Behaviour = Callable[[socket.socket], None]
Serve = Callable[[Behaviour], str]


@pytest.fixture
def deadline() -> Deadline:
    """Time enough for a server on this machine."""
    return Deadline(30, 5)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(behaviour)`: the URL of a server that does that with each connection it accepts."""
    listeners: list[socket.socket] = []
    connections: list[socket.socket] = []

    def start(behaviour: Behaviour) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.append(connection)
                try:
                    connection.recv(65536)
                    behaviour(connection)
                except OSError:
                    continue

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for each in (*listeners, *connections):
        with_shutdown(each)


def with_shutdown(each: socket.socket) -> None:
    """Close a socket even while another thread waits on it."""
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    each.close()


def hang(_connection: socket.socket) -> None:
    """Accept the request, and never answer."""


def answer(body: bytes, *, length: int | None = None) -> Behaviour:
    """Answer 200 with a body, and perhaps another length than it has; then close."""

    def behave(connection: socket.socket) -> None:
        claimed = len(body) if length is None else length
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {claimed}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)
        connection.close()

    return behave
