"""Thousands of generated decisions, each as a real Envoy makes it and as the walk predicts it.

The prediction knows nothing of the generator: it is made from that Envoy's own /config_dump and
/clusters, through the decoders. `MESHDOCTOR_DECISIONS=20000` asks for more than the usual 2,000,
`MESHDOCTOR_SEED` for others.
"""

import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from meshdoctor.evidence.envoy import EnvoyProxy
from meshdoctor.routing import Answered, Call, Closed, Outcome, Reached, Unknown, follow
from tests.conftest import Announce
from tests.routing import chains, generated
from tests.routing.generated import Request
from tests.routing.real_envoy import (
    exchange,
    free_ports,
    http_server,
    listening,
    raw_servers,
    running,
    server_of,
    static_cluster,
)

pytestmark = pytest.mark.live

DECISIONS = int(os.environ.get("MESHDOCTOR_DECISIONS", "2000"))
SEED = int(os.environ.get("MESHDOCTOR_SEED", "1"))
LISTENERS = 25


@dataclass
class Tally:
    """What was compared."""

    same: int = 0
    undecided: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.same + len(self.different) + self.undecided.total()

    def report(self, title: str) -> str:
        decided = self.same + len(self.different)
        share = self.same / decided if decided else 0
        return (
            f"{title}: {self.same} of {decided} decisions agree ({share:.2%}); "
            f"{self.undecided.total()} not predicted: {dict(self.undecided)}; "
            f"outcomes: {dict(self.outcomes)}"
        )


def compare(tally: Tally, told: str, outcome: Outcome, seen: str, names: dict[int, str]) -> None:
    wanted = expected(outcome, names)
    tally.outcomes[type(outcome).__name__] += 1
    if "unknown" in wanted:
        why = outcome.why if isinstance(outcome, Unknown) else "a share"
        tally.undecided[re.sub(r"[`'].*|cluster \S+", "...", why)[:70]] += 1
    elif any(agrees(each, seen) for each in wanted):
        tally.same += 1
    else:
        tally.different.append(f"{told}: predicted {sorted(wanted)}, Envoy: {seen}")


def expected(outcome: Outcome, names: dict[int, str]) -> set[str]:
    """What may be seen: `server NAME`, `STATUS FLAG LOCATION`, `closed`."""
    match outcome:
        case Reached():
            found = {f"server {names[each.port]}" for each in outcome.destinations}
            for _, other in outcome.otherwise:
                found |= expected(other, names)
            return found
        case Answered():
            return {
                "to gRPC",
                f"{outcome.status} {outcome.flag or '*'} {outcome.location}".rstrip(),
            }
        case Closed():
            return {"closed"}
        case Unknown():
            return {"unknown"}
        case _:
            return {f"{outcome}"}


def agrees(predicted: str, seen: str) -> bool:
    if "*" not in predicted:
        return predicted == seen
    before, _, after = predicted.partition("*")
    return seen.startswith(before) and seen.endswith(after)


def observed(answer: bytes) -> str:
    server = server_of(answer)
    if server is not None:
        return f"server {server}"
    if not answer:
        return "closed"
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ")[1].decode()
    flags = re.search(rb"flags=(\S+)", body)
    flag = flags[1].decode() if flags else "-"
    location = re.search(rb"(?im)^location: (\S+)", head)
    return f"{status} {flag} {location[1].decode() if location else ''}".rstrip()


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, int]]:
    ports = dict(zip(generated.SERVERS, free_ports(len(generated.SERVERS)), strict=True))
    listeners = [http_server(name, port) for name, port in ports.items()]
    with running({"static_resources": {"listeners": listeners}}):
        yield ports


def call_of(request: Request, port: int) -> Call:
    return Call(
        "127.0.0.1",
        port,
        host=request.host,
        path=request.path,
        method=request.method,
        headers=request.headers,
    )


