"""Calls that proxies of equal configuration decide alike, each followed once for all of them."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from meshdoctor.evidence.envoy import (
    ClusterEndpoints,
    ClusterEntry,
    EnvoyProxy,
    ListenerEntry,
    RouteEntry,
)
from meshdoctor.evidence.netfilter import NatTable
from meshdoctor.routing.configuration import Configuration, configuration
from meshdoctor.routing.follow import follow
from meshdoctor.routing.model import Call, Unknown, Walk
from meshdoctor.routing.version import injects_tls_inspector, since_1_39

K = TypeVar("K")
V = TypeVar("V")

Question = tuple[str, Any]
"""What a walk looks up in a proxy's configuration: a section, and a key of that section's kind."""

_MISSING: Final = 0
"""The answer where a proxy has nothing of the kind; no fact has this id."""


class Reader(msgspec.Struct, frozen=True):
    """One proxy as walks see it.

    `shape` stands for what every walk through it asks for: its nat rules, its listeners that use
    the original destination, and what its version changes. Proxies where these are equal have the
    same.
    """

    config: Configuration
    nat: NatTable | None
    shape: int

    def answer(self, question: Question) -> Hashable:
        """The identity of the fact that the question leads to: the decoder shares equal facts."""
        section, sought = question
        config = self.config
        match section:
            case "listeners":
                # Of many addresses a proxy has listeners at few, and mostly at none.
                held = sought & config.listeners.keys()
                return frozenset((each, id(config.listeners[each].listener)) for each in held)
            case "listener":
                listener = config.listeners.get(sought)
                return _MISSING if listener is None else id(listener.listener)
            case "route":
                route = config.routes.get(sought)
                return _MISSING if route is None else id(route.route_config)
            case "cluster":
                cluster = config.clusters.get(sought)
                return _MISSING if cluster is None else id(cluster.cluster)
            case "endpoints":
                endpoints = config.endpoints_held(config.clusters[sought])
                return _MISSING if endpoints is None else id(endpoints)
            case "port":
                found = config.listening_on(sought)
                return _MISSING if found is None else id(found.listener)
            case _:
                return int(sought in config.proxy.held)


class Together(msgspec.Struct, frozen=True):
    """The calls to one target, and their addresses."""

    calls: tuple[Call, ...]
    addresses: frozenset[str]


class SharedWalks:
    """Walks, each followed once for all proxies that answer alike what it asks.

    A walk asks a proxy's configuration one thing after the other, and what it asks next follows
    from the answers. So the walks of a call form a tree, a question at each fork; a proxy whose
    answers lead to a leaf needs no walk of its own. `followed` counts those that were walked.

    The walks of all the calls to one target form such trees as well, in which what several of
    them ask is asked once, and whether there are listeners at their addresses at one go.
    """

    def __init__(self) -> None:
        self.followed = 0
        self._roots: dict[tuple[Call, int, bool], _Fork] = {}
        # By identity of the calls, with them, so that it stays theirs.
        self._together: dict[tuple[int, int, frozenset[str]], tuple[Together, _Fork]] = {}
        self._same: dict[tuple[int, ...], tuple[Walk, ...]] = {}
        self._shapes: dict[object, int] = {}

    def reader(self, proxy: EnvoyProxy, nat: NatTable | None) -> Reader:
        """The proxy as walks see it; facts must live as long as these walks do."""
        config = configuration(proxy)
        takes_all = sorted(config.original_destination, key=lambda entry: entry.pointer)
        shape = (
            None if nat is None else (tuple(sorted(nat.policies.items())), nat.rules),
            tuple(id(entry.listener) for entry in takes_all),
            since_1_39(proxy),
            injects_tls_inspector(proxy),
        )
        return Reader(config, nat, self._shapes.setdefault(shape, len(self._shapes)))

    def walks(
        self, reader: Reader, calls: "Together", own_addresses: frozenset[str]
    ) -> tuple[Walk, ...]:
        """The walk of each call, as `walk` gives it; proxies that decide all alike share them.

        A walk that ends in Unknown is followed again with the caller's own address, which few
        configurations ask for. `calls` are the same object for the same target.
        """
        root = self._root(reader, calls, own_addresses)
        fork, _ = root.end(reader)
        if fork is not None and fork.walks is not None:
            return fork.walks
        found, questions = self._one_by_one(reader, calls.calls, own_addresses)
        if questions is None:
            return self._same.setdefault(tuple(map(id, found)), found)
        root.leaf(reader, _gathered(questions)).walks = found
        return found

    def asked(
        self, reader: Reader, calls: "Together", own_addresses: frozenset[str]
    ) -> Sequence[Question] | None:
        """What the walks that `walks` gave asked of the proxy: who answers alike has the same.

        None where they hold for this caller alone.
        """
        fork, questions = self._root(reader, calls, own_addresses).end(reader)
        return None if fork is None or fork.walks is None else questions

    def _root(self, reader: Reader, calls: "Together", own_addresses: frozenset[str]) -> "_Fork":
        own = own_addresses & calls.addresses
        return self._together.setdefault((id(calls), reader.shape, own), (calls, _Fork()))[1]

    def _one_by_one(
        self, reader: Reader, calls: tuple[Call, ...], own_addresses: frozenset[str]
    ) -> tuple[tuple[Walk, ...], "dict[Question, None] | None"]:
        """The walks, and what they asked; None where one holds for this caller alone."""
        questions: dict[Question, None] | None = {}
        found = []
        for call in calls:
            walk, asked = self._walk(reader, call, own_addresses)
            if isinstance(walk.outcome, Unknown):
                asked = None
                if own_addresses:
                    known = replace(call, source_address=min(own_addresses))
                    walk, _ = self._walk(reader, known, own_addresses)
            found.append(walk)
            if questions is not None:
                questions = None if asked is None else questions | asked
        return tuple(found), questions

    def walk(self, reader: Reader, call: Call, own_addresses: frozenset[str]) -> Walk:
        """The walk of `call` through this proxy, or through another that decides it alike.

        The hops are the same but for where they are written, which may be another's document.
        """
        return self._walk(reader, call, own_addresses)[0]

    def _walk(
        self, reader: Reader, call: Call, own_addresses: frozenset[str]
    ) -> "tuple[Walk, dict[Question, None] | None]":
        """The walk, and what it asked, None where it holds for this proxy alone."""
        own = call.address in own_addresses
        fork = self._roots.setdefault((call, reader.shape, own), _Fork())
        asked: dict[Question, None] = {}
        while fork.question is not None:
            asked[fork.question] = None
            below = fork.below.get(reader.answer(fork.question))
            if below is None:
                break
            fork = below
        if fork.walks is not None:
            return fork.walks[0], asked
        return self._follow(reader, call, own=own)

    def _follow(
        self, reader: Reader, call: Call, *, own: bool
    ) -> "tuple[Walk, dict[Question, None] | None]":
        self.followed += 1
        asked: dict[Question, None] = {}
        walk = follow(
            reader.config.proxy,
            call,
            nat=reader.nat,
            own_addresses=frozenset({call.address}) if own else frozenset(),
            config=_watched(reader.config, asked),
        )
        # What cannot be told of one proxy is said in its name.
        if isinstance(walk.outcome, Unknown) and walk.proxy in walk.outcome.why:
            return walk, None
        self._roots[call, reader.shape, own].leaf(reader, asked).walks = (walk,)
        return walk, asked


class _Fork(msgspec.Struct):
    """A question and where its answers lead, or the walks at the end of them."""

    question: Question | None = None
    below: "dict[Hashable, _Fork]" = msgspec.field(default_factory=dict)
    walks: tuple[Walk, ...] | None = None

    def end(self, reader: Reader) -> "tuple[_Fork | None, Sequence[Question]]":
        """Where the proxy's answers lead, None where nobody came yet; and what was asked."""
        fork: _Fork | None = self
        questions = []
        while fork is not None and fork.question is not None:
            questions.append(fork.question)
            fork = fork.below.get(reader.answer(fork.question))
        return fork, questions

    def leaf(self, reader: Reader, questions: Iterable[Question]) -> "_Fork":
        """The fork at the end of the answers to these questions, behind those asked here."""
        fork = self
        asked = set()
        while fork.question is not None:
            asked.add(fork.question)
            fork = fork.below.setdefault(reader.answer(fork.question), _Fork())
        for question in questions:
            if question not in asked:
                fork.question = question
                fork = fork.below.setdefault(reader.answer(question), _Fork())
        return fork


