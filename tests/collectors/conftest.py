"""What tests of collectors share: a run without workers' haste, and servers that misbehave."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshdoctor.collectors.interface import Deadline
from tests.plain_user import as_plain_user

Behaviour = Callable[[socket.socket], None]
Serve = Callable[[Behaviour], str]

"""The user id that Linux keeps for those without any right."""


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
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
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


def self_signed(name: str, folder: Path) -> Path:
    """A certificate and its key, both in one file, that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


@pytest.fixture
def without_root() -> Iterator[None]:
    """The rights of a plain user while the test runs, also where root runs the tests."""
    with as_plain_user():
        yield
