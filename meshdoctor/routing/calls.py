"""Where every caller's calls to every service land, joined from the proxies and the registry."""

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Self

from meshdoctor.evidence.envoy import EnvoyProxy
from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.kinds import Kind
from meshdoctor.kinds.istio_consul import is_http, takes_missing_for_http
from meshdoctor.routing.follow import follow
from meshdoctor.routing.model import (
    Answered,
    Bypassed,
    Call,
    Closed,
    Outcome,
    Reached,
    Unknown,
    Walk,
)
from meshdoctor.topology import Mesh, Role, Service, Sidecar, SidecarState, Workload

_HTTP_PORT: Final = 80
_ORIGINAL_DST: Final = "ORIGINAL_DST"


class Verdict(enum.StrEnum):
    """Where a call lands, as `matrix` says it."""

    RIGHT = "right"
    WRONG = "wrong"
    NOWHERE = "nowhere"
    BY_LUCK = "by luck"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Pair:
    """One caller, one callee, one port.

    `caller` is the workload's name, `sidecar` that of the Envoy that was followed. `reached` is
    the service at which the call ends, `instances` its instances' ids; `status` what the proxy
    itself answers where nothing is reached. `walks` are the ways followed, one for each address
    that the name may resolve to and that is treated differently.
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
    walks: tuple[Walk, ...] = ()


@dataclass(frozen=True, slots=True)
class Calls:
    """Where calls land: a row for each caller, callee and port."""

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
        return cls(tuple(_pairs(mesh)))


@dataclass(frozen=True, slots=True)
class Target:
    """A service's port as a caller names it, and the addresses that the name may resolve to.

    `rivals` are other services that the caller reaches, or means to, at the very same address.
    """

    service: str
    port: int
    host: str
    addresses: tuple[tuple[str, int], ...]
    rivals: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://{self.host}/"


def authority(name: str, port: int) -> str:
    """The Host header for a name and a port, as HTTP clients write it."""
    return name if port == _HTTP_PORT else f"{name}:{port}"


def _pairs(mesh: Mesh) -> Iterator[Pair]:
    registry = Registry(mesh)
    follower = Follower(registry)
    for workload in mesh.workloads:
        for target in registry.targets(workload):
            yield follower.pair(workload, target)


# ---------------------------------------------------------------- the registry's side


class Registry:
    """Who owns an address, and what callers call: what the followed calls are held against."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.instances: dict[tuple[str, int], list[tuple[str, str]]] = {}
        for service in mesh.services.values():
            for instance in service.instances:
                owners = self.instances.setdefault((instance.address, instance.port), [])
                owners.append((service.name, instance.id))
        self.proxied = {
            (each.address, each.port): (each.proxy.destination, each.proxy.destination_id)
            for each in mesh.proxies
            if each.proxy is not None
        }
        self.by_address = self._workloads_by_address(mesh.workloads)
        self.sidecars = {
            workload.name: next(
                (each for each in workload.sidecars if each.state is SidecarState.EXAMINED), None
            )
            for workload in mesh.workloads
        }
        self._arbitrary: dict[int, bool] = {}
        self._meshwide = tuple(self._istio_targets()) if self._is_istio else ()

    @staticmethod
    def _workloads_by_address(workloads: Iterable[Workload]) -> Mapping[str, Workload]:
        found: dict[str, Workload] = {}
        for workload in workloads:
            if workload.container is not None:
                for address in workload.container.addresses.values():
                    found[address] = workload
        return found

    @property
    def _is_istio(self) -> bool:
        return Kind.ISTIO_CONSUL in self.mesh.kinds

    def targets(self, caller: Workload) -> Sequence[Target]:
        """What a caller can call, under the names that it uses."""
        upstreams = [
            upstream
            for sidecar in caller.sidecars
            for registered in self.mesh.proxies
            if registered.id == sidecar.name and registered.proxy is not None
            for upstream in registered.proxy.upstreams
            if upstream.local_port
        ]
        bound: dict[tuple[str, int], list[str]] = defaultdict(list)
        for upstream in upstreams:
            bound[upstream.local_address, upstream.local_port].append(upstream.destination)
        local = [
            Target(
                service=upstream.destination,
                port=upstream.local_port,
                host=authority(upstream.local_address, upstream.local_port),
                addresses=((upstream.local_address, upstream.local_port),),
                rivals=tuple(
                    name
                    for name in bound[upstream.local_address, upstream.local_port]
                    if name != upstream.destination
                ),
            )
            for upstream in upstreams
        ]
        return (*self._meshwide, *local)

    def _istio_targets(self) -> Iterator[Target]:
        for service in self.mesh.applications:
            for port in service.ports:
                addresses = [
                    (each.address, each.port) for each in service.instances if each.port == port
                ]
                yield Target(
                    service.name,
                    port,
                    authority(service.name, port),
                    tuple(dict.fromkeys(addresses)),
                )

    def owner(self, address: str, port: int) -> tuple[str, str] | None:
        """The service and instance behind an endpoint; a proxy's address stands for its own."""
        if (address, port) in self.proxied:
            return self.proxied[address, port]
        owners = self.instances.get((address, port))
        return owners[0] if owners else None

    def landing(self, caller: Workload, outcome: Outcome) -> "_Landing":
        """What an outcome means; addresses of loopback are those of `caller` itself."""
        match outcome:
            case Reached(destinations, otherwise):
                owners = [
                    self._owner_for(caller, each.address, each.port) for each in destinations
                ]
                nobody = [
                    f"{each.address}:{each.port}"
                    for each, owner in zip(destinations, owners, strict=True)
                    if owner is None
                ]
                said = [f"no registered service owns {nobody[0]}"] if nobody else []
                said += [f"{share:.0%} of the calls: {each.why}" for share, each in otherwise]
                return _Landing(
                    services=tuple(dict.fromkeys(own[0] if own else None for own in owners)),
                    instances=tuple(dict.fromkeys(own[1] for own in owners if own is not None)),
                    status=None,
                    reason="; ".join(said),
                )
            case Answered(status, flag, why):
                return _Landing((), (), status, f"{why} ({flag})" if flag else why)
            case Closed(flag, why):
                return _Landing((), (), None, f"{why} ({flag})" if flag else why)
            case Bypassed(address, port, why):
                owner = self._owner_for(caller, address, port)
                if owner is None:
                    return _Landing((None,), (), None, f"{why}; nobody owns {address}:{port}")
                return _Landing((owner[0],), (owner[1],), None, why)
            case Unknown(why):
                return _Landing((), (), None, why, unknown=True)

    def _owner_for(self, caller: Workload, address: str, port: int) -> tuple[str, str] | None:
        if address.startswith("127.") and (address, port) not in self.proxied:
            for instance in caller.instances:
                if instance.port == port:
                    return instance.service, instance.id
        return self.owner(address, port)

    def is_arbitrary(self, port: int) -> bool:
        """True where the listener of a port goes to whichever service Pilot meets first."""
        if port not in self._arbitrary:
            self._arbitrary[port] = self._is_istio and self._has_contest(port)
        return self._arbitrary[port]

    def _has_contest(self, port: int) -> bool:
        services: Sequence[Service] = self.mesh.on_port(port)
        pilot = self.mesh.component(Role.PILOT)
        default_http = pilot is not None and takes_missing_for_http(pilot.container.image_tag)
        return len(services) > 1 and not all(
            is_http(service.protocols(port)[0], default_http=default_http) for service in services
        )


