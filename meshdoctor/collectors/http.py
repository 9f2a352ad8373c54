"""GET over HTTP/1.1, bounded in time and size, with sentences for what can go wrong."""

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import httpcore
import httpx
import msgspec

from meshdoctor.collectors.interface import (
    MAX_BODY,
    AnswerError,
    Deadline,
    HungError,
    NotAnsweringError,
    RefusedError,
)
from meshdoctor.evidence import access
from meshdoctor.snapshot.redaction import MASK

T = TypeVar("T")

Get = Callable[[str], bytes]
"""Path and query in, body out. Raises CollectError."""

# A source may be slow with a large answer, as long as some of it comes within each request
# timeout; one that only drips is given up after this many of them.
_PATIENCE: Final = 4
_SHOWN: Final = 160


class Answer(msgspec.Struct, frozen=True):
    """A body and, by names of any case, the headers before it."""

    body: bytes
    headers: Mapping[str, str]


class HttpSource:
    """A server at one base URL. Follows no redirect and uses no proxy of the environment."""

    def __init__(
        self,
        base_url: str,
        deadline: Deadline,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
        unix_socket: str | None = None,
        server_name: str | None = None,
        connections: int = 1,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._deadline = deadline
        self._headers = headers or {}
        self._extensions = {"sni_hostname": server_name} if server_name else {}
        # Loading the system's certificates takes longer than most answers do.
        if verify is True and not base_url.startswith("https:"):
            verify = False
        limits = httpx.Limits(max_connections=connections)
        self._client = httpx.Client(
            headers=headers,
            params=params,
            transport=_Transport(verify=verify, limits=limits, uds=unix_socket, trust_env=False),
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    @property
    def is_anonymous(self) -> bool:
        """True where it is asked without any header that says who asks."""
        return not self._headers

    def get(self, path: str) -> bytes:
        """The body of a 200. Raises CollectError."""
        return self.fetch(path).body

    def fetch(self, path: str) -> Answer:
        """A 200 with its headers. Raises CollectError."""
        timeout = self._deadline.request()
        patience = _PATIENCE * timeout
        body = bytearray()
        try:
            url = httpx.URL(self.base_url + path)
            extensions = {**self._extensions, "timeout": httpx.Timeout(timeout).as_dict()}
            request = self._client.build_request("GET", url, extensions=extensions)
            with _answered_within(patience):
                response = self._client.send(request, stream=True)
                try:
                    for part in response.iter_bytes():
                        body += part
                        if len(body) > MAX_BODY:
                            raise AnswerError(f"its answer is larger than {MAX_BODY} bytes")
                finally:
                    response.close()
        except _TooLateError:
            raise HungError(
                f"its answer was not complete after {patience:g} seconds "
                f"({len(body)} bytes of its body had come)"
            ) from None
        except httpx.ConnectTimeout:
            raise NotAnsweringError(f"no connection within {timeout:.3g} seconds") from None
        except httpx.TimeoutException:
            raise HungError(f"{access.HANGS} sent nothing for {timeout:.3g} seconds") from None
        except httpx.ConnectError as error:
            reason = _reason(error)
            kind = RefusedError if "refused" in reason else NotAnsweringError
            raise kind(reason.lower() if kind is RefusedError else reason) from error
        except httpx.RemoteProtocolError as error:
            if body:
                raise AnswerError(f"its answer broke off after {len(body)} bytes") from error
            raise NotAnsweringError(f"it does not speak HTTP: {_reason(error)}") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise NotAnsweringError(_reason(error)) from error
        self._accept(response, bytes(body))
        return Answer(bytes(body), response.headers)

    def _shown(self, text: str) -> str:
        """A line of what the server said, should it repeat what it was told in confidence."""
        for told in self._headers.values():
            text = text.replace(told, MASK)
        return _line(text)

    def _accept(self, response: httpx.Response, body: bytes) -> None:
        if response.is_redirect:
            where = self._shown(response.headers.get("location", "elsewhere"))
            raise AnswerError(f"it redirects to {where}: not followed", response.status_code)
        if response.status_code != httpx.codes.OK:
            text = body[:4096].decode("utf-8", "replace").lstrip()
            # A page for browsers says no more than the status does.
            said = "" if text.startswith("<") else self._shown(text)
            raise AnswerError(
                f"it answers {response.status_code} {response.reason_phrase}".rstrip()
                + (f" ({said})" if said else ""),
                response.status_code,
            )


# ---------------------------------------------------------------- an answer's whole time


class _TooLateError(Exception):
    """The answer as a whole takes too long, however steadily it comes."""


_END: ContextVar[float] = ContextVar("_END")
"""When the answer that is being read must be whole, by the monotonic clock."""


@contextmanager
def _answered_within(seconds: float) -> Iterator[None]:
    token = _END.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _END.reset(token)


class _Transport(httpx.HTTPTransport):
    """httpx's own, that ends where an answer does not: its timeouts are for each read alone."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # httpx hands no backend through to httpcore, which takes one.
        self._pool._network_backend = _Backend(self._pool._network_backend)  # noqa: SLF001


class _Backend(httpcore.NetworkBackend):
    """Connections whose streams keep to the end of the answer that they are read for."""

    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.connect_unix_socket(path, timeout, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if time.monotonic() > _END.get():
            raise _TooLateError
        return self._inner.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _line(text: str) -> str:
    line = " ".join(text.split())
    shown = "".join(letter for letter in line if letter.isprintable())
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _reason(error: Exception) -> str:
    """The system's words for it, without the numbers that httpx puts in front."""
    text = str(error) or type(error).__name__
    return text.rpartition("] ")[2] if text.startswith("[Errno") else text


def is_loopback(url: str) -> bool:
    """True of an address on this machine itself."""
    return (urlsplit(url).hostname or "") in {"127.0.0.1", "::1", "localhost"}
