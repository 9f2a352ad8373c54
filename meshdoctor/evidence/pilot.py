"""Pilot's debug pages and metrics: what the control plane knows and what it sent."""

import re
from collections.abc import Mapping
from typing import ClassVar, Final, Self, TypeVar

import msgspec

from meshdoctor.evidence import layout
from meshdoctor.evidence.interface import (
    Documents,
    MissingEvidenceError,
    Problem,
    decode_each_if_there,
    not_recorded,
)

T = TypeVar("T")

REGISTRY: Final = layout.pilot("registryz.json")
ENDPOINTS: Final = layout.pilot("endpointz.json")
SYNC: Final = layout.pilot("syncz.json")
_METRIC: Final = r"^(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)"


class PilotPort(msgspec.Struct, frozen=True, gc=False):
    """{"name": "tcp", "port": 9080, "protocol": "TCP"}."""

    port: int = 0
    protocol: str = ""


class PilotService(msgspec.Struct, frozen=True, gc=False):
    """One service as Pilot knows it: `hostname` is `<service>.service.consul`.

    One that is external comes from a ServiceEntry, not from Consul.
    """

    hostname: str = ""
    is_external: bool = msgspec.field(default=False, name="MeshExternal")
    ports: tuple[PilotPort, ...] | None = None


class _Address(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    address: str = ""
    port: int = 0


class _Endpoint(msgspec.Struct, frozen=True, gc=False):
    endpoint: _Address | None = None


class _ServiceEndpoints(msgspec.Struct, frozen=True, gc=False):
    """{"svc": "reviews.service.consul:http", "ep": [{"endpoint": {"Address": ...}}, {}]}."""

    svc: str = ""
    ep: tuple[_Endpoint, ...] | None = None


class SyncStatus(msgspec.Struct, frozen=True, gc=False):
    """What was sent to one proxy and what it acknowledged; nonces, "" for never."""

    proxy: str = ""
    cluster_sent: str = ""
    cluster_acked: str = ""
    listener_sent: str = ""
    listener_acked: str = ""
    route_sent: str = ""
    route_acked: str = ""
    endpoint_sent: str = ""
    endpoint_acked: str = ""

    @property
    def unacknowledged(self) -> tuple[str, ...]:
        """The kinds of configuration of which it has not acknowledged what was sent last."""
        pairs = {
            "listeners": (self.listener_sent, self.listener_acked),
            "clusters": (self.cluster_sent, self.cluster_acked),
            "routes": (self.route_sent, self.route_acked),
            "endpoints": (self.endpoint_sent, self.endpoint_acked),
        }
        return tuple(kind for kind, (sent, acked) in pairs.items() if sent and sent != acked)


class PilotDebug(msgspec.Struct, frozen=True):
    """What Pilot told. A page that was not recorded is None; `metrics` are summed over labels.

    `endpoints` are the addresses and ports of instances, by host name.
    """

    title: ClassVar[str] = "Pilot's debug pages"
    hint: ClassVar[str] = "point meshdoctor at Pilot's debug address with --pilot"

    registry: tuple[PilotService, ...] | None
    endpoints: Mapping[str, frozenset[tuple[str, int]]] | None
    sync: tuple[SyncStatus, ...] | None
    metrics: Mapping[str, float]
    problems: tuple[Problem, ...]

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Decode pilot/*. Raises MissingEvidenceError where nothing was recorded."""
        if not documents.names("pilot/"):
            raise not_recorded(documents, "pilot/", "no page of Pilot's was recorded", cls.hint)
        problems: list[Problem] = []
        registry = _page(documents, REGISTRY, PilotService, problems)
        return cls(
            # Pilot 1.1 ends its list with an empty object, for want of a better comma.
            registry=registry and tuple(each for each in registry if each.hostname),
            endpoints=_endpoints(documents, problems),
            sync=_page(documents, SYNC, SyncStatus, problems),
            metrics=_metrics(documents),
            problems=tuple(problems),
        )


def _endpoints(
    documents: Documents, problems: list[Problem]
) -> Mapping[str, frozenset[tuple[str, int]]] | None:
    """None also where the page is of another form, as Pilots after 1.1 write it."""
    listed = _page(documents, ENDPOINTS, _ServiceEndpoints, problems)
    if listed is None or any(
        one.endpoint is not None and not one.endpoint.port
        for each in listed
        for one in each.ep or ()
    ):
        return None
    found: dict[str, set[tuple[str, int]]] = {}
    for each in listed:
        # Each port of a service stands by itself, under the port's name.
        host = each.svc.partition(":")[0]
        if host:
            found.setdefault(host, set()).update(
                (one.endpoint.address, one.endpoint.port)
                for one in each.ep or ()
                if one.endpoint is not None
            )
    return {host: frozenset(addresses) for host, addresses in found.items()}


def _page(
    documents: Documents, document: str, form: type[T], problems: list[Problem]
) -> tuple[T, ...] | None:
    found = decode_each_if_there(documents, document, form, problems)
    return None if found is None else tuple(each for _, each in found)


def _metrics(documents: Documents) -> Mapping[str, float]:
    """Prometheus text format: `pilot_conflict_inbound_listener 0`."""
    try:
        text = documents.read(layout.pilot("metrics.txt")).decode("utf-8", "replace")
    except MissingEvidenceError:
        return {}
    metrics: dict[str, float] = {}
    for line in text.splitlines():
        if (match := re.match(_METRIC, line)) is not None:
            try:
                value = float(match["value"])
            except ValueError:
                continue
            metrics[match["name"]] = metrics.get(match["name"], 0.0) + value
    return metrics
