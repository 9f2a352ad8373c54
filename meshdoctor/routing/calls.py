"""Where every caller's calls to every service land, joined from the proxies and the registry."""

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Final, Self

from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.routing.follow import follow
from meshdoctor.routing.model import (
    Answered,
    Bypassed,
    Call,
    Closed,
    HopKind,
    Reached,
    Unknown,
    Walk,
)
from meshdoctor.routing.registry import (
    Owner,
    Registry,
    Target,
    addresses,
    authority,
    examined,
    is_loopback,
)
from meshdoctor.routing.shared import Reader, SharedWalks
from meshdoctor.topology import Mesh, Sidecar, SidecarState, Workload

__all__ = [
    "Arrival",
    "Calls",
    "End",
    "Follower",
    "Judgement",
    "Pair",
    "Registry",
    "Target",
    "Verdict",
    "authority",
    "judge",
    "unexamined",
]


class Verdict(enum.StrEnum):
    """Where a call lands, as `matrix` says it."""

    RIGHT = "right"
    WRONG = "wrong"
    NOWHERE = "nowhere"
    BY_LUCK = "by luck"
    UNKNOWN = "unknown"


_WORST_FIRST: Final = (Verdict.WRONG, Verdict.NOWHERE, Verdict.UNKNOWN, Verdict.RIGHT)
"""Where calls may end in several ways, the worst of them is the verdict."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One caller, one callee, one port.

    `caller` is the workload's name, `sidecar` that of the Envoy that was followed. `reached` is
    the service at which the call ends, `instances` its instances' ids; `status` what the proxy
    itself answers where nothing is reached. `reason` says why the call does not end as it should,
    `why` the same without the callee's name, so that calls of one fault have it in common.
    `is_own`: the caller is itself an instance of the callee.

    `followed` are the ways followed, one for each address that the name may resolve to and that
    is treated differently. Callers with equal configuration share them: their hops may be written
    in another caller's document. `walks` are this caller's own.
    """

    caller: str
    callee: str
    port: int
    url: str
    verdict: Verdict
    reached: str | None
    instances: tuple[str, ...]
    status: int | None
    reason: str
    sidecar: str | None = None
    why: str = ""
    is_own: bool = False
    followed: tuple[Walk, ...] = field(default=(), compare=False, repr=False)
    _own: Callable[[], tuple[Walk, ...]] | None = field(default=None, compare=False, repr=False)

    @property
    def walks(self) -> tuple[Walk, ...]:
        """The ways followed, as they are written in this caller's own proxy."""
        return self.followed if self._own is None else self._own()


@dataclass(frozen=True, slots=True)
class Calls:
    """Where calls land: a row for each caller, callee and port, sorted by them."""

    title: ClassVar[str] = "where calls land"
    hint: ClassVar[str] = (
        "it is worked out from the sidecars' Envoys and the Consul catalogue: give it both"
    )

    pairs: tuple[Pair, ...]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, mesh: Mesh) -> Self:
        """Follow all calls. Raises MissingEvidenceError where no sidecar or service is known."""
        if not any(sidecar.proxy is not None for sidecar in mesh.sidecars):
            raise MissingEvidenceError("no sidecar's configuration could be read", cls.hint)
        if not mesh.applications:
            raise MissingEvidenceError("no application's service is in the catalogue", cls.hint)
        follower = Follower(Registry(mesh))
        return cls(tuple([pair for each in mesh.workloads for pair in follower.pairs(each)]))


# ---------------------------------------------------------------- how a call ends


