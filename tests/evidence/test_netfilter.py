"""What `iptables-save -t nat` prints, and what of it survives damage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdoctor.evidence.interface import MissingEvidenceError, Problem
from meshdoctor.evidence.netfilter import NatTable, NetfilterRules, parse
from meshdoctor.snapshot import Snapshot
from tests.evidence.damage import ISTIO, few, recording, snapshot

DETAILS = "netfilter/consul_details-v1-sidecar_1.nat.txt"
RECORDED = recording("broken").read(DETAILS).decode()


def table(text: str) -> NatTable:
    parsed = parse("netfilter/web.nat.txt", text)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize("mesh", ISTIO)
def test_a_recording_is_parsed_whole(mesh: str) -> None:
    """Every rule of every sidecar is understood to its last option."""
    rules = NetfilterRules.load(recording(mesh))
    assert rules.problems == ()
    assert len(rules.tables) == 6
    for each in rules.tables.values():
        assert len(each.rules) == 8
        assert all(rule.unknown == () for rule in each.rules)
        assert all(rule.text.startswith(f"-A {rule.chain} ") for rule in each.rules)


def test_the_redirect_as_istio_writes_it() -> None:
    """Who is left alone, what is negated, and where the rest goes."""
    parsed = NetfilterRules.load(recording("broken")).tables["consul_details-v1-sidecar_1"]
    assert parsed.document == DETAILS
    assert parsed.policies["OUTPUT"] == "ACCEPT"
    own_address, envoy, loopback, rest = parsed.chain("ISTIO_OUTPUT")
    assert (own_address.destination, own_address.out_interface) == ("127.0.0.1/32", "lo")
    assert own_address.negated == {"destination"}
    assert (envoy.uid, envoy.target, envoy.negated) == ("1337", "RETURN", frozenset())
    assert (loopback.destination, loopback.target) == ("127.0.0.1/32", "RETURN")
    assert rest.target == "ISTIO_REDIRECT"
    (redirect,) = parsed.chain("ISTIO_REDIRECT")
    assert (redirect.target, redirect.to, redirect.protocol) == ("REDIRECT", "15001", "tcp")
    assert RECORDED.splitlines()[redirect.line - 1] == redirect.text


def test_what_a_packet_may_meet() -> None:
    """Jumps are followed, each chain once, also where chains jump in a circle."""
    rules = table("*nat\n:OUTPUT ACCEPT\n:A -\n:B -\n-A OUTPUT -j A\n-A A -j B\n-A B -j A\n")
    assert [rule.chain for rule in rules.reachable("OUTPUT")] == ["OUTPUT", "A", "B"]
    assert [rule.chain for rule in rules.reachable("PREROUTING")] == []


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("-A OUTPUT -p tcp --dport 9080 -j RETURN", "ports", "9080"),
        ("-A OUTPUT -p tcp -m multiport --dports 80,443 -j RETURN", "ports", "80,443"),
        ("-A OUTPUT -g ISTIO_REDIRECT", "target", "ISTIO_REDIRECT"),
        ("-A OUTPUT -m owner --gid-owner 1337 -j RETURN", "gid", "1337"),
        ("-A PREROUTING -i eth0 -j ISTIO_INBOUND", "in_interface", "eth0"),
        ("-A OUTPUT -j DNAT --to-destination 10.0.0.1:80", "to", "10.0.0.1:80"),
        ('-A OUTPUT -m comment --comment "! -j DROP" -j RETURN', "target", "RETURN"),
        ("-A OUTPUT -m mark --mark 0x1 -j RETURN", "unknown", ("--mark",)),
        ("-A OUTPUT -m owner ! --uid-owner 1337 -j X", "negated", frozenset({"uid"})),
        ("-A OUTPUT -j", "target", ""),
        ('-A OUTPUT --comment "never closed', "chain", "OUTPUT"),
        ("-A ", "chain", ""),
    ],
)
def test_options_of_a_rule(line: str, field: str, value: object) -> None:
    """What an option says, and which options are not understood."""
    rules = table(f"*nat\n{line}\n").rules
    if line.strip() == "-A":
        assert rules == ()
    else:
        (rule,) = rules
        assert getattr(rule, field) == value


def test_other_tables_do_not_count() -> None:
    """Only what stands between `*nat` and the next table is nat."""
    rules = table("*filter\n-A OUTPUT -j DROP\nCOMMIT\n*nat\n-A OUTPUT -j X\nCOMMIT\n").rules
    assert [rule.target for rule in rules] == ["X"]


def test_a_kernel_without_a_nat_table_says_nothing() -> None:
    """No output is an empty table; a message is not."""
    assert table("").rules == ()
    assert table(" \n").rules == ()
    assert parse("x", "iptables-save: command not found") is None


def test_what_iptables_did_not_print_costs_only_its_sidecar() -> None:
    """The other sidecars' tables are there."""
    rules = NetfilterRules.load(
        snapshot({DETAILS: RECORDED, "netfilter/web.nat.txt": "permission denied"})
    )
    assert list(rules.tables) == ["consul_details-v1-sidecar_1"]
    assert [problem.document for problem in rules.problems] == ["netfilter/web.nat.txt"]


def test_without_any_table_the_reason_is_said() -> None:
    """What the collector said is what the user reads."""
    told = Snapshot({}, absent=(Problem("netfilter/web.nat.txt", "not root"),))
    with pytest.raises(MissingEvidenceError, match="not root"):
        NetfilterRules.load(told)
    with pytest.raises(MissingEvidenceError, match="no nat rules were recorded"):
        NetfilterRules.load(snapshot({}))


@few
@given(
    st.lists(
        st.one_of(
            st.sampled_from(RECORDED.splitlines()),
            st.text(alphabet='-AjgN! "\\#*:nat\t1', max_size=20),
            st.sampled_from(["*nat", "COMMIT", "-A X ! ! -j", "-A X -j -j -j", ":", "#"]),
        ),
        max_size=12,
    )
)
def test_lines_in_any_order(lines: list[str]) -> None:
    """Whatever the text is, there is a table or none."""
    parsed = parse("netfilter/web.nat.txt", "\n".join(lines))
    if parsed is not None:
        repr(parsed)
        assert len(list(parsed.reachable("OUTPUT"))) <= len(parsed.rules)


@few
@given(st.binary(max_size=120))
def test_any_bytes_at_all(body: bytes) -> None:
    """Whatever the bytes are, there is a table or a word about what is wrong."""
    rules = NetfilterRules.load(snapshot({DETAILS: body}))
    assert len(rules.tables) + len(rules.problems) == 1
