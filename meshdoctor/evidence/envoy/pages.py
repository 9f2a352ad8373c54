"""Envoy's other admin pages, `/clusters`, `/server_info` and `/stats`, decoded into facts."""

import re
import sys
from array import array
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec

from meshdoctor.evidence.envoy import spelling
from meshdoctor.evidence.envoy.dump import Row, Shared, Statuses, WrittenNode
from meshdoctor.evidence.envoy.facts import (
    Endpoint,
    EndpointTable,
    Node,
    ServerInfo,
)
from meshdoctor.evidence.envoy.wire import (
    DAMAGE,
    HEALTH,
    NOTHING,
    Address,
    Enumeration,
    Unsigned,
    Wire,
    enumeration,
    is_set,
)
from meshdoctor.evidence.interface import DecodeError

_UNHEALTHY: Final = (
    "failed_active_health_check",
    "failed_outlier_check",
    "excluded_via_immediate_hc_fail",
)
_DEGRADED: Final = ("failed_active_degraded_check",)
# Said beside the health, without deciding it.
_REMARKS: Final = ("pending_dynamic_removal", "pending_active_hc", "active_hc_timeout")


STATS: Final = (
    r"^(control_plane|listener_manager|cluster_manager|server)\."
    r"|\.downstream_(rq_[a-z0-9_]*|cx_total)$"
    r"|\.update_rejected$|^[^c].*\.update_success$"  # a cluster's own successes, nobody reads
)
"""The names of the statistics worth asking for, as Envoy's `filter=` takes them: those that
`decode_stats` reads, and what tells whether anybody calls. With a thousand clusters the others
are 99 of 100, and most of all that a proxy writes."""


class _HostHealth(Wire, frozen=True):
    eds_health_status: Enumeration = "UNKNOWN"
    failed_active_health_check: bool = False
    failed_outlier_check: bool = False
    failed_active_degraded_check: bool = False
    pending_dynamic_removal: bool = False
    pending_active_hc: bool = False
    excluded_via_immediate_hc_fail: bool = False
    active_hc_timeout: bool = False


# What nearly every host says.
_NO_HEALTH: Final = _HostHealth()
_HEALTHY: Final = _HostHealth(eds_health_status="HEALTHY")


class _HostStatus(Wire, frozen=True):
    address: Address = Address()
    health_status: _HostHealth = _NO_HEALTH
    weight: Unsigned | None = None
    priority: Unsigned = 0
    hostname: str = ""


class _ClusterStatus(Wire, frozen=True):
    name: str = ""
    # Decoded where it is not what the proxy before said of the same cluster.
    host_statuses: msgspec.Raw = NOTHING


class _Clusters(Wire, frozen=True):
    cluster_statuses: tuple[_ClusterStatus, ...]


class _ServerInfo(Wire, frozen=True):
    version: str = ""
    state: Enumeration = ""
    uptime_current_epoch: str = ""
    node: WrittenNode | None = None


class _Stat(Wire, frozen=True):
    # Histograms stand in the same list, without a name.
    name: str = ""
    value: int | float | str | None = None


class _Stats(Wire, frozen=True):
    stats: tuple[_Stat, ...]


_CLUSTERS: Final = msgspec.json.Decoder(_Clusters, strict=False)
_HOSTS: Final = msgspec.json.Decoder(tuple[_HostStatus, ...], strict=False)
_SERVER_INFO: Final = msgspec.json.Decoder(_ServerInfo, strict=False)
_STATS: Final = msgspec.json.Decoder(_Stats)
_STATES: Final = ("LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING")


def decode_clusters(document: str, raw: bytes, shared: Shared) -> EndpointTable:
    """`{"cluster_statuses": [{"name": ..., "host_statuses": [...]}]}`. Raises DecodeError."""
    table: EndpointTable = decode_page(lambda page: _table(document, page, shared), document, raw)
    return table


def _table(document: str, raw: bytes, shared: Shared) -> EndpointTable:
    statuses = _CLUSTERS.decode(raw).cluster_statuses
    names = [each.name for each in statuses]
    hosts = [each.host_statuses for each in statuses]
    before = shared.statuses
    known: Iterable[tuple[msgspec.Raw | None, Row]]
    if names == before.names:
        order = before.order
        known = zip(before.hosts, before.rows, strict=True)
    else:
        order = array("L", sorted(range(len(names)), key=names.__getitem__))
        rows_of = dict(zip(before.names, zip(before.hosts, before.rows, strict=True), strict=True))
        known = (rows_of.get(name, _NOTHING_SAID) for name in names)
    rows = [
        row if said == then else _row(name, said, shared)
        for name, said, (then, row) in zip(names, hosts, known, strict=True)
    ]
    if shared.several:
        shared.statuses = Statuses(names, hosts, rows, order)
    ordered = tuple([rows[index] for index in order])
    return EndpointTable(document, ("/cluster_statuses/{}",), ordered, order)


_NOTHING_SAID: Final[tuple[msgspec.Raw | None, Row]] = (None, ("", ()))


