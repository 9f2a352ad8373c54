"""What of each document is kept: by allow-list where its form is known, secrets masked in all.

Arrays keep their length and order, so that a JSON pointer leads to the same place before and
after. The exceptions are lists of settings (`Env`), where a name alone can tell too much.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from meshdoctor.evidence import layout
from meshdoctor.evidence.envoy.wire import type_of
from meshdoctor.evidence.interface import NOT_JSON

MASK: Final = "[redacted]"


class RedactionError(Exception):
    """A document that cannot be understood cannot be cleared of secrets."""


def redact(name: str, raw: bytes) -> tuple[bytes, int]:
    """The document without what no check needs, and how many things were left out.

    A document with nothing to leave out comes back byte for byte, as its source wrote it. Raises
    RedactionError for one that should be JSON and is not.
    """
    if name.startswith(layout.COMPOSE):
        from meshdoctor.snapshot.compose_redaction import redact_compose  # noqa: PLC0415 # YAML

        return redact_compose(raw)
    if not name.endswith(".json"):
        return _text(name, raw)
    if name.startswith("envoy/"):
        page = name.rpartition("/")[2]
        if page in _PLAIN_PAGES and _suspicion(*_LOOK_WORDS).search(raw) is None:
            return raw, 0
        if page == "config_dump.json":
            return _dump(raw)
    answer = _decoded(raw)
    redaction = _Redaction()
    shape = next((shape for prefix, shape in _SHAPES.items() if name.startswith(prefix)), True)
    clean = redaction.shaped(answer, shape)
    return (msgspec.json.encode(clean), redaction.count) if redaction.count else (raw, 0)


def redact_text(text: str) -> str:
    """Free text without what looks like a secret in it."""
    return _Redaction().text(text)


def redact_arguments(words: Sequence[str | None]) -> Sequence[str | None]:
    """The words of a command line, those masked that are secret or follow an option for one."""
    redaction = _Redaction()
    kept: Sequence[str | None] = _arguments(redaction, list(words))
    return kept


def _decoded(raw: bytes | msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except NOT_JSON as error:
        raise RedactionError(f"{len(raw)} bytes that are not JSON: {error}") from error


# ---------------------------------------------------------------- secrets by name and by look

_SECRET_NAME: Final = re.compile(
    r"passw|pwd|secret|token|credential|private_?key|api_?key|access_?key|signing_?key$"
    r"|session_ticket_keys|authorization|cookie|key_data|encrypt_?key|gossip_?key",
)
# Words that only sound like it: sizes, kinds, places of things.
_HARMLESS_NAME: Final = re.compile(
    r"token_?(bucket|replication|ttl|file|type)|(key|token|secret|password)_?"
    r"(type|bits|file|path|provider|ref)$|_configs?$|secret_?name$|accessor"
)
# In settings of an application's own, more words are suspicious.
_SECRET_SETTING: Final = re.compile(r"pass|secret|token|key|credential|auth|cookie|salt|cert")

_SIGNS: Final = ("-----BEGIN", "eyJ", "://", "earer ", "asic ", "AKIA", "ASIA")
_LOOKS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"-----BEGIN [^-]+-----.*?(?:-----END [^-]+-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"(://)[^/\s\"'@?#]+@"), rf"\1{MASK}@"),
    (re.compile(r"\b([Bb]earer|[Bb]asic) +[\w.~+/=-]{8,}"), rf"\1 {MASK}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)*"), MASK),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), MASK),
)
# Bounded, so that a long line without a space costs no more than its length.
_NAMES_IN_TEXT: Final = (
    r"(?:passw|pwd|secret|token|credential|private[_-]?key|api[_-]?key|access[_-]?key|encrypt)"
    r"[\w.-]{0,40}"
)
_IN_TEXT: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    *_LOOKS,
    (
        re.compile(
            r"((?:authorization|cookie|x-consul-token|x-vault-token)[\"']?\s*[:=]\s*[\"']?)"
            r"(?!\[redacted\])[^\"'\r\n]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(
            rf"({_NAMES_IN_TEXT}(?<!file)(?<!path)[\"']?\s*[:=]\s*[\"']?)"
            r"(?!\[redacted\]|true\b|false\b|\"|')[^\s\"',;&}]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    # `-token X`, as programs take their options.
    (
        re.compile(
            rf"((?:^|\s)--?[\w.-]{{0,40}}{_NAMES_IN_TEXT}(?<!file)(?<!path)\s+)(?!\[redacted\]|-)\S+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
)

# Checks look for no other lines: what failed, and what Registrator did.
_TELLING_LINE: Final = re.compile(
    r"fatal|panic|error|fail|refused|denied|unable|cannot|no such host"
    r"|already (?:in use|allocated)| (?:added|removed): \S+ \S+",
    re.IGNORECASE,
)
_HARMLESS_LINE: Final = re.compile(r"failed to check for updates", re.IGNORECASE)
"""Consul says so at every start without the internet; a check passes over it."""

_OPTION: Final = re.compile(rf"--?[\w.-]{{0,40}}{_NAMES_IN_TEXT}(?<!file)(?<!path)", re.IGNORECASE)


@lru_cache(maxsize=4096)
def _is_secret_name(name: str) -> bool:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|-", "_", name).lower()
    return bool(_SECRET_NAME.search(snake)) and not _HARMLESS_NAME.search(snake)


@lru_cache(maxsize=4096)
def is_secret_setting(name: str) -> bool:
    """True where the name of an application's own setting says that it may hold a secret."""
    return bool(_SECRET_SETTING.search(name.lower()))


