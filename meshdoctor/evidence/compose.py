"""Compose files: what `docker compose up` would be asked to start, each setting with its line.

Versions 2 and 3 and the Compose specification. Read as YAML nodes, not as values: a node knows
its line, and `on`, `1.10` or `53:8600` stay the text that was written.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NoReturn

import msgspec
import yaml
from msgspec.structs import replace

from meshdoctor.evidence.interface import DecodeError, Problem, pointer_token
from meshdoctor.evidence.layout import COMPOSE
from meshdoctor.yaml_loader import LOADER

ENVIRONMENT_FILE: Final = ".env"
LONGEST_FILE: Final = 256 * 1024
"""Bytes of a file that is still read; real ones have a few thousand."""

_MOST_NODES: Final = 200_000
"""Anchors make a small file large; beyond this it is no Compose file that anybody wrote."""
_LONGEST_VALUE: Final = 64 * 1024
_DEEPEST: Final = 20
"""Variables inside the defaults of variables, and services that extend others."""
_LAST_PORT: Final = 65535
_NULL: Final = "tag:yaml.org,2002:null"
_MERGE: Final = "tag:yaml.org,2002:merge"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Reader = Callable[[str], str | None]
"""The text of a file by its path from the project's folder; None where it may not be read."""


class Place(msgspec.Struct, frozen=True):
    """Where something is written: a file by its path from the project's folder, line from 1."""

    file: str
    line: int
    pointer: str = ""

    @property
    def document(self) -> str:
        """The name that citations have for the file."""
        return COMPOSE + re.sub(r"^(\.\./)+", "", self.file)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Setting(msgspec.Struct, frozen=True):
    """A value and where it is written. `unset` are variables in it that nobody set."""

    value: str
    place: Place
    unset: tuple[str, ...] = ()


class PlannedPort(msgspec.Struct, frozen=True):
    """One entry of `ports`. `host_port` is 0 where Docker would choose it."""

    port: int
    protocol: str
    host_address: str
    host_port: int
    written: Setting


class ComposeService(msgspec.Struct, frozen=True):
    """One service, merged over the files that mention it.

    `environment` holds what `env_file` names too. `networks` are the networks with the service's
    aliases and its fixed address there. `place` is where it is first defined.
    """

    name: str
    place: Place
    image: Setting | None = None
    container_name: Setting | None = None
    hostname: Setting | None = None
    network_mode: Setting | None = None
    user: Setting | None = None
    privileged: Setting | None = None
    command: tuple[Setting, ...] | None = None
    entrypoint: tuple[Setting, ...] | None = None
    environment: Mapping[str, Setting] = msgspec.field(default_factory=dict)
    labels: Mapping[str, Setting] = msgspec.field(default_factory=dict)
    expose: tuple[Setting, ...] = ()
    ports: tuple[PlannedPort, ...] = ()
    capabilities: tuple[Setting, ...] = ()
    dns: tuple[Setting, ...] = ()
    dns_search: tuple[Setting, ...] = ()
    profiles: tuple[Setting, ...] = ()
    depends_on: tuple[Setting, ...] = ()
    networks: Mapping[str, "Attachment"] = msgspec.field(default_factory=dict)


class Attachment(msgspec.Struct, frozen=True):
    """A service on a network: its further names there, and its address where one is fixed."""

    aliases: tuple[str, ...] = ()
    address: str = ""


class ComposeNetwork(msgspec.Struct, frozen=True):
    """A network that the files define."""

    name: str
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]


