"""A mesh on several Docker hosts, from the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshdoctor.cli import EXIT_FINDINGS, EXIT_USAGE
from meshdoctor.snapshot import open_snapshot
from tests.cli.conftest import MESHES, Run
from tests.collectors.replayed import NOWHERE, hosts


@pytest.fixture(scope="module")
def addresses() -> Iterator[list[str]]:
    with hosts(open_snapshot(MESHES / "broken.tgz"), 2) as found:
        yield found.engines[2]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine and no Consul of this machine."""
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)


def test_two_hosts_and_one_that_is_not_there(run: Run, addresses: list[str]) -> None:
    """The mesh of both is judged, and the third is named with the reason."""
    third = "tcp://127.0.0.1:1"
    named = [word for each in (*addresses, third) for word in ("--docker-host", each)]
    ran = run("check", *named, "--width", 400)
    assert ran.code == EXIT_FINDINGS, ran.stderr
    assert "In all 6 examined sidecars one TCP listener" in ran.stdout
    assert f"host {third} could not be read: no Docker engine answers" in ran.stdout


def test_a_context_beside_a_host(run: Run, addresses: list[str]) -> None:
    """Both are asked; the context that is not there is named."""
    ran = run(
        *("check", "--docker-host", addresses[0], "--docker-context", "nowhere"),
        *("--width", 400),
    )
    assert "host nowhere could not be read: there is no Docker context" in ran.stdout


def test_probe_wants_one_host(run: Run, addresses: list[str]) -> None:
    """Requests are sent from inside containers, and of one engine."""
    ran = run("probe", *(word for each in addresses for word in ("--docker-host", each)))
    assert (ran.code, ran.stdout) == (EXIT_USAGE, "")
    assert "name one engine" in ran.stderr


def test_watch_looks_at_all_of_them(run: Run, addresses: list[str]) -> None:
    """And ends with what is left."""
    named = [word for each in addresses for word in ("--docker-host", each)]
    ran = run("watch", "--timeout", 6, "--format", "json", *named)
    assert ran.code == EXIT_FINDINGS, ran.stderr
    first = json.loads(ran.stdout.splitlines()[0])
    assert "MD401" in {each["code"] for each in first["found"]}


def test_settings_may_name_several(
    run: Run, addresses: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a list; and `config` shows them."""
    monkeypatch.delenv("DOCKER_HOST")
    file = tmp_path / "meshdoctor.toml"
    file.write_text(f"docker-host = {json.dumps(addresses)}\n")
    ran = run("config", "--config", file, "--format", "json")
    told = {each["key"]: each["value"] for each in json.loads(ran.stdout)["settings"]}
    assert told["docker-host"] == addresses
    ran = run("check", "--config", file, "--format", "json")
    assert json.loads(ran.stdout)["coverage"]["sidecars"]["examined"] == 6
    # One that is typed replaces the file's.
    ran = run("check", "--config", file, "--docker-host", addresses[0], "--format", "json")
    assert json.loads(ran.stdout)["coverage"]["sidecars"]["examined"] < 6


@pytest.mark.parametrize("written", ["[]", "[1]", '["ssh://me:pw@h"]'])
def test_a_list_of_hosts_that_is_wrong(run: Run, tmp_path: Path, written: str) -> None:
    """With the line."""
    file = tmp_path / "meshdoctor.toml"
    file.write_text(f"docker-host = {written}\n")
    ran = run("config", "--config", file)
    assert ran.code == EXIT_USAGE
    assert "meshdoctor.toml:1: docker-host" in ran.stderr
