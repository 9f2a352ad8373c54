"""Redirected calls, through a real Envoy and real nat rules in network namespaces.

Two namespaces: an application beside its Envoy, with the rules that a sidecar's init container
writes; and the rest of the world, where a server answers on every address.
"""

import itertools
import random
import time

import pytest

from meshdoctor.evidence.netfilter import parse
from meshdoctor.routing import Bypassed, Call, HopKind, Outcome, Reached, follow
from tests.conftest import Announce
from tests.routing.namespaces import Namespace, two_namespaces
from tests.routing.real_envoy import (
    Envoy,
    address,
    exchange,
    listening,
    raw_servers,
    running,
    server_of,
    static_cluster,
)
from tests.routing.test_differential import DECISIONS, SEED

pytestmark = pytest.mark.live

HERE = "10.77.0.1"
THERE = tuple(f"10.77.0.{number}" for number in range(2, 9))
PORTS = (9080, 9081, 9082, 9083, 8443)
CLUSTERS = {f"c{number}": 7000 + number for number in range(8)}
# The rules let the proxy's own connections pass by this user.
AS_ENVOY = ("setpriv", "--reuid", "1337", "--clear-groups")

RULES = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:ISTIO_INBOUND - [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -p tcp -j ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp -m tcp --dport 9083 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_REDIRECT
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -j ISTIO_REDIRECT
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -d 10.77.0.8/32 -j RETURN
-A ISTIO_OUTPUT -p tcp -m tcp --dport 9083 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
"""


def listener(name: str, host: str, port: int, cluster: str, **more: object) -> dict[str, object]:
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "cluster": cluster,
    }
    return {
        "name": name,
        "address": address(host, port),
        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}],
        "bind_to_port": False,
        **more,
    }


def bootstrap(rng: random.Random, *, passthrough: bool) -> dict[str, object]:
    """A virtual listener, and others by chance: exact, of any address, of both, of none."""
    any_address = "0.0.0.0"  # noqa: S104 # in a namespace of the test's own
    virtual = listener(
        "virtual",
        any_address,
        15001,
        "passthrough" if passthrough else "black-hole",
        bind_to_port=True,
        use_original_dst=True,
    )
    listeners = [virtual]
    for host, port in itertools.product((any_address, HERE, *THERE), PORTS):
        if rng.random() < 0.3:
            cluster = rng.choice((*CLUSTERS, "passthrough", "missing"))
            bound = host in (any_address, HERE) and rng.random() < 0.3
            listeners.append(listener(f"{host}_{port}", host, port, cluster, bind_to_port=bound))
    return {
        "static_resources": {
            "listeners": listeners,
            "clusters": [
                *(static_cluster(name, port, host=THERE[0]) for name, port in CLUSTERS.items()),
                {"name": "black-hole", "type": "STATIC", "connect_timeout": "1s"},
                {
                    "name": "passthrough",
                    "type": "ORIGINAL_DST",
                    "lb_policy": "CLUSTER_PROVIDED",
                    "connect_timeout": "1s",
                },
            ],
        }
    }


def ready(envoy: Envoy, namespace: Namespace) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if namespace.call(lambda: envoy.get("/ready")).startswith(b"LIVE"):
                return
        except OSError:
            time.sleep(0.02)
    pytest.fail((envoy.folder / "envoy.log").read_text(errors="replace")[-1500:])


def seen(to: tuple[str, int]) -> str:
    try:
        answer, _ = exchange(to, b"GET / HTTP/1.1\r\n\r\n")
    except ConnectionRefusedError:
        return "closed"
    return server_of(answer) or "closed"


def expected(outcome: Outcome) -> str:
    names = {port: name for name, port in CLUSTERS.items()}
    match outcome:
        case Reached(destinations=(destination,)) if destination.address != HERE:
            return names.get(destination.port, f"p{destination.port}")
        case Bypassed(address=there, port=port) if there != HERE:
            return f"p{port}"
        case _:
            # Behind this namespace's own address there is no server.
            return "closed"


def test_original_destination_decisions(announce: Announce) -> None:
    """Redirect, listener by original destination, and what takes the call if there is none."""
    agreed = 0
    different: list[str] = []
    named = {port: name for name, port in CLUSTERS.items()} | {port: f"p{port}" for port in PORTS}
    outward = [Call(*to) for to in itertools.product((*THERE, HERE), PORTS)]
    inward = [Call(HERE, port, inbound=True) for port in PORTS]
    with two_namespaces((HERE,), THERE) as (here, there):
        here.run("iptables-restore", RULES)
        table = parse("netfilter/real.nat.txt", here.run("iptables-save -t nat"))
        assert table is not None
        sockets = there.call(lambda: [listening("", port) for port in named])
        with raw_servers(named, sockets):
            for round_ in itertools.count():
                if agreed + len(different) >= DECISIONS // 10:
                    break
                rng = random.Random(f"namespaces/{SEED}/{round_}")  # noqa: S311 # for a test
                config = bootstrap(rng, passthrough=rng.random() < 0.6)
                with running(config, within=(*here.prefix, *AS_ENVOY)) as envoy:
                    ready(envoy, here)
                    proxy = here.call(envoy.proxy)
                    found = here.call(lambda: [seen((to.address, to.port)) for to in outward])
                    found += there.call(lambda: [seen((to.address, to.port)) for to in inward])
                for call, answer in zip((*outward, *inward), found, strict=True):
                    walk = follow(proxy, call, nat=table, own_addresses=frozenset({HERE}))
                    assert walk.hops[0].kind is HopKind.REDIRECT
                    if expected(walk.outcome) == answer:
                        agreed += 1
                    else:
                        different.append(f"{call}: {walk.outcome}, Envoy: {answer}")
    total = agreed + len(different)
    announce(f"redirected calls, seed {SEED}: {agreed} of {total} decisions agree")
    assert not different, "\n".join(different[:20])
