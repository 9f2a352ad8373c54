"""How a followed call ends: whom it reaches, whether that was meant, and why where it was not."""

import enum
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from meshdoctor.evidence import access
from meshdoctor.evidence.addresses import host_port, is_loopback
from meshdoctor.evidence.envoy import Cluster
from meshdoctor.kinds.consul_connect import intention_for, service_of_identity
from meshdoctor.kinds.istio_consul import SentOn
from meshdoctor.routing.configuration import Configuration
from meshdoctor.routing.follow import follow
from meshdoctor.routing.model import (
    Answered,
    Bypassed,
    Call,
    Closed,
    Denial,
    HopKind,
    Reached,
    UndecidedError,
    Unknown,
    Walk,
)
from meshdoctor.routing.redirect import Redirected, redirect
from meshdoctor.routing.registry import Owner, Registry, Target, addresses, examined
from meshdoctor.routing.shared import SharedWalks
from meshdoctor.topology import SidecarState, Workload


class Verdict(enum.StrEnum):
    """Where a call lands, as `matrix` says it."""

    RIGHT = "right"
    WRONG = "wrong"
    NOWHERE = "nowhere"
    BY_LUCK = "by luck"
    UNKNOWN = "unknown"


WORST_FIRST: Final = (
    Verdict.WRONG,
    Verdict.NOWHERE,
    Verdict.UNKNOWN,
    Verdict.BY_LUCK,
    Verdict.RIGHT,
)
"""Where a call may end in several ways, the worst of them is the verdict."""


class End(msgspec.Struct, frozen=True):
    """One of the ways in which a call may end, judged by where it was meant to."""

    verdict: Verdict
    service: str | None = None
    instance: str = ""
    status: int | None = None
    why: str = ""
    denied: Denial | None = None
    absent: str = ""
    """The registered instance that is not there, where the call goes to none other."""
    at: str = ""
    """The workload whose sidecar ends the call, where that is the far side's."""
    by_request: bool = False
    """The routes answer such a request themselves, as somebody wrote them, and other requests not
    so: nothing is wrong with the call."""


class Arrival(msgspec.Struct, frozen=True):
    """A call that was passed on, taken in by the far side's own sidecar."""

    workload: Workload
    walk: Walk


class Judgement(msgspec.Struct, frozen=True, eq=False):
    """What a pair says, but for its caller. Many have one in common: it is known by identity."""

    walks: tuple[Walk, ...]
    verdict: Verdict
    reached: str | None
    instances: tuple[str, ...]
    status: int | None
    reason: str
    why: str
    denied: Denial | None = None
    absent: tuple[str, ...] = ()
    by_request: bool = False
    ended_at: tuple[str, ...] = ()


