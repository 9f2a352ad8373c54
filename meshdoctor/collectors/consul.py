"""Consul's HTTP API, with the settings that Consul's own command takes from its environment."""

import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec
from msgspec.structs import replace

from meshdoctor.collectors import ways
from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.http import HttpSource
from meshdoctor.collectors.interface import (
    AnswerError,
    CollectError,
    NotAnsweringError,
    Options,
    OutOfTimeError,
    Run,
    is_json,
    words_of,
)
from meshdoctor.collectors.plain_http import Reply
from meshdoctor.evidence import layout
from meshdoctor.evidence.access import LEFT_OUT
from meshdoctor.evidence.connect import INTENTIONS
from meshdoctor.evidence.consul import LEADER, SELF, SERVICES, version_told
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.interface import NOT_JSON
from meshdoctor.evidence.versions import minor
from meshdoctor.files import read_some
from meshdoctor.topology.roles import Role, role_of

_PORT: Final = 8500
_DEFAULT: Final = f"127.0.0.1:{_PORT}"

_PAGES: Final[Mapping[str, str]] = {
    "consul/agent/services.json": "/v1/agent/services",
    "consul/catalog/datacenters.json": "/v1/catalog/datacenters",
    "consul/catalog/nodes.json": "/v1/catalog/nodes",
    "consul/connect/ca/roots.json": "/v1/connect/ca/roots",
}
_PAGES_OF_SOME: Final[Mapping[str, str]] = {
    # Peers came with 1.13; the other two are Enterprise's. Whoever lacks the page lacks those.
    "consul/namespaces.json": "/v1/namespaces",
    "consul/partitions.json": "/v1/partitions",
    "consul/peerings.json": "/v1/peerings",
}
_CONFIG_KINDS: Final[Mapping[str, tuple[int, int]]] = {
    "service-defaults": (1, 5),
    "proxy-defaults": (1, 5),
    "api-gateway": (1, 15),
    "ingress-gateway": (1, 8),
    "mesh": (1, 10),
    "service-intentions": (1, 9),
    "service-resolver": (1, 6),
    "service-router": (1, 6),
    "service-splitter": (1, 6),
    "terminating-gateway": (1, 8),
}
"""Kinds of config entries, and the version of Consul that each came with.

One that is asked for a kind that it does not know calls that an error in its log.
"""
_EMPTY: Final = frozenset({b"[]", b"{}", b"null"})
_LONGEST_TOKEN: Final = 64 * 2**10
"""Bytes of a token's file: Consul's own tokens are 36 of them, a large JWT some thousands."""
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
# A kind that a Consul is too old for has no entries there: "invalid config entry kind: ...".
_UNKNOWN_KIND: Final = "invalid config entry kind"
_NO_ENTRIES: Final = "this Consul has no config entries"
_HINT: Final = "point meshdoctor at it with --consul or CONSUL_HTTP_ADDR"
_FILE_HINT: Final = "name its file with --consul-token-file or CONSUL_HTTP_TOKEN_FILE"
_TOKEN_HINT: Final = "give a token that may read it with --consul-token-file or CONSUL_HTTP_TOKEN"  # noqa: S105 # a hint

# What a status of Consul's means for somebody who only wants to read.
_MEANING: Final[Mapping[int, str]] = {
    401: _TOKEN_HINT,
    403: _TOKEN_HINT,
    _NOT_FOUND: "this Consul has no such page",
    429: "it asks for fewer requests: try again later",
}


class _Settings(msgspec.Struct, frozen=True):
    """How to speak to Consul, whichever address it has."""

    headers: Mapping[str, str]
    params: Mapping[str, str]
    verify: ssl.SSLContext | bool
    server_name: str | None
    tls: bool


_Answering = tuple[HttpSource, bytes]
"""A Consul that answers, and who it says leads."""


class Begun(msgspec.Struct, frozen=True):
    """What can be asked before Docker has said what there is, and is asked while Docker is."""

    address: str
    is_given: bool
    answering: Callable[[], _Answering]
    """Waits for the answer; raises CollectError."""


def begin(run: Run) -> Begun:
    """Ask at the address that was given, else at the one that Consul has by default."""
    run.recorder.expect(SERVICES)
    known = _known(run)
    asked = run.workers.submit(known.answering)
    return replace(known, answering=asked.result)


def _known(run: Run) -> Begun:
    """The same, asked only when somebody wants the answer."""
    given = _given(run.options)
    address = given or _DEFAULT
    return Begun(address, bool(given), partial(_ask, run, address))