def ask(
    tally: Tally, proxy: EnvoyProxy, port: int, request: Request, names: dict[int, str]
) -> None:
    answer, _ = exchange(("127.0.0.1", port), request.wire())
    walk = follow(proxy, call_of(request, port))
    seen = observed(answer)
    if b"grpc-status" in answer and server_of(answer) is None:
        # A gRPC call gets its errors with status 200, whatever the status of the decision.
        seen = "to gRPC"
    told = f"listener {walk.hops[0].name if walk.hops else port}: {request}"
    compare(tally, told, walk.outcome, seen, names)


def test_http_decisions(servers: dict[str, int], announce: Announce) -> None:
    """Virtual host, route, action, cluster and endpoint, as a real Envoy decides them."""
    tally = Tally()
    names = {port: name for name, port in servers.items()}
    round_ = 0
    while tally.total < DECISIONS:
        rng = random.Random(f"{SEED}/{round_}")  # noqa: S311 # for a test
        round_ += 1
        world = generated.world(servers)
        ports = free_ports(LISTENERS)
        listeners = [
            generated.http_listener(rng, f"l{number}", port, world)
            for number, port in enumerate(ports)
        ]
        bootstrap = {"static_resources": {"listeners": listeners, "clusters": world.clusters}}
        with running(bootstrap, world.files) as envoy:
            proxy = envoy.proxy()
            for port in ports:
                for request in generated.requests(rng, 80, world, port):
                    ask(tally, proxy, port, request, names)
    announce(tally.report(f"HTTP, seed {SEED}"))
    assert not tally.different, "\n".join(tally.different[:20])
    assert tally.undecided.total() < tally.total / 10
    assert tally.total >= DECISIONS


def test_filter_chain_decisions(announce: Announce) -> None:
    """Which filter chain takes a connection, and the TCP proxy behind it."""
    tally = Tally()
    ports = dict(zip(chains.SERVERS, free_ports(len(chains.SERVERS)), strict=True))
    names = {port: name for name, port in ports.items()}
    sockets = [listening("127.0.0.1", port) for port in ports.values()]
    clusters = [static_cluster(name, port) for name, port in ports.items()]
    with raw_servers(names, sockets):
        round_ = 0
        while tally.total < DECISIONS // 2:
            rng = random.Random(f"chains/{SEED}/{round_}")  # noqa: S311 # for a test
            round_ += 1
            chain_decisions(rng, tally, clusters, names)
    announce(tally.report(f"filter chains, seed {SEED}"))
    assert not tally.different, "\n".join(tally.different[:20])
    assert tally.undecided.total() < tally.total / 10


def chain_decisions(
    rng: random.Random, tally: Tally, clusters: list[generated.Json], names: dict[int, str]
) -> None:
    free = free_ports(2 * LISTENERS + 3)
    source_ports = tuple(free[:3])
    pairs = list(zip(free[3::2], free[4::2], strict=True))
    listeners = [
        chains.listener(rng, f"l{number}", pair[: rng.choice((1, 2))], source_ports)
        for number, pair in enumerate(pairs)
    ]
    bootstrap = {
        "static_resources": {"clusters": clusters},
        "dynamic_resources": {
            "lds_config": {
                "resource_api_version": "V3",
                "path_config_source": {"path": "@/lds.json"},
            }
        },
    }
    files = {"lds.json": {"version_info": "1", "resources": listeners}}
    with running(bootstrap, files) as envoy:
        proxy = envoy.proxy()
        refused = {each.name for each in proxy.rejected}
        taken = {entry.listener.name for entry in proxy.deciding_listeners()}
        assert refused | taken == {each["name"] for each in listeners}
        for entry in proxy.deciding_listeners():
            listener = entry.listener
            own = (listener.port, *(port for _, port in listener.additional_addresses))
            for connection in chains.connections(rng, 40, own, source_ports):
                answer, (host, port) = exchange(
                    (connection.address, connection.port),
                    connection.wire(),
                    source=(connection.source, connection.source_port),
                )
                call = Call(
                    connection.address,
                    connection.port,
                    host=None if connection.tls else "x",
                    tls=connection.tls,
                    server_name=connection.server_name,
                    application_protocols=connection.protocols,
                    source_address=host,
                    source_port=port,
                )
                outcome = follow(proxy, call).outcome
                compare(tally, f"{listener.name} {connection}", outcome, observed(answer), names)
