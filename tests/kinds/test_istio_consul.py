"""What Pilot makes of a protocol: `ConvertProtocol` and the port's `Protocol` in Istio 1.1."""

import pytest

from meshdoctor.kinds.istio_consul import (
    HTTP_PROTOCOLS,
    PROTOCOLS,
    TCP_PROTOCOLS,
    is_http,
    is_known,
    nearest,
    takes_missing_for_http,
)


def test_every_known_protocol_is_of_one_kind() -> None:
    """HTTP shares its port, everything else takes it for itself."""
    assert {
        *("tcp", "udp", "grpc", "grpc-web", "http", "http2", "https", "tls"),
        *("mongo", "redis", "mysql"),
    } == PROTOCOLS
    assert not HTTP_PROTOCOLS & TCP_PROTOCOLS
    for protocol in PROTOCOLS:
        assert is_known(protocol)
        assert is_known(protocol.upper())
        assert is_http(protocol.title()) is (protocol in HTTP_PROTOCOLS)
        assert nearest(protocol) == protocol


def test_a_missing_protocol_is_tcp_but_in_1_0() -> None:
    """istio#11905: what was HTTP in 1.0 is TCP since 1.1.0."""
    assert not is_http(None)
    assert is_http(None, default_http=True)
    assert not is_http("unheard-of", default_http=True)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("htttp", "http"),
        ("HTTP/1.1", "http"),
        ("http1.1", "http"),
        ("HTTP/2", "http2"),
        ("http/2.0", "http2"),
        (" http ", "http"),
        ("http_2", "http2"),
        ("GRPC-webb", "grpc-web"),
        ("mysql5", "mysql"),
        ("tcp4", "tcp"),
        ("", None),
        ("zzzz", None),
        ("9080", None),
    ],
)
def test_the_word_that_was_probably_meant(word: str, meant: str | None) -> None:
    """A version is no part of Pilot's words; of nothing near, nothing is said."""
    assert nearest(word) == meant


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("1.0.6", True),
        ("0.8.0", True),
        ("1.1.0", False),
        ("1.1.0-snapshot.1", False),
        ("1.10.2", False),
        ("latest", False),
        ("", False),
        ("release-1.0-latest", False),
    ],
)
def test_which_pilots_take_a_missing_protocol_for_http(version: str, *, old: bool) -> None:
    """Those before 1.1; of a tag that is no version, nothing is assumed."""
    assert takes_missing_for_http(version) is old
