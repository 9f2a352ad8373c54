"""What a real Envoy once decided otherwise than predicted, each under its name."""

from typing import Any

import pytest

from meshdoctor.routing import Answered, Call, Closed, Outcome, Reached, Unknown, follow
from tests.routing.configured import http, listener, proxy, tcp
from tests.routing.real_envoy import static_cluster

FAULT = {
    "name": "fault",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
    },
}
ABORT = {
    "fault": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"http_status": 555, "percentage": {"numerator": 100}},
    }
}


def request(chain: dict[str, Any], path: str = "/", **more: Any) -> Outcome:
    """What becomes of a request; `version` is the proxy's."""
    version = more.pop("version", "1.40.0")
    found = proxy(listener(chain), version=version)
    return follow(found, Call("127.0.0.1", 80, host="h", path=path, **more)).outcome


def takes(match: dict[str, Any], path: str = "/", **more: Any) -> bool | None:
    """Whether a route with that match takes the request; None if it cannot be told."""
    outcome = request(http({"match": match, "direct_response": {"status": 200}}), path, **more)
    if isinstance(outcome, Unknown):
        return None
    assert isinstance(outcome, Answered)
    return outcome.status == 200


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.40.0", True), ("1.39.3", True), ("1.36.2", False), ("1.39.0", None), ("", None)],
)
def test_values_of_a_repeated_header(version: str, expected: bool | None) -> None:  # noqa: FBT001 # compared with
    """1.39 matches them one by one, Envoys before it joined with commas."""
    match = {"prefix": "/", "headers": [{"name": "x-a", "string_match": {"exact": "5"}}]}
    repeated = (("x-a", "99"), ("X-A", "5"))
    assert takes(match, headers=repeated, version=version) is expected
    assert takes(match, headers=(("x-a", "5"),), version=version) is True


def test_an_inverted_match_of_a_repeated_header() -> None:
    """None of the values may match."""
    headers = [{"name": "x-a", "string_match": {"exact": "5"}, "invert_match": True}]
    match = {"prefix": "/", "headers": headers}
    assert takes(match, headers=(("x-a", "99"), ("x-a", "5"))) is False
    assert takes(match, headers=(("x-a", "99"), ("x-a", "6"))) is True
    assert takes(match) is False


@pytest.mark.parametrize(
    ("version", "whole", "cut"),
    [("1.40.0", True, False), ("1.38.3", False, True), ("", None, None)],
)
def test_parameters_in_the_midst_of_a_path(
    version: str,
    whole: bool | None,  # noqa: FBT001 # compared with
    cut: bool | None,  # noqa: FBT001 # compared with
) -> None:
    """1.39 drops those of each segment, Envoys before it all that follows the first."""
    for wanted, expected in (("/a/b", whole), ("/a", cut)):
        outcome = request(
            http(
                {"match": {"path": wanted}, "direct_response": {"status": 200}},
                config={"ignore_path_parameters_in_path_matching": True},
            ),
            "/a;v=1/b",
            version=version,
        )
        taken = None if isinstance(outcome, Unknown) else outcome.status == 200  # type: ignore[union-attr] # answered
        assert taken is expected


def test_a_query_parameter_that_must_be_absent() -> None:
    """`present_match: false` takes requests without it."""
    match = {"prefix": "/", "query_parameters": [{"name": "y", "present_match": False}]}
    assert takes(match, "/?x=1") is True
    assert takes(match, "/?y") is False


def test_per_filter_configuration_without_a_route() -> None:
    """A virtual host's abort does not answer a request that none of its routes takes."""
    chain = http(
        {"match": {"path": "/a"}, "route": {"cluster": "c"}},
        host={"typed_per_filter_config": ABORT},
        http_filters=[FAULT, {"name": "envoy.filters.http.router"}],
    )
    for path, status in (("/a", 555), ("/b", 404)):
        outcome = request(chain, path)
        assert isinstance(outcome, Answered)
        assert outcome.status == status


