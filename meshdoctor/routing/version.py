"""What an Envoy's version changes in its decisions."""

import re
from typing import Final

from meshdoctor.evidence.envoy import EnvoyProxy

# Tried on 1.36.2, 1.38.3, 1.39.3 and 1.40.0.
_BEFORE_1_39: Final = ((1, 15, 1), (1, 38, 3))
_SINCE_1_39: Final = (1, 39, 3)
# From then on, a TLS inspector has to be configured, where a filter chain match needs one.
_NO_INJECTION: Final = (1, 16, 0)


def version_of(proxy: EnvoyProxy) -> tuple[int, ...] | None:
    """Its version as numbers, None where it is not known."""
    if proxy.server is None:
        return None
    found = re.match(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", proxy.server.version)
    return None if found is None else tuple(map(int, found.groups()))


def since_1_39(proxy: EnvoyProxy) -> bool | None:
    """Whether it matches as 1.39 does, or as those before; None where nobody tried it."""
    version = version_of(proxy)
    if version is None:
        return None
    if version >= _SINCE_1_39:
        return True
    first, last = _BEFORE_1_39
    return False if first <= version <= last else None


def injects_tls_inspector(proxy: EnvoyProxy) -> bool | None:
    """Whether it adds a TLS inspector by itself where one is needed; None is unknown."""
    version = version_of(proxy)
    return None if version is None else version < _NO_INJECTION
