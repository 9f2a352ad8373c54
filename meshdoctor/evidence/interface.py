"""What evidence is read from, and how its absence and its damage are said."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Final, Protocol, Self, TypeVar

import msgspec

T = TypeVar("T")

MOST_PROBLEMS: Final = 1000
"""A document with more damage than this has nothing to tell: it is left out as a whole."""

MOST_VALUES: Final = 5_000_000
"""In one document. Real ones that are as large as a snapshot takes hold fewer; of `[1,1,1,...]`
each letter would cost a hundred bytes of memory."""


NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises of bytes that are no JSON, or not of the form that was wanted."""


class EvidenceError(Exception):
    """Evidence cannot be had.

    EvidenceError
    ├── MissingEvidenceError   nobody recorded it, or its source did not answer
    └── DecodeError            it is there, but it is not what its source would say
    """


class MissingEvidenceError(EvidenceError):
    """There is no such evidence: why, and how to get it next time."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class DecodeError(EvidenceError):
    """A document does not decode: which one, where in it, and what was wrong."""

    def __init__(self, document: str, problem: str) -> None:
        super().__init__(f"{document}: {problem}")
        self.document = document
        self.problem = problem

    @property
    def as_problem(self) -> "Problem":
        """The same for evidence that goes on without that document."""
        return Problem(self.document, self.problem)


class Problem(msgspec.Struct, frozen=True):
    """Damage that cost one document, or one part of one, and nothing else."""

    document: str
    message: str


class Documents(Protocol):
    """A snapshot as evidence sees it: raw documents by their name in the snapshot layout."""

    @property
    def created(self) -> str:
        """When the sources were asked, in RFC 3339; "" where nobody wrote it down."""
        ...

    def names(self, prefix: str = "") -> Sequence[str]:
        """The documents there are below `prefix`, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """The document as its source answered it.

        Raises MissingEvidenceError if there is none.
        """
        ...

    def missing(self, prefix: str = "") -> Sequence[Problem]:
        """What collectors tried below `prefix` and could not get, with the reason."""
        ...


class Evidence(Protocol):
    """One source's answers as facts. A check asks for it by naming the class as annotation."""

    title: ClassVar[str]
    """How a sentence names it: "the Consul catalogue"."""
    hint: ClassVar[str]
    """How to give it to meshdoctor when it is missing."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The damage that cost documents, or parts of them, and nothing else."""
        ...

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Decode it. Raises MissingEvidenceError if the source left nothing to decode."""
        ...


def not_recorded(
    documents: Documents, prefix: str, otherwise: str, hint: str
) -> MissingEvidenceError:
    """Of a source that left nothing: with what its collector said of it, else `otherwise`."""
    told = documents.missing(prefix)
    return MissingEvidenceError(told[0].message if told else otherwise, hint)


def pointer_token(key: str) -> str:
    """A key as JSON pointers (RFC 6901) write it."""
    return key.replace("~", "~0").replace("/", "~1")


def decode(documents: Documents, name: str, form: type[T]) -> T:
    """The JSON document `name` as `form`; fields that `form` does not name are skipped.

    Numbers may come as strings, as protobuf's JSON writes 64-bit ones. Raises
    MissingEvidenceError or DecodeError.
    """
    return decode_bytes(name, documents.read(name), form)


def decode_each(
    documents: Documents, name: str, form: type[T], problems: list[Problem]
) -> Iterator[tuple[str, T]]:
    """The elements of the JSON array `name`, each with its pointer.

    One that does not decode costs only itself, and is added to `problems`. null is an empty
    array, as Go's encoder writes a slice that was never filled. Raises MissingEvidenceError, or
    DecodeError where the document is no array.
    """
    array = documents.read(name)
    elements = [] if array.strip() == b"null" else decode_bytes(name, array, list[msgspec.Raw])
    damaged = 0
    for index, element in enumerate(elements):
        pointer = f"/{index}"
        try:
            yield pointer, decode_bytes(f"{name}#{pointer}", bytes(element), form)
        except DecodeError as error:
            damaged += 1
            if damaged > MOST_PROBLEMS:
                raise DecodeError(name, f"damaged all over, as here: {error}") from error
            problems.append(error.as_problem)


def decode_if_there(
    documents: Documents, name: str, form: type[T], problems: list[Problem]
) -> T | None:
    """Like `decode`; None where there is no such document, or damage, which is noted."""
    try:
        return decode(documents, name, form)
    except MissingEvidenceError:
        return None
    except DecodeError as error:
        problems.append(error.as_problem)
        return None


def decode_each_if_there(
    documents: Documents, name: str, form: type[T], problems: list[Problem]
) -> list[tuple[str, T]] | None:
    """Like `decode_each`; None where there is no such document, or damage, which is noted."""
    try:
        return list(decode_each(documents, name, form, problems))
    except MissingEvidenceError:
        return None
    except DecodeError as error:
        problems.append(error.as_problem)
        return None


def refuse_bomb(name: str, raw: bytes) -> None:
    """Raise DecodeError where a document holds more values than memory is there for."""
    if len(raw) < 3 * MOST_VALUES:
        # Counting what can be no more than this would cost as much as decoding it.
        return
    if sum(map(raw.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise DecodeError(
            name, f"it holds more than {MOST_VALUES:,} values: no source says so much"
        )


def decode_bytes(name: str, raw: bytes, form: type[T]) -> T:
    """Like `decode`, of bytes already read. Raises DecodeError."""
    try:
        return msgspec.json.decode(raw, type=form, strict=False)
    except msgspec.ValidationError as error:
        raise DecodeError(name, f"not of the expected form: {error}") from error
    except NOT_JSON as error:
        detail = str(error) or type(error).__name__
        raise DecodeError(name, f"not JSON ({len(raw)} bytes): {detail}") from error
