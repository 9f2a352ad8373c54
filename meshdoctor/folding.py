"""Many findings that say the same, of one thing each, told as one."""

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, groupby
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from meshdoctor.findings import Finding, Remedy, Severity, Subject, SubjectKind

T = TypeVar("T")

MANY: Final = 8
"""Findings that say the same and are still told one by one. Of more than these, one is made."""

_NAMED: Final = 6
_WORDS: Final = 100
"""Names in one command: of more, a second one is made."""
_LONG: Final = 2_000
"""Characters of a command that may have more names than that."""

_COUNTS: Final = re.compile(r"\b\d+(?: of \d+)? (?=[a-z]+s\b)")
"""How many callers, sidecars and the like; which of them, the list of subjects tells."""

_ADDRESSES: Final = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\b(?=[a-f]*[0-9])[0-9a-f]{12,64}\b"
)
"""Addresses and ids, which differ from thing to thing."""

_TAKES_MANY: Final = (
    ("docker", "inspect"),
    ("docker", "restart"),
    ("docker", "rm", "-f"),
    ("docker", "start"),
    ("docker", "stop"),
    ("docker", "unpause"),
)
"""Commands that do to each of the names that follow what they do to one."""


class Said(msgspec.Struct, frozen=True):
    """A finding of the check of that code, as bad as it is here."""

    code: str
    severity: Severity
    finding: Finding


def alike(said: Sequence[Said], causes: Sequence[Sequence[int]]) -> list[list[int]]:
    """The indices of what is told as one: each alone, or more than MANY that say the same.

    Those do whose sentences differ by nothing but counts, and the names, addresses and ids of
    what they are about, and whose causes are the same, or are told as one themselves. In the
    order of the first of each.
    """
    group_of = _by_sentence(said)
    number = 0
    while len(set(group_of)) != number:
        number = len(set(group_of))
        sizes = Counter(group_of)
        group_of = _numbered(
            (group, frozenset(group_of[cause] for cause in causes[index]))
            if sizes[group] > MANY
            else (-1, index)
            for index, group in enumerate(group_of)
        )
    groups: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(group_of):
        groups[group].append(index)
    return list(groups.values())


def _by_sentence(said: Sequence[Said]) -> list[int]:
    """A number for each, the same for those that say the same."""
    of_code = Counter(each.code for each in said)
    return _numbered(
        (each.code, each.severity, _uncounted(each.finding))
        if of_code[each.code] > MANY
        else index
        for index, each in enumerate(said)
    )


def _numbered(keys: Iterable[Hashable]) -> list[int]:
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _uncounted(finding: Finding) -> str:
    return _COUNTS.sub("", _pattern(finding.message, finding))


def _pattern(text: str, finding: Finding) -> str:
    """The sentence without the names of what the finding is about."""
    if not text:
        return ""
    # Of most that a finding is about, its sentence names the first few alone.
    names = {each.name: each.kind for each in reversed(finding.subjects) if each.name in text}
    for subject in finding.subjects:
        if subject.kind in _WITH_PARTS:
            names |= {each: subject.kind for each in _parts(subject) if each in text}
    names.pop("", None)
    return _ADDRESSES.sub("\0", without_names(names, text))


def without_names(names: Mapping[str, SubjectKind], text: str) -> str:
    """The text with the kind of each name in its place, from left to right.

    By looking for them: an expression for each finding takes twenty times as long to compile.
    """
    # Names of containers are made of those of services: the longer one is meant.
    found = sorted((place, -len(name), name) for name in names for place in _places(name, text))
    parts: list[str] = []
    end = 0
    for place, _, name in found:
        if place >= end:
            parts += (text[end:place], "\0", names[name])
            end = place + len(name)
    return "".join((*parts, text[end:]))


def _places(name: str, text: str) -> Iterator[int]:
    """Where it stands as a word of its own, or between underscores."""
    place = text.find(name)
    while place >= 0:
        end = place + len(name)
        if not (text[place - 1 : place].isalnum() or text[end : end + 1].isalnum()):
            yield place
        place = text.find(name, place + 1)


_WITH_PARTS: Final = frozenset({SubjectKind.INSTANCE, SubjectKind.RULE})


def _parts(subject: Subject) -> Sequence[str]:
    """Names within a name: `HOST:CONTAINER:PORT` is an id of Registrator's, `KIND/NAME` a rule."""
    match subject.kind:
        case SubjectKind.INSTANCE:
            return subject.name.split(":")[1:-1]
        case SubjectKind.RULE:
            return (subject.name.partition("/")[2],)
        case _:
            return ()


def folded(findings: Sequence[Finding]) -> Finding:
    """One finding of several that `alike` put together; the first is quoted."""
    first = findings[0]
    if len(findings) == 1:
        return first
    return replace(
        first,
        message=f"{first.message} {_others(findings)}",
        subjects=_each_once(finding.subjects for finding in findings),
        seen_in=_each_once(finding.seen_in for finding in findings),
        remedies=_remedies(findings),
        references=_each_once(finding.references for finding in findings),
    )