def test_a_redirect_that_strips_the_query() -> None:
    """And keeps it otherwise."""
    for redirect, location in (
        ({"strip_query": True, "port_redirect": 8443}, "http://h:8443/a"),
        ({"path_redirect": "/new"}, "http://h/new?x=1"),
        ({"path_redirect": "/new?q=1"}, "http://h/new?q=1"),
    ):
        outcome = request(http({"match": {"prefix": "/"}, "redirect": redirect}), "/a?x=1")
        assert isinstance(outcome, Answered)
        assert (outcome.status, outcome.location) == (301, location)


def test_the_scheme_that_a_proxy_in_front_tells() -> None:
    """Redirects keep it, and it satisfies `require_tls`."""
    secure = (("x-forwarded-proto", "https"),)
    chain = http({"match": {"prefix": "/"}, "redirect": {"host_redirect": "elsewhere"}})
    outcome = request(chain, headers=secure)
    assert isinstance(outcome, Answered)
    assert outcome.location == "https://elsewhere/"
    chain = http(
        {"match": {"prefix": "/"}, "route": {"cluster": "c"}}, host={"require_tls": "ALL"}
    )
    assert isinstance(request(chain, headers=secure), Reached)
    assert isinstance(request(chain), Answered)


def test_shares_that_end_with_one_status_for_different_reasons() -> None:
    """404 for want of a cluster and 404 for want of a route are not one answer."""
    outcome = request(
        http(
            {
                "match": {
                    "prefix": "/",
                    "runtime_fraction": {"default_value": {"numerator": 50}},
                },
                "route": {
                    "cluster": "missing",
                    "cluster_not_found_response_code": "NOT_FOUND",
                },
            }
        )
    )
    assert isinstance(outcome, Unknown)
    assert outcome.why.startswith("calls end in different ways: 50%")


# ---------------------------------------------------------------- filter chains


def connect(*chains: dict[str, Any], version: str = "1.40.0", **more: Any) -> Outcome:
    found = proxy(listener(*chains), clusters=(static_cluster("d", 8001),), version=version)
    return follow(found, Call("127.0.0.1", 80, **more)).outcome


def cluster_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Reached), outcome
    return outcome.clusters[0]


def test_only_one_address_is_loopback() -> None:
    """To a filter chain's source type, 127.0.0.5 is as external as any other."""
    chains = (tcp("c", source_type="SAME_IP_OR_LOOPBACK"), tcp("d", source_type="EXTERNAL"))
    assert cluster_of(connect(*chains, source_address="127.0.0.1")) == "c"
    assert cluster_of(connect(*chains, source_address="127.0.0.5")) == "d"
    assert isinstance(connect(*chains), Unknown)


@pytest.mark.parametrize(("version", "inspects"), [("1.40.0", False), ("1.15.5", True)])
def test_a_tls_inspector_that_nobody_configured(
    version: str,
    inspects: bool,  # noqa: FBT001 # compared with
) -> None:
    """Envoys before 1.16 added it where a match needs it."""
    call: dict[str, Any] = {"tls": True, "server_name": "a.example"}
    outcome = connect(tcp("c", server_names=["a.example"]), version=version, **call)
    assert isinstance(outcome, Reached if inspects else Closed)
    assert isinstance(connect(tcp(server_names=["a.example"]), version="", **call), Unknown)


def test_any_address_in_different_words() -> None:
    """A prefix of length 0 beside a chain that asks for no address: either may win."""
    any_address = [{"address_prefix": "0.0.0.0", "prefix_len": 0}]  # noqa: S104 # a range
    chains = (tcp("c", prefix_ranges=any_address), tcp("d", source_type="EXTERNAL"))
    assert isinstance(connect(*chains, source_address="10.0.0.1"), Unknown)
    assert cluster_of(connect(chains[0], source_address="10.0.0.1")) == "c"


def test_no_way_back_from_a_narrower_match() -> None:
    """A chain for the port that takes no such source leaves none for the connection."""
    other = [{"address_prefix": "10.0.0.0", "prefix_len": 8}]
    chains = (tcp("c", destination_port=80, source_prefix_ranges=other), tcp("d"))
    assert isinstance(connect(*chains, source_address="127.0.0.1"), Closed)
