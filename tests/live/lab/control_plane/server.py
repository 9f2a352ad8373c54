"""The lab's stand-in for Pilot: reads Consul and Istio's rules, and tells the Envoys.

Pilot 1.1 speaks Envoy's v2 API alone, which no Envoy of today understands; this speaks v3, by the
rules of Pilot 1.1, and takes Pilot's arguments. What it shares with Pilot beyond that: it exits
255 when no API server answers, asks Consul every two seconds (`--consulserverInterval`), and
serves the debug pages. `LAB_SEED` makes the order in which services claim a port repeatable;
without it, it is drawn anew at every push.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import grpc

from tests.live.lab.control_plane import catalogue, debug
from tests.live.lab.control_plane.configuration import (
    Configuration,
    Conflict,
    Mesh,
    Rule,
    build,
    shuffled,
)
from tests.live.lab.control_plane.discovery import Discovery

_RULES: Final = "/apis/networking.istio.io/v1alpha3"
_NO_API_SERVER: Final = 255
_PATIENCE: Final = 5
"""Seconds that an API server is waited for."""


def log(text: str) -> None:
    """A line as Pilot writes them."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    print(f"{now}\t{text}", flush=True)  # noqa: T201 # its log


class ControlPlane:
    """What is known, and how it is told."""

    def __init__(self, consul: str, api_server: str, namespace: str) -> None:
        self._consul = consul.rstrip("/")
        self._api_server = api_server.rstrip("/")
        self._namespace = namespace
        self._lock = threading.Lock()
        self._mesh = Mesh(())
        self._number = 0
        self._looks = 0
        self._version = ""
        self.discovery = Discovery(self.configured)

    def configured(self, address: str) -> tuple[str, Configuration]:
        with self._lock:
            return self._version, build(self._mesh, address)

    def rules(self, plural: str) -> tuple[Rule, ...]:
        """Raises OSError or ValueError."""
        within = f"/namespaces/{self._namespace}" if self._namespace else ""
        url = f"{self._api_server}{_RULES}{within}/{plural}"
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 # from the command
            held: Mapping[str, Any] = json.load(answer)
        return tuple(held["items"])

    def look(self) -> None:
        """Push when something changed."""
        self._push_what_changed()
        with self._lock:
            self._looks += 1

    def _push_what_changed(self) -> None:
        services = self._read("Consul", self._mesh.services, lambda: catalogue.read(self._consul))
        virtual = self._read(
            "API server", self._mesh.virtual_services, lambda: self.rules("virtualservices")
        )
        destination = self._read(
            "API server", self._mesh.destination_rules, lambda: self.rules("destinationrules")
        )
        held = (services, virtual, destination)
        had = self._mesh.services, self._mesh.virtual_services, self._mesh.destination_rules
        if held == had and self._number:
            return
        with self._lock:
            self._number += 1
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self._version = f"{now}/{self._number}"
            seed = os.environ.get("LAB_SEED") or uuid.uuid4().hex
            self._mesh = Mesh(*held, order=shuffled(services, seed))
        log(f"info\tads\tPushing {self._version} Services: {len(services)}")
        self.discovery.push()

    def _read(self, whose: str, had: Any, read: Callable[[], Any]) -> Any:
        """What is not answered stays as it was, as with Pilot."""
        try:
            return read()
        except (OSError, ValueError, KeyError) as error:
            log(f"warn\t{whose} was not read: {error}")
            return had

    def page(self, path: str) -> str | None:
        with self._lock:
            mesh, version = self._mesh, self._version
        conflicts = self._conflicts(mesh)
        match path:
            case "/debug/registryz":
                return debug.registryz(mesh.services)
            case "/debug/endpointz":
                return debug.endpointz(mesh.services)
            case "/debug/configz":
                return debug.configz(mesh)
            case "/debug/push_status":
                return debug.push_status(version.partition("/")[0], conflicts)
            case "/debug/syncz":
                return json.dumps([_synchronised(each) for each in self._proxies()], indent=4)
            case "/metrics":
                rejects = self.discovery.rejects
                return debug.metrics(mesh, conflicts, len(self._proxies()), rejects)
            case "/lab/looks":
                # Not Pilot's: the lab waits by it until a change has been seen.
                return str(self._looks)
        return None

    def _proxies(self) -> list[Any]:
        return [each for each in self.discovery.connected() if each.node]

    def _conflicts(self, mesh: Mesh) -> list[Conflict]:
        return [
            conflict
            for each in self._proxies()
            for conflict in build(mesh, each.address).conflicts
        ]


def _synchronised(proxy: Any) -> dict[str, Any]:
    kinds = ("cluster", "listener", "route", "endpoint")
    return {
        "proxy": proxy.name,
        "proxy_version": "1.1.0",
        **{f"{kind}_sent": proxy.sent.get(kind, "") for kind in kinds},
        **{f"{kind}_acked": proxy.acked.get(kind, "") for kind in kinds},
        "endpoint_percent": 100,
    }


def _serve(control_plane: ControlPlane, port: int) -> None:
    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = control_plane.page(self.path.partition("?")[0])
            body = (page or "404 page not found\n").encode()
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("", port), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def main() -> None:
    """`discovery --httpAddr :15007 --consulserverURL http://consul:8500 ...`."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["discovery"])
    parser.add_argument("--httpAddr", default=":15007")
    parser.add_argument("--grpcAddr", default=":15010")
    parser.add_argument("--monitoringAddr", default=":15014")
    parser.add_argument("--registries", default="Consul")
    parser.add_argument("--consulserverURL", required=True)
    parser.add_argument("--consulserverInterval", default="2s")
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--appNamespace", default="")
    given, _ = parser.parse_known_args()
    with open(given.kubeconfig, encoding="utf-8") as file:  # noqa: PTH123 # one line of it is read
        server = next(line.partition(":")[2].strip() for line in file if "server:" in line)
    control_plane = ControlPlane(given.consulserverURL, server, given.appNamespace)
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            control_plane.rules("virtualservices")
            break
        except (OSError, ValueError, KeyError) as error:
            if time.monotonic() > until:
                log(
                    "error\tfailed to create discovery service: config controller: failed to "
                    f"register custom resources: {server}: {_why(error)}"
                )
                sys.exit(_NO_API_SERVER)
            time.sleep(0.5)
    control_plane.look()
    _serve(control_plane, _port(given.httpAddr))
    _serve(control_plane, _port(given.monitoringAddr))
    streams = grpc.server(ThreadPoolExecutor(256))
    streams.add_generic_rpc_handlers((control_plane.discovery.handler(),))
    streams.add_insecure_port(f"0.0.0.0:{_port(given.grpcAddr)}")
    streams.start()
    log(f"info\tDiscovery service started at http={given.httpAddr} grpc={given.grpcAddr}")
    while True:
        time.sleep(float(given.consulserverInterval.removesuffix("s")))
        control_plane.look()


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return "connection refused" if isinstance(reason, ConnectionRefusedError) else str(reason)


if __name__ == "__main__":
    main()