def _each_once(parts: Iterable[Sequence[T]]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(parts)))


def _others(findings: Sequence[Finding]) -> str:
    """That `the same is true of 899 more sidecars: b, c and 897 more`."""
    number = len(findings) - 1
    counted = {_pattern(each.message, each) for each in findings}
    same = "The same" if len(counted) == 1 else "The same, but for the numbers,"
    for kind in dict.fromkeys(subject.kind for subject in findings[0].subjects):
        names = dict.fromkeys(
            next((each.name for each in finding.subjects if each.kind is kind), "")
            for finding in findings
        )
        if len(names) == len(findings) and "" not in names:
            others = list(names)[1:]
            more = f" and {number - _NAMED} more" if number > _NAMED else ""
            return (
                f"{same} is true of {number} more {kind.value}s: "
                f"{', '.join(others[:_NAMED])}{more}."
            )
    return f"{same} is said by {number} more findings."


# ---------------------------------------------------------------- remedies


def _remedies(findings: Sequence[Finding]) -> tuple[Remedy, ...]:
    """Those that say the same put together, in the order in which they come."""
    by_sentence: dict[Hashable, dict[Remedy, None]] = defaultdict(dict)
    by_place: dict[Hashable, dict[Remedy, None]] = defaultdict(dict)
    for finding in findings:
        for place, remedy in enumerate(finding.remedies):
            said = _pattern(remedy.summary, finding), _pattern(remedy.effect or "", finding)
            by_sentence[said, remedy.destructive][remedy] = None
            by_place[place, remedy.destructive][remedy] = None
    # They name more than what the findings are about: yet what is wrong is the same with all.
    groups = by_sentence if len(by_sentence) <= MANY else by_place
    return tuple(_put_together(list(group)) for group in groups.values())


def _put_together(remedies: Sequence[Remedy]) -> Remedy:
    first = remedies[0]
    if len(remedies) == 1:
        return first
    same = all(each.summary == first.summary for each in remedies)
    return replace(
        first,
        summary=first.summary if same else f"{first.summary} Likewise for the others.",
        commands=tuple(_commands([each.commands for each in remedies])),
        patch="\n".join(dict.fromkeys(each.patch for each in remedies if each.patch)) or None,
    )


def _commands(several: Sequence[Sequence[str]]) -> list[str]:
    """All of them: the first step for each thing, then the second, and so on."""
    longest = max(map(len, several))
    steps: list[dict[str, None]] = [{} for _ in range(longest)]
    # Where one has a step more than others, it is one of the first: all end in the same way.
    for commands in several:
        for step, command in enumerate(commands, longest - len(commands)):
            steps[step][command] = None
    return list(dict.fromkeys(command for step in steps for command in _joined(list(step))))


def in_few_commands(remedy: Remedy) -> Remedy:
    """The remedy, of whose commands many that differ in a name alone are put together.

    One that has very many names is divided, so that each can be read and pasted.
    """
    if len(remedy.commands) <= MANY and max(map(len, remedy.commands), default=0) <= _LONG:
        return remedy
    return replace(remedy, commands=tuple(_joined(remedy.commands)))


def _joined(commands: Sequence[str]) -> Iterator[str]:
    """Of many side by side that differ in the names at their end alone, few that name them all."""
    for begun, them in groupby(commands, key=_before_names):
        run = list(them)
        if begun is None:
            yield from run
            continue
        names = dict.fromkeys(word for command in run for word in _words(command)[len(begun) :])
        if len(run) <= MANY and len(names) <= _WORDS:
            yield from run
            continue
        for start in range(0, len(names), _WORDS):
            yield shlex.join((*begun, *list(names)[start : start + _WORDS]))


def _before_names(command: str) -> tuple[str, ...] | None:
    """The words before the names; None of a command that takes one name alone."""
    if not command.startswith("docker"):
        return None
    words = _words(command)
    length = 0
    for each in _TAKES_MANY:
        if words[: len(each)] == each:
            length = len(each)
    is_compose = words[:1] == ("docker-compose",) or words[:2] == ("docker", "compose")
    if is_compose and "up" in words:
        options = (index for index, word in enumerate(words) if word.startswith("-"))
        length = max((*options, words.index("up"))) + 1
    # Of a container on another host a comment tells.
    is_plain = not any(word.startswith(("-", "#")) for word in words[length:])
    return words[:length] if length and is_plain else None


@lru_cache(maxsize=4096)
def _words(command: str) -> tuple[str, ...]:
    """Findings of one check end with the same commands, and `shlex` goes letter by letter."""
    return tuple(shlex.split(command))
