"""What `meshdoctor probe` met: one request for each caller and callee, and who answered it.

`probe/<workload>.json`, schema `meshdoctor.probe/v1`:

    {"schema": "meshdoctor.probe/v1", "caller": "consul_details-v1_1", "way": "namespace",
     "tried": [{"way": "exec", "reason": "..."}],
     "requests": [
       {"callee": "reviews", "port": 9080, "url": "http://reviews:9080/", "path": "/",
        "name": "reviews",                     "" where the URL has an address
        "addresses_from": "name",              or "consul", "url"
        "resolved": ["172.28.0.9"],            what the name stands for, in the caller's namespace
        "resolution": "",                      why the name does not resolve
        "connected": "172.28.0.9:9080",        "" where the way does not tell
        "answer": {"status": 200, "headers": {"server": "envoy"}, "sha256": "...", "bytes": 47,
                   "whole": true},             null where no answer came
        "moved": [{"cluster": "outbound|9080||reviews.service.consul", "address": "172.28.0.9",
                   "port": 9080, "requests": 1}],    null where nobody could count
        "answered_by": {"service": "reviews", "how": "proxy statistics", "flag": ""},
        "failure": "",                         or "refused", "timed out", "closed", ...
        "error": ""}]}

Of headers only those of a short list are kept, and of a body only its length and hash: what
applications answer is nobody else's business. `moved` are the endpoints that the caller's own
Envoy counted a request or a connection to meanwhile.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self

import msgspec

from meshdoctor.evidence.interface import (
    DecodeError,
    Documents,
    Problem,
    decode,
    decode_bytes,
    not_recorded,
)

SCHEMA: Final = "meshdoctor.probe/v1"
FOLDER: Final = "probe/"


class How(enum.StrEnum):
    """By what it is known who answered, the most trusted first."""

    STATISTICS = "proxy statistics"
    ADDRESS = "address"
    HEADER = "header"
    BODY = "body"
    PROXY = "the proxy itself"
    """No service answered: a proxy did."""
    UNKNOWN = "unknown"


class Failure(enum.StrEnum):
    """Why no answer came; NONE where one did."""

    NONE = ""
    REFUSED = "refused"
    TIMED_OUT = "timed out"
    CLOSED = "closed"
    """The connection was taken, and closed without an answer."""
    NO_CONNECTION = "no connection"
    NOT_HTTP = "not HTTP"
    NOT_SENT = "not sent"


class AddressSource(enum.StrEnum):
    """Where the address that was connected to came from."""

    NAME = "name"
    CONSUL = "consul"
    URL = "url"


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An HTTP answer. `bytes` and `sha256` are of what was read: all of it if `whole`."""

    status: int
    headers: dict[str, str] = {}
    sha256: str = ""
    bytes: int = 0
    whole: bool = True


class Moved(msgspec.Struct, frozen=True, gc=False):
    """An endpoint to which the caller's proxy counted requests meanwhile."""

    cluster: str
    address: str
    port: int
    requests: int


class AnsweredBy(msgspec.Struct, frozen=True, gc=False):
    """Who answered and how that is known; `flag` is the proxy's, as access logs have it (UH)."""

    service: str | None = None
    how: How = How.UNKNOWN
    flag: str = ""


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request of the probe, and what it met."""

    callee: str
    port: int
    url: str
    path: str = "/"
    name: str = ""
    addresses_from: AddressSource = AddressSource.URL
    resolved: tuple[str, ...] = ()
    resolution: str = ""
    connected: str = ""
    answer: Answer | None = None
    moved: tuple[Moved, ...] | None = None
    answered_by: AnsweredBy = AnsweredBy()
    failure: Failure = Failure.NONE
    error: str = ""

    @property
    def sent(self) -> bool:
        """True where a request went out, or at least a connection was tried."""
        return self.failure is not Failure.NOT_SENT

    @property
    def connected_address(self) -> str:
        """`connected` without its port."""
        return self.connected.rpartition(":")[0].strip("[]")


class Tried(msgspec.Struct, frozen=True, gc=False):
    """A way into the caller's namespace that did not lead there."""

    way: str
    reason: str = ""


