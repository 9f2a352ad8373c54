"""One GET as an application sends it, from inside its network namespace or its container."""

import io
import os
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from http.client import HTTPException, HTTPResponse, RemoteDisconnected
from typing import Final, Protocol

import dns.exception
import dns.resolver
import msgspec
from msgspec.structs import replace

from meshdoctor.collectors import namespace
from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.interface import (
    AnswerError,
    Deadline,
    HungError,
    NotAnsweringError,
    Output,
)
from meshdoctor.collectors.tools import response_of, whole_seconds
from meshdoctor.evidence.addresses import bracketed, host_port
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.probe import AddressSource, Failure
from meshdoctor.kinds import istio_consul

PROXY_UID: Final = istio_consul.PROXY_UID
"""A call by this user would pass the redirect, so it would not be what the application calls."""

MOST_OF_A_BODY: Final = 64 * 2**10
"""So much of an answer is read, in bytes."""

_RESOLVING: Final = 3.0
"""Seconds in which a name must resolve: longer than name servers take, where there are any."""
_RESOLVING_AGAIN: Final = 1.0
"""The same, where a name server has been silent already."""
_LONGEST_FILE: Final = 64 * 2**10


class Question(msgspec.Struct, frozen=True):
    """One request: `host` is the Host header.

    `name` is what the application resolves, "" where the URL has an address; `addresses` are
    that address, or what Consul has for the name.
    """

    name: str
    port: int
    host: str
    path: str
    addresses: tuple[str, ...]

    @property
    def raw(self) -> bytes:
        """The request, byte for byte."""
        return (
            f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nUser-Agent: meshdoctor-probe\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n"
        ).encode()


class Asked(msgspec.Struct, frozen=True):
    """What one request met. `status` is None where no HTTP answer came: see `failure`."""

    question: Question
    addresses_from: AddressSource
    resolved: tuple[str, ...] = ()
    resolution: str = ""
    connected: str = ""
    status: int | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    whole: bool = True
    failure: Failure = Failure.NONE
    error: str = ""


class Asker(Protocol):
    """One way to ask as the application would."""

    @property
    def name(self) -> str:
        """What the evidence calls it."""
        ...

    def open(self, until: ExitStack) -> None:
        """See that the way leads there. Raises CollectError where it does not."""
        ...

    def ask(self, question: Question) -> Asked:
        """Send it. What the call meets is an answer; raises CollectError where it was not sent."""
        ...


# ---------------------------------------------------------------- from the namespace


class ByNamespace(msgspec.Struct):
    """A connection from within the container's network namespace, by this process's own user."""

    container: Container
    deadline: Deadline
    name: str = "namespace"
    patience: float = _RESOLVING

    def open(self, until: ExitStack) -> None:  # noqa: ARG002 # nothing is left open
        """Go in once, so that it is known whether one may."""
        container = self.container
        namespace.check_reachable(container.pid, container.id, container.started_at)
        namespace.within(container.pid, lambda: None, self.deadline.request())

    def ask(self, question: Question) -> Asked:
        """Resolve with the container's own files and name servers, then connect."""
        timeout = self.deadline.request()

        def inside() -> Asked:
            return _ask(question, _Names.of(self.container.pid), timeout, self.patience)

        try:
            # Each step is bounded by itself; this is for what drips on and on.
            asked = namespace.within(self.container.pid, inside, 4 * timeout + _RESOLVING)
        except HungError as error:
            return Asked(
                question, AddressSource.CONSUL, failure=Failure.TIMED_OUT, error=str(error)
            )
        if asked.resolution.startswith(_SILENT):
            self.patience = _RESOLVING_AGAIN
        return asked