def _gathered(questions: Mapping[Question, None]) -> Iterator[Question]:
    """The same questions, those for one listener each put together."""
    keys = frozenset(sought for section, sought in questions if section == "listener")
    if keys:
        yield "listeners", keys
    yield from (question for question in questions if question[0] != "listener")


# ---------------------------------------------------------------- what a walk asks


class _Asked(Mapping[K, V]):
    """A section that notes what is looked up in it."""

    __slots__ = ("_asked", "_held", "_section")

    def __init__(self, section: str, held: Mapping[K, V], asked: dict[Question, None]) -> None:
        self._section: Final = section
        self._held: Final = held
        self._asked: Final = asked

    def __getitem__(self, key: K) -> V:
        self._asked[self._section, key] = None
        return self._held[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


class _Watched(Configuration, frozen=True):
    """A configuration that notes what is asked of it, and how it is `really`."""

    really: Configuration
    asked: dict[Question, None]

    def listening_on(self, port: int) -> ListenerEntry | None:
        self.asked["port", port] = None
        return self.really.listening_on(port)

    def endpoints_of(self, entry: ClusterEntry) -> ClusterEndpoints | None:
        self.asked["endpoints", entry.cluster.name] = None
        return self.really.endpoints_of(entry)

    def need(self, section: str) -> None:
        self.asked["held", section] = None
        self.really.need(section)


def _watched(config: Configuration, asked: dict[Question, None]) -> Configuration:
    listeners: Mapping[tuple[str, int], ListenerEntry] = _Asked(
        "listener", config.listeners, asked
    )
    routes: Mapping[str, RouteEntry] = _Asked("route", config.routes, asked)
    clusters: Mapping[str, ClusterEntry] = _Asked("cluster", config.clusters, asked)
    return _Watched(
        proxy=config.proxy,
        listeners=listeners,
        original_destination=config.original_destination,
        routes=routes,
        clusters=clusters,
        really=config,
        asked=asked,
    )