class ProbeDocument(msgspec.Struct, frozen=True, gc=False, rename={"schema_": "schema"}):
    """`probe/<workload>.json`, as it is written."""

    schema_: str
    caller: str
    way: str = ""
    tried: tuple[Tried, ...] = ()
    requests: tuple[Request, ...] = ()


class _Head(msgspec.Struct, gc=False, rename={"schema_": "schema"}):
    schema_: str
    caller: str
    way: str = ""
    requests: tuple[msgspec.Raw, ...] = ()


class Probed(msgspec.Struct, frozen=True):
    """One request and where it is recorded."""

    caller: str
    way: str
    request: Request
    document: str
    pointer: str


class ProbeResults(msgspec.Struct, frozen=True):
    """What all callers' probes met, by caller, each caller's in the order they were sent."""

    title: ClassVar[str] = "what a probe met"
    hint: ClassVar[str] = (
        "`meshdoctor probe` sends one GET for each caller and callee, and says who answered"
    )

    probed: tuple[Probed, ...]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Decode probe/*. Raises MissingEvidenceError where no probe was asked for."""
        problems: list[Problem] = []
        names = documents.names(FOLDER)
        if not names:
            raise not_recorded(documents, FOLDER, "no probe was asked for", cls.hint)
        probed = [each for name in names for each in _decoded(documents, name, problems)]
        return cls(tuple(probed), tuple(problems))

    @property
    def sent(self) -> tuple[Probed, ...]:
        """Those for which a request went out."""
        return tuple(each for each in self.probed if each.request.sent)

    @property
    def unsent(self) -> tuple[str, ...]:
        """What was wanted and not sent, in words, each reason once."""
        reasons: dict[str, int] = {}
        for each in self.probed:
            if not each.request.sent:
                reason = f"from {each.caller}: {each.request.error}"
                reasons[reason] = reasons.get(reason, 0) + 1
        return tuple(f"{number} {reason}" for reason, number in reasons.items())


def _decoded(documents: Documents, name: str, problems: list[Problem]) -> Sequence[Probed]:
    try:
        head = decode(documents, name, _Head)
    except DecodeError as error:
        problems.append(error.as_problem)
        return ()
    if head.schema_ != SCHEMA:
        said = f"its schema is {head.schema_!r}; this version reads {SCHEMA!r}"
        problems.append(Problem(name, said))
        return ()
    found = []
    for index, raw in enumerate(head.requests):
        pointer = f"/requests/{index}"
        try:
            request = decode_bytes(f"{name}#{pointer}", bytes(raw), Request)
        except DecodeError as error:
            problems.append(error.as_problem)
        else:
            found.append(Probed(head.caller, head.way, request, name, pointer))
    return found


# ---------------------------------------------------------------- a proxy's own answers

_SERVICE_TIME: Final = "x-envoy-upstream-service-time"
_SAYINGS: Final[Mapping[str, str]] = {
    "no healthy upstream": "UH",
    "upstream request timeout": "UT",
    "upstream connect error or disconnect/reset before headers": "UF",
    "RBAC: access denied": "RBAC",
    "local_rate_limited": "RL",
}
# What Envoy appends where it knows more: `... reset reason: connection termination`.
_REASONS: Final[Mapping[str, str]] = {
    "connection termination": "UC",
    "overflow": "UO",
    "protocol error": "UPE",
    "remote reset": "UR",
}
_WITHOUT_WORDS: Final[Mapping[int, str]] = {404: "NR", 503: "NC"}
"""Envoy says nothing where no route or no cluster is there."""


def flag_of(status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """The flag of an answer that a proxy gave itself; None for an application's.

    Envoy names itself as `server` in all answers that pass it, and adds the time that the
    upstream took to those that had one. `headers` are by name in lower case. "" is for an answer
    of a proxy's that does not tell why.
    """
    text = body[:300].decode("utf-8", "replace").strip()
    for saying, flag in _SAYINGS.items():
        if text.startswith(saying):
            return next((more for words, more in _REASONS.items() if words in text), flag)
    passed = "envoy" in headers.get("server", "").lower() and _SERVICE_TIME not in headers
    if not passed or text:
        return None
    return _WITHOUT_WORDS.get(status, "" if status >= 400 else None)  # noqa: PLR2004 # errors
