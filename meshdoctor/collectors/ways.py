"""Ways to an HTTP port inside a container: by address, through its namespace, by exec in it."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from typing import Final, Protocol, TypeVar

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
from meshdoctor.evidence import access
from meshdoctor.evidence.addresses import host_port
from meshdoctor.evidence.docker import Container

P = TypeVar("P")
T = TypeVar("T")


class Way(Protocol):
    """One way to one server, which may be at several places on it, tried in turn.

    `name` is what `access.json` calls it.
    """

    @property
    def name(self) -> str: ...

    def read(self, reading: Callable[[Get], T]) -> T:
        """What `reading` makes of the pages of the first place where it succeeds.

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

    def read(self, reading: Callable[[Get], T]) -> T:
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

    def read(self, reading: Callable[[Get], T]) -> T:
        container = self.container
        namespace.check_reachable(container.pid, container.id, container.started_at)

        def at(port: int) -> T:
            url = f"http://{host_port(self.host, port)}"
            with HttpSource(url, self.deadline) as source:
                return reading(source.get)

        # Each request is bounded by itself; this only bounds their sum.
        return namespace.within(
            container.pid, lambda: _first(self.ports, at), self.deadline.remaining()
        )


class ByProcess(msgspec.Struct, frozen=True):
    """A connection to where a process of this machine listens, in whichever namespace it is."""

    pid: int
    urls: Sequence[str]
    is_elsewhere: bool
    deadline: Deadline
    name: str = "process"

    def read(self, reading: Callable[[Get], T]) -> T:
        inner = ByAddress(self.urls, self.deadline)
        if not self.is_elsewhere:
            return inner.read(reading)
        remaining = self.deadline.remaining()
        return namespace.within(self.pid, lambda: inner.read(reading), remaining)


class ByExec(msgspec.Struct, frozen=True):
    """A command in the container that fetches from its localhost: whatever its image has."""

    engine: Engine
    container: str
    ports: Sequence[int]
    deadline: Deadline
    name: str = "exec"

    def read(self, reading: Callable[[Get], T]) -> T:
        tools = _tools(self.engine, self.container)
        if not tools:
            names = ", ".join(tool.program for tool in TOOLS)
            raise NotAnsweringError(f"its image has none of {names}")

        def at(port: int) -> T:
            return _first(
                tools,
                lambda tool: reading(self._getting(tool, port)),
                # What nothing listens for, no other tool will find either.
                final=RefusedError,
            )

        return _first(self.ports, at)

    def _getting(self, tool: "Tool", port: int) -> Get:
        def get(path: str) -> bytes:
            command = tool.command(port, path, self.deadline.request())
            return tool.body(self.engine.execute(self.container, command))

        return get


class ByHelper(msgspec.Struct, frozen=True):
    """The same, in a container of the user's choice started in the same network namespace."""

    engine: Engine
    image: str
    container: str
    ports: Sequence[int]
    deadline: Deadline
    name: str = "helper"

    def read(self, reading: Callable[[Get], T]) -> T:
        with self.engine.helper(self.image, self.container) as helper:
            return ByExec(self.engine, helper, self.ports, self.deadline).read(reading)


# ---------------------------------------------------------------- what images have


class Tool(msgspec.Struct, frozen=True):
    """A program that can fetch, how it is asked, and which exit codes say what went wrong."""

    program: str
    command: Callable[[int, str, float], Sequence[str]]
    refused: frozenset[int] = frozenset()
    hung: frozenset[int] = frozenset()
    # True where the whole answer comes out, head and all, and not only its body.
    raw: bool = False

    def __str__(self) -> str:
        return self.program

    def body(self, output: Output) -> bytes:
        """The body of the answer. Raises CollectError for what the exit code says."""
        said = output.err.splitlines()[-1][:160] if output.err else f"exit code {output.code}"
        if output.code in self.hung or (output.code != 0 and "timed out" in output.err):
            raise HungError(f"{access.HANGS} did not answer ({said})")
        if output.code in self.refused or (output.code != 0 and "refused" in output.err):
            raise RefusedError(access.REFUSED)
        if output.code in _NOT_STARTED:
            raise NotAnsweringError(said)
        if output.code != 0:
            raise AnswerError(said)
        return _parse(output.out) if self.raw else output.out


# What Docker reports for a command that is not there, or that may not be run.
_NOT_STARTED: Final = frozenset({-1, 126, 127, 128})


def _curl(port: int, path: str, seconds: float) -> Sequence[str]:
    limit = ["--max-time", f"{seconds:.0f}"] if seconds >= 1 else ["--max-time", "1"]
    url = f"http://127.0.0.1:{port}{path}"
    return ["curl", "-sS", "-f", "-g", "--noproxy", "*", *limit, url]


def _wget(port: int, path: str, seconds: float) -> Sequence[str]:
    # These are the options that GNU's and busybox's have in common; GNU's would try 20 times.
    url = f"http://127.0.0.1:{port}{path}"
    return ["wget", "-q", "-t", "1", "-T", f"{max(1, round(seconds))}", "-O", "-", url]


