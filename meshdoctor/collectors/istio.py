"""Istio's rules, from the Kubernetes API server that holds them for the mesh."""

import base64
import binascii
import re
import ssl
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from meshdoctor.collectors import ways
from meshdoctor.collectors.docker import Engine
from meshdoctor.collectors.http import Get, HttpSource
from meshdoctor.collectors.interface import (
    AnswerError,
    CollectError,
    NotAnsweringError,
    Run,
    is_json,
)
from meshdoctor.evidence.docker import Container
from meshdoctor.evidence.istio import DESTINATION_RULES, VIRTUAL_SERVICES
from meshdoctor.files import read_some
from meshdoctor.topology.roles import Role, role_of
from meshdoctor.yaml_loader import LOADER

_LISTS: Final = {
    VIRTUAL_SERVICES: "virtualservices",
    DESTINATION_RULES: "destinationrules",
}
_VERSIONS: Final = ("v1alpha3", "v1beta1", "v1")
"""Istio 1.1 has the first alone, and one of today no longer serves it."""

_PORT: Final = 8080
_INSECURE_PORT: Final = re.compile(r"--insecure-port[= ](\d{2,5})\b")
_LARGEST: Final = 2**20
_NOT_FOUND: Final = 404
_DENIED: Final = frozenset({401, 403})
_HINT: Final = "name a kubeconfig that may read it with --kubeconfig"


def collect_given(run: Run) -> None:
    """Have the rules fetched from the address given, or as the kubeconfig named has access."""
    options = run.options
    if _is_given(run):
        run.recorder.expect(*_LISTS)
        run.workers.submit(_by_hand, run, options.apiserver, options.kubeconfig)


def _is_given(run: Run) -> bool:
    return run.options.kubeconfig is not None or run.options.apiserver is not None


def collect(run: Run, engine: Engine, containers: Iterable[Container]) -> None:
    """Have the rules fetched from the container that has them, unless a server was given.

    Where the mesh has no API server that is seen, Pilot's own page may still tell the rules.
    """
    if _is_given(run):
        return
    servers = [each for each in containers if role_of(each) is Role.API_SERVER]
    for container in sorted(servers, key=lambda each: not each.running):
        if not container.running:
            reason = f"{container.name} does not run ({container.status})"
            for document in _LISTS:
                run.recorder.absent(document, reason)
            return
        run.recorder.expect(*_LISTS)
        run.workers.submit(_found, run, engine, container)
        return


def _found(run: Run, engine: Engine, container: Container) -> None:
    """The plain port of a server in Docker, as Istio's Compose file has it."""
    named = _INSECURE_PORT.search(" ".join(container.command))
    ports = (int(named[1]) if named else _PORT,)
    found = ways.into(engine, container, ports, run.deadline)
    try:
        ahead = [_path(_VERSIONS[0], plural) for plural in _LISTS.values()]
        ways.read(found, lambda get: _lists(run, get), ahead)
    except CollectError as error:
        _absent(run, f"{container.name} was not read ({error}); {_HINT}")


def _by_hand(run: Run, address: str | None, kubeconfig: Path | None) -> None:
    try:
        access = _Access("") if kubeconfig is None else _access(kubeconfig)
        server = address or access.server
        if not server:
            raise AnswerError(f"{kubeconfig} names no server in its current context")
        with HttpSource(
            server if "://" in server else f"http://{server}",
            run.deadline,
            headers=access.headers,
            verify=access.context() if server.startswith("https:") else True,
            server_name=access.server_name,
        ) as source:
            _lists(run, source.get)
    except CollectError as error:
        _absent(run, str(error))


def _absent(run: Run, reason: str) -> None:
    for document in _LISTS:
        run.recorder.absent(document, reason)


def _lists(run: Run, get: Get) -> None:
    """Both lists, in the first version of the API that this server has. Raises CollectError."""
    first, *others = _LISTS
    answer, version = _first(get, _LISTS[first])
    run.recorder.put(first, answer)
    for document in others:
        run.record(document, lambda document=document: get(_path(version, _LISTS[document])))  # type: ignore[misc] # bound now


def _first(get: Get, plural: str) -> tuple[bytes, str]:
    for version in _VERSIONS:
        try:
            answer = get(_path(version, plural))
        except AnswerError as error:
            if error.status == _NOT_FOUND:
                continue
            if error.status in _DENIED:
                raise AnswerError(f"{error}: {_HINT}", error.status) from error
            raise
        if not is_json(answer, _List):
            raise AnswerError("what answers there is no Kubernetes API server")
        return answer, version
    raise AnswerError(
        "it knows no VirtualServices: Pilot registers them when it starts, so see that it runs",
        _NOT_FOUND,
    )


