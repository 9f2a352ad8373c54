"""The spellings of one protobuf message in JSON, brought to the one that decoders read."""

import re
from typing import Any, Final

import msgspec

# Fields that hold somebody's own data: nothing below them is a field name of Envoy's.
_FREE: Final = frozenset(
    {"filter_metadata", "typed_filter_metadata", "filterMetadata", "typedFilterMetadata"}
)

# Maps: their keys are names somebody chose, their values are messages.
_MAPS: Final = frozenset(
    {
        "typed_per_filter_config",
        "per_filter_config",
        "typedPerFilterConfig",
        "perFilterConfig",
        "policies",
        "map",
    }
)

_KEY: Final = rb'"([a-z][a-z0-9]*(?:[A-Z]|_[a-z0-9])[A-Za-z0-9_]*)"\s*:'
_HUMP: Final = re.compile("[A-Z]")

# How far to look for a telling key: the first one stands within the first few fields.
_WINDOW: Final = 4096

_ANY: Final = msgspec.json.Decoder()


def is_camel_case(raw: bytes | memoryview) -> bool | None:
    """Whether a message is written `likeThis` rather than `like_this`; None if it does not tell.

    Envoy writes its own field names (snake_case), Pilot's debug pages protobuf's JSON names
    (camelCase).
    """
    found = re.compile(_KEY).search(raw, 0, _WINDOW)
    return None if found is None else b"_" not in found[1]


def snake_case(key: str) -> str:
    """`filterChainMatch` as `filter_chain_match`."""
    return _HUMP.sub(lambda hump: "_" + hump[0].lower(), key)


def camel_case(key: str) -> str:
    """`filter_chain_match` as `filterChainMatch`."""
    first, *rest = key.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def below(pointer: str, *steps: str | int) -> str:
    """A JSON pointer further into the same document, `steps` in the document's own spelling."""
    camel = "_" not in pointer and any(letter.isupper() for letter in pointer)
    names = (camel_case(str(step)) if camel else str(step) for step in steps)
    return "/".join((pointer, *names))


def normalise(raw: msgspec.Raw | bytes) -> bytes:
    """The same message with snake_case fields and without nulls, which mean "not set".

    Raises what msgspec raises, or ValueError where a number is beyond JSON.
    """
    return msgspec.json.encode(_normal(_ANY.decode(raw)))


def _normal(value: Any) -> Any:
    if isinstance(value, list):
        return [_normal(each) for each in value if each is not None]
    if not isinstance(value, dict):
        return value
    normal: dict[str, Any] = {}
    for key, held in value.items():
        if held is None:
            continue
        name = key if key.startswith("@") else snake_case(key)
        if key in _FREE or (key == "metadata" and not _is_envoy_metadata(held)):
            normal[name] = held
        elif key in _MAPS and isinstance(held, dict):
            normal[name] = {own: _normal(each) for own, each in held.items() if each is not None}
        else:
            normal[name] = _normal(held)
    return normal


def _is_envoy_metadata(held: Any) -> bool:
    """A node's metadata is a free map; a route's, cluster's or endpoint's is a message."""
    return isinstance(held, dict) and not _FREE.isdisjoint(held)
