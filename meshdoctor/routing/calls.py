"""Where every caller's calls to every service land, joined from the proxies and the registry.

A thousand callers of a thousand services are a million calls, but few judgements: most callers
fare alike. So a caller's row is what it has in common with others, and what it has not; a `Pair`
is made where somebody asks for the call of one caller.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import ClassVar, Final, Self

import msgspec
from msgspec.structs import replace

from meshdoctor.evidence.envoy import EnvoyProxy
from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.routing.alike import CERTIFICATES, Followed, facts
from meshdoctor.routing.ends import WORST_FIRST, End, Ends, Judgement, Verdict, judge
from meshdoctor.routing.follow import follow
from meshdoctor.routing.model import Call, Denial, Walk
from meshdoctor.routing.registry import Registry, Target, addresses, authority, examined
from meshdoctor.routing.shared import Question, Reader, SharedWalks, Together
from meshdoctor.topology import Mesh, Sidecar, SidecarState, Workload

__all__ = [
    "WORST_FIRST",
    "Calls",
    "Common",
    "Destination",
    "Follower",
    "Judgement",
    "Pair",
    "Registry",
    "Row",
    "Target",
    "Verdict",
    "authority",
    "calling",
    "unexamined",
]


Destination = tuple[str, int]
"""A service that is called, and its port."""


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
    ended_at: tuple[str, ...] = ()
    """The workloads whose sidecars take the call in and do not pass it on."""
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
    def fares(self) -> tuple[Verdict, str | None, int | None]:
        """How the call fares: where it lands, and what the proxy answers if nowhere."""
        return self.verdict, self.reached, self.status

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


class Common(msgspec.Struct, frozen=True, eq=False, dict=True):
    """What callers have in common: whom they call, and beside that how it is judged."""

    targets: Sequence[Target]
    judgements: Sequence[Judgement]

    @cached_property
    def destinations(self) -> Sequence[Destination]:
        """The targets' services and ports, beside them."""
        return [(target.service, target.port) for target in self.targets]

    @cached_property
    def at(self) -> Mapping[Destination, Sequence[int]]:
        """The places of the targets."""
        places: dict[Destination, list[int]] = defaultdict(list)
        for place, destination in enumerate(self.destinations):
            places[destination].append(place)
        return dict(places)

    @cached_property
    def of(self) -> Mapping[str, Sequence[int]]:
        """The places of each service's targets."""
        places: dict[str, list[int]] = defaultdict(list)
        for place, target in enumerate(self.targets):
            places[target.service].append(place)
        return dict(places)


class Row(msgspec.Struct, frozen=True, eq=False, dict=True):
    """One caller's calls: what it has in common with others, `but` for some, by their places.

    `unexamined` says why nothing is known of its calls, "" where they were followed.
    """

    caller: Workload
    sidecar: str | None
    common: Common
    but: Mapping[int, Judgement] = {}
    unexamined: str = ""

    @cached_property
    def services(self) -> frozenset[str]:
        """What the caller itself is an instance of."""
        return frozenset(self.caller.services)

    @property
    def own(self) -> Iterator[int]:
        """The places of its calls to services that it is an instance of."""
        for service in self.services:
            yield from self.common.of.get(service, ())

    def judgement(self, place: int) -> Judgement:
        """How the call to the target at that place is judged."""
        return self.but.get(place) or self.common.judgements[place]

    def pairs(self) -> Iterator[Pair]:
        """All of it, sorted by callee and port."""
        return map(self.pair, range(len(self.common.targets)))

    def pair(self, place: int) -> Pair:
        """The call to the target at that place."""
        target, judged = self.common.targets[place], self.judgement(place)
        shared = any(walk.proxy != self.sidecar for walk in judged.walks)
        return Pair(
            caller=self.caller.name,
            callee=target.service,
            port=target.port,
            url=target.url,
            verdict=judged.verdict,
            reached=judged.reached,
            instances=judged.instances,
            status=judged.status,
            reason=self.unexamined or judged.reason,
            sidecar=self.sidecar,
            why=self.unexamined or judged.why,
            is_own=target.service in self.services,
            denied=judged.denied,
            absent=judged.absent,
            ended_at=judged.ended_at,
            followed=judged.walks,
            _own=_Own(self.caller, target) if shared else None,
        )