class Here(msgspec.Struct, frozen=True):
    """A connection from this machine itself, where the caller runs on it without a container."""

    deadline: Deadline
    name: str = "address"

    def open(self, until: ExitStack) -> None:
        """Nothing is needed."""

    def ask(self, question: Question) -> Asked:
        """Resolve as this machine does, then connect."""
        asked = _ask(question, _Names.of(os.getpid()), self.deadline.request())
        if asked.failure is Failure.REFUSED:
            # Perhaps it is not this machine at all: an admin address can be a tunnel's end.
            raise NotAnsweringError(
                f"nothing listens on {asked.connected} of this machine; it seems that the caller "
                "does not run here"
            )
        return asked


def _ask(
    question: Question, names: "_Names", timeout: float, patience: float = _RESOLVING
) -> Asked:
    """Resolve, connect, ask, read."""
    resolved: tuple[str, ...] = ()
    why = ""
    source = AddressSource.URL
    if question.name:
        resolved, why = names.resolve(question.name, min(timeout, patience))
        source = AddressSource.NAME if resolved else AddressSource.CONSUL
    addresses = resolved or question.addresses
    asked = Asked(question, source, resolved, why)
    if not addresses:
        return _failed(asked, Failure.NO_CONNECTION, "its address is not known")
    return _talk(asked, addresses[0], timeout)


def _talk(asked: Asked, address: str, timeout: float) -> Asked:
    question = asked.question
    asked = replace(asked, connected=host_port(address, question.port))
    end = time.monotonic() + timeout
    try:
        connection = socket.create_connection((address, question.port), timeout)
    except TimeoutError:
        said = f"no connection within {timeout:.3g} seconds"
        return _failed(asked, Failure.TIMED_OUT, said)
    except ConnectionRefusedError:
        return _failed(asked, Failure.REFUSED, "connection refused")
    except OSError as error:
        return _failed(asked, Failure.NO_CONNECTION, error.strerror or str(error))
    with closing(connection):
        try:
            connection.sendall(question.raw)
            with closing(HTTPResponse(connection, method="GET")) as response:
                response.begin()
                return _answered(asked, response, lambda: end - time.monotonic(), connection)
        except TimeoutError:
            said = f"the connection was taken, and no answer came within {timeout:.3g} seconds"
            return _failed(asked, Failure.TIMED_OUT, said)
        except (RemoteDisconnected, ConnectionError):
            return _failed(asked, Failure.CLOSED, _CLOSED)
        except (HTTPException, ValueError) as error:
            return _failed(asked, Failure.NOT_HTTP, f"what came is no HTTP: {error!r}"[:160])
        except OSError as error:
            return _failed(asked, Failure.NO_CONNECTION, error.strerror or str(error))


_LEAST: Final = 0.01
_CLOSED: Final = "the connection was taken, and closed without an answer"


def _answered(
    asked: Asked,
    response: HTTPResponse,
    remaining: Callable[[], float] = lambda: 1.0,
    connection: socket.socket | None = None,
) -> Asked:
    """The answer whose head was read, with as much of its body as comes in time."""
    body = bytearray()
    whole = True
    try:
        while len(body) < MOST_OF_A_BODY and remaining() > 0:
            if connection is not None:
                connection.settimeout(max(_LEAST, remaining()))
            part = response.read1(MOST_OF_A_BODY - len(body))
            if not part:
                break
            body += part
    except (OSError, HTTPException, ValueError):
        whole = False
    ended = response.isclosed() if response.length is None else response.length == 0
    return replace(
        asked,
        status=response.status,
        headers=dict(response.getheaders()),
        body=bytes(body),
        whole=whole and ended,
    )


def _failed(asked: Asked, failure: Failure, error: str) -> Asked:
    return replace(asked, failure=failure, error=error)


# ---------------------------------------------------------------- names