def is_given(options: Options) -> bool:
    """Whether somebody said where Consul is."""
    return bool(_given(options))


def _given(options: Options) -> str:
    return options.consul or options.environment.get("CONSUL_HTTP_ADDR") or ""


def collect(
    run: Run, begun: Begun, engine: Engine | None, containers: Iterable[Container]
) -> None:
    """Find Consul and have its documents fetched, in the background from the first byte on."""
    run.workers.submit(_collect, run, begun, engine, tuple(containers))


def collect_shown(run: Run, engine: Engine, containers: Iterable[Container]) -> None:
    """Have the Consul read that runs in one of the containers, if any, and none was given."""
    containers = tuple(containers)
    if not is_given(run.options) and any(_shown(engine, containers)):
        run.recorder.expect(SERVICES)
        run.workers.submit(_collect, run, None, engine, containers)


def _collect(
    run: Run, begun: Begun | None, engine: Engine | None, containers: Iterable[Container]
) -> None:
    try:
        source, leader = _find(run, begun, engine, containers)
    except CollectError as error:
        run.recorder.absent(SERVICES, str(error))
        return
    run.recorder.put(LEADER, leader)
    run.say(f"reading Consul at {source.base_url}")
    for name, path in _PAGES.items():
        run.later(name, partial(_get, source, path))
    for name, path in _PAGES_OF_SOME.items():
        run.workers.submit(_record_if_known, run, source, name, path, _is_not_found)
    run.later(INTENTIONS, partial(_intentions, run, source))
    run.recorder.expect(SELF)
    run.workers.submit(_config, run, source)
    services = run.record(SERVICES, partial(_services, run, source))
    for service in _names(services):
        path = quote(service, safe="")
        run.later(
            layout.catalog_service(service),
            partial(_get, source, f"/v1/catalog/service/{path}"),
        )
        run.later(
            layout.health_service(service), partial(_get, source, f"/v1/health/service/{path}")
        )


def _services(run: Run, source: HttpSource) -> bytes:
    answer = _listed(run, source, "/v1/catalog/services", "consul/catalog/")
    if not _is_filtered(answer) and source.is_anonymous and _denies(answer):
        run.recorder.absent("consul/catalog/", f"{_MAY_LEAVE_OUT}: {_TOKEN_HINT}")
    return answer.body


def _intentions(run: Run, source: HttpSource) -> bytes:
    return _listed(run, source, "/v1/connect/intentions", "consul/connect/").body


def _listed(run: Run, source: HttpSource, path: str, below: str) -> Reply:
    """A list, of which something `below` is missing where Consul says that ACLs hide a part."""
    with _explained(source):
        answer = source.fetch(path)
    _accept(answer, is_anonymous=source.is_anonymous)
    if _is_filtered(answer):
        run.recorder.absent(below, f"{LEFT_OUT}: {_TOKEN_HINT}")
    return answer


def _record_if_known(
    run: Run, source: HttpSource, name: str, path: str, is_unknown: Callable[[CollectError], bool]
) -> None:
    """Record a page; nothing is missing where this Consul knows no such thing."""
    try:
        page = _get(source, path)
    except CollectError as error:
        if not is_unknown(error):
            run.recorder.absent(name, str(error))
    else:
        run.recorder.put(name, page)


def _is_not_found(error: CollectError) -> bool:
    return isinstance(error, AnswerError) and error.status == _NOT_FOUND


def _is_unknown_kind(error: CollectError) -> bool:
    return _UNKNOWN_KIND in str(error)


def _config(run: Run, source: HttpSource) -> None:
    """What Consul is, and the config entries of the kinds that it has.

    Before Consul 1.5 there are none, and one word on it is enough.
    """
    told = run.record(SELF, partial(_get, source, "/v1/agent/self"))
    version = minor(version_told(told or b""))
    kinds = [kind for kind, since in _CONFIG_KINDS.items() if version is None or version >= since]
    if not kinds:
        run.recorder.absent("consul/config/", _NO_ENTRIES)
        return
    first, *others = kinds
    try:
        entries = _get(source, f"/v1/config/{first}")
    except CollectError as error:
        if _is_not_found(error):
            run.recorder.absent("consul/config/", _NO_ENTRIES)
            return
        run.recorder.absent(_config_document(first), str(error))
    else:
        run.recorder.put(_config_document(first), entries)
    for kind in others:
        page = _config_document(kind), f"/v1/config/{kind}"
        run.workers.submit(_record_if_known, run, source, *page, _is_unknown_kind)