# ---------------------------------------------------------------- following


@dataclass(frozen=True, slots=True)
class _Landing:
    """How one walk ends, in the registry's words."""

    services: tuple[str | None, ...]
    instances: tuple[str, ...]
    status: int | None
    reason: str
    unknown: bool = False


class Follower:
    """Follows calls from their callers' sidecars to the services that own the endpoints."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def pair(self, caller: Workload, target: Target) -> Pair:
        """Where the caller's call to the target lands."""
        sidecar = self._registry.sidecars[caller.name]
        if sidecar is None or sidecar.proxy is None:
            return self._unexamined(caller, target)
        source = min(_addresses(caller), default="")
        walks = [
            self._walk(
                caller,
                sidecar,
                sidecar.proxy,
                Call(address=address, port=port, host=target.host, source_address=source),
            )
            for address, port in target.addresses
        ]
        landings = [self._land(caller, walk) for walk in walks]
        pair = _judge(caller, target, landings)
        if pair.verdict is Verdict.RIGHT and self._is_lucky(target, sidecar.proxy):
            pair = replace(
                pair,
                verdict=Verdict.BY_LUCK,
                reason=(
                    f"{target.service} owns the listener of port {target.port} now; another "
                    "service on the port may own it after the next change"
                ),
            )
        return replace(pair, sidecar=sidecar.name, walks=tuple(dict.fromkeys(walks)))

    @staticmethod
    def _unexamined(caller: Workload, target: Target) -> Pair:
        if not caller.sidecars:
            reason = f"{caller.name} has no sidecar, so its calls pass no proxy that could be read"
        else:
            names = ", ".join(sidecar.name for sidecar in caller.sidecars)
            reason = f"its sidecar {names} could not be examined"
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
        )

    def _is_lucky(self, target: Target, proxy: EnvoyProxy) -> bool:
        """True where a call is right by chance: its port is contested, and it happened to win."""
        if target.rivals:
            return True
        if not self._registry.is_arbitrary(target.port):
            return False
        bound = {
            (entry.listener.address, entry.listener.port) for entry in proxy.deciding_listeners()
        }
        return any(address not in bound for address in target.addresses)

    def _walk(self, caller: Workload, sidecar: Sidecar, proxy: EnvoyProxy, call: Call) -> Walk:
        return follow(proxy, call, nat=sidecar.nat, own_addresses=_addresses(caller))

    def _land(self, caller: Workload, walk: Walk) -> _Landing:
        """What the outcome means, the far side's own sidecar asked too."""
        landing = self._registry.landing(caller, walk.outcome)
        if not isinstance(walk.outcome, Reached):
            return landing
        for destination in walk.outcome.destinations:
            far = self._registry.by_address.get(destination.address)
            if far is None or far is caller:
                continue
            arrived = self._arrive(far, walk.call, destination.address, destination.port)
            if arrived is not None:
                landing = arrived if arrived.services != landing.services else landing
        return landing

    def _arrive(self, far: Workload, call: Call, address: str, port: int) -> _Landing | None:
        """What the far side's sidecar makes of the call, None where that cannot be told."""
        sidecar = self._registry.sidecars[far.name]
        if sidecar is None or sidecar.proxy is None:
            return None
        inbound = replace(call, address=address, port=port, inbound=True)
        outcome = self._walk(far, sidecar, sidecar.proxy, inbound).outcome
        return None if isinstance(outcome, Unknown) else self._registry.landing(far, outcome)