@dataclass(frozen=True, slots=True)
class End:
    """One of the ways in which a call may end, judged by where it was meant to."""

    verdict: Verdict
    service: str | None = None
    instance: str = ""
    status: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call that was passed on, taken in by the far side's own sidecar."""

    workload: Workload
    walk: Walk


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a pair says, but for its caller."""

    walks: tuple[Walk, ...]
    verdict: Verdict
    reached: str | None
    instances: tuple[str, ...]
    status: int | None
    reason: str
    why: str


class Follower:
    """Follows calls from their callers' sidecars to the services that own the endpoints.

    What callers of equal configuration have in common is followed and judged once: see `walks`.
    """

    def __init__(self, registry: Registry) -> None:
        self.walks: Final = SharedWalks()
        self._registry = registry
        # By identity, with what it is the identity of, so that it stays theirs.
        self._calls: dict[int, tuple[Target, tuple[Call, ...]]] = {}
        self._judged: dict[tuple[int, ...], Judgement] = {}
        self._arrived: dict[tuple[str, Call, Target], tuple[End, ...] | None] = {}

    def pairs(self, caller: Workload) -> Iterator[Pair]:
        """Where the caller's calls land, sorted by callee and port."""
        targets = self._registry.targets(caller)
        sidecar = examined(caller)
        if sidecar is None or sidecar.proxy is None or not _runs(caller):
            reason = unexamined(caller)
            ordered = sorted(targets, key=_order)
            yield from (self._unknown(caller, target, reason) for target in ordered)
            return
        reader = self.walks.reader(sidecar.proxy, sidecar.nat)
        own = addresses(caller)
        services = caller.services
        for target in sorted(targets, key=_order):
            yield self._pair(caller, sidecar, reader, own, target, services)

    def pair(self, caller: Workload, target: Target) -> Pair:
        """Where the caller's call to the target lands."""
        sidecar = examined(caller)
        if sidecar is None or sidecar.proxy is None or not _runs(caller):
            return self._unknown(caller, target, unexamined(caller))
        reader = self.walks.reader(sidecar.proxy, sidecar.nat)
        return self._pair(caller, sidecar, reader, addresses(caller), target, caller.services)

    def follow(self, workload: Workload, call: Call, *, explain: bool = False) -> Walk | None:
        """The call through the workload's own sidecar, None where that was not read."""
        sidecar = examined(workload)
        if sidecar is None or sidecar.proxy is None:
            return None
        return follow(
            sidecar.proxy,
            call,
            nat=sidecar.nat,
            own_addresses=addresses(workload),
            explain=explain,
        )

    @staticmethod
    def _unknown(caller: Workload, target: Target, reason: str) -> Pair:
        return Pair(
            caller=caller.name,
            callee=target.service,
            port=target.port,
            url=target.url,
            verdict=Verdict.UNKNOWN,
            reached=None,
            instances=(),
            status=None,
            reason=reason,
            why=reason,
            is_own=target.service in caller.services,
        )

    # ------------------------------------------------------------ one call

    def _pair(
        self,
        caller: Workload,
        sidecar: Sidecar,
        reader: Reader,
        own: frozenset[str],
        target: Target,
        services: Sequence[str],
    ) -> Pair:
        walks = tuple([self._walk(reader, call, own) for call in self._calls_to(target)])
        key = (id(target), *map(id, walks))
        judged = self._judged.get(key)
        if judged is None:
            judged = self._judge(caller, reader, target, walks)
            if not any(self._stays(walk) for walk in walks):
                self._judged[key] = judged
        shared = any(walk.proxy != sidecar.name for walk in walks)
        return Pair(
            caller=caller.name,
            callee=target.service,
            port=target.port,
            url=target.url,
            verdict=judged.verdict,
            reached=judged.reached,
            instances=judged.instances,
            status=judged.status,
            reason=judged.reason,
            sidecar=sidecar.name,
            why=judged.why,
            is_own=target.service in services,
            followed=judged.walks,
            _own=partial(self._own_walks, caller, target) if shared else None,
        )

    def _calls_to(self, target: Target) -> tuple[Call, ...]:
        known = self._calls.get(id(target))
        if known is None:
            calls = tuple(
                Call(address=address, port=port, host=target.host)
                for address, port in target.addresses
            )
            known = self._calls[id(target)] = (target, calls)
        return known[1]

    def _walk(self, reader: Reader, call: Call, own: frozenset[str]) -> Walk:
        """The walk, first without the caller's address, which few configurations ask for."""
        walk = self.walks.walk(reader, call, own)
        if isinstance(walk.outcome, Unknown) and own:
            walk = self.walks.walk(reader, replace(call, source_address=min(own)), own)
        return walk

    def _stays(self, walk: Walk) -> bool:
        """True where the call ends at an address that means another place for each caller."""
        match walk.outcome:
            case Reached(destinations):
                ends = [(each.address, each.port) for each in destinations]
            case Bypassed(address, port):
                ends = [(address, port)]
            case _:
                return False
        return any(
            is_loopback(address) and self._registry.workload_at(address, port) is None
            for address, port in ends
        )

    def _own_walks(self, caller: Workload, target: Target) -> tuple[Walk, ...]:
        source = min(addresses(caller), default="")
        calls = (replace(call, source_address=source) for call in self._calls_to(target))
        walks = [self.follow(caller, call) for call in calls]
        return tuple(walk for walk in walks if walk is not None)

    # ------------------------------------------------------------ and its end

    def _judge(
        self, caller: Workload, reader: Reader, target: Target, walks: tuple[Walk, ...]
    ) -> Judgement:
        ends = [self.ends(caller, walk, target, reader) for walk in walks]
        return judge(target, walks, ends, lucky=self.is_lucky(target, walks))

    def is_lucky(self, target: Target, walks: Sequence[Walk]) -> bool:
        """True where a right call is right by chance: its listener might be another service's."""
        if target.rivals:
            return True
        return self._registry.is_arbitrary(target.port) and any(map(_by_wildcard, walks))

    def ends(
        self, caller: Workload, walk: Walk, target: Target, reader: Reader | None = None
    ) -> tuple[End, ...]:
        """How the call ends, the far side's own sidecar asked too."""
        return tuple(dict.fromkeys(self._ends(caller, walk, target, reader)))

    def _ends(
        self, caller: Workload, walk: Walk, target: Target, reader: Reader | None
    ) -> Iterator[End]:
        match walk.outcome:
            case Reached(destinations, otherwise):
                for each in destinations:
                    tls = self._wraps(reader, caller, each.cluster, walk.call)
                    at = (each.address, each.port)
                    yield from self._end_at(caller, walk, target, at, each.cluster, tls=tls)
                for share, outcome in otherwise:
                    yield _ended(outcome, f"{share:.0%} of the calls: ")
            case Bypassed(address, port):
                at = (address, port)
                yield from self._end_at(caller, walk, target, at, "", tls=walk.call.tls)
            case Answered() | Closed() | Unknown() as outcome:
                yield _ended(outcome)

    def _end_at(
        self,
        caller: Workload,
        walk: Walk,
        target: Target,
        at: tuple[str, int],
        cluster: str,
        *,
        tls: bool | None,
    ) -> Sequence[End]:
        near = self._owned(caller, walk, target, at, cluster)
        arrival = self.arrival_call(walk.call, at, tls=tls)
        far = None if arrival is None else self._registry.workload_at(*at)
        if arrival is not None and far is not None:
            arrived = self._arrive(far, arrival, target)
            # Where the far side changes nothing, what matters was decided here.
            if arrived is not None and any(_differs(each, near) for each in arrived):
                return arrived
        return (near,)

    def arrival_call(self, call: Call, at: tuple[str, int], *, tls: bool | None) -> Call | None:
        """The call as the far side gets it, None where it stays, or nobody knows in what form."""
        address, port = at
        if tls is None or (is_loopback(address) and self._registry.workload_at(*at) is None):
            return None
        return Call(
            address=address,
            port=port,
            host=call.host,
            path=call.path,
            method=call.method,
            headers=call.headers,
            tls=tls,
            inbound=True,
        )

    def arrival(self, walk: Walk, at: tuple[str, int], cluster: str) -> Arrival | None:
        """The far side's own walk, hop by hop, None where it has no sidecar that was read."""
        sidecar = next(
            (each for each in self._registry.mesh.sidecars if each.name == walk.proxy), None
        )
        if sidecar is None or sidecar.proxy is None:
            return None
        tls = walk.call.tls
        if cluster:
            wrapped = _is_wrapped(self.walks.reader(sidecar.proxy, sidecar.nat), cluster)
            if wrapped is None:
                return None
            tls = tls or wrapped
        call = self.arrival_call(walk.call, at, tls=tls)
        far = self._registry.workload_at(*at)
        found = None if call is None or far is None else self.follow(far, call, explain=True)
        return None if found is None or far is None else Arrival(far, found)

    def _wraps(
        self, reader: Reader | None, caller: Workload, cluster: str, call: Call
    ) -> bool | None:
        """Whether the call leaves in TLS, None where its transport is none that is followed."""
        if reader is None:
            sidecar = examined(caller)
            if sidecar is None or sidecar.proxy is None:
                return None
            reader = self.walks.reader(sidecar.proxy, sidecar.nat)
        wrapped = _is_wrapped(reader, cluster)
        return None if wrapped is None else (call.tls or wrapped)

    def _arrive(self, far: Workload, call: Call, target: Target) -> tuple[End, ...] | None:
        """What the far side's sidecar makes of the call, None where that cannot be told."""
        key = (far.name, call, target)
        if key not in self._arrived:
            sidecar = examined(far)
            if sidecar is None or sidecar.proxy is None:
                self._arrived[key] = None
            else:
                reader = self.walks.reader(sidecar.proxy, sidecar.nat)
                walk = self.walks.walk(reader, call, addresses(far))
                self._arrived[key] = self._taken_in(far, walk, target)
        return self._arrived[key]

    def _taken_in(self, far: Workload, walk: Walk, target: Target) -> tuple[End, ...] | None:
        match walk.outcome:
            case Unknown():
                return None
            case Reached(destinations, otherwise):
                ends = [
                    self._owned(far, walk, target, (each.address, each.port), each.cluster)
                    for each in destinations
                ]
                ends += [_ended(end, f"{share:.0%} of the calls: ") for share, end in otherwise]
            case Bypassed(address, port):
                ends = [self._owned(far, walk, target, (address, port), "")]
            case Answered() | Closed() as outcome:
                ends = [_ended(outcome, f"at the far side, in {walk.proxy}: ")]
        return tuple(dict.fromkeys(ends))

    def _owned(
        self, at: Workload, walk: Walk, target: Target, end: tuple[str, int], cluster: str
    ) -> End:
        """The end at an endpoint, by who owns it; loopback is the namespace of `at`."""
        address, port = end
        registry = self._registry
        owner = registry.owner(address, port, at=at, wanted=target.service)
        owner = owner or registry.unregistered(address, port, at=at, wanted=target.service)
        if owner is None:
            return self._unowned(target, address, port)
        if owner.gateway:
            why = f"it goes on through the gateway {owner.service}, which is not followed"
            return End(Verdict.UNKNOWN, why=why)
        if owner.stopped:
            why = f"it goes to {address}:{port}, whose container {owner.stopped} does not run"
            return End(Verdict.NOWHERE, why=why)
        if owner.service == target.service:
            return End(Verdict.RIGHT, owner.service, owner.instance)
        return End(Verdict.WRONG, owner.service, owner.instance, why=_cause(walk, owner, cluster))

    def _unowned(self, target: Target, address: str, port: int) -> End:
        why = f"it goes to {address}:{port}, which no registered service has"
        workload = None if is_loopback(address) else self._registry.workload_at(address, port)
        if workload is not None:
            why = (
                f"it goes to {workload.name} at {address}:{port}, which is registered for no "
                "service on that port"
            )
            return End(Verdict.NOWHERE, why=why)
        if target.elsewhere:
            return End(Verdict.UNKNOWN, why=f"{why} here; {target.elsewhere}")
        if self._registry.unread:
            names = ", ".join(self._registry.unread)
            return End(Verdict.UNKNOWN, why=f"{why}, and the instances of {names} are not known")
        return End(Verdict.NOWHERE, why=why)


