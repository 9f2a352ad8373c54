"""The only code that reaches the network: a live mesh in, a snapshot out."""

from collections.abc import Callable

from meshdoctor.collectors.interface import NamedEngine, Options
from meshdoctor.snapshot import Snapshot

__all__ = ["NamedEngine", "Options", "collect"]


def collect(options: Options, progress: Callable[[str], None]) -> Snapshot:
    """Everything that can be read of the mesh, redacted, as a recording would hold it.

    What was wanted and could not be had stands in the snapshot's `absent`, with the reason and
    what to try. Never raises for what the mesh does; `progress` hears a short sentence now and
    then, one at a time.
    """
    # Imported when asked for: docker and httpx take longer to import than a recorded mesh takes
    # to examine.
    from meshdoctor.collectors.run import collect as collect_live  # noqa: PLC0415

    return collect_live(options, progress)
