"""GET over HTTP/1.1, bounded in time and size, with sentences for what can go wrong."""

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from meshdoctor.collectors.interface import (
    MAX_BODY,
    AnswerError,
    Deadline,
    HungError,
    NotAnsweringError,
    RefusedError,
)
from meshdoctor.snapshot.redaction import MASK

T = TypeVar("T")

Get = Callable[[str], bytes]
"""Path and query in, body out. Raises CollectError."""

# A source may be slow with a large answer, as long as some of it comes within each request
# timeout; one that only drips is given up after this many of them.
_PATIENCE: Final = 4
_SHOWN: Final = 160


@dataclass(frozen=True, slots=True)
class Answer:
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
            transport=httpx.HTTPTransport(
                verify=verify, limits=limits, uds=unix_socket, trust_env=False
            ),
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
        started = time.monotonic()
        body = bytearray()
        try:
            url = httpx.URL(self.base_url + path)
            extensions = {**self._extensions, "timeout": httpx.Timeout(timeout).as_dict()}
            request = self._client.build_request("GET", url, extensions=extensions)
            response = self._client.send(request, stream=True)
            try:
                for part in response.iter_bytes():
                    body += part
                    if len(body) > MAX_BODY:
                        raise AnswerError(f"its answer is larger than {MAX_BODY} bytes")
                    if time.monotonic() - started > _PATIENCE * timeout:
                        raise HungError(
                            f"its answer was not complete after {_PATIENCE * timeout:g} seconds "
                            f"({len(body)} bytes had come)"
                        )
            finally:
                response.close()
        except httpx.ConnectTimeout:
            raise NotAnsweringError(f"no connection within {timeout:.3g} seconds") from None
        except httpx.TimeoutException:
            raise HungError(
                f"it accepted the request and sent nothing for {timeout:.3g} seconds"
            ) from None
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
