"""Zipkin, to which sidecars may send their traces: whether it answers, and whom it heard of."""

from typing import ClassVar, Final, Self

import msgspec

from meshdoctor.evidence.interface import (
    DecodeError,
    Documents,
    MissingEvidenceError,
    Problem,
    decode,
)

SERVICES: Final = "zipkin/services.json"


class Zipkin(msgspec.Struct, frozen=True):
    """What Zipkin told: `services` that sent it traces, None with the reason where it did not."""

    title: ClassVar[str] = "Zipkin"
    hint: ClassVar[str] = "run meshdoctor where Docker runs, with Zipkin's container up"

    services: tuple[str, ...] | None
    unanswered: str
    problems: tuple[Problem, ...]

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Decode zipkin/*. Raises MissingEvidenceError where nobody asked it."""
        try:
            return cls(tuple(decode(documents, SERVICES, list[str])), "", ())
        except DecodeError as error:
            # Other servers take traces for Zipkin's and have no such page.
            return cls(None, "", (error.as_problem,))
        except MissingEvidenceError as error:
            tried = documents.missing("zipkin/")
            if not tried:
                raise MissingEvidenceError(error.reason, cls.hint) from error
            return cls(None, tried[0].message, ())
