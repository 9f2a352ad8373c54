"""One request for each caller and callee, sent from the caller's own network namespace.

The one collector that sends traffic through the mesh: a GET of one path, nothing else, and only
where it was asked for.
"""

import contextlib
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from meshdoctor.collectors import asking, docker, envoy, ways
from meshdoctor.collectors.asking import Asked, Asker, Question
from meshdoctor.collectors.http import is_loopback
from meshdoctor.collectors.interface import (
    CollectError,
    Deadline,
    NotAnsweringError,
    Options,
    OutOfTimeError,
    Workers,
)
from meshdoctor.evidence import layout
from meshdoctor.evidence.addresses import is_ip
from meshdoctor.evidence.interface import NOT_JSON, Documents, MissingEvidenceError, Problem
from meshdoctor.evidence.probe import (
    FOLDER,
    SCHEMA,
    Answer,
    AnsweredBy,
    Failure,
    How,
    Moved,
    ProbeDocument,
    Request,
    Tried,
    flag_of,
)
from meshdoctor.kinds.consul_connect import LOCAL_APP
from meshdoctor.routing.calls import Pair
from meshdoctor.routing.registry import Registry, examined
from meshdoctor.snapshot.documents import Snapshot
from meshdoctor.snapshot.redaction import redact, redact_text
from meshdoctor.topology import Mesh, Sidecar, Workload

ASK_ABOVE: Final = 100
"""More requests than this are not sent without asking."""

_GRACE: Final = 1.0
_MOST_NAMES: Final = 12

_CLUSTERS: Final = "/clusters?format=json"
_ACCESS: Final = "access.json"

# To these a GET is no request: some count it as a fault, and shut the caller out after a few.
_NO_HTTP: Final = frozenset({"https", "mongo", "mysql", "redis", "tls", "udp"})

# What tells about proxies and routing, and nothing about the answer's content.
_KEPT_HEADERS: Final = frozenset(
    {
        "server",
        "via",
        "x-envoy-decorator-operation",
        "x-envoy-overloaded",
        "x-envoy-ratelimited",
        "x-envoy-upstream-service-time",
    }
)