def _config_document(kind: str) -> str:
    return f"consul/config/{kind}.json"


def _names(services: bytes | None) -> Iterable[str]:
    """The keys of {"reviews": ["version|v1"], ...}."""
    try:
        return msgspec.json.decode(services or b"{}", type=dict[str, msgspec.Raw])
    except NOT_JSON:
        return ()


def _get(source: HttpSource, path: str) -> bytes:
    with _explained(source):
        answer = source.fetch(path)
    _accept(answer, is_anonymous=source.is_anonymous)
    return answer.body


_MAY_LEAVE_OUT: Final = "Consul's ACLs deny by default, and without a token it hides unsaid"


def _accept(answer: Reply, *, is_anonymous: bool) -> None:
    """Raise AnswerError for an answer that is empty for want of a right to see what is in it.

    Consul answers 200 with an empty list then. It says so in a header, but not to whom gives no
    token: `X-Consul-Default-ACL-Policy` is all that one hears.
    """
    if answer.body.strip() not in _EMPTY:
        return
    if _is_filtered(answer):
        raise AnswerError(f"Consul hides all of it by its ACLs: {_TOKEN_HINT}", _FORBIDDEN)
    if is_anonymous and _denies(answer):
        raise AnswerError(
            f"Consul's ACLs deny by default, and show none of it without a token; {_TOKEN_HINT}",
            _FORBIDDEN,
        )


def _is_filtered(answer: Reply) -> bool:
    return answer.headers.get("x-consul-results-filtered-by-acls") == "true"


def _denies(answer: Reply) -> bool:
    return answer.headers.get("x-consul-default-acl-policy") == "deny"


@contextmanager
def _explained(source: HttpSource) -> Iterator[None]:
    """Put into a failure's words that it is Consul's, and what may help."""
    try:
        yield
    except AnswerError as error:
        meaning = _MEANING.get(error.status)
        said = f"Consul: {error}"
        raise AnswerError(f"{said}; {meaning}" if meaning else said, error.status) from error
    except OutOfTimeError:
        raise
    except CollectError as error:
        raise NotAnsweringError(f"Consul at {source.base_url}: {error}") from error


def follow(
    run: Run, engine: Engine | None, containers: Iterable[Container], path: str, wait: int
) -> Iterator[int | None]:
    """The index of what is at `path`, whenever Consul answers a blocking query for it.

    None where its answers have no index: whatever is there does not block. Never ends, but raises
    CollectError.
    """
    source, _ = _find(run, _known(run), engine, containers)
    index = 0
    while True:
        with _explained(source):
            # Else Consul answers at once, with what there is.
            waiting = f"?index={index}&wait={wait}s" if index else ""
            answer = source.fetch(f"{path}{waiting}")
        written = answer.headers.get("x-consul-index", "")
        if not written.isdecimal():
            yield None
            continue
        # One that goes back, as after a restart from a snapshot, means nothing any more.
        index = int(written) if int(written) >= index else 0
        yield int(written)


# ---------------------------------------------------------------- finding it


def _find(
    run: Run, begun: Begun | None, engine: Engine | None, containers: Iterable[Container]
) -> _Answering:
    """The first address at which Consul answers. Raises CollectError."""
    by_hand = begun is not None and begun.is_given
    shown = () if by_hand else _shown(engine, containers)
    known = () if begun is None else (begun.address,)
    failures = []
    for address in dict.fromkeys((*shown, *known)):
        try:
            if begun is not None and address == begun.address:
                # Its task was the run's first, so no worker waits here for one that never begins.
                return begun.answering()
            return _ask(run, address)
        except (OutOfTimeError, _SettingError):
            raise
        except CollectError as error:
            failures.append(str(error))
    tried = "; ".join(failures)
    if by_hand:
        raise NotAnsweringError(f"Consul does not answer ({tried}); {_HINT}")
    raise NotAnsweringError(f"no Consul was found ({tried}); {_HINT}")


def _ask(run: Run, address: str) -> _Answering:
    """Raises CollectError, whose message begins with the address."""
    settings = _settings(run.options)
    source = _source(run, settings, address)
    run.closing.callback(source.close)
    try:
        # "172.28.0.4:8300", or "" where nobody leads.
        leader = source.get("/v1/status/leader")
        if not is_json(leader, str):
            raise AnswerError("what answers there is not Consul")
    except OutOfTimeError:
        raise
    except CollectError as error:
        where = source.base_url
        if address.startswith("unix://"):
            where = address
        elif settings.tls and not address.startswith("https://"):
            where += ", by CONSUL_HTTP_SSL"
        raise NotAnsweringError(f"{where}: {error}") from error
    return source, leader


