"""A stand-in for gliderlabs/registrator, which the Go module registry does not give.

It follows what Registrator does with `-internal` and a `consul://` address: a container's exposed
ports become services when Docker says that it started, and go when it died. Names, ids
(`<host name>:<container>:<port>`), tags and the `SERVICE_*` settings are Registrator's. As there,
its restart leaves the registrations of the one before. `REGISTRATOR_METADATA` says whether it
writes the attributes to Consul, as the `master` image does, or drops them as `latest` and `v7`.
"""

import http.client
import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

_NOT_ATTRIBUTES: Final = frozenset({"name", "tags", "id", "ignore"})


class _Docker(http.client.HTTPConnection):
    def __init__(self) -> None:
        super().__init__("docker")
        address = os.environ.get("DOCKER_HOST", "unix:///tmp/docker.sock")
        self._path = address.removeprefix("unix://")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def _ask(path: str) -> Any:
    connection = _Docker()
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return json.loads(body) if answer.status == 200 else None  # OK
    finally:
        connection.close()


def _events(since: int) -> Iterator[Mapping[str, Any]]:
    connection = _Docker()
    filters = quote(json.dumps({"type": ["container"], "event": ["start", "die"]}))
    connection.request("GET", f"/events?since={since}&filters={filters}")
    answer = connection.getresponse()
    while line := answer.readline():
        yield json.loads(line)


def log(text: str) -> None:
    """A line as Registrator writes them."""
    now = datetime.now(UTC).strftime("%Y/%m/%d %H:%M:%S")
    print(f"{now} {text}", file=sys.stderr, flush=True)  # noqa: T201 # its log


def settings(container: Mapping[str, Any]) -> dict[str, str]:
    """The `SERVICE_*` of environment and labels, without that beginning, in lower case."""
    config = container["Config"]
    pairs = [each.partition("=")[::2] for each in config.get("Env") or ()]
    pairs += list((config.get("Labels") or {}).items())
    return {
        key.removeprefix("SERVICE_").lower(): value
        for key, value in pairs
        if key.startswith("SERVICE_")
    }


def services(container: Mapping[str, Any], host: str, *, metadata: bool) -> list[dict[str, Any]]:
    """What Registrator makes of a container, as bodies for Consul's agent."""
    name = container["Name"].lstrip("/")
    held = settings(container)
    ports = sorted(
        int(each.partition("/")[0]) for each in container["Config"].get("ExposedPorts") or ()
    )
    networks = container["NetworkSettings"]["Networks"] or {}
    address = next((each["IPAddress"] for each in networks.values() if each["IPAddress"]), "")
    image = container["Config"]["Image"].rpartition("/")[2].partition(":")[0]
    if held.get("ignore") or not address:
        return []
    kept = [port for port in ports if not held.get(f"{port}_ignore")]
    made = []
    for port in kept:
        own = {
            key.partition("_")[2]: value
            for key, value in held.items()
            if key.partition("_")[0] == str(port)
        }
        general = {
            key: value for key, value in held.items() if not key.partition("_")[0].isdigit()
        }
        merged = {**general, **own}
        service = merged.get("name") or image
        if len(kept) > 1 and "name" not in own:
            service = f"{service}-{port}"
        meta = {key: value for key, value in merged.items() if key not in _NOT_ATTRIBUTES}
        made.append(
            {
                "ID": merged.get("id") or f"{host}:{name}:{port}",
                "Name": service,
                "Address": address,
                "Port": port,
                "Tags": [tag for tag in merged.get("tags", "").split(",") if tag],
                "Meta": meta if metadata else {},
            }
        )
    return made


class Registrator:
    """One that runs."""

    def __init__(self, consul: str) -> None:
        self._consul = consul
        self._host = socket.gethostname()
        self._metadata = os.environ.get("REGISTRATOR_METADATA") == "1"
        self._registered: dict[str, list[str]] = {}

    def _put(self, path: str, body: Any = None) -> None:
        data = json.dumps(body).encode() if body is not None else b""
        request = urllib.request.Request(f"{self._consul}{path}", data=data, method="PUT")  # noqa: S310 # from the command
        with urllib.request.urlopen(request, timeout=5):  # noqa: S310 # likewise
            pass

    def wait(self) -> None:
        """Until Consul answers: `-retry-attempts=-1`."""
        while True:
            try:
                with urllib.request.urlopen(f"{self._consul}/v1/status/leader", timeout=5):  # noqa: S310 # likewise
                    return
            except OSError as error:
                log(f"consul: cannot be reached: {error}")
                time.sleep(0.5)

    def started(self, id_: str) -> None:
        container = _ask(f"/containers/{id_}/json")
        if container is None or not container["State"]["Running"] or id_ in self._registered:
            return
        for each in services(container, self._host, metadata=self._metadata):
            try:
                self._put("/v1/agent/service/register", each)
            except OSError as error:
                log(f"register failed: {each['ID']} {error}")
                continue
            self._registered.setdefault(id_, []).append(each["ID"])
            log(f"added: {id_[:12]} {each['ID']}")

    def died(self, id_: str) -> None:
        for each in self._registered.pop(id_, ()):
            try:
                self._put(f"/v1/agent/service/deregister/{quote(each, safe=':')}")
            except OSError as error:
                log(f"deregister failed: {each} {error}")
                continue
            log(f"removed: {id_[:12]} {each}")

    def follow(self) -> None:
        since = int(time.time())
        running = _ask("/containers/json")
        log(f"Listening for Docker events ... ({len(running)} containers)")
        for each in running:
            self.started(each["Id"])
        for event in _events(since):
            (self.started if event["Action"] == "start" else self.died)(event["Actor"]["ID"])


def main() -> None:
    """`registrator -internal consul://consul:8500`."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    given = [each for each in sys.argv[1:] if each.startswith("consul://")]
    log("Starting registrator (stand-in of the lab)")
    registrator = Registrator(given[0].replace("consul://", "http://"))
    registrator.wait()
    registrator.follow()


if __name__ == "__main__":
    main()