def _text(name: str, raw: bytes) -> tuple[bytes, int]:
    """Lines stay lines."""
    redaction = _Redaction()
    text = raw.decode("utf-8", "surrogateescape")
    if name.startswith("docker/logs/"):
        text = redaction.telling(text)
    clean = redaction.text(text)
    return (
        (clean.encode("utf-8", "surrogateescape"), redaction.count)
        if redaction.count
        else (raw, 0)
    )


# ---------------------------------------------------------------- shapes

# A shape says what is kept: True all of it (secrets masked), a mapping the fields that it names,
# "*" any field, a list each element, a function what it makes of it.
_Shape = Any


_LONG_TEXT: Final = 200


@lru_cache(maxsize=1024)
def _short_text(value: str) -> tuple[str, int]:
    """Containers of a mesh have the same variables, labels and arguments over and over."""
    return _replaced(value, _IN_TEXT)


def _replaced(value: str, patterns: Iterable[tuple[re.Pattern[str], str]]) -> tuple[str, int]:
    total = 0
    for pattern, replacement in patterns:
        value, count = pattern.subn(replacement, value)
        total += count
    return value, total


class _Redaction:
    """One document being redacted; counts what is left out."""

    def __init__(self) -> None:
        self.count = 0

    def shaped(self, value: Any, shape: _Shape) -> Any:
        if shape is True:
            return self.masked(value)
        if callable(shape):
            return shape(self, value)
        if isinstance(shape, list):
            if not isinstance(value, list):
                return self.masked(value)
            return [self.shaped(each, shape[0]) for each in value]
        if not isinstance(value, dict):
            return self.masked(value)
        kept = {}
        for key, each in value.items():
            if key in shape:
                kept[key] = self.shaped(each, shape[key])
            elif "*" in shape:
                kept[key] = self.shaped(each, shape["*"])
            else:
                self.count += 1
        return kept

    def masked(self, value: Any) -> Any:
        """All of it but secrets, told by the names of fields and the look of strings."""
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, dict):
            if _names_a_secret(value):
                return {
                    key: self.hidden(each) if key in _VALUES else self.field(key, each)
                    for key, each in value.items()
                }
            return {key: self.field(key, each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.masked(each) for each in value]
        return value

    def field(self, key: str, value: Any) -> Any:
        rule = _FIELDS.get(key)
        if rule is not None:
            return rule(self, value)
        return self.hidden(value) if _is_secret_name(key) else self.masked(value)

    def hidden(self, value: Any) -> Any:
        """Its structure, with every string in it masked but those that only name it."""
        if isinstance(value, str):
            if value in {"", MASK}:
                return value
            self.count += 1
            return MASK
        if isinstance(value, dict):
            return {
                key: each if key in {"@type", "name"} else self.hidden(each)
                for key, each in value.items()
            }
        if isinstance(value, list):
            return [self.hidden(each) for each in value]
        return value

    def string(self, value: str) -> str:
        """A string that is a secret by its look, or holds one."""
        if not any(sign in value for sign in _SIGNS):
            return value
        return self._counted(_replaced(value, _LOOKS))

    def text(self, value: str) -> str:
        """Free text, such as a log or a command line: secrets are also told by what is before."""
        is_long = len(value) > _LONG_TEXT
        return self._counted(_replaced(value, _IN_TEXT) if is_long else _short_text(value))

    def _counted(self, replaced: tuple[str, int]) -> str:
        clean, count = replaced
        self.count += count
        return clean

    def telling(self, log: str) -> str:
        """The lines of a log that a check can use: applications write what they like there.

        The first, for since when there is a log; those that tell of a failure or of a
        registration; and the last, for what was said before the end.
        """
        lines = log.splitlines(keepends=True)
        told = [index for index, line in enumerate(lines) if line.strip()]
        last = [index for index in told if not _HARMLESS_LINE.search(lines[index])][-1:]
        kept = {*told[:1], *last, *(n for n in told if _TELLING_LINE.search(lines[n]))}
        self.count += len(told) - len(kept)
        if len(told) == len(kept):
            return log
        return "".join(lines[index] for index in sorted(kept))


_VALUES: Final = frozenset(
    {"value", "raw_value", "string_match", "exact_match", "prefix_match", "suffix_match"}
    | {"contains_match", "safe_regex_match", "Value"}
)


def _names_a_secret(fields: Mapping[str, Any]) -> bool:
    """True of {"key": "authorization", "value": ...} and its like."""
    for key in ("key", "name", "Key", "Name"):
        name = fields.get(key)
        if isinstance(name, str) and _is_secret_name(name):
            return any(value in fields for value in _VALUES)
    return False


def _free_text(redaction: _Redaction, value: Any) -> Any:
    return redaction.text(value) if isinstance(value, str) else redaction.masked(value)


def _arguments(redaction: _Redaction, value: Any) -> Any:
    """A command line as a list: an option and its value may be two elements."""
    if not isinstance(value, list):
        return _free_text(redaction, value)
    kept = []
    hide = False
    for argument in value:
        if not isinstance(argument, str):
            kept.append(redaction.masked(argument))
            continue
        kept.append(redaction.hidden(argument) if hide else redaction.text(argument))
        hide = bool(_OPTION.fullmatch(argument))
    return kept


def _settings(wanted: re.Pattern[str]) -> Callable[[_Redaction, Any], Any]:
    """Of `NAME=value` lists, or of mappings, the names that are wanted."""

    def rule(redaction: _Redaction, value: Any) -> Any:
        if isinstance(value, dict):
            return dict(_kept(redaction, value.items(), wanted))
        if isinstance(value, list):
            pairs = (str(each).partition("=")[::2] for each in value)
            return [f"{key}={each}" for key, each in _kept(redaction, pairs, wanted)]
        return value

    return rule


def _kept(
    redaction: _Redaction, pairs: Iterable[tuple[str, Any]], wanted: re.Pattern[str]
) -> Iterable[tuple[str, Any]]:
    for key, value in pairs:
        if not wanted.match(key):
            redaction.count += 1
        elif is_secret_setting(key):
            yield key, redaction.hidden(value)
        else:
            yield key, _free_text(redaction, value)


def _metadata(redaction: _Redaction, value: Any) -> Any:
    """Consul's metadata of a service: what the application's owner wrote there."""
    if not isinstance(value, dict):
        return redaction.masked(value)
    return {
        key: redaction.hidden(each) if is_secret_setting(key) else _free_text(redaction, each)
        for key, each in value.items()
    }


def _tags(redaction: _Redaction, value: Any) -> Any:
    """Consul's tags of a service; Registrator and Pilot have settings in them, as `key|value`."""
    if not isinstance(value, list):
        return redaction.masked(value)
    return [_tag(redaction, each) if isinstance(each, str) else each for each in value]


def _tag(redaction: _Redaction, tag: str) -> str:
    match = _TAG.fullmatch(tag)
    if match is None or not is_secret_setting(match[1]):
        return redaction.text(tag)
    hidden: str = redaction.hidden(match[3])
    return f"{match[1]}{match[2]}{hidden}"


_TAG: Final = re.compile(r"([\w.-]+)([|=:])(.*)", re.DOTALL)


def _hidden_values(redaction: _Redaction, value: Any) -> Any:
    """`initial_metadata`: [{"key": "x-consul-token", "value": "..."}]."""
    if not isinstance(value, list):
        return redaction.hidden(value)
    return [
        {key: each if key == "key" else redaction.hidden(each) for key, each in entry.items()}
        if isinstance(entry, dict)
        else redaction.hidden(entry)
        for entry in value
    ]


def _node(redaction: _Redaction, value: Any) -> Any:
    """Envoy's node, without the hundred kilobytes in which it lists what it was built with."""
    if isinstance(value, dict) and "extensions" in value:
        redaction.count += 1
        value = {key: each for key, each in value.items() if key != "extensions"}
    return redaction.masked(value)


_Rule = Callable[[_Redaction, Any], Any]

# Fields that mean the same wherever Envoy, Consul or Pilot have them.
_FIELDS: Final[Mapping[str, _Rule]] = {
    "node": _node,
    "initial_metadata": _hidden_values,
    "initialMetadata": _hidden_values,
    "inline_string": _Redaction.hidden,
    "inlineString": _Redaction.hidden,
    "inline_bytes": _Redaction.hidden,
    "inlineBytes": _Redaction.hidden,
    "inline_code": _Redaction.hidden,
    "inlineCode": _Redaction.hidden,
    "RootCert": _Redaction.hidden,
    "IntermediateCerts": _Redaction.hidden,
    "config_yaml": _Redaction.hidden,
    "Output": _free_text,
    "Notes": _free_text,
    "ServiceTags": _tags,
    "Tags": _tags,
    "ServiceMeta": _metadata,
    "NodeMeta": _metadata,
    "Meta": _metadata,
    "key": _Redaction.masked,
}

ENVIRONMENT_NAMES: Final = re.compile(
    r"(SERVICE|ISTIO|ENVOY|POD|PILOT|PROXY)_|DOCKER_HOST$|INSTANCE_IP$|CONSUL_HTTP_ADDR$"
    r"|CONSUL_(BIND|CLIENT)_INTERFACE$"
)
LABEL_NAMES: Final = re.compile(r"com\.docker\.compose\.|SERVICE_")
"""Variables and labels of containers that checks ask for, and remedies change."""

_ENVIRONMENT: Final = _settings(ENVIRONMENT_NAMES)
_LABELS: Final = _settings(LABEL_NAMES)

_ENDPOINT: Final = {
    "Aliases": True,
    "DNSNames": True,
    "EndpointID": True,
    "Gateway": True,
    "IPAddress": True,
    "IPPrefixLen": True,
    "Links": True,
    "NetworkID": True,
}

_CONTAINER: Final = {
    "Id": True,
    "Name": True,
    "Created": True,
    "Path": True,
    "Args": _arguments,
    "Image": True,
    "Platform": True,
    "RestartCount": True,
    "State": {
        "Dead": True,
        "Error": _free_text,
        "ExitCode": True,
        "FinishedAt": True,
        "Health": {"FailingStreak": True, "Status": True},
        "OOMKilled": True,
        "Paused": True,
        "Pid": True,
        "Restarting": True,
        "Running": True,
        "StartedAt": True,
        "Status": True,
    },
    "HostConfig": {
        "AutoRemove": True,
        "Binds": True,
        "CapAdd": True,
        "CapDrop": True,
        "Dns": True,
        "DnsOptions": True,
        "DnsSearch": True,
        "ExtraHosts": True,
        "Links": True,
        "NetworkMode": True,
        "PidMode": True,
        "PortBindings": True,
        "Privileged": True,
        "PublishAllPorts": True,
        "RestartPolicy": True,
        "UsernsMode": True,
    },
    "Config": {
        "Cmd": _arguments,
        "Domainname": True,
        "Entrypoint": _arguments,
        "Env": _ENVIRONMENT,
        "ExposedPorts": True,
        "Hostname": True,
        "Image": True,
        "Labels": _LABELS,
        "User": True,
    },
    "NetworkSettings": {
        "Gateway": True,
        "IPAddress": True,
        "Networks": {"*": _ENDPOINT},
        "Ports": True,
        "SandboxKey": True,
    },
}

_RULE_METADATA: Final = {"name": True, "namespace": True, "creationTimestamp": True}

# Of `kubectl apply`, the annotations hold the whole object a second time.
_RULES: Final = {
    "apiVersion": True,
    "kind": True,
    "metadata": {"resourceVersion": True},
    "items": [
        {
            "apiVersion": True,
            "kind": True,
            "metadata": _RULE_METADATA,
            "spec": True,
            "meshdoctor": True,
        }
    ],
}
_PILOTS_RULES: Final = [
    {
        **_RULE_METADATA,
        "type": True,
        "group": True,
        "version": True,
        "apiVersion": True,
        "kind": True,
        "metadata": _RULE_METADATA,
        "Spec": True,
        "spec": True,
    }
]

_SHAPES: Final[Mapping[str, _Shape]] = {
    "consul/catalog/services.json": {"*": _tags},
    "istio/": _RULES,
    "pilot/configz.json": _PILOTS_RULES,
    "docker/containers.json": [_CONTAINER],
    "docker/images.json": [
        {
            "Architecture": True,
            "Config": {
                "Cmd": _arguments,
                "Entrypoint": _arguments,
                "ExposedPorts": True,
                "User": True,
            },
            "Created": True,
            "Id": True,
            "Os": True,
            "RepoDigests": True,
            "RepoTags": True,
            "Size": True,
        }
    ],
    "docker/networks.json": [
        {
            "Attachable": True,
            "Containers": {"*": True},
            "Created": True,
            "Driver": True,
            "EnableIPv6": True,
            "IPAM": {"Config": True, "Driver": True},
            "Id": True,
            "Ingress": True,
            "Internal": True,
            "Labels": _LABELS,
            "Name": True,
            "Scope": True,
        }
    ],
    "docker/info.json": {
        "Architecture": True,
        "Driver": True,
        "KernelVersion": True,
        "Name": True,
        "OSType": True,
        "OperatingSystem": True,
        "SecurityOptions": True,
        "ServerVersion": True,
    },
    "consul/agent/self.json": {
        "Config": {
            "Datacenter": True,
            "NodeID": True,
            "NodeName": True,
            "Partition": True,
            "PrimaryDatacenter": True,
            "Revision": True,
            "Server": True,
            "Version": True,
            "VersionMetadata": True,
        },
        # What checks may ask of it: who may call whom by default, and where it listens.
        "DebugConfig": {
            "ACLDefaultPolicy": True,
            "ACLResolverSettings": {"ACLDefaultPolicy": True, "ACLsEnabled": True},
            "ACLsEnabled": True,
            "ConnectEnabled": True,
            "DNSAddrs": True,
            "DNSDomain": True,
            "DNSPort": True,
            "DefaultIntentionPolicy": True,
            "GRPCPort": True,
            "GRPCTLSPort": True,
            "HTTPPort": True,
        },
        "Member": {"Addr": True, "Name": True, "Port": True, "Status": True, "Tags": True},
        "xDS": True,
    },
    # Their names; what a peering is made with are certificates and a secret.
    "consul/peerings.json": [{"Name": True, "Partition": True, "State": True}],
    "consul/namespaces.json": [{"Name": True, "Partition": True}],
    "consul/partitions.json": [{"Name": True}],
    "kube/config.json": {
        "apiVersion": True,
        "clusters": [{"cluster": {"server": True}, "name": True}],
        "contexts": True,
        "current-context": True,
        "kind": True,
    },
}

# ---------------------------------------------------------------- Envoy's dump

# Numbers, names and addresses: of what was configured there are only names in them.
_PLAIN_PAGES: Final = frozenset({"clusters.json", "listeners.json", "stats.json", "certs.json"})


_LOOK_WORDS: Final = (
    *(b"-----begin", b"eyj", b"bearer ", b"basic ", b"akia", b"asia"),
    rb"://[^/\s\"'@?#]+@",
)


@lru_cache
def _suspicion(*words: bytes) -> Any:
    """What tells that a part may hold something to leave out.

    Most of a large dump is routes and clusters without any of it, and need not be taken apart.
    RE2 looks for all of it in one pass, ten times faster than one search for each.
    """
    import re2  # noqa: PLC0415 # what was recorded is not redacted again

    options = re2.Options()
    options.case_sensitive = False
    # Bytes are looked at as they are; names of fields are ASCII.
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(b"|".join(words), options)


_SUSPICIOUS_WORDS: Final = (
    *(b"passw", b"pwd", b"secret", b"token", b"credential", b"private", b"api[_-]?key"),
    *(b"access[_-]?key", b"signing[_-]?key", b"ticket", b"authorization", b"cookie"),
    b"key[_-]?data",
    *(b"encrypt", b"gossip", b"inline", b"initial", b"config_?yaml", b'"node"', b"rootcert"),
    *_LOOK_WORDS,
)


class _Dump(msgspec.Struct, forbid_unknown_fields=True):
    configs: list[msgspec.Raw]


def _dump(raw: bytes) -> tuple[bytes, int]:
    """`/config_dump`, part by part: only the parts with something suspicious are taken apart."""
    try:
        dump = msgspec.json.decode(raw, type=_Dump)
        kinds = [type_of(part) for part in dump.configs]
    except msgspec.ValidationError:
        # Of another form than Envoys give today: looked at as a whole.
        redaction = _Redaction()
        clean = redaction.masked(_decoded(raw))
        return (msgspec.json.encode(clean), redaction.count) if redaction.count else (raw, 0)
    except NOT_JSON as error:
        raise RedactionError(f"{len(raw)} bytes that are not JSON: {error}") from error
    total = 0
    parts = []
    for kind, part in zip(kinds, dump.configs, strict=True):
        secrets = kind.rpartition(".")[2] == "SecretsConfigDump"
        if not secrets and _suspicion(*_SUSPICIOUS_WORDS).search(part) is None:
            parts.append(part)
            continue
        redaction = _Redaction()
        value = _decoded(part)
        clean = _secrets(redaction, value) if secrets else redaction.masked(value)
        parts.append(msgspec.Raw(msgspec.json.encode(clean)) if redaction.count else part)
        total += redaction.count
    return (msgspec.json.encode(_Dump(parts)), total) if total else (raw, 0)


def _secrets(redaction: _Redaction, dump: Any) -> Any:
    """`SecretsConfigDump`: which secrets there are and since when, nothing of what they hold."""
    if isinstance(dump, dict):
        return {
            key: redaction.hidden(each) if key == "secret" else _secrets(redaction, each)
            for key, each in dump.items()
        }
    if isinstance(dump, list):
        return [_secrets(redaction, each) for each in dump]
    return dump
