"""What is asked of Docker's SDK: engines that are on no socket, contexts, commands, events."""

import contextlib
import json
import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import docker
import requests
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.context import ContextAPI
from docker.errors import APIError, DockerException, NotFound
from docker.tls import TLSConfig
from paramiko import SSHException
from urllib3.exceptions import HTTPError, ReadTimeoutError

from meshdoctor.collectors.docker import HINT, STARTING, framed
from meshdoctor.collectors.interface import (
    MAX_BODY,
    AnswerError,
    Deadline,
    GoneError,
    HungError,
    NotAnsweringError,
    words_of,
)
from meshdoctor.files import is_file

# An ssh server allows ten sessions on one connection (MaxSessions): so many are at work, and as
# many wait to be used again.
_SSH_SESSIONS: Final = 4
_CONNECTIONS: Final = 16

_EVENTS: Final = (
    *("start", "die", "destroy", "rename", "pause", "unpause"),
    *("connect", "disconnect"),
)

_CHUNK: Final = 64 * 2**10

# What the SDK lets through besides its own: requests', urllib3's, paramiko's, and the system's.
_FAILURES: Final = (
    *(DockerException, requests.RequestException, HTTPError),
    *(SSHException, OSError, EOFError),
)


class Sdk:
    """A client of one engine. Its methods raise CollectError."""

    def __init__(self, url: str, deadline: Deadline, version: str, tls: TLSConfig | None) -> None:
        self._deadline = deadline
        self._is_ssh = urlsplit(url).scheme == "ssh"
        self._places = threading.Semaphore(_SSH_SESSIONS if self._is_ssh else _CONNECTIONS)
        timeout = math.ceil(deadline.request())
        try:
            self._api = _client(url, tls, timeout, version)
        except _FAILURES as error:
            raise NotAnsweringError(_innermost(error)) from error

    def get(self, path: str) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        with self._asking():
            answer = self._api.get(f"{self._api.base_url}{path}", timeout=self._api.timeout)
            return answer.status_code, answer.content

    def events(self) -> Iterator[str]:
        """See `Engine.events`."""
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

    def post(self, path: str, sent: bytes) -> tuple[int, bytes]:
        """The same for a POST of JSON."""
        with self._asking():
            answer = self._posted(path, sent, self._api.timeout)
            return answer.status_code, answer.content

    def start(self, execution: str, timeout: float, come: list[bytes]) -> tuple[int, bytes]:
        """The status and what a command prints, which is in `come` as soon as it comes."""
        with self._asking():
            if self._is_ssh:
                # What ends with its connection ends too early on one of paramiko's.
                out, err = self._api.exec_start(execution, demux=True)
                return 200, b"".join(map(framed, (1, 2), (out or b"", err or b"")))
            # The SDK would wait without a limit, and may lose the first bytes.
            path = f"/v{self._api.api_version}/exec/{execution}/start"
            with self._posted(path, STARTING, timeout) as answer:
                # `read` would keep back a part of what came; older versions have only that.
                read = getattr(answer.raw, "read1", answer.raw.read)
                size = 0
                while part := read(_CHUNK):
                    come.append(part)
                    size += len(part)
                    if size > MAX_BODY:
                        raise AnswerError(f"it printed more than {MAX_BODY} bytes")
                return answer.status_code, b"".join(come)

    def _posted(self, path: str, sent: bytes, timeout: float) -> requests.Response:
        url = f"{self._api.base_url}{path}"
        headers = {"Content-Type": "application/json"}
        return self._api.post(url, sent, headers=headers, timeout=timeout, stream=True)

    @contextmanager
    def helper(self, image: str, container: str) -> Iterator[str]:
        """See `Engine.helper`."""
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

    @contextmanager
    def _asking(self) -> Iterator[None]:
        timeout = self._deadline.request()
        self._api.timeout = math.ceil(timeout)
        try:
            with self._places:
                yield
        except NotFound as error:
            raise GoneError(_explained(error), 404) from error
        except APIError as error:
            raise AnswerError(_explained(error), error.status_code or 0) from error
        except (requests.Timeout, ReadTimeoutError) as error:
            raise HungError(f"Docker sent nothing for {timeout:.3g} seconds") from error
        except _FAILURES as error:
            raise NotAnsweringError(f"Docker does not answer: {_innermost(error)}") from error


def version(url: str, deadline: Deadline, tls: TLSConfig | None) -> bytes:
    """What the engine says of itself to whoever asks in no version. Raises CollectError."""
    timeout = math.ceil(deadline.request())
    try:
        with contextlib.closing(_client(url, tls, timeout, DEFAULT_DOCKER_API_VERSION)) as api:
            return json.dumps(api.version(api_version=False)).encode()
    except _FAILURES as error:
        raise NotAnsweringError(_innermost(error)) from error


def context_of(name: str | None) -> tuple[str, TLSConfig | None]:
    """Where a context's engine is, "" where it does not say; of the one in use without a name.

    Raises CollectError.
    """
    try:
        # Its stubs do not know that a context may be missing, or be without TLS.
        found: Any = ContextAPI.get_context(name)
    except _FAILURES as error:
        raise NotAnsweringError(f"Docker's settings cannot be used: {error}{HINT}") from error
    except Exception as error:  # the SDK lets whatever a damaged context file holds through
        raise NotAnsweringError(
            f"Docker's context {name or 'in use'} cannot be read: {error}{HINT}"
        ) from error
    if found is None:
        raise NotAnsweringError(
            f"there is no Docker context {name or 'as configured'}: see `docker context ls`"
        )
    return found.Host or "", found.TLSConfig or None


def certificates(folder: Path, *, verify: bool) -> TLSConfig:
    """Those that the docker command would use. Raises CollectError."""
    lacking = [name for name in ("cert.pem", "key.pem") if not is_file(folder / name)]
    if lacking:
        raise NotAnsweringError(
            f"Docker is to be asked by TLS, and in {folder} is no {' and no '.join(lacking)}: "
            "name their folder with DOCKER_CERT_PATH"
        )
    try:
        return TLSConfig(
            client_cert=(str(folder / "cert.pem"), str(folder / "key.pem")),
            ca_cert=str(folder / "ca.pem"),
            verify=verify,
        )
    except _FAILURES as error:
        raise NotAnsweringError(f"Docker's settings cannot be used: {error}{HINT}") from error


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


def _explained(error: APIError) -> str:
    return f"Docker says: {str(error.explanation or error).strip()}"


def _innermost(error: BaseException) -> str:
    """The system's own words, from under the layers that each repeat the one below."""
    seen = error
    while (below := seen.__cause__ or seen.__context__) is not None:
        seen = below
    return words_of(seen)
