"""Envoy's admin pages, by the cheapest way that leads to each sidecar."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final
from urllib.parse import quote

import msgspec

from meshdoctor.collectors import namespace, processes, ways
from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.http import Get
from meshdoctor.collectors.interface import (
    AnswerError,
    CollectError,
    HungError,
    OutOfTimeError,
    Run,
    is_json,
)
from meshdoctor.collectors.processes import EnvoyProcess
from meshdoctor.evidence import layout
from meshdoctor.evidence.consul import SELF, ConsulCatalog, Instance
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.envoy import CONNECTED_STATE
from meshdoctor.evidence.envoy.pages import STATS
from meshdoctor.evidence.interface import NOT_JSON, Documents, EvidenceError
from meshdoctor.kinds.consul_connect import is_proxy
from meshdoctor.topology.roles import installs_redirect, programs, runs_envoy

_STATISTICS: Final = f"/stats?format=json&filter={quote(STATS)}"
_USED_STATISTICS: Final = f"{_STATISTICS}&usedonly"
"""Of a thousand clusters it leaves out thousands of zeros; finding them takes an Envoy as long as
half of its dump."""

_SERVER_INFO: Final = "server_info.json"
_DUMP: Final = "config_dump.json"
_CLUSTERS: Final = "clusters.json"
_LISTENERS: Final = "listeners.json"
_STATS: Final = "stats.json"

PAGES: Final[Mapping[str, tuple[str, ...]]] = {
    _CLUSTERS: ("/clusters?format=json",),
    # Envoys that do not know a parameter ignore it; should one refuse, it is asked without.
    _DUMP: ("/config_dump?include_eds", "/config_dump"),
    _LISTENERS: ("/listeners?format=json",),
    _STATS: (_USED_STATISTICS, "/stats?format=json"),
    "certs.json": ("/certs",),
}
"""The ways to ask for each document, in the order asked; `server_info.json` is asked first."""

# How a bootstrap names a control plane.
_GRPC: Final = re.compile(rb'"grpc_?[sS]ervices"')
_ACCESS: Final = "access.json"

# Istio's, Consul's, and the one of Envoy's own examples.
_CONSULS_PORT: Final = 19000
CONSULS_ADDRESS: Final = f"127.0.0.1:{_CONSULS_PORT}"
"""Where the one Envoy that `consul connect envoy` starts on a host is by default."""
_USUAL_PORTS: Final = (15000, _CONSULS_PORT, 9901)
_PORT_OPTIONS: Final = re.compile(
    r"(?:--proxyAdminPort|-{1,2}admin-bind|-{1,2}envoy-admin-bind-port|admin_port)"
    r"[= ](?:[\w.\[\]:]*:)?(\d{2,5})\b"
)
_PORT_IN_BOOTSTRAP: Final = re.compile(r"admin\W.*?port_value\W+(\d{2,5})\b", re.DOTALL)

_NO_CONNECTION_BY_ADDRESS: Final = (
    "not tried: nat rules beside it may turn such a connection to the proxy itself without end"
)


class Tried(msgspec.Struct, frozen=True):
    way: str
    reason: str


class _Attempt(msgspec.Struct, frozen=True):
    """How one sidecar was reached, or what was tried."""

    tried: list[Tried] = msgspec.field(default_factory=list)

    def failed(self, way: str, reason: object) -> None:
        self.tried.append(Tried(way, str(reason)))

    def reason(self) -> str:
        """Why it was not reached, in one line."""
        said = "; ".join(f"{each.way}: {each.reason}" for each in self.tried)
        return f"its admin interface was not reached ({said or 'no way was known'})"


class Pages(msgspec.Struct, frozen=True):
    """What one Envoy answered, and why it did not."""

    found: dict[str, bytes] = msgspec.field(default_factory=dict)
    absent: dict[str, str] = msgspec.field(default_factory=dict)


def collect(run: Run, engine: Engine | None, containers: Iterable[Container]) -> None:
    """Have the pages of every Envoy fetched: those given by hand, and those Docker runs."""
    containers = tuple(containers)
    named = dict(run.options.envoys)
    for container in containers:
        if not runs_envoy(container):
            continue
        by_hand = named.pop(container.name, None)
        if not container.running:
            document = layout.envoy(container.name, _DUMP)
            run.recorder.absent(document, f"its container does not run ({container.status})")
        elif engine is not None:
            found = _ways(run, engine, container, containers, by_hand)
            _start(run, container.name, found)
    for name, url in named.items():
        _start(run, name, iter([ways.ByAddress([url], run.deadline, "url")]))


def _start(run: Run, name: str, found: Iterator["ways.Way | Tried"]) -> None:
    run.recorder.expect(layout.envoy(name, _DUMP))
    run.workers.submit(_record, run, name, found)


def _record(run: Run, name: str, found: Iterator["ways.Way | Tried"]) -> None:
    attempt = _Attempt()
    for way in found:
        if isinstance(way, Tried):
            attempt.tried.append(way)
            continue
        try:
            pages = _read_all(way, run)
        except HungError as error:
            attempt.failed(way.name, error)
            if way.name != "address":
                # The admin interface itself is there and hangs: it would on every other way.
                break
        except OutOfTimeError as error:
            attempt.failed(way.name, error)
            break
        except CollectError as error:
            attempt.failed(way.name, error)
        else:
            _keep(run, name, way, pages, attempt)
            return
    run.recorder.absent(layout.envoy(name, _DUMP), attempt.reason())


def _read_all(way: ways.Way, run: Run) -> Pages:
    whole = run.options.whole
    reading = partial(read_pages, whole=whole, ends_told=way.tells_ends)
    return way.read(reading, ahead=paths(whole=whole))


def _keep(run: Run, name: str, way: ways.Way, pages: Pages, attempt: _Attempt) -> None:
    for page, raw in pages.found.items():
        run.recorder.put(layout.envoy(name, page), raw)
    for page, reason in pages.absent.items():
        run.recorder.absent(layout.envoy(name, page), reason)
    tried = [{"way": each.way, "reason": each.reason} for each in attempt.tried]
    access = msgspec.json.encode({"way": way.name, "tried": tried})
    run.recorder.put(layout.envoy(name, _ACCESS), access)
    run.say(f"read {name}")


def paths(*, whole: bool = True) -> Sequence[str]:
    """What `read_pages` asks, in its order, of an Envoy that answers each question."""
    first = (each[0] for page in PAGES if (each := _spellings(page, whole=whole)))
    return ("/server_info", *first)


def _spellings(page: str, *, whole: bool) -> tuple[str, ...]:
    """The ways to ask for a page; none for one that only a whole recording has."""
    if not whole and page == _LISTENERS:
        return ()
    return PAGES[page][-1:] if not whole and page == _DUMP else PAGES[page]


def read_pages(get: Get, *, whole: bool = True, ends_told: bool = False) -> Pages:
    """All pages, one after the other: Envoy writes each on its one main thread.

    With `ends_told`, `get` gives no answer that broke off, so that large ones need not be searched
    for their end: all sidecars' pages together are gone through often enough.

    Unless `whole`, what no check reads is not asked for: /listeners, and in the dump the endpoints
    that /clusters told of. To write them twice takes an Envoy half as long again.
    """
    info = get("/server_info")
    if not is_json(info, _ServerInfo):
        raise AnswerError("what answers there is not an Envoy's admin interface")
    pages = Pages({_SERVER_INFO: info})

    def checked(path: str) -> bytes:
        return _whole(get(path), ends_told=ends_told)

    for page in PAGES:
        hung = next((name for name, why in pages.absent.items() if why.startswith(_HUNG)), None)
        if hung is not None:
            pages.absent[page] = f"not asked, since {hung} got no answer"
            continue
        is_told = page != _DUMP or _CLUSTERS in pages.found
        _read_page(checked, pages, page, _spellings(page, whole=whole or not is_told))
    if _was_never_connected(pages):
        _read_page(checked, pages, _STATS, (_STATISTICS,))
    return pages


def _was_never_connected(pages: Pages) -> bool:
    """True of a proxy with a control plane of which the statistics that were used do not tell.

    A connection that could not even begin leaves `connected_state` as it was made: 0, and unused.
    """
    connected = CONNECTED_STATE.encode()
    told = pages.found.get(_STATS, connected)
    return _GRPC.search(pages.found.get(_DUMP, b"")) is not None and connected not in told


def _read_page(get: Get, pages: Pages, page: str, paths: Iterable[str]) -> None:
    """One page, by the first path that is answered."""
    for path in paths:
        try:
            pages.found[page] = get(path)
        except HungError as error:
            pages.absent[page] = f"{_HUNG}: {error}"
            return
        except CollectError as error:
            pages.absent[page] = str(error)
        else:
            pages.absent.pop(page, None)
            return


_LARGE: Final = 2**16


def _whole(raw: bytes, *, ends_told: bool) -> bytes:
    """Not every way tells when an answer broke off: JSON does."""
    if ends_told and len(raw) > _LARGE and raw[:1] == b"{" and raw[-8:].rstrip()[-1:] == b"}":
        return raw
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except NOT_JSON as error:
        raise AnswerError(f"it sent {len(raw)} bytes that are no whole JSON: {error}") from error
    return raw


_HUNG: Final = "no answer in time"


class _ServerInfo(msgspec.Struct):
    version: str
    command_line_options: dict[str, msgspec.Raw] | None = None


# ---------------------------------------------------------------- the ladder


def _ways(
    run: Run,
    engine: Engine,
    container: Container,
    containers: Iterable[Container],
    by_hand: str | None,
) -> Iterator["ways.Way | Tried"]:
    """The ways to one sidecar, the cheapest first, made when they are asked for."""
    if by_hand is not None:
        yield ways.ByAddress([by_hand], run.deadline, "url")
    ports = admin_ports(container)
    host = "127.0.0.1"
    told = _told_admin(engine, container)
    if told is not None:
        # As Nomad has it, who gives each Envoy a file, and an address of its own in 127.0.0.0/8.
        host, ports = processes.host_of(told), (told[1],)
    beside = _sharing(container, containers)
    if any(map(_may_redirect, beside)):
        yield Tried("address", _NO_CONNECTION_BY_ADDRESS)
    else:
        yield ways.ByAddress(ways.urls(engine, beside, ports), run.deadline)
    yield ways.ByNamespace(container, ports, run.deadline, host)
    yield ways.ByExec(engine, container.id, ports, run.deadline)
    if run.options.helper_image is not None:
        yield ways.ByHelper(engine, run.options.helper_image, container.id, ports, run.deadline)


def admin_ports(container: Container) -> tuple[int, ...]:
    """The port that its command line names, else the usual ones."""
    command = " ".join(container.command)
    for pattern in (_PORT_OPTIONS, _PORT_IN_BOOTSTRAP):
        if found := pattern.search(command):
            return (int(found[1]),)
    return _USUAL_PORTS


def _told_admin(engine: Engine, container: Container) -> processes.Place | None:
    """What the file says that it was started with, where this machine may read it."""
    if not engine.is_local or not container.running:
        return None
    try:
        namespace.check_reachable(container.pid, container.id, container.started_at)
    except CollectError:
        return None
    return processes.told_admin(container.pid, container.command)


def _sharing(container: Container, containers: Iterable[Container]) -> tuple[Container, ...]:
    """The containers of its network namespace, itself among them."""
    target = container.network_container or container.id
    return tuple(
        each
        for each in containers
        if each.id in (target, container.id)
        or each.name == target
        or (each.network_container and each.network_container in (target, container.id))
    )


def _may_redirect(container: Container) -> bool:
    """True where the container may have written nat rules, or belongs to a mesh that does."""
    return (
        installs_redirect(container)
        or container.privileged
        or any(each.upper().endswith("NET_ADMIN") for each in container.capabilities)
        or "ALL" in container.capabilities
        or "pilot-agent" in programs(container)
        or container.image_name in {"proxy", "proxy_debug", "proxyv2"}
    )


# ---------------------------------------------------------------- without Docker


class _Registered(msgspec.Struct, frozen=True):
    """The proxies that Consul knows, by id, and where its own control plane listens.

    Both are empty where Consul did not tell.
    """

    proxies: Mapping[str, Instance]
    xds_ports: frozenset[int]

    @classmethod
    def of(cls, documents: Documents) -> "_Registered":
        ports = frozenset(_xds_ports(documents))
        try:
            catalog = ConsulCatalog.load(documents)
        except EvidenceError:
            return cls({}, ports)
        known = (*catalog.agent, *filter(is_proxy, catalog.instances))
        return cls({each.id: each for each in known}, ports)

    def name(self, process: EnvoyProcess) -> str:
        """The id that Consul knows a process by, "" for one that belongs to another mesh."""
        node = process.bootstrap.node
        ports = {port for _, port in process.listening}
        if not node:
            owned = (each.id for each in self.proxies.values() if each.port in ports)
            return next(owned, "")
        instance = self.proxies.get(node)
        listens = instance is not None and instance.port in ports
        is_told = any(port in self.xds_ports for _, port in process.bootstrap.upstreams)
        return node if listens or is_told else ""


def collect_processes(run: Run, containers: Iterable[Container], documents: Documents) -> None:
    """Have the pages of those Envoys read that run on this machine and belong to this mesh.

    `documents` is what was read before: other meshes' Envoys may run here too, with the same
    names, so that Consul must say which are its own.
    """
    registered = _Registered.of(documents)
    if not registered.proxies and not registered.xds_ports:
        # So that none can be told to be its own: nobody need go through all processes.
        return
    read = _node_ids(documents)
    chosen: dict[str, EnvoyProcess] = {}
    for process in _outside(containers):
        name = registered.name(process)
        # Of two of one name, as while one replaces the other, the later one is the one to stay.
        if name and name not in read and name not in run.options.envoys:
            chosen[name] = process
    for name, process in chosen.items():
        _start(run, name, iter([_way(run, process, registered)]))


def ways_to_all(
    run: Run, engine: Engine | None, containers: Iterable[Container], documents: Documents
) -> Mapping[str, Iterator["ways.Way | Tried"]]:
    """The ways to each Envoy that runs, by the name under which it is recorded."""
    containers = tuple(containers)
    found: dict[str, Iterator[ways.Way | Tried]] = {}
    registered = _Registered.of(documents)
    for process in _outside(containers):
        if name := registered.name(process):
            found[name] = iter([_way(run, process, registered)])
    for container in containers:
        if engine is not None and container.running and runs_envoy(container):
            by_hand = run.options.envoys.get(container.name)
            found[container.name] = _ways(run, engine, container, containers, by_hand)
    for name, url in run.options.envoys.items():
        if name not in {each.name for each in containers}:
            found[name] = iter([ways.ByAddress([url], run.deadline, "url")])
    return found


def _outside(containers: Iterable[Container]) -> Iterator[EnvoyProcess]:
    """The Envoys of this machine that are in no container of Docker's."""
    return processes.running({each.id for each in containers if each.running})


