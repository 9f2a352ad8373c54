"""Where nat rules send a connection: to a port of the proxy, or on as it is."""

import functools
import ipaddress
from collections.abc import Iterator
from typing import Final

import msgspec

from meshdoctor.evidence.netfilter import NatRule, NatTable
from meshdoctor.routing.model import Call, UndecidedError

_MOST_JUMPS: Final = 64
_READ: Final = 4
"""The version of IP that `iptables-save` tells the rules of."""


class Redirected(msgspec.Struct, frozen=True):
    """The rule that decided sends the connection to `port` here."""

    port: int
    rule: NatRule


class NotRedirected(msgspec.Struct, frozen=True):
    """No rule sends it elsewhere; `rule` is the one that let it be, None at the chain's end."""

    rule: NatRule | None


def redirect(
    table: NatTable, call: Call, own_addresses: frozenset[str]
) -> Redirected | NotRedirected:
    """What the nat table does to a new TCP connection of `call`. Raises UndecidedError.

    Only what the rules ask for is judged: a rule with options that the model does not read makes
    the answer undecided, if all else of it matches.
    """
    address = _address(call.address)
    if address is None:
        raise UndecidedError(f"{call.address} is no IP address, which nat rules ask for")
    start = "PREROUTING" if call.inbound else "OUTPUT"
    if address.version != _READ:
        # What `ip6tables` does is in a table of its own, which nobody recorded: who redirects
        # nothing here will not there, and who does, does not for localhost.
        if address.is_loopback or all(e.target != "REDIRECT" for e in table.reachable(start)):
            return NotRedirected(None)
        raise UndecidedError(f"the nat rules that were read are not for {call.address}")
    local = address.is_loopback or call.address in own_addresses
    verdict = _walk(
        table, start, call, _Packet(address, _address(call.source_address), local, call), 0
    )
    return NotRedirected(None) if verdict is None else verdict


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Packet(msgspec.Struct, frozen=True):
    """`source` is None where nobody tells, or where it is no address."""

    address: _Address
    source: _Address | None
    local: bool
    call: Call


def _walk(  # noqa: C901 # one case a target
    table: NatTable, chain: str, call: Call, packet: _Packet, depth: int
) -> Redirected | NotRedirected | None:
    """None: the chain's end was reached, or a rule returned."""
    if depth > _MOST_JUMPS:
        raise UndecidedError(f"the nat rules of {table.document} jump in a circle")
    for rule in table.chain(chain):
        if not _matches(rule, packet):
            continue
        if rule.unknown:
            raise UndecidedError(
                f"the nat rule `{rule.text}` has options that are not followed: "
                f"{', '.join(rule.unknown)}"
            )
        match rule.target:
            case "REDIRECT":
                return Redirected(_port(rule, call), rule)
            case "ACCEPT":
                return NotRedirected(rule)
            case "RETURN":
                return None if depth else NotRedirected(rule)
            case "DNAT":
                raise UndecidedError(f"the nat rule `{rule.text}` sends the call elsewhere")
            case target if target in table.policies:
                verdict = _walk(table, target, call, packet, depth + 1)
                if verdict is not None:
                    return verdict
            case _:
                continue
    return None


def _port(rule: NatRule, call: Call) -> int:
    port = rule.to.partition("-")[0]
    return int(port) if port.isascii() and port.isdigit() and len(port) < 6 else call.port  # noqa: PLR2004 # of digits


def _matches(rule: NatRule, packet: _Packet) -> bool:
    if rule.source and not packet.call.source_address:
        raise UndecidedError(f"the nat rule `{rule.text}` asks for the caller's address")
    return all(holds != (name in rule.negated) for name, holds in _judged(rule, packet))


def _judged(rule: NatRule, packet: _Packet) -> Iterator[tuple[str, bool]]:
    """What the rule asks for, and whether it is so, without its negations."""
    if rule.protocol:
        yield "protocol", rule.protocol in ("tcp", "all", "6")
    if rule.destination:
        yield "destination", _in_network(packet.address, rule.destination)
    if rule.source:
        yield "source", _in_network(packet.source, rule.source)
    if rule.out_interface:
        yield "out_interface", (rule.out_interface == "lo") == packet.local
    if rule.in_interface:
        yield "in_interface", rule.in_interface != "lo"
    if rule.ports:
        yield "ports", _in_ports(packet.call.port, rule.ports)
    if rule.uid:
        yield "uid", _owned(rule.uid, packet.call.uid)
    if rule.gid:
        yield "gid", False


def _in_network(address: _Address | None, written: str) -> bool:
    network = _network(written)
    if address is None or network is None:
        return False
    return network.version == address.version and address in network


@functools.lru_cache(maxsize=1024)
def _network(written: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """None where it is written in a way that is not known."""
    try:
        return ipaddress.ip_network(written, strict=False)
    except ValueError:
        return None


@functools.lru_cache(maxsize=4096)
def _address(written: str) -> _Address | None:
    try:
        return ipaddress.ip_address(written)
    except ValueError:
        return None


def _in_ports(port: int, written: str) -> bool:
    for part in written.split(","):
        first, _, last = part.partition(":")
        try:
            if int(first or 0) <= port <= int(last or first or 65535):
                return True
        except ValueError:
            continue
    return False


def _owned(written: str, uid: int | None) -> bool:
    # A call is an application's unless it says otherwise: not of the proxy's own user.
    return uid is not None and written == str(uid)
