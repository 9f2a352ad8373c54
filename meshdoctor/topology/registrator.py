"""What Registrator would register for a container, modelled on its own code.

The rules are those of gliderlabs/registrator, `bridge/bridge.go` (`add`, `newService`) and
`bridge/util.go` (`serviceMetaData`), the same in v7 and on master. What differs is that only
master, since commit d91f662, gives the attributes to Consul as the service's metadata.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meshdoctor.evidence.docker import Container

_PREFIX: Final = "SERVICE_"
_NOT_ATTRIBUTES: Final = frozenset({"id", "name", "tags"})


@dataclass(frozen=True, slots=True)
class Registrator:
    """A Registrator container's settings, from its command line.

    `hostname` begins the ids it gives; "" where it cannot be known.
    """

    container: Container
    internal: bool
    explicit: bool
    cleanup: bool
    host_ip: str
    hostname: str

    @classmethod
    def of(cls, container: Container) -> "Registrator":
        """The settings that the container's command line gives."""
        flags = _flags(container.command)
        return cls(
            container=container,
            internal=_is_set(flags, "internal"),
            explicit=_is_set(flags, "explicit"),
            cleanup=_is_set(flags, "cleanup"),
            host_ip=flags.get("ip", ""),
            hostname=container.hostname,
        )


def _flags(command: tuple[str, ...]) -> Mapping[str, str]:
    """Go's flags: -name, --name, -name=value; a value as a word of its own counts for -ip."""
    flags: dict[str, str] = {}
    for word, following in zip(command, (*command[1:], ""), strict=True):
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            flags[name] = value if equals else ("" if following.startswith("-") else following)
            if not equals and name in {"internal", "explicit", "cleanup"}:
                flags[name] = "true"
    return flags


def _is_set(flags: Mapping[str, str], name: str) -> bool:
    return flags.get(name, "false").lower() in {"1", "t", "true"}


@dataclass(frozen=True, slots=True)
class Registration:
    """One service that Registrator would register for a container's port.

    `address` is "" where Registrator would give Consul none, None where it depends on the host;
    `attributes` is what should stand in ServiceMeta.
    """

    container: str
    id: str
    name: str
    address: str | None
    port: int
    protocol: str
    tags: tuple[str, ...]
    attributes: Mapping[str, str]
    suffixed: bool
    """True where `-<port>` was appended to the name."""


def registrations(
    container: Container, registrator: Registrator, containers: Mapping[str, Container]
) -> tuple[Registration, ...]:
    """What `registrator` would register for `container`, by port.

    `containers` are all containers by id, for those that share another's network namespace.
    """
    bindings = {(each.port, each.protocol): each for each in reversed(container.published)}
    host_network = container.network_mode == "host"
    considered = [
        port
        for port in container.exposed
        if registrator.internal or host_network or port in bindings
    ]
    found = []
    for port, protocol in considered:
        settings, by_port = declared(container, port)
        if settings.get("ignore"):
            continue
        name = settings.get("name", "")
        if not name and registrator.explicit:
            continue
        suffixed = len(considered) > 1 and "name" not in by_port
        binding = bindings.get((port, protocol))
        udp = ":udp" if protocol == "udp" else ""
        base = name or container.image_name
        found.append(
            Registration(
                container=container.name,
                id=settings.get("id") or f"{registrator.hostname}:{container.name}:{port}{udp}",
                name=f"{base}-{port}" if suffixed else base,
                address=_address(container, registrator, containers),
                port=port if registrator.internal or binding is None else binding.host_port,
                protocol=protocol,
                tags=_tags(settings.get("tags", "")) + (("udp",) if udp else ()),
                attributes={
                    key: value for key, value in settings.items() if key not in _NOT_ATTRIBUTES
                },
                suffixed=suffixed,
            )
        )
    return tuple(found)


def declared(container: Container, port: int) -> tuple[Mapping[str, str], frozenset[str]]:
    """The `SERVICE_*` settings that count for a port, and which of them name that port.

    They stand in the environment and in labels; SERVICE_<port>_X beats SERVICE_X.
    """
    settings: dict[str, str] = {}
    by_port: set[str] = set()
    for variable, value in (*container.environment.items(), *container.labels.items()):
        if not variable.startswith(_PREFIX):
            continue
        key = variable.removeprefix(_PREFIX).lower()
        if key in by_port:
            continue
        head, _, rest = key.partition("_")
        if head.isascii() and head.isdecimal() and rest:
            if head == str(port):
                settings[rest] = value
                by_port.add(rest)
        else:
            settings[key] = value
    return settings, frozenset(by_port)


def _address(
    container: Container, registrator: Registrator, containers: Mapping[str, Container]
) -> str | None:
    if container.network_container:
        # Registrator takes the other container's address on the default bridge, which is empty
        # on networks of one's own.
        owner = containers.get(container.network_container)
        return owner.bridge_address if owner is not None else ""
    if not registrator.internal:
        return registrator.host_ip or None
    return container.bridge_address or next(iter(container.addresses.values()), "")


def _tags(text: str) -> tuple[str, ...]:
    """Comma separated; a backslash keeps the comma behind it inside the tag."""
    pieces = text.replace("\\,", "\0").split(",")
    return tuple(piece.replace("\0", ",") for piece in pieces if piece)
