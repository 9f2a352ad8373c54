"""Words for why a way to an Envoy failed: collectors write them, a check tells causes by them.

A snapshot keeps them in its manifest, within the sentence that says why a document is absent.
"""

from typing import Final

NEEDS_ROOT: Final = "entering its network namespace needs root"
HANGS: Final = "it accepted the request and"
"""Followed by what came of it."""
REFUSED: Final = "connection refused"

LEFT_OUT: Final = "Consul left out what its ACLs hide"
"""So a Consul says that its list of services is not whole."""
