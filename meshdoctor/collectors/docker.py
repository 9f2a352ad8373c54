"""Docker's engine: found as the docker command finds it, listed, inspected, run commands in."""

import contextlib
import logging
import math
import os
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import docker
import msgspec
import requests
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, NotFound
from docker.tls import TLSConfig
from paramiko import SSHException

from meshdoctor.collectors.http import HttpSource
from meshdoctor.collectors.interface import (
    MAX_BODY,
    AnswerError,
    CollectError,
    Deadline,
    HungError,
    NotAnsweringError,
    Options,
    OutOfTimeError,
    Run,
)
from meshdoctor.evidence import layout
from meshdoctor.evidence.docker import (
    CONTAINERS,
    IMAGES,
    NETWORKS,
    VERSION,
    Container,
    DockerEngine,
)
from meshdoctor.evidence.interface import EvidenceError
from meshdoctor.snapshot import Snapshot
from meshdoctor.snapshot.redaction import redact_text
from meshdoctor.topology.roles import installs_redirect, role_of, runs_envoy

T = TypeVar("T")

INFO: Final = "docker/info.json"

# An ssh server allows ten sessions on one connection (MaxSessions): so many are at work, and as
# many wait to be used again.
_SSH_SESSIONS: Final = 4
_CONNECTIONS: Final = 16

_EVENTS: Final = (
    *("start", "die", "destroy", "rename", "pause", "unpause"),
    *("connect", "disconnect"),
)

# A list may come slowly, but not for ever: so many request timeouts are given it.
_PATIENCE: Final = 4

_OK: Final = 200
_NOT_FOUND: Final = 404

_FRAME: Final = struct.Struct(">BxxxL")
_CHUNK: Final = 64 * 2**10

# A command in a container asks the container itself: no proxy that its environment names.
_UNPROXIED: Final = {"http_proxy": "", "HTTP_PROXY": "", "all_proxy": "", "ALL_PROXY": ""}

_DEFAULT: Final = "unix:///var/run/docker.sock"
_CLI: Final = (
    "name the engine with --docker-host or DOCKER_HOST, or a context with --docker-context"
)
HINT: Final = f"; {_CLI}"
"""How a message ends that somebody should point elsewhere."""

# What the SDK lets through besides its own: requests', paramiko's, and the system's.
_FAILURES: Final = (DockerException, requests.RequestException, SSHException, OSError, EOFError)


class Output(msgspec.Struct, frozen=True):
    """What a command in a container printed, and its exit code."""

    code: int
    out: bytes
    err: str


class Engine:
    """A Docker engine that answers. Its methods raise CollectError."""

    def __init__(self, api: docker.APIClient, url: str, deadline: Deadline) -> None:
        self._api = api
        self.url = url
        self._deadline = deadline
        self._is_ssh = urlsplit(url).scheme == "ssh"
        self._places = threading.Semaphore(_SSH_SESSIONS if self._is_ssh else _CONNECTIONS)
        socket = _socket_path(url)
        # The SDK takes ten times the CPU for each of some hundred questions.
        self._near = (
            HttpSource("http://localhost", deadline, unix_socket=str(socket)) if socket else None
        )

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
        except _GoneError:
            return None

    def _read(self, path: str) -> bytes:
        """What the engine's API answers to a GET, as it is written."""
        path = f"/v{self._api.api_version}{path}"
        if self._near is not None:
            status, body = self._read_near(self._near, path)
        else:
            with self._asking():
                answer = self._api.get(f"{self._api.base_url}{path}", timeout=self._api.timeout)
                status, body = answer.status_code, answer.content
        if status == _OK:
            return body
        said = _said(body) or f"status {status}"
        raise (_GoneError if status == _NOT_FOUND else AnswerError)(f"Docker says: {said}", status)

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
        wanted = {"type": ["container", "network"], "event": list(_EVENTS)}
        with self._asking():
            # Stays open: other threads' questions must not wait for it.
            stream = self._api.events(filters=wanted, decode=True)
        yield ""
        try:
            for event in stream:
                actor = event.get("Actor", {}).get("Attributes", {})
                yield f"{event.get('Action', '')} {actor.get('name', '')}".strip()
        except _FAILURES as error:
            raise NotAnsweringError(f"Docker does not answer: {_innermost(error)}") from error
        raise NotAnsweringError("Docker ended its list of events")

    def logs(self, container: str, lines: int) -> bytes:
        """The last lines of both its outputs, each with its time."""
        with self._asking():
            return self._api.logs(container, timestamps=True, tail=lines)

    def execute(self, container: str, command: Sequence[str], *, user: str = "") -> Output:
        """Run a command that only reads. Its proxy variables are emptied: all is local to it."""
        with self._asking():
            execution = self._api.exec_create(
                container, list(command), user=user, environment=_UNPROXIED
            )["Id"]
            if self._is_ssh:
                # What ends with its connection ends too early on one of paramiko's.
                out, err = self._api.exec_start(execution, demux=True)
            else:
                out, err = self._output(execution)
            code = self._api.exec_inspect(execution)["ExitCode"]
        text = (err or b"").decode("utf-8", "replace").strip()
        return Output(code if code is not None else -1, out or b"", text)

    def _output(self, execution: str) -> tuple[bytes, bytes]:
        """As `exec_start` of the SDK, which waits without a limit and may lose the first bytes."""
        streams = bytearray()
        with self._api.post(
            f"{self._api.base_url}/v{self._api.api_version}/exec/{execution}/start",
            json={"Detach": False, "Tty": False},
            stream=True,
            # The commands bound themselves by one request timeout: this is for the engine.
            timeout=2 * self._deadline.request(),
        ) as response:
            response.raise_for_status()
            for part in response.iter_content(_CHUNK):
                streams += part
                if len(streams) > MAX_BODY:
                    raise AnswerError(f"it printed more than {MAX_BODY} bytes")
        return _demultiplexed(streams)

    @contextmanager
    def helper(self, image: str, container: str) -> Iterator[str]:
        """A container of `image` in the network namespace of another, removed afterwards."""
        seconds = str(int(self._deadline.remaining()) + 1)
        with self._asking():
            created = self._api.create_container(
                image,
                entrypoint=["sleep", seconds],
                command=[],
                labels={"meshdoctor": "helper"},
                host_config=self._api.create_host_config(
                    network_mode=f"container:{container}", cap_drop=["ALL"], auto_remove=True
                ),
            )["Id"]
        try:
            with self._asking():
                self._api.start(created)
            yield created
        finally:
            # Whatever happened, and however late it is; else it would go when its sleep ends.
            with contextlib.suppress(*_FAILURES):
                self._api.remove_container(created, force=True)

    def close(self) -> None:
        self._api.close()
        if self._near is not None:
            self._near.close()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        timeout = self._deadline.request()
        self._api.timeout = math.ceil(timeout)
        try:
            with self._places:
                yield
        except NotFound as error:
            raise _GoneError(_explained(error)) from error
        except APIError as error:
            raise AnswerError(_explained(error), error.status_code or 0) from error
        except requests.Timeout as error:
            raise HungError(f"Docker sent nothing for {timeout:.3g} seconds") from error
        except _FAILURES as error:
            raise NotAnsweringError(f"Docker does not answer: {_innermost(error)}") from error


