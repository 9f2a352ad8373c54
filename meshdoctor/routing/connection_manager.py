"""What an HTTP connection manager makes of a request before it looks for a route."""

import re
from typing import Final

from meshdoctor.evidence.envoy import HttpConnectionManager, VirtualHost
from meshdoctor.routing.filters import Passage
from meshdoctor.routing.matching import Headers, without_query
from meshdoctor.routing.model import Answered, Call, UndecidedError


def scheme(call: Call) -> str:
    """What a proxy in front says of the scheme counts more than the connection itself."""
    forwarded = [value for name, value in call.headers if name.lower() == "x-forwarded-proto"]
    if forwarded and forwarded[0] in ("http", "https"):
        return forwarded[0]
    return "https" if call.tls else "http"


# Letters, digits and -._~ lose their escapes when a path is normalised, all others keep them.
_UNESCAPED: Final = r"%(?:2[dDeE]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])"
_DOTS: Final = r"(?:^|/)\.{1,2}(?:/|$)"


def seen_path(manager: HttpConnectionManager, path: str) -> str:
    """The path after the connection manager's normalisation. Raises UndecidedError."""
    path = path.partition("#")[0]
    alone = without_query(path)
    query = path[len(alone) :]
    lowered = alone.lower()
    escaped = "%2f" in lowered or "%5c" in lowered
    action = manager.path_with_escaped_slashes_action
    if escaped and action not in ("", "KEEP_UNCHANGED", "IMPLEMENTATION_SPECIFIC_DEFAULT"):
        raise UndecidedError(f"the path has escaped slashes, and {action} is not followed")
    if manager.normalize_path:
        if "\\" in alone or re.search(_UNESCAPED, alone):
            raise UndecidedError("the path is normalised, and its escapes are not followed")
        if re.search(_DOTS, alone):
            alone = _without_dots(alone)
    if manager.merge_slashes:
        alone = re.sub("//+", "/", alone)
    return alone + query


def _without_dots(path: str) -> str:
    kept: list[str] = []
    parts = path.split("/")[1:]
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "..":
            if kept:
                kept.pop()
        elif part != ".":
            kept.append(part)
            continue
        if last:
            kept.append("")
    return "/" + "/".join(kept)


def judge_settings(manager: HttpConnectionManager, headers: Headers, passage: Passage) -> None:
    for name in manager.unmodelled:
        if name == "local_reply_config":
            passage.notes.append("the proxy's own answers may be rewritten (local_reply_config)")
        elif name == "headers_with_underscores_action":
            if any("_" in name for name in headers.values):
                raise UndecidedError("a header has an underscore, which the proxy may refuse")
        elif name != "typed_header_validation_config":
            raise UndecidedError(f"the HTTP connection manager's {name} is not followed")
    wanted = headers.first("upgrade").lower()
    asked = wanted and "upgrade" in headers.first("connection").lower()
    if asked and wanted not in manager.upgrade_types:
        raise UndecidedError(f"whether the proxy takes the upgrade to {wanted} is not followed")


def require_tls(host: VirtualHost, headers: Headers) -> Answered | None:
    if host.require_tls == "NONE":
        return None
    if headers[":scheme"] == "https":
        return None
    if host.require_tls != "ALL":
        raise UndecidedError(
            f"virtual host {host.name} asks for TLS of calls from outside, and whether this is "
            "one is not known"
        )
    location = f"https://{headers[':authority']}{headers[':path']}"
    return Answered(301, "", f"virtual host {host.name} asks for TLS", location)
