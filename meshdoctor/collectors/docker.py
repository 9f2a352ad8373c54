"""Docker's engine: found as the docker command finds it; its containers listed and inspected."""

import os
import re
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from meshdoctor.collectors.http import HttpSource
from meshdoctor.collectors.interface import (
    AnswerError,
    CollectError,
    Deadline,
    GoneError,
    HungError,
    NotAnsweringError,
    Options,
    OutOfTimeError,
    Output,
    Run,
)
from meshdoctor.collectors.plain_http import PlainHttp
from meshdoctor.evidence import layout
from meshdoctor.evidence.docker import (
    CONTAINERS,
    IMAGES,
    NETWORKS,
    VERSION,
    Container,
    DockerEngine,
)
from meshdoctor.evidence.interface import NOT_JSON, EvidenceError
from meshdoctor.files import is_there, may_use
from meshdoctor.snapshot import Snapshot
from meshdoctor.snapshot.redaction import redact_text
from meshdoctor.topology.roles import installs_redirect, role_of, runs_envoy

if TYPE_CHECKING:
    from docker.tls import TLSConfig

    from meshdoctor.collectors.docker_sdk import Sdk

T = TypeVar("T")

INFO: Final = "docker/info.json"

# A list may come slowly, but not for ever: so many request timeouts are given it.
_PATIENCE: Final = 4

# An engine on this machine inspects a container faster than a thread takes up its answer: more
# of them wait for each other. One that is far away is waited for.
_AT_ONCE: Final = 4

_DONE: Final = frozenset({200, 201})
_NOT_FOUND: Final = 404

# A command in a container asks the container itself: no proxy that its environment names.
_UNPROXIED: Final = ("http_proxy=", "HTTP_PROXY=", "all_proxy=", "ALL_PROXY=")

STARTING: Final = b'{"Detach": false, "Tty": false}'
"""How a command is started whose output is waited for."""

_FRAME: Final = struct.Struct(">BxxxL")

_HERE: Final = "http://localhost"
_DEFAULT: Final = "unix:///var/run/docker.sock"
_CLI: Final = (
    "name the engine with --docker-host or DOCKER_HOST, or a context with --docker-context"
)
_ADDRESSES: Final = "unix:///var/run/docker.sock, tcp://mesh-host:2375 and ssh://mesh-host"
HINT: Final = f"; {_CLI}"
"""How a message ends that somebody should point elsewhere."""