class Ends:
    """Finds the ends of walks in a registry, the far sides' own sidecars asked too."""

    def __init__(self, registry: Registry, walks: SharedWalks) -> None:
        self._registry = registry
        self._walks = walks
        self._arrived: dict[tuple[str, Call, Target], tuple[End, ...] | None] = {}

    def of(
        self, caller: Workload, config: Configuration, walk: Walk, target: Target
    ) -> tuple[End, ...]:
        """How a call ends that was followed through `config`, the proxy of `caller`."""
        return tuple(dict.fromkeys(self._of(caller, config, walk, target)))

    def is_lucky(self, target: Target, walks: Sequence[Walk]) -> bool:
        """True where a right call is right by chance: its listener might be another service's."""
        if target.rivals:
            return True
        return self._registry.is_arbitrary(target.port) and any(map(_by_wildcard, walks))

    def stay_with_caller(self, walk: Walk) -> bool:
        """True where a call ends at an address that means another place for each caller."""
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

    def shows_certificate(self, config: Configuration, walk: Walk) -> bool:
        """True where a call ends at a far side that is shown the certificate of `config`."""
        return isinstance(walk.outcome, Reached) and any(
            _is_wrapped(config, each.cluster) for each in walk.outcome.destinations
        )

    def arrival(
        self, config: Configuration, walk: Walk, at: tuple[str, int], cluster: str
    ) -> Arrival | None:
        """The far side's own walk, hop by hop, None where it has no sidecar that was read."""
        call = self._passed_on(config, walk.call, at, cluster)
        far = self._registry.workload_at(*at)
        sidecar = None if far is None else examined(far)
        if call is None or far is None or sidecar is None or sidecar.proxy is None:
            return None
        found = follow(
            sidecar.proxy, call, nat=sidecar.nat, own_addresses=addresses(far), explain=True
        )
        return Arrival(far, found)

    def _of(
        self, caller: Workload, config: Configuration, walk: Walk, target: Target
    ) -> Iterator[End]:
        match walk.outcome:
            case Reached(destinations, otherwise):
                for each in destinations:
                    at = (each.address, each.port)
                    yield from self._end_at(caller, config, walk, target, at, each.cluster)
                for share, outcome in otherwise:
                    yield _ended(outcome, f"{share:.0%} of the calls: ")
            case Bypassed(address, port):
                yield from self._end_at(caller, config, walk, target, (address, port), "")
            case Answered() | Closed() | Unknown() as outcome:
                yield _ended(outcome)

    def _end_at(
        self,
        caller: Workload,
        config: Configuration,
        walk: Walk,
        target: Target,
        at: tuple[str, int],
        cluster: str,
    ) -> Sequence[End]:
        near = self._owned(caller, walk, target, at, cluster)
        if near.absent:
            return (near,)
        call = self._passed_on(config, walk.call, at, cluster)
        far = self._registry.workload_at(*at)
        if call is not None and call.tls and not walk.call.tls and far is not None:
            refused = _strangers(config, far, walk) or _expired(config, far, walk)
            if refused is not None:
                return (refused,)
        if near.verdict is Verdict.RIGHT and near.service not in (None, target.service):
            # Where a rule sends the call on, it is the far side's own service that counts there.
            target = replace(target, service=near.service or "")
        arrived = None if call is None or far is None else self._arrive(far, call, target)
        # Where the far side changes nothing, what matters was decided here.
        if arrived is not None and any(_differs(each, near) for each in arrived):
            return arrived
        if far is not None and near.verdict is Verdict.RIGHT:
            doubt = self._registry.contradiction(far)
            if doubt:
                return (End(Verdict.UNKNOWN, why=doubt),)
        return (near,)

    def _passed_on(
        self, config: Configuration, call: Call, at: tuple[str, int], cluster: str
    ) -> Call | None:
        """The call as the far side gets it, None where it stays, or nobody knows in what form.

        `cluster` is "" where it went past the proxy.
        """
        address, port = at
        wrapped = _is_wrapped(config, cluster) if cluster else False
        if wrapped is None or (is_loopback(address) and self._registry.workload_at(*at) is None):
            return None
        return Call(
            address=address,
            port=port,
            host=call.host,
            path=call.path,
            method=call.method,
            headers=call.headers,
            tls=call.tls or wrapped,
            inbound=True,
            principals=_names(config) if wrapped else call.principals,
        )

    def _arrive(self, far: Workload, call: Call, target: Target) -> tuple[End, ...] | None:
        """What the far side's sidecar makes of the call, None where that cannot be told."""
        key = (far.name, call, target)
        if key not in self._arrived:
            sidecar = examined(far)
            if sidecar is None or sidecar.proxy is None:
                self._arrived[key] = _kept_out(far)
            else:
                reader = self._walks.reader(sidecar.proxy, sidecar.nat)
                walk = self._walks.walk(reader, call, addresses(far))
                self._arrived[key] = self._taken_in(far, walk, target)
        return self._arrived[key]

    def _taken_in(self, far: Workload, walk: Walk, target: Target) -> tuple[End, ...] | None:
        match walk.outcome:
            case Unknown():
                return None
            case Reached(destinations, otherwise):
                ends = [
                    _circling(far, walk, (each.address, each.port))
                    or self._owned(far, walk, target, (each.address, each.port), each.cluster)
                    for each in destinations
                ]
                ends += [_ended(end, f"{share:.0%} of the calls: ") for share, end in otherwise]
            case Bypassed(address, port):
                # The redirect lets it in past the proxy: nothing sends it round.
                ends = [self._owned(far, walk, target, (address, port), "")]
            case Answered() | Closed() as outcome:
                ends = [self._refused(far, walk, target, outcome)]
        return tuple(dict.fromkeys(ends))

    def _refused(
        self, far: Workload, walk: Walk, target: Target, outcome: Answered | Closed
    ) -> End:
        """The far side's sidecar ends the call; where its RBAC filter does, by which intention."""
        where = f"at the far side, in {walk.proxy}: "
        by = self._denied_by(far, walk, target) if outcome.denied is not None else ""
        return replace(_ended(outcome, f"denied by {by}, {where}" if by else where), at=far.name)

    def _denied_by(self, far: Workload, walk: Walk, target: Target) -> str:
        """`intention web => api`, as Consul wrote it into the filter."""
        connect = self._registry.mesh.connect
        source = next(map(service_of_identity, walk.call.principals or ()), "")
        if connect is None or connect.intentions is None or not source:
            return ""
        service = target.service if target.service in far.services else ""
        service = service or next(iter(far.services), "")
        found = intention_for(connect.intentions, source, service)
        if found is None:
            return f"the default for {source} => {service}"
        return f"intention {found.name}"

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
        if owner.stopped or owner.unreachable:
            stopped = f"whose container {owner.stopped} does not run"
            what = stopped if owner.stopped else owner.unreachable
            why = f"{_share_at(walk, end)}it goes to {address}:{port}, {what}"
            return End(Verdict.NOWHERE, why=why, absent=owner.instance)
        if owner.service == target.service:
            return End(Verdict.RIGHT, owner.service, owner.instance)
        if owner.service in target.also:
            why = f"Consul's own rules for {target.service} send it on to {owner.service}"
            return End(Verdict.RIGHT, owner.service, owner.instance, why=why)
        if SentOn(owner.service, by_request=walk.hop(HopKind.ROUTE) is not None) in target.sent_on:
            why = f"a VirtualService for {target.service} sends it on to {owner.service}"
            return End(Verdict.RIGHT, owner.service, owner.instance, why=why)
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
        if self._registry.mesh.hidden:
            return End(Verdict.UNKNOWN, why=f"{why} that is shown: {self._registry.mesh.hidden}")
        return End(Verdict.NOWHERE, why=why)


