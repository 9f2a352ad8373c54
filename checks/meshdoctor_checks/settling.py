"""Whether what differs has had the time to become the same."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.evidence.times import moment
from meshdoctor.topology import Mesh, Role

_INTERVAL: Final = r"--consulserverInterval[= ]+(\d+)(ms|s|m)\b"
_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60}
_USUAL_INTERVAL: Final = 2
"""Seconds between two of Pilot's looks at Consul, unless it is told otherwise."""
_PATIENCE: Final = 5
"""So many intervals, and ten seconds at least: Pilot waits for a change to settle."""
_AT_LEAST: Final = timedelta(seconds=10)
_EVENT: Final = r" (?:added|removed): \S+ \S+"
"""How Registrator's log tells of what it did, behind the time that Docker wrote before it."""


def patience(command: str) -> timedelta:
    """How long after a change of Consul's a Pilot of that command line may not know it yet."""
    told = re.search(_INTERVAL, command)
    interval = int(told[1]) * _UNITS[told[2]] if told is not None else _USUAL_INTERVAL
    return max(_AT_LEAST, timedelta(seconds=_PATIENCE * min(interval, 3600)))


def settled(mesh: Mesh, docker: DockerEngine | None, patience: timedelta) -> bool | None:
    """Whether Registrator changed nothing for so long, None where its log does not tell."""
    if docker is None or docker.asked is None:
        return None
    changes = [
        at
        for each in mesh.components
        if each.role is Role.REGISTRATOR
        for at in _changes(docker.logs.get(each.name, ""))
    ]
    return None if not changes else docker.asked - max(changes) > patience


def _changes(log: str) -> Iterator[datetime]:
    """When Registrator changed the catalogue; what came before the log, came before its start."""
    for index, line in enumerate(log.splitlines()):
        written, _, said = line.partition(" ")
        if index == 0 or re.search(_EVENT, said):
            at = moment(written)
            if at is not None:
                yield at
