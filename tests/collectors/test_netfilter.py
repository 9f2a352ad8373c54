"""Nat rules, read from inside a network namespace with this machine's own programs."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from meshdoctor.collectors import netfilter
from meshdoctor.collectors.interface import Deadline, NotAnsweringError

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="making a network namespace needs root",
)

RULE = "-A OUTPUT -p tcp -j REDIRECT --to-ports 15001"


@pytest.fixture
def inside() -> Iterator[int]:
    """A process in a network namespace of its own."""
    ours = Path("/proc/self/ns/net").readlink()
    with subprocess.Popen(["unshare", "-n", "sleep", "60"]) as process:
        while Path(f"/proc/{process.pid}/ns/net").readlink() == ours:
            assert process.poll() is None
        yield process.pid
        process.kill()


def lacking(reason: str) -> NoReturn:
    """Skip the test with its reason; in CI, where nothing is skipped, fail."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run(pid: int, *command: str) -> None:
    if shutil.which(command[0]) is None:
        lacking(f"this machine has no {command[0]}")
    done = subprocess.run(
        ["nsenter", "-t", str(pid), "-n", *command], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lacking(f"{command[0]} does not work here: {done.stderr}")


@pytest.mark.parametrize("program", ["iptables-legacy", "iptables-nft"])
def test_rules_of_either_kind_are_seen(inside: int, deadline: Deadline, program: str) -> None:
    """Whichever the init container was built with."""
    run(inside, program, "-t", "nat", *RULE.split())
    text = netfilter.read_inside(inside, deadline).decode()
    assert RULE in text.splitlines()
    assert "*nat" in text.splitlines()
    assert text.endswith("\n")


def test_the_kind_that_redirects_is_told(inside: int, deadline: Deadline) -> None:
    """Docker's own rules for DNS may be of the other kind."""
    other = "-A OUTPUT -d 127.0.0.11/32 -p udp -j RETURN"
    run(inside, "iptables-legacy", "-t", "nat", *other.split())
    run(inside, "iptables-nft", "-t", "nat", *RULE.split())
    assert RULE in netfilter.read_inside(inside, deadline).decode().splitlines()


def test_reading_creates_no_table(inside: int, deadline: Deadline) -> None:
    """`iptables-legacy-save -t nat` would."""
    netfilter.read_inside(inside, deadline)
    assert Path(f"/proc/{inside}/net/ip_tables_names").read_text() == ""


def test_other_tables_are_left_out(inside: int, deadline: Deadline) -> None:
    """The document is of one table."""
    run(inside, "iptables-legacy", "-A", "INPUT", "-j", "ACCEPT")
    run(inside, "iptables-legacy", "-t", "nat", *RULE.split())
    assert b"*filter" not in netfilter.read_inside(inside, deadline)


def test_a_process_that_ended_is_said(deadline: Deadline) -> None:
    """Not a traceback."""
    with subprocess.Popen(["true"]) as process:
        pass
    with pytest.raises(NotAnsweringError, match="its process has ended"):
        netfilter.read_inside(process.pid, deadline)
