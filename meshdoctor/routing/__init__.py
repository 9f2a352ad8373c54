"""Envoy's own decisions: where a call really goes, from what the proxy itself tells."""

from meshdoctor.routing.follow import follow
from meshdoctor.routing.model import (
    Answered,
    Bypassed,
    Call,
    Closed,
    Destination,
    Hop,
    HopKind,
    NotTaken,
    Outcome,
    Reached,
    Unknown,
    Walk,
)

__all__ = [
    "Answered",
    "Bypassed",
    "Call",
    "Closed",
    "Destination",
    "Hop",
    "HopKind",
    "NotTaken",
    "Outcome",
    "Reached",
    "Unknown",
    "Walk",
    "follow",
]
