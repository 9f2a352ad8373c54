"""xDS v3 over one gRPC stream a proxy (ADS), with what was sent and acknowledged."""

import queue
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 # named by "@type"
from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: F401
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: F401
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

from tests.live.lab.control_plane.configuration import Configuration, Resource

_SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_TYPES: Final = {
    "cluster": cluster_pb2.Cluster,
    "endpoint": endpoint_pb2.ClusterLoadAssignment,
    "listener": listener_pb2.Listener,
    "route": route_pb2.RouteConfiguration,
}
"""In the order in which Pilot pushes them."""
_URLS: Final = {
    f"type.googleapis.com/{message.DESCRIPTOR.full_name}": kind for kind, message in _TYPES.items()
}
_KEYS: Final = {"endpoint": "cluster_name"}
_NODE_PARTS: Final = 4


@dataclass
class Proxy:
    """One connected Envoy. `sent` and `acked` are nonces by kind."""

    node: str = ""
    wanted: dict[str, frozenset[str]] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict)
    acked: dict[str, str] = field(default_factory=dict)
    events: "queue.Queue[Any]" = field(default_factory=queue.Queue)

    @property
    def address(self) -> str:
        parts = self.node.split("~")
        return parts[1] if len(parts) == _NODE_PARTS else ""

    @property
    def name(self) -> str:
        parts = self.node.split("~")
        return parts[2] if len(parts) == _NODE_PARTS else self.node


class Discovery:
    """The stream's server side. `configured` gives a version and what it is for an address."""

    def __init__(self, configured: Callable[[str], tuple[str, Configuration]]) -> None:
        self._configured = configured
        self._lock = threading.Lock()
        self.proxies: dict[int, Proxy] = {}
        self.rejects = 0

    def handler(self) -> Any:
        stream = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=discovery_pb2.DiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DiscoveryResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(
            _SERVICE, {"StreamAggregatedResources": stream}
        )

    def push(self) -> None:
        """Send everything anew to every proxy."""
        for proxy in self.connected():
            proxy.events.put("push")

    def connected(self) -> list[Proxy]:
        with self._lock:
            return list(self.proxies.values())

    def _stream(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        proxy = Proxy()
        with self._lock:
            self.proxies[id(proxy)] = proxy
        context.add_callback(lambda: proxy.events.put(None))
        threading.Thread(target=_receive, args=(requests, proxy), daemon=True).start()
        try:
            while (event := proxy.events.get()) is not None:
                kinds = list(_TYPES) if event == "push" else self._asked(proxy, event)
                for kind in kinds:
                    if kind in proxy.wanted:
                        yield self._response(proxy, kind)
        finally:
            with self._lock:
                del self.proxies[id(proxy)]

    def _asked(self, proxy: Proxy, request: Any) -> list[str]:
        """Of which kind a request wants an answer; an acknowledgement wants none."""
        if request.node.id:
            proxy.node = request.node.id
        kind = _URLS.get(request.type_url)
        if kind is None:
            return []
        names = frozenset(request.resource_names)
        if request.response_nonce:
            if request.response_nonce != proxy.sent.get(kind):
                return []
            if request.HasField("error_detail"):
                self.rejects += 1
                print(  # noqa: T201 # a log line, as Pilot writes it
                    f"warn\tads\tADS: ACK ERROR {proxy.node} {request.error_detail.message}",
                    flush=True,
                )
                return []
            proxy.acked[kind] = request.response_nonce
            if names == proxy.wanted.get(kind):
                return []
        proxy.wanted[kind] = names
        return [kind]

    def _response(self, proxy: Proxy, kind: str) -> Any:
        version, made = self._configured(proxy.address)
        held: dict[str, list[Resource]] = {
            "cluster": made.clusters,
            "endpoint": made.endpoints,
            "listener": made.listeners,
            "route": made.routes,
        }
        key = _KEYS.get(kind, "name")
        wanted = proxy.wanted[kind]
        response = discovery_pb2.DiscoveryResponse(
            version_info=version,
            nonce=str(uuid.uuid4()),
            type_url=f"type.googleapis.com/{_TYPES[kind].DESCRIPTOR.full_name}",
        )
        for each in held[kind]:
            if not wanted or each[key] in wanted:
                message = json_format.ParseDict(each, _TYPES[kind]())
                response.resources.add().Pack(message)
        proxy.sent[kind] = response.nonce
        return response


def _receive(requests: Iterator[Any], proxy: Proxy) -> None:
    try:
        for request in requests:
            proxy.events.put(request)
    except grpc.RpcError:
        pass
    finally:
        proxy.events.put(None)
