"""The nat rules of the sidecars' network namespaces, as `iptables-save -t nat` prints them."""

import shlex
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import ClassVar, Final, Self

import msgspec

from meshdoctor.evidence import layout
from meshdoctor.evidence.interface import Documents, Problem, not_recorded

_QUOTES: Final = frozenset("\"'\\")

_OPTIONS: Final = {
    "-p": "protocol",
    "--protocol": "protocol",
    "-s": "source",
    "--source": "source",
    "-d": "destination",
    "--destination": "destination",
    "-i": "in_interface",
    "--in-interface": "in_interface",
    "-o": "out_interface",
    "--out-interface": "out_interface",
    "--dport": "ports",
    "--destination-port": "ports",
    "--dports": "ports",
    "--destination-ports": "ports",
    "--uid-owner": "uid",
    "--gid-owner": "gid",
    "-j": "target",
    "--jump": "target",
    "-g": "target",
    "--goto": "target",
    "--to-ports": "to",
    "--to-destination": "to",
}


class NatRule(msgspec.Struct, frozen=True):
    """One rule. `negated` names the matches written with `!`; `text` is the line itself.

    `unknown` holds options that this model does not read: such a rule may decide otherwise.
    """

    chain: str
    text: str
    line: int
    protocol: str = ""
    source: str = ""
    destination: str = ""
    in_interface: str = ""
    out_interface: str = ""
    ports: str = ""
    uid: str = ""
    gid: str = ""
    target: str = ""
    to: str = ""
    negated: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()


class NatTable(msgspec.Struct, frozen=True):
    """The nat table of one namespace. `document` is where it stands."""

    document: str
    policies: Mapping[str, str]
    rules: tuple[NatRule, ...]

    def chain(self, name: str) -> tuple[NatRule, ...]:
        """The rules of one chain, in order."""
        return tuple(rule for rule in self.rules if rule.chain == name)

    def reachable(self, start: str) -> Iterator[NatRule]:
        """The rules that a packet of chain `start` may meet, jumps followed, each once."""
        by_chain: dict[str, list[NatRule]] = {}
        for rule in self.rules:
            by_chain.setdefault(rule.chain, []).append(rule)
        seen: set[str] = set()
        chains = deque([start])
        while chains:
            name = chains.popleft()
            if name in seen:
                continue
            seen.add(name)
            for rule in by_chain.get(name, ()):
                yield rule
                if rule.target in self.policies:
                    chains.append(rule.target)


class NetfilterRules(msgspec.Struct, frozen=True):
    """The nat tables that could be read, by sidecar name."""

    title: ClassVar[str] = "the nat rules of the sidecars' namespaces"
    hint: ClassVar[str] = (
        "run meshdoctor as root on the Docker host, or use sidecar images that hold iptables-save"
    )

    tables: Mapping[str, NatTable]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def load(cls, documents: Documents) -> Self:
        """Parse netfilter/*. Raises MissingEvidenceError where nothing was recorded."""
        names = documents.names("netfilter/")
        if not names:
            raise not_recorded(documents, "netfilter/", "no nat rules were recorded", cls.hint)
        tables: dict[str, NatTable] = {}
        problems: list[Problem] = []
        for name in names:
            sidecar = layout.name_of(name.removeprefix("netfilter/").removesuffix(".nat.txt"))
            table = parse(name, documents.read(name).decode("utf-8", "replace"))
            if table is None:
                problems.append(Problem(name, "not what `iptables-save -t nat` prints"))
            else:
                tables[sidecar] = table
        return cls(tables, tuple(problems))


def parse(document: str, text: str) -> NatTable | None:
    """The nat table in `text`, or None where `text` is not what iptables-save prints.

    A kernel without any nat table gives no output at all: that is an empty table.
    """
    policies: dict[str, str] = {}
    rules: list[NatRule] = []
    inside = False
    recognised = not text.strip()
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("*"):
            inside = line == "*nat"
            recognised = True
        elif line.startswith("#"):
            recognised = recognised or "iptables-save" in line
        elif inside and line.startswith(":"):
            chain, _, policy = line[1:].partition(" ")
            policies[chain] = policy.partition(" ")[0]
        elif inside and line.startswith("-A "):
            rules.append(_rule(line, number))
    return NatTable(document, policies, tuple(rules)) if recognised else None


def _rule(line: str, number: int) -> NatRule:
    words = line.split()
    # Few rules quote anything, and to read them as a shell would takes fifty times as long.
    if not _QUOTES.isdisjoint(line):
        with suppress(ValueError):
            words = shlex.split(line)
    found: dict[str, str] = {}
    negated: set[str] = set()
    unknown: list[str] = []
    negate = False
    index = 2
    while index < len(words):
        word = words[index]
        value = words[index + 1] if index + 1 < len(words) else ""
        index += 1
        if word == "!":
            negate = True
            continue
        name = _OPTIONS.get(word)
        if name is not None:
            found[name] = value
            if negate:
                negated.add(name)
            index += 1
        elif word in ("-m", "--match", "--comment"):
            index += 1
        elif word.startswith("-"):
            unknown.append(word)
        negate = False
    chain = words[1] if len(words) > 1 else ""
    return NatRule(
        chain=chain,
        text=line,
        line=number,
        negated=frozenset(negated),
        unknown=tuple(unknown),
        **found,
    )
