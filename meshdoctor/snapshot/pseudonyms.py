"""A snapshot under pseudonyms: other names and addresses, and the same mesh.

Names are made of words, and each word gets another everywhere it stands: as a service, in the
name of its container, of a cluster of Envoy's, in a line of a log. So names that were equal, or
made of each other, still are. Words of the field itself (`consul`, `sidecar`, `outbound`) stay.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import zip_longest
from typing import Any, Final

import msgspec

from meshdoctor.evidence import layout
from meshdoctor.evidence.interface import NOT_JSON, Problem
from meshdoctor.snapshot.addresses import Addresses, found
from meshdoctor.snapshot.documents import Document, Snapshot
from meshdoctor.yaml_loader import LOADER

# Letters and digits of any script; separators, the underscore among them, stand between words.
_WORD: Final = re.compile(r"[^\W_]+")
# Versions, random ids, numbers: they name nobody.
_NAMELESS: Final = re.compile(
    r"[0-9]+|(?:v|rc|p|r)[0-9]+(?:alpha[0-9]+|beta[0-9]+)?|(?=.*[0-9])[0-9a-f]{8,}|dc[0-9]|.",
    re.IGNORECASE,
)
_UUID: Final = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)

_KINDS: Final = ("service", "host", "network", "image", "name")
"""What a pseudonym says of its word: the first of these that it is part of."""

_FIELDS_OWN: Final = """
# The programs of a mesh, by which a container's part in it is recognised.
agent all amd64 apiserver consul control coredns dataplane debug dev discovery docker enterprise
envoy envoyproxy etcd exporter gateway gcr gliderlabs grafana hashicorp hyperkube init iptables
istio istiod jaeger jaegertracing k8s kube kubectl kubernetes mixer nomad one openzipkin pilot
plane prometheus proxy proxyv2 quay registrator registry sidecar slim traefik zipkin
# Tags of images, and the endings of host names.
alpine arpa beta com debian edge edu final int io latest local localdomain localhost main master
net nightly org release snapshot stable svc test ubuntu
# What Consul, Envoy, Docker and Istio call things, and their settings.
access acl active addr address admin alias any app application authority auto bin blackholecluster
block bootstrap bridge build ca canary catalog cert certs check client cluster clusters code
compose config connect container containers created critical data datacenter dead default deny
destination dns down downstream dst dynamic eds error errors etc exact exited external failed
failover false file filter filters front grpc header health healthy home host hosts http http2
https id image images inbound inboundpassthroughcluster index ingress intention intermediate
internal ip ipv4 ipv6 json key kind label lan leader legacy library listener lo logs maintenance
management manager mesh meta metrics mnt mode mongo mysql name names namespace network networks no
node nodes none null off ok on opt original outbound overlay overlay2 partition passing
passthrough passthroughcluster path paused peer ping port ports prefix primary private project
protocol provider public query raft read ready redis resolver ro root route router routes rule run
running rw runtime sandbox secret secure self serf server service serviceentry services sha256 sni
sock socket source spiffe splitter src srv state static stats status storage strict subset sys
system tag tags target tcp template tls tmp token tproxy tracing true trust tunnel type udp unix
up upstream upstreams url user users usr value var version virtual voter wan warning workload
write xds yaml yes yml zone
# What Compose files are made of.
add aliases always cap command depends drop driver entrypoint environment env expose extends extra
hostname labels links options privileged profiles restart restarts stop tty volume volumes working
x
# What stands in sentences too.
a an and are as at be by can for from has have in is it its not of or that the this to was were
which with
"""

KEPT: Final = frozenset(
    word for line in _FIELDS_OWN.splitlines() if not line.startswith("#") for word in line.split()
)
"""Words that stay: without them nobody, and no check, could tell what a thing is."""

# Fields whose strings, or whose keys, are names: by the beginning of the document's name.
_Fields = Mapping[str, str]
_CONSUL: Final = {
    "DestinationName": "service",
    "DestinationServiceID": "service",
    "DestinationServiceName": "service",
    "ID": "service",
    "Service": "service",
    "ServiceID": "service",
    "ServiceName": "service",
    "SourceName": "service",
    "Address": "host",
    "Datacenter": "host",
    "Node": "host",
    "NodeName": "host",
    "ServiceAddress": "host",
    "Namespace": "name",
    "Partition": "name",
    "ServiceTags": "name",
    "Tags": "name",
}
_NAMES: Final[Sequence[tuple[str, _Fields]]] = (
    (
        "docker/containers.json",
        {
            "Name": "service",
            "Aliases": "service",
            "DNSNames": "service",
            "Links": "service",
            "Domainname": "host",
            "DnsSearch": "host",
            "ExtraHosts": "host",
            "Hostname": "host",
            "NetworkMode": "network",
            "Image": "image",
            "Binds": "name",
            "com.docker.compose.project": "name",
            "com.docker.compose.project.config_files": "name",
            "com.docker.compose.project.working_dir": "name",
            "com.docker.compose.service": "service",
        },
    ),
    ("docker/images.json", {"RepoTags": "image", "RepoDigests": "image"}),
    ("docker/networks.json", {"Name": "network"}),
    ("docker/info.json", {"Name": "host"}),
    ("consul/config/", {**_CONSUL, "Name": "service"}),
    ("consul/agent/self.json", {"NodeName": "host", "Datacenter": "host", "Name": "host"}),
    ("consul/connect/ca/", {}),
    ("consul/health/", {"Node": "host", "Service": "service"}),
    ("consul/", _CONSUL),
    (
        "istio/",
        {
            "gateways": "name",
            "host": "service",
            "hosts": "service",
            "name": "name",
            "namespace": "name",
            "subset": "name",
        },
    ),
    (
        "pilot/",
        {
            "Hostname": "service",
            "hostname": "service",
            "host": "service",
            "hosts": "service",
            "Locality": "host",
            "namespace": "name",
            "Namespace": "name",
            "name": "name",
            "subset": "name",
        },
    ),
    ("kube/", {"name": "name", "cluster": "name", "user": "name", "namespace": "name"}),
    ("probe/", {"callee": "service", "service": "service", "caller": "service"}),
    ("zipkin/", {"": "service"}),
    ("envoy/", {"domains": "service", "sni": "service", "server_names": "service"}),
)
_NAMED_KEYS: Final[Mapping[str, _Fields]] = {
    "docker/containers.json": {"Networks": "network"},
    "consul/catalog/services.json": {"": "service"},
    "consul/agent/services.json": {"": "service"},
}
"""Fields, "" for the document itself, that are objects whose keys are names."""

_SETTING: Final = re.compile(r"SERVICE_(?:[0-9]+_)?(?:NAME|ID|TAGS)=(.*)", re.DOTALL)
_MEANT: Final = re.compile(r"(?:protocol|version)[|=:]", re.IGNORECASE)
"""A tag that says what Pilot is to make of it."""
_IN_TEXT: Final = re.compile(r"://(?:[^/\s@\"']*@)?([\w.-]+)|\blookup ([\w.-]+)")
"""Hosts that are named in command lines, logs and messages."""
_FOLDERS: Final = (("envoy/", "service"), ("netfilter/", "service"), ("docker/logs/", "service"))

_OWN_TEXT: Final = re.compile(r"type\.googleapis\.com/\S*|envoy\.[a-z0-9_.]+")
_TYPES: Final = frozenset({"@type", "type_url", "typeUrl"})
_FIELD: Final = re.compile(r"[A-Za-z_$@][A-Za-z0-9_$-]*")


def pseudonymised(snapshot: Snapshot) -> Snapshot:
    """The snapshot with other names and addresses, everywhere the same ones.

    The same snapshot gets the same pseudonyms. They are made with a key that is a digest of all
    that the snapshot holds, so that nobody without it can go back.
    """
    digest = hashlib.blake2b(digest_size=32)
    texts: set[str] = set()
    kinds: dict[str, set[str]] = defaultdict(set)
    for name in snapshot.names():
        raw = snapshot.read(name)
        digest.update(raw)
        for kind, text in _named(name, raw):
            _learn(kinds, kind, text)
        texts |= found([raw.decode("utf-8", "replace")])
    for gap in snapshot.missing():
        for kind, text in _in_text(gap.message):
            _learn(kinds, kind, text)
    words = _pseudonyms(kinds)
    renaming = Renaming(words, _addresses(digest.digest(), texts))
    documents: dict[str, Document] = {
        renaming.document(name): partial(renaming.rewritten, name, partial(snapshot.read, name))
        for name in snapshot.names()
    }
    return Snapshot(
        documents=documents,
        absent=tuple(renaming.problem(each) for each in snapshot.absent),
        notes=tuple(renaming.problem(each) for each in snapshot.notes),
        created=snapshot.created,
        redactions={renaming.document(name): count for name, count in snapshot.redactions.items()},
    )


def _addresses(digest: bytes, written: set[str]) -> Addresses:
    """Such that none of those that could change stays what it was."""
    tried = [Addresses(hashlib.blake2b(digest, salt=bytes([n])).digest()[:32]) for n in range(64)]
    can_change = {each for each in written if any(other.hides(each) for other in tried[:16])}
    return next((each for each in tried if all(map(each.hides, can_change))), tried[0])


def _learn(kinds: dict[str, set[str]], kind: str, text: str) -> None:
    for word in _WORD.findall(_UUID.sub(" ", text)):
        if word.lower() not in KEPT and not _NAMELESS.fullmatch(word):
            kinds[word.lower()].add(kind)


def _pseudonyms(kinds: Mapping[str, set[str]]) -> Mapping[str, str]:
    """Another word for each, in the order of the words: what was sorted stays so."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for word, of in kinds.items():
        by_kind[next(kind for kind in _KINDS if kind in of)].append(word)
    pseudonyms: dict[str, str] = {}
    for kind, words in by_kind.items():
        digits = max(2, len(str(len(words))))
        number = 0
        for word in sorted(words):
            number += 1
            while f"{kind}{number:0{digits}}" in kinds:
                number += 1
            pseudonyms[word] = f"{kind}{number:0{digits}}"
    return pseudonyms