def _demultiplexed(streams: bytearray) -> tuple[bytes, bytes]:
    """Output and errors, from frames of a kind, a length in four bytes, and that many bytes."""
    found: dict[int, list[memoryview]] = {1: [], 2: []}
    view = memoryview(streams)
    while len(view) >= _FRAME.size:
        kind, length = _FRAME.unpack_from(view)
        view = view[_FRAME.size :]
        if kind in found:
            found[kind].append(view[:length])
        view = view[length:]
    return b"".join(found[1]), b"".join(found[2])


class _Listed(msgspec.Struct):
    id: str = msgspec.field(name="Id")


class _Inspected(msgspec.Struct):
    name: str = msgspec.field(name="Name", default="")
    image: str = msgspec.field(name="Image", default="")


class _Message(msgspec.Struct):
    message: str


def _decoded(answer: bytes, form: type[T]) -> T:
    """As whoever answers on the engine's port should have written it. Raises AnswerError."""
    try:
        return msgspec.json.decode(answer, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(f"Docker answered with something else: {error}") from error


def _said(answer: bytes) -> str:
    try:
        return _decoded(answer, _Message).message.strip()
    except AnswerError:
        return answer[:200].decode("utf-8", "replace").strip()


class _GoneError(AnswerError):
    """No such container, network, image, or exec."""


def _explained(error: APIError) -> str:
    return f"Docker says: {str(error.explanation or error).strip()}"


def _innermost(error: BaseException) -> str:
    """The system's own words, from under the layers that each repeat the one below."""
    seen = error
    while (below := seen.__cause__ or seen.__context__) is not None:
        seen = below
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    return str(seen) or type(seen).__name__


# ---------------------------------------------------------------- finding the engine


def connect(options: Options, deadline: Deadline) -> Engine:
    """The engine that the options, the environment or Docker's current context name.

    In the order of the docker command: flag, then DOCKER_HOST, then DOCKER_CONTEXT, then the
    context in use. Raises CollectError; its message says what was tried and what to try.
    """
    url, tls = _address(options)
    timeout = math.ceil(deadline.request())
    if (path := _socket_path(url)) is not None:
        _check_socket(url, path)
    try:
        with contextlib.closing(_client(url, tls, timeout, DEFAULT_DOCKER_API_VERSION)) as api:
            told: Any = api.version(api_version=False)
        version = told.get("ApiVersion") if isinstance(told, dict) else None
        if not isinstance(version, str):
            raise NotAnsweringError(f"what answers at {url} is no Docker engine{HINT}")
        api = _client(url, tls, timeout, version)
    except _FAILURES as error:
        raise NotAnsweringError(_why_not(url, error)) from error
    return Engine(api, url, deadline)


def _client(url: str, tls: TLSConfig | None, timeout: int, version: str) -> docker.APIClient:
    secured = tls if tls is not None else False
    # Without a handler, Python prints what paramiko logs of each connection that fails.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    ssh = urlsplit(url).scheme == "ssh"
    api = docker.APIClient(
        base_url=url,
        tls=secured,
        timeout=timeout,
        version=version,
        # Over ssh the SDK keeps a pool, and in it a session, for each path it asked for.
        num_pools=_SSH_SESSIONS if ssh else None,
        max_pool_size=1 if ssh else _CONNECTIONS,
    )
    # Else REQUESTS_CA_BUNDLE would be trusted in place of the engine's own authority, and a
    # proxy asked for an engine that is near. Asked for "auto", the client would not wait for it.
    api.trust_env = False
    return api


def _address(options: Options) -> tuple[str, TLSConfig | None]:
    environment = options.environment
    host = options.docker_host
    context = options.docker_context
    if not host and not context:
        host = environment.get("DOCKER_HOST")
        context = environment.get("DOCKER_CONTEXT")
    try:
        if host:
            return host, _tls(options)
        # Its stubs do not know that a context may be missing, or be without TLS.
        found: Any = ContextAPI.get_context(context)
    except _FAILURES as error:
        raise NotAnsweringError(f"Docker's settings cannot be used: {error}{HINT}") from error
    except Exception as error:  # the SDK lets whatever a damaged context file holds through
        raise NotAnsweringError(
            f"Docker's context {context or 'in use'} cannot be read: {error}{HINT}"
        ) from error
    if found is None:
        raise NotAnsweringError(
            f"there is no Docker context {context or 'as configured'}: see `docker context ls`"
        )
    return found.Host or _DEFAULT, found.TLSConfig or _tls(options)


def _tls(options: Options) -> TLSConfig | None:
    """TLS as DOCKER_TLS_VERIFY and DOCKER_CERT_PATH ask for it; None for none."""
    environment = options.environment
    verify = options.docker_tls_verify
    if verify is None:
        verify = bool(environment.get("DOCKER_TLS_VERIFY"))
    folder = options.docker_cert_path or environment.get("DOCKER_CERT_PATH")
    if not verify and not folder:
        return None
    certificates = Path(folder) if folder else Path.home() / ".docker"
    return TLSConfig(
        client_cert=(str(certificates / "cert.pem"), str(certificates / "key.pem")),
        ca_cert=str(certificates / "ca.pem"),
        verify=verify,
    )


# Where the system can, rights are asked for as the kernel will judge them.
_EFFECTIVE: Final = os.supports_effective_ids


def _socket_path(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(parts.path) if parts.scheme in {"unix", "http+unix"} else None


def _check_socket(url: str, path: Path) -> None:
    """Raise NotAnsweringError where no try is needed: the SDK leaks a socket that fails."""
    if not path.exists():
        raise NotAnsweringError(
            f"no Docker engine at {url}: there is no such socket; start Docker, or {_CLI}"
        )
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in _EFFECTIVE):
        raise NotAnsweringError(
            f"no permission to use Docker's socket {path}: join the group `docker`, or run "
            "meshdoctor with sudo"
        )


def _why_not(url: str, error: Exception) -> str:
    reason = _innermost(error)
    path = _socket_path(url)
    if path is not None and "refused" in reason.lower():
        return f"nothing listens on Docker's socket {path}: start Docker, or {_CLI}"
    return redact_text(f"no Docker engine answers at {url}: {reason}{HINT}")


# ---------------------------------------------------------------- what is recorded


def collect(run: Run, engine: Engine) -> tuple[Container, ...]:
    """Record the engine's containers, networks, images and logs; the containers as facts.

    A container that vanishes between list and inspect costs only itself. Logs are still under
    way when this returns.
    """
    run.later(VERSION, engine.version)
    run.later(INFO, engine.info)
    run.later(NETWORKS, lambda: _array(engine.networks()))
    run.recorder.expect(CONTAINERS, IMAGES)
    try:
        ids = _listed(run, engine)
    except CollectError as error:
        run.recorder.absent(CONTAINERS, str(error))
        run.recorder.absent(IMAGES, "the containers could not be listed")
        return ()
    run.say(f"inspecting {len(ids)} containers")
    inspected, problems = _gather(
        run, {each: run.workers.submit(_inspected, engine, each) for each in ids}
    )
    for container, reason in problems.items():
        run.recorder.absent(f"{CONTAINERS}#{container[:12]}", reason)
    # As `docker inspect` would list them, whoever answered first.
    inspected.sort(key=lambda each: each[0].name)
    raw = _array([each for _, each in inspected])
    run.recorder.put(CONTAINERS, raw)
    used = sorted({told.image for told, _ in inspected if told.image})
    run.later(IMAGES, lambda: _array([found for each in used if (found := engine.image(each))]))
    containers = containers_of(Snapshot({CONTAINERS: raw}))
    for each in filter(_tells, containers):
        logs = partial(engine.logs, each.id, run.options.logs_tail)
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
