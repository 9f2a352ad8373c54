"""The recipes of docs/fleet: the files themselves, run by the tools that they are for."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from meshdoctor.collectors import Options, collect
from meshdoctor.diagnosis import examine, load_checks
from meshdoctor.snapshot import open_snapshot, open_snapshots
from tests.cli.conftest import MESHES
from tests.collectors.replayed import NOWHERE, Hosts, hosts
from tests.live.go_programs import NoProgramError, nomad_job

RECIPES: Final = Path(__file__).parents[2] / "docs" / "fleet"
MESHDOCTOR: Final = Path(sys.executable).with_name("meshdoctor")
NODES: Final = ("east", "west")


@pytest.fixture(scope="module")
def mesh() -> Iterator[Hosts]:
    """A recorded mesh on two Docker hosts, and on one."""
    with hosts(open_snapshot(MESHES / "broken.tgz"), 1, 2) as mesh:
        yield mesh


def whole(mesh: Hosts) -> list[tuple[str, str]]:
    """What one run over all says."""
    (alone,) = mesh.engines[1]
    gathered = collect(Options(docker_host=alone, environment=NOWHERE), lambda _message: None)
    report = examine(gathered, load_checks(), {"kind": "live"})
    return [(each.code, each.message) for each in report.findings]


def environment(mesh: Hosts, engine: str) -> dict[str, str]:
    """A node of the fleet, as a process there sees it: its engine, and an agent of Consul."""
    own = {"DOCKER_HOST": engine, "CONSUL_HTTP_ADDR": mesh.consul}
    return {**NOWHERE, **own, "MESHDOCTOR_CONFIG": os.devnull}


def test_ansible_takes_brings_and_judges(mesh: Hosts, tmp_path: Path) -> None:
    """A real ansible-playbook over two hosts: the verdict of one run over all."""
    there = {
        name: {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "meshdoctor_environment": environment(mesh, engine),
        }
        for name, engine in zip(NODES, mesh.engines[2], strict=True)
    }
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": there}}))
    snapshots = tmp_path / "snapshots"
    given: dict[str, Any] = {
        "meshdoctor": str(MESHDOCTOR),
        "meshdoctor_become": False,
        "snapshots": str(snapshots),
    }
    played = subprocess.run(
        [
            *(sys.executable, "-m", "ansible", "playbook", "-i", inventory),
            *("-e", json.dumps(given), RECIPES / "ansible.yaml"),
        ],
        env={**os.environ, "ANSIBLE_HOME": str(tmp_path / "ansible"), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert sorted(each.name for each in snapshots.glob("*.tgz")) == [f"{n}.tgz" for n in NODES]
    told = json.loads((snapshots / "report.json").read_text())
    assert [(each["code"], each["message"]) for each in told["findings"]] == whole(mesh)
    assert "In all 6 examined sidecars one TCP listener" in played.stdout
    # Nothing of it is left on the hosts.
    assert not list(Path("/tmp").glob("ansible.*.meshdoctor"))  # noqa: S108 # where it makes them


@pytest.fixture(scope="module")
def job() -> Any:
    """The job as Nomad itself reads it."""
    try:
        program = nomad_job()
    except NoProgramError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    ran = subprocess.run(
        [program, RECIPES / "nomad.hcl"], capture_output=True, encoding="utf-8", check=False
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_nomads_job_does_what_it_says(job: Any, mesh: Hosts, tmp_path: Path) -> None:
    """Once on every node; its command, run as on each of two, gives the verdict of one run."""
    assert (job["Type"], job["Datacenters"]) == ("sysbatch", ["*"])
    (group,) = job["TaskGroups"]
    assert (group["RestartPolicy"]["Attempts"], group["RestartPolicy"]["Mode"]) == (0, "fail")
    (task,) = group["Tasks"]
    assert task["Driver"] == "raw_exec"
    assert task["Config"]["command"].endswith("/bin/meshdoctor")
    for name, engine in zip(NODES, mesh.engines[2], strict=True):
        arguments = [
            each.replace("${node.unique.name}", name).replace("/var/lib/meshdoctor", str(tmp_path))
            for each in task["Config"]["args"]
        ]
        assert not any("${" in each for each in arguments)
        ran = subprocess.run(
            [MESHDOCTOR, *arguments],
            env={"PATH": os.environ["PATH"], **environment(mesh, engine)},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
    report = examine(open_snapshots([tmp_path]), load_checks(), {"kind": "live"})
    assert [(each.code, each.message) for each in report.findings] == whole(mesh)


def test_swarms_script_is_one_for_any_shell() -> None:
    """It parses; tests/live runs it."""
    ran = subprocess.run(
        ["sh", "-n", RECIPES / "swarm.sh"], capture_output=True, encoding="utf-8", check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("recipe", ["ansible.yaml", "nomad.hcl", "swarm.sh"])
def test_the_page_leads_to_the_recipe(recipe: str) -> None:
    """And what the recipe's first lines say to type names the file."""
    assert f"({recipe})" in (RECIPES / "index.md").read_text(encoding="utf-8")
    text = (RECIPES / recipe).read_text(encoding="utf-8")
    assert re.search(rf"^# .*docs/fleet/{recipe}", text, re.MULTILINE)
