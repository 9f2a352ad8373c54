"""Addresses as every source writes them."""

import pytest

from meshdoctor.evidence.addresses import bracketed, host_port, is_ip, is_loopback


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_addresses_of_the_namespace_itself(address: str) -> None:
    """All of 127/8, not its first address alone; and the one name that everybody knows."""
    assert is_loopback(address)


@pytest.mark.parametrize("address", ["172.28.0.8", "0.0.0.0", "::", "", "details"])  # noqa: S104 # not bound
def test_addresses_that_others_reach(address: str) -> None:
    """A wildcard is no loopback, and a name that is not known is taken for nobody's."""
    assert not is_loopback(address)


def test_an_ip_address_is_no_name() -> None:
    """Brackets belong to a URL, not to the address."""
    assert is_ip("172.28.0.8")
    assert is_ip("fd00::8")
    assert not is_ip("[fd00::8]")
    assert not is_ip("details.service.consul")


def test_only_ipv6_addresses_have_brackets() -> None:
    """Without them, the port could not be told from the address."""
    assert host_port("172.28.0.8", 9080) == "172.28.0.8:9080"
    assert host_port("fd00::8", 9080) == "[fd00::8]:9080"
    assert bracketed("details") == "details"