class _Names(msgspec.Struct, frozen=True):
    """How names resolve in a container: by its hosts file, then by its name servers."""

    hosts: str
    resolver: str

    @classmethod
    def of(cls, pid: int) -> "_Names":
        """The files of the container that process `pid` is of; "" for one that is not there."""
        root = f"/proc/{pid}/root/etc"
        return cls(_text(f"{root}/hosts"), _text(f"{root}/resolv.conf"))

    def resolve(self, name: str, seconds: float) -> tuple[tuple[str, ...], str]:
        """The addresses of `name`, or () and why there are none."""
        found = _in_hosts(self.hosts, name)
        if found:
            return found, ""
        resolver = dns.resolver.Resolver(configure=False)
        try:
            resolver.read_resolv_conf(io.StringIO(self.resolver))
        except dns.exception.DNSException:
            return (), "its /etc/resolv.conf names no name server"
        servers = ", ".join(str(each) for each in resolver.nameservers)
        try:
            answer = resolver.resolve(name, "A", search=True, lifetime=seconds)
        except dns.resolver.NXDOMAIN as error:
            return (), f"no such name, says {servers} (asked for {_tried(error, name)})"
        except dns.resolver.NoAnswer:
            return (), f"{servers} has no address for it"
        except dns.exception.Timeout:
            return (), f"{_SILENT} {servers} in {seconds:.3g} s"
        except dns.exception.DNSException as error:
            return (), f"its name server {servers} failed: {_reason(error)}"
        except OSError as error:
            return (), f"its name server {servers} cannot be asked: {error.strerror or error}"
        return tuple(str(each) for each in answer), ""


_SILENT: Final = "no answer from its name server"


def _tried(error: dns.resolver.NXDOMAIN, name: str) -> str:
    qnames = error.kwargs.get("qnames") or (name,)
    return ", ".join(str(each).rstrip(".") for each in qnames)


