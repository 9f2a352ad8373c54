"""Under pseudonyms a mesh is the same, and nobody can tell whose it is."""

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshdoctor.diagnosis import examine, load_checks
from meshdoctor.evidence import layout
from meshdoctor.evidence.interface import Problem
from meshdoctor.report.document import Report
from meshdoctor.snapshot import Snapshot, open_snapshot
from meshdoctor.snapshot.addresses import Addresses, found
from meshdoctor.snapshot.pseudonyms import KEPT, pseudonymised

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"
RECORDINGS = sorted(MESHES.glob("*.tgz"))

# What names the meshes of the recordings; `consul`, `pilot` and the like name none.
NAMES = {
    "istiomesh": ("details", "productpage", "ratings", "reviews", "istiomesh", "bookinfo"),
    "connect": ("web", "api", "pay", "db"),
}


def documents(snapshot: Snapshot) -> Mapping[str, bytes]:
    return {name: snapshot.read(name) for name in snapshot.names()}


def structure(report: Report) -> Any:
    """What a report says, without the names in it."""
    causes = {each.id: each.code for each in report.findings}
    return (
        report.verdict,
        report.mesh,
        sorted(
            (
                each.code,
                each.severity,
                sorted(subject.kind for subject in each.subjects),
                sorted(causes[cause] for cause in each.causes),
                len(each.seen_in),
                len(each.remedies),
            )
            for each in report.findings
        ),
        [(each.code, each.verdict) for each in report.checks],
        (report.coverage.services, report.coverage.workloads, report.coverage.sidecars_examined),
    )


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_verdict_is_the_same(path: Path) -> None:
    """The same codes, about as many things of the same kinds, with the same causes."""
    real = open_snapshot(path)
    renamed = pseudonymised(real)
    checks = load_checks()
    assert structure(examine(renamed, checks, {})) == structure(examine(real, checks, {}))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_no_name_and_no_address_is_left(path: Path) -> None:
    """In no document, and in no document's name."""
    real = open_snapshot(path)
    renamed = pseudonymised(real)
    names = NAMES["connect" if path.stem.startswith("connect") else "istiomesh"]
    addresses = {
        each
        for raw in documents(real).values()
        for each in found([raw.decode()])
        if ipaddress.ip_address(each).is_private
        and not ipaddress.ip_address(each).is_loopback
        and each != "0.0.0.0"  # noqa: S104
    }
    word = re.compile(rf"(?<![^\W_])(?:{'|'.join(names)})(?![^\W_])", re.IGNORECASE)
    for name, raw in documents(renamed).items():
        assert not word.search(name)
        assert not addresses & found([raw.decode()]), name
        for text in strings(json.loads(raw)) if name.endswith(".json") else [raw.decode()]:
            assert not word.search(text), (name, text)


FIELD = re.compile(r"details|api_(?:type|version)|[a-z]+(?:_[a-z]+){2,}", re.IGNORECASE)
"""Envoy's and Docker's own, though some have a service's name in them."""


def strings(value: Any) -> Iterator[str]:
    """Every string, and every key that is no field of its source's."""
    if isinstance(value, str):
        if not re.fullmatch(r"envoy\.[a-z_.]+", value):
            yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            if not FIELD.fullmatch(key):
                yield key
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def test_the_same_snapshot_gets_the_same_pseudonyms() -> None:
    """Same evidence, same bytes."""
    real = open_snapshot(MESHES / "broken.tgz")
    assert documents(pseudonymised(real)) == documents(pseudonymised(real))


def test_what_is_missing_is_renamed_too() -> None:
    """A reason may name a host."""
    services = {"consul/catalog/services.json": b'{"orders": []}'}
    gaps = (
        Problem("envoy/orders-1/stats.json", "orders at 10.1.2.3: no answer"),
        Problem("pilot/", 'Get "http://pilot.corp.example/": lookup mesh7.acme on 10.1.2.4'),
    )
    renamed = pseudonymised(Snapshot(services, absent=gaps))
    said = " ".join(f"{each.document} {each.message}" for each in renamed.absent)
    for name in ("orders", "10.1.2.3", "10.1.2.4", "corp", "mesh7", "acme"):
        assert name not in said, said
    assert renamed.absent[0].document == "envoy/service01-1/stats.json"


