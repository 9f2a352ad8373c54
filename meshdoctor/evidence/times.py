"""Times in RFC 3339, as Docker, Envoy and snapshots write them."""

from datetime import UTC, datetime


def moment(written: str) -> datetime | None:
    """The time that is written, in UTC where it names no zone; None of what is no time."""
    try:
        read = datetime.fromisoformat(written)
    except ValueError:
        return None
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def in_writing(at: datetime) -> str:
    """A time in UTC, to the second: `2030-01-31T08:15:00Z`."""
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
