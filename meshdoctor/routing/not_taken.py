"""What a call nearly took at each decision, and why it did not: for who asks to be shown."""

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from meshdoctor.evidence.envoy import ListenerEntry, RouteConfiguration, VirtualHost, spelling
from meshdoctor.routing.chains import find_chain
from meshdoctor.routing.configuration import Configuration
from meshdoctor.routing.matching import Headers
from meshdoctor.routing.model import Call, HopKind, NotTaken
from meshdoctor.routing.routes import Picked, route_name, why_not
from meshdoctor.routing.version import injects_tls_inspector

NAMED: Final = 20
"""Of hundreds of hosts or endpoints so many are named: a person reads them."""


def other_listeners(
    config: Configuration, call: Call, taken: ListenerEntry, port: int
) -> Iterator[NotTaken]:
    """The listeners of that port besides the one that was taken, rejected ones included."""
    for entry in config.proxy.listeners:
        listener = entry.listener
        if entry is taken or listener.port != port:
            continue
        why = f"it is {entry.state.value}"
        if entry in config.listeners.values():
            why = f"its address is not {call.destination}"
            if listener.address in ("0.0.0.0", "::"):  # noqa: S104 # not bound here
                why = "an exact address comes before any address"
        name = f"{listener.key} ({listener.name})"
        yield _nearly(config, HopKind.LISTENER, name, why, entry.pointer)
    for rejected in config.proxy.rejected:
        refused = rejected.listener
        if refused is not None and refused.port == port:
            why = f"the proxy refused it: {rejected.details}"
            name = f"{refused.key} ({rejected.name})"
            yield _nearly(config, HopKind.LISTENER, name, why, rejected.pointer)


def other_chains(
    config: Configuration, call: Call, entry: ListenerEntry, taken: int | None
) -> Iterator[NotTaken]:
    """The filter chains of a listener besides the one at that place."""
    injects = injects_tls_inspector(config.proxy)
    for place, chain in enumerate(entry.listener.filter_chains):
        if place == taken:
            continue
        alone = replace(entry.listener, filter_chains=(chain,), default_filter_chain=None)
        fits = find_chain(alone, call, injects_tls_inspector=injects) is not None
        why = "another match is more specific" if fits else "its match does not fit"
        name = chain.name or f"{entry.listener.key} #{place}"
        pointer = spelling.below(entry.pointer, "filter_chains", place)
        yield _nearly(config, HopKind.FILTER_CHAIN, name, why, pointer)


def other_hosts(
    config: Configuration,
    routes: RouteConfiguration,
    authority: str,
    written: str,
    *,
    inside: bool,
) -> Iterator[NotTaken]:
    """The virtual hosts, none of which took the host.

    `written` is where the route configuration is; a pointer may lead further where `inside`.
    """
    for place, host in enumerate(routes.virtual_hosts[:NAMED]):
        pointer = spelling.below(written, "virtual_hosts", place) if inside else written
        why = f"none of its domains is {authority}: {', '.join(host.domains)}"
        yield _nearly(config, HopKind.VIRTUAL_HOST, host.name, why, pointer)


def other_routes(
    config: Configuration,
    routes: RouteConfiguration,
    host: VirtualHost,
    headers: Headers,
    picked: Sequence[Picked],
    pointer: str,
    last_hop: str,
) -> Iterator[NotTaken]:
    """The routes before the last that was picked. Without `pointer` the last hop's is cited."""
    taken = {each.place for each in picked}
    last = max(taken, default=len(host.routes))
    for place, route in enumerate(host.routes[:last][:NAMED]):
        if place in taken:
            continue
        below = spelling.below(pointer, "routes", place) if pointer else last_hop
        why = why_not(routes, route, headers)
        yield _nearly(config, HopKind.ROUTE, route_name(route), why, below)


def _nearly(config: Configuration, kind: HopKind, name: str, why: str, pointer: str) -> NotTaken:
    return NotTaken(kind, name, why, config.proxy.document, pointer)