class Calls(msgspec.Struct, frozen=True, eq=False, dict=True):
    """Where calls land: a row for each caller, sorted by name."""

    title: ClassVar[str] = "where calls land"
    hint: ClassVar[str] = (
        "it is worked out from the sidecars' Envoys and the Consul catalogue: give it both"
    )

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, mesh: Mesh) -> Self:
        """Follow all calls. Raises MissingEvidenceError where no sidecar or service is known."""
        if not any(sidecar.proxy is not None for sidecar in mesh.sidecars):
            raise MissingEvidenceError("no sidecar's configuration could be read", cls.hint)
        if not mesh.applications:
            raise MissingEvidenceError("no application's service is in the catalogue", cls.hint)
        return cls(tuple(map(Follower(Registry(mesh)).row, mesh.workloads)))

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """One for each caller, callee and port, sorted by them.

        In a large mesh they are a million: `judged` and `to` tell of them without making all.
        """
        return tuple([pair for row in self.rows for pair in row.pairs()])

    def judged(self, *, own: bool = True) -> Mapping[Destination, Counter[Judgement]]:
        """How many of the calls to each destination are judged how.

        Unless `own`, without the calls of services to themselves. Destinations are in no order.
        """
        found: dict[Destination, Counter[Judgement]] = defaultdict(Counter)
        for common, callers in Counter(row.common for row in self.rows).items():
            for destination, judgement in zip(common.destinations, common.judgements, strict=True):
                found[destination][judgement] += callers
        for row in self.rows:
            for place, judgement in row.but.items():
                counts = found[row.common.destinations[place]]
                counts[row.common.judgements[place]] -= 1
                counts[judgement] += 1
            for place in () if own else row.own:
                found[row.common.destinations[place]][row.judgement(place)] -= 1
        return {destination: +counts for destination, counts in found.items()}

    def to(
        self, destination: Destination, wanted: Callable[[Judgement], bool] = lambda _: True
    ) -> Iterator[Pair]:
        """The calls to a destination that are judged as wanted, sorted by caller."""
        found: list[tuple[int, int]] = []
        for common, numbers in self._in_common.items():
            for place in common.at.get(destination, ()):
                others = self._others.get((common, place), {})
                if wanted(common.judgements[place]):
                    found += [(number, place) for number in numbers if number not in others]
                found += [(number, place) for number, told in others.items() if wanted(told)]
        for number, place in sorted(found):
            yield self.rows[number].pair(place)

    @cached_property
    def _in_common(self) -> Mapping[Common, Sequence[int]]:
        """The numbers of the rows, by what they have in common."""
        numbers: dict[Common, list[int]] = defaultdict(list)
        for number, row in enumerate(self.rows):
            numbers[row.common].append(number)
        return numbers

    @cached_property
    def _others(self) -> Mapping[tuple[Common, int], Mapping[int, Judgement]]:
        """By the place of a call, the numbers of the rows that it is judged otherwise in."""
        numbers: dict[tuple[Common, int], dict[int, Judgement]] = defaultdict(dict)
        for number, row in enumerate(self.rows):
            for place, judgement in row.but.items():
                numbers[row.common, place][number] = judgement
        return numbers


