"""Envoys that run on this machine, as /proc shows them: whose they are, where to ask them.

Of a command line and of a bootstrap only the node's id and addresses are taken, and neither is
kept: tokens stand in both.
"""

import itertools
import os
import re
import socket
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec
import yaml

from meshdoctor.evidence.addresses import host_port
from meshdoctor.evidence.envoy.spelling import normalise
from meshdoctor.yaml_loader import LOADER

# func-e and packages put the version into the name.
_PROGRAM: Final = re.compile(r"envoy(-v?\d[\w.-]*)?")
_OPTIONS: Final = frozenset({"-c", "--config-path"})
_YAML_OPTION: Final = "--config-yaml"
_LARGEST: Final = 2**20
_LISTENING: Final = "0A"
_CONTAINER_ID: Final = re.compile(r"[0-9a-f]{64}")

Place = tuple[str, int]
"""An address and a port."""


class Bootstrap(msgspec.Struct, frozen=True):
    """What of a bootstrap tells where an Envoy belongs, and where its admin interface is.

    `node` is "" and `admin` None where it does not say; `upstreams` are the addresses of its
    static clusters, among them that of the control plane.
    """

    node: str = ""
    admin: Place | None = None
    upstreams: tuple[Place, ...] = ()


class EnvoyProcess(msgspec.Struct, frozen=True):
    """One running Envoy.

    `listening` is where it takes TCP connections, in the order in which it opened them as far
    as that can be told; empty where the system does not tell us. `unread` is why its bootstrap
    told nothing, else "".
    """

    pid: int
    bootstrap: Bootstrap
    listening: tuple[Place, ...]
    is_elsewhere: bool
    """True of one in another network namespace than ours."""
    unread: str


def are_seen() -> bool:
    """True where this machine shows its processes, so that none is missed."""
    return sys.platform == "linux" and os.path.isdir("/proc/self")  # noqa: PTH112 # of /proc


def running(outside: AbstractSet[str]) -> Iterator[EnvoyProcess]:
    """Every Envoy that /proc shows outside of the containers with these ids, by process id.

    None where there is no /proc.
    """
    if not are_seen():
        return
    for pid in sorted(int(each) for each in os.listdir("/proc") if each.isdecimal()):  # noqa: PTH208 # names will do
        command = _command(pid)
        if not command or not _PROGRAM.fullmatch(command[0].rpartition("/")[2]):
            continue
        # Control groups name the container that a process is in.
        if outside.isdisjoint(_CONTAINER_ID.findall(_text(f"/proc/{pid}/cgroup"))):
            yield _process(pid, command)


def _process(pid: int, command: Sequence[str]) -> EnvoyProcess:
    try:
        bootstrap, unread = bootstrap_of(pid, command), ""
    except UnreadError as error:
        bootstrap, unread = Bootstrap(), str(error)
    return EnvoyProcess(
        pid=pid,
        bootstrap=bootstrap,
        listening=tuple(_listening(pid)),
        is_elsewhere=_namespace(str(pid)) != _namespace("self"),
        unread=unread,
    )


def told_admin(pid: int, command: Sequence[str]) -> Place | None:
    """The admin address in the bootstrap that a process was started with, None if not to be had.

    For a process of this machine only: elsewhere the id is another's.
    """
    try:
        return bootstrap_of(pid, command).admin
    except UnreadError:
        return None


class UnreadError(Exception):
    """A bootstrap that cannot be read, or told nothing."""


def bootstrap_of(pid: int, command: Sequence[str]) -> Bootstrap:
    """What the file and the text say that an Envoy was started with; the text wins, as for it."""
    words = list(command)
    pairs = list(itertools.pairwise(words))
    files = [value for option, value in pairs if option in _OPTIONS]
    files += [word.partition("=")[2] for word in words if word.startswith("--config-path=")]
    texts = [value for option, value in pairs if option == _YAML_OPTION]
    found = Bootstrap()
    if not files and not texts:
        raise UnreadError("its command line names no bootstrap")
    for content in (*(_file(pid, file) for file in files[-1:]), *texts[-1:]):
        said = _decoded(content)
        found = Bootstrap(
            said.node or found.node, said.admin or found.admin, said.upstreams + found.upstreams
        )
    return found


def _file(pid: int, name: str) -> str:
    """A file as the process sees it. Raises UnreadError."""
    folder = "root" if name.startswith("/") else "cwd"
    path = f"/proc/{pid}/{folder}/{name.lstrip('/')}"
    try:
        # Looked at before it is opened: a pipe would wait for a writer, and take what it writes
        # from whom it is meant for.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise UnreadError(f"its bootstrap {name} is no file")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 # a descriptor
            return file.read(_LARGEST)
    except FileNotFoundError:
        raise UnreadError(
            f"its bootstrap {name} is gone, as `consul connect envoy` leaves none"
        ) from None
    except OSError as error:
        raise UnreadError(f"its bootstrap {name} cannot be read: {error.strerror}") from error


