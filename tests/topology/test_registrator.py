"""The model of Registrator: its own rules one by one, and what it really did to two meshes."""

from typing import Any

import pytest

from meshdoctor.evidence.consul import ConsulCatalog
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.topology.registrator import Registration, Registrator, registrations
from tests.evidence.damage import ISTIO, recording
from tests.topology.containers import REGISTRATOR, container


def register(
    registered: Container, *flags: str, others: tuple[Container, ...] = ()
) -> tuple[Registration, ...]:
    """What Registrator with these flags would register; without any, as with -internal."""
    command = ("/bin/registrator", *(flags or ("-internal",)), "consul://consul:8500")
    registrator = Registrator.of(container("registrator", command=command, hostname="reg"))
    return registrations(
        registered, registrator, {each.id: each for each in (registered, *others)}
    )


def names(*flags: str, **parts: Any) -> list[str]:
    return [each.name for each in register(container("web", **parts), *flags)]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nginx", "nginx"),
        ("nginx:1.25", "nginx"),
        ("istio/examples-bookinfo-reviews-v1:1.10.1", "examples-bookinfo-reviews-v1"),
        ("localhost:5000/team/api", "api"),
        ("team/api@sha256:" + "0" * 64, "api@sha256"),
        ("sha256:" + "0" * 64, "sha256"),
    ],
)
def test_without_a_name_the_image_gives_it(image: str, name: str) -> None:
    """The last part of the path, up to its first colon (`path.Base`, `strings.Split`)."""
    assert names(image=image, exposed=("80/tcp",)) == [name]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"SERVICE_NAME": "a"}, ["a-80", "a-443"]),
        ({"SERVICE_80_NAME": "a"}, ["a", "web-443"]),
        ({"SERVICE_80_NAME": "a", "SERVICE_443_NAME": "b"}, ["a", "b"]),
        ({"SERVICE_NAME": "a", "SERVICE_80_NAME": "b"}, ["b", "a-443"]),
        ({"SERVICE_80_NAME": "b", "SERVICE_NAME": "a"}, ["b", "a-443"]),
        ({"SERVICE_NAME": "a", "SERVICE_443_IGNORE": "1"}, ["a-80"]),
        ({"SERVICE_NAME": "a", "SERVICE_IGNORE": "no"}, []),
        ({"SERVICE_NAME": "a", "SERVICE_IGNORE": ""}, ["a-80", "a-443"]),
        ({"SERVICE_IGNORE": "1", "SERVICE_80_IGNORE": ""}, ["web-80"]),
        ({"SERVICE_NAME": ""}, ["web-80", "web-443"]),
        ({"SERVICE_080_NAME": "a"}, ["web-80", "web-443"]),
        ({"service_name": "a"}, ["web-80", "web-443"]),
        ({"SERVICE_Name": "a"}, ["a-80", "a-443"]),
    ],
)
def test_names_of_a_container_with_two_ports(env: dict[str, str], expected: list[str]) -> None:
    """`-<port>` is appended unless the name was given for that very port.

    An ignored port still counts as one of several; any word ignores, only "" does not.
    """
    assert names(env=env, exposed=("80/tcp", "443/tcp")) == expected


def test_one_port_has_no_suffix() -> None:
    """The plain case of the Compose file."""
    (only,) = register(container("web", env={"SERVICE_NAME": "a"}, exposed=("80/tcp",)))
    assert (only.name, only.suffixed) == ("a", False)


def test_one_number_for_tcp_and_udp_is_two_ports() -> None:
    """The udp one has a tag and the end of its id for it."""
    tcp, udp = register(container("dns", env={"SERVICE_NAME": "d"}, exposed=("53/tcp", "53/udp")))
    assert (tcp.id, tcp.name, tcp.tags) == ("reg:dns:53", "d-53", ())
    assert (udp.id, udp.name, udp.tags) == ("reg:dns:53:udp", "d-53", ("udp",))


def test_labels_count_as_the_environment_does() -> None:
    """They come after it, so they win; a setting for the port wins over both."""
    (only,) = register(
        container(
            "web",
            env={"SERVICE_NAME": "a", "SERVICE_80_TAGS": "e", "SERVICE_PROTOCOL": "tcp"},
            labels={"SERVICE_NAME": "b", "SERVICE_TAGS": "l", "SERVICE_PROTOCOL": "http"},
            exposed=("80/tcp",),
        )
    )
    assert (only.name, only.tags, only.attributes) == ("b", ("e",), {"protocol": "http"})