def _pilot_agent(_port: int, path: str, _seconds: float) -> Sequence[str]:
    return ["pilot-agent", "request", "GET", path.removeprefix("/")]


def _bash(port: int, path: str, seconds: float) -> Sequence[str]:
    # To printf a percent sign begins a format.
    path = path.replace("%", "%%")
    request = f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n"
    script = f"exec 3<>/dev/tcp/127.0.0.1/{port} || exit 7; printf '{request}' >&3; cat <&3"
    return ["timeout", f"{max(1, round(seconds))}", "bash", "-c", script]


def _python(port: int, path: str, seconds: float) -> Sequence[str]:
    script = (
        "import http.client, sys\n"
        f"server = http.client.HTTPConnection('127.0.0.1', {port}, timeout={seconds:.0f} or 1)\n"
        "try:\n"
        f"    server.request('GET', {path!r})\n"
        "    answer = server.getresponse()\n"
        "    if answer.status != 200:\n"
        "        sys.exit(f'{answer.status} {answer.reason}')\n"
        "    sys.stdout.buffer.write(answer.read())\n"
        "except TimeoutError as error:\n"
        "    print(error, file=sys.stderr); sys.exit(28)\n"
        "except OSError as error:\n"
        "    print(error, file=sys.stderr); sys.exit(7)\n"
    )
    return ["python3", "-c", script]


TOOLS: Final = (
    # curl: 7 no connection, 28 too late.
    Tool("curl", _curl, refused=frozenset({7}), hung=frozenset({28})),
    # GNU's says 4 for every fault of the network, busybox's 1 for every fault: words must tell.
    Tool("wget", _wget),
    Tool("pilot-agent", _pilot_agent),
    Tool("python3", _python, refused=frozenset({7}), hung=frozenset({28})),
    # timeout: 124, busybox's 143.
    Tool("bash", _bash, refused=frozenset({7}), hung=frozenset({124, 143}), raw=True),
)
"""In the order in which they are tried; what bash prints must be taken apart here."""


def _tools(engine: Engine, container: str) -> Sequence[Tool]:
    """What there is, found with one exec where there is a shell; without one, all may be."""
    names = " ".join(tool.program for tool in TOOLS)
    probe = f"for each in {names}; do command -v $each >/dev/null && echo $each; done; exit 0"
    try:
        output = engine.execute(container, ["sh", "-c", probe])
    except AnswerError:
        # Newer engines refuse to start what is not there, older ones report 126 or 127.
        return TOOLS
    if output.code != 0:
        return TOOLS
    present = set(output.out.decode("utf-8", "replace").split("\n"))
    there = {word.rpartition("/")[2] for word in present}
    return tuple(tool for tool in TOOLS if tool.program in there)


class _Recorded:
    """What `HTTPResponse` asks of a socket, over bytes that are here already."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._answer)


def _parse(answer: bytes) -> bytes:
    """The body of a whole HTTP answer, its length and chunks checked."""
    response = HTTPResponse(_Recorded(answer))  # type: ignore[arg-type] # it only calls makefile
    try:
        response.begin()
        body = response.read()
    except (HTTPException, ValueError) as error:
        raise AnswerError(f"its answer is no whole HTTP answer: {error!r}") from error
    if response.status != 200:  # noqa: PLR2004 # OK
        raise AnswerError(f"it answers {response.status} {response.reason}", response.status)
    return body


# ---------------------------------------------------------------- one after the other


def into(
    engine: Engine, container: Container, ports: Sequence[int], deadline: Deadline
) -> Sequence[Way]:
    """The ways to a server in a container, the cheapest first."""
    addresses = [
        f"http://{address}"
        for port in ports
        for address in (*published(engine, container, port), *own(engine, container, port))
    ]
    return (
        ByAddress(addresses, deadline),
        ByNamespace(container, ports, deadline),
        ByExec(engine, container.id, ports, deadline),
    )


def read(found: Iterable[Way], reading: Callable[[Get], T]) -> T:
    """What `reading` makes of the first way that leads there. Raises CollectError with each."""
    failures = []
    for way in found:
        try:
            return way.read(reading)
        except OutOfTimeError as error:
            failures.append(str(error))
            break
        except CollectError as error:
            failures.append(f"{way.name}: {error}")
    raise NotAnsweringError("; ".join(failures))


# ---------------------------------------------------------------- addresses


def published(engine: Engine, container: Container, port: int) -> Iterator[str]:
    """Where Docker publishes a TCP port of the container, as host:port."""
    for each in container.published:
        if each.port == port and each.protocol == "tcp":
            everywhere = each.host_address in {"", "0.0.0.0", "::"}  # noqa: S104 # not bound here
            host = engine.host if everywhere or not engine.is_local else each.host_address
            yield host_port(host, each.host_port)


def own(engine: Engine, container: Container, port: int) -> Iterator[str]:
    """The container's own addresses, which only the engine's machine can reach, as host:port."""
    if engine.is_local and container.running:
        if container.network_mode == "host":
            yield f"127.0.0.1:{port}"
        addresses = {*container.addresses.values(), container.bridge_address} - {""}
        yield from (f"{address}:{port}" for address in sorted(addresses))