class ComposeFiles(msgspec.Struct, frozen=True):
    """Compose files in the order of `docker compose -f`, merged as it merges them.

    `files` are paths from the folder of the first, `paths` as the user named them. `services`
    leaves out those of profiles that are not enabled: they are in `left_out`. `texts` are the
    files by those paths, in which each line is the file's own or has something masked in it.
    """

    files: tuple[str, ...]
    paths: tuple[str, ...]
    project: str
    services: Mapping[str, ComposeService]
    left_out: Mapping[str, ComposeService]
    networks: Mapping[str, ComposeNetwork]
    problems: tuple[Problem, ...]
    texts: Mapping[str, str] = msgspec.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        files: Sequence[tuple[str, str]],
        *,
        folder: str,
        environment: Mapping[str, str],
        read: Reader = lambda _path: None,
        paths: Sequence[str] = (),
        texts: Mapping[str, str] | None = None,
    ) -> "ComposeFiles":
        """Decode files, each its path and its text.

        `folder` is the name of the project's folder. Raises DecodeError, with file and line, for
        what Compose would refuse too.
        """
        decoded = _Decoder(folder, environment, read).decode(files)
        return replace(decoded, paths=tuple(paths) or decoded.files, texts=texts or {})

    def service_of(self, container: str) -> ComposeService | None:
        """The service whose container Compose would give that name, in any version of Compose."""
        for service in self.services.values():
            if service.container_name is not None and service.container_name.value == container:
                return service
        for projects in (re.escape(self.project), "[a-z0-9][a-z0-9_-]*"):
            for service in self.services.values():
                own = rf"{projects}([_-]){re.escape(service.name)}\1[1-9][0-9]*"
                if service.container_name is None and re.fullmatch(own, container):
                    return service
        return None


# ---------------------------------------------------------------- variables


class _Interpolation(msgspec.Struct):
    """`${NAME:-default}` and its kin, as Compose replaces them."""

    variables: Mapping[str, str]
    unset: list[str] = msgspec.field(default_factory=list)

    def replace(self, text: str, depth: int = 0) -> str:
        """Raises ValueError with what is wrong."""
        if depth > _DEEPEST:
            raise ValueError("variables inside variables, too deep")
        pieces: list[str] = []
        length = at = 0
        while at < len(text):
            dollar = text.find("$", at)
            if dollar < 0:
                pieces.append(text[at:])
                break
            pieces.append(text[at:dollar])
            piece, at = self._variable(text, dollar + 1, depth)
            pieces.append(piece)
            length += len(piece)
            if length > _LONGEST_VALUE:
                raise ValueError("the variables in it make it too long")
        return "".join(pieces)

    def _variable(self, text: str, at: int, depth: int) -> tuple[str, int]:
        """What stands for the `$` before `at`, and where the text goes on."""
        if text.startswith("$", at):
            return "$", at + 1
        if not text.startswith("{", at):
            bare = _VARIABLE.match(text, at)
            if bare is None:
                raise ValueError("a `$` without a variable: write `$$` for the sign itself")
            return self._value(bare[0]), bare.end()
        name = _VARIABLE.match(text, at + 1)
        end = _closing(text, at)
        if name is None or end < 0:
            raise ValueError("a `${` without a variable and its `}`")
        operator = re.compile(r":?[-?+]|$").match(text[name.end() : end])
        if operator is None:
            raise ValueError(f"`${{{name[0]}` does not go on as a variable may")
        word = text[name.end() + operator.end() : end]
        return self._chosen(name[0], operator[0], word, depth), end + 1

    def _chosen(self, name: str, operator: str, word: str, depth: int) -> str:
        given = self.variables.get(name)
        there = bool(given) if operator.startswith(":") else given is not None
        match operator[-1:]:
            case "-":
                return (given or "") if there else self.replace(word, depth + 1)
            case "+":
                return self.replace(word, depth + 1) if there else ""
            case "?" if not there:
                raise ValueError(f"the variable {name} must be set: {word or 'it is required'}")
        return self._value(name)

    def _value(self, name: str) -> str:
        if name not in self.variables:
            self.unset.append(name)
        return self.variables.get(name, "")


def _closing(text: str, opening: int) -> int:
    """Where the brace at `opening` is closed, -1 where it is not."""
    depth = 0
    for at in range(opening, len(text)):
        if text[at] == "{" and (at == opening or text[at - 1] == "$"):
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if not depth:
                return at
    return -1


def read_variables(text: str) -> Iterator[tuple[str, str | None, int]]:
    """The variables of a `.env` or an env_file, with their lines; None where only one is named."""
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip().removeprefix("export ").strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        name, value = name.strip(), value.strip()
        if value[:1] in {"'", '"'} and value.find(value[0], 1) > 0:
            value = value[1 : value.find(value[0], 1)]
        else:
            value = re.split(r"\s#", value, maxsplit=1)[0].rstrip()
        yield name, value if equals else None, number