# ---------------------------------------------------------------- judging


def judge(
    target: Target, walks: tuple[Walk, ...], ends: Sequence[Sequence[End]], *, lucky: bool
) -> Judgement:
    """What a pair says of its ends, which run beside the walks; the worst of them decides."""
    every = [end for each in ends for end in each]
    verdicts = {end.verdict for end in every}
    verdict = next((each for each in _WORST_FIRST if each in verdicts), Verdict.UNKNOWN)
    telling = [end for end in every if end.verdict is verdict]
    services = dict.fromkeys(end.service for end in telling if end.service is not None)
    why = _reasons(walks, ends) if every else "the service has no instance"
    reason = why
    if verdict is Verdict.WRONG and services:
        reason = f"reaches {', '.join(services)} instead of {target.service}: {why}"
    if verdict is Verdict.RIGHT and lucky:
        verdict = Verdict.BY_LUCK
        what = "another service on the port"
        if target.rivals:
            what = f"{', '.join(target.rivals)}, with the same local address,"
        listener = f"the listener of port {target.port}"
        why = f"whoever owns {listener} may be another after the next change"
        reason = f"{target.service} owns {listener} now; {what} may own it after the next change"
    reached = next(iter(services), None)
    return Judgement(
        walks=walks,
        verdict=verdict,
        reached=None if verdict in (Verdict.NOWHERE, Verdict.UNKNOWN) else reached,
        instances=tuple(dict.fromkeys(end.instance for end in every if end.instance)),
        status=next((end.status for end in telling if end.status is not None), None),
        reason=reason,
        why=why,
    )