class Engine:
    """A Docker engine that answers. Its methods raise CollectError."""

    def __init__(
        self,
        url: str,
        deadline: Deadline,
        version: str,
        tls: "TLSConfig | None" = None,
        near: HttpSource | None = None,
    ) -> None:
        """`version` is that of the engine's API, as "1.41"; `near` leads to its socket already."""
        self.url = url
        self._deadline = deadline
        self._version = version
        self._tls = tls
        socket = _socket_path(url)
        # The SDK takes ten times the CPU for each of some hundred questions, and a tenth of a
        # second to be imported.
        self._near = _near(socket, deadline) if socket is not None and near is None else near
        self._commands = PlainHttp(_HERE, {}, str(socket)) if socket is not None else None
        self._lock = threading.Lock()
        self._made: Sdk | None = None

    @property
    def _sdk(self) -> "Sdk":
        from meshdoctor.collectors.docker_sdk import Sdk  # noqa: PLC0415 # see above

        with self._lock:
            if self._made is None:
                self._made = Sdk(self.url, self._deadline, self._version, self._tls)
            return self._made

    @property
    def is_local(self) -> bool:
        """True where its addresses and published ports may be this machine's own."""
        return urlsplit(self.url).scheme in {"unix", "http+unix", "npipe"}

    @property
    def host(self) -> str:
        """Where its published ports are."""
        return "127.0.0.1" if self.is_local else urlsplit(self.url).hostname or "127.0.0.1"

    def version(self) -> bytes:
        return self._read("/version")

    def info(self) -> bytes:
        return self._read("/info")

    def ids(self) -> Sequence[str]:
        """All containers, stopped ones included."""
        return [each.id for each in _decoded(self._read("/containers/json?all=1"), list[_Listed])]

    def inspect(self, container: str) -> bytes | None:
        """`docker inspect`; None for one that is gone."""
        return self._read_if_there(f"/containers/{container}/json")

    def networks(self) -> Sequence[bytes]:
        """`docker network inspect` of each network that is still there."""
        listed = _decoded(self._read("/networks"), list[_Listed])
        found = (self._read_if_there(f"/networks/{each.id}") for each in listed)
        return [each for each in found if each is not None]

    def image(self, image: str) -> bytes | None:
        """`docker image inspect`; None for one that was removed under its container."""
        return self._read_if_there(f"/images/{quote(image, safe='')}/json")

    def _read_if_there(self, path: str) -> bytes | None:
        try:
            return self._read(path)
        except GoneError:
            return None

    def _read(self, path: str) -> bytes:
        """What the engine's API answers to a GET, as it is written."""
        path = f"/v{self._version}{path}"
        if self._near is not None:
            status, body = self._read_near(self._near, path)
        else:
            status, body = self._sdk.get(path)
        return _accepted(status, body)

    @staticmethod
    def _read_near(near: HttpSource, path: str) -> tuple[int, bytes]:
        try:
            reply = near.ask(path)
        except OutOfTimeError:
            raise
        except HungError as error:
            raise HungError(f"Docker: {error}") from error
        except CollectError as error:
            raise NotAnsweringError(f"Docker does not answer: {error}") from error
        return reply.status, reply.body

    def events(self) -> Iterator[str]:
        """What happens to containers and networks, as `start web`, as it happens.

        First "", as soon as no event can be missed. Never ends, but raises CollectError. Commands
        that are run in containers are no events here: some of them are our own.
        """
        return self._sdk.events()

    def logs(self, container: str, lines: int, *, terminal: bool = False) -> bytes:
        """The last lines of both its outputs, each with its time.

        `terminal` is true of a container that was given one: its outputs are one stream then.
        """
        wanted = f"stdout=1&stderr=1&timestamps=1&tail={lines}"
        answer = self._read(f"/containers/{container}/logs?{wanted}")
        return answer if terminal else b"".join(part for _, part in frames(answer))

    def execute(self, container: str, command: Sequence[str], *, user: str = "") -> Output:
        """Run a command that only reads. Its proxy variables are emptied: all is local to it."""
        wanted = {
            "Cmd": list(command),
            "Env": _UNPROXIED,
            "User": user,
            "AttachStdin": False,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": False,
            "Privileged": False,
        }
        made = _decoded(self._post(f"/containers/{container}/exec", wanted), _Listed).id
        come: list[bytes] = []
        try:
            streams = self._started(made, come)
            code = _decoded(self._read(f"/exec/{made}/json"), _Ended).code
        except CollectError as error:
            error.came, _ = _apart(b"".join(come))
            raise
        out, err = _apart(streams)
        said = err.decode("utf-8", "replace").strip()
        return Output(-1 if code is None else code, out, said)

    def _post(self, path: str, wanted: Mapping[str, object]) -> bytes:
        path, sent = f"/v{self._version}{path}", msgspec.json.encode(wanted)
        if self._commands is None:
            return _accepted(*self._sdk.post(path, sent))
        return self._post_near(self._commands, path, sent, self._deadline.request(), [])

    def _started(self, execution: str, come: list[bytes]) -> bytes:
        """What a command prints, as `frames` has it; it is in `come` as soon as it comes."""
        # The commands bound themselves by one request timeout: this is for the engine.
        timeout = 2 * self._deadline.request()
        if self._commands is None:
            return _accepted(*self._sdk.start(execution, timeout, come))
        path = f"/v{self._version}/exec/{execution}/start"
        return self._post_near(self._commands, path, STARTING, timeout, come)

    def _post_near(
        self, near: PlainHttp, path: str, sent: bytes, timeout: float, come: list[bytes]
    ) -> bytes:
        try:
            reply = near.post(path, sent, timeout, self._deadline.remaining(), come)
        except HungError as error:
            raise HungError(f"Docker: {error}") from error
        except NotAnsweringError as error:
            raise NotAnsweringError(f"Docker does not answer: {error}") from error
        return _accepted(reply.status, reply.body)

    def helper(self, image: str, container: str) -> AbstractContextManager[str]:
        """A container of `image` in the network namespace of another, removed afterwards."""
        return self._sdk.helper(image, container)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
        if self._near is not None:
            self._near.close()
        if self._commands is not None:
            self._commands.close()


