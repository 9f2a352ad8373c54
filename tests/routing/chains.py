"""Listeners with filter chains made up by chance, and connections that meet them."""

import random
from dataclasses import dataclass
from typing import Any

from tests.routing.real_envoy import address, client_hello

Json = dict[str, Any]

SERVERS = tuple(f"r{number}" for number in range(12))
DESTINATIONS = ("127.0.0.1", "127.0.0.2", "127.0.1.1", "127.0.1.2", "127.9.0.1")
SOURCES = ("127.0.0.1", "127.0.0.5", "127.0.7.7", "127.9.0.1")
RANGES = (
    ("127.0.0.0", 8),
    ("127.0.0.2", 32),
    ("127.0.1.0", 24),
    ("127.0.1.2", 31),
    ("127.0.0.0", 16),
    ("10.0.0.0", 8),
    ("0.0.0.0", 0),  # noqa: S104 # a range
)
SOURCE_RANGES = (
    ("127.0.0.0", 8),
    ("127.0.0.5", 32),
    ("127.0.7.0", 24),
    ("127.9.0.0", 16),
    ("10.0.0.0", 8),
)
SERVER_NAMES = ("a.example", "b.a.example", "*.example", "*.a.example", "*.com", "x.com", "com")
ASKED_NAMES = ("", "a.example", "b.a.example", "c.b.a.example", "B.A.Example", "x.com", "example")
PROTOCOLS = ("h2", "http/1.1", "http/1.0", "h2c", "istio")
OFFERED = ((), ("h2",), ("h2", "http/1.1"), ("istio", "h2"), ("http/1.1",), ("other",))


@dataclass(frozen=True)
class Connection:
    """One connection: plain HTTP, or the beginning of TLS."""

    address: str
    port: int
    source: str
    source_port: int = 0
    tls: bool = False
    server_name: str = ""
    protocols: tuple[str, ...] = ()

    def wire(self) -> bytes:
        if self.tls:
            return client_hello(self.server_name, self.protocols)
        return b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def ranges(rng: random.Random, known: tuple[tuple[str, int], ...]) -> list[Json]:
    chosen = rng.sample(known, rng.choice((1, 1, 2)))
    return [{"address_prefix": prefix, "prefix_len": length} for prefix, length in chosen]


def match(rng: random.Random, ports: tuple[int, ...], source_ports: tuple[int, ...]) -> Json:
    made: Json = {}
    if rng.random() < 0.25:
        made["destination_port"] = rng.choice((*ports, 1))
    if rng.random() < 0.35:
        made["prefix_ranges"] = ranges(rng, RANGES)
    if rng.random() < 0.35:
        made["server_names"] = rng.sample(SERVER_NAMES, rng.choice((1, 1, 2)))
    if rng.random() < 0.35:
        made["transport_protocol"] = rng.choice(("tls", "raw_buffer"))
    if rng.random() < 0.3:
        made["application_protocols"] = rng.sample(PROTOCOLS, rng.choice((1, 1, 2)))
    if rng.random() < 0.2:
        made["direct_source_prefix_ranges"] = ranges(rng, SOURCE_RANGES)
    if rng.random() < 0.3:
        made["source_type"] = rng.choice(("SAME_IP_OR_LOOPBACK", "EXTERNAL"))
    if rng.random() < 0.3:
        made["source_prefix_ranges"] = ranges(rng, SOURCE_RANGES)
    if rng.random() < 0.15:
        made["source_ports"] = [rng.choice(source_ports)]
    return made


def to_cluster(rng: random.Random, cluster: str) -> Json:
    proxy: Json = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": cluster,
        "cluster": cluster,
    }
    if rng.random() < 0.05:
        proxy["cluster"] = "missing"
    if rng.random() < 0.1:
        del proxy["cluster"]
        proxy["weighted_clusters"] = {
            "clusters": [
                {"name": cluster, "weight": 1},
                {"name": rng.choice(SERVERS), "weight": rng.choice((1, 5))},
            ]
        }
    filters: list[Json] = [{"name": "tcp", "typed_config": proxy}]
    if rng.random() < 0.1:
        rules: Json = rng.choice(({"action": "DENY"}, {"action": "ALLOW"}))
        rbac = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
            "stat_prefix": "rbac",
            "rules": rules,
        }
        filters.insert(0, {"name": "rbac", "typed_config": rbac})
    return {"filters": filters}


def inspector(name: str) -> Json:
    message = "".join(part.title() for part in name.split("_"))
    return {
        "name": name,
        "typed_config": {
            "@type": f"type.googleapis.com/envoy.extensions.filters.listener.{name}.v3.{message}"
        },
    }


def listener(
    rng: random.Random, name: str, ports: tuple[int, ...], source_ports: tuple[int, ...]
) -> Json:
    """Envoy refuses those whose chains overlap; they are tried on it all the same."""
    made: Json = {
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": address("0.0.0.0", ports[0]),  # noqa: S104 # in the test's own Envoy
        "additional_addresses": [
            {"address": address("0.0.0.0", port)}  # noqa: S104 # likewise
            for port in ports[1:]
        ],
        "filter_chains": [
            {
                "name": f"{name}-{number}",
                "filter_chain_match": match(rng, ports, source_ports),
                **to_cluster(rng, rng.choice(SERVERS)),
            }
            for number in range(rng.randint(1, 6))
        ],
        "listener_filters": [
            inspector(each) for each in ("tls_inspector", "http_inspector") if rng.random() < 0.4
        ],
    }
    if rng.random() < 0.4:
        made["default_filter_chain"] = {"name": "rest", **to_cluster(rng, rng.choice(SERVERS))}
    return made


def connections(
    rng: random.Random, count: int, ports: tuple[int, ...], source_ports: tuple[int, ...]
) -> list[Connection]:
    """Distinct ones."""
    made: dict[Connection, None] = {}
    for _ in range(20 * count):
        tls = rng.random() < 0.65
        connection = Connection(
            address=rng.choice(DESTINATIONS),
            port=rng.choice(ports),
            source=rng.choice(SOURCES),
            source_port=rng.choice(source_ports) if rng.random() < 0.2 else 0,
            tls=tls,
            server_name=rng.choice(ASKED_NAMES) if tls else "",
            protocols=rng.choice(OFFERED) if tls else (),
        )
        made.setdefault(connection)
        if len(made) == count:
            break
    return list(made)