def _reasons(walks: Sequence[Walk], ends: Sequence[Sequence[End]]) -> str:
    """What the ends say; where the addresses of a name fare differently, whose it is."""
    said = [tuple(dict.fromkeys(end.why for end in each if end.why)) for each in ends]
    if len(set(said)) <= 1:
        return "; ".join(said[0]) if said else ""
    return "; ".join(
        dict.fromkeys(
            f"at {walk.call.destination}: {why}"
            for walk, each in zip(walks, said, strict=True)
            for why in each
        )
    )


def _ended(outcome: Answered | Closed | Unknown, before: str = "") -> End:
    match outcome:
        case Answered(status, flag, why):
            said = f"{before}{why} ({flag})" if flag else f"{before}{why}"
            return End(Verdict.NOWHERE, status=status, why=said)
        case Closed(flag, why):
            said = f"{before}{why} ({flag})" if flag else f"{before}{why}"
            return End(Verdict.NOWHERE, why=said)
        case Unknown(why):
            return End(Verdict.UNKNOWN, why=f"{before}{why}")


def _cause(walk: Walk, owner: Owner, to: str) -> str:
    """Why a call ends at a service that it does not name: the last decision that could differ."""
    where = f"in {walk.proxy} " if walk.call.inbound else ""
    listener = walk.hop(HopKind.LISTENER)
    if not to or listener is None:
        return f"{where}it goes straight to an address that {owner.service} has"
    where = f"{_share(walk, to)}{where}"
    host = route = None
    for hop in walk.hops:
        if hop.kind is HopKind.VIRTUAL_HOST:
            host = hop
        elif hop.kind is HopKind.ROUTE:
            route = hop
        elif hop.kind is HopKind.CLUSTER and hop.name == to:
            break
    if route is None:
        key = listener.name.partition(" ")[0]
        return f"{where}listener {key} is TCP and sends every connection to {to}"
    name = "" if host is None else f" of virtual host {host.name}"
    return f"{where}the route {route.name}{name} leads to {to}"


