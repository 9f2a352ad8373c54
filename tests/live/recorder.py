"""A recorder between meshdoctor and what it asks: it passes all on, and notes what was asked."""

import contextlib
import http.client
import itertools
import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Final

Connect = Callable[[], socket.socket]
"""A new connection to what is behind a recorder."""

_HOP_BY_HOP: Final = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})
_VERSION: Final = re.compile(r"^/v\d+\.\d+(?=/)")


@dataclass(frozen=True)
class Asked:
    """One request, when it began and when all of its answer had come, and what it said."""

    method: str
    path: str
    body: bytes
    begun: float
    ended: float

    @property
    def command(self) -> list[str]:
        """Of Docker's `POST /containers/<id>/exec`, what is to be run there."""
        command: list[str] = json.loads(self.body)["Cmd"]
        return command


@dataclass
class Recorder:
    """What was asked of one server, in the order in which it began."""

    connect: Connect
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_on(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """The answer of what is behind, and its whole body."""
        connection = http.client.HTTPConnection("recorded")
        connection.sock = self.connect()
        with contextlib.closing(connection):
            connection.request(method, path, body, {**headers, "Connection": "close"})
            with connection.getresponse() as answer:
                return answer, answer.read()

    def overlapping(self) -> list[tuple[Asked, Asked]]:
        """Requests that began before the one before them had ended."""
        ordered = sorted(self.asked, key=lambda each: each.begun)
        return [
            (one, next_) for one, next_ in itertools.pairwise(ordered) if next_.begun < one.ended
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    recorder: Recorder

    def _answer(self) -> None:
        begun = time.monotonic()
        recorder = self.recorder
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            answer, said = recorder.pass_on(self.command, self.path, dict(self.headers), body)
        except (OSError, http.client.HTTPException):
            # As where nothing listens: the one who asks sees a connection that ends.
            self.close_connection = True
            return
        finally:
            path = _VERSION.sub("", self.path)
            with recorder.lock:
                recorder.asked.append(Asked(self.command, path, body, begun, time.monotonic()))
        self.send_response(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def __getattr__(self, name: str) -> Callable[[], None]:
        # `do_GET`, and whatever else should be asked for.
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def address_string(self) -> str:
        return "recorded"

    def log_message(self, *_: object) -> None:
        pass


class _OverTcp(socketserver.ThreadingTCPServer):
    daemon_threads = True


class _OverSocket(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    # Of a full queue, a socket in the file system refuses the next at once.
    request_queue_size = 128


@contextlib.contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def recording(connect: Connect, at: Path | None = None) -> Iterator[tuple[str, Recorder]]:
    """A recorder's address, on loopback or on a socket in the file system, and the recorder."""
    recorder = Recorder(connect)
    handler = type("_RecordingHandler", (_Handler,), {"recorder": recorder})
    if at is not None:
        with _serving(_OverSocket(str(at), handler)):
            yield f"unix://{at}", recorder
        return
    server = _OverTcp(("127.0.0.1", 0), handler)
    with _serving(server):
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}", recorder


def to(host: str, port: int) -> Connect:
    """Connections to a TCP port."""
    return lambda: socket.create_connection((host, port), 30)


def to_socket(path: str) -> Connect:
    """Connections to a socket in the file system."""

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(30)
        connection.connect(path)
        return connection

    return connect