def _way(run: Run, process: EnvoyProcess, registered: _Registered) -> "ways.Way | Tried":
    admin = process.bootstrap.admin
    places = [admin] if admin is not None else list(_maybe_admin(process, registered))
    if not places:
        why = process.unread or "its bootstrap gives it no admin interface on a port"
        return Tried("process", f"process {process.pid}: {why}; {_GIVE}")
    urls = [processes.url_of(place) for place in places]
    return ways.ByProcess(process.pid, urls, process.is_elsewhere, run.deadline)


def _maybe_admin(process: EnvoyProcess, registered: _Registered) -> Iterator[processes.Place]:
    """Where it listens and Consul told it nothing to listen for, admin first as it comes up.

    What Consul told it leads to services, which are not to be asked; and a transparent proxy
    that is called directly calls itself.
    """
    ports = {port for _, port in process.listening}
    known = registered.proxies.values()
    own = next((each for each in known if each.port in ports and each.proxy is not None), None)
    if own is None or own.proxy is None or own.proxy.is_transparent:
        return
    taken = {own.port, *(each.local_port for each in own.proxy.upstreams)}
    yield from (place for place in process.listening if place[1] not in taken)


def _node_ids(documents: Documents) -> frozenset[str]:
    """Of every Envoy that was read."""
    pages = (name for name in documents.names("envoy/") if name.endswith(f"/{_SERVER_INFO}"))
    return frozenset(_node_id(documents.read(page)) for page in pages)


