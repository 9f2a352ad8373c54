"""How Envoy picks the filter chain of a connection."""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from meshdoctor.evidence.envoy import CidrRange, FilterChain, Listener
from meshdoctor.routing.matching import lower
from meshdoctor.routing.model import Call, UndecidedError

K = TypeVar("K")
Remaining = list[tuple[int, FilterChain]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def find_chain(
    listener: Listener, call: Call, *, injects_tls_inspector: bool | None = False
) -> tuple[int | None, FilterChain, str] | None:
    """The chain's place (None for the default one), the chain, and why; None if none matches.

    Envoy narrows down criterion by criterion in a fixed order. At each it keeps only the chains
    with the most specific value that matches, and never goes back. Raises UndecidedError.
    """
    if listener.filter_chain_matcher is not None:
        raise UndecidedError(
            f"listener {listener.key} picks its filter chain by a match tree, "
            "which is not followed"
        )
    default = listener.default_filter_chain
    found = _narrow(listener, call, injects_tls_inspector)
    if found is not None:
        place, chain = found
        return place, chain, _why(listener, chain)
    if default is not None:
        return None, default, "no other filter chain matches, so the default one is taken"
    return None


def _why(listener: Listener, chain: FilterChain) -> str:
    match = chain.match
    asked = [
        name
        for name, value in (
            ("destination port", match.destination_port),
            ("destination address", match.prefix_ranges),
            ("server name", match.server_names),
            ("transport protocol", match.transport_protocol),
            ("application protocol", match.application_protocols),
            ("directly connected source", match.direct_source_prefix_ranges),
            ("source type", "" if match.source_type == "ANY" else match.source_type),
            ("source address", match.source_prefix_ranges),
            ("source port", match.source_ports),
        )
        if value
    ]
    if asked:
        return f"it matches by {', '.join(asked)}"
    if len(listener.filter_chains) == 1:
        return "it is the only one and takes every connection"
    return "no filter chain with a narrower match takes the connection"


def _narrow(
    listener: Listener,
    call: Call,
    injects: bool | None,  # noqa: FBT001 # of one module
) -> tuple[int, FilterChain] | None:
    chains: Remaining = list(enumerate(listener.filter_chains))
    if len(chains) == 1 and chains[0][1].match == _ANY:
        return chains[0]
    tls, names, protocols = _detected(listener, call, injects)
    chains = _by_key(chains, lambda chain: [chain.match.destination_port or 0], [call.port, 0])
    chains = _by_network(chains, lambda chain: chain.match.prefix_ranges, call.address)
    chains = _by_key(chains, _server_names, names)
    chains = _by_key(chains, lambda chain: [chain.match.transport_protocol], [tls, ""])
    chains = _by_key(
        chains, lambda chain: chain.match.application_protocols or [""], [*protocols, ""]
    )
    if any(chain.match.direct_source_prefix_ranges for _, chain in chains):
        source = _source(call, "directly connected source address")
        chains = _by_network(chains, lambda chain: chain.match.direct_source_prefix_ranges, source)
    chains = _by_source_type(chains, call)
    if any(chain.match.source_prefix_ranges for _, chain in chains):
        source = _source(call, "source address")
        chains = _by_network(chains, lambda chain: chain.match.source_prefix_ranges, source)
    if any(chain.match.source_ports for _, chain in chains):
        if call.source_port is None:
            raise UndecidedError("the filter chain depends on the caller's source port")
        chains = _by_key(
            chains, lambda chain: chain.match.source_ports or [0], [call.source_port, 0]
        )
    return chains[0] if chains else None


_ANY = FilterChain().match


def _source(call: Call, what: str) -> str:
    if not call.source_address:
        raise UndecidedError(f"the filter chain depends on the caller's {what}")
    return call.source_address


def _by_key(
    chains: Remaining, keys: Callable[[FilterChain], Sequence[K]], wanted: Iterable[K]
) -> Remaining:
    """The chains that have the first of `wanted` that any chain has."""
    if not chains:
        return chains
    for value in wanted:
        kept = [each for each in chains if value in keys(each[1])]
        if kept:
            return kept
    return []


def _server_names(chain: FilterChain) -> list[str]:
    names = chain.match.server_names
    return [lower(name).removeprefix("*") for name in names] if names else [""]


def _by_network(
    chains: Remaining, ranges: Callable[[FilterChain], tuple[CidrRange, ...]], address: str
) -> Remaining:
    """The chains with the longest prefix that holds `address`."""
    if not any(ranges(chain) for _, chain in chains):
        return chains
    try:
        host = ipaddress.ip_address(address)
    except ValueError as error:
        raise UndecidedError(
            f"{address} is no IP address, which a filter chain asks for"
        ) from error
    best: int = -1
    kept: Remaining = []
    for place, chain in chains:
        lengths = [
            network.prefixlen
            for network in map(_network, ranges(chain))
            if network is not None and network.version == host.version and host in network
        ]
        length = max(lengths, default=-1) if ranges(chain) else 0
        if length > best:
            best, kept = length, []
        if length == best and length >= 0:
            kept.append((place, chain))
    if best == 0 and len({bool(ranges(chain)) for _, chain in kept}) > 1:
        # Seen: Envoy keeps them apart, and finds the one or the other.
        raise UndecidedError(
            "one filter chain asks for any address with a prefix of length 0, another does not "
            "ask for an address: which Envoy takes is arbitrary"
        )
    return kept


def _network(written: CidrRange) -> Network | None:
    try:
        return ipaddress.ip_network(f"{written.prefix}/{written.length}", strict=False)
    except ValueError:
        return None


def _by_source_type(chains: Remaining, call: Call) -> Remaining:
    types = {chain.match.source_type for _, chain in chains}
    if types <= {"ANY"}:
        return chains
    local = _is_local(call)
    for wanted, takes in (("SAME_IP_OR_LOOPBACK", local), ("EXTERNAL", not local)):
        if wanted in types and takes:
            return [each for each in chains if each[1].match.source_type == wanted]
    return [each for each in chains if each[1].match.source_type == "ANY"]


# The rest of 127.0.0.0/8 is none to Envoy.
_LOOPBACK = ("127.0.0.1", "::1")


def _is_local(call: Call) -> bool:
    source = _source(call, "source address")
    try:
        return source == call.address or str(ipaddress.ip_address(source)) in _LOOPBACK
    except ValueError:
        return False


def _detected(
    listener: Listener,
    call: Call,
    injects: bool | None,  # noqa: FBT001 # of one module
) -> tuple[str, list[str], list[str]]:
    """What the listener filters find: transport protocol, server names to try, ALPN."""
    filters = listener.listener_filters
    inspected: bool | None = "envoy.filters.listener.tls_inspector" in filters
    if call.tls and not inspected and _wants_tls_inspector(listener):
        inspected = injects
    if inspected is None:
        raise UndecidedError(
            f"listener {listener.key} has no TLS inspector, which old Envoys add by themselves"
        )
    if call.tls and inspected:
        return "tls", _names_to_try(lower(call.server_name)), list(call.application_protocols)
    protocols: list[str] = []
    if "envoy.filters.listener.http_inspector" in filters and not call.tls:
        protocols = ["http/1.1"] if call.host is not None else []
    return "raw_buffer", [""], protocols


def _wants_tls_inspector(listener: Listener) -> bool:
    """Whether a filter chain match asks for what only a TLS inspector finds."""
    return any(
        chain.match.transport_protocol == "tls"
        or (
            not chain.match.transport_protocol
            and (chain.match.server_names or chain.match.application_protocols)
        )
        for chain in listener.filter_chains
    )


def _names_to_try(name: str) -> list[str]:
    """`a.b.c`, `.b.c`, `.c`, and "" for chains that ask for none."""
    names = [name]
    position = name.find(".", 1)
    while 0 <= position < len(name) - 1:
        names.append(name[position:])
        position = name.find(".", position + 1)
    return [*names, ""]