def test_a_word_of_the_field_stays_though_a_service_is_called_so() -> None:
    """Else no listener would be one any more."""
    services = {
        "consul/catalog/services.json": b'{"listener": [], "static": [], "orders": []}',
        "envoy/a1/config_dump.json": b'{"configs": [{"type": "STATIC", "name": "listener"}]}',
    }
    renamed = documents(pseudonymised(Snapshot(services)))
    assert json.loads(renamed["consul/catalog/services.json"]).keys() == {
        "listener",
        "static",
        "service02",
    }


def test_capitals_stay_capitals() -> None:
    """That a name is no host name is a finding; the nat table's own words are no names."""
    found = {
        "consul/catalog/services.json": b'{"Orders": [], "output": [], "caf\xc3\xa9": []}',
        "netfilter/node.nat.txt": b"-A OUTPUT -d 10.0.0.7/32 -j RETURN\n",
    }
    renamed = documents(pseudonymised(Snapshot(found)))
    names = json.loads(renamed["consul/catalog/services.json"])
    assert sum(name != name.lower() for name in names) == 1
    assert sum(not name.isascii() for name in names) == 1
    assert b"-A OUTPUT -d " in renamed["netfilter/node.nat.txt"]
    assert b"10.0.0.7" not in renamed["netfilter/node.nat.txt"]


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b"[1]"])
def test_damage_is_no_crash(raw: bytes) -> None:
    """What cannot be read as JSON is read as lines."""
    names = ("docker/containers.json", "envoy/a1/config_dump.json", "docker/logs/a1.log")
    assert len(documents(pseudonymised(Snapshot(dict.fromkeys(names, raw))))) == len(names)


def test_a_compose_file_is_renamed_and_still_reads() -> None:
    """With its path, and with services that do not run."""
    text = """# shop
services:
  orders:
    image: registry.acme.example/shop/orders:1.2
    container_name: orders_one
    environment: [SERVICE_NAME=orders]
    networks: [backbone]
  basket:
    image: basket
networks:
  backbone: {}
"""
    real = Snapshot({layout.compose_file("/home/jane/shop/compose.yml"): text.encode()})
    renamed = pseudonymised(real)
    (name,) = renamed.names()
    read = renamed.read(name).decode()
    for word in ("orders", "acme", "basket", "backbone", "jane", "shop"):
        assert word not in name + read
    assert len(yaml.safe_load(read)["services"]) == 2


def test_the_words_that_stay_are_words() -> None:
    """In small letters, each as a name would be split."""
    assert all(re.fullmatch("[a-z0-9]+", word) for word in KEPT)


# ---------------------------------------------------------------- addresses

ADDRESSES = Addresses(b"a key")
V4 = st.ip_addresses(v=4).map(str)
PRIVATE = st.one_of(
    *(
        st.ip_addresses(network=network).map(str)
        for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
    )
)


def common(one: str, two: str) -> int:
    """How many leading bits two addresses have in common."""
    return 32 - (int(ipaddress.IPv4Address(one)) ^ int(ipaddress.IPv4Address(two))).bit_length()


@given(st.lists(PRIVATE, min_size=2, max_size=6))
def test_subnets_stay_subnets(addresses: list[str]) -> None:
    """Two addresses are as near each other as before."""
    new = [ADDRESSES.replaced(each) for each in addresses]
    for (one, two), (left, right) in zip(
        combinations(addresses, 2), combinations(new, 2), strict=True
    ):
        assert common(one, two) == common(left, right)


@given(V4)
def test_an_address_stays_of_its_kind(address: str) -> None:
    """Private, public, loopback, multicast; its last octet stays."""
    old, new = ipaddress.IPv4Address(address), ipaddress.IPv4Address(ADDRESSES.replaced(address))
    for kind in ("is_private", "is_loopback", "is_multicast", "is_link_local", "is_reserved"):
        assert getattr(old, kind) == getattr(new, kind), kind
    assert old.packed[-1] == new.packed[-1]


