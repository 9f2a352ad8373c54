"""Nat rules, read from inside a network namespace with this machine's own programs."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

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


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs that read rules, by name, as they are started."""
    names: list[str] = []
    start = subprocess.run

    def watched(command: list[str], **settings: Any) -> "subprocess.CompletedProcess[Any]":
        if command[0].endswith("-save"):
            names.append(Path(command[0]).name)
        return start(command, **settings)

    monkeypatch.setattr(subprocess, "run", watched)
    return names


def test_no_process_is_started_in_vain(
    inside: int, deadline: Deadline, started: list[str]
) -> None:
    """One for each sidecar is enough: the kernel itself lists the tables of the legacy kind."""
    netfilter.read_inside(inside, deadline)
    assert started == ["iptables-nft-save"]
    started.clear()
    run(inside, "iptables-legacy", "-t", "nat", *RULE.split())
    assert RULE in netfilter.read_inside(inside, deadline).decode().splitlines()
    assert started == ["iptables-legacy-save"]


def test_where_only_the_legacy_kind_can_be_read_no_rules_are_none(
    inside: int, deadline: Deadline, monkeypatch: pytest.MonkeyPatch, started: list[str]
) -> None:
    """A kernel, or a machine, may lack what the newer kind needs."""
    monkeypatch.setattr(netfilter, "_PROGRAMS", ("iptables-legacy-save",))
    assert netfilter.read_inside(inside, deadline) == b""
    assert started == ["iptables-legacy-save"]


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
