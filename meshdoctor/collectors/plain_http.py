"""Plain HTTP/1.1 by the standard library, for who answers within milliseconds.

Envoys, Docker and Consul share a laptop's cores with us, and of them a run asks hundreds of small
questions: httpx takes four times the CPU for each, which they then lack (docs/performance.md).
"""

import http.client
import socket
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

from meshdoctor.collectors.interface import (
    MAX_BODY,
    AnswerError,
    HungError,
    NotAnsweringError,
    RefusedError,
    words_of,
)
from meshdoctor.evidence import access

_CHUNK: Final = 256 * 2**10
_PORT: Final = 80


class Reply(msgspec.Struct, frozen=True):
    """An answer of any status; `headers` by their names in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class PlainHttp:
    """Connections to one server, kept alive; threads may share it, each on one of its own."""

    def __init__(
        self, base_url: str, headers: Mapping[str, str], unix_socket: str | None = None
    ) -> None:
        self._base_url = base_url
        self._headers = headers
        self._unix_socket = unix_socket
        self._idle: list[_Connection] = []

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def get(self, path: str, timeout: float, patience: float) -> Reply:
        """The answer to one GET, whatever its status is. Raises CollectError.

        `timeout` is for each wait, `patience` for the whole answer, both in seconds.
        """
        return self._ask(_Question(path, timeout, patience), [])

    def post(
        self, path: str, sent: bytes, timeout: float, patience: float, body: list[bytes]
    ) -> Reply:
        """The same for a POST of JSON. What comes is put into `body` as soon as it comes.

        Where the server closed the connection just then, it may be sent twice.
        """
        return self._ask(_Question(path, timeout, patience, sent), body)

    def _ask(self, question: "_Question", body: list[bytes]) -> Reply:
        kept = self._kept()
        if kept is not None:
            try:
                return self._ask_by(kept, question, body)
            except _StaleError:
                pass
        return self._ask_by(self._new(question.timeout), question, body)

    def _ask_by(
        self, connection: "_Connection", question: "_Question", body: list[bytes]
    ) -> Reply:
        try:
            with _explained(connection, question, body):
                response = connection.ask(question, self._headers)
                # A connection that ends with its answer is the answer's to close.
                with closing(response):
                    _read(response, body, as_it_comes=question.sent is not None)
        except BaseException:
            connection.close()
            raise
        if not response.will_close:
            self._idle.append(connection)
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, response.reason, headers, b"".join(body))

    def _kept(self) -> "_Connection | None":
        """One that is still open, as far as that can be seen."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.is_open:
                return connection
            connection.close()

    def _new(self, timeout: float) -> "_Connection":
        try:
            parts = urlsplit(self._base_url)
            if parts.scheme != "http" or not parts.hostname:
                raise NotAnsweringError(f"{self._base_url} is no address of HTTP")
            port = parts.port or _PORT
            made = _Connection(parts.hostname, port, parts.path, self._unix_socket, timeout)
        except (ValueError, http.client.InvalidURL) as error:
            raise NotAnsweringError(f"{self._base_url} is no address: {error}") from error
        if parts.username is not None:
            named = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            made.authorization = f"Basic {b64encode(named.encode()).decode()}"
        return made


class _Question(msgspec.Struct, frozen=True):
    """What is asked, and how long for. `sent` is JSON, None for a GET."""

    path: str
    timeout: float
    patience: float
    sent: bytes | None = None


def _read(response: http.client.HTTPResponse, body: list[bytes], *, as_it_comes: bool) -> None:
    # `read` is faster, and keeps back what came last until there is as much as it was asked for.
    read = response.read1 if as_it_comes and response.length is None else response.read
    come = 0
    while part := read(_CHUNK):
        body.append(part)
        come += len(part)
        if come > MAX_BODY:
            raise AnswerError(f"its answer is larger than {MAX_BODY} bytes")
    # Read in parts, it does not say itself that some of what its head announced is missing.
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)


@contextmanager
def _explained(
    connection: "_Connection", question: _Question, body: Sequence[bytes]
) -> Iterator[None]:
    """What went wrong with an answer, of which `body` has come, in words and as a CollectError."""
    seconds = f"{question.timeout:.3g}"
    try:
        yield
    except TooLateError:
        raise HungError(too_late(question.patience, sum(map(len, body)))) from None
    except TimeoutError:
        if not connection.was_made:
            raise NotAnsweringError(f"no connection within {seconds} seconds") from None
        raise HungError(f"{access.HANGS} sent nothing for {seconds} seconds") from None
    except ConnectionRefusedError:
        raise RefusedError(access.REFUSED) from None
    except http.client.InvalidURL as error:
        raise NotAnsweringError(str(error)) from error
    except (http.client.HTTPException, ConnectionError) as error:
        come = sum(map(len, body)) + len(getattr(error, "partial", b""))
        if come:
            raise AnswerError(f"its answer broke off after {come} bytes") from error
        if isinstance(error, http.client.HTTPException):
            raise NotAnsweringError(f"it does not speak HTTP: {words_of(error)}") from error
        raise NotAnsweringError(words_of(error)) from error
    except (OSError, UnicodeError) as error:
        raise NotAnsweringError(words_of(error)) from error


def too_late(patience: float, come: int) -> str:
    """Said of an answer that still comes; `come` bytes of its body have."""
    return (
        f"its answer was not complete after {patience:g} seconds "
        f"({come} bytes of its body had come)"
    )


class TooLateError(Exception):
    """The answer as a whole takes too long, however steadily it comes."""


class _StaleError(Exception):
    """The server closed a connection that was kept, just when it was used again."""


class _Connection(http.client.HTTPConnection):
    """To a port or to a Unix socket; what it reads ends where an answer takes too long."""

    sock: "_Socket | None"

    def __init__(
        self, host: str, port: int, base: str, unix_socket: str | None, timeout: float
    ) -> None:
        super().__init__(host, port, timeout=timeout)
        self._base = base
        self._unix_socket = unix_socket
        self.authorization = ""
        # Its socket does not tell: it is handed over where the end of an answer is that of it.
        self.was_made = False

    def _connected(self) -> socket.socket:
        if self._unix_socket is None:
            made = socket.create_connection((self.host, self.port), self.timeout)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(self.timeout)
            made.connect(self._unix_socket)
        except BaseException:
            made.close()
            raise
        return made

    @property
    def is_open(self) -> bool:
        """False where the server closed it meanwhile, or sent what nobody asked for."""
        if self.sock is None:
            return False
        self.sock.settimeout(0)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def ask(self, question: _Question, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        self.timeout = question.timeout
        sock, is_kept = self.sock, self.sock is not None
        if sock is None:
            self.sock = sock = _Socket(fileno=self._connected().detach())
            self.was_made = True
        sock.settimeout(question.timeout)
        sock.end = time.monotonic() + question.patience
        try:
            sent = dict(headers)
            if self.authorization:
                sent["Authorization"] = self.authorization
            path = f"{self._base}{question.path}"
            if question.sent is None:
                self.request("GET", path, headers=sent)
            else:
                sent["Content-Type"] = "application/json"
                self.request("POST", path, question.sent, sent)
            return self.getresponse()
        except ConnectionError as error:
            if is_kept:
                raise _StaleError from error
            raise


class _Socket(socket.socket):
    """Its timeout is for each read; no read begins after `end`, by the monotonic clock."""

    end: float = 0.0

    def recv_into(self, *arguments: Any) -> int:
        if time.monotonic() > self.end:
            raise TooLateError
        return super().recv_into(*arguments)