# ---------------------------------------------------------------- decoding


class _At(msgspec.Struct, frozen=True):
    """A node of a file, and the way to it."""

    file: str
    node: yaml.Node
    pointer: str
    key: yaml.Node | None = None
    """Where its key stands: a mapping itself begins a line later."""

    @property
    def place(self) -> Place:
        mark = (self.key or self.node).start_mark
        return Place(self.file, mark.line + 1, self.pointer)

    def refuse(self, problem: str) -> NoReturn:
        raise DecodeError(f"{self.file}, line {self.place.line}", problem)

    @property
    def is_null(self) -> bool:
        return self.node.tag == _NULL or (
            isinstance(self.node, yaml.ScalarNode) and self.node.tag == "!reset"
        )

    @property
    def called(self) -> str:
        """The key, as a sentence names it."""
        return f"`{self.pointer.rpartition('/')[2]}`" if self.pointer else "the file"


_Flat = dict[str, tuple[yaml.Node, yaml.Node]]
"""Key and value nodes by the key's text."""


class _Partial(msgspec.Struct, frozen=True):
    """What one file says of a service, and which of its keys replace what stood before."""

    service: ComposeService
    replaced: frozenset[str]


class _Decoder:
    def __init__(self, folder: str, environment: Mapping[str, str], read: Reader) -> None:
        beside = read(ENVIRONMENT_FILE)
        written = () if beside is None else read_variables(beside)
        self._variables = {
            **{name: value for name, value, _ in written if value is not None},
            **environment,
        }
        self._folder = folder
        self._read = read
        self._problems: list[Problem] = []
        self._spent = 0
        self._mappings: dict[int, _Flat] = {}
        self._roots: dict[str, _At] = {}

    def decode(self, files: Sequence[tuple[str, str]]) -> ComposeFiles:
        services: dict[str, ComposeService] = {}
        networks: dict[str, ComposeNetwork] = {}
        name = self._variables.get("COMPOSE_PROJECT_NAME") or self._folder
        for file, text in files:
            top = self._entries(self._parse(file, text))
            if "name" in top:
                name = self._variables.get("COMPOSE_PROJECT_NAME") or self._text(top["name"])
            if "services" not in top:
                # Version 1 had its services at the top; an override may have networks alone.
                self._note(file, "there is no `services` in it")
            for service, at in self._entries(top.get("services")).items():
                partial = self._service(service, at)
                services[service] = (
                    _merge(services[service], partial) if service in services else partial.service
                )
            for network, at in self._entries(top.get("networks")).items():
                found = self._network(network, at)
                if network not in networks or found.subnets or found.gateways:
                    networks[network] = found
        enabled = set(self._variables.get("COMPOSE_PROFILES", "").split(","))
        left_out = {
            each.name: each
            for each in services.values()
            if each.profiles
            and "*" not in enabled
            and not enabled & {profile.value for profile in each.profiles}
        }
        return ComposeFiles(
            files=tuple(file for file, _ in files),
            paths=(),
            project=re.sub(r"[^a-z0-9_-]", "", name.lower()),
            services={key: each for key, each in services.items() if key not in left_out},
            left_out=left_out,
            networks=networks,
            problems=tuple(dict.fromkeys(self._problems)),
        )

    def _note(self, file: str, message: str) -> None:
        self._problems.append(Problem(file, message))

    # YAML

    def _parse(self, file: str, text: str) -> _At:
        if file in self._roots:
            return self._roots[file]
        try:
            node = yaml.compose(text, Loader=LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f", line {mark.line + 1}" if mark is not None else ""
            problem = error.problem or error.context or "it cannot be parsed"
            raise DecodeError(f"{file}{line}", f"not YAML: {problem}") from error
        except yaml.YAMLError as error:
            problem = " ".join(str(error).split())
            raise DecodeError(file, f"not YAML: {problem}") from error
        except (RecursionError, ValueError) as error:
            problem = "too deeply nested" if isinstance(error, RecursionError) else str(error)
            raise DecodeError(file, f"not YAML that can be read: {problem}") from error
        if node is None:
            raise DecodeError(file, "the file is empty")
        root = _At(file, node, "")
        if not isinstance(node, yaml.MappingNode):
            root.refuse("not a Compose file: at its top there are no keys")
        self._roots[file] = root
        return root

    def _spend(self, at: _At, number: int) -> None:
        self._spent += number
        if self._spent > _MOST_NODES:
            at.refuse("with its anchors and ranges the file is larger than any mesh")

    def _entries(self, at: _At | None) -> dict[str, _At]:
        """The keys of a mapping, those it merges in by `<<` included; none where it is null."""
        if at is None or at.is_null:
            return {}
        found = self._flat(at, frozenset())
        self._spend(at, len(found) + 1)
        return {
            name: _At(at.file, node, f"{at.pointer}/{pointer_token(name)}", key)
            for name, (key, node) in found.items()
        }

    def _flat(self, at: _At, inside: frozenset[int]) -> _Flat:
        node = at.node
        if not isinstance(node, yaml.MappingNode):
            at.refuse(f"{at.called} must be keys and values")
        if id(node) in self._mappings:
            return self._mappings[id(node)]
        if id(node) in inside or len(inside) > _DEEPEST:
            at.refuse("a `<<` that merges a mapping into itself, or too many into each other")
        own: _Flat = {}
        merged: _Flat = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                _At(at.file, key, at.pointer).refuse("a key must be a single word")
            if key.tag == _MERGE:
                several = isinstance(value, yaml.SequenceNode)
                for each in value.value if several else [value]:
                    base = _At(at.file, each, at.pointer)
                    found = self._flat(base, inside | {id(node)})
                    self._spend(base, len(found) + 1)
                    merged = {**found, **merged}
            else:
                own[key.value] = (key, value)
        self._mappings[id(node)] = {**merged, **own}
        return self._mappings[id(node)]

    def _items(self, at: _At | None) -> list[_At]:
        if at is None or at.is_null:
            return []
        if not isinstance(at.node, yaml.SequenceNode):
            at.refuse(f"{at.called} must be a list")
        self._spend(at, len(at.node.value) + 1)
        return [
            _At(at.file, node, f"{at.pointer}/{index}") for index, node in enumerate(at.node.value)
        ]

    def _setting(self, at: _At) -> Setting:
        if not isinstance(at.node, yaml.ScalarNode):
            at.refuse(f"{at.called} must be a single value")
        return self._interpolated(at, at.node.value)

    def _interpolated(self, at: _At, text: str) -> Setting:
        interpolation = _Interpolation(self._variables)
        try:
            value = interpolation.replace(text)
        except ValueError as error:
            at.refuse(str(error))
        return Setting(value, at.place, tuple(interpolation.unset))

    def _optional(self, at: _At | None) -> Setting | None:
        return None if at is None or at.is_null else self._setting(at)

    def _text(self, at: _At | None) -> str:
        found = self._optional(at)
        return "" if found is None else found.value

    def _settings(self, at: _At | None) -> tuple[Setting, ...]:
        """A list of values, or the one value that stands for such a list."""
        if at is not None and isinstance(at.node, yaml.ScalarNode) and not at.is_null:
            return (self._setting(at),)
        return tuple(self._setting(each) for each in self._items(at))

    def _pairs(self, at: _At | None) -> Iterator[tuple[str, Setting | None]]:
        """`{NAME: value}` or `[NAME=value]`; None where only the name is given."""
        if at is not None and isinstance(at.node, yaml.MappingNode):
            for name, each in self._entries(at).items():
                yield name, self._optional(each)
            return
        for each in self._items(at):
            whole = self._setting(each)
            name, equals, value = whole.value.partition("=")
            yield name, replace(whole, value=value) if equals else None

    # services

    def _service(self, name: str, at: _At, depth: int = 0) -> _Partial:
        entries = self._entries(at)
        if (extends := entries.get("extends")) is not None and not extends.is_null:
            base = self._extended(name, extends, depth)
        else:
            base = None
        service = ComposeService(
            name=name,
            place=at.place,
            image=self._optional(entries.get("image")),
            container_name=self._optional(entries.get("container_name")),
            hostname=self._optional(entries.get("hostname")),
            network_mode=self._optional(entries.get("network_mode") or entries.get("net")),
            user=self._optional(entries.get("user")),
            privileged=self._optional(entries.get("privileged")),
            command=self._words(entries.get("command")),
            entrypoint=self._words(entries.get("entrypoint")),
            environment=self._environment(entries),
            labels={
                key: value if value is not None else Setting("", at.place)
                for key, value in self._pairs(entries.get("labels"))
            },
            expose=self._settings(entries.get("expose")),
            ports=tuple(
                port for each in self._items(entries.get("ports")) for port in self._ports(each)
            ),
            capabilities=self._settings(entries.get("cap_add")),
            dns=self._settings(entries.get("dns")),
            dns_search=self._settings(entries.get("dns_search")),
            profiles=self._settings(entries.get("profiles")),
            depends_on=self._dependencies(entries.get("depends_on")),
            networks=self._attachments(entries.get("networks")),
        )
        replaced = frozenset(
            "capabilities" if key == "cap_add" else key
            for key, each in entries.items()
            if each.node.tag in {"!override", "!reset"}
        )
        partial = _Partial(service, replaced)
        if base is None:
            return partial
        # Where it is defined is what people look for, not what it extends.
        return replace(partial, service=replace(_merge(base, partial), name=name, place=at.place))

    def _extended(self, name: str, at: _At, depth: int) -> ComposeService | None:
        if depth >= _DEEPEST:
            at.refuse("services that extend each other without an end")
        if isinstance(at.node, yaml.ScalarNode):
            file, wanted = "", self._text(at)
        else:
            entries = self._entries(at)
            file, wanted = self._text(entries.get("file")), self._text(entries.get("service"))
        root = self._roots[at.file]
        if file:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(at.file), file))
            text = self._read(path)
            if text is None:
                self._note(at.file, f"{name} extends {wanted} of {file}, which was not read")
                return None
            root = self._parse(path, text)
        services = self._entries(self._entries(root).get("services"))
        if wanted not in services:
            at.refuse(f"{name} extends {wanted or 'a service'}, which is not in {root.file}")
        return self._service(wanted, services[wanted], depth + 1).service

    def _words(self, at: _At | None) -> tuple[Setting, ...] | None:
        """A command: a list of words, or one line that is a list for whoever reads it."""
        if at is None or at.is_null:
            return None
        if isinstance(at.node, yaml.ScalarNode):
            whole = self._setting(at)
            return tuple(replace(whole, value=word) for word in _shell_words(whole.value))
        return self._settings(at)

    def _environment(self, entries: Mapping[str, _At]) -> dict[str, Setting]:
        environment = dict(self._of_files(entries.get("env_file")))
        at = entries.get("environment")
        for name, value in self._pairs(at):
            if value is not None:
                environment[name] = value
            elif at is not None and name in self._variables:
                environment[name] = Setting(self._variables[name], at.place)
        return environment

    def _of_files(self, at: _At | None) -> Iterator[tuple[str, Setting]]:
        if at is None or at.is_null:
            return
        several = isinstance(at.node, yaml.SequenceNode)
        for each in self._items(at) if several else [at]:
            if isinstance(each.node, yaml.MappingNode):
                path = self._text(self._entries(each).get("path"))
            else:
                path = self._setting(each).value
            path = posixpath.normpath(path)
            text = self._read(path)
            if text is None:
                self._note(
                    f"{each.file}, line {each.place.line}",
                    f"env_file {path} was not read: it must lie beside the Compose files",
                )
                continue
            for name, value, line in read_variables(text):
                self._spend(each, 1)
                given = self._variables.get(name) if value is None else value
                if given is not None:
                    yield name, Setting(given, Place(path, line))

    def _dependencies(self, at: _At | None) -> tuple[Setting, ...]:
        if at is not None and isinstance(at.node, yaml.MappingNode):
            return tuple(Setting(name, each.place) for name, each in self._entries(at).items())
        return self._settings(at)

    def _attachments(self, at: _At | None) -> dict[str, Attachment]:
        if at is None or not isinstance(at.node, yaml.MappingNode):
            return {each.value: Attachment() for each in self._settings(at)}
        found = {}
        for name, each in self._entries(at).items():
            entries = self._entries(each)
            found[name] = Attachment(
                tuple(alias.value for alias in self._settings(entries.get("aliases"))),
                self._text(entries.get("ipv4_address")),
            )
        return found

    def _network(self, name: str, at: _At) -> ComposeNetwork:
        entries = self._entries(at)
        pools = [
            self._entries(each)
            for each in self._items(self._entries(entries.get("ipam")).get("config"))
        ]
        return ComposeNetwork(
            name=name,
            subnets=tuple(text for each in pools if (text := self._text(each.get("subnet")))),
            gateways=tuple(text for each in pools if (text := self._text(each.get("gateway")))),
        )

    # ports

    def _ports(self, at: _At) -> Iterator[PlannedPort]:
        if isinstance(at.node, yaml.MappingNode):
            entries = self._entries(at)
            address = self._text(entries.get("host_ip"))
            protocol = self._text(entries.get("protocol")) or "tcp"
            host, own = self._text(entries.get("published")), self._text(entries.get("target"))
            unset: tuple[str, ...] = ()
        else:
            short = self._setting(at)
            head, _, protocol = short.value.partition("/")
            head, _, own = head.rpartition(":")
            address, _, host = head.rpartition(":")
            address, unset = address.strip("[]"), short.unset
        written = Setting(
            f"{address}:{host}:{own}/{protocol or 'tcp'}".lstrip(":"), at.place, unset
        )
        ports = self._range(at, own)
        hosts = self._range(at, host) if host else [0] * len(ports)
        if len(hosts) != len(ports):
            # `8000-8010:80` lets Docker choose one of them.
            hosts = [0] * len(ports)
        for port, host_port in zip(ports, hosts, strict=True):
            yield PlannedPort(port, protocol or "tcp", address, host_port, written)

    def _range(self, at: _At, text: str) -> Sequence[int]:
        found = ports_in(text)
        if found is None:
            at.refuse(f"`{text}` is no port, and no range of ports")
        self._spend(at, len(found))
        return found


