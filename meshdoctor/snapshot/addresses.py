"""Addresses under pseudonyms: other ones, in the same subnets to each other as before."""

import hashlib
import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

# An address with dots, or with dashes as host names have it, and the length of its subnet. What
# stands before or after may be a name: Envoy writes `listener.172.28.0.2_9080`.
_V4: Final = re.compile(
    r"(?<!\d)(?<!\d[.-])(\d{1,3})([.-])(\d{1,3})\2(\d{1,3})\2(\d{1,3})(/\d{1,2})?(?![.-]?\d)"
)
_V6: Final = re.compile(r"(?<![\w:])(?=[0-9a-fA-F]*:[0-9a-fA-F:]*:)([0-9a-fA-F:]{3,39})(?![\w:])")
_MAC: Final = re.compile(r"(?<![\w:])[0-9a-f]{2}(?::[0-9a-f]{2}){5}(?![\w:])")

_LAST_OCTET: Final = 255
# Blocks in which an address means more than a place, from RFC 6890; their own bits stay.
_PLACES: Final = (
    ipaddress.IPv4Network("10.0.0.0/8"),
    ipaddress.IPv4Network("100.64.0.0/10"),
    ipaddress.IPv4Network("172.16.0.0/12"),
    ipaddress.IPv4Network("192.168.0.0/16"),
)
# First octets that are public whatever follows: one is exchanged for another.
_PUBLIC: Final = tuple(
    octet for octet in range(1, 224) if octet not in {10, 100, 127, 169, 172, 192, 198, 203}
)
# Beside public addresses, these are for documentation, tests and protocols.
_SPECIAL: Final = frozenset({(192, 0), (192, 88), (198, 18), (198, 19), (198, 51), (203, 0)})
_DOCKERS_MAC: Final = "02:42:"


class Addresses:
    """The other addresses. Those of two hosts have as many leading bits in common as before.

    The last octet stays: it tells no more than a gateway from its hosts. What means the same
    everywhere stays whole: loopback, link-local, multicast, any.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        keyed = sorted(_PUBLIC, key=lambda octet: self._digest(f"octet {octet}"))
        self._first = dict(zip(_PUBLIC, keyed, strict=True))
        self.v4 = lru_cache(maxsize=65536)(self._v4)
        self.v6 = lru_cache(maxsize=65536)(self._v6)

    def replaced(self, text: str) -> str:
        """The text with every address in it replaced."""
        if "." in text or "-" in text:
            text = _V4.sub(self._match_v4, text)
        if ":" in text:
            text = _MAC.sub(self._match_mac, text)
            text = _V6.sub(self._match_v6, text)
        return text

    def hides(self, written: str) -> bool:
        """Whether already its subnet is another one: a subnet is written without its hosts."""
        telling = 3 if written.startswith("192.168.") else 2
        return self.v4(written).split(".")[:telling] != written.split(".")[:telling]

    def _match_v4(self, match: re.Match[str]) -> str:
        first, separator, *rest, length = match.groups()
        octets = [int(each) for each in (first, *rest)]
        if max(octets) > _LAST_OCTET or (separator == "-" and octets[0] == 0):
            return match[0]
        new = self.v4(".".join(map(str, octets)))
        if length and octets[3] == 0:
            network = ipaddress.IPv4Network(".".join(map(str, octets)) + length, strict=False)
            if int(network.network_address) == int.from_bytes(bytes(octets)):
                # A subnet: the bits of its hosts stay none.
                mask = int(network.netmask)
                new = str(ipaddress.IPv4Address(int(ipaddress.IPv4Address(new)) & mask))
        return new.replace(".", separator) + (length or "")

    def _match_v6(self, match: re.Match[str]) -> str:
        return self.v6(match[0])

    def _match_mac(self, match: re.Match[str]) -> str:
        """Docker makes a container's of its address."""
        if match[0].startswith(_DOCKERS_MAC):
            octets = bytes.fromhex(match[0].replace(":", ""))[2:]
            new = ipaddress.IPv4Address(self.v4(str(ipaddress.IPv4Address(octets)))).packed
            return _DOCKERS_MAC + new.hex(":")
        return "02:" + self._digest(f"mac {match[0]}")[:5].hex(":")

    def _v4(self, written: str) -> str:
        address = ipaddress.IPv4Address(written)
        if (
            address.is_loopback
            or address.is_link_local
            or address.is_multicast
            or address.is_reserved
            or address.is_unspecified
            or int(address) >> 24 == 0
        ):
            return written
        octets = list(address.packed)
        if (octets[0], octets[1]) in _SPECIAL:
            return written
        place = next((each for each in _PLACES if address in each), None)
        if place is not None:
            kept = place.prefixlen
        elif octets[0] in self._first:
            octets[0] = self._first[octets[0]]
            kept = 8
        else:
            # Public and private ones side by side: they stay on their side.
            kept = 16
        number = int.from_bytes(bytes(octets))
        return str(ipaddress.IPv4Address(self._flipped(number, 32, kept, 24)))

    def _v6(self, written: str) -> str:
        try:
            address = ipaddress.IPv6Address(written)
        except ValueError:
            return written
        if (
            address.is_loopback
            or address.is_link_local
            or address.is_multicast
            or address.is_unspecified
        ):
            return written
        if address.ipv4_mapped is not None:
            return f"::ffff:{self.v4(str(address.ipv4_mapped))}"
        return str(ipaddress.IPv6Address(self._flipped(int(address), 128, 16, 64)))

    def _flipped(self, number: int, width: int, first: int, last: int) -> int:
        """Bits `first` to `last`, each turned or not as all the bits before it say.

        So that two numbers with equal beginnings have equal beginnings afterwards, and no longer
        ones: the way of Crypto-PAn (Xu, Fan, Ammar, Moon, 2002).
        """
        flipped = number
        for bit in range(first, last):
            before = number >> (width - bit)
            if self._digest(f"{width} {bit} {before}")[0] & 1:
                flipped ^= 1 << (width - 1 - bit)
        return flipped

    def _digest(self, what: str) -> bytes:
        return hashlib.blake2b(what.encode(), key=self._secret, digest_size=16).digest()


def found(texts: Iterable[str]) -> set[str]:
    """The IPv4 addresses with dots in the texts, as they stand there."""
    return {
        match[0].partition("/")[0]
        for text in texts
        for match in _V4.finditer(text)
        if match[2] == "." and all(int(match[each]) <= _LAST_OCTET for each in (1, 3, 4, 5))
    }
