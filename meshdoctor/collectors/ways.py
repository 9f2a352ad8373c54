"""Ways to an HTTP port inside a container: by address, through its namespace, by exec in it."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Final, Protocol, TypeVar

import msgspec

from meshdoctor.collectors import namespace
from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.http import Get, HttpSource
from meshdoctor.collectors.interface import (
    AnswerError,
    CollectError,
    Deadline,
    HungError,
    NotAnsweringError,
    OutOfTimeError,
    Output,
    RefusedError,
)
from meshdoctor.collectors.tools import TOOLS, Batch, Place, Tool
from meshdoctor.evidence.addresses import host_port
from meshdoctor.evidence.docker import EVERYWHERE, Container

P = TypeVar("P")
T = TypeVar("T")


class Way(Protocol):
    """One way to one server, which may be at several places on it, tried in turn.

    `name` is what `access.json` calls it.
    """

    @property
    def name(self) -> str: ...

    @property
    def tells_ends(self) -> bool:
        """Whether it tells an answer that broke off from a whole one, as HTTP does."""
        ...

    def read(self, reading: Callable[[Get], T], ahead: Sequence[str] = ()) -> T:
        """What `reading` makes of the pages of the first place where it succeeds.

        `ahead` are the paths that it will ask for where all goes well, in its order. A way on
        which each question is dear brings their pages together; the first tells it who is there.

        Raises CollectError; a HungError at once, for whoever hangs was found.
        """
        ...


def _first(
    places: Iterable[P],
    read_at: Callable[[P], T],
    final: type[CollectError] = HungError,
) -> T:
    failures: dict[str, list[str]] = {}
    for place in places:
        try:
            return read_at(place)
        except (final, HungError, OutOfTimeError):
            raise
        except CollectError as error:
            failures.setdefault(str(error), []).append(str(place))
    said = (f"{reason} ({', '.join(where)})" for reason, where in failures.items())
    raise NotAnsweringError("; ".join(said) or "nothing to try")


class ByAddress(msgspec.Struct, frozen=True):
    """A plain connection from this machine."""

    urls: Sequence[str]
    deadline: Deadline
    name: str = "address"
    tells_ends: ClassVar[bool] = True

    def read(self, reading: Callable[[Get], T], ahead: Sequence[str] = ()) -> T:  # noqa: ARG002 # asked one by one
        def at(url: str) -> T:
            with HttpSource(url, self.deadline) as source:
                return reading(source.get)

        return _first(self.urls, at)


class ByNamespace(msgspec.Struct, frozen=True):
    """A connection to localhost from within the container's network namespace."""

    container: Container
    ports: Sequence[int]
    deadline: Deadline
    host: str = "127.0.0.1"
    name: str = "namespace"
    tells_ends: ClassVar[bool] = True

    def read(self, reading: Callable[[Get], T], ahead: Sequence[str] = ()) -> T:  # noqa: ARG002 # asked one by one
        container = self.container
        namespace.check_reachable(container.pid, container.id, container.started_at)

        def at(port: int) -> T:
            url = f"http://{host_port(self.host, port)}"
            with HttpSource(url, self.deadline) as source:
                return reading(source.get)

        with _turn():
            # Each request is bounded by itself; this only bounds their sum.
            return namespace.within(
                container.pid, lambda: _first(self.ports, at), self.deadline.remaining()
            )


_TURNS: Final = threading.BoundedSemaphore((os.cpu_count() or 1) + 1)
_POLITE: Final = 1.0


@contextmanager
def _turn() -> Iterator[None]:
    """Wait for one of the turns on this machine's cores, but not for whoever hangs.

    Who can be entered runs here. Asked all at once, Envoys take each other's time on the cores:
    a twentieth more of it for the same pages.
    """
    waited = _TURNS.acquire(timeout=_POLITE)
    try:
        yield
    finally:
        if waited:
            _TURNS.release()


class ByProcess(msgspec.Struct, frozen=True):
    """A connection to where a process of this machine listens, in whichever namespace it is."""

    pid: int
    urls: Sequence[str]
    is_elsewhere: bool
    deadline: Deadline
    name: str = "process"
    tells_ends: ClassVar[bool] = True

    def read(self, reading: Callable[[Get], T], ahead: Sequence[str] = ()) -> T:  # noqa: ARG002 # asked one by one
        inner = ByAddress(self.urls, self.deadline)
        if not self.is_elsewhere:
            return inner.read(reading)
        remaining = self.deadline.remaining()
        return namespace.within(self.pid, lambda: inner.read(reading), remaining)


class ByExec(msgspec.Struct, frozen=True):
    """A command in the container that fetches from its localhost: whatever its image has.

    To start one costs more than what it asks for, so that what is named `ahead` comes by one.
    """

    engine: Engine
    container: str
    ports: Sequence[int]
    deadline: Deadline
    name: str = "exec"
    tells_ends: ClassVar[bool] = False

    def read(self, reading: Callable[[Get], T], ahead: Sequence[str] = ()) -> T:
        commands = _Commands(self.engine, self.container, self.deadline, ahead)
        tools = commands.begin(self.ports)
        if not tools:
            names = ", ".join(tool.program for tool in TOOLS)
            raise NotAnsweringError(f"its image has none of {names}")

        def at(port: int) -> T:
            return _first(
                tools,
                lambda tool: reading(commands.getting(tool, port)),
                # What nothing listens for, no other tool will find either.
                final=RefusedError,
            )

        return _first(self.ports, at)


