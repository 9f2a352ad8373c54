"""Where every caller's calls to every service land, joined from the proxies and the registry."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final, Self

import msgspec
from msgspec.structs import replace

from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.routing.ends import Ends, Judgement, Verdict, judge
from meshdoctor.routing.follow import follow
from meshdoctor.routing.model import Call, Denial, Walk
from meshdoctor.routing.registry import Registry, Target, addresses, authority, examined
from meshdoctor.routing.shared import Reader, SharedWalks, Together
from meshdoctor.topology import Mesh, Sidecar, SidecarState, Workload

__all__ = [
    "Calls",
    "Follower",
    "Pair",
    "Registry",
    "Target",
    "Verdict",
    "authority",
    "calling",
    "unexamined",
]


class Pair(msgspec.Struct, frozen=True, eq=False):
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
    denied: Denial | None = None
    """What denies the call, where that is why it is not reached."""
    absent: tuple[str, ...] = ()
    """Registered instances that the call may be sent to, and that are not there."""
    followed: tuple[Walk, ...] = ()
    _own: "_Own | None" = None

    def __eq__(self, other: object) -> bool:
        """Whether both say the same of the same call, whoever's document they saw it in."""
        return isinstance(other, Pair) and self._said() == other._said()

    def __hash__(self) -> int:
        return hash(self._said())

    def _said(self) -> tuple[object, ...]:
        shown = self.__struct_fields__[:-2]
        return tuple(getattr(self, name) for name in shown)

    @property
    def walks(self) -> tuple[Walk, ...]:
        """The ways followed, as they are written in this caller's own proxy."""
        return self.followed if self._own is None else self._own()


class _Own(msgspec.Struct, frozen=True, eq=False):
    """How to follow a call in its caller's own proxy. There may be a million: it is kept small."""

    caller: Workload
    target: Target

    def __call__(self) -> tuple[Walk, ...]:
        return _own_walks(self.caller, self.target)


class Calls(msgspec.Struct, frozen=True):
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


class Follower:
    """Follows calls from their callers' sidecars to the services that own the endpoints.

    What callers of equal configuration have in common is followed and judged once: see `walks`.
    """

    def __init__(self, registry: Registry) -> None:
        self.walks: Final = SharedWalks()
        self._registry = registry
        self._ends = Ends(registry, self.walks)
        # By identity, with what it is the identity of, so that it stays theirs.
        self._calls: dict[int, tuple[Target, Together]] = {}
        self._judged: dict[tuple[object, ...], tuple[tuple[Walk, ...], Judgement]] = {}

    def pairs(self, caller: Workload) -> Iterator[Pair]:
        """Where the caller's calls land, sorted by callee and port."""
        targets = self._registry.targets(caller)
        services = caller.services
        sidecar = calling(caller)
        if sidecar is None or sidecar.proxy is None:
            reason = unexamined(caller)
            yield from (self._unknown(caller, target, reason, services) for target in targets)
            return
        reader = self.walks.reader(sidecar.proxy, sidecar.nat)
        own = addresses(caller)
        networks = () if caller.container is None else tuple(caller.container.addresses)
        for target in targets:
            yield self._pair(caller, sidecar, reader, own, target, services, networks)

    @staticmethod
    def _unknown(caller: Workload, target: Target, reason: str, services: Sequence[str]) -> Pair:
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
            is_own=target.service in services,
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
        networks: tuple[str, ...],
    ) -> Pair:
        walks = self.walks.walks(reader, self._calls_to(target), own)
        # The far side judges by who calls, and where an address leads is told by the network.
        key = (networks, id(target), id(reader.config.proxy.certificates), id(walks))
        _, judged = self._judged.get(key, (walks, None))
        if judged is None:
            ends = [self._ends.of(caller, reader.config, walk, target) for walk in walks]
            lucky = self._ends.is_lucky(target, walks)
            judged = judge(target, walks, ends, lucky=lucky)
            if not any(map(self._ends.stay_with_caller, walks)):
                self._judged[key] = (walks, judged)
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
            denied=judged.denied,
            absent=judged.absent,
            followed=judged.walks,
            _own=_Own(caller, target) if shared else None,
        )

    def _calls_to(self, target: Target) -> Together:
        known = self._calls.get(id(target))
        if known is None:
            calls = _calls_to(target)
            together = Together(calls, frozenset(call.address for call in calls))
            known = self._calls[id(target)] = (target, together)
        return known[1]


def _own_walks(caller: Workload, target: Target) -> tuple[Walk, ...]:
    source = min(addresses(caller), default="")
    calls = (replace(call, source_address=source) for call in _calls_to(target))
    sidecar = examined(caller)
    if sidecar is None or sidecar.proxy is None:
        return ()
    proxy, nat, own = sidecar.proxy, sidecar.nat, addresses(caller)
    return tuple(follow(proxy, call, nat=nat, own_addresses=own) for call in calls)


def _calls_to(target: Target) -> tuple[Call, ...]:
    return tuple(
        Call(address=address, port=port, host=target.host) for address, port in target.addresses
    )


def calling(caller: Workload) -> Sidecar | None:
    """The sidecar that a workload's calls pass, None where it was not read or calls nobody."""
    return examined(caller) if _runs(caller) else None


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
