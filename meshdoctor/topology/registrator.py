"""What Registrator would register for a container, modelled on its own code.

The rules are those of gliderlabs/registrator's master, `bridge/bridge.go` (`add`, `newService`)
and `bridge/util.go` (`serviceMetaData`). v7 differs in three things: it drops the attributes,
which only master, since commit d91f662, gives to Consul as the service's metadata; it splits tags
at escaped commas too; and it has no `-explicit`.
"""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from meshdoctor.evidence.docker import Container, PublishedPort

DROP_ATTRIBUTES: Final = frozenset({"latest", "v5", "v6", "v7"})
"""Tags of gliderlabs/registrator without commit d91f662 of 2018-06; `master` has it."""

_PREFIX: Final = "SERVICE_"
_NOT_ATTRIBUTES: Final = frozenset({"id", "name", "tags"})
_SWITCHES: Final = frozenset({"cleanup", "explicit", "internal"})
_ANY_ADDRESS: Final = frozenset({"", "0.0.0.0"})  # noqa: S104 # what Docker writes for "all"


class Registrator(msgspec.Struct, frozen=True):
    """A Registrator container's settings, from its command line.

    `hostname` begins the ids it gives; "" where it cannot be known. `address_label` is the label
    that it takes addresses from, "" for none; `forced_tags` what it adds to everybody's tags.
    """

    container: Container
    internal: bool
    explicit: bool
    host_ip: str
    hostname: str
    address_label: str = ""
    forced_tags: str = ""

    @classmethod
    def of(cls, container: Container) -> "Registrator":
        """The settings that the container's command line gives."""
        flags = _flags(container.command)
        return cls(
            container=container,
            internal=_is_set(flags, "internal"),
            explicit=_is_set(flags, "explicit"),
            host_ip=flags.get("ip", ""),
            hostname=container.hostname,
            address_label=flags.get("useIpFromLabel", ""),
            forced_tags=flags.get("tags", ""),
        )


def is_gliderlabs(container: Container) -> bool:
    """True of the image that everybody's Registrator was, also from a mirror."""
    return f"/{container.image_repository}".endswith("/gliderlabs/registrator")


def keeps_attributes(container: Container) -> bool | None:
    """Whether a Registrator image gives the attributes to Consul; None where nobody knows."""
    if not is_gliderlabs(container):
        return None
    known = {"master": True, **dict.fromkeys(DROP_ATTRIBUTES, False)}
    return known.get(container.image_tag)


def _flags(command: tuple[str, ...]) -> Mapping[str, str]:
    """Go's flags: -name, --name, -name=value, -name value; a switch takes no second word."""
    flags: dict[str, str] = {}
    words = _arguments(command)
    for word in words:
        # Go stops at the first word that is no flag: the address of the registry.
        if not word.startswith("-") or word in {"-", "--"}:
            break
        name, equals, value = word.lstrip("-").partition("=")
        if not equals:
            value = "true" if name in _SWITCHES else next(words, "")
        flags[name] = value
    return flags


def _arguments(command: tuple[str, ...]) -> Iterator[str]:
    """The words behind the program's name, also where a shell's one line holds them all."""
    for words in (command, *map(_split, command)):
        for index, word in enumerate(words):
            if word.rpartition("/")[2] == "registrator":
                return iter(words[index + 1 :])
    return iter(command[1:])


def _split(line: str) -> Sequence[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote that nobody closed
        return line.split()


def _is_set(flags: Mapping[str, str], name: str) -> bool:
    return flags.get(name, "false").lower() in {"1", "t", "true"}


class Registration(msgspec.Struct, frozen=True):
    """One service that Registrator would register for a container's port.

    `address` is "" where Registrator would give Consul none, None where it depends on what is not
    seen: the host's address, or which of several networks it happens to take. `attributes` is
    what should stand in ServiceMeta.
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
    # Without ports of its own, as in the host's or another container's namespace, Docker lists
    # none at run time, and Registrator takes every exposed port for published as itself.
    portless = container.network_mode in {"host", "none"} or bool(container.network_container)
    considered = [
        port for port in container.exposed if registrator.internal or portless or port in bindings
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
        # Not `image_name`: of an image by digest, Registrator's name ends in `@sha256`.
        base = name or container.image.rpartition("/")[2].partition(":")[0]
        found.append(
            Registration(
                container=container.name,
                id=settings.get("id")
                or f"{registrator.hostname}:{container.name_on_host}:{port}{udp}",
                name=f"{base}-{port}" if suffixed else base,
                address=_address(container, registrator, containers, binding),
                port=port if registrator.internal or binding is None else binding.host_port,
                protocol=protocol,
                tags=(
                    *_tags(settings.get("tags", "")),
                    *_forced_tags(registrator),
                    *(("udp",) if udp else ()),
                ),
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
        head, underscore, rest = key.partition("_")
        if head.isascii() and head.isdecimal() and underscore:
            if head == str(port):
                settings[rest] = value
                by_port.add(rest)
        else:
            settings[key] = value
    return settings, frozenset(by_port)


def _address(
    container: Container,
    registrator: Registrator,
    containers: Mapping[str, Container],
    binding: PublishedPort | None,
) -> str | None:
    if (owner := containers.get(container.network_container)) is not None:
        # Registrator takes the other container's address on the default bridge, which is empty
        # on networks of one's own.
        return owner.bridge_address
    if labelled := container.labels.get(registrator.address_label, ""):
        return labelled.rpartition("/")[0] or labelled
    if registrator.internal:
        return container.bridge_address or _one_of(container.addresses.values())
    if registrator.host_ip:
        return registrator.host_ip
    if container.network_mode not in {"bridge", "default", "host"}:
        # Meant for overlay networks, and true of every network of one's own: the container's
        # address there, beside the port on the host.
        return container.addresses.get(container.network_mode, "")
    host_address = binding.host_address if binding is not None else ""
    return None if host_address in _ANY_ADDRESS else host_address


def _one_of(addresses: Collection[str]) -> str | None:
    """Of several, Registrator takes whichever Go's map gives last."""
    different = set(addresses)
    return None if len(different) > 1 else next(iter(different), "")


def _forced_tags(registrator: Registrator) -> tuple[str, ...]:
    """`-tags`, where it is no template that Registrator fills from each container."""
    return () if "{{" in registrator.forced_tags else _tags(registrator.forced_tags)


def _tags(text: str) -> tuple[str, ...]:
    """Comma separated; a backslash keeps the comma behind it inside the tag."""
    pieces = text.replace("\\,", "\0").split(",")
    return tuple(piece.replace("\0", ",") for piece in pieces if piece)
