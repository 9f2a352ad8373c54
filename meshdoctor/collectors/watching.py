"""Waiting until something of the mesh changes: its sources are asked to tell, not polled blindly.

Consul answers a blocking query when its catalogue or a health check changes, Docker has a stream
of events, and of each Envoy only the versions of its configuration and the health of its
endpoints are read, a few hundred bytes.
"""

import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from meshdoctor.collectors import consul, docker, envoy, ways
from meshdoctor.collectors.http import Get
from meshdoctor.collectors.interface import (
    CollectError,
    Deadline,
    Options,
    Recorder,
    Run,
    Workers,
)
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.interface import NOT_JSON
from meshdoctor.snapshot import Snapshot

_FOLLOWED: Final = (
    ("/v1/catalog/services", "Consul's catalogue changed"),
    ("/v1/health/state/any", "a health check in Consul changed"),
)
_WAIT: Final = 60
"""Seconds that Consul holds a blocking query; it adds up to a sixteenth of its own."""
_EVER: Final = 10.0**9
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_SETTLED: Final = 0.5
"""One change comes with others: so long nothing more must be told, ..."""
_LONGEST_UNSETTLED: Final = 5.0
"""... and so long it is waited for that."""
_POLL: Final = 1.0
_SHARE: Final = 10
"""Envoy answers on the thread that serves its configuration: at most this part of the time."""

_TELLING: Final = r"\.version$|membership_(healthy|total)$"
_TELLING_STATS: Final = re.compile(_TELLING)
_STATS: Final = f"/stats?format=json&filter={quote(_TELLING)}"


class Watcher:
    """Tells when something changed. Its threads end with the program, or when it is closed."""

    def __init__(self, options: Options) -> None:
        self._options = options
        # A blocking query is quiet for as long as it was asked to be.
        patient = Deadline(_EVER, _WAIT * 1.25 + options.request_timeout)
        brief = Deadline(_EVER, options.request_timeout)
        self._deadlines = (patient, brief)
        # Its runs record nothing; workers are for collecting.
        nobody = Workers(1)
        nobody.stop()
        self._patient = Run(options, patient, nobody, Recorder(), _unheard)
        self._brief = replace(self._patient, deadline=brief)
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._seen: tuple[Snapshot, tuple[Container, ...]] = Snapshot({}), ()
        self._started = False

    def look_at(self, snapshot: Snapshot) -> None:
        """Watch what is in `snapshot`: its containers, and its Envoys."""
        self._seen = snapshot, docker.containers_of(snapshot)
        if not self._started:
            self._started = True
            if self._options.engines:
                # Whose Consul and whose Envoys they are, only a run tells: these are looked at
                # again whenever one of the engines tells of a change, and now and then.
                for each in self._options.engines:
                    self._keep(partial(self._docker, self._options.of(each)))
                return
            for path, said in _FOLLOWED:
                self._keep(partial(self._consul, path, said))
            self._keep(partial(self._docker, self._options))
            self._keep(self._envoys)

    def wait(self, seconds: float) -> tuple[str, ...]:
        """What changed, once it has settled; () where nothing told of a change in `seconds`.

        Returns early, with (), when the sources begin to be watched: look again then.
        """
        said: dict[str, None] = {}
        try:
            said[self._told.get(timeout=max(0.0, seconds))] = None
            begun = time.monotonic()
            while time.monotonic() - begun < _LONGEST_UNSETTLED:
                said[self._told.get(timeout=_SETTLED)] = None
        except queue.Empty:
            pass
        return tuple(filter(None, said))

    def close(self) -> None:
        """Ask nothing more."""
        self._closed.set()
        for deadline in self._deadlines:
            deadline.end()
        self._patient.closing.close()

    def _keep(self, follow: Callable[[], Iterable[str]]) -> None:
        name = f"collector-watch-{threading.active_count()}"
        threading.Thread(target=self._follow, args=(follow,), name=name, daemon=True).start()

    def _follow(self, follow: Callable[[], Iterable[str]]) -> None:
        """Tell what `follow` gives; where it fails, once, and again when it is there again."""
        pause = _FIRST_PAUSE
        # What never answered is in the evidence as missing, and is no change.
        failed = has_answered = False
        while not self._closed.is_set():
            try:
                for said in follow():
                    if failed:
                        self._told.put("a source that had failed answers again")
                    elif said or not has_answered:
                        # Once when it begins: what changed between the look and now.
                        self._told.put(said)
                    failed, has_answered, pause = False, True, _FIRST_PAUSE
                    if self._closed.is_set():
                        return
            except CollectError as error:
                if not failed and has_answered:
                    self._told.put(str(error))
                failed = True
            self._closed.wait(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)

    def _consul(self, path: str, said: str) -> Iterator[str]:
        _, containers = self._seen
        engine = None
        if containers:
            engine = docker.connect(self._options, self._brief.deadline)
        try:
            known: int | None = None
            begun = time.monotonic()
            for index in consul.follow(self._patient, engine, containers, path, _WAIT):
                yield "" if known is None or index == known else said
                known = index
                if known is None or time.monotonic() - begun < _POLL:
                    # What does not block, or changes all the time, must not be asked all the time.
                    self._closed.wait(_POLL)
                begun = time.monotonic()
        finally:
            if engine is not None:
                engine.close()

    def _docker(self, options: Options) -> Iterator[str]:
        engine = docker.connect(options, self._brief.deadline)
        try:
            for event in engine.events():
                yield f"Docker: {event}" if event else ""
        finally:
            engine.close()

    def _envoys(self) -> Iterator[str]:
        """One after the other, and no more often than leaves them time for their work."""
        seen: dict[str, object] = {}
        known: dict[str, ways.Way] = {}
        while True:
            begun = time.monotonic()
            snapshot, containers = self._seen
            engine = docker.connect(self._options, self._brief.deadline) if containers else None
            try:
                found = envoy.ways_to_all(self._brief, engine, containers, snapshot)
                for name, possible in found.items():
                    versions = _versions(name, possible, known)
                    if name in seen and seen[name] != versions:
                        what = "has another configuration" if versions else "does not answer"
                        yield f"{name} {what}"
                    seen[name] = versions
            finally:
                if engine is not None:
                    engine.close()
            yield ""
            self._closed.wait(max(_POLL, _SHARE * (time.monotonic() - begun)))


def _versions(
    name: str, possible: Iterator[ways.Way | envoy.Tried], known: dict[str, ways.Way]
) -> frozenset[tuple[str, int]]:
    """What tells one configuration from another; empty where nobody answers."""
    tried = [known[name]] if name in known else []
    for way in (*tried, *possible):
        if isinstance(way, envoy.Tried):
            continue
        try:
            versions = way.read(_read_versions, ahead=[_STATS])
        except CollectError:
            known.pop(name, None)
            continue
        known[name] = way
        return versions
    return frozenset()


class _Stat(msgspec.Struct):
    name: str = ""
    value: int = 0


class _Stats(msgspec.Struct):
    stats: list[msgspec.Raw] = []


def _read_versions(get: Get) -> frozenset[tuple[str, int]]:
    """An Envoy that does not know the filter gives all: only those that tell are looked at."""
    found = [("", 0)]
    try:
        listed = msgspec.json.decode(get(_STATS), type=_Stats).stats
    except NOT_JSON:
        return frozenset(found)
    for each in listed:
        try:
            stat = msgspec.json.decode(each, type=_Stat)
        except NOT_JSON:
            continue
        if _TELLING_STATS.search(stat.name):
            found.append((stat.name, stat.value))
    return frozenset(found)


def _unheard(_message: str) -> None:
    pass
