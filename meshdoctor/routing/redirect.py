"""Where nat rules send a connection: to a port of the proxy, or on as it is."""

import ipaddress
from typing import Final

import msgspec

from meshdoctor.evidence.netfilter import NatRule, NatTable
from meshdoctor.routing.model import Call, UndecidedError

_LOOPBACK: Final = ipaddress.ip_network("127.0.0.0/8")
_MOST_JUMPS: Final = 64


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
    try:
        address = ipaddress.ip_address(call.address)
    except ValueError as error:
        raise UndecidedError(
            f"{call.address} is no IP address, which nat rules ask for"
        ) from error
    start = "PREROUTING" if call.inbound else "OUTPUT"
    local = address.is_loopback or call.address in own_addresses
    verdict = _walk(table, start, call, _Packet(address, local, call), 0)
    return NotRedirected(None) if verdict is None else verdict


class _Packet(msgspec.Struct, frozen=True):
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
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
    found = (
        ("protocol", rule.protocol, rule.protocol in ("tcp", "all", "6")),
        ("destination", rule.destination, _in_network(packet.address, rule.destination)),
        ("source", rule.source, _source(rule, packet)),
        ("out_interface", rule.out_interface, (rule.out_interface == "lo") == packet.local),
        ("in_interface", rule.in_interface, rule.in_interface != "lo"),
        ("ports", rule.ports, _in_ports(packet.call.port, rule.ports)),
        ("uid", rule.uid, _owned(rule.uid, packet.call.uid)),
        ("gid", rule.gid, False),
    )
    return all(holds != (name in rule.negated) for name, asked, holds in found if asked)


def _source(rule: NatRule, packet: _Packet) -> bool:
    if not rule.source:
        return True
    if not packet.call.source_address:
        raise UndecidedError(f"the nat rule `{rule.text}` asks for the caller's address")
    try:
        return _in_network(ipaddress.ip_address(packet.call.source_address), rule.source)
    except ValueError:
        return False


def _in_network(address: ipaddress.IPv4Address | ipaddress.IPv6Address, written: str) -> bool:
    if not written:
        return True
    try:
        network = ipaddress.ip_network(written, strict=False)
    except ValueError:
        return False
    return network.version == address.version and address in network


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