def _shown(engine: Engine | None, containers: Iterable[Container]) -> Iterator[str]:
    """Where Docker shows a Consul."""
    for container in containers:
        if engine is not None and container.running and role_of(container) is Role.CONSUL:
            yield from ways.published(engine, container, _PORT)
            yield from ways.own(engine, container, _PORT)


def _source(run: Run, settings: _Settings, address: str) -> HttpSource:
    unix_socket = None
    if address.startswith("unix://"):
        unix_socket, url = address.removeprefix("unix://"), "http://localhost"
    elif "://" in address:
        url = address
    else:
        url = f"{'https' if settings.tls else 'http'}://{address}"
    if settings.tls and url.startswith("http://") and unix_socket is None:
        url = f"https://{url.removeprefix('http://')}"
    # Userinfo in an address would end up in messages; Consul has no use for it.
    parts = urlsplit(url)
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return HttpSource(
        url,
        run.deadline,
        headers=settings.headers,
        params=settings.params,
        verify=settings.verify,
        unix_socket=unix_socket,
        server_name=settings.server_name,
        connections=run.options.workers,
    )


# ---------------------------------------------------------------- settings


class _SettingError(NotAnsweringError):
    """What was said of how to ask cannot be followed, so nobody was asked."""


def _settings(options: Options) -> _Settings:
    environment = options.environment

    def value(option: object, variable: str) -> str:
        return str(option) if option is not None else environment.get(variable, "")

    token = _token(options)
    params = {
        "dc": value(options.consul_datacenter, "CONSUL_DATACENTER"),
        "ns": value(options.consul_namespace, "CONSUL_NAMESPACE"),
        "partition": environment.get("CONSUL_PARTITION", ""),
    }
    is_https = _given(options).startswith("https://")
    tls = is_https or _is_true(environment.get("CONSUL_HTTP_SSL", ""))
    return _Settings(
        headers={"X-Consul-Token": token} if token else {},
        params={name: given for name, given in params.items() if given},
        verify=_verification(options) if tls else False,
        server_name=value(options.consul_tls_server_name, "CONSUL_TLS_SERVER_NAME") or None,
        tls=tls,
    )


def _token(options: Options) -> str:
    """The flag, the flag's file, then the two variables; in a file, without its line end."""
    environment = options.environment
    if options.consul_token is not None:
        return options.consul_token
    file = options.consul_token_file
    if file is None:
        token = environment.get("CONSUL_HTTP_TOKEN", "")
        named = environment.get("CONSUL_HTTP_TOKEN_FILE", "")
        if token or not named:
            return token
        file = Path(named)
    try:
        raw = read_some(file, _LONGEST_TOKEN + 1)
        token = raw.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _SettingError(
            f"Consul's token cannot be read from {file} ({words_of(error)}); {_FILE_HINT}"
        ) from error
    if len(raw) > _LONGEST_TOKEN:
        raise _SettingError(f"{file} holds no token: it is longer than any token is; {_FILE_HINT}")
    if not (token.isascii() and token.isprintable()):
        raise _SettingError(
            f"{file} holds no token: it has letters that no token has; {_FILE_HINT}"
        )
    return token


def _verification(options: Options) -> ssl.SSLContext | bool:
    environment = options.environment
    verify = options.consul_verify
    if verify is None:
        verify = _is_true(environment.get("CONSUL_HTTP_SSL_VERIFY", "") or "true")
    authorities = options.consul_ca_cert or environment.get("CONSUL_CACERT") or None
    folder = options.consul_ca_path or environment.get("CONSUL_CAPATH") or None
    certificate = options.consul_client_cert or environment.get("CONSUL_CLIENT_CERT") or None
    key = options.consul_client_key or environment.get("CONSUL_CLIENT_KEY") or None
    try:
        context = ssl.create_default_context(
            cafile=str(authorities) if authorities else None,
            capath=str(folder) if folder else None,
        )
        if certificate:
            context.load_cert_chain(str(certificate), str(key) if key else None)
    except (OSError, ssl.SSLError) as error:
        raise _SettingError(
            f"Consul's TLS files cannot be used: {words_of(error)}; see CONSUL_CACERT, "
            "CONSUL_CAPATH, CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY"
        ) from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_true(word: str) -> bool:
    """As Go's `strconv.ParseBool` has it, which Consul uses."""
    return word in {"1", "t", "T", "true", "TRUE", "True"}
