"""A stand-in for the kube-apiserver that holds Istio's rules, on a real etcd.

It serves VirtualServices and DestinationRules, and as much of the API around them as `kubectl`
needs to get, apply, patch and delete them. It keeps them in etcd, by the gateway that etcd has for
JSON, and takes the arguments of the real one: `--etcd-servers` and `--insecure-port`.
"""

import base64
import json
import os
import signal
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

_GROUP: Final = "networking.istio.io"
_VERSION: Final = "v1alpha3"
_KINDS: Final = {"virtualservices": "VirtualService", "destinationrules": "DestinationRule"}
_VERBS: Final = ["create", "delete", "get", "list", "patch", "update"]

Object = dict[str, Any]


class Etcd:
    """Objects by `<plural>/<namespace>/<name>`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _ask(self, what: str, body: Object) -> Object:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in body.items()}
        request = urllib.request.Request(  # noqa: S310 # from the command
            f"{self._url}/v3/kv/{what}", data=json.dumps(encoded).encode()
        )
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 # likewise
            held: Object = json.load(answer)
        return held

    def put(self, key: str, value: Object) -> None:
        self._ask("put", {"key": key, "value": json.dumps(value)})

    def delete(self, key: str) -> None:
        self._ask("deleterange", {"key": key})

    def below(self, prefix: str) -> list[Object]:
        after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self._ask("range", {"key": prefix, "range_end": after}).get("kvs", [])
        return [json.loads(base64.b64decode(each["value"])) for each in found]

    def get(self, key: str) -> Object | None:
        found = self._ask("range", {"key": key}).get("kvs", [])
        return json.loads(base64.b64decode(found[0]["value"])) if found else None


def patched(document: Any, operations: list[Object]) -> Any:
    """RFC 6902: add, replace and remove."""
    for each in operations:
        *path, last = [
            part.replace("~1", "/").replace("~0", "~") for part in each["path"].split("/")[1:]
        ]
        held = document
        for part in path:
            held = held[int(part)] if isinstance(held, list) else held[part]
        if isinstance(held, list):
            index = len(held) if last == "-" else int(last)
            match each["op"]:
                case "add":
                    held.insert(index, each["value"])
                case "replace":
                    held[index] = each["value"]
                case "remove":
                    del held[index]
        elif each["op"] == "remove":
            del held[last]
        else:
            held[last] = each["value"]
    return document


def merged(document: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    held = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            held.pop(key, None)
        else:
            held[key] = merged(held.get(key), value)
    return held


_API: Final[dict[str, Object]] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/version": {"major": "1", "minor": "7", "gitVersion": "v1.7.3-stand-in"},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {
                "name": _GROUP,
                "versions": [{"groupVersion": f"{_GROUP}/{_VERSION}", "version": _VERSION}],
                "preferredVersion": {
                    "groupVersion": f"{_GROUP}/{_VERSION}",
                    "version": _VERSION,
                },
            }
        ],
    },
    f"/apis/{_GROUP}/{_VERSION}": {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{_GROUP}/{_VERSION}",
        "resources": [
            {
                "name": plural,
                "singularName": kind.lower(),
                "namespaced": True,
                "kind": kind,
                "verbs": _VERBS,
            }
            for plural, kind in _KINDS.items()
        ],
    },
}


class NotFoundError(Exception):
    """Nothing is served at that path."""


class Rules:
    """The rules: what each method does with each path."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd

    def get(self, path: str) -> Object:
        if path in _API:
            return _API[path]
        plural, namespace, name = _place(path)
        if name:
            found = self._etcd.get(f"{plural}/{namespace}/{name}")
            if found is None:
                raise NotFoundError
            return found
        prefix = f"{plural}/{namespace}/" if namespace else f"{plural}/"
        return {
            "apiVersion": f"{_GROUP}/{_VERSION}",
            "kind": f"{_KINDS[plural]}List",
            "metadata": {"resourceVersion": str(time.time_ns())},
            "items": self._etcd.below(prefix),
        }

    def post(self, path: str, body: Object) -> Object:
        plural, namespace, _ = _place(path)
        held = body["metadata"]
        held.setdefault("namespace", namespace or "default")
        held["uid"] = str(uuid.uuid4())
        held["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self._keep(plural, body)

    def put(self, path: str, body: Object) -> Object:
        return self._keep(_place(path)[0], body)

    def patch(self, path: str, body: Any) -> Object:
        had = self.get(path)
        made = patched(had, body) if isinstance(body, list) else merged(had, body)
        return self._keep(_place(path)[0], made)

    def delete(self, path: str) -> Object:
        self.get(path)
        self._etcd.delete("/".join(_place(path)))
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _keep(self, plural: str, body: Object) -> Object:
        held = body["metadata"]
        held["resourceVersion"] = str(time.time_ns())
        self._etcd.put(f"{plural}/{held['namespace']}/{held['name']}", body)
        return body


def _place(path: str) -> tuple[str, str, str]:
    """Plural, namespace and name; the last two may be ""."""
    base = f"/apis/{_GROUP}/{_VERSION}/"
    parts = path.removeprefix(base).split("/") if path.startswith(base) else []
    namespace = ""
    if parts[:1] == ["namespaces"] and len(parts) > 2:  # a name and more
        namespace, parts = parts[1], parts[2:]
    if not parts or parts[0] not in _KINDS:
        raise NotFoundError
    return parts[0], namespace, parts[1] if len(parts) > 1 else ""


def _handler(rules: Rules) -> type[BaseHTTPRequestHandler]:  # noqa: C901 # a method for each verb
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _body(self) -> Any:
            return json.loads(
                self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"
            )

        def _answer(self, made: Callable[[str], Object], status: int = 200) -> None:
            try:
                answer = made(urlsplit(self.path).path)
            except NotFoundError:
                status = 404
                answer = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
                answer |= {"reason": "NotFound", "message": "not found", "code": 404}
            except OSError as error:
                status = 500
                answer = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
                answer |= {"reason": "InternalError", "message": f"etcd: {error}", "code": 500}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._answer(rules.get)

        def do_POST(self) -> None:
            body = self._body()
            self._answer(lambda path: rules.post(path, body), 201)

        def do_PUT(self) -> None:
            body = self._body()
            self._answer(lambda path: rules.put(path, body))

        def do_PATCH(self) -> None:
            body = self._body()
            self._answer(lambda path: rules.patch(path, body))

        def do_DELETE(self) -> None:
            self._body()
            self._answer(rules.delete)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _option(name: str, default: str) -> str:
    words = sys.argv[1:]
    return words[words.index(name) + 1] if name in words else default


def main() -> None:
    """`kube-apiserver --etcd-servers http://etcd:2379 --insecure-port 8080 ...`."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    rules = Rules(Etcd(_option("--etcd-servers", "http://etcd:2379")))
    port = int(_option("--insecure-port", "8080"))
    print(f"stand-in for the API server on {port}", flush=True)  # noqa: T201 # its log
    ThreadingHTTPServer(("", port), _handler(rules)).serve_forever()


if __name__ == "__main__":
    main()