def collect_unnamed(run: Run) -> None:
    """Try CONSULS_ADDRESS, on machines that do not show their processes."""
    run.workers.submit(_record_unnamed, run)


def _record_unnamed(run: Run) -> None:
    way = ways.ByAddress([f"http://{CONSULS_ADDRESS}"], run.deadline)
    try:
        pages = _read_all(way, run)
    except CollectError:
        # Nobody said that there is one.
        return
    name = _node_id(pages.found[_SERVER_INFO]) or CONSULS_ADDRESS
    _keep(run, name, way, pages, _Attempt())


def say_unreached(run: Run, containers: Iterable[Container], documents: Documents) -> None:
    """Name the proxies that Consul knows and nobody said how to reach, or say there are none."""
    registered = _Registered.of(documents)
    # Where one is given by hand and does not answer, it is named with the reason.
    if not (registered.proxies or documents.names("envoy/") or run.options.envoys):
        run.recorder.absent("envoy/", _none_found(containers))
    for proxy in sorted(registered.proxies.keys() - _node_ids(documents)):
        if proxy in run.options.envoys and not documents.names(layout.envoy(proxy, "")):
            # Somebody said how to reach it, and why that failed is told already.
            continue
        seen = "no Envoy of that name runs on this machine" if processes.are_seen() else _UNKNOWN
        run.recorder.absent(
            layout.envoy(proxy, _DUMP),
            f"{seen}: give its admin address with --envoy {proxy}=URL",
        )


