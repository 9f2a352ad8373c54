"""Calls that proxies of equal configuration decide alike, each followed once for all of them."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec

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
from meshdoctor.routing.model import Call, UndecidedError, Unknown, Walk

K = TypeVar("K")
V = TypeVar("V")

Question = tuple[str, Any]
"""What a walk looks up in a proxy's configuration: a section, and a key of that section's kind."""

_MISSING: Final = 0
"""The answer where a proxy has nothing of the kind; no fact has this id."""


class Reader(msgspec.Struct, frozen=True):
    """One proxy as walks see it.

    `shape` stands for what every walk through it asks for: its nat rules, and its listeners that
    use the original destination. Proxies where these are equal have the same.
    """

    config: Configuration
    nat: NatTable | None
    shape: int

    def answer(self, question: Question) -> int:
        """The identity of the fact that the question leads to: the decoder shares equal facts."""
        section, sought = question
        config = self.config
        match section:
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
                held = config.endpoints_of(config.clusters[sought])
                return _MISSING if held is None else id(held.endpoints)
            case "port":
                found = config.listening_on(sought)
                return _MISSING if found is None else id(found.listener)
            case _:
                return int(sought in config.proxy.held)


class SharedWalks:
    """Walks, each followed once for all proxies that answer alike what it asks.

    A walk asks a proxy's configuration one thing after the other, and what it asks next follows
    from the answers. So the walks of a call form a tree, a question at each fork; a proxy whose
    answers lead to a leaf needs no walk of its own. `followed` counts those that were walked.
    """

    def __init__(self) -> None:
        self.followed = 0
        self._roots: dict[tuple[Call, int, bool], _Fork] = {}
        self._shapes: dict[object, int] = {}

    def reader(self, proxy: EnvoyProxy, nat: NatTable | None) -> Reader:
        """The proxy as walks see it; facts must live as long as these walks do."""
        config = configuration(proxy)
        takes_all = sorted(config.original_destination, key=lambda entry: entry.pointer)
        shape = (
            None if nat is None else (tuple(sorted(nat.policies.items())), nat.rules),
            tuple(id(entry.listener) for entry in takes_all),
        )
        return Reader(config, nat, self._shapes.setdefault(shape, len(self._shapes)))

    def walk(self, reader: Reader, call: Call, own_addresses: frozenset[str]) -> Walk:
        """The walk of `call` through this proxy, or through another that decides it alike.

        The hops are the same but for where they are written, which may be another's document.
        """
        own = call.address in own_addresses
        fork = self._roots.setdefault((call, reader.shape, own), _Fork())
        while fork.question is not None:
            below = fork.below.get(reader.answer(fork.question))
            if below is None:
                break
            fork = below
        if fork.walk is not None:
            return fork.walk
        return self._follow(reader, call, own=own)

    def _follow(self, reader: Reader, call: Call, *, own: bool) -> Walk:
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
        if not (isinstance(walk.outcome, Unknown) and walk.proxy in walk.outcome.why):
            fork = self._roots[call, reader.shape, own]
            for question in asked:
                fork.question = question
                fork = fork.below.setdefault(reader.answer(question), _Fork())
            fork.walk = walk
        return walk


class _Fork(msgspec.Struct):
    """A question and where its answers lead, or the walk at the end of them."""

    question: Question | None = None
    below: "dict[int, _Fork]" = msgspec.field(default_factory=dict)
    walk: Walk | None = None


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
        if section not in self.proxy.held:
            raise UndecidedError(f"the {section} of {self.proxy.name} are not known completely")


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
