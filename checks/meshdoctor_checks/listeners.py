"""Listeners as subjects: an address of loopback is another listener in each proxy."""

from collections.abc import Iterable, Iterator

from meshdoctor.evidence.addresses import is_loopback
from meshdoctor.findings import Subject, SubjectKind


def listener(key: str, proxy: str) -> Subject:
    """The listener `address:port` of that proxy; one on loopback is within it alone."""
    address = key.rpartition(":")[0].strip("[]")
    return Subject(SubjectKind.LISTENER, key, within=proxy if is_loopback(address) else "")


def listeners(keys: Iterable[str], proxies: Iterable[str]) -> Iterator[Subject]:
    """The listeners of those addresses in each of the proxies, each once."""
    names = tuple(proxies)
    yield from dict.fromkeys(listener(key, proxy) for key in keys for proxy in names)