def _none_found(containers: Iterable[Container]) -> str:
    """That there is no sidecar, or that those on this machine may be another mesh's."""
    here = {
        each.bootstrap.node or f"process {each.pid}"
        for each in _outside(containers)
        if not each.is_elsewhere
    }
    if not here:
        return f"no sidecar was found: {_GIVE}"
    return (
        f"of the Envoys on this machine ({', '.join(sorted(here))}), Consul told of none that it "
        f"is the mesh's: {_GIVE}"
    )


_GIVE: Final = "give its admin address with --envoy NAME=URL"
_UNKNOWN: Final = "its admin address is not known"


class _Node(msgspec.Struct):
    id: str = ""


class _NodeInfo(msgspec.Struct):
    node: _Node = msgspec.field(default_factory=_Node)


def _node_id(info: bytes) -> str:
    try:
        return msgspec.json.decode(info, type=_NodeInfo).node.id
    except NOT_JSON:
        return ""


class _XdsPorts(msgspec.Struct, rename="pascal"):
    plaintext: int = 0
    tls: int = msgspec.field(default=0, name="TLS")


class _Xds(msgspec.Struct, rename="pascal"):
    port: int = 0
    ports: _XdsPorts = msgspec.field(default_factory=_XdsPorts)


class _DebugConfig(msgspec.Struct, rename="pascal"):
    grpc: int = msgspec.field(default=0, name="GRPCPort")
    grpc_tls: int = msgspec.field(default=0, name="GRPCTLSPort")


class _Agent(msgspec.Struct):
    """`/v1/agent/self`: {"xDS": {"Port": 8502, "Ports": {"Plaintext": 8502, "TLS": -1}}}."""

    xds: _Xds | None = msgspec.field(default=None, name="xDS")
    config: _DebugConfig | None = msgspec.field(default=None, name="DebugConfig")


def _xds_ports(documents: Documents) -> Iterator[int]:
    """Where this Consul gives Envoys their configuration; none where it does not tell."""
    try:
        agent = msgspec.json.decode(documents.read(SELF), type=_Agent)
    except (EvidenceError, *NOT_JSON):
        return
    if agent.xds is not None:
        yield from {agent.xds.port, agent.xds.ports.plaintext, agent.xds.ports.tls} - {0, -1}
    if agent.config is not None:
        yield from {agent.config.grpc, agent.config.grpc_tls} - {0, -1}