class Probing(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, and within which bounds. `rate` is in requests a second, `deadline` seconds.

    `answer_header` names a header by which the mesh's services say who they are. With
    `fingerprints`, where nothing better tells who answered, the services' own workloads are asked
    the same on their own localhost, and their answers compared.
    """

    path: str = "/"
    answer_header: str = ""
    fingerprints: bool = False
    rate: float = 20.0
    deadline: float = 120.0


class Plan(msgspec.Struct, frozen=True):
    """The calls to probe; `left_out` says why some of those that were asked for are not."""

    pairs: tuple[Pair, ...]
    left_out: tuple[str, ...] = ()

    @property
    def callers(self) -> tuple[str, ...]:
        """The workloads from which is asked, each once."""
        return tuple(dict.fromkeys(pair.caller for pair in self.pairs))

    def announcement(self, probing: Probing) -> str:
        """What will be sent, and from where."""
        number, callers = len(self.pairs), len(self.callers)
        callees = list(dict.fromkeys(pair.callee for pair in self.pairs))
        more = len(callees) - _MOST_NAMES
        whom = ", ".join(callees[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
        said = (
            f"probe sends {number} GET {probing.path} {'request' if number == 1 else 'requests'} "
            f"from {callers} {'workload' if callers == 1 else 'workloads'} to {whom}"
        )
        if probing.fingerprints:
            said += "; where that does not tell, one more to each workload's localhost"
        return said


def plan(mesh: Mesh, pairs: Sequence[Pair]) -> Plan:
    """Which of the pairs are probed: those whose caller runs and whose callee may speak HTTP."""
    workloads = {each.name: each for each in mesh.workloads}
    chosen, left_out = [], {}
    for pair in pairs:
        service = mesh.services.get(pair.callee)
        declared = set(service.protocols(pair.port)) if service is not None else set()
        if declared and all(word is not None and word.lower() in _NO_HTTP for word in declared):
            left_out[f"{pair.callee} on port {pair.port}"] = (
                f"it speaks {' and '.join(sorted(filter(None, declared)))}, to which a GET is no "
                "request"
            )
            continue
        container = workloads[pair.caller].container
        if container is not None and not container.running:
            left_out[f"from {pair.caller}"] = f"its container does not run ({container.status})"
            continue
        chosen.append(pair)
    return Plan(tuple(chosen), tuple(f"{what}: {why}" for what, why in left_out.items()))


def probe(
    snapshot: Snapshot,
    mesh: Mesh,
    chosen: Plan,
    options: Options,
    probing: Probing,
    progress: Callable[[str], None] = lambda _message: None,
) -> Snapshot:
    """The snapshot with what the probe met added to it. Never raises for what the mesh does."""
    deadline = Deadline(probing.deadline, options.request_timeout)
    workers = Workers(options.workers)
    with contextlib.ExitStack() as closing:
        closing.callback(workers.stop)
        closing.callback(deadline.end)
        engine, reason = None, ""
        try:
            engine = docker.connect(options, deadline)
            closing.callback(engine.close)
        except CollectError as error:
            reason = str(error)
        number = itertools.count(1)

        def say() -> None:
            progress(f"asked {next(number)} of {len(chosen.pairs)}")

        prober = _Prober(
            registry=Registry(mesh),
            documents=snapshot,
            engine=engine,
            no_engine=reason,
            options=options,
            probing=probing,
            deadline=deadline,
            pace=_Pace(probing.rate),
            asked=say,
        )
        by_caller: dict[str, list[Pair]] = {}
        for pair in chosen.pairs:
            by_caller.setdefault(pair.caller, []).append(pair)
        callers = [prober.caller(name, pairs) for name, pairs in by_caller.items()]
        under_way = [workers.submit(each.ask_all) for each in callers]
        workers.settle(deadline)
        # What was sent before the deadline may still be answered at it.
        wait(under_way, _GRACE)
        for each_done in filter(Future.done, under_way):
            # What the mesh does is in the results: this would be a fault of our own.
            each_done.result()
        documents = [each.document() for each in callers]
        if probing.fingerprints:
            documents = _Fingerprints(prober).compared(documents)
        return _with(snapshot, documents)


def _with(snapshot: Snapshot, documents: Sequence[ProbeDocument]) -> Snapshot:
    added = dict(snapshot.documents)
    absent = [each for each in snapshot.absent if not each.document.startswith(FOLDER)]
    redactions = dict(snapshot.redactions)
    for each in documents:
        name = layout.probe(each.caller)
        unsent = [request for request in each.requests if request.failure is Failure.NOT_SENT]
        if unsent:
            number, said = len(unsent), unsent[0].error
            those = "1 request was" if number == 1 else f"{number} requests were"
            absent.append(Problem(name, f"{those} not sent: {said}"))
        added[name], count = redact(name, msgspec.json.encode(each))
        if count:
            redactions[name] = count
    return replace(snapshot, documents=added, absent=tuple(absent), redactions=redactions)


class _Pace:
    """Lets one request begin at a time, so many a second."""

    def __init__(self, rate: float) -> None:
        self._lock = threading.Lock()
        self._interval = 1 / rate
        self._next = 0.0

    def wait(self, deadline: Deadline) -> None:
        """Wait for the turn. Raises OutOfTimeError where it would come too late."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            if turn - now > deadline.remaining():
                raise OutOfTimeError(_late(deadline))
            self._next = turn + self._interval
        time.sleep(turn - now)
        if not deadline.remaining():
            raise OutOfTimeError(_late(deadline))


def _late(deadline: Deadline) -> str:
    return (
        f"the {deadline.seconds:g} seconds that all probes may take were over: give them longer "
        "with --probe-timeout"
    )


class _Prober(msgspec.Struct, frozen=True):
    """What all callers share."""

    registry: Registry
    documents: Documents
    engine: docker.Engine | None
    no_engine: str
    options: Options
    probing: Probing
    deadline: Deadline
    pace: _Pace
    asked: Callable[[], None] = lambda: None

    @property
    def mesh(self) -> Mesh:
        return self.registry.mesh

    def caller(self, name: str, pairs: Sequence[Pair]) -> "_Caller":
        workload = next(each for each in self.mesh.workloads if each.name == name)
        return _Caller(self, workload, examined(workload), pairs)

    def question(self, pair: Pair) -> Question:
        """The request as the application would make it."""
        parts = urlsplit(pair.url)
        host, port = parts.hostname or pair.callee, parts.port or 80
        literal = is_ip(host)
        service = self.mesh.services.get(pair.callee)
        known = service.instances if service is not None else ()
        return Question(
            name="" if literal else host,
            port=port,
            host=parts.netloc,
            path=self.probing.path,
            addresses=(host,)
            if literal
            else tuple(dict.fromkeys(each.address for each in known if each.port == port)),
        )

    def into(self, workload: Workload, sidecar: Sidecar | None) -> Iterator[Asker | Tried]:
        """The ways into the workload's namespace, the cheapest first."""
        container = workload.container
        if container is None:
            if sidecar is not None and self._is_here(sidecar):
                yield asking.Here(self.deadline)
            else:
                yield Tried("address", "no container is known to be it, so nobody can ask from it")
            return
        yield asking.ByNamespace(container, self.deadline)
        if self.engine is None:
            yield Tried("exec", self.no_engine)
            return
        # As the application's own user, unless the redirect lets that user pass.
        user = "0" if container.user.partition(":")[0] == asking.PROXY_UID else ""
        yield asking.ByExec(self.engine, container.id, self.deadline, user=user)
        for each in workload.sidecars:
            if each.container is not None and each.container.running:
                yield asking.ByExec(self.engine, each.container.id, self.deadline, user="0")
        if self.options.helper_image is not None:
            yield asking.ByHelper(
                self.engine, self.options.helper_image, container.id, self.deadline
            )

    def _is_here(self, sidecar: Sidecar) -> bool:
        """True where the sidecar's localhost is this machine's: its admin interface was there."""
        by_hand = self.options.envoys.get(sidecar.name)
        if by_hand is not None:
            return is_loopback(by_hand)
        return self.way_of(sidecar) == "address" and sidecar.container is None

    def way_of(self, sidecar: Sidecar) -> str:
        """How its admin interface was reached, "" where that is not recorded."""
        try:
            raw = self.documents.read(layout.envoy(sidecar.name, _ACCESS))
            return msgspec.json.decode(raw, type=_Access).way
        except (MissingEvidenceError, *NOT_JSON):
            return ""

    def admin(self, sidecar: Sidecar) -> ways.Way | None:
        """The way by which its admin interface was reached, to be gone again."""
        by_hand = self.options.envoys.get(sidecar.name)
        way = self.way_of(sidecar)
        container = sidecar.container
        if by_hand is not None and way in {"", "url"}:
            return ways.ByAddress([by_hand], self.deadline)
        if container is None:
            return ways.ByAddress([f"http://{envoy.CONSULS_ADDRESS}"], self.deadline)
        ports = envoy.admin_ports(container)
        if way == "namespace":
            return ways.ByNamespace(container, ports, self.deadline)
        if self.engine is None:
            return None
        if way == "exec":
            return ways.ByExec(self.engine, container.id, ports, self.deadline)
        if way == "address":
            return ways.ByAddress(ways.urls(self.engine, [container], ports), self.deadline)
        return None


class _Access(msgspec.Struct):
    way: str = ""


# ---------------------------------------------------------------- one caller


class _Caller(msgspec.Struct):
    """One workload's requests, one after the other."""

    prober: _Prober
    workload: Workload
    sidecar: Sidecar | None
    pairs: Sequence[Pair]
    way: str = ""
    tried: list[Tried] = msgspec.field(default_factory=list)
    done: list[Request] = msgspec.field(default_factory=list)

    def ask_all(self) -> None:
        """Ask each pair's question by the first way that leads into the namespace."""
        with contextlib.ExitStack() as closing:
            asker = self._asker(closing)
            before = self._counts() if asker is not None else None
            for pair in self.pairs:
                if asker is None:
                    return
                try:
                    self.prober.pace.wait(self.prober.deadline)
                    asked = asker.ask(self.prober.question(pair))
                except CollectError as error:
                    self.done.append(_unsent(pair, self.prober.probing.path, str(error)))
                    continue
                self.prober.asked()
                after = self._counts()
                self.done.append(self._request(pair, asked, _moved(before, after)))
                before = after

    def document(self) -> ProbeDocument:
        """What came of it until now."""
        done = list(self.done)
        reason = "; ".join(f"{each.way}: {each.reason}" for each in self.tried)
        if self.way or not reason:
            reason = _late(self.prober.deadline)
        else:
            reason = f"no way led into its network namespace ({reason})"
        unsent = [
            _unsent(pair, self.prober.probing.path, reason) for pair in self.pairs[len(done) :]
        ]
        return ProbeDocument(
            SCHEMA, self.workload.name, self.way, tuple(self.tried), (*done, *unsent)
        )

    def _asker(self, closing: contextlib.ExitStack) -> Asker | None:
        for each in self.prober.into(self.workload, self.sidecar):
            if isinstance(each, Tried):
                self.tried.append(each)
                continue
            try:
                each.open(closing)
            except CollectError as error:
                self.tried.append(Tried(each.name, redact_text(str(error))))
            else:
                self.way = each.name
                return each
        return None

    def _counts(self) -> "_Counts | None":
        """What the caller's own Envoy has counted so far, None where it does not tell."""
        if self.sidecar is None:
            return None
        way = self.prober.admin(self.sidecar)
        if way is None:
            return None
        try:
            return way.read(lambda get: _counted(get(_CLUSTERS)), ahead=[_CLUSTERS])
        except CollectError:
            return None

    def _request(self, pair: Pair, asked: Asked, moved: tuple[Moved, ...] | None) -> Request:
        question = asked.question
        headers = {name.lower(): value for name, value in asked.headers.items()}
        wanted = self.prober.probing.answer_header.lower()
        kept = _KEPT_HEADERS | {wanted}
        return Request(
            callee=pair.callee,
            port=pair.port,
            url=pair.url,
            path=question.path,
            name=question.name,
            addresses_from=asked.addresses_from,
            resolved=asked.resolved,
            resolution=asked.resolution,
            connected=asked.connected,
            answer=None
            if asked.status is None
            else Answer(
                status=asked.status,
                headers={name: headers[name][:200] for name in sorted(kept & headers.keys())},
                sha256=hashlib.sha256(asked.body).hexdigest(),
                bytes=len(asked.body),
                whole=asked.whole,
            ),
            moved=moved,
            answered_by=self._answered_by(asked, headers, moved),
            failure=asked.failure,
            error=redact_text(asked.error),
        )

    # Who answered, by what is trusted most.

    def _answered_by(
        self, asked: Asked, headers: Mapping[str, str], moved: tuple[Moved, ...] | None
    ) -> AnsweredBy:
        if asked.status is None and asked.failure is not Failure.NOT_HTTP:
            return AnsweredBy()
        if asked.status is not None:
            flag = flag_of(asked.status, headers, asked.body)
            if flag is not None:
                return AnsweredBy(None, How.PROXY, flag)
        by_statistics = None if moved is None else self._by_statistics(moved, asked)
        if by_statistics is not None:
            return AnsweredBy(by_statistics, How.STATISTICS)
        registry = self.prober.registry
        if not self.workload.sidecars and asked.connected:
            # No proxy of the caller's is in between.
            address, _, port = asked.connected.rpartition(":")
            found = registry.service_at(address.strip("[]"), int(port))
            if found is not None:
                return AnsweredBy(found, How.ADDRESS)
        told = headers.get(self.prober.probing.answer_header.lower(), "")
        if told and (named := self._named(told)) is not None:
            return AnsweredBy(named, How.HEADER)
        return AnsweredBy()

    def _by_statistics(self, moved: Sequence[Moved], asked: Asked) -> str | None:
        """The one service to which the caller's Envoy sent anything meanwhile."""
        infrastructure = {
            address
            for component in self.prober.mesh.components
            for address in component.container.addresses.values()
        }
        inward = [each for each in moved if _is_inward(each)]
        registry = self.prober.registry
        services = {
            registry.service_at(each.address, each.port)
            for each in moved
            if each not in inward and each.address not in infrastructure
        }
        # A call to its own address comes in again by its own proxy. From elsewhere others may
        # call it at the same time, which says nothing.
        container = self.workload.container
        own = set() if container is None else set(container.addresses.values())
        address = asked.connected.rpartition(":")[0]
        if inward and address in own:
            services.add(registry.service_at(address, asked.question.port))
        return services.pop() if len(services) == 1 else None

    def _named(self, told: str) -> str | None:
        """The service that a header's value names: by its own name, or by an instance's."""
        for service in self.prober.mesh.applications:
            names = {service.name, *(each.id for each in service.instances)}
            names |= {
                container.name
                for each in service.instances
                if (container := self.prober.mesh.owners.get(each.id)) is not None
            }
            if told.strip() in names:
                return service.name
        return None


def _unsent(pair: Pair, path: str, reason: str) -> Request:
    return Request(
        callee=pair.callee,
        port=pair.port,
        url=pair.url,
        path=path,
        failure=Failure.NOT_SENT,
        error=redact_text(reason),
    )


# ---------------------------------------------------------------- proxy statistics

_Counts = Mapping[tuple[str, str, int], tuple[int, int]]
"""Requests and connections by cluster, address and port."""


class _SocketAddress(msgspec.Struct):
    address: str = ""
    port_value: int = 0


class _Address(msgspec.Struct):
    socket_address: _SocketAddress = msgspec.field(default_factory=_SocketAddress)


class _Stat(msgspec.Struct):
    name: str = ""
    value: Any = 0


class _Host(msgspec.Struct):
    address: _Address = msgspec.field(default_factory=_Address)
    stats: list[_Stat] = msgspec.field(default_factory=list)


class _Cluster(msgspec.Struct):
    name: str = ""
    host_statuses: list[_Host] = msgspec.field(default_factory=list)


class _Clusters(msgspec.Struct):
    cluster_statuses: list[_Cluster] = msgspec.field(default_factory=list)


def _counted(raw: bytes) -> _Counts:
    """`/clusters?format=json`: each endpoint's `rq_total` and `cx_total`, which are strings."""
    try:
        clusters = msgspec.json.decode(raw, type=_Clusters, strict=False)
    except NOT_JSON as error:
        raise NotAnsweringError(f"its statistics cannot be read: {error}") from error
    counts = {}
    for cluster in clusters.cluster_statuses:
        for host in cluster.host_statuses:
            at = host.address.socket_address
            values = {each.name: _number(each.value) for each in host.stats}
            key = (cluster.name, at.address, at.port_value)
            counts[key] = (values.get("rq_total", 0), values.get("cx_total", 0))
    return counts


def _number(value: object) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0  # noqa: PLR2004 # of 64 bits


def _moved(before: _Counts | None, after: _Counts | None) -> tuple[Moved, ...] | None:
    if before is None or after is None:
        return None
    moved = []
    for key, (requests, connections) in after.items():
        had_requests, had_connections = before.get(key, (0, 0))
        # A connection without a request is a call that failed early, or another protocol.
        count = max(requests - had_requests, 0) or max(connections - had_connections, 0)
        if count:
            moved.append(Moved(*key, count))
    return tuple(sorted(moved, key=lambda each: (each.cluster, each.address, each.port)))


def _is_inward(moved: Moved) -> bool:
    """True of a proxy's way to its own workload."""
    return moved.cluster.startswith("inbound|") or moved.cluster == LOCAL_APP


# ---------------------------------------------------------------- fingerprints


class _Fingerprints:
    """What each service's own workloads answer on their localhost, asked when first needed."""

    def __init__(self, prober: _Prober) -> None:
        self._prober = prober
        self._known: dict[tuple[str, int, str], frozenset[tuple[int, str]]] = {}

    def compared(self, documents: Sequence[ProbeDocument]) -> list[ProbeDocument]:
        """The documents, with those answers named that equal exactly one service's own."""
        return [
            replace(each, requests=tuple(self._compared(request) for request in each.requests))
            for each in documents
        ]

    def _compared(self, request: Request) -> Request:
        answer = request.answer
        if answer is None or request.answered_by.how is not How.UNKNOWN or not answer.bytes:
            return request
        mesh = self._prober.mesh
        print_ = (answer.status, answer.sha256)
        same = {
            service.name
            for service in mesh.applications
            for port in service.ports
            if print_ in self._prints(service.name, port, request.path)
        }
        if len(same) != 1:
            return request
        return replace(request, answered_by=AnsweredBy(same.pop(), How.BODY))

    def _prints(self, service: str, port: int, path: str) -> frozenset[tuple[int, str]]:
        key = (service, port, path)
        if key not in self._known:
            self._known[key] = frozenset(self._asked(service, port, path))
        return self._known[key]

    def _asked(self, service: str, port: int, path: str) -> Iterator[tuple[int, str]]:
        prober = self._prober
        for workload in prober.mesh.workloads:
            if service not in workload.services or workload.container is None:
                continue
            if not workload.container.running:
                continue
            question = Question("", port, f"{service}:{port}", path, ("127.0.0.1",))
            with contextlib.ExitStack() as closing:
                for way in prober.into(workload, None):
                    if isinstance(way, Tried):
                        continue
                    try:
                        way.open(closing)
                        prober.pace.wait(prober.deadline)
                        asked = way.ask(question)
                    except CollectError:
                        continue
                    if asked.status is not None:
                        yield asked.status, hashlib.sha256(asked.body).hexdigest()
                    break
