"""Prediction beside reality: each probed request, and what the followed call said of it."""

import enum
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from meshdoctor.evidence.probe import Failure, How, Probed, ProbeResults, Request
from meshdoctor.routing.calls import Calls, Pair, Verdict
from meshdoctor.routing.follow import follow
from meshdoctor.routing.model import Answered, Bypassed, Closed, Outcome, Reached, Walk
from meshdoctor.routing.registry import Registry, addresses
from meshdoctor.topology import Mesh


class Agreement(enum.StrEnum):
    """Whether prediction and reality are the same; UNKNOWN where either is not known."""

    SAME = "same"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


class End(msgspec.Struct, frozen=True):
    """Where a call ends: at one of `services`, or where it may end at none, `nowhere`.

    `status` is what the proxy itself answers then, None where it only closes the connection.
    Neither: nobody knows.
    """

    services: frozenset[str] = frozenset()
    nowhere: bool = False
    status: int | None = None

    @property
    def known(self) -> bool:
        """True where it is known at all."""
        return bool(self.services) or self.nowhere

    def __str__(self) -> str:
        said = sorted(self.services)
        if self.nowhere:
            said.append("nowhere" if self.status is None else f"nowhere ({self.status})")
        return " or ".join(said) or "unknown"


class Comparison(msgspec.Struct, frozen=True):
    """One probed request; `pair` is the call as it was followed, None where none was."""

    probed: Probed
    pair: Pair | None
    predicted: End
    observed: End
    agreement: Agreement

    @property
    def request(self) -> Request:
        """What was asked, and what it met."""
        return self.probed.request


def compare(mesh: Mesh, calls: Calls | None, results: ProbeResults) -> Sequence[Comparison]:
    """Every request that was sent, beside what following the call predicted."""
    pairs: Mapping[tuple[str, str, int, str], Pair] = {
        (pair.caller, pair.callee, pair.port, pair.url): pair
        for pair in (calls.pairs if calls is not None else ())
    }
    registry = Registry(mesh)
    predictor = _Predictor(registry)
    compared = []
    for probed in results.sent:
        request = probed.request
        pair = pairs.get((probed.caller, request.callee, request.port, request.url))
        predicted = End() if pair is None else predictor.predicted(pair, request)
        observed = _observed(request)
        agreement = _agreement(registry, predicted, observed, request)
        compared.append(Comparison(probed, pair, predicted, observed, agreement))
    return compared


def _agreement(registry: Registry, predicted: End, observed: End, request: Request) -> Agreement:
    if not (predicted.known and observed.known):
        return Agreement.UNKNOWN
    if observed.services:
        same = observed.services <= predicted.services
    elif predicted.nowhere:
        # A predicted close may show as a reset, or as a status that an Envoy puts in its place.
        same = predicted.status in {None, observed.status}
    elif request.failure in _NOT_TAKEN or request.answered_by.flag in _NOT_SENT_ON:
        same = False
    else:
        # It failed on its way. The configuration cannot know that; but was it the right way?
        on_its_way = {registry.service_at(each.address, each.port) for each in request.moved or ()}
        if not on_its_way - {None}:
            return Agreement.UNKNOWN
        same = bool(on_its_way & predicted.services)
    return Agreement.SAME if same else Agreement.DIFFERENT


_NOT_TAKEN: Final = frozenset({Failure.REFUSED, Failure.NO_CONNECTION})
_NOT_SENT_ON: Final = frozenset({"NR", "NC", "UH"})
"""Flags of calls that the proxy sent to no endpoint at all."""


def _observed(request: Request) -> End:
    by = request.answered_by
    if by.service is not None:
        return End(frozenset({by.service}))
    if request.answer is None:
        return End(nowhere=request.failure is not Failure.NOT_HTTP)
    if by.how is How.PROXY:
        return End(nowhere=True, status=request.answer.status)
    return End()


# ---------------------------------------------------------------- the prediction


class _Predictor:
    """Says where the followed calls end that probes repeat."""

    def __init__(self, registry: Registry) -> None:
        mesh = registry.mesh
        self._registry = registry
        self._services = {
            each.id: each.service for one in mesh.services.values() for each in one.instances
        }
        self._workloads = {each.name: each for each in mesh.workloads}
        self._sidecars = {each.name: each for each in mesh.sidecars}

    def predicted(self, pair: Pair, request: Request) -> End:
        """The pair's own verdict, narrowed to the address that the caller was given."""
        if pair.verdict is Verdict.UNKNOWN:
            return End()
        every = pair.walks
        here = [each for each in every if each.call.address == request.connected_address] or every
        again = [self._with_path(pair, walk, request.path) for walk in here]
        if again != list(here):
            # The pair was judged on another path than the one that was asked for.
            return _joined([self._end(each.outcome) for each in again])
        whole = self._of_pair(pair, every)
        narrow = _joined([self._end(each.outcome) for each in here])
        within = narrow.services <= whole.services and (whole.nowhere or not narrow.nowhere)
        # What the far side makes of a call stands in the pair alone.
        return narrow if narrow.known and within else whole

    def _of_pair(self, pair: Pair, walks: Sequence[Walk]) -> End:
        services = {self._services[each] for each in pair.instances if each in self._services}
        if pair.reached is not None:
            services.add(pair.reached)
        if pair.verdict in {Verdict.RIGHT, Verdict.BY_LUCK}:
            services.add(pair.callee)
        ends = [self._end(each.outcome) for each in walks]
        nowhere = pair.verdict is Verdict.NOWHERE or any(each.nowhere for each in ends)
        statuses = {each.status for each in ends if each.nowhere} | {pair.status}
        return End(frozenset(services), nowhere, next((each for each in statuses if each), None))

    def _with_path(self, pair: Pair, walk: Walk, path: str) -> Walk:
        if walk.call.path == path:
            return walk
        sidecar = self._sidecars.get(pair.sidecar or "")
        if sidecar is None or sidecar.proxy is None:
            return walk
        again = follow(
            sidecar.proxy,
            replace(walk.call, path=path),
            nat=sidecar.nat,
            own_addresses=addresses(self._workloads[pair.caller]),
        )
        # The same end by the same hops is the same way, whatever the path.
        return walk if again.outcome == walk.outcome else again

    def _end(self, outcome: Outcome) -> End:
        match outcome:
            case Reached(destinations, otherwise):
                services = [
                    self._registry.service_at(each.address, each.port) for each in destinations
                ]
                known = frozenset(each for each in services if each is not None)
                others = _joined([self._end(each) for _, each in otherwise])
                return End(known, others.nowhere, others.status)
            case Answered(status):
                return End(nowhere=True, status=status)
            case Closed():
                return End(nowhere=True)
            case Bypassed(address, port):
                service = self._registry.service_at(address, port)
                return End() if service is None else End(frozenset({service}))
            case _:
                return End()


def _joined(ends: Sequence[End]) -> End:
    statuses = [each.status for each in ends if each.nowhere and each.status is not None]
    return End(
        services=frozenset(name for each in ends for name in each.services),
        nowhere=any(each.nowhere for each in ends),
        status=statuses[0] if statuses else None,
    )