def _share(walk: Walk, cluster: str) -> str:
    """`30% of the calls: `, where calls are split over several clusters."""
    if not isinstance(walk.outcome, Reached) or (
        len(walk.outcome.clusters) == 1 and not walk.outcome.otherwise
    ):
        return ""
    share = sum(each.share for each in walk.outcome.destinations if each.cluster == cluster)
    return f"{share:.0%} of the calls: "


def _differs(end: End, other: End) -> bool:
    return (end.verdict, end.service) != (other.verdict, other.service)


def _by_wildcard(walk: Walk) -> bool:
    """True of a call that was passed on by a listener of its port on any address."""
    listener = walk.hop(HopKind.LISTENER)
    port = walk.call.port
    return (
        isinstance(walk.outcome, Reached)
        and listener is not None
        and listener.name.partition(" ")[0] in (f"0.0.0.0:{port}", f"[::]:{port}")
    )


def _is_wrapped(reader: Reader, cluster: str) -> bool | None:
    entry = reader.config.clusters.get(cluster)
    if entry is None:
        return None
    socket = entry.cluster.transport_socket
    if not socket or socket.rpartition(".")[2] == "raw_buffer":
        return False
    return True if socket.rpartition(".")[2] == "tls" else None


def _order(target: Target) -> tuple[str, int, str]:
    return target.service, target.port, target.host


def _runs(workload: Workload) -> bool:
    return workload.container is None or workload.container.running


def unexamined(caller: Workload) -> str:
    """Why nothing is known of the calls of a workload."""
    if not _runs(caller):
        return f"{caller.name} does not run, so it calls nobody"
    if not caller.sidecars:
        return f"{caller.name} has no sidecar, so its calls pass no proxy that could be read"
    said = [
        f"its sidecar {each.name} does not run"
        if each.state is SidecarState.DOWN
        else f"its sidecar {each.name} could not be read"
        + (f": {each.reason}" if each.reason else "")
        for each in caller.sidecars
    ]
    return "; ".join(said)