def _addresses(workload: Workload) -> frozenset[str]:
    container = workload.container
    return frozenset() if container is None else frozenset(container.addresses.values())


def _judge(caller: Workload, target: Target, landings: Sequence[_Landing]) -> Pair:
    services = tuple(dict.fromkeys(name for each in landings for name in each.services))
    reasons = list(dict.fromkeys(each.reason for each in landings if each.reason))
    ended = [each for each in landings if not each.services and not each.unknown]
    strangers = [name for name in services if name != target.service]
    if any(each.unknown for each in landings) or not landings:
        verdict = Verdict.UNKNOWN
        reasons = reasons or ["the service has no instance"]
    elif strangers:
        verdict = Verdict.WRONG
    elif ended:
        verdict = Verdict.NOWHERE
    else:
        verdict = Verdict.RIGHT
    known = [name for name in (strangers or services) if name is not None]
    if strangers and known:
        reasons.insert(0, f"reaches {', '.join(known)} instead of {target.service}")
    return Pair(
        caller=caller.name,
        callee=target.service,
        port=target.port,
        url=target.url,
        verdict=verdict,
        reached=known[0] if known and verdict is not Verdict.NOWHERE else None,
        instances=tuple(dict.fromkeys(each for landing in landings for each in landing.instances)),
        status=ended[0].status if ended and verdict is Verdict.NOWHERE else None,
        reason="; ".join(reasons),
    )
