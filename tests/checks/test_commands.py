"""Commands to paste, where a mesh is on several hosts: Docker knows no `web@east`."""

import json
from pathlib import Path

import pytest

from meshdoctor.diagnosis import examine, load_checks
from meshdoctor.snapshot import open_snapshot
from meshdoctor.snapshot.merging import Part, merge
from meshdoctor_checks.commands import quoted

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("docker", "restart", "web"), "docker restart web"),
        (("docker", "restart", "web@east"), "docker restart web  # on east"),
        (("docker", "rename", "a@e.x:1", "a-old"), "docker rename a a-old  # on e.x:1"),
        (
            ("docker", "run", "--network", "container:web@east", "me/x@sha256:1", "a@b"),
            "docker run --network container:web me/x@sha256:1 a@b  # on east",
        ),
        (("docker", "run", "--name", "web@east", "i"), "docker run --name web i  # on east"),
        (("curl", "me@east"), "curl me@east"),
        # A host is called whatever a stranger's engine says.
        (("docker", "rm", "web@a\nb"), "docker rm 'web@a\nb'"),
        (("docker", "rm", "web@$(id)"), "docker rm 'web@$(id)'"),
    ],
)
def test_docker_is_told_the_name_that_it_knows(words: tuple[str, ...], said: str) -> None:
    """And a comment tells on which host."""
    assert quoted(*words) == said


def test_no_command_names_a_container_that_no_engine_has() -> None:
    """Of the same broken mesh on two hosts."""
    parts = []
    for host in ("east", "west"):
        whole = open_snapshot(MESHES / "broken.tgz")
        found = {name: whole.read(name) for name in whole.names()}
        listed = json.loads(found["docker/containers.json"])
        for each in listed:
            each["Id"] = f"{host}-{each['Id']}"
            # No Compose file: its remedies name containers then.
            each["Config"]["Labels"] = {}
        found["docker/containers.json"] = json.dumps(listed).encode()
        found["docker/info.json"] = json.dumps({"Name": host}).encode()
        parts.append(Part(host, type(whole)(found)))
    report = examine(merge(parts), load_checks(), {"kind": "live"})
    commands = [
        command
        for each in report.findings
        for remedy in each.remedies
        for command in remedy.commands
        if command.startswith("docker ")
    ]
    assert any(command.endswith(("  # on east", "  # on west")) for command in commands)
    assert not [command for command in commands if "@" in command.partition("  # on ")[0]]