# ---------------------------------------------------------------- judging


def judge(
    target: Target, walks: tuple[Walk, ...], ends: Sequence[Sequence[End]], *, lucky: bool
) -> Judgement:
    """What a pair says of its ends, which run beside the walks; the worst of them decides."""
    every = [end for each in ends for end in each]
    verdicts = {end.verdict for end in every}
    verdict = next((each for each in WORST_FIRST if each in verdicts), Verdict.UNKNOWN)
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
        denied=_denial(telling),
        absent=tuple(dict.fromkeys(end.absent for end in every if end.absent)),
        by_request=bool(telling) and all(end.by_request for end in telling),
        ended_at=tuple(dict.fromkeys(end.at for end in telling if end.at)),
    )


def _denial(ends: Sequence[End]) -> Denial | None:
    """What denies a call where every one of its ends is a denial."""
    if not ends or any(end.denied is None for end in ends):
        return None
    return min(
        (end.denied for end in ends if end.denied is not None),
        key=lambda denial: denial.every_request,
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
            return End(
                Verdict.NOWHERE,
                status=status,
                why=said,
                denied=outcome.denied,
                by_request=outcome.others_pass or bool(outcome.location),
            )
        case Closed(flag, why):
            said = f"{before}{why} ({flag})" if flag else f"{before}{why}"
            return End(Verdict.NOWHERE, why=said, denied=outcome.denied)
        case Unknown(why):
            return End(Verdict.UNKNOWN, why=f"{before}{why}")


def _circling(far: Workload, walk: Walk, at: tuple[str, int]) -> End | None:
    """Where the far side's proxy passes a call on to where it came in, and gets it back.

    As a proxy does that has no inbound listener for its workload: its outbound ones send the call
    to the very address that was called. The redirect catches what goes over `lo`, the proxy's own
    connections too, whatever user it runs as.
    """
    sidecar = examined(far)
    table = None if sidecar is None else sidecar.nat
    own = addresses(far)
    if table is None or at != (walk.call.address, walk.call.port) or at[0] not in own:
        return None
    users = {int(rule.uid) for rule in table.reachable("OUTPUT") if rule.uid.isdecimal()}
    if not users:
        return None
    try:
        for uid in users:
            back = redirect(table, Call(address=at[0], port=at[1], uid=uid), own)
            if not isinstance(back, Redirected):
                return None
    except UndecidedError:
        return None
    why = f"{walk.proxy} passes it on to {host_port(*at)}, its own address, and gets it back"
    return End(Verdict.NOWHERE, why=f"{why} without end")


def _kept_out(far: Workload) -> tuple[End, ...] | None:
    """Where the far side's sidecar does not run, a redirect to it lets no connection in.

    Whether there is one was not seen: it is read where the sidecar runs. Of one that hangs nobody
    can tell what it does with calls.
    """
    for each in far.sidecars:
        if each.state is SidecarState.UNREACHABLE and access.HANGS in each.reason:
            return (End(Verdict.UNKNOWN, why=f"{each.name} answers nothing at its admin port"),)
    down = [
        each.name
        for each in far.sidecars
        if each.state is SidecarState.DOWN and not each.namespace_is_dead
    ]
    if len(down) < len(far.sidecars):
        return None
    if down:
        said = f"{', '.join(down)} does not run"
    elif any(each.exit_code == 0 and not each.running for each in far.inits):
        said = "it has no sidecar, but an init container ran"
    else:
        return None
    why = f"{said}, so {far.name} takes the call only if no redirect leads to a sidecar"
    return (End(Verdict.UNKNOWN, why=why),)


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


def _share_at(walk: Walk, at: tuple[str, int]) -> str:
    """`25% of the calls: `, where the call is balanced over other addresses too."""
    if not isinstance(walk.outcome, Reached):
        return ""
    there = walk.outcome.destinations
    share = sum(each.share for each in there if (each.address, each.port) == at)
    return f"{share:.0%} of the calls: " if 0 < share < 1 else ""


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


def _strangers(config: Configuration, far: Workload, walk: Walk) -> End | None:
    """The end of a call between two sidecars that believe different authorities, None for others.

    Told by the serial numbers and names of the authorities, as far as both `/certs` are known.
    """
    sidecar = examined(far)
    other = sidecar.proxy if sidecar is not None else None
    here = config.proxy.certificates
    there = None if other is None else other.certificates
    if here is None or there is None or other is None:
        return None
    mine, theirs = (
        {(each.serial, each.uris) for each in held.authorities} for held in (here, there)
    )
    if not mine or not theirs or mine & theirs:
        return None
    why = (
        f"{config.proxy.name} and {other.name} believe different authorities, so neither takes "
        "the other's certificate"
    )
    return End(Verdict.NOWHERE, status=503 if walk.hop(HopKind.ROUTE) else None, why=why)


def _expired(config: Configuration, far: Workload, walk: Walk) -> End | None:
    """The end of a call between two sidecars one of which shows what ran out, None for others."""
    sidecar = examined(far)
    for proxy in (config.proxy, None if sidecar is None else sidecar.proxy):
        ended = "" if proxy is None or proxy.certificates is None else proxy.certificates.ended
        if proxy is not None and ended:
            why = f"{proxy.name} shows a certificate that expired at {ended}"
            return End(Verdict.NOWHERE, status=503 if walk.hop(HopKind.ROUTE) else None, why=why)
    return None


def _names(config: Configuration) -> tuple[str, ...] | None:
    """The names in the certificate that the proxy shows, None where nobody recorded it."""
    certificates = config.proxy.certificates
    return None if certificates is None else certificates.names or None


def _is_wrapped(config: Configuration, cluster: str) -> bool | None:
    """Whether a cluster is reached in TLS, None where its transport is none that is followed.

    An aggregate cluster has none of its own: that of its members counts, where they agree.
    """
    entry = config.clusters.get(cluster)
    if entry is None:
        return None
    if entry.cluster.aggregate:
        members = (config.clusters.get(name) for name in entry.cluster.aggregate)
        wrapped = {_wraps(member.cluster) for member in members if member is not None}
        return wrapped.pop() if len(wrapped) == 1 else None
    return _wraps(entry.cluster)


def _wraps(cluster: Cluster) -> bool | None:
    kind = cluster.transport_socket.rpartition(".")[2]
    if kind in ("", "raw_buffer"):
        return False
    return True if kind == "tls" else None