def _reason(error: dns.exception.DNSException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _in_hosts(hosts: str, name: str) -> tuple[str, ...]:
    """IPv4 first, as for an application that connects to an Istio of that age."""
    found = []
    for line in hosts.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if name.lower() in map(str.lower, names):
            found.append(address)
    return tuple(sorted(found, key=lambda address: ":" in address))


def _text(path: str) -> str:
    # Docker puts real files there. A link would lead out of the container, to this machine's own.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 # a descriptor
            return file.read(_LONGEST_FILE)
    except OSError:
        return ""


# ---------------------------------------------------------------- by exec


class Tool(msgspec.Struct, frozen=True):
    """A program that can ask, as a script for `sh`, and what its exit codes mean.

    The script is given: where to go (a name, or an address) as URLs write it, the same without
    brackets, port, path, seconds, the whole request, the Host header. It prints the answer, head
    and all; `Connected to` tells where it went, if it can. `tells`: it says when it is connected.
    `decodes`: the chunks are taken apart already. `done` are exit codes of a whole answer.
    """

    program: str
    script: str
    tells: bool = True
    decodes: bool = False
    done: frozenset[int] = frozenset({0})


_CURL: Final = """
curl -s -S -v -i -g --raw --noproxy '*' --max-time "$5" -A meshdoctor-probe \\
  -H 'Connection: close' -H "Host: $7" "http://$1:$3$4"
"""
_PYTHON: Final = """
python3 -c '
import socket, sys
name, port, seconds, request = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
try:
    address = socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM)[0][4][0]
except OSError as error:
    print(error, file=sys.stderr); sys.exit(6)
try:
    print(f"Connected to {name} ({address}) port {port}", file=sys.stderr)
    connection = socket.create_connection((address, port), seconds)
    connection.sendall(request.encode())
    while part := connection.recv(65536):
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
except TimeoutError as error:
    print(error, file=sys.stderr); sys.exit(28)
except OSError as error:
    print(error, file=sys.stderr); sys.exit(7)
' "$2" "$3" "$5" "$6"
"""
_BASH: Final = """
timeout "$5" bash -c '
exec 3<>"/dev/tcp/$0/$1" || exit 7
echo "meshdoctor connected" >&2
printf %s "$2" >&3; cat <&3
' "$2" "$3" "$6"
"""
_WGET: Final = """
wget -q --save-headers --content-on-error --max-redirect=0 --no-proxy -t 1 -T "$5" -O - \\
  -U meshdoctor-probe --header "Host: $7" "http://$1:$3$4"
"""

TOOLS: Final = (
    Tool("curl", _CURL),
    Tool("python3", _PYTHON),
    Tool("bash", _BASH),
    # 8: the server answered with an error.
    Tool("wget", _WGET, tells=False, decodes=True, done=frozenset({0, 8})),
)
"""In the order in which they are tried."""

_UNRESOLVED: Final = 6
_NO_CONNECTION: Final = 7
_LATE: Final = frozenset({28, 124, 143})
_CONNECTED: Final = re.compile(
    r"(?:Connected|Established connection) to \S+ \(([0-9a-fA-F.:]+)\)? port (\d+)"
)
_WORDS_UNRESOLVED: Final = ("not known", "name resolution", "not resolve", "unable to resolve")
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[^\r]*", re.IGNORECASE)
_NOT_STARTED: Final = frozenset({126, 127, -1})
_TAKEN: Final = "meshdoctor connected"
_EXIT: Final = re.compile(r"^meshdoctor exit (\d+)$", re.MULTILINE)
# Room for a head beside the body.
_MOST_OUTPUT: Final = MOST_OF_A_BODY + 32 * 2**10


class ByExec(msgspec.Struct):
    """A command in a container of the namespace that asks: whatever its image has."""

    engine: Engine
    container: str
    deadline: Deadline
    user: str = ""
    name: str = "exec"
    tool: Tool | None = None

    def open(self, until: ExitStack) -> None:  # noqa: ARG002 # nothing is left open
        """Find a tool."""
        output = self.engine.execute(self.container, ["sh", "-c", _FIND], user=self.user)
        if output.code != 0:
            raise NotAnsweringError("its image has no shell to ask from")
        present = output.out.decode("utf-8", "replace").split()
        self.tool = next((tool for tool in TOOLS if tool.program in present), None)
        if self.tool is None:
            names = ", ".join(tool.program for tool in TOOLS)
            raise NotAnsweringError(f"its image has none of {names}")

    def ask(self, question: Question) -> Asked:
        """By name first; where that does not resolve, by the address that Consul has."""
        first = question.name or question.addresses[0]
        source = AddressSource.NAME if question.name else AddressSource.URL
        asked, resolves = self._ask(question, first, Asked(question, source))
        if resolves or not question.name:
            if question.name and asked.connected:
                asked = replace(asked, resolved=(asked.connected.rpartition(":")[0].strip("[]"),))
            return asked
        unresolved = Asked(question, AddressSource.CONSUL, resolution=asked.error)
        if not question.addresses:
            return _failed(unresolved, Failure.NO_CONNECTION, "its address is not known")
        return self._ask(question, question.addresses[0], unresolved)[0]

    def _ask(self, question: Question, target: str, asked: Asked) -> tuple[Asked, bool]:
        """What it met, and False where the target's name does not resolve."""
        if self.tool is None:
            raise NotAnsweringError("no tool was found to ask with")
        timeout = self.deadline.request()
        command = command_of(self.tool, question, target, timeout)
        try:
            output = self.engine.execute(self.container, command, user=self.user)
        except HungError as error:
            return _failed(asked, Failure.TIMED_OUT, str(error)), True
        return _met(self.tool, asked, target, output, timeout)


# Busybox's wget follows redirects and cannot be told not to: one request would be several.
_FIND: Final = """
for each in curl python3 bash; do command -v $each >/dev/null && echo $each; done
case $(wget --help 2>&1) in *max-redirect*) echo wget ;; esac
exit 0
"""
_FRAME: Final = f"""
ask() {{
TOOL
}}
said() {{ ask "$@"; echo "meshdoctor exit $?" >&2; }}
if command -v head >/dev/null; then said "$@" | head -c {_MOST_OUTPUT}; else said "$@"; fi
"""


def command_of(tool: Tool, question: Question, target: str, seconds: float) -> Sequence[str]:
    """The command line; no more of the answer is printed than is read."""
    script = _FRAME.replace("TOOL", tool.script.strip())
    return [
        "sh",
        "-c",
        script,
        "probe",
        bracketed(target),
        target,
        str(question.port),
        question.path,
        whole_seconds(seconds),
        question.raw.decode(),
        question.host,
    ]


def _met(
    tool: Tool, asked: Asked, target: str, output: Output, timeout: float
) -> tuple[Asked, bool]:
    out, err = output.out, output.err
    code_said = _EXIT.search(err)
    code = int(code_said[1]) if code_said is not None else -1
    words = _EXIT.sub("", err).strip()
    went = _CONNECTED.search(err)
    if went is not None:
        asked = replace(asked, connected=host_port(went[1], int(went[2])))
    elif target in asked.question.addresses:
        asked = replace(asked, connected=host_port(target, asked.question.port))
    if out:
        return _parsed(tool, asked, out, code), True
    may_be_connected = went is not None or _TAKEN in err or not tool.tells
    return _unanswered(asked, target, code, words, timeout, may_be_connected=may_be_connected)


def _unanswered(
    asked: Asked, target: str, code: int, words: str, timeout: float, *, may_be_connected: bool
) -> tuple[Asked, bool]:
    last = words.splitlines()[-1].strip()[:160] if words else f"exit code {code}"
    failure = _failure(code, words.lower())
    is_by_name = target == asked.question.name
    if failure is None:
        return _failed(asked, Failure.NO_CONNECTION, last), not is_by_name
    match failure:
        case Failure.TIMED_OUT:
            if is_by_name and not may_be_connected:
                # No connection was made, so nothing was sent: another address can be tried.
                return _failed(asked, Failure.NO_CONNECTION, _slow(timeout)), False
            last = f"no answer came within {timeout:.3g} seconds"
        case Failure.REFUSED:
            last = "connection refused"
        case Failure.CLOSED:
            last = _CLOSED
        case Failure.NOT_SENT:
            raise AnswerError(f"the tool in the container failed: {last}")
        case _:
            pass
    return _failed(asked, failure, last), True


def _failure(code: int, words: str) -> Failure | None:
    """What an exit code and a tool's words mean; None for a name that does not resolve."""
    if code == _UNRESOLVED or any(each in words for each in _WORDS_UNRESOLVED):
        return None
    if code in _LATE or "timed out" in words:
        return Failure.TIMED_OUT
    if "refused" in words:
        return Failure.REFUSED
    if code == _NO_CONNECTION:
        return Failure.NO_CONNECTION
    return Failure.NOT_SENT if code in _NOT_STARTED else Failure.CLOSED


def _slow(timeout: float) -> str:
    return f"neither its address nor a connection to it came within {timeout:.3g} seconds"


def _parsed(tool: Tool, asked: Asked, answer: bytes, code: int) -> Asked:
    """The answer that a tool printed."""
    if tool.decodes:
        head, gap, body = answer.partition(b"\r\n\r\n")
        answer = _CHUNKED.sub(b"", head) + gap + body
    response = response_of(answer)
    try:
        response.begin()
    except (HTTPException, ValueError) as error:
        said = f"what came is no HTTP: {error!r}"[:160]
        return _failed(asked, Failure.NOT_HTTP, said)
    answered = _answered(asked, response)
    return answered if code in tool.done else replace(answered, whole=False)


class ByHelper(msgspec.Struct):
    """The same, in a container of the user's choice started in the same network namespace."""

    engine: Engine
    image: str
    container: str
    deadline: Deadline
    name: str = "helper"
    inner: ByExec | None = None

    def open(self, until: ExitStack) -> None:
        """Start it; it goes with the stack."""
        helper = until.enter_context(self.engine.helper(self.image, self.container))
        self.inner = ByExec(self.engine, helper, self.deadline)
        self.inner.open(until)

    def ask(self, question: Question) -> Asked:
        """As `ByExec` does."""
        if self.inner is None:
            raise NotAnsweringError("no helper container was started")
        return self.inner.ask(question)
