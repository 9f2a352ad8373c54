"""What a check says: findings about subjects, with proof and remedies."""

import enum
from collections.abc import Iterable
from functools import lru_cache

import msgspec


class Severity(enum.StrEnum):
    """How bad a finding is, in rising order."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """0 for info, rising."""
        return list(Severity).index(self)


class SubjectKind(enum.StrEnum):
    """The kinds of thing a finding can be about, as the report names them."""

    SERVICE = "service"
    INSTANCE = "instance"
    WORKLOAD = "workload"
    SIDECAR = "sidecar"
    COMPONENT = "component"
    LISTENER = "listener"
    CLUSTER = "cluster"
    ROUTE = "route"
    RULE = "rule"


class Subject(msgspec.Struct, frozen=True, order=True):
    """One thing of the mesh, by the name its owner sees in their own tools.

    `within` is the sidecar that it is in, where the name alone means another thing in each, as an
    address of loopback does. Findings share a subject only where they agree on that too.
    """

    kind: SubjectKind
    name: str
    within: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def subjects(kind: SubjectKind, names: Iterable[str]) -> tuple[Subject, ...]:
    """One subject of `kind` for each name, in the order given."""
    return _subjects(kind, tuple(names))


# A thousand findings may be about the same thousand sidecars.
@lru_cache(maxsize=16)
def _subjects(kind: SubjectKind, names: tuple[str, ...]) -> tuple[Subject, ...]:
    return tuple([Subject(kind, name) for name in names])


class Citation(msgspec.Struct, frozen=True):
    """Where the proof stands: a document of the snapshot and a JSON pointer (RFC 6901) into it.

    `pointer` is "" for a whole document or for one that is not JSON; `excerpt` is the value
    there, or the line of a log, short enough to print. `file` and `line` are the user's own file
    where that was read from one, else "" and 0.
    """

    document: str
    pointer: str = ""
    excerpt: str | None = None
    file: str = ""
    line: int = 0


class Remedy(msgspec.Struct, frozen=True):
    """One way to mend: what to do, in order, ready to paste.

    `effect` says what the commands change; `patch` is a unified diff or a fragment of a file
    where a file must change; `destructive` is true where something is lost by running it.
    """

    summary: str
    commands: tuple[str, ...] = ()
    patch: str | None = None
    effect: str | None = None
    destructive: bool = False


class Finding(msgspec.Struct, frozen=True):
    """One fault that the evidence shows, said in one plain sentence.

    `severity` overrides the check's default. `subjects` are what it is about and what links it
    to its causes and symptoms: name all, the most telling first.
    """

    message: str
    subjects: tuple[Subject, ...]
    seen_in: tuple[Citation, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    severity: Severity | None = None
    references: tuple[str, ...] = ()


class Fact(msgspec.Struct, frozen=True):
    """Something healthy that a check verified, in one plain sentence with its numbers."""

    message: str


class Clean(msgspec.Struct, frozen=True):
    """The check looked and found nothing; `facts` are the healthy facts it verified."""

    facts: tuple[Fact, ...] = ()


class Found(msgspec.Struct, frozen=True):
    """The check looked and found something; `reason` says why it did not look to the end."""

    findings: tuple[Finding, ...]
    reason: str = ""


class Skipped(msgspec.Struct, frozen=True):
    """The check could not look: why, and how to give it what it needs.

    `foreign`: there was nothing to look at, for it is for other kinds of mesh.
    """

    reason: str
    hint: str = ""
    foreign: bool = False


class Crashed(msgspec.Struct, frozen=True):
    """The check itself is broken; what it had found until then is kept."""

    error: str
    traceback: str
    findings: tuple[Finding, ...] = ()


Outcome = Clean | Found | Skipped | Crashed
