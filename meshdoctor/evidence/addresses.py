"""Addresses as every source writes them: an IP address or a host name, with a port or without."""

import ipaddress
from functools import lru_cache


def is_ip(address: str) -> bool:
    """Whether it is an IP address, not a name that somebody has to resolve."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def is_loopback(address: str) -> bool:
    """Whether an address means the network namespace that it is said in."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def in_network(address: str, network: str) -> bool:
    """Whether an address is in a network that is written as CIDR; False of what is neither."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def bracketed(host: str) -> str:
    """A host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def host_port(host: str, port: int) -> str:
    """`172.28.0.8:9080`, `[fd00::8]:9080`."""
    return f"{bracketed(host)}:{port}"