# ---------------------------------------------------------------- finding names


def _named(name: str, raw: bytes) -> Iterator[tuple[str, str]]:
    """Kinds, and strings that hold names of them."""
    for folder, kind in _FOLDERS:
        if name.startswith(folder):
            yield kind, _segment(name, folder)[0]
    if name.startswith("probe/"):
        yield "service", _segment(name, "probe/")[0]
    if name.startswith(layout.COMPOSE):
        yield "name", layout.name_of(name.removeprefix(layout.COMPOSE))
        yield from _of_compose(raw)
    if not name.endswith(".json"):
        yield from _in_text(raw.decode("utf-8", "replace"))
        return
    try:
        answer = msgspec.json.decode(raw)
    except NOT_JSON:
        yield from _in_text(raw.decode("utf-8", "replace"))
        return
    fields = next((fields for prefix, fields in _NAMES if name.startswith(prefix)), {})
    keys = _NAMED_KEYS.get(name, {})
    if name.startswith("envoy/"):
        yield from _of_node(answer)
    yield from _walk(answer, "", fields, keys)


def _of_compose(raw: bytes) -> Iterator[tuple[str, str]]:
    """What a Compose file calls its services, and what they call themselves."""
    import yaml  # noqa: PLC0415 # here only

    try:
        read = yaml.load(raw, Loader=LOADER)  # noqa: S506 # a safe one
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        return
    if not isinstance(read, dict):
        return
    for part, kind in (("networks", "network"), ("volumes", "name"), ("services", "service")):
        listed = read.get(part)
        for name, each in listed.items() if isinstance(listed, dict) else ():
            yield kind, str(name)
            if isinstance(each, dict):
                for field, of in _IN_COMPOSE.items():
                    yield of, str(each.get(field, ""))
                yield from _walk(each.get("environment"), "Env", {}, {})


