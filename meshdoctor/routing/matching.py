"""How Envoy matches strings, headers, query parameters and paths of a request."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from meshdoctor.evidence.envoy import HeaderMatch, QueryMatch, RouteMatch, StringMatch
from meshdoctor.routing.model import UndecidedError


class Headers(msgspec.Struct, frozen=True):
    """The headers of a request as route matching sees them, pseudo-headers included.

    Names are in lower case. `since_1_39` says whether they meet an Envoy of 1.39 or one before,
    which match some requests in different ways; None is unknown.
    """

    values: Mapping[str, tuple[str, ...]]
    since_1_39: bool | None = None

    def __getitem__(self, name: str) -> str:
        return self.values[name][0]

    def first(self, name: str, default: str = "") -> str:
        """The first value, `default` where the header was not sent."""
        held = self.values.get(name.lower())
        return held[0] if held else default


# These Envoy joins when it reads them.
_JOINED: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-type",
        "te",
        "upgrade",
        "user-agent",
        "via",
        "x-forwarded-for",
        "x-forwarded-proto",
    }
)


def request_headers(
    *,
    authority: str,
    path: str,
    method: str,
    scheme: str,
    headers: Sequence[tuple[str, str]],
    since_1_39: bool | None = None,
) -> Headers:
    found: dict[str, tuple[str, ...]] = {}
    for written, value in headers:
        name = written.lower()
        held = (*found.get(name, ()), value.strip())
        found[name] = (",".join(held),) if name in _JOINED else held
    # To Envoy, `host` and `:authority` are one header.
    found |= {
        ":authority": (authority,),
        "host": (authority,),
        ":path": (path,),
        ":method": (method,),
        ":scheme": (scheme,),
    }
    return Headers(found, since_1_39)


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
        wanted, value = lower(wanted), lower(value)
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


def lower(text: str) -> str:
    """In lower case, as Envoy folds: ASCII only."""
    return text.translate(_UPPER)


# Of a 64-bit number, with its sign.
_DIGITS: Final = 20
_INTEGER: Final = r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*"


def matches_header(match: HeaderMatch, headers: Headers) -> bool:
    """Raises UndecidedError for a custom matcher, or where it depends on Envoy's version."""
    values = headers.values.get(match.name.lower(), ())
    if match.present is not None:
        return (bool(values) == match.present) != match.invert
    if not values:
        # Not even an inverted match takes a header that is not there.
        if not match.treat_missing_as_empty:
            return False
        values = ("",)
    if len(values) == 1:
        return _matches_value(match, values[0]) != match.invert
    # 1.39 takes the values one by one, Envoys before it joined with commas.
    separately = any(_matches_value(match, value) for value in values)
    joined = _matches_value(match, ",".join(values))
    if separately != joined and headers.since_1_39 is None:
        raise UndecidedError(
            f"header {match.name} was sent {len(values)} times, which Envoy's versions match "
            "in different ways"
        )
    return (separately if headers.since_1_39 else joined) != match.invert


def _matches_value(match: HeaderMatch, value: str) -> bool:
    if match.range is not None:
        start, end = match.range
        number = re.fullmatch(_INTEGER, value)
        # The length says so before int() would refuse to read it.
        return number is not None and len(number[1]) <= _DIGITS and start <= int(number[1]) < end
    return match.match is None or matches_string(match.match, value)


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
    if match.match is None:
        return (value is not None) == (match.present is not False)
    return value is not None and matches_string(match.match, value)


def without_query(path: str) -> str:
    """The path alone, as path specifiers see it."""
    return path.partition("?")[0].partition("#")[0]


def without_parameters(path: str, headers: Headers) -> str:
    """`/a;v=1/b` as `/a/b`; an Envoy before 1.39 leaves `/a`. Raises UndecidedError."""
    cut = path.partition(";")[0]
    dropped = re.sub(r";[^/]*", "", path)
    if cut != dropped and headers.since_1_39 is None:
        raise UndecidedError(
            "the path has parameters in its midst, which Envoy's versions drop in different ways"
        )
    return dropped if headers.since_1_39 else cut


def matches_path(match: RouteMatch, path: str, method: str) -> bool:
    """`path` without its query. Raises UndecidedError for a specifier that is not followed."""
    wanted = match.path
    if not match.case_sensitive and match.path_kind != "regex":
        wanted, path = lower(wanted), lower(path)
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
