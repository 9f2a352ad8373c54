"""GET over TLS, by httpx."""

import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import httpcore
import httpx

from meshdoctor.collectors.interface import (
    MAX_BODY,
    AnswerError,
    HungError,
    NotAnsweringError,
    RefusedError,
)
from meshdoctor.collectors.plain_http import Reply, TooLateError, too_late
from meshdoctor.evidence import access


class SecureHttp:
    """Connections to one server; `verify` says which certificates are believed."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        verify: ssl.SSLContext | bool,
        server_name: str | None,
        connections: int,
    ) -> None:
        self._base_url = base_url
        self._extensions = {"sni_hostname": server_name} if server_name else {}
        limits = httpx.Limits(max_connections=connections)
        self._client = httpx.Client(
            headers=headers,
            transport=_Transport(verify=verify, limits=limits, trust_env=False),
            follow_redirects=False,
        )

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, timeout: float, patience: float) -> Reply:
        """As `PlainHttp.get`. Raises CollectError."""
        body = bytearray()
        try:
            url = httpx.URL(self._base_url + path)
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
        except TooLateError:
            raise HungError(too_late(patience, len(body))) from None
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
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status_code, response.reason_phrase, headers, bytes(body))


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
            raise TooLateError
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


_WITHOUT_TLS: Final = ("WRONG_VERSION_NUMBER", "record layer failure")
"""What OpenSSL says, by its version, where plain HTTP comes back."""


def _reason(error: Exception) -> str:
    """The system's words for it, without the numbers that httpx puts in front."""
    text = str(error) or type(error).__name__
    if any(each in text for each in _WITHOUT_TLS):
        return "what answers there speaks no TLS: http:// is its address, not https://"
    return text.rpartition("] ")[2] if text.startswith("[Errno") else text
