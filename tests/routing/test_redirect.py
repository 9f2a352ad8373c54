"""What nat rules do to a call."""

import pytest

from meshdoctor.evidence.netfilter import NatTable, parse
from meshdoctor.routing import Bypassed, Call, HopKind, Reached, Unknown, follow
from meshdoctor.routing.model import UndecidedError
from meshdoctor.routing.redirect import NotRedirected, Redirected, redirect
from tests.routing.configured import listener, proxy, tcp
from tests.routing.real_envoy import static_cluster

OWN = frozenset({"10.0.0.1"})


def table(*rules: str) -> NatTable:
    chains = sorted({rule.split()[1] for rule in rules} | {"OUTPUT", "PREROUTING"})
    lines = ["*nat", *(f":{chain} - [0:0]" for chain in chains), *rules, "COMMIT"]
    found = parse("netfilter/web.nat.txt", "\n".join(lines))
    assert found is not None
    return found


ISTIO = table(
    "-A PREROUTING -p tcp -j ISTIO_INBOUND",
    "-A OUTPUT -p tcp -j ISTIO_OUTPUT",
    "-A ISTIO_INBOUND -p tcp -m tcp --dport 22 -j RETURN",
    "-A ISTIO_INBOUND -p tcp -j ISTIO_REDIRECT",
    "-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -j ISTIO_REDIRECT",
    "-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN",
    "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
    "-A ISTIO_OUTPUT -j ISTIO_REDIRECT",
    "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
)


def test_rules_of_another_version_of_ip_decide_nothing() -> None:
    """What is written for IPv4 does not hold for IPv6, whose rules are not read."""
    with pytest.raises(UndecidedError, match="not for fd00::2"):
        redirect(ISTIO, Call("fd00::2", 80), OWN)
    assert redirect(ISTIO, Call("::1", 80), OWN) == NotRedirected(None)
    assert redirect(table(), Call("fd00::2", 80), OWN) == NotRedirected(None)


@pytest.mark.parametrize(
    ("call", "port"),
    [
        (Call("10.0.0.2", 80), 15001),
        (Call("10.0.0.1", 80), 15001),
        (Call("10.0.0.2", 80, uid=1337), None),
        (Call("10.0.0.1", 80, uid=1337), 15001),
        (Call("127.0.0.1", 80), None),
        (Call("10.0.0.1", 80, inbound=True), 15001),
        (Call("10.0.0.1", 22, inbound=True), None),
    ],
)
def test_the_rules_of_a_sidecar(call: Call, port: int | None) -> None:
    """All but the proxy's own calls and those to localhost, one's own address included."""
    verdict = redirect(ISTIO, call, OWN)
    assert isinstance(verdict, NotRedirected if port is None else Redirected)
    if isinstance(verdict, Redirected):
        assert verdict.port == port


def test_no_rules_redirect_nothing() -> None:
    """The call goes straight where it wants, past the proxy."""
    walk = follow(proxy(listener(tcp())), Call("10.0.0.2", 80), nat=table(), own_addresses=OWN)
    assert isinstance(walk.outcome, Bypassed)
    assert walk.hops[0].kind is HopKind.REDIRECT
    assert walk.hops[0].why == "no nat rule takes the call"


def test_a_call_that_is_not_redirected_may_meet_a_listener_all_the_same() -> None:
    """Where the proxy listens on that very address."""
    walk = follow(proxy(listener(tcp())), Call("127.0.0.1", 80), nat=ISTIO, own_addresses=OWN)
    assert isinstance(walk.outcome, Reached)


@pytest.mark.parametrize(
    "rule",
    [
        "-A OUTPUT -p tcp -m statistic --mode random --probability 0.5 -j REDIRECT --to-ports 1",
        "-A OUTPUT -p tcp -j DNAT --to-destination 10.0.0.9:80",
    ],
)
def test_rules_that_are_not_followed_leave_it_open(rule: str) -> None:
    """Never a guess."""
    with pytest.raises(UndecidedError):
        redirect(table(rule), Call("10.0.0.2", 80), OWN)
    walk = follow(proxy(), Call("10.0.0.2", 80), nat=table(rule))
    assert isinstance(walk.outcome, Unknown)


def test_rules_in_a_circle_end() -> None:
    """Though iptables would not take them."""
    circle = table("-A OUTPUT -j LOOP", "-A LOOP -j LOOP")
    with pytest.raises(UndecidedError, match="circle"):
        redirect(circle, Call("10.0.0.2", 80), OWN)


def test_ports_and_negations() -> None:
    """Lists, ranges and `!`."""
    rules = table(
        "-A OUTPUT -p tcp -m multiport --dports 80,8000:8010 -j REDIRECT --to-ports 1",
        "-A OUTPUT -p udp -j REDIRECT --to-ports 2",
        "-A OUTPUT -p tcp ! -d 10.0.0.0/8 -j REDIRECT --to-ports 3",
    )
    found = {
        (address, port): redirect(rules, Call(address, port), OWN)
        for address, port in (
            ("10.0.0.2", 80),
            ("10.0.0.2", 8005),
            ("10.0.0.2", 90),
            ("9.9.9.9", 90),
        )
    }
    ports = [each.port if isinstance(each, Redirected) else None for each in found.values()]
    assert ports == [1, 1, None, 3]


@pytest.mark.parametrize(("compatible", "cluster"), [(True, "c"), (False, "d")])
def test_a_listener_on_any_ipv6_address(
    compatible: bool,  # noqa: FBT001 # as it is written in the listener
    cluster: str,
) -> None:
    """It takes an IPv4 destination only where it was bound so."""
    socket = {"address": "::", "port_value": 80, "ipv4_compat": compatible}
    found = proxy(
        listener(tcp(), address={"socket_address": socket}, bind_to_port=False),
        listener(
            tcp("d"),
            name="virtual",
            address={"socket_address": {"address": "0.0.0.0", "port_value": 15001}},  # noqa: S104 # not bound here
            use_original_dst=True,
        ),
        clusters=(static_cluster("d", 8001),),
    )
    outcome = follow(found, Call("10.0.0.2", 80), nat=ISTIO, own_addresses=OWN).outcome
    assert isinstance(outcome, Reached)
    assert outcome.clusters == (cluster,)


def test_a_rule_that_accepts_ends_the_chain() -> None:
    """Nothing behind it is asked."""
    rules = table("-A OUTPUT -p tcp -j ACCEPT", "-A OUTPUT -p tcp -j REDIRECT --to-ports 1")
    found = redirect(rules, Call("10.0.0.2", 80), OWN)
    assert not isinstance(found, Redirected)


def test_who_calls_may_matter() -> None:
    """By the caller's address, where it is known; else it is not known what becomes of it."""
    rules = table("-A OUTPUT -s 10.0.0.0/24 -p tcp -j REDIRECT --to-ports 1")
    near = Call("10.0.0.2", 80, source_address="10.0.0.7")
    assert isinstance(redirect(rules, near, OWN), Redirected)
    far = Call("10.0.0.2", 80, source_address="10.9.0.7")
    assert not isinstance(redirect(rules, far, OWN), Redirected)
    odd = Call("10.0.0.2", 80, source_address="no address")
    assert not isinstance(redirect(rules, odd, OWN), Redirected)
    with pytest.raises(UndecidedError, match="the caller's address"):
        redirect(rules, Call("10.0.0.2", 80), OWN)