def _accepted(status: int, body: bytes) -> bytes:
    if status in _DONE:
        return body
    said = _said(body) or f"status {status}"
    raise (GoneError if status == _NOT_FOUND else AnswerError)(f"Docker says: {said}", status)


def _apart(streams: bytes) -> tuple[bytes, bytes]:
    """What a command printed to its output, and what as errors."""
    found: dict[int, list[memoryview]] = {1: [], 2: []}
    for kind, part in frames(streams):
        found.setdefault(kind, []).append(part)
    return b"".join(found[1]), b"".join(found[2])


def frames(streams: bytes) -> Iterator[tuple[int, memoryview]]:
    """Of what a container printed: 1 for output or 2 for errors, and a part of it, in turn.

    As the engine sends both in one stream: a kind, a length in four bytes, and that many bytes.
    """
    view = memoryview(streams)
    while len(view) >= _FRAME.size:
        kind, length = _FRAME.unpack_from(view)
        yield kind, view[_FRAME.size : _FRAME.size + length]
        view = view[_FRAME.size + length :]


def framed(kind: int, part: bytes) -> bytes:
    """As the engine sends it."""
    return _FRAME.pack(kind, len(part)) + part


class _Listed(msgspec.Struct):
    id: str = msgspec.field(name="Id")


class _Ended(msgspec.Struct):
    code: int | None = msgspec.field(name="ExitCode", default=None)


class _Version(msgspec.Struct):
    api: str = msgspec.field(name="ApiVersion")


class _Config(msgspec.Struct):
    has_terminal: bool = msgspec.field(name="Tty", default=False)


class _Inspected(msgspec.Struct):
    id: str = msgspec.field(name="Id", default="")
    config: _Config = msgspec.field(name="Config", default_factory=_Config)
    name: str = msgspec.field(name="Name", default="")
    image: str = msgspec.field(name="Image", default="")


class _Message(msgspec.Struct):
    message: str


def _decoded(answer: bytes, form: type[T]) -> T:
    """As whoever answers on the engine's port should have written it. Raises AnswerError."""
    try:
        return msgspec.json.decode(answer, type=form)
    except NOT_JSON as error:
        raise AnswerError(f"Docker answered with something else: {error}") from error


def _said(answer: bytes) -> str:
    try:
        return _decoded(answer, _Message).message.strip()
    except AnswerError:
        return answer[:200].decode("utf-8", "replace").strip()


# ---------------------------------------------------------------- finding the engine


def connect(options: Options, deadline: Deadline) -> Engine:
    """The engine that the options, the environment or Docker's current context name.

    In the order of the docker command: flag, then DOCKER_HOST, then DOCKER_CONTEXT, then the
    context in use. Raises CollectError; its message says what was tried and what to try.
    """
    url, tls = _address(options)
    path = _socket_path(url)
    if path is not None:
        _check_socket(url, path)
    near = None if path is None else _near(path, deadline)
    try:
        version = _version_elsewhere(url, tls, deadline) if near is None else _version(near)
    except CollectError as error:
        if near is not None:
            near.close()
        raise NotAnsweringError(_why_not(url, str(error))) from error
    if version is None:
        raise NotAnsweringError(f"what answers at {url} is no Docker engine{HINT}")
    return Engine(url, deadline, version, tls, near)