def test_attributes_are_what_is_not_name_id_or_tags() -> None:
    """Their keys are in lower case; those of other ports are not there."""
    (only,) = register(
        container(
            "web",
            env={
                "SERVICE_NAME": "a",
                "SERVICE_ID": "mine",
                "SERVICE_TAGS": "t",
                "SERVICE_PROTOCOL": "http",
                "SERVICE_80_CHECK_HTTP": "/health",
                "SERVICE_81_PROTOCOL": "tcp",
                "SERVICE_80": "odd",
                "NAME": "x",
            },
            exposed=("80/tcp",),
        )
    )
    assert only.id == "mine"
    assert only.attributes == {"protocol": "http", "check_http": "/health", "80": "odd"}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", ()),
        ("version|v1", ("version|v1",)),
        ("a,b", ("a", "b")),
        (",a,,b,", ("a", "b")),
        (r"a\,b,c", ("a,b", "c")),
        (r"a\,", ("a,",)),
        (r"a\\,b", (r"a\,b",)),
    ],
)
def test_tags_are_separated_by_commas_that_are_not_escaped(
    tags: str, expected: tuple[str, ...]
) -> None:
    """As `recParseEscapedComma` does it, up to the order."""
    (only,) = register(container("web", env={"SERVICE_TAGS": tags}, exposed=("80/tcp",)))
    assert only.tags == expected


def test_tags_for_everybody() -> None:
    """`-tags` adds to the container's own; a template cannot be foretold."""
    web = container("web", env={"SERVICE_TAGS": "a"}, exposed=("80/udp",))
    assert [each.tags for each in register(web, "-internal", "-tags", "b,c")] == [
        ("a", "b", "c", "udp")
    ]
    assert [each.tags for each in register(web, "-internal", "-tags={{.ID}}")] == [("a", "udp")]


def test_explicit_wants_a_name() -> None:
    """The image's name does not count, one for the port does."""
    assert names("-internal", "-explicit", exposed=("80/tcp",)) == []
    assert names("-internal", "-explicit", env={"SERVICE_NAME": "a"}, exposed=("80/tcp",)) == ["a"]
    env = {"SERVICE_80_NAME": "a"}
    assert names("-internal", "-explicit", env=env, exposed=("80/tcp", "81/tcp")) == ["a"]


def test_internal_takes_exposed_ports_and_the_containers_address() -> None:
    """Published or not; the port is the container's own."""
    web = container("web", address="10.0.0.2", exposed=("80/tcp", "81/tcp"))
    assert [(each.address, each.port) for each in register(web)] == [
        ("10.0.0.2", 80),
        ("10.0.0.2", 81),
    ]


@pytest.mark.parametrize(
    ("bridge", "addresses", "expected"),
    [
        ("172.17.0.2", {"bridge": "172.17.0.2", "mesh": "10.0.0.2"}, "172.17.0.2"),
        ("", {"mesh": "10.0.0.2"}, "10.0.0.2"),
        ("", {"a": "10.0.0.2", "b": "10.1.0.2"}, None),
        ("", {}, ""),
    ],
)
def test_internal_address_of_several(
    bridge: str, addresses: dict[str, str], expected: str | None
) -> None:
    """The default bridge comes first; of several other networks nobody can say which."""
    web = container("web", bridge=bridge, addresses=addresses, exposed=("80/tcp",))
    assert [each.address for each in register(web)] == [expected]


def test_without_internal_only_published_ports_count() -> None:
    """With the port on the host; the port inside stays in the id."""
    web = container(
        "web",
        network="bridge",
        exposed=("80/tcp", "81/tcp"),
        published={"80/tcp": [("0.0.0.0", "8080"), ("::", "8081")]},  # noqa: S104 # Docker's word
    )
    (only,) = register(web, "-cleanup")
    assert (only.id, only.port, only.suffixed) == ("reg:web:80", 8080, False)


@pytest.mark.parametrize(
    ("flags", "network", "host", "expected"),
    [
        (("-cleanup",), "bridge", "0.0.0.0", None),  # noqa: S104 # Docker's word for "all"
        (("-cleanup",), "bridge", "", None),
        (("-cleanup",), "bridge", "127.0.0.1", "127.0.0.1"),
        (("-cleanup",), "mesh", "127.0.0.1", "10.0.0.2"),
        (("-ip", "192.0.2.1"), "bridge", "127.0.0.1", "192.0.2.1"),
        (("-ip=192.0.2.1",), "mesh", "127.0.0.1", "192.0.2.1"),
    ],
)
def test_addresses_on_the_host(
    flags: tuple[str, ...], network: str, host: str, expected: str | None
) -> None:
    """`-ip` first; then on networks of one's own the container's; then what it is bound to."""
    web = container(
        "web",
        network=network,
        address="10.0.0.2",
        exposed=("80/tcp",),
        published={"80/tcp": [(host, "8080")]},
    )
    assert [(each.address, each.port) for each in register(web, *flags)] == [(expected, 8080)]


