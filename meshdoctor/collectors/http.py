"""GET over HTTP/1.1, bounded in time and size, with sentences for what can go wrong."""

import ssl
from collections.abc import Callable, Mapping
from typing import Final, Protocol, Self
from urllib.parse import urlencode, urlsplit

from meshdoctor.collectors.interface import (
    AnswerError,
    Deadline,
)
from meshdoctor.collectors.plain_http import PlainHttp, Reply
from meshdoctor.snapshot.redaction import MASK

Get = Callable[[str], bytes]
"""Path and query in, body out. Raises CollectError."""

# A source may be slow with a large answer, as long as some of it comes within each request
# timeout; one that only drips is given up after this many of them.
_PATIENCE: Final = 4
_SHOWN: Final = 160
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)


class Client(Protocol):
    """What connections to a server are kept by: in the clear, or through TLS."""

    def get(self, path: str, timeout: float, patience: float) -> Reply: ...

    def close(self) -> None: ...


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
        self._told = tuple((headers or {}).values())
        sent = {"User-Agent": "meshdoctor", **(headers or {})}
        self._params = urlencode(params or {})
        self.is_anonymous = not headers
        """True where it is asked without any header that says who asks."""
        self._client: Client
        if base_url.startswith("https:"):
            from meshdoctor.collectors.secure_http import SecureHttp  # noqa: PLC0415 # httpx

            self._client = SecureHttp(
                self.base_url,
                sent,
                verify=verify,
                server_name=server_name,
                connections=connections,
            )
        else:
            self._client = PlainHttp(self.base_url, sent, unix_socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def get(self, path: str) -> bytes:
        """The body of a 200. Raises CollectError."""
        return self.fetch(path).body

    def fetch(self, path: str) -> Reply:
        """A 200 with its headers. Raises CollectError."""
        reply = self.ask(path)
        self._accept(reply)
        return reply

    def ask(self, path: str) -> Reply:
        """An answer of whatever status. Raises CollectError."""
        timeout = self._deadline.request()
        if self._params:
            path = f"{path}{'&' if '?' in path else '?'}{self._params}"
        return self._client.get(path, timeout, _PATIENCE * timeout)

    def _shown(self, text: str) -> str:
        """A line of what the server said, should it repeat what it was told in confidence."""
        for told in self._told:
            text = text.replace(told, MASK)
        return _line(text)

    def _accept(self, reply: Reply) -> None:
        if reply.status in _REDIRECTS:
            where = self._shown(reply.headers.get("location", "elsewhere"))
            raise AnswerError(f"it redirects to {where}: not followed", reply.status)
        if reply.status != _OK:
            text = reply.body[:4096].decode("utf-8", "replace").lstrip()
            # A page for browsers says no more than the status does.
            said = "" if text.startswith("<") else self._shown(text)
            raise AnswerError(
                f"it answers {reply.status} {reply.reason}".rstrip()
                + (f" ({said})" if said else ""),
                reply.status,
            )


def _line(text: str) -> str:
    line = " ".join(text.split())
    shown = "".join(letter for letter in line if letter.isprintable())
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def is_loopback(url: str) -> bool:
    """True of an address on this machine itself."""
    return (urlsplit(url).hostname or "") in {"127.0.0.1", "::1", "localhost"}