def ports_in(text: str) -> range | None:
    """The ports of `9080`, `9080/tcp` or `9080-9090`; None where it names none."""
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text.partition("/")[0].strip())
    if match is None:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return range(first, last + 1) if 0 < first <= last <= _LAST_PORT else None


def _shell_words(line: str) -> Sequence[str]:
    import shlex  # noqa: PLC0415 # few files need it

    try:
        return shlex.split(line)
    except ValueError:  # a quote that nobody closed
        return line.split()


# ---------------------------------------------------------------- merging


def _merge(base: ComposeService, partial: _Partial) -> ComposeService:
    """A service as a later file changes it: mappings by key, lists added to, values replaced."""
    over, replaced = partial.service, partial.replaced

    def one(name: str) -> object:
        value = getattr(over, name)
        return value if value is not None or name in replaced else getattr(base, name)

    def mapping(name: str) -> object:
        mine = getattr(over, name)
        return mine if name in replaced else {**getattr(base, name), **mine}

    def several(name: str) -> object:
        mine = getattr(over, name)
        return mine if name in replaced else _without_repetition((*getattr(base, name), *mine))

    changes = {
        **{name: one(name) for name in _SINGLE},
        **{name: mapping(name) for name in ("environment", "labels", "networks")},
        **{name: several(name) for name in _SEVERAL},
    }
    return replace(base, **changes)


_SINGLE: Final = (
    "image",
    "container_name",
    "hostname",
    "network_mode",
    "user",
    "privileged",
    "command",
    "entrypoint",
)
_SEVERAL: Final = (
    "expose",
    "ports",
    "capabilities",
    "dns",
    "dns_search",
    "profiles",
    "depends_on",
)


def _without_repetition(items: Iterable[Setting | PlannedPort]) -> tuple[object, ...]:
    seen: dict[object, object] = {}
    for each in items:
        key = each.value if isinstance(each, Setting) else replace(each, written=_NOWHERE)
        seen.setdefault(key, each)
    return tuple(seen.values())


_NOWHERE: Final = Setting("", Place("", 0))
