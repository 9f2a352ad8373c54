"""Envoy's RBAC: what is known of a call decides, and what is not makes it unknown."""

from typing import Any, Final

import pytest

from meshdoctor.routing import Answered, Call, Closed, Outcome, Reached, Unknown, follow
from tests.routing.configured import http, listener, proxy, tcp

RBAC: Final = "type.googleapis.com/envoy.extensions.filters.{}.rbac.v3.RBAC"
ROUTE: Final = {"match": {"prefix": "/"}, "route": {"cluster": "c"}}
ANY: Final = {"any": True}
WEB: Final = "spiffe://x/ns/default/dc/dc1/svc/web"


def policy(permission: Any = None, principal: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "permissions": [ANY if permission is None else permission],
        "principals": [ANY if principal is None else principal],
        **more,
    }


def over_http(rules: Any, path: str = "/", **call: Any) -> Outcome:
    config = {"@type": RBAC.format("http"), "rules": rules}
    router = {"name": "envoy.filters.http.router"}
    chain = http(ROUTE, http_filters=[{"name": "rbac", "typed_config": config}, router])
    return follow(
        proxy(listener(chain)), Call("127.0.0.1", 80, host="h", path=path, **call)
    ).outcome


def over_tcp(rules: Any, **call: Any) -> Outcome:
    chain = tcp()
    config = {"@type": RBAC.format("network"), "rules": rules}
    chain["filters"].insert(0, {"name": "rbac", "typed_config": config})
    return follow(proxy(listener(chain)), Call("127.0.0.1", 80, **call)).outcome


def allows(permission: Any = None, principal: Any = None, **call: Any) -> bool | None:
    """Whether a policy of this permission and principal lets a request through."""
    outcome = over_http({"policies": {"p": policy(permission, principal)}}, **call)
    if isinstance(outcome, Unknown):
        return None
    return isinstance(outcome, Reached)


HEADER: Final = {"header": {"name": "x-a", "string_match": {"exact": "1"}}}
PATH: Final = {"url_path": {"path": {"prefix": "/a"}}}


@pytest.mark.parametrize(
    ("permission", "expected"),
    [
        ({"destination_port": 80}, True),
        ({"destination_port": 81}, False),
        ({"destination_port": "x"}, None),
        (HEADER, True),
        ({"header": {"name": "x-a", "string_match": {"exact": "2"}}}, False),
        ({"header": {"name": "x-forwarded-for", "present_match": True}}, None),
        ({"header": 7}, None),
        (PATH, True),
        ({"url_path": {"path": {"prefix": "/b"}}}, False),
        ({"url_path": {}}, None),
        ({"not_rule": PATH}, False),
        ({"and_rules": {"rules": [PATH, HEADER]}}, True),
        ({"and_rules": {"rules": [PATH, {"not_rule": HEADER}]}}, False),
        ({"or_rules": {"rules": [{"not_rule": PATH}, HEADER]}}, True),
        ({"or_rules": 7}, None),
        ({"requested_server_name": {}}, None),
        ({}, None),
        ({"any": True, "url_path": {}}, None),
        (7, None),
    ],
)
def test_what_a_request_asks_for(permission: Any, expected: bool | None) -> None:  # noqa: FBT001 # compared with
    """By its port, path and headers."""
    assert allows(permission, path="/a?b", headers=(("x-a", "1"),)) is expected


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        ({"authenticated": {"principal_name": {"exact": WEB}}}, True),
        ({"authenticated": {"principal_name": {"exact": "spiffe://other"}}}, False),
        ({"authenticated": {}}, True),
        ({"authenticated": {"principal_name": {}}}, None),
        ({"authenticated": {"principal_name": 7}}, None),
        ({"authenticated": 7}, None),
        ({"not_id": {"authenticated": {"principal_name": {"prefix": "spiffe://"}}}}, False),
        ({"and_ids": {"ids": [ANY, {"header": HEADER["header"]}]}}, False),
        ({"or_ids": {"ids": [{"url_path": PATH["url_path"]}, ANY]}}, True),
        ({"source_ip": {"address_prefix": "10.0.0.0"}}, None),
    ],
)
def test_who_asks(principal: Any, expected: bool | None) -> None:  # noqa: FBT001 # compared with
    """By the names in the certificate, which only a call with TLS has."""
    config = {"@type": RBAC.format("network")}
    chain = {**tcp(), "transport_socket": {"name": "envoy.transport_sockets.tls"}}
    rules = {"policies": {"p": policy(None, principal)}}
    chain["filters"].insert(0, {"name": "rbac", "typed_config": {**config, "rules": rules}})
    call = Call("127.0.0.1", 80, tls=True, principals=(WEB,))
    outcome = follow(proxy(listener(chain)), call).outcome
    got = None if isinstance(outcome, Unknown) else isinstance(outcome, Reached)
    assert got is expected


def test_a_connection_has_no_path_and_no_header() -> None:
    """A filter of connections that asks for one lets none through."""
    for each in (HEADER, PATH):
        assert isinstance(over_tcp({"policies": {"p": policy(each)}}), Closed)


@pytest.mark.parametrize(
    "rules",
    [
        {"action": "MAYBE", "policies": {"p": policy()}},
        {"policies": {"p": policy(condition={"const_expr": {}})}},
        {"policies": 7},
        7,
        {"policies": {"p": 7}},
    ],
)
def test_what_is_not_of_the_known_form_is_not_followed(rules: Any) -> None:
    """Never a guess."""
    assert isinstance(over_http(rules), Unknown)


def test_a_denial_names_its_policy() -> None:
    """With 403 to a request."""
    answer = over_http({"action": "DENY", "policies": {"p": policy(PATH)}}, path="/a")
    assert isinstance(answer, Answered)
    assert answer.status == 403
    assert "its policy p" in answer.why
