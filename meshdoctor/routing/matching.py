"""How Envoy matches strings, headers, query parameters and paths of a request."""

import functools
import re
from collections.abc import Sequence
from typing import Any, Final

from meshdoctor.evidence.envoy import HeaderMatch, QueryMatch, RouteMatch, StringMatch
from meshdoctor.routing.model import UndecidedError

Headers = dict[str, str]
"""Lower-case names, pseudo-headers included; several values are joined with commas."""


def request_headers(
    *, authority: str, path: str, method: str, scheme: str, headers: Sequence[tuple[str, str]]
) -> Headers:
    """The headers as route matching sees them."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value.strip())
    joined = {name: ",".join(values) for name, values in found.items()}
    joined.pop("host", None)
    # To Envoy, `host` and `:authority` are one header.
    return {
        **joined,
        ":authority": authority,
        "host": authority,
        ":path": path,
        ":method": method,
        ":scheme": scheme,
    }


@functools.lru_cache(maxsize=1024)
def _regex(pattern: str) -> Any:
    # Loaded only where a mesh uses regular expressions.
    import re2  # noqa: PLC0415

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise UndecidedError(
            f"the regular expression {pattern!r} is not RE2's: {error}"
        ) from error


def matches_regex(pattern: str, value: str) -> bool:
    """Whether the whole of `value` matches; Envoy's expressions are RE2's, so are ours."""
    return _regex(pattern).fullmatch(value) is not None


def matches_string(match: StringMatch, value: str) -> bool:
    """Raises UndecidedError for a custom matcher."""
    wanted = match.value
    if match.ignore_case and match.kind != "regex":
        wanted, value = _lower(wanted), _lower(value)
    match match.kind:
        case "exact":
            return value == wanted
        case "prefix":
            return value.startswith(wanted)
        case "suffix":
            return value.endswith(wanted)
        case "contains":
            return wanted in value
        case "regex":
            return matches_regex(wanted, value)
        case kind:
            raise UndecidedError(f"a string matcher of kind {kind!r} is not followed")


_UPPER: Final = {ord(letter): letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def _lower(text: str) -> str:
    # Envoy folds ASCII only.
    return text.translate(_UPPER)


lower = _lower

_INTEGER: Final = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*")


def matches_header(match: HeaderMatch, headers: Headers) -> bool:
    """Raises UndecidedError for a custom matcher."""
    value = headers.get(match.name.lower())
    if match.present is not None:
        return ((value is not None) == match.present) != match.invert
    if value is None:
        # Not even an inverted match takes a header that is not there.
        if not match.treat_missing_as_empty:
            return False
        value = ""
    if match.range is not None:
        start, end = match.range
        number = _INTEGER.fullmatch(value)
        # The length says so before int() would refuse to read it.
        found = number is not None and len(number[1]) < 21 and start <= int(number[1]) < end  # noqa: PLR2004
    elif match.match is not None:
        found = matches_string(match.match, value)
    else:
        found = True
    return found != match.invert


def query_parameters(path: str) -> dict[str, str]:
    """The first value of each parameter, as written: Envoy does not decode them here."""
    _, mark, query = path.partition("?")
    if not mark:
        return {}
    found: dict[str, str] = {}
    for part in query.partition("#")[0].split("&"):
        name, _, value = part.partition("=")
        found.setdefault(name, value)
    return found


def matches_query(match: QueryMatch, parameters: dict[str, str]) -> bool:
    """Raises UndecidedError for a custom matcher."""
    value = parameters.get(match.name)
    if value is None:
        return False
    return match.match is None or matches_string(match.match, value)


def without_query(path: str) -> str:
    """The path alone, as path specifiers see it."""
    return path.partition("?")[0].partition("#")[0]


def without_parameters(path: str) -> str:
    """`/a;v=1/b;w` as `/a/b`."""
    return re.sub(r";[^/]*", "", path)


def matches_path(match: RouteMatch, path: str, method: str) -> bool:
    """`path` without its query. Raises UndecidedError for a specifier that is not followed."""
    wanted = match.path
    if not match.case_sensitive and match.path_kind != "regex":
        wanted, path = _lower(wanted), _lower(path)
    match match.path_kind:
        case "prefix":
            return path.startswith(wanted)
        case "path":
            return path == wanted
        case "path_separated_prefix":
            return path.startswith(wanted) and path[len(wanted) : len(wanted) + 1] in ("", "/")
        case "regex":
            return matches_regex(wanted, path)
        case "connect":
            return method == "CONNECT"
        case kind:
            raise UndecidedError(f"the path specifier {kind!r} is not followed")