def _path(version: str, plural: str) -> str:
    return f"/apis/networking.istio.io/{version}/{plural}"


class _List(msgspec.Struct):
    items: list[msgspec.Raw] | None


# ---------------------------------------------------------------- kubeconfig


@dataclass(frozen=True, slots=True)
class _Access:
    """How the current context of a kubeconfig reaches its server. What is secret is not shown."""

    server: str
    server_name: str | None = None
    verify: bool = True
    authority: str = field(default="", repr=False)
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def context(self) -> ssl.SSLContext:
        """Raises CollectError."""
        try:
            context = ssl.create_default_context(cadata=self.authority or None)
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.certificate:
                _load_chain(context, self.certificate + b"\n" + self.key)
        except (OSError, ValueError) as error:
            raise AnswerError("the certificates of the kubeconfig cannot be used") from error
        return context


def _load_chain(context: ssl.SSLContext, chain: bytes) -> None:
    # OpenSSL reads a key from a file alone: this one only its owner can open, and it goes at once.
    with tempfile.NamedTemporaryFile() as file:
        file.write(chain)
        file.flush()
        # Asked for a passphrase, OpenSSL would ask at the terminal.
        context.load_cert_chain(file.name, password=lambda: "")


def _access(path: Path) -> _Access:
    """Raises CollectError, which quotes nothing of the file."""
    config = _load(path)
    current = _text(config.get("current-context"))
    context = _named(config, "contexts", "context", current)
    cluster = _named(config, "clusters", "cluster", _text(context.get("cluster")))
    user = _named(config, "users", "user", _text(context.get("user")))
    if not cluster:
        raise AnswerError(f"{path} names no server in its current context ({current or 'none'})")
    if "exec" in user or "auth-provider" in user:
        raise AnswerError(
            f"{path} wants another program to log in with, and none is run: name a kubeconfig "
            "with a certificate or a token"
        )
    token = _text(user.get("token")) or _file(path, user, "tokenFile").decode().strip()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if not token and _text(user.get("username")):
        pair = f"{_text(user.get('username'))}:{_text(user.get('password'))}"
        headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return _Access(
        server=_text(cluster.get("server")),
        server_name=_text(cluster.get("tls-server-name")) or None,
        verify=cluster.get("insecure-skip-tls-verify") is not True,
        authority=_bytes(path, cluster, "certificate-authority").decode("ascii", "replace"),
        certificate=_bytes(path, user, "client-certificate"),
        key=_bytes(path, user, "client-key"),
        headers=headers,
    )


def _load(path: Path) -> Mapping[str, Any]:
    try:
        raw = read_some(path, _LARGEST + 1)
        if len(raw) > _LARGEST:
            raise AnswerError(f"{path} is larger than {_LARGEST} bytes, so no kubeconfig")
        config = yaml.load(raw, Loader=LOADER)  # noqa: S506 # a safe one
    except OSError as error:
        raise NotAnsweringError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError):
        # What the parser quotes may be a credential.
        raise AnswerError(f"{path} is no YAML") from None
    if not isinstance(config, dict):
        raise AnswerError(f"{path} is no kubeconfig")
    return config


def _named(config: Mapping[str, Any], section: str, inner: str, name: str) -> Mapping[str, Any]:
    elements = config.get(section)
    for each in elements if isinstance(elements, Sequence) else ():
        if isinstance(each, dict) and name and each.get("name") == name:
            held = each.get(inner)
            return held if isinstance(held, dict) else {}
    return {}


def _bytes(path: Path, held: Mapping[str, Any], key: str) -> bytes:
    """What is written in the file as `<key>-data`, else in the file that `<key>` names."""
    data = _text(held.get(f"{key}-data"))
    if not data:
        return _file(path, held, key)
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise AnswerError(f"{path} has {key}-data that is not base64") from None


def _file(path: Path, held: Mapping[str, Any], key: str) -> bytes:
    named = _text(held.get(key))
    if not named:
        return b""
    file = path.parent / named
    try:
        raw = read_some(file, _LARGEST + 1)
    except OSError as error:
        raise NotAnsweringError(f"{file} cannot be read: {error.strerror}") from error
    if len(raw) > _LARGEST:
        raise AnswerError(f"{file} is larger than {_LARGEST} bytes, so no {key}")
    return raw


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