@pytest.mark.parametrize("network", ["host", "none", "container:" + "other".ljust(64, "0")])
def test_exposed_ports_count_where_docker_lists_none_at_run_time(network: str) -> None:
    """In the host's or another's namespace each is taken for published as itself."""
    web = container("web", network=network, exposed=("80/tcp",))
    assert [each.port for each in register(web, "-ip=192.0.2.1")] == [80]


def test_in_anothers_namespace_the_address_is_that_ones_on_the_default_bridge() -> None:
    """Which is empty on networks of one's own: the registration is of no use."""
    other = "other".ljust(64, "0")
    guest = container("web", network=f"container:{other}", exposed=("80/tcp",))
    on_bridge = container("other", bridge="172.17.0.2")
    elsewhere = container("other", address="10.0.0.2")
    assert [each.address for each in register(guest, others=(on_bridge,))] == ["172.17.0.2"]
    assert [each.address for each in register(guest, others=(elsewhere,))] == [""]
    assert [each.address for each in register(guest)] == [""]


def test_addresses_from_a_label() -> None:
    """`-useIpFromLabel` takes the label's address without its mask."""
    flags = ("-internal", "-useIpFromLabel", "ip")
    web = container("web", address="10.0.0.2", labels={"ip": "10.9.0.1/24"}, exposed=("80/tcp",))
    bare = container("web", address="10.0.0.2", exposed=("80/tcp",))
    assert [each.address for each in register(web, *flags)] == ["10.9.0.1"]
    assert [each.address for each in register(bare, *flags)] == ["10.0.0.2"]


@pytest.mark.parametrize(
    ("command", "internal", "explicit", "ip"),
    [
        (REGISTRATOR, True, False, ""),
        (("/bin/registrator", "--internal=true", "consul:"), True, False, ""),
        (("/bin/registrator", "-internal=false", "consul:"), False, False, ""),
        (("/bin/registrator", "-ip", "1.2.3.4", "-explicit", "consul:"), False, True, "1.2.3.4"),
        (("/bin/registrator", "consul:", "-internal"), False, False, ""),
        (("/bin/registrator", "-tags", "-internal", "consul:"), False, False, ""),
        (("/bin/registrator", "-resync", "60", "-internal", "consul:"), True, False, ""),
        (("sh", "-c", "sleep 5 && exec /bin/registrator -internal consul:"), True, False, ""),
        (("sh", "-c", "registrator -explicit '"), False, True, ""),
        (("/entry.sh", "-internal", "consul:"), True, False, ""),
        ((), False, False, ""),
    ],
)
def test_flags_are_gos(
    command: tuple[str, ...], *, internal: bool, explicit: bool, ip: str
) -> None:
    """They end at the first word that is none; a switch takes its value only after `=`."""
    found = Registrator.of(container("registrator", command=command))
    assert (found.internal, found.explicit, found.host_ip) == (internal, explicit, ip)


@pytest.mark.parametrize("mesh", ISTIO)
def test_the_model_says_what_stands_in_consul(mesh: str) -> None:
    """For every container of a real mesh: id, name, address, port, tags, and with master meta."""
    docker = DockerEngine.load(recording(mesh))
    catalog = ConsulCatalog.load(recording(mesh))
    (program,) = [each for each in docker.containers if each.image_name == "registrator"]
    registrator = Registrator.of(program)
    by_id = {each.id: each for each in docker.containers}
    expected = {
        each.id: each
        for registered in docker.containers
        if registered.running
        for each in registrations(registered, registrator, by_id)
    }
    stands = {each.id: each for each in catalog.instances if each.service != "consul"}
    assert sorted(expected) == sorted(stands)
    for key, each in expected.items():
        instance = stands[key]
        assert (each.name, each.address, each.port, sorted(each.tags)) == (
            instance.service,
            instance.registered,
            instance.port,
            sorted(instance.tags),
        )
        # In the broken meshes Registrator is the image that drops the attributes.
        assert instance.meta == (each.attributes if mesh.startswith("fixed") else {})