# ---------------------------------------------------------------- a bootstrap


class _SocketAddress(msgspec.Struct):
    address: str = ""
    port_value: int = 0


class _Address(msgspec.Struct):
    socket_address: _SocketAddress | None = None


class _Addressed(msgspec.Struct):
    address: _Address | None = None

    @property
    def place(self) -> Place | None:
        at = self.address.socket_address if self.address is not None else None
        return (at.address, at.port_value) if at is not None and at.port_value else None


class _Node(msgspec.Struct):
    id: str = ""


class _LbEndpoint(msgspec.Struct):
    endpoint: _Addressed | None = None


class _Locality(msgspec.Struct):
    lb_endpoints: list[_LbEndpoint] = msgspec.field(default_factory=list)


class _Assignment(msgspec.Struct):
    endpoints: list[_Locality] = msgspec.field(default_factory=list)


class _Cluster(msgspec.Struct):
    load_assignment: _Assignment | None = None


class _Static(msgspec.Struct):
    clusters: list[_Cluster] = msgspec.field(default_factory=list)


class _Bootstrap(msgspec.Struct):
    """{"admin": {"address": {...}}, "node": {"id": "web-sidecar-proxy"}, ...}, JSON or YAML."""

    admin: _Addressed | None = None
    node: _Node | None = None
    static_resources: _Static | None = None


def _decoded(content: str) -> Bootstrap:
    try:
        try:
            loaded = msgspec.json.decode(content)
        except msgspec.DecodeError:
            loaded = yaml.load(content, Loader=LOADER)  # noqa: S506 # a safe one
        # Consul writes both spellings, even in one message.
        said = msgspec.json.decode(normalise(msgspec.json.encode(loaded)), type=_Bootstrap)
    except (msgspec.MsgspecError, yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        # Not what it says there: it may be a piece of the bootstrap, and that a token.
        raise UnreadError(f"its bootstrap cannot be decoded ({type(error).__name__})") from None
    clusters = said.static_resources.clusters if said.static_resources is not None else []
    places = (
        each.endpoint.place
        for cluster in clusters
        if cluster.load_assignment is not None
        for locality in cluster.load_assignment.endpoints
        for each in locality.lb_endpoints
        if each.endpoint is not None
    )
    return Bootstrap(
        node=said.node.id if said.node is not None else "",
        admin=said.admin.place if said.admin is not None else None,
        upstreams=tuple(place for place in places if place is not None),
    )


# ---------------------------------------------------------------- /proc


def _command(pid: int) -> Sequence[str]:
    return _text(f"/proc/{pid}/cmdline").rstrip("\0").split("\0")


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 # of /proc
            return file.read(_LARGEST)
    except OSError:
        return ""


def _namespace(process: str) -> str:
    """A network namespace's identity; "" where it is not ours to know, as for our own."""
    try:
        return os.readlink(f"/proc/{process}/ns/net")  # noqa: PTH115 # of /proc
    except OSError:
        return ""


def _listening(pid: int) -> Iterator[Place]:
    """Sockets that were opened first have the lower descriptors, unless one was used again."""
    places = _places(pid)
    folder = f"/proc/{pid}/fd"
    try:
        descriptors = sorted(map(int, os.listdir(folder)))  # noqa: PTH208 # names will do
    except OSError:
        return
    for descriptor in descriptors:
        try:
            target = os.readlink(f"{folder}/{descriptor}")  # noqa: PTH115 # of /proc
        except OSError:
            continue
        place = places.get(target.removeprefix("socket:[").rstrip("]"))
        if place is not None:
            yield place


def _places(pid: int) -> Mapping[str, Place]:
    """What listens in the process's network namespace, by the socket's inode.

    `sl local_address rem_address st ... inode`, addresses in the machine's byte order:
    `0: 0100007F:4A38 00000000:0000 0A ... 12345`.
    """
    found = {}
    for table in ("tcp", "tcp6"):
        for line in _text(f"/proc/{pid}/net/{table}").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTENING:  # noqa: PLR2004 # up to the inode
                address, _, port = fields[1].partition(":")
                found[fields[9]] = (_address(address), int(port, 16))
    return found


def _address(hexadecimal: str) -> str:
    raw = bytes.fromhex(hexadecimal)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)  # noqa: PLR2004 # bytes


def url_of(place: Place) -> str:
    """Where to ask for what listens at `place`."""
    return f"http://{host_port(host_of(place), place[1])}"


def host_of(place: Place) -> str:
    """Its address; what listens everywhere does on localhost."""
    return _LOCAL.get(place[0], place[0])


_LOCAL: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # not bound here