_IN_COMPOSE: Final = {
    "image": "image",
    "container_name": "service",
    "hostname": "host",
    "domainname": "host",
    "volumes": "name",
    "extra_hosts": "host",
    "links": "service",
    "name": "network",
}


def _of_node(answer: Any) -> Iterator[tuple[str, str]]:
    """What an Envoy calls itself, and the clusters' names, which hold those of services."""
    if isinstance(answer, dict):
        for key, value in answer.items():
            if key == "node" and isinstance(value, dict):
                yield from (("name", str(value.get(each, ""))) for each in ("id", "cluster"))
            elif key == "cluster" and isinstance(value, dict):
                yield "service", str(value.get("name", ""))
            yield from _of_node(value)
    elif isinstance(answer, list):
        for each in answer:
            yield from _of_node(each)


def _walk(value: Any, field: str, fields: _Fields, keys: _Fields) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield from _in_text(value)
            if field in fields:
                if not _MEANT.match(value):
                    yield fields[field], value
            elif field == "Env" and (setting := _SETTING.fullmatch(value)) is not None:
                yield "service", setting[1]
        case dict():
            for key, each in value.items():
                if field in keys:
                    yield keys[field], key
                yield from _walk(each, key, fields, {} if field in keys else keys)
        case list():
            for each in value:
                yield from _walk(each, field, fields, keys)