_API: Final = re.compile(r"\d+\.\d+")


def _version(near: HttpSource) -> str | None:
    """The newest version of its API that the engine speaks; None of something else.

    For all that /version tells, an engine starts other programs.
    """
    told = near.ask("/_ping").headers.get("api-version", "")
    return told if _API.fullmatch(told) else _version_of(near.get("/version"))


def _version_elsewhere(url: str, tls: "TLSConfig | None", deadline: Deadline) -> str | None:
    from meshdoctor.collectors.docker_sdk import version  # noqa: PLC0415 # the SDK

    return _version_of(version(url, deadline, tls))


def _version_of(answer: bytes) -> str | None:
    try:
        return msgspec.json.decode(answer, type=_Version).api
    except NOT_JSON:
        return None


def _near(path: Path, deadline: Deadline) -> HttpSource:
    return HttpSource(_HERE, deadline, unix_socket=str(path))


def _address(options: Options) -> tuple[str, "TLSConfig | None"]:
    environment = options.environment
    host = options.docker_host
    context = options.docker_context
    if not host and not context:
        host = environment.get("DOCKER_HOST")
        context = environment.get("DOCKER_CONTEXT")
    if host:
        return host, _tls(options)
    if not context and not any(map(is_there, _settings_files(environment))):
        return _DEFAULT, _tls(options)
    from meshdoctor.collectors.docker_sdk import context_of  # noqa: PLC0415 # the SDK

    host, tls = context_of(context)
    return host or _DEFAULT, tls or _tls(options)


