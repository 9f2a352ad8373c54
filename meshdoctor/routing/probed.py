"""Prediction beside reality: each probed request, and what the followed call said of it."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from meshdoctor.evidence.probe import Failure, How, Probed, ProbeResults, Request
from meshdoctor.routing.calls import Calls, Pair, Verdict
from meshdoctor.routing.follow import follow
from meshdoctor.routing.model import Answered, Bypassed, Closed, Outcome, Reached, Walk
from meshdoctor.topology import Mesh


class Agreement(enum.StrEnum):
    """Whether prediction and reality are the same; UNKNOWN where either is not known."""

    SAME = "same"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class End:
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


@dataclass(frozen=True, slots=True)
class Comparison:
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


def owner(mesh: Mesh, address: str, port: int) -> str | None:
    """The service at an address; that of a registered proxy is its service's."""
    for each in mesh.proxies:
        if each.proxy is not None and (each.address, each.port) == (address, port):
            return each.proxy.destination
    return mesh.service_at(address, port)


def compare(mesh: Mesh, calls: Calls | None, results: ProbeResults) -> Sequence[Comparison]:
    """Every request that was sent, beside what following the call predicted."""
    pairs: Mapping[tuple[str, str, int, str], Pair] = {
        (pair.caller, pair.callee, pair.port, pair.url): pair
        for pair in (calls.pairs if calls is not None else ())
    }
    compared = []
    for probed in results.sent:
        request = probed.request
        pair = pairs.get((probed.caller, request.callee, request.port, request.url))
        predicted = End() if pair is None else _predicted(mesh, pair, request)
        observed = _observed(request)
        compared.append(
            Comparison(
                probed, pair, predicted, observed, _agreement(mesh, predicted, observed, request)
            )
        )
    return compared


def _agreement(mesh: Mesh, predicted: End, observed: End, request: Request) -> Agreement:
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
        on_its_way = {owner(mesh, each.address, each.port) for each in request.moved or ()}
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


def _predicted(mesh: Mesh, pair: Pair, request: Request) -> End:
    """The pair's own verdict, narrowed to the address that the caller was given."""
    if pair.verdict is Verdict.UNKNOWN:
        return End()
    every = pair.walks
    here = [each for each in every if each.call.address == request.connected_address] or every
    again = [_with_path(mesh, pair, walk, request.path) for walk in here]
    if again != list(here):
        # The pair was judged on another path than the one that was asked for.
        return _joined([_end(mesh, each.outcome) for each in again])
    whole = _of_pair(mesh, pair, every)
    narrow = _joined([_end(mesh, each.outcome) for each in here])
    within = narrow.services <= whole.services and (whole.nowhere or not narrow.nowhere)
    # What the far side makes of a call stands in the pair alone.
    return narrow if narrow.known and within else whole


def _of_pair(mesh: Mesh, pair: Pair, walks: Sequence[Walk]) -> End:
    by_id = {each.id: each.service for one in mesh.services.values() for each in one.instances}
    services = {by_id[each] for each in pair.instances if each in by_id}
    if pair.reached is not None:
        services.add(pair.reached)
    if pair.verdict in {Verdict.RIGHT, Verdict.BY_LUCK}:
        services.add(pair.callee)
    ends = [_end(mesh, each.outcome) for each in walks]
    nowhere = pair.verdict is Verdict.NOWHERE or any(each.nowhere for each in ends)
    statuses = {each.status for each in ends if each.nowhere} | {pair.status}
    return End(frozenset(services), nowhere, next((each for each in statuses if each), None))


def _with_path(mesh: Mesh, pair: Pair, walk: Walk, path: str) -> Walk:
    if walk.call.path == path:
        return walk
    sidecar = next((each for each in mesh.sidecars if each.name == pair.sidecar), None)
    if sidecar is None or sidecar.proxy is None:
        return walk
    workload = next((each for each in mesh.workloads if each.name == pair.caller), None)
    container = workload.container if workload is not None else None
    own = frozenset() if container is None else frozenset(container.addresses.values())
    again = follow(
        sidecar.proxy, replace(walk.call, path=path), nat=sidecar.nat, own_addresses=own
    )
    # The same end by the same hops is the same way, whatever the path.
    return walk if again.outcome == walk.outcome else again


def _end(mesh: Mesh, outcome: Outcome) -> End:
    match outcome:
        case Reached(destinations, otherwise):
            services = [owner(mesh, each.address, each.port) for each in destinations]
            known = frozenset(each for each in services if each is not None)
            others = _joined([_end(mesh, each) for _, each in otherwise])
            return End(known, others.nowhere, others.status)
        case Answered(status):
            return End(nowhere=True, status=status)
        case Closed():
            return End(nowhere=True)
        case Bypassed(address, port):
            service = owner(mesh, address, port)
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