class ByHelper(msgspec.Struct, frozen=True):
    """The same, in a container of the user's choice started in the same network namespace."""

    engine: Engine
    image: str
    container: str
    ports: Sequence[int]
    deadline: Deadline
    name: str = "helper"
    tells_ends: ClassVar[bool] = False

    def read(self, reading: Callable[[Get], T], ahead: Sequence[str] = ()) -> T:
        with self.engine.helper(self.image, self.container) as helper:
            return ByExec(self.engine, helper, self.ports, self.deadline).read(reading, ahead)


class _Commands:
    """What is run in one container. Answers that came ahead are kept until they are asked for."""

    def __init__(
        self, engine: Engine, container: str, deadline: Deadline, ahead: Sequence[str]
    ) -> None:
        self._engine = engine
        self._container = container
        self._deadline = deadline
        self._ahead = ahead
        self._came: dict[Place, Output | HungError] = {}
        self._asked: set[Place] = set()
        # False where there is no shell for it, or one broke off: then each page is asked alone,
        # as it is by programs that do not work in one.
        self._by_batch = True
        self._only_alone: set[str] = set()

    def begin(self, ports: Sequence[int]) -> Sequence[Tool]:
        """What there is to fetch with, found with the first pages; without a shell, all may be.

        Raises CollectError.
        """
        try:
            batch, printed = self._run(ports, self._ahead)
        except AnswerError:
            # Newer engines refuse to start what is not there, older ones report 126 or 127.
            self._by_batch = False
            return TOOLS
        if self._by_batch or batch.begun(printed):
            return batch.programs(printed)
        return TOOLS

    def getting(self, tool: Tool, port: int) -> Get:
        def get(path: str) -> bytes:
            place = Place(tool.program, port, path)
            by_batch = self._by_batch and tool.program not in self._only_alone
            if by_batch and path in self._ahead and place not in self._asked:
                self._run([port], self._ahead[self._ahead.index(path) :], tool.program)
            came = self._came.pop(place, None)
            if isinstance(came, HungError):
                raise came
            if came is None:
                command = tool.command(port, path, self._deadline.request())
                came = self._engine.execute(self._container, command)
            return tool.body(came)

        return get

    def _run(
        self, ports: Sequence[int], paths: Sequence[str], program: str = ""
    ) -> tuple[Batch, bytes]:
        """Ask for all at once, and keep what comes, even where that breaks off."""
        batch = Batch(paths)
        seconds, left = self._deadline.request(), self._deadline.remaining()
        failure = None
        try:
            output = self._engine.execute(
                self._container, batch.command(ports, seconds, left, program)
            )
            printed, self._by_batch = output.out, output.code == 0
        except CollectError as error:
            if not batch.begun(error.came):
                raise
            printed, self._by_batch, failure = error.came, False, error
        answers = batch.answers(printed)
        self._asked.update(answers)
        self._came |= {place: output for place, output in answers.items() if output is not None}
        broken = [place for place, output in answers.items() if output is None]
        self._only_alone.update(place.program for place in broken)
        if broken and isinstance(failure, HungError):
            # Asked again, it would hang again.
            self._came[broken[-1]] = failure
        return batch, printed


# ---------------------------------------------------------------- one after the other


def into(
    engine: Engine, container: Container, ports: Sequence[int], deadline: Deadline
) -> Sequence[Way]:
    """The ways to a server in a container, the cheapest first."""
    return (
        ByAddress(urls(engine, [container], ports), deadline),
        ByNamespace(container, ports, deadline),
        ByExec(engine, container.id, ports, deadline),
    )


def read(found: Iterable[Way], reading: Callable[[Get], T], ahead: Sequence[str] = ()) -> T:
    """What `reading` makes of the first way that leads there. Raises CollectError with each."""
    failures = []
    for way in found:
        try:
            return way.read(reading, ahead)
        except OutOfTimeError as error:
            failures.append(str(error))
            break
        except CollectError as error:
            failures.append(f"{way.name}: {error}")
    raise NotAnsweringError("; ".join(failures))


# ---------------------------------------------------------------- addresses


def urls(engine: Engine, containers: Iterable[Container], ports: Sequence[int]) -> list[str]:
    """Where plain HTTP may answer at one of the ports of one of the containers, each once."""
    found = [
        f"http://{address}"
        for port in ports
        for each in containers
        for address in (*published(engine, each, port), *own(engine, each, port))
    ]
    return list(dict.fromkeys(found))


def published(engine: Engine, container: Container, port: int) -> Iterator[str]:
    """Where Docker publishes a TCP port of the container, as host:port."""
    for each in container.published:
        if each.port == port and each.protocol == "tcp":
            everywhere = each.host_address in EVERYWHERE
            host = engine.host if everywhere or not engine.is_local else each.host_address
            yield host_port(host, each.host_port)


def own(engine: Engine, container: Container, port: int) -> Iterator[str]:
    """The container's own addresses, which only the engine's machine can reach, as host:port."""
    if engine.is_local and container.running:
        if container.network_mode == "host":
            yield f"127.0.0.1:{port}"
        yield from (f"{address}:{port}" for address in sorted(container.own_addresses))