def _settings_files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where the docker command may have been told to use a context."""
    folders = (environment.get("DOCKER_CONFIG"), _own_settings())
    return (Path(folder) / "config.json" for folder in folders if folder)


def _own_settings() -> Path | None:
    """Where the docker command keeps them; None of a user without a home."""
    try:
        return Path.home() / ".docker"
    except RuntimeError:
        return None


def _tls(options: Options) -> "TLSConfig | None":
    """TLS as DOCKER_TLS_VERIFY and DOCKER_CERT_PATH ask for it; None for none."""
    environment = options.environment
    verify = options.docker_tls_verify
    if verify is None:
        verify = bool(environment.get("DOCKER_TLS_VERIFY"))
    folder = options.docker_cert_path or environment.get("DOCKER_CERT_PATH")
    if not verify and not folder:
        return None
    from meshdoctor.collectors.docker_sdk import certificates  # noqa: PLC0415 # the SDK

    there = Path(folder) if folder else _own_settings()
    if there is None:
        raise NotAnsweringError(
            "Docker is to be asked by TLS, and this user has no home with certificates in it: "
            "name their folder with DOCKER_CERT_PATH"
        )
    return certificates(there, verify=verify)


def _socket_path(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(parts.path) if parts.scheme in {"unix", "http+unix"} else None


def _check_socket(url: str, path: Path) -> None:
    """Raise NotAnsweringError where no try is needed: the SDK leaks a socket that fails."""
    try:
        path.stat()
    except PermissionError:
        # It is in a folder of somebody else's.
        pass
    except OSError as error:
        raise NotAnsweringError(
            f"no Docker engine at {url}: there is no such socket; start Docker, or {_CLI}"
        ) from error
    if not may_use(path, os.R_OK | os.W_OK):
        raise NotAnsweringError(
            f"no permission to use Docker's socket {path}: join the group `docker`, or run "
            "meshdoctor with sudo"
        )


def _why_not(url: str, reason: str) -> str:
    path = _socket_path(url)
    if path is not None and "refused" in reason.lower():
        return f"nothing listens on Docker's socket {path}: start Docker, or {_CLI}"
    if ":" not in url:
        return f"{url} is no address of a Docker engine, as {_ADDRESSES} are{HINT}"
    return redact_text(f"no Docker engine answers at {url}: {reason}{HINT}")


# ---------------------------------------------------------------- what is recorded


def collect(run: Run, engine: Engine) -> tuple[Container, ...]:
    """Record the engine's containers, networks, images and logs; the containers as facts.

    A container that vanishes between list and inspect costs only itself. Logs are still under
    way when this returns.
    """
    try:
        return _collect_containers(run, engine)
    finally:
        # Nobody waits for these, and they take an engine as long as all of its containers.
        run.later(VERSION, engine.version)
        run.later(INFO, engine.info)
        run.later(NETWORKS, lambda: _array(engine.networks()))


def _collect_containers(run: Run, engine: Engine) -> tuple[Container, ...]:
    run.recorder.expect(CONTAINERS, IMAGES)
    try:
        ids = _listed(run, engine)
    except CollectError as error:
        run.recorder.absent(CONTAINERS, str(error))
        run.recorder.absent(IMAGES, "the containers could not be listed")
        return ()
    run.say(f"inspecting {len(ids)} containers")
    asked = run.workers.submit_each(
        partial(_inspected, engine), ids, _AT_ONCE if engine.is_local else run.options.workers
    )
    inspected, problems = _gather(run, asked)
    for container, reason in problems.items():
        run.recorder.absent(f"{CONTAINERS}#{container[:12]}", reason)
    # As `docker inspect` would list them, whoever answered first.
    inspected.sort(key=lambda each: each[0].name)
    raw = _array([each for _, each in inspected])
    run.recorder.put(CONTAINERS, raw)
    used = sorted({told.image for told, _ in inspected if told.image})
    run.later(IMAGES, lambda: _array([found for each in used if (found := engine.image(each))]))
    containers = containers_of(Snapshot({CONTAINERS: raw}))
    terminals = {told.id for told, _ in inspected if told.config.has_terminal}
    for each in filter(_tells, containers):
        logs = partial(engine.logs, each.id, run.options.logs_tail, terminal=each.id in terminals)
        run.later(layout.docker_log(each.name), logs)
    return containers


def _listed(run: Run, engine: Engine) -> Sequence[str]:
    """The ids of the containers. What only drips is given up. Raises CollectError."""
    patience = min(run.deadline.remaining(), _PATIENCE * run.options.request_timeout)
    asked = run.workers.submit(engine.ids)
    wait([asked], patience)
    if not asked.done():
        raise HungError(
            f"Docker's list of containers was not complete after {patience:.3g} seconds"
        )
    return asked.result()


def _inspected(engine: Engine, container: str) -> tuple[_Inspected, bytes] | None:
    answer = engine.inspect(container)
    return None if answer is None else (_decoded(answer, _Inspected), answer)


def _gather(
    run: Run, asked: Mapping[str, "Future[tuple[_Inspected, bytes] | None]"]
) -> tuple[list[tuple[_Inspected, bytes]], Mapping[str, str]]:
    wait(asked.values(), run.deadline.remaining())
    found, problems = [], {}
    for container, future in asked.items():
        if not future.done():
            problems[container] = run.deadline.reason()
            continue
        try:
            answer = future.result()
        except CollectError as error:
            problems[container] = str(error)
        else:
            if answer is not None:
                found.append(answer)
    return found, problems


def containers_of(snapshot: Snapshot) -> tuple[Container, ...]:
    """Those that a snapshot tells of; none where it tells of none."""
    try:
        return DockerEngine.load(snapshot).containers
    except EvidenceError:
        return ()


def _tells(container: Container) -> bool:
    """True where the log may say why something does not work: not the applications'."""
    if role_of(container) is not None or installs_redirect(container):
        return True
    return runs_envoy(container) and not container.running


def _array(answers: Sequence[bytes]) -> bytes:
    return msgspec.json.encode([msgspec.Raw(each) for each in answers])