def _in_text(text: str) -> Iterator[tuple[str, str]]:
    if "://" in text or "lookup " in text:
        for match in _IN_TEXT.finditer(text):
            yield "host", match[1] or match[2]


# ---------------------------------------------------------------- replacing them


class Renaming:
    """Other words and addresses for those that name somebody."""

    def __init__(self, words: Mapping[str, str], addresses: Addresses) -> None:
        self._words = words
        self._addresses = addresses
        self.text: Callable[[str], str] = lru_cache(maxsize=2**17)(self._text)

    def _text(self, text: str) -> str:
        if _UUID.search(text) is not None:
            # A part of an id may look like a name, and stays.
            ids = _UUID.findall(text)
            between = [self.text(each) for each in _UUID.split(text)]
            return "".join(map("".join, zip_longest(between, ids, fillvalue="")))
        return _WORD.sub(self._word, self._addresses.replaced(text))

    def _word(self, match: re.Match[str]) -> str:
        word = match[0]
        new = self._words.get(word.lower())
        if new is None or (word.isupper() and word.isascii()):
            # The chains of a nat table, and constants, are written in capitals.
            return word
        if word != word.lower():
            # That a name is no host name for its capitals is a finding.
            new = new.capitalize()
        return new if word.isascii() else f"{new}é"

    def document(self, name: str) -> str:
        """The document's name: it may hold a container's or a service's."""
        return "/".join(
            layout.segment(self.text(layout.name_of(each))) if each else each
            for each in name.split("/")
        )

    def problem(self, problem: Problem) -> Problem:
        return Problem(self.document(problem.document), self.text(problem.message))

    def rewritten(self, name: str, read: Callable[[], bytes]) -> bytes:
        raw = read()
        if not name.endswith(".json"):
            return self._lines(raw)
        try:
            answer = msgspec.json.decode(raw)
        except NOT_JSON:
            return self._lines(raw)
        return msgspec.json.encode(self._value(answer, "", _NAMED_KEYS.get(name, {})))

    def _lines(self, raw: bytes) -> bytes:
        text = raw.decode("utf-8", "surrogateescape")
        return self._text(text).encode("utf-8", "surrogateescape")

    def _value(self, value: Any, field: str, keys: _Fields) -> Any:
        if isinstance(value, str):
            if field in _TYPES or _OWN_TEXT.fullmatch(value):
                return value
            return self.text(value)
        if isinstance(value, dict):
            named = field in keys
            below = {} if named else keys
            return {
                (self.text(key) if named or not _FIELD.fullmatch(key) else key): self._value(
                    each, key, below
                )
                for key, each in value.items()
            }
        if isinstance(value, list):
            return [self._value(each, field, keys) for each in value]
        return value


_ENDINGS: Final = (".nat.txt", ".log", ".json")


def _segment(name: str, folder: str) -> tuple[str, str]:
    below = name.removeprefix(folder).partition("/")[0]
    ending = next((each for each in _ENDINGS if below.endswith(each)), "")
    return layout.name_of(below.removesuffix(ending)), ending