def _row(cluster: str, hosts: msgspec.Raw, shared: Shared) -> Row:
    return shared.row((cluster, _endpoints(hosts, shared)))


def _endpoints(hosts: msgspec.Raw, shared: Shared) -> tuple[Endpoint, ...]:
    if not is_set(hosts):
        return ()
    return tuple([shared.endpoint(_endpoint(each)) for each in _HOSTS.decode(hosts)])


def _endpoint(written: _HostStatus) -> Endpoint:
    host, port = written.address.host_and_port
    told, failed = _health(written.health_status)
    return Endpoint(
        address=host,
        port=port,
        health=told,
        priority=written.priority,
        weight=written.weight,
        hostname=written.hostname,
        failed=failed,
    )


def _health(written: _HostHealth) -> tuple[str, tuple[str, ...]]:
    """What the proxy holds of a host: any failed check makes it unhealthy or degraded."""
    if written == _HEALTHY:
        return "HEALTHY", ()
    told = enumeration(written.eds_health_status, HEALTH)
    if written == _NO_HEALTH:
        return told, ()
    unhealthy = [name for name in _UNHEALTHY if getattr(written, name)]
    degraded = [name for name in _DEGRADED if getattr(written, name)]
    remarks = [name for name in _REMARKS if getattr(written, name)]
    if unhealthy and told not in {"UNHEALTHY", "DRAINING", "TIMEOUT"}:
        told = "UNHEALTHY"
    elif degraded and told in {"UNKNOWN", "HEALTHY"}:
        told = "DEGRADED"
    return told, (*unhealthy, *degraded, *remarks)


_VERSION: Final = re.compile(r"(?:^|/)v?(\d+\.\d+\.\d+[^/]*)(?:/|$)")
_SECONDS: Final = re.compile(r"(\d{1,18})(?:\.\d+)?s")


def decode_server_info(document: str, raw: bytes) -> ServerInfo:
    """`{"version": "<sha>/1.40.0/Clean/RELEASE/BoringSSL", "state": "LIVE", ...}`.

    Raises DecodeError.
    """
    written: _ServerInfo = decode_page(_SERVER_INFO.decode, document, raw)
    version = _VERSION.search(written.version)
    uptime = _SECONDS.fullmatch(written.uptime_current_epoch)
    return ServerInfo(
        version=written.version if version is None else version[1],
        state=enumeration(written.state, _STATES) if written.state != "" else "",
        uptime=None if uptime is None else int(uptime[1]),
        node=Node() if written.node is None else written.node.fact,
    )


# The statistics that checks read. A proxy has a hundred for each of its clusters; of those, only
# the updates that it rejected.
_OF_A_CLUSTER: Final = "cluster."
_OF_THE_PROXY: Final = ("control_plane.", "listener_manager.", "cluster_manager.", "server.")
_REJECTED: Final = ".update_rejected"
_UPDATES: Final = (_REJECTED, ".update_success")
_CALLERS: Final = "http."
_REQUESTS: Final = "downstream_rq_"

_ACCEPTED: Final = {
    "cluster_manager.cds.version_text": "clusters",
    "listener_manager.lds.version_text": "listeners",
}


def decode_stats(document: str, raw: bytes) -> tuple[dict[str, int], dict[str, str]]:
    """`{"stats": [{"name": "server.live", "value": 1}, ...]}`: those that checks read.

    Of a cluster's own, `cluster.<name>.update_rejected` is kept where it is not 0. Beside them,
    the version of the last update that was accepted, by section. Raises DecodeError.
    """
    written: _Stats = decode_page(_STATS.decode, document, raw)
    numbers: dict[str, int] = {}
    accepted: dict[str, str] = {}
    for stat in written.stats:
        name, value = stat.name, stat.value
        if name.startswith(_OF_A_CLUSTER):
            if value and type(value) is int and name.endswith(_REJECTED):
                numbers[sys.intern(name)] = value
        elif type(value) is int:
            if _is_read(name):
                numbers[sys.intern(name)] = value
        elif name in _ACCEPTED and type(value) is str and value:
            accepted[_ACCEPTED[name]] = value
    return numbers, accepted


# The sidecars of a mesh have nearly the same statistics.
@lru_cache(maxsize=4096)
def _is_read(name: str) -> bool:
    """Whether checks read that statistic, of those that are not of one cluster."""
    return (
        name.startswith(_OF_THE_PROXY)
        or name.endswith(_UPDATES)
        or (name.startswith(_CALLERS) and name.rpartition(".")[2].startswith(_REQUESTS))
    )


def decode_page(decode: Callable[[bytes], Any], document: str, raw: bytes) -> Any:
    """What `decode` makes of a page, also in camel case or with nulls. Raises DecodeError."""
    try:
        return decode(raw)
    except DAMAGE as first:
        try:
            return decode(spelling.normalise(raw))
        except DAMAGE:
            said = str(first) or type(first).__name__
            raise DecodeError(document, f"cannot be decoded ({len(raw)} bytes): {said}") from first
