"""Filters before the routing: passed, ending the call, or making it unknown."""

from typing import Any

import pytest

from meshdoctor.routing import Answered, Call, Closed, Outcome, Reached, Unknown, follow
from tests.routing.configured import http, listener, proxy, tcp

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
NETWORK = "type.googleapis.com/envoy.extensions.filters.network."
ANY = {"permissions": [{"any": True}], "principals": [{"any": True}]}
SOME = {"permissions": [{"any": True}], "principals": [{"metadata": {}}]}
ROUTE = {"match": {"prefix": "/"}, "route": {"cluster": "c"}}


def through_http(name: str, config: dict[str, Any], **route: Any) -> Outcome:
    filters = [
        {"name": name, "typed_config": {"@type": HTTP + config.pop("type"), **config}},
        {"name": "envoy.filters.http.router"},
    ]
    chain = http({**ROUTE, **route}, http_filters=filters)
    return follow(proxy(listener(chain)), Call("127.0.0.1", 80, host="h")).outcome


def through_network(name: str, type_: str, config: dict[str, Any]) -> Outcome:
    chain = tcp()
    chain["filters"].insert(0, {"name": name, "typed_config": {"@type": type_, **config}})
    return follow(proxy(listener(chain)), Call("127.0.0.1", 80)).outcome


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, Reached),
        ({"rules": {"action": "DENY"}}, Reached),
        ({"rules": {}}, Closed),
        ({"rules": {"policies": {"p": ANY}}}, Reached),
        ({"rules": {"action": "DENY", "policies": {"p": ANY}}}, Closed),
        ({"rules": {"action": "DENY", "policies": {"p": SOME}}}, Unknown),
        ({"rules": {"action": "LOG", "policies": {"p": SOME}}}, Reached),
        ({"shadow_rules": {"policies": {"p": SOME}}}, Reached),
        ({"matcher": {"on_no_match": {}}}, Unknown),
    ],
)
def test_network_rbac(rules: dict[str, Any], expected: type) -> None:
    """What holds for every connection is decided; what depends on the caller is unknown."""
    outcome = through_network("rbac", f"{NETWORK}rbac.v3.RBAC", rules)
    assert isinstance(outcome, expected)


def test_http_rbac() -> None:
    """Denied with 403, unless the route turns the filter off."""
    denied = through_http("rbac", {"type": "rbac.v3.RBAC", "rules": {}})
    assert isinstance(denied, Answered)
    assert denied.status == 403
    off = {
        "rbac": {
            "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
            "disabled": True,
        }
    }
    config = {"type": "rbac.v3.RBAC", "rules": {}}
    assert isinstance(through_http("rbac", config, typed_per_filter_config=off), Reached)


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("cors.v3.Cors", Reached),
        ("fault.v3.HTTPFault", Reached),
        ("local_ratelimit.v3.LocalRateLimit", Reached),
        ("lua.v3.Lua", Unknown),
        ("ext_authz.v3.ExtAuthz", Unknown),
    ],
)
def test_other_http_filters(type_: str, expected: type) -> None:
    """Those that may decide make the outcome unknown, and are named."""
    outcome = through_http("mine", {"type": type_})
    assert isinstance(outcome, expected)
    if isinstance(outcome, Unknown):
        assert "the HTTP filter mine may decide" in outcome.why


def test_an_unknown_network_filter_makes_the_call_unknown() -> None:
    """Never a guess."""
    outcome = through_network("mine", f"{NETWORK}redis_proxy.v3.RedisProxy", {})
    assert isinstance(outcome, Unknown)
    assert "the network filter mine may decide" in outcome.why