class Follower:
    """Follows calls from their callers' sidecars to the services that own the endpoints.

    What callers of equal configuration have in common is followed and judged once: see `alike`
    for callers, and `walks` for single calls.
    """

    def __init__(self, registry: Registry) -> None:
        self.walks: Final = SharedWalks()
        self._registry = registry
        self._ends = Ends(registry, self.walks)
        # By identity, with what it is the identity of, so that it stays theirs.
        self._calls: dict[int, tuple[Target, Together]] = {}
        self._judged: dict[tuple[object, ...], tuple[tuple[Walk, ...], Judgement]] = {}
        self._ends_of: dict[tuple[object, ...], tuple[Walk, tuple[End, ...]]] = {}
        self._unjudged: dict[int, Common] = {}
        self._earlier: dict[object, list[tuple[Followed, Common]]] = defaultdict(list)

    def pairs(self, caller: Workload) -> Iterator[Pair]:
        """Where the caller's calls land, sorted by callee and port."""
        return self.row(caller).pairs()

    def row(self, caller: Workload) -> Row:
        """The same, for what it has in common with other callers' calls."""
        targets = self._registry.targets(caller)
        sidecar = calling(caller)
        if sidecar is None or sidecar.proxy is None:
            common = Common(targets, (_UNJUDGED,) * len(targets))
            common = self._unjudged.setdefault(id(targets), common)
            return Row(caller, None, common, unexamined=unexamined(caller))
        passing = _Passing(
            caller=caller,
            reader=self.walks.reader(sidecar.proxy, sidecar.nat),
            own=addresses(caller),
            networks=() if caller.container is None else tuple(caller.container.addresses),
            shown=_shown(sidecar.proxy),
        )
        # Who has upstreams of its own has no targets in common with others.
        if targets is not self._registry.meshwide:
            return Row(caller, sidecar.name, self._followed(passing, targets))
        held = facts(passing.reader, passing.own, passing.shown)
        earlier = self._earlier[passing.reader.shape, passing.networks]
        for followed, common in earlier:
            touched = followed.touched(passing.reader, held)
            if len(touched) <= len(targets) // 2:
                found = {place: self._judge(passing, targets[place]) for place in touched}
                but = {
                    place: judgement
                    for place, judgement in found.items()
                    if judgement is not common.judgements[place]
                }
                return Row(caller, sidecar.name, common, but)
        common = self._followed(passing, targets)
        if len(earlier) < _MOST_COMPARED:
            asked = [
                self._asked(passing, *each)
                for each in zip(targets, common.judgements, strict=True)
            ]
            earlier.append((Followed(passing.reader, held, targets, asked), common))
        return Row(caller, sidecar.name, common)

    def _followed(self, passing: "_Passing", targets: Sequence[Target]) -> Common:
        return Common(targets, tuple([self._judge(passing, target) for target in targets]))

    # ------------------------------------------------------------ one call

    def _judge(self, passing: "_Passing", target: Target) -> Judgement:
        walks = self.walks.walks(passing.reader, self._calls_to(target), passing.own)
        # The far side judges by who calls, and where an address leads is told by the network.
        key = (passing.networks, id(target), passing.shown, id(walks))
        _, judged = self._judged.get(key, (walks, None))
        if judged is None:
            found = [self._ended(passing, walk, target) for walk in walks]
            lucky = self._ends.is_lucky(target, walks)
            judged = judge(target, walks, [ends for ends, _ in found], lucky=lucky)
            if not any(stays for _, stays in found):
                self._judged[key] = (walks, judged)
        return judged

    def _ended(
        self, passing: "_Passing", walk: Walk, target: Target
    ) -> tuple[tuple[End, ...], bool]:
        """How the walk ends, told once for all callers that have it in common.

        And whether it stays with this caller, so that it holds for no other.
        """
        key = (passing.networks, id(target), passing.shown, id(walk))
        known = self._ends_of.get(key)
        if known is not None:
            return known[1], False
        ends = self._ends.of(passing.caller, passing.reader.config, walk, target)
        stays = self._ends.stay_with_caller(walk)
        if not stays:
            self._ends_of[key] = (walk, ends)
        return ends, stays

    def _asked(
        self, passing: "_Passing", target: Target, judgement: Judgement
    ) -> Sequence[Question] | None:
        """What the judgement follows from, None where it holds for this caller alone."""
        if any(map(self._ends.stay_with_caller, judgement.walks)):
            return None
        asked = self.walks.asked(passing.reader, self._calls_to(target), passing.own)
        if asked is None:
            return None
        config = passing.reader.config
        shown = any(self._ends.shows_certificate(config, each) for each in judgement.walks)
        return [*asked, CERTIFICATES] if shown else asked

    def _calls_to(self, target: Target) -> Together:
        known = self._calls.get(id(target))
        if known is None:
            calls = _calls_to(target)
            together = Together(calls, frozenset(call.address for call in calls))
            known = self._calls[id(target)] = (target, together)
        return known[1]


class _Passing(msgspec.Struct, frozen=True):
    """A caller and the sidecar that its calls pass; `shown` stands for its certificates."""

    caller: Workload
    reader: Reader
    own: frozenset[str]
    networks: tuple[str, ...]
    shown: int


_MOST_COMPARED: Final = 8
"""Callers that one is compared with, of which each differs from the others in much."""

_UNJUDGED: Final = Judgement(
    walks=(),
    verdict=Verdict.UNKNOWN,
    reached=None,
    instances=(),
    status=None,
    reason="",
    why="",
)


def _shown(proxy: EnvoyProxy) -> int:
    """What stands for the certificates of a proxy, 0 where it has none to show or to believe."""
    held = proxy.certificates
    return 0 if held is None or not (held.chains or held.authorities) else id(held)


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
