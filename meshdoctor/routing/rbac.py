"""Envoy's RBAC filters: whom their policies let through, as far as a call tells it.

Consul writes intentions as such filters of the destination's public listener, in its
`agent/xds/rbac.go`: principals by the SPIFFE name in the caller's certificate, permissions by
path, method and headers.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from meshdoctor.evidence.envoy.routes import header_matcher, string_matcher
from meshdoctor.routing.filters import message
from meshdoctor.routing.matching import Headers, matches_header, matches_string, without_query
from meshdoctor.routing.model import Call, Denial, UndecidedError


def denied(
    config: Mapping[str, Any] | None, what: str, call: Call, headers: Headers | None
) -> Denial | None:
    """By which policy the call is denied; None lets it pass.

    `headers` are None for a connection that is no HTTP. Raises UndecidedError where what is known
    of the call does not tell.
    """
    config = message(config, what)
    if config.get("matcher"):
        raise UndecidedError(f"the {what} decides by a match tree, which is not followed")
    if config.get("rules") is None:
        return None
    rules = message(config["rules"], what)
    action = rules.get("action", "ALLOW")
    policies = message(rules.get("policies"), what)
    if action in ("LOG", 2):
        return None
    if action not in ("ALLOW", 0, "DENY", 1):
        raise UndecidedError(f"the {what} (RBAC) has the action {action}, which is not known")
    allows = action in ("ALLOW", 0)
    asked = _Asked(what, call, headers)
    met = {name: asked.policy(policies[name]) for name in sorted(policies)}
    hit = next((name for name, matches in met.items() if matches), None)
    if hit is None and None in met.values():
        unsure = ", ".join(name for name, matches in met.items() if matches is None)
        raise UndecidedError(
            f"the {what} (RBAC) decides by its policies {unsure}, which are not followed"
        )
    if allows and hit is None:
        others = any(asked.admits(each) is not False for each in policies.values())
        return Denial("", every_request=not others)
    if allows or hit is None:
        return None
    return Denial(hit, every_request=_is_for_all(policies[hit], "permissions"))


def _is_for_all(policy: Any, part: str) -> bool:
    held = policy.get(part) if isinstance(policy, Mapping) else None
    return any(
        isinstance(each, Mapping) and each.get("any") is True
        for each in (held if isinstance(held, list) else ())
    )


# ---------------------------------------------------------------- three-valued logic

Truth = bool | None
"""None: what is known of the call does not tell."""


def _any(truths: Iterable[Truth]) -> Truth:
    held = list(truths)
    return True if True in held else None if None in held else False


def _all(truths: Iterable[Truth]) -> Truth:
    held = list(truths)
    return False if False in held else None if None in held else True


def _not(truth: Truth) -> Truth:
    return None if truth is None else not truth


class _Asked:
    """One call, asked for what policies want of it."""

    def __init__(self, what: str, call: Call, headers: Headers | None) -> None:
        self.what: Final = what
        self.call: Final = call
        self.headers: Final = headers

    def policy(self, written: Any) -> Truth:
        """One of its permissions and one of its principals must match."""
        held = message(written, self.what)
        permitted = _any(self.permission(each) for each in _list(held.get("permissions")))
        matches = _all((permitted, self.admits(written)))
        if matches and (held.get("condition") or held.get("checked_condition")):
            return None
        return matches

    def admits(self, written: Any) -> Truth:
        """Whether the caller is one of those that a policy is about."""
        held = message(written, self.what)
        return _any(self.principal(each) for each in _list(held.get("principals")))

    def permission(self, written: Any) -> Truth:
        kind, value = _only(written)
        match kind:
            case "any":
                return value is True or None
            case "and_rules":
                return _all(map(self.permission, _set(value, "rules")))
            case "or_rules":
                return _any(map(self.permission, _set(value, "rules")))
            case "not_rule":
                return _not(self.permission(value))
            case "header":
                return self.header(value)
            case "url_path":
                return self.path(value)
            case "destination_port":
                return value == self.call.port if isinstance(value, int) else None
            case _:
                return None

    def principal(self, written: Any) -> Truth:
        kind, value = _only(written)
        match kind:
            case "any":
                return value is True or None
            case "and_ids":
                return _all(map(self.principal, _set(value, "ids")))
            case "or_ids":
                return _any(map(self.principal, _set(value, "ids")))
            case "not_id":
                return _not(self.principal(value))
            case "header":
                return self.header(value)
            case "url_path":
                return self.path(value)
            case "authenticated":
                return self.authenticated(value)
            case _:
                return None

    def authenticated(self, written: Any) -> Truth:
        """By the URIs in the caller's certificate; () is a call without one."""
        names = self.call.principals if self.call.tls else ()
        if names is None or not isinstance(written, Mapping):
            return None
        if written.get("principal_name") is None:
            return bool(names)
        wanted = string_matcher(written["principal_name"])
        if wanted is None:
            return None
        try:
            return any(matches_string(wanted, name) for name in names)
        except UndecidedError:
            return None

    def header(self, written: Any) -> Truth:
        wanted = header_matcher(written)
        if wanted is None:
            return None
        if self.headers is None:
            return False
        # Proxies on the way add headers of their own.
        if wanted.name.lower().startswith("x-forwarded-"):
            return None
        try:
            return matches_header(wanted, self.headers)
        except UndecidedError:
            return None

    def path(self, written: Any) -> Truth:
        wanted = string_matcher(written.get("path")) if isinstance(written, Mapping) else None
        if wanted is None:
            return None
        if self.headers is None:
            return False
        try:
            return matches_string(wanted, without_query(self.headers[":path"]))
        except UndecidedError:
            return None


def _only(written: Any) -> tuple[str, Any]:
    """The one field of a protobuf `oneof`; ("", None) where there is none, or several."""
    if isinstance(written, Mapping) and len(written) == 1:
        return next(iter(written.items()))
    return "", None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [None]


def _set(value: Any, name: str) -> list[Any]:
    return _list(value.get(name)) if isinstance(value, Mapping) else [None]
