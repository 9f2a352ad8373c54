"""What the decoders of Envoy's JSON share: numbers, enumerations, addresses, typed configs."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from meshdoctor.evidence.envoy.facts import FreeForm

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Unsigned = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Signed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Enumeration = str | int
"""Protobuf's JSON writes a value's name, or its number where it knows no name."""

# What nothing that a decoder of ours raises on a stranger's bytes may be other than. ValueError
# covers msgspec's own errors, UnicodeDecodeError, and integers too long for Python to convert.
DAMAGE: Final = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


NOTHING: Final = msgspec.Raw()
"""A message that is not there; msgspec cannot say `Raw | None`."""


_NULL: Final = msgspec.Raw(b"null")


def is_set(raw: msgspec.Raw) -> bool:
    """Whether there is a message at all; null means that there is none."""
    return raw not in (NOTHING, _NULL)


class Wire(msgspec.Struct, gc=False, frozen=True):
    """A message as it is written; fields that no fact needs are skipped while decoding."""


EMPTY: Final = msgspec.Raw(b"{}")


class Empty(Wire, frozen=True):
    """A message of which only the presence counts."""


def enumeration(value: Enumeration, names: tuple[str, ...]) -> str:
    """The value's name; `names` are by number, the first is the default."""
    if isinstance(value, str):
        return value or names[0]
    return names[value] if 0 <= value < len(names) else str(value)


HEALTH: Final = ("UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED")
"""The names of `config.core.v3.HealthStatus`, by number."""


def percentage(value: float) -> float:
    """A percentage; what is no number counts as 0, as protobuf's default."""
    return value if math.isfinite(value) else 0.0


# ---------------------------------------------------------------- addresses


class SocketAddress(Wire, frozen=True):
    address: str = ""
    port_value: Port = 0
    protocol: Enumeration = "TCP"
    ipv4_compat: bool = False


class Pipe(Wire, frozen=True):
    path: str = ""


class InternalAddress(Wire, frozen=True):
    server_listener_name: str = ""


class Address(Wire, frozen=True):
    """`{"socket_address": {"address": "0.0.0.0", "port_value": 9080}}`."""

    socket_address: SocketAddress | None = None
    pipe: Pipe | None = None
    envoy_internal_address: InternalAddress | None = None

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Port 0 where it is no socket address."""
        if self.socket_address is not None:
            return self.socket_address.address, self.socket_address.port_value
        if self.pipe is not None:
            return self.pipe.path, 0
        if self.envoy_internal_address is not None:
            return f"envoy://{self.envoy_internal_address.server_listener_name}", 0
        return "", 0


# ---------------------------------------------------------------- typed configuration


class _Typed(Wire, frozen=True):
    type: str = msgspec.field(name="@type", default="")
    type_url: str = ""
    value: msgspec.Raw = NOTHING


# Envoy writes "@type" first; reading it there spares decoding the message twice.
_TYPE_FIRST: Final = re.compile(rb'\s*\{\s*"@type"\s*:\s*"([^"\\]*)"')
_TYPED_STRUCTS: Final = frozenset({"udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"})
_TYPED: Final = msgspec.json.Decoder(_Typed, strict=False)
_MAP: Final = msgspec.json.Decoder(dict[str, Any])


def message_type(type_url: str) -> str:
    """`envoy.config.listener.v3.Listener` of `type.googleapis.com/envoy.config...`."""
    return type_url.rpartition("/")[2]


def type_of(raw: msgspec.Raw | bytes) -> str:
    """The type that a message's "@type" names; "" without one. Raises one of DAMAGE."""
    found = _TYPE_FIRST.match(raw)
    return message_type(_TYPED.decode(raw).type if found is None else found[1].decode())


def typed(raw: msgspec.Raw) -> tuple[str, msgspec.Raw]:
    """The type of a `typed_config`, and the message itself.

    Where a control plane does not know the message, it wraps it in a TypedStruct, whose `value`
    is the message: `{"@type": ".../xds.type.v3.TypedStruct", "type_url": ..., "value": {...}}`.
    """
    found = _TYPE_FIRST.match(raw)
    if found is not None:
        name = message_type(found[1].decode())
        if name not in _TYPED_STRUCTS:
            return name, raw
    held = _TYPED.decode(raw)
    name = message_type(held.type)
    if name in _TYPED_STRUCTS:
        return message_type(held.type_url), held.value if is_set(held.value) else EMPTY
    return name, raw


def free_form(raw: msgspec.Raw) -> FreeForm | None:
    """A message kept as it is written, without its "@type"; None where it says nothing."""
    if not is_set(raw):
        return None
    fields = _MAP.decode(raw)
    fields.pop("@type", None)
    return FreeForm(fields) if fields else None


def as_written(raw: msgspec.Raw) -> dict[str, Any]:
    """A message kept as it is written, "@type" and all."""
    fields: dict[str, Any] = _MAP.decode(raw)
    return fields


def free_map(held: Mapping[str, Any] | None) -> FreeForm | None:
    """A decoded map kept as it is; None where it is empty."""
    return FreeForm(held) if held else None