@given(st.ip_addresses(network="10.0.0.0/8"), st.integers(8, 30))
def test_a_host_stays_in_its_subnet(address: ipaddress.IPv4Address, length: int) -> None:
    """However long its prefix is written."""
    network = ipaddress.ip_network(f"{address}/{length}", strict=False)
    new = ipaddress.ip_network(ADDRESSES.replaced(str(network)), strict=False)
    assert ipaddress.ip_address(ADDRESSES.replaced(str(address))) in new
    assert new.prefixlen == length


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:9191",
        "0.0.0.0_9080",
        "0.0.0.0/0",
        "255.255.255.255",
        "169.254.169.254",
        "224.0.0.1",
        "::1",
        "[::]:80",
        "fe80::1",
        "1.2.3",
        "1.2.3.4.5",
        "300.1.2.3",
        "2026-11-22T19:59:08.778789318Z",
        "2026-11-22",
        "03:04:05",
        "sha256:aa:bb",
    ],
)
def test_what_is_no_ones_address_stays(text: str) -> None:
    """It means the same everywhere, or is none."""
    assert ADDRESSES.replaced(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "listener.172.28.0.2_9080.downstream_cx",
        "http.10.1.2.3_80;",
        "ip-10-1-2-3.ec2.internal",
        "sidecar~10.1.2.3~web",
        "172.28.0.2:8300",
        "10.1.2.3/16",
        "[fd00:1234::5]:80",
        "2001:db8:1:2::7",
        "02:42:ac:1c:00:02",
        "de:ad:be:ef:00:01",
    ],
)
def test_an_address_is_found_wherever_it_stands(text: str) -> None:
    """In statistics, in names, in command lines."""
    assert ADDRESSES.replaced(text) != text


def test_a_mac_address_follows_the_address_that_it_was_made_of() -> None:
    """As Docker makes them."""
    mac = ADDRESSES.replaced("02:42:ac:1c:00:02")
    octets = bytes.fromhex(mac.replace(":", ""))[2:]
    assert str(ipaddress.IPv4Address(octets)) == ADDRESSES.replaced("172.28.0.2")


def test_a_pseudonym_is_nobodys_name() -> None:
    """A mesh may have a service that is called as others would be."""
    services: dict[str, list[str]] = {"orders": [], "service01": [], "billing": []}
    raw = {"consul/catalog/services.json": json.dumps(services).encode()}
    (renamed,) = documents(pseudonymised(Snapshot(raw))).values()
    names = sorted(json.loads(renamed))
    assert len(names) == 3
    assert names == ["service02", "service03", "service04"]


def test_a_probes_name_is_its_callers() -> None:
    """It stands in the name of the document alone."""
    raw = {"probe/orders.json": b'{"schema": "meshdoctor.probe/v1", "requests": []}'}
    (name,) = documents(pseudonymised(Snapshot(raw)))
    assert name == "probe/service01.json"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("services: {orders: {image: acme}}", False),
        ("services: {orders: null}\nnetworks: [orders]", False),
        ("[orders]", True),
        ("services: {orders: [", True),
    ],
)
def test_services_of_a_compose_file(text: str, *, left: bool) -> None:
    """As far as it is one; of another form there is nothing that names a service."""
    raw = {layout.compose_file("/srv/compose.yaml"): text.encode()}
    (renamed,) = documents(pseudonymised(Snapshot(raw))).values()
    assert (b"orders" in renamed) is left


def test_addresses_of_ipv6_that_stand_for_ipv4() -> None:
    """They stay the same address in both spellings."""
    plain = ADDRESSES.replaced("10.1.2.3")
    assert ADDRESSES.replaced("[::ffff:a01:203]:80") == f"[::ffff:{plain}]:80"


def test_a_host_written_with_its_subnet_stays_no_subnet() -> None:
    """10.1.2.0/8 is an address of 10.0.0.0/8, not the subnet itself."""
    new = ADDRESSES.replaced("10.1.2.0/8")
    assert new == f"{ADDRESSES.replaced('10.1.2.0')}/8"
